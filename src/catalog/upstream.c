/*
 * upstream.c
 *		_pipeline.upstream: the pipelines that one runs after.
 *
 * Kept by number, so that a rename does not matter; the text of the schedule is
 * for people.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/upstream.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"

static void
raise_cycle(const char *path)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("pipelines cannot run after each other in a circle"),
			 errdetail("It would be: %s.", path)));
}

/* From the upstream pipelines upwards: does one of them run after this one? */
static void
check_cycle(int32 id, Datum upstream)
{
	static IngestStatement find = {
		"WITH RECURSIVE above (id, path) AS ("
		"  SELECT p.id, p.name FROM ingest._pipeline p WHERE p.id = ANY ($2)"
		"  UNION ALL"
		"  SELECT p.id, above.path || ' after ' || p.name"
		"  FROM above JOIN ingest._pipeline a ON a.id = above.id"
		"  JOIN ingest._pipeline p ON p.id = ANY (a.upstream) WHERE above.id <> $1)"
		" SELECT (SELECT name FROM ingest._pipeline WHERE id = $1) || ' after ' || path AS path"
		" FROM above WHERE id = $1 LIMIT 1",
		2, {INT4OID, INT4ARRAYOID}
	};
	Datum		values[2] = {Int32GetDatum(id), upstream};
	MemoryContext mcxt = CurrentMemoryContext;
	char	   *path = NULL;

	ingest_spi_begin();
	if (ingest_spi_run(&find, values, NULL) > 0)
		path = ingest_spi_text(0, "path", mcxt);
	ingest_spi_end();
	if (path)
		raise_cycle(path);
}

/*
 * Who runs after whom is changed by one at a time, until the transaction ends: two
 * who each see no circle could make one, and what is dropped must not be named.
 */
static void
lock_graph(void)
{
	LOCKTAG		tag = {
		.locktag_field1 = MyDatabaseId,
		.locktag_field4 = 0x696e,	/* as in worker/lock.c; no pipeline has the number 0 */
		.locktag_type = LOCKTAG_USERLOCK,
		.locktag_lockmethodid = USER_LOCKMETHOD
	};

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
ingest_upstream_set(const IngestPipeline *pl, List *names)
{
	static IngestStatement set = {
		"WITH changed AS ("
		"  UPDATE ingest._pipeline SET upstream = $2 WHERE id = $1 AND upstream IS DISTINCT FROM $2 RETURNING id)"
		"UPDATE ingest._state SET seen = NULL FROM changed WHERE pipeline_id = changed.id",
		2, {INT4OID, INT4ARRAYOID}
	};
	Datum	   *ids = palloc(sizeof(Datum) * Max(list_length(names), 1));
	Datum		values[2] = {Int32GetDatum(pl->id)};
	bool		nulls[2] = {false, names == NIL};
	ListCell   *lc;
	int			n = 0;

	if (names != NIL)
		lock_graph();
	foreach(lc, names)
	{
		IngestPipeline *upstream = ingest_pipeline_get(lfirst(lc));

		ingest_pipeline_check_owner(upstream);
		ids[n++] = Int32GetDatum(upstream->id);
	}
	values[1] = PointerGetDatum(construct_array(ids, n, INT4OID, 4, true, TYPALIGN_INT));
	if (names != NIL)
		check_cycle(pl->id, values[1]);
	ingest_spi_begin();
	ingest_spi_run(&set, values, nulls);
	ingest_spi_end();
}

void
ingest_upstream_check_drop(const IngestPipeline *pl)
{
	static IngestStatement find = {
		"SELECT pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ' ORDER BY name) AS names"
		" FROM ingest._pipeline WHERE $1 = ANY (upstream)",
		1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pl->id);
	MemoryContext mcxt = CurrentMemoryContext;
	char	   *names;

	lock_graph();
	ingest_spi_begin();
	ingest_spi_run(&find, &id, NULL);
	names = ingest_spi_text(0, "names", mcxt);
	ingest_spi_end();
	if (names)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("pipeline \"%s\" cannot be dropped: others run after it", pl->name),
				 errdetail("They are: %s.", names),
				 errhint("Give them another schedule first.")));
}

void
ingest_upstream_rename(int32 pipeline_id)
{
	static IngestStatement rename = {
		"UPDATE ingest._pipeline f SET schedule = 'after ' || ("
		"  SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.name), ', ' ORDER BY u.place)"
		"  FROM pg_catalog.unnest(f.upstream) WITH ORDINALITY u (id, place)"
		"  JOIN ingest._pipeline p ON p.id = u.id), version = version + 1"
		" WHERE $1 = ANY (f.upstream)",
		1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);

	ingest_spi_begin();
	ingest_spi_run(&rename, &id, NULL);
	ingest_spi_end();
}
