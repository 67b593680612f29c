/*
 * functions.c
 *	  The SQL functions that run statements.
 */
#include "postgres.h"

#include "backend/client.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(dbpool_query);
PG_FUNCTION_INFO_V1(dbpool_query_as);
PG_FUNCTION_INFO_V1(dbpool_query_json);
PG_FUNCTION_INFO_V1(dbpool_value);
PG_FUNCTION_INFO_V1(dbpool_exec);
PG_FUNCTION_INFO_V1(dbpool_ping);

typedef struct CountSink
{
	AnswerSink	sink;			/* must be first */
	uint64		count;
} CountSink;

static void
count_frame(AnswerSink *base, char type, MessageReader *body)
{
	CountSink  *sink = (CountSink *) base;
	uint64		count;

	if (type == FRAME_RESTART)
		sink->count = 0;
	if (type != FRAME_TAG)
		return;
	message_get(body, &count, sizeof(count));
	sink->count += count;
}

/* The call that the arguments from number first on (pool, sql, ...) describe. */
static Call
make_call(FunctionCallInfo fcinfo, int first, RequestKind kind)
{
	Call		call;

	client_require_workers();
	memset(&call, 0, sizeof(call));
	call.kind = kind;
	call.pool = PG_ARGISNULL(first) ? NULL : NameStr(*PG_GETARG_NAME(first));
	if (call.pool == NULL || call.pool[0] == '\0')
		(void) definition_server(call.pool, false);
	if (kind == REQUEST_PING)
	{
		call.sql = "";
		return call;
	}
	if (PG_ARGISNULL(first + 1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the statement for pool \"%s\" must not be null", call.pool),
				 errhint("An expression that makes the statement's text may have met a null; format() and coalesce() help.")));
	call.sql = text_to_cstring(PG_GETARG_TEXT_PP(first + 1));
	if (call.sql[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the statement for pool \"%s\" must not be empty", call.pool),
				 errhint("dbpool_ping() makes an empty round trip.")));
	params_collect(fcinfo, first + 2, &call);
	return call;
}

/*
 * dbpool_query(pool name, sql text, VARIADIC params "any") returns setof record
 *
 * One statement, whose rows are returned.  In FROM it takes a column definition
 * list; in a select list it needs none.  A statement that gives no rows returns
 * none.  Parameters go as text and get their types from the remote, so that
 * where it cannot infer one the statement has to say, as in $1::int.
 *
 * Errors: those of the remote, with their SQLSTATE; 42704 for an unknown pool;
 * 42501 without USAGE; 08001 when no connection can be opened, 53300 when none
 * is free within acquire_timeout, 08006 when one was lost and the statement did
 * not run, 08007 when it may have run; 42804 when the result has another shape.
 */
Datum
dbpool_query(PG_FUNCTION_ARGS)
{
	Call		call = make_call(fcinfo, 0, REQUEST_QUERY);

	result_return_set(fcinfo, &call, RESULT_RECORD);
	return (Datum) 0;
}

/* dbpool_query_as(row anyelement, pool, sql, params...) returns setof anyelement */
Datum
dbpool_query_as(PG_FUNCTION_ARGS)
{
	Call		call = make_call(fcinfo, 1, REQUEST_QUERY);

	result_return_set(fcinfo, &call, RESULT_TYPE);
	return (Datum) 0;
}

/*
 * dbpool_query_json(pool, sql, params...) returns setof jsonb
 *
 * Each row is the object that to_jsonb() makes of it.  Of columns of the same
 * name the last one remains.
 */
Datum
dbpool_query_json(PG_FUNCTION_ARGS)
{
	Call		call = make_call(fcinfo, 0, REQUEST_QUERY);

	result_return_set(fcinfo, &call, RESULT_JSON);
	return (Datum) 0;
}

/*
 * dbpool_value(value_type anyelement, pool, sql, params...) returns anyelement
 *
 * The one value, or for a composite type the one row, that the statement
 * returns; NULL when it returns no row.  21000 when it returns more.
 */
Datum
dbpool_value(PG_FUNCTION_ARGS)
{
	Call		call = make_call(fcinfo, 1, REQUEST_QUERY);

	return result_return_value(fcinfo, &call);
}

/*
 * dbpool_exec(pool name, sql text, VARIADIC params "any") returns bigint
 *
 * Without parameters, any number of statements, which the remote runs as one
 * transaction unless they contain BEGIN and COMMIT themselves; with parameters,
 * one.  Returns the sum of the row counts of their command tags.
 */
Datum
dbpool_exec(PG_FUNCTION_ARGS)
{
	Call		call = make_call(fcinfo, 0,
								 PG_NARGS() > 2 ? REQUEST_QUERY : REQUEST_SCRIPT);
	CountSink	sink = {{count_frame}, 0};

	client_run(&call, &sink.sink);
	PG_RETURN_INT64((int64) sink.count);
}

/*
 * dbpool_ping(pool name) returns interval
 *
 * Time of an empty round trip, as the worker measured it: without the time of
 * waiting for a connection.
 */
Datum
dbpool_ping(PG_FUNCTION_ARGS)
{
	Call		call = make_call(fcinfo, 0, REQUEST_PING);
	CountSink	sink = {{count_frame}, 0};
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = client_run(&call, &sink.sink);
	PG_RETURN_INTERVAL_P(interval);
}
