/*
 * statement.c
 *	  What a pool has learned of the statements that it is given, by their text.
 *
 * Two things hang on it.  A statement may share a connection with those of
 * other sessions only when its text has been short before; a statement that
 * nobody knows, or that was slow of late, has a connection of its own.  And
 * texts that come often are prepared (connection_prepare.c).
 *
 * A pool knows a bounded number of texts, and forgets the one that was not
 * used for longest.  Texts differ when a byte differs: nothing here parses SQL.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "worker/connection.h"
#include "worker/statement.h"
#include "worker/worker.h"

/* Texts that a pool knows: this many, or more if it may prepare more. */
#define KNOWN_LEAST		256

/* Longer ones are neither learned nor prepared. */
#define KNOWN_TEXT_MAX	8192

/* A statement is short up to this time and this size of its result. */
#define SHORT_US		10000
#define SHORT_BYTES		(REQUEST_DOWN_SIZE / 4)

/* How fast a bad run is forgotten: by half in some 70 runs. */
#define DECAY			0.99

/* The key of a text; the hash stands for itself. */
typedef struct Text
{
	const char *bytes;			/* of the statement, once it is learned */
	uint32		len;
	uint32		hash;
} Text;

typedef struct KnownEntry
{
	Text		text;			/* hash key */
	Statement  *statement;
} KnownEntry;

static uint32
text_hash(const void *key, Size keysize)
{
	(void) keysize;
	return ((const Text *) key)->hash;
}

/* Zero if they are the same. */
static int
text_match(const void *one, const void *other, Size keysize)
{
	const Text *a = one;
	const Text *b = other;

	(void) keysize;
	return a->len == b->len ? memcmp(a->bytes, b->bytes, a->len) : 1;
}

struct StatementCache
{
	MemoryContext context;		/* holds all of it */
	HTAB	   *known;			/* of KnownEntry */
	dlist_head	lru;			/* last used first */
	int			n;
	int			next_id;		/* ids from here on were never used */
};

static uint64 last_serial;

/* It ends with the context. */
StatementCache *
statements_create(MemoryContext context)
{
	StatementCache *cache = MemoryContextAllocZero(context, sizeof(StatementCache));
	HASHCTL		ctl;

	cache->context = context;
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Text);
	ctl.entrysize = sizeof(KnownEntry);
	ctl.hash = text_hash;
	ctl.match = text_match;
	ctl.hcxt = context;
	cache->known = hash_create("dbpool statements", 64, &ctl,
							   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	dlist_init(&cache->lru);
	return cache;
}

/* The pool goes to another place: what was learned need not be true there. */
void
statements_mistrust(StatementCache *cache)
{
	dlist_iter	iter;

	dlist_foreach(iter, &cache->lru)
		dlist_container(Statement, node, iter.cur)->runs = 0;
}

/* Its plan does not fit any more: it is to be prepared under another name. */
void
statement_renew(Statement *statement)
{
	statement->serial = ++last_serial;
}

/*
 * The remote's schema has changed: prepare all anew when they are next used.
 * The parameters' types may have changed, of which no error tells.
 */
void
statements_renew(StatementCache *cache)
{
	dlist_iter	iter;

	dlist_foreach(iter, &cache->lru)
		statement_renew(dlist_container(Statement, node, iter.cur));
}

/*
 * Forget the text that nobody has in hand and that was not used for longest.  Returns
 * its id, which is free now, or -1.
 */
static int
forget_one(Pool *pool)
{
	StatementCache *cache = pool->statements;
	dlist_iter	iter;

	dlist_reverse_foreach(iter, &cache->lru)
	{
		Statement  *victim = dlist_container(Statement, node, iter.cur);
		Text		text = {victim->text, victim->len, victim->hash};
		KnownEntry *entry = hash_search(cache->known, &text, HASH_FIND, NULL);
		int			id = victim->id;

		if (victim->refs > 0)
			continue;
		if (entry != NULL && entry->statement == victim)
			hash_search(cache->known, &text, HASH_REMOVE, NULL);
		dlist_delete(&victim->node);
		cache->n--;
		pfree(victim);
		return id;
	}
	return -1;
}

static Statement *
add_text(Pool *pool, Text text)
{
	StatementCache *cache = pool->statements;
	Statement  *statement;
	KnownEntry *entry;
	int			id = -1;
	bool		found;

	statement = MemoryContextAllocZero(cache->context,
									   offsetof(Statement, text) + text.len);
	while (cache->n >= Max(KNOWN_LEAST, 2 * pool->options.statement_cache_size))
	{
		id = forget_one(pool);
		if (id < 0)
		{
			pfree(statement);
			return NULL;
		}
	}
	statement->id = id >= 0 ? id : cache->next_id++;
	statement->hash = text.hash;
	statement->len = text.len;
	memcpy(statement->text, text.bytes, text.len);
	statement_renew(statement);
	dlist_push_head(&cache->lru, &statement->node);
	cache->n++;

	/*
	 * The table may have to grow and find no memory.  Then the text is one
	 * that nobody will find, and its turn to be forgotten comes as for
	 * others.
	 */
	text.bytes = statement->text;
	entry = hash_search(cache->known, &text, HASH_ENTER, &found);
	entry->statement = statement;
	return statement;
}

/*
 * A text is going to be run: what is known of it.  len counts the terminating
 * zero.  NULL when it cannot be learned, being too long.
 */
Statement *
statement_use(Pool *pool, const char *bytes, Size len)
{
	StatementCache *cache = pool->statements;
	Text		text;
	KnownEntry *entry;
	Statement  *statement;

	if (len > KNOWN_TEXT_MAX)
		return NULL;
	text.bytes = bytes;
	text.len = (uint32) len;
	text.hash = hash_bytes((const unsigned char *) bytes, (int) len);
	entry = hash_search(cache->known, &text, HASH_FIND, NULL);
	if (entry == NULL)
		statement = add_text(pool, text);
	else
	{
		statement = entry->statement;
		dlist_move_head(&cache->lru, &statement->node);
	}
	if (statement != NULL && statement->uses < PG_UINT32_MAX)
		statement->uses++;
	return statement;
}

/*
 * A statement has ended: how long it took at the remote.
 *
 * What it usually takes is the lower quartile (each run moves it a little, up
 * or down), not the mean: the mean grows with the load of the remote, so that
 * a pool which opens more connections the longer its statements take would
 * drive itself up.
 */
void
statement_took(Statement *statement, double us)
{
	double		step = Max(statement->usual_us, 10) * 0.05;

	if (statement->runs == 0)
		statement->usual_us = us;
	else if (us > statement->usual_us)
		statement->usual_us += step * 0.25;
	else
		statement->usual_us = Max(statement->usual_us - step * 0.75, 0);
	statement->worst_us = Max(us, statement->worst_us * DECAY);
}

/*
 * A statement of a pool with hedged reads was answered, or has not been, after so long: the
 * percentile, part of 1, moves a little towards it.  It takes so many runs at first to know where it
 * is, and begins with the shortest of them, as it rises faster than it falls.
 */
void
statement_answered(Statement *statement, double us, double part, int first)
{
	double		step = Max(statement->late_us, 100) * 0.05;

	if (statement->answers < first)
	{
		statement->late_us = statement->answers == 0 ? us : Min(us, statement->late_us);
		statement->answers++;
	}
	else if (us > statement->late_us)
		statement->late_us += step * part;
	else
		statement->late_us -= step * (1 - part);
}

/*
 * A statement has held up others for so long, and has not ended: it is not
 * short any more, for some 70 runs at least.
 */
void
statement_stalled(Statement *statement, double us)
{
	statement->worst_us = Max(Max(us, 2 * SHORT_US), statement->worst_us);
}

/* It has ended well.  plain: its tag is one of plain reads and writes. */
void
statement_ran(Statement *statement, bool plain, uint64 bytes)
{
	statement->plain = plain && (statement->plain || statement->runs == 0);
	statement->worst_bytes = Max(bytes, statement->worst_bytes * DECAY);
	if (statement->runs < PG_UINT32_MAX)
		statement->runs++;
}

/* Is it known to leave the remote session as it was, and to return rows or a tag? */
bool
statement_is_plain(const Statement *statement)
{
	return statement != NULL && statement->runs > 0 && statement->plain;
}

/* Is it known to be short, in time and in size? */
bool
statement_is_short(const Statement *statement)
{
	return statement_is_plain(statement) && statement->worst_us <= SHORT_US &&
		statement->worst_bytes <= SHORT_BYTES;
}
