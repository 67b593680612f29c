/*
 * connection_run.c
 *	  What an open connection is given to do: statements of requests, checks.
 *
 * PIPELINING
 *
 * A flight is a statement that was sent.  A connection that is joinable may
 * have several, of several sessions, each with a Sync of its own: so each is a
 * transaction of its own, and an error ends with it.  Their answers come in
 * the order in which they were sent.
 *
 * Only a statement that is known to be plain (statement.c) is sent in libpq's
 * pipeline mode; the first run of a text, scripts and whatever else there is
 * have the connection for themselves.  Who may share is dispatch.c's to say.
 *
 * A flight whose session gives up stays as an orphan until it is answered,
 * and the connection gets no more flights until then (connection_cancel.c).
 *
 * A statement is sent again, unseen, when it failed for no fault of its own
 * and was rolled back as a whole: a cancel hit it that was meant for another,
 * or what was prepared for it is gone or out of date (connection_read.c).
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"

/* A request above this makes libpq's buffers so large that they are given up. */
#define BIG_REQUEST_BYTES	(16 * 1024 * 1024)

/*
 * A request that was repeated so often does without what is prepared: behind a
 * pooler that may be missing, or be there already, time and again.
 */
#define REPEATS_UNPREPARED	2

/* So are all transactions that a statement may begin, in a script too. */
#define MAKE_READ_ONLY_SQL	"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"

static dlist_head free_flights = DLIST_STATIC_INIT(free_flights);

/* The remote has so long for what it was asked. */
void
conn_set_deadline(Conn *conn, int ms)
{
	timer_set(&conn->deadline,
			  ticks_plus_ms(ticks_now(), ms));
}

/* A flight of nobody's. */
static Flight *
flight_make(void)
{
	Flight	   *flight;

	if (dlist_is_empty(&free_flights))
		flight = MemoryContextAlloc(worker_context, sizeof(Flight));
	else
		flight = dlist_container(Flight, node, dlist_pop_head_node(&free_flights));
	memset(flight, 0, sizeof(Flight));
	flight->plain = true;
	return flight;
}

/* What dbpool itself sends before the last flight. */
void
chore_add(Conn *conn)
{
	Flight	   *flight = flight_make();

	flight->chore = true;
	flight->sent_at = ticks_now();
	dlist_insert_before(dlist_tail_node(&conn->flights), &flight->node);
	conn->shared->in_flight = ++conn->nflights;
}

/* The request's flight, behind those that the connection has. */
static void
flight_add(Conn *conn, Flight *flight, Request *req)
{
	dlist_push_tail(&conn->flights, &flight->node);
	conn->shared->in_flight = ++conn->nflights;
	flight->req = req;
	flight->sent_at = req->started_at;
	flight->statement = req->statement;
	req->flight = flight;
	req->conn = conn;
	if (flight->statement != NULL)
	{
		flight->statement->refs++;
		flight->cost_us = flight->statement->usual_us;
		conn->load += flight->cost_us;
	}
}

/* The first flight is through, or will never be: take it off. */
void
flight_remove(Conn *conn, Flight *flight)
{
	if (flight->req != NULL)
	{
		flight->req->flight = NULL;
		flight->req->conn = NULL;
	}
	else if (!flight->chore)
		conn->norphans--;
	if (flight->awaited != NULL)
		request_let_go(flight->awaited);
	if (flight->deadlock != NULL)
		pfree(flight->deadlock);
	if (flight->statement != NULL)
		flight->statement->refs--;
	dlist_delete(&flight->node);
	conn->shared->in_flight = --conn->nflights;
	conn->load = conn->nflights == 0 ? 0 : conn->load - flight->cost_us;
	dlist_push_head(&free_flights, &flight->node);
}

/*
 * Change what the connection's socket is waited for.  libpq closes it by itself
 * when it breaks, while results may still have to be read.
 */
void
conn_want(Conn *conn, uint32 wants)
{
	pgsocket	sock = PQsocket(conn->pg);

	if (sock == conn->sock)
		loop_want(conn, wants);
	else
		loop_socket(conn, sock, sock == PGINVALID_SOCKET ? 0 : wants);
}

/* Hand what libpq has to the kernel; wait for room there if need be. */
bool
conn_flush(Conn *conn)
{
	int			left = PQflush(conn->pg);

	if (left < 0)
		return false;
	conn->flushed = left == 0;
	conn_want(conn, WL_SOCKET_READABLE | (left > 0 ? WL_SOCKET_WRITEABLE : 0));
	return true;
}

/* Account for a request that has ended, us after the remote had begun with it. */
void
conn_count_request(Conn *conn, Request *req, int64 us, bool failed)
{
	Pool	   *pool = conn->pool;
	PoolShared *shared = pool->shared;
	int64		wait = req->started_at - req->queued_at;
	Size		sent = req->slot->sql_len + req->slot->params_len + req->copied;

	req->remote_us = us;
	if (!failed)
		pool_works(pool);
	if (!req->rides)
		pool->exec_us = pool->exec_us == 0 ? us : pool->exec_us * 0.9 + us * 0.1;
	SpinLockAcquire(&shared->mutex);
	if (failed)
		shared->counters.errors++;
	else
		shared->counters.statements++;
	shared->used_at = pool->used_at;
	shared->counters.exec_us += us;
	shared->counters.exec_max_us = Max(shared->counters.exec_max_us, (uint64) us);
	shared->counters.wait_us += wait;
	shared->counters.wait_max_us = Max(shared->counters.wait_max_us, (uint64) wait);
	shared->counters.rows += req->rows;
	shared->counters.bytes_sent += sent;
	shared->counters.bytes_received += req->bytes;
	SpinLockRelease(&shared->mutex);
}

/* Time since the remote began with the first flight, as far as we know. */
int64
conn_head_us(Conn *conn, Ticks now)
{
	return now - Max(conn_head(conn)->sent_at, conn->ended_at);
}

/* Keep libpq's word on why the connection broke, before it has another. */
void
conn_note_error(Conn *conn)
{
	if (conn->lost_error[0] != '\0')
		return;
	strlcpy(conn->lost_error, PQerrorMessage(conn->pg), sizeof(conn->lost_error));
	conn->lost_error[strcspn(conn->lost_error, "\n")] = '\0';
}

/*
 * The connection broke.  A request has surely not run, and goes back to the
 * queue, when
 *	 - its statement was not wholly handed over: the Sync that commits it comes
 *	   last, and nothing is sent behind a flight that is not handed over; or
 *	 - the server process itself said that it ends, and answers to others were
 *	   due before: it takes one statement after the other.
 * Any other may have run, and its session is told so; a COPY whose rows have
 * not ended has not.
 *
 * Throws nothing: it is part of the recovery.
 */
void
conn_lost(Conn *conn)
{
	Pool	   *pool = conn->pool;
	Request    *req = conn->waiter;
	bool		first = true;
	char		what[DBPOOL_SHOWN_ERROR];
	char		detail[DBPOOL_SHOWN_ERROR + 100];

	conn_note_error(conn);
	snprintf(what, sizeof(what), "connection of pool \"%s\" was lost while a statement ran",
			 NameStr(pool->options.server));
	snprintf(detail, sizeof(detail),
			 "%s\nThe statement had been sent: it may or may not have run.", conn->lost_error);
	conn_stop_home(conn);
	if (req != NULL)
	{
		conn->waiter = NULL;
		req->conn = NULL;
		pool_requeue(req);
	}
	while (conn->nflights > 0)
	{
		Flight	   *flight = conn_head(conn);
		int64		us = conn_head_us(conn, ticks_now());
		bool		not_run = (conn->nflights == 1 && !conn->flushed) ||
		(conn->remote_ended && !first);

		req = flight->req;
		first = false;
		reply_drop_rows(conn);
		flight_remove(conn, flight);
		if (req == NULL)
			continue;
		if (not_run && !req->put)
			pool_requeue(req);
		else
		{
			conn_count_request(conn, req, us, true);
			if (req->slot->kind == REQUEST_COPY && copy_lost(conn, req))
				continue;
			request_fail(req, "08007", what, detail, NULL);
		}
	}
	if (conn->shared->statements == 0)
		pool_back_off(pool);
	conn_close(conn, "it was lost");
	ereport(LOG,
			(errmsg("dbpool lost a connection of pool \"%s\": %s",
					NameStr(pool->options.server), conn->lost_error)));
}

/* A recovery, see work.h. */
void
conn_recover(void *owner, int sqlerrcode)
{
	Conn	   *conn = owner;
	Pool	   *pool = conn->pool;

	if (conn->state == CONN_CLOSED)
		return;
	snprintf(conn->lost_error, sizeof(conn->lost_error),
			 "There was an error: %s. The server's log has more.", work_error_text(sqlerrcode));
	if (conn->state != CONN_CONNECTING)
	{
		conn_lost(conn);
		return;
	}
	conn_close(conn, "of an internal error");
	pool_conn_failed(pool, work_error_state(sqlerrcode), work_error_text(sqlerrcode), NULL);
}

/* The parameters of a request as libpq wants them. */
static const char **
request_params(Request *req)
{
	RequestSlot *slot = req->slot;
	const char **values = palloc(sizeof(char *) * Max(slot->nparams, 1));
	const char *at = req->params;

	for (int i = 0; i < slot->nparams; i++)
	{
		int32		len;

		memcpy(&len, at, sizeof(len));
		at += sizeof(len);
		values[i] = len < 0 ? NULL : at;
		if (len >= 0)
			at += len + 1;
	}
	return values;
}

/* libpq's pipeline mode, on or off; it can be changed when nothing is under way. */
bool
conn_set_pipelined(Conn *conn, bool on)
{
	if (conn->pipelined == on)
		return true;
	if ((on ? PQenterPipelineMode(conn->pg) : PQexitPipelineMode(conn->pg)) != 1)
		return false;
	conn->pipelined = on;
	return true;
}

/* Is the text seen so often that preparing it pays? */
static bool
worth_preparing(const Pool *pool, const Statement *statement)
{
	return pool->options.prepare_threshold > 0 &&
		pool->options.statement_cache_size > 0 &&
		statement->uses > pool->options.prepare_threshold;
}

/*
 * A statement of which it is known that it returns rows or a tag and leaves
 * nothing behind: with a Sync of its own, so that it is a transaction of its
 * own, and others may be sent behind it.
 */
static bool
send_pipelined(Conn *conn, Request *req, const char *const *values)
{
	bool		prepared = req->repeats < REPEATS_UNPREPARED &&
	worth_preparing(conn->pool, req->statement);
	int			nparams = req->slot->nparams;
	bool		sent;

	if (!conn_set_pipelined(conn, true) ||
		(prepared && !conn_make_room(conn, req->statement)))
		return false;
	if (prepared)
		sent = conn_send_prepared(conn, req->flight, nparams, values);
	else
		sent = PQsendQueryParams(conn->pg, req->sql, nparams, NULL, values,
								 NULL, NULL, 0) == 1;
	return sent && compat_send_sync(conn->pg) == 1;
}

/* Anything else, alone on the connection. */
static bool
send_alone(Conn *conn, Request *req, const char *const *values)
{
	Flight	   *flight = req->flight;

	if (!conn_set_pipelined(conn, false))
		return false;
	switch (req->slot->kind)
	{
		case REQUEST_QUERY:
			if (PQsendQueryParams(conn->pg, req->sql, req->slot->nparams, NULL,
								  values, NULL, NULL, 0) != 1)
				return false;
			break;
		case REQUEST_SCRIPT:
		case REQUEST_COPY:
			if (PQsendQuery(conn->pg, req->sql) != 1)
				return false;
			break;
		default:
			return PQsendQuery(conn->pg, "") == 1;
	}
	flight->row_mode = PQsetSingleRowMode(conn->pg) == 1;
	return flight->row_mode;
}

/* For dbpool_requests. */
static void
show_start(Conn *conn, Request *req)
{
	RequestSlot *slot = req->slot;

	SpinLockAcquire(&conn->shared->mutex);
	conn->shared->statements++;
	SpinLockRelease(&conn->shared->mutex);
	SpinLockAcquire(&slot->mutex);
	slot->running_since = req->started_at;
	slot->remote_pid = PQbackendPID(conn->pg);
	SpinLockRelease(&slot->mutex);
}

typedef struct Sending
{
	Conn	   *conn;
	Request    *req;
	const char **values;		/* of its parameters */
} Sending;

static void
send_piece(void *arg)
{
	const Sending *sending = arg;
	Conn	   *conn = sending->conn;
	Request    *req = sending->req;
	bool		sent;

	if (req->slot->kind == REQUEST_QUERY && statement_is_plain(req->statement))
		sent = send_pipelined(conn, req, sending->values);
	else
		sent = send_alone(conn, req, sending->values);
	if (conn_head(conn)->req == req)
		conn_show_request(conn, req);
	if (!sent || !conn_flush(conn))
		conn_lost(conn);
	else
	{
		conn_watch(conn);
		if (conn->home_pid != 0)
			deadlock_watch();
	}
}

/*
 * Run a request on a connection that is idle, has just been checked, or whose
 * statements it may ride behind.  Throws only as long as the connection has
 * nothing of the request.
 */
void
conn_start(Conn *conn, Request *req)
{
	RequestSlot *slot = req->slot;
	Sending		sending = {conn, req, NULL};
	Flight	   *flight;

	if (slot->kind == REQUEST_QUERY)
		sending.values = request_params(req);
	flight = flight_make();
	slot->home_pid = conn->home_pid;
	slot->home_role = conn->home_role;
	if (!request_move(slot, req->hold, REQUEST_QUEUED, REQUEST_RUNNING))
	{
		dlist_push_head(&free_flights, &flight->node);
		request_gone(req);
		return;
	}
	timer_stop(&req->deadline);
	req->started_at = ticks_now();
	if (slot->sql_len + slot->params_len > BIG_REQUEST_BYTES)
		conn->big = true;
	conn->dirty |= (slot->traces & TRACE_RESET) != 0;
	conn->spoilt |= (slot->traces & TRACE_CLOSE) != 0;
	conn->flushed = false;
	if (conn->state != CONN_BUSY)
	{
		conn->joinable = request_can_ride(req);
		conn->makes_way = false;
		conn_move(conn, CONN_BUSY);
	}
	flight_add(conn, flight, req);
	show_start(conn, req);
	pg_atomic_write_u32(&slot->sent, slot->kind != REQUEST_COPY);
	(void) work_guard(send_piece, &sending, conn_recover, conn);
}

/*
 * Would the request find there what sequences gave to sessions before?  Then
 * that is put away before it runs.
 */
static bool
conn_shows_sequences(const Conn *conn, const Request *req)
{
	return (req->slot->traces & TRACE_READS_SEQUENCES) &&
		conn->pool->options.reset == RESET_SMART;
}

/* Is there something to be done in the session before a request runs? */
bool
conn_needs_preparing(const Conn *conn, const Request *req)
{
	return conn_shows_sequences(conn, req) ||
		(req->slot->traces & TRACE_READ_ONLY) != 0;
}

static void
check_piece(void *arg)
{
	Conn	   *conn = arg;
	Request    *req = conn->waiter;
	const char *sql = "";

	if (req != NULL && (req->slot->traces & TRACE_READ_ONLY))
		sql = conn_shows_sequences(conn, req) ? "DISCARD SEQUENCES; " MAKE_READ_ONLY_SQL : MAKE_READ_ONLY_SQL;
	else if (req != NULL && conn_shows_sequences(conn, req))
		sql = "DISCARD SEQUENCES";
	if (!conn_send_simple(conn, sql))
		conn_lost(conn);
}

/* See whether the connection still works, for a request or just so. */
void
conn_check(Conn *conn, Request *req)
{
	conn_move(conn, CONN_CHECKING);
	conn->waiter = req;
	if (req != NULL)
		req->conn = conn;
	conn_set_deadline(conn, CONN_ANSWER_MS);
	(void) work_guard(check_piece, conn, conn_recover, conn);
}

/* Send statements of our own on a connection that does nothing else. */
bool
conn_send_simple(Conn *conn, const char *sql)
{
	conn->flushed = false;
	conn->asked_at = ticks_now();
	return conn_set_pipelined(conn, false) &&
		PQsendQuery(conn->pg, sql) == 1 && conn_flush(conn);
}
