/* One line for each format: INGEST_FORMAT(symbol of its IngestFormatOps). */
INGEST_FORMAT(ingest_format_json)
INGEST_FORMAT(ingest_format_ndjson)
INGEST_FORMAT(ingest_format_csv)
INGEST_FORMAT(ingest_format_xml)
INGEST_FORMAT(ingest_format_text)
INGEST_FORMAT(ingest_format_raw)
