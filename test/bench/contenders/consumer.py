#!/usr/bin/env python3
"""A careful Kafka consumer: JSON topic into a partitioned table, exactly once.

What a good engineer writes without ingest: confluent-kafka in batches, orjson,
the three rules in Python, psycopg's COPY, offsets in the same transaction.
Reads from the offsets in its table to the end of the topic, then stops.

usage: consumer.py BROKERS TOPIC CONNINFO TARGET [BATCH [PROCESSES]]
"""
import os
import sys
import time

import orjson
import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

brokers, topic, conninfo, target = sys.argv[1:5]
batch_size = int(sys.argv[5]) if len(sys.argv) > 5 else 20000
processes = int(sys.argv[6]) if len(sys.argv) > 6 else 1

# Each has its share of the partitions; the first one waits for the others.
share, others = 0, []
for n in range(1, processes):
    child = os.fork()
    if child == 0:
        share, others = n, []
        break
    others.append(child)

COLUMNS = ("sensor_id", "temperature", "humidity", "pressure", "event_time", "seq", "status", "site")
consumer = Consumer({
    "bootstrap.servers": brokers, "group.id": "bench-python", "enable.auto.commit": False,
    "isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "error",
    "queued.min.messages": 500000, "queued.max.messages.kbytes": 262144, "fetch.message.max.bytes": 8388608,
})
copy_sql = f"COPY {target} ({', '.join(COLUMNS)}) FROM STDIN"
save_sql = ("INSERT INTO bench_offset (topic, part, next) VALUES (%s, %s, %s) "
            "ON CONFLICT (topic, part) DO UPDATE SET next = EXCLUDED.next")

with psycopg.connect(conninfo) as conn:
    conn.execute("SELECT pg_advisory_xact_lock(1)")
    conn.execute("CREATE TABLE IF NOT EXISTS bench_offset (topic text, part int, next bigint, PRIMARY KEY (topic, part))")
    conn.execute("CREATE TABLE IF NOT EXISTS bench_reject (part int, off bigint, payload bytea, reason text)")
    known = dict(conn.execute("SELECT part, next FROM bench_offset WHERE topic = %s", (topic,)).fetchall())
    conn.commit()
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    parts = [p for p in parts if p % processes == share]
    consumer.assign([TopicPartition(topic, p, known.get(p, OFFSET_BEGINNING)) for p in parts])

    ended, read, written = set(), 0, 0
    started = time.monotonic()
    while len(ended) < len(parts):
        rows, rejects, following = [], [], {}
        for msg in consumer.consume(batch_size, timeout=0.2):
            if msg.error():
                if msg.error().code() != KafkaError._PARTITION_EOF:
                    raise SystemExit(str(msg.error()))
                ended.add(msg.partition())
                continue
            read += 1
            following[msg.partition()] = msg.offset() + 1
            try:
                doc = orjson.loads(msg.value())
                if not doc["temperature"] >= 0:
                    raise ValueError("above_zero")
                if not 0 <= doc["humidity"] <= 100:
                    raise ValueError("humidity_range")
                if not doc["sensor_id"]:
                    raise ValueError("has_sensor")
                rows.append(tuple(doc.get(column) for column in COLUMNS))
            except (ValueError, KeyError, TypeError) as reason:
                rejects.append((msg.partition(), msg.offset(), msg.value(), str(reason)))
        if not following:
            continue
        with conn.transaction(), conn.cursor() as cur:
            with cur.copy(copy_sql) as copy:
                for row in rows:
                    copy.write_row(row)
            cur.executemany("INSERT INTO bench_reject VALUES (%s, %s, %s, %s)", rejects)
            cur.executemany(save_sql, [(topic, p, n) for p, n in following.items()])
        written += len(rows)
    print(f"read {read} written {written} seconds {time.monotonic() - started:.3f}")
failed = [child for child in others if os.waitpid(child, 0)[1] != 0]
sys.exit(1 if failed else 0)
