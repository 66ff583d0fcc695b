/*
 * mockbroker.c
 *		An embedded Kafka for the demo: librdkafka's own mock cluster, so that no
 *		Java is needed.
 *
 * Makes the topics, prints "brokers HOST:PORT" and serves until it is told to
 * stop.  The mock keeps about 5 MB a partition and drops what is older: spread
 * over many partitions, and compress.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_mock_cluster_t *cluster;
	rd_kafka_t *rk;
	sigset_t	set;
	char		error[256];
	int			signo;

	/* Before any thread is made, so that all of them inherit it. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);

	if (argc < 2)
	{
		fputs("usage: mockbroker TOPIC:PARTITIONS ...\n", stderr);
		return 2;
	}
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (rk == NULL || (cluster = rd_kafka_mock_cluster_new(rk, 1)) == NULL)
	{
		fprintf(stderr, "mockbroker: %s\n", rk ? "could not make the cluster" : error);
		return 1;
	}
	for (int i = 1; i < argc; i++)
	{
		char	   *partitions = strrchr(argv[i], ':');

		if (partitions)
			*partitions++ = '\0';
		if (rd_kafka_mock_topic_create(cluster, argv[i], partitions ? atoi(partitions) : 1, 1))
		{
			fprintf(stderr, "mockbroker: could not make topic \"%s\"\n", argv[i]);
			return 1;
		}
	}
	printf("brokers %s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);
	sigwait(&set, &signo);
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(rk);
	return 0;
}
