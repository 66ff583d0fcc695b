/*
 * kafka_fault.h
 *		Calls of librdkafka that a test can make fail, each as the library would
 *		say it; for kafka.c alone, and nothing unless built with FAULTS=1.
 *
 * Not here: what cannot fail, and what only gives back.
 */
#ifndef INGEST_KAFKA_FAULT_H
#define INGEST_KAFKA_FAULT_H

#ifdef INGEST_FAULTS

#include "core/fault.h"

/* What rd_kafka_last_error() says after a call that failed here. */
static rd_kafka_resp_err_t fault_error = RD_KAFKA_RESP_ERR_NO_ERROR;

static inline bool
fault_call(rd_kafka_resp_err_t error)
{
	if (!ingest_fault_library())
		return false;
	fault_error = error;
	errno = EAGAIN;
	return true;
}

static inline rd_kafka_resp_err_t
fault_last_error(void)
{
	rd_kafka_resp_err_t error = fault_error;

	fault_error = RD_KAFKA_RESP_ERR_NO_ERROR;
	return error ? error : rd_kafka_last_error();
}

static inline rd_kafka_conf_res_t
fault_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *reason, size_t size)
{
	if (!ingest_fault_library())
		return rd_kafka_conf_set(conf, name, value, reason, size);
	snprintf(reason, size, "fault");
	return RD_KAFKA_CONF_INVALID;
}

static inline rd_kafka_t *
fault_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *reason, size_t size)
{
	if (!fault_call(RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE))
		return rd_kafka_new(type, conf, reason, size);
	snprintf(reason, size, "fault");
	return NULL;
}

/* The call fails; or one of the events that it gives is an error. */
static inline ssize_t
fault_consume(rd_kafka_queue_t *queue, int timeout, rd_kafka_message_t **events, size_t size)
{
	ssize_t		n;

	if (fault_call(RD_KAFKA_RESP_ERR__FAIL))
		return -1;
	n = rd_kafka_consume_batch_queue(queue, timeout, events, size);
	if (n > 0 && ingest_fault_library())
		events[n / 2]->err = RD_KAFKA_RESP_ERR__BAD_MSG;
	return n;
}

#define FAULT_CODE(call) (fault_call(RD_KAFKA_RESP_ERR__FAIL) ? RD_KAFKA_RESP_ERR__FAIL : (call))
#define FAULT_MINUS(call) (fault_call(RD_KAFKA_RESP_ERR__FAIL) ? -1 : (call))

#define rd_kafka_last_error() fault_last_error()
#define rd_kafka_conf_set(...) fault_conf_set(__VA_ARGS__)
#define rd_kafka_new(...) fault_new(__VA_ARGS__)
#define rd_kafka_topic_new(...) \
	(fault_call(RD_KAFKA_RESP_ERR__INVALID_ARG) ? NULL : rd_kafka_topic_new(__VA_ARGS__))
#define rd_kafka_consume_batch_queue(...) fault_consume(__VA_ARGS__)
#define rd_kafka_consume_start_queue(...) FAULT_MINUS(rd_kafka_consume_start_queue(__VA_ARGS__))
#define rd_kafka_consume_stop(...) FAULT_MINUS(rd_kafka_consume_stop(__VA_ARGS__))
#define rd_kafka_metadata(...) FAULT_CODE(rd_kafka_metadata(__VA_ARGS__))
#define rd_kafka_get_watermark_offsets(...) FAULT_CODE(rd_kafka_get_watermark_offsets(__VA_ARGS__))
#define rd_kafka_offsets_for_times(...) FAULT_CODE(rd_kafka_offsets_for_times(__VA_ARGS__))
#define rd_kafka_message_headers(...) FAULT_CODE(rd_kafka_message_headers(__VA_ARGS__))
#define pipe(fds) FAULT_MINUS(pipe(fds))
#define pthread_create(...) (ingest_fault_library() ? EAGAIN : pthread_create(__VA_ARGS__))

#endif							/* INGEST_FAULTS */

#endif							/* INGEST_KAFKA_FAULT_H */
