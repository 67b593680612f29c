/*
 * stress.h
 *	  The driver of the stress test: dozens of sessions of the local server, all
 *	  at once, each of which knows what its answers have to be.
 *
 * main.c		sessions: connecting, running, cancelling, killing; the loop
 * judge.c		is an answer what it has to be?
 * ops.c		what a session may do; ops_read.c, ops_write.c and
 *				ops_transaction.c: what has to come of it
 * ledger.c		what became of each write, and whether the remote agrees
 *
 * test/t/120_stress.pl makes the servers, starts the driver, and disturbs them
 * while it runs.  It tells the driver by lines on its standard input:
 *
 *	 loud	connections will be lost from now on
 *	 quiet	all is well again
 *	 stop	end the sessions, compare with the remote, print what was counted
 *
 * Each is answered by the same word.  What the driver prints besides is "FAIL"
 * and a reason, or "count", a name and a number.
 */
#ifndef STRESS_H
#define STRESS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define MAX_PARAMS	8
#define MAX_CELLS	4
#define MAX_STRINGS 32

/* What is known of a write. */
typedef enum Outcome
{
	OUTCOME_NONE,				/* not a write */
	OUTCOME_OK,					/* it is there, once */
	OUTCOME_FAILED,				/* nothing of it is there */
	OUTCOME_UNKNOWN				/* all of it is there once, or nothing */
} Outcome;

/*
 * One statement of a session.  It is named by the session's number and a serial
 * number, and whatever it sends, returns or writes has that name in it.
 */
typedef struct Op
{
	int			session;
	int			serial;
	const char *role;			/* of the session */
	const char *pool;
	char	   *local;			/* what the local server is sent */
	char	   *sql;			/* what the remote is to run, $2 of it */
	const char *remark;			/* that sql has to begin with, or NULL */
	const char *function;		/* of local.sql, which makes the calls, or
								 * NULL */
	int			nparams;
	const char *params[MAX_PARAMS]; /* the remote's, from $3 on */

	/* The answer. */
	int			nrows;
	int			ncells;
	const char *cells[MAX_CELLS];	/* those of each row */
	bool		numbered;		/* and one more, the number of the row */
	int			notices;		/* that come with it */
	const char *state;			/* the error that there has to be, or NULL */
	const char *message;		/* a part of what it says */

	/* The remote. */
	bool		writes;
	int			leaves;			/* rows in stress_log, if it succeeds */
	bool		runs;			/* in spite of the error, perhaps */

	/* What the session may do meanwhile: cancel it, for one. */
	double		act_chance;
	int			act_after;		/* milliseconds */
	int			act_within;		/* and at most so many later */

	int			nstrings;
	char	   *strings[MAX_STRINGS];	/* to be freed */
} Op;

typedef enum SessionState
{
	SESSION_CLOSED,				/* conn is NULL */
	SESSION_CONNECTING,
	SESSION_IDLE,
	SESSION_RUNNING				/* op is under way */
} SessionState;

/* What is to befall a statement. */
typedef enum Act
{
	ACT_NONE,
	ACT_CANCEL,					/* by PQcancel() */
	ACT_SIGNAL,					/* by pg_cancel_backend() */
	ACT_TERMINATE,				/* by pg_terminate_backend() */
	ACT_VANISH					/* the client closes its socket */
} Act;

typedef struct Session
{
	int			id;
	const char *role;
	SessionState state;
	PGconn	   *conn;
	short		events;			/* that its socket is waited for */
	int64_t		since;			/* when it got into this state */
	int64_t		until;			/* when it is to go on, in IDLE */
	int			timeout;		/* its statement_timeout, or 0 */
	Op			op;
	int			serial;			/* of the last op */
	Act			act;
	int64_t		act_at;
	bool		cancelled;		/* has been done to op */
	bool		killed;
	int			notices;		/* of op that have come */
	PGresult   *answer;			/* of op, as far as it has come */
} Session;

/* main.c */
extern bool loud;				/* connections may be lost */
extern int64_t quiet_since;

extern void count(const char *name, int64_t n);
extern uint64_t random_below(uint64_t n);
extern bool chance(double probability);
extern void fail(const char *format,...) __attribute__((format(printf, 1, 2)));

/* judge.c */
extern Outcome judge(const Session *s);
extern void on_notice(void *arg, const PGresult *res);

/* ops.c */
extern void op_make(Op *op);
extern void op_clear(Op *op);

/* ledger.c */
extern void ledger_note(const Op *op, Outcome outcome);
extern void ledger_compare(PGconn *remote);

#endif							/* STRESS_H */
