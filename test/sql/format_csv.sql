-- CSV with a header.
CREATE TABLE c (a integer, b text);
CREATE SERVER s FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers 'localhost:1');
CREATE FOREIGN TABLE cp (
    id integer OPTIONS (path 'Id'),
    name text,
    again text OPTIONS (path 'name'),
    missing text,
    at bigint OPTIONS (metadata 'offset')) SERVER s OPTIONS (topic 't', format 'csv', header 'true');
-- By name, in any order; unknown ones are passed over, missing ones are NULL, of repeated ones the first counts.
SELECT * FROM ingest.decode(NULL::cp, E'other,name,Id,name\n1,"x,\ny",2,z\r\n\n3,,4,""\n'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'"b","a"\nx,1'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'b\ta\nx\t1'::text, 'csv', '{"header": true, "delimiter": "\t"}');
-- A byte order mark.
SELECT * FROM ingest.decode(NULL::c, '\xefbbbf'::bytea || E'a,b\n1,x'::bytea, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, '\xefbbbf'::bytea || E'1,x'::bytea, 'csv');
-- A header alone has no rows, and no message has neither.
SELECT * FROM ingest.decode(NULL::c, E'a,b\n'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, ''::text, 'csv', '{"header": true}');
-- What is wrong.
SELECT * FROM ingest.decode(NULL::c, E'x,y\n1,2'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'A,B\n1,2'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, '<!DOCTYPE html>'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'a,b,c\n1,2,3\n1,2'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'b,a\n1,x'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'a,b\n1,"x'::text, 'csv', '{"header": true}');
SELECT * FROM ingest.decode(NULL::c, E'a,b\n1,2'::text, 'csv', '{"header": "perhaps"}');
DROP FOREIGN TABLE cp;
DROP SERVER s;
DROP TABLE c;
