#!/usr/bin/env bash
# Kafka Connect with Debezium's JDBC sink, in one standalone worker.  It has no
# rules, keeps its offsets beside the data (at least once), and what it cannot
# read stops it.  Timed from the first row that is visible to the last one, so
# that neither its start nor its class loading counts.
#
# usage: connect.sh BROKERS TOPIC CONNINFO TARGET MESSAGES [BATCH [TASKS [UNNEST]]]
#
# Prints "seconds S" and "cpu C", scaled to all messages.
set -euo pipefail
brokers=$1 topic=$2 conninfo=$3 target=$4 messages=$5 batch=${6:-5000} tasks=${7:-2} unnest=${8:-false}
libs=${INGEST_CONNECT_LIBS:?the directory of its jars}

work=$(mktemp -d "${TMPDIR:-/tmp}/ingest-connect.XXXXXX")
connect=
finish() {
    if [ -n "$connect" ]; then
        kill -9 "$connect" 2>/dev/null || true
        wait "$connect" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

sql() { psql -XqAt "$conninfo" -c "$1"; }
setting() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" <<< "$conninfo"; }
field() { printf '{"field":"%s","type":"%s","optional":true}' "$1" "$2"; }
schema="{\"type\":\"struct\",\"fields\":[$(field sensor_id string),$(field temperature double),$(field humidity double),"
schema+="$(field pressure double),$(field event_time string),$(field seq int64),$(field status string),$(field site string)]}"

cat > "$work/worker.properties" <<WORKER
bootstrap.servers=$brokers
listeners=http://127.0.0.1:0
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=true
value.converter.schema.content=$schema
offset.storage.file.filename=$work/offsets
plugin.discovery=only_scan
consumer.auto.offset.reset=earliest
consumer.isolation.level=read_committed
consumer.max.poll.records=$batch
consumer.max.partition.fetch.bytes=8388608
consumer.fetch.min.bytes=1000000
offset.flush.interval.ms=10000
WORKER
cat > "$work/sink.properties" <<SINK
name=bench-$$
connector.class=io.debezium.connector.jdbc.JdbcSinkConnector
topics=$topic
tasks.max=$tasks
connection.url=jdbc:postgresql://$(setting host):$(setting port)/$(setting dbname)?reWriteBatchedInserts=true&reWriteBatchedInsertsSize=0&stringtype=unspecified
connection.username=$(setting user)
connection.password=unused
insert.mode=insert
primary.key.mode=none
schema.evolution=none
collection.name.format=$target
batch.size=$batch
SINK
# Faster, but what it makes of a time has no fractions of a second.
[ "$unnest" = false ] || cat >> "$work/sink.properties" <<SINK
dialect.postgres.unnest.insert.enabled=true
transforms=time
transforms.time.type=org.apache.kafka.connect.transforms.TimestampConverter\$Value
transforms.time.field=event_time
transforms.time.format=yyyy-MM-dd'T'HH:mm:ss.SSSX
transforms.time.target.type=Timestamp
SINK

java -Xmx1g -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*" \
    org.apache.kafka.connect.cli.ConnectStandalone "$work/worker.properties" "$work/sink.properties" > "$work/log" 2>&1 &
connect=$!

cpu() { awk '{ print ($14 + $15) / '"$(getconf CLK_TCK)"' }' "/proc/$connect/stat"; }
rows() { sql "SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables WHERE relname LIKE '$target%'"; }

first=0
while :; do
    sleep 0.25
    kill -0 "$connect" 2>/dev/null || { tail -n 40 "$work/log" >&2; exit 1; }
    n=$(rows) now=$(date +%s.%N) used=$(cpu)
    if [ "$first" = 0 ] && [ "$n" -gt 0 ]; then
        first=$n began=$now before=$used
    fi
    [ "$n" -lt "$messages" ] || break
    [ "${SECONDS}" -lt 900 ] || { tail -n 40 "$work/log" >&2; echo "only $n rows" >&2; exit 1; }
done
awk -v n="$messages" -v first="$first" -v s="$(awk "BEGIN { print $now - $began }")" -v c="$(awk "BEGIN { print $used - $before }")" \
    'BEGIN { scale = n / (n - first); print "seconds " s * scale; print "cpu " c * scale }'
