# dbpool: pools of connections to foreign databases, kept inside PostgreSQL.
#
#   make; make install        PG_CONFIG= picks the server
#   make check-all            everything that scripts/test does; no server needed
#
#   make installcheck         the tests against your own running server: it has
#       dbpool installed and in shared_preload_libraries, PGHOST and PGPORT point
#       at it. DBPOOL_REMOTE_HOST and DBPOOL_REMOTE_PORT point at a second server
#       without a password, where you are superuser and which has a UTF8 database
#       "remote". psql scripts get those two by \getenv, isolation specs by
#       current_setting('dbpool_test.remote'). installcheck-regress,
#       installcheck-isolation and installcheck-tap run one kind alone, and
#       REGRESS=, ISOLATION=, PROVE_TESTS= some of it.
#
#   make lint format format-check typedefs
#   make check-valgrind       the SQL tests with the server under memcheck
#   make check-assert         on a PostgreSQL with assertions, ASSERT_PG= or built
#   make check-exec-backend   the same, each process having the program run anew
#   make stress               many sessions at random for ten minutes, STRESS_SECONDS=
#   make stress-valgrind      fewer of them, with the local server under memcheck
#   make bank                 transfers over three servers, and a killer, for twenty minutes
#   make bank-matrix          each victim at each step of the commit, BANK_MATRIX= times
#   make chaos                a fault each second under 64 sessions, for ten minutes, CHAOS_SECONDS=
#   make soak                 64 sessions for two hours: memory stays as it is, SOAK_SECONDS=
#   make fault-sweep          each call of the worker that may fail fails once
#   make check-versions       on other versions of PostgreSQL; as root
#   make check-remotes        with remotes of PostgreSQL 14, 16 and 18, REMOTES=
#   make check-cluster        failover by Patroni and pg_auto_failover under load, CLUSTER_RUNS= times
#
#   make dist                 a tarball of what is committed, which builds offline
#   make package              Debian packages, and whether they install; as root
#
#   make bench                side by side with dblink and others; half an hour
#   make bench-quick          the same in two minutes

EXTENSION = dbpool
MODULE_big = dbpool
# The version that is being worked on is made of sql/dbpool.sql; those that were released
# are kept, as is the way from each to the next.
DATA = $(filter-out $(DATA_built),$(wildcard sql/dbpool--*.sql))
DATA_built = sql/dbpool--$(EXTVERSION).sql
PGFILEDESC = "dbpool - pools of connections to foreign databases"

EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" dbpool.control)

SOURCES = $(wildcard src/*.c src/*/*.c)
SOURCE_HEADERS = $(wildcard src/*.h src/*/*.h)
OBJS = $(SOURCES:.c=.o)

PG_CPPFLAGS = -I$(srcdir)/src -I$(libpq_srcdir) -DDBPOOL_VERSION='"$(EXTVERSION)"' $(if $(FAULTS),-DDBPOOL_FAULTS)
# PostgreSQL's own headers do not pass -Wextra: unused parameters and signed
# comparisons in inline functions, and its initialisers leave fields out.
PG_CFLAGS = -Wall -Wextra $(if $(WERROR),-Werror) -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-clobbered
SHLIB_LINK = $(libpq) -lpthread

EXTRA_CLEAN = sql/dbpool--$(EXTVERSION).sql test/stress/stress $(WIRE) $(HISTOGRAM) $(BREAKER) $(DIGEST) $(PROXY) META.json dbpool-$(EXTVERSION).tar.gz

# No bitcode: nothing here is worth inlining into a query, and it needs clang.
override with_llvm = no

# Both kinds have their expected output in expected/, so no test may have the
# name of a spec. Isolation tests look for it below their output folder.
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=.
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(SOURCE_HEADERS)
src/backend/extension.o: dbpool.control

sql/dbpool--$(EXTVERSION).sql: sql/dbpool.sql dbpool.control
	cp $< $@

# The sessions of the stress test.
STRESS = test/stress/stress
STRESS_SOURCES = $(wildcard test/stress/*.c)

$(STRESS): $(STRESS_SOURCES) $(wildcard test/stress/*.h)
	$(CC) $(CFLAGS) -D_GNU_SOURCE -I$(includedir) -o $@ $(STRESS_SOURCES) \
		-L$(libdir) -Wl,-rpath,$(libdir) -lpq

# Streams of messages against src/pq/wire.c alone.
WIRE = test/wire/wire

$(WIRE): test/wire/wire.c src/pq/wire.c src/pq/wire.h
	$(CC) $(CFLAGS) $(CPPFLAGS) -o $@ test/wire/wire.c

# Values against src/ipc/histogram.c alone.
HISTOGRAM = test/histogram/histogram

$(HISTOGRAM): test/histogram/histogram.c src/ipc/histogram.c src/ipc/histogram.h
	$(CC) $(CFLAGS) $(CPPFLAGS) -o $@ test/histogram/histogram.c -lm

# What happens to a remote against src/ipc/endpoint.c alone.
BREAKER = test/breaker/breaker

$(BREAKER): test/breaker/breaker.c src/ipc/endpoint.c src/ipc/histogram.c $(wildcard src/ipc/*.h)
	$(CC) $(CFLAGS) $(CPPFLAGS) -o $@ test/breaker/breaker.c -L$(pkglibdir) -L$(libdir) -lpgcommon -lpgport -lm

# Texts against src/backend/digest.c alone; its library is the one for programs.
DIGEST = test/digest/digest

$(DIGEST): test/digest/digest.c $(wildcard src/backend/digest*.[ch])
	$(CC) $(CFLAGS) $(CPPFLAGS) -o $@ test/digest/digest.c -L$(pkglibdir) -L$(libdir) -lpgcommon -lpgport

# Faults between a worker and its remote; scripts/bench has it, too.
PROXY = test/tools/proxy
PROXY_SOURCES = $(wildcard test/tools/proxy*.c)

$(PROXY): $(PROXY_SOURCES) test/tools/proxy.h
	$(CC) $(CFLAGS) -o $@ $(PROXY_SOURCES)

installcheck: need-remote $(STRESS) $(WIRE) $(HISTOGRAM) $(BREAKER) $(DIGEST) $(PROXY)

# --- development --------------------------------------------------------------

# Isolation specs have no \getenv.
ifdef DBPOOL_REMOTE_HOST
export PGOPTIONS := $(PGOPTIONS) -c dbpool_test.remote=postgresql:///remote?host=$(DBPOOL_REMOTE_HOST)&port=$(DBPOOL_REMOTE_PORT)
endif

# Without the second server nearly every test would fail, each for its own reason.
.PHONY: need-remote
need-remote:
	@[ -n "$(DBPOOL_REMOTE_HOST)" ] || { echo "installcheck needs a second server: set DBPOOL_REMOTE_HOST and DBPOOL_REMOTE_PORT, see the head of the Makefile; scripts/test needs none"; exit 1; } >&2
	@$(bindir)/psql -XAtq -h "$(DBPOOL_REMOTE_HOST)" $(if $(DBPOOL_REMOTE_PORT),-p $(DBPOOL_REMOTE_PORT)) -d remote -c 'SELECT' >/dev/null || \
		{ echo "installcheck cannot reach the database \"remote\" of the server that DBPOOL_REMOTE_HOST and DBPOOL_REMOTE_PORT name"; exit 1; } >&2

.PHONY: installcheck-regress installcheck-isolation installcheck-tap
installcheck-regress installcheck-isolation: need-remote
installcheck-regress:
	$(pg_regress_installcheck) $(REGRESS_OPTS) $(REGRESS)
installcheck-isolation:
	$(pg_isolation_regress_installcheck) $(ISOLATION_OPTS) $(ISOLATION)
installcheck-tap: $(STRESS) $(WIRE) $(HISTOGRAM) $(BREAKER) $(DIGEST) $(PROXY)
	$(prove_installcheck)

.PHONY: check-all lint format format-check typedefs
check-all:
	scripts/test
lint:
	scripts/lint
format:
	scripts/format
format-check:
	scripts/format --check
typedefs: all
	scripts/typedefs

.PHONY: stress stress-valgrind
stress: export STRESS_SECONDS ?= 600
stress:
	scripts/test --only tap 120_stress
stress-valgrind: export STRESS_SECONDS ?= 300
stress-valgrind: export STRESS_VALGRIND = 1
stress-valgrind:
	scripts/test --only tap 120_stress

.PHONY: bank bank-matrix
bank bank-matrix: export TAP_FLAGS ?= --comments
bank: export BANK_SECONDS ?= 1200
bank:
	scripts/test --only tap 177_bank
bank: export STAGE_TIMEOUT ?= 7200
bank-matrix: export BANK_MATRIX ?= 10
bank-matrix: export STAGE_TIMEOUT ?= 36000
bank-matrix:
	scripts/test --only tap 177_bank

.PHONY: chaos soak
chaos soak: export TAP_FLAGS ?= --comments
chaos: export CHAOS_SECONDS ?= 600
chaos: export STAGE_TIMEOUT ?= 3600
chaos:
	scripts/test --only tap 191_chaos
soak: export SOAK_SECONDS ?= 7200
soak: export STAGE_TIMEOUT ?= 14400
soak:
	scripts/test --only tap 192_soak

.PHONY: fault-sweep
fault-sweep: export FAULT_SWEEP ?= long
fault-sweep: export STAGE_TIMEOUT ?= 7200
fault-sweep:
	scripts/test --only tap 112_faults

.PHONY: check-valgrind check-assert check-exec-backend check-versions check-remotes check-cluster
check-valgrind:
	scripts/test --valgrind
check-assert:
	scripts/assert $(ASSERT_PG)
check-exec-backend:
	scripts/assert --exec-backend $(ASSERT_PG)
check-versions:
	scripts/versions $(VERSIONS)
check-remotes:
	scripts/test --only remotes $(REMOTES)
check-cluster:
	test/cluster/run all $(CLUSTER_RUNS)

# The version is in dbpool.control alone; whether it is released says CHANGELOG.md.
META.json: META.json.in dbpool.control CHANGELOG.md
	sed "s/@VERSION@/$(EXTVERSION)/; s/@STATUS@/$$(grep -q '^## $(EXTVERSION) (unreleased)' CHANGELOG.md && echo unstable || echo stable)/" $< >$@

.PHONY: dist package
dist: META.json
	scripts/check-meta META.json
	git archive --prefix=dbpool-$(EXTVERSION)/ --add-file=META.json -o dbpool-$(EXTVERSION).tar.gz HEAD
package:
	scripts/package $(SUITES)

.PHONY: bench bench-quick
bench:
	scripts/bench
bench-quick:
	scripts/bench --quick
