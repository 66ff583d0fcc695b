/*
 * guc.c
 *		The extension's settings.
 */
#include "postgres.h"

#include "core/guc.h"
#include "utils/guc.h"

int			ingest_guc_max_workers = 8;
int			ingest_guc_fetch_memory = 128 * 1024;
int			ingest_guc_retry_min = 1000;
int			ingest_guc_retry_max = 5 * 60 * 1000;

typedef struct IntSetting
{
	const char *name;
	const char *help;
	const char *detail;
	int		   *variable;
	int			min;
	int			max;
	GucContext	context;
	int			flags;
} IntSetting;

static const IntSetting settings[] = {
	{
		"ingest.max_workers",
		"Sets how many workers may run pipelines at the same time in one database.",
		"Each takes a slot of max_worker_processes; further pipelines wait for a free one.",
		&ingest_guc_max_workers, 0, 1024, PGC_SIGHUP, 0
	},
	{
		"ingest.fetch_memory",
		"Sets how much memory a worker's source may use to fetch ahead.",
		"Half of it for the bytes of messages, half for keeping account of them.",
		&ingest_guc_fetch_memory, 1024, 1024 * 1024, PGC_SIGHUP, GUC_UNIT_KB
	},
	{
		"ingest.retry_min",
		"Sets the shortest wait before a failed pipeline is tried again.",
		"The wait doubles with each failure in a row, with jitter.",
		&ingest_guc_retry_min, 10, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"ingest.retry_max",
		"Sets the longest wait before a failed pipeline is tried again.",
		NULL,
		&ingest_guc_retry_max, 10, 24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS
	},
};

void
ingest_guc_init(void)
{
	for (int i = 0; i < lengthof(settings); i++)
	{
		const IntSetting *s = &settings[i];

		DefineCustomIntVariable(s->name, s->help, s->detail, s->variable,
								*s->variable, s->min, s->max, s->context,
								s->flags, NULL, NULL, NULL);
	}
	MarkGUCPrefixReserved("ingest");
}
