/*
 * transform.c
 *		SQL over exactly the accepted rows of a batch, in the batch's commit.
 *
 * A statement reads the relation "batch"; a function, which does not see the
 * caller's relations, reads ingest.batch().
 */
#include "postgres.h"

#include "core/spi.h"
#include "parser/parser.h"
#include "pipeline/transform.h"
#include "pipeline/usersql.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/queryenvironment.h"

/* The batch whose transforms run now, for ingest.batch(). */
static struct
{
	Tuplestorestate *rows;
	TupleDesc	rowtype;
}			running;

static void
register_batch(TupleDesc rowtype, Tuplestorestate *rows)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = pstrdup("batch");
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = rowtype;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = rows ? tuplestore_tuple_count(rows) : 0;
	enr->reldata = rows;
	if (SPI_register_relation(enr) < 0)
		elog(ERROR, "SPI_register_relation failed");
}

/*
 * One statement that does not meddle with the transaction or the session.  A
 * CALL may: but inside a turn it runs atomically, where the server refuses.
 */
static void
check_statement(const IngestTransform *transform)
{
	List	   *parsed = raw_parser(transform->statement, RAW_PARSE_DEFAULT);
	Node	   *stmt;

	if (list_length(parsed) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("transform \"%s\" must be one SQL statement", transform->name),
				 errhint("Use several transforms, or a function.")));

	stmt = linitial_node(RawStmt, parsed)->stmt;
	if (!IsA(stmt, SelectStmt) && !IsA(stmt, InsertStmt) && !IsA(stmt, UpdateStmt) &&
		!IsA(stmt, DeleteStmt) && !IsA(stmt, MergeStmt) && !IsA(stmt, CallStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("transform \"%s\" cannot be a %s", transform->name,
						GetCommandTagName(CreateCommandTag(stmt))),
				 errdetail("Only SELECT, INSERT, UPDATE, DELETE, MERGE and CALL are possible.")));
	if (IsA(stmt, SelectStmt) && ((SelectStmt *) stmt)->intoClause)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("transform \"%s\" cannot be a %s", transform->name, "SELECT INTO"),
				 errhint("Create the table once, and INSERT into it.")));
}

/* A syntax error's position points into the statement, not at its definition. */
static void
transpose_error_position(void *arg)
{
	const IngestTransform *transform = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(transform->statement);
	}
}

static SPIPlanPtr
prepare_transform(const IngestTransform *transform)
{
	SPIPlanPtr	plan = SPI_prepare(transform->statement, 0, NULL);

	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("cannot prepare transform \"%s\": %s", transform->name,
						SPI_result_code_string(SPI_result))));
	return plan;
}

void
ingest_transform_check(const IngestTransform *transform, Oid source, TupleDesc rowtype)
{
	ErrorContextCallback context = {error_context_stack, transpose_error_position, (void *) transform};

	error_context_stack = &context;
	check_statement(transform);
	error_context_stack = context.previous;

	SPI_connect();
	register_batch(rowtype, NULL);
	(void) prepare_transform(transform);
	SPI_finish();
}

static void
run_transform(const IngestTransform *transform)
{
	SPIPlanPtr	plan = prepare_transform(transform);
	int			rc;

	/* What a SELECT returns is of no interest: it was called for its effects. */
	SPIExecuteOptions options = {.dest = None_Receiver};

	rc = SPI_execute_plan_extended(plan, &options);
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is not possible in a transform", SPI_result_code_string(rc))));
	SPI_freeplan(plan);
}

/* As run_transform, but an error says in its message which transform it was. */
static void
run_named_transform(const IngestPipeline *pl, const IngestTransform *transform)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	bool		armed = ingest_usersql_arm(pl);

	PG_TRY();
	{
		run_transform(transform);
		ingest_usersql_disarm(armed);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		ingest_usersql_disarm(armed);
		running.rows = NULL;
		MemoryContextSwitchTo(oldcontext);
		edata = CopyErrorData();
		FlushErrorState();
		edata->message = psprintf("transform \"%s\" failed: %s", transform->name,
								  edata->message ? edata->message : "unknown error");
		ReThrowError(edata);
	}
	PG_END_TRY();
}

void
ingest_transforms_run(const IngestPipeline *pl, Tuplestorestate *rows, TupleDesc rowtype)
{
	ListCell   *lc;

	if (pl->transforms == NIL)
		return;

	SPI_connect();
	register_batch(rowtype, rows);
	running.rows = rows;
	running.rowtype = rowtype;
	foreach(lc, pl->transforms)
		run_named_transform(pl, lfirst(lc));
	running.rows = NULL;
	SPI_finish();
}

Tuplestorestate *
ingest_transform_batch(TupleDesc *rowtype)
{
	if (running.rows == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no batch here"),
				 errdetail("ingest.batch() can be read only while the transforms of a pipeline run.")));
	*rowtype = running.rowtype;
	return running.rows;
}
