/*
 * usable.c
 *	  The pools that a role may use, for hints.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "backend/client.h"
#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"

/* Most names in a hint. */
#define MAX_NAMES	20

static bool
has_mapping(Oid umuser, Oid serverid)
{
	return SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(umuser),
								 ObjectIdGetDatum(serverid));
}

/*
 * The pools that the current role may use, for a hint, empty when none; *nearest
 * gets the one that was perhaps meant.
 */
char *
pool_list_usable(NearestName *nearest)
{
	StringInfoData buf;
	Oid			fdw = get_foreign_data_wrapper_oid("dbpool", true);
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, ForeignServerNameIndexId, true,
										  NULL, 0, NULL);
	HeapTuple	tuple;
	int			n = 0;

	initStringInfo(&buf);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (server->srvfdw != fdw ||
			compat_server_usage(server->oid, GetUserId()) != ACLCHECK_OK ||
			!(has_mapping(GetUserId(), server->oid) ||
			  has_mapping(InvalidOid, server->oid)))
			continue;
		nearest_try(nearest, NameStr(server->srvname));
		if (n++ < MAX_NAMES)
			appendStringInfo(&buf, "%s\"%s\"", n > 1 ? ", " : "",
							 NameStr(server->srvname));
	}
	if (n > MAX_NAMES)
		appendStringInfo(&buf, " and %d more", n - MAX_NAMES);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return buf.data;
}
