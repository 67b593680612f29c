/*
 * errands.c
 *	  The first worker has processes started that do something in a database, see
 *	  ipc/errand.h.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "ipc/errand.h"
#include "ipc/news.h"
#include "worker/worker.h"

/*
 * Milliseconds between two starts for a database, also of one that has not come; after
 * failures twice as long, and so on, so many times.
 */
#define ERRAND_PAUSE_MS		2000
#define ERRAND_PAUSE_DOUBLES	4

/* How often a standby looks whether it has been promoted. */
#define PROMOTED_MS			2000

typedef struct ErrandRules
{
	const char *function;
	const char *type;			/* of process */
	int			at_a_time;		/* most of them */
	int			failures;		/* after so many in a row it is given up; 0:
								 * never */
	const char *cannot;			/* what cannot be done */
} ErrandRules;

static const ErrandRules rules[ERRAND_KINDS] = {
	[ERRAND_RESOLVE] = {"dbpool_resolve_main", "dbpool resolver", ERRAND_DATABASES, 0, "resolve prepared transactions of"},
	[ERRAND_NEWS] = {"dbpool_herald_main", "dbpool herald", 3, 5, "send notifications in"},
};

static Timer again;
static Timer promoted;
static void (*start_warmer) (void);

/* The log has been told that there was no place for a process. */
static bool complained;

static void
start_errand(ErrandKind kind, ErrandShared *entry, Ticks now)
{
	const ErrandRules *rule = &rules[kind];
	Oid			dbid = pg_atomic_read_u32(&entry->dbid);
	BackgroundWorker bgw;

	dbpool_fill_bgworker(&bgw, rule->function, rule->type, 0);
	snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "%s for database %u", rule->type, dbid);
	memcpy(bgw.bgw_extra, &dbid, sizeof(dbid));
	entry->started_at = now;
	if (RegisterDynamicBackgroundWorker(&bgw, NULL))
	{
		pg_atomic_fetch_add_u32(&entry->failures, 1);
		complained = false;
		return;
	}
	if (!complained)
		ereport(LOG,
				(errmsg("dbpool cannot %s database %u now", rule->cannot, dbid),
				 errdetail("There is no place for a background worker."),
				 errhint("Raise max_worker_processes.")));
	complained = true;
}

/* When one that is wanted, and does not run, is to be started. */
static Ticks
due_at(ErrandShared *entry)
{
	int			failures = (int) pg_atomic_read_u32(&entry->failures);

	if (entry->started_at == 0)
		return 0;
	return ticks_plus_ms(entry->started_at,
						 ERRAND_PAUSE_MS << Min(Max(failures - 1, 0), ERRAND_PAUSE_DOUBLES));
}

static bool
is_wanted(ErrandShared *entry)
{
	return pg_atomic_read_u32(&entry->wanted) != 0 && pg_atomic_read_u32(&entry->pid) == 0;
}

/* Those that run, and those that were started and may be about to. */
static int
count_running(ErrandKind kind, Ticks now)
{
	int			n = 0;

	for (int i = 0; i < ERRAND_DATABASES; i++)
	{
		ErrandShared *entry = &dbpool_shared->errands[kind][i];

		n += pg_atomic_read_u32(&entry->pid) != 0 || (is_wanted(entry) && now < due_at(entry));
	}
	return n;
}

static void
look_for_kind(ErrandKind kind, Ticks now)
{
	const ErrandRules *rule = &rules[kind];
	int			running = count_running(kind, now);

	for (int i = 0; i < ERRAND_DATABASES; i++)
	{
		ErrandShared *entry = &dbpool_shared->errands[kind][i];

		if (!is_wanted(entry))
			continue;
		if (now >= due_at(entry) && rule->failures > 0 && pg_atomic_read_u32(&entry->failures) >= (uint32) rule->failures)
		{
			pg_atomic_write_u32(&entry->failures, 0);
			pg_atomic_write_u32(&entry->wanted, 0);
			news_drop(pg_atomic_read_u32(&entry->dbid));
			continue;
		}
		if (now >= due_at(entry) && running < rule->at_a_time)
		{
			start_errand(kind, entry, now);
			running++;
		}
		/* those for which there are too many come when one ends */
		timer_set_by(&again, now < due_at(entry) ? due_at(entry) :
					 ticks_plus_ms(now, ERRAND_PAUSE_MS));
	}
}

/* Start those that are wanted and do not run; those that have just been, a little later. */
static void
look_for_wanted(void *owner)
{
	Ticks		now = ticks_now();

	(void) owner;
	for (int kind = 0; kind < ERRAND_KINDS; kind++)
		look_for_kind((ErrandKind) kind, now);
}

/* An error here is nobody's but this: it is tried again. */
static void
errands_recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
	timer_set(&again, ticks_plus_ms(ticks_now(), ERRAND_PAUSE_MS));
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

/* warmer starts the process that knows which databases want something. */
void
errands_init(void (*warmer) (void))
{
	start_warmer = warmer;
	timer_init(&again, look_for_wanted, errands_recover, NULL);
	timer_init(&promoted, look_promoted, errands_recover, NULL);
	if (my_worker != 0)
		return;
	/* the worker before this one may have left something undone */
	timer_set(&again, ticks_now());
	if (RecoveryInProgress())
		timer_set(&promoted, ticks_plus_ms(ticks_now(), PROMOTED_MS));
}

void
errands_look(void)
{
	if (my_worker != 0 || pg_atomic_read_u32(&dbpool_shared->errands_attention) == 0)
		return;
	pg_atomic_exchange_u32(&dbpool_shared->errands_attention, 0);
	(void) work_guard(look_for_wanted, NULL, errands_recover, NULL);
}
