/*
 * view_endpoints.c
 *	  The functions behind dbpool_endpoints and dbpool_stat_endpoints.
 */
#include "postgres.h"

#include "backend/view_row.h"
#include "catalog/pg_authid.h"
#include "ipc/endpoint.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

PG_FUNCTION_INFO_V1(dbpool_get_endpoints);
PG_FUNCTION_INFO_V1(dbpool_get_endpoint_latencies);

/*
 * Which endpoints the caller may see: those of pools that he may see, and all as a member
 * of pg_read_all_stats.  hidden: by which of them pools do something that he may not see.
 */
static bool *
endpoints_shown(const PoolShared *pools, int n, bool *hidden)
{
	bool	   *shown = palloc(sizeof(bool) * endpoint_count());

	memset(hidden, 0, sizeof(bool) * endpoint_count());
	memset(shown, has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS), sizeof(bool) * endpoint_count());
	for (int i = 0; i < n; i++)
	{
		bool	   *is = pool_is_shown(&pools[i].key) ? shown : hidden;

		for (int j = 0; pools[i].live && j < pools[i].nendpoints; j++)
			is[pools[i].endpoints[j]] = true;
	}
	return shown;
}

static void
put_endpoint(Row *row, const EndpointShared *endpoint)
{
	row_put_text(row, endpoint->host, PG_SQL_ASCII);
	row_put_text(row, endpoint->port, PG_SQL_ASCII);
	row_put_text(row, endpoint_state_name(endpoint->state), PG_SQL_ASCII);
	row_put_time(row, endpoint->state_since);
	if (endpoint->role == ENDPOINT_ROLE_UNKNOWN)
		row_put(row, (Datum) 0, true);
	else
		row_put_text(row, endpoint->role == ENDPOINT_STANDBY ? "standby" : "primary", PG_SQL_ASCII);
	row_put_int(row, endpoint->conns, false);
	row_put_int(row, endpoint->logins, false);
	row_put_int(row, endpoint->in_row, false);
	row_put_time(row, endpoint->state == ENDPOINT_OPEN ? endpoint->next_at : 0);
	row_put_time(row, endpoint->answered_at);
	row_put_time(row, endpoint->failed_at);
	if (endpoint->error[0] == '\0')
		row_put(row, (Datum) 0, true);
	else
		row_put_text(row, endpoint->error, PG_SQL_ASCII);
	row_put(row, LSNGetDatum(endpoint->replay_lsn), endpoint->replay_at == 0);
	row_put(row, Int64GetDatum(endpoint->lag_bytes), endpoint->replay_at == 0 || endpoint->lag_bytes < 0);
	if (endpoint->replay_at == 0 || endpoint->lag_us < 0)
		row_put(row, (Datum) 0, true);
	else
		row_put_ms(row, endpoint->lag_us);
	row_put_time(row, endpoint->replay_at);
	row_put_count(row, endpoint->logins_answered);
	row_put_count(row, endpoint->logins_failed);
	row_put_count(row, endpoint->losses);
	row_put_count(row, endpoint->times_opened);
}

/*
 * Copies of the endpoints in use that the caller may see, so many.  whole, if it is not NULL: may he see
 * all pools that lead there, and so what they do together?
 */
EndpointShared *
endpoints_copy(int *n, bool **whole)
{
	EndpointShared *copies = palloc(sizeof(EndpointShared) * endpoint_count());
	PoolShared *pools = palloc(sizeof(PoolShared) * dbpool_shared->npools);
	bool	   *hidden = palloc(sizeof(bool) * endpoint_count());
	bool	   *all = palloc(sizeof(bool) * endpoint_count());
	bool	   *shown;
	int			npools;

	/*
	 * as long as we have the lock, no other host gets an entry that pools of
	 * the copy lead to
	 */
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	npools = pools_copy_locked(pools);
	for (int i = 0; i < endpoint_count(); i++)
	{
		SpinLockAcquire(&endpoint_shared(i)->mutex);
		memcpy(&copies[i], endpoint_shared(i), sizeof(EndpointShared));
		SpinLockRelease(&endpoint_shared(i)->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);

	shown = endpoints_shown(pools, npools, hidden);
	*n = 0;
	for (int i = 0; i < endpoint_count(); i++)
	{
		if (!shown[i] || copies[i].users == 0)
			continue;
		if (endpoint_is_calm(&copies[i], ticks_now()))
			copies[i].state = ENDPOINT_CLOSED;
		all[*n] = !hidden[i];
		copies[(*n)++] = copies[i];
	}
	if (whole != NULL)
		*whole = all;
	return copies;
}

/* Rows of dbpool_endpoints: those that pools lead to, in the order of their names. */
Datum
dbpool_get_endpoints(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	EndpointShared *endpoints = endpoints_copy(&n, NULL);

	for (int i = 0; i < n; i++)
	{
		put_endpoint(&row, &endpoints[i]);
		row_end(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_stat_endpoints. */
Datum
dbpool_get_endpoint_latencies(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	bool	   *whole;
	EndpointShared *endpoints = endpoints_copy(&n, &whole);

	for (int i = 0; i < n * LATENCY_KINDS; i++)
	{
		const EndpointShared *endpoint = &endpoints[i / LATENCY_KINDS];
		LatencyKind kind = (LatencyKind) (i % LATENCY_KINDS);
		HistogramSum sum;

		if (!whole[i / LATENCY_KINDS] || !endpoint_sum_latency(endpoint, kind, &sum))
			continue;
		row_put_text(&row, endpoint->host, PG_SQL_ASCII);
		row_put_text(&row, endpoint->port, PG_SQL_ASCII);
		row_put(&row, CStringGetTextDatum(latency_name(kind)), false);
		row_put_latency(&row, &sum);
		row_end(&row);
	}
	return (Datum) 0;
}
