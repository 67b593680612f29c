/*
 * worker.h
 *	  What the files of a worker share: the structs of its process.
 *
 * THE CAST
 *
 *	 Request  a slot of shared memory as the worker sees it (intake.c)
 *	 Pool	  a foreign server seen through a user mapping (pool.c)
 *	 Conn	  a connection of a pool (connection*.c)
 *
 *	 Flight	  something that was sent on a connection, until its answer is in
 *			  (flight.c)
 *
 * A connection's state is the list of its pool it is in; conn_move() is the
 * one function that moves it.  A request that waits is in one of its pool's
 * queues (queue.c); one that runs has a flight, and the first flight of a
 * connection is the one whose answer comes next.
 */
#ifndef DBPOOL_WORKER_H
#define DBPOOL_WORKER_H

#include "dbpool.h"
#include "ipc/home.h"
#include "ipc/message.h"
#include "ipc/request.h"
#include "ipc/shmem.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "pq/login.h"
#include "worker/statement.h"
#include "pq/wire.h"
#include "worker/poller.h"
#include "worker/timer.h"
#include "worker/work.h"

struct pg_conn;
struct pg_result;
struct OffloadJob;
typedef struct Pool Pool;
typedef struct Conn Conn;
typedef struct Flight Flight;
typedef struct Prepared Prepared;
typedef struct Batch Batch;
typedef struct Request Request;

/* Number of this worker, from 0. */
extern int	my_worker;

/* For what outlives a turn of the loop; CurrentMemoryContext ends with it. */
extern MemoryContext worker_context;

/* How often a request is given another connection when one proved dead under it. */
#define ATTEMPTS_MOST		3

/* How often a statement is sent again that failed for no fault of its own. */
#define REPEATS_MOST		5

/* From so many repeats on, it has a connection of its own. */
#define REPEATS_ALONE		2

/*
 * From so many on, it does without what is prepared: behind a pooler that may be
 * missing, or be there already, time and again.
 */
#define REPEATS_UNPREPARED	2

/*
 * Who has made a request, and reads the answer.  That goes into a ring in any case;
 * kinds differ in what else they are told.  None of these functions throws.
 */
typedef struct Answer
{
	/* where the frames go */
	Ring	   *(*ring) (const Request *req);
	/* it has got a connection; false: nobody waits for it any more */
	bool		(*started) (Request *req, const Conn *conn);
	/* it is without one again; likewise */
	bool		(*unstarted) (Request *req);
	/* there is something to be read, and no room, or no end so far */
	void		(*wake) (Request *req);
	/* all that will come is in the ring; nothing is known of the request here */
	void		(*ended) (Request *req);
	/* nobody waits for it any more; likewise */
	void		(*gone) (Request *req);
} Answer;

extern const Answer answer_slot;	/* answer_slot.c */

struct Request
{
	const Answer *answer;
	RequestSlot *slot;
	const char *shown;			/* its text, as views show it */
	bool		active;			/* the rest but held is valid only when set */
	TaskHeader	task;			/* as the slot had it when it was taken */
	uint64		hold;			/* by which the slot is this request's */
	bool		ending;			/* its END frame has been put */
	bool		failed;			/* an error has been put */
	bool		has_outcome;	/* a result or an error has come to an end */
	bool		put;			/* something has been put for the backend */
	bool		cut;			/* something could not be put wholly */
	bool		held;			/* not active: waits for room, see large.c */
	bool		queued;			/* is in one of its pool's queues */
	bool		kept;			/* its session waits for the end of its flight */
	bool		rides;			/* may share a connection; decides which */
	CopyPhase	copy;			/* how far the rows of a COPY, or the items of
								 * a batch, are */
	int			attempts;		/* connections that proved dead under it */
	int			repeats;		/* how often it was sent again otherwise */
	dlist_node	node;			/* in one of its pool's queues */
	Pool	   *pool;			/* NULL until it is queued */
	Conn	   *conn;			/* while checking or running for it */
	Flight	   *flight;			/* while running */
	Statement  *statement;		/* what is known of its text, or NULL */
	Timer		deadline;		/* for getting a connection */
	uint64		suspected;		/* signature of the deadlock that it may wait
								 * in, or 0 */
	Ticks		queued_at;
	Ticks		started_at;		/* 0 before it runs */
	int64		remote_us;		/* time the remote took */

	/* The request's parts, in the up ring or in large. */
	const char *definition;
	const char *sql;
	const char *params;
	const char *types;
	const char *prelude;
	char	   *large;
	Size		large_bytes;	/* of its role's room, see large.c */
	Size		received;

	/* Frames for which the down ring had no room; those before cursor had. */
	StringInfoData out;
	uint64		rows;
	uint64		bytes;
	uint64		items_ok;		/* of a batch, that have run */
	uint64		items_failed;	/* of one of independent statements */
	uint64		copied;			/* bytes of rows, or of items, that were
								 * passed on */
};

/* Who waits for a connection of a pool. */
typedef enum Queue
{
	QUEUE_RIDERS,				/* those who may share one */
	QUEUE_LONERS,				/* who need one for themselves */
	QUEUE_LEASES				/* who need one until their transactions end */
} Queue;

#define QUEUES	(QUEUE_LEASES + 1)

struct Pool
{
	PoolKey		key;
	MemoryContext context;		/* holds all of it */
	dlist_node	node;			/* in the list of all */
	Work		look;			/* marked: something has changed */
	int			index;			/* of its PoolShared */
	PoolShared *shared;
	char	   *definition;		/* NULL after it was forgotten */
	Size		definition_len;
	uint64		stamp;			/* how new the definition is */
	PoolOptions options;
	uint32		generation;		/* grows when connections must be made anew */
	bool		paused;
	bool		synchronous;	/* commits have been seen to wait for standbys */
	bool		loses_prepared; /* what was prepared has been seen to get
								 * lost, as behind a pooler */
	dlist_head	conns[CONN_NSTATES];
	int			nconns[CONN_NSTATES];
	StatementCache *statements;
	dlist_head	queues[QUEUES]; /* who waits; each by ticket */
	int			nqueued[QUEUES];
	int			nwaiting;		/* all together */
	int			nleased;		/* connections that are for leases */
	Ticks		rider_at;		/* when the last rider came */
	bool		crowded;		/* riders would be better off with another
								 * connection */
	Timer		upkeep;			/* marks it */
	Ticks		used_at;
	int			first;			/* index of its first worker's PoolShared, or
								 * -1 */
	int			splits_to;		/* so many workers; 0: it does not split now */
	uint64		taken;			/* requests since the load was last looked at */
	int			cancels;		/* threads that cancel for it */
	int			steps;			/* threads that log in for it */
	int			lookups;		/* threads that look up names for it */
	int			failures;		/* connects that failed in a row */
	Ticks		retry_at;		/* no connect before, while others work */
	Ticks		failed_at;
	char		error[DBPOOL_SHOWN_ERROR];	/* of the last connect that failed */
	const char *hint;			/* what to do about it, or NULL; a constant */
	double		connect_us;		/* moving averages; 0 when unknown */
	double		exec_us;
	double		rtt_us;			/* the way there and back */
};

/* What has become of a statement that was sent. */
typedef enum Fate
{
	FATE_DONE = 0,				/* it has run */
	FATE_FAILED,				/* it was rolled back, by its own fault */
	FATE_ROLLED_BACK,			/* by no fault of its own: once more */
	FATE_NOT_RUN,				/* the connection was lost before it could run */
	FATE_UNKNOWN				/* the connection was lost, and nobody knows */
} Fate;

/*
 * Something that was sent and has not been answered.  It outlives its request
 * when the session gives that up.
 */
struct Flight
{
	dlist_node	node;			/* in conn->flights.list */
	Request    *req;			/* NULL: nobody waits for the answer */
	Statement  *statement;		/* what is known of its text, or NULL */
	Ticks		sent_at;
	double		cost_us;		/* time it was expected to take, in
								 * conn->flights.load */
	bool		chore;			/* dbpool's own */
	bool		prepared;		/* runs what was prepared */
	bool		reused;			/* it had been prepared before */
	uint64		preparation;	/* which one that was */
	bool		parsing;		/* the answer to its Parse comes first */
	int			prelude;		/* those to so many statements of its prelude
								 * do */
	bool		prelude_alone;	/* and its own has not been sent so far */
	int			errors;			/* so many has the remote sent */
	bool		row_mode;		/* libpq gives its result row by row */
	bool		shape_sent;
	bool		plain;			/* tags so far are of plain reads and writes */
	bool		read_to_end;	/* all of its answer but the Sync's has been */
	bool		stalled;		/* it holds up others, and is to run alone */
	bool		cancelled;		/* a cancel was sent for it */
	Fate		fate;			/* as far as it is known; DONE until an error
								 * has come */
	Request    *awaited;		/* of an orphan whose session waits for its
								 * end, or NULL */
	uint64		suspected;		/* signature of the deadlock that it may be
								 * in, or 0 */
	char	   *deadlock;		/* it is, and is being cancelled: in whose way
								 * who is */
	Batch	   *batch;			/* of a REQUEST_BATCH, or NULL; wire_batch.c */
};

/* Number of settings in Conn.settings. */
#define CONN_REPORTED	7

typedef enum ConnPhase
{
	PHASE_LOOKUP,				/* waits for host names */
	PHASE_LOGIN,				/* PQconnectPoll() */
	PHASE_SETTINGS				/* our SET commands */
} ConnPhase;

/* Getting there: places to try.  wire_open.c, wire_login.c */
typedef struct ConnOpening
{
	ConnPhase	phase;			/* while CONNECTING; what follows is of no
								 * meaning later */
	struct Candidates *candidates;
	struct OffloadJob *lookup;
	struct OffloadJob *step;	/* has pg meanwhile */
	Login		login;
	StringInfoData errors;		/* what went wrong at each place */
	const char *hint;			/* what to do about it, or NULL; a constant */
	bool		hint_of_server; /* that is of a place where a server answered */
	bool		password_unasked;	/* a place would have let us in without */
	char		home_mark[HOME_MARK_BYTES]; /* empty: not sent */
} ConnOpening;

/* libpq's connection and its socket.  wire_io.c, wire_input.c */
typedef struct ConnIo
{
	struct pg_conn *pg;
	PollEntry	poll;			/* its socket */
	Wire		wire;			/* where in the stream of messages we are */
	int64		received;		/* bytes in its state, when it is not busy */
	bool		tls;
	bool		pipelined;		/* libpq is in pipeline mode */
	bool		flushed;		/* libpq has handed all to the kernel */
	bool		unsent;			/* it has thrown some away instead */
	bool		big;			/* libpq's buffers have grown large */
	int			empty_results;	/* that libpq gave in a row */
} ConnIo;

/* What has been sent and not answered.  flight.c; who may join: dispatch.c */
typedef struct ConnFlights
{
	dlist_head	list;			/* in the order they were sent */
	int			n;
	int			orphans;		/* of these, whose sessions gave up */
	double		load;			/* their expected time, in us */
	bool		joinable;		/* has riders, and others may join */
	bool		makes_way;		/* not joinable any more, as a loner waits */
	Ticks		ended_at;		/* last time one ended */
} ConnFlights;

/* The remote session: how it is, and what was left in it.  connection_session.c */
typedef struct ConnSession
{
	char	   *settings[CONN_REPORTED];	/* when it was new; NULL for what
											 * is not reported */
	bool		integer_datetimes;	/* the remote has them, as binary.h wants */
	bool		synchronous;	/* commits wait for standbys of the remote */
	int			home_pid;		/* its process, if it surely is one of this
								 * server; or 0 */
	Oid			home_role;		/* as which that runs */
	bool		dirty;			/* it must be reset */
	bool		read_only;		/* its transactions are, until they are put
								 * back */
	bool		spoilt;			/* no reset would do */
	bool		changed;		/* one of those who shared it has changed it,
								 * and nobody else is to be blamed for that */
	bool		foreign_prepared;	/* somebody has used PREPARE */
} ConnSession;

/* Statements that dbpool has prepared there.  connection_prepare.c */
typedef struct ConnPrepared
{
	Prepared  **by_id;			/* by Statement.id */
	int			nids;			/* length of that */
	dlist_head	lru;
	int			n;
	dlist_head	doomed;			/* of Prepared: to be deallocated */
} ConnPrepared;

/* The lease that it is for, if it is for one.  lease.c */
typedef struct ConnLease
{
	LeaseShared *shared;		/* or NULL */
	uint64		hold;
	int			statements;		/* requests that it was given for it */
	bool		committed;		/* the last statement was a COMMIT that did */
	bool		strayed;		/* it has begun or committed one by itself */
	bool		prepared;		/* its transaction is a prepared one now */
	Ticks		opened_at;
	Ticks		idle_since;		/* while LEASED */
	uint64		suspected;		/* signature of the deadlock that it may be
								 * in, or 0 */
	bool		warned;			/* that it has been open for long */
} ConnLease;

/* Getting the remote to stop.  connection_cancel.c */
typedef struct ConnCancel
{
	Ticks		since;			/* when the first flight was given up */
	bool		waits;			/* for another cancel of the pool to end */
	struct OffloadJob *job;
	bool		ended;			/* the remote has taken it, or could not */
} ConnCancel;

/* Rows that did not fit into the ring.  wire_reply.c */
typedef struct ConnRows
{
	struct pg_result *result;	/* of libpq, or NULL */
	int			row;			/* the one that is next */
	int			piece;			/* of its frame */
	Size		piece_off;		/* bytes of that which have been put */
} ConnRows;

/* Why it is about to be lost.  wire_read.c, connection_close.c */
typedef struct ConnLoss
{
	bool		broken;			/* nothing more can be read from the socket */
	bool		last_words;		/* remote said why it ends the connection */
	bool		remote_ended;	/* the server process itself did */
	char		error[DBPOOL_SHOWN_ERROR];
} ConnLoss;

/*
 * A connection.  Which parts have something in which state, is what check.c
 * asserts.
 */
struct Conn
{
	dlist_node	node;			/* in pool->conns[state] */
	MemoryContext context;		/* holds all of it, but libpq's */
	Pool	   *pool;
	ConnState	state;
	uint32		generation;		/* of the pool, when it was opened */
	int			index;			/* of its ConnShared */
	ConnShared *shared;
	Request    *waiter;			/* for whom it is being checked; of a lease,
								 * who comes next */
	Work		go_on;			/* marked: to be read, see conn_mark() */
	Ticks		opened_at;
	Ticks		expires_at;		/* 0: never */
	Ticks		used_at;		/* last time the remote answered */
	Ticks		worked_at;		/* last time it ran a statement, or was opened */
	Ticks		asked_at;		/* when a check or a reset was sent */
	Timer		deadline;		/* of what it is doing */
	Timer		watch;			/* of what its first flight is doing to others */
	Timer		janitor;		/* while idle or leased */
	ConnIo		io;
	ConnOpening opening;
	ConnFlights flights;
	ConnSession session;
	ConnPrepared prepared;
	ConnLease	lease;
	ConnCancel	cancel;
	ConnRows	rows;
	ConnLoss	loss;
};

/* One for each slot. */
extern Request *requests;

/* Looks for deadlocks, see deadlock.c; here, as whoever sends arms it. */
extern Timer deadlock_look;

/* Pools, in no order. */
extern dlist_head pools;

/* --- loop.c: the turn --------------------------------------------------------- */

extern void loop_run(void);

/* --- intake.c: requests come ---------------------------------------------------- */

extern void requests_init(void);
extern void requests_take(void);
extern void requests_release_all(void);

/* --- answer.c: what goes back to who has made a request --------------------------- */

/*
 * Room for what is written in many small pieces, which are seen when it is shut.
 * What had no room before has to be flushed first.
 */
typedef struct AnswerRoom
{
	RingWriter	writer;
	Size		at_first;		/* bytes that there were */
} AnswerRoom;

extern void answer_open(Request *req, AnswerRoom *room);
extern void answer_shut(Request *req, AnswerRoom *room);
extern bool answer_is_full(Request *req);
extern void request_put(Request *req, const void *data, Size len);
extern bool request_flush(Request *req);
extern void request_put_error(Request *req, const char *sqlstate,
							  const char *message, const char *detail,
							  const char *hint);
extern void request_fail(Request *req, const char *sqlstate,
						 const char *message, const char *detail,
						 const char *hint);
extern void request_put_failed(Request *req, const char *sqlstate,
							   const char *message, const char *detail,
							   const char *hint);
extern void request_put_lost(Request *req, uint64 sent);
extern void request_stale(Request *req);
extern bool request_restart(Request *req);
extern void request_end(Request *req);
extern void request_gone(Request *req);
extern void request_release(Request *req);
extern void request_break(Request *req);

/* Bytes of its answer for which its reader has no room so far. */
static inline Size
answer_kept_bytes(const Request *req)
{
	return req->out.len;
}

/* --- answer_slot.c: that is a session with a slot ------------------------------------ */

extern void answers_init(void);
extern void requests_wake(void);
extern void request_keep(Request *req);
extern void request_let_go(Request *req);

/* --- large.c: what is held of large requests --------------------------------------- */

extern bool large_has_room(const Request *req);
extern void large_hold(Request *req);
extern void large_unhold(Request *req);
extern void large_release(Request *req);

/*
 * May the request share a connection?  What is known of its text may have
 * changed since it came.
 */
static inline bool
request_can_ride(const Request *req)
{
	return req->rides && statement_is_plain(req->statement);
}

/* A request that is active is in one of the states that are the worker's. */
static inline RequestState
request_state(const Request *req)
{
	return request_word_state(request_word(req->slot));
}

/* --- pool_list.c, pool_entry.c: pools of this worker, and in shared memory --------------- */

extern void pools_foreach(void (*fn) (Pool *pool));
extern void pool_foreach_conn(Pool *pool, void (*fn) (Conn *conn, void *arg), void *arg);
extern int	pool_size(const Pool *pool);

#define POOL_TOO_MANY			(-1)
#define POOL_OWNER_HAS_ENOUGH	(-2)
extern void pool_set_owner(const Pool *pool);
extern int	pool_take_entry(const PoolKey *key, Oid owner, int *first);

/* --- share.c, split.c: a pool over several workers --------------------------------------- */

extern int	pool_workers(const Pool *pool, int *place);
extern int	pool_max(const Pool *pool);
extern int	pool_min(const Pool *pool);
extern int	pool_spread(const Pool *pool);
extern int	pool_workers_most(const Pool *pool);
extern bool pool_leases_are_full(Pool *pool);

extern void split_init(void);
extern void split_count(Pool *pool);
extern void pool_split_progress(Pool *pool);

/* --- lease.c: connections that belong to a session between statements ------------------- */

extern void leases_init(void);
extern void leases_look(void);
extern void leases_forget(void);
extern Conn *lease_conn(const Request *req);
extern const char *lease_why_ended(const Request *req, char *sqlstate);
extern bool lease_attach(Conn *conn, Request *req);
extern void lease_unattach(Conn *conn);
extern void lease_runs(Conn *conn, const Request *req);
extern void lease_begun(Conn *conn);
extern void lease_rests(Conn *conn);
extern bool lease_is_released(const Conn *conn);
extern void lease_end(Conn *conn, const char *sqlstate, const char *reason);

/* Does the request need a connection until its transaction ends, and has none? */
static inline bool
request_opens_lease(const Request *req)
{
	return req->task.lease != LEASE_NONE && (req->conn == NULL || req->conn->lease.shared == NULL);
}

/* --- queue.c: requests that wait --------------------------------------------------------- */

extern Queue request_queue(const Request *req);
extern Request *pool_first_of(Pool *pool, int queues);
extern Request *pool_first_waiter(Pool *pool);
extern void pool_enter_queue(Request *req);
extern void pool_leave_queue(Request *req);
extern void pool_wait_again(Request *req);
extern void pool_requeue(Request *req);
extern void pool_repeat(Request *req, bool alone);
extern void pool_send_waiters_back(Pool *pool);
extern void pool_fail_waiters(Pool *pool, const char *sqlstate, const char *message,
							  const char *detail, const char *hint);

/* --- queue_overdue.c: and have waited too long ------------------------------------------ */

extern void pool_waited_too_long(Request *req);

/* --- remote.c: what is known of the other end -------------------------------------------- */

extern void pool_back_off(Pool *pool);
extern void pool_works(Pool *pool);
extern void pool_saw_round_trip(Pool *pool, int64 us);
extern void pool_conn_failed(Pool *pool, const char *sqlstate,
							 const char *message, const char *hint);
extern void pool_recover(void *owner, int sqlerrcode);

/* --- pool.c, dispatch.c, grow.c: who gets which connection ------------------------------- */

extern void pools_init(void);
extern void pools_look(void);
extern void pool_submit(Request *req);
extern void pool_waiter_left(Request *req);
extern void pool_close_idle(Pool *pool, const char *reason);

extern void dispatch_submit(Request *req);
extern void dispatch_leased(Conn *conn, Request *req);
extern void pool_dispatch(Pool *pool);
extern void pool_grow(Pool *pool);

/* The pool is to be looked at before the turn ends: something has changed. */
static inline void
pool_mark(Pool *pool)
{
	work_mark(&pool->look);
}

/* --- connection_close.c: the recoveries of work.h ----------------------------------------- */

extern void conn_recover(void *owner, int sqlerrcode);
extern void request_recover(void *owner, int sqlerrcode);

/* --- deadlock.c: calls that run in this server -------------------------------------------- */

extern void deadlock_init(void);
extern void deadlock_watch(void);
extern void deadlock_watch_anew(void);

/* --- resolvers.c: prepared transactions that were left behind ------------------------------- */

extern void resolvers_init(void (*warmer) (void));
extern void resolvers_look(void);

/* --- check.c: what is true when a turn ends ------------------------------------------------ */

#ifdef USE_ASSERT_CHECKING
extern void check_all(void);
#endif

/* --- janitor.c: everything that happens by time -------------------------------------------- */

extern void janitor_init(void);

#include "worker/fault_points.h"

#endif							/* DBPOOL_WORKER_H */
