-- Managed partitions.  A restored dump has the policies again: they name the
-- table, and are looked at whenever a batch or upkeep needs them.

CREATE FUNCTION ingest.manage_partitions(
    target  regclass,
    every   interval,
    keep    interval  DEFAULT NULL,
    ahead   integer   DEFAULT 3,
    bounds  tstzrange DEFAULT NULL)
RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ingest_sql_manage_partitions';
COMMENT ON FUNCTION ingest.manage_partitions(regclass, interval, interval, integer, tstzrange) IS
    'Make the partitions that batches need, and some ahead of time; drop those older than keep; rows outside bounds become dead letters';

CREATE FUNCTION ingest.unmanage_partitions(target regclass)
RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ingest_sql_unmanage_partitions';
COMMENT ON FUNCTION ingest.unmanage_partitions(regclass) IS
    'Stop making and dropping partitions of a table; those it has stay';

CREATE VIEW ingest.partition_policy WITH (security_barrier) AS
SELECT target, every, keep, ahead, bounds, owner
FROM ingest._partition_policy
WHERE pg_catalog.pg_has_role(owner, 'USAGE')
  AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = target);

COMMENT ON VIEW ingest.partition_policy IS 'Tables whose partitions are managed';
COMMENT ON COLUMN ingest.partition_policy.target IS 'The table';
COMMENT ON COLUMN ingest.partition_policy.every IS 'Length of a partition; in UTC, weeks begin on Monday';
COMMENT ON COLUMN ingest.partition_policy.keep IS 'Partitions that end longer ago are dropped; NULL: none';
COMMENT ON COLUMN ingest.partition_policy.ahead IS 'Partitions made before they are needed, after the present one';
COMMENT ON COLUMN ingest.partition_policy.bounds IS 'Keys that partitions are made for; NULL: from keep, or ten years ago, to next year';
COMMENT ON COLUMN ingest.partition_policy.owner IS 'Role that asked for it';
GRANT SELECT ON ingest.partition_policy TO PUBLIC;
