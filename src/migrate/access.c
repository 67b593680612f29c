/*
 * access.c
 *	  Who may migrate, and how the tables of migrations are got at.
 *
 * No role has the right to write to these tables.  Functions do it as the tables'
 * owner, once they have checked the caller's right to the pool.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "backend/tables.h"
#include "migrate/migrate.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "compat.h"

/* --- the tables ------------------------------------------------------------------ */

Oid
migrate_schema(void)
{
	Oid			schema = extension_schema();

	if (!OidIsValid(schema))
		elog(ERROR, "could not find extension \"dbpool\"");
	return schema;
}

bool
migrate_tables_exist(void)
{
	Oid			schema = extension_schema();

	return OidIsValid(schema) &&
		OidIsValid(get_relname_relid("dbpool_migrations", schema)) &&
		OidIsValid(get_relname_relid("dbpool_migration_history", schema));
}

/* The triggers are to let rows pass as they are. */
static bool written = false;

bool
tables_are_written(void)
{
	return written;
}

void
tables_write(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	written = true;
	PG_TRY();
	{
		tables_run(sql, nargs, types, values, nulls, expected);
	}
	PG_FINALLY();
	{
		written = false;
	}
	PG_END_TRY();
}

void
tables_write_always(void)
{
	written = true;
}

/* --- rights ---------------------------------------------------------------------- */

/*
 * Has the role a right to the function that somebody granted to it, or to a role
 * it has the privileges of?  What PUBLIC and the function's owner have by default
 * does not count.
 */
static bool
has_explicit_grant(HeapTuple tuple, Oid roleid)
{
	Oid			owner;
	bool		isnull;
	Datum		datum;
	bool		granted = false;

	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	if (!isnull)
	{
		Acl		   *acl = DatumGetAclP(datum);
		AclItem    *items = ACL_DAT(acl);

		for (int i = 0; i < ACL_NUM(acl) && !granted; i++)
			granted = items[i].ai_grantee != ACL_ID_PUBLIC &&
				items[i].ai_grantee != owner &&
				(ACLITEM_GET_PRIVS(items[i]) & ACL_EXECUTE) != 0 &&
				has_privs_of_role(roleid, items[i].ai_grantee);
	}
	return granted;
}

/* Has the role such a grant on one of the extension's functions of that name? */
static bool
may_call(const char *name, Oid roleid)
{
	Oid			schema = migrate_schema();
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	bool		granted = false;

	for (int i = 0; i < list->n_members && !granted; i++)
	{
		HeapTuple	tuple = &list->members[i]->tuple;

		granted = ((Form_pg_proc) GETSTRUCT(tuple))->pronamespace == schema &&
			has_explicit_grant(tuple, roleid);
	}
	ReleaseSysCacheList(list);
	return granted;
}

Oid
migrate_check_right(const char *pool, Oid function)
{
	Oid			serverid = definition_server(pool, false);
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		granted;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	granted = has_explicit_grant(tuple, GetUserId());
	ReleaseSysCache(tuple);
	if (!granted && !compat_server_owner(serverid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for migrations of pool \"%s\"", pool),
				 errdetail("Role \"%s\" does not own the server.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Its owner can, and so can roles that a superuser has granted EXECUTE on function %s.",
						 format_procedure(function))));
	return serverid;
}

bool
migrate_may_add(Oid serverid, const char *role)
{
	Oid			roleid = get_role_oid(role, true);

	return OidIsValid(roleid) &&
		(compat_server_owner(serverid, roleid) ||
		 may_call("dbpool_add_migration", roleid) || may_call("dbpool_load_migrations", roleid));
}

void
migrate_check_author(Oid serverid, const char *pool, const Migration *migration)
{
	if (migrate_may_add(serverid, migration->added_by))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("migration %s \"%s\" of pool \"%s\" is not run, as it was registered by role \"%s\"",
					migration->version, migration->name, pool, migration->added_by),
			 errdetail("That role may not register migrations of the pool, or is no more."),
			 errhint("Look at the text in dbpool_migrations. If it is right, register it again, the same as it is, by dbpool_add_migration() or dbpool_load_migrations().")));
}
