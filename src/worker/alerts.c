/*
 * alerts.c
 *	  The first worker looks now and then whether something is wrong, see ipc/alert.h.
 *
 * It looks at what shared memory has of all pools, whoever keeps them.  A pool that is split
 * has an entry for each of its workers; here it is one, that of its first worker.
 */
#include "postgres.h"

#include <math.h>

#include "access/transam.h"
#include "ipc/alert.h"
#include "ipc/endpoint.h"
#include "ipc/lease.h"
#include "ipc/request.h"
#include "worker/worker.h"

/* What a look has found of a pool. */
typedef struct Found
{
	int			first;			/* the entry of its first worker */
	bool		used;			/* this is that entry */
	bool		live;
	int			max_size;
	int			conns;			/* open */
	Ticks		oldest_wait;
	Ticks		connected_at;
	Ticks		failed_at;
	Ticks		fell_back_at;
	bool		degraded;
	Ticks		leased_at;		/* since when the oldest transaction is open */
	int			leak_threshold;
	MinutePiece minute;			/* the last one */
	int64		minute_us;		/* its length */
} Found;

static Timer look;

/* --- a look at the pools ---------------------------------------------------------------------- */

static Ticks
earlier(Ticks a, Ticks b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

/* Of a copy of an entry's minute, and the connections that have been busy since then. */
static void
add_minute(Found *found, MinutePiece *minute, int busy, Ticks since, Ticks now)
{
	MinutePiece sum;

	minute_busy(minute, busy, since, now);
	found->minute_us = minute_sum(minute, now, &sum);
	found->minute.statements += sum.statements;
	found->minute.errors += sum.errors;
	found->minute.timeouts += sum.timeouts;
	found->minute.busy_us += sum.busy_us;
}

/*
 * Has one of the endpoints been answered since, for whichever pool?  Then a pool that nobody
 * uses, and which therefore does not try, would be let in as far as anybody knows.
 */
static bool
was_answered_since(const int *endpoints, int n, Ticks then)
{
	for (int i = 0; i < n; i++)
	{
		/*
		 * a look without the lock: the next one sees what this one has missed
		 */
		if (endpoint_shared(endpoints[i])->answered_at > then)
			return true;
	}
	return false;
}

/* Add an entry to what was found of its pool. */
static void
look_at_entry(int index, Found *all, Ticks now)
{
	PoolShared *entry = shmem_pool(index);
	Found	   *found;
	MinutePiece minute[MINUTE_PIECES];
	int			busy;
	Ticks		since;
	Ticks		failed_at = 0;
	Ticks		unwell_at = 0;
	int			endpoints[DBPOOL_MAX_PLACES];
	int			nendpoints = 0;

	all[index].first = shmem_first_entry(index);
	found = &all[all[index].first];
	found->used = true;
	SpinLockAcquire(&entry->mutex);

	/*
	 * those of the pool stand in its first entry, which this one may have
	 * been
	 */
	if (all[index].first != index)
		memset(entry->alerts, 0, sizeof(entry->alerts));
	if (entry->live && !entry->dropped)
	{
		found->live = true;
		for (int state = CONN_IDLE; state < CONN_CLOSED; state++)
			found->conns += entry->conns[state];
		found->max_size = Max(found->max_size, entry->max_size);
		found->leak_threshold = entry->leak_threshold;
		found->oldest_wait = earlier(found->oldest_wait, entry->oldest_wait);
		found->connected_at = Max(found->connected_at, entry->connected_at);
		failed_at = entry->connect_failed_at;
		unwell_at = entry->unwell_at;
		nendpoints = entry->nendpoints;
		memcpy(endpoints, entry->endpoints, sizeof(endpoints));
		found->degraded |= entry->degraded_since != 0;
		found->fell_back_at = Max(found->fell_back_at, entry->fell_back_at);
	}
	memcpy(minute, entry->counters.minute, sizeof(minute));
	busy = shmem_busy_conns(entry);
	since = entry->conns_at;
	SpinLockRelease(&entry->mutex);
	if (failed_at != unwell_at || !was_answered_since(endpoints, nendpoints, failed_at))
		found->failed_at = Max(found->failed_at, failed_at);
	add_minute(found, minute, busy, since, now);
}

/* The transactions that are open. */
static void
find_leases(Found *all)
{
	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);
		uint64		word = lease_word(lease);
		Ticks		began_at;
		int			pool;

		if (lease_word_state(word) != LEASE_OPEN)
			continue;
		SpinLockAcquire(&lease->mutex);
		began_at = lease->began_at;
		SpinLockRelease(&lease->mutex);
		pool = lease->pool;
		if (lease_word(lease) == word && pool >= 0 && pool < dbpool_shared->npools)
			all[all[pool].first].leased_at = earlier(all[all[pool].first].leased_at, began_at);
	}
}

static double
seconds_from(Ticks then, Ticks now)
{
	return then == 0 ? 0 : (now - then) / 1000000.0;
}

static double
threshold_of(int setting, double unit)
{
	return setting == 0 ? INFINITY : setting / unit;
}

/* What there is of each kind, by what was found. */
static void
judge_pool(const Found *found, Ticks now, double *values, double *thresholds)
{
	const MinutePiece *minute = &found->minute;
	uint64		calls = minute->statements + minute->errors;

	values[ALERT_UTILISATION] = found->max_size == 0 ? 0 :
		Min(100.0 * minute->busy_us / found->minute_us / found->max_size, 100);
	thresholds[ALERT_UTILISATION] = threshold_of(dbpool_alert_utilisation, 1);
	values[ALERT_WAIT] = seconds_from(found->oldest_wait, now);
	thresholds[ALERT_WAIT] = threshold_of(dbpool_alert_wait, 1000);
	values[ALERT_ERRORS] = calls < ALERT_CALLS_LEAST ? 0 :
		100.0 * minute->errors / calls;
	thresholds[ALERT_ERRORS] = threshold_of(dbpool_alert_errors, 1);
	values[ALERT_TIMEOUTS] = minute->timeouts;
	thresholds[ALERT_TIMEOUTS] = 0;
	values[ALERT_UNREACHABLE] = found->live && found->conns == 0 && found->failed_at > found->connected_at;
	thresholds[ALERT_UNREACHABLE] = 0;
	values[ALERT_DEGRADED] = found->degraded;
	thresholds[ALERT_DEGRADED] = 0;
	values[ALERT_FALLBACK] = found->fell_back_at > found->connected_at &&
		now < ticks_plus_ms(found->fell_back_at, ALERT_FALLBACK_MS);
	thresholds[ALERT_FALLBACK] = 0;
	values[ALERT_LEASE_HELD] = seconds_from(found->leased_at, now);
	thresholds[ALERT_LEASE_HELD] = threshold_of(found->leak_threshold, 1000);
}

static void
note_pool(int index, const Found *found, Ticks now)
{
	PoolShared *entry = shmem_pool(index);
	double		values[ALERT_POOL_KINDS];
	double		thresholds[ALERT_POOL_KINDS];
	AlertShared ended[ALERT_POOL_KINDS];
	AlertChange changes[ALERT_POOL_KINDS];
	NameData	server;
	NameData	username;

	judge_pool(found, now, values, thresholds);
	SpinLockAcquire(&entry->mutex);
	for (int kind = 0; kind < ALERT_POOL_KINDS; kind++)
	{
		changes[kind] = alert_note(&entry->alerts[kind], values[kind], thresholds[kind], now);
		ended[kind] = entry->alerts[kind];
	}
	server = entry->server;
	username = entry->username;
	SpinLockRelease(&entry->mutex);
	for (int kind = 0; kind < ALERT_POOL_KINDS; kind++)
		alert_tell(entry->key.dbid, alert_name(kind), alert_severity(kind), changes[kind],
				   NameStr(server), NameStr(username), ended[kind].value, ended[kind].threshold);
}

/* --- the server ----------------------------------------------------------------------------- */

/* Of so many so many are in use: in percent. */
static double
part(int used, int all)
{
	return 100.0 * used / Max(all, 1);
}

static void
judge_server(Ticks now, double *values)
{
	int			requests = 0;
	int			conns = 0;
	int			pools = pool_entries_taken();
	int			down = 0;
	int			restarted = 0;

	for (int i = 0; i < dbpool_shared->nrequests; i++)
		requests += request_word_state(request_word(request_slot(i))) != REQUEST_FREE;
	for (int i = 0; i < dbpool_shared->nconns; i++)
		conns += shmem_conn(i)->in_use;
	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		WorkerShared *worker = shmem_worker(i);

		if (shmem_worker_pid(i) == 0)
			down++;
		else if (pg_atomic_read_u32(&worker->starts) > 1 &&
				 now < ticks_plus_ms(worker->started_at, ALERT_RESTARTED_MS))
			restarted++;
	}
	values[ALERT_REQUESTS - ALERT_POOL_KINDS] = part(requests, dbpool_shared->nrequests);
	values[ALERT_CONNECTIONS - ALERT_POOL_KINDS] = part(conns, dbpool_shared->nconns);
	values[ALERT_POOLS - ALERT_POOL_KINDS] = part(pools, dbpool_shared->npools);
	values[ALERT_WORKER_DOWN - ALERT_POOL_KINDS] = down;
	values[ALERT_WORKER_RESTARTED - ALERT_POOL_KINDS] = restarted;
}

/* All databases that have pools are told. */
static void
tell_databases(AlertKind kind, AlertChange change, const AlertShared *alert, Oid *told)
{
	int			n = 0;

	for (int i = 0; change != ALERT_GOES_ON && i < dbpool_shared->npools && n < ERRAND_DATABASES; i++)
	{
		PoolShared *entry = shmem_pool(i);
		bool		known = !entry->in_use || entry->dropped;

		for (int k = 0; k < n && !known; k++)
			known = told[k] == entry->key.dbid;
		if (known)
			continue;
		told[n++] = entry->key.dbid;
		alert_tell(entry->key.dbid, alert_name(kind), alert_severity(kind), change, NULL, NULL,
				   alert->value, alert->threshold);
	}
}

static void
note_server(Ticks now)
{
	double		values[ALERT_SERVER_KINDS];
	Oid			told[ERRAND_DATABASES];

	judge_server(now, values);
	for (int i = 0; i < ALERT_SERVER_KINDS; i++)
	{
		AlertKind	kind = (AlertKind) (ALERT_POOL_KINDS + i);
		double		threshold = kind >= ALERT_WORKER_DOWN ? 0 : threshold_of(dbpool_alert_utilisation, 1);
		AlertChange change;
		AlertShared alert;

		SpinLockAcquire(&dbpool_shared->alerts_mutex);
		change = alert_note(&dbpool_shared->alerts[i], values[i], threshold, now);
		alert = dbpool_shared->alerts[i];
		SpinLockRelease(&dbpool_shared->alerts_mutex);
		tell_databases(kind, change, &alert, told);
	}
}

/* --- looking ------------------------------------------------------------------------------- */

static void
alerts_look(void *owner)
{
	Ticks		now = ticks_now();
	Found	   *all;

	(void) owner;
	timer_set(&look, ticks_plus_ms(now, ALERTS_LOOK_MS));
	all = palloc0(sizeof(Found) * dbpool_shared->npools);
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *entry = shmem_pool(i);

		all[i].first = i;
		if (entry->in_use && !TransactionIdIsValid(entry->key.xid))
			look_at_entry(i, all, now);
	}
	find_leases(all);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		if (all[i].used)
			note_pool(i, &all[i], now);
	}
	note_server(now);
	LWLockRelease(dbpool_shared->pools_lock);
	pfree(all);
}

/* An error is nobody's but this look's; the next one is set. */
static void
alerts_recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
	timer_set(&look, ticks_plus_ms(ticks_now(), ALERTS_LOOK_MS));
}

void
alerts_init(void)
{
	timer_init(&look, alerts_look, alerts_recover, NULL);
	if (my_worker != 0)
		return;
	timer_set(&look, ticks_plus_ms(ticks_now(), ALERTS_LOOK_MS));
}
