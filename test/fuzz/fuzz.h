/*
 * fuzz.h
 *		What the fuzz targets share.
 */
#ifndef INGEST_FUZZ_H
#define INGEST_FUZZ_H

#include "postgres.h"

/* Raised by a target for what must never happen; with the reason as message. */
#define FUZZ_FINDING MAKE_SQLSTATE('F', 'U', 'Z', 'Z', '0')
#define fuzz_finding(...) \
	ereport(ERROR, (errcode(FUZZ_FINDING), errmsg_internal(__VA_ARGS__)))

typedef struct FuzzTarget
{
	const char *name;

	/* Once, in a context that lives as long as the process.  raises: yes */
	void		(*start) (void);

	/*
	 * One input, in a context that is reset after it.  Whatever this raises is
	 * a finding.
	 */
	void		(*run) (const char *data, Size len);
} FuzzTarget;

extern const FuzzTarget fuzz_json;
extern const FuzzTarget fuzz_ndjson;
extern const FuzzTarget fuzz_csv;
extern const FuzzTarget fuzz_xml;
extern const FuzzTarget fuzz_text;
extern const FuzzTarget fuzz_raw;
extern const FuzzTarget fuzz_document;
extern const FuzzTarget fuzz_records;
extern const FuzzTarget fuzz_options;
extern const FuzzTarget fuzz_limit;

/*
 * A context whose chunks are blocks of malloc(), so that the address sanitizer
 * knows where each one ends and when it is gone.
 */
extern MemoryContext fuzz_context_create(MemoryContext parent, const char *name);

/* Bytes allocated in it now. */
extern Size fuzz_context_size(MemoryContext context);

/* A copy of bytes in a block of malloc() of just that size. */
extern char *fuzz_copy(const char *data, Size len);

/* Is this an error of the data, as an input function may raise it? */
extern bool fuzz_is_data_error(int sqlstate);

#endif							/* INGEST_FUZZ_H */
