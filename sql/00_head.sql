\echo Use "CREATE EXTENSION ingest" to load this file. \quit

-- A schema made before the extension may hold objects of somebody else, which
-- the statements below would trust.
CREATE SCHEMA ingest;
COMMENT ON SCHEMA ingest IS 'Ingestion engine: pipelines from sources into tables';
