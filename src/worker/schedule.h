/*
 * schedule.h
 *		When a pipeline runs: pure arithmetic on texts, intervals and timestamps.
 *
 * Who keeps the time of the next run, and acts on it, is the supervisor.
 */
#ifndef INGEST_SCHEDULE_H
#define INGEST_SCHEDULE_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "pgtime.h"
#include "worker/cron.h"

typedef enum IngestScheduleKind
{
	INGEST_SCHEDULE_CONTINUOUS,
	INGEST_SCHEDULE_INTERVAL,
	INGEST_SCHEDULE_CRON,
	INGEST_SCHEDULE_AFTER,		/* when others have run */
	INGEST_SCHEDULE_MANUAL		/* when somebody says so */
} IngestScheduleKind;

/* A part of the week in which runs may begin, by the clock of the zone. */
typedef struct IngestActiveSpan
{
	uint8		weekdays;		/* on which it begins; Sunday is bit 0 */
	int			from;			/* seconds of the day */
	int			to;				/* at or before "from": of the next day */
} IngestActiveSpan;

typedef struct IngestSchedule
{
	IngestScheduleKind kind;
	Interval	every;			/* INTERVAL */
	IngestCron	cron;			/* CRON */
	List	   *after;			/* AFTER: char *, names of pipelines */

	/* what options say */
	pg_tz	   *zone;			/* NULL: the session's */
	IngestCatchUp catch_up;
	int64		jitter;			/* ms: of each cron time, and of the first one of an interval */
	uint32		seed;			/* of the jitter: of the pipeline */
	IngestActiveSpan *active;	/* NULL: always */
	int			nactive;
} IngestSchedule;

/*
 * 'continuous', 'manual', 'after a, b', an interval such as '5 minutes', a cron
 * expression.  False: it is none of them.  What it points to is in
 * CurrentMemoryContext.  raises: out of memory
 */
extern bool ingest_schedule_find(const char *text, IngestSchedule *schedule);

/* The options that bear on it; those are checked when they are set.  mcxt: current */
extern void ingest_schedule_settings(IngestSchedule *schedule, const IngestPipelineOptions *options,
									 uint32 seed);

/* raises: ERRCODE_INVALID_PARAMETER_VALUE with a hint, when it is no schedule, or never comes */
extern void ingest_schedule_check(const char *text);

/* Of options "time_zone" and "active_hours".  raises: when they are none */
extern void ingest_schedule_check_zone(const char *name, const char *value);
extern void ingest_schedule_check_active_hours(const char *name, const char *value);

/*
 * The run after the one that was due at "previous" (0: there was none).  But for
 * catch_up "all" it comes after "now".  DT_NOEND: there is none by the clock.  Pure.
 * raises: when the timestamp is out of range
 */
extern TimestampTz ingest_schedule_next(const IngestSchedule *schedule, TimestampTz previous,
										TimestampTz now);

/*
 * When a run is due whose time was written down as "stored" (0: nothing was): not
 * after "now" when it is due.  It may differ from what is stored: the clock was set
 * back, the run was missed and is not made up for, the hours are not active.  Pure.
 */
extern TimestampTz ingest_schedule_due(const IngestSchedule *schedule, TimestampTz stored,
									   TimestampTz now);

/* This moment when runs may begin then, or else the first one when they may.  Pure. */
extern TimestampTz ingest_schedule_first_active(const IngestSchedule *schedule, TimestampTz at);

#endif							/* INGEST_SCHEDULE_H */
