/*
 * lease.h
 *	  Connections that belong to a session between statements.
 *
 * THE PROTOCOL
 *
 * A lease is an entry of shared memory, with a word like that of a request's slot:
 * its state, the worker it is with, and a generation, which grows with each claim.
 * Worker and generation are the "hold"; who comes with an old one moves nothing.
 *
 *	 state		has a		 has a			what next
 *				session		 connection
 *	 FREE		-			 -				a session claims it
 *	 CLAIMED	yes			 -				the first request that names it gets
 *											a connection: the worker, OPEN
 *	 OPEN		yes			 yes			requests that name it run there
 *	 ENDED		yes			 -				the session frees it
 *	 RELEASED	-			 yes			the worker rolls back what is there,
 *											takes the connection off and frees it
 *
 * The session:
 *	 1. Claims one, fills in what is its own, and names it (index and hold) in a
 *		request.  That waits for a connection in the pool's queue; the requests
 *		after it go to the lease's connection at once.
 *	 2. Has one request at a time that names it.
 *	 3. Ends the transaction by a request that says so (lease_ends), or lets go at
 *		any moment, without waiting: CLAIMED and ENDED become FREE, OPEN becomes
 *		RELEASED, and the worker is woken.  A request that it has on the lease it
 *		abandons before.
 *
 * The worker:
 *	 1. Moves CLAIMED -> OPEN before the first byte leaves, then moves the request
 *		QUEUED -> RUNNING.  If the first fails, the session has let go, and so it has
 *		of the request.  If the second fails, it goes back: OPEN -> CLAIMED, or, if
 *		the session has let go in between, RELEASED -> FREE.  So it does when the
 *		connection proves dead before the statement has run.
 *	 2. Between two requests the connection is LEASED, and is in a transaction: when it
 *		is not, after an answer, the lease has ended, OPEN -> ENDED.  It ends as well
 *		when the connection is lost, when it has been idle for too long, and when the
 *		worker exits; sqlstate and reason are written before.
 *	 3. Finds RELEASED when it is told to look, or when a statement has ended; resets
 *		the connection, which rolls back, and moves RELEASED -> FREE.
 *
 * Prepared transactions: the session writes gid before it names the lease in the request
 * that prepares (lease_prepares).  When that has ended well the lease goes on, though the
 * connection is in no transaction any more.  Before it moves the lease to RELEASED the
 * session writes whether the prepared transaction is to be committed; the worker does so, or
 * rolls it back, before it takes the connection off.  If the connection is lost before
 * that, somebody else has to: see backend/two_phase.c.  As long as a gid stands in a
 * lease that is not FREE, nobody else may.  Who has seen that one was committed notes
 * that (lease_note_committed()), before the lease is FREE; it is forgotten when many others
 * have been, or this server crashes.
 *
 * What has run (running, begun): a session that gives up a request which was RUNNING
 * does not know whether the statements before it, which open the transaction and its
 * savepoints, were executed.  The worker sets running to the request's ticket before it
 * moves it to RUNNING, and begun to it when those statements have been executed; it
 * clears running when the connection is LEASED again, or the lease has ended, and then
 * signals slot_freed_cv.  So a session that waits until running is 0 knows: what it
 * gave up before it was RUNNING has executed nothing, and of the other begun tells.
 */
#ifndef DBPOOL_LEASE_H
#define DBPOOL_LEASE_H

#include "dbpool.h"
#include "clock.h"
#include "ipc/shmem.h"
#include "port/atomics.h"
#include "storage/spin.h"

typedef enum LeaseState
{
	LEASE_FREE = 0,
	LEASE_CLAIMED,
	LEASE_OPEN,
	LEASE_ENDED,
	LEASE_RELEASED
} LeaseState;

/* What a transaction is to its session. */
typedef enum LeaseMode
{
	LEASE_BOUND = 0,			/* ends with the local one */
	LEASE_NAMED					/* is begun and ended by calls */
} LeaseMode;

/* Bytes of the name of a prepared transaction, with the terminating zero. */
#define LEASE_GID	64

/* Bytes of a remote's system identifier and timeline, as in the first words of its run. */
#define LEASE_SYSTEM	32

/* What a lease says when there is none. */
#define LEASE_NONE		(-1)

typedef struct LeaseShared
{
	pg_atomic_uint64 word;		/* see lease_word() */

	/* Written by the worker. */
	pg_atomic_uint64 running;	/* ticket of a request that runs, or 0 */
	pg_atomic_uint64 begun;		/* of the last whose first statements did */
	char		sqlstate[6];	/* why it has ended; read when it has */
	char		reason[DBPOOL_SHOWN_ERROR];

	/*
	 * Filled in by the session before a request names it; constant
	 * afterwards.
	 */
	int			procno;
	int			quota;			/* where it is counted, see quota.h */
	int			idle_timeout;	/* milliseconds; 0: never */

	/* Written by the session, see "prepared transactions". */
	bool		commit_prepared;
	/* For the views, and for messages. */
	slock_t		mutex;			/* protects what follows */
	int			pid;			/* 0 until all is filled in */
	Oid			dbid;
	Oid			serverid;
	Oid			roleid;
	LeaseMode	mode;
	bool		two_phase;		/* of a bound one */
	NameData	server;
	NameData	name;			/* of a named transaction; or empty */
	char		begin[96];		/* the statement that begins it */
	char		gid[LEASE_GID]; /* of the prepared transaction, or empty */
	Ticks		began_at;
	/* of these the worker is the writer */
	int			remote_pid;
	char		system[LEASE_SYSTEM];	/* the remote's, and its timeline; or
										 * empty */
	int			home_pid;		/* that, if it surely is a process of this
								 * server; or 0 */
	Ticks		idle_since;		/* 0 while a statement runs */
	uint64		statements;
	int			encoding;		/* of sql */
	char		sql[DBPOOL_SHOWN_SQL];	/* the last one */
	/* of this the session */
	int			savepoints;

	/* Written by the worker, of its connection: index of the PoolShared. */
	int			pool;
} LeaseShared;

extern int	lease_count(void);
extern Size lease_shmem_bytes(void);
extern void lease_shmem_init(char *memory, bool found);

extern LeaseShared *lease_entry(int index);
extern int	lease_index(const LeaseShared *lease);
extern bool lease_claim(LeaseShared *lease, int worker, uint64 *hold);
extern bool lease_move(LeaseShared *lease, uint64 hold, LeaseState from, LeaseState to);
extern const char *lease_state_name(LeaseState state);
extern void lease_note_committed(const char *gid);
extern bool lease_saw_committed(const char *gid);

/* The word; what is read of the lease afterwards is at least as new. */
static inline uint64
lease_word(LeaseShared *lease)
{
	uint64		word = pg_atomic_read_u64(&lease->word);

	pg_read_barrier();
	return word;
}

static inline LeaseState
lease_word_state(uint64 word)
{
	return (LeaseState) (word & 0xFF);
}

static inline int
lease_word_worker(uint64 word)
{
	return (int) ((word >> 8) & 0xFF);
}

static inline uint64
lease_word_hold(uint64 word)
{
	return word & ~UINT64CONST(0xFF);
}

#endif							/* DBPOOL_LEASE_H */
