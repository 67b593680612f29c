/*
 * recorder.c
 *	  "dbpool recorder": the process that writes the local history of migrations.
 *
 * record.c starts it for a run, and has what the two tell each other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "ipc/shmem.h"
#include "libpq/pqsignal.h"
#include "migrate/record.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PGDLLEXPORT void dbpool_record_main(Datum arg);

static RecordShared *task;

/* What has begun and not ended: int64s, in TopMemoryContext. */
static List *open_ids;

/* Run a statement with parameters, as text; "" is NULL.  Returns the first value. */
static int64
run(const char *sql, int n, const char *const *params)
{
	Oid			types[16];
	Datum		values[16];
	char		nulls[16];
	int64		result = 0;
	bool		isnull = true;

	Assert(n <= 16);
	for (int i = 0; i < n; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = params[i][0] == '\0' ? 'n' : ' ';
		values[i] = CStringGetTextDatum(params[i]);
	}
	if (SPI_execute_with_args(sql, n, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not run: %s", sql);
	if (SPI_tuptable != NULL && SPI_processed > 0)
		result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											 SPI_tuptable->tupdesc, 1, &isnull));
	return isnull ? 0 : result;
}

static char *
history_table(void)
{
	char	   *schema = get_namespace_name(task->schema);

	if (schema == NULL)
		elog(ERROR, "extension dbpool is gone");
	return quote_qualified_identifier(schema, "dbpool_migration_history");
}

static int64
do_begin(MessageReader *reader)
{
	const char *params[9];

	for (int i = 0; i <= 5; i++)
		params[i] = message_get_string(reader);
	params[6] = GetUserNameFromId(task->roleid, false);
	params[7] = psprintf("%d", task->pid);
	params[8] = psprintf("%u", task->serverid);
	return run(psprintf("INSERT INTO %s (version, pool, name, direction, mode, checksum, status, "
						"started_at, executed_by, pid, serverid) "
						"VALUES ($1, $2::pg_catalog.name, $3, $4, $5, $6, 'running', "
						"pg_catalog.clock_timestamp(), $7::pg_catalog.name, $8::int, $9::pg_catalog.oid) RETURNING id",
						history_table()), 9, params);
}

static int64
do_end(MessageReader *reader)
{
	const char *params[5];
	int64		id;
	double		duration;

	message_get(reader, &id, sizeof(id));
	message_get(reader, &duration, sizeof(duration));
	params[0] = psprintf(INT64_FORMAT, id);
	params[1] = psprintf("%.6f", duration / 1000.0);
	for (int i = 2; i < 5; i++)
		params[i] = message_get_string(reader);
	(void) run(psprintf("UPDATE %s SET duration = pg_catalog.make_interval(secs => $2::double precision), "
						"status = $3, sqlstate = $4, error = $5 WHERE id OPERATOR(pg_catalog.=) $1::bigint",
						history_table()), 5, params);
	return id;
}

/* What says "running" of a pool is not true. */
static int64
do_sweep(void)
{
	const char *params[1];

	params[0] = psprintf("%u", task->serverid);
	(void) run(psprintf("UPDATE %s SET status = 'interrupted' "
						"WHERE serverid OPERATOR(pg_catalog.=) $1::pg_catalog.oid "
						"AND status OPERATOR(pg_catalog.=) 'running'",
						history_table()), 1, params);
	return 0;
}

static void
note_begin(int64 id)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	int64	   *copy = palloc(sizeof(int64));

	*copy = id;
	open_ids = lappend(open_ids, copy);
	MemoryContextSwitchTo(old);
}

static void
note_end(int64 id)
{
	ListCell   *lc;

	foreach(lc, open_ids)
	{
		if (*(int64 *) lfirst(lc) == id)
			open_ids = foreach_delete_current(open_ids, lc);
	}
}

/* The session has gone, and left attempts open. */
static int64
do_interrupted(void)
{
	const char *params[1];
	StringInfoData ids;
	ListCell   *lc;

	initStringInfo(&ids);
	foreach(lc, open_ids)
		appendStringInfo(&ids, "%s" INT64_FORMAT, ids.len > 0 ? "," : "{", *(int64 *) lfirst(lc));
	if (ids.len == 0)
		return 0;
	appendStringInfoChar(&ids, '}');
	params[0] = ids.data;
	(void) run(psprintf("UPDATE %s SET status = 'interrupted', "
						"duration = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started_at "
						"WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[]) "
						"AND status OPERATOR(pg_catalog.=) 'running'",
						history_table()), 1, params);
	return 0;
}

/* Do what a message says; in a transaction.  NULL: the session has gone. */
static int64
serve(MessageReader *reader)
{
	char		op = '\0';
	int64		id;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (reader == NULL)
		id = do_interrupted();
	else
	{
		message_get(reader, &op, 1);
		id = op == 'B' ? do_begin(reader) : op == 'E' ? do_end(reader) : do_sweep();
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (reader != NULL && op == 'B')
		note_begin(id);
	else if (reader != NULL && op == 'E')
		note_end(id);
	return id;
}

/* The same; an error becomes the answer. */
static void
try_serve(MessageReader *reader, StringInfo answer)
{
	MemoryContext old = CurrentMemoryContext;
	int64		id;

	resetStringInfo(answer);
	PG_TRY();
	{
		id = serve(reader);
		MemoryContextSwitchTo(old);
		appendStringInfoChar(answer, 'k');
		message_put(answer, &id, sizeof(id));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(old);
		resetStringInfo(answer);
		appendStringInfoChar(answer, 'e');
		message_put(answer, &error->sqlerrcode, sizeof(int32));
		message_put_string(answer, error->message ? error->message : "unknown error");
		FreeErrorData(error);
	}
	PG_END_TRY();
}

/* arg: the place where this process is counted. */
static void
give_place_back(int code, Datum arg)
{
	(void) code;
	quota_give_recorder(DatumGetInt32(arg));
}

/* arg: the segment. */
void
dbpool_record_main(Datum arg)
{
	dsm_segment *segment;
	shm_mq	   *up;
	shm_mq	   *down;
	shm_mq_handle *up_handle;
	shm_mq_handle *down_handle;
	Size		len;
	void	   *data;
	StringInfoData answer;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		return;					/* the session has gone */
	task = dsm_segment_address(segment);
	if (task->place != QUOTA_NONE && !quota_adopt_recorder(task->place, task->pid))
		return;
	before_shmem_exit(give_place_back, Int32GetDatum(task->place));
	up = (shm_mq *) ((char *) task + UP_OFFSET);
	down = (shm_mq *) ((char *) task + DOWN_OFFSET);
	shm_mq_set_receiver(up, MyProc);
	shm_mq_set_sender(down, MyProc);
	up_handle = shm_mq_attach(up, segment, NULL);
	down_handle = shm_mq_attach(down, segment, NULL);
	dsm_pin_mapping(segment);

	tables_write_always();
	BackgroundWorkerInitializeConnectionByOid(task->dbid, InvalidOid, BGWORKER_BYPASS_ALLOWCONN);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "10s", PGC_USERSET, PGC_S_OVERRIDE);
	/* a standby that is away is no reason to keep a remote locked */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_OVERRIDE);
	initStringInfo(&answer);
	pgstat_report_activity(STATE_IDLE, NULL);

	while (shm_mq_receive(up_handle, &len, &data, false) == SHM_MQ_SUCCESS)
	{
		MessageReader reader = {data, (char *) data + len};

		try_serve(&reader, &answer);
		if (shm_mq_send(down_handle, answer.len, answer.data, false,
						true) != SHM_MQ_SUCCESS)
			break;
	}
	try_serve(NULL, &answer);
}
