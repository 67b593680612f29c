/*
 * flight.c
 *	  What was sent on a connection, until its answer is in.
 */
#include "postgres.h"

#include <signal.h>

#include "storage/proc.h"
#include "utils/memutils.h"

#include "worker/batch.h"

static dlist_head free_flights = DLIST_STATIC_INIT(free_flights);

/* The batch of a request that is about to be sent; NULL when there is no memory. */
Batch *
batch_make(const Request *req)
{
	Batch	   *batch = MemoryContextAllocExtended(worker_context, sizeof(Batch),
												   MCXT_ALLOC_NO_OOM);

	if (batch == NULL)
		return NULL;
	memset(batch, 0, offsetof(Batch, window));
	batch->flags = req->task.batch;
	return batch;
}

static void
batch_free(Batch *batch)
{
	if (batch->item != NULL)
		pfree(batch->item);
	pfree(batch);
}

/*
 * The connection broke; what has become of the batch, which is its first flight?  Of one
 * transaction nothing stays when COMMIT was not sent, or when the server process said
 * that it ends while answers before COMMIT's were due: it takes one statement after
 * the other.  Independent ones have fates of their own.
 */
Fate
batch_fate(Conn *conn)
{
	const Batch *batch = conn_head(conn)->batch;

	if (batch->flags & BATCH_EACH)
		return batch->sent == 0 ? FATE_NOT_RUN : FATE_UNKNOWN;
	if (!batch->committing ||
		(conn->loss.remote_ended && (batch->beginning || batch->done < batch->sent)))
		return FATE_NOT_RUN;
	return FATE_UNKNOWN;
}

/*
 * The same for its session, which may send again what has surely not run: how many items
 * may have.  Of one transaction this is not told when there are any.
 */
void
batch_tell_lost(Conn *conn, Fate fate)
{
	const Flight *flight = conn_head(conn);
	const Batch *batch = flight->batch;

	if (batch->flags & BATCH_EACH)
		request_put_lost(flight->req, conn->loss.remote_ended ?
						 Min(batch->sent, batch->done + 1) : batch->sent);
	else if (fate == FATE_NOT_RUN && !batch->leased && !flight->req->failed &&
			 (batch->sent == 0 || (conn->loss.remote_ended && batch->beginning)))
		request_put_lost(flight->req, 0);
}

/* A flight of nobody's. */
Flight *
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

/* One that is nowhere. */
void
flight_free(Flight *flight)
{
	if (flight->batch != NULL)
		batch_free(flight->batch);
	dlist_push_head(&free_flights, &flight->node);
}

/* What dbpool itself sends before the last flight. */
void
chore_add(Conn *conn)
{
	Flight	   *flight = flight_make();

	Assert(conn->flights.n > 0 && conn->io.pipelined);
	flight->chore = true;
	flight->sent_at = ticks_now();
	dlist_insert_before(dlist_tail_node(&conn->flights.list), &flight->node);
	conn->shared->in_flight = ++conn->flights.n;
}

/* The request's flight, behind those that the connection has. */
void
flight_add(Conn *conn, Flight *flight, Request *req)
{
	Assert(req->flight == NULL && req->conn == NULL && !req->queued);
	dlist_push_tail(&conn->flights.list, &flight->node);
	conn->shared->in_flight = ++conn->flights.n;
	flight->req = req;
	flight->sent_at = req->started_at;
	flight->statement = req->statement;
	req->flight = flight;
	req->conn = conn;
	req->endpoint = conn->endpoint.at;
	req->runs = true;
	req->blocked_us = 0;
	if (flight->statement != NULL)
	{
		flight->statement->refs++;
		flight->cost_us = flight->statement->usual_us;
		conn->flights.load += flight->cost_us;
	}
}

/* The copy of the request, which runs elsewhere, see hedge.c. */
void
flight_add_copy(Conn *conn, Flight *flight, Request *req)
{
	Assert(req->flight != NULL && req->conn != conn && req->hedge.flight == NULL && conn->flights.n == 0);
	dlist_push_tail(&conn->flights.list, &flight->node);
	conn->shared->in_flight = ++conn->flights.n;
	flight->hedges = req;
	flight->sent_at = ticks_now();
	flight->statement = req->statement;
	flight->statement->refs++;
	req->hedge.flight = flight;
	req->hedge.conn = conn;
}

/* Nobody wants a copy of the request any more; if there is one, it has lost. */
void
hedge_end(Request *req)
{
	Flight	   *copy = req->hedge.flight;

	req->hedge.watched = false;
	timer_stop(&req->hedge.due);
	if (copy == NULL)
		return;
	copy->hedges = NULL;
	req->hedge.conn->flights.orphans++;
	conn_set_deadline(req->hedge.conn, ORPHAN_MS);
	req->hedge.flight = NULL;
	req->hedge.conn = NULL;
}

/* The copy is the request's flight from now on, and that which was is an orphan. */
void
hedge_take_over(Request *req)
{
	Flight	   *copy = req->hedge.flight;
	Conn	   *conn = req->hedge.conn;
	Pool	   *pool = req->pool;

	Assert(copy != NULL && copy->hedges == req && copy->req == NULL && !req->put);
	copy->hedges = NULL;
	req->hedge.flight = NULL;
	req->hedge.conn = NULL;
	conn_orphan(req->conn, req->flight);
	copy->req = req;
	req->flight = copy;
	req->conn = conn;
	req->endpoint = conn->endpoint.at;
	req->answer->moved(req, conn);
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.hedge_wins++;
	SpinLockRelease(&pool->shared->mutex);
}

/* The first flight is through, or will never be: take it off. */
void
flight_remove(Conn *conn, Flight *flight)
{
	Assert(flight == conn_head(conn));
	if (flight->req != NULL)
	{
		hedge_end(flight->req);
		flight->req->flight = NULL;
		flight->req->conn = NULL;
	}
	else if (flight->hedges != NULL)
	{
		flight->hedges->hedge.flight = NULL;
		flight->hedges->hedge.conn = NULL;
	}
	else if (!flight->chore)
		conn->flights.orphans--;
	if (flight->awaited != NULL)
		request_let_go(flight->awaited);
	if (flight->deadlock != NULL)
		pfree(flight->deadlock);
	if (flight->statement != NULL)
		flight->statement->refs--;
	dlist_delete(&flight->node);
	conn->shared->in_flight = --conn->flights.n;
	conn->flights.load = conn->flights.n == 0 ? 0 : conn->flights.load - flight->cost_us;
	flight_free(flight);
}

/* Account for a request that ended now, us after the remote had begun with it. */
void
conn_count_request(Conn *conn, Request *req, Ticks now, int64 us, bool failed)
{
	Pool	   *pool = conn->pool;
	PoolShared *shared = pool->shared;
	int64		wait = req->started_at - req->queued_at;
	Size		sent = req->task.sql_len + req->task.params_len + req->copied;
	uint64		statements = req->task.kind == REQUEST_BATCH ? req->items_ok : !failed;
	uint64		errors = failed + req->items_failed;
	MinutePiece *piece;
	bool		measured = request_measure(req, now, us);

	req->remote_us = us;
	if (!failed)
	{
		if (conn_is_newest(conn))
			pool_works(pool);
		retry_success(pool);
	}
	if (!req->rides)
		pool->exec_us = pool->exec_us == 0 ? us : pool->exec_us * 0.9 + us * 0.1;
	SpinLockAcquire(&shared->mutex);
	if (measured)
		split_add(&shared->counters.split, &req->split);
	piece = minute_piece(shared->counters.minute, now);
	piece->statements += statements;
	piece->errors += errors;
	piece->rows += req->rows;
	shared->counters.statements += statements;
	shared->counters.errors += errors;
	shared->used_at = pool->used_at;
	shared->counters.exec_us += us;
	shared->counters.exec_max_us = Max(shared->counters.exec_max_us, (uint64) us);
	shared->counters.wait_us += wait;
	shared->counters.wait_max_us = Max(shared->counters.wait_max_us, (uint64) wait);
	shared->counters.rows += req->rows;
	shared->counters.bytes_sent += sent;
	shared->counters.bytes_received += req->bytes;
	SpinLockRelease(&shared->mutex);
	if (measured && pool->options.slow_query_threshold > 0)
		request_tell_split(req, NameStr(conn->shared->address), conn->shared->port);
}

/* Time since the remote began with the first flight, as far as we know. */
int64
conn_head_us(Conn *conn, Ticks now)
{
	return now - Max(conn_head(conn)->sent_at, conn->flights.ended_at);
}

/*
 * The session of a flight has given it up.  The caller sees to the request and
 * then to the connection.
 */
void
conn_orphan(Conn *conn, Flight *flight)
{
	Request    *req = flight->req;

	Assert(req != NULL && req->flight == flight);
	if (conn_head(conn) == flight)
		reply_drop_rows(conn);
	hedge_end(req);
	req->flight = NULL;
	req->conn = NULL;
	flight->req = NULL;
	conn->flights.orphans++;
}

/*
 * The connection's end must not leave anything running that its session takes
 * for ended: a process of this server ends with it.
 */
void
conn_stop_home(Conn *conn)
{
	if (conn->session.home_pid != 0 && conn->flights.n > 0)
		(void) home_signal(conn->session.home_pid, conn->session.home_role, SIGTERM);
}

/* A statement has been sent to a process of this server: see deadlock.c. */
void
deadlock_watch(void)
{
	if (!deadlock_look.armed)
		timer_set(&deadlock_look, ticks_plus_ms(ticks_now(), DeadlockTimeout));
}
