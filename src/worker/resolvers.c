/*
 * resolvers.c
 *	  The first worker has the resolvers of databases started, see ipc/resolver.h.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "ipc/resolver.h"
#include "worker/worker.h"

/* Milliseconds between two starts for a database. */
#define RESOLVER_PAUSE_MS	2000

/* One that has not come so long after its start is started again. */
#define RESOLVER_LOST_MS	30000

/* How often a standby looks whether it has been promoted. */
#define PROMOTED_MS			2000

static Timer again;
static Timer promoted;
static void (*start_warmer) (void);

static void
start_resolver(ResolverShared *entry, Ticks now)
{
	Oid			dbid = pg_atomic_read_u32(&entry->dbid);
	BackgroundWorker bgw;

	dbpool_fill_bgworker(&bgw, "dbpool_resolve_main", "dbpool resolver", 0);
	snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "dbpool resolver for database %u", dbid);
	memcpy(bgw.bgw_extra, &dbid, sizeof(dbid));
	entry->started_at = now;
	if (!RegisterDynamicBackgroundWorker(&bgw, NULL))
		ereport(LOG,
				(errmsg("dbpool cannot resolve prepared transactions of database %u now", dbid),
				 errdetail("There is no place for a background worker."),
				 errhint("Raise max_worker_processes.")));
}

/* Start those that are wanted and do not run; those that have just been, a little later. */
static void
look_for_wanted(void *owner)
{
	Ticks		now = ticks_now();

	(void) owner;
	for (int i = 0; i < RESOLVER_DATABASES; i++)
	{
		ResolverShared *entry = &dbpool_shared->resolvers[i];
		Ticks		due;

		if (pg_atomic_read_u32(&entry->dbid) == 0)
			break;
		if (pg_atomic_read_u32(&entry->wanted) == 0 || pg_atomic_read_u32(&entry->pid) != 0)
			continue;
		due = entry->started_at == 0 ? now : ticks_plus_ms(entry->started_at, RESOLVER_PAUSE_MS);
		if (now >= due)
		{
			start_resolver(entry, now);
			due = ticks_plus_ms(now, RESOLVER_LOST_MS);
		}
		timer_set_by(&again, due);
	}
}

/* An error here is nobody's but this: it is tried again. */
static void
recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
	timer_set(&again, ticks_plus_ms(ticks_now(), RESOLVER_PAUSE_MS));
}

/* What a standby has of such transactions is its own only when it is promoted. */
static void
look_promoted(void *owner)
{
	(void) owner;
	if (RecoveryInProgress())
		timer_set(&promoted, ticks_plus_ms(ticks_now(), PROMOTED_MS));
	else
		start_warmer();
}

/* warmer starts the process that knows which databases want a resolver. */
void
resolvers_init(void (*warmer) (void))
{
	start_warmer = warmer;
	timer_init(&again, look_for_wanted, recover, NULL);
	timer_init(&promoted, look_promoted, recover, NULL);
	if (my_worker == 0 && RecoveryInProgress())
		timer_set(&promoted, ticks_plus_ms(ticks_now(), PROMOTED_MS));
}

void
resolvers_look(void)
{
	if (my_worker != 0 || pg_atomic_read_u32(&dbpool_shared->resolvers_attention) == 0)
		return;
	pg_atomic_exchange_u32(&dbpool_shared->resolvers_attention, 0);
	(void) work_guard(look_for_wanted, NULL, recover, NULL);
}
