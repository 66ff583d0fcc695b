/*
 * template.h
 *		Texts with {names} in them: paths, queries, bodies, headers.
 *
 * Parsed once, at definition time too; filled for each request, with each value
 * escaped for the place where it stands.  Pure.
 */
#ifndef INGEST_HTTP_TEMPLATE_H
#define INGEST_HTTP_TEMPLATE_H

#include "postgres.h"

typedef enum IngestTemplateKind
{
	INGEST_TEMPLATE_URL,		/* percent-encoded; in the path a slash too */
	INGEST_TEMPLATE_JSON,		/* a body of JSON: within quotes escaped as a string's content,
								 * outside them as a JSON value (a string with its quotes; numbers,
								 * true, false, null as they are) */
	INGEST_TEMPLATE_FORM,		/* a body of form fields: percent-encoded, space as plus */
	INGEST_TEMPLATE_HEADER,		/* as it is; control characters make it fail */
	INGEST_TEMPLATE_XML,		/* a body of XML: what means something is a character reference */
	INGEST_TEMPLATE_TEXT		/* any other body: as it is */
} IngestTemplateKind;

typedef struct IngestTemplate IngestTemplate;

/*
 * {name}: letters, digits, underscores; {{ and }} stand for braces.  In JSON a
 * brace that does not begin a {name} of "names" is itself, and braces are not
 * doubled; outside strings {word} is an error all the same, since it is no JSON.
 * In the literal text of a URL blanks and bytes that are no ASCII are encoded;
 * control characters there and in headers are errors.  names: NULL-terminated, those
 * that may be used.  mcxt: current.  raises: ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE
 * with the option's name, "did you mean" and the names there are
 */
extern IngestTemplate *ingest_template_parse(const char *option, const char *text,
											 IngestTemplateKind kind, const char *const *names);

extern bool ingest_template_uses(const IngestTemplate *tmpl, const char *name);

/*
 * The text; lookup gives the value of a name, NULL: none, which is an empty
 * text (in a JSON value: null).  In a URL or form, a parameter whose whole value is
 * one {name} without a value is left out.  NULL: *why is the name whose value cannot
 * stand there (control characters in a header or XML; "." and ".." as a part of a
 * path).  mcxt: current
 */
extern char *ingest_template_fill(const IngestTemplate *tmpl,
								  const char *(*lookup) (const void *arg, const char *name),
								  const void *arg, const char **why);

/*
 * url with one more query parameter, or with another value for it (once, where it
 * was); both encoded.  value NULL: without it.  mcxt: current
 */
extern char *ingest_template_set_parameter(const char *url, const char *name, const char *value);

/*
 * base and path joined by exactly one slash; a path that is absolute (http://)
 * stands alone.  Parameters of the base stay, before those of the path.
 */
extern char *ingest_template_join(const char *base, const char *path);

#endif							/* INGEST_HTTP_TEMPLATE_H */
