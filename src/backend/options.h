/*
 * options.h
 *	  Pools as the catalogs define them.
 */
#ifndef DBPOOL_OPTIONS_H
#define DBPOOL_OPTIONS_H

#include "access/htup.h"
#include "dbpool.h"
#include "ipc/message.h"
#include "ipc/shmem.h"
#include "nodes/pg_list.h"

/* What a call needs to know of its pool. */
typedef struct Definition
{
	PoolKey		key;
	uint64		stamp;
	int			workers;		/* that the pool has; as its worker last said */
	PoolOptions *options;		/* = bytes */
	char	   *bytes;			/* as message.h says */
	Size		len;
} Definition;

/* The server's option history_format. */
typedef enum HistoryFormat
{
	HISTORY_DBPOOL = 0,
	HISTORY_REFINERY,
	HISTORY_SQLX
} HistoryFormat;

/* options.c */
extern bool option_is_pool(const char *keyword);
extern const char *option_of_pool(int n);
extern bool option_is_text(const char *keyword);
extern void options_read(List *defs, PoolOptions *options);
extern char *options_history_schema(List *defs);
extern void option_bad_value(const char *keyword, const char *value,
							 const char *detail, const char *hint) __attribute__((noreturn));

/* nearest.c: of many names, the one that was perhaps meant */
typedef struct NearestName
{
	const char *wanted;
	int			distance;		/* of the best so far */
	char		name[NAMEDATALEN];	/* it; empty: none is near */
} NearestName;

extern void nearest_init(NearestName *nearest, const char *wanted);
extern void nearest_try(NearestName *nearest, const char *name);

/* definition.c */
extern const Definition *definition_find(const char *pool);
extern bool definition_to_warm(Oid serverid, Oid umuser, Definition *definition);
extern bool definition_is_for_others(const PoolKey *key);
extern void definition_stale(void);
extern int	definition_worker(const Definition *definition);
extern void definition_spread(const char *pool, int workers);
extern Oid	definition_server(const char *pool, bool missing_ok);
extern bool definition_has_mapping(Oid serverid, Oid roleid);

extern List *mapping_options(HeapTuple tuple);

/* This transaction, once it has had a pool of its own; it ends in definition_change.c. */
extern TransactionId definition_own_pools;

/* definition_change.c */
extern bool definition_server_is_new(Oid serverid);

/* Called when a server was altered, or is about to be dropped; set at start. */
extern void (*definition_server_changed) (Oid serverid, bool dropped);

/* conninfo.c: the backend's libpq */
typedef struct ConninfoOption
{
	const char *keyword;
	bool		mapping;		/* belongs to the user mapping */
	bool		file;			/* names a file of the server's machine */
	bool		ticket;			/* may lend the server's Kerberos ticket */
} ConninfoOption;

extern const ConninfoOption *conninfo_options(int *n);
extern bool option_is_mapping(const char *keyword);
extern const char *option_known_as(const char *keyword);
extern const char *conninfo_why_left_out(const char *keyword);
extern bool conninfo_is_uri(const char *conninfo);
extern List *conninfo_parse(const char *conninfo);
extern char *conninfo_password_methods(const char *asked);

/* conninfo_value.c */
extern void conninfo_check_value(const char *keyword, const char *value);
extern void conninfo_check_together(List *defs);

#endif							/* DBPOOL_OPTIONS_H */
