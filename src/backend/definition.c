/*
 * definition.c
 *	  From the name of a pool to what a worker needs to know of it.
 *
 * What was found is kept for the session, by pool and role, until any server,
 * user mapping, wrapper, role or membership changes.  A definition that the
 * present transaction has changed is kept only until the transaction ends, and
 * gets a pool of the transaction's own (PoolKey.xid), so that nobody else ever
 * uses what may yet be rolled back.
 * What becomes of pools whose definition has changed: definition_change.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/xact.h"
#include "backend/client.h"
#include "backend/options.h"
#include "catalog/pg_authid.h"
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

TransactionId definition_own_pools;

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
	if (wrapper == NULL && (strstr(pool, "://") != NULL || strchr(pool, '=') != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("a pool is given by its name, not by a connection string"),
				 errdetail("There is no pool of that name. It is not shown, since it may have a password."),
				 errhint("dbpool_create_pool() makes a pool of a connection string, once; afterwards its name is all that is needed.")));
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

/* Is there a user mapping for the role, or one of PUBLIC's? */
bool
definition_has_mapping(Oid serverid, Oid roleid)
{
	return SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(roleid), ObjectIdGetDatum(serverid)) ||
		SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(serverid));
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

/* Its options. */
List *
mapping_options(HeapTuple tuple)
{
	bool		isnull;
	Datum		datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
										Anum_pg_user_mapping_umoptions, &isnull);

	return isnull ? NIL : untransformRelOptions(datum);
}

/* An option of a list, or NULL. */
static DefElem *
option_named(List *defs, const char *name)
{
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0)
			return def;
	}
	return NULL;
}

/*
 * Must the remote ask for the password of a mapping?  It could be one that
 * trusts the local server's address or operating-system user, and lets anybody
 * in who gets us to connect.  So only superusers decide that it need not: by an
 * option of the mapping that is theirs to set, or by having the mapping and the
 * server for themselves.  That of PUBLIC is for all.  Who calls does not matter,
 * since others use the same connections.
 */
static bool
needs_password(const ForeignServer *server, Oid umuser, List *mapping)
{
	DefElem    *required = option_named(mapping, "password_required");

	if (required != NULL && !defGetBoolean(required))
		return false;
	return !OidIsValid(umuser) || !superuser_arg(umuser) || !superuser_arg(server->owner);
}

/* Has the mapping the password that it needs? */
static bool
password_is_there(bool needed, List *mapping)
{
	DefElem    *password = option_named(mapping, "password");

	return !needed ||
		(password != NULL && defGetString(password)[0] != '\0');
}

static void
throw_no_password(const char *pool, Oid umuser, List *mapping)
{
	ereport(ERROR,
			(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
			 errmsg("password is required"),
			 OidIsValid(umuser) && superuser_arg(umuser) ?
			 errdetail("Pool \"%s\": a superuser must provide a password in the user mapping for a server that belongs to somebody who is none.",
					   pool) :
			 errdetail("Pool \"%s\": non-superusers must provide a password in the user mapping.",
					   pool),
			 errhint("ALTER USER MAPPING FOR %s SERVER %s OPTIONS (%s password '...') gives it one, or have a superuser set password_required to false in it.",
					 OidIsValid(umuser) ?
					 quote_identifier(GetUserNameFromId(umuser, false)) : "PUBLIC",
					 quote_identifier(pool),
					 option_named(mapping, "password") ? "SET" : "ADD")));
}

/*
 * Would the owner of the server have SQL of his run with rights that he could not have had
 * otherwise?  A password he could get by putting an address of his own into the server; but
 * nobody's who logs in without.
 */
static bool
lends_rights(const ForeignServer *server, Oid umuser, bool need_password)
{
	DefElem    *sql = option_named(server->options, "connect_sql");

	return sql != NULL && defGetString(sql)[0] != '\0' && !need_password &&
		OidIsValid(umuser) && umuser != server->owner && !superuser_arg(server->owner);
}

static void
throw_lends_rights(const ForeignServer *server, Oid umuser)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("connect_sql of pool \"%s\" is not run with the rights of role \"%s\" on the remote server",
					server->servername, GetUserNameFromId(umuser, false)),
			 errdetail("It is the SQL of role \"%s\", who owns the server and is no superuser, and the user mapping needs no password.",
					   GetUserNameFromId(server->owner, false)),
			 errhint("Have a superuser own the server, set password_required to true in the user mapping, or drop the option connect_sql.")));
}

/* Put libpq's options of a list, and texts, into the definition, in their order. */
static void
put_options(StringInfo buf, List *defs, const char *left_out)
{
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (option_is_text(def->defname) ? defGetString(def)[0] == '\0' :
			option_is_pool(def->defname) || strcmp(def->defname, "password_required") == 0 ||
			strcmp(def->defname, left_out) == 0)
			continue;
		message_put_string(buf, def->defname);
		message_put_string(buf, defGetString(def));
	}
}

/*
 * Have libpq itself break off the log-in when the remote does not ask for a
 * password, if it is new enough for that.  What the server's option require_auth
 * rules out stays ruled out.
 */
static void
put_password_methods(StringInfo buf, const ForeignServer *server)
{
	DefElem    *asked = option_named(server->options, "require_auth");
	char	   *methods = conninfo_password_methods(asked ? defGetString(asked) : NULL);

	if (methods == NULL)
		return;
	if (methods[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("password is required"),
				 errdetail("Pool \"%s\": require_auth allows no method by which the remote would ask for one.",
						   server->servername),
				 errhint("Allow scram-sha-256 in the server's option require_auth, or have a superuser set password_required to false in the user mapping.")));
	message_put_string(buf, "require_auth");
	message_put_string(buf, methods);
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
	if (!superuser_arg(server->owner))
	{
		options.owner = server->owner;
		options.min_size = Min(options.min_size, dbpool_max_min_size);
	}
	options.need_password = needs_password(server, umuser, mapping_options(mapping));

	memset(definition, 0, sizeof(Definition));
	definition->workers = 1;
	definition->key.dbid = MyDatabaseId;
	definition->key.serverid = server->serverid;
	definition->key.userid = umuser;

	initStringInfo(&buf);
	message_put(&buf, &options, sizeof(options));
	put_options(&buf, server->options, options.need_password ? "require_auth" : "");
	put_options(&buf, mapping_options(mapping), "");
	if (options.need_password)
		put_password_methods(&buf, server);
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

	compat_injection_point("dbpool-stamp-before-catalogs");
	AcceptInvalidationMessages();
	return stamp;
}

/* Has the present transaction changed the role?  Then it may be no superuser any more. */
static bool
role_is_uncommitted(Oid roleid)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(roleid));
	bool		uncommitted = HeapTupleIsValid(role) && is_uncommitted(role);

	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	return uncommitted;
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
	if (!password_is_there(definition->options->need_password, mapping_options(mapping)))
		throw_no_password(pool, definition->key.userid, mapping_options(mapping));
	if (lends_rights(server, definition->key.userid, definition->options->need_password))
		throw_lends_rights(server, definition->key.userid);

	server_row = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(server->serverid));
	if (!HeapTupleIsValid(server_row))
		elog(ERROR, "cache lookup failed for foreign server %u", server->serverid);
	if (is_uncommitted(server_row) || is_uncommitted(mapping) ||
		role_is_uncommitted(definition->key.userid) || role_is_uncommitted(server->owner))
		definition->key.xid = definition_own_pools = GetTopTransactionId();
	ReleaseSysCache(server_row);
	ReleaseSysCache(mapping);
}

/*
 * May connections of it be opened when nobody has called?  Not when the password is
 * missing that it needs, nor when the server's owner would get others' passwords that way,
 * by putting an address of his own into it.
 */
static bool
may_be_opened(const ForeignServer *server, HeapTuple mapping)
{
	Oid			umuser = ((Form_pg_user_mapping) GETSTRUCT(mapping))->umuser;
	List	   *options = mapping_options(mapping);

	return (umuser == server->owner || superuser_arg(server->owner)) &&
		password_is_there(needs_password(server, umuser, options), options);
}

/*
 * The definition that a server and a user mapping make, if connections of it
 * may be opened before anybody has called: false when they may not, and when either
 * is gone.
 */
bool
definition_to_warm(Oid serverid, Oid umuser, Definition *definition)
{
	uint64		stamp = take_stamp();
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	HeapTuple	mapping = server ? mapping_row(umuser, serverid) : NULL;
	bool		warm;

	if (!HeapTupleIsValid(mapping))
		return false;
	make_definition(server, mapping, definition);
	definition->stamp = stamp;
	warm = may_be_opened(server, mapping);
	ReleaseSysCache(mapping);
	return warm;
}

/*
 * Will another process find the pool with that key, and may it open connections of it,
 * whatever becomes of the present transaction?
 */
bool
definition_is_for_others(const PoolKey *key)
{
	ForeignServer *server = GetForeignServerExtended(key->serverid, FSV_MISSING_OK);
	HeapTuple	server_row = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(key->serverid));
	HeapTuple	mapping = server ? mapping_row(key->userid, key->serverid) : NULL;
	bool		others = HeapTupleIsValid(server_row) && HeapTupleIsValid(mapping) &&
	!TransactionIdIsValid(key->xid) && !is_uncommitted(server_row) && !is_uncommitted(mapping) &&
	may_be_opened(server, mapping);

	if (HeapTupleIsValid(mapping))
		ReleaseSysCache(mapping);
	if (HeapTupleIsValid(server_row))
		ReleaseSysCache(server_row);
	return others;
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

/* The worker to ask: one of several if the pool is split, always the same. */
int
definition_worker(const Definition *definition)
{
	int			first = shmem_first_worker(&definition->key);

	return (first + compat_my_proc_number() % definition->workers) % dbpool_shared->nworkers;
}
