/*
 * ring.c
 *	  A bounded stream of bytes from one process to another, see ring.h.
 */
#include "ipc/ring.h"

#include "compat.h"

/* Bytes of shared memory that a ring of that capacity takes. */
Size
ring_bytes(uint32 size)
{
	return MAXALIGN(offsetof(Ring, data) + size);
}

/* Set up a ring once, at server start.  size is a power of two. */
void
ring_init(Ring *ring, uint32 size)
{
	Assert((size & (size - 1)) == 0);
	pg_atomic_init_u64(&ring->head, 0);
	pg_atomic_init_u64(&ring->tail, 0);
	pg_atomic_init_u32(&ring->writer_waits, 0);
	ring->size = size;
}

/*
 * Empty the ring.  Only for a process that owns both ends.  Starting over at
 * offset 0 keeps small messages in one piece, and the rest of the ring's
 * memory untouched.
 */
void
ring_reset(Ring *ring)
{
	pg_atomic_write_u64(&ring->head, 0);
	pg_atomic_write_u64(&ring->tail, 0);
	pg_atomic_write_u32(&ring->writer_waits, 0);
}

void
ring_write_begin(RingWriter *writer, Ring *ring)
{
	writer->ring = ring;
	writer->head = pg_atomic_read_u64(&ring->head);
	writer->limit = pg_atomic_read_u64(&ring->tail) + ring->size;

	/*
	 * The reader must be done with the bytes before we write over them; the
	 * pairs are in ring_read() and ring_skip().
	 */
	pg_memory_barrier();
}

/* Put as much as there is room for; returns how much that was. */
Size
ring_write(RingWriter *writer, const void *data, Size len)
{
	Ring	   *ring = writer->ring;
	Size		room = ring_room(writer);
	Size		at = (Size) (writer->head & (ring->size - 1));
	Size		first;

	if (len > room)
		len = room;
	first = Min(len, ring->size - at);
	memcpy(ring->data + at, data, first);
	if (len > first)
		memcpy(ring->data, (const char *) data + first, len - first);
	writer->head += len;
	return len;
}

/* Show the reader what was written since ring_write_begin(). */
void
ring_write_end(RingWriter *writer)
{
	/* the bytes first; the pair is in ring_used() */
	pg_write_barrier();
	pg_atomic_write_u64(&writer->ring->head, writer->head);
}

/*
 * The writer says that it will wait until half of the ring is free.  Returns false
 * when it is by now, and then the writer must not wait.  The flag is set
 * before the look at tail, and the reader moves tail before it looks at the
 * flag: one of the two sees the other.
 */
bool
ring_begin_wait(Ring *ring)
{
	pg_atomic_write_u32(&ring->writer_waits, 1);
	compat_injection_point("dbpool-waits-before-room-look");
	/* the pair is in ring_end_wait() */
	pg_memory_barrier();
	if (ring_used(ring) > ring->size / 2)
		return true;
	pg_atomic_write_u32(&ring->writer_waits, 0);
	return false;
}

/*
 * Write as much as there is room for.  When that is not all, the reader knows that the
 * writer waits.  Returns how many bytes were written.
 */
Size
ring_write_some(Ring *ring, const void *data, Size len)
{
	Size		done = 0;

	while (done < len)
	{
		RingWriter	writer;

		ring_write_begin(&writer, ring);
		done += ring_write(&writer, (const char *) data + done, len - done);
		ring_write_end(&writer);
		if (done < len && ring_begin_wait(ring))
			break;
	}
	return done;
}

/* Bytes that wait for the reader. */
Size
ring_used(Ring *ring)
{
	uint64		used;

	used = pg_atomic_read_u64(&ring->head) - pg_atomic_read_u64(&ring->tail);
	/* the bytes afterwards; the pair is in ring_write_end() */
	pg_read_barrier();
	return (Size) used;
}

/* Take up to len bytes out of the ring; returns how many there were. */
Size
ring_read(Ring *ring, void *data, Size len)
{
	Size		used = ring_used(ring);
	uint64		tail = pg_atomic_read_u64(&ring->tail);
	Size		at = (Size) (tail & (ring->size - 1));
	Size		first;

	if (len > used)
		len = used;
	if (len == 0)
		return 0;
	first = Min(len, ring->size - at);
	memcpy(data, ring->data + at, first);
	if (len > first)
		memcpy((char *) data + first, ring->data, len - first);

	/*
	 * The bytes must have been read before the writer may reuse their place;
	 * the pair is in ring_write_begin().
	 */
	pg_memory_barrier();
	pg_atomic_write_u64(&ring->tail, tail + len);
	return len;
}

/*
 * Look at the bytes that wait for the reader, as far as they lie in one piece:
 * len says how many those are.  They stay there until ring_skip().
 */
const char *
ring_peek(Ring *ring, Size *len)
{
	Size		used = ring_used(ring);
	Size		at = (Size) (pg_atomic_read_u64(&ring->tail) & (ring->size - 1));

	*len = Min(used, ring->size - at);
	return ring->data + at;
}

/* The reader is done with the next so many bytes. */
void
ring_skip(Ring *ring, Size len)
{
	/* as in ring_read() */
	pg_memory_barrier();
	pg_atomic_write_u64(&ring->tail, pg_atomic_read_u64(&ring->tail) + len);
}

/*
 * After reading: end the writer's wait, if it waits and half of the ring is free.
 * Returns true when that was so, and then the caller wakes it; once for each wait.
 */
bool
ring_end_wait(Ring *ring)
{
	/* the pair is in ring_begin_wait() */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&ring->writer_waits) == 0)
		return false;
	if (ring_used(ring) > ring->size / 2)
		return false;
	pg_atomic_write_u32(&ring->writer_waits, 0);
	return true;
}
