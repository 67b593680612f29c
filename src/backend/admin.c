/*
 * admin.c
 *	  Functions that make and drop pools, and put their statistics back.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/client.h"
#include "ipc/statements.h"
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

/* Connect to a pool, and throw if that cannot be done. */
static void
check_connects(const char *pool)
{
	Call		call = {0};
	AnswerSink	sink = {client_no_frame};

	call.pool = pool;
	call.kind = REQUEST_PING;
	call.sql = "";
	client_run(&call, &sink);
}

/*
 * dbpool_create_pool(pool name, conninfo text, options jsonb, if_not_exists boolean, check boolean)
 *
 * CREATE SERVER and CREATE USER MAPPING FOR CURRENT_USER in one, with the
 * rights that those need.  conninfo is what libpq takes, a URI or keywords.
 * With if_not_exists, either of the two that is there stays as it is.  With check, it
 * fails unless a connection can be opened, and then nothing is made.
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
	if (PG_NARGS() > 4 && !PG_ARGISNULL(4) && PG_GETARG_BOOL(4))
		check_connects(server->servername);
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
		/* what its connections have done before does not count */
		pool->conns_at = now;
		SpinLockRelease(&pool->mutex);
		stats_reset(i);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	statements_reset(MyDatabaseId, serverid);
	PG_RETURN_VOID();
}
