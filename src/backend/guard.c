/*
 * guard.c
 *	  Nobody makes what is called in place of a function or operator of ours.
 *
 * In a schema where others may create functions, one with a better fit to the
 * arguments of a call wins: dbpool_exec(text, text) over our dbpool_exec(name,
 * text), for literals.  It would be called with the rights of whoever calls it,
 * and with his passwords.  So is the check of a domain, as dbpool_ping('x') is a
 * cast where there is a type of that name.  So a name of ours is ours alone there,
 * whatever the arguments; and so are the operators of our type.  (Other schemas, earlier in somebody's search_path, are his own
 * affair, as with any function.)
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "backend/client.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
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

/* A copy of the row of an object that may have been made just now, or NULL. */
static HeapTuple
object_row(Relation rel, Oid classid, Oid oid)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, get_object_attnum_oid(classid), BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, get_object_oid_index(classid), true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	return tuple;
}

/* A column of it that is never null. */
static Datum
row_value(Relation rel, HeapTuple tuple, AttrNumber column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

	if (isnull)
		elog(ERROR, "null in column %d of a row of \"%s\"", column, RelationGetRelationName(rel));
	return value;
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

/* Could it be taken for a function of the extension? */
static void
check_function_name(const NameData *name, Oid schema, Oid extension)
{
	if (strncmp(NameStr(*name), "dbpool_", strlen("dbpool_")) != 0 ||
		!is_name_of_ours(name, schema, extension))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("function name \"%s\" is dbpool's in schema \"%s\"",
					NameStr(*name), get_namespace_name(schema)),
			 errdetail("A function or type of that name could be called in place of the extension's."),
			 errhint("Take another name or another schema.")));
}

/* Could it be taken for an operator of the extension's type? */
static void
check_operator(const NameData *name, Oid schema, Oid left, Oid right, Oid extension)
{
	Oid			version = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
										  CStringGetDatum("dbpool_migration_version"),
										  ObjectIdGetDatum(schema));

	if (!OidIsValid(version) || (left != version && right != version) ||
		getExtensionOfObject(TypeRelationId, version) != extension)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("operators of type \"dbpool_migration_version\" are dbpool's in schema \"%s\"",
					get_namespace_name(schema)),
			 errdetail("Operator \"%s\" could be called in place of the extension's.",
					   NameStr(*name)),
			 errhint("Make it in another schema.")));
}

static void
check_object(Oid classid, Oid oid)
{
	Oid			extension = get_extension_oid("dbpool", true);
	Relation	rel;
	HeapTuple	tuple;

	if (!OidIsValid(extension) || getExtensionOfObject(classid, oid) == extension)
		return;
	rel = table_open(classid, AccessShareLock);
	tuple = object_row(rel, classid, oid);
	if (HeapTupleIsValid(tuple))
	{
		Name		name = DatumGetName(row_value(rel, tuple, get_object_attnum_name(classid)));
		Oid			schema = DatumGetObjectId(row_value(rel, tuple,
														get_object_attnum_namespace(classid)));

		if (classid == OperatorRelationId)
			check_operator(name, schema, ((Form_pg_operator) GETSTRUCT(tuple))->oprleft,
						   ((Form_pg_operator) GETSTRUCT(tuple))->oprright, extension);

		/*
		 * A type can be written like a function of one argument, as a cast;
		 * that of a table cannot
		 */
		else if (classid == ProcedureRelationId ||
				 !OidIsValid(((Form_pg_type) GETSTRUCT(tuple))->typrelid))
			check_function_name(name, schema, extension);
		heap_freetuple(tuple);
	}
	table_close(rel, AccessShareLock);
}

static void
on_planting(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classid, objectid, subid, arg);
	if ((access == OAT_POST_CREATE || access == OAT_POST_ALTER) &&
		(classid == ProcedureRelationId || classid == TypeRelationId ||
		 classid == OperatorRelationId) &&
		!superuser() && !creating_extension)
		check_object(classid, objectid);
}

/* In the postmaster. */
void
guard_register(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = on_planting;
}
