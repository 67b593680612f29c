/*
 * request.h
 *	  One statement on its way from a backend to a worker and back.
 *
 * THE PROTOCOL
 *
 * A request lives in a slot of shared memory.  The slot has one word: its state,
 * the worker it is for, and a generation, which grows with each claim.  Who owns
 * the slot follows from the word alone, and only the owner may touch anything
 * but the word, the reader's end of "down" and the writer's end of "up" (which
 * are the backend's as long as the slot is not free).  The word changes through
 * request_claim() and request_move(), which knows the legal moves, and by
 * compare-and-swap, so that of two sides that move at once one wins and the
 * other notices.  Worker and generation, the "hold", are those of the mover: who
 * comes late, when the slot is free or somebody else's, moves nothing.
 *
 *	 state		owner	 what next
 *	 FREE		nobody	 a backend claims it
 *	 CLAIMED	backend	 fills it in
 *	 SUBMITTED	worker	 the worker has not seen it; the backend may take it back
 *	 RECEIVING	worker	 the worker has not got all of it
 *	 QUEUED		worker	 waits for a connection
 *	 RUNNING	worker	 has a connection
 *	 DONE		backend	 all that will come is in the ring
 *	 ABANDONED	worker	 the backend is gone; the worker frees it
 *
 * The backend:
 *	 1. Finds the worker's pid set, or waits on started_cv.
 *	 2. Claims a slot, FREE -> CLAIMED with a new generation and the worker,
 *		empties both rings, fills in the fields, writes as much of the request
 *		as fits into "up".
 *	 3. Moves CLAIMED -> SUBMITTED, sets its attention bit, then looks at the
 *		worker's pid and starts again.  If the worker left in between, it moves
 *		SUBMITTED -> CLAIMED and starts over at 1; if that fails, the worker
 *		(old or new) has taken the request and will answer.
 *	 4. Sleeps on its latch; writes the rest of the request into "up" as room
 *		appears, reads frames from "down" as they come.
 *	 5. At DONE, with "down" read empty, moves DONE -> FREE; or goes on at 2 with its
 *		next request, DONE -> CLAIMED with a new generation (request_claim_anew()).
 *	 6. To give up at any moment (error, cancel, exit): moves whatever state it
 *		finds to ABANDONED and sets the attention bit, or DONE -> FREE; both
 *		return at once.  From then on it does not touch the slot.  Of what was
 *		RUNNING in this very server (home_pid) it waits for the end: until the
 *		slot is free or HOME_STOP_MS have passed, and before its locks are
 *		released, see home.c.
 *	 7. To have the statement stopped and still learn what becomes of it: sets
 *		called_off, and the attention bit.  The worker cancels at the remote what
 *		runs there, and fails what has not been sent.
 *
 * The worker:
 *	 1. On attention to a slot whose word names this worker: SUBMITTED becomes
 *		RECEIVING (a request that does not fit into "up", when there is room for
 *		it: worker/large.c), and with all of it here QUEUED (one that fits, at
 *		once); ABANDONED is torn off its queue or connection and freed, but
 *		what runs in this server when it has ended; anything else means that "up"
 *		has more bytes or "down" has room again.
 *	 2. Moves QUEUED -> RUNNING when a connection takes it, and back when the
 *		connection proves dead before the statement was sent.
 *	 3. Sets "sent" before the statement's first byte can leave.
 *	 4. Writes frames into "down" and sets the backend's latch.  With no room
 *		it stops reading that connection's socket.
 *	 5. After the last byte moves to DONE and sets the backend's latch.
 *	 6. When it exits: clears its pid first; then SUBMITTED to RUNNING
 *		become DONE without an END frame, which tells the backend that the
 *		worker died; ABANDONED becomes FREE.
 *
 * Rows that the backend sends, with a REQUEST_COPY (COPY ... FROM STDIN):
 *	 1. The backend submits it as any other request; copy_phase is WAITING.
 *	 2. The worker starts the statement.  When the remote asks for rows, it
 *		frees the place that the request's parts have in "up", writes
 *		FRAME_COPY into "down" and wakes the backend.  From then on it does not
 *		try the request on another connection.
 *	 3. The backend sets copy_phase to COPYING and writes rows into "up".  It
 *		asks for attention when the ring is half full and before it sleeps for
 *		want of room; the worker wakes it when half is free.  While it writes it
 *		reads "down" (notices), and stops at DONE: the remote has refused.
 *	 4. The worker passes on what it finds in "up".  When the remote's socket
 *		has no room it leaves the rest where it is, so that "up" fills and the
 *		backend waits.
 *	 5. After the last byte the backend sets copy_phase to ENDED and asks for
 *		attention.  The worker reads copy_phase, then "up"; finding ENDED and
 *		the ring empty, it sets "sent" and ends the COPY, which commits it.
 *	 6. A backend that gives up leaves copy_phase alone.  So the worker never
 *		takes the part that was written for the whole: it fails the COPY, and
 *		the remote rolls back.
 *
 * Statements that the backend sends, with a REQUEST_BATCH, go the same way, as items
 * (message.h) in place of rows.  What differs:
 *	 1. The worker writes FRAME_COPY as soon as the request has a connection: no
 *		round trip is spent on asking the remote.  It sends items as they come, in
 *		libpq's pipeline mode, and reads answers meanwhile.
 *	 2. BATCH_ONE is one transaction.  BEGIN goes before the first item.  COMMIT and
 *		the only Sync go after the last one, and before these the worker sets
 *		"sent".  So whatever breaks before leaves nothing behind, and an error has
 *		the remote skip what follows.  It is a real BEGIN, and not the transaction
 *		that a pipeline is by itself ("Extended Query" in PostgreSQL's manual), as in
 *		that one the remote lets a procedure commit, and VACUUM be the first.
 *	 3. BATCH_EACH: each item has a Sync of its own, and so is a transaction of its
 *		own.
 *	 4. A batch whose backend gives up, or which has failed, is ended by a Sync
 *		without COMMIT: the reset rolls back what is open.
 *		In a transaction that goes on (lease.h) it is without BEGIN and COMMIT.
 *	 5. At most BATCH_WINDOW items, and about BATCH_WINDOW_BYTES, are sent and not
 *		answered.  The backend sees to a smaller window with BATCH_EACH, as what has
 *		been sent may run however its caller ends.
 *
 * Why nobody is forgotten: the pid is cleared before the sweep of step 6 and
 * read after step 3's move, so either the sweep sees the request or the
 * backend sees the missing pid.  A worker that starts looks at every slot.  A
 * worker that is killed takes the server's shared memory with it (postmaster
 * restarts everything), so a sweep that did not happen is not missed.
 *
 * Why a slot is freed once: FREE is reached from CLAIMED and DONE by the
 * backend alone, from ABANDONED by the worker alone, and the compare-and-swap
 * lets one of DONE and ABANDONED win.
 *
 * WHAT IS SEEN IN WHICH ORDER
 *
 * A processor may show writes to others in another order than they were made,
 * and read ahead.  Each pair below is a writer's barrier and the reader's:
 *
 *	 the slot's fields and rings, then its word
 *		 written by request_claim() and request_move(), whose compare-and-swap
 *		 is a full barrier; read by request_word(), which has a read barrier
 *		 behind it, or by a compare-and-swap of one's own.  Both sides, and the
 *		 views, which look at the word again when they have copied the rest.
 *	 bytes of a ring, then its head
 *		 ring_write_end(); ring_used(), before every read.
 *	 the reader is done with bytes of a ring, then its tail
 *		 ring_read() and ring_skip(); ring_write_begin().
 *	 "a writer waits", then a look at the room; room, then a look at that
 *		 ring_begin_wait(); ring_end_wait().  Full barriers between
 *		 the write and the look on both sides: one sees the other.
 *	 rows in "up", then copy_phase
 *		 send_rows() in client.c; copy_send() in wire_copy.c.
 *	 something to look at, then the attention bit, then the latch
 *		 request_attention(): an atomic OR is a full barrier, SetLatch() begins
 *		 with one; the worker's ResetLatch() ends with one, and
 *		 request_take_attention() takes the bits by an exchange.
 *	 SUBMITTED and the attention bit, then a look at the pid; the pid is
 *	 cleared, then a look at the slots
 *		 client_submit() in client_slot.c; worker_exit() in main.c.  Full barriers.
 *	 procno and started_at of a worker, then its pid
 *		 dbpool_worker_main(); shmem_worker_pid().
 *
 * Counters that views show alone (copy_rows, copy_bytes, items_done) have no order.
 */
#ifndef DBPOOL_REQUEST_H
#define DBPOOL_REQUEST_H

#include "dbpool.h"
#include "ipc/lease.h"
#include "ipc/ring.h"
#include "ipc/shmem.h"
#include "ipc/statements.h"

typedef enum RequestState
{
	REQUEST_FREE = 0,
	REQUEST_CLAIMED,
	REQUEST_SUBMITTED,
	REQUEST_RECEIVING,
	REQUEST_QUEUED,
	REQUEST_RUNNING,
	REQUEST_DONE,
	REQUEST_ABANDONED
} RequestState;

typedef enum RequestKind
{
	REQUEST_QUERY = 0,			/* one statement, with parameters */
	REQUEST_SCRIPT,				/* any number of statements, none */
	REQUEST_PING,				/* a round trip */
	REQUEST_COPY,				/* COPY ... FROM STDIN, rows follow */
	REQUEST_BATCH,				/* statements follow */
	REQUEST_WARM				/* bring the pool up to min_size */
} RequestKind;

/* What a REQUEST_BATCH is to be. */
#define BATCH_ONE		0x01	/* one transaction */
#define BATCH_EACH		0x02	/* each item is one */
#define BATCH_ROWS		0x04	/* the rows of its statements are wanted */
#define BATCH_SUM		0x08	/* only the sum of their counts is */

/* Items, and bytes of them, that a worker has sent and that are not answered. */
#define BATCH_WINDOW		4096
#define BATCH_WINDOW_BYTES	(4 * 1024 * 1024)

/* How far the rows of a REQUEST_COPY, or the items of a REQUEST_BATCH, are. */
typedef enum CopyPhase
{
	COPY_WAITING = 0,			/* for a connection, and for the remote */
	COPY_COPYING,				/* the backend writes rows */
	COPY_ENDED					/* it has written all of them */
} CopyPhase;

/* What a statement may leave in the remote session, and find there. */
#define TRACE_RESET				0x01	/* leaves what a reset puts away */
#define TRACE_CLOSE				0x02	/* leaves what only the session's end
										 * does */
#define TRACE_READS_SEQUENCES	0x04	/* asks what sequences gave the
										 * session */
#define TRACE_READ_ONLY			0x08	/* is to find transactions read-only,
										 * and leaves them so */
#define TRACE_CHAINS			0x10	/* may begin another transaction by
										 * ROLLBACK AND CHAIN; only of a call
										 * in a transaction */
#define TRACE_LOGIN_ROLE		0x20	/* is to run as the role that has
										 * logged in, whatever connect_sql
										 * says */

/*
 * A request that takes so long is one that somebody may look at in pg_stat_activity:
 * from then on its session says there what it waits for, and is woken when that changes.
 */
#define REQUEST_LONG_MS		100

/* Capacities of the two rings. */
#define REQUEST_UP_SIZE		65536
#define REQUEST_DOWN_SIZE	65536

StaticAssertDecl((REQUEST_UP_SIZE & (REQUEST_UP_SIZE - 1)) == 0 &&
				 (REQUEST_DOWN_SIZE & (REQUEST_DOWN_SIZE - 1)) == 0,
				 "rings have sizes that are powers of two");
StaticAssertDecl(REQUEST_ABANDONED <= 0xFF && DBPOOL_MAX_WORKERS <= 256,
				 "a slot's word has 8 bits for the state and 8 for the worker");

/*
 * What is asked, and by whom.  The worker takes a copy when it takes the request, and
 * does not look into the slot for it again.
 */
typedef struct TaskHeader
{
	RequestKind kind;
	PoolKey		key;
	uint64		ticket;			/* order of coming */
	uint64		stamp;			/* of the definition, see DbpoolShared */
	int			procno;			/* of the session */
	int			pid;
	Oid			roleid;
	int			encoding;		/* of its database */
	int			traces;			/* TRACE_ flags */
	int			nparams;
	int			ntypes;			/* columns that it wants, 0 when it does not
								 * say */
	Size		definition_len; /* lengths of the parts of "up", in order */
	Size		sql_len;		/* with the terminating zero */
	Size		params_len;
	Size		prelude_len;
	int			lease;			/* index of the one it belongs to, or
								 * LEASE_NONE */
	uint64		lease_hold;
	bool		lease_ends;		/* with this request */
	uint64		min_lsn;		/* a server is to have replayed so far; or 0 */
	int			batch;			/* REQUEST_BATCH: BATCH_ flags */
	uint64		nitems;			/* likewise: how many follow; for the views */
	Size		item_most;		/* likewise: bytes of the largest, with its
								 * header */
	bool		writes;			/* its text looks like a write, or it is a
								 * COMMIT */
	bool		one_transaction;	/* its text is one statement, which cannot
									 * end the transaction it runs in */
	bool		steers;			/* its text begins with what steers the
								 * transaction it runs in */
	bool		lease_prepares; /* its transaction is prepared by this request */
	bool		lease_wrote;	/* of a COMMIT: it has written, or is to, as a
								 * NOTIFY does when it commits */
	bool		lease_has_read; /* likewise: it has surely done nothing but
								 * read */
	StatementRef statement;		/* where it is counted; for the views */
	int64		local_queryid;	/* likewise: of the statement that calls */
	char		traceparent[TRACEPARENT_BYTES]; /* to which it belongs; empty:
												 * none */
} TaskHeader;

typedef struct RequestSlot
{
	pg_atomic_uint64 word;		/* see request_word() */

	/*
	 * Has the statement, or a part of it, gone to the remote?  With a
	 * REQUEST_COPY: has the end of its rows?  With a BATCH_ONE: has COMMIT?
	 * Worker's.
	 */
	pg_atomic_uint32 sent;

	/*
	 * The process of this server that runs it; 0 if it runs elsewhere.
	 * Written by the worker before it moves the slot to RUNNING.
	 */
	int			home_pid;
	Oid			home_role;		/* as which it runs */

	/*
	 * REQUEST_COPY and REQUEST_BATCH: written by the backend alone, as long
	 * as it has the slot.
	 */
	pg_atomic_uint32 copy_phase;	/* CopyPhase */
	pg_atomic_uint64 copy_rows; /* rows and bytes written into "up" */
	pg_atomic_uint64 copy_bytes;

	/* The backend wants it stopped, and waits for its end.  Backend's. */
	pg_atomic_uint32 called_off;

	/* REQUEST_BATCH: items that have ended.  Worker's. */
	pg_atomic_uint64 items_done;

	/* Filled in by the backend before it submits; constant afterwards. */
	TaskHeader	task;
	int			quota;			/* where it is counted, see quota.h */

	/* For the views. */
	slock_t		mutex;			/* protects what follows */
	Oid			dbid;
	Ticks		submitted_at;
	Ticks		running_since;	/* 0 before */
	NameData	server;
	int			remote_pid;
	char		sql[DBPOOL_SHOWN_SQL];
	char		target[DBPOOL_SHOWN_TARGET];	/* of a REQUEST_COPY */
} RequestSlot;

extern int	request_count(void);
extern Size request_shmem_bytes(void);
extern void request_shmem_init(char *memory, bool found);

extern RequestSlot *request_slot(int index);
extern int	request_index(const RequestSlot *slot);
extern Ring *request_up(const RequestSlot *slot);
extern Ring *request_down(const RequestSlot *slot);

extern bool request_claim(RequestSlot *slot, int worker, uint64 *hold);
extern void request_claim_anew(RequestSlot *slot, int worker, uint64 *hold);
extern bool request_move(RequestSlot *slot, uint64 hold, RequestState from, RequestState to);
extern const char *request_state_name(RequestState state);

extern void request_free_abandoned(RequestSlot *slot, uint64 hold);
extern void request_attention(const RequestSlot *slot, int worker);
extern uint64 request_take_attention(int worker, int word);
extern int	request_attention_words(void);
extern void request_wake_backend(const RequestSlot *slot);

/* Bytes of all parts of "up". */
static inline Size
task_bytes(const TaskHeader *task)
{
	return task->definition_len + task->sql_len + task->params_len +
		task->ntypes * sizeof(uint32) + task->prelude_len;
}

/* Does all of it hang on an end that comes when all the rest has been sent? */
static inline bool
task_commits_last(const TaskHeader *task)
{
	return task->kind == REQUEST_COPY ||
		(task->kind == REQUEST_BATCH && (task->batch & BATCH_ONE) != 0);
}

/* Bytes of it that a worker has to hold, when these are more than a ring has. */
static inline Size
task_large_bytes(const TaskHeader *task)
{
	Size		bytes = task_bytes(task) > REQUEST_UP_SIZE ? task_bytes(task) : 0;

	return task->item_most > REQUEST_UP_SIZE ? bytes + task->item_most : bytes;
}

/*
 * A slot's word, from which the functions below take a part.  What is read of
 * the slot afterwards is at least as new; the pair is the compare-and-swap of
 * request_claim() and request_move().
 */
static inline uint64
request_word(RequestSlot *slot)
{
	uint64		word = pg_atomic_read_u64(&slot->word);

	pg_read_barrier();
	return word;
}

static inline RequestState
request_word_state(uint64 word)
{
	return (RequestState) (word & 0xFF);
}

static inline int
request_word_worker(uint64 word)
{
	return (int) ((word >> 8) & 0xFF);
}

/* Worker and generation: the same from the claim of a slot until it is free. */
static inline uint64
request_word_hold(uint64 word)
{
	return word & ~UINT64CONST(0xFF);
}

#endif							/* DBPOOL_REQUEST_H */
