/*
 * error.c
 *		Errors as values: making, copying, reporting them.
 *
 * Decides nothing: what an error class leads to is the worker's business.
 */
#include "postgres.h"

#include "core/error.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

/* Longest text from outside in a message; longer ones are clipped. */
#define MAX_TEXT 2000

static char *format_clean(const char *fmt, va_list args_in) pg_attribute_printf(1, 0);

static char *
format_clean(const char *fmt, va_list args_in)
{
	StringInfoData buf;
	va_list		args;
	char	   *clean;

	initStringInfo(&buf);
	for (;;)
	{
		int			needed;

		va_copy(args, args_in);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}

	clean = ingest_error_clean(buf.data, buf.len, MAX_TEXT);
	pfree(buf.data);
	return clean;
}

void
ingest_error_set(IngestError *err, IngestErrorClass class, int sqlstate,
				 const char *fmt,...)
{
	va_list		args;

	memset(err, 0, sizeof(*err));
	err->class = class;
	err->sqlstate = sqlstate;
	va_start(args, fmt);
	err->message = format_clean(fmt, args);
	va_end(args);
}

void
ingest_error_detail(IngestError *err, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	err->detail = format_clean(fmt, args);
	va_end(args);
}

void
ingest_error_hint(IngestError *err, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	err->hint = format_clean(fmt, args);
	va_end(args);
}

void
ingest_error_reset(IngestError *err)
{
	memset(err, 0, sizeof(*err));
}

void
ingest_error_copy(IngestError *to, const IngestError *from, MemoryContext mcxt)
{
	*to = *from;
	if (from->message)
		to->message = MemoryContextStrdup(mcxt, from->message);
	if (from->detail)
		to->detail = MemoryContextStrdup(mcxt, from->detail);
	if (from->hint)
		to->hint = MemoryContextStrdup(mcxt, from->hint);
}

void
ingest_error_report(const IngestError *err, int elevel)
{
	ereport(elevel,
			(errcode(err->sqlstate ? err->sqlstate : ERRCODE_INTERNAL_ERROR),
			 errmsg_internal("%s", err->message ? err->message : "unknown error"),
			 err->detail ? errdetail_internal("%s", err->detail) : 0,
			 err->hint ? errhint("%s", err->hint) : 0));
}

/* Does trying again later, unchanged, have a chance? */
static bool
sqlstate_is_transient(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):	/* connection */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* serialization, deadlock */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* operator, shutdown, timeout */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* system, I/O */
			return true;
		default:
			/* read-only: a standby, or default_transaction_read_only for a while */
			return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
				sqlstate == ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION ||
			/* wrappers say so of connections that are lost, too */
				sqlstate == ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION ||
				sqlstate == ERRCODE_READ_ONLY_SQL_TRANSACTION;
	}
}

void
ingest_error_from_edata(IngestError *err, const ErrorData *edata)
{
	/* Not every error that means so has a code for it. */
	bool		no_descriptors = edata->sqlerrcode == ERRCODE_INTERNAL_ERROR &&
		(edata->saved_errno == EMFILE || edata->saved_errno == ENFILE);

	ingest_error_set(err,
					 no_descriptors || sqlstate_is_transient(edata->sqlerrcode) ?
					 INGEST_ERROR_TRANSIENT : INGEST_ERROR_PERMANENT,
					 edata->sqlerrcode, "%s",
					 edata->message ? edata->message : "unknown error");
	if (edata->detail)
		ingest_error_detail(err, "%s", edata->detail);
	if (edata->hint)
		ingest_error_hint(err, "%s", edata->hint);
}

void
ingest_error_blame_definition(IngestError *err)
{
	if (err->class != INGEST_ERROR_PERMANENT)
		return;
	switch (ERRCODE_TO_CATEGORY(err->sqlstate))
	{
		case MAKE_SQLSTATE('2', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):
			err->class = INGEST_ERROR_CONFIG;
			break;
		default:
			break;
	}
}

const char *
ingest_error_class_name(IngestErrorClass class)
{
	switch (class)
	{
		case INGEST_ERROR_NONE:
			return "none";
		case INGEST_ERROR_TRANSIENT:
			return "transient";
		case INGEST_ERROR_PERMANENT:
			return "permanent";
		case INGEST_ERROR_CONFIG:
			return "config";
		case INGEST_ERROR_GAP:
			return "gap";
		case INGEST_ERROR_PAUSE:
			return "pause";
	}
	return "unknown";
}

char *
ingest_error_clean(const char *text, Size len, Size max)
{
	int			encoding = GetDatabaseEncoding();
	StringInfoData buf;
	const char *end = text + len;

	initStringInfo(&buf);
	while (text < end)
	{
		int			mblen = pg_encoding_mblen_bounded(encoding, text);

		if (buf.len + mblen > max)
		{
			appendStringInfoString(&buf, "...");
			break;
		}
		if ((unsigned char) *text < 0x20 || (unsigned char) *text == 0x7f)
			appendStringInfoChar(&buf, ' ');
		else if (mblen > end - text ||
				 pg_encoding_verifymbstr(encoding, text, mblen) != mblen)
		{
			appendStringInfoChar(&buf, '?');
			mblen = 1;
		}
		else
			appendBinaryStringInfo(&buf, text, mblen);
		text += mblen;
	}
	return buf.data;
}
