\echo Use "CREATE EXTENSION ingest" to load this file. \quit

-- A schema made before the extension may hold objects of somebody else, which
-- the statements below would trust.
CREATE SCHEMA ingest;
COMMENT ON SCHEMA ingest IS 'Ingestion engine: pipelines from sources into tables';

-- Nobody's objects are found by accident, those of pg_temp not either.
SET LOCAL search_path = pg_catalog, pg_temp;
