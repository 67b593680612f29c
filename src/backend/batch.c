/*
 * batch.c
 *	  dbpool_batch(): many statements in one round trip.
 */
#include "postgres.h"

#include "backend/batch.h"
#include "backend/result.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(dbpool_batch);

/* Columns of a row of its result. */
enum
{
	COL_NUMBER,
	COL_STATUS,
	COL_ROWS,
	COL_RESULT,
	COL_SQLSTATE,
	COL_MESSAGE,
	COL_MILLISECONDS,
	NCOLS
};

typedef struct StatementsRun
{
	BatchRun	run;			/* must be first */
	char	  **texts;
	ReturnSetInfo *rsinfo;
	int			modes;			/* see modes_enter(); for the rows of all */
} StatementsRun;

/* What has come of the statement whose end comes next. */
typedef struct Outcome
{
	MemoryContext context;		/* of all that it has */
	bool		has_tag;
	uint64		count;
	bool		failed;
	char		sqlstate[6];
	char	   *message;
	bool		has_rows;		/* columns, to be precise */
	StringInfoData json;
	ResultSink	sink;
} Outcome;

/* --- the result ---------------------------------------------------------------------- */

static void
put_row(StatementsRun *batch, uint64 number, const char *status, const char *sqlstate,
		const char *message, Datum *values, bool *nulls)
{
	values[COL_NUMBER] = Int64GetDatum((int64) number);
	nulls[COL_NUMBER] = false;
	values[COL_STATUS] = CStringGetTextDatum(status);
	nulls[COL_STATUS] = false;
	if (sqlstate != NULL)
	{
		values[COL_SQLSTATE] = CStringGetTextDatum(sqlstate);
		nulls[COL_SQLSTATE] = false;
		values[COL_MESSAGE] = CStringGetTextDatum(message);
		nulls[COL_MESSAGE] = false;
	}
	tuplestore_putvalues(batch->rsinfo->setResult, batch->rsinfo->setDesc, values, nulls);
	pfree(DatumGetPointer(values[COL_STATUS]));
	if (sqlstate != NULL)
	{
		pfree(DatumGetPointer(values[COL_SQLSTATE]));
		pfree(DatumGetPointer(values[COL_MESSAGE]));
	}
}

static void
put_fate(BatchRun *run, uint64 number, const char *status, const char *sqlstate,
		 const char *message)
{
	Datum		values[NCOLS] = {0};
	bool		nulls[NCOLS];

	memset(nulls, true, sizeof(nulls));
	put_row((StatementsRun *) run, number, status, sqlstate, message, values, nulls);
}

static void
put_unknown(BatchRun *run, uint64 number, const char *sqlstate, const char *message)
{
	put_fate(run, number, "unknown", sqlstate, message);
}

static void
put_not_run(BatchRun *run, uint64 number, const char *sqlstate, const char *message)
{
	put_fate(run, number, "not run", sqlstate, message);
}

static Outcome *
outcome_of(BatchMember *member)
{
	Outcome    *outcome = member->state;

	if (outcome == NULL)
	{
		outcome = palloc0(sizeof(Outcome));
		outcome->context = AllocSetContextCreate(CurrentMemoryContext, "dbpool statement",
												 ALLOCSET_DEFAULT_SIZES);
		member->state = outcome;
	}
	return outcome;
}

static void
forget_outcome(BatchMember *member)
{
	Outcome    *outcome = outcome_of(member);

	MemoryContextReset(outcome->context);
	outcome->has_tag = false;
	outcome->failed = false;
	outcome->has_rows = false;
}

/* Something of a statement that has not ended. */
static void
statement_frame(BatchMember *member, char type, MessageReader *body)
{
	Outcome    *outcome = outcome_of(member);
	MemoryContext old = MemoryContextSwitchTo(outcome->context);

	switch (type)
	{
		case FRAME_SHAPE:
			outcome->has_rows = true;
			initStringInfo(&outcome->json);
			appendStringInfoChar(&outcome->json, '[');
			result_start_array(&outcome->sink, &member->run->call, &outcome->json,
							   ((StatementsRun *) member->run)->modes);
			outcome->sink.sink.frame(&outcome->sink.sink, type, body);
			break;
		case FRAME_ROW:
			if (!outcome->has_rows)
				elog(ERROR, "a row of a batch has come without its columns");
			outcome->sink.sink.frame(&outcome->sink.sink, type, body);
			break;
		case FRAME_TAG:
			outcome->has_tag = true;
			message_get(body, &outcome->count, sizeof(outcome->count));
			break;
		case FRAME_FAILED:
			/* of several errors, which only an odd remote sends, the first */
			if (!outcome->failed)
				error_texts(body, outcome->sqlstate, &outcome->message);
			outcome->failed = true;
			break;
		default:
			break;
	}
	MemoryContextSwitchTo(old);
}

/* A statement has ended: a row. */
static void
statement_ended(BatchMember *member, uint64 number, int64 us)
{
	Outcome    *outcome = outcome_of(member);
	MemoryContext old = MemoryContextSwitchTo(outcome->context);
	Datum		values[NCOLS] = {0};
	bool		nulls[NCOLS];

	memset(nulls, true, sizeof(nulls));
	values[COL_MILLISECONDS] = Float8GetDatum(us / 1000.0);
	nulls[COL_MILLISECONDS] = false;
	if (outcome->failed || !outcome->has_tag)
		put_row((StatementsRun *) member->run, number, outcome->failed ? "failed" : "unknown",
				outcome->failed ? outcome->sqlstate : "08P01",
				outcome->failed ? outcome->message : "the remote server ended the statement without a result",
				values, nulls);
	else
	{
		values[COL_ROWS] = Int64GetDatum((int64) outcome->count);
		nulls[COL_ROWS] = false;
		if (outcome->has_rows)
		{
			appendStringInfoChar(&outcome->json, ']');
			values[COL_RESULT] = DirectFunctionCall1(jsonb_in, CStringGetDatum(outcome->json.data));
			nulls[COL_RESULT] = false;
		}
		put_row((StatementsRun *) member->run, number, "ok", NULL, NULL, values, nulls);
	}
	MemoryContextSwitchTo(old);
	forget_outcome(member);
}

static const char *
statement_text(BatchRun *run, uint64 number)
{
	return ((StatementsRun *) run)->texts[number - 1];
}

/* --- the arguments ---------------------------------------------------------------------- */

static void
put_json_param(BatchItems *items, const JsonbValue *value)
{
	char	   *text;

	switch (value->type)
	{
		case jbvNull:
			batch_param(items, NULL, 0);
			return;
		case jbvString:
			batch_param(items, value->val.string.val, value->val.string.len);
			return;
		case jbvNumeric:
			text = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
			break;
		case jbvBool:
			text = value->val.boolean ? "true" : "false";
			break;
		case jbvBinary:
			text = JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
			break;
		default:
			elog(ERROR, "unexpected kind of value in JSON: %d", (int) value->type);
	}
	batch_param(items, text, strlen(text));
}

/* The parameters of a statement: the elements of a JSON array. */
static void
put_params(BatchItems *items, Datum params, uint64 number)
{
	Jsonb	   *json = DatumGetJsonbP(params);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the parameters of statement " UINT64_FORMAT " of the batch are no JSON array",
						number),
				 errhint("Each element of \"params\" is an array with one value for each of $1, $2, ..., or null: '[1, \"two\", null]'.")));
	iterator = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM)
			put_json_param(items, &value);
	}
}

static void
refuse_dimensions(ArrayType *array, const char *what)
{
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("\"%s\" must be a one-dimensional array", what)));
}

/* The statements with their parameters as items. */
static void
put_statements(StatementsRun *batch, ArrayType *statements, ArrayType *params)
{
	BatchItems *items = batch->run.items;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dbpool item",
												  ALLOCSET_DEFAULT_SIZES);
	Datum	   *texts;
	Datum	   *jsons = NULL;
	bool	   *nulls;
	bool	   *json_nulls = NULL;
	int			n;
	int			njsons;

	refuse_dimensions(statements, "statements");
	deconstruct_array(statements, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &n);
	if (params != NULL)
	{
		refuse_dimensions(params, "params");
		deconstruct_array(params, JSONBOID, -1, false, TYPALIGN_INT, &jsons, &json_nulls, &njsons);
		if (njsons != n)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there are %d statements, but parameters for %d", n, njsons),
					 errhint("\"params\" has one JSON array for each statement; null is for none.")));
	}
	batch->texts = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		again;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("statement %d of the batch is null", i + 1),
					 errdetail("No statement was run.")));
		batch->texts[i] = TextDatumGetCString(texts[i]);
		again = i > 0 && strcmp(batch->texts[i], batch->texts[i - 1]) == 0;
		if (again)
		{
			pfree(batch->texts[i]);
			batch->texts[i] = batch->texts[i - 1];
		}
		else
			batch_check_text(batch->texts[i], i + 1);
		old = MemoryContextSwitchTo(context);
		if (jsons != NULL && !json_nulls[i])
			put_params(items, jsons[i], i + 1);
		/* behind a pooler, another session may run an independent statement */
		batch_item(items, again && (batch->run.call.batch & BATCH_ONE) ? NULL : batch->texts[i]);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

static void
refuse_null(FunctionCallInfo fcinfo, int arg, const char *what)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of a batch must not be null", what)));
}

/* mode, parallel and results, as BATCH_ flags; parallel goes into *parallel. */
static int
read_mode(FunctionCallInfo fcinfo, int *parallel)
{
	char	   *mode;
	int			flags;

	refuse_null(fcinfo, 3, "mode");
	refuse_null(fcinfo, 4, "parallel");
	refuse_null(fcinfo, 5, "results");
	mode = text_to_cstring(PG_GETARG_TEXT_PP(3));
	*parallel = PG_GETARG_INT32(4);
	if (strcmp(mode, "transaction") == 0)
		flags = BATCH_ONE;
	else if (strcmp(mode, "independent") == 0)
		flags = BATCH_EACH;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid mode of a batch: \"%s\"", mode),
				 errhint("It can be \"transaction\" (all or nothing) or \"independent\" (each statement for itself).")));
	if (*parallel < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"parallel\" of a batch must be at least 1, not %d", *parallel)));
	if (*parallel > 1 && flags == BATCH_ONE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a batch in one transaction has one connection"),
				 errdetail("\"parallel\" is %d.", *parallel),
				 errhint("Leave out \"parallel\", or set \"mode\" to 'independent'.")));
	return PG_GETARG_BOOL(5) ? flags | BATCH_ROWS : flags;
}

/*
 * dbpool_batch(pool name, statements text[], params jsonb[], mode text, parallel int,
 * results boolean) returns table (number, status, rows, result, sqlstate, message,
 * milliseconds)
 *
 * In mode 'transaction' all statements run in one transaction, which is committed at
 * the end; an error of one is thrown, with its number in the context, and nothing stays.
 * In mode 'independent' each is a transaction of its own, over up to "parallel"
 * connections, and errors are rows.  Rows come as statements end.
 *
 * Errors: those of dbpool_query(); 25000 for statements that end or begin a transaction,
 * 0A000 for COPY, before anything is sent; 08006 when the connection was lost before
 * COMMIT was sent, 08007 when after that.
 */
Datum
dbpool_batch(PG_FUNCTION_ARGS)
{
	StatementsRun *batch = palloc0(sizeof(StatementsRun));
	int			parallel;

	client_require_workers();
	batch->run.call.pool = batch_pool(fcinfo);
	refuse_null(fcinfo, 1, "statements");
	batch->run.call.batch = read_mode(fcinfo, &parallel);
	InitMaterializedSRF(fcinfo, 0);
	batch->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	batch->run.items = batch_items_make();
	batch->run.frame = statement_frame;
	batch->run.ended = statement_ended;
	batch->run.forget = forget_outcome;
	batch->run.unknown = put_unknown;
	batch->run.not_run = put_not_run;
	batch->run.text = statement_text;
	batch->run.unit = "statement";
	put_statements(batch, PG_GETARG_ARRAYTYPE_P(1),
				   PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2));
	if (batch->run.items->n > 0)
	{
		batch->run.call.shown = batch->texts[0];
		batch->modes = (batch->run.call.batch & BATCH_ROWS) ? modes_enter(true) : -1;
		batch_run(&batch->run, parallel);
		modes_leave(batch->modes);
	}
	tuplestore_end(batch->run.items->store);
	return (Datum) 0;
}
