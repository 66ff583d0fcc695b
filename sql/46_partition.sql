CREATE FUNCTION ingest.manage_partitions(
    target  regclass,
    every   interval,
    keep    interval  DEFAULT NULL,
    ahead   integer   DEFAULT 2,
    bounds  tstzrange DEFAULT NULL)
RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ingest_sql_manage_partitions';
COMMENT ON FUNCTION ingest.manage_partitions(regclass, interval, interval, integer, tstzrange) IS
    'Make the partitions that batches need, some ahead of time, and drop those older than keep; rows outside bounds become dead letters';
REVOKE ALL ON FUNCTION ingest.manage_partitions(regclass, interval, interval, integer, tstzrange) FROM PUBLIC;

CREATE FUNCTION ingest.unmanage_partitions(target regclass)
RETURNS void
LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ingest_sql_unmanage_partitions';
COMMENT ON FUNCTION ingest.unmanage_partitions(regclass) IS
    'Stop making and dropping partitions of a table; those it has stay';
REVOKE ALL ON FUNCTION ingest.unmanage_partitions(regclass) FROM PUBLIC;
