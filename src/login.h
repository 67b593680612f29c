/*
 * login.h
 *	  What a remote may cost us in a log-in: a look before each PQconnectPoll().
 */
#ifndef DBPOOL_LOGIN_H
#define DBPOOL_LOGIN_H

#include "wire.h"

struct pg_conn;

typedef struct Login
{
	bool		accepted;		/* the remote has authenticated us */
	int			greetings;		/* looks for the rest of what it then says */
	int64		received;		/* bytes so far */
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

extern LoginLook login_look(struct pg_conn *pg, Login *login, Wire *wire, char *why);

#endif							/* DBPOOL_LOGIN_H */
