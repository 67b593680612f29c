/*
 * split.c
 *	  A pool whose load is more than one worker can bear gets several.
 *
 * A pool starts with one worker, its first, which follows from its key.  When
 * that one needs most of a processor, its busiest pool is split over as many
 * workers as there are, or as have two of its connections each, and stays so.  Sessions
 * spread by their numbers; they learn how many workers there are from the END
 * of each answer, and one that asks a worker in vain is sent back to the first.
 *
 * Each worker of a split pool has its share of max_size and min_size, so that
 * together they never have more.  The others have a share of none until the
 * home has closed what goes beyond its own; if it cannot, for statements that
 * run long, nothing is split for now.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "access/transam.h"
#include "worker/connection.h"
#include "worker/worker.h"

/* How often the load is looked at. */
#define LOOK_US		1000000

static Timer look;
static Ticks looked_at;
static int64 used_us;
static uint64 taken;

/* Microseconds of processor time that this process has used. */
static int64
processor_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64CONST(1000000) +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

/* The first worker may have closed what is too much: then the others can begin. */
void
pool_split_progress(Pool *pool)
{
	int			workers;

	if (pool->splits_to == 0 || pool_size(pool) > pool_max(pool))
		return;
	workers = pool->splits_to;
	pg_atomic_write_u32(&pool->shared->workers, (uint32) workers);
	pool->splits_to = 0;
	ereport(LOG,
			(errmsg("dbpool worker %d is busy: pool \"%s\" now has %d workers",
					my_worker + 1, NameStr(pool->options.server), workers)));
}

/* Begin to split: from now on it has its share only. */
static void
split(Pool *pool)
{
	int			too_many;
	dlist_mutable_iter iter;

	pool->splits_to = pool_workers_most(pool);
	too_many = pool_size(pool) - pool_max(pool);
	dlist_foreach_modify(iter, &pool->conns[CONN_IDLE])
	{
		if (too_many-- <= 0)
			break;
		conn_close(dlist_container(Conn, node, iter.cur), "another worker shares the pool");
	}
	/* those that are never idle under load get nobody else until they are */
	dlist_foreach_modify(iter, &pool->conns[CONN_BUSY])
	{
		if (too_many-- <= 0)
			break;
		dlist_container(Conn, node, iter.cur)->flights.joinable = false;
	}
	pool_split_progress(pool);
	if (pool->splits_to > 0 && !look.armed)
		timer_set(&look, ticks_now() + LOOK_US);
}

/*
 * A split that has not come about by the next look is given up: something holds
 * the connections that were to be closed, and others want them meanwhile.
 */
static void
settle_split(Pool *pool)
{
	if (pool->splits_to == 0)
		return;
	pool_split_progress(pool);
	pool->splits_to = 0;
	pool_mark(pool);
}

static Pool *busiest;

static void
find_busiest(Pool *pool)
{
	if (busiest == NULL || pool->taken > busiest->taken)
		busiest = pool;
}

static void
forget_taken(Pool *pool)
{
	pool->taken = 0;
}

/*
 * Can the first worker do with its share?  Not when transactions, and statements that
 * have connections to themselves, would take all of it, and leave none to the rest.
 */
static bool
has_room(Pool *pool)
{
	int			taken_alone = pool->nconns[CONN_CHECKING] + pool->nconns[CONN_LEASED] +
	pool->nconns[CONN_CANCELLING] + pool->nconns[CONN_RESETTING];
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_BUSY])
		taken_alone += !dlist_container(Conn, node, iter.cur)->flights.joinable;
	return taken_alone < pool->options.max_size / pool_workers_most(pool);
}

/* Is this worker at its limit, and would it help to split a pool? */
static void
look_at_load(void *arg)
{
	Ticks		now = ticks_now();
	int64		used = processor_us();
	double		percent = (used - used_us) * 100.0 / Max(now - looked_at, 1);
	int			place;

	(void) arg;
	pools_foreach(settle_split);
	busiest = NULL;
	pools_foreach(find_busiest);
	/* the first look after a rest spans the rest */
	if (looked_at != 0 && now - looked_at < 2 * LOOK_US &&
		percent >= dbpool_split_threshold && busiest != NULL &&
		busiest->taken * 2 > taken && pool_workers_most(busiest) > 1 &&
		busiest->definition != NULL && !TransactionIdIsValid(busiest->key.xid) &&
		busiest->splits_to == 0 && pool_workers(busiest, &place) == 1 && place == 0 &&
		has_room(busiest))
		split(busiest);
	pools_foreach(forget_taken);
	taken = 0;
	looked_at = now;
	used_us = used;
}

/* A request was taken: look at the load, as long as there are requests. */
void
split_count(Pool *pool)
{
	if (dbpool_shared->nworkers == 1)
		return;
	pool->taken++;
	taken++;
	if (!look.armed)
		timer_set(&look, ticks_now() + LOOK_US);
}

void
split_init(void)
{
	timer_init(&look, look_at_load, NULL, NULL);
}
