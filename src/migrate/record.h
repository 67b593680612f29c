/*
 * record.h
 *	  What a session that migrates and its recorder share.
 */
#ifndef DBPOOL_MIGRATE_RECORD_H
#define DBPOOL_MIGRATE_RECORD_H

#include "ipc/message.h"
#include "migrate/migrate.h"
#include "storage/shm_mq.h"

#define QUEUE_BYTES		16384

/* At the start of the segment; then the queue up, then the queue down. */
typedef struct RecordShared
{
	Oid			dbid;
	Oid			schema;
	Oid			serverid;		/* the pool */
	Oid			roleid;			/* who migrates */
	int			pid;
	int			place;			/* see quota.h */
} RecordShared;

#define UP_OFFSET	MAXALIGN(sizeof(RecordShared))
#define DOWN_OFFSET	(UP_OFFSET + QUEUE_BYTES)

#endif							/* DBPOOL_MIGRATE_RECORD_H */
