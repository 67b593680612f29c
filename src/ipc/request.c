/*
 * request.c
 *	  Slots for requests and the one function that changes their state; the
 *	  protocol stands in request.h.
 */
#include "postgres.h"

#include "compat.h"
#include "ipc/quota.h"
#include "ipc/request.h"
#include "miscadmin.h"
#include "storage/shmem.h"

/* Memory of a slot: the slot, its "up" ring, its "down" ring. */
#define SLOT_HEAD		TYPEALIGN(RING_CACHELINE, sizeof(RequestSlot))
#define SLOT_UP			TYPEALIGN(RING_CACHELINE, ring_bytes(REQUEST_UP_SIZE))
#define SLOT_DOWN		TYPEALIGN(RING_CACHELINE, ring_bytes(REQUEST_DOWN_SIZE))
#define SLOT_STRIDE		(SLOT_HEAD + SLOT_UP + SLOT_DOWN)

static char *slots;

/* One bit per slot and worker: the worker is to look at it. */
static pg_atomic_uint64 *attention;

/* The legal moves of request_move(): from, to.  Who makes them: request.h. */
static const RequestState moves[][2] = {
	{REQUEST_CLAIMED, REQUEST_SUBMITTED},
	{REQUEST_CLAIMED, REQUEST_FREE},
	{REQUEST_SUBMITTED, REQUEST_CLAIMED},
	{REQUEST_SUBMITTED, REQUEST_RECEIVING},
	{REQUEST_SUBMITTED, REQUEST_DONE},
	{REQUEST_SUBMITTED, REQUEST_ABANDONED},
	{REQUEST_RECEIVING, REQUEST_QUEUED},
	{REQUEST_RECEIVING, REQUEST_DONE},
	{REQUEST_RECEIVING, REQUEST_ABANDONED},
	{REQUEST_QUEUED, REQUEST_RUNNING},
	{REQUEST_QUEUED, REQUEST_DONE},
	{REQUEST_QUEUED, REQUEST_ABANDONED},
	{REQUEST_RUNNING, REQUEST_QUEUED},
	{REQUEST_RUNNING, REQUEST_DONE},
	{REQUEST_RUNNING, REQUEST_ABANDONED},
	{REQUEST_DONE, REQUEST_FREE},
	{REQUEST_ABANDONED, REQUEST_FREE},
};

/* By state: where a move to it can be held up, after a look at the word. */
static const char *const move_points[] = {
	"dbpool-before-free", "dbpool-before-claimed", "dbpool-before-submitted",
	"dbpool-before-receiving", "dbpool-before-queued", "dbpool-before-running",
	"dbpool-before-done", "dbpool-before-abandoned"
};

StaticAssertDecl(lengthof(move_points) == REQUEST_ABANDONED + 1,
				 "each state has its point");

const char *
request_state_name(RequestState state)
{
	static const char *const names[] = {
		"free", "claimed", "submitted", "receiving", "queued", "running", "done", "abandoned"
	};

	return names[state];
}

/* How many slots there are; by default as many as there can be client sessions. */
int
request_count(void)
{
	return dbpool_max_requests > 0 ? dbpool_max_requests : MaxConnections;
}

int
request_attention_words(void)
{
	return (request_count() + 63) / 64;
}

Size
request_shmem_bytes(void)
{
	Size		size;

	size = mul_size(SLOT_STRIDE, request_count());
	size = add_size(size, mul_size(sizeof(pg_atomic_uint64),
								   dbpool_workers * request_attention_words()));
	return add_size(size, RING_CACHELINE);
}

/* Lay out the slots in memory; initialize them unless that was done. */
void
request_shmem_init(char *memory, bool found)
{
	int			words = dbpool_workers * request_attention_words();

	slots = (char *) TYPEALIGN(RING_CACHELINE, memory);
	attention = (pg_atomic_uint64 *) (slots + SLOT_STRIDE * request_count());
	if (found)
		return;

	for (int i = 0; i < words; i++)
		pg_atomic_init_u64(&attention[i], 0);
	for (int i = 0; i < request_count(); i++)
	{
		RequestSlot *slot = request_slot(i);

		memset(slot, 0, sizeof(RequestSlot));
		pg_atomic_init_u64(&slot->word, REQUEST_FREE);
		pg_atomic_init_u32(&slot->sent, 0);
		pg_atomic_init_u32(&slot->copy_phase, COPY_WAITING);
		pg_atomic_init_u64(&slot->copy_rows, 0);
		pg_atomic_init_u64(&slot->copy_bytes, 0);
		pg_atomic_init_u32(&slot->called_off, 0);
		pg_atomic_init_u64(&slot->items_done, 0);
		SpinLockInit(&slot->mutex);
		ring_init(request_up(slot), REQUEST_UP_SIZE);
		ring_init(request_down(slot), REQUEST_DOWN_SIZE);
	}
}

RequestSlot *
request_slot(int index)
{
	return (RequestSlot *) (slots + SLOT_STRIDE * index);
}

int
request_index(const RequestSlot *slot)
{
	return (int) (((const char *) slot - slots) / SLOT_STRIDE);
}

Ring *
request_up(const RequestSlot *slot)
{
	return (Ring *) ((char *) slot + SLOT_HEAD);
}

Ring *
request_down(const RequestSlot *slot)
{
	return (Ring *) ((char *) slot + SLOT_HEAD + SLOT_UP);
}

/*
 * Claim a slot, if it is free, for a request to that worker.  Sets the hold, by
 * which the slot is this request's until it is free again.
 */
bool
request_claim(RequestSlot *slot, int worker, uint64 *hold)
{
	uint64		word = request_word(slot);

	if (request_word_state(word) != REQUEST_FREE)
		return false;
	*hold = ((word >> 16) + 1) << 16 | (uint64) worker << 8;
	return pg_atomic_compare_exchange_u64(&slot->word, &word, *hold | REQUEST_CLAIMED);
}

/*
 * Claim a slot that is the caller's, with a request that is DONE, for another one of
 * the same session; *hold becomes the new one.
 */
void
request_claim_anew(RequestSlot *slot, int worker, uint64 *hold)
{
	uint64		word = *hold | REQUEST_DONE;
	uint64		anew = ((word >> 16) + 1) << 16 | (uint64) worker << 8;

	if (!pg_atomic_compare_exchange_u64(&slot->word, &word, anew | REQUEST_CLAIMED))
		elog(FATAL, "a dbpool request is \"%s\", not \"done\"",
			 request_state_name(request_word_state(word)));
	*hold = anew;
}

/*
 * Move a request from one state to another.  Returns false when it was not in
 * the first state any more, that is, when the other side was quicker, or when
 * the slot is not held by that hold any more.  All that was written before the
 * move is seen by whoever sees the new state.
 */
bool
request_move(RequestSlot *slot, uint64 hold, RequestState from, RequestState to)
{
	uint64		expected = hold | from;
	int			quota = slot->quota;

	compat_injection_point(move_points[to]);
	for (int i = 0; i < lengthof(moves); i++)
	{
		if (moves[i][0] != from || moves[i][1] != to)
			continue;
		if (!pg_atomic_compare_exchange_u64(&slot->word, &expected, hold | to))
			return false;
		/* it was read while the slot was held by that hold, as the move shows */
		if (to == REQUEST_FREE)
			quota_give(quota);
		return true;
	}
	elog(FATAL, "impossible move of a dbpool request from \"%s\" to \"%s\"",
		 request_state_name(from), request_state_name(to));
	return false;
}

/* The worker's side: free a slot that its backend has given up. */
void
request_free_abandoned(RequestSlot *slot, uint64 hold)
{
	if (request_move(slot, hold, REQUEST_ABANDONED, REQUEST_FREE))
		ConditionVariableBroadcast(&dbpool_shared->slot_freed_cv);
}

/* Tell a worker to look at a slot, and wake the worker. */
void
request_attention(const RequestSlot *slot, int worker)
{
	int			index = request_index(slot);
	int			word = worker * request_attention_words() + index / 64;

	pg_atomic_fetch_or_u64(&attention[word], UINT64CONST(1) << (index % 64));
	shmem_wake_worker(worker);
}

/* The worker's side: take the bits of 64 slots. */
uint64
request_take_attention(int worker, int word)
{
	pg_atomic_uint64 *bits = &attention[worker * request_attention_words() + word];

	if (pg_atomic_read_u64(bits) == 0)
		return 0;
	return pg_atomic_exchange_u64(bits, 0);
}

/* Set the latch of the backend that owns the request. */
void
request_wake_backend(const RequestSlot *slot)
{
	SetLatch(compat_proc_latch(slot->task.procno));
}
