/*
 * definition.c
 *	  From the name of a pool to what a worker needs to know of it.
 *
 * What was found is kept for the session, by pool and role, until any server,
 * user mapping, wrapper, role or membership changes.  A definition that the
 * present transaction has changed is kept only until the transaction ends, and
 * gets a pool of the transaction's own (PoolKey.xid), so that nobody else ever
 * uses what may yet be rolled back.
 *
 * When such a transaction ends, the workers are told to forget the pools of
 * the servers it changed; that, and not the next use, is what closes the
 * connections of a server that was altered or dropped.  The transaction's own
 * pools are forgotten whatever it was that made them its own.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/xact.h"
#include "backend/client.h"
#include "backend/options.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "compat.h"

typedef struct CacheKey
{
	NameData	pool;
	Oid			roleid;
} CacheKey;

typedef struct CacheEntry
{
	CacheKey	key;			/* hash key */
	bool		valid;
	Definition	definition;
} CacheEntry;

static HTAB *cache;
static bool cache_changed;

/* Servers and databases that this transaction has touched; in its memory. */
static List *touched_servers;
static List *touched_databases;
static List *dropped_servers;

/* This transaction, once it has had a pool of its own. */
static TransactionId own_pools_xid;

static object_access_hook_type prev_object_access_hook;

static void
on_invalidation(Datum arg, int cacheid, uint32 hash)
{
	(void) arg;
	(void) cacheid;
	(void) hash;
	cache_changed = true;
}

/* The worker says that the definition is an old one. */
void
definition_stale(void)
{
	cache_changed = true;
}

static void
start_cache(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(CacheKey);
	ctl.entrysize = sizeof(CacheEntry);
	cache = hash_create("dbpool definitions", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, on_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, on_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, on_invalidation, (Datum) 0);
}

static void
empty_cache(void)
{
	HASH_SEQ_STATUS seq;
	CacheEntry *entry;

	cache_changed = false;
	hash_seq_init(&seq, cache);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->valid)
			pfree(entry->definition.bytes);
		hash_search(cache, &entry->key, HASH_REMOVE, NULL);
	}
}

/* Does the row come from the present transaction? */
static bool
is_uncommitted(HeapTuple tuple)
{
	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
}

/*
 * OID of the server of that name.  It must be one of dbpool's; whether the
 * caller may use it is not checked here.
 */
Oid
definition_server(const char *pool, bool missing_ok)
{
	ForeignServer *server;
	ForeignDataWrapper *wrapper;

	if (pool == NULL || pool[0] == '\0')
		ereport(ERROR,
				(errcode(pool == NULL ? ERRCODE_NULL_VALUE_NOT_ALLOWED :
						 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of the pool must not be %s",
						pool == NULL ? "null" : "empty"),
				 errhint("Pass the name of a foreign server made for dbpool, for example by dbpool_create_pool().")));
	server = GetForeignServerByName(pool, true);
	wrapper = server ? GetForeignDataWrapper(server->fdwid) : NULL;
	if (wrapper != NULL && strcmp(wrapper->fdwname, "dbpool") == 0)
		return server->serverid;
	if (missing_ok)
		return InvalidOid;
	{
		NearestName nearest;
		char	   *usable;

		nearest_init(&nearest, pool);
		usable = pool_list_usable(&nearest);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pool \"%s\" does not exist", pool),
				 wrapper != NULL ?
				 errdetail("There is a server of that name, but it is one of foreign-data wrapper \"%s\".",
						   wrapper->fdwname) :
				 errdetail("Pools belong to a database, and this is database \"%s\".",
						   get_database_name(MyDatabaseId)),
				 nearest.name[0] != '\0' ?
				 errhint("Perhaps you meant \"%s\". Pools that you may use: %s.",
						 nearest.name, usable) :
				 usable[0] != '\0' ?
				 errhint("Pools that you may use: %s.", usable) :
				 errhint("There is no pool that you may use. dbpool_create_pool() makes one.")));
	}
	return InvalidOid;
}

static HeapTuple
mapping_row(Oid umuser, Oid serverid)
{
	return SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(umuser),
						   ObjectIdGetDatum(serverid));
}

/* The row of the user mapping for the role, or else PUBLIC's. */
static HeapTuple
find_mapping(Oid roleid, const ForeignServer *server)
{
	HeapTuple	tuple = mapping_row(roleid, server->serverid);

	if (!HeapTupleIsValid(tuple))
		tuple = mapping_row(InvalidOid, server->serverid);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no user mapping of role \"%s\" for pool \"%s\"",
						GetUserNameFromId(roleid, false), server->servername),
				 errhint("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (user '...', password '...') makes one.",
						 quote_identifier(GetUserNameFromId(roleid, false)),
						 quote_identifier(server->servername))));
	return tuple;
}

/* Put libpq's options of a list into the definition, in their order. */
static void
put_options(StringInfo buf, List *defs)
{
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (option_is_pool(def->defname) || strcmp(def->defname, "password_required") == 0)
			continue;
		message_put_string(buf, def->defname);
		message_put_string(buf, defGetString(def));
	}
}

/*
 * Must the role prove itself to the remote by a password?  As in postgres_fdw:
 * else any role could use the server's own credentials and address.
 */
static bool
needs_password(Oid roleid, Oid umuser, List *mapping, const char *pool)
{
	ListCell   *lc;
	bool		has_option = false;
	bool		has_password = false;

	if (superuser_arg(roleid))
		return false;
	foreach(lc, mapping)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "password_required") == 0 && !defGetBoolean(def))
			return false;
		if (strcmp(def->defname, "password") == 0)
		{
			has_option = true;
			has_password = defGetString(def)[0] != '\0';
		}
	}
	if (!has_password)
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("password is required"),
				 errdetail("Pool \"%s\": non-superusers must provide a password in the user mapping.",
						   pool),
				 errhint("ALTER USER MAPPING FOR %s SERVER %s OPTIONS (%s password '...') gives it one, or have a superuser set password_required to false in it.",
						 OidIsValid(umuser) ?
						 quote_identifier(GetUserNameFromId(umuser, false)) : "PUBLIC",
						 quote_identifier(pool), has_option ? "SET" : "ADD")));
	return true;
}

static List *
mapping_options(HeapTuple tuple)
{
	bool		isnull;
	Datum		datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
										Anum_pg_user_mapping_umoptions, &isnull);

	return isnull ? NIL : untransformRelOptions(datum);
}

/*
 * Must the remote ask for a password although the role is a superuser's?  Where
 * statements are run that the server's owner has written, and that one is no
 * superuser, his address could be one that lets the local server's user in.
 */
bool
definition_owner_needs_password(const Definition *definition)
{
	ForeignServer *server = GetForeignServer(definition->key.serverid);
	HeapTuple	mapping = mapping_row(definition->key.userid, definition->key.serverid);
	bool		needs = !superuser_arg(server->owner);
	ListCell   *lc;

	if (!HeapTupleIsValid(mapping))
		return needs;
	foreach(lc, mapping_options(mapping))
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "password_required") == 0 && !defGetBoolean(def))
			needs = false;
	}
	ReleaseSysCache(mapping);
	return needs;
}

/* Put together what a server and a user mapping say; in the current context. */
static void
make_definition(ForeignServer *server, HeapTuple mapping, Definition *definition)
{
	Oid			umuser = ((Form_pg_user_mapping) GETSTRUCT(mapping))->umuser;
	StringInfoData buf;
	PoolOptions options;

	memset(&options, 0, sizeof(options));
	options_read(server->options, &options);
	namestrcpy(&options.server, server->servername);
	namestrcpy(&options.username,
			   OidIsValid(umuser) ? GetUserNameFromId(umuser, false) : "public");

	memset(definition, 0, sizeof(Definition));
	definition->workers = 1;
	definition->key.dbid = MyDatabaseId;
	definition->key.serverid = server->serverid;
	definition->key.userid = umuser;

	initStringInfo(&buf);
	message_put(&buf, &options, sizeof(options));
	put_options(&buf, server->options);
	put_options(&buf, mapping_options(mapping));
	message_put_string(&buf, "client_encoding");
	message_put_string(&buf, GetDatabaseEncodingName());
	definition->bytes = buf.data;
	definition->len = buf.len;
	definition->options = (PoolOptions *) buf.data;
}

/*
 * A stamp for what is read from the catalogs afterwards: it comes first, then
 * what other sessions have committed before somebody took a lower one.  So of
 * two definitions the one with the higher stamp is the newer.
 */
static uint64
take_stamp(void)
{
	uint64		stamp = pg_atomic_fetch_add_u64(&dbpool_shared->definition_stamp, 1);

	AcceptInvalidationMessages();
	return stamp;
}

/* Read a definition for a role, with all rights checked. */
static void
read_definition(const char *pool, Oid roleid, Definition *definition)
{
	uint64		stamp = take_stamp();
	ForeignServer *server = GetForeignServer(definition_server(pool, false));
	HeapTuple	server_row;
	HeapTuple	mapping;

	if (compat_server_usage(server->serverid, roleid) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, server->servername);
	mapping = find_mapping(roleid, server);
	make_definition(server, mapping, definition);
	definition->stamp = stamp;
	definition->need_password =
		needs_password(roleid, definition->key.userid, mapping_options(mapping), pool);

	server_row = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(server->serverid));
	if (!HeapTupleIsValid(server_row))
		elog(ERROR, "cache lookup failed for foreign server %u", server->serverid);
	if (is_uncommitted(server_row) || is_uncommitted(mapping))
		definition->key.xid = own_pools_xid = GetTopTransactionId();
	ReleaseSysCache(server_row);
	ReleaseSysCache(mapping);
}

/*
 * The definition that a server and a user mapping make, whoever may use it;
 * false when either is gone.
 */
bool
definition_of_mapping(Oid serverid, Oid umuser, Definition *definition)
{
	uint64		stamp = take_stamp();
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	HeapTuple	mapping = server ? mapping_row(umuser, serverid) : NULL;

	if (!HeapTupleIsValid(mapping))
		return false;
	make_definition(server, mapping, definition);
	definition->stamp = stamp;
	ReleaseSysCache(mapping);
	return true;
}

/*
 * The definition of a pool for the current role, with all rights checked.
 * Valid until the next call.
 */
const Definition *
definition_find(const char *pool)
{
	CacheKey	key;
	CacheEntry *entry;
	bool		found;
	Definition	definition;
	char	   *bytes;

	if (cache == NULL)
		start_cache();
	/* a long statement would not hear of changes otherwise */
	AcceptInvalidationMessages();
	if (cache_changed)
		empty_cache();
	memset(&key, 0, sizeof(key));
	if (pool != NULL)
		namestrcpy(&key.pool, pool);
	key.roleid = GetUserId();
	entry = hash_search(cache, &key, HASH_FIND, NULL);
	if (entry != NULL && entry->valid &&
		(!TransactionIdIsValid(entry->definition.key.xid) ||
		 entry->definition.key.xid == GetTopTransactionIdIfAny()))
		return &entry->definition;

	read_definition(pool, key.roleid, &definition);
	entry = hash_search(cache, &key, HASH_ENTER, &found);
	if (found && entry->valid)
		pfree(entry->definition.bytes);
	entry->valid = false;
	bytes = MemoryContextAlloc(TopMemoryContext, definition.len);
	memcpy(bytes, definition.bytes, definition.len);
	definition.bytes = bytes;
	definition.options = (PoolOptions *) bytes;
	entry->definition = definition;
	entry->valid = true;
	return &entry->definition;
}

/* So many workers share the pool, as one of them says. */
void
definition_spread(const char *pool, int workers)
{
	CacheKey	key;
	CacheEntry *entry;

	memset(&key, 0, sizeof(key));
	namestrcpy(&key.pool, pool);
	key.roleid = GetUserId();
	entry = hash_search(cache, &key, HASH_FIND, NULL);
	if (entry != NULL && entry->valid)
		entry->definition.workers = workers;
}

/* A server, a user mapping or a database is made, changed or dropped. */
static void
on_object_access(ObjectAccessType access, Oid classid, Oid objectid,
				 int subid, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classid, objectid, subid, arg);

	if (access != OAT_POST_CREATE && access != OAT_POST_ALTER && access != OAT_DROP)
		return;
	if (classid == ForeignServerRelationId || classid == UserMappingRelationId ||
		(classid == DatabaseRelationId && access == OAT_DROP))
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		if (classid == DatabaseRelationId)
			touched_databases = list_append_unique_oid(touched_databases, objectid);
		else if (classid == ForeignServerRelationId)
		{
			touched_servers = list_append_unique_oid(touched_servers, objectid);
			if (access == OAT_DROP)
				dropped_servers = list_append_unique_oid(dropped_servers, objectid);
		}
		else
		{
			HeapTuple	row;

			/* a mapping just made is not visible yet, nor has it a pool */
			row = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(objectid));
			if (HeapTupleIsValid(row))
			{
				Oid			serverid = ((Form_pg_user_mapping) GETSTRUCT(row))->umserver;

				touched_servers = list_append_unique_oid(touched_servers, serverid);
				ReleaseSysCache(row);
			}
		}
		MemoryContextSwitchTo(old);
	}
}

static bool
is_touched(const PoolKey *key, void *arg)
{
	(void) arg;
	return list_member_oid(touched_databases, key->dbid) ||
		(key->dbid == MyDatabaseId && list_member_oid(touched_servers, key->serverid)) ||
		(TransactionIdIsValid(own_pools_xid) && key->xid == own_pools_xid);
}

static bool
is_dropped(const PoolKey *key, void *arg)
{
	(void) arg;
	return list_member_oid(touched_databases, key->dbid) ||
		(key->dbid == MyDatabaseId && list_member_oid(dropped_servers, key->serverid));
}

/*
 * The transaction has ended, and other sessions have been told to look at the
 * catalogs again: this phase comes after AtEOXact_Inval(), where the callbacks
 * for transactions would come before.  So a session that is sent back by a
 * worker finds the new definition.
 */
static void
on_xact_end(ResourceReleasePhase phase, bool is_commit, bool is_top, void *arg)
{
	(void) arg;
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top)
		return;
	if (touched_servers != NIL || touched_databases != NIL ||
		TransactionIdIsValid(own_pools_xid))
	{
		shmem_want(is_touched, NULL, POOL_WANT_FORGET);
		if (is_commit)
			shmem_want(is_dropped, NULL, POOL_WANT_FORGET | POOL_WANT_DROP);
		cache_changed = true;
	}
	touched_servers = NIL;
	touched_databases = NIL;
	dropped_servers = NIL;
	own_pools_xid = InvalidTransactionId;
}

/* In every process that the postmaster starts. */
void
backend_register(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = on_object_access;
	RegisterResourceReleaseCallback(on_xact_end, NULL);
}
