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
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/partcache.h"

/* How two keys of a range are compared; most are integers inside. */
typedef enum CompareAs
{
	COMPARE_BY_FUNCTION,
	COMPARE_INT64,
	COMPARE_INT32
} CompareAs;

struct IngestRoute
{
	PartitionKey key;
	PartitionDesc desc;
	CompareAs	compare;

	/* the range of one column that was last found; lower <= value < upper */
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

static CompareAs
choose_comparison(PartitionKey key)
{
	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1)
		return COMPARE_BY_FUNCTION;
	switch (key->partsupfunc[0].fn_oid)
	{
		case F_BTINT8CMP:
		case F_TIMESTAMP_CMP:
		case F_TIMESTAMPTZ_CMP:
			return COMPARE_INT64;
		case F_BTINT4CMP:
		case F_DATE_CMP:
			return COMPARE_INT32;
		default:
			return COMPARE_BY_FUNCTION;
	}
}

IngestRoute *
ingest_route_open(Relation root)
{
	IngestRoute *route = palloc0(sizeof(*route));

	route->key = RelationGetPartitionKey(root);
	route->desc = RelationGetPartitionDesc(root, true);
	route->last = -1;
	route->compare = choose_comparison(route->key);
	return route;
}

bool
ingest_route_known(const IngestRoute *route, const bool *known)
{
	for (int i = 0; i < route->key->partnatts; i++)
		if (!known[route->key->partattrs[i] - 1])
			return false;
	return true;
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

/* <0, 0, >0 for a key of one column */
static inline int
compare_keys(const IngestRoute *route, Datum a, Datum b)
{
	switch (route->compare)
	{
		case COMPARE_INT64:
			return DatumGetInt64(a) < DatumGetInt64(b) ? -1 : DatumGetInt64(a) > DatumGetInt64(b);
		case COMPARE_INT32:
			return DatumGetInt32(a) < DatumGetInt32(b) ? -1 : DatumGetInt32(a) > DatumGetInt32(b);
		default:
			return DatumGetInt32(FunctionCall2Coll(&route->key->partsupfunc[0],
												   route->key->partcollation[0], a, b));
	}
}

static inline bool
in_last(const IngestRoute *route, Datum value)
{
	return route->last >= 0 &&
		(!route->has_lower || compare_keys(route, value, route->lower) >= 0) &&
		(!route->has_upper || compare_keys(route, value, route->upper) < 0);
}

/* Bound "i" of a key of one column, which may be MINVALUE or MAXVALUE, and a value. */
static inline int
compare_bound(const IngestRoute *route, int i, Datum value)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;

	switch (bounds->kind[i][0])
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return -1;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return 1;
		default:
			return compare_keys(route, bounds->datums[i][0], value);
	}
}

/* Index of the greatest bound that is <= value, or -1. */
static int
search_bounds(const IngestRoute *route, Datum value)
{
	int			low = -1;
	int			high = route->desc->boundinfo->ndatums - 1;

	while (low < high)
	{
		int			middle = (low + high + 1) / 2;

		if (compare_bound(route, middle, value) <= 0)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

static void
remember(IngestRoute *route, int offset, int found)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;

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

/* A range of one column: lower <= value < upper, and no range holds NULL. */
static int
find_simple_range(IngestRoute *route, Datum value, bool isnull)
{
	PartitionBoundInfo bounds = route->desc->boundinfo;
	int			offset;
	int			found;

	if (isnull)
		return bounds->default_index;
	if (in_last(route, value))
		return route->last;
	offset = search_bounds(route, value);
	found = bounds->indexes[offset + 1];
	if (found < 0)
		return bounds->default_index;
	remember(route, offset, found);
	return found;
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
	return found < 0 ? bounds->default_index : found;
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
			found = key->partnatts == 1 ? find_simple_range(route, values[0], isnull[0]) :
				find_range(route, values, isnull);
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
