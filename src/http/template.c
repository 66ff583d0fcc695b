/*
 * template.c
 *		Texts with {names} in them, and the joining of URLs out of parts.
 *
 * A value never leaves the place where its name stands: it is escaped for it,
 * or refused.  Bytes are those of the database's encoding; no byte of them is
 * taken for granted, but for the zero at the end.
 */
#include "postgres.h"

#include "core/compat.h"
#include "core/options.h"
#include "http/template.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

/* A piece of literal text, or a name. */
typedef struct Piece
{
	bool		is_name;
	char	   *text;
	bool		in_path;		/* URL: before the query */
	bool		whole;			/* URL, form: all of a parameter's value */
	bool		quoted;			/* JSON: within a string */
} Piece;

struct IngestTemplate
{
	IngestTemplateKind kind;
	List	   *pieces;			/* of Piece * */
};

/* Where in the text we are, as far as escaping depends on it. */
typedef struct Place
{
	IngestTemplateKind kind;
	bool		in_query;		/* URL; a form is nothing else */
	bool		in_fragment;
	bool		in_value;		/* of a parameter, behind the first = */
	bool		at_start;		/* of the value */
	bool		in_authority;	/* of an absolute URL */
	bool		in_string;		/* JSON */
	bool		escaped;		/* JSON: behind a backslash */
} Place;

/* ---- characters ---- */

static bool
is_control(char c)
{
	return (unsigned char) c < 0x20 || c == 0x7F;
}

static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		c == '_' || IS_HIGHBIT_SET(c);
}

static bool
is_unreserved(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		c == '-' || c == '.' || c == '_' || c == '~';
}

static bool
is_absolute_url(const char *text)
{
	return pg_strncasecmp(text, "http://", 7) == 0 || pg_strncasecmp(text, "https://", 8) == 0;
}

static void
append_percent(StringInfo out, char c)
{
	static const char digits[] = "0123456789ABCDEF";

	appendStringInfoChar(out, '%');
	appendStringInfoChar(out, digits[(unsigned char) c >> 4]);
	appendStringInfoChar(out, digits[(unsigned char) c & 15]);
}

static void
append_encoded(StringInfo out, const char *value, bool plus)
{
	for (; *value; value++)
	{
		if (is_unreserved(*value))
			appendStringInfoChar(out, *value);
		else if (*value == ' ' && plus)
			appendStringInfoChar(out, '+');
		else
			append_percent(out, *value);
	}
}

/* ---- parsing ---- */

static void
move_on(Place *place, char c)
{
	switch (place->kind)
	{
		case INGEST_TEMPLATE_JSON:
			if (place->escaped)
				place->escaped = false;
			else if (c == '\\' && place->in_string)
				place->escaped = true;
			else if (c == '"')
				place->in_string = !place->in_string;
			break;
		case INGEST_TEMPLATE_URL:
			if (c == '#')
				place->in_fragment = true;
			if (c == '/' || c == '?' || c == '#')
				place->in_authority = false;
			if (c == '?' && !place->in_query && !place->in_fragment)
			{
				place->in_query = true;
				place->in_value = false;
				break;
			}
			/* FALLTHROUGH */
		case INGEST_TEMPLATE_FORM:
			place->at_start = c == '=' && place->in_query && !place->in_value;
			if (c == '&')
				place->in_value = false;
			else if (c == '=')
				place->in_value = true;
			break;
		case INGEST_TEMPLATE_HEADER:
		case INGEST_TEMPLATE_XML:
		case INGEST_TEMPLATE_TEXT:
			break;
	}
}

static void
add_literal(IngestTemplate *tmpl, StringInfo literal)
{
	Piece	   *piece;

	if (literal->len == 0)
		return;
	piece = palloc0(sizeof(Piece));
	piece->text = pnstrdup(literal->data, literal->len);
	tmpl->pieces = lappend(tmpl->pieces, piece);
	resetStringInfo(literal);
}

/* The name of the len bytes; "rest" is what follows its brace. */
static void
add_name(IngestTemplate *tmpl, const Place *place, const char *name, int len, const char *rest)
{
	Piece	   *piece = palloc0(sizeof(Piece));

	piece->is_name = true;
	piece->text = pnstrdup(name, len);
	piece->in_path = tmpl->kind == INGEST_TEMPLATE_URL && !place->in_query && !place->in_fragment;
	piece->whole = place->at_start && !place->in_fragment &&
		(*rest == '\0' || *rest == '&' || (*rest == '#' && tmpl->kind == INGEST_TEMPLATE_URL));
	piece->quoted = place->in_string;
	tmpl->pieces = lappend(tmpl->pieces, piece);
}

/* In a URL what may not stand there is encoded, where that changes nothing else. */
static void
append_literal(StringInfo literal, const Place *place, char c)
{
	if (place->kind == INGEST_TEMPLATE_URL && !place->in_authority && (c == ' ' || IS_HIGHBIT_SET(c)))
		append_percent(literal, c);
	else
		appendStringInfoChar(literal, c);
}

static bool
is_known(const char *name, int len, const char *const *names)
{
	for (; *names; names++)
		if (strlen(*names) == len && strncmp(*names, name, len) == 0)
			return true;
	return false;
}

pg_noreturn static void
raise_unknown(const char *option, const char *name, int len, const char *const *names)
{
	StringInfoData list;
	IngestClosest closest;

	initStringInfo(&list);
	ingest_closest_begin(&closest, pnstrdup(name, len));
	for (int i = 0; names[i]; i++)
	{
		appendStringInfo(&list, "%s{%s}", i > 0 ? ", " : "", names[i]);
		ingest_closest_consider(&closest, names[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("unknown name \"{%s}\" in option \"%s\"", closest.name, option),
			 names[0] ? errdetail("The names there are: %s.", list.data) :
			 errdetail("There are no names for this option."),
			 closest.match ? errhint("Did you mean \"{%s}\"?", closest.match) : 0));
	pg_unreachable();
}

pg_noreturn static void
raise_brace(const char *option, char brace)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", option),
			 errdetail("It has a brace \"%c\" that is not part of a {name}.", brace),
			 errhint("Write \"%c%c\" for the brace itself.", brace, brace)));
	pg_unreachable();
}

/* Bytes between the brace at p and its counterpart that may be a name; 0: none. */
static int
measure_name(const char *p)
{
	int			len = 0;

	while (is_name_char(p[1 + len]))
		len++;
	return p[1 + len] == '}' ? len : 0;
}

/*
 * What the brace at p begins.  Returns how many bytes it takes, or 0: it is a
 * character as any other.
 */
static int
parse_brace(IngestTemplate *tmpl, const Place *place, const char *option, const char *p,
			const char *const *names, StringInfo literal)
{
	bool		json = tmpl->kind == INGEST_TEMPLATE_JSON;
	int			len;

	if (place->escaped)
		return 0;
	if (!json && p[1] == p[0])
	{
		appendStringInfoChar(literal, *p);
		return 2;
	}
	len = *p == '{' ? measure_name(p) : 0;
	if (len > 0 && is_known(p + 1, len, names))
	{
		add_literal(tmpl, literal);
		add_name(tmpl, place, p + 1, len, p + len + 2);
		return len + 2;
	}

	/* Outside strings JSON has no bare words in braces: somebody meant a name. */
	if (len > 0 && (!json || !place->in_string))
		raise_unknown(option, p + 1, len, names);
	if (!json)
		raise_brace(option, *p);
	return 0;
}

IngestTemplate *
ingest_template_parse(const char *option, const char *text, IngestTemplateKind kind,
					  const char *const *names)
{
	IngestTemplate *tmpl = palloc0(sizeof(IngestTemplate));
	Place		place = {.kind = kind, .in_query = kind == INGEST_TEMPLATE_FORM};
	const char *p = text;
	StringInfoData literal;

	tmpl->kind = kind;
	initStringInfo(&literal);

	if (kind == INGEST_TEMPLATE_URL && is_absolute_url(text))
	{
		const char *host = strstr(text, "://") + 3;

		appendBinaryStringInfo(&literal, text, host - text);
		place.in_authority = true;
		p = host;
	}
	while (*p)
	{
		int			taken = 0;

		if (is_control(*p) && (kind == INGEST_TEMPLATE_URL || kind == INGEST_TEMPLATE_HEADER))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\"", option),
					 errdetail("It has a control character, such as a line break.")));
		if (*p == '{' || *p == '}')
			taken = parse_brace(tmpl, &place, option, p, names, &literal);
		if (taken == 0)
		{
			append_literal(&literal, &place, *p);
			move_on(&place, *p);
			taken = 1;
		}
		else
			place.at_start = false;
		p += taken;
	}
	add_literal(tmpl, &literal);
	pfree(literal.data);
	return tmpl;
}

bool
ingest_template_uses(const IngestTemplate *tmpl, const char *name)
{
	ListCell   *lc;

	foreach(lc, tmpl->pieces)
	{
		Piece	   *piece = lfirst(lc);

		if (piece->is_name && strcmp(piece->text, name) == 0)
			return true;
	}
	return false;
}

/* ---- filling ---- */

static void
append_json_content(StringInfo out, const char *value)
{
	for (; *value; value++)
		switch (*value)
		{
			case '"':
				appendStringInfoString(out, "\\\"");
				break;
			case '\\':
				appendStringInfoString(out, "\\\\");
				break;
			case '\n':
				appendStringInfoString(out, "\\n");
				break;
			case '\r':
				appendStringInfoString(out, "\\r");
				break;
			case '\t':
				appendStringInfoString(out, "\\t");
				break;
			default:
				if (is_control(*value))
					appendStringInfo(out, "\\u%04x", (unsigned char) *value);
				else
					appendStringInfoChar(out, *value);
		}
}

static const char *
skip_digits(const char *p)
{
	while (*p >= '0' && *p <= '9')
		p++;
	return p;
}

/* A number as JSON has them. */
static bool
is_json_number(const char *p)
{
	const char *digits;

	if (*p == '-')
		p++;
	digits = p;
	p = skip_digits(p);
	if (p == digits || (*digits == '0' && p > digits + 1))
		return false;
	if (*p == '.')
	{
		digits = p + 1;
		p = skip_digits(digits);
		if (p == digits)
			return false;
	}
	if (*p == 'e' || *p == 'E')
	{
		digits = p + (p[1] == '+' || p[1] == '-' ? 2 : 1);
		p = skip_digits(digits);
		if (p == digits)
			return false;
	}
	return *p == '\0';
}

static void
append_json_value(StringInfo out, const char *value)
{
	if (value == NULL)
		appendStringInfoString(out, "null");
	else if (is_json_number(value) || strcmp(value, "true") == 0 ||
			 strcmp(value, "false") == 0 || strcmp(value, "null") == 0)
		appendStringInfoString(out, value);
	else
	{
		appendStringInfoChar(out, '"');
		append_json_content(out, value);
		appendStringInfoChar(out, '"');
	}
}

/* Cut the parameter off whose value was to come. */
static void
drop_parameter(StringInfo out, IngestTemplateKind kind)
{
	int			start = 0;

	if (kind == INGEST_TEMPLATE_URL)
	{
		const char *query = strchr(out->data, '?');

		start = query ? query - out->data + 1 : out->len;
	}
	/* Values are encoded: what separates is literal. */
	while (out->len > start && out->data[out->len - 1] != '&')
		out->len--;
	out->data[out->len] = '\0';
}

/* A separator that nothing follows. */
static void
drop_separator(StringInfo out)
{
	if (out->len > 0 && (out->data[out->len - 1] == '&' || out->data[out->len - 1] == '?'))
		out->data[--out->len] = '\0';
}

/* Length of a dot at p, which may be encoded; 0: there is none. */
static int
measure_dot(const char *p)
{
	if (*p == '.')
		return 1;
	return p[0] == '%' && p[1] == '2' && (p[2] == 'e' || p[2] == 'E') ? 3 : 0;
}

/* Is the segment of the path around this place nothing but one or two dots? */
static bool
is_dot_segment(const char *text, int at)
{
	const char *p = text + at;
	int			dots = 0;

	while (p > text && p[-1] != '/')
		p--;
	for (int len; (len = measure_dot(p)) > 0; p += len)
		dots++;
	return (dots == 1 || dots == 2) && (*p == '\0' || strchr("/?#", *p) != NULL);
}

/* Line breaks and the like would end a header, and XML has no way to write them. */
static bool
may_stand(IngestTemplateKind kind, const char *value)
{
	if (kind != INGEST_TEMPLATE_HEADER && kind != INGEST_TEMPLATE_XML)
		return true;
	for (; *value; value++)
		if (is_control(*value) &&
			(kind == INGEST_TEMPLATE_HEADER || strchr("\t\n\r\x7F", *value) == NULL))
			return false;
	return true;
}

static void
append_xml(StringInfo out, const char *value)
{
	for (; *value; value++)
		if (strchr("&<>\"'\t\n\r", *value))
			appendStringInfo(out, "&#%d;", *value);
		else
			appendStringInfoChar(out, *value);
}

static void
append_value(StringInfo out, IngestTemplateKind kind, const Piece *piece, const char *value)
{
	switch (kind)
	{
		case INGEST_TEMPLATE_URL:
		case INGEST_TEMPLATE_FORM:
			append_encoded(out, value ? value : "", kind == INGEST_TEMPLATE_FORM);
			break;
		case INGEST_TEMPLATE_JSON:
			/* A token is text, though it may look like a number: so it is where it came from, as a rule. */
			if (!piece->quoted && value && strcmp(piece->text, "token") == 0)
			{
				appendStringInfoChar(out, '"');
				append_json_content(out, value);
				appendStringInfoChar(out, '"');
			}
			else if (!piece->quoted)
				append_json_value(out, value);
			else if (value)
				append_json_content(out, value);
			break;
		case INGEST_TEMPLATE_XML:
			append_xml(out, value ? value : "");
			break;
		case INGEST_TEMPLATE_HEADER:
		case INGEST_TEMPLATE_TEXT:
			appendStringInfoString(out, value ? value : "");
			break;
	}
}

/*
 * A segment . or .. would lead out of the path that was written down.  "places"
 * says where the text of each piece begins.  Returns the name that makes one.
 */
static const char *
find_way_out(const IngestTemplate *tmpl, const char *text, const int *places)
{
	int			i = 0;
	ListCell   *lc;

	foreach(lc, tmpl->pieces)
	{
		Piece	   *piece = lfirst(lc);

		if (piece->is_name && piece->in_path && is_dot_segment(text, places[i]))
			return piece->text;
		i++;
	}
	return NULL;
}

char *
ingest_template_fill(const IngestTemplate *tmpl,
					 const char *(*lookup) (const void *arg, const char *name),
					 const void *arg, const char **why)
{
	int		   *places = palloc(Max(list_length(tmpl->pieces), 1) * sizeof(int));
	bool		dropped = false;	/* the last thing was a parameter without a value */
	int			i = 0;
	StringInfoData out;
	ListCell   *lc;

	initStringInfo(&out);
	foreach(lc, tmpl->pieces)
	{
		Piece	   *piece = lfirst(lc);
		const char *text = piece->is_name ? lookup(arg, piece->text) : piece->text;

		places[i++] = out.len;
		if (!piece->is_name)
		{
			if (dropped && *text == '&')
				text++;
			else if (dropped)
				drop_separator(&out);
			dropped = false;
			appendStringInfoString(&out, text);
			continue;
		}
		if (text && !may_stand(tmpl->kind, text))
		{
			*why = piece->text;
			return NULL;
		}
		dropped = piece->whole && text == NULL;
		if (dropped)
			drop_parameter(&out, tmpl->kind);
		else
			append_value(&out, tmpl->kind, piece, text);
	}
	if (dropped)
		drop_separator(&out);
	*why = find_way_out(tmpl, out.data, places);
	pfree(places);
	return *why ? NULL : out.data;
}

/* ---- URLs ---- */

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Is the encoded text the plain one? */
static bool
means(const char *encoded, const char *end, const char *plain)
{
	while (encoded < end)
	{
		char		c = *encoded++;

		if (c == '+')
			c = ' ';
		else if (c == '%' && end - encoded >= 2 && hex_digit(encoded[0]) >= 0 && hex_digit(encoded[1]) >= 0)
		{
			c = (char) (hex_digit(encoded[0]) << 4 | hex_digit(encoded[1]));
			encoded += 2;
		}
		if (c == '\0' || c != *plain++)
			return false;
	}
	return *plain == '\0';
}

static void
append_parameter(StringInfo out, const char *name, const char *value)
{
	append_encoded(out, name, false);
	appendStringInfoChar(out, '=');
	append_encoded(out, value, false);
}

char *
ingest_template_set_parameter(const char *url, const char *name, const char *value)
{
	const char *end = url + strcspn(url, "#");
	const char *p = url + strcspn(url, "?#");
	char		separator = '?';
	bool		done = value == NULL;
	StringInfoData out;

	initStringInfo(&out);
	appendBinaryStringInfo(&out, url, p - url);
	while (p < end)
	{
		const char *from = ++p;

		p += strcspn(p, "&#");
		if (p == from)
			continue;
		if (means(from, from + strcspn(from, "=&#"), name))
		{
			if (done)
				continue;
			appendStringInfoChar(&out, separator);
			append_parameter(&out, name, value);
			done = true;
		}
		else
		{
			appendStringInfoChar(&out, separator);
			appendBinaryStringInfo(&out, from, p - from);
		}
		separator = '&';
	}
	if (!done)
	{
		appendStringInfoChar(&out, separator);
		append_parameter(&out, name, value);
	}
	appendStringInfoString(&out, end);
	return out.data;
}

char *
ingest_template_join(const char *base, const char *path)
{
	int			len = strcspn(base, "?#");
	const char *query = base + len;
	int			query_len = *query == '?' ? strcspn(query, "#") : 0;
	StringInfoData out;

	if (is_absolute_url(path))
		return pstrdup(path);

	initStringInfo(&out);
	if (*path != '\0' && *path != '?' && *path != '#')
	{
		while (len > 0 && base[len - 1] == '/')
			len--;
		while (*path == '/')
			path++;
		appendBinaryStringInfo(&out, base, len);
		appendStringInfoChar(&out, '/');
	}
	else
		appendBinaryStringInfo(&out, base, len);

	/* The parameters of the base go before those of the path. */
	len = strcspn(path, "?#");
	appendBinaryStringInfo(&out, path, len);
	path += len;
	if (query_len > 1)
	{
		appendBinaryStringInfo(&out, query, query_len);
		if (*path == '?')
		{
			path++;
			if (*path != '\0' && *path != '#')
				appendStringInfoChar(&out, '&');
		}
	}
	appendStringInfoString(&out, path);
	return out.data;
}
