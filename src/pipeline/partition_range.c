/*
 * partition_range.c
 *		The grid of ranges of a table partitioned by time, and how it fits
 *		between partitions that are there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pipeline/partition_range.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/partcache.h"
#include "utils/timestamp.h"

/* 2000-01-03, the first Monday */
#define FIRST_MONDAY (2 * USECS_PER_DAY)

/* ---- the grid ---- */

static bool
shift_months(TimestampTz at, int64 months, TimestampTz *result)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		month;
	int64		year;

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		return false;
	month = (int64) tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1 + months;
	year = month / MONTHS_PER_YEAR - (month % MONTHS_PER_YEAR < 0 ? 1 : 0);
	if (year < PG_INT16_MIN * 10 || year > PG_INT32_MAX / MONTHS_PER_YEAR)
		return false;
	tm.tm_year = (int) year;
	tm.tm_mon = (int) (month - year * MONTHS_PER_YEAR) + 1;
	tm.tm_mday = Min(tm.tm_mday, day_tab[isleap(tm.tm_year)][tm.tm_mon - 1]);
	return tm2timestamp(&tm, fsec, NULL, result) == 0;
}

bool
ingest_range_shift(TimestampTz at, const Interval *span, int times, TimestampTz *result)
{
	int64		days;
	int64		time;

	if (TIMESTAMP_NOT_FINITE(at) ||
		(span->month != 0 && !shift_months(at, (int64) span->month * times, &at)) ||
		pg_mul_s64_overflow((int64) span->day * times, USECS_PER_DAY, &days) ||
		pg_mul_s64_overflow(span->time, times, &time) ||
		pg_add_s64_overflow(at, days, &at) || pg_add_s64_overflow(at, time, &at) ||
		!IS_VALID_TIMESTAMP(at))
		return false;
	*result = at;
	return true;
}

static int64
floor_divide(int64 a, int64 b)
{
	return a / b - (a % b < 0 ? 1 : 0);
}

static bool
floor_months(TimestampTz at, int months, TimestampTz *result)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		since;

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		return false;
	since = ((int64) tm.tm_year - 2000) * MONTHS_PER_YEAR + tm.tm_mon - 1;
	return shift_months(0, floor_divide(since, months) * months, result);
}

bool
ingest_range_step(TimestampTz at, const Interval *every, IngestTimeRange *range)
{
	int64		step = every->time + every->day * USECS_PER_DAY;
	TimestampTz origin = step % (7 * USECS_PER_DAY) == 0 ? FIRST_MONDAY : 0;

	if (TIMESTAMP_NOT_FINITE(at))
		return false;
	if (every->month != 0)
	{
		if (!floor_months(at, every->month, &range->from))
			return false;
	}
	else
		range->from = floor_divide(at - origin, step) * step + origin;
	return IS_VALID_TIMESTAMP(range->from) &&
		ingest_range_shift(range->from, every, 1, &range->to);
}

/* ---- keys ---- */

TimestampTz
ingest_range_from_key(Oid type, Datum key)
{
	DateADT		date;

	if (type != DATEOID)
		return DatumGetTimestampTz(key);
	date = DatumGetDateADT(key);
	if (DATE_IS_NOBEGIN(date))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(date) || date >= TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE)
		return DT_NOEND;
	return date * USECS_PER_DAY;
}

Datum
ingest_range_to_key(Oid type, TimestampTz at)
{
	if (type != DATEOID)
		return TimestampTzGetDatum(at);
	return DateADTGetDatum((DateADT) floor_divide(at, USECS_PER_DAY));
}

/* ---- partitions that are there ---- */

/* Bound "i"; range "i" goes from bound i - 1 to bound i.  MINVALUE and MAXVALUE are infinities. */
static TimestampTz
bound_at(Relation table, PartitionBoundInfo bounds, int i)
{
	switch (bounds->kind[i][0])
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return DT_NOBEGIN;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return DT_NOEND;
		default:
			return ingest_range_from_key(RelationGetPartitionKey(table)->parttypid[0],
										 bounds->datums[i][0]);
	}
}

static int
count_bounds(PartitionDesc desc)
{
	return desc->nparts > 0 ? desc->boundinfo->ndatums : 0;
}

bool
ingest_range_covered(Relation table, TimestampTz at, bool with_detached)
{
	PartitionDesc desc = RelationGetPartitionDesc(table, !with_detached);
	int			nbounds = count_bounds(desc);

	for (int i = 1; i < nbounds; i++)
		if (bound_at(table, desc->boundinfo, i - 1) <= at &&
			at < bound_at(table, desc->boundinfo, i))
			return desc->boundinfo->indexes[i] >= 0;
	return false;
}

void
ingest_range_cut(Relation table, TimestampTz at, IngestTimeRange *range)
{
	PartitionDesc desc = RelationGetPartitionDesc(table, false);
	int			nbounds = count_bounds(desc);

	for (int i = 0; i < nbounds; i++)
	{
		TimestampTz bound = bound_at(table, desc->boundinfo, i);

		if (bound <= at)
			range->from = Max(range->from, bound);
		else
			range->to = Min(range->to, bound);
	}
}

List *
ingest_range_until(Relation table, TimestampTz limit)
{
	PartitionDesc desc = RelationGetPartitionDesc(table, true);
	int			nbounds = count_bounds(desc);
	List	   *found = NIL;

	for (int i = 1; i < nbounds; i++)
		if (desc->boundinfo->indexes[i] >= 0 && bound_at(table, desc->boundinfo, i) <= limit)
			found = lappend_oid(found, desc->oids[desc->boundinfo->indexes[i]]);
	return found;
}
