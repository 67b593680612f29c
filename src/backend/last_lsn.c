/*
 * last_lsn.c
 *	  dbpool_last_lsn(): how far a standby has to be to show what the session has written.
 *
 * What the session has run on a pool is noted, and the remote is asked only when somebody wants to
 * know: where its WAL ends then is not before the session's last commit there.
 * Everything counts that may have written, so also a SELECT, which may call a function that
 * does; only what ran in a read-only transaction is known not to have.
 */
#include "postgres.h"

#include "backend/transaction.h"
#include "backend/written.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

PG_FUNCTION_INFO_V1(dbpool_last_lsn);

typedef struct TextSink
{
	AnswerSink	sink;			/* must be first */
	char		text[40];		/* of the row; empty: none that could be it */
} TextSink;

static void
text_frame(AnswerSink *base, char type, MessageReader *body)
{
	TextSink   *sink = (TextSink *) base;
	int32		len;

	if (type == FRAME_RESTART)
		sink->text[0] = '\0';
	if (type != FRAME_ROW)
		return;
	len = message_get_int32(body);
	if (len < 0 || len >= (int32) sizeof(sink->text))
		return;
	message_get(body, sink->text, len);
	sink->text[len] = '\0';
}

/* Is a transaction of the session open there that may have written? */
static void
check_no_transaction(const char *pool, const Definition *definition)
{
	if (!transaction_may_write_on(definition))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("a transaction of this session is open on pool \"%s\"", pool),
			 errdetail("What it writes has no position before it is committed."),
			 errhint("Call dbpool_last_lsn() after its end.")));
}

/* The question, with those commits that may not have come to their end. */
static char *
question(const Written *entry)
{
	StringInfoData sql;
	bool		first = true;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'");
	for (int i = 0; i < WRITTEN_GIDS; i++)
	{
		if (entry->gids[i][0] == '\0')
			continue;
		appendStringInfo(&sql, "%s%s", first ? " WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) ANY (ARRAY[" : ", ",
						 quote_literal_cstr(entry->gids[i]));
		first = false;
	}
	if (!first)
		appendStringInfoString(&sql, "])) THEN 'prepared'");
	appendStringInfoString(&sql, " ELSE pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END");
	return sql.data;
}

/* Ask, by itself, whatever dbpool.transaction and the server's option say. */
static void
ask_position(const char *pool, const char *sql, TextSink *sink)
{
	Call		call;
	int			mode = dbpool_transaction;

	memset(&call, 0, sizeof(call));
	call.kind = REQUEST_QUERY;
	call.pool = pool;
	call.sql = sql;
	call.only_looks = true;
	PG_TRY();
	{
		dbpool_transaction = TRANSACTION_AUTONOMOUS;
		client_run(&call, &sink->sink);
	}
	PG_FINALLY();
	{
		dbpool_transaction = mode;
	}
	PG_END_TRY();
}

/*
 * dbpool_last_lsn(pool name) returns pg_lsn
 *
 * A position in the remote's WAL that is not before the last commit of what this session
 * has run there; NULL when it has run nothing that may have written.  Errors: 25001 while a transaction
 * of the session is open there; 55000 while one that is prepared has not been committed so
 * far, and for a standby; 08P01 for an answer that is none.
 */
Datum
dbpool_last_lsn(PG_FUNCTION_ARGS)
{
	const char *pool = NameStr(*PG_GETARG_NAME(0));
	TextSink	sink = {{text_frame}, ""};
	const Definition *definition;
	PoolKey		key;
	Written    *entry;
	uint64		calls;
	uint64		lsn;

	client_require_workers();
	definition = definition_find(pool);
	key = definition->key;
	check_no_transaction(pool, definition);
	entry = written_find(&key);
	if (entry == NULL)
		PG_RETURN_NULL();
	calls = entry->calls;
	if (entry->asked == calls)
		PG_RETURN_LSN(entry->lsn);
	ask_position(pool, question(entry), &sink);
	if (strcmp(sink.text, "standby") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the server of pool \"%s\" is a standby", pool),
				 errdetail("Only a primary can tell where its last write is."),
				 errhint("The server's option target_session_attrs 'read-write' leads to the primary.")));
	if (strcmp(sink.text, "prepared") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a prepared transaction of this session has not been committed on pool \"%s\" so far", pool),
				 errdetail("The local transaction is committed, and the remote one will be."),
				 errhint("See dbpool_in_doubt, and try again.")));
	if (!dbpool_parse_lsn(sink.text, &lsn) || lsn == 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the remote server of pool \"%s\" did not tell the position of its WAL", pool)));
	entry = written_find(&key);
	entry->asked = calls;
	entry->lsn = lsn;
	memset(entry->gids, 0, sizeof(entry->gids));
	PG_RETURN_LSN(lsn);
}
