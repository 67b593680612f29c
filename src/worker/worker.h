/*
 * worker.h
 *	  What the files of a worker share: the structs of its process.
 *
 * THE CAST
 *
 *	 Request  a slot of shared memory as the worker sees it (intake.c)
 *	 Pool	  a foreign server seen through a user mapping (pool.c)
 *	 Conn	  a connection of a pool (connection.h)
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
	/* it runs on another one now */
	void		(*moved) (Request *req, const Conn *conn);
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

/* Room for the run of a remote server, as text, see outcome.c. */
#define OUTCOME_RUN_BYTES	80

/* A write that may have run, see outcome.c. */
typedef struct Doubt
{
	uint64		xid;			/* number of its transaction at the remote */
	char		run[OUTCOME_RUN_BYTES]; /* in which that was given */
	double		numbered_at;	/* when that was, by the remote's clock; or 0 */
	char		answer[40];		/* of the remote; empty: it had none */
	int			asked;			/* times that it was in progress */
	Ticks		sent_at;		/* its statement */
	Ticks		opened_at;		/* the connection that was lost */
	Ticks		lost_at;		/* and when it was */
	int64		us;				/* it took, until its connection was lost */
	char		lost[DBPOOL_SHOWN_ERROR];	/* why that was */
} Doubt;

/* A copy of a request at another host, see hedge.c. */
typedef struct Hedge
{
	bool		watched;		/* there may be one: nothing has been put */
	Timer		due;			/* when it is time for one; armed only while
								 * it is watched */
	Flight	   *flight;			/* it, as long as nobody has won; or NULL */
	Conn	   *conn;			/* where it is */
} Hedge;

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
	bool		called_off;		/* its session wants it stopped, and waits */
	bool		held;			/* not active: waits for room, see large.c */
	bool		queued;			/* is in one of its pool's queues */
	bool		kept;			/* its session waits for the end of its flight */
	bool		rides;			/* may share a connection; decides which */
	CopyPhase	copy;			/* how far the rows of a COPY, or the items of
								 * a batch, are */
	bool		backs_off;		/* queued, until its next try is due */
	bool		put_off;		/* no server had come as far as it wants */
	bool		retry_refused;	/* its last try, as the budget was used up */
	bool		no_remote;		/* it is being told that no connection can be
								 * opened */
	int			tries;			/* from 1, see retry.c */
	int			repeats;		/* how often it was sent again otherwise */
	dlist_node	node;			/* in one of its pool's queues */
	Pool	   *pool;			/* NULL until it is queued */
	Conn	   *conn;			/* while checking or running for it */
	Flight	   *flight;			/* while running */
	Hedge		hedge;			/* likewise */
	Doubt	   *doubt;			/* what it was may have run; or NULL */
	Statement  *statement;		/* what is known of its text, or NULL */
	Timer		deadline;		/* for getting a connection, or its next try */
	uint64		suspected;		/* signature of the deadlock that it may wait
								 * in, or 0 */
	int			endpoint;		/* where it was sent last, or ENDPOINT_NONE */
	Ticks		arrived_at;		/* its session submitted it */
	Ticks		received_at;	/* all of it was here */
	Ticks		queued_at;		/* likewise, or it was put back into the queue */
	Ticks		started_at;		/* 0 before it runs */
	Ticks		ended_at;		/* it was measured, see measure.c */
	bool		waits;			/* it was not sent at once */
	bool		runs;			/* it was sent, and not put back */
	bool		measured;
	Ticks		blocked_since;	/* its session does not read; or 0 */
	int64		blocked_us;		/* so long had it not, while it ran */
	TimeSplit	split;			/* where its time went, once it was measured */
	bool		split_told;		/* its session knows that */
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
	uint64		counted;		/* rows that command tags told */
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
	QUEUE_LEASES,				/* who need one until their transactions end */
	QUEUE_DOUBTS,				/* who need one to learn whether they have run */
	QUEUE_LATER					/* whose next try is not due so far */
} Queue;

#define QUEUES	(QUEUE_LATER + 1)

/* What target_session_attrs asks of a server, as far as that may change later. */
typedef enum WantedRole
{
	WANTED_ANY = 0,				/* also prefer-standby: it is a preference */
	WANTED_READ_WRITE,
	WANTED_READ_ONLY,
	WANTED_PRIMARY,
	WANTED_STANDBY
} WantedRole;

/* What a pool knows of an endpoint, see balance.c. */
typedef struct PoolEndpoint
{
	double		slow;			/* so many times as long as usual did a
								 * statement take */
	Ticks		slow_at;		/* then */
	Ticks		given_at;		/* it was given a connection, as it had too
								 * few */
	Ticks		behind_at;		/* it said that it is too far behind; 0: no
								 * more; see replay.c */
	int64		lag_bytes;		/* as it said; -1: it did not say */
	int64		lag_us;
} PoolEndpoint;

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
	uint32		oldest;			/* of connections that may be used, see
								 * renew.c */
	bool		looks_up;		/* the definition may be an old one: nothing
								 * is opened before a request brings it */
	uint64		paused;			/* ticket of the pause, or 0 */
	uint64		rested;			/* the one of which it was told that nothing
								 * runs */
	uint64		disabled;		/* ticket of what has disabled it, or 0 */
	uint64		drained;		/* likewise */
	uint64		reset;			/* stamp of the last reset */
	uint64		renewed;		/* the one of which it was told that it is
								 * done */
	uint32		reset_generation;	/* what is older is from before the reset */
	bool		synchronous;	/* commits have been seen to wait for standbys */
	bool		no_traces;		/* the remote cannot be told of them, see
								 * trace.c */
	bool		no_runs;		/* the remote does not tell of its runs, see
								 * outcome.c */
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
	int			endpoints[DBPOOL_MAX_PLACES];	/* where it leads to, see
												 * endpoints.c */
	PoolEndpoint known[DBPOOL_MAX_PLACES];	/* of each of them */
	int			nendpoints;
	int			makes_room;		/* place + 1 of that for which a connection
								 * elsewhere is to come free, or 0 */
	uint64		furthest;		/* where one of them was, see replay.c */
	Ticks		furthest_at;	/* then; 0: not known */
	Ticks		put_off_at;		/* a request was, since none had come as far
								 * as it wants */
	Ticks		evened_at;		/* connections were spread anew, see balance.c */
	bool		leads_elsewhere;	/* also to places that have no entry */
	WantedRole	wanted;
	Ticks		degraded_since; /* it is served by standbys, see degraded.c;
								 * or 0 */
	Ticks		seek_at;		/* when a primary is looked for again */
	bool		tried_standby;	/* by the last attempt to connect that has
								 * failed */
	Ticks		refused_at;		/* last time that a server refused to write
								 * which should */
	int			failures;		/* connects that failed in a row */
	Ticks		retry_at;		/* no connect before, while others work */
	Ticks		failed_at;
	char		error[DBPOOL_SHOWN_ERROR];	/* of the last connect that failed */
	char		sqlstate[6];	/* of it */
	const char *hint;			/* what to do about it, or NULL; a constant */
	bool		overloaded;		/* see shed.c */
	Ticks		short_at;		/* when nobody had waited too long, at last */
	Ticks		empty_since;	/* nobody waits; 0: somebody does */
	Ticks		judged_from;	/* who came before that may wait long */
	int			retry_tokens;	/* the budget, see retry.c */
	int			hedge_tokens;	/* for copies of reads, see hedge.c */
	Ticks		counted_loss_at;	/* when the last connection was lost for
									 * which a token was taken */
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
	FATE_IN_DOUBT,				/* the connection was lost, and the remote can
								 * tell */
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
	Request    *hedges;			/* or it is the copy of this one's, and both
								 * run, see hedge.c; or NULL */
	Statement  *statement;		/* what is known of its text, or NULL */
	Ticks		sent_at;
	double		cost_us;		/* time it was expected to take, in
								 * conn->flights.load */
	bool		chore;			/* dbpool's own */
	bool		prepared;		/* runs what was prepared */
	bool		reused;			/* it had been prepared before */
	uint64		preparation;	/* which one that was */
	bool		parsing;		/* the answer to its Parse comes first */
	bool		asks;			/* the answer to the question for its number
								 * is to come, see outcome.c */
	bool		asks_first;		/* and before its own */
	bool		asks_parse;		/* and that to the question's Parse first of
								 * all */
	uint64		xid;			/* that number, or 0 */
	double		numbered_at;	/* and when it was told, by the remote's
								 * clock, in seconds; or 0 */
	int			tracing;		/* so many answers to what tells its trace
								 * come, see trace.c */
	bool		tracing_alone;	/* that is the last of its prelude */
	int			prelude;		/* those to so many statements of its prelude
								 * do */
	bool		prelude_alone;	/* and its own has not been sent so far */
	int			errors;			/* so many has the remote sent */
	bool		row_mode;		/* libpq gives its result row by row */
	bool		shape_sent;
	bool		plain;			/* tags so far are of plain reads and writes */
	bool		read_to_end;	/* all of its answer but the Sync's has been */
	bool		stalled;		/* it holds up others, and is to run alone */
	bool		retry;			/* has failed, and its request is tried again */
	bool		called_off;		/* its session wants it stopped, and waits */
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
extern bool request_rolls_back(const Request *req);
extern const char *retry_told(const Request *req);
extern void request_fail_gone(Request *req, const char *sqlstate, const char *detail);
extern void outcome_forget(Request *req);
extern void request_put_failed(Request *req, const char *sqlstate,
							   const char *message, const char *detail,
							   const char *hint);
extern void request_put_lost(Request *req, uint64 sent);
extern void request_stale(Request *req);
extern bool request_restart(Request *req);
extern void request_tell_split(Request *req, const char *host, int port);
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

/* --- measure.c: how long requests take ----------------------------------------------- */

/* When the present turn of the loop began. */
extern Ticks turn_started_at;

extern void measure(const Pool *pool, int endpoint, LatencyKind kind, int64 us);
extern bool request_measure(Request *req, Ticks now, int64 us);
extern void request_measure_end(Request *req);
extern void request_measure_blocked(Request *req, bool blocked);

/* Does a TimeSplit have it? */
static inline bool
request_is_split(const Request *req)
{
	return req->task.kind == REQUEST_QUERY || req->task.kind == REQUEST_SCRIPT ||
		req->task.kind == REQUEST_PING;
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

/* --- pool_list.c: pools of this worker ------------------------------------------------------ */

extern void pools_foreach(void (*fn) (Pool *pool));
extern void pool_foreach_conn(Pool *pool, void (*fn) (Conn *conn, void *arg), void *arg);
extern int	pool_size(const Pool *pool);

/* --- share.c, split.c: a pool over several workers --------------------------------------- */

extern int	pool_workers(const Pool *pool, int *place);
extern int	pool_max(const Pool *pool);
extern int	pool_min(const Pool *pool);
extern int	pool_max_waiting(const Pool *pool);
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
extern bool request_opens_lease(const Request *req);
extern const char *lease_why_ended(const Request *req, char *sqlstate);
extern bool lease_attach(Conn *conn, Request *req);
extern void lease_unattach(Conn *conn);
extern void lease_runs(Conn *conn, const Request *req);
extern void lease_begun(Conn *conn);
extern void lease_rests(Conn *conn);
extern bool lease_is_released(const Conn *conn);
extern void lease_prepared(Conn *conn);
extern void lease_end(Conn *conn, const char *sqlstate, const char *reason);
extern void lease_lost(Conn *conn, const char *reason);

/* --- queue.c: requests that wait --------------------------------------------------------- */

extern Queue request_queue(const Request *req);
extern Request *pool_first_of(Pool *pool, int queues);
extern Request *pool_first_waiter(Pool *pool);
extern void pool_enter_queue(Request *req);
extern void pool_leave_queue(Request *req);
extern void pool_wait_again(Request *req);
extern bool request_unstart(Request *req);
extern void pool_repeat(Request *req, bool alone);
extern void pool_send_waiters_back(Pool *pool, bool doubts);
extern void pool_fail_waiters(Pool *pool, const char *sqlstate, const char *message,
							  const char *detail, const char *hint);
extern void pool_fail_impatient(Pool *pool, const char *sqlstate, const char *message,
								const char *detail, const char *hint);

/* --- retry.c: what is tried again ------------------------------------------------------- */

/* Tokens of the budget: in tenths, as a success gives one. */
#define RETRY_TOKENS_MOST	100

extern bool retry_take(Request *req, Ticks opened_at, Ticks lost_at);
extern void retry_later(Request *req);
extern void retry_now(Request *req);
extern void retry_lost(Request *req, Ticks opened_at, const char *why);

/* A statement has ended well. */
static inline void
retry_success(Pool *pool)
{
	if (pool->retry_tokens < RETRY_TOKENS_MOST)
		pool->retry_tokens++;
}

/* --- shed.c: who is turned away ----------------------------------------------------------- */

extern bool shed_refuses(Request *req);
extern bool shed_holds_back(Pool *pool, const Conn *conn);
extern void shed_look(Pool *pool, Ticks now);
extern Request *shed_next(Pool *pool, int queues);
extern void shed_others(Pool *pool, Ticks now);

/* --- queue_overdue.c: and have waited too long ------------------------------------------ */

extern void pool_waited_too_long(Request *req);

/* --- remote.c: what is known of the other end -------------------------------------------- */

extern void pool_lost_unused(Pool *pool, const char *error);
extern void pool_works(Pool *pool);
extern bool pool_is_alone(Pool *pool);
extern void pool_tell_why(Pool *pool, Ticks next);
extern void pool_saw_round_trip(const Conn *conn, int64 us);
extern void pool_note_error(Pool *pool, const char *message);
extern void pool_note_unwell(Pool *pool);
extern void pool_probe_failed(Pool *pool, const char *message, const char *hint);
extern void pool_conn_failed(Pool *pool, const char *sqlstate,
							 const char *message, const char *hint);
extern void pool_recover(void *owner, int sqlerrcode);

/* --- degraded.c: a standby serves in place of a primary -------------------------------- */

extern bool pool_may_degrade(Pool *pool);
extern void pool_degraded(Pool *pool);
extern void pool_degraded_end(Pool *pool, const char *how);
extern void pool_degraded_lost(Pool *pool);
extern bool pool_restored(Pool *pool);
extern bool pool_seeks_now(Pool *pool);
extern bool pool_seeks(Pool *pool);
extern const char *pool_degraded_told(const Pool *pool);

/* --- renew.c: old connections serve until there is a new one ------------------------- */

extern bool definitions_differ_by_password(const char *a, Size a_len, const char *b, Size b_len);
extern void pool_renew(Pool *pool);
extern bool pool_renews(const Pool *pool);
extern bool pool_renew_may_exceed(Pool *pool);
extern void pool_renew_make_place(Pool *pool);
extern void pool_renewed(Pool *pool);
extern void pool_leave_standbys(Pool *pool);

/* --- stop.c: pools that are stopped ---------------------------------------------------- */

extern void pool_refuse(Pool *pool, Request *req);
extern void pool_refuse_waiters(Pool *pool);
extern void pool_kill(Pool *pool);

/* --- pool.c, dispatch.c, grow.c: who gets which connection ------------------------------- */

extern void pools_init(void);
extern void pools_look(void);
extern void pool_submit(Request *req);
extern void pool_waiter_left(Request *req);
extern void pool_call_off(Request *req);
extern void pool_close_idle(Pool *pool, const char *reason);

extern void dispatch_submit(Request *req);
extern void dispatch_leased(Conn *conn, Request *req);
extern void pool_dispatch(Pool *pool);
extern void pool_grow(Pool *pool);
extern void pool_seek_primary(Pool *pool);

/* Does it want a server that writes? */
static inline bool
pool_wants_primary(const Pool *pool)
{
	return pool->wanted == WANTED_READ_WRITE || pool->wanted == WANTED_PRIMARY;
}

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

/* --- alerts.c: is something wrong? ------------------------------------------------------------ */

extern void alerts_init(void);

/* --- sampler.c: what pools did in each minute of the last hour -------------------------------- */

extern void sampler_init(void);
extern void sampler_watch(void);

/* --- errands.c: processes that do something in a database ----------------------------------- */

extern void errands_init(void (*warmer) (void));
extern void errands_look(void);

/* --- check.c: what is true when a turn ends ------------------------------------------------ */

#ifdef USE_ASSERT_CHECKING
extern void check_all(void);
#endif

/* --- janitor.c: everything that happens by time -------------------------------------------- */

extern void janitor_init(void);

#include "worker/fault_points.h"

#endif							/* DBPOOL_WORKER_H */
