-- Every object of the extension, and every column of its views, says what it is.
SELECT pg_describe_object(d.classid, d.objid, 0) AS uncommented
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'ingest')
  AND d.deptype = 'e'
  AND NOT EXISTS (SELECT FROM pg_class WHERE d.classid = 'pg_class'::regclass AND oid = d.objid AND relkind = 'S')
  AND NOT EXISTS (SELECT FROM pg_type WHERE d.classid = 'pg_type'::regclass AND oid = d.objid
                  AND (typrelid <> 0 OR typelem <> 0))
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
ORDER BY 1;

SELECT a.attrelid::regclass AS view, a.attname AS uncommented
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'ingest'::regnamespace AND c.relkind = 'v'
  AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL
ORDER BY 1, a.attnum;

-- Everything in the schema belongs to the extension, and the other way round.
SELECT c.oid::regclass AS stray FROM pg_class c
WHERE c.relnamespace = 'ingest'::regnamespace AND c.relkind IN ('r', 'v', 'S')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');

-- Views do not leak through functions of the reader.
SELECT c.oid::regclass AS leaky FROM pg_class c
WHERE c.relnamespace = 'ingest'::regnamespace AND c.relkind = 'v'
  AND c.relname NOT IN ('option_help', 'metadata_help')
  AND NOT coalesce(c.reloptions @> '{security_barrier=true}', false);

-- Nothing runs with other rights than the caller's, no more than eight arguments.
SELECT p.oid::regprocedure AS definer FROM pg_proc p
WHERE p.pronamespace = 'ingest'::regnamespace AND (p.prosecdef OR p.pronargs > 8);

-- All catalogs are dumped, but that of secrets.
SELECT c.oid::regclass AS not_dumped FROM pg_class c
WHERE c.relnamespace = 'ingest'::regnamespace AND c.relkind IN ('r', 'S')
  AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'ingest' AND c.oid = ANY (e.extconfig))
ORDER BY 1;

-- The surface.
SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ')' AS function
FROM pg_proc p
WHERE p.pronamespace = 'ingest'::regnamespace AND p.proname !~ '^_'
ORDER BY 1;
