/*
 * usersql.c
 *		Settings under which the pipeline owner's SQL runs.
 *
 * Our own catalog statements do not come here; they pin everything themselves
 * (core/spi.c).
 */
#include "postgres.h"

#include "pipeline/usersql.h"
#include "utils/guc.h"
#include "utils/timeout.h"

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

int
ingest_usersql_begin(const IngestPipeline *pl)
{
	int			level = NewGUCNestLevel();
	const char *path = pl->search_path;

	/* Unless it is named, the temporary schema is searched first. */
	if (strstr(path, "pg_temp") == NULL)
		path = psprintf("%s%spg_temp", path, *path ? ", " : "");
	set_for_now("search_path", path);
	set_for_now("lock_timeout", psprintf(INT64_FORMAT, pl->options.lock_timeout));
	return level;
}

void
ingest_usersql_end(int level)
{
	AtEOXact_GUC(true, level);
}

bool
ingest_usersql_arm(const IngestPipeline *pl)
{
	if (pl->options.statement_timeout <= 0 || get_timeout_active(STATEMENT_TIMEOUT))
		return false;
	enable_timeout_after(STATEMENT_TIMEOUT, (int) Min(pl->options.statement_timeout, PG_INT32_MAX));
	return true;
}

void
ingest_usersql_disarm(bool armed)
{
	if (armed)
		disable_timeout(STATEMENT_TIMEOUT, false);
}

bool
ingest_usersql_timed_out(const IngestPipeline *pl, bool armed, int sqlstate)
{
	return armed && sqlstate == ERRCODE_QUERY_CANCELED && !get_timeout_active(STATEMENT_TIMEOUT) &&
		pl->options.lock_timeout > 0 && pl->options.lock_timeout < pl->options.statement_timeout;
}
