/*
 * connection_prepare.c
 *	  Statements that dbpool has prepared in a remote session.
 *
 * What a connection has is a list, last used first, of at most
 * statement_cache_size.  A name at the remote belongs to one text for ever, in
 * all connections of this worker and after it: so behind a pooler that hands
 * server processes around, a name may be missing or be there already, which
 * the remote says and which is mended, but it never means another statement.
 */
#include "postgres.h"

#include "ipc/binary.h"
#include "utils/memutils.h"

#include "worker/connection.h"

#define QUESTION_NAME	"dbpool_number"

struct Prepared
{
	dlist_node	node;			/* in conn->prepared.lru or doomed */
	int			id;				/* its statement's, which may have been
								 * forgotten since, and another have it; of no
								 * meaning when doomed */
	uint64		serial;
	uint64		number;			/* of its preparation, never used twice */
	int			ntypes;			/* columns that it returns; 0 when not known */
	Oid		   *types;			/* what binary_type() has for theirs */
};

static uint64 last_preparation;

/* The name of what is prepared. */
static const char *
prepared_name(uint64 serial, char *buf)
{
	static uint64 nonce;

	while (nonce == 0)
	{
		if (!pg_strong_random(&nonce, sizeof(nonce)))
			nonce = (uint64) ticks_now();
	}
	snprintf(buf, NAMEDATALEN, "dbpool_" UINT64_FORMAT "_" UINT64_FORMAT, nonce, serial);
	return buf;
}

static void
forget_types(Prepared *prepared)
{
	if (prepared->ntypes > 0)
		pfree(prepared->types);
	prepared->ntypes = 0;
}

/* It is not to be used any more; deallocated says that the remote has it not. */
static void
drop(Conn *conn, Prepared *prepared, bool deallocated)
{
	dlist_delete(&prepared->node);
	conn->prepared.by_id[prepared->id] = NULL;
	conn->shared->prepared = --conn->prepared.n;
	forget_types(prepared);
	if (deallocated)
		pfree(prepared);
	else
		dlist_push_tail(&conn->prepared.doomed, &prepared->node);
}

static Prepared *
find(Conn *conn, const Statement *statement)
{
	return statement->id < conn->prepared.nids ? conn->prepared.by_id[statement->id] : NULL;
}

/* Drop the statement; deallocated says that the remote has it not. */
void
conn_unprepare(Conn *conn, const Statement *statement, bool deallocated)
{
	Prepared   *prepared = find(conn, statement);

	if (prepared != NULL)
		drop(conn, prepared, deallocated);
}

/*
 * The remote refuses what is prepared, as its result would look different now.
 * That goes for all connections, so it gets another name.
 */
void
conn_prepared_is_old(Conn *conn, Statement *statement)
{
	Prepared   *prepared = find(conn, statement);

	if (prepared != NULL && prepared->serial == statement->serial)
		statement_renew(statement);
}

/* The remote session has none of them any more, or is about to go. */
void
conn_forget_prepared(Conn *conn)
{
	conn->session.asks_prepared = false;
	conn->session.trace_prepared = false;
	while (!dlist_is_empty(&conn->prepared.lru))
		drop(conn, dlist_head_element(Prepared, node, &conn->prepared.lru), true);
	while (!dlist_is_empty(&conn->prepared.doomed))
		pfree(dlist_container(Prepared, node, dlist_pop_head_node(&conn->prepared.doomed)));
}

/* Have the remote forget what was dropped. */
static bool
deallocate_doomed(Conn *conn)
{
	while (!dlist_is_empty(&conn->prepared.doomed))
	{
		Prepared   *prepared = dlist_container(Prepared, node,
											   dlist_pop_head_node(&conn->prepared.doomed));
		char		name[NAMEDATALEN];
		bool		sent;

		prepared_name(prepared->serial, name);
		pfree(prepared);
		chore_add(conn);
		sent = wire_send_close(conn, name) && wire_send_sync(conn);
		if (!sent)
			return false;
	}
	return true;
}

/*
 * May the question for the number of a flight's transaction (outcome.c) be prepared, and what
 * tells of its trace?  Not where a transaction would fail with it.
 */
bool
conn_prepares_own(const Conn *conn)
{
	const Pool *pool = conn->pool;

	return conn->lease.shared == NULL && pool->options.prepare_threshold > 0 && pool->options.statement_cache_size > 0 &&
		!pool->loses_prepared;
}

/*
 * What comes before the flight's own statement.  The question has one name, as a
 * connection has one text for it, and does not count as one of statement_cache_size.
 */
bool
conn_prepare_question(Conn *conn, Flight *flight)
{
	flight->asks = true;
	flight->asks_parse = conn_prepares_own(conn) && !conn->session.asks_prepared;
	/* those that are sent behind it, before its answer is in, find it there */
	conn->session.asks_prepared |= flight->asks_parse;
	return !flight->asks_parse || wire_send_prepare(conn, QUESTION_NAME, outcome_number_sql(conn));
}

/* And the question itself. */
bool
conn_send_question(Conn *conn)
{
	bool		sent = conn_prepares_own(conn) ?
	wire_send_prepared(conn, QUESTION_NAME, 0, NULL, false) :
	wire_send_query(conn, outcome_number_sql(conn), 0, NULL);

	return sent && wire_send_flush(conn);
}

/* Send the Parse of a statement, after making room for it. */
static bool
prepare(Conn *conn, Statement *statement)
{
	Prepared   *prepared;
	char		name[NAMEDATALEN];

	if (conn->prepared.nids <= statement->id)
	{
		int			n = Max(64, 2 * statement->id);

		if (conn->prepared.by_id == NULL)
			conn->prepared.by_id = MemoryContextAlloc(conn->context, sizeof(Prepared *) * n);
		else
			conn->prepared.by_id = repalloc(conn->prepared.by_id, sizeof(Prepared *) * n);
		memset(conn->prepared.by_id + conn->prepared.nids, 0, sizeof(Prepared *) * (n - conn->prepared.nids));
		conn->prepared.nids = n;
	}
	prepared = MemoryContextAlloc(conn->context, sizeof(Prepared));
	prepared->id = statement->id;
	prepared->serial = statement->serial;
	prepared->number = ++last_preparation;
	prepared->ntypes = 0;
	dlist_push_head(&conn->prepared.lru, &prepared->node);
	conn->prepared.by_id[statement->id] = prepared;
	conn->shared->prepared = ++conn->prepared.n;
	return wire_send_prepare(conn, prepared_name(prepared->serial, name), statement->text);
}

/*
 * Is the statement prepared, or would it be with nothing before it?  Within a transaction
 * that goes on, nothing is to be deallocated: if the remote has lost that already, as
 * somebody's function has said DEALLOCATE ALL, the transaction would fail.
 */
bool
conn_has_room(Conn *conn, const Statement *statement)
{
	Prepared   *prepared = find(conn, statement);

	if (prepared != NULL)
		return prepared->serial == statement->serial;
	return conn->prepared.n < conn->pool->options.statement_cache_size &&
		dlist_is_empty(&conn->prepared.doomed);
}

/*
 * Send what has to come before a flight that is to run the statement prepared:
 * nothing when it is prepared already.  The connection is in pipeline mode.
 * The caller has made its flight, and calls conn_send_prepared() afterwards.
 */
bool
conn_make_room(Conn *conn, Statement *statement)
{
	Prepared   *prepared = find(conn, statement);

	if (prepared != NULL && prepared->serial == statement->serial)
		return true;
	/* the session's transaction has not begun yet, see conn_has_room() */
	Assert(conn->lease.shared == NULL || conn->lease.statements == 1 || conn_has_room(conn, statement));
	if (prepared != NULL)
		drop(conn, prepared, false);
	while (conn->prepared.n > 0 &&
		   conn->prepared.n >= conn->pool->options.statement_cache_size)
		drop(conn, dlist_tail_element(Prepared, node, &conn->prepared.lru), false);
	return deallocate_doomed(conn);
}

/*
 * A result of a prepared statement has come: note the n types of its columns.  The next ones will
 * have the same, since the remote refuses to run it once they would differ
 * ("cached plan must not change result type").  Only a pooler that hands server
 * processes around could have another one under the same name; the backend
 * sees to it that no value is taken for what it is not.
 */
void
conn_note_types(Conn *conn, const Flight *flight, int n, const Oid *types)
{
	Prepared   *prepared = flight->prepared ? find(conn, flight->statement) : NULL;

	if (prepared == NULL || prepared->number != flight->preparation)
		return;
	if (n != prepared->ntypes)
	{
		forget_types(prepared);
		if (n > 0)
			prepared->types = MemoryContextAlloc(conn->context, sizeof(Oid) * n);
		prepared->ntypes = n;
	}
	for (int i = 0; i < n; i++)
		prepared->types[i] = binary_type(types[i]);
}

/* Are the rows that the request waits for those that the statement returns? */
static bool
is_waited_for_like_this(const Prepared *prepared, const Request *req)
{
	int			n = req->task.ntypes;

	return n > 0 && n == prepared->ntypes &&
		memcmp(req->types, prepared->types, sizeof(Oid) * n) == 0;
}

/* Run the statement of a flight of that request prepared, preparing it first if need be. */
bool
conn_send_prepared(Conn *conn, Flight *flight, const Request *req, const char *const *values)
{
	Statement  *statement = flight->statement;
	Prepared   *prepared = find(conn, statement);
	char		name[NAMEDATALEN];
	bool		binary = false;

	flight->prepared = true;
	if (prepared != NULL)
	{
		flight->reused = true;
		flight->preparation = prepared->number;
		binary = conn->session.integer_datetimes && is_waited_for_like_this(prepared, req);
		dlist_move_head(&conn->prepared.lru, &prepared->node);
	}
	else
	{
		flight->parsing = true;
		if (!prepare(conn, statement))
			return false;
		flight->preparation = last_preparation;
	}
	return wire_send_prepared(conn, prepared_name(statement->serial, name), req->task.nparams, values,
							  binary);
}
