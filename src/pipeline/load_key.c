/*
 * load_key.c
 *		Which rows of a batch have the same key.
 *
 * A statement cannot write a row twice, and somebody has to know how many rows
 * were not written for that.  Keys are compared as the unique index compares
 * them.  Types that cannot be hashed are sorted when the batch is complete.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "nodes/bitmapset.h"
#include "pipeline/load_key.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* Rows there is room for at first. */
#define FIRST_ROWS 256

typedef struct KeyEntry
{
	uint32		row;			/* the last one with the key */
	uint32		hash;
	char		status;
} KeyEntry;

typedef struct KeyType
{
	TypeCacheEntry *type;
	Oid			collation;
	int16		len;
	bool		byval;
} KeyType;

typedef struct IngestKeyRows
{
	MemoryContext mcxt;			/* of the keys, and the set */
	MemoryContext copies;		/* of values; reset */
	int			n;				/* columns */
	KeyType    *types;
	bool		hashable;
	struct keyset_hash *set;	/* NULL: not hashable */
	Datum	   *keys;			/* n for each row */
	int64		nrows;
	int64		max_rows;
	Bitmapset  *replaced;
	int64		nreplaced;
	bool		settled;
} IngestKeyRows;

static bool
is_same_key(IngestKeyRows *rows, uint32 a, uint32 b)
{
	for (int i = 0; i < rows->n; i++)
	{
		KeyType    *type = &rows->types[i];
		Datum		x = rows->keys[(Size) a * rows->n + i];
		Datum		y = rows->keys[(Size) b * rows->n + i];

		if (type->byval && x == y)
			continue;
		if (!DatumGetBool(FunctionCall2Coll(&type->type->eq_opr_finfo, type->collation, x, y)))
			return false;
	}
	return true;
}

#define SH_PREFIX keyset
#define SH_ELEMENT_TYPE KeyEntry
#define SH_KEY_TYPE uint32
#define SH_KEY row
#define SH_HASH_KEY(set, key) 0		/* it is always given */
#define SH_EQUAL(set, a, b) is_same_key((IngestKeyRows *) (set)->private_data, a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(set, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* ---- making ---- */

IngestLoadKey *
ingest_load_key_make(Relation target, const AttrNumber *attnums, int n)
{
	IngestLoadKey *key = palloc0(sizeof(IngestLoadKey));
	IngestKeyRows *rows = palloc0(sizeof(IngestKeyRows));

	key->n = n;
	key->attnums = palloc(sizeof(AttrNumber) * n);
	key->names = palloc(sizeof(char *) * n);
	key->rows = rows;
	rows->mcxt = CurrentMemoryContext;
	rows->copies = AllocSetContextCreate(CurrentMemoryContext, "ingest keys", ALLOCSET_DEFAULT_SIZES);
	rows->n = n;
	rows->types = palloc0(sizeof(KeyType) * n);
	rows->hashable = true;
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(target), attnums[i] - 1);
		KeyType    *type = &rows->types[i];

		key->attnums[i] = attnums[i];
		key->names[i] = pstrdup(NameStr(att->attname));
		type->collation = att->attcollation;
		type->len = att->attlen;
		type->byval = att->attbyval;
		type->type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO |
									   TYPECACHE_HASH_PROC_FINFO | TYPECACHE_CMP_PROC_FINFO);
		rows->hashable &= OidIsValid(type->type->hash_proc_finfo.fn_oid);
	}
	if (rows->hashable)
		rows->set = keyset_create(rows->mcxt, FIRST_ROWS, rows);
	return key;
}

/* ---- noting ---- */

static void
make_room(IngestKeyRows *rows)
{
	if (rows->nrows < rows->max_rows)
		return;
	rows->max_rows = Max(rows->max_rows * 2, FIRST_ROWS);
	if (rows->max_rows > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a batch has too many rows")));
	if (rows->keys)
		rows->keys = repalloc_huge(rows->keys, sizeof(Datum) * rows->n * rows->max_rows);
	else
		rows->keys = MemoryContextAllocHuge(rows->mcxt, sizeof(Datum) * rows->n * rows->max_rows);
}

static uint32
hash_key(IngestKeyRows *rows, const Datum *key)
{
	uint32		hash = 0;

	for (int i = 0; i < rows->n; i++)
		hash = hash_combine(hash, DatumGetUInt32(FunctionCall1Coll(&rows->types[i].type->hash_proc_finfo,
																   rows->types[i].collation, key[i])));
	return murmurhash32(hash);
}

static void
replace_row(IngestKeyRows *rows, int64 row)
{
	MemoryContext old = MemoryContextSwitchTo(rows->copies);

	rows->replaced = bms_add_member(rows->replaced, (int) row);
	rows->nreplaced++;
	MemoryContextSwitchTo(old);
}

void
ingest_load_key_note(IngestLoadKey *key, const Datum *values)
{
	IngestKeyRows *rows = key->rows;
	MemoryContext old = MemoryContextSwitchTo(rows->copies);
	KeyEntry   *entry;
	Datum	   *noted;
	bool		found;

	make_room(rows);
	noted = &rows->keys[(Size) rows->nrows * rows->n];
	for (int i = 0; i < rows->n; i++)
	{
		Datum		value = values[key->attnums[i] - 1];

		noted[i] = rows->types[i].byval ? value : datumCopy(value, false, rows->types[i].len);
	}
	if (rows->set)
	{
		entry = keyset_insert_hash(rows->set, (uint32) rows->nrows, hash_key(rows, noted), &found);
		if (found)
			replace_row(rows, entry->row);
		entry->row = (uint32) rows->nrows;
	}
	rows->nrows++;
	MemoryContextSwitchTo(old);
}

/* ---- what was found ---- */

/* By key; of the same key, in order of arrival. */
static int
compare_rows(const void *a, const void *b, void *arg)
{
	IngestKeyRows *rows = arg;
	uint32		x = *(const uint32 *) a;
	uint32		y = *(const uint32 *) b;

	for (int i = 0; i < rows->n; i++)
	{
		int32		order = DatumGetInt32(FunctionCall2Coll(&rows->types[i].type->cmp_proc_finfo,
															rows->types[i].collation,
															rows->keys[(Size) x * rows->n + i],
															rows->keys[(Size) y * rows->n + i]));

		if (order != 0)
			return order;
	}
	return x < y ? -1 : x > y;
}

static void
sort_rows(IngestKeyRows *rows)
{
	uint32	   *order = MemoryContextAllocHuge(rows->copies, sizeof(uint32) * Max(rows->nrows, 1));

	for (int64 i = 0; i < rows->nrows; i++)
		order[i] = (uint32) i;
	qsort_arg(order, rows->nrows, sizeof(uint32), compare_rows, rows);
	for (int64 i = 1; i < rows->nrows; i++)
		if (is_same_key(rows, order[i - 1], order[i]))
			replace_row(rows, order[i - 1]);
	pfree(order);
}

int64
ingest_load_key_count_replaced(IngestLoadKey *key)
{
	if (key->rows->set == NULL && !key->rows->settled)
		sort_rows(key->rows);
	key->rows->settled = true;
	return key->rows->nreplaced;
}

bool
ingest_load_key_is_replaced(const IngestLoadKey *key, int64 row)
{
	return bms_is_member((int) row, key->rows->replaced);
}

void
ingest_load_key_reset(IngestLoadKey *key)
{
	IngestKeyRows *rows = key->rows;

	if (rows->set)
		keyset_reset(rows->set);
	MemoryContextReset(rows->copies);
	rows->replaced = NULL;
	rows->nreplaced = 0;
	rows->nrows = 0;
	rows->settled = false;
}
