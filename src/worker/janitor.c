/*
 * janitor.c
 *	  What happens to connections by time: deadlines of what they are doing, idle and
 *	  aged ones.
 *
 * Timers are armed for the earliest thing that may be due and look for
 * themselves when they fire, so that the path of a statement seldom touches
 * them.
 */
#include "postgres.h"

#include "worker/connection.h"
#include "worker/worker.h"

/* The remote has not answered in time. */
static void
conn_deadline(void *arg)
{
	Conn	   *conn = arg;

	switch (conn->state)
	{
		case CONN_CONNECTING:
			conn_open_overdue(conn);
			break;
		case CONN_CHECKING:
			if (conn->rests)
			{
				conn_check_again(conn);
				break;
			}
			conn->loss.unanswered = true;
			strlcpy(conn->loss.error, "The remote server did not answer a check.",
					sizeof(conn->loss.error));
			conn_lost(conn);
			break;
		case CONN_BUSY:
			if (flight_is_orphan(conn_head(conn)))
				conn_cancel(conn);
			break;
		case CONN_CANCELLING:
			conn_cancel_overdue(conn);
			break;
		case CONN_RESETTING:
			conn_reset_overdue(conn);
			break;
		default:
			break;
	}
}

/*
 * Others may be waiting behind a connection's first flight, or it waits itself
 * for what does not make its socket ready.
 */
static void
conn_watch_fire(void *arg)
{
	Conn	   *conn = arg;

	if (conn->state == CONN_CONNECTING)
		conn_open_event(conn);
	else
		conn_look(conn);
}

/*
 * The connection of a lease: its session may have forgotten it.  A log line says so once;
 * when it has done nothing for too long, the transaction is rolled back.
 */
static void
lease_fire(Conn *conn)
{
	LeaseShared *lease = conn->lease.shared;
	const char *server = NameStr(conn->pool->options.server);
	int			leak = conn->pool->options.leak_threshold;
	Ticks		now = ticks_now();

	if (leak > 0 && !conn->lease.warned && now >= ticks_plus_ms(conn->lease.opened_at, leak))
	{
		conn->lease.warned = true;
		ereport(LOG,
				(errmsg("dbpool: process %d has had a transaction open on pool \"%s\" for %.0f s",
						lease->pid, server, (now - conn->lease.opened_at) / 1000000.0),
				 errdetail("Its role has OID %u, its last statement is: %s", lease->roleid, lease->sql)));
	}
	if (conn->state == CONN_LEASED && conn->waiter == NULL && lease->idle_timeout > 0 &&
		!conn->lease.prepared &&
		now >= ticks_plus_ms(conn->lease.idle_since, lease->idle_timeout))
	{
		lease_end(conn, "25P03",
				  psprintf("It did nothing for %g s, and was rolled back. The server's option lease_idle_timeout sets the limit.",
						   lease->idle_timeout / 1000.0));
		conn_settle(conn);
	}
	else
		conn_watch_lease(conn);
}

/* Look what is due of a connection that is idle, or a lease's. */
static void
conn_idle_fire(void *arg)
{
	Conn	   *conn = arg;
	Pool	   *pool = conn->pool;
	const PoolOptions *options = &pool->options;
	Ticks		now = ticks_now();

	if (conn->state != CONN_CLOSED && conn->lease.shared != NULL)
		lease_fire(conn);
	if (conn->state != CONN_IDLE)
		return;
	if (conn->expires_at != 0 && now >= conn->expires_at)
		conn_close(conn, "it has reached max_lifetime");
	else if (options->idle_timeout > 0 && pool_size(pool) > pool_min(pool) &&
			 now >= ticks_plus_ms(conn->worked_at, options->idle_timeout))
		conn_close(conn, "it has reached idle_timeout");
	else if (options->health_check_interval > 0 &&
			 now >= ticks_plus_ms(conn->used_at,
								  options->health_check_interval))
		conn_check(conn, NULL);
	else
		conn_idle(conn);
}

/* Something happened on a connection's socket. */
static void
conn_ready_socket(void *arg)
{
	Conn	   *conn = arg;
	uint32		events = conn->io.poll.events;

	if (conn->state == CONN_CONNECTING)
		conn_open_event(conn);
	else if ((events & WL_SOCKET_CLOSED) && !(events & WL_SOCKET_READABLE))
	{
		/*
		 * The remote has closed while we were not reading since the backend
		 * is slow.  What it sent before is still to be read: leave the socket
		 * out of the wait until then.
		 */
		poll_socket(&conn->io.poll, conn->io.poll.sock, 0);
	}
	else
		conn_event(conn, events);
}

/* At start: what the connections call from below. */
void
janitor_init(void)
{
	conn_handlers.ready = conn_ready_socket;
	conn_handlers.go_on = conn_go_on;
	conn_handlers.deadline = conn_deadline;
	conn_handlers.watch = conn_watch_fire;
	conn_handlers.idle = conn_idle_fire;
}
