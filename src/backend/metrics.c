/*
 * metrics.c
 *	  dbpool_metrics(): all that is counted, as a text that Prometheus reads.
 *
 * The text is that of OpenMetrics: families, each with its samples, and "# EOF".  There is one
 * thing on which that and the older format of Prometheus do not agree: a counter's samples
 * end in "_total", and the family's name does so in the older one only, to which Prometheus'
 * own checks keep.  Prometheus itself takes both.
 *
 * What belongs to a pool is shown to those who may see the pool.
 */
#include "postgres.h"

#include "access/transam.h"
#include "backend/client.h"
#include "backend/extension.h"
#include "backend/metrics.h"
#include "backend/text.h"
#include "backend/view_row.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "ipc/lease.h"
#include "ipc/request.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(dbpool_metrics);

/* Room for the samples of a pool, about. */
#define POOL_BYTES	16384

/* A pool: its entries, one after the other, and the labels that tell which it is. */
typedef struct MetricPool
{
	const PoolShared *entries;
	int			n;
	char	   *labels;
} MetricPool;

typedef enum FieldType
{
	FIELD_COUNT = 0,			/* uint64 */
	FIELD_US,					/* the same, shown in seconds */
	FIELD_INT
} FieldType;

/* A number that each entry of a pool has, and whose sum is the pool's. */
typedef struct PoolField
{
	const char *family;
	MetricType	type;
	const char *unit;
	const char *help;
	size_t		offset;
	FieldType	field;
} PoolField;

#define COUNTED(family, unit, help, name, field) \
	{family, METRIC_COUNTER, unit, help, offsetof(PoolShared, counters.name), field}

static const PoolField pool_fields[] = {
	COUNTED("dbpool_pool_statements", NULL, "Calls that ended well.", statements, FIELD_COUNT),
	COUNTED("dbpool_pool_errors", NULL, "Calls that had got a connection and ended with an error.", errors, FIELD_COUNT),
	COUNTED("dbpool_pool_timeouts", NULL, "Calls that waited for a connection as long as acquire_timeout allows.", timeouts, FIELD_COUNT),
	COUNTED("dbpool_pool_cancels", NULL, "Calls given up by their sessions.", cancels, FIELD_COUNT),
	COUNTED("dbpool_pool_repeats", NULL, "Statements that were sent again, unseen by their sessions.", repeats, FIELD_COUNT),
	COUNTED("dbpool_pool_retries", NULL, "Statements that were tried again after a loss or a conflict.", retries, FIELD_COUNT),
	COUNTED("dbpool_pool_retries_refused", NULL, "Those that were not, as too much had failed of late.", retries_refused, FIELD_COUNT),
	COUNTED("dbpool_pool_hedged", NULL, "Reads that were sent to another host as well.", hedged, FIELD_COUNT),
	COUNTED("dbpool_pool_hedge_wins", NULL, "Of these, those that the other host answered first.", hedge_wins, FIELD_COUNT),
	COUNTED("dbpool_pool_refused", NULL, "Calls that came while max_waiting others waited.", refused, FIELD_COUNT),
	COUNTED("dbpool_pool_shed", NULL, "Calls that were turned away while they waited, as the pool was overloaded.", shed, FIELD_COUNT),
	COUNTED("dbpool_pool_fallbacks", NULL, "Calls that were run on fallback_server.", fallbacks, FIELD_COUNT),
	COUNTED("dbpool_pool_unserved", NULL, "Calls that ended without having got a connection.", unserved, FIELD_COUNT),
	COUNTED("dbpool_pool_connects", NULL, "Connections that were opened.", connects, FIELD_COUNT),
	COUNTED("dbpool_pool_connect_failures", NULL, "Connections that could not be opened.", connect_failures, FIELD_COUNT),
	COUNTED("dbpool_pool_connect_seconds", "seconds", "Time that opening connections took.", connect_us, FIELD_US),
	COUNTED("dbpool_pool_waits", NULL, "Calls that found no free connection.", waited, FIELD_COUNT),
	COUNTED("dbpool_pool_wait_seconds", "seconds", "Time that calls waited for a connection.", wait_us, FIELD_US),
	COUNTED("dbpool_pool_use_seconds", "seconds", "Time that calls had a connection.", exec_us, FIELD_US),
	COUNTED("dbpool_pool_rows", NULL, "Rows that were received.", rows, FIELD_COUNT),
	COUNTED("dbpool_pool_sent_bytes", "bytes", "Bytes of statements, parameters and rows of bulk inserts.", bytes_sent, FIELD_COUNT),
	COUNTED("dbpool_pool_received_bytes", "bytes", "Bytes of rows.", bytes_received, FIELD_COUNT),
	COUNTED("dbpool_pool_transactions_begun", NULL, "Transactions over several calls that were begun.", begun, FIELD_COUNT),
	COUNTED("dbpool_pool_transactions_committed", NULL, "Transactions that were committed.", committed, FIELD_COUNT),
	COUNTED("dbpool_pool_transactions_rolled_back", NULL, "Transactions that were rolled back.", rolled_back, FIELD_COUNT),
	COUNTED("dbpool_pool_transactions_prepared", NULL, "Transactions that were prepared at the remote.", prepared, FIELD_COUNT),
	COUNTED("dbpool_pool_transactions_in_doubt", NULL, "Transactions whose connection was lost between PREPARE and its end.", in_doubt, FIELD_COUNT),
	COUNTED("dbpool_pool_transactions_resolved", NULL, "Prepared transactions that were ended later.", resolved, FIELD_COUNT),
	COUNTED("dbpool_pool_transaction_seconds", "seconds", "Time that transactions had a connection.", transaction_us, FIELD_US),
	{"dbpool_pool_waiting_calls", METRIC_GAUGE, NULL, "Calls that wait for a connection.", offsetof(PoolShared, waiting), FIELD_INT},
};

/* --- pools -------------------------------------------------------------------------------- */

static char *
pool_labels(const PoolShared *pool)
{
	int			encoding = database_encoding(pool->key.dbid);
	char	   *database = get_database_name(pool->key.dbid);
	StringInfoData labels;

	initStringInfo(&labels);
	metrics_label(&labels, "database", database ? database : "");
	metrics_label(&labels, "pool", text_from(NameStr(pool->server), encoding));
	metrics_label(&labels, "user", text_from(NameStr(pool->username), encoding));
	return labels.data;
}

static double
pool_sum(const MetricPool *pool, const PoolField *field)
{
	double		sum = 0;

	for (int i = 0; i < pool->n; i++)
	{
		const char *at = (const char *) &pool->entries[i] + field->offset;

		sum += field->field == FIELD_INT ? *(const int *) at : (double) *(const uint64 *) at;
	}
	return field->field == FIELD_US ? sum / 1e6 : sum;
}

static void
put_connections(Metrics *m, const MetricPool *pools, int n)
{
	metrics_family(m, "dbpool_pool_connections", METRIC_GAUGE, NULL, "Connections of a pool by state.");
	for (int i = 0; i < n; i++)
	{
		for (int state = CONN_CONNECTING; state < CONN_CLOSED; state++)
		{
			double		sum = 0;

			for (int e = 0; e < pools[i].n; e++)
				sum += pools[i].entries[e].conns[state];
			metrics_sample(m, metrics_with_label(pools[i].labels, "state", conn_state_name(state)), sum);
		}
	}
	metrics_family(m, "dbpool_pool_connections_max", METRIC_GAUGE, NULL, "Connections that a pool may have.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, pools[i].labels, latest_entry(pools[i].entries, pools[i].n)->max_size);
	metrics_family(m, "dbpool_pool_connections_min", METRIC_GAUGE, NULL, "Connections of a pool that are kept open.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, pools[i].labels, latest_entry(pools[i].entries, pools[i].n)->min_size);
}

/* How long the call has been waiting that has waited longest. */
static double
oldest_wait(const MetricPool *pool, Ticks now)
{
	Ticks		since = now;

	for (int i = 0; i < pool->n; i++)
	{
		if (pool->entries[i].oldest_wait != 0)
			since = Min(since, pool->entries[i].oldest_wait);
	}
	return (now - since) / 1e6;
}

static double
utilisation(const MetricPool *pool, Ticks now)
{
	int			max_size = latest_entry(pool->entries, pool->n)->max_size;
	double		busy_us = 0;
	int64		length = 1;

	for (int i = 0; i < pool->n; i++)
	{
		PoolShared	copy = pool->entries[i];
		MinutePiece sum;

		minute_busy(copy.counters.minute, shmem_busy_conns(&copy), copy.conns_at, now);
		length = minute_sum(copy.counters.minute, now, &sum);
		busy_us += sum.busy_us;
	}
	return max_size == 0 ? 0 : Min(busy_us / length / max_size, 1.0);
}

static void
put_pool_states(Metrics *m, const MetricPool *pools, int n)
{
	Ticks		now = ticks_now();

	metrics_family(m, "dbpool_pool_oldest_wait_seconds", METRIC_GAUGE, "seconds",
				   "Time that the first of the waiting calls has been waiting.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, pools[i].labels, oldest_wait(&pools[i], now));
	metrics_family(m, "dbpool_pool_utilisation_ratio", METRIC_GAUGE, "ratio",
				   "Part of max_size that was in use in the last minute.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, pools[i].labels, utilisation(&pools[i], now));
	metrics_family(m, "dbpool_pool_paused", METRIC_GAUGE, NULL, "1 while the pool is paused.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, pools[i].labels, latest_entry(pools[i].entries, pools[i].n)->paused != 0);
	metrics_family(m, "dbpool_pool_disabled", METRIC_GAUGE, NULL, "1 while the pool is disabled, drained or isolated.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, pools[i].labels, latest_entry(pools[i].entries, pools[i].n)->disabled != 0);
}

static void
put_histograms(Metrics *m, const MetricPool *pools, int n)
{
	metrics_family(m, "dbpool_pool_duration_seconds", METRIC_HISTOGRAM, "seconds",
				   "How long what calls do took: queue, login, execution, network, total.");
	for (int i = 0; i < n; i++)
	{
		for (int kind = 0; kind < LATENCY_KINDS; kind++)
		{
			HistogramSum sum;

			pools_sum_latency(pools[i].entries, pools[i].n, kind, &sum);
			metrics_histogram(m, metrics_with_label(pools[i].labels, "part", latency_name(kind)), &sum);
		}
	}
}

/* By their labels; of those with the same ones, the last that was used first. */
static int
compare_pools(const void *a, const void *b)
{
	const MetricPool *x = a;
	const MetricPool *y = b;
	int			by_labels = strcmp(x->labels, y->labels);
	Ticks		x_used = latest_entry(x->entries, x->n)->used_at;
	Ticks		y_used = latest_entry(y->entries, y->n)->used_at;

	return by_labels != 0 ? by_labels : x_used > y_used ? -1 : x_used < y_used;
}

/*
 * Those that the caller may see, and their number.  A pool that was renamed has its old name
 * until it is used again, which may be another's meanwhile; but no sample may come twice.
 */
static MetricPool *
metric_pools(int *n)
{
	int			nentries;
	PoolShared *entries = pools_by_key(&nentries);
	MetricPool *pools = palloc(sizeof(MetricPool) * Max(nentries, 1));
	int			named = 0;
	int			same;

	*n = 0;
	for (int i = 0; i < nentries; i += same)
	{
		same = entries_of_pool(&entries[i], nentries - i);
		/* of a pool that was dropped nothing is left to watch */
		if (latest_entry(&entries[i], same)->dropped || !pool_is_shown(&entries[i].key))
			continue;
		pools[named].entries = &entries[i];
		pools[named].n = same;
		pools[named].labels = pool_labels(latest_entry(&entries[i], same));
		named++;
	}
	qsort(pools, named, sizeof(MetricPool), compare_pools);
	for (int i = 0; i < named; i++)
	{
		if (*n == 0 || strcmp(pools[i].labels, pools[*n - 1].labels) != 0)
			pools[(*n)++] = pools[i];
	}
	return pools;
}

/* --- alerts ------------------------------------------------------------------------------- */

static void
put_alert_sample(Metrics *m, const char *labels, AlertKind kind)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, labels);
	metrics_label(&buf, "alert", alert_name(kind));
	metrics_label(&buf, "severity", alert_severity(kind));
	metrics_sample(m, buf.data, 1);
	pfree(buf.data);
}

static void
put_alerts(Metrics *m, const MetricPool *pools, int n)
{
	AlertShared alerts[ALERT_SERVER_KINDS];

	SpinLockAcquire(&dbpool_shared->alerts_mutex);
	memcpy(alerts, dbpool_shared->alerts, sizeof(alerts));
	SpinLockRelease(&dbpool_shared->alerts_mutex);
	metrics_family(m, "dbpool_alert", METRIC_GAUGE, NULL, "1 for each thing that is wrong now, see dbpool_alerts.");
	for (int i = 0; i < ALERT_SERVER_KINDS; i++)
	{
		if (alerts[i].since != 0)
			put_alert_sample(m, "", (AlertKind) (ALERT_POOL_KINDS + i));
	}
	for (int i = 0; i < n; i++)
	{
		for (int kind = 0; kind < ALERT_POOL_KINDS; kind++)
		{
			bool		is = false;

			for (int e = 0; e < pools[i].n; e++)
				is |= pools[i].entries[e].alerts[kind].since != 0;
			if (is)
				put_alert_sample(m, pools[i].labels, (AlertKind) kind);
		}
	}
}

/* --- the server --------------------------------------------------------------------------- */

static void
put_workers(Metrics *m)
{
	static const char *const families[] = {"dbpool_worker_starts", "dbpool_worker_requests", "dbpool_worker_wakeups"};
	static const char *const helps[] = {
		"Starts of a worker since that of the server.", "Statements that a worker was given.", "Turns of a worker's event loop."
	};
	char		number[16];

	metrics_family(m, "dbpool_worker_up", METRIC_GAUGE, NULL, "1 while the worker runs.");
	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		snprintf(number, sizeof(number), "%d", i + 1);
		metrics_sample(m, metrics_with_label("", "worker", number), shmem_worker_pid(i) != 0);
	}
	for (int f = 0; f < lengthof(families); f++)
	{
		metrics_family(m, families[f], METRIC_COUNTER, NULL, helps[f]);
		for (int i = 0; i < dbpool_shared->nworkers; i++)
		{
			WorkerShared *worker = shmem_worker(i);

			snprintf(number, sizeof(number), "%d", i + 1);
			metrics_sample(m, metrics_with_label("", "worker", number),
						   f == 0 ? (double) pg_atomic_read_u32(&worker->starts) :
						   f == 1 ? (double) worker->requests : (double) worker->wakeups);
		}
	}
}

static void
put_gauge(Metrics *m, const char *family, const char *help, double value)
{
	metrics_family(m, family, METRIC_GAUGE, NULL, help);
	metrics_sample(m, "", value);
}

static void
put_server(Metrics *m)
{
	int			requests = 0;
	int			conns = 0;
	int			pools = pool_entries_taken();
	int			leases = 0;
	int			migrations = 0;
	uint64		posted;
	uint64		lost;

	for (int i = 0; i < request_count(); i++)
		requests += request_word_state(request_word(request_slot(i))) != REQUEST_FREE;
	for (int i = 0; i < dbpool_shared->nconns; i++)
		conns += shmem_conn(i)->in_use;
	for (int i = 0; i < lease_count(); i++)
		leases += lease_word_state(lease_word(lease_entry(i))) == LEASE_OPEN;
	for (int i = 0; i < DBPOOL_SHOWN_MIGRATIONS; i++)
		migrations += dbpool_shared->migrations[i].pid != 0;
	put_gauge(m, "dbpool_requests", "Statements that are under way.", requests);
	put_gauge(m, "dbpool_requests_max", "Statements that may be under way at a time.", request_count());
	put_gauge(m, "dbpool_connections", "Connections of all pools.", conns);
	put_gauge(m, "dbpool_connections_max", "Connections that all pools together may have.", dbpool_shared->nconns);
	put_gauge(m, "dbpool_pools", "Pools that are in use.", pools);
	put_gauge(m, "dbpool_pools_max", "Pools that may be in use at a time.", dbpool_shared->npools);
	put_gauge(m, "dbpool_transactions_open", "Transactions over several calls that are open.", leases);
	put_gauge(m, "dbpool_migrations_running", "Runs of migrations that are under way.", migrations);
	news_count(&posted, &lost);
	metrics_family(m, "dbpool_news", METRIC_COUNTER, NULL, "News for those who listen on the channel dbpool.");
	metrics_sample(m, "", posted);
	metrics_family(m, "dbpool_news_lost", METRIC_COUNTER, NULL, "News that had to be dropped before they were told.");
	metrics_sample(m, "", lost);
}

/* --- tables of this database ---------------------------------------------------------------- */

/* Rows of a query: values of labels, then the number. */
static void
put_query_samples(Metrics *m, const char *const *labels, int nlabels, const char *sql)
{
	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		StringInfoData buf;

		initStringInfo(&buf);
		for (int k = 0; k < nlabels; k++)
		{
			const char *value = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, k + 1);

			metrics_label(&buf, labels[k], value ? value : "");
		}
		metrics_sample(m, buf.data, atof(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, nlabels + 1)));
	}
}

static void
put_tables(Metrics *m)
{
	static const char *const doubt_labels[] = {"database", "pool", "user"};
	static const char *const migration_labels[] = {"database", "pool", "status"};
	const char *schema = quote_identifier(get_namespace_name(extension_schema()));

	SPI_connect();
	metrics_family(m, "dbpool_pool_in_doubt", METRIC_GAUGE, NULL,
				   "Prepared transactions that are still to be committed at their remotes, of this database.");
	put_query_samples(m, doubt_labels, lengthof(doubt_labels),
					  psprintf("SELECT pg_catalog.current_database(), pool, user_name, pg_catalog.count(*) "
							   "FROM %s.dbpool_in_doubt GROUP BY pool, user_name", schema));
	metrics_family(m, "dbpool_pool_migrations", METRIC_GAUGE, NULL,
				   "Migrations by what became of the last attempt, of this database.");
	put_query_samples(m, migration_labels, lengthof(migration_labels),
					  psprintf("SELECT pg_catalog.current_database(), pool, status, pg_catalog.count(*) "
							   "FROM (SELECT DISTINCT ON (serverid, version) pool, status FROM %s.dbpool_migration_history "
							   "ORDER BY serverid, version, id DESC) h GROUP BY pool, status", schema));
	SPI_finish();
}

/* dbpool_metrics(strict boolean) */
Datum
dbpool_metrics(PG_FUNCTION_ARGS)
{
	Metrics		m = {.strict = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0)};
	MetricPool *pools;
	int			n;

	client_require_preload();
	initStringInfo(&m.text);
	pools = metric_pools(&n);

	/*
	 * growing it would copy it over and over; and so would a copy for the
	 * sake of its header
	 */
	enlargeStringInfo(&m.text, (n + 1) * POOL_BYTES);
	appendStringInfoSpaces(&m.text, VARHDRSZ);
	for (int f = 0; f < lengthof(pool_fields); f++)
	{
		const PoolField *field = &pool_fields[f];

		metrics_family(&m, field->family, field->type, field->unit, field->help);
		for (int i = 0; i < n; i++)
			metrics_sample(&m, pools[i].labels, pool_sum(&pools[i], field));
	}
	put_connections(&m, pools, n);
	put_pool_states(&m, pools, n);
	put_histograms(&m, pools, n);
	put_alerts(&m, pools, n);
	metrics_endpoints(&m);
	put_workers(&m);
	put_server(&m);
	put_tables(&m);
	appendStringInfoString(&m.text, "# EOF\n");
	SET_VARSIZE(m.text.data, m.text.len);
	PG_RETURN_TEXT_P((text *) m.text.data);
}
