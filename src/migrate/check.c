/*
 * check.c
 *	  What can be registered as a migration.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "mb/pg_wchar.h"

static void
check_name(const char *pool, const Migration *migration)
{
	const char *reason = NULL;

	if (migration->name[0] == '\0')
		reason = "It must not be empty.";
	else if (pg_mbstrlen(migration->name) > MAX_MIGRATION_NAME)
		reason = psprintf("It is longer than %d characters.", MAX_MIGRATION_NAME);
	else
		for (const char *at = migration->name; *at != '\0'; at++)
			if ((unsigned char) *at < ' ' || *at == 0x7f)
				reason = "It must not contain control characters.";
	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of migration %s of pool \"%s\"",
						migration->version, pool),
				 errdetail("%s", reason)));
}

/* One that is run again whenever its text changes has no way back, and is known by its name. */
static void
check_repeatable(const char *pool, const Migration *migration)
{
	if (!version_is_repeatable(migration->version))
		return;
	if (strcmp(migration->version, version_of_repeatable(migration->name)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of repeatable migration %s of pool \"%s\": \"%s\"",
						migration->version, pool, migration->name),
				 errdetail("Its version is R__ and its name.")));
	if (migration->down_sql != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("repeatable migration %s of pool \"%s\" cannot have a way back",
						migration->version, pool),
				 errhint("Change its text, and it runs again.")));
}

/*
 * A text can be divided, leaves its transaction alone if it has one, and is for
 * one direction.
 */
static void
check_text(const char *sql, bool transaction, bool down)
{
	int			n;
	SqlPiece   *pieces = split_anyhow(sql, &n);
	bool		wrapped = split_is_wrapped(pieces, n);

	for (int i = 0; transaction && i < n; i++)
		if (pieces[i].kind != PIECE_PLAIN && !(wrapped && (i == 0 || i == n - 1)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
					 errmsg("\"%.*s\" in line %d, column %d interferes with the transaction of the migration",
							pg_mbcliplen(sql + pieces[i].at, pieces[i].len, 40),
							sql + pieces[i].at, pieces[i].line, pieces[i].column),
					 errdetail("A migration and its entry in the history are one transaction. "
							   "A BEGIN at the very start and a COMMIT at the very end are left out."),
					 errhint("Leave it out, or have the migration run outside of a transaction: "
							 "by a line \"-- no-transaction\" at its start, or by the option \"transaction\": false.")));
	mixed_check(sql, pieces, n, down);
	pfree(pieces);
}

typedef struct TextContext
{
	const char *pool;
	const Migration *migration;
	const char *which;
} TextContext;

static void
in_text(void *arg)
{
	TextContext *context = arg;

	errcontext("%s of migration %s \"%s\" of pool \"%s\"", context->which,
			   context->migration->version, context->migration->name, context->pool);
}

void
source_check(const char *pool, const Migration *migration)
{
	TextContext text = {pool, migration, "up_sql"};
	ErrorContextCallback context = {error_context_stack, in_text, &text};

	check_name(pool, migration);
	check_repeatable(pool, migration);
	error_context_stack = &context;
	check_text(migration->up_sql, migration->transaction, false);
	if (migration->down_sql != NULL)
	{
		text.which = "down_sql";
		check_text(migration->down_sql,
				   migration->transaction && !split_no_transaction(migration->down_sql), true);
	}
	error_context_stack = context.previous;
}
