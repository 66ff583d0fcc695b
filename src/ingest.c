/*
 * ingest.c
 *		Entry point of the library: calls each module's init, nothing else.
 */
#include "postgres.h"

#include "core/fault.h"
#include "core/guc.h"
#include "fmgr.h"
#include "http/client.h"
#include "http/limit.h"
#include "source/source_registry.h"
#include "format/format_registry.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	ingest_fault_init();
	ingest_http_init();
	ingest_guc_init();			/* reserves the prefix: after every other setting */
	ingest_source_registry_init();
	ingest_format_registry_init();
	ingest_http_limit_init();
	ingest_worker_init();
}
