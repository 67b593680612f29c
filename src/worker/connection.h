/*
 * connection.h
 *	  Connections of a pool: what one consists of, and what moves it.
 *
 * THE LIFE OF A CONNECTION
 *
 *	 from		 to			 when
 *	 (new)		 CONNECTING	 conn_open()
 *	 CONNECTING	 IDLE		 logged in, settings made
 *	 IDLE		 CHECKING	 long unused, and needed or a check is due
 *	 IDLE		 BUSY		 a request takes it
 *	 BUSY, CANCELLING  LEASED  a statement has ended, and its session goes on
 *	 LEASED		 BUSY		 with the next one
 *	 LEASED		 RESETTING	 its session has let go, or has done nothing for too long
 *	 CHECKING	 BUSY, IDLE	 it answered
 *	 CHECKING	 RESETTING	 it was made read-only for a request that has gone
 *	 BUSY		 IDLE		 the statement ended and left nothing behind
 *	 BUSY		 RESETTING	 the statement ended and may have left something
 *	 BUSY		 CANCELLING	 a request was given up, or holds up others
 *	 CANCELLING	 IDLE, RESETTING  all has ended and the cancel was delivered
 *	 RESETTING	 IDLE		 the remote session is as new
 *	 any		 CLOSED		 conn_close(), always with a reason
 *
 * What a connection runs is its flights (flight.c).  In CANCELLING it
 * gets no more of them; those of others that it has are answered as always, or
 * sent again when the cancel hit them.  It stays there until they have ended
 * and the remote has closed the cancel's own connection, so that the cancel
 * cannot hit the next statement.
 *
 * Only wire_*.c knows libpq; connection*.c decides.
 */
#ifndef DBPOOL_CONNECTION_H
#define DBPOOL_CONNECTION_H

#include "ipc/endpoint.h"
#include "worker/worker.h"

struct pg_conn;
struct pg_result;
struct OffloadJob;

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
	bool		blameless;		/* a place has failed that is not unwell */
	char		home_mark[HOME_MARK_BYTES]; /* empty: not sent */
	bool		asks_run;		/* with our settings, see outcome.c */
	bool		again;			/* and they are to be sent once more without */
	bool		seeks;			/* it is to find a primary, and not for
								 * anybody; see degraded.c */
	bool		cut_off;		/* the socket has ended before the remote said
								 * a word, */
	bool		refused;		/* or was not even connected */
} ConnOpening;

/* libpq's connection and its socket.  wire_io.c, wire_input.c */
typedef struct ConnIo
{
	struct pg_conn *pg;
	PollEntry	poll;			/* its socket */
	Wire		wire;			/* where in the stream of messages we are */
	int64		received;		/* bytes in its state, when it is not busy */
	int64		given;			/* of these, in rows that libpq gave */
	bool		tls;
	bool		pipelined;		/* libpq is in pipeline mode */
	bool		flushed;		/* libpq has handed all to the kernel */
	bool		unsent;			/* it has thrown some away instead */
	bool		big;			/* libpq's buffers have grown large */
	int			user_timeout;	/* what is put off by conn_bear_silence(), or
								 * 0 */
	int			empty_results;	/* that libpq gave in a row */
	bool		waits;			/* libpq has given no result since it was last
								 * asked, */
	int			looks;			/* and was looked at so often, */
	int64		kept;			/* and keeps so many bytes, see input_before() */
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

/*
 * How far a session is on its way to being as a new one; without connect_sql there is but the last
 * step.
 */
typedef enum SessionStep
{
	SESSION_FIRST,				/* our settings */
	SESSION_CONNECT_SQL,
	SESSION_LAST				/* our settings, again or for the first time;
								 * and afterwards */
} SessionStep;

/* The remote session: how it is, and what was left in it.  connection_session.c */
typedef struct ConnSession
{
	char	   *settings[CONN_REPORTED];	/* when it was new; NULL for what
											 * is not reported */
	char	   *connect_sql;	/* by which it was made, or NULL; see
								 * session_make.c */
	SessionStep step;
	bool		planted;		/* it has prepared something by a name of ours */
	bool		integer_datetimes;	/* the remote has them, as binary.h wants */
	bool		synchronous;	/* commits wait for standbys of the remote */
	int			home_pid;		/* its process, if it surely is one of this
								 * server; or 0 */
	Oid			home_role;		/* as which that runs */
	bool		dirty;			/* it must be reset */
	bool		adapted;		/* to a request: read-only, or without the
								 * role that connect_sql gave it; to be put
								 * back */
	bool		spoilt;			/* no reset would do */
	bool		changed;		/* one of those who shared it has changed it,
								 * and nobody else is to be blamed for that */
	char		run[OUTCOME_RUN_BYTES]; /* of the server, see outcome.c;
										 * empty: not known */
	bool		timed;			/* it keeps the times of commits */
	bool		asks_prepared;	/* the question for numbers is */
	bool		trace_prepared; /* what tells of traces is */
	bool		foreign_prepared;	/* somebody has used PREPARE */
	bool		degraded;		/* it is at a standby, as there is no primary */
	bool		unsuited;		/* the server has not the role any more that
								 * the pool wants */
} ConnSession;

/* How far its server is.  replay.c */
typedef struct ConnReplay
{
	bool		asks;			/* while CHECKING: that is among what was
								 * asked */
	Ticks		asked_at;		/* the last time; 0: never */
	Ticks		told_at;		/* when that was answered */
	bool		known;			/* and then it has said: */
	uint64		lsn;			/* so far has it replayed; 0: not known */
	int64		lag_bytes;
	int64		lag_us;			/* -1: not known */
	Ticks		complete_at;	/* then all had been replayed that there was;
								 * 0: not known */
	uint64		mark;			/* all that there was then, or 0 */
	Ticks		mark_at;
} ConnReplay;

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
	bool		traced;			/* a statement had a trace */
	bool		strayed;		/* it has begun or committed one by itself */
	bool		preparing;		/* the last request was to prepare it */
	bool		prepared;		/* its transaction is a prepared one now */
	Ticks		opened_at;
	Ticks		idle_since;		/* while LEASED */
	uint64		min_lsn;		/* that its server was to have replayed when
								 * it began */
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

/* Where it is, or is logging in.  endpoints.c */
typedef struct ConnEndpoint
{
	int			at;				/* number, or ENDPOINT_NONE */
	bool		logs_in;		/* the outcome of its log-in counts there */
	int			probes;			/* that which it is being opened to find out
								 * about, and not for anybody; or
								 * ENDPOINT_NONE */
	bool		evens;			/* that is not out, but has too few, see
								 * balance.c */
	bool		makes_room;		/* it is closed when it comes free, for one at
								 * another endpoint */
} ConnEndpoint;

/* Why it is about to be lost.  wire_read.c, connection_close.c */
typedef struct ConnLoss
{
	bool		broken;			/* nothing more can be read from the socket */
	bool		last_words;		/* remote said why it ends the connection */
	bool		remote_ended;	/* the server process itself did */
	bool		remote_quits;	/* it has, by the way: what it had sent before
								 * is still to be read */
	bool		unanswered;		/* a check was */
	char		sqlstate[6];	/* of the last words, or empty */
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
	bool		rests;			/* while CHECKING: what became of a write is
								 * to be asked again */
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
	ConnEndpoint endpoint;
	ConnReplay	replay;
	ConnFlights flights;
	ConnSession session;
	ConnPrepared prepared;
	ConnLease	lease;
	ConnCancel	cancel;
	ConnRows	rows;
	ConnLoss	loss;
};

typedef enum EntryTaken
{
	ENTRY_TAKEN,
	ENTRY_NONE_FREE,			/* all connections there may be are open */
	ENTRY_OWNER_HAS_ENOUGH		/* all that the owner's pools may have are */
} EntryTaken;

/*
 * What connections call of what is above them, registered by janitor_init().
 */
typedef struct ConnHandlers
{
	void		(*ready) (void *conn);	/* the socket is, for
										 * conn->poll.events */
	void		(*go_on) (void *conn);	/* conn_mark() */
	void		(*deadline) (void *conn);
	void		(*watch) (void *conn);
	void		(*idle) (void *conn);	/* something may be due while it is */
} ConnHandlers;

extern ConnHandlers conn_handlers;

/* --- connection.c ------------------------------------------------------------------ */

extern EntryTaken conn_take_entry(Conn *conn);
extern void conn_move(Conn *conn, ConnState to, const char *why);
extern void conn_show_request(Conn *conn, const Request *req);
extern void conn_set_deadline(Conn *conn, int ms);
extern void connections_free_closed(void);
extern void connections_forget(void);

/*
 * Have an open connection read on before the turn ends: what has come of its answers
 * may be of use now, or be waited for by nobody.
 */
static inline void
conn_mark(Conn *conn)
{
	if (conn->state != CONN_CLOSED)
		work_mark(&conn->go_on);
}

/* --- flight.c ------------------------------------------------------------------------ */

/* Milliseconds that others wait for an orphan to end by itself, see connection_cancel.c. */
#define ORPHAN_MS		20

extern Flight *flight_make(void);
extern void flight_free(Flight *flight);
extern void flight_add(Conn *conn, Flight *flight, Request *req);
extern void flight_add_copy(Conn *conn, Flight *flight, Request *req);
extern void flight_remove(Conn *conn, Flight *flight);
extern void hedge_end(Request *req);
extern void hedge_take_over(Request *req);
extern void chore_add(Conn *conn);
extern int64 conn_head_us(Conn *conn, Ticks now);
extern void conn_count_request(Conn *conn, Request *req, Ticks now, int64 us, bool failed);
extern void conn_orphan(Conn *conn, Flight *flight);
extern void conn_stop_home(Conn *conn);

/* --- connection_close.c ---------------------------------------------------------------- */

extern void conn_close(Conn *conn, const char *reason);
extern void conn_lost(Conn *conn);
extern void conn_lost_at_end(Conn *conn);

/* --- connection_send.c ------------------------------------------------------------------- */

/* Milliseconds within which the remote has to answer a check or a reset. */
#define CONN_ANSWER_MS		5000

extern void conn_start(Conn *conn, Request *req);
extern void conn_start_copy(Conn *conn, Request *req);
extern void conn_prelude_ended(Conn *conn);
extern void conn_check(Conn *conn, Request *req);
extern void conn_check_again(Conn *conn);
extern bool conn_needs_preparing(const Conn *conn, const Request *req);

/* --- flight_ended.c ------------------------------------------------------------------ */

/* Why a statement has failed, as the remote says; wire_read.c knows by what words. */
typedef enum Cause
{
	CAUSE_QUESTION,				/* not its, but the question's after it */
	CAUSE_TRACE,				/* nor its: what tells of its trace */
	CAUSE_OWN,					/* its own fault, or so it seems */
	CAUSE_CANCEL,				/* it was cancelled */
	CAUSE_CONFLICT,				/* it was in the way of another, and was
								 * rolled back for that */
	CAUSE_PLAN_OLD,				/* prepared anew, its result would look
								 * otherwise */
	CAUSE_PLAN_GONE,			/* what it was to run is not prepared there */
	CAUSE_PLAN_EXISTS,			/* what it was to prepare is */
	CAUSE_TYPES_OLD,			/* its parameters may have other types by now */
	CAUSE_READ_ONLY				/* the server, or the transaction, does not
								 * write */
} Cause;

extern bool flight_failed(Conn *conn, Flight *flight, Cause cause);
extern void conn_flight_ended(Conn *conn);
extern void conn_all_read(Conn *conn);
extern void conn_lease_next(Conn *conn);

/* --- outcome.c ------------------------------------------------------------------------- */

extern bool outcome_asks(const Conn *conn, const Request *req);
extern const char *outcome_number_sql(const Conn *conn);
extern void outcome_numbered(Flight *flight, const char *number, const char *at);
extern Doubt *outcome_doubt(Conn *conn, const char *lost, int64 us);
extern void outcome_wait(Request *req, Doubt *doubt);
extern const char *outcome_question(const Conn *conn, Request *req);
extern bool outcome_decide(Conn *conn, Request *req);
extern int	outcome_again_ms(const Request *req);

/* --- connection_prepare.c ---------------------------------------------------------------- */

extern bool conn_has_room(Conn *conn, const Statement *statement);
extern bool conn_make_room(Conn *conn, Statement *statement);
extern bool conn_prepares_own(const Conn *conn);
extern bool conn_prepare_question(Conn *conn, Flight *flight);
extern bool conn_send_question(Conn *conn);
extern bool conn_send_prepared(Conn *conn, Flight *flight, const Request *req,
							   const char *const *values);
extern void conn_note_types(Conn *conn, const Flight *flight, int n, const Oid *types);
extern void conn_unprepare(Conn *conn, const Statement *statement,
						   bool deallocated);
extern void conn_prepared_is_old(Conn *conn, Statement *statement);
extern void conn_forget_prepared(Conn *conn);

/* --- trace.c --------------------------------------------------------------------------- */

/* The name of what is prepared for it. */
#define TRACE_NAME	"dbpool_trace"

extern bool trace_is_due(const Conn *conn, const Request *req);
extern bool trace_goes_alone(const Conn *conn, const Request *req);
extern bool trace_send(Conn *conn, Flight *flight, const Request *req);
extern const char *trace_alone_sql(Conn *conn, Flight *flight, const Request *req);
extern bool trace_is_next(const Flight *flight);

/* --- connection_session.c ---------------------------------------------------------------- */

extern bool session_tag_is_plain(const char *tag);
extern void conn_note_tag(Conn *conn, const char *tag);
extern void conn_note_answer(Conn *conn, const char *column, const char *answer);
extern void conn_note_set(Conn *conn);
extern bool conn_reset_more(Conn *conn);
extern void conn_reset(Conn *conn, const char *why);
extern void conn_reset_read_only(Conn *conn);
extern void conn_reset_overdue(Conn *conn);
extern void conn_idle(Conn *conn);
extern void conn_ready(Conn *conn);
extern void conn_settle(Conn *conn);
extern void conn_watch_lease(Conn *conn);
extern bool conn_prepared_ended(Conn *conn);

/* --- session_make.c ---------------------------------------------------------------------- */

extern void conn_remember_settings(Conn *conn);
extern const char *session_text_changed(Conn *conn);
extern bool session_changed(Conn *conn);
extern void session_begin(Conn *conn);
extern void session_restart(Conn *conn);
extern const char *session_step_sql(const Conn *conn);
extern bool session_step_ended(Conn *conn, const char **why);
extern void connect_sql_stop(Conn *conn);

/* Is it connect_sql that runs there, and not what is ours? */
static inline bool
session_runs_connect_sql(const Conn *conn)
{
	return conn->session.step == SESSION_CONNECT_SQL;
}

/* --- connection_cancel.c ----------------------------------------------------------------- */

extern void conn_watch(Conn *conn);
extern void conn_look(Conn *conn);
extern void conn_cancel(Conn *conn);
extern void conn_after_cancel(Conn *conn);
extern void conn_cancel_overdue(Conn *conn);
extern void conn_cancel_last(Conn *conn);
extern void conn_deadlocked(Conn *conn, Flight *flight, const char *detail);
extern void conn_lease_deadlocked(Conn *conn, const char *detail);
extern void connections_cancel(void);
extern void connections_watch(void);

/* --- wire_io.c: libpq's connection ------------------------------------------------------- */

extern void conn_want(Conn *conn, uint32 wants);
extern bool conn_flush(Conn *conn);
extern void conn_bear_silence(Conn *conn, bool bear);
extern void conn_note_error(Conn *conn);
extern bool conn_set_pipelined(Conn *conn, bool on);
extern bool conn_send_simple(Conn *conn, const char *sql);
extern bool conn_in_transaction(const Conn *conn);
extern bool conn_transaction_works(const Conn *conn);
extern bool conn_transaction_failed(const Conn *conn);
extern bool conn_is_bad(const Conn *conn);
extern const char *conn_setting(const Conn *conn, const char *name);
extern int	conn_remote_pid(const Conn *conn);
extern EndpointRole conn_role(const Conn *conn);
extern bool conn_suits(const Conn *conn);
extern bool session_is_writable(Conn *conn);
extern void conn_hang_up(Conn *conn);

/* --- wire_send.c ------------------------------------------------------------------------- */

extern bool wire_send_query(Conn *conn, const char *sql, int nparams,
							const char *const *values);
extern bool wire_send_prelude(Conn *conn, Request *req);
extern bool wire_send_script(Conn *conn, const char *sql);
extern bool wire_rows_one_by_one(Conn *conn);
extern bool wire_send_prepare(Conn *conn, const char *name, const char *sql);
extern bool wire_send_prepared(Conn *conn, const char *name, int nparams,
							   const char *const *values, bool binary);
extern bool wire_send_close(Conn *conn, const char *name);
extern bool wire_send_sync(Conn *conn);
extern bool wire_send_flush(Conn *conn);

/* --- wire_open.c, wire_login.c ----------------------------------------------------------- */

extern Conn *conn_make(Pool *pool);
extern void conn_open(Conn *conn);
extern void conn_open_event(Conn *conn);
extern void conn_open_overdue(Conn *conn);
extern void conn_open_place(const Conn *conn, const char **host, const char **port);

/*
 * A step was made; status is what PQconnectPoll() returned.  Or it is not to be
 * made, for this reason; else why is NULL.
 */
typedef void (*LoginStepped) (Conn *conn, int status, const char *why);

extern void login_step(Conn *conn, LoginStepped stepped);
extern void login_abandon(Conn *conn);

/*
 * What the endpoint learns of a place that has failed: that it is unwell, at a cost; or one of
 * these.
 */
#define LESSON_NONE		0
#define LESSON_WELL		1		/* it has answered */
typedef int Lesson;

extern Lesson login_lesson(const Conn *conn);

/* --- wire_settings.c --------------------------------------------------------------------- */

typedef enum SettingsStep
{
	SETTINGS_WAIT,				/* there is more to come */
	SETTINGS_MADE,
	SETTINGS_FAILED
} SettingsStep;

extern const char *settings_begin(Conn *conn);
extern SettingsStep settings_read(Conn *conn, const char **why);

/* --- wire_input.c ------------------------------------------------------------------------ */

typedef enum InputLook
{
	INPUT_FITS,
	INPUT_LARGE,
	INPUT_REFUSED
} InputLook;

extern InputLook input_look(Conn *conn, WireMessage *large);
extern void input_describe_large(Conn *conn, const WireMessage *large);
extern int64 input_before(Conn *conn);
extern bool input_hoards(Conn *conn, int64 before);
extern bool input_gave_too_much(Conn *conn, const struct pg_result *res);

/* --- wire_read.c ------------------------------------------------------------------------- */

extern void conn_event(Conn *conn, uint32 events);
extern void conn_pump(Conn *conn);
extern void conn_go_on(void *owner);
extern bool wire_own_result(Conn *conn, const struct pg_result *res);
extern void wire_quits(Conn *conn, const struct pg_result *res);
extern bool wire_last_words(Conn *conn, const struct pg_result *res);

/* --- wire_cause.c ------------------------------------------------------------------------ */

extern Cause wire_cause_of(const struct pg_result *res);

/* --- wire_reply.c ------------------------------------------------------------------------ */

extern void reply_shape(Request *req, struct pg_result *res);
extern void reply_tag(Request *req, struct pg_result *res);
extern void reply_count(Request *req, uint64 count, const char *tag);
extern void reply_error(Request *req, const struct pg_result *res, char type);
extern bool reply_large_error(Request *req, const WireMessage *message);
extern void reply_rows(Conn *conn, struct pg_result *res);
extern bool reply_pump(Conn *conn, Request *req);
extern void reply_drop_rows(Conn *conn);

/* --- wire_copy.c ------------------------------------------------------------------------- */

extern void copy_ask(Request *req, uint32 columns);
extern bool copy_send(Conn *conn);
extern void copy_look(Conn *conn);
extern void copy_stop(Conn *conn, Request *req);
extern bool copy_has_ended(const Request *req);

/* --- wire_batch.c; what else of it: batch.h ----------------------------------------------- */

extern bool batch_stop(Conn *conn, Flight *flight);

/* --- wire_cancel.c ----------------------------------------------------------------------- */

/* A cancel has come to its end; conn is NULL when that has been closed meanwhile. */
typedef void (*CancelEnded) (Pool *pool, Conn *conn, bool delivered);

extern bool wire_cancel(Conn *conn, CancelEnded ended);

/* May it be used?  Not when the definition by which it was made is not true any more. */
static inline bool
conn_is_current(const Conn *conn)
{
	return (int32) (conn->generation - conn->pool->oldest) >= 0;
}

/* Does it tell of the remote as the pool knows it today? */
static inline bool
conn_is_newest(const Conn *conn)
{
	return conn->generation == conn->pool->generation;
}

/* The flight whose answer comes next, or NULL. */
static inline Flight *
conn_head(Conn *conn)
{
	if (conn->flights.n == 0)
		return NULL;
	return dlist_head_element(Flight, node, &conn->flights.list);
}

/* Its request; NULL also when nobody waits for it. */
static inline Request *
conn_head_request(Conn *conn)
{
	return conn->flights.n == 0 ? NULL : conn_head(conn)->req;
}

/* Is the remote being sent rows? */
static inline bool
conn_copies(Conn *conn)
{
	Request    *req = conn_head_request(conn);

	return req != NULL && req->copy == COPY_COPYING && req->task.kind == REQUEST_COPY;
}

/* Does nobody wait for it any more?  Its session has given it up, or has another's answer. */
static inline bool
flight_is_orphan(const Flight *flight)
{
	return flight != NULL && flight->req == NULL && !flight->chore && flight->hedges == NULL;
}

#endif							/* DBPOOL_CONNECTION_H */
