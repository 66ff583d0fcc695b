/*
 * records.c
 *		Lines and CSV records out of a body that comes in pieces.
 *
 * A record that is not there as a whole yet is waited for; how far it was
 * looked at is remembered, so that a long one in many small pieces costs no
 * more than in one.  XML is cut in records_xml.c.
 */
#include "postgres.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "format/records.h"
#include "format/records_private.h"
#include "utils/memutils.h"

/* Longest header of CSV: it goes in front of each record, and into the position. */
#define MAX_HEADER (256 * 1024)

IngestRecordsNext
ingest_records_fail(IngestRowError *err, int sqlstate, const char *message, Size at)
{
	err->sqlstate = sqlstate;
	err->message = message;
	err->detail = err->column = NULL;
	err->position = at;
	return INGEST_RECORDS_BAD;
}

IngestRecordsNext
ingest_records_too_long(const IngestRecords *records, IngestRowError *err, Size at)
{
	ingest_records_fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "record is too long", at);
	err->detail = psprintf("It has more than " INT64_FORMAT " bytes.", records->options.max_record);
	return INGEST_RECORDS_BAD;
}

/* The first of three bytes, or the end. */
static inline const char *
find_byte(const char *p, const char *end, char a, char b, char c)
{
#ifdef __SSE2__
	const __m128i all_a = _mm_set1_epi8(a);
	const __m128i all_b = _mm_set1_epi8(b);
	const __m128i all_c = _mm_set1_epi8(c);

	while (end - p >= 16)
	{
		__m128i		chunk = _mm_loadu_si128((const __m128i *) p);
		__m128i		hits = _mm_or_si128(_mm_cmpeq_epi8(chunk, all_a),
										_mm_or_si128(_mm_cmpeq_epi8(chunk, all_b),
													 _mm_cmpeq_epi8(chunk, all_c)));
		int			mask = _mm_movemask_epi8(hits);

		if (mask != 0)
			return p + __builtin_ctz(mask);
		p += 16;
	}
#endif
	while (p < end && *p != a && *p != b && *p != c)
		p++;
	return p;
}

/*
 * Go on to the end of the line that "scanned" is in.  False: it is not in the
 * data.
 */
static bool
scan_line(IngestRecords *r, const char *data, Size len)
{
	const char *lf = len > r->scanned ? memchr(data + r->scanned, '\n', len - r->scanned) : NULL;

	r->scanned = lf ? lf - data : len;
	return lf != NULL;
}

/* The same, by the rules of csv.c: a line ends at LF or CR outside quotes. */
static bool
scan_csv(IngestRecords *r, const char *data, Size len, bool last)
{
	const char *p = data + r->scanned;
	const char *end = data + len;
	char		quote = r->options.quote;
	char		escape = r->options.escape;
	bool		found = false;

	while (p < end && !found)
	{
		p = r->inside ? find_byte(p, end, quote, escape, escape) : find_byte(p, end, quote, '\n', '\r');
		if (p == end)
			break;
		if (r->inside && *p == escape)
		{
			/* What follows says what it is. */
			if (p + 1 == end && !last)
				break;
			if (p + 1 < end && (p[1] == quote || p[1] == escape))
			{
				p += 2;
				continue;
			}
		}
		if (*p == quote)
			r->inside = !r->inside;
		else if (!r->inside)
			found = true;
		if (!found)
			p++;
	}
	r->scanned = p - data;
	return found;
}

/* All before "at" is done with. */
static void
consume(IngestRecords *r, Size at, Size *consumed)
{
	r->scanned -= at;
	*consumed = at;
}

/*
 * A byte order mark is cut from every record that is not behind a header: files
 * that were joined have it anywhere, and where a body was gone on with in the
 * middle must make no difference.
 */
static Size
skip_mark(const IngestRecords *r, const char *data, Size begin, Size end)
{
	return !r->has_header && end - begin >= 3 && memcmp(data + begin, "\xef\xbb\xbf", 3) == 0 ?
		begin + 3 : begin;
}

/* Keep the header; records are built behind it. */
static bool
keep_header(IngestRecords *r, const char *header, Size len)
{
	if (len > MAX_HEADER)
		return false;
	resetStringInfo(&r->record);
	appendBinaryStringInfo(&r->record, header, len);
	appendStringInfoChar(&r->record, '\n');
	r->header_len = len;
	r->has_header = true;
	return true;
}

static void
give(IngestRecords *r, const char *data, Size len, const char **record, Size *record_len)
{
	*record = data;
	*record_len = len;
	if (!r->has_header)
		return;
	r->record.len = r->header_len + 1;
	appendBinaryStringInfo(&r->record, data, len);
	*record = r->record.data;
	*record_len = r->record.len;
}

static IngestRecordsNext
next_of_text(IngestRecords *r, const char *data, Size len, bool last, Size *consumed,
			 const char **record, Size *record_len, IngestRowError *err)
{
	bool		csv = r->options.kind == INGEST_RECORDS_CSV;
	Size		begin = 0;

	for (;;)
	{
		bool		ended = csv ? scan_csv(r, data, len, last) : scan_line(r, data, len);
		Size		end = r->scanned;
		Size		after = end;

		if (ended)
			after += data[end] == '\r' && end + 1 < len && data[end + 1] == '\n' ? 2 : 1;
		if (!csv && end > begin && data[end - 1] == '\r')
			end--;
		if (end - begin > r->options.max_record)
			return ingest_records_too_long(r, err, begin);
		if (!ended && !last)
		{
			consume(r, begin, consumed);
			return INGEST_RECORDS_MORE;
		}
		if (r->inside)
			return ingest_records_fail(err, ERRCODE_BAD_COPY_FILE_FORMAT,
									   "unterminated quoted field", begin);
		r->scanned = after;
		begin = skip_mark(r, data, begin, end);
		if (end > begin && (!csv || !r->options.header || r->has_header))
		{
			give(r, data + begin, end - begin, record, record_len);
			consume(r, after, consumed);
			return INGEST_RECORDS_RECORD;
		}
		if (end > begin && memchr(data + begin, '\0', end - begin))
			return ingest_records_fail(err, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
									   "invalid byte sequence for encoding \"UTF8\"", begin);
		if (end > begin && !keep_header(r, data + begin, end - begin))
			return ingest_records_fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "header is too long", begin);
		if (!ended)
		{
			consume(r, len, consumed);
			return INGEST_RECORDS_END;
		}

		/* An empty line, or the header. */
		begin = after;
	}
}

/*
 * ---- The interface
 */

IngestRecords *
ingest_records_create(const IngestRecordsOptions *options)
{
	IngestRecords *r = palloc0(sizeof(IngestRecords));

	r->options = *options;
	if (r->options.escape == '\0')
		r->options.escape = r->options.quote;
	if (options->element)
		r->options.element = pstrdup(options->element);
	/* Also with what goes in front of it, it is one piece of memory. */
	r->options.max_record = Min(options->max_record, (int64) (MaxAllocSize - 2 * MAX_HEADER));
	initStringInfo(&r->record);
	if (options->kind == INGEST_RECORDS_XML)
		r->xml = ingest_xml_cutter_create();
	return r;
}

void
ingest_records_begin(IngestRecords *r, const char *header, Size header_len)
{
	r->scanned = 0;
	r->inside = r->has_header = false;

	if (r->xml)
		ingest_xml_cutter_begin(r, header, header_len);
	else if (header)
		(void) keep_header(r, header, header_len);
}

const char *
ingest_records_header(const IngestRecords *r, Size *len)
{
	if (r->xml)
		return ingest_xml_cutter_open(r->xml, len);
	*len = r->header_len;
	return r->has_header ? r->record.data : NULL;
}

IngestRecordsNext
ingest_records_next(IngestRecords *r, const char *data, Size len, bool last, Size *consumed,
					const char **record, Size *record_len, IngestRowError *err)
{
	*consumed = 0;
	if (r->xml)
		return ingest_xml_cutter_next(r, data, len, last, consumed, record, record_len, err);
	return next_of_text(r, data, len, last, consumed, record, record_len, err);
}
