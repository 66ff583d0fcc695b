-- What there is to set, and that each has its explanation.
SELECT name, type, default_value, min, max, allowed FROM ingest.option_help
WHERE component = 'pipeline' ORDER BY name;

SELECT component, name FROM ingest.option_help WHERE help = '' OR help IS NULL;

-- A secret belongs into a user mapping, and only there.
SELECT component, scope, name FROM ingest.option_help WHERE secret AND scope <> 'user mapping';
SELECT component, name FROM ingest.option_help WHERE secret ORDER BY 1, 2;

-- What the tables say themselves is accepted by their own checks.
SELECT DISTINCT component FROM ingest.option_help ORDER BY 1;
SELECT DISTINCT source FROM ingest.metadata_help ORDER BY 1;
SELECT name, type FROM ingest.metadata_help WHERE source = 'kafka' ORDER BY name;
