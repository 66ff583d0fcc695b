/*
 * format_registry.c
 *		The list of formats, from format_list.h.
 */
#include "postgres.h"

#include "format/format.h"
#include "format/format_registry.h"
#include "lib/stringinfo.h"

const IngestFormatOps *const ingest_formats[] = {
#define INGEST_FORMAT(symbol) &symbol,
#include "format/format_list.h"
#undef INGEST_FORMAT
	NULL
};

/* A table that forgets a callback is a bug that shows when the library is loaded. */
void
ingest_format_registry_init(void)
{
	for (const IngestFormatOps *const *f = ingest_formats; *f; f++)
	{
		if (!(*f)->name || !(*f)->options || !(*f)->start || !(*f)->begin || !(*f)->next)
			elog(ERROR, "format \"%s\" is incomplete", (*f)->name ? (*f)->name : "?");
		for (const IngestFormatOps *const *g = ingest_formats; g < f; g++)
			if (strcmp((*g)->name, (*f)->name) == 0)
				elog(ERROR, "there are two formats \"%s\"", (*f)->name);
	}
}

const IngestFormatOps *
ingest_format_find(const char *name)
{
	for (const IngestFormatOps *const *f = ingest_formats; *f; f++)
		if (strcmp((*f)->name, name) == 0)
			return *f;
	return NULL;
}

const IngestFormatOps *
ingest_format_get(const char *name)
{
	const IngestFormatOps *found = ingest_format_find(name);
	StringInfoData known;

	if (found)
		return found;

	initStringInfo(&known);
	for (const IngestFormatOps *const *f = ingest_formats; *f; f++)
		appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "", (*f)->name);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("unknown format \"%s\"", name),
			 errhint("Known formats are: %s.", known.data)));
	return NULL;
}
