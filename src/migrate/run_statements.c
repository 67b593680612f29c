/*
 * run_statements.c
 *	  The statements of a migration that runs.
 *
 * A text is divided into statements here and sent in portions, so that errors
 * have a line, progress has a number, and a network's round trip is not paid for
 * each.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "migrate/run.h"
#include "utils/memutils.h"

/* Statements are sent together up to this length. */
#define PORTION_BYTES	(128 * 1024)

/* More statements are sent together while that takes less time. */
#define PORTION_MS		20

/* A longer statement is not shown with an error. */
#define SHOWN_BYTES		8192

static void
on_done(RemoteWatcher *watcher, int n)
{
	Runner	   *run = (Runner *) watcher;

	migrate_show_statements(run->first + n);
}

/*
 * Find the statement that has failed: by the position in what was sent, in
 * characters, or by the number of statements that ended.
 */
static const char *
on_failed(RemoteWatcher *watcher, int n, int *position)
{
	Runner	   *run = (Runner *) watcher;
	const char *start = run->sql + run->pieces[run->first].at;
	const SqlPiece *piece;

	run->outcome->remote_failed = true;
	run->failed = Min(run->first + n, run->last);
	if (*position > 0)
	{
		const char *at = start;

		for (int i = 1; i < *position && *at != '\0'; i++)
			at += pg_mblen(at);
		run->failed = run->first;
		while (run->failed < run->last && run->sql + run->pieces[run->failed + 1].at <= at)
			run->failed++;
		piece = &run->pieces[run->failed];
		*position = pg_mbstrlen_with_len(run->sql + piece->at, (int) (at - run->sql) - piece->at) + 1;
	}
	piece = &run->pieces[run->failed];
	if (piece->len > SHOWN_BYTES)
	{
		*position = 0;
		return "";
	}
	return pnstrdup(run->sql + piece->at, piece->len);
}

/* For statements of a Runner's. */
const RemoteWatcher run_watcher = {on_done, on_failed};

/* How the remote reads backslashes in strings. */
static bool
standard_strings(const Runner *run)
{
	const char *conforming = remote_parameter(run->session->remote, "standard_conforming_strings");

	return conforming == NULL || strcmp(conforming, "on") == 0;
}

/* Divide a migration's text. */
void
run_load_text(Runner *run, const Migration *migration)
{
	run->sql = run->direction == DIRECTION_DOWN ? migration->down_sql : migration->up_sql;
	run->pieces = split_rest(run->sql, NULL, standard_strings(run), &run->npieces);
	migrate_show_migration(migration, run->direction, run->npieces);
}

/* The migration has been run. */
void
run_forget_text(Runner *run)
{
	run->migration = NULL;
	if (run->pieces != NULL)
		pfree(run->pieces);
	run->pieces = NULL;
}

/*
 * Divide what begins with that statement anew if the remote reads strings in
 * another way by now than its text let expect.  Was it so?
 */
static bool
follow_strings(Runner *run, int first)
{
	bool		now = standard_strings(run);
	SqlPiece   *rest;
	int			n;

	if (!run->pieces[first].broken &&
		(!run->pieces[first].backslash || run->pieces[first].standard_strings == now))
		return false;
	rest = split_rest(run->sql, &run->pieces[first], now, &n);
	run->pieces = repalloc_huge(run->pieces, sizeof(SqlPiece) * (first + n));
	memcpy(run->pieces + first, rest, sizeof(SqlPiece) * n);
	run->npieces = first + n;
	pfree(rest);
	migrate_show_migration(run->migration, run->direction, run->npieces);
	migrate_show_statements(first);
	return true;
}

/* Send statements from first to last and wait for their end. */
static void
send_portion(Runner *run, int first, int last)
{
	const SqlPiece *end = &run->pieces[last];
	char	   *text = pnstrdup(run->sql + run->pieces[first].at,
								end->at + end->len - run->pieces[first].at);

	run->first = first;
	run->last = last;
	remote_exec(run->session->remote, text, &run->watcher);
	pfree(text);
}

/*
 * Statements that begin and end a transaction are the run's business.  Around
 * all the others they are left out: many a tool's files have them.
 */
static void
strip_transaction(Runner *run, int *first, int *last)
{
	*first = 0;
	*last = run->npieces - 1;
	if (*last < 0)
		return;
	if (split_is_wrapped(run->pieces, run->npieces))
	{
		(*first)++;
		(*last)--;
	}
	else if (run->pieces[*last].broken && run->pieces[0].kind == PIECE_BEGIN && run->pieces[0].bare)
		/* what the last one is comes out later */
		(*first)++;
	for (int i = *first; i <= *last; i++)
	{
		if (run->pieces[i].kind == PIECE_PLAIN)
			continue;
		run->failed = i;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("a migration must not begin or end transactions"),
				 errdetail("It is a transaction by itself, together with its row of the history."),
				 errhint("Take the statement out, or begin the migration with the line \"-- no-transaction\".")));
	}
}

/*
 * Run a migration's statements in the transaction that is open.  The remote keeps
 * its answers until a portion has ended, so portions grow, by the number of their
 * statements, as long as they take little time: then those that take long are
 * sent by themselves, and progress shows them.
 */
void
run_statements(Runner *run)
{
	int			first;
	int			last;
	int			most = 1;

	strip_transaction(run, &first, &last);
	while (first <= last)
	{
		int			to = first;
		bool		may_set = run->pieces[first].may_set;
		int			unused;
		instr_time	start;

		if (follow_strings(run, first))
			strip_transaction(run, &unused, &last);
		/* the remote reads all of a portion in one way */
		while (to < last && to - first + 1 < most && !run->pieces[to + 1].gap &&
			   !(run->pieces[to + 1].backslash &&
				 (may_set || run->pieces[to + 1].standard_strings != standard_strings(run))) &&
			   !run->pieces[to + 1].broken &&
			   run->pieces[to + 1].at + run->pieces[to + 1].len -
			   run->pieces[first].at <= PORTION_BYTES)
			may_set |= run->pieces[++to].may_set;
		INSTR_TIME_SET_CURRENT(start);
		send_portion(run, first, to);
		most = elapsed_ms(start) < PORTION_MS ? Min(most * 2, PORTION_BYTES) : 1;
		remote_restore_encoding(run->session->remote);
		if (!remote_in_transaction(run->session->remote))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
					 errmsg("a statement of the migration has ended its transaction")));
		first = to + 1;
	}
}

/*
 * The last of the statements that have to be sent together with this one, as they
 * are in one block.  All of them are read in the way of the first.
 */
static int
find_together(Runner *run, int first)
{
	int			to = first;

	(void) follow_strings(run, first);
	while (run->pieces[first].block != 0 && to + 1 < run->npieces &&
		   run->pieces[to + 1].block == run->pieces[first].block && !run->pieces[to + 1].gap)
		(void) follow_strings(run, ++to);
	return to;
}

/*
 * Run a migration's statements outside of a transaction, each by itself or with
 * those that are in one block with it.
 */
void
run_statements_alone(Runner *run)
{
	for (int i = 0; i < run->npieces; i = run->last + 1)
	{
		send_portion(run, i, find_together(run, i));
		remote_restore_encoding(run->session->remote);
	}
}
