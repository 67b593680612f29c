/*
 * result.c
 *	  The rows of an answer become a set that a function returns.
 *
 * Values come as text and are made by the input functions of the types that
 * the caller declared, or, with no declaration, of the types that the remote
 * names if they are built in, and text otherwise.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/tupdesc.h"
#include "backend/client.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

/* A column of the remote's result, and how to make a value of it. */
typedef struct Column
{
	int			att;			/* index in desc */
	Oid			type;
	int32		typmod;
	const char *type_name;		/* for errors */
	Oid			ioparam;
	FmgrInfo	input;
} Column;

typedef struct ResultSink
{
	AnswerSink	sink;			/* must be first */
	const Call *call;
	FunctionCallInfo fcinfo;
	ResultForm	form;
	TupleDesc	desc;			/* of a row; NULL until it is known */
	bool		declared;		/* by the caller, not the remote */
	Oid			domain;			/* over the row's composite type, or 0 */
	Tuplestorestate *store;
	TupleDesc	store_desc;
	Column	   *columns;
	int			ncolumns;
	Datum	   *values;
	bool	   *nulls;
	FmgrInfo	to_jsonb;
	MemoryContext context;		/* of all this: the caller's */
	MemoryContext row_context;	/* of the row in hand */
	int			modes;			/* see modes_enter() */
	uint64		row;			/* number of the row in hand, from 1 */
	int			column;			/* the one in hand, or -1 */
} ResultSink;

/*
 * Types that exist here under the same OID but whose text does not mean the
 * same, or whose input function takes nothing: names of other objects, and
 * what only the planner and the like make.
 */
static bool
is_foreign_to_us(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case ACLITEMOID:
		case PG_NODE_TREEOID:
		case PG_NDISTINCTOID:
		case PG_DEPENDENCIESOID:
		case PG_MCV_LISTOID:
		case PG_BRIN_BLOOM_SUMMARYOID:
		case PG_BRIN_MINMAX_MULTI_SUMMARYOID:
		case GTSVECTOROID:
			return true;
		default:
			return false;
	}
}

/* The local type for a type of the remote's. */
static Oid
local_type(Oid remote)
{
	Oid			element;
	char		kind;

	if (remote >= FirstGenbkiObjectId || is_foreign_to_us(remote))
		return TEXTOID;
	kind = get_typtype(remote);
	if (kind != TYPTYPE_BASE && kind != TYPTYPE_RANGE && kind != TYPTYPE_MULTIRANGE)
		return TEXTOID;
	element = get_element_type(remote);
	if (OidIsValid(element) && local_type(element) != element)
		return TEXTOID;
	return remote;
}

/* The columns of the declared row, as a list for an error. */
static char *
describe(TupleDesc desc)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped)
			appendStringInfo(&buf, "%s%s %s", buf.len > 0 ? ", " : "",
							 quote_identifier(NameStr(att->attname)),
							 format_type_with_typemod(att->atttypid, att->atttypmod));
	}
	return buf.data;
}

/* The row description that the remote sent, with local types. */
static TupleDesc
read_shape(MessageReader *body)
{
	uint32		n;
	TupleDesc	desc;

	message_get(body, &n, sizeof(n));
	if (n > MaxTupleAttributeNumber)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("remote result has %u columns", n),
				 errdetail("At most %d are possible.", MaxTupleAttributeNumber)));
	desc = CreateTemplateTupleDesc((int) n);
	for (int i = 0; i < (int) n; i++)
	{
		Oid			remote = (Oid) message_get_int32(body);
		int32		typmod = message_get_int32(body);
		const char *name = message_get_string(body);
		Oid			type = local_type(remote);

		if (!pg_verifymbstr(name, strlen(name), true))
			name = psprintf("column%d", i + 1);
		TupleDescInitEntry(desc, (AttrNumber) (i + 1), name, type,
						   type == remote ? typmod : -1, 0);
	}
	return desc;
}

static void
check_columns(ResultSink *sink, TupleDesc remote)
{
	int			live = 0;

	for (int i = 0; i < sink->desc->natts; i++)
		live += !TupleDescAttr(sink->desc, i)->attisdropped;
	if (live != remote->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("wrong number of columns in the result of pool \"%s\": %d, expected %d",
						sink->call->pool, remote->natts, live),
				 errdetail("The result is (%s), expected is (%s).",
						   describe(remote), describe(sink->desc)),
				 errhint("Change the column definition list, or the statement.")));
}

/*
 * Calls of one place in a query must all give rows of the same shape: the
 * executor remembers the first one's, and would take later rows for such.
 */
static void
check_same_shape(ResultSink *sink)
{
	FmgrInfo   *flinfo = sink->fcinfo->flinfo;
	TupleDesc	before = flinfo->fn_extra;

	if (before == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(flinfo->fn_mcxt);

		flinfo->fn_extra = CreateTupleDescCopy(sink->desc);
		MemoryContextSwitchTo(old);
		return;
	}
	for (int i = 0; i < Min(before->natts, sink->desc->natts); i++)
	{
		if (TupleDescAttr(before, i)->atttypid != TupleDescAttr(sink->desc, i)->atttypid)
			before = NULL;
		if (before == NULL)
			break;
	}
	if (before == NULL || before->natts != sink->desc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("results of pool \"%s\" differ in shape from call to call",
						sink->call->pool),
				 errdetail("One result is (%s), an earlier one was (%s).",
						   describe(sink->desc), describe(flinfo->fn_extra)),
				 errhint("Use dbpool_query() in FROM with a column definition list, or dbpool_query_json().")));
}

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
		getTypeInputInfo(att->atttypid, &input, &column->ioparam);
		fmgr_info(input, &column->input);
		money |= modes_money_type(att->atttypid);
		col++;
	}
	if (sink->modes < 0)
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
	TupleDesc	remote = read_shape(body);

	if (sink->declared)
		check_columns(sink, remote);
	else
	{
		sink->desc = BlessTupleDesc(remote);
		if (sink->form != RESULT_JSON)
			check_same_shape(sink);
	}
	if (sink->form == RESULT_JSON)
		start_json(sink);
	start_columns(sink, remote->natts);
	make_store(sink);
	MemoryContextSwitchTo(old);
}

static void
put_json(ResultSink *sink)
{
	HeapTuple	tuple = heap_form_tuple(sink->desc, sink->values, sink->nulls);
	Datum		json = FunctionCall1(&sink->to_jsonb, HeapTupleGetDatum(tuple));
	bool		isnull = false;

	tuplestore_putvalues(sink->store, sink->store_desc, &json, &isnull);
}

static void
put_row(ResultSink *sink)
{
	if (sink->form == RESULT_JSON)
		put_json(sink);
	else
	{
		if (OidIsValid(sink->domain))
		{
			HeapTuple	tuple = heap_form_tuple(sink->desc, sink->values, sink->nulls);

			domain_check(HeapTupleGetDatum(tuple), false, sink->domain, NULL, NULL);
		}
		tuplestore_putvalues(sink->store, sink->store_desc, sink->values, sink->nulls);
	}
}

static void
take_row(ResultSink *sink, MessageReader *body)
{
	MemoryContext old = MemoryContextSwitchTo(sink->row_context);

	sink->row++;
	for (int i = 0; i < sink->ncolumns; i++)
	{
		Column	   *column = &sink->columns[i];
		int32		len = message_get_int32(body);
		char	   *text = NULL;

		sink->column = i;
		if (len >= 0)
		{
			text = unconstify(char *, body->at);

			if (len + 1 > body->end - body->at)
				elog(ERROR, "dbpool message is shorter than it says");
			body->at += len + 1;
			pg_verifymbstr(text, len, false);
		}
		sink->values[column->att] = InputFunctionCall(&column->input, text,
													  column->ioparam, column->typmod);
		sink->nulls[column->att] = text == NULL;
	}
	sink->column = -1;
	put_row(sink);
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
	sink->row = 0;
	if (!sink->declared)
		sink->desc = NULL;
}

static void
take_frame(AnswerSink *base, char type, MessageReader *body)
{
	ResultSink *sink = (ResultSink *) base;

	if (type == FRAME_SHAPE)
		take_shape(sink, body);
	else if (type == FRAME_ROW)
		take_row(sink, body);
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

/* The row that the caller declared, if it did. */
static void
find_declaration(ResultSink *sink)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) sink->fcinfo->resultinfo;
	Oid			type;
	TupleDesc	desc = NULL;

	if (sink->form == RESULT_JSON)
		return;
	if (sink->form == RESULT_RECORD)
	{
		sink->declared = rsinfo->expectedDesc != NULL;
		sink->desc = rsinfo->expectedDesc;
		return;
	}
	switch (get_call_result_type(sink->fcinfo, &type, &desc))
	{
		case TYPEFUNC_COMPOSITE_DOMAIN:
			sink->domain = type;
			break;
		case TYPEFUNC_COMPOSITE:
			break;
		case TYPEFUNC_SCALAR:
			desc = CreateTemplateTupleDesc(1);
			TupleDescInitEntry(desc, 1, "value", type, -1, 0);
			break;
		default:
			desc = rsinfo->expectedDesc;
			break;
	}
	sink->declared = desc != NULL;
	sink->desc = desc;
}

/*
 * Run a statement and return its rows in materialize mode; they go to a
 * tuplestore, which spills to disk beyond work_mem.
 */
void
result_return_set(FunctionCallInfo fcinfo, const Call *call, ResultForm form)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ResultSink	sink;
	ErrorContextCallback context;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		!(rsinfo->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	memset(&sink, 0, sizeof(sink));
	sink.sink.frame = take_frame;
	sink.call = call;
	sink.fcinfo = fcinfo;
	sink.form = form;
	sink.modes = -1;
	sink.column = -1;
	sink.context = CurrentMemoryContext;
	sink.row_context = AllocSetContextCreate(sink.context, "dbpool row",
											 ALLOCSET_DEFAULT_SIZES);
	find_declaration(&sink);

	context.callback = in_context;
	context.arg = &sink;
	context.previous = error_context_stack;
	error_context_stack = &context;
	client_run(call, &sink.sink);
	error_context_stack = context.previous;
	modes_leave(sink.modes);

	if (sink.store == NULL)
	{
		/* the statement returned no rows and no columns, as an UPDATE does */
		if (sink.desc == NULL)
			sink.desc = BlessTupleDesc(CreateTemplateTupleDesc(0));
		if (!sink.declared && form != RESULT_JSON)
			check_same_shape(&sink);
		make_store(&sink);
	}
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = sink.store;
	if (rsinfo->expectedDesc == NULL)
		rsinfo->setDesc = sink.store_desc;
	MemoryContextDelete(sink.row_context);
}
