-- The JSON format: what is accepted, and what is said of the rest (C26).
CREATE TABLE j (a integer, b text, c float8, d jsonb, e integer[], f timestamptz);
SET timezone = 'UTC';
SELECT * FROM ingest.decode(NULL::j, '{"a": 1, "b": "two", "c": 3.5, "d": {"x": [1, 2]}, "e": [1, null, 3], "f": "2026-01-31T12:00:00.5Z"}'::text);
-- Missing, unknown, null, repeated; strings for numbers and the other way round.
SELECT * FROM ingest.decode(NULL::j, '{"z": {"a": 9}, "a": 1, "a": "2", "b": 12.50, "c": null, "d": null}'::text);
SELECT b FROM ingest.decode(NULL::j, '{"b": {"k" : [true, "x"]}}'::text);
SELECT b FROM ingest.decode(NULL::j, '{"b": "\u00e4\ud83d\ude00\n\"\\\/"}'::text);
SELECT b FROM ingest.decode(NULL::j, '{"\u0062": "escaped key"}'::text);
-- Arrays: a row each.
SELECT a FROM ingest.decode(NULL::j, ' [ {"a": 1} , {"a": 2},{} ] '::text);
SELECT count(*) FROM ingest.decode(NULL::j, '[]'::text);
-- Arrays of text, nested, with what must be quoted.
CREATE TABLE ja (t text[], m integer[]);
SELECT * FROM ingest.decode(NULL::ja, '{"t": ["a", "b,c", "\"q\"", "\\", "", "NULL", null, {"x": "}"}], "m": [[1,2],[3,4]]}'::text);

-- Paths.
CREATE FUNCTION said(payload text, OUT code text, OUT message text, OUT detail text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM ingest.decode(NULL::j, payload);
    message := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
CREATE FUNCTION said(payload bytea, OUT code text, OUT message text, OUT detail text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM ingest.decode(NULL::j, payload);
    message := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
CREATE SERVER s FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers 'localhost:1');
CREATE FOREIGN TABLE p (
    x integer OPTIONS (path '$.a.b[1].c'),
    whole jsonb OPTIONS (path '$.a'),
    odd text OPTIONS (path '$."odd key"."a\"b"'),
    n bigint OPTIONS (metadata 'offset')) SERVER s OPTIONS (topic 't');
SELECT * FROM ingest.decode(NULL::p, '{"a": {"b": [{"c": 1}, {"c": 2}]}, "odd key": {"a\"b": "found"}}'::text);
-- The last of repeated keys counts, with all that is below it.
SELECT x FROM ingest.decode(NULL::p, '{"a": {"b": [{}, {"c": 2}]}, "a": {"b": []}}'::text);
-- A key that came before is looked at less closely, but its quote is.
SELECT x FROM ingest.decode(NULL::p, '{"a": {"b": [{}, {"c": 1}]}, "a": {"b": [{}, {"c": 2}]}}'::text);
SELECT x FROM ingest.decode(NULL::p, '{"a": {"b": [{}, {"c": 1}]}, "a": {?b": [{}, {"c": 2}]}}'::text);
SELECT x FROM ingest.decode(NULL::p, '{"": -0, "": 1, "a": {"b": [{}, {"c": -0}], "": 2}}'::text);
-- The whole object, as it is written.
ALTER FOREIGN TABLE p ALTER whole OPTIONS (SET path '$'), ALTER odd OPTIONS (SET path '$');
SELECT * FROM ingest.decode(NULL::p, ' {"a": {"b": [1, {"c": 2}]}, "a" : {"b": []}} '::text);
SELECT * FROM ingest.decode(NULL::p, '[{"a": 1}, {"b":  "\u00e4"}]'::text);
ALTER FOREIGN TABLE p ALTER x OPTIONS (SET path 'a.b');
SELECT * FROM ingest.decode(NULL::p, '{}'::text);

-- Strictness.
SELECT p AS payload, (said(p)).* FROM unnest(ARRAY[
    '', ' ', '{', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{,}', '{a:1}', '{"a" 1}', '{"a":1}x', '{"a":1}{"a":2}',
    '1', '"x"', 'null', '[1]', '[{"a":1}', '[{"a":1},]', '[{"a":1} {"a":2}]', '[{"a":1}]]',
    '{"a":01}', '{"a":+1}', '{"a":1.}', '{"a":.5}', '{"a":1e}', '{"a":-}', '{"a":0x1}', '{"a":NaN}', '{"a":Infinity}', '{"a":tru}', '{"a":nul}',
    '{"b":"' || chr(9) || '"}', '{"b":"\x"}', '{"b":"\u12g4"}', '{"b":"\u0000"}', '{"b":"\ud800"}', '{"b":"\ude00"}', '{"b":"\ud800\u0041"}', '{"z":"\ud800"}',
    '{"b":"open', '{"b":"\', '{"a":"x"}', '{"a":2147483648}', '{"a":1.5}', '{"f":"2026-02-30"}', '{"c":1e400}', '{"c":"1e-400"}'
]) AS p;
-- Deep nesting is bounded, also where nobody looks.
SELECT (said('{"z":' || repeat('[', 64) || repeat(']', 64) || '}')).*;
SELECT (said('{"z":' || repeat('[', 63) || repeat(']', 63) || '}')).*;
SELECT (said('{"z":' || repeat('[', 100000))).*;
-- In the words of the server.
SELECT (said('{"f":"x"}')).*;
SELECT (said('{"f":"2026-01-31 12:34:56+99"}')).*;
SELECT (said('{"c":" "}')).*;
SELECT (said('{"c":" 1e400x"}')).*;
-- Bytes that are no UTF-8.
SELECT p AS payload, (said(p)).* FROM unnest(ARRAY[
    '{"b":"'::bytea || '\xff'::bytea || '"}'::bytea, '{"b":"'::bytea || '\xc0af'::bytea || '"}'::bytea,
    '{"b":"'::bytea || '\xeda080'::bytea || '"}'::bytea, '{"b":"'::bytea || '\xe2'::bytea || '"}'::bytea,
    '{"'::bytea || '\xff'::bytea || '":1}'::bytea, '{"b":"'::bytea || '\x00'::bytea || '"}'::bytea, '\x00'::bytea, '\xefbbbf7b7d'::bytea
]) AS p;
-- The other formats.
CREATE TABLE c (a integer, b text);
SELECT * FROM ingest.decode(NULL::c, E'1,one\n2,"t,w""o"\r\n\n3,\n4,""\n'::text, 'csv');
SELECT * FROM ingest.decode(NULL::c, E'1;NIL\n'::text, 'csv', '{"delimiter": ";", "null": "NIL"}');
SELECT * FROM ingest.decode(NULL::c, E'1,"open'::text, 'csv');
SELECT * FROM ingest.decode(NULL::c, E'1,2,3'::text, 'csv');
SELECT * FROM ingest.decode(NULL::c, E'x,2'::text, 'csv');
SELECT * FROM ingest.decode(NULL::c, ''::text, 'text');
CREATE TABLE t (line text);
SELECT * FROM ingest.decode(NULL::t, 'any {text'::text, 'text');
SELECT * FROM ingest.decode(NULL::t, '\xff'::bytea, 'text');
SELECT * FROM ingest.decode(NULL::t, ''::bytea, 'raw');
CREATE TABLE r (bytes bytea);
SELECT * FROM ingest.decode(NULL::r, '\x00ff'::bytea, 'raw');
SELECT * FROM ingest.decode(NULL::r, ''::bytea, 'avro');
SELECT * FROM ingest.decode(NULL::c, ''::text, 'csv', '{"delimeter": ";"}');
DROP FOREIGN TABLE p;
DROP SERVER s;
DROP FUNCTION said(text), said(bytea);
DROP TABLE j, ja, c, t, r;
