/*
 * endpoint.c
 *	  The states of endpoints, see endpoint.h.  Nothing here throws, or waits for more than a lock.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "ipc/endpoint.h"
#include "ipc/shmem.h"
#include "storage/lwlock.h"

/* The time that it is open is longer or shorter by up to this part. */
#define OPEN_JITTER		0.2

static EndpointShared *endpoints;

/* How long what all workers do at an endpoint takes; one for each would be most of our memory. */
typedef struct EndpointStats
{
	Histogram	latency[LATENCY_KINDS];
} EndpointStats;

static EndpointStats *endpoint_stats;

/* Each pool may have one of its own, and as many are for the further places of all. */
int
endpoint_count(void)
{
	return Max(2 * dbpool_max_pools, DBPOOL_MAX_PLACES);
}

Size
endpoint_shmem_bytes(void)
{
	return mul_size(sizeof(EndpointShared), endpoint_count());
}

Size
endpoint_stats_bytes(void)
{
	return mul_size(sizeof(EndpointStats), endpoint_count());
}

/* What was done there took so long. */
void
endpoint_measure(int endpoint, LatencyKind kind, int64 us)
{
	Assert(endpoint >= 0 && endpoint < endpoint_count());
	histogram_record_shared(&endpoint_stats[endpoint].latency[kind], us);
}

/* What took how long, for a copy of the entry; false when that is another host's now. */
bool
endpoint_sum_latency(const EndpointShared *copy, LatencyKind kind, HistogramSum *sum)
{
	const EndpointShared *entry = endpoint_shared(copy->index);
	bool		same;

	memset(sum, 0, sizeof(HistogramSum));
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	same = strcmp(entry->host, copy->host) == 0 && strcmp(entry->port, copy->port) == 0;
	if (same)
		histogram_add_to(sum, &endpoint_stats[copy->index].latency[kind]);
	LWLockRelease(dbpool_shared->pools_lock);
	return same;
}

/* The arrays are there; found: and were set up by another process. */
void
endpoint_shmem_init(void *at, void *stats_at, bool found)
{
	endpoints = at;
	endpoint_stats = stats_at;
	if (found)
		return;
	for (int i = 0; i < endpoint_count(); i++)
	{
		for (int kind = 0; kind < LATENCY_KINDS; kind++)
			histogram_init(&endpoint_stats[i].latency[kind]);
	}
	memset(endpoints, 0, endpoint_shmem_bytes());
	for (int i = 0; i < endpoint_count(); i++)
	{
		endpoints[i].index = i;
		SpinLockInit(&endpoints[i].mutex);
	}
}

EndpointShared *
endpoint_shared(int endpoint)
{
	Assert(endpoint >= 0 && endpoint < endpoint_count());
	return &endpoints[endpoint];
}

/* As views and the log show it. */
const char *
endpoint_state_name(EndpointState state)
{
	return state == ENDPOINT_CLOSED ? "closed" : state == ENDPOINT_OPEN ? "open" : "half-open";
}

/* An entry that may be given to another host: one without a name, or long without news. */
static int
entry_to_use(void)
{
	int			best = -1;

	for (int i = 0; i < endpoint_count(); i++)
	{
		EndpointShared *entry = &endpoints[i];

		if (entry->host[0] == '\0')
			return i;
		if (entry->users == 0 &&
			(best < 0 || entry->state_since < endpoints[best].state_since))
			best = i;
	}
	return best;
}

/* Everything but who uses it, and the mutex, which is held. */
static void
forget_all(EndpointShared *entry)
{
	Size		from = offsetof(EndpointShared, state);

	Assert(entry->conns == 0 && entry->logins == 0 && entry->prober == 0);
	memset((char *) entry + from, 0, sizeof(EndpointShared) - from);
	entry->state_since = ticks_now();
}

/*
 * Are there more entries to be had than pools that have none, or may still come?  Who has the
 * lists of hosts grow is not to leave other owners' pools without one.
 */
static bool
is_one_to_spare(void)
{
	int			spare = 0;
	int			without = dbpool_max_pools;

	for (int i = 0; i < endpoint_count(); i++)
		spare += endpoints[i].users == 0;
	for (int i = 0; i < dbpool_shared->npools; i++)
		without -= shmem_pool(i)->in_use && shmem_pool(i)->nendpoints > 0;
	return spare > without;
}

/*
 * The endpoint of that name, which the caller may use until it says endpoint_unuse().
 * further: the pool has one already.  ENDPOINT_NONE when there are too many, or its name is too
 * long: connections to it are not counted, and have no breaker.
 */
int
endpoint_use(const char *host, const char *port, bool further)
{
	static const HistogramSum nothing;
	int			found = ENDPOINT_NONE;

	if (host[0] == '\0' || strlen(host) >= ENDPOINT_HOST_BYTES || strlen(port) >= ENDPOINT_PORT_BYTES)
		return ENDPOINT_NONE;
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	for (int i = 0; i < endpoint_count() && found < 0; i++)
	{
		if (strcmp(endpoints[i].host, host) == 0 && strcmp(endpoints[i].port, port) == 0)
			found = i;
	}
	if (found < 0 && (!further || is_one_to_spare()) && (found = entry_to_use()) >= 0)
	{
		EndpointShared *entry = &endpoints[found];

		SpinLockAcquire(&entry->mutex);
		forget_all(entry);
		SpinLockRelease(&entry->mutex);
		strlcpy(entry->host, host, sizeof(entry->host));
		strlcpy(entry->port, port, sizeof(entry->port));
		for (int kind = 0; kind < LATENCY_KINDS; kind++)
			histogram_put(&endpoint_stats[found].latency[kind], &nothing);
	}
	if (found >= 0)
		endpoints[found].users++;
	LWLockRelease(dbpool_shared->pools_lock);
	return found;
}

void
endpoint_unuse(int endpoint)
{
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	Assert(endpoint_shared(endpoint)->users > 0);
	endpoint_shared(endpoint)->users--;
	LWLockRelease(dbpool_shared->pools_lock);
}

/* Is it half-open only because nobody has wanted to log in any more?  With its mutex, or a copy. */
bool
endpoint_is_calm(const EndpointShared *entry, Ticks now)
{
	return entry->state == ENDPOINT_HALF_OPEN && entry->logins == 0 && entry->in_row == 0 &&
		now >= ticks_plus_ms(Max(Max(entry->answered_at, entry->crowded_at), entry->state_since), ENDPOINT_CALM_MS);
}

/* --- what follows down to the next such line is called with the mutex held ---------- */

static void
move(EndpointShared *entry, EndpointState to, Ticks now)
{
	if (entry->state == to)
		return;
	if (to == ENDPOINT_OPEN)
		entry->times_opened++;
	if (to == ENDPOINT_CLOSED)
		entry->opened = 0;
	if (to == ENDPOINT_HALF_OPEN)
		entry->allowed = 1;
	if (entry->state == ENDPOINT_OPEN)
		entry->back_at = now;
	entry->state = to;
	entry->state_since = now;
}

static void
open_for_a_while(EndpointShared *entry, EndpointCost cost, Ticks now)
{
	double		jitter = 1.0 - OPEN_JITTER + 2 * OPEN_JITTER * pg_prng_double(&pg_global_prng_state);
	int			ms = ENDPOINT_OPEN_FIRST_MS << Min(entry->opened, 6);
	int			last_ms = Min(ms, (int) cost);

	/*
	 * who has no other and does not wait for that does not have the others
	 * wait longer
	 */
	if (entry->state != ENDPOINT_OPEN || now >= entry->next_at)
	{
		entry->opened++;
		entry->next_at = ticks_plus_ms(now, (int64) (Min(ms, ENDPOINT_OPEN_MOST_MS) * jitter));
	}
	entry->next_last_at = ticks_plus_ms(now, (int64) (last_ms * jitter));
	entry->next_awaited_at = ticks_plus_ms(now, (int64) (Min(last_ms, ENDPOINT_COST_LITTLE) * jitter));
	move(entry, ENDPOINT_OPEN, now);
}

static void
count(EndpointShared *entry, bool unwell, Ticks now)
{
	int64		second = now / 1000000;
	EndpointSecond *at = &entry->seconds[second % ENDPOINT_WINDOW_S];

	if (at->second != second)
	{
		at->second = second;
		at->well = 0;
		at->unwell = 0;
	}
	if (unwell)
		at->unwell++;
	else
		at->well++;
}

/* Did half of what came of late end badly? */
static bool
half_is_unwell(const EndpointShared *entry, Ticks now)
{
	int64		second = now / 1000000;
	int			well = 0;
	int			unwell = 0;

	for (int i = 0; i < ENDPOINT_WINDOW_S; i++)
	{
		if (entry->seconds[i].second <= second - ENDPOINT_WINDOW_S)
			continue;
		well += entry->seconds[i].well;
		unwell += entry->seconds[i].unwell;
	}
	return well + unwell >= ENDPOINT_WINDOW_LEAST && unwell >= well;
}

static void
note_unwell(EndpointShared *entry, const char *error, Ticks now)
{
	entry->in_row++;
	entry->failed_at = now;
	strlcpy(entry->error, error, sizeof(entry->error));
	count(entry, true, now);
}

/*
 * Has nobody been answered for so long that others need not wait for it?  Who has all the time in
 * the world, by his connect_timeout, is not to keep them out.
 */
static bool
is_slow(const EndpointShared *entry, Ticks now)
{
	return now >= ticks_plus_ms(entry->entered_at, ENDPOINT_SLOW_MS);
}

/* Is it OPEN, as far as that one is concerned who would enter?  *until: when to ask again. */
static bool
is_out(const EndpointShared *entry, EndpointEntry how, Ticks now, Ticks *until)
{
	Ticks		due = how.awaited ? entry->next_awaited_at : how.last ? entry->next_last_at : entry->next_at;

	*until = 0;
	if (entry->state != ENDPOINT_OPEN)
		return how.probe;		/* there is nothing to find out */
	if (entry->prober != 0 && !is_slow(entry, now))
	{
		/* its end is told; and just in case */
		*until = ticks_plus_ms(now, ENDPOINT_OPEN_FIRST_MS);
		return true;
	}
	*until = due;
	if (how.probe)
		return now < due;
	return now < ticks_plus_ms(due, ENDPOINT_FORSAKEN_MS);
}

static EndpointVerdict
verdict(EndpointShared *entry, EndpointEntry how, Ticks now, Ticks *until)
{
	int			allowed;

	if (endpoint_is_calm(entry, now))
		move(entry, ENDPOINT_CLOSED, now);
	allowed = entry->state == ENDPOINT_HALF_OPEN ? entry->allowed : 1;
	if (is_out(entry, how, now, until))
		return ENDPOINT_IS_OUT;
	*until = ticks_plus_ms(now, ENDPOINT_AGAIN_MS);
	if (dbpool_max_connections_per_endpoint > 0 &&
		entry->conns >= dbpool_max_connections_per_endpoint)
		return ENDPOINT_IS_FULL;
	/* one that is OPEN will be HALF_OPEN by this */
	if (entry->state != ENDPOINT_CLOSED && entry->logins >= allowed && !is_slow(entry, now))
	{
		entry->crowded_at = now;
		return ENDPOINT_IS_CROWDED;
	}
	*until = 0;
	return ENDPOINT_ENTERED;
}

/* --- until here ---------------------------------------------------------------------- */

/*
 * What would endpoint_enter() say?  *until is when to ask again of one that is out; 0: it
 * does not change by time.
 */
EndpointVerdict
endpoint_look(int endpoint, EndpointEntry how, Ticks now, Ticks *until)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	EndpointVerdict result;

	SpinLockAcquire(&entry->mutex);
	result = verdict(entry, how, now, until);
	SpinLockRelease(&entry->mutex);
	return result;
}

/* Begin to log in, if that may be. */
EndpointVerdict
endpoint_enter(int endpoint, EndpointEntry how, int worker, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	EndpointVerdict result;
	Ticks		until;

	SpinLockAcquire(&entry->mutex);
	result = verdict(entry, how, now, &until);
	if (result == ENDPOINT_ENTERED)
	{
		if (how.probe)
			entry->prober = worker + 1;
		else if (entry->state == ENDPOINT_OPEN)
			move(entry, ENDPOINT_HALF_OPEN, now);
		entry->conns++;
		entry->logins++;
		entry->entered_at = now;
	}
	SpinLockRelease(&entry->mutex);
	return result;
}

/*
 * The login was answered: by a yes, or by a no that says nothing against the server.
 * Returns true when there may be news.
 */
bool
endpoint_answered(int endpoint, bool probe, EndpointRole role, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	bool		news;

	SpinLockAcquire(&entry->mutex);
	entry->logins--;
	if (probe)
		entry->prober = 0;
	entry->in_row = 0;
	entry->answered_at = now;
	entry->logins_answered++;
	count(entry, false, now);
	if (role != ENDPOINT_ROLE_UNKNOWN)
		entry->role = role;
	if (entry->state == ENDPOINT_OPEN)
		move(entry, ENDPOINT_HALF_OPEN, now);
	else if (entry->state == ENDPOINT_HALF_OPEN && (entry->allowed *= 2) >= ENDPOINT_ALLOWED_MOST)
		move(entry, ENDPOINT_CLOSED, now);
	news = entry->state != ENDPOINT_CLOSED || entry->told != ENDPOINT_CLOSED;
	SpinLockRelease(&entry->mutex);
	return news;
}

/*
 * The login has failed, and that speaks against the server.  Returns true when there is
 * news.
 */
bool
endpoint_failed(int endpoint, bool probe, EndpointCost cost, const char *error, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	bool		news;

	SpinLockAcquire(&entry->mutex);
	entry->logins--;
	if (probe)
		entry->prober = 0;
	entry->logins_failed++;
	note_unwell(entry, error, now);
	/* of those that were under way when it opened, the first one counts */
	if (probe || entry->state == ENDPOINT_HALF_OPEN ||
		(entry->state == ENDPOINT_CLOSED &&
		 (entry->in_row >= ENDPOINT_IN_ROW || half_is_unwell(entry, now))))
		open_for_a_while(entry, cost, now);
	news = entry->state != ENDPOINT_CLOSED;
	SpinLockRelease(&entry->mutex);
	return news;
}

/* The login has ended for reasons of our own. */
void
endpoint_nothing_learned(int endpoint, bool probe, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);

	SpinLockAcquire(&entry->mutex);
	entry->logins--;
	if (probe)
	{
		/* another pool may try; not this one at once, over and over */
		entry->prober = 0;
		entry->next_at = ticks_plus_ms(now, ENDPOINT_COST_LITTLE);
		entry->next_last_at = entry->next_at;
		entry->next_awaited_at = entry->next_at;
	}
	SpinLockRelease(&entry->mutex);
}

/* An open connection was lost, and that speaks against the server.  Likewise. */
bool
endpoint_lost(int endpoint, const char *error, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	bool		news = false;

	SpinLockAcquire(&entry->mutex);
	entry->losses++;
	/* what was before is over, though nobody has looked since */
	if (endpoint_is_calm(entry, now))
		move(entry, ENDPOINT_CLOSED, now);
	note_unwell(entry, error, now);
	if (entry->state == ENDPOINT_CLOSED &&
		(entry->in_row >= ENDPOINT_IN_ROW || half_is_unwell(entry, now)))
	{
		move(entry, ENDPOINT_HALF_OPEN, now);
		news = true;
	}
	SpinLockRelease(&entry->mutex);
	return news;
}

/*
 * A human has said that it is well, or may be.  Connections are opened one by one.
 * Likewise.
 */
bool
endpoint_recheck(int endpoint, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	bool		news;

	SpinLockAcquire(&entry->mutex);
	news = entry->state == ENDPOINT_OPEN;
	if (news)
		move(entry, ENDPOINT_HALF_OPEN, now);
	SpinLockRelease(&entry->mutex);
	return news;
}

/* A connection that had entered is closed. */
void
endpoint_exit(int endpoint)
{
	EndpointShared *entry = endpoint_shared(endpoint);

	SpinLockAcquire(&entry->mutex);
	entry->conns--;
	SpinLockRelease(&entry->mutex);
}

/* A worker ends with so many connections there, and logins. */
void
endpoint_give_back(int endpoint, int worker, int conns, int logins, Ticks now)
{
	EndpointShared *entry = endpoint_shared(endpoint);

	SpinLockAcquire(&entry->mutex);
	entry->conns -= conns;
	entry->logins -= logins;
	if (entry->prober == worker + 1)
	{
		entry->prober = 0;
		entry->next_at = now;
		entry->next_last_at = now;
		entry->next_awaited_at = now;
	}
	SpinLockRelease(&entry->mutex);
	endpoint_unuse(endpoint);
}

/*
 * Has its state changed since that was last told?  Then it is for the caller to tell, by
 * the copy.
 */
bool
endpoint_take_news(int endpoint, EndpointShared *copy)
{
	EndpointShared *entry = endpoint_shared(endpoint);
	bool		news;

	SpinLockAcquire(&entry->mutex);
	news = entry->told != entry->state;
	entry->told = entry->state;
	if (news)
		memcpy(copy, entry, sizeof(EndpointShared));
	SpinLockRelease(&entry->mutex);
	return news;
}
