/*
 * endpoints.h
 *	  What a worker has to do with endpoints, see ipc/endpoint.h and endpoints.c.
 */
#ifndef DBPOOL_ENDPOINTS_H
#define DBPOOL_ENDPOINTS_H

#include "ipc/endpoint.h"
#include "pq/keywords.h"
#include "worker/connection.h"

extern void endpoints_init(void);
extern void endpoints_forget(void);
extern void endpoints_look(void);

extern int	pool_endpoint(const Pool *pool, const Place *place);
extern int	endpoint_place(const Pool *pool, int endpoint);
extern void pool_use_endpoints(Pool *pool, const char *definition, Size len);
extern void pool_leave_endpoints(Pool *pool);
extern bool pool_is_in_use(const Pool *pool, Ticks now);
extern bool pool_may_be_served(const Pool *pool, const EndpointShared *entry);
extern EndpointVerdict pool_endpoints_look(Pool *pool, Ticks now, Ticks *until);
extern int	pool_endpoint_to_probe(Pool *pool, Ticks *until);
extern int	pool_probes(Pool *pool);
extern int	pool_probers(Pool *pool, const Conn *but);
extern const EndpointShared *pool_endpoint_out(const Pool *pool, EndpointShared *copy);

extern void pool_recheck_endpoints(Pool *pool);

extern EndpointVerdict conn_enter(Conn *conn, int endpoint);
extern void conn_login_answered(Conn *conn, EndpointRole role);
extern void conn_login_failed(Conn *conn, EndpointCost cost, const char *error);
extern void conn_endpoint_lost(Conn *conn, const char *error);
extern void conn_leave(Conn *conn);

/* Is it being opened only to find out about an endpoint? */
static inline bool
conn_probes(const Conn *conn)
{
	return conn->endpoint.probes != ENDPOINT_NONE;
}

/* And is that whether its breaker can be closed? */
static inline bool
conn_is_prober(const Conn *conn)
{
	return conn_probes(conn) && !conn->endpoint.evens;
}

/* Or about whether there is a primary?  Nobody waits for it then. */
static inline bool
conn_finds_out(const Conn *conn)
{
	return conn_probes(conn) || conn->opening.seeks;
}

#endif							/* DBPOOL_ENDPOINTS_H */
