/*
 * result.c
 *	  The rows of an answer become a set that a function returns, or a value.
 *
 * Values come as text, which the input functions of their types take, or in
 * binary, for the receive functions.  What holds text is not left to the latter:
 * they would take it for the encoding of this session's client.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "backend/result.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * Name of a type for errors, which cannot look it up when they come.  The last
 * few are kept, as most statements return the same few types.
 */
static const char *
type_name_of(Oid type, int32 typmod)
{
	static struct
	{
		Oid			type;
		int32		typmod;
		char		name[NAMEDATALEN];
	}			kept[16];
	int			i = (type ^ (uint32) typmod) % lengthof(kept);

	if (kept[i].type != type || kept[i].typmod != typmod)
	{
		char	   *name = format_type_with_typemod(type, typmod);

		if (type >= FirstNormalObjectId || strlen(name) >= NAMEDATALEN)
			return name;
		strlcpy(kept[i].name, name, NAMEDATALEN);
		kept[i].type = type;
		kept[i].typmod = typmod;
	}
	return pstrdup(kept[i].name);
}

/* What comes in binary for a type that binary_type() has. */
static ColumnForm
binary_reader(Oid type)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
			return FORM_TEXT;
		case JSONBOID:
			return FORM_JSONB;
		default:
			return FORM_BINARY;
	}
}

static void
start_columns(ResultSink *sink, int ncolumns)
{
	int			col = 0;
	bool		money = false;

	sink->ncolumns = ncolumns;
	sink->columns = palloc0(sizeof(Column) * Max(ncolumns, 1));
	sink->values = palloc0(sizeof(Datum) * Max(sink->desc->natts, 1));
	sink->nulls = palloc0(sizeof(bool) * Max(sink->desc->natts, 1));
	for (int i = 0; i < sink->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(sink->desc, i);
		Column	   *column = &sink->columns[col];
		Oid			input;

		sink->nulls[i] = true;
		if (att->attisdropped)
			continue;
		column->att = i;
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->type_name = type_name_of(att->atttypid, att->atttypmod);
		column->form = sink->binary ? binary_reader(att->atttypid) : FORM_TEXT;
		if (column->form == FORM_BINARY)
			getTypeBinaryInputInfo(att->atttypid, &input, &column->ioparam);
		else
			getTypeInputInfo(att->atttypid, &input, &column->ioparam);
		fmgr_info(input, &column->input);
		money |= modes_money_type(att->atttypid);
		col++;
	}
	if (sink->modes < 0 && !sink->binary)
		sink->modes = modes_enter(money);
}

/* to_jsonb() wants to know the type of its argument from the call's expression. */
static void
start_json(ResultSink *sink)
{
	Const	   *arg = makeNullConst(RECORDOID, -1, InvalidOid);
	FuncExpr   *expr = makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(arg),
									InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);

	fmgr_info(F_TO_JSONB, &sink->to_jsonb);
	fmgr_info_set_expr((Node *) expr, &sink->to_jsonb);
}

static void
make_store(ResultSink *sink)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) sink->fcinfo->resultinfo;
	MemoryContext old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

	sink->store = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
										false, work_mem);
	if (sink->form == RESULT_JSON)
	{
		sink->store_desc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(sink->store_desc, 1, "dbpool_query_json", JSONBOID, -1, 0);
	}
	else
		sink->store_desc = CreateTupleDescCopy(sink->desc);
	MemoryContextSwitchTo(old);
}

static void
take_shape(ResultSink *sink, MessageReader *body)
{
	MemoryContext old = MemoryContextSwitchTo(sink->context);
	int			ncolumns = result_take_shape(sink, body);

	if (sink->form == RESULT_JSON)
		start_json(sink);
	start_columns(sink, ncolumns);
	if (sink->form != RESULT_VALUE && sink->json == NULL)
		make_store(sink);
	MemoryContextSwitchTo(old);
}

static void
put_json(ResultSink *sink)
{
	HeapTuple	tuple = heap_form_tuple(sink->desc, sink->values, sink->nulls);
	Datum		json = FunctionCall1(&sink->to_jsonb, HeapTupleGetDatum(tuple));
	bool		isnull = false;

	if (sink->json == NULL)
		tuplestore_putvalues(sink->store, sink->store_desc, &json, &isnull);
	else
	{
		Jsonb	   *row = DatumGetJsonbP(json);

		appendStringInfoString(sink->json, sink->row > 1 ? ", " : "");
		(void) JsonbToCString(sink->json, &row->root, VARSIZE(row));
	}
}

/* Keep the row as the value that is returned, if it is the first one. */
static void
put_value(ResultSink *sink)
{
	MemoryContext old;

	if (sink->row > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("the statement on pool \"%s\" returned more than one row",
						sink->call->pool),
				 errdetail("A single value was asked for. The statement may have run."),
				 errhint("Use dbpool_query_as() for several rows, or have the statement return one.")));
	old = MemoryContextSwitchTo(sink->context);
	if (sink->scalar)
	{
		Form_pg_attribute att = TupleDescAttr(sink->desc, 0);

		sink->isnull = sink->nulls[0];
		if (!sink->isnull)
			sink->value = datumCopy(sink->values[0], att->attbyval, att->attlen);
	}
	else
	{
		sink->isnull = false;
		sink->value = HeapTupleGetDatum(heap_form_tuple(sink->desc, sink->values,
														sink->nulls));
	}
	MemoryContextSwitchTo(old);
}

static void
store_row(ResultSink *sink)
{
	if (OidIsValid(sink->domain))
	{
		HeapTuple	tuple = heap_form_tuple(sink->desc, sink->values, sink->nulls);

		domain_check(HeapTupleGetDatum(tuple), false, sink->domain, NULL, NULL);
	}
	if (sink->form == RESULT_JSON)
		put_json(sink);
	else if (sink->form == RESULT_VALUE)
		put_value(sink);
	else
		tuplestore_putvalues(sink->store, sink->store_desc, sink->values, sink->nulls);
}

/* A value from its bytes, behind which there is a zero. */
static Datum
make_value(Column *column, char *bytes, int len)
{
	StringInfoData buf = {.data = bytes,.len = len,.maxlen = len + 1};
	Datum		value;

	if (column->form == FORM_BINARY)
	{
		value = ReceiveFunctionCall(&column->input, &buf, column->ioparam, column->typmod);
		if (buf.cursor != len)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
					 errmsg("incorrect binary data format")));
		return value;
	}
	if (column->form == FORM_JSONB)
	{
		if (len < 1 || bytes[0] != 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
					 errmsg("unsupported jsonb version")));
		bytes++;
		len--;
	}
	pg_verifymbstr(bytes, len, false);
	return InputFunctionCall(&column->input, bytes, column->ioparam, column->typmod);
}

static void
read_row(ResultSink *sink, MessageReader *body)
{
	MemoryContext old = MemoryContextSwitchTo(sink->row_context);

	sink->row++;
	for (int i = 0; i < sink->ncolumns; i++)
	{
		Column	   *column = &sink->columns[i];
		int32		len = message_get_int32(body);

		sink->column = i;
		sink->nulls[column->att] = len < 0;

		/*
		 * that of a domain may object to a null, the others are not even
		 * called
		 */
		if (len < 0)
			sink->values[column->att] = InputFunctionCall(&column->input, NULL,
														  column->ioparam, column->typmod);
		else
		{
			char	   *bytes = unconstify(char *, body->at);

			if (len + 1 > body->end - body->at)
				elog(ERROR, "dbpool message is shorter than it says");
			body->at += len + 1;
			sink->values[column->att] = make_value(column, bytes, len);
		}
	}
	sink->column = -1;
	store_row(sink);
	MemoryContextSwitchTo(old);
	MemoryContextReset(sink->row_context);
}

/* The statement is run again: what came so far is void. */
static void
start_over(ResultSink *sink)
{
	if (sink->store != NULL)
		tuplestore_end(sink->store);
	sink->store = NULL;
	sink->isnull = true;
	sink->row = 0;
	if (!sink->declared)
		sink->desc = NULL;
}

static void
result_frame(AnswerSink *base, char type, MessageReader *body)
{
	ResultSink *sink = (ResultSink *) base;

	if (type == FRAME_SHAPE)
		take_shape(sink, body);
	else if (type == FRAME_ROW)
		read_row(sink, body);
	else if (type == FRAME_RESTART)
		start_over(sink);
}

/* For an error while a value is made: which value. */
static void
in_context(void *arg)
{
	ResultSink *sink = arg;
	Column	   *column;

	if (sink->column < 0)
		return;
	column = &sink->columns[sink->column];
	errcontext("column \"%s\" of type %s in row " UINT64_FORMAT " of the result of pool \"%s\"",
			   NameStr(TupleDescAttr(sink->desc, column->att)->attname),
			   column->type_name, sink->row, sink->call->pool);
}

/* Run a statement into a sink for its rows; what it returned is in the sink. */
static void
run_into(ResultSink *sink, FunctionCallInfo fcinfo, Call *call, ResultForm form)
{
	ErrorContextCallback context;

	memset(sink, 0, sizeof(ResultSink));
	sink->sink.frame = result_frame;
	sink->call = call;
	sink->fcinfo = fcinfo;
	sink->form = form;
	sink->isnull = true;
	sink->modes = -1;
	sink->column = -1;
	sink->context = CurrentMemoryContext;
	sink->row_context = AllocSetContextCreate(sink->context, "dbpool row",
											  ALLOCSET_DEFAULT_SIZES);
	result_expect(sink, call);

	context.callback = in_context;
	context.arg = sink;
	context.previous = error_context_stack;
	error_context_stack = &context;
	client_run(call, &sink->sink);
	error_context_stack = context.previous;
	modes_leave(sink->modes);
	MemoryContextDelete(sink->row_context);
}

/*
 * A sink for the rows of one statement of a batch, as an array of JSON objects whose
 * elements go into json.  What is made is in the current memory context; modes as in
 * ResultSink.
 */
void
result_start_array(ResultSink *sink, const Call *call, StringInfo json, int modes)
{
	memset(sink, 0, sizeof(ResultSink));
	sink->sink.frame = result_frame;
	sink->call = call;
	sink->form = RESULT_JSON;
	sink->json = json;
	sink->isnull = true;
	sink->modes = modes;
	sink->column = -1;
	sink->context = CurrentMemoryContext;
	sink->row_context = AllocSetContextCreate(sink->context, "dbpool row",
											  ALLOCSET_DEFAULT_SIZES);
}

/*
 * Run a statement and return its rows in materialize mode; they go to a
 * tuplestore, which spills to disk beyond work_mem.
 */
void
result_return_set(FunctionCallInfo fcinfo, Call *call, ResultForm form)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ResultSink	sink;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		!(rsinfo->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	run_into(&sink, fcinfo, call, form);
	if (sink.store == NULL)
	{
		/* the statement returned no rows and no columns, as an UPDATE does */
		if (sink.desc == NULL)
			sink.desc = BlessTupleDesc(CreateTemplateTupleDesc(0));
		if (!sink.declared && form != RESULT_JSON)
			result_check_same_shape(&sink);
		make_store(&sink);
	}
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = sink.store;
	if (rsinfo->expectedDesc == NULL)
		rsinfo->setDesc = sink.store_desc;
}

/*
 * Run a statement and return the one value, of the type of the function's first
 * argument, or row that it returns, in the caller's memory context; NULL without
 * a row.
 */
Datum
result_return_value(FunctionCallInfo fcinfo, Call *call)
{
	ResultSink	sink;

	run_into(&sink, fcinfo, call, RESULT_VALUE);
	if (sink.isnull)
		PG_RETURN_NULL();
	return sink.value;
}
