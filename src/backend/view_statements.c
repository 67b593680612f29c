/*
 * view_statements.c
 *	  The functions behind the views of statements (ipc/statements.h).
 */
#include "postgres.h"

#include <math.h>

#include "access/transam.h"
#include "backend/client.h"
#include "backend/view_row.h"
#include "ipc/statements.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_get_statements);
PG_FUNCTION_INFO_V1(dbpool_get_statements_info);
PG_FUNCTION_INFO_V1(dbpool_stat_statements_reset);

/* The pool of a statement among those, which are ordered by key; NULL: it is not used any more. */
static const PoolShared *
statement_pool(const StatementKey *key, const PoolShared *pools, int n)
{
	const PoolKey pool_key = {key->dbid, key->serverid, key->userid, InvalidTransactionId};
	int			from = 0;

	while (from < n)
	{
		int			same = entries_of_pool(&pools[from], n - from);

		if (memcmp(&pools[from].key, &pool_key, sizeof(PoolKey)) == 0)
			return latest_entry(&pools[from], same)->dropped ? NULL : latest_entry(&pools[from], same);
		from += same;
	}
	return NULL;
}

/* The parts of the mean; there are none of bulk inserts and batches. */
static void
put_statement_times(Row *row, const StatementCounters *c)
{
	const TimeSplit *split = &c->split;
	uint64		total = split->queue_us + split->worker_us + split->wire_us + split->remote_us +
	split->decode_us;

	if (split->calls > 0)
		row_put_mean(row, total, split->calls);
	else
		row_put_mean(row, c->total_us, c->calls);
	row_put_us(row, c->calls == 0 ? NAN : (double) c->max_us);
	row_put_us(row, statement_quantile_us(c, 0.95));
	row_put_us(row, statement_quantile_us(c, 0.99));
	row_put_parts(row, split);
}

static void
put_statement_row(Row *row, const StatementShared *statement, const PoolShared *pool)
{
	const StatementCounters *c = &statement->counters;
	int			encoding = database_encoding(pool->key.dbid);
	bool		overseen = pool_is_overseen(&pool->key);

	row_put(row, ObjectIdGetDatum(pool->key.dbid), false);
	row_put_name(row, NameStr(pool->server), encoding);
	row_put_name(row, NameStr(pool->username), encoding);
	/* by which one could find out whether it is a certain text */
	row_put(row, Int64GetDatum((int64) statement->key.hash[0]), !overseen);
	if (overseen)
		row_put_text(row, statement->text, statement->encoding);
	else
		row_put(row, CStringGetTextDatum("<insufficient privilege>"), false);
	row_put_count(row, c->calls);
	row_put_count(row, c->errors);
	row_put_count(row, c->rows);
	put_statement_times(row, c);
	row_put_count(row, c->prepared);
	row_put_count(row, c->shared);
	row_put_count(row, c->repeats);
	row_put(row, Int64GetDatum(c->local_queryid), c->local_queryid == 0 || !overseen);
	if (c->traceparent[0] != '\0' && overseen)
		row_put(row, CStringGetTextDatum(c->traceparent), false);
	else
		row_put(row, (Datum) 0, true);
	row_put_time(row, c->last_at);
}

/* Rows of dbpool_stat_statements: of pools that the caller may see. */
Datum
dbpool_get_statements(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	PoolShared *pools = pools_by_key(&n);

	for (int i = 0; i < dbpool_max_statements; i++)
	{
		StatementShared copy;
		const PoolShared *pool;

		CHECK_FOR_INTERRUPTS();
		if (!statement_copy(i, &copy) || copy.counters.calls == 0)
			continue;
		pool = statement_pool(&copy.key, pools, n);
		if (pool == NULL || !pool_is_shown(&pool->key))
			continue;
		put_statement_row(&row, &copy, pool);
		row_end(&row);
	}
	return (Datum) 0;
}

/* The row of dbpool_stat_statements_info. */
Datum
dbpool_get_statements_info(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	StatementsSummary summary;

	statements_sum_up(&summary);
	row_put_count(&row, summary.n);
	row_put_count(&row, dbpool_max_statements);
	row_put_count(&row, summary.evicted);
	row_put_time(&row, summary.reset_at);
	row_end(&row);
	return (Datum) 0;
}

/*
 * dbpool_stat_statements_reset(pool name): for NULL, those of all pools of this database.
 * For superusers and whom they grant EXECUTE.
 */
Datum
dbpool_stat_statements_reset(PG_FUNCTION_ARGS)
{
	client_require_preload();
	statements_reset(MyDatabaseId, PG_ARGISNULL(0) ? InvalidOid :
					 definition_server(NameStr(*PG_GETARG_NAME(0)), false));
	PG_RETURN_VOID();
}
