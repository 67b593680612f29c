/*
 * login.h
 *	  What a remote may cost us in a log-in: a look before each PQconnectPoll().
 */
#ifndef DBPOOL_LOGIN_H
#define DBPOOL_LOGIN_H

#include "pq/wire.h"

struct pg_conn;

typedef enum LoginTls
{
	LOGIN_TLS_NOTHING,
	LOGIN_TLS_REFUSED,			/* the remote has none */
	LOGIN_TLS_BEGINS			/* it has, and nothing has gone over it so far */
} LoginTls;

typedef struct Login
{
	bool		accepted;		/* the remote has authenticated us */
	int			greetings;		/* looks for the rest of what it then says */
	int64		received;		/* bytes so far */
	LoginTls	tls;			/* what the last look has seen of it */
	char		sqlstate[6];	/* of an error that came, or "" */
	bool		own_limit;		/* that is a limit of the role or the database
								 * alone */
} Login;

typedef enum LoginLook
{
	LOGIN_STEP,					/* go on: it costs nothing */
	LOGIN_SLOW_STEP,			/* go on, but it may take long */
	LOGIN_WAIT,					/* look again in LOGIN_AGAIN_MS */
	LOGIN_REFUSE				/* give up */
} LoginLook;

/* Milliseconds after which to look again for what a socket does not tell. */
#define LOGIN_AGAIN_MS	10

/* Bytes of a reason for LOGIN_REFUSE. */
#define LOGIN_WHY_BYTES	400

/* Bytes that login_describe() needs at most: what is longer is cut. */
#define LOGIN_MESSAGE_BYTES	4096

extern LoginLook login_look(struct pg_conn *pg, Login *login, Wire *wire, char *why);

/* login_failed.c */
extern const char *login_hint(struct pg_conn *pg, const Login *login, const char *message);
extern bool login_is_cut_off(struct pg_conn *pg);
extern bool login_nobody_listens(const char *folder, const char *port);
extern bool login_is_unwell(const char *sqlstate);
extern bool login_missed_password(struct pg_conn *pg, const char *methods);
extern const char *login_hint_unknown_host(void);
extern const char *login_hint_timeout(void);
extern const char *login_hint_connect_sql(void);
extern void login_describe(char *buf, Size size, const char *host, const char *port,
						   const char *message);

#endif							/* DBPOOL_LOGIN_H */
