/*
 * options.h
 *		One option table serves to check, to parse and to explain.
 *
 * Every source, every format and the pipeline itself owns one static table of
 * IngestOptionDef.  From it come the validation of CREATE SERVER / USER
 * MAPPING / FOREIGN TABLE and of options jsonb, the struct the code reads, the
 * "did you mean" hints, the view ingest.option_help and the documentation.
 */
#ifndef INGEST_OPTIONS_H
#define INGEST_OPTIONS_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef enum IngestOptionType
{
	INGEST_OPTION_BOOL,			/* bool */
	INGEST_OPTION_INT,			/* int64 within [min, max] */
	INGEST_OPTION_BYTES,		/* int64, text like '64 MB', units of pg_size_bytes */
	INGEST_OPTION_MS,			/* int64 milliseconds, text is an interval: '20 ms', '1 minute' */
	INGEST_OPTION_FLOAT,		/* double within [min, max] */
	INGEST_OPTION_TEXT,			/* char *, NULL when not given */
	INGEST_OPTION_ENUM			/* int, the index in values[] */
} IngestOptionType;

/* Where an option may be written; a mask. */
#define INGEST_SCOPE_SERVER		(1 << 0)
#define INGEST_SCOPE_USER		(1 << 1)	/* user mapping */
#define INGEST_SCOPE_TABLE		(1 << 2)	/* foreign table */
#define INGEST_SCOPE_COLUMN		(1 << 3)	/* column of a foreign table */
#define INGEST_SCOPE_PIPELINE	(1 << 4)	/* options jsonb of a pipeline */

typedef struct IngestOptionDef
{
	const char *name;			/* "topic"; "rdkafka.*" takes any key with the prefix, see below */
	int			scope;			/* INGEST_SCOPE_* mask */
	IngestOptionType type;
	size_t		offset;			/* of the field in the options struct */
	const char *fallback;		/* default as text, parsed like a given value; NULL: zero/NULL */
	double		min;			/* numbers only; both 0: no range */
	double		max;
	const char *const *values;	/* ENUM: NULL-terminated */
	bool		required;
	bool		secret;			/* never shown, never in a message; may be 'env:NAME' or 'file:/path' */
	const char *help;			/* a sentence for ingest.option_help */

	/*
	 * Further check of the text; raises ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE
	 * or ERRCODE_INVALID_PARAMETER_VALUE.  For "prefix.*" it gets the whole
	 * key as name.
	 */
	void		(*check) (const char *name, const char *value);
} IngestOptionDef;

/*
 * A table ends with an entry whose name is NULL.
 *
 * An entry "prefix.*" is of type TEXT and its field is a List * of DefElem
 * (name without prefix, String value).
 */
#define INGEST_OPTION_END {NULL}

/*
 * Check one name and value against a NULL-terminated list of tables (several
 * tables: a foreign table takes its source's and its format's options).
 * Unknown name: error with "did you mean" hint.  raises: yes
 */
extern void ingest_option_check(const IngestOptionDef *const *tables, int scope,
								const char *name, const char *value);

/* Every required option of that scope is in options (a List of DefElem). raises: yes */
extern void ingest_option_check_required(const IngestOptionDef *const *tables, int scope,
										 List *options);

/*
 * Set defaults, then the options (a List of DefElem with String values) into
 * the zeroed struct at "into".  Options that the table does not know are left
 * alone: the caller has checked them, or they belong to another table.
 * mcxt: current.  raises: yes
 */
extern void ingest_option_parse(const IngestOptionDef *table, List *options, void *into);

/*
 * jsonb object -> List of DefElem; scalars become their text, null removes the
 * key, nested objects are flattened with a dot ({"rdkafka": {"x": 1}}).
 * mcxt: current.  raises: when it is not an object, or holds an array
 */
extern List *ingest_option_from_jsonb(Jsonb *options);

/*
 * The value of a secret option: a literal, 'env:NAME' or 'file:/path'.  The
 * reference forms are for roles that may read server files
 * (pg_read_server_files) or superusers; anybody else gets an error, since the
 * server's environment and files are not theirs.  A file is a regular file of
 * at most 64 kB; one trailing newline is cut.
 * mcxt: current.  raises: yes, never with the secret in it
 */
extern char *ingest_option_secret(const char *name, const char *value, Oid owner);

/*
 * "Did you mean": begin with what was written, consider each name there is;
 * "match" is the most similar one, or NULL.  raises: no
 */
typedef struct IngestClosest
{
	const char *name;
	const char *match;
	int			distance;
} IngestClosest;

extern void ingest_closest_begin(IngestClosest *closest, const char *name);
extern void ingest_closest_consider(IngestClosest *closest, const char *candidate);

/* Text of scope ("server", "user mapping", ...) and type.  raises: no */
extern const char *ingest_option_scope_name(int scope);
extern const char *ingest_option_type_name(IngestOptionType type);

#endif							/* INGEST_OPTIONS_H */
