/*
 * agenda.h
 *		The pipelines of a database that are to run, and when: what the
 *		supervisor knows of them.
 *
 * agenda.c reads them, decides what is due, and writes down how runs end.  The
 * supervisor starts and ends the processes.
 */
#ifndef INGEST_AGENDA_H
#define INGEST_AGENDA_H

#include "postgres.h"

#include "catalog/batch_history.h"
#include "core/error.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "worker/schedule.h"

typedef struct IngestAgendaItem
{
	int32		id;				/* hash key */
	bool		wanted;			/* as of the last look */
	NameData	name;
	Oid			owner;
	int			workers;
	int64		timeout;		/* ms of a run; 0: none */
	int64		retries;		/* of a run; -1: no limit */
	int64		target_lag;		/* ms, of its own or wanted by those that follow it; 0: none */
	MemoryContext mcxt;			/* of what follows */
	IngestSchedule schedule;
	char	   *text;			/* of the schedule */
	int			nupstream;		/* pipelines it runs after */
	int32	   *upstream;
	int64	   *counters;		/* of each: how often it has run, or the last batch of a stream */
	int64	   *seen;			/* of each: as it was when our last run began */

	TimestampTz retry_at;		/* 0: need not wait */
	TimestampTz next_run;		/* by the schedule; 0: not known yet */
	TimestampTz asked_at;		/* somebody has asked for a run; 0: nobody */
	TimestampTz last_run;		/* when the last one that was completed began; 0: none was */

	/* The present run. */
	bool		running;		/* it has begun, and not all its workers are done */
	IngestCause cause;
	TimestampTz run_started;
	int64		run_started_ms; /* by ingest_clock_ms() */
	bool		timing_out;		/* it has taken too long, and is being ended */
	int64	   *seen_now;		/* the counters when it began; NULL: not of this process */
	Bitmapset  *drained;		/* workers that are done with it */

	bool		unsure;			/* next_run was read, and may be nonsense: the clock was set */
	Bitmapset  *live;			/* workers that have a process */
	int64		due_since;		/* by ingest_clock_ms(): some worker of it has no slot; 0: none */
	int64		duration;		/* ms of recent runs */
} IngestAgendaItem;

extern void ingest_agenda_init(void);
extern IngestAgendaItem *ingest_agenda_find(int32 id);

/* All of them, as they are, to go through: ingest_agenda_next() until it is NULL. */
extern void ingest_agenda_begin(HASH_SEQ_STATUS *scan);
extern IngestAgendaItem *ingest_agenda_next(HASH_SEQ_STATUS *scan);

/*
 * Read the definitions anew: all, or those of a list of numbers.  xact: in.
 * mcxt: current, for the moment.  raises: yes
 */
extern void ingest_agenda_read(void);
extern void ingest_agenda_read_some(List *ids);

/* Numbers of the pipelines that run after this one, added to a list. */
extern List *ingest_agenda_add_followers(List *ids, int32 id);
extern bool ingest_agenda_is_followed(int32 id);

/*
 * Is it time for this pipeline?  A run that has begun goes on; one that begins is
 * noted here.  Otherwise *wake is set to when it may be (DT_NOEND: not by the clock).
 */
extern bool ingest_agenda_is_due(IngestAgendaItem *item, TimestampTz now, TimestampTz *wake);

/* A run that an earlier supervisor began. */
extern void ingest_agenda_adopt_run(IngestAgendaItem *item, IngestCause cause, TimestampTz started);

/* One of its workers has read what there was; with the last of them the run is done.  xact: in */
extern void ingest_agenda_drained(IngestAgendaItem *item, int ordinal);

/* A try has failed, in a way the worker could not write down.  xact: in */
extern void ingest_agenda_failed(IngestAgendaItem *item, const IngestError *err, IngestOutcome outcome);

/* All tries that it has were made: wait for the next run.  xact: in */
extern void ingest_agenda_given_up(IngestAgendaItem *item);

/* ms until its run has taken too long; PG_INT64_MAX: never. */
extern int64 ingest_agenda_time_left(const IngestAgendaItem *item);

#endif							/* INGEST_AGENDA_H */
