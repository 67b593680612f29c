/*
 * statements.c
 *	  Which statement a call is, for its statistics.
 *
 * The digest of a text is made once: a session remembers for a number of texts which
 * entry (ipc/statements.h) they have.  It knows a text again by a hash of 64 bits and by its
 * length.
 */
#include "postgres.h"

#include "access/transam.h"
#include "backend/digest.h"
#include "backend/statements.h"
#include "backend/text.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "utils/backend_status.h"

/* Texts that a session remembers; a power of two. */
#define REMEMBERED		256

typedef struct Remembered
{
	uint64		hash;
	Size		len;
	Oid			serverid;
	Oid			userid;
	StatementRef ref;
} Remembered;

static Remembered remembered[REMEMBERED];

/* The queryid of the local statement that calls, or 0. */
int64
statement_local_queryid(void)
{
	return (int64) pgstat_get_my_query_id();
}

static void
statement_make(const PoolKey *pool, const char *sql, StatementRef *ref)
{
	StatementKey key = {.dbid = pool->dbid,.serverid = pool->serverid,.userid = pool->userid};
	char		text[DBPOOL_SHOWN_SQL];
	StringInfoData shown;
	Digest		digest;

	digest_text(sql, &digest, &shown);
	key.len = digest.len;
	memcpy(key.hash, digest.hash, sizeof(key.hash));
	text_clip(text, shown.data, sizeof(text));
	pfree(shown.data);
	statement_enter(&key, text, GetDatabaseEncoding(), ref);
}

/*
 * Where a call is to be counted.  Of a batch that is where its only text is, of a bulk
 * insert where that of the COPY is; a batch of several is not counted, nor is what belongs to a pool that only this transaction
 * sees.
 */
StatementRef
statement_of_call(const Call *call, const Definition *definition)
{
	const PoolKey *pool = &definition->key;
	const char *sql = call->kind == REQUEST_BATCH ? call->batch_sql :
	call->kind == REQUEST_COPY ? call->shown : call->sql;
	StatementRef none = {0, 0};
	Remembered *known;
	uint64		hash;
	Size		len;

	if (dbpool_max_statements == 0 || sql == NULL || pool->xid != InvalidTransactionId ||
		call->kind == REQUEST_PING || call->kind == REQUEST_WARM)
		return none;
	len = strlen(sql);
	hash = hash_bytes_extended((const unsigned char *) sql, (int) len, 0);
	known = &remembered[(hash ^ pool->serverid ^ pool->userid) % REMEMBERED];
	if (known->hash != hash || known->len != len || known->serverid != pool->serverid ||
		known->userid != pool->userid || !statement_is_there(&known->ref))
	{
		known->ref.serial = 0;
		statement_make(pool, sql, &known->ref);
		known->hash = hash;
		known->len = len;
		known->serverid = pool->serverid;
		known->userid = pool->userid;
	}
	return known->ref;
}
