/*
 * replay.h
 *	  How far the standbys of a read-only pool are behind, see replay.c.
 */
#ifndef DBPOOL_REPLAY_H
#define DBPOOL_REPLAY_H

#include "worker/endpoints.h"

/* May the connection be given to a request, as far as its server has come? */
typedef enum ReplayVerdict
{
	REPLAY_SUITS = 0,
	REPLAY_ASK,					/* its server is to be asked first */
	REPLAY_BEHIND				/* that was a moment ago, and it is too far
								 * behind */
} ReplayVerdict;

/* Does the pool, or the request, want a server that has come so far?  req may be NULL. */
static inline bool
replay_matters(const Pool *pool, const Request *req)
{
	return pool->options.max_lag != 0 || (req != NULL && req->task.min_lsn != 0);
}

extern ReplayVerdict replay_look(const Conn *conn, const Request *req, Ticks now);

static inline ReplayVerdict
replay_verdict(const Conn *conn, const Request *req, Ticks now)
{
	return replay_matters(conn->pool, req) ? replay_look(conn, req, now) : REPLAY_SUITS;
}

extern void replay_answer(Conn *conn, const char *answer);
extern void replay_asked(Conn *conn);
extern bool replay_is_behind(const Pool *pool, int at, Ticks now);
extern bool replay_puts_off(Request *req, Ticks now);
extern void replay_tell_lsn(Request *req, Ticks now);
extern bool replay_all_are_behind(Pool *pool, Ticks now);
extern void replay_tell(Pool *pool, Ticks now);
extern bool replay_refuses_leased(const Conn *conn, Request *req);

#endif							/* DBPOOL_REPLAY_H */
