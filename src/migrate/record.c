/*
 * record.c
 *	  The local history of migrations, table dbpool_migration_history.
 *
 * What was done to a remote has been done, whatever becomes of the transaction
 * that called.  So the rows are written by a process of their own, "dbpool
 * recorder" (recorder.c), in transactions of its own: one is started for a run and ends with
 * it.  The two talk through a pair of shm_mq in a segment that the session has
 * made:
 *
 *	 session				recorder
 *	 'B' and an attempt	->	inserts a row with status "running"
 *						<-	'k' and its id
 *	 'E', id, the end	->	updates the row
 *						<-	'k' and the id
 *	 'S'					->	what is "running" on the pool has been interrupted
 *						<-	'k'
 *	 detaches			->	what is still open was interrupted: notes that,
 *							exits
 *
 * or 'e', the error's code and its message, when the recorder could not do it.  The
 * session waits for each answer.  If the whole server crashes, the row that says "running"
 * stays; the next run on that pool, which has the remote's lock, corrects it.
 *
 * Numbers and strings in messages are as in message.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "ipc/shmem.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "migrate/record.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "utils/builtins.h"

#include "compat.h"

/* Longer error texts are cut. */
#define MAX_ERROR_BYTES	(QUEUE_BYTES / 2)

/* The recorder has so long for each message. */
#define ANSWER_MS		15000

/* A recorder that has just ended is waited for, whatever the caller's patience. */
#define PLACE_LEAST_MS	2000
#define PLACE_POLL_MS	20

/* The recorder of this session, while segment is set. */
typedef struct Recorder
{
	dsm_segment *segment;
	shm_mq_handle *up;
	shm_mq_handle *down;
	int			unanswered;		/* messages */
} Recorder;

static Recorder recorder;

/* Where a recorder that has not started yet is counted; then the place is its own. */
static int	place = QUOTA_NONE;

static void
wait_for_recorder(Ticks until)
{
	static uint32 wait_event;
	long		left = ticks_left_ms(until);

	if (left <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the process that writes the history of migrations has not answered within %d s",
						ANSWER_MS / 1000),
				 errhint("Look for \"dbpool recorder\" in pg_stat_activity.")));
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
					 compat_wait_event(&wait_event, "DbpoolRecorder"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Send a message and wait for the answer; returns its number.  The wait has an
 * end, as this is also called with interrupts held.  Who was interrupted here
 * may come again: the answer to what was sent before is not taken for that to
 * what is sent now.
 */
static int64
ask(StringInfo message)
{
	Ticks		until = ticks_plus_ms(ticks_now(), ANSWER_MS);
	shm_mq_result result = SHM_MQ_DETACHED;
	Size		len = 0;
	void	   *data = NULL;
	MessageReader reader;
	char		kind;
	int64		id;

	if (recorder.segment != NULL)
	{
		/* a message that was begun must be sent to its end */
		HOLD_INTERRUPTS();
		while ((result = shm_mq_send(recorder.up, message->len, message->data, true,
									 true)) == SHM_MQ_WOULD_BLOCK)
			wait_for_recorder(until);
		RESUME_INTERRUPTS();
		if (result == SHM_MQ_SUCCESS)
			recorder.unanswered++;
		while (result == SHM_MQ_SUCCESS && recorder.unanswered > 0)
		{
			result = shm_mq_receive(recorder.down, &len, &data, true);
			if (result == SHM_MQ_SUCCESS)
				recorder.unanswered--;
			else if (result == SHM_MQ_WOULD_BLOCK)
			{
				wait_for_recorder(until);
				result = SHM_MQ_SUCCESS;
			}
		}
	}
	if (result != SHM_MQ_SUCCESS)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("the process that writes the history of migrations has ended"),
				 errhint("See the server's log.")));
	reader.at = data;
	reader.end = reader.at + len;
	message_get(&reader, &kind, 1);
	if (kind == 'e')
	{
		int			sqlstate = message_get_int32(&reader);

		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("could not write the history of migrations: %s",
						message_get_string(&reader))));
	}
	message_get(&reader, &id, sizeof(id));
	return id;
}

static shm_mq *
make_queue(Size offset, BackgroundWorkerHandle *handle)
{
	(void) handle;
	return shm_mq_create((char *) dsm_segment_address(recorder.segment) + offset, QUEUE_BYTES);
}

/*
 * Has the pool attempts that say "running", though nobody runs any?  Called with
 * the remote's lock.
 */
bool
record_is_open_ended(Oid serverid)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(serverid);
	bool		found;

	if (SPI_execute_with_args(psprintf("SELECT FROM %s.dbpool_migration_history h "
									   "WHERE " OF_SERVER("h") " "
									   "AND status OPERATOR(pg_catalog.=) 'running' LIMIT 1",
									   schema),
							  1, &type, &value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the history of migrations");
	found = SPI_processed > 0;
	tables_end(&tables);
	return found;
}

static void
leave_place_at_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	quota_give_recorder(place);
}

/* Give the place back unless a recorder has it. */
static void
leave_place(void)
{
	quota_give_recorder(place);
	place = QUOTA_NONE;
}

/*
 * Register the process, if the role may have one more and the server has one.
 * Returns false if not, with what to say of it; *why is the caller's.
 */
static bool
try_register(BackgroundWorker *bgw, BackgroundWorkerHandle **handle, char **why, char **hint)
{
	if (!superuser())
		place = quota_take_recorder(GetUserId());
	if (place == QUOTA_EXCEEDED)
	{
		char	   *role = GetUserNameFromId(GetUserId(), false);

		place = QUOTA_NONE;
		*why = psprintf("Role \"%s\" has %d runs of migrations under way, as many as one role may have.",
						role, quota_recorders_of_role());
		pfree(role);
		*hint = "Wait until one has ended, or raise lock_timeout or max_worker_processes.";
		return false;
	}
	if (place == QUOTA_NONE && !superuser())
	{
		*why = psprintf("%d runs of migrations are under way, as many as roles other than superusers may have together.",
						quota_recorders());
		*hint = "Wait until one has ended, or raise lock_timeout or max_worker_processes.";
		return false;
	}
	((RecordShared *) dsm_segment_address(recorder.segment))->place = place;
	if (RegisterDynamicBackgroundWorker(bgw, handle))
		return true;
	leave_place();
	*why = psprintf("All background workers that max_worker_processes (%d) allows are taken.",
					max_worker_processes);
	*hint = "Raise max_worker_processes.";
	return false;
}

/*
 * Start the recorder for a run on a pool, which holds the remote's lock.  With
 * none to be had, wait for so many milliseconds.  record_close() is to follow in
 * any case.
 */
void
record_open(Oid serverid, const char *pool, int patience)
{
	static bool registered = false;
	Ticks		until = ticks_plus_ms(ticks_now(), Max(patience, PLACE_LEAST_MS));
	char	   *why;
	char	   *hint;
	RecordShared *shared;
	shm_mq	   *up;
	shm_mq	   *down;
	BackgroundWorker bgw;
	BackgroundWorkerHandle *handle;
	StringInfoData message;

	recorder.segment = dsm_create(DOWN_OFFSET + QUEUE_BYTES, 0);

	shared = dsm_segment_address(recorder.segment);
	shared->dbid = MyDatabaseId;
	shared->schema = migrate_schema();
	shared->serverid = serverid;
	shared->roleid = GetUserId();
	shared->pid = MyProcPid;
	up = make_queue(UP_OFFSET, NULL);
	down = make_queue(DOWN_OFFSET, NULL);
	shm_mq_set_sender(up, MyProc);
	shm_mq_set_receiver(down, MyProc);

	dbpool_fill_bgworker(&bgw, "dbpool_record_main", "dbpool recorder", 0);
	bgw.bgw_start_time = BgWorkerStart_RecoveryFinished;
	snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "dbpool recorder for pid %d", MyProcPid);
	bgw.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(recorder.segment));
	bgw.bgw_notify_pid = MyProcPid;
	if (!registered)
		before_shmem_exit(leave_place_at_exit, (Datum) 0);
	registered = true;
	while (!try_register(&bgw, &handle, &why, &hint))
	{
		if (ticks_now() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not start the process that writes the history of migrations"),
					 errdetail("%s Nothing was run on pool \"%s\".", why, pool),
					 errhint("%s", hint)));
		pfree(why);
		migrate_show_phase("waiting for process");
		remote_wait(PLACE_POLL_MS);
	}
	recorder.up = shm_mq_attach(up, recorder.segment, handle);
	recorder.down = shm_mq_attach(down, recorder.segment, handle);

	initStringInfo(&message);
	appendStringInfoChar(&message, 'S');
	(void) ask(&message);
}

/* The run is over.  What has begun and not ended counts as interrupted. */
void
record_close(void)
{
	leave_place();
	if (recorder.segment == NULL)
		return;
	dsm_detach(recorder.segment);
	memset(&recorder, 0, sizeof(recorder));
}

/* An attempt begins; returns what record_end() wants to know. */
int64
record_begin(const Attempt *attempt)
{
	StringInfoData message;

	initStringInfo(&message);
	appendStringInfoChar(&message, 'B');
	message_put_string(&message, attempt->migration->version);
	message_put_string(&message, attempt->pool);
	message_put_string(&message, attempt->migration->name);
	message_put_string(&message, direction_name(attempt->direction));
	message_put_string(&message, attempt->mode);
	message_put_string(&message, attempt->checksum);
	return ask(&message);
}

/*
 * An attempt has ended: "done", "failed", "rolled back", "unknown" or
 * "interrupted".  Duration in milliseconds.  sqlstate and error may be NULL.
 */
void
record_end(int64 id, const char *status, double duration,
		   const char *sqlstate, const char *error)
{
	StringInfoData message;

	initStringInfo(&message);
	appendStringInfoChar(&message, 'E');
	message_put(&message, &id, sizeof(id));
	message_put(&message, &duration, sizeof(duration));
	message_put_string(&message, status);
	message_put_string(&message, sqlstate ? sqlstate : "");
	/* a message that does not fit into the queue may be waited for in vain */
	message_put_string(&message, error ?
					   pnstrdup(error, pg_mbcliplen(error, (int) strlen(error), MAX_ERROR_BYTES)) : "");
	(void) ask(&message);
}
