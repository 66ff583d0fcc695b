/*
 * options.c
 *		Checking and parsing against option tables.
 *
 * The tables are with their owners (a source, a format, the pipeline); the
 * view that shows them is in src/api.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <ctype.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "core/compat.h"
#include "core/options.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#define MAX_SECRET (64 * 1024)
#define MAX_COMPARED 255	/* bytes, of the server's function */

const char *
ingest_option_scope_name(int scope)
{
	switch (scope)
	{
		case INGEST_SCOPE_SERVER:
			return "server";
		case INGEST_SCOPE_USER:
			return "user mapping";
		case INGEST_SCOPE_TABLE:
			return "foreign table";
		case INGEST_SCOPE_COLUMN:
			return "column";
		default:
			return "pipeline";
	}
}

const char *
ingest_option_type_name(IngestOptionType type)
{
	static const char *const names[] = {
		"boolean", "integer", "size", "interval", "number", "text", "enum"
	};

	return names[type];
}

/* The length of the prefix of "prefix.*", or 0. */
static size_t
prefix_length(const IngestOptionDef *def)
{
	size_t		len = strlen(def->name);

	return (len > 2 && strcmp(def->name + len - 2, ".*") == 0) ? len - 1 : 0;
}

static bool
def_matches(const IngestOptionDef *def, const char *name)
{
	size_t		prefix = prefix_length(def);

	if (prefix > 0)
		return strncmp(def->name, name, prefix) == 0 && name[prefix] != '\0';
	return strcmp(def->name, name) == 0;
}

static const IngestOptionDef *
find_def(const IngestOptionDef *const *tables, int scope, const char *name)
{
	for (; *tables; tables++)
		for (const IngestOptionDef *def = *tables; def->name; def++)
			if ((def->scope & scope) && def_matches(def, name))
				return def;
	return NULL;
}

void
ingest_closest_begin(IngestClosest *closest, const char *name)
{
	closest->name = name;
	closest->match = NULL;
	closest->distance = Max(3, (int) Min(strlen(name), MAX_COMPARED) / 2);
}

void
ingest_closest_consider(IngestClosest *closest, const char *candidate)
{
	int			len = pg_mbcliplen(closest->name, strlen(closest->name), MAX_COMPARED);
	int			distance;

	distance = varstr_levenshtein_less_equal(closest->name, len, candidate, strlen(candidate),
											 1, 1, 1, closest->distance, true);
	if (distance < closest->distance)
	{
		closest->distance = distance;
		closest->match = candidate;
	}
}

/* The most similar known name, or one that belongs somewhere else, as a hint. */
static void
raise_unknown(const IngestOptionDef *const *tables, int scope, const char *name)
{
	const IngestOptionDef *elsewhere = NULL;
	IngestClosest closest;
	bool		any = false;

	ingest_closest_begin(&closest, name);
	for (const IngestOptionDef *const *t = tables; *t; t++)
		for (const IngestOptionDef *def = *t; def->name; def++)
		{
			if (!(def->scope & scope))
			{
				if (def_matches(def, name))
					elsewhere = def;
				continue;
			}
			any = true;
			ingest_closest_consider(&closest, def->name);
		}

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\" for a %s", name, ingest_option_scope_name(scope)),
			 elsewhere ? errhint("\"%s\" is an option of a %s.", name,
								 ingest_option_scope_name(elsewhere->scope & -elsewhere->scope)) :
			 closest.match ? errhint("Did you mean \"%s\"?", closest.match) :
			 any ? errhint("The view ingest.option_help lists the options.") :
			 errhint("There are no options for a %s here.", ingest_option_scope_name(scope))));
}

pg_noreturn static void
raise_invalid(const IngestOptionDef *def, const char *name, const char *value,
			  const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 def->secret ?
			 errmsg("invalid value for option \"%s\"", name) :
			 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
			 errdetail("Expected %s.", expected),
			 errhint("%s", def->help)));
	pg_unreachable();
}

static const char *
expected_number(const IngestOptionDef *def, const char *what)
{
	if (def->min == 0 && def->max == 0)
		return what;
	return psprintf("%s between %.15g and %.15g", what, def->min, def->max);
}

static void
check_range(const IngestOptionDef *def, const char *name, const char *value,
			double number, const char *what)
{
	if ((def->min != 0 || def->max != 0) && (number < def->min || number > def->max))
		raise_invalid(def, name, value, expected_number(def, what));
}

/*
 * Text to number through a server function, with our own error: the caller's
 * user wants to read which option is wrong.
 */
static int64
parse_int(const IngestOptionDef *def, const char *name, const char *value)
{
	char	   *end;
	long long	number;

	errno = 0;
	number = strtoll(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0')
		raise_invalid(def, name, value, expected_number(def, "an integer"));
	check_range(def, name, value, number, "an integer");
	return number;
}

static double
parse_float(const IngestOptionDef *def, const char *name, const char *value)
{
	char	   *end;
	double		number;

	errno = 0;
	number = strtod(value, &end);
	if (errno != 0 || end == value || *end != '\0' || isnan(number))
		raise_invalid(def, name, value, expected_number(def, "a number"));
	check_range(def, name, value, number, "a number");
	return number;
}

/* '64MB', '1 GB', '8192': as pg_size_bytes() reads it. */
static int64
parse_bytes(const IngestOptionDef *def, const char *name, const char *value)
{
	int64		number;

	if (!isdigit((unsigned char) *value))
		raise_invalid(def, name, value, "a size such as '64 MB'");
	number = DatumGetInt64(DirectFunctionCall1(pg_size_bytes, CStringGetTextDatum(value)));
	check_range(def, name, value, number, "a size in bytes");
	return number;
}

/* An interval in milliseconds; a bare number counts milliseconds. */
static int64
parse_ms(const IngestOptionDef *def, const char *name, const char *value)
{
	Interval   *interval;
	char	   *end;
	double		ms = strtod(value, &end);

	if (end == value)
		raise_invalid(def, name, value, "an interval such as '20 ms' or '1 minute'");
	if (*end != '\0')
	{
		interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
														 ObjectIdGetDatum(InvalidOid),
														 Int32GetDatum(-1)));
		ms = interval->time / 1000.0 +
			(interval->day + interval->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;
	}
	if (isnan(ms) || ms < 0 || ms > (double) PG_INT64_MAX / 2000)
		raise_invalid(def, name, value, "an interval that is not negative");
	check_range(def, name, value, ms, "an interval in milliseconds");
	return (int64) ms;
}

static int
parse_enum(const IngestOptionDef *def, const char *name, const char *value)
{
	StringInfoData list;

	for (int i = 0; def->values[i]; i++)
		if (pg_strcasecmp(def->values[i], value) == 0)
			return i;

	initStringInfo(&list);
	for (int i = 0; def->values[i]; i++)
		appendStringInfo(&list, "%s\"%s\"", i > 0 ? ", " : "one of ", def->values[i]);
	raise_invalid(def, name, value, list.data);
}

/* Errors of the server's own parsers do not say which option it is. */
static void
name_option(void *name)
{
	errcontext("option \"%s\"", (const char *) name);
}

/* Parse a value into its field, or only check it when into is NULL. */
static void
store_value(const IngestOptionDef *def, const char *name, const char *value, char *into)
{
	void	   *field = into ? into + def->offset : NULL;
	bool		flag;
	int64		number;
	double		real;
	int			index;
	ErrorContextCallback context = {error_context_stack, name_option, unconstify(char *, name)};

	error_context_stack = &context;
	switch (def->type)
	{
		case INGEST_OPTION_BOOL:
			if (!parse_bool(value, &flag))
				raise_invalid(def, name, value, "a boolean");
			if (field)
				*(bool *) field = flag;
			break;
		case INGEST_OPTION_INT:
		case INGEST_OPTION_BYTES:
		case INGEST_OPTION_MS:
			number = def->type == INGEST_OPTION_INT ? parse_int(def, name, value) :
				def->type == INGEST_OPTION_BYTES ? parse_bytes(def, name, value) :
				parse_ms(def, name, value);
			if (field)
				*(int64 *) field = number;
			break;
		case INGEST_OPTION_FLOAT:
			real = parse_float(def, name, value);
			if (field)
				*(double *) field = real;
			break;
		case INGEST_OPTION_ENUM:
			index = parse_enum(def, name, value);
			if (field)
				*(int *) field = index;
			break;
		case INGEST_OPTION_TEXT:
			if (field && prefix_length(def) > 0)
				*(List **) field = lappend(*(List **) field,
										   makeDefElem(pstrdup(name + prefix_length(def)),
													   (Node *) makeString(pstrdup(value)), -1));
			else if (field)
				*(char **) field = pstrdup(value);
			break;
	}
	error_context_stack = context.previous;
}

void
ingest_option_check(const IngestOptionDef *const *tables, int scope,
					const char *name, const char *value)
{
	const IngestOptionDef *def = find_def(tables, scope, name);

	if (def == NULL)
		raise_unknown(tables, scope, name);
	store_value(def, name, value, NULL);
	if (def->check)
		def->check(name, value);
}

void
ingest_option_check_required(const IngestOptionDef *const *tables, int scope, List *options)
{
	for (; *tables; tables++)
		for (const IngestOptionDef *def = *tables; def->name; def++)
		{
			ListCell   *lc;
			bool		found = false;

			if (!def->required || !(def->scope & scope))
				continue;
			foreach(lc, options)
				found |= strcmp(lfirst_node(DefElem, lc)->defname, def->name) == 0;
			if (!found)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
						 errmsg("a %s needs the option \"%s\"", ingest_option_scope_name(scope), def->name),
						 errhint("%s", def->help)));
		}
}

void
ingest_option_parse(const IngestOptionDef *table, List *options, void *into)
{
	ListCell   *lc;

	for (const IngestOptionDef *def = table; def->name; def++)
		if (def->fallback)
			store_value(def, def->name, def->fallback, into);

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		for (const IngestOptionDef *def = table; def->name; def++)
			if (def_matches(def, option->defname))
			{
				store_value(def, option->defname, defGetString(option), into);
				break;
			}
	}
}

static char *
scalar_text(JsonbValue *value, const char *key)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" must be a string, a number or a boolean", key)));
	}
	return NULL;
}

List *
ingest_option_from_jsonb(Jsonb *options)
{
	JsonbIterator *it = JsonbIteratorInit(&options->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	List	   *result = NIL;
	List	   *prefixes = NIL;	/* of char *, of the objects we are in */
	char	   *key = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		const char *prefix = prefixes ? (char *) llast(prefixes) : "";

		switch (token)
		{
			case WJB_BEGIN_OBJECT:
				prefixes = lappend(prefixes, key ? psprintf("%s.", key) : pstrdup(""));
				break;
			case WJB_END_OBJECT:
				prefixes = list_delete_last(prefixes);
				break;
			case WJB_KEY:
				key = psprintf("%s%s", prefix,
							   pnstrdup(value.val.string.val, value.val.string.len));
				break;
			case WJB_VALUE:
				if (value.type != jbvNull)
					result = lappend(result, makeDefElem(key, (Node *) makeString(scalar_text(&value, key)), -1));
				break;
			default:
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" must be a string, a number or a boolean",
								key ? key : "")));
		}
	}
	return result;
}

pg_noreturn static void
raise_secret(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("cannot read the value of option \"%s\"", name),
			 errdetail("%s", detail)));
	pg_unreachable();
}

static char *
read_secret_file(const char *name, const char *path)
{
	struct stat st;
	char	   *secret;
	ssize_t		len;
	int			fd;

	if (!is_absolute_path(path))
		raise_secret(name, "The path of a file must be absolute.");

	/* O_NONBLOCK: a FIFO must not hang us; O_NOFOLLOW: nor a link lead elsewhere. */
	fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		raise_secret(name, "The file cannot be opened.");
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		raise_secret(name, "It is not a regular file.");
	if (st.st_size > MAX_SECRET)
		raise_secret(name, "The file is larger than 64 kB.");

	secret = palloc(MAX_SECRET + 1);
	len = read(fd, secret, MAX_SECRET);
	if (len < 0)
		raise_secret(name, "The file cannot be read.");
	CloseTransientFile(fd);

	if (len > 0 && secret[len - 1] == '\n')
		len--;
	if (memchr(secret, '\0', len))
		raise_secret(name, "The file holds a zero byte.");
	secret[len] = '\0';
	return secret;
}

char *
ingest_option_secret(const char *name, const char *value, Oid owner)
{
	bool		is_env = strncmp(value, "env:", 4) == 0;
	bool		is_file = strncmp(value, "file:", 5) == 0;
	const char *found;

	if (!is_env && !is_file)
		return pstrdup(value);

	if (!has_privs_of_role(owner, ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read option \"%s\" from the server's files or environment", name),
				 errdetail("Role \"%s\" is not a member of \"%s\".",
						   GetUserNameFromId(owner, false), "pg_read_server_files")));

	if (is_file)
		return read_secret_file(name, value + 5);

	found = getenv(value + 4);
	if (found == NULL)
		raise_secret(name, "The server's environment has no such variable.");
	return pstrdup(found);
}
