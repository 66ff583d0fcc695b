# Updates of the extension: each way from an older version leads to the same
# objects as an installation of the new one.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;

my $node = start_node('update', preload => 0);

# All there is to know of the extension's objects; names instead of numbers.
my $objects = <<'SQL';
SET search_path = pg_catalog;
CREATE TEMP VIEW member AS
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'ingest';
CREATE TEMP VIEW relation AS
    SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid;
SELECT concat_ws(' ', 'object', pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name))
  FROM member
UNION ALL
SELECT concat_ws(' ', 'function', pg_get_functiondef(p.oid), p.proacl)
  FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
UNION ALL
SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relpersistence, reloptions, relacl) FROM relation
UNION ALL
SELECT concat_ws(' ', 'view', oid::regclass, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
UNION ALL
SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl, col_description(a.attrelid, a.attnum))
  FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
UNION ALL
SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(o.oid))
  FROM pg_constraint o JOIN relation c ON c.oid = o.conrelid
UNION ALL
SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid)) FROM pg_index i JOIN relation c ON c.oid = i.indrelid
UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid))
  FROM pg_trigger t JOIN relation c ON c.oid = t.tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT concat_ws(' ', 'dumped', config.oid::regclass, config.condition)
  FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS config (oid, condition) WHERE e.extname = 'ingest'
UNION ALL
SELECT concat_ws(' ', 'schema', nspname, nspacl) FROM pg_namespace WHERE nspname = 'ingest'
ORDER BY 1
SQL

sub objects { return [ split /\n/, $node->safe_psql($_[0], $objects) ] }

my $fresh = objects('postgres');
foreach my $kind (qw(object function relation view column constraint index dumped schema))
{
	cmp_ok(scalar(grep { /^$kind / } @$fresh), '>', 0, "objects of kind $kind are compared");
}

# A difference is seen.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION ingest');
is_deeply(objects('other'), $fresh, 'two installations are alike');
$node->safe_psql('other', 'GRANT SELECT ON ingest._state TO PUBLIC');
is(scalar(grep { my $line = $_; !grep { $_ eq $line } @$fresh } @{ objects('other') }), 1, 'another privilege is not');

# The versions that have a script of their own: the current one, and what was released before.
my $current = value($node, "SELECT default_version FROM pg_available_extensions WHERE name = 'ingest'");
my @deltas = map { m{/ingest--(.+)--(.+)\.sql$} ? [ $1, $2 ] : () } glob 'sql/ingest--*--*.sql';
my @older = grep { $_ ne $current } map { m{/ingest--((?:(?!--).)+)\.sql$} ? $1 : () } glob 'sql/ingest--*.sql';
is(value($node, "SELECT string_agg(version, ' ' ORDER BY version) FROM pg_available_extension_versions WHERE name = 'ingest'
		AND version IN ('" . join("','", $current, @older) . "')"),
	join(' ', sort $current, @older), 'all versions that were released can be installed');
foreach my $delta (@deltas)
{
	ok((grep { $_ eq $delta->[0] } @older, map { $_->[1] } @deltas), "from $delta->[0] to $delta->[1]: its begin is known");
}
foreach my $from (@older)
{
	my $name = "from $from to $current";
	$node->safe_psql('postgres', 'CREATE DATABASE older');
	$node->safe_psql('older', "CREATE EXTENSION ingest VERSION '$from'; ALTER EXTENSION ingest UPDATE TO '$current'");
	is($node->safe_psql('older', "SELECT extversion FROM pg_extension WHERE extname = 'ingest'"), $current, "$name: updated");
	is_deeply(objects('older'), $fresh, "$name: as if installed");
	$node->safe_psql('postgres', 'DROP DATABASE older');
}

$node->stop;
done_testing();
