/*
 * kafka.c
 *		A Kafka topic as a source, over librdkafka.
 *
 * The library's simple consumer: every partition is started at the position we
 * give and delivers into one queue; no consumer group decides anything, and
 * none is joined.  Messages stay in the library's buffers until release().
 *
 * Callbacks of the library run in rd_kafka_poll(), in our thread, but with its
 * frames on the stack: they copy what they are told and never raise.
 *
 * Position: the next offset to read, in decimal.  Proof: time and hash of the
 * message before it, by which a topic that was made anew under the same name is
 * noticed even when its offsets overlap.
 */
#include "postgres.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <librdkafka/rdkafka.h>

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "core/clock.h"
#include "core/compat.h"
#include "core/guc.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "source/source.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/* behind everything that declares what it replaces */
#include "source/kafka_fault.h"

#define MICROS_PER_MS	INT64CONST(1000)
#define EPOCH_OFFSET	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/*
 * A question waits for so many ms at most, at first INGEST_SOURCE_PATIENCE: an
 * answer that comes later is thrown away by the library, so for brokers that
 * are far away, or busy, it has to become more.
 */
#define MAX_PATIENCE 1000

/* Messages taken from the library at a time. */
#define CHUNK 1024

/* How long closing waits for the last acknowledgement to be answered, in ms. */
#define CLOSE_PATIENCE 1000

typedef struct KafkaOptions
{
	char	   *brokers;
	char	   *topic;
	char	   *username;
	char	   *password;
	int			protocol;
	char	   *mechanism;
	char	   *ca;
	char	   *group;
	char	   *client_id;
	int64		timeout;
	int64		metadata_refresh;
	List	   *rdkafka;
} KafkaOptions;

static const char *const protocols[] = {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL};

/*
 * Settings of the library that a user may give.  Not here: whatever runs
 * commands, loads or reads files, redirects to other hosts, turns verification
 * off, floods the log, or decides what is read and when (ours to own).
 */
static const char *const allowed_settings[] = {
	"broker.address.family", "broker.address.ttl", "compression.codec",
	"connections.max.idle.ms",
	"fetch.error.backoff.ms", "fetch.max.bytes", "fetch.message.max.bytes",
	"fetch.min.bytes", "fetch.wait.max.ms", "max.partition.fetch.bytes",
	"message.max.bytes", "metadata.max.age.ms", "receive.message.max.bytes",
	"reconnect.backoff.max.ms", "reconnect.backoff.ms", "request.timeout.ms",
	"sasl.mechanism", "socket.connection.setup.timeout.ms", "socket.keepalive.enable",
	"socket.nagle.disable", "socket.receive.buffer.bytes", "socket.send.buffer.bytes",
	"socket.timeout.ms", "ssl.cipher.suites", "ssl.curves.list", "ssl.sigalgs.list",
	NULL
};

static void
check_setting(const char *name, const char *value)
{
	const char *key = name + strlen("rdkafka.");

	for (int i = 0; allowed_settings[i]; i++)
		if (strcmp(allowed_settings[i], key) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("setting \"%s\" of librdkafka cannot be changed here", key),
			 errdetail("Only settings that neither reach outside nor change what is read pass through.")));
}

#define OPTION(name) offsetof(KafkaOptions, name)

static const IngestOptionDef kafka_options[] = {
	{"brokers", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(brokers), .required = true,
	.help = "Brokers to begin with, as host:port, separated by commas."},
	{"topic", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(topic), .required = true,
	.help = "The topic to read."},
	{"username", INGEST_SCOPE_USER, INGEST_OPTION_TEXT, OPTION(username),
	.help = "User name for SASL."},
	{"password", INGEST_SCOPE_USER, INGEST_OPTION_TEXT, OPTION(password), .secret = true,
	.help = "Password for SASL: literal, env:NAME or file:/path."},
	{"security_protocol", INGEST_SCOPE_SERVER, INGEST_OPTION_ENUM, OPTION(protocol),
		.fallback = "plaintext", .values = protocols,
	.help = "How to talk to the brokers."},
	{"sasl_mechanism", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(mechanism),
		.fallback = "PLAIN",
	.help = "SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."},
	{"ssl_ca", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(ca),
	.help = "Certificates (PEM text) to trust instead of the system's."},
	{"group", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(group),
	.help = "Consumer group to tell the committed offsets, for monitoring; nothing depends on it."},
	{"client_id", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(client_id),
		.fallback = "ingest",
	.help = "Client id shown in the brokers' logs."},
	{"timeout", INGEST_SCOPE_SERVER, INGEST_OPTION_MS, OPTION(timeout), .fallback = "10 s",
		.min = 100, .max = 3600000,
	.help = "How long to wait for the brokers' answer before giving up for now."},
	{"metadata_refresh", INGEST_SCOPE_SERVER, INGEST_OPTION_MS, OPTION(metadata_refresh),
		.fallback = "30 s", .min = 100, .max = 3600000,
	.help = "How often to look for new partitions."},
	{"rdkafka.*", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(rdkafka),
		.check = check_setting,
	.help = "A setting of librdkafka, from an allow-list."},
	INGEST_OPTION_END
};

enum
{
	META_TOPIC, META_PARTITION, META_OFFSET, META_TIMESTAMP, META_KEY, META_KEY_TEXT, META_HEADERS
};

static const IngestMetadataDef kafka_metadata[] = {
	[META_TOPIC] = {"topic", TEXTOID, "Name of the topic."},
	[META_PARTITION] = {"partition", INT4OID, "Partition of the message."},
	[META_OFFSET] = {"offset", INT8OID, "Offset of the message in its partition."},
	[META_TIMESTAMP] = {"timestamp", TIMESTAMPTZOID, "Time of the message, as its producer or broker set it."},
	[META_KEY] = {"key", BYTEAOID, "Key of the message."},
	[META_KEY_TEXT] = {"key_text", TEXTOID, "Key of the message as text; NULL when it is not valid text."},
	[META_HEADERS] = {"headers", JSONBOID, "Headers, as an array of one-member objects in their order."},
	{NULL}
};

typedef struct KafkaShard
{
	int64		next;			/* offset to deliver next */
	int64		end;			/* as last seen */
	bool		readable;		/* there is no gap before it */
	bool		verify;			/* the message before it is to be compared with proof */
	bool		started;
	int32		number;			/* the partition; the caller's array may be gone at the close */
} KafkaShard;

typedef struct Kafka
{
	IngestSource base;
	const KafkaOptions *options;
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;
	rd_kafka_queue_t *queue;
	rd_kafka_queue_t *answers;	/* to acknowledgements */
	bool		unanswered;		/* one is on its way: two could overtake each other */
	const char *group;			/* ours, since the options may be gone at the close; or NULL */
	rd_kafka_topic_partition_list_t *owed;	/* what the next one will say, or NULL */
	int			pipe[2];		/* the library writes a byte when the queue fills */

	IngestShard *shards;
	MemoryContext shard_mcxt;	/* theirs: what hangs on them goes with them */
	KafkaShard *states;
	int			nshards;
	int			npartitions;	/* of the topic, as last seen */
	int			patience;		/* of a question, in ms */
	int64		next_refresh;	/* this and the others: by ingest_clock_ms() */
	int64		silent_since;	/* no answer to the question for partitions; or 0 */
	int64		next_nudge;
	int			nudged;			/* shard last asked for */

	IngestError gap;			/* found while assigning, reported by fetch */
	int			gap_shard;

	/* Left by callbacks, in malloc'ed memory. */
	rd_kafka_resp_err_t error;
	char	   *error_text;
	int64		error_since;
} Kafka;

/*
 * ---- Callbacks of the library: no PostgreSQL calls that can raise.
 */

static void
note_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	Kafka	   *k = opaque;
	char	   *text = strdup(reason ? reason : rd_kafka_err2str(err));

	/* The causes say more than "all brokers are down", which follows them. */
	if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && k->error_text)
	{
		free(text);
		return;
	}
	free(k->error_text);
	k->error_text = text;
	k->error = err;
	if (k->error_since == 0)
		k->error_since = ingest_clock_ms();
}

/* The library's log says what note_error() hears, and debug output. */
static void
drop_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

/*
 * ---- Errors
 */

/* What an error of the library means for us, with what the brokers said as detail. */
static void
set_error(Kafka *k, IngestError *err, rd_kafka_resp_err_t code)
{
	const char *topic = k->options->topic;

	if (code == RD_KAFKA_RESP_ERR__TIMED_OUT || code == RD_KAFKA_RESP_ERR__TRANSPORT ||
		code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		code = k->error_text ? k->error : code;

	switch (code)
	{
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
			ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_UNDEFINED_OBJECT,
							 "topic \"%s\" does not exist", topic);
			ingest_error_hint(err, "Create the topic, or correct the foreign table's option \"topic\".");
			break;
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
							 "\"%s\" is not a valid name of a topic", topic);
			break;
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
			ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_INVALID_PASSWORD,
							 "the brokers of topic \"%s\" refused to authenticate us", topic);
			ingest_error_hint(err, "Check username and password of the user mapping, and the server's sasl_mechanism.");
			break;
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
			ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_INSUFFICIENT_PRIVILEGE,
							 "not allowed to read topic \"%s\"", topic);
			break;
		case RD_KAFKA_RESP_ERR__SSL:
			ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 "could not make a secure connection to the brokers of topic \"%s\"", topic);
			ingest_error_hint(err, "Check the server's security_protocol and ssl_ca.");
			break;
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
		case RD_KAFKA_RESP_ERR__RESOLVE:
			ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 "no broker of topic \"%s\" answers", topic);
			ingest_error_hint(err, "Check the server's options \"brokers\" and \"security_protocol\", and that the brokers are up.");
			break;
		case RD_KAFKA_RESP_ERR__BAD_MSG:
			ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_PROTOCOL_VIOLATION,
							 "what answers for the brokers of topic \"%s\" does not speak Kafka's protocol", topic);
			ingest_error_hint(err, "Check the server's options \"brokers\" and \"security_protocol\".");
			break;
		default:
			ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_FDW_ERROR,
							 "cannot read topic \"%s\": %s", topic, rd_kafka_err2str(code));
			break;
	}
	if (k->error_text)
		ingest_error_detail(err, "%s", k->error_text);
}

static void
set_gap(Kafka *k, IngestError *err, const IngestShard *shard, const char *what,
		int64 low, int64 high)
{
	ingest_error_set(err, INGEST_ERROR_GAP, ERRCODE_DATA_EXCEPTION,
					 "partition %d of topic \"%s\" cannot be read on from offset %s",
					 shard->number, k->options->topic, shard->position);
	if (low >= 0)
		ingest_error_detail(err, "%s The partition now holds offsets " INT64_FORMAT " to " INT64_FORMAT ".",
							what, low, high - 1);
	else
		ingest_error_detail(err, "%s", what);
	ingest_error_hint(err, "Look what is lost, then move on with ingest.seek(), or set the pipeline's option \"on_gap\" to \"skip\".");
}

/*
 * ---- Life
 */

static void stop_shards(Kafka *k);

/* In a thread of its own: see destroy_client(). */
static void *
run_destroy(void *rk)
{
	rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return NULL;
}

/*
 * Destroying a client joins its threads, and there are releases of the library
 * that wait for unreachable brokers then, or for ever.  A session must not: it
 * waits for a second and then lets the thread do what it does.
 */
static void
destroy_client(rd_kafka_t *rk)
{
	struct timespec deadline;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	old;
	int			rc;

	/* No signal of ours is to be delivered to it. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, NULL, run_destroy, rk);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		return;					/* leaked, rather than waited for */

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 1;
	if (pthread_timedjoin_np(thread, NULL, &deadline) != 0)
		pthread_detach(thread);
}

/* Messages that are still queued keep their partitions alive. */
static void
purge_queue(rd_kafka_queue_t *queue)
{
	rd_kafka_message_t *events[CHUNK];
	ssize_t		n;

	while ((n = rd_kafka_consume_batch_queue(queue, 0, events, CHUNK)) > 0)
		for (ssize_t i = 0; i < n; i++)
			rd_kafka_message_destroy(events[i]);
}

/*
 * Take the answer to the last acknowledgement, waiting at most so many ms, and
 * send what came up meanwhile.  What the answer says does not matter.
 *
 * By an administrator's request: had the consumer itself a group, which it does
 * not join, destroying it would wait for that group for ever.
 */
static void
send_acknowledgement(Kafka *k, int timeout)
{
	rd_kafka_AlterConsumerGroupOffsets_t *request;

	if (k->unanswered)
	{
		rd_kafka_event_t *event = rd_kafka_queue_poll(k->answers, timeout);

		if (event == NULL)
			return;
		rd_kafka_event_destroy(event);
		k->unanswered = false;
	}
	if (k->owed == NULL)
		return;
	if (k->answers == NULL)
		k->answers = rd_kafka_queue_new(k->rk);
	request = rd_kafka_AlterConsumerGroupOffsets_new(k->group, k->owed);
	rd_kafka_AlterConsumerGroupOffsets(k->rk, &request, 1, NULL, k->answers);
	k->unanswered = true;
	rd_kafka_AlterConsumerGroupOffsets_destroy(request);
	rd_kafka_topic_partition_list_destroy(k->owed);
	k->owed = NULL;
}

/*
 * The context goes.  When the process ends, the library is left alone: waiting
 * for its threads could take as long as an unreachable broker likes.
 */
static void
close_kafka(void *arg)
{
	Kafka	   *k = arg;

	if (proc_exit_inprogress)
		return;
	/* So that the group hears of the last batch, too. */
	send_acknowledgement(k, CLOSE_PATIENCE);
	send_acknowledgement(k, CLOSE_PATIENCE);
	if (k->owed)
		rd_kafka_topic_partition_list_destroy(k->owed);
	if (k->answers)
		rd_kafka_queue_destroy(k->answers);
	if (k->queue)
	{
		stop_shards(k);
		rd_kafka_queue_io_event_enable(k->queue, -1, NULL, 0);
		purge_queue(k->queue);
		rd_kafka_queue_destroy(k->queue);
	}
	if (k->rkt)
		rd_kafka_topic_destroy(k->rkt);
	if (k->rk)
		destroy_client(k->rk);
	for (int i = 0; i < 2; i++)
		if (k->pipe[i] >= 0)
			close(k->pipe[i]);
	free(k->error_text);
}

static bool
set_conf(rd_kafka_conf_t *conf, const char *name, const char *value, IngestError *err)
{
	char		reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return true;
	ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
					 "librdkafka refuses setting \"%s\"", name);
	if (strcmp(name, "sasl.password") != 0)
		ingest_error_detail(err, "%s", reason);
	return false;
}

static bool
set_user_conf(rd_kafka_conf_t *conf, const KafkaOptions *options, IngestError *err)
{
	ListCell   *lc;
	bool		sasl = strncmp(protocols[options->protocol], "sasl", 4) == 0;
	char		timeout[32];

	/*
	 * First what a user may know better: one answer must not be a multiple of
	 * what may be queued, and a broker that is silent is not waited for longer
	 * than we are told to.  (Within the bounds of the library.)
	 */
	snprintf(timeout, sizeof(timeout), INT64_FORMAT, Min(Max(options->timeout, 1000), 300000));
	if (!set_conf(conf, "fetch.max.bytes", "8388608", err) ||
		!set_conf(conf, "socket.timeout.ms", timeout, err) ||
		!set_conf(conf, "bootstrap.servers", options->brokers, err) ||
		!set_conf(conf, "client.id", options->client_id, err) ||
		!set_conf(conf, "security.protocol", protocols[options->protocol], err))
		return false;
	if (sasl && (!set_conf(conf, "sasl.mechanism", options->mechanism, err) ||
				 (options->username && !set_conf(conf, "sasl.username", options->username, err)) ||
				 (options->password && !set_conf(conf, "sasl.password", options->password, err))))
		return false;
	if (options->ca && !set_conf(conf, "ssl.ca.pem", options->ca, err))
		return false;
	foreach(lc, options->rdkafka)
	{
		DefElem    *setting = lfirst_node(DefElem, lc);

		if (!set_conf(conf, setting->defname, strVal(setting->arg), err))
			return false;
	}
	return true;
}

/* What the library needs for a message beside its bytes, measured with 2.0.2. */
#define MESSAGE_OVERHEAD 320

/*
 * Ours to decide.  Half of fetch_memory is for the bytes of messages, half for
 * what the library needs to keep them, so that neither large nor many small ones
 * take more.
 */
static bool
set_own_conf(rd_kafka_conf_t *conf, IngestError *err)
{
	char		kbytes[32];
	char		messages[32];

	snprintf(kbytes, sizeof(kbytes), "%d", ingest_guc_fetch_memory / 2);
	snprintf(messages, sizeof(messages), INT64_FORMAT,
			 (int64) ingest_guc_fetch_memory * 1024 / 2 / MESSAGE_OVERHEAD);
	return set_conf(conf, "enable.auto.commit", "false", err) &&
		set_conf(conf, "enable.auto.offset.store", "false", err) &&
		set_conf(conf, "enable.partition.eof", "true", err) &&
		set_conf(conf, "auto.offset.reset", "error", err) &&
		set_conf(conf, "isolation.level", "read_committed", err) &&
		set_conf(conf, "check.crcs", "true", err) &&
		set_conf(conf, "allow.auto.create.topics", "false", err) &&
		set_conf(conf, "queued.min.messages", messages, err) &&
		set_conf(conf, "queued.max.messages.kbytes", kbytes, err);
}

static bool
make_pipe(Kafka *k, IngestError *err)
{
	if (pipe(k->pipe) < 0)
	{
		k->pipe[0] = k->pipe[1] = -1;
		ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_INSUFFICIENT_RESOURCES,
						 "could not create a pipe: %m");
		return false;
	}
	for (int i = 0; i < 2; i++)
	{
		(void) fcntl(k->pipe[i], F_SETFL, O_NONBLOCK);
		(void) fcntl(k->pipe[i], F_SETFD, FD_CLOEXEC);
	}
	return true;
}

static bool
kafka_open(IngestSource *src, IngestError *err)
{
	Kafka	   *k = (Kafka *) src;
	MemoryContextCallback *callback = palloc0(sizeof(*callback));
	rd_kafka_conf_t *conf;
	char		reason[512];

	k->options = src->options;
	k->group = k->options->group ? pstrdup(k->options->group) : NULL;
	k->pipe[0] = k->pipe[1] = -1;
	k->gap_shard = -1;
	k->patience = INGEST_SOURCE_PATIENCE;
	callback->func = close_kafka;
	callback->arg = k;
	MemoryContextRegisterResetCallback(src->mcxt, callback);

	if (!make_pipe(k, err))
		return false;
	conf = rd_kafka_conf_new();
	rd_kafka_conf_set_opaque(conf, k);
	rd_kafka_conf_set_error_cb(conf, note_error);
	rd_kafka_conf_set_log_cb(conf, drop_log);
	if (!set_user_conf(conf, k->options, err) || !set_own_conf(conf, err))
	{
		rd_kafka_conf_destroy(conf);
		return false;
	}
	k->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (k->rk == NULL)
	{
		/* It starts threads: without means for them that is over some time. */
		bool		no_means = rd_kafka_last_error() == RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;

		rd_kafka_conf_destroy(conf);
		ingest_error_set(err, no_means ? INGEST_ERROR_TRANSIENT : INGEST_ERROR_CONFIG,
						 no_means ? ERRCODE_INSUFFICIENT_RESOURCES : ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION,
						 "could not create a Kafka client");
		ingest_error_detail(err, "%s", reason);
		return false;
	}
	k->rkt = rd_kafka_topic_new(k->rk, k->options->topic, NULL);
	if (k->rkt == NULL)
	{
		set_error(k, err, rd_kafka_last_error());
		return false;
	}
	k->queue = rd_kafka_queue_new(k->rk);
	rd_kafka_queue_io_event_enable(k->queue, k->pipe[1], "x", 1);
	return true;
}

/*
 * ---- Asking the brokers.  Each call of the library waits at most for our
 * patience; between them we look for interrupts.
 */

typedef rd_kafka_resp_err_t (*AskFn) (Kafka *k, void *arg);

static bool
ask(Kafka *k, AskFn fn, void *arg, IngestError *err)
{
	int64		deadline = ingest_clock_ms() + k->options->timeout;
	rd_kafka_resp_err_t code;

	for (;;)
	{
		code = fn(k, arg);
		rd_kafka_poll(k->rk, 0);
		if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			free(k->error_text);
			k->error_text = NULL;
			k->error_since = 0;
			k->silent_since = 0;
			return true;
		}
		if (k->error == RD_KAFKA_RESP_ERR__AUTHENTICATION && k->error_text)
			break;
		if ((code != RD_KAFKA_RESP_ERR__TIMED_OUT && code != RD_KAFKA_RESP_ERR__TRANSPORT &&
			 code != RD_KAFKA_RESP_ERR__WAIT_CACHE && code != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE &&
			 code != RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION &&
			 code != RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) ||
			ingest_clock_ms() >= deadline)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
						 ingest_compat_wait_event("IngestKafkaAnswer"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	set_error(k, err, code);
	return false;
}

/* The next question waits for longer when this one has had no answer. */
static rd_kafka_resp_err_t
learn_patience(Kafka *k, rd_kafka_resp_err_t code)
{
	if (code == RD_KAFKA_RESP_ERR__TIMED_OUT)
		k->patience = Min(k->patience * 2, MAX_PATIENCE);
	return code;
}

static rd_kafka_resp_err_t
ask_partitions(Kafka *k, void *arg)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code = rd_kafka_metadata(k->rk, 0, k->rkt, &metadata,
												 k->patience);

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return learn_patience(k, code);
	if (metadata->topic_cnt != 1)
		code = RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
	else
	{
		code = metadata->topics[0].err;
		*(int *) arg = metadata->topics[0].partition_cnt;
	}
	rd_kafka_metadata_destroy(metadata);
	return code;
}

static bool
kafka_list_shards(IngestSource *src, IngestShard **shards, int *nshards, IngestError *err)
{
	Kafka	   *k = (Kafka *) src;
	int			n = 0;

	if (!ask(k, ask_partitions, &n, err))
		return false;
	k->npartitions = n;
	*nshards = n;
	*shards = palloc0(sizeof(IngestShard) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		(*shards)[i].number = i;
		(*shards)[i].name = psprintf("%d", i);
		(*shards)[i].lag = -1;
	}
	return true;
}

typedef struct OffsetQuery
{
	int32		partition;
	int64		at;				/* ms since 1970, or RD_KAFKA_OFFSET_BEGINNING or _END; then the offset */
} OffsetQuery;

/*
 * Not rd_kafka_query_watermark_offsets(): it waits for an answer however long
 * that takes, whatever time it is given.
 */
static rd_kafka_resp_err_t
ask_offset(Kafka *k, void *arg)
{
	OffsetQuery *q = arg;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_resp_err_t code;

	rd_kafka_topic_partition_list_add(list, k->options->topic, q->partition)->offset = q->at;
	code = learn_patience(k, rd_kafka_offsets_for_times(k->rk, list, k->patience));
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		code = list->elems[0].err;
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		q->at = list->elems[0].offset;
	rd_kafka_topic_partition_list_destroy(list);
	return code;
}

/* The first offset of a partition, and its last stable one: we read committed. */
static bool
ask_watermarks(Kafka *k, int32 partition, int64 *low, int64 *high, IngestError *err)
{
	OffsetQuery first = {partition, RD_KAFKA_OFFSET_BEGINNING};
	OffsetQuery end = {partition, RD_KAFKA_OFFSET_END};

	if (!ask(k, ask_offset, &first, err) || !ask(k, ask_offset, &end, err))
		return false;
	*low = first.at;
	*high = end.at;
	return true;
}

static bool
kafka_find_position(IngestSource *src, const IngestShard *shard, IngestStart start,
					TimestampTz at, char **position, IngestError *err)
{
	Kafka	   *k = (Kafka *) src;
	OffsetQuery q = {shard->number, RD_KAFKA_OFFSET_BEGINNING};

	if (start == INGEST_START_TIMESTAMP)
		q.at = Max(0, (at + EPOCH_OFFSET + 999) / MICROS_PER_MS);
	else if (start == INGEST_START_LATEST)
		q.at = RD_KAFKA_OFFSET_END;
	if (!ask(k, ask_offset, &q, err))
		return false;
	if (q.at < 0)
	{
		/* Nothing that late: what comes next. */
		q.at = RD_KAFKA_OFFSET_END;
		if (!ask(k, ask_offset, &q, err))
			return false;
	}
	*position = psprintf(INT64_FORMAT, q.at);
	return true;
}

static bool
kafka_find_end(IngestSource *src, const IngestShard *shard, char **position, IngestError *err)
{
	return kafka_find_position(src, shard, INGEST_START_LATEST, 0, position, err);
}

/*
 * ---- Positions
 */

/* In one way of writing only, since positions are compared as texts. */
static bool
parse_offset(const char *text, int64 *offset)
{
	char	   *end;

	if (text[0] < '0' || text[0] > '9' || (text[0] == '0' && text[1] != '\0'))
		return false;
	errno = 0;
	*offset = strtoll(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *offset >= 0 && *offset < PG_INT64_MAX;
}

static bool
kafka_check_position(const char *position)
{
	int64		offset;

	return parse_offset(position, &offset);
}

static int64
kafka_distance(const char *from, const char *to)
{
	int64		a;
	int64		b;

	return parse_offset(from, &a) && parse_offset(to, &b) ? b - a : -1;
}

/* ---- Parts: by offset, or by time */

static Oid
kafka_slice_type(IngestSource *src, const char *from)
{
	int64		offset;

	return parse_offset(from, &offset) ? INT8OID : TIMESTAMPTZOID;
}

static bool
find_bound(IngestSource *src, const IngestShard *shard, const char *bound, char **position,
		   IngestError *err)
{
	int64		offset;
	TimestampTz at;
	char	   *limit;

	if (!parse_offset(bound, &offset))
	{
		at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(bound),
													 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		return kafka_find_position(src, shard, INGEST_START_TIMESTAMP, at, position, err);
	}

	/* Within what there is. */
	*position = pstrdup(bound);
	if (!kafka_find_position(src, shard, INGEST_START_EARLIEST, 0, &limit, err))
		return false;
	if (kafka_distance(*position, limit) > 0)
		*position = limit;
	if (!kafka_find_end(src, shard, &limit, err))
		return false;
	if (kafka_distance(limit, *position) > 0)
		*position = limit;
	return true;
}

static bool
kafka_slice(IngestSource *src, const IngestShard *shard, const char *from, const char *to,
			char **position, char **end, IngestError *err)
{
	return find_bound(src, shard, from, position, err) && find_bound(src, shard, to, end, err);
}

/* time:hash of what was read last */
static char *
make_proof(int64 time, const void *payload, size_t payload_len, const void *key, size_t key_len)
{
	uint64		hash = hash_bytes_extended(payload, payload_len, 0);

	hash = hash_combine64(hash, hash_bytes_extended(key, key_len, 1));
	return psprintf(INT64_FORMAT ":%016llx", time, (unsigned long long) hash);
}

static char *
message_proof(const rd_kafka_message_t *rkm)
{
	return make_proof(rd_kafka_message_timestamp(rkm, NULL), rkm->payload, rkm->len,
					  rkm->key, rkm->key_len);
}

static void
kafka_position_after(IngestSource *src, const IngestBatch *batch, const IngestMessage *msg,
					 char **position, char **proof)
{
	*position = psprintf(INT64_FORMAT, msg->offset + 1);
	*proof = message_proof(msg->handle);
}

/* The shard has been read up to "next". */
static void
move_shard(Kafka *k, int index, int64 next, const rd_kafka_message_t *last)
{
	IngestShard *shard = &k->shards[index];
	MemoryContext old = MemoryContextSwitchTo(k->shard_mcxt);

	if (shard->position)
		pfree(shard->position);
	shard->position = psprintf(INT64_FORMAT, next);
	if (last)
	{
		if (shard->proof)
			pfree(shard->proof);
		shard->proof = message_proof(last);
	}
	MemoryContextSwitchTo(old);
}

static void
set_end(Kafka *k, int index, int64 end)
{
	IngestShard *shard = &k->shards[index];
	int64		position;

	if (shard->end)
		pfree(shard->end);
	shard->end = MemoryContextStrdup(k->shard_mcxt, psprintf(INT64_FORMAT, end));
	shard->lag = parse_offset(shard->position, &position) ? Max(end - position, 0) : -1;
	k->states[index].end = end;
}

/*
 * The end as of the last answer to a fetch, or our position where that is
 * further.  What transactions that are not over hold back is before it.
 */
static int64
known_end(const Kafka *k, int index)
{
	int64		low;
	int64		high;

	if (rd_kafka_get_watermark_offsets(k->rk, k->options->topic, k->shards[index].number,
									   &low, &high) != RD_KAFKA_RESP_ERR_NO_ERROR)
		high = -1;
	return Max(high, k->states[index].next);
}

/*
 * ---- Reading
 */

static void
stop_shards(Kafka *k)
{
	for (int i = 0; i < k->nshards; i++)
		if (k->states[i].started)
		{
			(void) rd_kafka_consume_stop(k->rkt, k->states[i].number);
			k->states[i].started = false;
		}
}

/* Can the partition be read from the position on?  When not: k->gap, and true. */
static bool
look_at_shard(Kafka *k, int index, IngestError *err)
{
	IngestShard *shard = &k->shards[index];
	KafkaShard *state = &k->states[index];
	int64		low;
	int64		high;

	state->number = shard->number;
	if (!parse_offset(shard->position, &state->next))
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_DATA_CORRUPTED,
						 "\"%s\" is not an offset", shard->position);
		return false;
	}
	if (!ask_watermarks(k, shard->number, &low, &high, err))
		return false;
	set_end(k, index, high);

	if (state->next < low || state->next > high)
	{
		MemoryContext old = MemoryContextSwitchTo(k->shard_mcxt);

		set_gap(k, &k->gap, shard, state->next < low ?
				"The messages in between were removed." :
				"The partition was cut, or the topic was made anew.", low, high);
		MemoryContextSwitchTo(old);
		k->gap_shard = index;
		return true;
	}
	state->readable = true;
	state->verify = shard->proof != NULL && state->next > low;
	return true;
}

/* Begin at the position, or one before it when there is a proof to compare. */
static bool
start_shard(Kafka *k, int index, IngestError *err)
{
	KafkaShard *state = &k->states[index];

	if (rd_kafka_consume_start_queue(k->rkt, state->number,
									 state->verify ? state->next - 1 : state->next,
									 k->queue) != 0)
	{
		set_error(k, err, rd_kafka_last_error());
		return false;
	}
	state->started = true;
	return true;
}

static bool
kafka_assign(IngestSource *src, IngestShard *shards, int nshards, IngestError *err)
{
	Kafka	   *k = (Kafka *) src;
	bool		ok = true;

	stop_shards(k);
	/* Errors of the assignment before, which the library does not tell from those of this one. */
	purge_queue(k->queue);
	ingest_error_reset(&k->gap);
	k->gap_shard = -1;
	k->shards = shards;
	k->shard_mcxt = GetMemoryChunkContext(shards);
	k->nshards = 0;
	if (k->states)
		pfree(k->states);
	k->states = NULL;
	k->states = MemoryContextAllocZero(src->mcxt, sizeof(KafkaShard) * Max(nshards, 1));
	k->nshards = nshards;

	/*
	 * All questions before the first fetch: a broker answers in order, and may
	 * hold a fetch back for half a second.
	 */
	for (int i = 0; ok && i < nshards; i++)
		ok = look_at_shard(k, i, err);
	for (int i = 0; ok && i < nshards; i++)
		ok = !k->states[i].readable || start_shard(k, i, err);
	k->next_refresh = ingest_clock_ms() + k->options->metadata_refresh;
	return ok;
}

static int
find_shard(const Kafka *k, int32 partition)
{
	/* Nearly always in order, and few. */
	for (int i = 0; i < k->nshards; i++)
		if (k->shards[i].number == partition)
			return i;
	return -1;
}

/* Is this the message that was read last before we stopped?  Else raise a gap. */
static bool
verify_shard(Kafka *k, int index, const rd_kafka_message_t *rkm, IngestError *err)
{
	KafkaShard *state = &k->states[index];
	IngestShard *shard = &k->shards[index];

	state->verify = false;
	if (rkm->offset != state->next - 1 || strcmp(message_proof(rkm), shard->proof) == 0)
		return true;
	set_gap(k, err, shard, "The message before it is not the one that was read: the topic was made anew.",
			-1, -1);
	return false;
}

static void
append_message(Kafka *k, IngestBatch *batch, int index, rd_kafka_message_t *rkm)
{
	IngestMessage *msg = ingest_batch_append(batch);
	rd_kafka_timestamp_type_t type;
	int64		time = rd_kafka_message_timestamp(rkm, &type);

	msg->handle = rkm;
	msg->payload = rkm->payload;
	msg->payload_len = rkm->len;
	msg->key = rkm->key;
	msg->key_len = rkm->key_len;
	msg->offset = rkm->offset;
	msg->shard = index;
	batch->bytes += rkm->len + rkm->key_len;

	/* Milliseconds that a timestamptz can hold; anything else is no time. */
	if (type != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && time >= 0 &&
		time < END_TIMESTAMP / MICROS_PER_MS)
	{
		msg->timestamp = time * MICROS_PER_MS - EPOCH_OFFSET;
		msg->has_timestamp = IS_VALID_TIMESTAMP(msg->timestamp);
	}
}

/*
 * One event of the queue.  True when it was a message that is now the batch's;
 * the others are the caller's to destroy.
 */
static bool
take_event(Kafka *k, IngestBatch *batch, rd_kafka_message_t *rkm, int *gap_shard,
		   IngestError *err)
{
	int			index = find_shard(k, rkm->partition);
	KafkaShard *state;

	if (index < 0)
		return false;			/* of an assignment before */
	state = &k->states[index];
	switch (rkm->err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			if (state->verify && !verify_shard(k, index, rkm, err))
			{
				*gap_shard = index;
				return false;
			}
			if (rkm->offset < state->next)
				return false;
			append_message(k, batch, index, rkm);
			state->next = rkm->offset + 1;
			return true;
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:

			/*
			 * The end: behind control records and holes that compaction made,
			 * which nobody delivers.
			 */
			state->verify = false;
			if (rkm->offset > state->next)
				state->next = rkm->offset;
			move_shard(k, index, state->next, NULL);
			set_end(k, index, known_end(k, index));
			return false;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			set_gap(k, err, &k->shards[index], "The offset is out of range.", -1, -1);
			*gap_shard = index;
			return false;
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:

			/*
			 * Also for a moment while a broker starts; asking anew for the
			 * partitions will tell.
			 */
			ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_UNDEFINED_OBJECT,
							 "topic \"%s\" has no partition %d", k->options->topic, rkm->partition);
			return false;
		default:
			set_error(k, err, rkm->err);
			if (err->detail == NULL)
				ingest_error_detail(err, "%s", rd_kafka_message_errstr(rkm));
			return false;
	}
}

/* After a round: positions behind the last message of each shard, and its lag. */
static void
finish_round(Kafka *k, IngestBatch *batch, int first)
{
	rd_kafka_message_t **last = palloc0(sizeof(*last) * Max(k->nshards, 1));

	for (int i = first; i < batch->nmessages; i++)
		last[batch->messages[i].shard] = batch->messages[i].handle;
	for (int i = 0; i < k->nshards; i++)
	{
		if (last[i] == NULL)
			continue;
		/* An end seen after it may be further on already. */
		move_shard(k, i, Max(k->states[i].next, last[i]->offset + 1), last[i]);
		set_end(k, i, known_end(k, i));
	}
	pfree(last);
}

/* Ends move on also when nothing comes: what a transaction holds back is lag. */
static void
look_at_ends(Kafka *k)
{
	for (int i = 0; i < k->nshards; i++)
	{
		int64		end = k->states[i].started ? known_end(k, i) : -1;

		if (end > k->states[i].end)
			set_end(k, i, end);
	}
}

/* Look whether there are new partitions, now and then. */
static bool
shards_changed(Kafka *k)
{
	int64		now = ingest_clock_ms();
	rd_kafka_resp_err_t code;
	int			n = 0;

	if (now < k->next_refresh)
		return false;
	code = ask_partitions(k, &n);
	k->next_refresh = now + k->options->metadata_refresh;
	if (code == RD_KAFKA_RESP_ERR__TIMED_OUT || code == RD_KAFKA_RESP_ERR__TRANSPORT)
	{
		if (k->silent_since == 0)
			k->silent_since = now;
		k->next_refresh = Min(k->next_refresh, now + 1000);
	}
	else
		k->silent_since = 0;
	return code == RD_KAFKA_RESP_ERR_NO_ERROR && n != k->npartitions;
}

/*
 * Keep the library fetching.  Until 2.2 its broker thread, once a queue bound
 * made it pause, sleeps for up to a second and does not notice that we have
 * emptied the queue; a request to the partition's leader wakes it.  So when
 * little is left and more is known to be there, one cheap question is asked,
 * rarely enough that even a distant broker costs a tenth of the time.
 */
static void
nudge_library(Kafka *k, int64 enough)
{
	int64		now;

	if (rd_kafka_queue_length(k->queue) >= enough)
		return;
	now = ingest_clock_ms();
	if (now < k->next_nudge)
		return;
	for (int i = 0; i < k->nshards; i++)
	{
		int			index = (k->nudged + 1 + i) % k->nshards;
		OffsetQuery q = {k->shards[index].number, RD_KAFKA_OFFSET_END};
		int64		done;

		if (!k->states[index].started || k->shards[index].lag <= 0)
			continue;
		k->nudged = index;
		(void) ask_offset(k, &q);
		done = ingest_clock_ms();
		k->next_nudge = done + Max(5, 9 * (done - now));
		return;
	}
}

static void
drain_pipe(Kafka *k)
{
	char		bytes[64];

	while (read(k->pipe[0], bytes, sizeof(bytes)) == sizeof(bytes))
		;
}

/*
 * The brokers have been away for longer than the timeout.  The library reports
 * errors of connections; of brokers that just do not answer any more not every
 * release says something, so that we go by our own question, too.
 */
static bool
brokers_lost(Kafka *k, IngestError *err)
{
	int64		late = ingest_clock_ms() - k->options->timeout;
	bool		silent = k->silent_since != 0 && k->silent_since <= late;

	if (!silent && (k->error_text == NULL ||
					(k->error != RD_KAFKA_RESP_ERR__AUTHENTICATION && k->error_since > late)))
		return false;
	set_error(k, err, k->error_text ? k->error : RD_KAFKA_RESP_ERR__TIMED_OUT);
	free(k->error_text);
	k->error_text = NULL;
	k->error_since = 0;
	k->silent_since = 0;
	return true;
}

/* The events of one call: what does not become the batch's is destroyed, also when an error is raised. */
static void
take_events(Kafka *k, IngestBatch *batch, rd_kafka_message_t **events, ssize_t n,
			int *gap_shard, IngestError *err)
{
	volatile ssize_t i = 0;

	PG_TRY();
	{
		for (; i < n; i++)
			if (err->class != INGEST_ERROR_NONE ||
				!take_event(k, batch, events[i], gap_shard, err))
				rd_kafka_message_destroy(events[i]);
	}
	PG_CATCH();
	{
		for (; i < n; i++)
			rd_kafka_message_destroy(events[i]);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static IngestFetch
kafka_fetch(IngestSource *src, IngestBatch *batch, int *gap_shard, IngestError *err)
{
	Kafka	   *k = (Kafka *) src;
	rd_kafka_message_t *events[CHUNK];
	int			first = batch->nmessages;
	bool		any = false;
	ssize_t		n;

	ingest_error_reset(err);
	*gap_shard = -1;
	if (k->gap_shard >= 0)
	{
		*gap_shard = k->gap_shard;
		ingest_error_copy(err, &k->gap, CurrentMemoryContext);
		return INGEST_FETCH_ERROR;
	}
	rd_kafka_poll(k->rk, 0);
	send_acknowledgement(k, 0);
	drain_pipe(k);

	while (!ingest_batch_full(batch) && err->class == INGEST_ERROR_NONE)
	{
		n = rd_kafka_consume_batch_queue(k->queue, 0, events,
										 Min(CHUNK, batch->limits.rows - batch->nmessages));
		if (n <= 0)
			break;
		any = true;
		take_events(k, batch, events, n, gap_shard, err);
	}
	finish_round(k, batch, first);

	if (err->class != INGEST_ERROR_NONE)
		return INGEST_FETCH_ERROR;
	nudge_library(k, batch->limits.rows);
	if (any)
	{
		free(k->error_text);
		k->error_text = NULL;
		k->error_since = 0;
		k->silent_since = 0;
		return INGEST_FETCH_GOT;
	}
	if (brokers_lost(k, err))
		return INGEST_FETCH_ERROR;
	look_at_ends(k);
	return shards_changed(k) ? INGEST_FETCH_SHARDS : INGEST_FETCH_EMPTY;
}

static void
kafka_wait_hint(IngestSource *src, pgsocket *fd, long *timeout)
{
	Kafka	   *k = (Kafka *) src;
	int64		ms = k->next_refresh - ingest_clock_ms();

	*fd = k->pipe[0];
	/* Errors reach us in rd_kafka_poll() only: look at least once a second while there is one. */
	*timeout = (long) Max(0, Min(ms, 1000));
}

static void
kafka_release(IngestSource *src, IngestBatch *batch)
{
	for (int i = 0; i < batch->nmessages; i++)
		if (batch->messages[i].handle)
		{
			rd_kafka_message_destroy(batch->messages[i].handle);
			batch->messages[i].handle = NULL;
		}
}

static void
kafka_acknowledge(IngestSource *src, const IngestShard *shards, int nshards)
{
	Kafka	   *k = (Kafka *) src;
	const char *topic = k->options->topic;

	if (k->group == NULL)
		return;
	if (k->owed == NULL)
		k->owed = rd_kafka_topic_partition_list_new(nshards);
	for (int i = 0; i < nshards; i++)
	{
		rd_kafka_topic_partition_t *owed;
		int64		offset;

		if (shards[i].position == NULL || !parse_offset(shards[i].position, &offset))
			continue;
		owed = rd_kafka_topic_partition_list_find(k->owed, topic, shards[i].number);
		if (owed == NULL)
			owed = rd_kafka_topic_partition_list_add(k->owed, topic, shards[i].number);
		owed->offset = offset;
	}
	send_acknowledgement(k, 0);
}

/*
 * ---- Metadata
 */

/* Text of the database, or NULL when the bytes are not valid text. */
static char *
valid_text(const char *bytes, size_t len)
{
	if (bytes == NULL || memchr(bytes, '\0', len) != NULL ||
		!pg_verify_mbstr(PG_UTF8, bytes, len, true))
		return NULL;
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return pnstrdup(bytes, len);
	return NULL;
}

static char *
kafka_get_headers(IngestSource *src, const IngestMessage *msg)
{
	rd_kafka_headers_t *headers;
	StringInfoData json;
	const char *name;
	const void *value;
	size_t		len;

	if (msg->handle == NULL)
		return msg->headers ? pstrdup(msg->headers) : NULL;
	if (rd_kafka_message_headers(msg->handle, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return NULL;

	initStringInfo(&json);
	for (size_t i = 0;
		 rd_kafka_header_get_all(headers, i, &name, &value, &len) == RD_KAFKA_RESP_ERR_NO_ERROR;
		 i++)
	{
		char	   *key = valid_text(name, strlen(name));
		char	   *text = valid_text(value, len);

		appendStringInfoString(&json, i > 0 ? ", {" : "[{");
		escape_json(&json, key ? key : "?");
		appendStringInfoString(&json, ": ");
		if (text)
			escape_json(&json, text);
		else
			appendStringInfoString(&json, "null");
		appendStringInfoChar(&json, '}');
	}
	appendStringInfoString(&json, json.len > 0 ? "]" : "[]");
	return json.data;
}

static Datum
bytes_datum(const char *bytes, size_t len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), bytes, len);
	return PointerGetDatum(result);
}

static Datum
kafka_get_metadata(IngestSource *src, const IngestBatch *batch, const IngestMessage *msg,
				   int which, bool *isnull)
{
	const KafkaOptions *options = src->options;
	char	   *text;

	*isnull = false;
	switch (which)
	{
		case META_TOPIC:
			return CStringGetTextDatum(options->topic);
		case META_PARTITION:
			return Int32GetDatum(batch->shards[msg->shard].number);
		case META_OFFSET:
			return Int64GetDatum(msg->offset);
		case META_TIMESTAMP:
			*isnull = !msg->has_timestamp;
			return TimestampTzGetDatum(msg->timestamp);
		case META_KEY:
			*isnull = msg->key == NULL;
			return *isnull ? (Datum) 0 : bytes_datum(msg->key, msg->key_len);
		case META_KEY_TEXT:
			text = msg->key ? valid_text(msg->key, msg->key_len) : NULL;
			*isnull = text == NULL;
			return text ? CStringGetTextDatum(text) : (Datum) 0;
		case META_HEADERS:
			text = kafka_get_headers(src, msg);
			*isnull = text == NULL;
			return text ? DirectFunctionCall1(jsonb_in, CStringGetDatum(text)) : (Datum) 0;
	}
	*isnull = true;
	return (Datum) 0;
}

const IngestSourceOps ingest_source_kafka = {
	.name = "kafka",
	.description = "Topics of Apache Kafka and what speaks its protocol",
	.options = kafka_options,
	.options_size = sizeof(KafkaOptions),
	.metadata = kafka_metadata,
	.instance_size = sizeof(Kafka),
	.open = kafka_open,
	.list_shards = kafka_list_shards,
	.find_position = kafka_find_position,
	.check_position = kafka_check_position,
	.distance = kafka_distance,
	.assign = kafka_assign,
	.wait_hint = kafka_wait_hint,
	.fetch = kafka_fetch,
	.position_after = kafka_position_after,
	.find_end = kafka_find_end,
	.slice_type = kafka_slice_type,
	.slice = kafka_slice,
	.get_metadata = kafka_get_metadata,
	.get_headers = kafka_get_headers,
	.release = kafka_release,
	.acknowledge = kafka_acknowledge,
};
