/*
 * clock.h
 *		How long something takes: a clock that nobody sets.
 */
#ifndef INGEST_CLOCK_H
#define INGEST_CLOCK_H

#include "portability/instr_time.h"

/* Milliseconds since some time before the process.  raises: no */
static inline int64
ingest_clock_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) (INSTR_TIME_GET_MICROSEC(now) / 1000);
}

#endif							/* INGEST_CLOCK_H */
