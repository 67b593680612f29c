/*
 * endpoints.c
 *	  Endpoints, as a worker uses them: which its pools lead to, who may log in, who
 *	  probes, and what others are told of it.  The states are in ipc/endpoint.h.
 *
 * A pool takes places where the breaker is open out of its lists: its own connections are
 * opened elsewhere, or not at all, and who would wait for one is told why.  Meanwhile
 * pool_grow() opens one connection that is marked as the probe, when that is due.  It is one
 * of the pool's like others, and of use when it is open; but nobody waits for it.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "ipc/news.h"
#include "pq/keywords.h"
#include "worker/endpoints.h"

/* A pool that was used within so many milliseconds wants to know soon. */
#define IN_USE_MS		30000

/* What this worker has there. */
typedef struct Mine
{
	int			refs;			/* pools that lead there, and connections */
	int			conns;			/* that have entered */
	int			logins;			/* of these, that are being opened */
} Mine;

static Mine *mine;
static Work news;

/* --- which ones ------------------------------------------------------------------------ */

static void
hold(int endpoint)
{
	mine[endpoint].refs++;
}

static void
let_go(int endpoint)
{
	if (--mine[endpoint].refs == 0)
		endpoint_unuse(endpoint);
}

/* As endpoints are called: what libpq connects to. */
static const char *
host_of(const Place *place)
{
	return place->hostaddr ? place->hostaddr : place->host ? place->host : DEFAULT_PGSOCKET_DIR;
}

static const char *
port_of(const Place *place)
{
	return place->port ? place->port : DEF_PGPORT_STR;
}

/*
 * That of a place of the pool.  Of a name that was looked up it is the name's, so that
 * all its addresses are one.
 */
int
pool_endpoint(const Pool *pool, const Place *place)
{
	bool		was_name = place->host != NULL && place->hostaddr != NULL;

	for (int i = 0; i < pool->nendpoints; i++)
	{
		const EndpointShared *entry = endpoint_shared(pool->endpoints[i]);

		if (strcmp(entry->port, port_of(place)) == 0 &&
			(strcmp(entry->host, host_of(place)) == 0 ||
			 (was_name && place->looked_up && strcmp(entry->host, place->host) == 0)))
			return pool->endpoints[i];
	}
	return ENDPOINT_NONE;
}

static void
show_endpoints(Pool *pool)
{
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->nendpoints = pool->nendpoints;
	for (int i = 0; i < pool->nendpoints; i++)
		pool->shared->endpoints[i] = pool->endpoints[i];
	SpinLockRelease(&pool->shared->mutex);
}

/* The pool has no definition any more, or another one. */
void
pool_leave_endpoints(Pool *pool)
{
	int			n = pool->nendpoints;

	pool->nendpoints = 0;
	memset(pool->known, 0, sizeof(pool->known));
	pool->makes_room = 0;
	pool->leads_elsewhere = false;
	/* before they may become others', whom this pool's owner is not to see */
	show_endpoints(pool);
	for (int i = 0; i < n; i++)
		let_go(pool->endpoints[i]);
}

/* What the definition wants of a server, but for what is only preferred. */
static WantedRole
wanted_role(const char *definition, Size len)
{
	static const char *const words[] = {"any", "read-write", "read-only", "primary", "standby"};
	const char *attrs = definition_value(definition, len, "target_session_attrs");

	for (int i = 0; attrs != NULL && i < lengthof(words); i++)
	{
		if (strcmp(attrs, words[i]) == 0)
			return (WantedRole) i;
	}
	return WANTED_ANY;
}

/* Those of the definition, in its order.  May throw, and has done nothing then. */
void
pool_use_endpoints(Pool *pool, const char *definition, Size len)
{
	int			n = definition_places(definition, len);
	Place	   *places = palloc(sizeof(Place) * n);

	for (int i = 0; i < n; i++)
		definition_place(definition, len, i, &places[i]);
	pool_leave_endpoints(pool);
	pool->wanted = wanted_role(definition, len);
	for (int i = 0; i < n; i++)
	{
		int			endpoint;

		if (pool_endpoint(pool, &places[i]) != ENDPOINT_NONE)
			continue;
		endpoint = endpoint_use(host_of(&places[i]), port_of(&places[i]), pool->nendpoints > 0);
		if (endpoint == ENDPOINT_NONE)
		{
			pool->leads_elsewhere = true;
			continue;
		}
		/* a worker counts once */
		if (mine[endpoint].refs > 0)
			endpoint_unuse(endpoint);
		hold(endpoint);
		pool->endpoints[pool->nendpoints++] = endpoint;
	}
	show_endpoints(pool);
}

/* Place of an endpoint in pool->endpoints, or -1. */
int
endpoint_place(const Pool *pool, int endpoint)
{
	for (int i = 0; i < pool->nendpoints; i++)
	{
		if (pool->endpoints[i] == endpoint)
			return i;
	}
	return -1;
}

/* --- may connections be opened? -------------------------------------------------------- */

/* Was it called of late?  Sessions that all wait for the remote's return call no more. */
bool
pool_is_in_use(const Pool *pool, Ticks now)
{
	return pool->nwaiting > 0 || now < ticks_plus_ms(pool->used_at, IN_USE_MS);
}

/*
 * May the pool be served there?  Not by a server that is out, nor, by what its last login has
 * shown, by a standby in place of a primary or the other way round.
 */
bool
pool_may_be_served(const Pool *pool, const EndpointShared *entry)
{
	return entry->state != ENDPOINT_OPEN &&
		!(pool_wants_primary(pool) && entry->role == ENDPOINT_STANDBY) &&
		!(pool->wanted == WANTED_STANDBY && entry->role == ENDPOINT_PRIMARY);
}

/* Has the pool, which is in use, nothing else to go to? */
static bool
is_last(const Pool *pool, int endpoint, Ticks now)
{
	if (pool->leads_elsewhere || !pool_is_in_use(pool, now))
		return false;
	for (int i = 0; i < pool->nendpoints; i++)
	{
		/*
		 * a look without the lock: it may be another one the next moment
		 * anyway
		 */
		if (pool->endpoints[i] != endpoint && pool_may_be_served(pool, endpoint_shared(pool->endpoints[i])))
			return false;
	}
	return true;
}

static EndpointEntry
entry_of(const Pool *pool, int endpoint, bool probe, Ticks now)
{
	EndpointEntry how = {probe, is_last(pool, endpoint, now), false};

	how.awaited = how.last && pool->nwaiting > 0 && pool->options.failover_wait > 0;
	return how;
}

/*
 * Is there a place where the pool might log in now?  *until is when to ask again if there
 * is none, 0 where that does not change by time.
 */
EndpointVerdict
pool_endpoints_look(Pool *pool, Ticks now, Ticks *until)
{
	EndpointVerdict best = ENDPOINT_IS_OUT;

	*until = 0;
	if (pool->leads_elsewhere || pool->nendpoints == 0)
		return ENDPOINT_ENTERED;
	for (int i = 0; i < pool->nendpoints; i++)
	{
		EndpointEntry how = entry_of(pool, pool->endpoints[i], false, now);
		Ticks		then;
		EndpointVerdict verdict = endpoint_look(pool->endpoints[i], how, now, &then);

		if (verdict == ENDPOINT_ENTERED)
			return ENDPOINT_ENTERED;
		if (best == ENDPOINT_IS_OUT || verdict == ENDPOINT_IS_CROWDED)
			best = verdict;
		if (then != 0 && (*until == 0 || then < *until))
			*until = then;
	}
	return best;
}

/*
 * One that is due to be probed, or ENDPOINT_NONE; *until: when one will be, 0: never.  This
 * is asked often, and mostly there is none.
 */
int
pool_endpoint_to_probe(Pool *pool, Ticks *until)
{
	Ticks		now = 0;

	*until = 0;
	for (int i = 0; i < pool->nendpoints; i++)
	{
		EndpointEntry how;
		Ticks		then;

		if (endpoint_shared(pool->endpoints[i])->state != ENDPOINT_OPEN)
			continue;
		now = now != 0 ? now : ticks_now();
		how = entry_of(pool, pool->endpoints[i], true, now);
		if (endpoint_look(pool->endpoints[i], how, now, &then) == ENDPOINT_ENTERED)
			return pool->endpoints[i];
		if (then != 0 && (*until == 0 || then < *until))
			*until = then;
	}
	return ENDPOINT_NONE;
}

/*
 * Of a pool whose endpoints are all out: a copy of that which has failed last, or NULL
 * if none has.
 */
const EndpointShared *
pool_endpoint_out(const Pool *pool, EndpointShared *copy)
{
	EndpointShared *latest = NULL;

	for (int i = 0; i < pool->nendpoints; i++)
	{
		EndpointShared *entry = endpoint_shared(pool->endpoints[i]);

		if (entry->failed_at != 0 && (latest == NULL || entry->failed_at > latest->failed_at))
			latest = entry;
	}
	if (latest == NULL)
		return NULL;
	SpinLockAcquire(&latest->mutex);
	memcpy(copy, latest, sizeof(EndpointShared));
	SpinLockRelease(&latest->mutex);
	return copy;
}

/* Somebody wants the pool to choose anew where it goes. */
void
pool_recheck_endpoints(Pool *pool)
{
	for (int i = 0; i < pool->nendpoints; i++)
	{
		if (endpoint_recheck(pool->endpoints[i], ticks_now()))
			work_mark(&news);
	}
}

/* Connections of the pool that are being opened only to find out. */
int
pool_probes(Pool *pool)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_CONNECTING])
		n += conn_finds_out(dlist_container(Conn, node, iter.cur));
	return n;
}

/* Of these, those that probe an endpoint which is out; without the one given. */
int
pool_probers(Pool *pool, const Conn *but)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_CONNECTING])
	{
		const Conn *conn = dlist_container(Conn, node, iter.cur);

		n += conn != but && conn_is_prober(conn);
	}
	return n;
}

/* --- connections ----------------------------------------------------------------------- */

/* It is about to log in there.  ENDPOINT_NONE has no limits. */
EndpointVerdict
conn_enter(Conn *conn, int endpoint)
{
	Ticks		now = ticks_now();
	EndpointEntry how = entry_of(conn->pool, endpoint, conn_is_prober(conn), now);
	EndpointVerdict verdict;

	Assert(conn->endpoint.at == ENDPOINT_NONE);
	if (endpoint == ENDPOINT_NONE)
		return ENDPOINT_ENTERED;
	verdict = endpoint_enter(endpoint, how, my_worker, now);
	if (verdict != ENDPOINT_ENTERED)
		return verdict;
	hold(endpoint);
	mine[endpoint].conns++;
	mine[endpoint].logins++;
	conn->endpoint.at = endpoint;
	conn->endpoint.logs_in = true;
	return verdict;
}

static bool
ends_login(Conn *conn)
{
	if (!conn->endpoint.logs_in)
		return false;
	conn->endpoint.logs_in = false;
	mine[conn->endpoint.at].logins--;
	return true;
}

/* The server has let it in, or has said why not, and is well. */
void
conn_login_answered(Conn *conn, EndpointRole role)
{
	if (ends_login(conn) &&
		endpoint_answered(conn->endpoint.at, conn_is_prober(conn), role, ticks_now()))
		work_mark(&news);
}

/* It could not log in, and that speaks against the server. */
void
conn_login_failed(Conn *conn, EndpointCost cost, const char *error)
{
	if (ends_login(conn) &&
		endpoint_failed(conn->endpoint.at, conn_is_prober(conn), cost, error, ticks_now()))
		work_mark(&news);
}

/* It was open, and its loss speaks against the server. */
void
conn_endpoint_lost(Conn *conn, const char *error)
{
	if (conn->endpoint.at != ENDPOINT_NONE &&
		endpoint_lost(conn->endpoint.at, error, ticks_now()))
		work_mark(&news);
}

/* It is not there any more, or will not be. */
void
conn_leave(Conn *conn)
{
	int			endpoint = conn->endpoint.at;

	if (endpoint == ENDPOINT_NONE)
		return;
	if (ends_login(conn))
		endpoint_nothing_learned(endpoint, conn_is_prober(conn), ticks_now());
	conn->endpoint.at = ENDPOINT_NONE;
	endpoint_exit(endpoint);
	mine[endpoint].conns--;
	let_go(endpoint);
}

/* --- news ------------------------------------------------------------------------------ */

static void
log_news(const EndpointShared *endpoint)
{
	Ticks		now = ticks_now();

	if (endpoint->state == ENDPOINT_OPEN)
		ereport(LOG,
				(errmsg("dbpool: the breaker of endpoint \"%s\", port %s is open: no connections are opened there until a probe is answered",
						endpoint->host, endpoint->port),
				 errdetail("It has failed %d times in a row. The next probe is made in %.1f s. The last error: %s",
						   endpoint->in_row, Max(endpoint->next_at - now, 0) / 1000000.0, endpoint->error)));
	else if (endpoint->state == ENDPOINT_HALF_OPEN)
		ereport(LOG,
				(errmsg("dbpool: the breaker of endpoint \"%s\", port %s is half-open: connections are opened there one after the other",
						endpoint->host, endpoint->port),
				 errdetail("The last error, %.1f s ago: %s", (now - endpoint->failed_at) / 1000000.0, endpoint->error)));
	else
		ereport(LOG,
				(errmsg("dbpool: the breaker of endpoint \"%s\", port %s is closed",
						endpoint->host, endpoint->port)));
}

/* Tell those who listen in the databases of the pools that lead there. */
static void
post_news(int number, const EndpointShared *endpoint)
{
	char		text[NEWS_BYTES];
	Oid			told = InvalidOid;

	news_begin(text, "breaker");
	news_put(text, "host", endpoint->host);
	news_put(text, "port", endpoint->port);
	news_put(text, "state", endpoint_state_name(endpoint->state));
	if (endpoint->state == ENDPOINT_OPEN)
		news_put_number(text, "next_probe_s", Max(endpoint->next_at - ticks_now(), 0) / 1000000.0);
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	/* one database after the other, in the order of their OIDs */
	for (;;)
	{
		Oid			next = InvalidOid;

		for (int i = 0; i < dbpool_shared->npools; i++)
		{
			PoolShared *pool = shmem_pool(i);
			bool		leads_there = false;

			if (!pool->in_use || pool->key.dbid <= told || (OidIsValid(next) && pool->key.dbid >= next))
				continue;
			SpinLockAcquire(&pool->mutex);
			for (int j = 0; j < pool->nendpoints; j++)
				leads_there |= pool->endpoints[j] == number;
			SpinLockRelease(&pool->mutex);
			if (leads_there)
				next = pool->key.dbid;
		}
		if (!OidIsValid(next))
			break;
		news_post(next, text);
		told = next;
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

static void
mark_pools(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pools)
		pool_mark(dlist_container(Pool, node, iter.cur));
}

/* States have changed: say so, and have everybody look who may have waited for it. */
static void
tell_news(void *owner)
{
	bool		any = false;

	(void) owner;
	for (int i = 0; i < endpoint_count(); i++)
	{
		EndpointShared copy;

		if (mine[i].refs == 0 || !endpoint_take_news(i, &copy))
			continue;
		any = true;
		log_news(&copy);
		post_news(i, &copy);
	}
	/* also without any, as allowed may have grown */
	mark_pools();
	for (int i = 0; any && i < dbpool_shared->nworkers; i++)
	{
		if (i == my_worker)
			continue;
		pg_atomic_write_u32(&shmem_worker(i)->endpoints_attention, 1);
		shmem_wake_worker(i);
	}
}

/* If another worker has told news, have the pools look. */
void
endpoints_look(void)
{
	WorkerShared *shared = shmem_worker(my_worker);

	if (pg_atomic_read_u32(&shared->endpoints_attention) == 0)
		return;
	pg_atomic_exchange_u32(&shared->endpoints_attention, 0);
	mark_pools();
}

/* What was not told will be, with the next change. */
static void
news_recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
}

void
endpoints_init(void)
{
	mine = MemoryContextAllocZero(worker_context, sizeof(Mine) * endpoint_count());
	work_init(&news, tell_news, news_recover, NULL);
}

/* At exit: give back all that this worker has. */
void
endpoints_forget(void)
{
	for (int i = 0; mine != NULL && i < endpoint_count(); i++)
	{
		if (mine[i].refs > 0)
			endpoint_give_back(i, my_worker, mine[i].conns, mine[i].logins, ticks_now());
		memset(&mine[i], 0, sizeof(Mine));
	}
}
