/*
 * ring.h
 *	  A bounded stream of bytes from one process to another.
 *
 * One process writes, one reads; neither takes a lock.  head counts the bytes
 * ever written and is stored by the writer alone, tail counts the bytes ever
 * read and is stored by the reader alone.  What lies between them belongs to
 * the reader, the rest to the writer.
 *
 * Why not shm_mq: attaching to one sets the other side's latch, which is a
 * kill() and a context switch for each statement in each direction, and its
 * unit is a whole message, so that somebody has to hold a copy of a value of
 * hundreds of MB.  Here a value passes through piece by piece.
 *
 * Waking the other side is the callers' business: a writer that finds no room
 * calls ring_begin_wait() and sleeps on its latch; a reader asks
 * ring_end_wait() after it has read.
 */
#ifndef DBPOOL_RING_H
#define DBPOOL_RING_H

#include "dbpool.h"
#include "port/atomics.h"

#define RING_CACHELINE	64

typedef struct Ring
{
	/* Writer's: bytes ever written.  Stored after the bytes themselves. */
	pg_atomic_uint64 head;
	/* Set by the writer that waits for room, cleared by the reader. */
	pg_atomic_uint32 writer_waits;
	char		pad1[RING_CACHELINE - sizeof(uint64) - sizeof(uint32)];
	/* Reader's: bytes ever read. */
	pg_atomic_uint64 tail;
	/* Constant after ring_init(): a power of two. */
	uint32		size;
	char		pad2[RING_CACHELINE - sizeof(uint64) - sizeof(uint32)];
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Ring;

StaticAssertDecl(offsetof(Ring, tail) == RING_CACHELINE &&
				 offsetof(Ring, data) == 2 * RING_CACHELINE,
				 "writer and reader have cache lines of their own");

/*
 * A writer's view of a ring, for the time of a batch of small writes.  What
 * is written becomes visible to the reader at ring_write_end().
 */
typedef struct RingWriter
{
	Ring	   *ring;
	uint64		head;			/* where the next byte goes */
	uint64		limit;			/* where the room ends */
} RingWriter;

extern Size ring_bytes(uint32 size);
extern void ring_init(Ring *ring, uint32 size);
extern void ring_reset(Ring *ring);

extern void ring_write_begin(RingWriter *writer, Ring *ring);
extern Size ring_write(RingWriter *writer, const void *data, Size len);
extern void ring_write_end(RingWriter *writer);
extern bool ring_begin_wait(Ring *ring);
extern Size ring_write_some(Ring *ring, const void *data, Size len);

extern Size ring_used(Ring *ring);
extern Size ring_read(Ring *ring, void *data, Size len);
extern const char *ring_peek(Ring *ring, Size *len);
extern void ring_skip(Ring *ring, Size len);
extern bool ring_end_wait(Ring *ring);

/* Room left for the writer, in bytes. */
static inline Size
ring_room(const RingWriter *writer)
{
	return (Size) (writer->limit - writer->head);
}

#endif							/* DBPOOL_RING_H */
