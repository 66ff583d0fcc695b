/*
 * cron.h
 *		Cron expressions: from text to bits, and the times they match.
 *
 * Pure: no clock, no catalogs.  The fields and their meaning are those of
 * Vixie's cron (crontab(5)), with seconds as an optional first field.
 */
#ifndef INGEST_CRON_H
#define INGEST_CRON_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

typedef struct IngestCron
{
	uint64		seconds;		/* a bit for each value */
	uint64		minutes;
	uint32		hours;
	uint32		days;			/* from bit 1 */
	uint16		months;			/* from bit 1 */
	uint8		weekdays;		/* Sunday is bit 0 */
	uint8		nth[5];			/* weekdays that count only as the first, second, ... of their month */
	uint8		last;			/* weekdays that count only as the last of their month */
	bool		last_day;		/* "L": the last day of the month */
	bool		any_day;		/* the field begins with an asterisk */
	bool		any_weekday;
	bool		by_clock;		/* at fixed times of the day: hours and minutes are given */
} IngestCron;

/*
 * Five fields, six with seconds first, or a name such as @daily.  False: *why says
 * which one is wrong, where, and why (sentences).  mcxt: current.  raises: out of memory
 */
extern bool ingest_cron_parse(const char *text, IngestCron *cron, const char **why);

/*
 * The first time after "after" that it matches in the zone; false: there is none.
 * What fixed times do when the clock is changed, and others, is in cron.c.
 * raises: no
 */
extern bool ingest_cron_next(const IngestCron *cron, TimestampTz after, const pg_tz *zone, TimestampTz *next);

/*
 * A time of day in a zone as seconds since 1970-01-01 of that zone's clock, and
 * back.  Of a time that comes twice it is the first; for one that never comes, it
 * is the moment when the clock is set forward.  raises: no
 */
extern int64 ingest_zone_clock(pg_time_t at, const pg_tz *zone);
extern pg_time_t ingest_zone_time(int64 clock, const pg_tz *zone);

#endif							/* INGEST_CRON_H */
