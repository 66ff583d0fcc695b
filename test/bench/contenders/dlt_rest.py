#!/usr/bin/env python3
"""dlt's REST source: pages linked by the body into a table, as its documentation advises.

usage: dlt_rest.py URL PATH CONNINFO
Prints the seconds of the run, without those of starting Python.
"""
import os
import sys
import time

url, path, conninfo = sys.argv[1:4]
os.environ.update({
    "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "WARNING",
    # larger files and buffers than by default, and nothing compressed on the way
    "DATA_WRITER__BUFFER_MAX_ITEMS": "50000", "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": "100000",
    "LOAD__WORKERS": "2", "NORMALIZE__WORKERS": "2", "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "50000",
})
import dlt
from dlt.sources.rest_api import rest_api_source

source = rest_api_source({
    "client": {"base_url": url, "paginator": {"type": "json_link", "next_url_path": "next"}},
    "resources": [{
        "name": "item",
        "endpoint": {"path": path, "data_selector": "items"},
        "columns": {"updated_at": {"data_type": "timestamp"}},
    }],
})
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(conninfo), dataset_name="dlt_bench",
                        pipelines_dir=os.path.join(os.environ["TMPDIR"], "dlt"))
begin = time.time()
pipeline.run(source, write_disposition="append", loader_file_format="csv")
print(f"seconds {time.time() - begin:.3f}")
