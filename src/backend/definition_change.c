/*
 * definition_change.c
 *	  A transaction changes servers and user mappings: what the workers are told.
 *
 * When such a transaction ends, the workers are told to forget the pools of
 * the servers it changed; that, and not the next use, is what closes the
 * connections of a server that was altered or dropped.  The transaction's own
 * pools are forgotten whatever it was that made them its own.
 *
 * A user mapping of which it has changed nothing but the password keeps its connections,
 * until the next call has brought the new one, see worker/renew.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/client.h"
#include "backend/options.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "ipc/errand.h"

/* Servers and databases that this transaction has touched; in its memory. */
static List *touched_servers;
static List *touched_databases;
static List *made_servers;

/* Servers it has dropped, and in which subtransaction, in the order of these. */
static List *dropped_servers;
static List *dropped_in;

/* Pools whose password alone it has changed: lists of server and role. */
static List *rotated_pools;

static object_access_hook_type prev_object_access_hook;

void		(*definition_server_changed) (Oid serverid, bool dropped);

/* Do two lists of options differ by nothing but the value of the password? */
static bool
differ_by_password(List *a, List *b)
{
	ListCell   *x;
	ListCell   *y;

	if (list_length(a) != list_length(b))
		return false;
	forboth(x, a, y, b)
	{
		DefElem    *old = lfirst_node(DefElem, x);
		DefElem    *new = lfirst_node(DefElem, y);

		if (strcmp(old->defname, new->defname) != 0 ||
			(strcmp(old->defname, "password") != 0 && strcmp(defGetString(old), defGetString(new)) != 0))
			return false;
	}
	return true;
}

/*
 * Has the command that runs changed nothing of a user mapping but its password?  Its
 * row as it was is what the cache has; as it will be, what only this command sees.
 */
static bool
is_rotated(Oid mappingid, HeapTuple was)
{
	Relation	rel = table_open(UserMappingRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		rotated = false;

	ScanKeyInit(&key, Anum_pg_user_mapping_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(mappingid));
	scan = systable_beginscan(rel, UserMappingOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		rotated = differ_by_password(mapping_options(was), mapping_options(tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return rotated;
}

/* A user mapping is made, changed or dropped: its server is touched, or but its password. */
static void
on_mapping_change(ObjectAccessType access, Oid objectid)
{
	/* a mapping just made is not visible yet, nor has it a pool */
	HeapTuple	row = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(objectid));
	Form_pg_user_mapping mapping;

	if (!HeapTupleIsValid(row))
		return;
	mapping = (Form_pg_user_mapping) GETSTRUCT(row);
	if (access == OAT_POST_ALTER && is_rotated(objectid, row))
		rotated_pools = lappend(rotated_pools, list_make2_oid(mapping->umserver, mapping->umuser));
	else
		touched_servers = list_append_unique_oid(touched_servers, mapping->umserver);
	ReleaseSysCache(row);
}

/* A server, a user mapping or a database is made, changed or dropped. */
static void
on_server_change(ObjectAccessType access, Oid classid, Oid objectid,
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
			if (access == OAT_POST_CREATE)
				made_servers = list_append_unique_oid(made_servers, objectid);
			if (access == OAT_DROP)
			{
				dropped_servers = lappend_oid(dropped_servers, objectid);
				dropped_in = lappend_int(dropped_in, (int) GetCurrentSubTransactionId());
			}
		}
		else
			on_mapping_change(access, objectid);
		MemoryContextSwitchTo(old);
	}
	if (classid == ForeignServerRelationId && access != OAT_POST_CREATE &&
		definition_server_changed != NULL)
		definition_server_changed(objectid, access == OAT_DROP);
}

/* Has the present transaction made the server? */
bool
definition_server_is_new(Oid serverid)
{
	return list_member_oid(made_servers, serverid);
}

static bool
is_touched(const PoolKey *key, void *arg)
{
	(void) arg;
	return list_member_oid(touched_databases, key->dbid) ||
		(key->dbid == MyDatabaseId && list_member_oid(touched_servers, key->serverid)) ||
		(TransactionIdIsValid(definition_own_pools) && key->xid == definition_own_pools);
}

static bool
is_rotated_pool(const PoolKey *key, void *arg)
{
	ListCell   *lc;

	(void) arg;
	foreach(lc, rotated_pools)
	{
		List	   *pool = lfirst(lc);

		if (key->dbid == MyDatabaseId && key->serverid == linitial_oid(pool) &&
			key->userid == lsecond_oid(pool))
			return true;
	}
	return false;
}

static bool
is_dropped(const PoolKey *key, void *arg)
{
	(void) arg;
	return list_member_oid(touched_databases, key->dbid) ||
		(key->dbid == MyDatabaseId && list_member_oid(dropped_servers, key->serverid));
}

/*
 * What a subtransaction that is rolled back has dropped is there again; also what was dropped
 * in those within it, whose numbers are all greater.  Pools that are told to forget a definition
 * that stays only connect once more, so the other lists keep what they have.
 */
static void
on_subxact_end(SubXactEvent event, SubTransactionId subid, SubTransactionId parentid, void *arg)
{
	(void) parentid;
	(void) arg;
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (dropped_in != NIL && (SubTransactionId) llast_int(dropped_in) >= subid)
	{
		dropped_servers = list_truncate(dropped_servers, list_length(dropped_servers) - 1);
		dropped_in = list_truncate(dropped_in, list_length(dropped_in) - 1);
	}
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
	if (rotated_pools != NIL)
	{
		shmem_want(is_rotated_pool, NULL, POOL_WANT_RELOAD);
		definition_stale();
	}
	if (touched_servers != NIL || touched_databases != NIL ||
		TransactionIdIsValid(definition_own_pools))
	{
		shmem_want(is_touched, NULL, POOL_WANT_FORGET);
		if (is_commit)
		{
			ListCell   *lc;

			shmem_want(is_dropped, NULL, POOL_WANT_FORGET | POOL_WANT_DROP);
			foreach(lc, touched_databases)
				errand_forget(lfirst_oid(lc));
		}
		definition_stale();
	}
	touched_servers = NIL;
	touched_databases = NIL;
	dropped_servers = NIL;
	dropped_in = NIL;
	made_servers = NIL;
	rotated_pools = NIL;
	definition_own_pools = InvalidTransactionId;
}

/* In every process that the postmaster starts. */
void
backend_register(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = on_server_change;
	RegisterResourceReleaseCallback(on_xact_end, NULL);
	RegisterSubXactCallback(on_subxact_end, NULL);
	guard_register();
}
