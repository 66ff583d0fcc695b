-- What people read.  Each view shows the pipelines of roles the reader is a
-- member of; pg_monitor sees the status of all, but no payloads.

CREATE FUNCTION ingest._home() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ingest_sql_home';
COMMENT ON FUNCTION ingest._home() IS 'Internal: this database, as it is noted when a pipeline is started';

CREATE FUNCTION ingest._background() RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ingest_sql_background';
COMMENT ON FUNCTION ingest._background() IS 'Internal: the library was preloaded, so that pipelines can run in background';

CREATE FUNCTION ingest._lane(pipeline_id integer, OUT lane text, OUT reason text)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_lane';
COMMENT ON FUNCTION ingest._lane(integer) IS 'Internal: the lane a pipeline takes, and why not the direct one';

CREATE FUNCTION ingest._blocked(pipeline_id integer, OUT name text, OUT why text)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_blocked';
COMMENT ON FUNCTION ingest._blocked(integer) IS 'Internal: of those that a pipeline runs after, also through others, one that does not run, and why';

CREATE FUNCTION ingest._options(OUT component text, OUT scope text, OUT name text, OUT type text,
                                OUT default_value text, OUT min double precision, OUT max double precision,
                                OUT allowed text[], OUT required boolean, OUT secret boolean, OUT help text)
    RETURNS SETOF record LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'ingest_sql_options';
COMMENT ON FUNCTION ingest._options() IS 'Internal: what ingest.option_help shows';

CREATE FUNCTION ingest._metadata(OUT source text, OUT name text, OUT type regtype, OUT help text)
    RETURNS SETOF record LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'ingest_sql_metadata';
COMMENT ON FUNCTION ingest._metadata() IS 'Internal: what ingest.metadata_help shows';

CREATE FUNCTION ingest.payload_text(payload bytea) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ingest_sql_payload_text';
COMMENT ON FUNCTION ingest.payload_text(bytea) IS 'Bytes as text of the database''s encoding; NULL when they are not';


CREATE VIEW ingest.pipeline WITH (security_barrier) AS
SELECT name, owner, source, target, schedule, options, search_path, version, enabled, created_at
FROM ingest._pipeline
WHERE pg_catalog.pg_has_role(owner, 'USAGE');

COMMENT ON VIEW ingest.pipeline IS 'Definitions of pipelines';
COMMENT ON COLUMN ingest.pipeline.name IS 'Name, unique in the database';
COMMENT ON COLUMN ingest.pipeline.owner IS 'Role whose rights it has, and as which its SQL runs';
COMMENT ON COLUMN ingest.pipeline.source IS 'Relation it reads';
COMMENT ON COLUMN ingest.pipeline.target IS 'Relation it writes to';
COMMENT ON COLUMN ingest.pipeline.schedule IS 'When it runs';
COMMENT ON COLUMN ingest.pipeline.options IS 'Options that were given; ingest.option_help explains them';
COMMENT ON COLUMN ingest.pipeline.search_path IS 'Schemas in which rules and transforms are looked up, as they were at creation';
COMMENT ON COLUMN ingest.pipeline.version IS 'Counts the changes of the definition';
COMMENT ON COLUMN ingest.pipeline.enabled IS 'Started, and not stopped since';
COMMENT ON COLUMN ingest.pipeline.created_at IS 'When it was created';


CREATE VIEW ingest.rule WITH (security_barrier) AS
SELECT p.name AS pipeline, r.name, r.ordinal, r.expression, r.on_violation, r.null_ok, r.violations
FROM ingest._rule r JOIN ingest._pipeline p ON p.id = r.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE');

COMMENT ON VIEW ingest.rule IS 'Rules of pipelines';
COMMENT ON COLUMN ingest.rule.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.rule.name IS 'Name of the rule';
COMMENT ON COLUMN ingest.rule.ordinal IS 'Place in the order of rules; the first one violated decides';
COMMENT ON COLUMN ingest.rule.expression IS 'Boolean SQL over a row of the source';
COMMENT ON COLUMN ingest.rule.on_violation IS 'What happens to a row it is not true for: reject, drop, warn, fail';
COMMENT ON COLUMN ingest.rule.null_ok IS 'Whether NULL is as good as true';
COMMENT ON COLUMN ingest.rule.violations IS 'Rows that have violated it';


CREATE VIEW ingest.transform WITH (security_barrier) AS
SELECT p.name AS pipeline, t.name, t.ordinal, t.statement
FROM ingest._transform t JOIN ingest._pipeline p ON p.id = t.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE');

COMMENT ON VIEW ingest.transform IS 'Transforms of pipelines';
COMMENT ON COLUMN ingest.transform.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.transform.name IS 'Name of the transform';
COMMENT ON COLUMN ingest.transform.ordinal IS 'Place in the order they run in';
COMMENT ON COLUMN ingest.transform.statement IS 'SQL over the relation batch';


CREATE VIEW ingest.position WITH (security_barrier) AS
SELECT p.name AS pipeline, s.shard, s.position, s.source_end, s.lag, s.moved_at
FROM ingest._position s JOIN ingest._pipeline p ON p.id = s.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW ingest.position IS 'How far each shard of a source was read';
COMMENT ON COLUMN ingest.position.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.position.shard IS 'Shard of the source, such as a Kafka partition';
COMMENT ON COLUMN ingest.position.position IS 'Where reading goes on, in the source''s words';
COMMENT ON COLUMN ingest.position.source_end IS 'End of the shard, when it was last seen';
COMMENT ON COLUMN ingest.position.lag IS 'Messages between the two; NULL when that cannot be said';
COMMENT ON COLUMN ingest.position.moved_at IS 'When the position was last moved';


CREATE VIEW ingest.batch_history WITH (security_barrier) AS
SELECT b.id, p.name AS pipeline, b.version, b.kind, b.worker, b.lane, b.messages, b.bytes,
       b.read, b.written, b.rejected, b.dropped, b.merged, b.skipped, b.warned,
       b.shards, b.started_at, b.finished_at, b.run, b.cause, b.outcome, b.sqlstate, b.message
FROM ingest._batch b JOIN ingest._pipeline p ON p.id = b.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW ingest.batch_history IS 'Committed batches, and runs that ended without one: read = written + rejected + dropped + merged + skipped';
COMMENT ON COLUMN ingest.batch_history.id IS 'Number of the batch';
COMMENT ON COLUMN ingest.batch_history.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.batch_history.version IS 'Version of the definition it was made under';
COMMENT ON COLUMN ingest.batch_history.kind IS 'turn: from the source; replay: dead letters once more; run: a run that ended without a batch';
COMMENT ON COLUMN ingest.batch_history.worker IS 'Number of the worker; NULL: in the foreground';
COMMENT ON COLUMN ingest.batch_history.lane IS 'How it was written: direct or statement';
COMMENT ON COLUMN ingest.batch_history.messages IS 'Messages in the batch';
COMMENT ON COLUMN ingest.batch_history.bytes IS 'Bytes of their payloads and keys';
COMMENT ON COLUMN ingest.batch_history.read IS 'Rows the messages held, rows that could not be decoded included';
COMMENT ON COLUMN ingest.batch_history.written IS 'Rows written into the target';
COMMENT ON COLUMN ingest.batch_history.rejected IS 'Rows that became dead letters';
COMMENT ON COLUMN ingest.batch_history.dropped IS 'Rows dropped by a rule';
COMMENT ON COLUMN ingest.batch_history.merged IS 'Rows merged away into others';
COMMENT ON COLUMN ingest.batch_history.skipped IS 'Messages without a value that were skipped';
COMMENT ON COLUMN ingest.batch_history.warned IS 'Rows written although they violate a rule that only warns';
COMMENT ON COLUMN ingest.batch_history.shards IS 'Positions of the shards before and after';
COMMENT ON COLUMN ingest.batch_history.started_at IS 'When its turn began';
COMMENT ON COLUMN ingest.batch_history.finished_at IS 'When it was ready to commit';
COMMENT ON COLUMN ingest.batch_history.run IS 'When the run began that it belongs to; NULL for a stream';
COMMENT ON COLUMN ingest.batch_history.cause IS 'Why it ran: stream, schedule, after, manual, replay, backfill';
COMMENT ON COLUMN ingest.batch_history.outcome IS 'How it ended: done, failed, timeout, cancelled';
COMMENT ON COLUMN ingest.batch_history.sqlstate IS 'Code of the error it ended with';
COMMENT ON COLUMN ingest.batch_history.message IS 'The error it ended with';


CREATE VIEW ingest.dead_letter WITH (security_barrier) AS
SELECT d.id, p.name AS pipeline, d.shard, d."offset", d.row_number, d.stage, d.rule, d.sqlstate,
       d.message, d.detail, d.column_name, ingest.payload_text(d.payload) AS payload_text,
       d.payload, d.key, d.headers, d.message_at, d.rejected_at, d.outcome, d.resolved_at,
       d.replay_of, d.batch_id, d.version
FROM ingest._dead_letter d JOIN ingest._pipeline p ON p.id = d.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE');

COMMENT ON VIEW ingest.dead_letter IS 'Rejected rows and messages, and what became of them';
COMMENT ON COLUMN ingest.dead_letter.id IS 'Number of the dead letter';
COMMENT ON COLUMN ingest.dead_letter.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.dead_letter.shard IS 'Shard of the source it came from';
COMMENT ON COLUMN ingest.dead_letter."offset" IS 'Place in the shard';
COMMENT ON COLUMN ingest.dead_letter.row_number IS 'Row within the message, from 1; 0: the whole message';
COMMENT ON COLUMN ingest.dead_letter.stage IS 'Where it failed: decode, rule, load, transform';
COMMENT ON COLUMN ingest.dead_letter.rule IS 'Rule that rejected it';
COMMENT ON COLUMN ingest.dead_letter.sqlstate IS 'Error code, when it was an error';
COMMENT ON COLUMN ingest.dead_letter.message IS 'Why it was rejected';
COMMENT ON COLUMN ingest.dead_letter.detail IS 'More about why';
COMMENT ON COLUMN ingest.dead_letter.column_name IS 'Column at fault, when it is known';
COMMENT ON COLUMN ingest.dead_letter.payload_text IS 'The payload as text; NULL when it is not valid text';
COMMENT ON COLUMN ingest.dead_letter.payload IS 'The bytes of the row, or of the message';
COMMENT ON COLUMN ingest.dead_letter.key IS 'Key of the message';
COMMENT ON COLUMN ingest.dead_letter.headers IS 'Headers of the message';
COMMENT ON COLUMN ingest.dead_letter.message_at IS 'Timestamp of the message';
COMMENT ON COLUMN ingest.dead_letter.rejected_at IS 'When it was rejected';
COMMENT ON COLUMN ingest.dead_letter.outcome IS 'pending, replayed, rejected again, dropped, discarded, superseded (by a full refresh)';
COMMENT ON COLUMN ingest.dead_letter.resolved_at IS 'When it ceased to be pending';
COMMENT ON COLUMN ingest.dead_letter.replay_of IS 'The dead letter that was replayed into this one';
COMMENT ON COLUMN ingest.dead_letter.batch_id IS 'Batch it was rejected in';
COMMENT ON COLUMN ingest.dead_letter.version IS 'Version of the definition that rejected it';


CREATE VIEW ingest.gap WITH (security_barrier) AS
SELECT g.id, p.name AS pipeline, g.shard, g.from_position, g.to_position, g.messages, g.reason,
       g.skipped_by, g.skipped_at
FROM ingest._gap g JOIN ingest._pipeline p ON p.id = g.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW ingest.gap IS 'Parts of sources that were not read';
COMMENT ON COLUMN ingest.gap.id IS 'Number of the gap';
COMMENT ON COLUMN ingest.gap.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.gap.shard IS 'Shard of the source';
COMMENT ON COLUMN ingest.gap.from_position IS 'First position that was not read';
COMMENT ON COLUMN ingest.gap.to_position IS 'Where reading went on';
COMMENT ON COLUMN ingest.gap.messages IS 'Messages between the two; NULL when that cannot be said';
COMMENT ON COLUMN ingest.gap.reason IS 'Why it was skipped';
COMMENT ON COLUMN ingest.gap.skipped_by IS 'on_gap, or the role that moved the position';
COMMENT ON COLUMN ingest.gap.skipped_at IS 'When it was skipped';


CREATE VIEW ingest.option_help AS
SELECT component, scope, name, type, default_value, min, max, allowed, required, secret, help
FROM ingest._options();

COMMENT ON VIEW ingest.option_help IS 'Every option: where it is written, type, default, range, meaning';
COMMENT ON COLUMN ingest.option_help.component IS 'What understands it: pipeline, any source, one source, one format';
COMMENT ON COLUMN ingest.option_help.scope IS 'Where it is written: server, user mapping, foreign table, column, pipeline';
COMMENT ON COLUMN ingest.option_help.name IS 'Name; one that ends in .* stands for any key with that prefix';
COMMENT ON COLUMN ingest.option_help.type IS 'boolean, integer, size, interval, number, text, enum';
COMMENT ON COLUMN ingest.option_help.default_value IS 'What holds when it is not given';
COMMENT ON COLUMN ingest.option_help.min IS 'Smallest value; sizes in bytes, intervals in milliseconds';
COMMENT ON COLUMN ingest.option_help.max IS 'Largest value';
COMMENT ON COLUMN ingest.option_help.allowed IS 'The values there are';
COMMENT ON COLUMN ingest.option_help.required IS 'It has to be given';
COMMENT ON COLUMN ingest.option_help.secret IS 'Never shown; may refer to env:NAME or file:/path';
COMMENT ON COLUMN ingest.option_help.help IS 'What it does';


CREATE VIEW ingest.metadata_help AS
SELECT source, name, type, help FROM ingest._metadata();

COMMENT ON VIEW ingest.metadata_help IS 'What a column with OPTIONS (metadata ''name'') can hold';
COMMENT ON COLUMN ingest.metadata_help.source IS 'Source that knows it';
COMMENT ON COLUMN ingest.metadata_help.name IS 'Name, as in OPTIONS (metadata ''name'')';
COMMENT ON COLUMN ingest.metadata_help.type IS 'Type the column must have';
COMMENT ON COLUMN ingest.metadata_help.help IS 'What it holds';
