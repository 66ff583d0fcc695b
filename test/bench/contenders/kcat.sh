#!/usr/bin/env bash
# The simplest mover: kcat into psql's \copy, then one typed INSERT ... SELECT.
# No restart safety, no rejects: a bad message stops it.
#
# usage: kcat.sh BROKERS TOPIC CONNINFO TARGET
set -euo pipefail
brokers=$1 topic=$2 conninfo=$3 target=$4
psql -qX "$conninfo" -v ON_ERROR_STOP=1 -c 'CREATE UNLOGGED TABLE IF NOT EXISTS bench_raw (doc jsonb)' \
     -c 'TRUNCATE bench_raw'
kcat -C -b "$brokers" -t "$topic" -o beginning -e -q -X isolation.level=read_committed \
     -X queued.min.messages=500000 -X queued.max.messages.kbytes=262144 -f '%s\n' |
    psql -qX "$conninfo" -v ON_ERROR_STOP=1 -c \
        "\\copy bench_raw (doc) FROM STDIN WITH (FORMAT csv, QUOTE e'\\x01', DELIMITER e'\\x02')"
psql -qX "$conninfo" -v ON_ERROR_STOP=1 -c "
    INSERT INTO $target (sensor_id, temperature, humidity, pressure, event_time, seq, status, site)
    SELECT r.* FROM bench_raw, jsonb_to_record(doc) AS r (sensor_id text, temperature float8, humidity float8,
           pressure float8, event_time timestamptz, seq bigint, status text, site text)
    WHERE temperature >= 0 AND humidity BETWEEN 0 AND 100 AND sensor_id <> ''"
