/*
 * main.c
 *	  Sessions: connecting, running, cancelling, killing; the loop.
 *
 * stress LOCAL REMOTE SEED SESSIONS STRETCH POOL...
 *
 * LOCAL and REMOTE are connection strings without a user.  STRETCH is how much
 * slower than usual the local server may be.  In a pool named "tight" nobody
 * is sure to get a connection in time.
 *
 * A cancel is sent synchronously, so that it cannot hit a later statement of
 * its session than the one that it is meant for.  Hence: a session sees a
 * cancel only if it was sent one meanwhile, a timeout only if it has one, and a
 * lost connection only while things are loud.  Any other error has to be the
 * statement's own.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

/* Seconds that a statement, or anything else, may take; before stretching. */
#define PATIENCE	60

/* Failures that are told in full. */
#define MAX_TOLD	30

static const char *local;
static const char *remote;
static int	stretch;
static char **pools;
static int	npools;

static Session *sessions;
static int	nsessions;
static PGconn *control;			/* a superuser's session on the local server */

bool		loud;
int64_t		quiet_since;

static int64_t longest;			/* that an operation took */
static bool stopping;
static int	failures;

static struct
{
	const char *name;
	int64_t		n;
}			counters[] = {
	{"ok", 0}, {"transactions", 0}, {"expected_errors", 0}, {"rows", 0},
	{"cancelled", 0}, {"timed_out", 0}, {"not_acquired", 0},
	{"lost", 0}, {"not_run", 0}, {"deallocated", 0},
	{"cancels", 0}, {"kills", 0}, {"killed", 0}, {"sessions", 0},
};

void
count(const char *name, int64_t n)
{
	for (int i = 0; i < lengthof(counters); i++)
	{
		if (strcmp(counters[i].name, name) == 0)
		{
			counters[i].n += n;
			return;
		}
	}
	abort();
}

/* In one line. */
void
fail(const char *format,...)
{
	va_list		args;
	char		reason[2000];

	if (failures++ >= MAX_TOLD)
		return;
	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	for (char *at = reason; (at = strchr(at, '\n')) != NULL; at++)
		*at = ' ';
	printf("FAIL %s\n", reason);
}

/* Nothing can go on. */
static void give_up(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

static void
give_up(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	printf("FAIL ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	exit(1);
}

/* --- time and chance ------------------------------------------------------------- */

/* Microseconds. */
static int64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static uint64_t random_state;

/* xorshift64*; the same for all who have the seed. */
static uint64_t
random_bits(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * UINT64_C(2685821657736338717)) >> 16;
}

uint64_t
random_below(uint64_t n)
{
	return random_bits() % n;
}

bool
chance(double probability)
{
	return random_below(1000000) < probability * 1000000;
}

/* --- sessions --------------------------------------------------------------------- */

static void
session_move(Session *s, SessionState state)
{
	s->state = state;
	s->since = now();
}

static void
session_close(Session *s)
{
	PQclear(s->answer);
	s->answer = NULL;
	PQfinish(s->conn);
	s->conn = NULL;
	session_move(s, SESSION_CLOSED);
}

/* Log in.  Some sessions have little time for their statements. */
static void
session_open(Session *s)
{
	char		conninfo[1024];

	s->timeout = chance(0.15) ? (10 + (int) random_below(200)) * stretch : 0;
	snprintf(conninfo, sizeof(conninfo),
			 "%s user=%s client_encoding=UTF8 options='-c statement_timeout=%d'",
			 local, s->role, s->timeout);
	s->conn = PQconnectStart(conninfo);
	s->events = POLLOUT;
	count("sessions", 1);
	session_move(s, SESSION_CONNECTING);
}

static void
session_connecting(Session *s)
{
	switch (PQconnectPoll(s->conn))
	{
		case PGRES_POLLING_READING:
			s->events = POLLIN;
			break;
		case PGRES_POLLING_WRITING:
			s->events = POLLOUT;
			break;
		case PGRES_POLLING_OK:
			PQsetnonblocking(s->conn, 1);
			PQsetNoticeReceiver(s->conn, on_notice, s);
			s->events = POLLIN;
			s->until = 0;
			session_move(s, SESSION_IDLE);
			break;
		default:
			give_up("could not connect to the local server: %s",
					PQerrorMessage(s->conn));
	}
}

static void
session_flush(Session *s)
{
	s->events = PQflush(s->conn) > 0 ? POLLIN | POLLOUT : POLLIN;
}

/* Something is to happen to some of the statements. */
static void
choose_act(Session *s)
{
	int			dice = (int) random_below(100);

	s->act = ACT_NONE;
	if (!chance(s->op.act_chance))
		return;
	s->act = dice < 60 ? ACT_CANCEL : dice < 92 ? ACT_SIGNAL :
		dice < 96 ? ACT_TERMINATE : ACT_VANISH;
	s->act_at = now() + stretch *
		(int64_t) (s->op.act_after * 1000 + random_below(s->op.act_within * 1000));
}

static void
session_start(Session *s)
{
	Op		   *op = &s->op;
	const char *values[MAX_PARAMS + 2];
	Oid			types[MAX_PARAMS + 2] = {0};

	memset(op, 0, sizeof(Op));
	op->session = s->id;
	op->serial = ++s->serial;
	op->role = s->role;
	op->pool = pools[random_below(npools)];
	op_make(op);
	values[0] = op->pool;
	values[1] = op->sql;
	for (int i = 0; i < op->nparams; i++)
	{
		values[i + 2] = op->params[i];
		types[i + 2] = 25;		/* text */
	}
	s->cancelled = false;
	s->notices = 0;
	choose_act(s);
	session_move(s, SESSION_RUNNING);
	if (PQsendQueryParams(s->conn, op->local, op->nparams + 2, types, values, NULL,
						  NULL, 0) != 1)
		give_up("could not send: %s", PQerrorMessage(s->conn));
	session_flush(s);
}

/* The operation has ended, or nobody will know how. */
static void
session_ended(Session *s)
{
	int64_t		took = now() - s->since;

	if (took > longest)
		longest = took;
	ledger_note(&s->op, judge(s));
	op_clear(&s->op);
	PQclear(s->answer);
	s->answer = NULL;
	session_move(s, SESSION_IDLE);
	s->until = loud || chance(0.1) ? s->since + (int64_t) random_below(20000) : 0;
	if (s->killed || PQstatus(s->conn) == CONNECTION_BAD || chance(0.002))
		session_close(s);
	s->killed = false;
}

static void
session_running(Session *s, short events)
{
	PGresult   *res;

	if (events & POLLOUT)
		session_flush(s);
	if (events & ~POLLOUT)
		PQconsumeInput(s->conn);
	while (s->state == SESSION_RUNNING && !PQisBusy(s->conn))
	{
		res = PQgetResult(s->conn);
		if (res == NULL)
			session_ended(s);
		else if (s->answer == NULL)
			s->answer = res;
		/* the commit comes after the rows */
		else if (PQresultStatus(res) == PGRES_FATAL_ERROR)
		{
			PQclear(s->answer);
			s->answer = res;
		}
		else
			PQclear(res);
	}
}

static void
control_signal(const char *function, int pid)
{
	char		sql[100];
	PGresult   *res;

	snprintf(sql, sizeof(sql), "SELECT %s(%d)", function, pid);
	res = PQexec(control, sql);
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		give_up("%s: %s", sql, PQerrorMessage(control));
	PQclear(res);
}

static void
session_act(Session *s)
{
	Act			act = s->act;
	PGcancel   *cancel;
	char		error[256];

	s->act = ACT_NONE;
	count(act == ACT_CANCEL || act == ACT_SIGNAL ? "cancels" : "kills", 1);
	switch (act)
	{
		case ACT_NONE:
			break;
		case ACT_CANCEL:
			s->cancelled = true;
			cancel = PQgetCancel(s->conn);
			if (PQcancel(cancel, error, sizeof(error)) != 1)
				fail("s%d.%d: could not cancel: %s", s->id, s->serial, error);
			PQfreeCancel(cancel);
			break;
		case ACT_SIGNAL:
			s->cancelled = true;
			control_signal("pg_cancel_backend", PQbackendPID(s->conn));
			break;
		case ACT_TERMINATE:
			s->killed = true;
			control_signal("pg_terminate_backend", PQbackendPID(s->conn));
			break;
		case ACT_VANISH:
			count("killed", 1);
			ledger_note(&s->op, OUTCOME_UNKNOWN);
			op_clear(&s->op);
			session_close(s);
			break;
	}
}

/* What a session does without being asked. */
static void
session_turn(Session *s, int64_t at)
{
	if (s->state == SESSION_CLOSED && !stopping)
		session_open(s);
	if (s->state == SESSION_IDLE && !stopping && at >= s->until)
		session_start(s);
	if (s->state == SESSION_RUNNING && s->act != ACT_NONE && at >= s->act_at)
		session_act(s);
	if ((s->state == SESSION_RUNNING || s->state == SESSION_CONNECTING) &&
		at - s->since > PATIENCE * stretch * INT64_C(1000000))
		give_up("s%d.%d: pool \"%s\" does not answer: %.200s", s->id, s->op.serial,
				s->op.pool, s->op.sql);
}

/* --- the loop ---------------------------------------------------------------------- */

/* A word of the one who disturbs; without him there is no point in going on. */
static void
command(void)
{
	char		line[100];
	ssize_t		len = read(STDIN_FILENO, line, sizeof(line) - 1);

	if (len <= 0)
		exit(1);
	line[len] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, "loud") == 0)
		loud = true;
	else if (strcmp(line, "quiet") == 0)
	{
		loud = false;
		quiet_since = now();
	}
	else if (strcmp(line, "stop") == 0)
		stopping = true;
	else
		give_up("unknown command \"%s\"", line);
	printf("%s\n", line);
	fflush(stdout);
}

/* Milliseconds until some session has something to do. */
static int
longest_sleep(int64_t at)
{
	int64_t		until = at + 1000000;

	for (int i = 0; i < nsessions; i++)
	{
		Session    *s = &sessions[i];

		if (s->state == SESSION_IDLE && s->until < until)
			until = s->until;
		if (s->state == SESSION_RUNNING && s->act != ACT_NONE && s->act_at < until)
			until = s->act_at;
	}
	return until <= at ? 0 : (int) ((until - at) / 1000 + 1);
}

/* Wait, then serve those whose sockets are ready. */
static void
turn(struct pollfd *fds)
{
	int64_t		at = now();

	for (int i = 0; i < nsessions; i++)
	{
		session_turn(&sessions[i], at);
		fds[i].fd = sessions[i].conn ? PQsocket(sessions[i].conn) : -1;
		fds[i].events = sessions[i].events;
	}
	fds[nsessions].fd = STDIN_FILENO;
	fds[nsessions].events = POLLIN;
	if (poll(fds, nsessions + 1, longest_sleep(now())) < 0 && errno != EINTR)
		give_up("poll: %s", strerror(errno));
	if (fds[nsessions].revents != 0)
		command();
	for (int i = 0; i < nsessions; i++)
	{
		if (fds[i].revents == 0)
			continue;
		if (sessions[i].state == SESSION_CONNECTING)
			session_connecting(&sessions[i]);
		else if (sessions[i].state == SESSION_RUNNING)
			session_running(&sessions[i], fds[i].revents);
		else if (sessions[i].state == SESSION_IDLE)
			PQconsumeInput(sessions[i].conn);
	}
}

static bool
all_ended(void)
{
	for (int i = 0; i < nsessions; i++)
	{
		if (sessions[i].state == SESSION_RUNNING)
			return false;
	}
	return true;
}

static PGconn *
connect_or_give_up(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		give_up("could not connect: %s", PQerrorMessage(conn));
	return conn;
}

/* What sessions have given up may still be under way. */
static void
wait_for_rest(PGconn *conn, const char *sql)
{
	int64_t		end = now() + PATIENCE * stretch * INT64_C(1000000);
	bool		rest = false;

	while (!rest)
	{
		PGresult   *res = PQexec(conn, sql);

		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			give_up("%s: %s", sql, PQerrorMessage(conn));
		rest = PQgetvalue(res, 0, 0)[0] == 't';
		if (!rest && now() > end)
			give_up("no rest: %s", sql);
		PQclear(res);
		usleep(20000);
	}
}

static void
finish(void)
{
	PGconn	   *conn = connect_or_give_up(remote);

	for (int i = 0; i < nsessions; i++)
		session_close(&sessions[i]);
	wait_for_rest(control, "SELECT NOT EXISTS (SELECT FROM dbpool_requests)"
				  " AND NOT EXISTS (SELECT FROM dbpool_connections WHERE state <> 'idle')");
	wait_for_rest(control, "SELECT NOT EXISTS (SELECT FROM dbpool_in_doubt)");
	wait_for_rest(conn, "SELECT NOT EXISTS (SELECT FROM pg_prepared_xacts)");
	wait_for_rest(conn, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity"
				  " WHERE usename LIKE 'stress%' AND state <> 'idle')");
	ledger_compare(conn);
	PQfinish(conn);
	PQfinish(control);
	for (int i = 0; i < lengthof(counters); i++)
		printf("count %s %lld\n", counters[i].name, (long long) counters[i].n);
	printf("count longest_ms %lld\n", (long long) longest / 1000);
	printf("count failures %d\n", failures);
}

int
main(int argc, char **argv)
{
	struct pollfd *fds;

	if (argc < 7)
		give_up("usage: stress LOCAL REMOTE SEED SESSIONS STRETCH POOL...");
	local = argv[1];
	remote = argv[2];
	random_state = strtoull(argv[3], NULL, 10) * UINT64_C(0x9E3779B97F4A7C15) + 1;
	nsessions = atoi(argv[4]);
	stretch = atoi(argv[5]);
	pools = argv + 6;
	npools = argc - 6;

	setvbuf(stdout, NULL, _IOLBF, 0);
	control = connect_or_give_up(local);
	sessions = calloc(nsessions, sizeof(Session));
	fds = calloc(nsessions + 1, sizeof(struct pollfd));
	if (sessions == NULL || fds == NULL)
		give_up("out of memory");
	for (int i = 0; i < nsessions; i++)
	{
		sessions[i].id = i;
		sessions[i].role = i % 2 == 0 ? "stress_a" : "stress_b";
	}
	while (!stopping || !all_ended())
		turn(fds);
	finish();
	free(fds);
	free(sessions);
	return failures > 0;
}
