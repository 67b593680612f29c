/*
 * balance.c
 *	  A read-only pool over several hosts (load_balance): where its connections are
 *	  opened, and which of them a request is given.
 *
 * With 'random', a connection is opened at a host by chance, and requests get
 * whichever connection is free.  The rest is about 'least_busy'.
 *
 * THE CHOICE
 *
 * Of two endpoints by chance, the one with the lower cost gets the request, or the new
 * connection: "slow", how long statements take there, times the requests that are in
 * flight and one.  Always to take the best of all would send everybody to the same one at
 * a time.
 *
 * SLOW
 *
 * A pool runs statements that take some microseconds and others that take minutes, so their
 * times say little by themselves.  What counts is how many times as long as usual for its
 * text one has taken, the way there included.  It jumps up at once, and decays to 1 within some
 * BALANCE_DECAY_S: who was slow is asked less, but is asked again.  The head of a
 * connection counts while it runs, so that a server which does not answer at all is left
 * as well.  A text that is not known says nothing; then the requests in flight decide.
 *
 * Each worker learns this of each of its pools by itself: other pools, of other owners,
 * may be asked other things by the same name.
 *
 * Who comes back after its breaker was open has empty caches: its cost is up to
 * BALANCE_COLD times as high at first, and falls to what it is within BALANCE_WARM_MS.
 *
 * EVENLY
 *
 * The choice needs connections to choose among.  While a pool is in use, each endpoint where
 * connections may be opened has at least one, and the same number as the others unless
 * it is slow: then half of that.  One that has less is given one, of those that another has more of,
 * and that is closed: one a second, so that connections which have gone elsewhere when an
 * endpoint was out come back, and never many at a time.
 */
#include "postgres.h"

#include <math.h>

#include "common/pg_prng.h"

#include "worker/balance.h"
#include "worker/replay.h"

#define BALANCE_DECAY_S		10.0
#define BALANCE_COLD		10.0
#define BALANCE_WARM_MS		10000

/* Differences of less are of the machine, not of the endpoint. */
#define BALANCE_GRAIN_US	1000.0

/* So many times as slow as the best one, an endpoint counts as slow. */
#define BALANCE_SLOW		4.0

/* An endpoint whose breaker is open is left, unless there is no other. */
#define BALANCE_OUT			1e6

/* Between two connections that are moved; and before one more is tried where it failed. */
#define BALANCE_EVEN_MS		1000
#define BALANCE_AGAIN_MS	10000

/* What a pool has at an endpoint now. */
typedef struct Load
{
	int			open;			/* connections, and those that are being
								 * opened */
	int			in_flight;
	bool		idle;			/* there is a connection to take, */
	bool		rides;			/* or to join */
	double		slow;			/* of those that run */
} Load;

/* How slow is what has taken so long, the way there and back included? */
static double
slowness(const Pool *pool, double usual_us, double us)
{
	return Max((us + BALANCE_GRAIN_US) / (usual_us + pool->rtt_us + BALANCE_GRAIN_US), 1.0);
}

/* The same of a statement. */
static double
statement_slowness(const Pool *pool, const Statement *statement, double us)
{
	if (statement == NULL || statement->runs == 0)
		return 1.0;
	return slowness(pool, statement->usual_us, us);
}

/* What is left by now of what was known of an endpoint.  Who was out since begins anew. */
static double
decayed(const Pool *pool, int at, Ticks now)
{
	const PoolEndpoint *known = &pool->known[at];
	double		age_s = Max(now - known->slow_at, 0) / 1000000.0;

	if (known->slow <= 1.0 || endpoint_shared(pool->endpoints[at])->back_at > known->slow_at)
		return 1.0;
	return 1.0 + (known->slow - 1.0) * exp(-age_s / BALANCE_DECAY_S);
}

/* The same of one by its number; 1: as fast as usual, as far as is known. */
double
balance_slow(const Pool *pool, int endpoint, Ticks now)
{
	int			at = endpoint_place(pool, endpoint);

	return at < 0 ? 1.0 : decayed(pool, at, now);
}

/* A statement has ended well, us after the remote had begun with it. */
void
balance_took(Conn *conn, const Flight *flight, double us, Ticks now)
{
	Pool	   *pool = conn->pool;
	int			at;
	PoolEndpoint *known;

	if (!pool_is_balanced(pool) || flight->statement == NULL ||
		(flight->req != NULL && flight->req->blocked_us > 0) ||
		(at = endpoint_place(pool, conn->endpoint.at)) < 0)
		return;
	known = &pool->known[at];
	known->slow = Max(statement_slowness(pool, flight->statement, us), decayed(pool, at, now));
	known->slow_at = now;
}

/* Add what a connection says of its endpoint. */
static void
weigh_conn(Conn *conn, const Request *req, Load *load, Ticks now)
{
	Pool	   *pool = conn->pool;
	const Flight *head = conn_head(conn);

	load->open++;
	load->in_flight += conn->flights.n + (conn->state == CONN_CHECKING);
	load->idle |= conn->state == CONN_IDLE && replay_verdict(conn, req, now) != REPLAY_BEHIND;
	load->rides |= conn->state == CONN_BUSY && conn->flights.joinable &&
		replay_verdict(conn, req, now) == REPLAY_SUITS;
	if (head != NULL && (head->req == NULL || head->req->blocked_since == 0))
		load->slow = Max(load->slow, statement_slowness(pool, head->statement, conn_head_us(conn, now)));
	if (conn->state == CONN_CHECKING)
		load->slow = Max(load->slow, slowness(pool, 0, now - conn->asked_at));
}

/* loads: one for each endpoint of the pool, in its order.  req: who asks, or NULL. */
static void
weigh(const Pool *pool, const Request *req, Load *loads, Ticks now)
{
	dlist_iter	iter;

	memset(loads, 0, sizeof(Load) * pool->nendpoints);
	for (int i = 0; i < pool->nendpoints; i++)
		loads[i].slow = decayed(pool, i, now);
	for (int state = 0; state < CONN_CLOSED; state++)
	{
		dlist_foreach(iter, (dlist_head *) &pool->conns[state])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);
			int			at = endpoint_place(pool, conn->endpoint.at);

			if (at >= 0)
				weigh_conn(conn, req, &loads[at], now);
		}
	}
}

static double
cost(const Pool *pool, int at, const Load *load, Ticks now)
{
	/* a look without the lock: it may be another one the next moment anyway */
	const EndpointShared *entry = endpoint_shared(pool->endpoints[at]);
	double		back_ms = (now - entry->back_at) / 1000.0;
	double		cold = 1.0;

	if (entry->state == ENDPOINT_OPEN)
		return BALANCE_OUT * (load->in_flight + 1);
	if (entry->back_at != 0 && back_ms < BALANCE_WARM_MS)
		cold += (BALANCE_COLD - 1.0) * (1.0 - Max(back_ms, 0.0) / BALANCE_WARM_MS);
	return load->slow * cold * (load->in_flight + 1);
}

/*
 * Of n places in the pool's endpoints, the better one of two by chance.  Where both are as
 * good, the one with fewer connections.
 */
static int
better_of_two(const Pool *pool, const int *among, int n, const Load *loads, Ticks now)
{
	int			a = (int) pg_prng_uint64_range(&pg_global_prng_state, 0, n - 1);
	int			b = (int) pg_prng_uint64_range(&pg_global_prng_state, 0, Max(n - 2, 0));
	double		cost_a;
	double		cost_b;

	if (n == 1)
		return among[0];
	b += b >= a;
	a = among[a];
	b = among[b];
	cost_a = cost(pool, a, &loads[a], now);
	cost_b = cost(pool, b, &loads[b], now);
	if (cost_a == cost_b)
		return loads[b].open < loads[a].open ? b : a;
	return cost_b < cost_a ? b : a;
}

/*
 * At which endpoint is a request to run, of those that have a connection for it?  rides: it may
 * join others.  ENDPOINT_NONE: there is no choice.  Where connections are at several only for
 * copies of reads (hedge.c), it is the first in the order of the hosts.
 */
int
balance_choose(Pool *pool, const Request *req, bool rides, Ticks now)
{
	Load		loads[DBPOOL_MAX_PLACES];
	int			among[DBPOOL_MAX_PLACES];
	int			n = 0;

	if (!pool_is_balanced(pool) && !pool_keeps_order(pool))
		return ENDPOINT_NONE;
	weigh(pool, req, loads, now);
	for (int i = 0; i < pool->nendpoints; i++)
	{
		if (loads[i].idle || (rides && loads[i].rides))
			among[n++] = i;
	}
	if (n > 0 && pool_keeps_order(pool))
		return pool->endpoints[among[0]];
	return n == 0 ? ENDPOINT_NONE : pool->endpoints[better_of_two(pool, among, n, loads, now)];
}

/* Move a place of the list forward. */
static void
place_forward(Candidates *list, int from, int to)
{
	Place		place = list->places[from];

	memmove(&list->places[to + 1], &list->places[to], sizeof(Place) * (from - to));
	list->places[to] = place;
}

/*
 * Put those first that would serve the pool, as far as is known; and before them the one that is to
 * have its next connection.  Otherwise all keep their order, which may be by lot.
 */
void
balance_places(Candidates *list, Pool *pool)
{
	Load		loads[DBPOOL_MAX_PLACES];
	int			among[DBPOOL_MAX_PLACES];
	bool		serves[DBPOOL_MAX_PLACES];
	int			n = 0;
	int			first = 0;
	int			best = pool->makes_room - 1;
	Ticks		now = ticks_now();

	if (pool->nendpoints < 2)
		return;
	pool->makes_room = 0;
	for (int i = 0; i < pool->nendpoints; i++)
	{
		serves[i] = !replay_is_behind(pool, i, now) && pool_may_be_served(pool, endpoint_shared(pool->endpoints[i]));
		if (serves[i])
			among[n++] = i;
	}
	for (int i = 0; n < pool->nendpoints && i < list->n; i++)
	{
		int			at = endpoint_place(pool, pool_endpoint(pool, &list->places[i]));

		if (at < 0 || serves[at])
			place_forward(list, i, first++);
	}
	if (best < 0 && n > 0 && pool_is_balanced(pool))
	{
		weigh(pool, NULL, loads, now);
		best = better_of_two(pool, among, n, loads, now);
	}
	for (int i = 0; best >= 0 && i < list->n; i++)
	{
		if (pool_endpoint(pool, &list->places[i]) != pool->endpoints[best])
			continue;
		place_forward(list, i, 0);
		break;
	}
}

/* The n endpoints among which connections are spread; returns n. */
static int
suiting(const Pool *pool, int *among)
{
	int			n = 0;

	for (int i = 0; i < pool->nendpoints; i++)
	{
		if (pool_may_be_served(pool, endpoint_shared(pool->endpoints[i])))
			among[n++] = i;
	}
	return n;
}

/* Was an endpoint that has no connection given one a moment ago? */
static bool
was_in_vain(const Pool *pool, int at, Ticks now)
{
	Ticks		given_at = pool->known[at].given_at;

	return given_at != 0 && now < ticks_plus_ms(given_at, BALANCE_AGAIN_MS) &&
		endpoint_shared(pool->endpoints[at])->back_at <= given_at;
}

/*
 * An endpoint that is to be given a connection, as it has too few, or ENDPOINT_NONE.  The
 * pool's timer is set for when to ask again.
 */
int
balance_poor(Pool *pool, Ticks now)
{
	Load		loads[DBPOOL_MAX_PLACES];
	int			among[DBPOOL_MAX_PLACES];
	int			n;
	int			open = 0;
	int			poorest = -1;
	double		best = BALANCE_OUT;

	if (!pool_is_spread(pool) || pool->paused || pool->disabled ||
		now >= ticks_plus_ms(pool->used_at, BALANCE_IN_USE_MS) ||
		pool->nconns[CONN_CONNECTING] > 0 || pool_size(pool) == 0)
		return ENDPOINT_NONE;
	timer_set_by(&pool->upkeep, ticks_plus_ms(now, BALANCE_EVEN_MS));
	if (now < ticks_plus_ms(pool->evened_at, BALANCE_EVEN_MS))
		return ENDPOINT_NONE;
	weigh(pool, NULL, loads, now);
	n = suiting(pool, among);
	for (int i = 0; i < n; i++)
	{
		open += loads[among[i]].open;
		best = Min(best, loads[among[i]].slow);
	}
	for (int i = 0; i < n; i++)
	{
		const Load *load = &loads[among[i]];
		int			share = pool_is_balanced(pool) ? open / n : 1;
		int			least = Max(load->slow > BALANCE_SLOW * best ? share / 2 : share, 1);

		if (load->open >= least ||
			(load->open == 0 && was_in_vain(pool, among[i], now)))
			continue;
		if (poorest < 0 || load->open < loads[poorest].open)
			poorest = among[i];
	}
	if (poorest < 0)
		return ENDPOINT_NONE;
	pool->evened_at = now;
	return pool->endpoints[poorest];
}

/* Close a connection of an endpoint that nobody uses, or have one come free for that. */
static bool
take_from(Pool *pool, int endpoint)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_IDLE])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->endpoint.at != endpoint)
			continue;
		conn_close(conn, "another host of the pool needs its place");
		return true;
	}
	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->endpoint.at != endpoint || conn->lease.shared != NULL)
			continue;
		/* also if it was chosen the last time */
		conn->flights.joinable = false;
		conn->endpoint.makes_room = true;
		break;
	}
	return false;
}

/*
 * Is there room for one more connection at a poor endpoint?  One is closed where there are most, if
 * need be; where they are busy, one will be, and the next that is opened goes to the poor one.
 */
bool
balance_made_room(Pool *pool, int poor)
{
	Load		loads[DBPOOL_MAX_PLACES];
	int			among[DBPOOL_MAX_PLACES];
	int			n = suiting(pool, among);
	int			at = endpoint_place(pool, poor);
	int			richest = at;
	Ticks		now = ticks_now();

	weigh(pool, NULL, loads, now);
	if (loads[at].open > 0 || pool_size(pool) >= pool_max(pool))
	{
		for (int i = 0; i < n; i++)
		{
			if (loads[among[i]].open > loads[richest].open)
				richest = among[i];
		}
		if (loads[richest].open < loads[at].open + 2)
			return false;
		if (!take_from(pool, pool->endpoints[richest]))
		{
			pool->makes_room = at + 1;
			return false;
		}
	}
	pool->known[at].given_at = now;
	return true;
}
