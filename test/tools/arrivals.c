/*
 * arrivals.c: calls that come by a schedule, whether or not those before have been
 * answered; for workload W12 of the benches.
 *
 *	 arrivals CONNINFO SQL SESSIONS SECONDS RATE LIVE_MS [SEED]
 *
 * Opens so many sessions. Calls come at random (exponential gaps), RATE a second; each
 * takes a session that has nothing to do. How long a call took counts from when it
 * was to come, not from when a session was free for it: else a server that stalls would
 * stall those who measure it, and they would not notice. RATE 0: each session asks
 * as soon as it has been answered. The first second does not count.
 *
 * Prints a line of names and values: offered, in_time (answered well within LIVE_MS),
 * late, shed (SQLSTATE 53300), timeouts (57014), others (any other error), no_session, seconds, p50
 * and p99 of those answered well, in ms.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <time.h>

#include <libpq-fe.h>

#define MOST_SESSIONS	1000
#define MOST_ANSWERS	1000000

typedef struct Session
{
	PGconn	   *conn;
	bool		busy;
	double		due;			/* when its call was to come */
	char		sqlstate[6];	/* of its error; empty: none */
} Session;

static Session sessions[MOST_SESSIONS];
static int	nsessions;
static const char *sql;
static double live;
static double from;				/* what was to come before does not count */
static double answers[MOST_ANSWERS];
static int	nanswers;
static int	offered,
			in_time,
			late,
			shed,
			timeouts,
			others,
			no_session;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void
die(const char *what, PGconn *conn)
{
	fprintf(stderr, "%s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

/* A session has been answered. */
static void
count(Session *session)
{
	double		took = now() - session->due;

	if (session->due < from)
		return;
	if (strcmp(session->sqlstate, "53300") == 0)
		shed++;
	else if (strcmp(session->sqlstate, "57014") == 0)
		timeouts++;
	else if (session->sqlstate[0] != '\0')
		others++;
	else
	{
		if (took <= live)
			in_time++;
		else
			late++;
		if (nanswers < MOST_ANSWERS)
			answers[nanswers++] = took * 1000;
	}
}

static void
ask(Session *session, double due)
{
	session->busy = true;
	session->due = due;
	session->sqlstate[0] = '\0';
	if (PQsendQueryParams(session->conn, sql, 0, NULL, NULL, NULL, NULL, 0) != 1)
		die("could not send", session->conn);
	if (due >= from)
		offered++;
}

/* Read what a session has been sent; true when its call has ended. */
static bool
hear(Session *session)
{
	PGresult   *res;

	if (PQconsumeInput(session->conn) != 1)
		die("lost a session", session->conn);
	while (!PQisBusy(session->conn))
	{
		const char *sqlstate;

		res = PQgetResult(session->conn);
		if (res == NULL)
			return true;
		sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			snprintf(session->sqlstate, sizeof(session->sqlstate), "%s", sqlstate ? sqlstate : "?????");
		PQclear(res);
	}
	return false;
}

/* The call that is due is a free session's, or nobody's. */
static void
arrive(double due)
{
	static int	last = 0;

	for (int i = 1; i <= nsessions; i++)
	{
		Session    *session = &sessions[(last + i) % nsessions];

		if (session->busy)
			continue;
		last = (int) (session - sessions);
		ask(session, due);
		return;
	}
	if (due >= from)
	{
		offered++;
		no_session++;
	}
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static double
percentile(double percent)
{
	return nanswers > 0 ? answers[(int) (percent / 100 * (nanswers - 1) + 0.5)] : 0;
}

/* Until so late; rate 0: each asks again as soon as it has been answered. */
static void
run(double until, double rate)
{
	static struct pollfd fds[MOST_SESSIONS];
	double		due = now();
	int			busy = 0;

	for (int i = 0; i < nsessions; i++)
		fds[i] = (struct pollfd)
	{
		PQsocket(sessions[i].conn), POLLIN, 0
	};
	for (;;)
	{
		double		at = now();
		struct timespec wait;

		for (; rate > 0 && due <= at && due < until; due -= log(1 - drand48()) / rate)
			arrive(due);
		busy = 0;
		for (int i = 0; i < nsessions; i++)
		{
			if (rate == 0 && !sessions[i].busy && at < until)
				ask(&sessions[i], at);
			busy += sessions[i].busy;
		}
		if (at >= until && busy == 0)
			return;
		at = rate > 0 && due < until ? due - at : 0.05;
		wait = (struct timespec)
		{
			0, at > 0 ? (long) (at * 1e9) % 1000000000L : 0
		};
		if (ppoll(fds, nsessions, &wait, NULL) < 0 && errno != EINTR)
			die("ppoll", NULL);
		for (int i = 0; i < nsessions; i++)
		{
			if (fds[i].revents == 0 || !hear(&sessions[i]) || !sessions[i].busy)
				continue;
			sessions[i].busy = false;
			count(&sessions[i]);
		}
	}
}

int
main(int argc, char **argv)
{
	double		seconds;
	double		begin;

	if (argc < 7)
	{
		fprintf(stderr, "usage: arrivals CONNINFO SQL SESSIONS SECONDS RATE LIVE_MS [SEED]\n");
		return 2;
	}
	sql = argv[2];
	nsessions = atoi(argv[3]);
	seconds = atof(argv[4]);
	live = atof(argv[6]) / 1000;
	srand48(argc > 7 ? atol(argv[7]) : 1);
	if (nsessions < 1 || nsessions > MOST_SESSIONS)
		die("a wrong number of sessions", NULL);
	for (int i = 0; i < nsessions; i++)
	{
		sessions[i].conn = PQconnectdb(argv[1]);
		if (PQstatus(sessions[i].conn) != CONNECTION_OK)
			die("could not connect", sessions[i].conn);
	}
	begin = now();
	from = begin + 1;
	run(from + seconds, atof(argv[5]));
	qsort(answers, nanswers, sizeof(double), compare);
	printf("offered %d in_time %d late %d shed %d timeouts %d others %d no_session %d seconds %.3f p50 %.3f p99 %.3f\n",
		   offered, in_time, late, shed, timeouts, others, no_session, seconds,
		   percentile(50), percentile(99));
	return 0;
}
