/*
 * wire_login.c
 *	  One step of libpq's log-in, which must not hold the loop.
 *
 * A step is a PQconnectPoll(): it reads what the remote has sent, and answers.
 *	1. login_step() has login.c look at what has come.
 *	2. For a step that may take long, the socket leaves the wait set and libpq's
 *	   connection moves into a job, from conn->pg.  Until the job is done only its
 *	   thread touches that; conn->opening.step is the job.
 *	3. step_done(), in the loop, puts it back, and the log-in goes on.
 * Who closes the connection or goes on to the next place meanwhile, as at the end
 * of connect_timeout, calls login_abandon(): then step_done() ends libpq's
 * connection instead.  A worker that ends does not wait for such threads.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "storage/fd.h"

#include "compat.h"
#include "pq/keywords.h"
#include "worker/connection.h"
#include "worker/offload.h"

/* All of it malloc'd, as the thread needs it. */
typedef struct Step
{
	PGconn	   *pg;
	PostgresPollingStatusType status;
	LoginStepped stepped;		/* this and the rest are the loop's */
	Pool	   *pool;
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

	step->stepped(step->conn, step->status, NULL);
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
		conn->opening.step = NULL;
		conn->io.pg = step->pg;
		step->conn = conn;
		(void) work_guard(stepped_piece, step, conn_recover, conn);
	}
	free(step);
}

/* Nobody waits for the step that is under way, if one is. */
void
login_abandon(Conn *conn)
{
	offload_abandon(&conn->opening.step);
	timer_stop(&conn->watch);
}

/* Look again a little later. */
static void
wait_a_little(Conn *conn)
{
	poll_forget(&conn->io.poll);
	timer_set(&conn->watch, ticks_plus_ms(ticks_now(), LOGIN_AGAIN_MS));
}

/* Make the step in a thread. */
static void
step_start(Conn *conn, LoginStepped stepped)
{
	Step	   *step;

	if (!offload_has_room(OFFLOAD_LOGIN, conn->pool->steps))
	{
		wait_a_little(conn);
		return;
	}
	step = malloc(sizeof(Step));
	if (step != NULL)
	{
		step->pg = conn->io.pg;
		step->stepped = stepped;
		step->pool = conn->pool;
		conn->opening.step = offload_submit(OFFLOAD_LOGIN, step_run, step_done, step, conn);
	}
	if (conn->opening.step == NULL)
	{
		free(step);
		wait_a_little(conn);
		return;
	}
	conn->pool->steps++;
	conn->io.pg = NULL;
	poll_forget(&conn->io.poll);
}

/* Has the remote hung up before it said a word, or never answered?  libpq will not say. */
static void
note_cut_off(Conn *conn)
{
	conn->opening.cut_off = conn->opening.login.received == 0 && login_is_cut_off(conn->io.pg);
	conn->opening.refused = conn->opening.cut_off && PQstatus(conn->io.pg) == CONNECTION_STARTED;
}

/*
 * Make the next step, for which the socket is ready.  stepped is told what came of
 * it, now or later: what PQconnectPoll() has returned, or that it is not to be made,
 * and why.  Where it has to wait, the step is to be asked for again when conn->watch
 * fires.
 */
void
login_step(Conn *conn, LoginStepped stepped)
{
	char		why[LOGIN_WHY_BYTES];

	note_cut_off(conn);
	switch (login_look(conn->io.pg, &conn->opening.login, &conn->io.wire, why))
	{
		case LOGIN_STEP:
			stepped(conn, PQconnectPoll(conn->io.pg), NULL);
			break;
		case LOGIN_SLOW_STEP:
			step_start(conn, stepped);
			break;
		case LOGIN_WAIT:
			wait_a_little(conn);
			break;
		case LOGIN_REFUSE:
			stepped(conn, PGRES_POLLING_FAILED, why);
			break;
	}
}

/* What a log-in that libpq has given up says of the server, see ipc/endpoint.h. */
Lesson
login_lesson(const Conn *conn)
{
	const Login *login = &conn->opening.login;

	if (conn->opening.refused)
		return ENDPOINT_COST_NOTHING;
	if (login->sqlstate[0] != '\0')
		return !login_is_unwell(login->sqlstate) || login->own_limit ? LESSON_WELL :
			strcmp(login->sqlstate, "53300") == 0 ? ENDPOINT_COST_LITTLE : ENDPOINT_COST_NOTHING;
	if (conn->opening.phase == PHASE_SETTINGS)
		return LESSON_WELL;

	/*
	 * what the definition has asked for the server may have had to refuse
	 * without a word
	 */
	if (conn->opening.cut_off &&
		definition_value(conn->pool->definition, conn->pool->definition_len, "sslnegotiation") == NULL)
		return ENDPOINT_COST_SOME;
	return login->accepted ? LESSON_WELL : LESSON_NONE;
}
