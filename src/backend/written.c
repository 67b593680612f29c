/*
 * written.c
 *	  On which pools the session has run something that may have written there; last_lsn.c
 *	  says what for.
 */
#include "postgres.h"

#include "backend/written.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

static HTAB *written;
static Written *last;			/* that was noted */

static Written *
find_written(const PoolKey *pool, HASHACTION action)
{
	WrittenKey	key = {pool->serverid, pool->userid};
	bool		found;
	Written    *entry;

	if (last != NULL && memcmp(&last->key, &key, sizeof(key)) == 0)
		return last;
	if (written == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(WrittenKey);
		control.entrysize = sizeof(Written);
		control.hcxt = TopMemoryContext;
		written = hash_create("dbpool pools written to", 8, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(written, &key, action, &found);
	if (entry != NULL && !found)
		memset((char *) entry + sizeof(key), 0, sizeof(Written) - sizeof(key));
	last = entry;
	return entry;
}

/* What is noted of a pool, or NULL. */
Written *
written_find(const PoolKey *key)
{
	return written == NULL ? NULL : find_written(key, HASH_FIND);
}

/* A request is about to go to the pool that may write there. */
void
written_note(const PoolKey *key)
{
	find_written(key, HASH_ENTER)->calls++;
}

/*
 * The local transaction is committed, and a prepared one at the remote is to be.  Throws
 * nothing: whatever has been prepared there has been noted before.
 */
void
written_note_gid(const PoolKey *key, const char *gid)
{
	Written    *entry = written_find(key);

	if (entry == NULL)
		return;
	entry->calls++;
	strlcpy(entry->gids[entry->next_gid], gid, LEASE_GID);
	entry->next_gid = (entry->next_gid + 1) % WRITTEN_GIDS;
}
