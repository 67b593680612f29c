/*
 * statement.h
 *	  What a pool has learned of the statements that it is given.
 */
#ifndef DBPOOL_STATEMENT_H
#define DBPOOL_STATEMENT_H

#include "dbpool.h"
#include "lib/ilist.h"

struct Pool;

/*
 * A text that a pool knows.  It is known from the first use on, prepared after
 * prepare_threshold uses, and forgotten when it was not used for longest.
 */
typedef struct Statement
{
	dlist_node	node;			/* in the pool's list, last used first */
	int			id;				/* its place in Conn.prepared */
	uint32		hash;
	uint32		len;
	uint64		serial;			/* for its name at the remote; never used
								 * twice in the life of a worker */
	int			refs;			/* requests and flights that point to it */
	uint32		uses;
	uint32		runs;			/* uses that ended well */
	uint32		futile_until;	/* preparing it anew is of no use before */
	int			asked;			/* runs that were asked for their numbers, up
								 * to some, see outcome.c */
	bool		wrote;			/* one of them had one */
	bool		plain;			/* its command tags are those of plain reads
								 * and writes */
	double		usual_us;		/* time at the remote, lower quartile */
	double		worst_us;		/* longest of late; decays */
	double		late_us;		/* of hedged reads: percentile of the time to
								 * the first word of the answer */
	int			answers;		/* that were counted for it, up to some */
	double		worst_bytes;	/* largest result of late; decays */
	char		text[FLEXIBLE_ARRAY_MEMBER];
} Statement;

typedef struct StatementCache StatementCache;

extern StatementCache *statements_create(MemoryContext context);
extern void statements_mistrust(StatementCache *cache);
extern void statements_renew(StatementCache *cache);
extern Statement *statement_use(struct Pool *pool, const char *text, Size len);
extern void statement_took(Statement *statement, double us);
extern void statement_answered(Statement *statement, double us, double part, int first);
extern void statement_stalled(Statement *statement, double us);
extern void statement_ran(Statement *statement, bool plain, uint64 bytes);
extern void statement_renew(Statement *statement);
extern bool statement_is_plain(const Statement *statement);
extern bool statement_is_short(const Statement *statement);

#endif							/* DBPOOL_STATEMENT_H */
