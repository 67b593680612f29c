/*
 * extension.c
 *	  The extension in this database: its schema, and which dbpool this is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "backend/extension.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(dbpool_version);

/* The extension's row of pg_extension, as a copy; NULL if this database has none. */
static HeapTuple
extension_row(TupleDesc *desc)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(get_extension_oid("dbpool", true)));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}

Oid
extension_schema(void)
{
	TupleDesc	desc;
	HeapTuple	tuple = extension_row(&desc);

	return HeapTupleIsValid(tuple) ?
		((Form_pg_extension) GETSTRUCT(tuple))->extnamespace : InvalidOid;
}

/* The version of its objects, or NULL. */
static char *
extension_version(void)
{
	TupleDesc	desc;
	HeapTuple	tuple = extension_row(&desc);
	Datum		value;
	bool		isnull = true;

	if (HeapTupleIsValid(tuple))
		value = heap_getattr(tuple, Anum_pg_extension_extversion, desc, &isnull);
	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * dbpool_version() returns record
 *
 * The loaded library's version; that of the SQL objects, which another one means
 * that ALTER EXTENSION dbpool UPDATE or a restart is due; libpq's, as it is loaded;
 * and that of the PostgreSQL whose headers the library was compiled with.
 */
Datum
dbpool_version(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};
	char	   *extension = extension_version();
	int			libpq = PQlibVersion();

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(DBPOOL_VERSION);
	values[1] = extension ? CStringGetTextDatum(extension) : (Datum) 0;
	nulls[1] = extension == NULL;
	values[2] = CStringGetTextDatum(psprintf("%d.%d", libpq / 10000, libpq % 10000));
	values[3] = CStringGetTextDatum(PG_VERSION);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
