/*
 * add.c
 *	  Functions that register migrations one by one, begin new ones, and show how
 *	  a text is divided.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "backend/client.h"
#include "migrate/migrate.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dbpool_add_migration);
PG_FUNCTION_INFO_V1(dbpool_drop_migration);
PG_FUNCTION_INFO_V1(dbpool_create_migration);
PG_FUNCTION_INFO_V1(dbpool_migration_statements);

/* Versions that look like a date and time: YYYYMMDDHHMMSS. */
#define FIRST_TIME_VERSION	INT64CONST(10000101000000)
#define LAST_TIME_VERSION	INT64CONST(99991231235959)

/* An argument that has to be there. */
static void
require(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the %s of a migration must not be null", what)));
}

static const char *
migration_pool(FunctionCallInfo fcinfo)
{
	return PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
}

/* What dbpool_add_migration() has options for. */
typedef struct AddOptions
{
	Migration  *migration;
	bool		override;
} AddOptions;

static void
set_option(char *key, const JsonbValue *value, void *arg)
{
	AddOptions *options = arg;
	bool	   *target;

	if (strcmp(key, "transaction") == 0)
		target = &options->migration->transaction;
	else if (strcmp(key, "out_of_order") == 0)
		target = &options->migration->out_of_order;
	else if (strcmp(key, "replace_applied") == 0)
		target = &options->override;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown option of a migration: \"%s\"", key),
				 errhint("Valid options are: out_of_order, replace_applied, transaction.")));
	if (value->type != jbvBool)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\"", key),
				 errdetail("true or false is expected.")));
	*target = value->val.boolean;
}

/*
 * dbpool_add_migration(pool name, version dbpool_migration_version, name text, up_sql text,
 *						down_sql text, options jsonb) returns void
 *
 * Registers a migration, or puts it in the place of another of that version that
 * has not been applied, or with the option replace_applied of any.  The way back of
 * one that has been applied can always be replaced.  The text has to be one that can be divided into
 * statements; whether they are right is for the remote to say.
 *
 * Errors: 42501 for those who may not; 22003 for a version, 42602 for a name that
 * cannot be; 22023 for options; 42601 for a text that ends within a string and
 * the like, 0A000 for COPY with the client, 2D000 for statements that end the
 * transaction; 55000 for a change of what has been applied.
 */
Datum
dbpool_add_migration(PG_FUNCTION_ARGS)
{
	const char *pool = migration_pool(fcinfo);
	Migration	migration = {.transaction = true};
	AddOptions	options = {&migration};
	Oid			serverid;

	serverid = migrate_check_right(pool, fcinfo->flinfo->fn_oid);
	require(fcinfo, 1, "version");
	require(fcinfo, 2, "name");
	require(fcinfo, 3, "text");
	migration.version = version_argument(fcinfo, 1);
	migration.name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	migration.up_sql = text_to_cstring(PG_GETARG_TEXT_PP(3));
	if (!PG_ARGISNULL(4))
		migration.down_sql = text_to_cstring(PG_GETARG_TEXT_PP(4));
	if (strspn(migration.up_sql, " \t\r\n\f\v") == strlen(migration.up_sql))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the text of migration %s of pool \"%s\" is empty",
						migration.version, pool),
				 errhint("For a migration that does nothing, write a comment.")));
	if (split_no_transaction(migration.up_sql))
		migration.transaction = false;
	if (!PG_ARGISNULL(5))
		json_members(PG_GETARG_JSONB_P(5), "options of a migration", "{\"transaction\": false}",
					 set_option, &options);
	source_check(pool, &migration);
	switch (source_put(serverid, pool, &migration, options.override ? CHANGE_OVERRIDE : CHANGE_REFUSE))
	{
		case SOURCE_ADDED:
			break;
		case SOURCE_UNCHANGED:
			ereport(NOTICE,
					(errmsg("migration %s \"%s\" of pool \"%s\" is registered already",
							migration.version, migration.name, pool)));
			break;
		case SOURCE_REPLACED:
			ereport(NOTICE,
					(errmsg("migration %s \"%s\" of pool \"%s\" has been replaced",
							migration.version, migration.name, pool),
					 errdetail("It is not applied at present.")));
			break;
		case SOURCE_LINE_ENDS:
			source_refuse_change(pool, &migration, "What is registered differs in line ends only.",
								 "Nothing has to be done, as the registered text stays.");
			break;
		case SOURCE_WAY_BACK:
			ereport(NOTICE,
					(errmsg("the way back of migration %s \"%s\" of pool \"%s\" has been replaced",
							migration.version, migration.name, pool)));
			break;
		case SOURCE_OVERRIDDEN:
			source_note_override(pool, &migration);
			break;
		case SOURCE_KEPT:
			break;
	}
	PG_RETURN_VOID();
}

/*
 * dbpool_drop_migration(pool name, version dbpool_migration_version) returns void
 *
 * Errors: 42501; 42704 when there is none; 55000 when it has been applied.
 */
Datum
dbpool_drop_migration(PG_FUNCTION_ARGS)
{
	const char *pool = migration_pool(fcinfo);
	Oid			serverid = migrate_check_right(pool, fcinfo->flinfo->fn_oid);

	require(fcinfo, 1, "version");
	source_drop(serverid, pool, version_argument(fcinfo, 1));
	PG_RETURN_VOID();
}

/* --- new ones ---------------------------------------------------------------------- */

static int64
version_of_time(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;

	/* without a time zone it is UTC */
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return ((((tm.tm_year * INT64CONST(100) + tm.tm_mon) * 100 + tm.tm_mday) * 100 +
			 tm.tm_hour) * 100 + tm.tm_min) * 100 + tm.tm_sec;
}

/* A second later, if that is a time at all. */
static int64
version_after(int64 version)
{
	struct pg_tm tm = {0};
	Timestamp	time;
	int64		rest = version;

	tm.tm_sec = rest % 100;
	tm.tm_min = (rest /= 100) % 100;
	tm.tm_hour = (rest /= 100) % 100;
	tm.tm_mday = (rest /= 100) % 100;
	tm.tm_mon = (rest /= 100) % 100;
	tm.tm_year = rest / 100;
	if (tm.tm_sec > 59 || tm.tm_min > 59 || tm.tm_hour > 23 || tm.tm_mday < 1 ||
		tm.tm_mday > 31 || tm.tm_mon < 1 || tm.tm_mon > 12 ||
		tm2timestamp(&tm, 0, NULL, &time) != 0)
		return version + 1;
	return version_of_time(time + USECS_PER_SEC);
}

/* Small letters, digits and single underscores in between. */
static char *
plain_name(const char *name)
{
	char	   *plain = palloc(strlen(name) + 1);
	char	   *to = plain;

	for (const char *at = name; *at != '\0'; at++)
	{
		char		c = pg_ascii_tolower((unsigned char) *at);

		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			*to++ = c;
		else if (to > plain && to[-1] != '_')
			*to++ = '_';
	}
	if (to > plain && to[-1] == '_')
		to--;
	*to = '\0';
	if (plain[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a migration: \"%s\"", name),
				 errdetail("It needs letters from a to z or digits."),
				 errhint("Say in a few words what the migration does, for example \"add users\".")));
	return plain;
}

/*
 * dbpool_create_migration(name text, OUT version dbpool_migration_version, OUT file_name text,
 *						   OUT up_sql text, OUT down_sql text)
 *
 * What a new migration is to begin with; nothing is registered.  The version is
 * the time in UTC, or a second after the highest registered one that looks like a
 * time.
 */
Datum
dbpool_create_migration(PG_FUNCTION_ARGS)
{
	char	   *name;
	int64		version = version_of_time(GetCurrentTimestamp());
	int64		highest = source_highest(FIRST_TIME_VERSION, LAST_TIME_VERSION);
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};

	require(fcinfo, 0, "name");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	name = plain_name(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (version <= highest)
		version = version_after(highest);
	values[0] = CStringGetTextDatum(version_of_number(version));
	values[1] = CStringGetTextDatum(psprintf(INT64_FORMAT "_%s.up.sql", version, name));
	values[2] = CStringGetTextDatum(psprintf("-- %s\n--\n"
											 "-- All statements of this file are one transaction. If it has one that\n"
											 "-- PostgreSQL refuses there, as CREATE INDEX CONCURRENTLY is, let the first\n"
											 "-- line be \"-- no-transaction\".\n\n", name));
	values[3] = CStringGetTextDatum(psprintf("-- %s: the way back\n--\n"
											 "-- Undo here, in reverse order, what the other file does.\n\n", name));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* --- statements -------------------------------------------------------------------- */

static const char *
kind_name(SqlPieceKind kind)
{
	switch (kind)
	{
		case PIECE_PLAIN:
			return "statement";
		case PIECE_BEGIN:
			return "begin";
		case PIECE_COMMIT:
			return "commit";
		case PIECE_ROLLBACK:
			return "rollback";
		case PIECE_OTHER_END:
			return "prepared";
	}
	return NULL;
}

/*
 * dbpool_migration_statements(sql text, OUT line int, OUT "column" int,
 *							   OUT kind text, OUT statement text)
 *
 * The statements of a text as dbpool_migrate() would send them.
 */
Datum
dbpool_migration_statements(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SqlPiece   *pieces;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	pieces = split_anyhow(sql, &n);
	for (int i = 0; i < n; i++)
	{
		text	   *statement = cstring_to_text_with_len(sql + pieces[i].at, pieces[i].len);
		Datum		values[4];
		bool		nulls[4] = {false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int32GetDatum(pieces[i].line);
		values[1] = Int32GetDatum(pieces[i].column);
		values[2] = CStringGetTextDatum(kind_name(pieces[i].kind));
		values[3] = PointerGetDatum(statement);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(DatumGetPointer(values[2]));
		pfree(statement);
	}
	return (Datum) 0;
}
