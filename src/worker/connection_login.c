/*
 * connection_login.c
 *	  One step of libpq's log-in, which must not hold the loop.
 *
 * A step is a PQconnectPoll(): it reads what the remote has sent, and answers.
 * Most cost nothing.  But SCRAM hashes the password as often as the remote says,
 * and Kerberos may ask a server of its own.  So
 *	1. login_step() looks at what has come, before libpq does.  A message that
 *	   has not come whole is waited for: libpq would take its beginning, and the
 *	   rest would tell nothing.
 *	2. More hashing than WIRE_SCRAM_MOST is refused.
 *	3. For a step that may take long, the socket leaves the wait set and libpq's
 *	   connection moves into a job, from conn->pg.  Until the job is done only its
 *	   thread touches that; conn->step is the job.
 *	4. step_done(), in the loop, puts it back, and the log-in goes on.
 * Who closes the connection or goes on to the next place meanwhile, as at the end
 * of connect_timeout, calls login_abandon(): then step_done() ends libpq's
 * connection instead.  A worker that ends does not wait for such threads.
 *
 * What libpq keeps for a log-in is bounded, too: bytes are counted, and
 * once the remote has accepted us, lengths of messages are looked at.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "storage/fd.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/* Most threads that log in for a pool at a time, as they compute. */
#define STEPS_PER_POOL	2

/* Milliseconds after which we look again for what a socket does not tell. */
#define AGAIN_MS		10

/* So much is looked at; what a log-in has takes some hundred bytes. */
#define LOOK_BYTES		(8 * 1024)

/* All of it malloc'd, as the thread needs it. */
typedef struct Step
{
	PGconn	   *pg;
	PostgresPollingStatusType status;
	Pool	   *pool;			/* this and the rest are the loop's */
	Conn	   *conn;
} Step;

/* In a thread. */
static void
step_run(void *data)
{
	Step	   *step = data;

	step->status = PQconnectPoll(step->pg);
}

static void
stepped_piece(void *arg)
{
	Step	   *step = arg;

	conn_open_polled(step->conn, step->status);
}

/* Back in the loop. */
static void
step_done(void *data, void *arg)
{
	Step	   *step = data;
	Conn	   *conn = arg;

	step->pool->steps--;
	pool_mark(step->pool);
	if (conn == NULL)
	{
		PQfinish(step->pg);
		ReleaseExternalFD();
	}
	else
	{
		conn->step = NULL;
		conn->pg = step->pg;
		step->conn = conn;
		(void) work_guard(stepped_piece, step, conn_recover, conn);
	}
	free(step);
}

/* Nobody waits for the step that is under way, if one is. */
void
login_abandon(Conn *conn)
{
	if (conn->step != NULL)
		conn->step->arg = NULL;
	conn->step = NULL;
	timer_stop(&conn->watch);
}

/* Look again a little later. */
static void
wait_a_little(Conn *conn)
{
	loop_socket(conn, PGINVALID_SOCKET, 0);
	timer_set(&conn->watch, ticks_plus_ms(ticks_now(), AGAIN_MS));
}

/* Make the step in a thread. */
static void
step_start(Conn *conn)
{
	Step	   *step;

	if (conn->pool->steps >= STEPS_PER_POOL)
	{
		wait_a_little(conn);
		return;
	}
	step = malloc(sizeof(Step));
	if (step != NULL)
	{
		step->pg = conn->pg;
		step->pool = conn->pool;
		conn->step = offload_submit(OFFLOAD_LOGIN, step_run, step_done, step, conn);
	}
	if (conn->step == NULL)
	{
		free(step);
		wait_a_little(conn);
		return;
	}
	conn->pool->steps++;
	conn->pg = NULL;
	loop_socket(conn, PGINVALID_SOCKET, 0);
}

/* It asks for too much: go on to the next place. */
static void
refuse(Conn *conn, char *why)
{
	conn_open_failed(conn, psprintf("log-in at host \"%s\", port %s, was given up: %s",
									PQhost(conn->pg) ? PQhost(conn->pg) : "",
									PQport(conn->pg) ? PQport(conn->pg) : "", why));
}

/*
 * Look at what has come before the remote has accepted us.  Returns false when
 * the step is not to be made, or not now.
 */
static bool
look_at_requests(Conn *conn, const char *buf, Size n)
{
	int64		iterations;

	switch (wire_login(buf, n, &iterations))
	{
		case WIRE_LOGIN_PARTIAL:
			wait_a_little(conn);
			return false;
		case WIRE_LOGIN_SLOW:
			if (iterations > WIRE_SCRAM_MOST)
				refuse(conn, psprintf("the server asks for %lld iterations of SCRAM, and dbpool computes %d at most",
									  (long long) iterations, WIRE_SCRAM_MOST));
			else
				step_start(conn);
			return false;
		case WIRE_LOGIN_DONE:
			conn->accepted = true;
			return true;
		default:
			return true;
	}
}

/* Make the next step, for which the socket is ready. */
void
login_step(Conn *conn)
{
	ConnStatusType status = PQstatus(conn->pg);
	bool		starts = status == CONNECTION_STARTED || status == CONNECTION_MADE;
	int			bytes = starts ? 0 : compat_unread_bytes(conn->pg);
	char		buf[LOOK_BYTES];
	ssize_t		n = 0;
	WireMessage large;

	if (conn->received + bytes > WIRE_LOGIN_MOST)
	{
		refuse(conn, psprintf("the server has sent more than %d bytes", WIRE_LOGIN_MOST));
		return;
	}
	if (PQgssEncInUse(conn->pg) || status == CONNECTION_GSS_STARTUP)
	{
		step_start(conn);
		return;
	}
	if (!starts && status != CONNECTION_SSL_STARTUP && !compat_handshake(conn->pg))
		n = compat_peek_input(conn->pg, buf, sizeof(buf));
	if (n > 0 && !conn->accepted && !look_at_requests(conn, buf, n))
		return;
	conn->wire.row_most = conn->wire.other_most = WIRE_LOGIN_MOST;
	if (n > 0 && !wire_look(&conn->wire, buf, n, &large))
	{
		refuse(conn, psprintf("the server has sent %s of %u bytes",
							  wire_name(large.type), large.length));
		return;
	}
	conn->received += bytes;
	conn_open_polled(conn, PQconnectPoll(conn->pg));
}
