/*
 * spi.h
 *		Constant statements on our own catalogs.
 *
 * Pipelines run as their owner, our tables belong to the extension's owner.
 * Each access is one constant statement, run as the extension's owner with
 * search_path pinned to pg_catalog, pg_temp; never text made from data.
 */
#ifndef INGEST_SPI_H
#define INGEST_SPI_H

#include "postgres.h"

#include "executor/spi.h"

/*
 * Run one constant statement.  "statement" is a static struct: the plan is
 * prepared once per process and kept; it is made anew when the extension was
 * dropped and created again.  Values follow nargs/types; nulls is NULL or one
 * bool per argument.
 *
 * Results stay readable in SPI_tuptable until ingest_spi_end().
 * xact: in, with an active snapshot (taken when there is none).  raises: yes
 *
 *	static IngestStatement find_pipeline = {
 *		"SELECT id FROM ingest._pipeline WHERE name = $1", 1, {TEXTOID}
 *	};
 *
 *	ingest_spi_begin();
 *	if (ingest_spi_run(&find_pipeline, values, NULL) > 0)
 *		id = DatumGetInt32(ingest_spi_value(0, "id", &isnull));
 *	ingest_spi_end();
 */
#define INGEST_SPI_MAX_ARGS 24

typedef struct IngestStatement
{
	const char *sql;
	int			nargs;
	Oid			types[INGEST_SPI_MAX_ARGS];

	/* private */
	SPIPlanPtr	plan;
	Oid			extension;
} IngestStatement;

/* SPI_connect, switch to the extension's owner, pin search_path.  raises: yes */
extern void ingest_spi_begin(void);

/* Rows processed or returned.  raises: yes */
extern uint64 ingest_spi_run(IngestStatement *statement, Datum *values, const bool *nulls);

/*
 * Column of row "row" of the last result, by name.  By-reference values live
 * until ingest_spi_end(); copy them with ingest_spi_text() and friends into
 * "mcxt" when they must live on.  raises: when there is no such column
 */
extern Datum ingest_spi_value(uint64 row, const char *column, bool *isnull);
extern char *ingest_spi_text(uint64 row, const char *column, MemoryContext mcxt);	/* NULL when null */
extern int64 ingest_spi_int64(uint64 row, const char *column, int64 when_null);	/* any integer type */
extern bool ingest_spi_bool(uint64 row, const char *column, bool when_null);

/* Undo ingest_spi_begin().  An error does the same through (sub)transaction abort. */
extern void ingest_spi_end(void);

/*
 * Become the extension's owner / come back, for DDL-free work outside SPI.
 * Nested calls are an error.  A (sub)transaction abort restores the user.
 */
extern Oid	ingest_extension_oid(bool missing_ok);
extern Oid	ingest_extension_owner(void);

#endif							/* INGEST_SPI_H */
