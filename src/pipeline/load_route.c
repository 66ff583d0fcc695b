/*
 * load_route.c
 *		Routing of rows to partitions, with the last range tried first.
 *
 * The server's own routing raises an error for a row without a partition; here
 * that is an answer.
 */
#include "postgres.h"

#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pipeline/load_route.h"
#include "utils/fmgroids.h"
#include "utils/partcache.h"

struct IngestRoute
{
	PartitionKey key;
	PartitionDesc desc;
	bool		by_int64;		/* range of one int8 or timestamp: compare as integers */

	/* the range that was last found; lower <= value < upper */
	int			last;			/* -1: none */
	bool		has_lower;
	bool		has_upper;
	Datum		lower;
	Datum		upper;
};

bool
ingest_route_possible(Relation root)
{
	PartitionKey key = RelationGetPartitionKey(root);

	for (int i = 0; i < key->partnatts; i++)
		if (key->partattrs[i] == 0)
			return false;
	return true;
}

IngestRoute *
ingest_route_open(Relation root)
{
	IngestRoute *route = palloc0(sizeof(*route));
	Oid			compare;

	route->key = RelationGetPartitionKey(root);
	route->desc = RelationGetPartitionDesc(root, true);
	route->last = -1;
	compare = route->key->partsupfunc[0].fn_oid;
	route->by_int64 = route->key->strategy == PARTITION_STRATEGY_RANGE &&
		route->key->partnatts == 1 && (compare == F_BTINT8CMP || compare == F_TIMESTAMP_CMP);
	return route;
}

int
ingest_route_count(const IngestRoute *route)
{
	return route->desc->nparts;
}

AttrNumber
ingest_route_range_column(const IngestRoute *route)
{
	if (route->key->strategy != PARTITION_STRATEGY_RANGE || route->key->partnatts != 1)
		return InvalidAttrNumber;
	return route->key->partattrs[0];
}

/* Remember the range at "offset" of the bounds, for keys of one column. */
static void
remember(IngestRoute *route, int offset, int found)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;

	if (route->key->partnatts != 1 || found == bounds->default_index)
		return;
	route->last = found;
	route->has_lower = offset >= 0 &&
		bounds->kind[offset][0] == PARTITION_RANGE_DATUM_VALUE;
	route->has_upper = offset + 1 < bounds->ndatums &&
		bounds->kind[offset + 1][0] == PARTITION_RANGE_DATUM_VALUE;
	if (route->has_lower)
		route->lower = bounds->datums[offset][0];
	if (route->has_upper)
		route->upper = bounds->datums[offset + 1][0];
}

static inline bool
in_last(const IngestRoute *route, Datum value)
{
	FmgrInfo   *compare = &route->key->partsupfunc[0];
	Oid			collation = route->key->partcollation[0];

	if (route->last < 0)
		return false;
	if (route->by_int64)
		return (!route->has_lower || DatumGetInt64(value) >= DatumGetInt64(route->lower)) &&
			(!route->has_upper || DatumGetInt64(value) < DatumGetInt64(route->upper));
	return (!route->has_lower ||
			DatumGetInt32(FunctionCall2Coll(compare, collation, value, route->lower)) >= 0) &&
		(!route->has_upper ||
		 DatumGetInt32(FunctionCall2Coll(compare, collation, value, route->upper)) < 0);
}

static int
find_range(IngestRoute *route, Datum *values, const bool *isnull)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;
	bool		equal;
	int			offset;
	int			found;

	for (int i = 0; i < route->key->partnatts; i++)
		if (isnull[i])
			return bounds->default_index;
	offset = partition_range_datum_bsearch(route->key->partsupfunc, route->key->partcollation,
										   bounds, route->key->partnatts, values, &equal);
	found = bounds->indexes[offset + 1];
	if (found < 0)
		return bounds->default_index;
	remember(route, offset, found);
	return found;
}

static int
find_list(IngestRoute *route, Datum value, bool isnull)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;
	bool		equal = false;
	int			offset;

	if (isnull)
		return partition_bound_accepts_nulls(bounds) ? bounds->null_index : bounds->default_index;
	offset = partition_list_bsearch(route->key->partsupfunc, route->key->partcollation, bounds,
									value, &equal);
	return offset >= 0 && equal ? bounds->indexes[offset] : bounds->default_index;
}

static int
find_hash(IngestRoute *route, Datum *values, bool *isnull)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;
	uint64		hash = compute_partition_hash_value(route->key->partnatts,
													route->key->partsupfunc,
													route->key->partcollation, values, isnull);

	return bounds->indexes[hash % bounds->nindexes];
}

int
ingest_route_find(IngestRoute *route, const Datum *row, const bool *row_null, Oid *leaf)
{
	PartitionKey key = route->key;
	Datum		values[PARTITION_MAX_KEYS];
	bool		isnull[PARTITION_MAX_KEYS];
	int			found;

	if (route->desc->nparts == 0)
		return -1;
	for (int i = 0; i < key->partnatts; i++)
	{
		values[i] = row[key->partattrs[i] - 1];
		isnull[i] = row_null[key->partattrs[i] - 1];
	}
	switch (key->strategy)
	{
		case PARTITION_STRATEGY_RANGE:
			if (!isnull[0] && in_last(route, values[0]))
				found = route->last;
			else
				found = find_range(route, values, isnull);
			break;
		case PARTITION_STRATEGY_LIST:
			found = find_list(route, values[0], isnull[0]);
			break;
		default:
			found = find_hash(route, values, isnull);
			break;
	}
	if (found >= 0)
		*leaf = route->desc->oids[found];
	return found;
}
