/*
 * connection.h
 *	  Connections of a pool; the driver for PostgreSQL, by libpq.
 *
 * THE LIFE OF A CONNECTION
 *
 *	 from		 to			 when
 *	 (new)		 CONNECTING	 conn_open()
 *	 CONNECTING	 IDLE		 logged in, settings made
 *	 IDLE		 CHECKING	 long unused, and needed or a check is due
 *	 IDLE		 BUSY		 a request takes it
 *	 CHECKING	 BUSY, IDLE	 it answered
 *	 BUSY		 IDLE		 the statement ended and left nothing behind
 *	 BUSY		 RESETTING	 the statement ended and may have left something
 *	 BUSY		 CANCELLING	 the request was given up
 *	 CANCELLING	 IDLE, RESETTING  statement ended and the cancel was delivered
 *	 RESETTING	 IDLE		 the remote session is as new
 *	 any		 CLOSED		 conn_close(), always with a reason
 *
 * While BUSY or CHECKING for a request, that request is the head of running.
 * In CANCELLING there is none: its slot was freed at once.  A connection stays
 * in CANCELLING until the remote has closed the cancel's own connection, so
 * that the cancel cannot hit the next statement.
 *
 * Only connection*.c knows libpq.
 */
#ifndef DBPOOL_CONNECTION_H
#define DBPOOL_CONNECTION_H

#include "worker/worker.h"

/*
 * What is set in each remote session, so that text means the same at both
 * ends whatever either side's settings are; as postgres_fdw and pg_dump do.
 * lc_monetary is for money.  backend/params.c has the other end.
 */
#define CONN_SETTINGS_SQL \
	"SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; " \
	"SET extra_float_digits = 3; SET lc_monetary = 'C'; SET xmloption = 'content'"

/* connection.c */
extern bool conn_take_entry(Conn *conn);
extern void conn_move(Conn *conn, ConnState to);
extern void conn_close(Conn *conn, const char *reason);
extern void conn_on_socket(Conn *conn, uint32 events);
extern void conn_show_request(Conn *conn, const Request *req);
extern void connections_free_closed(void);
extern void connections_forget(void);

/* connection_open.c */
extern void conn_open(Pool *pool);
extern void conn_open_event(Conn *conn);
extern void conn_open_failed(Conn *conn, const char *message);
extern void conn_open_abandon(Conn *conn);

/* connection_run.c */
extern void conn_start(Conn *conn, Request *req);
extern void conn_check(Conn *conn, Request *req);
extern void conn_event(Conn *conn, uint32 events);
extern void conn_pump(Conn *conn);
extern void conn_lost(Conn *conn);

/* Milliseconds within which the remote has to answer a check or a reset. */
#define CONN_ANSWER_MS		5000

extern void conn_want(Conn *conn, uint32 wants);
extern void conn_set_deadline(Conn *conn, int ms);

extern bool conn_flush(Conn *conn);

/* connection_session.c */
extern void conn_remember_settings(Conn *conn);
extern const char *session_text_changed(Conn *conn);
extern bool session_tag_is_clean(const char *tag);
extern void conn_reset(Conn *conn);
extern void conn_settle(Conn *conn);

/* connection_cancel.c */
extern void conn_cancel(Conn *conn);
extern void conn_after_cancel(Conn *conn);

/* connection_reply.c */
extern void reply_shape(Request *req, struct pg_result *res);
extern void reply_tag(Request *req, struct pg_result *res);
extern void reply_error(Request *req, const struct pg_result *res, char type);
extern void reply_rows(Conn *conn, struct pg_result *res);
extern bool reply_pump(Conn *conn, Request *req);
extern void reply_drop_rows(Conn *conn);

/* The request whose answer comes next, or NULL. */
static inline Request *
conn_head(Conn *conn)
{
	if (dlist_is_empty(&conn->running))
		return NULL;
	return dlist_head_element(Request, node, &conn->running);
}

#endif							/* DBPOOL_CONNECTION_H */
