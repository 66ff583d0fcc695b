/*
 * agenda.h
 *		The pipelines of a database that are to run, and when: what the
 *		supervisor knows of them.
 *
 * agenda.c reads them, decides what is due, and writes down how runs end.  The
 * supervisor starts and ends the processes.
 *
 * What a round costs does not grow with the number of pipelines: those that wait
 * for a time are kept in the order of their times, those that wait for a slot in the
 * order in which they became due; only what has changed is looked at.
 */
#ifndef INGEST_AGENDA_H
#define INGEST_AGENDA_H

#include "postgres.h"

#include "catalog/batch_history.h"
#include "catalog/state.h"
#include "core/error.h"
#include "lib/pairingheap.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "worker/process.h"
#include "worker/schedule.h"

/* Where it waits. */
typedef enum IngestAgendaPlace
{
	INGEST_AGENDA_NOWHERE,		/* all its workers live, or nothing is to be done */
	INGEST_AGENDA_LATER,		/* for a time */
	INGEST_AGENDA_DUE			/* for a slot */
} IngestAgendaPlace;

typedef struct IngestAgendaItem
{
	int32		id;				/* hash key */
	bool		wanted;			/* as of the last look */
	NameData	name;
	int64		version;		/* of the definition */
	Oid			owner;
	int			workers;
	int64		timeout;		/* ms of a try of a run; 0: none */
	int64		retries;		/* of a run; -1: no limit */
	int64		target_lag;		/* ms; 0: none */
	int64		lag;			/* ms that its followers and itself allow; 0: any */
	int64		lag_round;		/* when that was found out */
	MemoryContext mcxt;			/* of schedule and text */
	IngestSchedule schedule;
	char	   *text;			/* of the schedule */
	List	   *followers;		/* numbers of those that run after it */

	int			nupstream;		/* pipelines it runs after; all but these in upstream_mcxt */
	MemoryContext upstream_mcxt;
	int32	   *upstream;
	int64	   *counters;		/* of each: how often it has run, or the last batch of a stream */
	int64	   *seen;			/* of each: as it was when our last run began */
	bool	   *news;			/* of each: a stream has committed since our last run began */
	int64	   *seen_now;		/* as "seen", of the present run */

	TimestampTz retry_at;		/* 0: need not wait */
	TimestampTz next_run;		/* by the schedule; 0: not known yet */
	TimestampTz stored_next;	/* what the catalog says about that */
	TimestampTz asked_at;		/* somebody has asked for a run; 0: nobody */
	TimestampTz last_run;		/* when the last one that was completed began; 0: none was */
	TimestampTz last_end;		/* when the last one ended; 0: not known */
	int64		duration;		/* ms that a run is expected to take; 0: not known */

	/* Waiting. */
	IngestAgendaPlace place;
	pairingheap_node node;
	TimestampTz later;			/* LATER: until */
	int64		due_since;		/* DUE: microseconds, by the clock that nobody sets */
	int64		ended_ms;		/* its last run; by ingest_clock_ms() */
	IngestCause due_cause;

	/* The present run. */
	bool		running;		/* it has begun, and not all its workers are done */
	IngestCause cause;
	TimestampTz run_started;
	int64		run_started_ms; /* by ingest_clock_ms() */
	TimestampTz asked_now;		/* the request it answers; 0: none */
	int64		batches;		/* it has committed */
	Bitmapset  *drained;		/* workers that are done with it */
	Bitmapset  *live;			/* workers that have a process */
	int64		live_since;		/* by ingest_clock_ms() */
	int64		spent;			/* ms that the present try had workers before that */
	bool		ending;			/* its workers shall end: it took too long, or was given up */
	bool		timed_out;

	/* Ends that are still to be written down: somebody holds the state. */
	bool		listed;			/* something is to be written */
	bool		unwritten;
	IngestRunEnd end;
	int64	   *end_seen;
} IngestAgendaItem;

extern void ingest_agenda_init(void);
extern IngestAgendaItem *ingest_agenda_find(int32 id);

/* ---- reading: xact: in.  mcxt: current, for the moment.  raises: yes ---- */

/* The definitions and their states: all, or those of a list of numbers. */
extern void ingest_agenda_read(void);
extern void ingest_agenda_read_some(List *ids);

/* Do others run after it? */
extern bool ingest_agenda_is_followed(int32 id);

/* A stream has committed; which of its followers have to be read anew is added to ids. */
extern List *ingest_agenda_progressed(int32 id, List *ids);

/* ---- what is due ---- */

/*
 * What has waited longest for a slot, or NULL.  *ordinal: the worker it lacks;
 * *cause: of the run that it is for.
 */
extern IngestAgendaItem *ingest_agenda_first_due(int *ordinal, IngestCause *cause);

/* How many wait for a slot, those before not having got one. */
extern int	ingest_agenda_count_due(void);

/*
 * The first time that something waits for, and as whom it will run; DT_NOEND:
 * nothing does.
 */
extern TimestampTz ingest_agenda_first_later(Oid *owner);

/* A worker of it has a process now; with the first one a run begins, at "now". */
extern void ingest_agenda_started(IngestAgendaItem *item, int ordinal, IngestCause cause, TimestampTz now);

/* A worker that an earlier supervisor has started; run: when its run began, 0: a stream. */
extern void ingest_agenda_adopt(IngestAgendaItem *item, int ordinal, IngestCause cause, TimestampTz run);

/* ms until its run has taken too long; PG_INT64_MAX: never. */
extern int64 ingest_agenda_time_left(const IngestAgendaItem *item);

/* It has: its workers are to end. */
extern void ingest_agenda_time_out(IngestAgendaItem *item);

/* ---- how runs end: xact: in.  raises: yes ---- */

/*
 * A worker has no process any more, for the reason that result says; on_purpose: it was
 * terminated by us.  Ids of those of which something has to be read anew are added to
 * ids.
 */
extern List *ingest_agenda_left(IngestAgendaItem *item, int ordinal, IngestResult result, bool on_purpose,
								TimestampTz retry_at, int64 batches, List *ids);

/*
 * Write down what is not: the times of next runs, ends of runs whose state somebody
 * held.  Ids as above.
 */
extern List *ingest_agenda_write(List *ids);

/* Of how many pipelines something is left to be written. */
extern int	ingest_agenda_count_unwritten(void);

#endif							/* INGEST_AGENDA_H */
