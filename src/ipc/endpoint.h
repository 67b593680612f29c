/*
 * endpoint.h
 *	  Where remotes are, and whether they are well: a host and a port each, the same for
 *	  all pools and workers; with a circuit breaker.
 *
 * A remote that is unwell is to be asked by one, and seldom, not by all pools of all
 * workers over and over; and those who call are to be told at once, not after a
 * timeout each.
 *
 *	 state		connections
 *	 CLOSED		are opened as pools need them
 *	 OPEN		are not; from a certain time on one worker tries one: the probe
 *	 HALF_OPEN	are opened so many at a time as "allowed" says
 *
 *	 from		to			when
 *	 CLOSED		OPEN		ENDPOINT_IN_ROW connects failed in a row
 *	 CLOSED		OPEN		half of ENDPOINT_WINDOW_LEAST or more logins and losses within
 *							ENDPOINT_WINDOW_S failed
 *	 CLOSED		HALF_OPEN	ENDPOINT_IN_ROW open connections were lost in a row
 *	 OPEN		HALF_OPEN	somebody was answered, or nobody has looked for long
 *	 HALF_OPEN	OPEN		a connect failed
 *	 HALF_OPEN	CLOSED		"allowed", which doubles with each login, has become
 *							ENDPOINT_ALLOWED_MOST; or for ENDPOINT_CALM_MS nobody wanted
 *							more than that
 *
 * What has been lost says less than what cannot be opened: a DBA may have terminated all
 * sessions, and the next login is answered.  So that alone keeps nobody waiting.
 *
 * WHAT COUNTS
 * Only what says that the server is unwell: its name is not found; a connect is refused,
 * has no answer in ENDPOINT_PATIENCE_MS or more, or is closed without a word; the server
 * says 57P01 to 57P03 (it stops, crashes, cannot be connected to now) or 53300 (it has too
 * many connections); an open connection breaks, or does not answer a check.  Never an
 * error of a statement, a cancel, a refused password: who is refused was answered.  Nor
 * what comes after the server has let somebody in: the settings and connect_sql.  That is
 * more than a nicety: an endpoint belongs to pools of many owners, and none of them may
 * put another's remote out of service by what he writes into a definition.
 *
 * HOW LONG
 * OPEN lasts for 1 s, twice as long after each probe that was due then and fails, a minute at
 * most, and up to a fifth more or less, so that many servers do not probe one at the same time.  A
 * pool that has nothing else to go to, and is used, does not wait for that: the last endpoint of
 * a list is never shut out.  How soon it probes follows from what that costs the remote: see
 * EndpointCost; where sessions wait for a failover it costs little at most, as a proxy that has no
 * server accepts and closes, too.
 *
 * WHO OWNS WHAT
 *	 1. Which entries are in use, and by what name: DbpoolShared.pools_lock.  The rest of an
 *		entry: its mutex.  An entry stays what it is as long as "users" is not 0; each
 *		worker counts itself in there for as long as it has a pool that leads there.
 *	 2. Before a worker tries to log in somewhere it enters the endpoint (endpoint_enter()),
 *		which counts the connection, and the login.  The login ends by endpoint_answered(),
 *		endpoint_failed() or endpoint_nothing_learned(), one of them in any case, the
 *		connection by endpoint_exit().
 *	 3. The probe is a connection that has entered as one.  "prober" is its worker.  The
 *		end of its login, whichever it is, gives the probe back: so it cannot get lost, but
 *		with its worker, which gives back at its exit what it has (endpoint_give_back()).
 *		Of one that takes longer than ENDPOINT_SLOW_MS nobody takes notice any more.
 *	 4. A change of state is noted as not told; who has made it marks a piece of work,
 *		which takes the note (endpoint_take_news()), writes the log, and wakes the other
 *		workers.  So a state may have gone by until then, but the last one is told.
 */
#ifndef DBPOOL_ENDPOINT_H
#define DBPOOL_ENDPOINT_H

#include "clock.h"
#include "dbpool.h"
#include "ipc/stats.h"
#include "storage/spin.h"

/* Bytes of the name of a host, or of a socket's folder; longer ones have no entry. */
#define ENDPOINT_HOST_BYTES		256

#define ENDPOINT_PORT_BYTES		16

/* Failures in a row that open the breaker. */
#define ENDPOINT_IN_ROW			5

/* Of so many at least, within so many seconds, half. */
#define ENDPOINT_WINDOW_LEAST	10
#define ENDPOINT_WINDOW_S		10

/* Logins at a time that close it. */
#define ENDPOINT_ALLOWED_MOST	32

/* A connect that had less time says nothing of the server. */
#define ENDPOINT_PATIENCE_MS	1000

/* Others do not wait for a login that takes longer. */
#define ENDPOINT_SLOW_MS		10000

/* Half-open, with an answer and without anybody turned away for so long, it is closed. */
#define ENDPOINT_CALM_MS		10000

/* Who is turned away for the sake of others asks again after so long. */
#define ENDPOINT_AGAIN_MS		100

/* How long it is open: at first, at most. */
#define ENDPOINT_OPEN_FIRST_MS	1000
#define ENDPOINT_OPEN_MOST_MS	60000

/* It is probed as soon as it is due; when not, after so long, nobody does so. */
#define ENDPOINT_FORSAKEN_MS	10000

typedef enum EndpointState
{
	ENDPOINT_CLOSED = 0,
	ENDPOINT_HALF_OPEN,
	ENDPOINT_OPEN
} EndpointState;

/*
 * What a failed login has cost the remote: for so many milliseconds at most is it left alone
 * by who has no other.
 */
typedef enum EndpointCost
{
	ENDPOINT_COST_NOTHING = 100,	/* nobody listens, or answers in time; or
									 * the server refuses all, as it starts or
									 * stops */
	ENDPOINT_COST_LITTLE = 750, /* a name server, or a server process, was
								 * asked */
	ENDPOINT_COST_SOME = 5000	/* it was accepted, and closed */
} EndpointCost;

typedef enum EndpointRole
{
	ENDPOINT_ROLE_UNKNOWN = 0,	/* a server before 14 does not say */
	ENDPOINT_PRIMARY,
	ENDPOINT_STANDBY
} EndpointRole;

/* Logins and losses of one second. */
typedef struct EndpointSecond
{
	int64		second;
	int			well;
	int			unwell;
} EndpointSecond;

typedef struct EndpointShared
{
	int			index;			/* never changes */

	/* The next three: pools_lock. */
	int			users;			/* workers with pools that lead here; 0: may
								 * be given to another */
	char		host[ENDPOINT_HOST_BYTES];	/* name, address or folder */
	char		port[ENDPOINT_PORT_BYTES];

	slock_t		mutex;			/* protects all that follows */
	EndpointState state;
	EndpointState told;			/* the one that the log has */
	Ticks		state_since;
	int			conns;			/* open, or being opened */
	int			logins;			/* of these, that are being opened */
	int			allowed;		/* logins at a time, while HALF_OPEN */
	int			prober;			/* number of the worker that probes, from 1;
								 * 0: none */
	int			opened;			/* due probes that failed since it was CLOSED */
	Ticks		next_at;		/* when it is to be probed, while OPEN */
	Ticks		next_last_at;	/* by those who have no other */
	Ticks		next_awaited_at;	/* and in which somebody waits for it */
	int			in_row;			/* failures since the last answer */
	EndpointSecond seconds[ENDPOINT_WINDOW_S];
	EndpointRole role;			/* as the last login has proved it */
	Ticks		entered_at;		/* last time that a login began */
	Ticks		answered_at;	/* last time that one was answered */
	Ticks		back_at;		/* last time that it was not OPEN any more */
	Ticks		crowded_at;		/* last time that one was turned away while
								 * HALF_OPEN */
	Ticks		failed_at;		/* last time that something counted as unwell */
	Ticks		replay_at;		/* last time that a connection asked how far
								 * it is; 0: none did */
	uint64		replay_lsn;		/* so far had it replayed, or, as primary,
								 * written */
	int64		lag_bytes;		/* and was so far behind; -1: it did not say */
	int64		lag_us;
	uint64		logins_answered;
	uint64		logins_failed;
	uint64		losses;
	uint64		times_opened;
	char		error[DBPOOL_SHOWN_ERROR];	/* the last one */
} EndpointShared;

/* May one log in there? */
typedef enum EndpointVerdict
{
	ENDPOINT_ENTERED = 0,
	ENDPOINT_IS_OUT,			/* OPEN, and it is not for this one to probe */
	ENDPOINT_IS_CROWDED,		/* HALF_OPEN, and others are logging in */
	ENDPOINT_IS_FULL			/* dbpool.max_connections_per_endpoint */
} EndpointVerdict;

/* Of a place that has no entry. */
#define ENDPOINT_NONE	(-1)

/* How a login is meant. */
typedef struct EndpointEntry
{
	bool		probe;			/* it is to find out */
	bool		last;			/* there is nowhere else to go */
	bool		awaited;		/* likewise, and somebody waits for it */
} EndpointEntry;

/* For shmem.c. */
extern int	endpoint_count(void);
extern Size endpoint_shmem_bytes(void);
extern Size endpoint_stats_bytes(void);
extern void endpoint_shmem_init(void *at, void *stats_at, bool found);

extern EndpointShared *endpoint_shared(int endpoint);
extern void endpoint_measure(int endpoint, LatencyKind kind, int64 us);
extern bool endpoint_sum_latency(const EndpointShared *copy, LatencyKind kind, HistogramSum *sum);
extern int	endpoint_use(const char *host, const char *port, bool further);
extern void endpoint_unuse(int endpoint);

extern EndpointVerdict endpoint_look(int endpoint, EndpointEntry how, Ticks now, Ticks *until);
extern EndpointVerdict endpoint_enter(int endpoint, EndpointEntry how, int worker, Ticks now);
extern bool endpoint_answered(int endpoint, bool probe, EndpointRole role, Ticks now);
extern bool endpoint_failed(int endpoint, bool probe, EndpointCost cost, const char *error, Ticks now);
extern void endpoint_nothing_learned(int endpoint, bool probe, Ticks now);
extern bool endpoint_lost(int endpoint, const char *error, Ticks now);
extern bool endpoint_recheck(int endpoint, Ticks now);
extern void endpoint_exit(int endpoint);
extern void endpoint_give_back(int endpoint, int worker, int conns, int logins, Ticks now);
extern bool endpoint_is_calm(const EndpointShared *entry, Ticks now);
extern bool endpoint_take_news(int endpoint, EndpointShared *copy);

extern const char *endpoint_state_name(EndpointState state);

#endif							/* DBPOOL_ENDPOINT_H */
