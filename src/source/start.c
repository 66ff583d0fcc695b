/*
 * start.c
 *		Where to start reading a source, as people write it.
 */
#include "postgres.h"

#include "source/source.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

static void
add_hint(void *arg)
{
	errhint("It is \"earliest\", \"latest\" or a timestamp.");
}

IngestStart
ingest_start_parse(const char *text, TimestampTz *at)
{
	ErrorContextCallback context = {error_context_stack, add_hint, NULL};

	*at = 0;
	if (strcmp(text, "earliest") == 0)
		return INGEST_START_EARLIEST;
	if (strcmp(text, "latest") == 0)
		return INGEST_START_LATEST;

	error_context_stack = &context;
	*at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
												  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	error_context_stack = context.previous;
	if (TIMESTAMP_NOT_FINITE(*at))
		return TIMESTAMP_IS_NOBEGIN(*at) ? INGEST_START_EARLIEST : INGEST_START_LATEST;
	return INGEST_START_TIMESTAMP;
}
