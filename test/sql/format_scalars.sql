-- F16: each direct reader agrees with its type's input function: the same value, or
-- an error from both.  Random and hostile texts, the same ones every time.
SET timezone = 'Europe/Berlin';
SET datestyle = 'ISO, DMY';
SELECT setseed(0.42);
CREATE TABLE alphabet (type text, chars text, seeds text[]);
INSERT INTO alphabet VALUES
    ('boolean', 'truefalsyn01 onTRUE', ARRAY['true', 'f', ' yes ', 'off', 'o', '', 'tr ue']),
    ('smallint', '0123456789+- ', ARRAY['32767', '32768', '-32768', '-32769', '+1', ' 7 ', '0x1f', '1_000', '', '-', '000']),
    ('integer', '0123456789+- ', ARRAY['2147483647', '2147483648', '-2147483648', '-2147483649', '1.0', '1e3', E'\t9\n']),
    ('bigint', '0123456789+- ', ARRAY['9223372036854775807', '9223372036854775808', '-9223372036854775808', '-9223372036854775809', '99999999999999999999999']),
    ('real', '0123456789+-.eE ', ARRAY['3.4028235e38', '3.5e38', '1e-45', '1e-46', '1e-50', 'NaN', 'inf', '-Infinity', ' 1 ', '0x1p3', '.5', '5.', '', '16777217']),
    ('double precision', '0123456789+-.eE ', ARRAY['1.7976931348623157e308', '1.8e308', '5e-324', '1e-325', 'nan', '+inf', '9007199254740993', '0.1', '123456789012345.6', '-0', '-.5', '.', '1e22', '1e23', '0.000000000000000000000001']),
    ('numeric', '0123456789+-.eE ', ARRAY['NaN', 'Infinity', '1e1000', '1e-1000', '1e200000', '.', '1_0', '0.0000000000000000000001', '  5  ']),
    ('numeric(6,2)', '0123456789+-. ', ARRAY['9999.99', '9999.994', '9999.995', '-9999.995', '10000', '1e4', 'NaN', 'inf', '0.005']),
    ('text', 'aä😀 "''\{}', ARRAY['', ' ']),
    ('varchar(3)', 'aä😀 ', ARRAY['', 'abc', 'abcd', 'abc   ', '   ', 'äöü', 'äöüß']),
    ('char(3)', 'aä😀 ', ARRAY['', 'abc', 'abcd', 'abc   ', 'ä', 'äöüß']),
    ('date', '0123456789-/. ', ARRAY['2026-01-31', '2026-02-29', '2024-02-29', '31/12/2025', '12.31.2025', 'today', 'infinity', '-infinity', 'epoch', '0001-01-01', '4714-11-24 BC', '4715-01-01 BC', '5874897-12-31', '5874898-01-01', '2026-13-01', '20260131', '2026-01-31 12:00', 'J2451187', '']),
    ('timestamp', '0123456789-:. T', ARRAY['2026-01-31 12:34:56', '2026-01-31T12:34:56.789', '2026-01-31 12:34:56.1234567', '2026-01-31 24:00:00', '2026-01-31 23:59:60', '2026-01-31 12:60', '2026-01-31 12', '2026-01-31T12:34:56Z', '2026-01-31T12:34:56+02', 'infinity', '294276-12-31', '294277-01-01', '2026-01-31 12:34 PM', 'now and then']),
    ('timestamp(2)', '0123456789-:. T', ARRAY['2026-01-31 12:34:56.789', '2026-01-31 12:34:56.995', '2026-12-31T23:59:59.999']),
    ('timestamptz', '0123456789-:.+TZ', ARRAY['2026-01-31 12:34:56Z', '2026-07-31T12:34:56', '2026-01-31T12:34:56.789+02', '2026-01-31T12:34:56.789+0530', '2026-01-31T12:34:56.789-05:30', '2026-01-31T12:34:56+16', '2026-01-31T12:34:56+15:59', '2026-01-31T12:34:56 America/New_York', '2026-03-29 02:30:00', '2026-10-25 02:30:00', '2026-01-31 12:34:56z', '2026-01-31 12:34+1', '2026-01-31T12:34:56.+01', '0999-01-01 00:00Z', '-infinity', '2026-01-31 12:34:56 EST', '2026-01-31 12:34:56 XYZ', '9999-12-31T23:59:59.999999Z', '294276-12-31 23:59:59Z', '294277-01-01Z', 'Sat Jan 31 12:34:56 2026']),
    ('timestamptz(0)', '0123456789-:.+TZ', ARRAY['2026-01-31 12:34:56.5Z', '2026-01-31 12:34:57.5Z', '2026-01-31T12:34:56.499999+02']),
    ('uuid', '0123456789abcdefABCDEF-{}', ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}', 'A0EEBC999C0B4EF8BB6D6BB9BD380A11', 'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11', '']);

-- A text made from the type's characters, or a seed with a few bytes changed.
CREATE FUNCTION make_text(a alphabet) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    result text := '';
    at integer;
BEGIN
    IF random() < 0.4 THEN
        FOR i IN 1 .. (random() * 12)::integer LOOP
            result := result || substr(a.chars, 1 + (random() * (length(a.chars) - 1))::integer, 1);
        END LOOP;
        RETURN result;
    END IF;
    result := a.seeds[1 + (random() * (array_length(a.seeds, 1) - 1))::integer];
    FOR i IN 1 .. (random() * 2)::integer LOOP
        at := 1 + (random() * length(result))::integer;
        result := overlay(result PLACING substr(a.chars, 1 + (random() * (length(a.chars) - 1))::integer, 1)
                          FROM at FOR (random() * 2)::integer);
    END LOOP;
    RETURN result;
END $$;

CREATE FUNCTION compare(a alphabet, rounds integer) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    input text;
    expected text;
    got text;
    differences integer := 0;
    good integer := 0;
    bad integer := 0;
    first text;
BEGIN
    EXECUTE format('CREATE TEMP TABLE one (v %s)', a.type);
    FOR i IN 1 .. rounds LOOP
        input := CASE WHEN i <= array_length(a.seeds, 1) THEN a.seeds[i] ELSE make_text(a) END;
        BEGIN
            -- As COPY would read it: through the input function with the type's modifier.
            EXECUTE format('SELECT (json_populate_record(NULL::one, json_build_object(''v'', $1))).v::text')
               INTO expected USING input;
            good := good + 1;
        EXCEPTION WHEN data_exception THEN
            expected := 'an error';
            bad := bad + 1;
        END;
        BEGIN
            EXECUTE 'SELECT d.v::text FROM ingest.decode(NULL::one, json_build_object(''v'', $1)::text) AS d'
               INTO got USING input;
        EXCEPTION WHEN data_exception THEN
            got := 'an error';
        END;
        IF got IS DISTINCT FROM expected THEN
            differences := differences + 1;
            first := coalesce(first, format('%L: %s instead of %s', input, got, expected));
        END IF;
    END LOOP;
    DROP TABLE one;
    IF good < 5 OR bad < 5 AND a.type <> 'text' THEN
        RETURN format('too few cases: %s good, %s bad', good, bad);
    END IF;
    RETURN CASE WHEN differences = 0 THEN 'agrees' ELSE format('%s differences, first %s', differences, first) END;
END $$;

SELECT type, compare(alphabet, 5000) FROM alphabet;
DROP TABLE alphabet CASCADE;
