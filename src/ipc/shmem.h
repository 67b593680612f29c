/*
 * shmem.h
 *	  The shared memory of dbpool: workers, pools, connections, requests.
 *
 * All of it is set up at preload and of a fixed size.  It holds no pointers
 * but one, into PostgreSQL's own shared memory (pools_lock), which lies at the
 * same place in all processes; else offsets and indexes.  There are these arrays:
 *
 *	 WorkerShared	one per worker: is it alive, who wants its attention
 *	 PoolShared		one per pool that was ever used, and worker of it: what the
 *					views show, and what backends want done to it; outlives the
 *					worker
 *	 PoolStats		beside each PoolShared: how long its calls took (stats.h)
 *	 PoolSamples	likewise: what it did in each minute of the last hour (samples.h)
 *	 ConnShared		one per open connection: what the views show
 *	 RequestSlot	one per statement that a backend has with a worker, with
 *					its two rings (request.h)
 *	 LeaseShared	one per transaction that a session has on a connection
 *					(lease.h)
 *	 EndpointShared	one per host and port that pools lead to (endpoint.h)
 *	 StatementShared	one per statement of which there are statistics (statements.h)
 *
 * Locks: DbpoolShared.pools_lock protects which PoolShared entries are in use
 * and by what key; each entry's mutex protects the rest of it.  Nothing that
 * can wait or throw runs under a mutex, nothing but copying under the lock.
 *
 * PAUSES, DISABLED POOLS AND RESETS, WHICH ARE WAITED FOR
 *
 *	 1. A session writes the ticket of its pause into the entries of all pools of the
 *		server, and has their workers look (POOL_WANT_LOOK).  Entries that are made
 *		later take it from those (pool_take_entry()).
 *	 2. A worker that has taken it over starts nothing from the pool's queues any more.
 *		What belongs to open leases goes to their connections as before, so that they
 *		come to their ends.
 *	 3. When all connections of the pool are idle or being opened, the worker writes the
 *		ticket into "rested", and signals pools_cv.  That stays true as long as the
 *		pause does.
 *	 4. The session sleeps on pools_cv until it is so of all entries.  An entry that is
 *		not live, or whose worker is not there, has no connections.
 *	 5. A session that fails before, or is cancelled, or ends, takes its own pause back:
 *		the ticket tells that it is still that one.  Others, who have found the pool
 *		paused and wait as well, see that the ticket has gone.
 * A pool that is disabled, or drained, goes the same way, with the tickets "disabled" and
 * "drained", but that the worker refuses what comes and what waits.  When a session has
 * no entry to write into, as nobody has used the server, it takes one itself.  One that is
 * isolated is disabled by a ticket with TICKET_ISOLATES.
 * A reset goes the same way: the stamp of a POOL_WANT_RESET stands in "reset"; when no
 * connection is left from before the worker has seen it, it is written into "renewed".
 * That cannot be taken back.
 */
#ifndef DBPOOL_SHMEM_H
#define DBPOOL_SHMEM_H

#include "clock.h"
#include "dbpool.h"
#include "fault.h"
#include "ipc/alert.h"
#include "ipc/quota.h"
#include "ipc/errand.h"
#include "ipc/news.h"
#include "ipc/samples.h"
#include "ipc/stats.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

/*
 * What makes two requests use the same pool.  xid is that of the transaction
 * which sees a definition not committed yet, and which therefore has a pool of
 * its own; InvalidTransactionId otherwise.  No padding: it is a hash key.
 */
typedef struct PoolKey
{
	Oid			dbid;
	Oid			serverid;
	Oid			userid;			/* of the user mapping; 0 for PUBLIC's */
	TransactionId xid;
} PoolKey;

StaticAssertDecl(sizeof(PoolKey) == 3 * sizeof(Oid) + sizeof(TransactionId),
				 "a PoolKey is hashed and compared by its bytes, and has no gaps");

typedef enum ConnState
{
	CONN_CONNECTING = 0,		/* name look-up, log-in, session settings */
	CONN_IDLE,					/* free, the remote has nothing of us to do */
	CONN_CHECKING,				/* a round trip shows whether it still works */
	CONN_BUSY,					/* runs the statement of a request */
	CONN_LEASED,				/* in a transaction of a session, which runs
								 * nothing now */
	CONN_CANCELLING,			/* its request is gone, the remote may still
								 * run it */
	CONN_RESETTING,				/* the session's state is being put back */
	CONN_CLOSED					/* freed at the end of the loop's turn */
} ConnState;

#define CONN_NSTATES	(CONN_CLOSED + 1)

typedef struct WorkerShared
{
	/* Written by the worker: 0 while there is none. */
	pg_atomic_uint32 pid;
	/* Written by the worker, valid while pid is set. */
	pg_atomic_uint32 procno;
	/* How often this worker has started.  Written by the worker. */
	pg_atomic_uint32 starts;
	/* Some pool has "wants" for the worker.  Set by backends, cleared by it. */
	pg_atomic_uint32 pools_attention;
	/* Some lease was released.  Likewise. */
	pg_atomic_uint32 leases_attention;
	/* The state of some endpoint has changed.  Likewise, by other workers. */
	pg_atomic_uint32 endpoints_attention;
	/* Written by the worker; for dbpool_workers, torn reads do no harm. */
	Ticks		started_at;
	Ticks		ended_at;		/* the process before */
	uint64		requests;
	uint64		wakeups;
	/* Signalled when the worker is ready. */
	ConditionVariable started_cv;
} WorkerShared;

/* What a backend wants done to a pool: bits of PoolShared.wants. */
#define POOL_WANT_FORGET	0x01	/* the definition changed */
#define POOL_WANT_DROP		0x08	/* and is gone; together with FORGET */
#define POOL_WANT_RESET		0x02	/* close all connections */
/* In the ticket of a pool that is disabled: it is refused as if its remote could not be reached. */
#define TICKET_ISOLATES		(UINT64CONST(1) << 63)

#define POOL_WANT_LOOK		0x04	/* paused or disabled was changed */
#define POOL_WANT_RELOAD	0x40	/* look the definition up again, and
									 * replace connections as they come free */
#define POOL_WANT_KILL		0x20	/* at once; together with RESET */
#define POOL_WANT_UNPREPARE	0x10	/* the remote's schema has changed:
									 * prepare all statements anew */

typedef struct PoolCounters
{
	uint64		statements;		/* ended well */
	uint64		errors;			/* ended with an error */
	uint64		timeouts;		/* gave up waiting for a connection */
	uint64		cancels;		/* given up by their sessions */
	uint64		repeats;		/* sent again, unseen by their sessions */
	uint64		retries;		/* tried again, see worker/retry.c */
	uint64		retries_refused;	/* not, as the budget was used up */
	uint64		hedged;			/* copies sent, see worker/hedge.c */
	uint64		hedge_wins;		/* that have answered first */
	uint64		refused;		/* came when max_waiting others waited */
	uint64		shed;			/* turned away while they waited */
	uint64		fallbacks;		/* run on another pool, which their sessions
								 * count */
	uint64		connects;
	uint64		connect_failures;
	uint64		connect_us;
	uint64		waited;			/* requests that had to wait */
	uint64		wait_us;
	uint64		wait_max_us;
	uint64		exec_us;
	uint64		exec_max_us;
	uint64		rows;
	uint64		bytes_sent;
	uint64		bytes_received;
	uint64		begun;			/* transactions of leases; each ends as one of
								 * the next three */
	uint64		committed;
	uint64		rolled_back;
	uint64		in_doubt;		/* the connection was lost after PREPARE was
								 * sent, and before what ends it was answered */
	uint64		prepared;		/* those that a PREPARE was answered for */
	uint64		resolved;		/* prepared ones that a resolver has ended, or
								 * a human; by whom they are counted */
	uint64		transaction_us; /* of those that have ended */
	uint64		transaction_max_us;
	uint64		unserved;		/* ended with an error otherwise than by an
								 * answer, and are not in errors */
	uint64		busy_us;		/* of all connections together, up to conns_at */
	Ticks		reset_at;
	TimeSplit	split;			/* but for what sessions add, see PoolStats */
	MinutePiece minute[MINUTE_PIECES];
} PoolCounters;

/* Lines about a pool's slow statements in the log, see backend/slow.c. */
typedef struct SlowLines
{
	int64		second;			/* in which there were so many: */
	int			n;
	uint64		left_out;		/* since the last one */
} SlowLines;

typedef struct PoolShared
{
	int			index;			/* of this entry, constant */

	/* The next four: pools_lock, exclusive to change, shared to read. */
	bool		in_use;
	int			worker;
	PoolKey		key;
	Oid			owner;			/* who is limited for it, or invalid */

	/*
	 * How many workers the pool has.  Only that of its first worker counts,
	 * which writes it.
	 */
	pg_atomic_uint32 workers;

	slock_t		mutex;			/* protects all that follows */
	bool		live;			/* does the worker have it in memory? */
	uint64		paused;			/* ticket of the pause, see below; 0: it is
								 * not */
	uint64		rested;			/* the last pause in which nothing ran any
								 * more */
	uint64		disabled;		/* the same of dbpool_disable() and
								 * dbpool_isolate() */
	uint64		drained;		/* and the last one in which nothing ran any
								 * more */
	uint64		reset;			/* stamp of the last POOL_WANT_RESET */
	uint64		renewed;		/* the last one from before which no
								 * connection is left */
	bool		dropped;		/* its server is gone: not shown, may be
								 * reused */
	uint64		forget_stamp;	/* definitions with lower stamps are not true
								 * any more */
	uint32		wants;
	NameData	server;
	NameData	username;		/* of the mapping; "public" for PUBLIC's */
	int			min_size;
	int			max_size;
	int			leak_threshold; /* milliseconds; 0: never */
	int			conns[CONN_NSTATES];
	Ticks		conns_at;		/* since when they are that */
	int			waiting;
	Ticks		oldest_wait;	/* 0 when nobody waits */
	Ticks		used_at;
	Ticks		connected_at;	/* last successful connect */
	Ticks		connect_failed_at;
	Ticks		unwell_at;		/* the same, when that failed as all places
								 * were unwell; else what it was before */
	char		connect_error[DBPOOL_SHOWN_ERROR];
	Ticks		fell_back_at;	/* last time that a call was run on another
								 * pool */
	Ticks		degraded_since; /* it is served by standbys, see
								 * worker/degraded.c; or 0 */
	int			nendpoints;		/* where it leads to, see endpoint.h */
	int			endpoints[DBPOOL_MAX_PLACES];
	SlowLines	slow;			/* sessions write it */
	PoolCounters counters;
	AlertShared alerts[ALERT_POOL_KINDS];	/* of a pool that is split, in the
											 * entry of its first worker */
} PoolShared;

typedef struct ConnShared
{
	slock_t		mutex;			/* protects all of it */
	bool		in_use;
	int			worker;
	int			pool;			/* index of its PoolShared */
	Oid			owner;			/* who is limited for it, or invalid */
	ConnState	state;
	int			remote_pid;
	int			local_pid;		/* backend whose statement it runs, or 0 */
	Oid			roleid;			/* role whose statement sql is */
	bool		tls;
	Ticks		connected_at;
	Ticks		state_since;
	uint64		statements;
	NameData	address;		/* host or socket folder, cut if long */
	int			port;
	int			encoding;		/* of sql */
	char		sql[DBPOOL_SHOWN_SQL];

	/* Written by the worker without the mutex. */
	int			in_flight;		/* statements under way */
	int			prepared;		/* statements prepared */
} ConnShared;

/* A run of migrations, for dbpool_progress_migrate; the session writes it. */
typedef struct MigrateShared
{
	slock_t		mutex;			/* protects all of it */
	int			pid;			/* 0: not in use */
	Oid			dbid;
	Oid			roleid;			/* who migrates */
	NameData	pool;
	int			encoding;		/* of name */
	char		phase[32];
	bool		down;
	char		version[64];	/* empty: none yet; cut when longer */
	char		name[DBPOOL_SHOWN_TARGET];
	int			migrations_total;
	int			migrations_done;
	int			statements_total;	/* of the present migration */
	int			statements_done;
	Ticks		started_at;
} MigrateShared;

/* Of so many it is remembered that they were committed; a power of two. */
#define COMMITTED_GIDS	4096

typedef struct DbpoolShared
{
	LWLock	   *pools_lock;
	int			nworkers;
	int			nrequests;
	int			npools;
	int			nconns;
	Ticks		started_at;		/* when the server was */

	/*
	 * What to add to Ticks for the time of the day that views show.
	 */
	pg_atomic_uint64 shown_offset;

	/*
	 * Stamps for definitions, in the order in which they were read from the
	 * catalogs: of two different ones for a pool, the higher stamp is newer.
	 */
	pg_atomic_uint64 definition_stamp;

	/*
	 * The highest forget_stamp of any pool: that of pools whose entries are
	 * made later.  Protected by pools_lock.
	 */
	uint64		forget_stamp;

	/*
	 * Signalled when a worker frees a slot whose backend had given it up, and
	 * when the connection of a lease has nothing to do any more.
	 */
	ConditionVariable slot_freed_cv;

	/*
	 * Signalled when somebody who waits for a pause, or a reset, may look
	 * again.
	 */
	ConditionVariable pools_cv;

	/* Tickets that put requests into the order of their coming. */
	pg_atomic_uint64 request_ticket;

	/* Requests under way, by role; see quota.c. */
	pg_atomic_uint64 roles[QUOTA_ROLES];

	/* Recorders of ordinary roles: the role, and whose the place is; or 0. */
	pg_atomic_uint64 recorders[QUOTA_RECORDERS];

	/* Prepared transactions that were committed of late: numbers of gids. */
	pg_atomic_uint64 committed_gids[COMMITTED_GIDS];

	/* What has to be done in databases; and one of them wants something. */
	slock_t		errands_mutex;
	ErrandShared errands[ERRAND_KINDS][ERRAND_DATABASES];
	pg_atomic_uint32 errands_attention;

	/* What is wrong, not with one pool. */
	slock_t		alerts_mutex;
	AlertShared alerts[ALERT_SERVER_KINDS];

	/* When the samples were taken that there are; see samples.h. */
	SpansShared spans;

	/* What those who listen have not been told yet; see news.c. */
	NewsShared	news;

	/* Those that find no place are not shown. */
	MigrateShared migrations[DBPOOL_SHOWN_MIGRATIONS];

#ifdef DBPOOL_FAULTS
	FaultShared faults;
#endif
} DbpoolShared;

StaticAssertDecl(offsetof(PoolShared, mutex) > offsetof(PoolShared, workers),
				 "what stands before the mutex is not protected by it");
StaticAssertDecl(CONN_NSTATES <= 8, "a set of states of a connection fits into a byte");

extern DbpoolShared *dbpool_shared;

/* Arrays in it; for shmem.c and shared.c alone. */
extern WorkerShared *shmem_workers;
extern PoolShared *shmem_pools;
extern ConnShared *shmem_conns;

extern void shmem_register(void);
extern WorkerShared *shmem_worker(int worker);
extern int	shmem_worker_pid(int worker);
extern PoolShared *shmem_pool(int pool);
extern ConnShared *shmem_conn(int conn);
extern int	shmem_busy_conns(const PoolShared *pool);

/* pool_entry.c */
#define POOL_TOO_MANY			(-1)
#define POOL_OWNER_HAS_ENOUGH	(-2)
extern int	pool_take_entry(const PoolKey *key, Oid owner, int worker, bool live, int *first);
extern int	pool_entries_taken(void);
extern void pool_set_owner(PoolShared *entry, Oid owner);

extern void shmem_count_resolved(const PoolKey *key);
extern void pool_count_fallback(const PoolKey *key);
extern const char *conn_state_name(ConnState state);

/* stats_file.c */
extern void stats_file_save(int code, Datum arg);
extern void stats_file_load(void);

extern int	shmem_first_worker(const PoolKey *key);
extern int	shmem_first_entry(int index);
extern void shmem_wake_worker(int worker);

extern uint64 shmem_want(bool (*matches) (const PoolKey *key, void *arg),
						 void *arg, uint32 want);

#endif							/* DBPOOL_SHMEM_H */
