-- Lines of JSON: a row each, whatever the others are.
CREATE TABLE n (a integer, b text);
CREATE SERVER s FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers 'localhost:1');
CREATE FOREIGN TABLE np (a integer OPTIONS (path '$.x[1]'), whole jsonb OPTIONS (path '$')) SERVER s OPTIONS (topic 't', format 'ndjson');
SELECT * FROM ingest.decode(NULL::n, E'{"a": 1, "b": "one"}\n{"b": "two", "a": 2}\r\n\n \t\r\n  {"a": 3}  '::text, 'ndjson');
SELECT * FROM ingest.decode(NULL::np, E'{"x": [1, 2]}\n{"x": [3, 4]}\n'::text, 'ndjson');
SELECT count(*) FROM ingest.decode(NULL::n, ''::text, 'ndjson');
SELECT count(*) FROM ingest.decode(NULL::n, E'\n\n'::text, 'ndjson');

CREATE FUNCTION said(payload text, options jsonb DEFAULT '{}', OUT code text, OUT message text, OUT detail text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM ingest.decode(NULL::n, payload, 'ndjson', options);
    message := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
SELECT p AS payload, (said(p)).* FROM unnest(ARRAY[
    E'{"a": 1}\n{"a": }', E'{"a":\n1}', '[{"a": 1}]', E'{"a": 1}\n{"a": 2} x\n', E'{"a": 1}{"a": 2}', E'{"b": "open\n{"a": 1}', E'1\n', E'{"a": 1}\n{"a": "x"}'
]) AS p;
SELECT (said(E'{"a": 1}\n{"z": [[]]}', '{"max_depth": 2}')).*;
SELECT (said('{"a": 1}', '{"header": true}')).*;
DROP FOREIGN TABLE np;
DROP SERVER s;
DROP FUNCTION said(text, jsonb);
DROP TABLE n;
