/*
 * produce.c
 *		Test tool: fills a topic, and writes down what went where.
 *
 * Two ways: a given number of sensor messages, the same for the same seed, some
 * of them bad; or messages described line by line on standard input.  The
 * manifest says for every message which partition and offset it got, as text
 * that COPY reads: partition, offset, sequence number, kind, payload.  Kinds:
 * good, broken (cut off), type (a word for a number), negative (a rule's prey),
 * tombstone, stdin; aborted is what a transaction took back.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum kind
{
	GOOD, BROKEN, TYPE, NEGATIVE, TOMBSTONE, STDIN, ABORTED
};

static const char *const kind_names[] = {
	"good", "broken", "type", "negative", "tombstone", "stdin", "aborted"
};

struct options
{
	const char *brokers;
	const char *topic;
	int64_t		count;
	int64_t		first;			/* sequence number to begin with */
	uint64_t	seed;
	int			partitions;		/* 0: those of the topic */
	int			bad;			/* per mille */
	int			tombstones;		/* per mille */
	int			keys;			/* different keys; 0: no keys */
	bool		headers;
	int64_t		rate;			/* messages a second; 0: as fast as it goes */
	int64_t		from;			/* event time of the first message, seconds */
	int64_t		span;			/* seconds that the messages are spread over */
	const char *time_key;
	int64_t		transaction;	/* messages a transaction; 0: none */
	int			abort_every;	/* every n-th transaction is aborted */
	const char *manifest;
	bool		from_stdin;
};

static struct options opt = {
	.seed = 1, .from = 1767225600, .span = 28 * 86400, .time_key = "ts", .count = 1000
};

/* A delivered message whose transaction is not yet over. */
struct entry
{
	int32_t		partition;
	int64_t		offset;
	int64_t		seq;
	enum kind	kind;
	char	   *payload;
	size_t		len;
};

static FILE *manifest;
static struct entry *entries;
static size_t nentries;
static size_t max_entries;
static int64_t delivered;
static int64_t refused;			/* delivery reports with an error */
static bool aborting;			/* errors are expected: the queue is purged */

static void
fail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fputs("produce: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void *
check_memory(void *p)
{
	if (p == NULL)
		fail("out of memory");
	return p;
}

/* splitmix64: the n-th number of a seed, without state. */
static uint64_t
random_at(uint64_t seed, uint64_t n, uint64_t salt)
{
	uint64_t	x = seed * UINT64_C(0x9e3779b97f4a7c15) + n * UINT64_C(0xbf58476d1ce4e5b9) + salt;

	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/*
 * ---- The manifest
 */

static void
write_entry(const struct entry *e, bool aborted)
{
	fprintf(manifest, "%" PRId32 "\t%" PRId64 "\t%" PRId64 "\t%s\t", e->partition, e->offset,
			e->seq, kind_names[aborted ? ABORTED : e->kind]);
	if (e->payload == NULL)
		fputs("\\N", manifest);
	for (size_t i = 0; i < e->len; i++)
	{
		unsigned char c = e->payload[i];

		/* Bytes that are not plain text go as \\x.., so that any encoding reads it. */
		if (c == '\\')
			fputs("\\\\", manifest);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(manifest, "\\\\x%02x", c);
		else
			fputc(c, manifest);
	}
	fputc('\n', manifest);
}

static void
settle_entries(bool aborted)
{
	for (size_t i = 0; i < nentries; i++)
	{
		if (manifest)
			write_entry(&entries[i], aborted);
		free(entries[i].payload);
	}
	nentries = 0;
}

/* Delivery report: runs in rd_kafka_poll() and rd_kafka_flush(). */
static void
note_delivery(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *opaque)
{
	intptr_t	tag = (intptr_t) msg->_private;
	struct entry *e;

	(void) rk;
	(void) opaque;
	if (msg->err)
	{
		if (!aborting)
		{
			fprintf(stderr, "produce: message %" PRId64 ": %s\n", (int64_t) (tag >> 4),
					rd_kafka_err2str(msg->err));
			refused++;
		}
		return;
	}
	delivered++;
	if (!manifest)
		return;
	if (nentries == max_entries)
	{
		max_entries = max_entries ? max_entries * 2 : 1024;
		entries = check_memory(realloc(entries, max_entries * sizeof(*entries)));
	}
	e = &entries[nentries++];
	*e = (struct entry) {msg->partition, msg->offset, tag >> 4, (enum kind) (tag & 15), NULL, msg->len};
	if (msg->payload)
	{
		e->payload = check_memory(malloc(msg->len + 1));
		memcpy(e->payload, msg->payload, msg->len);
	}
	if (opt.transaction == 0)
		settle_entries(false);
}

/*
 * ---- Sensor messages
 */

static enum kind
choose_kind(int64_t seq)
{
	uint64_t	r = random_at(opt.seed, seq, 1);

	if ((int) (r % 1000) < opt.bad)
		return BROKEN + (r >> 32) % 3;
	if ((int) ((r >> 10) % 1000) < opt.tombstones)
		return TOMBSTONE;
	return GOOD;
}

/* About 210 bytes; event times ascend evenly over the span. */
static int
print_sensor_message(char *buffer, size_t size, int64_t seq, enum kind kind)
{
	static const char *const states[] = {"operating normally", "warming up", "calibration is due"};
	static const char *const sites[] = {"north", "south", "east", "west"};
	uint64_t	a = random_at(opt.seed, seq, 2);
	uint64_t	b = random_at(opt.seed, seq, 3);
	double		share = opt.count > 0 ? (double) (seq - opt.first) / opt.count : 0;
	int64_t		ms = opt.from * 1000 + (int64_t) (share * opt.span * 1000);
	time_t		seconds = ms / 1000;
	struct tm	tm;
	char		stamp[32];
	char		temperature[32];
	int			len;

	gmtime_r(&seconds, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(temperature, sizeof(temperature), "%s%u.%02u", kind == NEGATIVE ? "-" : "",
			 (unsigned) (a % 60) + (kind == NEGATIVE), (unsigned) ((a >> 8) % 100));
	len = snprintf(buffer, size,
				   "{\"sensor_id\": \"sensor-%06u\", \"temperature\": %s, \"humidity\": %u.%02u, "
				   "\"pressure\": %u.%03u, \"%s\": \"%s.%03uZ\", \"seq\": %" PRId64
				   ", \"status\": \"%s\", \"site\": \"plant %s, hall %02u\"}",
				   (unsigned) ((a >> 16) % 5000), kind == TYPE ? "\"warm\"" : temperature,
				   (unsigned) ((a >> 32) % 100), (unsigned) ((a >> 40) % 100),
				   950 + (unsigned) (b % 100), (unsigned) ((b >> 8) % 1000),
				   opt.time_key, stamp, (unsigned) (ms % 1000), seq,
				   states[(b >> 20) % 3], sites[(b >> 24) % 4], (unsigned) ((b >> 32) % 40));
	if (kind == BROKEN)
		len = len / 4 + (int) ((b >> 40) % (len / 2));
	return len;
}

/*
 * ---- Sending
 */

static void
send_message(rd_kafka_t *rk, rd_kafka_topic_t *rkt, int32_t partition, const void *key, size_t key_len,
			 const void *payload, size_t len, int64_t timestamp, rd_kafka_headers_t *headers,
			 int64_t seq, enum kind kind)
{
	for (;;)
	{
		rd_kafka_resp_err_t err;

		err = rd_kafka_producev(rk, RD_KAFKA_V_RKT(rkt), RD_KAFKA_V_PARTITION(partition),
								RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								RD_KAFKA_V_KEY(key, key_len),
								RD_KAFKA_V_VALUE((void *) payload, len),
								RD_KAFKA_V_TIMESTAMP(timestamp),
								RD_KAFKA_V_HEADERS(headers),
								RD_KAFKA_V_OPAQUE((void *) (intptr_t) (seq << 4 | kind)),
								RD_KAFKA_V_END);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
			break;
		if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			fail("%s", rd_kafka_err2str(err));
		rd_kafka_poll(rk, 100);
	}
	rd_kafka_poll(rk, 0);
}

static void
send_sensor_message(rd_kafka_t *rk, rd_kafka_topic_t *rkt, int64_t seq)
{
	enum kind	kind = choose_kind(seq);
	char		payload[512];
	char		key[32];
	int			key_len = 0;
	int			len = 0;
	rd_kafka_headers_t *headers = NULL;

	if (kind != TOMBSTONE)
		len = print_sensor_message(payload, sizeof(payload), seq, kind);
	if (opt.keys > 0)
		key_len = snprintf(key, sizeof(key), "key-%d", (int) (random_at(opt.seed, seq, 4) % opt.keys));
	if (opt.headers)
	{
		char		trace[32];

		headers = rd_kafka_headers_new(2);
		snprintf(trace, sizeof(trace), "trace-%" PRId64, seq);
		rd_kafka_header_add(headers, "trace", -1, trace, -1);
		rd_kafka_header_add(headers, "empty", -1, NULL, 0);
	}
	send_message(rk, rkt, seq % opt.partitions, key_len ? key : NULL, key_len,
				 kind == TOMBSTONE ? NULL : payload, len, 0, headers, seq, kind);
}

/* Wait until message n of a rate is due. */
static void
keep_rate(rd_kafka_t *rk, const struct timespec *start, int64_t n)
{
	struct timespec now;
	int64_t		due = n * INT64_C(1000000) / opt.rate;
	int64_t		passed;

	clock_gettime(CLOCK_MONOTONIC, &now);
	passed = (now.tv_sec - start->tv_sec) * INT64_C(1000000) + (now.tv_nsec - start->tv_nsec) / 1000;
	if (due - passed >= 1000)
		rd_kafka_poll(rk, (int) ((due - passed) / 1000));
}

static void
check_transaction(rd_kafka_t *rk, rd_kafka_error_t *error, const char *what)
{
	(void) rk;
	if (error)
		fail("%s: %s", what, rd_kafka_error_string(error));
}

static void
finish_transaction(rd_kafka_t *rk, bool aborts)
{
	if (aborts)
	{
		/* What is aborted must have been in the log, or it tests nothing. */
		if (rd_kafka_flush(rk, 60000))
			fail("could not flush");
		aborting = true;
		check_transaction(rk, rd_kafka_abort_transaction(rk, 60000), "abort");
		aborting = false;
	}
	else
		check_transaction(rk, rd_kafka_commit_transaction(rk, 60000), "commit");
	settle_entries(aborts);
}

static void
send_sensor_messages(rd_kafka_t *rk, rd_kafka_topic_t *rkt)
{
	struct timespec start;
	int64_t		ntransactions = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int64_t i = 0; i < opt.count; i++)
	{
		if (opt.transaction && i % opt.transaction == 0)
			check_transaction(rk, rd_kafka_begin_transaction(rk), "begin");
		if (opt.rate)
			keep_rate(rk, &start, i);
		send_sensor_message(rk, rkt, opt.first + i);
		if (opt.transaction && ((i + 1) % opt.transaction == 0 || i + 1 == opt.count))
		{
			ntransactions++;
			finish_transaction(rk, opt.abort_every && ntransactions % opt.abort_every == 0);
		}
	}
}

/*
 * ---- Messages from standard input
 */

/* Undo the escapes of a field in place: \\N is none, \\t \\n \\\\ \\xHH. */
static char *
read_field(char *field, size_t *len)
{
	char	   *out = field;

	*len = 0;
	if (strcmp(field, "\\N") == 0)
		return NULL;
	for (char *in = field; *in; in++)
	{
		unsigned int byte;

		if (*in != '\\')
			*out++ = *in;
		else if (in[1] == 't' || in[1] == 'n' || in[1] == '\\')
		{
			*out++ = in[1] == 't' ? '\t' : in[1] == 'n' ? '\n' : '\\';
			in++;
		}
		else if (in[1] == 'x' && sscanf(in + 2, "%2x", &byte) == 1)
		{
			*out++ = byte;
			in += 3;
		}
		else
			fail("bad escape in \"%s\"", field);
	}
	*len = out - field;
	return field;
}

/* partition, key, timestamp in ms or \N, payload, then headers as name=value. */
static void
send_line(rd_kafka_t *rk, rd_kafka_topic_t *rkt, char *line, int64_t seq)
{
	char	   *partition = strsep(&line, "\t");
	char	   *key = strsep(&line, "\t");
	char	   *timestamp = strsep(&line, "\t");
	char	   *payload = strsep(&line, "\t");
	rd_kafka_headers_t *headers = NULL;
	size_t		key_len;
	size_t		len;

	if (payload == NULL)
		fail("a line has four fields or more");
	key = read_field(key, &key_len);
	payload = read_field(payload, &len);
	while (line)
	{
		char	   *name = strsep(&line, "\t");
		char	   *value = strchr(name, '=');
		size_t		value_len = 0;

		if (value)
		{
			*value++ = '\0';
			value = read_field(value, &value_len);
		}
		if (headers == NULL)
			headers = rd_kafka_headers_new(4);
		rd_kafka_header_add(headers, name, -1, value, value_len);
	}
	send_message(rk, rkt, atoi(partition), key, key_len, payload, len,
				 strcmp(timestamp, "\\N") == 0 ? 0 : atoll(timestamp), headers, seq, STDIN);
}

static void
send_lines(rd_kafka_t *rk, rd_kafka_topic_t *rkt)
{
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;
	int64_t		n = 0;

	if (opt.transaction)
		check_transaction(rk, rd_kafka_begin_transaction(rk), "begin");
	while ((len = getline(&line, &size, stdin)) > 0)
	{
		if (line[len - 1] == '\n')
			line[len - 1] = '\0';
		send_line(rk, rkt, line, n++);
	}
	free(line);
	if (opt.transaction)
		finish_transaction(rk, opt.abort_every == 1);
}

/*
 * ---- Set-up
 */

static int
count_partitions(rd_kafka_t *rk, rd_kafka_topic_t *rkt)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err;
	int			n;

	err = rd_kafka_metadata(rk, 0, rkt, &metadata, 30000);
	if (err)
		fail("%s", rd_kafka_err2str(err));
	n = metadata->topic_cnt == 1 ? metadata->topics[0].partition_cnt : 0;
	if (n == 0)
		fail("topic \"%s\": %s", opt.topic, rd_kafka_err2str(metadata->topics[0].err));
	rd_kafka_metadata_destroy(metadata);
	return n;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		fail("%s", error);
}

static void
usage(void)
{
	puts("usage: produce --brokers HOST:PORT --topic NAME [--count N | --stdin]\n"
		 "  --seed N --first N          which messages\n"
		 "  --partitions N              spread over so many (default: all of the topic)\n"
		 "  --bad N --tombstones N      so many of a thousand\n"
		 "  --keys N --headers          N different keys; two headers each\n"
		 "  --from SECONDS --span SECONDS --time-key NAME   event times\n"
		 "  --rate N                    messages a second\n"
		 "  --transaction N --abort N   N messages a transaction; every N-th is aborted\n"
		 "  --manifest FILE             what went where\n"
		 "  -X name=value               a setting of librdkafka\n"
		 "standard input: partition, key, timestamp in ms, payload, headers as name=value,\n"
		 "separated by tabs; \\N is none, \\xHH a byte.");
}

static void
read_options(int argc, char **argv, rd_kafka_conf_t *conf)
{
	static const struct option known[] = {
		{"brokers", required_argument, NULL, 'b'}, {"topic", required_argument, NULL, 't'},
		{"count", required_argument, NULL, 'n'}, {"first", required_argument, NULL, 'f'},
		{"seed", required_argument, NULL, 's'}, {"partitions", required_argument, NULL, 'p'},
		{"bad", required_argument, NULL, 'B'}, {"tombstones", required_argument, NULL, 'T'},
		{"keys", required_argument, NULL, 'k'}, {"headers", no_argument, NULL, 'H'},
		{"rate", required_argument, NULL, 'r'}, {"from", required_argument, NULL, 'F'},
		{"span", required_argument, NULL, 'S'}, {"time-key", required_argument, NULL, 'K'},
		{"transaction", required_argument, NULL, 'x'}, {"abort", required_argument, NULL, 'a'},
		{"manifest", required_argument, NULL, 'm'}, {"stdin", no_argument, NULL, 'i'},
		{"help", no_argument, NULL, 'h'}, {NULL}
	};
	int			c;

	while ((c = getopt_long(argc, argv, "X:", known, NULL)) != -1)
		switch (c)
		{
			case 'b': opt.brokers = optarg; break;
			case 't': opt.topic = optarg; break;
			case 'n': opt.count = atoll(optarg); break;
			case 'f': opt.first = atoll(optarg); break;
			case 's': opt.seed = strtoull(optarg, NULL, 10); break;
			case 'p': opt.partitions = atoi(optarg); break;
			case 'B': opt.bad = atoi(optarg); break;
			case 'T': opt.tombstones = atoi(optarg); break;
			case 'k': opt.keys = atoi(optarg); break;
			case 'H': opt.headers = true; break;
			case 'r': opt.rate = atoll(optarg); break;
			case 'F': opt.from = atoll(optarg); break;
			case 'S': opt.span = atoll(optarg); break;
			case 'K': opt.time_key = optarg; break;
			case 'x': opt.transaction = atoll(optarg); break;
			case 'a': opt.abort_every = atoi(optarg); break;
			case 'm': opt.manifest = optarg; break;
			case 'i': opt.from_stdin = true; break;
			case 'h': usage(); exit(0);
			case 'X':
				{
					char	   *value = strchr(optarg, '=');

					if (value == NULL)
						fail("-X wants name=value");
					*value++ = '\0';
					set(conf, optarg, value);
					break;
				}
			default: usage(); exit(2);
		}
	if (opt.brokers == NULL || opt.topic == NULL || optind < argc)
	{
		usage();
		exit(2);
	}
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;
	char		error[256];
	char		id[64];

	/* No message twice, whatever happens to the broker meanwhile. */
	set(conf, "enable.idempotence", "true");
	set(conf, "linger.ms", "20");
	set(conf, "queue.buffering.max.messages", "200000");
	set(conf, "reconnect.backoff.max.ms", "500");
	set(conf, "message.timeout.ms", "120000");
	read_options(argc, argv, conf);
	set(conf, "bootstrap.servers", opt.brokers);
	rd_kafka_conf_set_dr_msg_cb(conf, note_delivery);
	if (opt.transaction)
	{
		snprintf(id, sizeof(id), "produce-%" PRIu64 "-%" PRId64, opt.seed, opt.first);
		set(conf, "transactional.id", id);
		set(conf, "transaction.timeout.ms", "60000");
		set(conf, "message.timeout.ms", "60000");
	}
	if (opt.manifest && (manifest = fopen(opt.manifest, "w")) == NULL)
		fail("%s: %s", opt.manifest, strerror(errno));

	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (rk == NULL)
		fail("%s", error);
	if (opt.transaction)
		check_transaction(rk, rd_kafka_init_transactions(rk, 60000), "init");
	rkt = rd_kafka_topic_new(rk, opt.topic, NULL);
	if (opt.partitions == 0)
		opt.partitions = count_partitions(rk, rkt);

	if (opt.from_stdin)
		send_lines(rk, rkt);
	else
		send_sensor_messages(rk, rkt);
	while (rd_kafka_outq_len(rk) > 0 && rd_kafka_fatal_error(rk, error, sizeof(error)) == 0)
		rd_kafka_flush(rk, 1000);

	rd_kafka_topic_destroy(rkt);
	rd_kafka_destroy(rk);
	if (manifest && (fflush(manifest) || ferror(manifest) || fclose(manifest)))
		fail("could not write \"%s\"", opt.manifest);
	if (refused)
		fail("%" PRId64 " messages were not delivered", refused);
	printf("produced %" PRId64 "\n", delivered);
	return 0;
}
