/*
 * view_row.c
 *	  A row of a view in the making, and who sees what in it.
 *
 * WHO SEES WHAT
 *
 * As in pg_stat_activity, everybody sees that there is something, and whose it
 * is; what it is, is for those alone who may know, and NULL for others.
 *	 - What a session does is for members of its role.
 *	 - A pool and its connections are for the owner of the server, and for
 *	   whoever may use them: with USAGE on the server, members of the role of the
 *	   mapping, or anybody if it is that of PUBLIC.
 *	 - What others have had a pool do is for the owner of the server.
 *	 - All is for members of pg_read_all_stats.
 */
#include "postgres.h"

#include <math.h>

#include "backend/client.h"
#include "backend/text.h"
#include "backend/view_row.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"

/* The clock has been set, or has drifted, when it is off by so much. */
#define CLOCKS_APART_US		1000

void
row_put(Row *row, Datum value, bool isnull)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = isnull;
}

void
row_put_int(Row *row, int value, bool isnull)
{
	row_put(row, Int32GetDatum(value), isnull);
}

void
row_put_count(Row *row, uint64 value)
{
	row_put(row, Int64GetDatum((int64) value), false);
}

void
row_put_ms(Row *row, uint64 us)
{
	row_put(row, Float8GetDatum(us / 1000.0), false);
}

/*
 * The time of the day of a moment.  It fits today's clock even if that was set
 * since; and as long as nobody does that, it is the same whoever looks.
 */
static TimestampTz
time_of_day(Ticks moment)
{
	int64		shown = (int64) pg_atomic_read_u64(&dbpool_shared->shown_offset);
	int64		offset = shown;

	/* both clocks at one moment, unless the processor was taken from us */
	for (int i = 0; i < 10; i++)
	{
		Ticks		before = ticks_now();

		offset = GetCurrentTimestamp() - before;
		if (ticks_now() - before < CLOCKS_APART_US / 2)
			break;
	}
	if (offset - shown >= CLOCKS_APART_US || shown - offset >= CLOCKS_APART_US)
		pg_atomic_write_u64(&dbpool_shared->shown_offset, (uint64) offset);
	else
		offset = shown;
	return moment + offset;
}

/* The same; no number is NULL. */
void
row_put_us(Row *row, double us)
{
	row_put(row, Float8GetDatum(us / 1000.0), isnan(us));
}

/* The part of a mean that a sum is; no number without calls. */
void
row_put_mean(Row *row, uint64 us, uint64 calls)
{
	row_put_us(row, calls == 0 ? NAN : (double) us / calls);
}

/* Where the mean of the time went. */
void
row_put_parts(Row *row, const TimeSplit *split)
{
	row_put_mean(row, split->queue_us, split->calls);
	row_put_mean(row, split->worker_us, split->calls);
	row_put_mean(row, split->wire_us, split->calls);
	row_put_mean(row, split->remote_us, split->calls);
	row_put_mean(row, split->decode_us, split->calls);
}

/* The same as JSON has it, in the session's time zone. */
char *
time_text(Ticks moment)
{
	char		text[MAXDATELEN + 1];

	JsonEncodeDateTime(text, TimestampTzGetDatum(time_of_day(moment)), TIMESTAMPTZOID, NULL);
	return pstrdup(text);
}

void
row_put_time(Row *row, Ticks moment)
{
	row_put(row, TimestampTzGetDatum(time_of_day(moment)), moment == 0);
}

/*
 * Encoding of a database, from where the texts of its pools and sessions come.
 * One that is gone has none that is known.
 */
int
database_encoding(Oid dbid)
{
	HeapTuple	row;
	int			encoding = PG_SQL_ASCII;

	if (dbid == MyDatabaseId)
		return GetDatabaseEncoding();
	row = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	if (HeapTupleIsValid(row))
	{
		encoding = ((Form_pg_database) GETSTRUCT(row))->encoding;
		ReleaseSysCache(row);
	}
	return encoding;
}

void
row_put_name(Row *row, const char *name, int encoding)
{
	row_put(row, DirectFunctionCall1(namein, CStringGetDatum(text_from(name, encoding))), false);
}

void
row_put_text(Row *row, const char *text, int encoding)
{
	row_put(row, CStringGetTextDatum(text_from(text, encoding)), false);
}

/* May the caller see what is done for a role? */
bool
role_is_shown(Oid roleid)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		(OidIsValid(roleid) && has_privs_of_role(GetUserId(), roleid));
}

/* Does the server belong to the caller, or to a role of his?  *exists: is there one? */
static bool
server_is_owned(const PoolKey *key, bool *exists)
{
	HeapTuple	row = NULL;
	Oid			owner;

	if (key->dbid == MyDatabaseId)
		row = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(key->serverid));
	*exists = HeapTupleIsValid(row);
	if (!*exists)
		return false;
	owner = ((Form_pg_foreign_server) GETSTRUCT(row))->srvowner;
	ReleaseSysCache(row);
	return has_privs_of_role(GetUserId(), owner);
}

/* May the caller see what others do with a pool? */
bool
pool_is_overseen(const PoolKey *key)
{
	bool		exists;

	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) || server_is_owned(key, &exists);
}

/* May the caller see a pool? */
bool
pool_is_shown(const PoolKey *key)
{
	bool		exists;

	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) || server_is_owned(key, &exists))
		return true;
	return exists &&
		(compat_server_usage(key->serverid, GetUserId()) == ACLCHECK_OK &&
		 (!OidIsValid(key->userid) || has_privs_of_role(GetUserId(), key->userid)));
}

void
row_put_sql(Row *row, const char *sql, int encoding, Oid roleid)
{
	if (OidIsValid(roleid) && role_is_shown(roleid))
		row_put_text(row, sql, encoding);
	else if (OidIsValid(roleid) && sql[0] != '\0')
		row_put(row, CStringGetTextDatum("<insufficient privilege>"), false);
	else
		row_put(row, (Datum) 0, true);
}

/* How often, the mean, and so many percentiles, in milliseconds. */
void
row_put_latency(Row *row, const HistogramSum *sum)
{
	static const double quantiles[] = {0.5, 0.95, 0.99, 0.999};

	row_put_count(row, sum->n);
	row_put_mean(row, sum->sum_us, sum->n);
	for (int i = 0; i < lengthof(quantiles); i++)
		row_put_us(row, histogram_quantile_us(sum, quantiles[i]));
}

/* What has not been put of it is NULL: the caller may not see it. */
void
row_end(Row *row)
{
	while (row->n < row->rsinfo->setDesc->natts)
		row_put(row, (Datum) 0, true);
	tuplestore_putvalues(row->rsinfo->setResult, row->rsinfo->setDesc,
						 row->values, row->nulls);
	row->n = 0;
}

Row
row_start(FunctionCallInfo fcinfo)
{
	Row			row = {0};

	client_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	row.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	return row;
}

/* A copy of those pools that are shown, into so much memory; the caller holds pools_lock. */
int
pools_copy_locked(PoolShared *copies)
{
	int			n = 0;

	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use)
			continue;
		SpinLockAcquire(&pool->mutex);
		copies[n] = *pool;
		SpinLockRelease(&pool->mutex);
		if (copies[n].live || !copies[n].dropped)
			n++;
	}
	return n;
}

/* Likewise, and how many they are. */
PoolShared *
pools_copy(int *n)
{
	PoolShared *copies = palloc(sizeof(PoolShared) * dbpool_shared->npools);

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	*n = pools_copy_locked(copies);
	LWLockRelease(dbpool_shared->pools_lock);
	return copies;
}
