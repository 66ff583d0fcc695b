# ingest: a PostgreSQL extension.  make && make install && make installcheck

EXTENSION  = ingest
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(srcdir_of_this)/ingest.control)
srcdir_of_this := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

MODULE_big = ingest
OBJS = $(patsubst $(srcdir_of_this)/%.c,%.o,$(sort $(wildcard $(srcdir_of_this)/src/*.c $(srcdir_of_this)/src/*/*.c)))

# The install script is the topics of sql/ in order; deltas are written by hand,
# and those of released versions are kept.
SQL_TOPICS = $(sort $(wildcard $(srcdir_of_this)/sql/[0-9]*.sql))
DATA_built = ingest--$(EXTVERSION).sql
DATA = $(wildcard $(srcdir_of_this)/sql/ingest--*.sql)

REGRESS = $(patsubst $(srcdir_of_this)/test/sql/%.sql,%,$(sort $(wildcard $(srcdir_of_this)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir_of_this)/test --load-extension=ingest
ISOLATION = $(patsubst $(srcdir_of_this)/test/specs/%.spec,%,$(sort $(wildcard $(srcdir_of_this)/test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir_of_this)/test --load-extension=ingest

LIBRARIES = rdkafka libcurl libcrypto libxml-2.0

# FAULTS=1 compiles the fault points in (core/fault.h).
PG_CPPFLAGS = $(if $(FAULTS),-DINGEST_FAULTS) -DINGEST_VERSION='"$(EXTVERSION)"' -I$(srcdir_of_this)/src $(shell pkg-config --cflags $(LIBRARIES))
# Before 16 the server's headers export nothing by themselves.
PG_CFLAGS = -std=gnu11 -DPGDLLEXPORT='__attribute__((visibility("default")))' -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -fvisibility=hidden $(if $(WERROR),-Werror)
SHLIB_LINK = $(shell pkg-config --libs $(LIBRARIES))

EXTRA_CLEAN = ingest--*.sql log results tmp_check output_iso

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

ingest--$(EXTVERSION).sql: $(SQL_TOPICS) $(srcdir_of_this)/ingest.control
	cat $(SQL_TOPICS) > $@

# Objects depend on every header: the tree is small, a stale object is dear.
$(OBJS): $(wildcard $(srcdir_of_this)/src/*/*.h)
