-- Sources as foreign-data wrappers.  A validator's name says which source.

CREATE FUNCTION ingest.fdw_handler() RETURNS fdw_handler
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'ingest_sql_fdw_handler';
COMMENT ON FUNCTION ingest.fdw_handler() IS 'Handler of the wrappers of all sources: lets SELECT peek into a source';
REVOKE ALL ON FUNCTION ingest.fdw_handler() FROM PUBLIC;

CREATE FUNCTION ingest.kafka_validator(text[], oid) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'ingest_sql_validator';
COMMENT ON FUNCTION ingest.kafka_validator(text[], oid) IS 'Checks options of servers, user mappings and foreign tables of ingest_kafka';
REVOKE ALL ON FUNCTION ingest.kafka_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER ingest_kafka HANDLER ingest.fdw_handler VALIDATOR ingest.kafka_validator;
COMMENT ON FOREIGN DATA WRAPPER ingest_kafka IS 'Apache Kafka topics: a server is a cluster, a foreign table a topic';

CREATE FUNCTION ingest.http_validator(text[], oid) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'ingest_sql_validator';
COMMENT ON FUNCTION ingest.http_validator(text[], oid) IS 'Checks options of servers, user mappings and foreign tables of ingest_http';
REVOKE ALL ON FUNCTION ingest.http_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER ingest_http HANDLER ingest.fdw_handler VALIDATOR ingest.http_validator;
COMMENT ON FOREIGN DATA WRAPPER ingest_http IS 'REST and GraphQL APIs: a server is an API, a foreign table a resource';
