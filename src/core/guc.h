/*
 * guc.h
 *		Settings of the extension; all carry the prefix "ingest.".
 */
#ifndef INGEST_GUC_H
#define INGEST_GUC_H

extern int	ingest_guc_max_workers; /* pipelines' workers in the cluster */
extern int	ingest_guc_fetch_memory;	/* kB a worker's source may prefetch */
extern int	ingest_guc_retry_min;	/* ms, first back-off */
extern int	ingest_guc_retry_max;	/* ms, longest back-off */

extern void ingest_guc_init(void);

#endif							/* INGEST_GUC_H */
