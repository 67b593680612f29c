/*
 * worker.h
 *	  What the files of a worker share: the structs of its process.
 *
 * THE CAST
 *
 *	 Request  a slot of shared memory as the worker sees it (request.c)
 *	 Pool	  a foreign server seen through a user mapping (pool.c)
 *	 Conn	  a connection of a pool (connection*.c)
 *
 * A connection's state is the list of its pool it is in; conn_move() is the
 * one function that moves it.  A request that waits is in its pool's waiters;
 * one that runs is in the running list of its connection, the head of which
 * is the one whose answer comes next.  (There is at most one so far.)
 */
#ifndef DBPOOL_WORKER_H
#define DBPOOL_WORKER_H

#include "dbpool.h"
#include "ipc/message.h"
#include "ipc/request.h"
#include "ipc/shmem.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "worker/timer.h"

struct pg_conn;
struct pg_result;
struct OffloadJob;
typedef struct Pool Pool;
typedef struct Conn Conn;
typedef struct Request Request;

/* Number of this worker, from 0. */
extern int	my_worker;

/* For what outlives a turn of the loop; CurrentMemoryContext ends with it. */
extern MemoryContext worker_context;

struct Request
{
	RequestSlot *slot;
	bool		active;			/* the rest is valid only when set */
	bool		ending;			/* its END frame has been put */
	bool		failed;			/* an error has been put */
	bool		answered;		/* a result or an error has come to an end */
	bool		put;			/* something has been put for the backend */
	bool		queued;			/* is in pool->waiters */
	int			attempts;		/* connections that proved dead under it */
	dlist_node	node;			/* in pool->waiters or conn->running */
	Pool	   *pool;			/* NULL until it is queued */
	Conn	   *conn;			/* while checking or running for it */
	Timer		deadline;		/* for getting a connection */
	TimestampTz queued_at;
	TimestampTz started_at;		/* 0 before it runs */
	int64		remote_us;		/* time the remote took */

	/* The request's parts, in the up ring or in large. */
	const char *definition;
	const char *sql;
	const char *params;
	char	   *large;
	Size		received;

	/* Frames for which the down ring had no room yet. */
	StringInfoData out;
	uint64		rows;
	uint64		bytes;
};

struct Pool
{
	PoolKey		key;			/* hash key */
	int			index;			/* of its PoolShared */
	PoolShared *shared;
	char	   *definition;		/* NULL after it was forgotten */
	Size		definition_len;
	uint64		stamp;			/* how new the definition is */
	PoolOptions options;
	uint32		generation;		/* grows when connections must be made anew */
	bool		paused;
	dlist_head	conns[CONN_NSTATES];
	int			nconns[CONN_NSTATES];
	dlist_head	waiters;		/* by ticket */
	int			nwaiting;
	Timer		upkeep;			/* pool_grow() wants to look again */
	TimestampTz used_at;
	int			cancels;		/* threads that cancel for it */
	int			failures;		/* connects that failed in a row */
	TimestampTz retry_at;		/* no connect before, while others work */
	TimestampTz failed_at;
	char		error[DBPOOL_SHOWN_ERROR];	/* of the last connect that failed */
	double		connect_us;		/* moving averages; 0 when unknown */
	double		exec_us;
};

/* Number of settings in Conn.settings. */
#define CONN_REPORTED	7

typedef enum ConnPhase
{
	PHASE_LOOKUP,				/* waits for host names */
	PHASE_LOGIN,				/* PQconnectPoll() */
	PHASE_SETTINGS				/* our SET commands */
} ConnPhase;

struct Conn
{
	dlist_node	node;			/* in pool->conns[state] */
	dlist_node	all_node;		/* in the loop's list of all */
	Pool	   *pool;
	ConnState	state;
	ConnPhase	phase;			/* while CONNECTING */
	uint32		generation;
	int			index;			/* of its ConnShared */
	ConnShared *shared;
	struct pg_conn *pg;
	dlist_head	running;		/* of Request */
	TimestampTz opened_at;
	TimestampTz expires_at;		/* 0: never */
	TimestampTz used_at;		/* last time the remote answered */
	TimestampTz worked_at;		/* last time it ran a statement, or was opened */
	Timer		deadline;		/* of what it is doing */
	Timer		janitor;		/* while idle */

	/* the loop's */
	pgsocket	sock;
	uint32		wants;			/* events of the socket */
	int			position;		/* in the wait event set, -1 if not in it */

	/* connecting: places to try (connection_open.c) */
	struct Candidates *candidates;
	struct OffloadJob *lookup;
	StringInfoData errors;		/* what went wrong at each place */
	bool		used_password;
	bool		tls;

	/* running */
	bool		flushed;		/* libpq has handed all to the kernel */
	bool		dirty;			/* the session must be reset */
	bool		big;			/* libpq's buffers have grown large */
	bool		broken;			/* nothing more can be read from the socket */
	bool		shape_sent;
	bool		last_words;		/* remote said why it ends the connection */
	char		lost_error[DBPOOL_SHOWN_ERROR];
	char		lost_sqlstate[6];

	/* how the session looked when it was new; NULL for what is not reported */
	char	   *settings[CONN_REPORTED];

	/* a row that did not fit into the ring (connection_reply.c) */
	struct pg_result *rows;
	int			row;
	int			piece;
	Size		piece_off;

	/* cancelling */
	bool		cancel_waits;	/* for another cancel of the pool to end */
	struct OffloadJob *cancel;
	bool		cancel_ended;	/* the remote has taken it, or could not */
	bool		drained;		/* the statement has ended */
};

/* loop.c */
extern void loop_run(void);
extern bool loop_guard(void (*piece) (void *arg), void *arg, Conn *conn);
extern void loop_add(Conn *conn);
extern void loop_remove(Conn *conn);
extern void loop_socket(Conn *conn, pgsocket sock, uint32 wants);
extern void loop_want(Conn *conn, uint32 wants);

/* request.c */
extern void requests_init(void);
extern void requests_take(void);
extern void requests_release_all(void);
extern void request_put(Request *req, const void *data, Size len);
extern bool request_flush(Request *req);
extern void request_put_error(Request *req, const char *sqlstate,
							  const char *message, const char *detail,
							  const char *hint);
extern void request_fail(Request *req, const char *sqlstate,
						 const char *message, const char *detail,
						 const char *hint);
extern void request_stale(Request *req);
extern void request_end(Request *req);
extern void request_gone(Request *req);
extern void request_break(Request *req);

/* pool_entry.c */
extern int	pool_take_entry(const PoolKey *key);

/* pool.c */
extern void pools_init(void);
extern void pools_look(void);
extern void pool_submit(Request *req);
extern void pool_dispatch(Pool *pool);
extern void pool_requeue(Request *req);
extern void pool_leave_queue(Request *req);
extern void pool_waiter_left(Request *req);
extern void pool_conn_ready(Conn *conn);
extern void pool_back_off(Pool *pool);
extern void pool_works(Pool *pool);
extern void pool_conn_opened(Conn *conn);
extern void pool_conn_failed(Pool *pool, const char *sqlstate,
							 const char *message);
extern void pool_grow(Pool *pool);
extern int	pool_size(const Pool *pool);
extern void pool_close_idle(Pool *pool, const char *reason);
extern void pools_foreach(void (*fn) (Pool *pool));
extern void pool_remove(Pool *pool);

/* janitor.c: everything that happens by time */
extern void janitor_init_conn(Conn *conn);
extern void janitor_init_request(Request *req);
extern void janitor_init_pool(Pool *pool);
extern void janitor_conn_idle(Conn *conn);
extern void janitor_request_waits(Request *req);
extern TimestampTz janitor_lifetime_end(const Pool *pool, TimestampTz from);

#endif							/* DBPOOL_WORKER_H */
