/* One line for each source: INGEST_SOURCE(symbol of its IngestSourceOps). */
INGEST_SOURCE(ingest_source_http)
INGEST_SOURCE(ingest_source_kafka)
