/*
 * alert.h
 *	  What is wrong now, with a pool or with all of dbpool.
 *
 * The first worker looks every ALERTS_LOOK_MS (worker/alerts.c) and writes down here what it
 * finds; the view dbpool_alerts and dbpool_metrics() read it.  Those that no worker can see
 * are found by the view: transactions in doubt, and a first worker that is not there.
 */
#ifndef DBPOOL_ALERT_H
#define DBPOOL_ALERT_H

#include "clock.h"
#include "dbpool.h"

#define ALERTS_LOOK_MS		2000

/* One that is not true any more has ended after so long: not each look is news. */
#define ALERT_CALM_MS		5000

/* The workers that have started again so long ago are still worth a word. */
#define ALERT_RESTARTED_MS	(5 * 60 * 1000)

/* When its last call was sent to its fallback_server so long ago, a pool is not in use. */
#define ALERT_FALLBACK_MS	60000

/* Errors of fewer calls in a minute are no share of anything. */
#define ALERT_CALLS_LEAST	20

typedef enum AlertKind
{
	/* of a pool; their places are in PoolShared.alerts */
	ALERT_UTILISATION = 0,		/* part of max_size that was in use in the
								 * last minute */
	ALERT_WAIT,					/* a call waits for long */
	ALERT_ERRORS,				/* part of the last minute's calls that failed */
	ALERT_TIMEOUTS,				/* calls of the last minute that got no
								 * connection */
	ALERT_UNREACHABLE,			/* there is no connection, and none can be had */
	ALERT_LEASE_HELD,			/* a transaction is open for long */
	ALERT_DEGRADED,				/* standbys serve in place of a primary */
	ALERT_FALLBACK,				/* its reads go to its fallback_server */
	/* of the server; in DbpoolShared.alerts, at ALERT_POOL_KINDS less */
	ALERT_REQUESTS,				/* slots of requests that are in use */
	ALERT_CONNECTIONS,			/* connections of all pools */
	ALERT_POOLS,				/* entries of pools */
	ALERT_WORKER_DOWN,			/* workers that do not run */
	ALERT_WORKER_RESTARTED		/* workers that have started again lately */
} AlertKind;

#define ALERT_POOL_KINDS	(ALERT_FALLBACK + 1)
#define ALERT_KINDS			(ALERT_WORKER_RESTARTED + 1)
#define ALERT_SERVER_KINDS	(ALERT_KINDS - ALERT_POOL_KINDS)

typedef struct AlertShared
{
	Ticks		since;			/* 0: all is well */
	Ticks		seen;			/* when it was last true */
	double		value;
	double		threshold;
} AlertShared;

typedef enum AlertChange
{
	ALERT_GOES_ON = 0,
	ALERT_BEGINS,
	ALERT_ENDS
} AlertChange;

extern const char *alert_name(AlertKind kind);
extern const char *alert_severity(AlertKind kind);
extern AlertChange alert_note(AlertShared *alert, double value, double threshold, Ticks now);
extern void alert_tell(Oid dbid, const char *name, const char *severity, AlertChange change,
					   const char *pool, const char *user, double value, double threshold);

#endif							/* DBPOOL_ALERT_H */
