/*
 * admin.c
 *	  Functions that make, drop, pause and reset pools.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/client.h"
#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(dbpool_create_pool);
PG_FUNCTION_INFO_V1(dbpool_drop_pool);
PG_FUNCTION_INFO_V1(dbpool_pause);
PG_FUNCTION_INFO_V1(dbpool_resume);
PG_FUNCTION_INFO_V1(dbpool_reset);
PG_FUNCTION_INFO_V1(dbpool_stat_reset);

/*
 * Run a utility statement as if the user had typed it, so that event triggers
 * and hooks see it.  They are shown the function call in place of a text, since
 * that would hold the password.
 */
static void
run_utility(Node *statement, const char *shown)
{
	PlannedStmt *planned = makeNode(PlannedStmt);

	planned->commandType = CMD_UTILITY;
	planned->utilityStmt = statement;
	planned->canSetTag = false;
	ProcessUtility(planned, shown, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
	CommandCounterIncrement();
}

/* A member of the object of options, as a DefElem at the end of a list. */
static void
add_option(char *key, const JsonbValue *value, void *arg)
{
	List	  **list = arg;
	char	   *text = NULL;

	switch (value->type)
	{
		case jbvString:
			text = pnstrdup(value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			text = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
			break;
		case jbvBool:
			text = pstrdup(value->val.boolean ? "true" : "false");
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for option \"%s\"", key),
					 errdetail("A string, a number or a boolean is expected.")));
	}
	*list = lappend(*list, makeDefElem(key, (Node *) makeString(text), -1));
}

/* An object {"option": value, ...} as DefElems. */
static List *
json_options(Jsonb *json)
{
	List	   *list = NIL;

	json_members(json, "pool options", "{\"max_size\": 8, \"idle_timeout\": \"5min\"}",
				 add_option, &list);
	return list;
}

/*
 * dbpool_create_pool(pool name, conninfo text, options jsonb, if_not_exists boolean)
 *
 * CREATE SERVER and CREATE USER MAPPING FOR CURRENT_USER in one, with the
 * rights that those need.  conninfo is what libpq takes, a URI or keywords.
 * With if_not_exists, either of the two that is there stays as it is.
 */
Datum
dbpool_create_pool(PG_FUNCTION_ARGS)
{
	CreateForeignServerStmt *server = makeNode(CreateForeignServerStmt);
	CreateUserMappingStmt *mapping = makeNode(CreateUserMappingStmt);
	List	   *options;
	ListCell   *lc;

	if (PG_ARGISNULL(0) || NameStr(*PG_GETARG_NAME(0))[0] == '\0')
		(void) definition_server(PG_ARGISNULL(0) ? NULL : "", false);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the connection string must not be null"),
				 errhint("For example: 'host=db2 dbname=app user=app password=...' or 'postgresql://app:...@db2/app'.")));

	options = conninfo_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (!PG_ARGISNULL(2))
		options = list_concat(options, json_options(PG_GETARG_JSONB_P(2)));

	server->servername = pstrdup(NameStr(*PG_GETARG_NAME(0)));
	server->fdwname = "dbpool";
	mapping->user = makeNode(RoleSpec);
	mapping->user->roletype = ROLESPEC_CURRENT_USER;
	mapping->user->location = -1;
	mapping->servername = server->servername;
	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (option_is_mapping(def->defname))
			mapping->options = lappend(mapping->options, def);
		else
			server->options = lappend(server->options, def);
	}
	server->if_not_exists = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	mapping->if_not_exists = server->if_not_exists;
	run_utility((Node *) server, "CREATE SERVER by dbpool_create_pool()");
	/* one that was there may be another wrapper's */
	(void) definition_server(server->servername, false);
	run_utility((Node *) mapping, "CREATE USER MAPPING by dbpool_create_pool()");
	PG_RETURN_VOID();
}

static const char *
pool_argument(FunctionCallInfo fcinfo)
{
	return PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
}

/* dbpool_drop_pool(pool name): DROP SERVER ... CASCADE for its user mappings. */
Datum
dbpool_drop_pool(PG_FUNCTION_ARGS)
{
	DropStmt   *drop = makeNode(DropStmt);
	const char *pool = pool_argument(fcinfo);

	(void) definition_server(pool, false);
	drop->removeType = OBJECT_FOREIGN_SERVER;
	drop->objects = list_make1(makeString(pstrdup(pool)));
	drop->behavior = DROP_CASCADE;
	run_utility((Node *) drop, "DROP SERVER by dbpool_drop_pool()");
	PG_RETURN_VOID();
}

/* Only the owner of the server may stop others from using it. */
static Oid
owned_pool(FunctionCallInfo fcinfo)
{
	const char *pool = pool_argument(fcinfo);
	Oid			serverid;

	client_require_preload();
	serverid = definition_server(pool, false);
	if (!compat_server_owner(serverid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, pool);
	return serverid;
}

static bool
is_of_server(const PoolKey *key, void *arg)
{
	return key->dbid == MyDatabaseId && key->serverid == *(Oid *) arg;
}

/* Returns how many pools of the server there are. */
static int
set_paused(Oid serverid, bool paused)
{
	int			n = 0;

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use || !is_of_server(&pool->key, &serverid))
			continue;
		SpinLockAcquire(&pool->mutex);
		pool->paused = paused;
		SpinLockRelease(&pool->mutex);
		n++;
	}
	LWLockRelease(dbpool_shared->pools_lock);
	shmem_want(is_of_server, &serverid, POOL_WANT_LOOK);
	return n;
}

/*
 * dbpool_pause(pool name): what runs goes on, what comes waits, whatever user
 * mapping it uses, until dbpool_resume() or a restart of the server.  Fails if
 * the pool was not used since the server started, as nothing would remember.
 */
Datum
dbpool_pause(PG_FUNCTION_ARGS)
{
	if (set_paused(owned_pool(fcinfo), true) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pool \"%s\" cannot be paused, as it is not in use",
						pool_argument(fcinfo)),
				 errhint("Use it once, for example by dbpool_ping().")));
	PG_RETURN_VOID();
}

/* dbpool_resume(pool name) */
Datum
dbpool_resume(PG_FUNCTION_ARGS)
{
	(void) set_paused(owned_pool(fcinfo), false);
	PG_RETURN_VOID();
}

/* dbpool_reset(pool name): close connections, busy ones after their statement. */
Datum
dbpool_reset(PG_FUNCTION_ARGS)
{
	Oid			serverid = owned_pool(fcinfo);

	shmem_want(is_of_server, &serverid, POOL_WANT_RESET);
	PG_RETURN_VOID();
}

/*
 * dbpool_stat_reset(pool name): for NULL, all pools of this database.  For
 * superusers and whom they grant EXECUTE.
 */
Datum
dbpool_stat_reset(PG_FUNCTION_ARGS)
{
	Oid			serverid = InvalidOid;
	Ticks		now = ticks_now();

	client_require_preload();
	if (!PG_ARGISNULL(0))
		serverid = definition_server(pool_argument(fcinfo), false);
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use || pool->key.dbid != MyDatabaseId ||
			(OidIsValid(serverid) && pool->key.serverid != serverid))
			continue;
		SpinLockAcquire(&pool->mutex);
		memset(&pool->counters, 0, sizeof(pool->counters));
		pool->counters.reset_at = now;
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	PG_RETURN_VOID();
}
