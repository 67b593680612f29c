/*
 * look.h
 *	  A look at what libpq will read from its socket.
 */
#ifndef DBPOOL_LOOK_H
#define DBPOOL_LOOK_H

#include "pq/wire.h"

struct pg_conn;

extern ssize_t look_peek(struct pg_conn *pg, Wire *wire, char *window);
extern bool look_at(struct pg_conn *pg, Wire *wire, const char *window, Size n,
					WireMessage *large);

#endif							/* DBPOOL_LOOK_H */
