/*
 * guard.c
 *	  Nobody makes a function that is called in place of one of ours.
 *
 * In a schema where others may create functions, one with a better fit to the
 * arguments of a call wins: dbpool_exec(text, text) over our dbpool_exec(name,
 * text), for literals.  It would be called with the rights of whoever calls it,
 * and with his passwords.  So a name of ours is ours alone there, whatever the
 * arguments.  (Other schemas, earlier in somebody's search_path, are his own
 * affair, as with any function.)
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "backend/client.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"

static object_access_hook_type prev_object_access_hook;

/* Name and schema of a function that may have been made just now. */
static bool
read_function(Oid oid, NameData *name, Oid *schema)
{
	Relation	rel = table_open(ProcedureRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_proc_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, ProcedureOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		*name = ((Form_pg_proc) GETSTRUCT(tuple))->proname;
		*schema = ((Form_pg_proc) GETSTRUCT(tuple))->pronamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* Has the extension a function of that name in that schema? */
static bool
is_name_of_ours(const NameData *name, Oid schema, Oid extension)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, NameGetDatum(name));
	bool		found = false;

	for (int i = 0; i < list->n_members && !found; i++)
	{
		Form_pg_proc other = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		found = other->pronamespace == schema &&
			getExtensionOfObject(ProcedureRelationId, other->oid) == extension;
	}
	ReleaseSysCacheList(list);
	return found;
}

static void
check_function(Oid oid)
{
	Oid			extension = get_extension_oid("dbpool", true);
	NameData	name;
	Oid			schema;

	if (!OidIsValid(extension) || !read_function(oid, &name, &schema) ||
		strncmp(NameStr(name), "dbpool_", strlen("dbpool_")) != 0 ||
		getExtensionOfObject(ProcedureRelationId, oid) == extension ||
		!is_name_of_ours(&name, schema, extension))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("function name \"%s\" is dbpool's in schema \"%s\"",
					NameStr(name), get_namespace_name(schema)),
			 errdetail("A function of that name could be called in place of the extension's."),
			 errhint("Take another name or another schema.")));
}

static void
on_planting(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classid, objectid, subid, arg);
	if ((access == OAT_POST_CREATE || access == OAT_POST_ALTER) &&
		classid == ProcedureRelationId && !superuser() && !creating_extension)
		check_function(objectid);
}

/* In the postmaster. */
void
guard_register(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = on_planting;
}
