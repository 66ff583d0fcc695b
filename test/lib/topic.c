/*
 * topic.c
 *		Test tool: makes, grows, empties and deletes topics, and says where
 *		they end, without starting a Java program for each.
 */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT 30000			/* milliseconds */

static rd_kafka_t *rk;
static rd_kafka_queue_t *queue;

static void
fail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fputs("topic: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* The answer to an admin request; its own error ends the program. */
static rd_kafka_event_t *
wait_for_answer(void)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT);

	if (event == NULL)
		fail("no answer");
	if (rd_kafka_event_error(event))
		fail("%s", rd_kafka_event_error_string(event));
	return event;
}

static void
check_topics(const rd_kafka_topic_result_t **results, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (rd_kafka_topic_result_error(results[i]))
			fail("%s: %s", rd_kafka_topic_result_name(results[i]),
				 rd_kafka_topic_result_error_string(results[i]) ?
				 rd_kafka_topic_result_error_string(results[i]) :
				 rd_kafka_err2str(rd_kafka_topic_result_error(results[i])));
}

/* create NAME PARTITIONS [config=value ...] */
static void
create_topic(int argc, char **argv)
{
	char		error[256];
	rd_kafka_NewTopic_t *topic;
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n;

	topic = rd_kafka_NewTopic_new(argv[0], argc > 1 ? atoi(argv[1]) : 1, 1, error, sizeof(error));
	if (topic == NULL)
		fail("%s", error);
	for (int i = 2; i < argc; i++)
	{
		char	   *value = strchr(argv[i], '=');

		if (value == NULL)
			fail("\"%s\" is not config=value", argv[i]);
		*value++ = '\0';
		rd_kafka_NewTopic_set_config(topic, argv[i], value);
	}
	rd_kafka_CreateTopics(rk, &topic, 1, NULL, queue);
	event = wait_for_answer();
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	check_topics(results, n);
	rd_kafka_event_destroy(event);
	rd_kafka_NewTopic_destroy(topic);
}

/* partitions NAME NUMBER */
static void
add_partitions(int argc, char **argv)
{
	char		error[256];
	rd_kafka_NewPartitions_t *partitions;
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n;

	if (argc != 2)
		fail("partitions NAME NUMBER");
	partitions = rd_kafka_NewPartitions_new(argv[0], atoi(argv[1]), error, sizeof(error));
	if (partitions == NULL)
		fail("%s", error);
	rd_kafka_CreatePartitions(rk, &partitions, 1, NULL, queue);
	event = wait_for_answer();
	results = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(event), &n);
	check_topics(results, n);
	rd_kafka_event_destroy(event);
	rd_kafka_NewPartitions_destroy(partitions);
}

/* delete NAME */
static void
delete_topic(int argc, char **argv)
{
	rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(argv[0]);
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n;

	(void) argc;
	rd_kafka_DeleteTopics(rk, &topic, 1, NULL, queue);
	event = wait_for_answer();
	results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
	check_topics(results, n);
	rd_kafka_event_destroy(event);
	rd_kafka_DeleteTopic_destroy(topic);
}

/* truncate NAME PARTITION OFFSET: what is before the offset goes */
static void
delete_records(int argc, char **argv)
{
	rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(1);
	const rd_kafka_topic_partition_list_t *result;
	rd_kafka_DeleteRecords_t *request;
	rd_kafka_event_t *event;

	if (argc != 3)
		fail("truncate NAME PARTITION OFFSET");
	rd_kafka_topic_partition_list_add(before, argv[0], atoi(argv[1]))->offset = atoll(argv[2]);
	request = rd_kafka_DeleteRecords_new(before);
	rd_kafka_DeleteRecords(rk, &request, 1, NULL, queue);
	event = wait_for_answer();
	result = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
	if (result->elems[0].err)
		fail("%s", rd_kafka_err2str(result->elems[0].err));
	rd_kafka_event_destroy(event);
	rd_kafka_DeleteRecords_destroy(request);
	rd_kafka_topic_partition_list_destroy(before);
}

static const struct rd_kafka_metadata *
get_metadata(const char *name)
{
	rd_kafka_topic_t *rkt = name ? rd_kafka_topic_new(rk, name, NULL) : NULL;
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, rkt, &metadata, TIMEOUT);

	if (err)
		fail("%s", rd_kafka_err2str(err));
	if (rkt)
		rd_kafka_topic_destroy(rkt);
	return metadata;
}

/* ends NAME: partition, first offset, next offset, a line each */
static void
print_ends(int argc, char **argv)
{
	const struct rd_kafka_metadata *metadata = get_metadata(argv[0]);

	(void) argc;
	if (metadata->topics[0].err)
		fail("%s: %s", argv[0], rd_kafka_err2str(metadata->topics[0].err));
	for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
	{
		int64_t		low;
		int64_t		high;
		rd_kafka_resp_err_t err;

		err = rd_kafka_query_watermark_offsets(rk, argv[0], i, &low, &high, TIMEOUT);
		if (err)
			fail("%s", rd_kafka_err2str(err));
		printf("%d\t%" PRId64 "\t%" PRId64 "\n", i, low, high);
	}
	rd_kafka_metadata_destroy(metadata);
}

/* committed NAME GROUP PARTITIONS: partition and the group's offset, a line each */
static void
print_committed(int argc, char **argv)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	const rd_kafka_ListConsumerGroupOffsets_result_t *result;
	const rd_kafka_group_result_t **groups;
	rd_kafka_ListConsumerGroupOffsets_t *request;
	rd_kafka_event_t *event;
	size_t		n;

	if (argc != 3)
		fail("committed NAME GROUP PARTITIONS");
	for (int i = 0; i < atoi(argv[2]); i++)
		rd_kafka_topic_partition_list_add(list, argv[0], i);
	request = rd_kafka_ListConsumerGroupOffsets_new(argv[1], list);
	rd_kafka_ListConsumerGroupOffsets(rk, &request, 1, NULL, queue);
	event = wait_for_answer();
	result = rd_kafka_event_ListConsumerGroupOffsets_result(event);
	groups = rd_kafka_ListConsumerGroupOffsets_result_groups(result, &n);
	for (size_t g = 0; g < n; g++)
	{
		const rd_kafka_topic_partition_list_t *offsets = rd_kafka_group_result_partitions(groups[g]);

		for (int i = 0; offsets && i < offsets->cnt; i++)
			printf("%d\t%" PRId64 "\n", offsets->elems[i].partition, offsets->elems[i].offset);
	}
	rd_kafka_event_destroy(event);
	rd_kafka_ListConsumerGroupOffsets_destroy(request);
	rd_kafka_topic_partition_list_destroy(list);
}

/* ping: a broker answers */
static void
ping(int argc, char **argv)
{
	const struct rd_kafka_metadata *metadata = get_metadata(NULL);

	(void) argc;
	(void) argv;
	printf("%d\n", metadata->broker_cnt);
	rd_kafka_metadata_destroy(metadata);
}

static const struct
{
	const char *name;
	int			min_args;
	void		(*run) (int argc, char **argv);
}			commands[] = {
	{"create", 1, create_topic},
	{"partitions", 2, add_partitions},
	{"delete", 1, delete_topic},
	{"truncate", 3, delete_records},
	{"ends", 1, print_ends},
	{"committed", 3, print_committed},
	{"ping", 0, ping},
	{NULL}
};

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
	fputs("usage: topic [-X name=value ...] BROKERS COMMAND ...\n"
		  "       create NAME [PARTITIONS [config=value ...]]\n"
		  "       partitions NAME NUMBER\n"
		  "       delete NAME\n"
		  "       truncate NAME PARTITION OFFSET\n"
		  "       ends NAME\n"
		  "       committed NAME GROUP PARTITIONS\n"
		  "       ping\n", stderr);
	exit(2);
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		error[256];
	int			c;

	set(conf, "log_level", "2");
	while ((c = getopt(argc, argv, "+X:")) != -1)
	{
		char	   *value = c == 'X' ? strchr(optarg, '=') : NULL;

		if (value == NULL)
			usage();
		*value++ = '\0';
		set(conf, optarg, value);
	}
	argc -= optind;
	argv += optind;
	for (int i = 0; argc >= 2 && commands[i].name; i++)
		if (strcmp(commands[i].name, argv[1]) == 0 && argc - 2 >= commands[i].min_args)
		{
			set(conf, "bootstrap.servers", argv[0]);
			rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
			if (rk == NULL)
				fail("%s", error);
			queue = rd_kafka_queue_new(rk);
			commands[i].run(argc - 2, argv + 2);
			rd_kafka_queue_destroy(queue);
			rd_kafka_destroy(rk);
			return 0;
		}
	usage();
}
