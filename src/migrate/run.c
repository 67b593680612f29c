/*
 * run.c
 *	  A run of migrations.
 *
 * A run has the remote's lock from its beginning to its end.  Each migration is
 * a transaction of the remote, with its row of the remote's history in it; or
 * all are one, if they are grouped or it is a dry run, which is rolled back.  A
 * migration that cannot run in a transaction has its row before it starts,
 * which says so, and which is changed when it has ended.
 *
 *	 remote's lock
 *	 check history (plan.c)
 *	 per transaction:
 *		look for the lock, BEGIN
 *		per migration:
 *			local history: running
 *			the statements
 *			its row
 *		COMMIT
 *		local history: done
 *
 * run_statements.c has the statements of one migration.
 *
 * Whatever ends the run, migrate_close() follows; an error is written to the
 * local history before it goes on.
 */
#include "postgres.h"

#include "backend/client.h"
#include "lib/stringinfo.h"
#include "migrate/run.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* What is to be done with a migration, and how far it has come. */
typedef struct Step
{
	const Migration *migration;
	int64		record;			/* of the local history; 0: none yet */
	double		duration;		/* milliseconds */
	bool		committed;		/* on the remote */
} Step;

/* --- messages -------------------------------------------------------------------- */

static void
add_context(void *arg)
{
	Runner	   *run = arg;
	const Migration *migration = run->migration;
	StringInfoData where;

	if (migration == NULL)
		return;
	initStringInfo(&where);
	if (migration->file != NULL && run->direction == DIRECTION_DOWN)
		appendStringInfo(&where, ", the way back of file \"%s\"", migration->file);
	else if (migration->file != NULL)
		appendStringInfo(&where, ", file \"%s\"", migration->file);
	if (run->failed >= 0 && run->failed < run->npieces)
		appendStringInfo(&where, ", statement %d at line %d, column %d", run->failed + 1,
						 run->pieces[run->failed].line, run->pieces[run->failed].column);
	errcontext("migration %s \"%s\"%s%s", migration->version, migration->name,
			   run->direction == DIRECTION_DOWN ? " (down)" : "", where.data);
}

/* A row of the result. */
static void
emit(Runner *run, const Migration *migration, const char *status, double duration)
{
	Datum		values[5];
	bool		nulls[5] = {false};
	Interval   *interval = palloc0(sizeof(Interval));

	if (run->rsinfo == NULL)
		return;
	interval->time = (TimeOffset) (duration * 1000.0);
	values[0] = CStringGetTextDatum(migration->version);
	values[1] = CStringGetTextDatum(migration->name);
	values[2] = CStringGetTextDatum(direction_name(run->direction));
	values[3] = CStringGetTextDatum(status);
	values[4] = IntervalPGetDatum(interval);
	nulls[4] = duration < 0;
	tuplestore_putvalues(run->rsinfo->setResult, run->rsinfo->setDesc, values, nulls);
}

/* --- one migration --------------------------------------------------------------- */

/* Does it run in a transaction? */
static bool
is_transactional(const Migration *migration, Direction direction)
{
	bool		marked = split_no_transaction(migration->up_sql);

	if (direction != DIRECTION_DOWN)
		return migration->transaction && !marked;
	/* the mark of one way does not count for the other, the option for both */
	return (migration->transaction || marked) &&
		!split_no_transaction(migration->down_sql);
}

static void
begin_step(Runner *run, Step *step)
{
	Attempt		attempt;

	run->migration = step->migration;
	run->failed = -1;
	run->npieces = 0;
	attempt.pool = run->session->pool;
	attempt.migration = step->migration;
	attempt.direction = run->direction;
	attempt.mode = run->dry_run ? "dry run" : run->fake ? "fake" :
		run->grouped ? "grouped" : "normal";
	attempt.checksum = history_checksum(run->session->history, step->migration);
	step->record = record_begin(&attempt);
	run->outcome->touched |= !run->dry_run && !run->fake;
	run_load_text(run, step->migration);
}

/* Repeatable ones do not count. */
static void
note_version(Outcome *outcome, const char *version)
{
	if (!version_is_repeatable(version) && version_cmp(version, outcome->version) > 0)
		outcome->version = version;
}

/* The local history, the user and the result learn of the end of a step. */
static void
finish_step(Runner *run, Step *step)
{
	const Migration *migration = step->migration;
	const char *status = run->dry_run ? "dry run" : run->fake ? "faked" :
	run->direction == DIRECTION_DOWN ? "rolled back" : "applied";

	record_end(step->record, "done", step->duration, NULL, NULL);
	step->record = 0;
	run->outcome->migrations++;
	if (run->direction != DIRECTION_DOWN && !run->dry_run)
		note_version(run->outcome, migration->version);
	migrate_show_progress(run->outcome->migrations, run->total);
	ereport(NOTICE,
			(errmsg("migration %s \"%s\" on pool \"%s\": %s in %.3f ms",
					migration->version, migration->name, run->session->pool, status,
					step->duration)));
	emit(run, migration, status, step->duration);
}

/* --- transactions ---------------------------------------------------------------- */

/* Steps that are one transaction of the remote. */
static void
run_together(Runner *run, Step *steps, int n)
{
	MigrateSession *session = run->session;

	for (int i = 0; i < n; i++)
	{
		Step	   *step = &steps[i];
		const char *put;
		instr_time	start;

		migrate_show_phase("migrating");
		begin_step(run, step);
		if (i == 0)
			migrate_begin(session, true);
		if (session->history->table == NULL)
			migrate_create_history(session);
		INSTR_TIME_SET_CURRENT(start);
		if (!run->fake)
			run_statements(run);
		step->duration = elapsed_ms(start);
		run->failed = -1;
		put = psprintf("%s; %s", REMOTE_PLAIN,
					   history_put_sql(session->history, step->migration, run->direction,
									   step->duration, false));
		if (i < n - 1 || run->dry_run)
			remote_exec(session->remote, put, NULL);
		else
		{
			migrate_show_phase("committing");
			remote_commit(session->remote, psprintf("%s; COMMIT", put));
			for (int j = 0; j < n; j++)
				steps[j].committed = true;
		}
		run_forget_text(run);
	}
	if (run->dry_run)
	{
		/* what would come at the commit */
		remote_exec(session->remote, "SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK", NULL);
		session->history->table = NULL;
	}
	for (int i = 0; i < n; i++)
		finish_step(run, &steps[i]);
}

/* A step that cannot run in a transaction. */
static void
run_alone(Runner *run, Step *step)
{
	MigrateSession *session = run->session;
	instr_time	start;

	migrate_show_phase("migrating");
	begin_step(run, step);
	migrate_begin(session, false);
	remote_exec(session->remote,
				history_put_sql(session->history, step->migration, run->direction, 0, true),
				NULL);
	INSTR_TIME_SET_CURRENT(start);
	run_statements_alone(run);
	step->duration = elapsed_ms(start);
	run->failed = -1;
	if (remote_in_transaction(session->remote))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the migration has left a transaction open")));
	migrate_show_phase("committing");
	remote_exec(session->remote, REMOTE_PLAIN, NULL);
	remote_commit(session->remote,
				  history_done_sql(session->history, step->migration, run->direction,
								   step->duration));
	step->committed = true;
	run_forget_text(run);
	finish_step(run, step);
}

/*
 * A step has failed, or the transaction that it was part of: write that to the
 * local history.  Called while the error is on its way.  One that only came
 * after the commit, a cancel for example, is no failure of the migration's.
 */
static void
record_failure(Runner *run, Step *steps, int n, const ErrorData *error, bool unknown)
{
	int			last = -1;

	for (int i = 0; i < n; i++)
	{
		if (steps[i].record != 0)
			last = i;
	}
	for (int i = 0; i <= last; i++)
	{
		bool		done = steps[i].committed;
		const char *status = done ? "done" : unknown ? "unknown" :
		i == last ? "failed" : "rolled back";

		if (steps[i].record == 0)
			continue;
		record_end(steps[i].record, status, steps[i].duration,
				   done ? NULL : unpack_sql_state(error->sqlerrcode),
				   done ? NULL : error->message);
		steps[i].record = 0;
	}
}

/* The same, whatever happens to the recorder; nothing may replace the error. */
static void
try_record_failure(Runner *run, Step *steps, int n, const ErrorData *error, bool unknown)
{
	MemoryContext old = CurrentMemoryContext;

	HOLD_INTERRUPTS();
	PG_TRY();
	{
		record_failure(run, steps, n, error, unknown);
	}
	PG_CATCH();
	{
		/* an error has let go of it */
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(old);
		FlushErrorState();
		ereport(WARNING,
				(errmsg("could not write to the history of migrations how a migration on pool \"%s\" has ended",
						run->session->pool),
				 steps[n - 1].committed ?
				 errdetail("It has been committed on the remote.") :
				 unknown ? errdetail("Nobody knows whether it has been committed on the remote.") :
				 errdetail("It has failed.")));
	}
	PG_END_TRY();
	RESUME_INTERRUPTS();
}

/*
 * What may help, if the error has no hint of its own that is better; NULL when
 * nothing is known.
 */
static char *
hint_for(const Runner *run, const ErrorData *error, bool together, bool unknown)
{
	if (unknown && error->hint == NULL)
		return "It was being committed: dbpool_migration_status() shows whether it has been.";
	switch (error->sqlerrcode)
	{
		case ERRCODE_ACTIVE_SQL_TRANSACTION:
			if (together)
				return "Begin the migration with the line \"-- no-transaction\", and have nothing else in it.";
			break;
		case ERRCODE_INVALID_TRANSACTION_TERMINATION:
			if (together && error->hint == NULL)
				return "What commits by itself, as a procedure does, cannot be part of the migration's transaction: begin the migration with the line \"-- no-transaction\".";
			break;
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			if (error->hint == NULL)
				return "The remote is a standby, or lets the role only read. With several hosts, target_session_attrs 'read-write' of the server finds the one that can be written to.";
			break;
		case ERRCODE_UNSAFE_NEW_ENUM_VALUE_USAGE:
			if ((run->dry_run || run->grouped) && run->migration != NULL)
				return psprintf("All of this run is one transaction, in which a value added to an enum cannot be used yet: run the migrations before first, with a target below %s.",
								run->migration->version);
			break;
		default:
			break;
	}
	if (run->left_out != NULL && error->hint == NULL)
		return psprintf("The dry run has left out migration %s, of which this may need something: run up to that first, with target => %s.",
						run->left_out->version, version_literal(run->left_out->version));
	if (!together && error->hint == NULL)
		return "The migration runs outside of a transaction, so what it did before the error stays. The next run says how to go on.";
	return NULL;
}

/* Steps that stand or fall together. */
static void
run_group(Runner *run, Step *steps, int n)
{
	bool		together = n > 1 || run->dry_run || run->fake ||
	is_transactional(steps[0].migration, run->direction);
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	PG_TRY();
	{
		if (together)
			run_together(run, steps, n);
		else
			run_alone(run, &steps[0]);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		char	   *hint;
		bool		unknown = run->session->remote != NULL && remote_committing(run->session->remote);

		MemoryContextSwitchTo(run->context);
		error = CopyErrorData();
		FlushErrorState();
		/* first let go of the remote's locks */
		remote_close(run->session->remote);
		run->session->remote = NULL;
		for (int i = 0; i < n; i++)
		{
			if (steps[i].duration == 0)
				steps[i].duration = elapsed_ms(start);
		}
		try_record_failure(run, steps, n, error, unknown);
		hint = hint_for(run, error, together, unknown);
		if (hint != NULL)
			error->hint = hint;
		ReThrowError(error);
	}
	PG_END_TRY();
}

/*
 * Must this one be left out?  A dry run cannot have what runs outside of a
 * transaction, and a group must not.
 */
static bool
is_not_to_run(Runner *run, const Migration *migration)
{
	if (run->fake || is_transactional(migration, run->direction))
		return false;
	if (run->dry_run)
	{
		ereport(NOTICE,
				(errmsg("migration %s \"%s\" is left out of the dry run, as it cannot run in a transaction",
						migration->version, migration->name)));
		emit(run, migration, "skipped", -1);
		run->left_out = migration;
		return true;
	}
	if (run->grouped)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("migration %s \"%s\" of pool \"%s\" cannot be grouped, as it runs outside of a transaction",
						migration->version, migration->name, run->session->pool),
				 errhint("Call the function without grouped => true.")));
	return false;
}

/*
 * Run migrations in that order, each by itself or all together.  rsinfo, if not
 * NULL, gets a row for each.  The outcome is kept up to date.
 */
void
migrate_run(MigrateSession *session, const Wish *wish, const Migration **migrations, int n,
			ReturnSetInfo *rsinfo, Outcome *outcome)
{
	Runner		run = {.watcher = run_watcher};
	ErrorContextCallback context = {error_context_stack, add_context, &run};
	Step	   *steps = palloc0(sizeof(Step) * (n + 1));

	run.session = session;
	run.context = CurrentMemoryContext;
	run.rsinfo = rsinfo;
	run.direction = wish->direction;
	run.dry_run = wish->dry_run;
	run.grouped = wish->grouped;
	run.fake = wish->fake;
	run.failed = -1;
	run.outcome = outcome;
	for (int i = 0; i < n; i++)
	{
		if (!run.fake)
			migrate_check_author(session->serverid, session->pool, migrations[i]);
		if (!is_not_to_run(&run, migrations[i]))
			steps[run.total++].migration = migrations[i];
	}
	migrate_show_progress(0, run.total);
	if (run.total == 0)
		return;
	record_open(session->serverid, session->pool, session->lock_timeout);
	if (!run.dry_run)
		migrate_create_history(session);
	error_context_stack = &context;
	if (run.grouped || run.dry_run)
		run_group(&run, steps, run.total);
	else
	{
		for (int i = 0; i < run.total; i++)
			run_group(&run, &steps[i], 1);
	}
	error_context_stack = context.previous;
}
