/*
 * error.h
 *		Errors as values.
 *
 * Sources, and everything that runs outside a transaction, report what went
 * wrong in an IngestError; the worker alone decides whether to retry, to stop
 * or to ask for help.  ereport(ERROR) is for definition time and for bugs.
 */
#ifndef INGEST_ERROR_H
#define INGEST_ERROR_H

#include "postgres.h"

typedef enum IngestErrorClass
{
	INGEST_ERROR_NONE = 0,
	INGEST_ERROR_TRANSIENT,		/* retry with back-off */
	INGEST_ERROR_PERMANENT,		/* stop, state "failed" */
	INGEST_ERROR_CONFIG,		/* stop, state "broken": the definition is wrong */
	INGEST_ERROR_GAP,			/* stop, state "gap", unless on_gap => 'skip' */
	INGEST_ERROR_PAUSE			/* stop, state "paused": the error budget is used up */
} IngestErrorClass;

typedef struct IngestError
{
	IngestErrorClass class;
	int			sqlstate;		/* as made by MAKE_SQLSTATE() */
	char	   *message;		/* lower case, no full stop */
	char	   *detail;			/* a sentence, or NULL */
	char	   *hint;			/* a sentence, or NULL */
	int64		retry_after;	/* milliseconds the peer asked for, or 0 */
} IngestError;

/*
 * Fill *err; strings are allocated in CurrentMemoryContext.  raises: out of
 * memory only.  detail and hint are set afterwards with the two functions
 * below.  All text passes through ingest_error_clean().
 */
extern void ingest_error_set(IngestError *err, IngestErrorClass class,
							 int sqlstate, const char *fmt,...) pg_attribute_printf(4, 5);
extern void ingest_error_detail(IngestError *err, const char *fmt,...) pg_attribute_printf(2, 3);
extern void ingest_error_hint(IngestError *err, const char *fmt,...) pg_attribute_printf(2, 3);

/* Forget the error.  raises: no */
extern void ingest_error_reset(IngestError *err);

/* Copy into mcxt.  raises: out of memory only */
extern void ingest_error_copy(IngestError *to, const IngestError *from, MemoryContext mcxt);

/* ereport() the value at elevel.  raises: when elevel >= ERROR */
extern void ingest_error_report(const IngestError *err, int elevel);

/*
 * Turn the ErrorData of a caught ERROR into a value.  Serialization failures,
 * deadlocks, lock timeouts, resource shortage (53, disk full) and connection
 * loss (08, 57P) are transient, everything else is permanent.
 * mcxt: current.  raises: out of memory only
 */
extern void ingest_error_from_edata(IngestError *err, const ErrorData *edata);

/*
 * For an error met with a definition, not with data: when it is permanent and
 * says that something is missing, not allowed or misspelt (classes 28, 3F, 42),
 * its class becomes CONFIG.  raises: no
 */
extern void ingest_error_blame_definition(IngestError *err);

/* "transient", "permanent", ... raises: no */
extern const char *ingest_error_class_name(IngestErrorClass class);

/*
 * A copy of text from outside that is safe to put in a message, a log line or
 * a view: valid in the database encoding, control characters replaced by
 * spaces, clipped to max bytes at a character boundary.
 * mcxt: current.  raises: out of memory only
 */
extern char *ingest_error_clean(const char *text, Size len, Size max);

#endif							/* INGEST_ERROR_H */
