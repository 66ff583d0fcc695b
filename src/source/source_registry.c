/*
 * source_registry.c
 *		The list of sources, from source_list.h.
 */
#include "postgres.h"

#include "source/source.h"
#include "source/source_registry.h"

const IngestSourceOps *const ingest_sources[] = {
#define INGEST_SOURCE(symbol) &symbol,
#include "source/source_list.h"
#undef INGEST_SOURCE
	NULL
};

/* A table that forgets a callback is a bug that shows when the library is loaded. */
void
ingest_source_registry_init(void)
{
	for (const IngestSourceOps *const *s = ingest_sources; *s; s++)
	{
		const IngestSourceOps *ops = *s;

		if (!ops->name || !ops->options || !ops->metadata || !ops->open ||
			!ops->list_shards || !ops->find_position || !ops->check_position ||
			!ops->distance || !ops->assign || !ops->wait_hint || !ops->fetch ||
			!ops->position_after || !ops->find_end || !ops->get_metadata || !ops->release ||
			ops->instance_size < sizeof(IngestSource))
			elog(ERROR, "source \"%s\" is incomplete", ops->name ? ops->name : "?");
		for (const IngestSourceOps *const *t = ingest_sources; t < s; t++)
			if (strcmp((*t)->name, ops->name) == 0)
				elog(ERROR, "there are two sources \"%s\"", ops->name);
	}
}

const IngestSourceOps *
ingest_source_find(const char *name)
{
	for (const IngestSourceOps *const *s = ingest_sources; *s; s++)
		if (strcmp((*s)->name, name) == 0)
			return *s;
	return NULL;
}

bool
ingest_source_reached(const IngestSourceOps *ops, const char *position, const char *end)
{
	return position != NULL &&
		(strcmp(position, end) == 0 || ops->distance(end, position) >= 0);
}
