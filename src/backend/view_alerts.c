/*
 * view_alerts.c
 *	  The function behind dbpool_alerts: what is wrong, and what to do.
 */
#include "postgres.h"

#include "backend/text.h"
#include "backend/view_row.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_get_alerts);

/* What is wrong with a pool.  In words of this database's encoding. */
static char *
pool_problem(AlertKind kind, const PoolShared *pool, double value)
{
	switch (kind)
	{
		case ALERT_UTILISATION:
			return psprintf("%.0f %% of its %d connections were in use over the last minute", value, pool->max_size);
		case ALERT_WAIT:
			return psprintf("a call has been waiting for a connection for %.0f s%s", value,
							pool->paused ? ", as the pool is paused" : "");
		case ALERT_ERRORS:
			return psprintf("%.0f %% of its calls failed in the last minute", value);
		case ALERT_TIMEOUTS:
			return psprintf("%.0f calls of the last minute got no connection within acquire_timeout", value);
		case ALERT_UNREACHABLE:
			return psprintf("it has no connection, as none could be opened: %s",
							text_from(pool->connect_error, database_encoding(pool->key.dbid)));
		case ALERT_LEASE_HELD:
			return psprintf("a transaction has had one of its connections for %.0f s", value);
		case ALERT_DEGRADED:
			return psprintf("it is served by a standby and takes no writes, as no primary could be connected to: %s",
							text_from(pool->connect_error, database_encoding(pool->key.dbid)));
		case ALERT_FALLBACK:
			return psprintf("its reads go to its fallback_server, as it has no connection and none could be opened: %s",
							text_from(pool->connect_error, database_encoding(pool->key.dbid)));
		default:
			return psprintf("?");
	}
}

static const char *
pool_advice(AlertKind kind, const PoolShared *pool)
{
	switch (kind)
	{
		case ALERT_UTILISATION:
			return "See dbpool_connections for what they run. If that is as it should be, and the remote can take more, raise the option max_size.";
		case ALERT_WAIT:
			return pool->paused ? "Call dbpool_resume() when what it was paused for is done." :
				"See dbpool_connections and dbpool_transactions for who has the connections; end those who should not, or raise the option max_size.";
		case ALERT_ERRORS:
			return "The server's log has the errors of the calls' sessions.";
		case ALERT_TIMEOUTS:
			return "The errors in the server's log say whether all connections were busy or none could be had; raise the option max_size, or see to the remote.";
		case ALERT_UNREACHABLE:
			return "See to the remote, or to the options of the foreign server and the user mapping; the server's log has a hint. dbpool goes on trying when the pool is used.";
		case ALERT_LEASE_HELD:
			return "See dbpool_transactions for whose it is; end it by pg_terminate_backend(), and set lease_idle_timeout against those that are forgotten.";
		case ALERT_DEGRADED:
			return "See to the primary, or promote a standby that the server's option host names; dbpool goes on looking for one, and leaves the standby as soon as there is.";
		case ALERT_FALLBACK:
			return "See to the remote; its calls come back to it as soon as a connection can be opened. What writes fails until then.";
		default:
			return "?";
	}
}

static char *
server_problem(AlertKind kind, double value)
{
	switch (kind)
	{
		case ALERT_REQUESTS:
			return psprintf("%.0f %% of the statements that may be under way at a time are", value);
		case ALERT_CONNECTIONS:
			return psprintf("%.0f %% of the connections that all pools together may have are open", value);
		case ALERT_POOLS:
			return psprintf("%.0f %% of the pools that may be in use at a time are", value);
		case ALERT_WORKER_RESTARTED:
			return psprintf(value == 1 ? "%.0f worker was started again within the last five minutes" :
							"%.0f workers were started again within the last five minutes", value);
		default:
			return psprintf("?");
	}
}

static const char *
server_advice(AlertKind kind)
{
	switch (kind)
	{
		case ALERT_REQUESTS:
			return "See dbpool_requests for whose they are; end those that hang, or raise dbpool.max_requests.";
		case ALERT_CONNECTIONS:
			return "See dbpool_pools for who has them; lower max_size or idle_timeout there, or raise dbpool.max_connections.";
		case ALERT_POOLS:
			return "See dbpool_pools; user mappings of roles that need none of their own can be one of PUBLIC. Or raise dbpool.max_pools.";
		case ALERT_WORKER_RESTARTED:
			return "The server's log says why it ended; what was under way on its pools has failed.";
		default:
			return "?";
	}
}

static void
put_alert(Row *row, const char *name, const char *severity, const AlertShared *alert,
		  const char *problem, const char *advice)
{
	row_put(row, CStringGetTextDatum(severity), false);
	row_put(row, CStringGetTextDatum(name), false);
	row_put_time(row, alert->since);
	row_put(row, Float8GetDatum(alert->value), false);
	row_put(row, Float8GetDatum(alert->threshold), false);
	row_put(row, CStringGetTextDatum(problem), false);
	row_put(row, CStringGetTextDatum(advice), false);
}

static void
put_pool_alerts(Row *row, const PoolShared *pool)
{
	int			encoding = database_encoding(pool->key.dbid);

	if (!pool_is_shown(&pool->key))
		return;
	for (int kind = 0; kind < ALERT_POOL_KINDS; kind++)
	{
		const AlertShared *alert = &pool->alerts[kind];

		if (alert->since == 0)
			continue;
		put_alert(row, alert_name(kind), alert_severity(kind), alert,
				  pool_problem(kind, pool, alert->value), pool_advice(kind, pool));
		row_put(row, ObjectIdGetDatum(pool->key.dbid), false);
		row_put_name(row, NameStr(pool->server), encoding);
		row_put_name(row, NameStr(pool->username), encoding);
		row_end(row);
	}
}

/* Those that do not run now: the one which looks for that may be among them. */
static void
put_workers_down(Row *row)
{
	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		AlertShared alert = {.since = shmem_worker(i)->ended_at,.value = 1};

		if (shmem_worker_pid(i) != 0)
			continue;
		put_alert(row, alert_name(ALERT_WORKER_DOWN), alert_severity(ALERT_WORKER_DOWN), &alert,
				  psprintf("worker %d is not running", i + 1),
				  "The server starts it again within two seconds. If that does not last, its log says why; calls on its pools fail until then.");
		row_end(row);
	}
}

/* Rows of dbpool_alerts, of pools that the caller may see, and of the server. */
Datum
dbpool_get_alerts(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	PoolShared *pools = pools_copy(&n);
	AlertShared alerts[ALERT_SERVER_KINDS];

	SpinLockAcquire(&dbpool_shared->alerts_mutex);
	memcpy(alerts, dbpool_shared->alerts, sizeof(alerts));
	SpinLockRelease(&dbpool_shared->alerts_mutex);
	put_workers_down(&row);
	for (int i = 0; i < ALERT_SERVER_KINDS; i++)
	{
		AlertKind	kind = (AlertKind) (ALERT_POOL_KINDS + i);

		if (alerts[i].since == 0 || kind == ALERT_WORKER_DOWN)
			continue;
		put_alert(&row, alert_name(kind), alert_severity(kind), &alerts[i],
				  server_problem(kind, alerts[i].value), server_advice(kind));
		row_end(&row);
	}
	for (int i = 0; i < n; i++)
		put_pool_alerts(&row, &pools[i]);
	return (Datum) 0;
}
