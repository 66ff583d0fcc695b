/*
 * records_xml.c
 *		Elements of a name out of an XML body that comes in pieces.
 *
 * This finds where elements begin and end, and no more: it knows tags, quotes in
 * them, comments, CDATA and processing instructions, and that tags match.  What
 * is in an element is the format's business, with a whole parser (xml.c).  A
 * parser's push interface instead would not say which bytes an element has, keep
 * memory of its own between calls, and parse all twice.
 *
 * Nothing is ever expanded here, and a document type is refused: no entities.
 */
#include "postgres.h"

#include "format/records_private.h"
#include "utils/memutils.h"

/* Longest start tags around the rows: they go in front of each row, and into the position. */
#define MAX_OPEN (16 * 1024)

/* Most declarations of namespaces in force around the rows. */
#define MAX_SPACES 100

/* What the scan is in. */
typedef enum Token
{
	TOKEN_TEXT,
	TOKEN_TAG,
	TOKEN_COMMENT,
	TOKEN_CDATA,
	TOKEN_INSTRUCTION
} Token;

/* An open element. */
typedef struct Element
{
	int			name;			/* where its name begins in "names" */
	int			open;			/* where its start tag begins in "open" */
} Element;

typedef struct Attribute
{
	const char *text;			/* name="value" */
	int			name_len;
	int			len;
	bool		hidden;			/* a declaration of a namespace that the row has itself */
} Attribute;

struct IngestXmlCutter
{
	Token		token;
	Size		begin;			/* of the token */
	Size		body;			/* of comments and the like: from where their end counts */
	char		quote;			/* within a tag: the quote that is open, or 0 */
	bool		in_row;
	Size		row;			/* where the row begins */
	int			row_depth;
	bool		seen_root;
	int			depth;
	Element    *elements;
	int			max_elements;
	StringInfoData names;		/* of open elements */
	StringInfoData open;		/* start tags of open elements, those of a row excepted */
	Attribute	spaces[MAX_SPACES]; /* declarations in force around rows, in "open" */
	int			nspaces;
	bool		spaces_known;
};

IngestXmlCutter *
ingest_xml_cutter_create(void)
{
	IngestXmlCutter *xml = palloc0(sizeof(IngestXmlCutter));

	initStringInfo(&xml->names);
	initStringInfo(&xml->open);
	xml->max_elements = 16;
	xml->elements = palloc(sizeof(Element) * xml->max_elements);
	return xml;
}

const char *
ingest_xml_cutter_open(const IngestXmlCutter *xml, Size *len)
{
	*len = xml->open.len;
	return xml->seen_root ? xml->open.data : NULL;
}

static IngestRecordsNext
fail(IngestRowError *err, const char *message, Size at)
{
	return ingest_records_fail(err, ERRCODE_INVALID_XML_DOCUMENT, message, at);
}

/*
 * ---- Tags
 */

static inline bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Roughly: the parser looks again. */
static inline bool
begins_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
		(unsigned char) c >= 0x80;
}

static int
name_length(const char *name, const char *end)
{
	const char *p = name;

	while (p < end && !is_space(*p) && *p != '>' && *p != '/' && *p != '=')
		p++;
	return p - name;
}

/* The next attribute of a start tag, from p; NULL: none. */
static const char *
next_attribute(const char *p, const char *end, Attribute *attribute)
{
	char		quote;

	while (p < end && is_space(*p))
		p++;
	if (p >= end || !begins_name(*p))
		return NULL;
	attribute->text = p;
	attribute->name_len = name_length(p, end);
	p += attribute->name_len;
	while (p < end && is_space(*p))
		p++;
	if (p >= end || *p != '=')
		return NULL;
	for (p++; p < end && is_space(*p);)
		p++;
	if (p >= end || (*p != '"' && *p != '\''))
		return NULL;
	quote = *p++;
	while (p < end && *p != quote)
		p++;
	if (p >= end)
		return NULL;
	attribute->len = p + 1 - attribute->text;
	return p + 1;
}

static bool
declares_space(const Attribute *attribute)
{
	const char *prefix = attribute->text + 6;
	int			len = attribute->name_len - 6;

	if (attribute->name_len < 5 || memcmp(attribute->text, "xmlns", 5) != 0)
		return false;
	return attribute->name_len == 5 ||
		(prefix[-1] == ':' && len > 0 && begins_name(*prefix) && memchr(prefix, ':', len) == NULL);
}

static Attribute *
find_space(Attribute *spaces, int n, const Attribute *attribute)
{
	for (int i = 0; i < n; i++)
		if (spaces[i].name_len == attribute->name_len &&
			memcmp(spaces[i].text, attribute->text, attribute->name_len) == 0)
			return &spaces[i];
	return NULL;
}

/* The declarations of the open start tags; inner ones hide outer ones.  False: too many. */
static bool
collect_spaces(IngestXmlCutter *xml)
{
	const char *p = xml->open.data;
	const char *end = p + xml->open.len;

	xml->nspaces = 0;
	while (p < end)
	{
		Attribute	attribute;
		const char *next;

		/* at a start tag */
		p += 1 + name_length(p + 1, end);
		for (; (next = next_attribute(p, end, &attribute)) != NULL; p = next)
		{
			Attribute  *known;

			if (!declares_space(&attribute))
				continue;
			known = find_space(xml->spaces, xml->nspaces, &attribute);
			if (known == NULL)
			{
				if (xml->nspaces == MAX_SPACES)
					return false;
				known = &xml->spaces[xml->nspaces++];
			}
			*known = attribute;
		}
		p = memchr(p, '>', end - p);
		if (p == NULL)
			break;
		p++;
	}
	xml->spaces_known = true;
	return true;
}

/* Those that the row's own start tag declares need not be given to it. */
static void
hide_spaces(IngestXmlCutter *xml, const char *row, const char *end)
{
	const char *p = row + 1 + name_length(row + 1, end);
	Attribute	attribute;

	for (int i = 0; i < xml->nspaces; i++)
		xml->spaces[i].hidden = false;
	while ((p = next_attribute(p, end, &attribute)) != NULL)
	{
		Attribute  *known = declares_space(&attribute) ?
			find_space(xml->spaces, xml->nspaces, &attribute) : NULL;

		if (known)
			known->hidden = true;
	}
}

/* The row, with the declarations that are in force around it. */
static bool
give_row(IngestRecords *r, const char *row, Size len, const char **record, Size *record_len)
{
	IngestXmlCutter *xml = r->xml;
	const char *end = row + len;
	int			name_len = name_length(row + 1, end);

	*record = row;
	*record_len = len;
	if (!xml->spaces_known && !collect_spaces(xml))
		return false;
	if (xml->nspaces == 0)
		return true;
	hide_spaces(xml, row, end);
	resetStringInfo(&r->record);
	appendBinaryStringInfo(&r->record, row, 1 + name_len);
	for (int i = 0; i < xml->nspaces; i++)
		if (!xml->spaces[i].hidden)
		{
			appendStringInfoChar(&r->record, ' ');
			appendBinaryStringInfo(&r->record, xml->spaces[i].text, xml->spaces[i].len);
		}
	appendBinaryStringInfo(&r->record, row + 1 + name_len, len - 1 - name_len);
	*record = r->record.data;
	*record_len = r->record.len;
	return true;
}

static void
push_element(IngestXmlCutter *xml, const char *name, int len)
{
	if (xml->depth == xml->max_elements)
	{
		xml->max_elements *= 2;
		xml->elements = repalloc(xml->elements, sizeof(Element) * xml->max_elements);
	}
	xml->elements[xml->depth].name = xml->names.len;
	xml->elements[xml->depth].open = xml->open.len;
	xml->depth++;
	appendBinaryStringInfo(&xml->names, name, len);
}

/* False: the tag does not match. */
static bool
pop_element(IngestXmlCutter *xml, const char *name, int len)
{
	const Element *element;

	if (xml->depth == 0)
		return false;
	element = &xml->elements[xml->depth - 1];
	if (xml->names.len - element->name != len ||
		memcmp(xml->names.data + element->name, name, len) != 0)
		return false;
	xml->depth--;
	xml->names.len = element->name;
	if (xml->open.len != element->open)
	{
		xml->open.len = element->open;
		xml->spaces_known = false;
	}
	return true;
}

static bool
is_row(const IngestRecords *r, const char *name, int len)
{
	const char *colon = memchr(name, ':', len);
	const char *local = colon ? colon + 1 : name;
	int			local_len = name + len - local;

	return strlen(r->options.element) == local_len &&
		memcmp(local, r->options.element, local_len) == 0;
}

/* A whole start tag.  RECORD: it is a row by itself; MORE: go on. */
static IngestRecordsNext
start_tag(IngestRecords *r, const char *data, Size begin, Size end, IngestRowError *err)
{
	IngestXmlCutter *xml = r->xml;
	const char *name = data + begin + 1;
	int			len = name_length(name, data + end);
	bool		empty = data[end - 2] == '/';
	bool		row;

	if (xml->depth == 0 && xml->seen_root)
		return fail(err, "XML has more than one root element", begin);
	if (xml->depth >= r->options.max_depth)
		return ingest_records_fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								   "XML is nested too deeply", begin);
	xml->seen_root = true;
	row = !xml->in_row && is_row(r, name, len);
	if (row)
	{
		xml->in_row = true;
		xml->row = begin;
		xml->row_depth = xml->depth;
	}
	if (empty)
		return row ? INGEST_RECORDS_RECORD : INGEST_RECORDS_MORE;
	push_element(xml, name, len);
	if (!xml->in_row)
	{
		if (memchr(data + begin, '\0', end - begin))
			return fail(err, "malformed tag", begin);
		if (xml->open.len + (end - begin) > MAX_OPEN)
			return ingest_records_fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
									   "start tags around the rows are too long", begin);
		appendBinaryStringInfo(&xml->open, data + begin, end - begin);
		xml->spaces_known = false;
	}
	return INGEST_RECORDS_MORE;
}

static IngestRecordsNext
end_tag(IngestRecords *r, const char *data, Size begin, Size end, IngestRowError *err)
{
	IngestXmlCutter *xml = r->xml;
	const char *name = data + begin + 2;
	int			len = name_length(name, data + end);

	for (const char *p = name + len; p < data + end - 1; p++)
		if (!is_space(*p))
			return fail(err, "malformed end tag", begin);
	if (!pop_element(xml, name, len))
		return fail(err, "end tag does not match the start tag", begin);
	return xml->in_row && xml->depth == xml->row_depth ? INGEST_RECORDS_RECORD : INGEST_RECORDS_MORE;
}

/*
 * ---- Scanning
 */

/* What a '<' begins, when it can be told from so few bytes. */
static bool
find_token(const char *p, const char *end, Token *token, Size *len, const char **why)
{
	static const struct
	{
		const char *text;
		Token		token;
	}			known[] = {
		{"<!--", TOKEN_COMMENT}, {"<![CDATA[", TOKEN_CDATA}, {"<?", TOKEN_INSTRUCTION}
	};

	*why = NULL;
	for (int i = 0; i < lengthof(known); i++)
	{
		*len = strlen(known[i].text);
		if (memcmp(p, known[i].text, Min(*len, end - p)) != 0)
			continue;
		*token = known[i].token;
		return end - p >= *len;
	}
	if (p[1] == '!')
		*why = end - p >= 9 && pg_strncasecmp(p, "<!DOCTYPE", 9) == 0 ?
			"document type declarations are not accepted" : "malformed markup";
	else if (p[1] != '/' && !begins_name(p[1]))
		*why = "malformed start tag";
	else if (p[1] == '/' && end - p >= 3 && !begins_name(p[2]))
		*why = "malformed end tag";
	*token = TOKEN_TAG;
	*len = 1;
	/* To tell what is refused some more is waited for. */
	return p[1] == '!' ? end - p >= 9 || pg_strncasecmp(p, "<!DOCTYPE", end - p) != 0 :
		p[1] != '/' || end - p >= 3;
}

/* Behind the '>' of the tag that "scanned" is in; 0: not there yet. */
static Size
scan_tag(IngestRecords *r, const char *data, Size len, IngestRowError *err, bool *bad)
{
	IngestXmlCutter *xml = r->xml;
	const char *end = data + len;

	for (const char *p = data + r->scanned; p < end; p++)
	{
		if (*p == '<')
		{
			fail(err, "malformed tag", xml->begin);
			*bad = true;
			return 0;
		}
		if (xml->quote)
		{
			if (*p == xml->quote)
				xml->quote = 0;
		}
		else if (*p == '"' || *p == '\'')
			xml->quote = *p;
		else if (*p == '>')
			return p + 1 - data;
	}
	r->scanned = len;
	return 0;
}

/* Behind the end of a comment and the like; 0: not there yet. */
static Size
scan_until(IngestRecords *r, const char *data, Size len, const char *mark)
{
	Size		n = strlen(mark);
	const char *end = data + len;
	const char *p = data + r->scanned;

	while (p < end && (p = memchr(p, '>', end - p)) != NULL)
	{
		p++;
		if (p - data >= r->xml->body + n && memcmp(p - n, mark, n) == 0)
			return p - data;
	}
	r->scanned = len;
	return 0;
}

/*
 * All that is done with: not a part of a token, so that another one can go on
 * from there.
 */
static Size
find_done(const IngestRecords *r)
{
	const IngestXmlCutter *xml = r->xml;

	return xml->in_row ? xml->row : xml->token == TOKEN_TEXT ? r->scanned : xml->begin;
}

static void
consume(IngestRecords *r, Size at, Size *consumed)
{
	IngestXmlCutter *xml = r->xml;

	r->scanned -= at;
	xml->begin = xml->begin > at ? xml->begin - at : 0;
	xml->body = xml->body > at ? xml->body - at : 0;
	xml->row = xml->row > at ? xml->row - at : 0;
	*consumed = at;
}

/* Outside of rows a token alone is waited for, and of tags any could be a row's. */
static Size
longest(const IngestRecords *r)
{
	return r->xml->in_row ? r->options.max_record : Max(r->options.max_record, MAX_OPEN);
}

static IngestRecordsNext
wait_for_more(IngestRecords *r, bool last, Size len, Size *consumed, IngestRowError *err)
{
	IngestXmlCutter *xml = r->xml;
	Size		done = find_done(r);

	if (len - done > longest(r))
		return ingest_records_too_long(r, err, done);
	if (!last)
	{
		consume(r, done, consumed);
		return INGEST_RECORDS_MORE;
	}
	if (xml->depth > 0 || xml->token != TOKEN_TEXT || r->scanned < len)
		return fail(err, "XML ends too early", len);
	consume(r, len, consumed);
	return INGEST_RECORDS_END;
}

/*
 * What is not white space between elements where no text may be.  A byte order
 * mark is let pass, and that of UTF-16 named.
 */
static bool
check_outside(const char *data, Size begin, Size end, IngestRowError *err)
{
	for (Size i = begin; i < end; i++)
	{
		unsigned char c = data[i];

		if (is_space(c) || c == 0xef || c == 0xbb || c == 0xbf)
			continue;
		fail(err, "text outside of the root element", i);
		if (c >= 0xfe)
		{
			ingest_records_fail(err, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
								"invalid byte sequence for encoding \"UTF8\"", i);
			err->detail = "A byte order mark says UTF-16.";
		}
		return false;
	}
	return true;
}

/* The text up to the next '<'; false: bad. */
static bool
scan_text(IngestRecords *r, const char *data, Size len, IngestRowError *err, bool *found)
{
	const char *begin = data + r->scanned;
	const char *lt = len > r->scanned ? memchr(begin, '<', len - r->scanned) : NULL;
	Size		end = lt ? lt - data : len;

	*found = lt != NULL;
	if (r->xml->depth == 0 && !check_outside(data, r->scanned, end, err))
		return false;
	r->scanned = end;
	return true;
}

/* What the '<' at "scanned" begins.  MORE: cannot be told yet. */
static IngestRecordsNext
begin_token(IngestRecords *r, const char *data, Size len, IngestRowError *err)
{
	IngestXmlCutter *xml = r->xml;
	const char *why = NULL;
	Token		token;
	Size		token_len;

	if (len - r->scanned < 2 ||
		!find_token(data + r->scanned, data + len, &token, &token_len, &why))
		return INGEST_RECORDS_MORE;
	if (why == NULL && token == TOKEN_CDATA && xml->depth == 0)
		why = "text outside of the root element";
	if (why)
		return fail(err, why, r->scanned);
	xml->token = token;
	xml->quote = 0;
	xml->begin = r->scanned;
	xml->body = r->scanned + token_len;
	r->scanned += token_len;
	return INGEST_RECORDS_RECORD;
}

/* Go on to the end of a token; *after: behind it, 0: not there yet. */
static IngestRecordsNext
end_token(IngestRecords *r, const char *data, Size len, Size *after, IngestRowError *err)
{
	static const char *const marks[] = {
		[TOKEN_COMMENT] = "-->", [TOKEN_CDATA] = "]]>", [TOKEN_INSTRUCTION] = "?>"
	};
	IngestXmlCutter *xml = r->xml;
	bool		bad = false;

	if (xml->token != TOKEN_TAG)
	{
		*after = scan_until(r, data, len, marks[xml->token]);
		return INGEST_RECORDS_MORE;
	}
	*after = scan_tag(r, data, len, err, &bad);
	if (bad)
		return INGEST_RECORDS_BAD;
	if (*after == 0)
		return INGEST_RECORDS_MORE;
	return data[xml->begin + 1] == '/' ? end_tag(r, data, xml->begin, *after, err) :
		start_tag(r, data, xml->begin, *after, err);
}

IngestRecordsNext
ingest_xml_cutter_next(IngestRecords *r, const char *data, Size len, bool last, Size *consumed,
					   const char **record, Size *record_len, IngestRowError *err)
{
	IngestXmlCutter *xml = r->xml;

	for (;;)
	{
		IngestRecordsNext next;
		Size		after;
		bool		found;

		if (xml->token == TOKEN_TEXT)
		{
			if (!scan_text(r, data, len, err, &found))
				return INGEST_RECORDS_BAD;
			if (!found)
				return wait_for_more(r, last, len, consumed, err);
			next = begin_token(r, data, len, err);
			if (next == INGEST_RECORDS_BAD)
				return next;
			if (next == INGEST_RECORDS_MORE)
				return wait_for_more(r, last, len, consumed, err);
		}
		next = end_token(r, data, len, &after, err);
		if (next == INGEST_RECORDS_BAD)
			return next;
		if (after == 0)
			return wait_for_more(r, last, len, consumed, err);
		if (after - xml->begin > longest(r))
			return ingest_records_too_long(r, err, xml->begin);
		r->scanned = after;
		xml->token = TOKEN_TEXT;
		if (next == INGEST_RECORDS_RECORD)
		{
			if (after - xml->row > r->options.max_record)
				return ingest_records_too_long(r, err, xml->row);
			if (!give_row(r, data + xml->row, after - xml->row, record, record_len))
				return ingest_records_fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
										   "too many namespaces are declared around the rows", xml->row);
			xml->in_row = false;
			consume(r, after, consumed);
			return INGEST_RECORDS_RECORD;
		}
	}
}

void
ingest_xml_cutter_begin(IngestRecords *r, const char *header, Size header_len)
{
	IngestXmlCutter *xml = r->xml;
	const char *record;
	Size		consumed;
	Size		record_len;
	IngestRowError ignored;

	xml->token = TOKEN_TEXT;
	xml->begin = xml->body = xml->row = 0;
	xml->in_row = xml->seen_root = xml->spaces_known = false;
	xml->depth = 0;
	xml->names.len = xml->open.len = 0;

	/* The start tags are gone over as if they came now; what they are not shows at the first end tag. */
	if (header)
		(void) ingest_xml_cutter_next(r, header, header_len, false, &consumed, &record, &record_len,
									  &ignored);
	xml->seen_root = header != NULL;
	xml->token = TOKEN_TEXT;
	r->scanned = 0;
}
