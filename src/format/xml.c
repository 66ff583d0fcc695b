/*
 * xml.c
 *		XML messages: one element, which is one row.
 *
 * libxml2 parses, and builds a tree that is gone with the row.  What it is
 * given cannot make it do more than that: bytes are verified UTF-8 whatever a
 * declaration says, a document type is refused where it begins (so there are no
 * entities to expand or to fetch), and depth and number of nodes are bounded
 * while it parses.  None of our callbacks raises, since the library would not
 * survive that; what it allocates belongs to the decoder, and goes with the
 * memory context that the decoder is in.
 *
 * The server sets the library's global handlers only for the time of its own
 * calls, and memory functions only in a build for debugging, so that neither
 * concerns us.
 *
 * Cutting elements out of a long body is in records_xml.c.
 */
#include "postgres.h"

#include <libxml/SAX2.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <libxml/xmlerror.h>

#include "catalog/pg_type.h"
#include "core/compat.h"
#include "format/scalar.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Nodes of a message: what the tree of many small ones may take. */
#define MAX_NODES 1000000

/* Of one element; the library compares each with each. */
#define MAX_ATTRIBUTES 1000

/* Declarations of namespaces in force; the library goes through them for each name. */
#define MAX_SPACES 1000

/* Names stay in a parser's memory, so that it is made anew after so many bytes. */
#define MAX_PARSED (1024 * 1024)

/* Longest part of the library's words in a message. */
#define MAX_REASON 200

/* Nil is said by an attribute of this namespace. */
#define XSI "http://www.w3.org/2001/XMLSchema-instance"

typedef struct XmlOptions
{
	int64		max_depth;
} XmlOptions;

static const IngestOptionDef xml_options[] = {
	{"max_depth", INGEST_SCOPE_TABLE, INGEST_OPTION_INT, offsetof(XmlOptions, max_depth),
		.fallback = "64", .min = 1, .max = 1000,
	.help = "Deepest nesting of elements that is accepted."},
	INGEST_OPTION_END
};

typedef struct XmlName
{
	char	   *prefix;			/* NULL: whatever it is */
	char	   *local;
} XmlName;

typedef enum XmlTarget
{
	XML_CONTENT,				/* of the element: its text, or markup for type xml */
	XML_OWN_TEXT,				/* without what is in elements in it */
	XML_ATTRIBUTE,
	XML_WHOLE					/* the message's element, as markup */
} XmlTarget;

typedef struct XmlPath
{
	XmlName    *steps;
	int			nsteps;
	XmlTarget	target;
	XmlName		attribute;
} XmlPath;

typedef struct XmlColumn
{
	IngestReader reader;
	AttrNumber	attnum;
	XmlPath		path;
	bool		is_markup;		/* type xml */
	bool		is_array;		/* all that the path leads to, instead of the first */
	bool		keeps_empty;	/* an empty text is a value of the type */
} XmlColumn;

typedef struct Xml
{
	XmlColumn  *columns;
	int			ncolumns;
	int			max_depth;
	StringInfoData text;
	StringInfoData array;
	MemoryContextCallback on_reset;

	const char *payload;		/* NULL once it was handed out */
	Size		len;

	/* the library's */
	xmlParserCtxtPtr parser;
	Size		parsed;			/* bytes since it was made */
	xmlDocPtr	doc;
	xmlNodePtr	copy;
	xmlBufferPtr buffer;

	/* while it parses */
	int			depth;
	int			nodes;
	int			nspaces;		/* in force */
	int		   *spaces;			/* of them, by depth */
	int			sqlstate;		/* why it was stopped, or 0 */
	const char *why;
} Xml;

/*
 * ---- Paths
 */

pg_noreturn static void
raise_path(const IngestColumn *column, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid path of column \"%s\": \"%s\"", column->name, column->path),
			 errdetail("%s", why),
			 errhint("A path is written like a/b, a/b/@c, @c, a/text(), or . for the whole element.")));
	pg_unreachable();
}

static XmlName
parse_name(const IngestColumn *column, const char *text, int len)
{
	XmlName		name = {0};
	const char *colon = memchr(text, ':', len);

	if (len == 0)
		raise_path(column, "A name is empty.");
	for (int i = 0; i < len; i++)
		if (strchr(" \t\r\n@()[]*<>&$\"'=", text[i]) || (i == 0 && strchr(".-0123456789", *text)))
			raise_path(column, "A name is one of an element or, behind @, of an attribute.");
	if (colon)
	{
		if (colon == text || colon == text + len - 1 || memchr(colon + 1, ':', text + len - colon - 1))
			raise_path(column, "Before and behind the colon is a name.");
		name.prefix = pnstrdup(text, colon - text);
		len -= colon + 1 - text;
		text = colon + 1;
	}
	name.local = pnstrdup(text, len);
	return name;
}

static XmlPath
parse_path(const IngestColumn *column)
{
	XmlPath		path = {0};
	const char *p = column->path;

	path.steps = palloc(sizeof(XmlName) * ((p ? strlen(p) : 0) / 2 + 1));
	if (p == NULL)
	{
		path.steps[path.nsteps++].local = pstrdup(column->name);
		path.steps[0].prefix = NULL;
		return path;
	}
	if (strcmp(p, ".") == 0)
	{
		path.target = XML_WHOLE;
		return path;
	}
	for (;;)
	{
		int			len = strcspn(p, "/");

		if (p[len] == '\0' && strcmp(p, "text()") == 0)
			path.target = XML_OWN_TEXT;
		else if (p[len] == '\0' && *p == '@')
		{
			path.target = XML_ATTRIBUTE;
			path.attribute = parse_name(column, p + 1, len - 1);
		}
		else
			path.steps[path.nsteps++] = parse_name(column, p, len);
		if (p[len] == '\0')
			return path;
		p += len + 1;
	}
}

static void
xml_check(const IngestColumn *columns, int ncolumns, const void *options)
{
	ingest_format_check_encoding("xml");
	for (int i = 0; i < ncolumns; i++)
		(void) parse_path(&columns[i]);
}

/*
 * ---- The library's callbacks: nothing here may raise
 */

static void
stop_parser(xmlParserCtxtPtr parser, int sqlstate, const char *why)
{
	Xml		   *x = parser->_private;

	if (x->sqlstate == 0)
	{
		x->sqlstate = sqlstate;
		x->why = why;
	}
	xmlStopParser(parser);
}

static bool
count_nodes(xmlParserCtxtPtr parser, int n)
{
	Xml		   *x = parser->_private;

	x->nodes += n;
	if (x->nodes <= MAX_NODES)
		return true;
	stop_parser(parser, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "XML has too many elements and attributes");
	return false;
}

static void
on_start_element(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
				 int nspaces, const xmlChar **spaces, int nattributes, int ndefaulted,
				 const xmlChar **attributes)
{
	xmlParserCtxtPtr parser = arg;
	Xml		   *x = parser->_private;

	if (x->depth == x->max_depth)
	{
		stop_parser(parser, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "XML is nested too deeply");
		return;
	}
	x->spaces[x->depth++] = nspaces;
	x->nspaces += nspaces;
	if (x->nspaces > MAX_SPACES)
		stop_parser(parser, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "XML declares too many namespaces");
	else if (count_nodes(parser, 1 + nspaces + nattributes))
		xmlSAX2StartElementNs(parser, name, prefix, uri, nspaces, spaces, nattributes, ndefaulted,
							  attributes);
}

static void
on_end_element(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
	Xml		   *x = ((xmlParserCtxtPtr) arg)->_private;

	x->nspaces -= x->spaces[--x->depth];
	xmlSAX2EndElementNs(arg, name, prefix, uri);
}

static void
on_comment(void *arg, const xmlChar *text)
{
	if (count_nodes(arg, 1))
		xmlSAX2Comment(arg, text);
}

static void
on_instruction(void *arg, const xmlChar *target, const xmlChar *data)
{
	if (count_nodes(arg, 1))
		xmlSAX2ProcessingInstruction(arg, target, data);
}

static void
on_document_type(void *arg, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
	stop_parser(arg, ERRCODE_INVALID_XML_DOCUMENT, "document type declarations are not accepted");
}

/*
 * ---- The library's memory
 */

/* What belongs to one message. */
static void
free_tree(Xml *x)
{
	if (x->buffer)
		xmlBufferFree(x->buffer);
	if (x->copy)
		xmlFreeNode(x->copy);
	if (x->doc)
		xmlFreeDoc(x->doc);
	x->buffer = NULL;
	x->copy = NULL;
	x->doc = NULL;
}

static void
free_all(void *arg)
{
	Xml		   *x = arg;

	free_tree(x);
	if (x->parser)
		xmlFreeParserCtxt(x->parser);
	x->parser = NULL;
}

pg_noreturn static void
raise_memory(void)
{
	ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
					errdetail("libxml2 could not allocate memory.")));
	pg_unreachable();
}

static void
make_parser(Xml *x, Size len)
{
	if (x->parser && x->parsed + len > MAX_PARSED)
	{
		xmlFreeParserCtxt(x->parser);
		x->parser = NULL;
	}
	if (x->parser == NULL)
	{
		x->parser = xmlNewParserCtxt();
		if (x->parser == NULL)
			raise_memory();
		x->parser->sax->startElementNs = on_start_element;
		x->parser->sax->endElementNs = on_end_element;
		x->parser->sax->comment = on_comment;
		x->parser->sax->processingInstruction = on_instruction;
		x->parser->sax->internalSubset = on_document_type;
		x->parsed = 0;
	}
	x->parsed += len;
	x->parser->_private = x;
	x->depth = x->nodes = x->nspaces = x->sqlstate = 0;
	x->why = NULL;
}

/*
 * ---- Parsing
 */

static bool
fail(IngestRowError *err, int sqlstate, const char *message)
{
	err->sqlstate = sqlstate;
	err->message = message;
	err->detail = err->column = NULL;
	err->position = -1;
	return false;
}

/* In the library's words; they repeat names of the message. */
static bool
fail_syntax(Xml *x, IngestRowError *err)
{
	const xmlError *error = xmlCtxtGetLastError(x->parser);
	const char *why = error && error->message ? error->message : "no reason is known";
	int			len = strcspn(why, "\n");

	if (error && error->code == XML_ERR_NO_MEMORY)
		raise_memory();
	len = pg_mbcliplen(why, len, MAX_REASON);
	if (pg_encoding_verifymbstr(PG_UTF8, why, len) != len)
		len = 0;
	fail(err, ERRCODE_INVALID_XML_DOCUMENT,
		 len > 0 ? psprintf("invalid XML: %.*s", len, why) : "invalid XML");
	if (error && error->line > 0)
		err->detail = psprintf("Line %d, column %d.", error->line, error->int2);
	return false;
}

static const char *
skip_past(const char *p, const char *end, const char *mark)
{
	int			len = strlen(mark);

	for (p += len - 1; p < end && (p = memchr(p, mark[len - 1], end - p)) != NULL; p++)
		if (memcmp(p + 1 - len, mark, len) == 0)
			return p + 1;
	return end;
}

/*
 * No element has too many attributes?  By the same rules as the parser as long
 * as it finds nothing wrong, and there it stops.
 */
static bool
check_attributes(const char *p, const char *end)
{
	while (p < end && (p = memchr(p, '<', end - p)) != NULL)
	{
		char		quote = 0;
		int			n = 0;

		if (end - p >= 4 && memcmp(p, "<!--", 4) == 0)
			p = skip_past(p + 4, end, "-->");
		else if (end - p >= 9 && memcmp(p, "<![CDATA[", 9) == 0)
			p = skip_past(p + 9, end, "]]>");
		else if (end - p >= 2 && p[1] == '?')
			p = skip_past(p + 2, end, "?>");
		else
			for (p++; p < end && (quote || *p != '>'); p++)
			{
				if (quote)
					quote = *p == quote ? 0 : quote;
				else if (*p == '"' || *p == '\'')
					quote = *p;
				else if (*p == '=' && ++n > MAX_ATTRIBUTES)
					return false;
			}
	}
	return true;
}

static bool
parse(Xml *x, IngestRowError *err)
{
	const char *data = x->payload;
	Size		len = x->len;

	if (!ingest_text_check(data, len, err))
	{
		err->position = -1;
		return false;
	}
	if (len >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
	{
		data += 3;
		len -= 3;
	}
	for (; len > 0 && strchr(" \t\r\n", *data); len--)
		data++;
	if (len == 0)
		return fail(err, ERRCODE_INVALID_XML_DOCUMENT, "invalid XML: it is empty");

	if (!check_attributes(data, data + len))
		return fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "an XML element has too many attributes");
	make_parser(x, len);

	/*
	 * Without the library's own limits (HUGE), since a text may be long; what
	 * they guard against are entities, which there are none of.
	 */
	x->doc = xmlCtxtReadMemory(x->parser, data, len, NULL, "UTF-8",
							   XML_PARSE_NONET | XML_PARSE_NOCDATA | XML_PARSE_NOERROR |
							   XML_PARSE_NOWARNING | XML_PARSE_IGNORE_ENC | XML_PARSE_HUGE);
	if (x->sqlstate != 0)
		return fail(err, x->sqlstate, x->why);
	if (x->doc == NULL || xmlDocGetRootElement(x->doc) == NULL)
		return fail_syntax(x, err);
	return true;
}

/*
 * ---- Finding
 */

/* A name as it is written: its prefix (NULL: none), and the rest. */
static const char *
split_name(const xmlNs *space, const xmlChar *name, const char **prefix, int *prefix_len)
{
	const char *colon;

	*prefix = NULL;
	*prefix_len = 0;
	if (space)
	{
		*prefix = (const char *) space->prefix;
		*prefix_len = *prefix ? strlen(*prefix) : 0;
		return (const char *) name;
	}

	/* A prefix that is declared nowhere is left in the name. */
	colon = strchr((const char *) name, ':');
	if (colon == NULL)
		return (const char *) name;
	*prefix = (const char *) name;
	*prefix_len = colon - *prefix;
	return colon + 1;
}

/*
 * How a name fits: 1 as it is written, 2 but for a prefix, 0 not at all.  A
 * path's name without a prefix stands for one without, or, where there is none,
 * for one with any.
 */
static int
fit_name(const XmlName *wanted, const xmlNs *space, const xmlChar *name)
{
	const char *prefix;
	int			prefix_len;
	const char *local = split_name(space, name, &prefix, &prefix_len);

	if (strcmp(local, wanted->local) != 0)
		return 0;
	if (wanted->prefix == NULL)
		return prefix ? 2 : 1;
	return prefix && strlen(wanted->prefix) == prefix_len &&
		memcmp(prefix, wanted->prefix, prefix_len) == 0;
}

static bool
is_nil(const xmlNode *element)
{
	for (const xmlAttr *a = element->properties; a; a = a->next)
		if (a->ns && a->ns->href && strcmp((const char *) a->ns->href, XSI) == 0 &&
			strcmp((const char *) a->name, "nil") == 0 && a->children && a->children->content)
			return strcmp((const char *) a->children->content, "true") == 0 ||
				strcmp((const char *) a->children->content, "1") == 0;
	return false;
}

static void
append_text(StringInfo out, const xmlNode *node)
{
	if ((node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE) && node->content)
		appendStringInfoString(out, (const char *) node->content);
}

/* All text below a node, in order. */
static void
append_content(StringInfo out, const xmlNode *top)
{
	const xmlNode *node = top->children;

	while (node)
	{
		append_text(out, node);
		if (node->type == XML_ELEMENT_NODE && node->children)
		{
			node = node->children;
			continue;
		}
		while (node != top && node->next == NULL)
			node = node->parent;
		node = node == top ? NULL : node->next;
	}
}

/* The element as it would be written by itself. */
static void
append_markup(Xml *x, StringInfo out, xmlNodePtr element)
{
	bool		root = element == xmlDocGetRootElement(x->doc);

	/* A copy has the declarations of namespaces that it needs. */
	if (!root && (x->copy = xmlDocCopyNode(element, x->doc, 1)) == NULL)
		raise_memory();
	x->buffer = xmlBufferCreate();
	if (x->buffer == NULL ||
		xmlNodeDump(x->buffer, x->doc, root ? element : x->copy, 0, 0) < 0)
		raise_memory();
	appendBinaryStringInfo(out, (const char *) xmlBufferContent(x->buffer), xmlBufferLength(x->buffer));
	xmlBufferFree(x->buffer);
	x->buffer = NULL;
	if (x->copy)
		xmlFreeNode(x->copy);
	x->copy = NULL;
}

/* Text as content of type xml. */
static void
escape_text(StringInfo text)
{
	char	   *plain = pnstrdup(text->data, text->len);

	resetStringInfo(text);
	for (const char *p = plain; *p; p++)
	{
		if (*p == '<')
			appendStringInfoString(text, "&lt;");
		else if (*p == '>')
			appendStringInfoString(text, "&gt;");
		else if (*p == '&')
			appendStringInfoString(text, "&amp;");
		else
			appendStringInfoChar(text, *p);
	}
	pfree(plain);
}

/* The value of an element, or of its attribute, is in x->text; false: there is none. */
static bool
read_node(Xml *x, const XmlColumn *column, xmlNodePtr element, const xmlAttr *attribute)
{
	resetStringInfo(&x->text);
	if (column->path.target == XML_WHOLE ||
		(column->path.target == XML_CONTENT && column->is_markup))
	{
		if (column->path.target == XML_CONTENT && is_nil(element))
			return false;
		append_markup(x, &x->text, element);
		return true;
	}
	if (attribute)
		for (const xmlNode *node = attribute->children; node; node = node->next)
			append_text(&x->text, node);
	else if (is_nil(element))
		return false;
	else if (column->path.target == XML_OWN_TEXT)
		for (const xmlNode *node = element->children; node; node = node->next)
			append_text(&x->text, node);
	else
		append_content(&x->text, element);
	if (column->is_markup)
		escape_text(&x->text);
	return x->text.len > 0 || column->keeps_empty;
}

/* One more value of an array. */
static void
add_element(Xml *x, bool is_null)
{
	appendStringInfoChar(&x->array, x->array.len == 0 ? '{' : ',');
	if (is_null)
		appendStringInfoString(&x->array, "NULL");
	else
		ingest_append_array_element(&x->array, x->text.data, x->text.len);
}

typedef enum XmlFound
{
	XML_NOTHING,
	XML_NULL,
	XML_VALUE
} XmlFound;

/* The path leads here; of an array it is gone on to further ones. */
static XmlFound
find_target(Xml *x, const XmlColumn *column, xmlNodePtr element)
{
	const XmlPath *path = &column->path;
	const xmlAttr *attribute = NULL;
	bool		any;

	if (path->target == XML_ATTRIBUTE)
	{
		for (int fit = 1; fit <= 2 && attribute == NULL; fit++)
			for (attribute = element->properties; attribute; attribute = attribute->next)
				if (fit_name(&path->attribute, attribute->ns, attribute->name) == fit)
					break;
		if (attribute == NULL)
			return XML_NOTHING;
	}
	any = read_node(x, column, element, attribute);
	if (column->is_array)
		add_element(x, !any);
	return any ? XML_VALUE : XML_NULL;
}

static XmlFound
find_step(Xml *x, const XmlColumn *column, xmlNodePtr element, int step)
{
	const XmlPath *path = &column->path;
	XmlFound	found = XML_NOTHING;

	if (step == path->nsteps)
		return find_target(x, column, element);
	for (int fit = 1; fit <= 2 && found == XML_NOTHING; fit++)
		for (xmlNodePtr child = element->children; child; child = child->next)
		{
			XmlFound	here;

			if (child->type != XML_ELEMENT_NODE ||
				fit_name(&path->steps[step], child->ns, child->name) != fit)
				continue;
			here = find_step(x, column, child, step + 1);
			if (here != XML_NOTHING && !column->is_array)
				return here;
			found = Max(found, here);
		}
	return found;
}

static bool
read_column(Xml *x, const XmlColumn *column, IngestRow *row)
{
	int			at = column->attnum - 1;
	XmlFound	found;
	StringInfo	text = column->is_array ? &x->array : &x->text;

	resetStringInfo(&x->array);
	found = find_step(x, column, xmlDocGetRootElement(x->doc), 0);
	row->values[at] = (Datum) 0;
	row->isnull[at] = column->is_array ? found == XML_NOTHING : found != XML_VALUE;
	if (row->isnull[at])
		return true;
	if (column->is_array)
		appendStringInfoChar(text, '}');
	row->error.position = -1;
	return column->reader.read(&column->reader, text->data, text->len, &row->values[at], &row->error);
}

/*
 * ---- The interface
 */

static void *
xml_start(const IngestColumn *columns, int ncolumns, const void *options)
{
	Xml		   *x = palloc0(sizeof(Xml));

	xmlInitParser();
	x->max_depth = ((const XmlOptions *) options)->max_depth;
	x->spaces = palloc(sizeof(int) * x->max_depth);
	x->ncolumns = ncolumns;
	x->columns = palloc0(sizeof(XmlColumn) * Max(ncolumns, 1));
	for (int i = 0; i < ncolumns; i++)
	{
		XmlColumn  *column = &x->columns[i];
		Oid			base = getBaseType(columns[i].typid);
		Oid			element = get_element_type(base);
		Oid			type = OidIsValid(element) ? getBaseType(element) : base;
		char		category;
		bool		preferred;

		ingest_reader_init(&column->reader, &columns[i]);
		column->attnum = columns[i].attnum;
		column->path = parse_path(&columns[i]);
		column->is_array = OidIsValid(element);
		column->is_markup = type == XMLOID;
		get_type_category_preferred(type, &category, &preferred);
		column->keeps_empty = category == TYPCATEGORY_STRING || type == BYTEAOID || type == XMLOID;
	}
	initStringInfo(&x->text);
	initStringInfo(&x->array);
	x->on_reset.func = free_all;
	x->on_reset.arg = x;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &x->on_reset);
	return x;
}

static void
xml_begin(void *fmt, const char *payload, Size len)
{
	Xml		   *x = fmt;

	x->payload = payload;
	x->len = len;
	free_tree(x);
}

static IngestNext
xml_next(void *fmt, IngestRow *row)
{
	Xml		   *x = fmt;
	bool		ok = true;

	if (x->payload == NULL)
		return INGEST_NEXT_NONE;
	row->slice = x->payload;
	row->slice_len = x->len;
	if (row->values)
	{
		ok = parse(x, &row->error);
		for (int i = 0; ok && i < x->ncolumns; i++)
			ok = read_column(x, &x->columns[i], row);
		free_tree(x);
	}
	x->payload = NULL;
	return ok ? INGEST_NEXT_ROW : INGEST_NEXT_BAD;
}

static void
xml_end(void *fmt)
{
	free_all(fmt);
}

const IngestFormatOps ingest_format_xml = {
	.name = "xml",
	.description = "One XML element a message",
	.options = xml_options,
	.options_size = sizeof(XmlOptions),
	.check = xml_check,
	.start = xml_start,
	.begin = xml_begin,
	.next = xml_next,
	.end = xml_end,
};
