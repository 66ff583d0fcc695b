/*
 * fuzz.c
 *		libFuzzer within a backend: SELECT ingest_fuzz('json', '{-runs=1000,corpus}').
 *
 * A decoder needs a backend (memory contexts, errors, type input functions), so
 * that the fuzzer runs in one: a single-user backend, by test/fuzz/run.  The
 * function does not come back.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "fuzz.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_fuzz);

/* Of libFuzzer, which has no header for it. */
extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8_t *data, size_t size));

static const FuzzTarget *const targets[] = {
	&fuzz_json, &fuzz_ndjson, &fuzz_csv, &fuzz_xml, &fuzz_text, &fuzz_raw, &fuzz_document, &fuzz_records,
	&fuzz_options, &fuzz_limit
};
static const FuzzTarget *target;
static MemoryContext input_context;

/* An error that got here is a finding: libFuzzer keeps the input when we abort. */
static void pg_attribute_noreturn()
report_finding(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	fprintf(stderr, "==== finding: %s (%s)\n", error->message, unpack_sql_state(error->sqlerrcode));
	abort();
}

static int
run_input(const uint8_t *data, size_t size)
{
	MemoryContextSwitchTo(input_context);
	PG_TRY();
	{
		target->run((const char *) data, size);
	}
	PG_CATCH();
	{
		report_finding();
	}
	PG_END_TRY();
	MemoryContextReset(input_context);
	return 0;
}

Datum
ingest_fuzz(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum	   *elements;
	int			n;
	int			argc;
	char	  **argv;

	for (int i = 0; i < lengthof(targets); i++)
		if (strcmp(targets[i]->name, name) == 0)
			target = targets[i];
	if (target == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("no target \"%s\"", name)));

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	MemoryContextSwitchTo(TopMemoryContext);
	argc = n + 1;
	argv = palloc0(sizeof(char *) * (argc + 1));
	argv[0] = pstrdup(name);
	for (int i = 0; i < n; i++)
		argv[i + 1] = TextDatumGetCString(elements[i]);

	input_context = fuzz_context_create(TopMemoryContext, "fuzz input");
	target->start();
	exit(LLVMFuzzerRunDriver(&argc, &argv, run_input));
}

bool
fuzz_is_data_error(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
		sqlstate == ERRCODE_SYNTAX_ERROR ||	/* what tsvector says */
		sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

char *
fuzz_copy(const char *data, Size len)
{
	char	   *copy = malloc(len);

	if (len > 0)
		memcpy(copy, data, len);
	return copy;
}

/*
 * ---- The memory context
 */
#if PG_VERSION_NUM >= 160000
#error "from 16 on a memory context of one's own is not possible"
#endif

typedef struct Chunk
{
	struct Chunk *prev;
	struct Chunk *next;
	Size		size;
	MemoryContext context;		/* must come right before the chunk */
} Chunk;

typedef struct FuzzContext
{
	MemoryContextData header;
	Chunk	   *chunks;
	Size		size;
} FuzzContext;

#define CHUNK_OF(pointer) ((Chunk *) ((char *) (pointer) - sizeof(Chunk)))

static void *
link_chunk(FuzzContext *context, Chunk *chunk, Size size)
{
	if (chunk == NULL)
		return NULL;			/* the caller raises */
	chunk->size = size;
	chunk->context = (MemoryContext) context;
	chunk->prev = NULL;
	chunk->next = context->chunks;
	if (chunk->next)
		chunk->next->prev = chunk;
	context->chunks = chunk;
	context->size += size;
	return chunk + 1;
}

static void
unlink_chunk(FuzzContext *context, Chunk *chunk)
{
	if (chunk->prev)
		chunk->prev->next = chunk->next;
	else
		context->chunks = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
	context->size -= chunk->size;
}

static void *
fuzz_alloc(MemoryContext context, Size size)
{
	return link_chunk((FuzzContext *) context, malloc(sizeof(Chunk) + size), size);
}

static void
fuzz_free(MemoryContext context, void *pointer)
{
	unlink_chunk((FuzzContext *) context, CHUNK_OF(pointer));
	free(CHUNK_OF(pointer));
}

static void *
fuzz_realloc(MemoryContext context, void *pointer, Size size)
{
	Chunk	   *old = CHUNK_OF(pointer);
	void	   *moved = fuzz_alloc(context, size);

	if (moved == NULL)
		return NULL;
	memcpy(moved, pointer, Min(size, old->size));
	fuzz_free(context, pointer);
	return moved;
}

static void
fuzz_reset(MemoryContext context)
{
	while (((FuzzContext *) context)->chunks)
		fuzz_free(context, ((FuzzContext *) context)->chunks + 1);
}

static void
fuzz_delete(MemoryContext context)
{
	fuzz_reset(context);
	free(context);
}

static Size
fuzz_chunk_space(MemoryContext context, void *pointer)
{
	return CHUNK_OF(pointer)->size + sizeof(Chunk);
}

static bool
fuzz_is_empty(MemoryContext context)
{
	return ((FuzzContext *) context)->chunks == NULL;
}

static void
fuzz_stats(MemoryContext context, MemoryStatsPrintFunc print, void *passthru,
		   MemoryContextCounters *totals, bool print_to_stderr)
{
}

static const MemoryContextMethods fuzz_methods = {
	fuzz_alloc, fuzz_free, fuzz_realloc, fuzz_reset, fuzz_delete, fuzz_chunk_space, fuzz_is_empty,
	fuzz_stats
};

MemoryContext
fuzz_context_create(MemoryContext parent, const char *name)
{
	FuzzContext *context = calloc(1, sizeof(FuzzContext));

	/* The tag is one of those that the server takes for a context. */
	MemoryContextCreate((MemoryContext) context, T_AllocSetContext, &fuzz_methods, parent, name);
	return (MemoryContext) context;
}

Size
fuzz_context_size(MemoryContext context)
{
	return ((FuzzContext *) context)->size;
}
