/*
 * verdict.c
 *		What becomes of a row: counted, and kept as a dead letter or noted for
 *		somebody who asked.
 *
 * Each row gets exactly one verdict, by one of the functions here; they alone
 * count, so that the accounting identity holds.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "pipeline/attempt_private.h"
#include "utils/memutils.h"

/* Why a row was rejected. */
typedef struct Reason
{
	IngestStage stage;
	const char *rule;
	int			sqlstate;
	const char *message;
	const char *detail;
	const char *column;
} Reason;

static char *
clean(const char *text)
{
	return text ? ingest_error_clean(text, strlen(text), 2000) : NULL;
}

/* ---- payloads ---- */

/* Of a format whose bytes mean nothing to people: as text. */
static void
keep_payload(IngestAttempt *att, const char *payload, Size len, const char **kept, Size *kept_len)
{
	const IngestPrepared *prepared = att->prepared;

	*kept = prepared->rel->format->keep(prepared->format, payload, len);
	*kept_len = strlen(*kept);
}

/* ---- notes ---- */

static IngestNote *
new_note(IngestAttempt *att)
{
	IngestNote *note;

	if (att->nnotes == att->max_notes)
	{
		Size		size;

		att->max_notes = att->max_notes ? att->max_notes * 2 : 64;
		size = (Size) att->max_notes * sizeof(IngestNote);
		att->notes = att->notes ? repalloc_huge(att->notes, size) :
			MemoryContextAllocHuge(att->mcxt, size);
	}
	note = &att->notes[att->nnotes++];
	memset(note, 0, sizeof(*note));
	return note;
}

static void
take_note(IngestAttempt *att, const IngestTravel *travel, const char *verdict,
		  const Reason *reason)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(att->mcxt);
	IngestNote *note = new_note(att);
	IngestVerdict *v = &note->verdict;

	note->place.message = travel->msg - att->batch->messages;
	note->place.row = travel->row;
	v->verdict = verdict;
	v->shard = att->batch->shards[travel->msg->shard].name;
	v->offset = travel->msg->offset;
	v->row_number = travel->row + 1;
	v->payload = travel->slice;
	v->payload_len = travel->slice_len;
	if (v->payload && att->prepared->rel->format->keep)
		keep_payload(att, v->payload, v->payload_len, &v->payload, &v->payload_len);
	if (att->preview && !TTS_EMPTY(att->slot) && (!reason || reason->stage != INGEST_STAGE_DECODE))
		v->row = ExecCopySlotHeapTuple(att->slot);
	if (reason)
	{
		v->stage = ingest_stage_name(reason->stage);
		v->rule = reason->rule ? pstrdup(reason->rule) : NULL;
		v->sqlstate = reason->sqlstate;
		v->message = clean(reason->message);
		v->column = clean(reason->column);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* ---- dead letters ---- */

/* Put what every row of the message needs in front of the row's own bytes. */
static void
prepend_head(IngestAttempt *att, const IngestMessage *msg, IngestDeadLetter *letter)
{
	const IngestPrepared *prepared = att->prepared;
	const IngestFormatOps *format = prepared->rel->format;
	Size		head = format->head ? format->head(prepared->format, msg->payload, msg->payload_len) : 0;
	char	   *whole;

	if (head == 0)
		return;
	whole = palloc(head + letter->payload_len);
	memcpy(whole, msg->payload, head);
	memcpy(whole + head, letter->payload, letter->payload_len);
	letter->payload = whole;
	letter->payload_len += head;
}

/*
 * The bytes to keep: those of the row when its message has several, otherwise
 * the whole message.
 */
static void
fill_payload(IngestAttempt *att, const IngestTravel *travel, IngestDeadLetter *letter)
{
	const IngestMessage *msg = travel->msg;

	letter->payload = msg->payload;
	letter->payload_len = msg->payload ? msg->payload_len : 0;
	if (msg->payload && att->prepared->rel->format->keep)
	{
		keep_payload(att, msg->payload, msg->payload_len, &letter->payload, &letter->payload_len);
		return;
	}
	if (msg->payload == NULL || travel->slice == NULL ||
		(travel->slice == msg->payload && travel->slice_len == msg->payload_len) ||
		(travel->row == 0 && ingest_attempt_is_only_row(att, msg)))
		return;
	letter->payload = travel->slice;
	letter->payload_len = travel->slice_len;
	letter->row_number = travel->row + 1;
	prepend_head(att, msg, letter);
}

static char *
read_headers(IngestAttempt *att, const IngestMessage *msg)
{
	if (msg->headers)
		return (char *) msg->headers;
	if (att->replayed || att->prepared->rel->ops->get_headers == NULL)
		return NULL;
	return att->prepared->rel->ops->get_headers(att->source, msg);
}

static void
append_letter(IngestAttempt *att, const IngestTravel *travel, const Reason *reason)
{
	const IngestMessage *msg = travel->msg;
	IngestDeadLetter letter = {0};

	letter.shard = att->batch->shards[msg->shard].name;
	letter.offset = msg->offset;
	fill_payload(att, travel, &letter);
	letter.key = msg->key;
	letter.key_len = msg->key ? msg->key_len : 0;
	letter.headers = read_headers(att, msg);
	letter.has_timestamp = msg->has_timestamp;
	letter.timestamp = msg->timestamp;
	letter.stage = reason->stage;
	letter.rule = reason->rule;
	letter.sqlstate = reason->sqlstate;
	letter.message = clean(reason->message);
	letter.detail = clean(reason->detail);
	letter.column = clean(reason->column);
	if (att->replayed)
	{
		const IngestReplayed *replayed = &att->replayed[msg - att->batch->messages];

		letter.replay_of = replayed->id;
		if (replayed->row_number > 0)
			letter.row_number = replayed->row_number;
	}
	ingest_dead_letter_append(att->letters, &letter);
}

static void
reject(IngestAttempt *att, const IngestTravel *travel, const Reason *reason)
{
	att->counts.read++;
	att->counts.rejected++;
	append_letter(att, travel, reason);
	if (att->take_notes)
		take_note(att, travel, "rejected", reason);
}

/* ---- verdicts ---- */

void
ingest_verdict_written(IngestAttempt *att, const IngestTravel *travel, bool warned)
{
	att->counts.read++;
	att->counts.written++;
	if (unlikely(warned))
		att->counts.warned++;
	if (unlikely(att->take_notes))
		take_note(att, travel, warned ? "warned" : "accepted", NULL);
}

void
ingest_verdict_skipped(IngestAttempt *att, const IngestTravel *travel)
{
	att->counts.read++;
	att->counts.skipped++;
	ExecClearTuple(att->slot);
	if (att->take_notes)
		take_note(att, travel, "skipped", NULL);
}

void
ingest_verdict_undecodable(IngestAttempt *att, const IngestTravel *travel,
						   const IngestRowError *error)
{
	Reason		reason = {
		INGEST_STAGE_DECODE, NULL, error->sqlstate, error->message, error->detail, error->column
	};

	if (error->position >= 0)
		reason.detail = psprintf("%s%sByte " INT64_FORMAT " of the message.",
								 error->detail ? error->detail : "",
								 error->detail ? " " : "", error->position);
	reject(att, travel, &reason);
}

pg_noreturn static void
raise_rule_failure(IngestAttempt *att, const IngestTravel *travel, const IngestRule *rule)
{
	att->fatal = true;
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("a row violates rule \"%s\" of pipeline \"%s\", which must never happen",
					rule->name, att->prepared->pl->name),
			 errdetail("It is row %d of the message at offset " INT64_FORMAT " of shard \"%s\".",
					   travel->row + 1, travel->msg->offset,
					   att->batch->shards[travel->msg->shard].name),
			 errhint("Change the rule, or skip the message with ingest.seek().")));
	pg_unreachable();
}

/* Not taken back when the rows are tried again: the rule will say the same. */
static void
note_dropped(IngestAttempt *att, const IngestTravel *travel)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(att->mcxt);

	att->dropped = bms_add_member(att->dropped, (int) (travel->msg - att->batch->messages));
	MemoryContextSwitchTo(oldcontext);
}

void
ingest_verdict_violates(IngestAttempt *att, const IngestTravel *travel, int index)
{
	const IngestRule *rule = ingest_rules_get(att->prepared->rules, index);
	Reason		reason = {
		INGEST_STAGE_RULE, rule->name, 0,
		psprintf("row violates rule \"%s\"", rule->name), rule->expression, NULL
	};

	if (rule->on_violation == INGEST_VIOLATION_REJECT)
	{
		reject(att, travel, &reason);
		return;
	}
	if (rule->on_violation == INGEST_VIOLATION_FAIL && !att->preview)
		raise_rule_failure(att, travel, rule);

	att->counts.read++;
	att->counts.dropped++;
	if (att->tell_dropped)
		note_dropped(att, travel);
	if (att->take_notes)
		take_note(att, travel,
				  rule->on_violation == INGEST_VIOLATION_FAIL ? "failed" : "dropped", &reason);
}

void
ingest_verdict_unloadable(IngestAttempt *att, const IngestTravel *travel,
						  const IngestLoadError *error)
{
	Reason		reason = {
		INGEST_STAGE_LOAD, NULL, error->sqlstate, error->message, error->detail, error->column
	};

	reject(att, travel, &reason);
}

static IngestStage
stage_of_step(IngestStep step)
{
	switch (step)
	{
		case INGEST_STEP_OPEN:
		case INGEST_STEP_DECODE:
			return INGEST_STAGE_DECODE;
		case INGEST_STEP_RULE:
			return INGEST_STAGE_RULE;
		case INGEST_STEP_PUT:
		case INGEST_STEP_FLUSH:
		case INGEST_STEP_LAST:
			return INGEST_STAGE_LOAD;
	}
	return INGEST_STAGE_LOAD;
}

/* An error was raised, and this row was the reason. */
void
ingest_verdict_failed(IngestAttempt *att, const IngestTravel *travel, const IngestFailure *failure)
{
	const ErrorData *error = failure->error;
	Reason		reason = {
		stage_of_step(failure->step),
		failure->rule >= 0 ? ingest_rules_get(att->prepared->rules, failure->rule)->name : NULL,
		error->sqlerrcode,
		error->message ? error->message : "unknown error",
		error->detail,
		error->column_name
	};

	ExecClearTuple(att->slot);
	if (failure->rule >= 0)
		ingest_rules_count(att->prepared->rules, failure->rule);
	reject(att, travel, &reason);
}
