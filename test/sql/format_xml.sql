-- The XML format: one element is one row.
\set VERBOSITY terse
SET timezone = 'UTC';
CREATE SERVER s FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers 'localhost:1');
CREATE FOREIGN TABLE x (
    id integer OPTIONS (path '@id'),
    title text,
    updated timestamptz OPTIONS (path 'dates/updated'),
    href text OPTIONS (path 'links/link/@href'),
    lang text OPTIONS (path '@xml:lang'),
    own text OPTIONS (path 'text()'),
    tags text[] OPTIONS (path 'tag'),
    numbers integer[] OPTIONS (path 'n/@v'),
    price numeric(6,2),
    place bigint OPTIONS (metadata 'offset')) SERVER s OPTIONS (topic 't', format 'xml');
\x
SELECT * FROM ingest.decode(NULL::x, '<?xml version="1.0" encoding="ISO-8859-1"?>
<!-- a comment --><item id="7" xml:lang="de">own <title>T &amp; &#228;ö<b> bold</b></title><dates><updated>2026-01-31T12:00:00Z</updated></dates>
<links><link rel="self"/><link href="http://x/?a=1&amp;b=2"/></links><tag>a</tag><tag>b,"c\</tag><tag/><n v="1"/><n v=""/><n/><n v=" 3 "/><price> 12.5 </price>text</item>'::text, 'xml');
-- Missing, empty, nil.
SELECT * FROM ingest.decode(NULL::x, '<item/>'::text, 'xml');
SELECT * FROM ingest.decode(NULL::x, '<item id=""><title/><dates/><price/></item>'::text, 'xml');
SELECT title, price FROM ingest.decode(NULL::x, '<item xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><title xsi:nil="true"/><price xsi:nil="1">5</price></item>'::text, 'xml');
\x
-- Prefixes: none in the path stands for any, if there is none without; one is that one.
CREATE FOREIGN TABLE xp (title text, m text OPTIONS (path 'm:title'), b text OPTIONS (path 'a/b')) SERVER s OPTIONS (topic 't', format 'xml');
SELECT * FROM ingest.decode(NULL::xp, '<i xmlns="urn:i" xmlns:m="urn:m"><m:title>media</m:title><title>plain</title><a/><a><c/><b>1</b></a><a><b>2</b></a></i>'::text, 'xml');
SELECT * FROM ingest.decode(NULL::xp, '<f:i xmlns:f="urn:f"><f:title>any</f:title></f:i>'::text, 'xml');
SELECT * FROM ingest.decode(NULL::xp, '<i><m:title>undeclared</m:title></i>'::text, 'xml');
-- Markup.
CREATE FOREIGN TABLE xx (content xml, whole xml OPTIONS (path '.'), as_text text OPTIONS (path '.'), ps xml[] OPTIONS (path 'content/p'), own xml OPTIONS (path 'content/text()')) SERVER s OPTIONS (topic 't', format 'xml');
\x
SELECT * FROM ingest.decode(NULL::xx, '<i xmlns:m="urn:m"><content a="1">1 &lt; 2<p>hi <m:b>x</m:b></p><![CDATA[<raw>]]><p/></content></i>'::text, 'xml');
\x
-- Strictness; the library's words differ by its version.
CREATE FUNCTION said(payload bytea, options jsonb DEFAULT '{}', OUT code text, OUT message text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM ingest.decode(NULL::x, payload, 'xml', options);
    message := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    message := regexp_replace(message, 'invalid XML: .*', 'invalid XML: ...');
END $$;
SELECT p AS payload, (said(convert_to(p, 'UTF8'))).* FROM unnest(ARRAY[
    '', ' ', 'x', '{"a": 1}', '<i', '<i>', '</i>', '<i><b></i>', '<i/><i/>', '<i/>x', '<i a="1" a="2"/>', '<i a=1/>', '<i a="<"/>', '<i>&nbsp;</i>', '<i>]]></i>',
    '<i>&#0;</i>', '<i>&#xD800;</i>', '<i>' || chr(1) || '</i>', '<i id="x"/>', '<i id="2147483648"/>', '<i><price>12345</price></i>', ' <i/> ', '<i xmlns:x="x"><y:a/></i>',
    '<!DOCTYPE i><i/>', '<!DOCTYPE i SYSTEM "file:///etc/passwd"><i/>', '<!DOCTYPE html><html></html>'
]) AS p;
SELECT (said('\xefbbbf'::bytea || '<i/>'::bytea)).*;
SELECT (said('<i>'::bytea || '\xff'::bytea || '</i>'::bytea)).*;
SELECT (said('\xfffe3c0069002f003e00'::bytea)).*;
-- Entities neither read files nor multiply.
SELECT (said('<!DOCTYPE i [<!ENTITY x SYSTEM "file:///etc/passwd">]><i><title>&x;</title></i>')).*;
SELECT (said('<!DOCTYPE i [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]><i><title>&c;</title></i>')).*;
-- What is bounded: depth, attributes, namespaces, nodes; but not the length of a text.
SELECT (said(convert_to(repeat('<i>', 64) || repeat('</i>', 64), 'UTF8'))).*;
SELECT (said(convert_to(repeat('<i>', 65) || repeat('</i>', 65), 'UTF8'))).*;
SELECT (said(convert_to(repeat('<i>', 1000) || repeat('</i>', 1000), 'UTF8'), '{"max_depth": 1000}')).*;
SELECT (said(convert_to(repeat('<i>', 1000000), 'UTF8'), '{"max_depth": 1000}')).*;
SELECT (said('<i/>', '{"max_depth": 1001}')).*;
SELECT (said(convert_to('<i ' || string_agg('a' || i || '=""', ' ') || '/>', 'UTF8'))).* FROM generate_series(1, 1000) AS i;
SELECT (said(convert_to('<i ' || string_agg('a' || i || '=""', ' ') || '/>', 'UTF8'))).* FROM generate_series(1, 1001) AS i;
SELECT (said(convert_to('<i><j ' || string_agg('xmlns:a' || i || '="a"', ' ') || '><k xmlns:b="b"/></j></i>', 'UTF8'))).* FROM generate_series(1, 1000) AS i;
SELECT (said(convert_to('<i>' || repeat('<a/>', 1000000) || '</i>', 'UTF8'))).*;
SELECT length(title) FROM ingest.decode(NULL::x, '<i><title>' || repeat('0123456789', 1500000) || '</title></i>'::text, 'xml');

-- Paths.
CREATE FUNCTION path_said(path text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
BEGIN
    EXECUTE format('ALTER FOREIGN TABLE xp ALTER title OPTIONS (%s path %L)',
                   (SELECT CASE WHEN count(*) = 0 THEN 'ADD' ELSE 'SET' END FROM pg_attribute WHERE attrelid = 'xp'::regclass AND attname = 'title' AND attfdwoptions IS NOT NULL), path);
    PERFORM * FROM ingest.decode(NULL::xp, '<i/>'::text, 'xml');
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN message || ' (' || detail || ')';
END $$;
SELECT p AS path, path_said(p) FROM unnest(ARRAY['a', 'a/b/c', '@a', 'a/@x:b', 'a/text()', '.', '', '/', 'a/', '/a', 'a//b', '@', '@a/b', 'a/@', 'text()/a', '$.a', 'a[1]', '*', 'x:', ':x', 'x:y:z', '..', 'ä/ö']) AS p;
DROP FOREIGN TABLE x, xp, xx;
DROP SERVER s;
DROP FUNCTION said(bytea, jsonb), path_said(text);
