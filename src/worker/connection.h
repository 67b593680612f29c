/*
 * connection.h
 *	  Connections of a pool.
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

#include "worker/worker.h"

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

extern Flight *flight_make(void);
extern void flight_free(Flight *flight);
extern void flight_add(Conn *conn, Flight *flight, Request *req);
extern void flight_remove(Conn *conn, Flight *flight);
extern void chore_add(Conn *conn);
extern int64 conn_head_us(Conn *conn, Ticks now);
extern void conn_count_request(Conn *conn, Request *req, int64 us, bool failed);
extern void conn_orphan(Conn *conn, Flight *flight);
extern void conn_stop_home(Conn *conn);

/* --- connection_close.c ---------------------------------------------------------------- */

extern void conn_close(Conn *conn, const char *reason);
extern void conn_lost(Conn *conn);

/* --- connection_send.c ------------------------------------------------------------------- */

/* Milliseconds within which the remote has to answer a check or a reset. */
#define CONN_ANSWER_MS		5000

extern void conn_start(Conn *conn, Request *req);
extern void conn_prelude_ended(Conn *conn);
extern void conn_check(Conn *conn, Request *req);
extern bool conn_needs_preparing(const Conn *conn, const Request *req);

/* --- flight_ended.c ------------------------------------------------------------------ */

/* Why a statement has failed, as the remote says; wire_read.c knows by what words. */
typedef enum Cause
{
	CAUSE_OWN,					/* its own fault, or so it seems */
	CAUSE_CANCEL,				/* it was cancelled */
	CAUSE_PLAN_OLD,				/* prepared anew, its result would look
								 * otherwise */
	CAUSE_PLAN_GONE,			/* what it was to run is not prepared there */
	CAUSE_PLAN_EXISTS,			/* what it was to prepare is */
	CAUSE_TYPES_OLD				/* its parameters may have other types by now */
} Cause;

extern bool flight_failed(Conn *conn, Flight *flight, Cause cause);
extern void conn_flight_ended(Conn *conn);
extern void conn_all_read(Conn *conn);
extern void conn_lease_next(Conn *conn);

/* --- connection_prepare.c ---------------------------------------------------------------- */

extern bool conn_make_room(Conn *conn, Statement *statement);
extern bool conn_send_prepared(Conn *conn, Flight *flight, int nparams,
							   const char *const *values);
extern void conn_note_types(Conn *conn, const Flight *flight, int n, const Oid *types);
extern void conn_unprepare(Conn *conn, const Statement *statement,
						   bool deallocated);
extern void conn_prepared_is_old(Conn *conn, Statement *statement);
extern void conn_forget_prepared(Conn *conn);

/* --- connection_session.c ---------------------------------------------------------------- */

extern void conn_remember_settings(Conn *conn);
extern const char *session_text_changed(Conn *conn);
extern bool session_changed(Conn *conn);
extern bool session_tag_is_plain(const char *tag);
extern void conn_note_tag(Conn *conn, const char *tag);
extern void conn_note_answer(Conn *conn, const char *column, bool yes);
extern void conn_note_set(Conn *conn);
extern bool conn_reset_more(Conn *conn);
extern void conn_reset(Conn *conn, const char *why);
extern void conn_reset_read_only(Conn *conn);
extern void conn_idle(Conn *conn);
extern void conn_ready(Conn *conn);
extern void conn_settle(Conn *conn);
extern void conn_watch_lease(Conn *conn);
extern bool conn_prepared_ended(Conn *conn);

/* --- connection_cancel.c ----------------------------------------------------------------- */

extern void conn_watch(Conn *conn);
extern void conn_look(Conn *conn);
extern void conn_cancel(Conn *conn);
extern void conn_after_cancel(Conn *conn);
extern void conn_cancel_overdue(Conn *conn);
extern void conn_deadlocked(Conn *conn, Flight *flight, const char *detail);
extern void conn_lease_deadlocked(Conn *conn, const char *detail);
extern void connections_cancel(void);
extern void connections_watch(void);

/* --- wire_io.c: libpq's connection ------------------------------------------------------- */

extern void conn_want(Conn *conn, uint32 wants);
extern bool conn_flush(Conn *conn);
extern void conn_note_error(Conn *conn);
extern bool conn_set_pipelined(Conn *conn, bool on);
extern bool conn_send_simple(Conn *conn, const char *sql);
extern bool conn_in_transaction(const Conn *conn);
extern bool conn_is_bad(const Conn *conn);
extern const char *conn_setting(const Conn *conn, const char *name);
extern int	conn_remote_pid(const Conn *conn);
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

/* --- wire_input.c ------------------------------------------------------------------------ */

typedef enum InputLook
{
	INPUT_FITS,
	INPUT_LARGE,
	INPUT_REFUSED
} InputLook;

extern InputLook input_look(Conn *conn, WireMessage *large);
extern void input_describe_large(Conn *conn, const WireMessage *large);

/* --- wire_read.c ------------------------------------------------------------------------- */

extern void conn_event(Conn *conn, uint32 events);
extern void conn_pump(Conn *conn);
extern void conn_go_on(void *owner);
extern void wire_own_result(Conn *conn, const struct pg_result *res);
extern bool wire_last_words(Conn *conn, const struct pg_result *res);

/* --- wire_reply.c ------------------------------------------------------------------------ */

extern void reply_shape(Request *req, struct pg_result *res);
extern void reply_tag(Request *req, struct pg_result *res);
extern void reply_count(Request *req, uint64 count);
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

/* Has its session given it up? */
static inline bool
flight_is_orphan(const Flight *flight)
{
	return flight != NULL && flight->req == NULL && !flight->chore;
}

#endif							/* DBPOOL_CONNECTION_H */
