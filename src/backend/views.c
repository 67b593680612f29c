/*
 * views.c
 *	  The functions behind the views.
 *
 * What shared memory holds is copied under its locks, and made into rows
 * afterwards.
 */
#include "postgres.h"

#include "backend/view_row.h"
#include "ipc/request.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_get_workers);
PG_FUNCTION_INFO_V1(dbpool_get_pools);
PG_FUNCTION_INFO_V1(dbpool_get_connections);
PG_FUNCTION_INFO_V1(dbpool_get_requests);
PG_FUNCTION_INFO_V1(dbpool_get_bulk_inserts);
PG_FUNCTION_INFO_V1(dbpool_get_migrations);

/* Rows of dbpool_workers. */
Datum
dbpool_get_workers(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);

	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		WorkerShared *worker = shmem_worker(i);
		int			pid = shmem_worker_pid(i);
		int			pools = 0;
		int			conns = 0;

		for (int p = 0; p < dbpool_shared->npools; p++)
			pools += shmem_pool(p)->worker == i && shmem_pool(p)->live;
		for (int c = 0; c < dbpool_shared->nconns; c++)
			conns += shmem_conn(c)->worker == i && shmem_conn(c)->in_use;
		row_put_int(&row, i + 1, false);
		row_put_int(&row, pid, pid == 0);
		row_put_time(&row, pid == 0 ? 0 : worker->started_at);
		row_put_count(&row, pg_atomic_read_u32(&worker->starts));
		row_put_count(&row, pools);
		row_put_count(&row, conns);
		row_put_count(&row, worker->requests);
		row_put_count(&row, worker->wakeups);
		row_end(&row);
	}
	return (Datum) 0;
}

static void
put_pool(Row *row, const PoolShared *pool)
{
	const PoolCounters *c = &pool->counters;
	int			encoding = database_encoding(pool->key.dbid);

	row_put(row, ObjectIdGetDatum(pool->key.dbid), false);
	row_put(row, ObjectIdGetDatum(pool->key.serverid), false);
	row_put(row, ObjectIdGetDatum(pool->key.userid), false);
	row_put(row, BoolGetDatum(pool->key.xid != 0), false);
	row_put_int(row, pool->worker + 1, false);
	row_put(row, BoolGetDatum(pool->live), false);
	if (!pool_is_shown(&pool->key))
		return;
	row_put_name(row, NameStr(pool->server), encoding);
	row_put_name(row, NameStr(pool->username), encoding);
	row_put(row, BoolGetDatum(pool->paused), false);
	row_put_int(row, pool->min_size, false);
	row_put_int(row, pool->max_size, false);
	row_put_int(row, pool->conns[CONN_CONNECTING], false);
	row_put_int(row, pool->conns[CONN_IDLE], false);
	row_put_int(row, pool->conns[CONN_CHECKING], false);
	row_put_int(row, pool->conns[CONN_BUSY], false);
	row_put_int(row, pool->conns[CONN_CANCELLING], false);
	row_put_int(row, pool->conns[CONN_RESETTING], false);
	row_put_int(row, pool->waiting, false);
	row_put_time(row, pool->oldest_wait);
	row_put_time(row, pool->used_at);
	row_put_time(row, pool->connected_at);
	row_put_time(row, pool->connect_failed_at);
	if (pool->connect_error[0] != '\0')
		row_put_text(row, pool->connect_error, encoding);
	else
		row_put(row, (Datum) 0, true);
	row_put_count(row, c->statements);
	row_put_count(row, c->errors);
	row_put_count(row, c->timeouts);
	row_put_count(row, c->cancels);
	row_put_count(row, c->repeats);
	row_put_count(row, c->connects);
	row_put_count(row, c->connect_failures);
	row_put_ms(row, c->connect_us);
	row_put_count(row, c->waited);
	row_put_ms(row, c->wait_us);
	row_put_ms(row, c->wait_max_us);
	row_put_ms(row, c->exec_us);
	row_put_ms(row, c->exec_max_us);
	row_put_count(row, c->rows);
	row_put_count(row, c->bytes_sent);
	row_put_count(row, c->bytes_received);
	row_put_time(row, c->reset_at);
}

/* Rows of dbpool_pools and dbpool_stat_pools. */
Datum
dbpool_get_pools(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	PoolShared *copies = pools_copy(&n);

	for (int i = 0; i < n; i++)
	{
		put_pool(&row, &copies[i]);
		row_end(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_connections. */
Datum
dbpool_get_connections(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);

	for (int i = 0; i < dbpool_shared->nconns; i++)
	{
		ConnShared	conn;
		NameData	server;
		NameData	username;
		PoolKey		key = {0};
		int			encoding;

		/* as long as we have the lock, no other pool gets this one's entry */
		LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
		SpinLockAcquire(&shmem_conn(i)->mutex);
		conn = *shmem_conn(i);
		SpinLockRelease(&shmem_conn(i)->mutex);
		if (conn.in_use)
		{
			PoolShared *pool = shmem_pool(conn.pool);

			key = pool->key;
			SpinLockAcquire(&pool->mutex);
			server = pool->server;
			username = pool->username;
			SpinLockRelease(&pool->mutex);
		}
		LWLockRelease(dbpool_shared->pools_lock);
		if (!conn.in_use)
			continue;

		encoding = database_encoding(key.dbid);
		row_put(&row, ObjectIdGetDatum(key.dbid), false);
		row_put_int(&row, conn.worker + 1, false);
		row_put(&row, CStringGetTextDatum(conn_state_name(conn.state)), false);
		if (!pool_is_shown(&key))
		{
			row_end(&row);
			continue;
		}
		row_put_name(&row, NameStr(server), encoding);
		row_put_name(&row, NameStr(username), encoding);
		row_put_time(&row, conn.state_since);
		row_put_int(&row, conn.remote_pid, conn.remote_pid == 0);
		if (conn.address.data[0] != '\0')
			row_put_text(&row, NameStr(conn.address), encoding);
		else
			row_put(&row, (Datum) 0, true);
		row_put_int(&row, conn.port, conn.port == 0);
		row_put(&row, BoolGetDatum(conn.tls), false);
		row_put_int(&row, conn.local_pid, conn.local_pid == 0);
		row_put_time(&row, conn.connected_at);
		row_put_count(&row, conn.statements);
		row_put_int(&row, conn.in_flight, false);
		row_put_int(&row, conn.prepared, false);
		row_put_sql(&row, conn.sql, conn.encoding, conn.roleid);
		row_end(&row);
	}
	return (Datum) 0;
}

/*
 * Copy a request and its state; false when the slot has none, or another one by
 * the time it has been copied.
 */
static bool
copy_request(RequestSlot *slot, RequestSlot *copy, RequestState *state)
{
	uint64		word = request_word(slot);

	*state = request_word_state(word);
	if (*state == REQUEST_FREE || *state == REQUEST_CLAIMED)
		return false;
	SpinLockAcquire(&slot->mutex);
	memcpy(copy, slot, sizeof(RequestSlot));
	SpinLockRelease(&slot->mutex);
	/* who claims the slot changes the word before the rest */
	pg_read_barrier();
	return request_word_hold(request_word(slot)) == request_word_hold(word);
}

/* The text of a request; of a batch, how far it is before that of its first statement. */
static void
put_request(Row *row, RequestSlot *slot)
{
	StringInfoData buf;

	if (slot->task.kind != REQUEST_BATCH)
	{
		row_put_sql(row, slot->sql, slot->task.encoding, slot->task.roleid);
		return;
	}
	initStringInfo(&buf);
	appendStringInfo(&buf, "batch, " UINT64_FORMAT " of " UINT64_FORMAT " statements done: %s",
					 pg_atomic_read_u64(&slot->items_done), slot->task.nitems, slot->sql);
	row_put_sql(row, buf.data, slot->task.encoding, slot->task.roleid);
}

/* Rows of dbpool_requests. */
Datum
dbpool_get_requests(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);

	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		RequestSlot copy;
		RequestState state;

		if (!copy_request(request_slot(i), &copy, &state))
			continue;
		row_put(&row, ObjectIdGetDatum(copy.dbid), false);
		row_put_int(&row, copy.task.pid, false);
		row_put(&row, ObjectIdGetDatum(copy.task.roleid), false);
		put_request(&row, &copy);
		if (!role_is_shown(copy.task.roleid))
		{
			row_end(&row);
			continue;
		}
		row_put_name(&row, NameStr(copy.server), copy.task.encoding);
		row_put(&row, CStringGetTextDatum(request_state_name(state)), false);
		row_put_time(&row, copy.submitted_at);
		row_put_time(&row, copy.running_since);
		row_put_int(&row, copy.remote_pid, copy.remote_pid == 0);
		if (copy.task.traceparent[0] != '\0')
			row_put(&row, CStringGetTextDatum(copy.task.traceparent), false);
		else
			row_put(&row, (Datum) 0, true);
		row_end(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_progress_bulk_insert. */
Datum
dbpool_get_bulk_inserts(PG_FUNCTION_ARGS)
{
	static const char *const phases[] = {"waiting", "copying", "finishing"};
	Row			row = row_start(fcinfo);

	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		RequestSlot copy;
		RequestState state;

		if (!copy_request(request_slot(i), &copy, &state) ||
			state == REQUEST_ABANDONED || copy.task.kind != REQUEST_COPY)
			continue;
		row_put_int(&row, copy.task.pid, false);
		row_put(&row, ObjectIdGetDatum(copy.dbid), false);
		row_put_sql(&row, copy.target, copy.task.encoding, copy.task.roleid);
		if (!role_is_shown(copy.task.roleid))
		{
			row_end(&row);
			continue;
		}
		row_put_name(&row, NameStr(copy.server), copy.task.encoding);
		row_put(&row, CStringGetTextDatum(phases[pg_atomic_read_u32(&copy.copy_phase)]), false);
		row_put_count(&row, pg_atomic_read_u64(&copy.copy_bytes));
		row_put_count(&row, pg_atomic_read_u64(&copy.copy_rows));
		row_put_time(&row, copy.submitted_at);
		row_end(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_progress_migrate. */
Datum
dbpool_get_migrations(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);

	for (int i = 0; i < DBPOOL_SHOWN_MIGRATIONS; i++)
	{
		MigrateShared *entry = &dbpool_shared->migrations[i];
		MigrateShared copy;

		SpinLockAcquire(&entry->mutex);
		memcpy(&copy, entry, sizeof(MigrateShared));
		SpinLockRelease(&entry->mutex);
		if (copy.pid == 0)
			continue;

		row_put_int(&row, copy.pid, false);
		row_put(&row, ObjectIdGetDatum(copy.dbid), false);
		if (!role_is_shown(copy.roleid))
		{
			row_end(&row);
			continue;
		}
		row_put_name(&row, NameStr(copy.pool), copy.encoding);
		row_put(&row, CStringGetTextDatum(copy.phase), false);
		if (copy.version[0] == '\0')
		{
			row_put(&row, (Datum) 0, true);
			row_put(&row, (Datum) 0, true);
		}
		else
		{
			row_put_text(&row, copy.version, copy.encoding);
			row_put_text(&row, copy.name, copy.encoding);
		}
		row_put(&row, CStringGetTextDatum(copy.down ? "down" : "up"), false);
		row_put_int(&row, copy.statements_done, false);
		row_put_int(&row, copy.statements_total, false);
		row_put_int(&row, copy.migrations_done, false);
		row_put_int(&row, copy.migrations_total, false);
		row_put_time(&row, copy.started_at);
		row_end(&row);
	}
	return (Datum) 0;
}
