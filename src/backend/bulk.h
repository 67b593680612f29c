/*
 * bulk.h
 *	  A bulk insert, as bulk.c runs it and bulk_rows.c writes its rows.
 */
#ifndef DBPOOL_BULK_H
#define DBPOOL_BULK_H

#include "access/htup.h"
#include "backend/client.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "tcop/dest.h"

/* Bytes that are gathered before they go into the ring. */
#define BULK_BUFFER_BYTES	8192

struct BulkColumn;

typedef struct Bulk
{
	DestReceiver dest;			/* must be first */
	RowSource	source;
	AnswerSink	sink;
	Call		call;
	SPIPlanPtr	plan;
	TupleDesc	desc;			/* of the query */
	bool		binary;			/* format of the rows */
	Client	   *client;			/* while rows are sent */
	bool		refused;		/* the remote wants no more */
	bool		asked;			/* it did want rows */
	uint64		count;			/* rows that it has taken */

	/* the rest is bulk_rows.c's */
	struct BulkColumn *columns;
	bool		money;			/* see modes_enter() */
	MemoryContext row_context;
	int			len;
	char		buffer[BULK_BUFFER_BYTES];

	/* rows put aside; NULL where none need be */
	MinimalTuple *aside;
	int			naside;
	Size		aside_bytes;
	MemoryContext aside_context;
	TupleTableSlot *aside_slot;
} Bulk;

extern void bulk_init_receiver(Bulk *bulk);

#endif							/* DBPOOL_BULK_H */
