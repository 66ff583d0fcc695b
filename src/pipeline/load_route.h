/*
 * load_route.h
 *		Which partition does a row go to?  Asked without raising errors.
 */
#ifndef INGEST_LOAD_ROUTE_H
#define INGEST_LOAD_ROUTE_H

#include "postgres.h"

#include "utils/rel.h"

typedef struct IngestRoute IngestRoute;

/* The key consists of plain columns: a route can be opened. */
extern bool ingest_route_possible(Relation root);

/* In CurrentMemoryContext; valid while the root is open. */
extern IngestRoute *ingest_route_open(Relation root);

/*
 * Index of the partition, or -1, for the values of a row of the root.
 * *leaf is the partition's OID.  raises: what the key's comparison raises
 */
extern int	ingest_route_find(IngestRoute *route, const Datum *values, const bool *isnull, Oid *leaf);

/* All columns of the key are among the known ones (by column).  raises: no */
extern bool ingest_route_known(const IngestRoute *route, const bool *known);

/* Number of partitions. */
extern int	ingest_route_count(const IngestRoute *route);

/* The key column of a table partitioned by range of one column, or 0. */
extern AttrNumber ingest_route_range_column(const IngestRoute *route);

#endif							/* INGEST_LOAD_ROUTE_H */
