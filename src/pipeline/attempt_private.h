/*
 * attempt_private.h
 *		What attempt.c, verdict.c and collect.c share.
 */
#ifndef INGEST_ATTEMPT_PRIVATE_H
#define INGEST_ATTEMPT_PRIVATE_H

#include "postgres.h"

#include "pipeline/attempt.h"

static inline bool
ingest_place_before(IngestPlace a, IngestPlace b)
{
	return a.message < b.message || (a.message == b.message && a.row < b.row);
}

/* One range of rows in one subtransaction. */
typedef struct IngestRange
{
	IngestPlace from;
	IngestPlace to;				/* excluded */
	int64		max_rows;

	/* progress */
	IngestPlace first;			/* the first row that was gone through */
	IngestPlace reached;		/* the next row */
	IngestPlace flushed;		/* rows before this one are written */
	int64		rows;			/* since from */
	int64		unflushed;		/* since flushed */
	int64		unflushed_bytes;

	IngestLoad *load;
	Tuplestorestate *accepted;	/* or NULL */
} IngestRange;

/* An error that was the data's fault. */
typedef struct IngestFailure
{
	IngestStep	step;
	int			rule;			/* or -1 */
	ErrorData  *error;			/* NULL: none */
} IngestFailure;

/* A row as it travels; slice: its bytes. */
typedef struct IngestTravel
{
	const IngestMessage *msg;
	int			row;			/* rows of the message before it */
	const char *slice;
	Size		slice_len;
} IngestTravel;

/* verdict.c: what becomes of a row, in counts, dead letters and notes. */
extern void ingest_verdict_written(IngestAttempt *att, const IngestTravel *travel, bool warned);
extern void ingest_verdict_skipped(IngestAttempt *att, const IngestTravel *travel);
extern void ingest_verdict_undecodable(IngestAttempt *att, const IngestTravel *travel,
									   const IngestRowError *error);
extern void ingest_verdict_violates(IngestAttempt *att, const IngestTravel *travel, int rule);
extern void ingest_verdict_unloadable(IngestAttempt *att, const IngestTravel *travel,
									  const IngestLoadError *error);
extern void ingest_verdict_failed(IngestAttempt *att, const IngestTravel *travel,
								  const IngestFailure *failure);

/*
 * attempt.c
 *
 * Do work in a subtransaction, with the attempt's try_mcxt current and
 * statement_timeout armed.  When it raises, counts, dead letters and notes are
 * taken back, and the answer is false, with a copy of the error, if the data
 * may be at fault; any other error is raised again.
 */
extern bool ingest_attempt_try(IngestAttempt *att, void (*work) (IngestAttempt *, void *),
							   void *arg, ErrorData **error);
extern bool ingest_attempt_exhausted(const IngestAttempt *att, bool within_message);
extern bool ingest_attempt_is_only_row(const IngestAttempt *att, const IngestMessage *msg);
extern void ingest_attempt_fill_metadata(IngestAttempt *att, const IngestMessage *msg);
extern void ingest_attempt_judge(IngestAttempt *att, IngestRange *range,
								 const IngestTravel *travel, int violated, bool warned);
extern void ingest_attempt_end_row(IngestAttempt *att, IngestRange *range,
								   IngestPlace next, Size bytes);

/* collect.c: rows collected before they are judged, for rules that need a query. */
extern int	ingest_collect(IngestAttempt *att);
extern void ingest_collect_end(IngestAttempt *att);
extern void ingest_collect_load(IngestAttempt *att, IngestRange *range);
extern IngestPlace ingest_collect_next(const IngestAttempt *att, IngestPlace place);

#endif							/* INGEST_ATTEMPT_PRIVATE_H */
