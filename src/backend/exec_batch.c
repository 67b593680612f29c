/*
 * exec_batch.c
 *	  dbpool_exec_batch(): one statement for many rows of parameters, from an array or
 *	  from a local query.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "backend/batch.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(dbpool_exec_batch_query);
PG_FUNCTION_INFO_V1(dbpool_exec_batch_rows);

/* Rows of a query that are in memory at a time. */
#define PORTION_ROWS	500

typedef struct RowsRun
{
	BatchRun	run;			/* must be first */
	const char *sql;
	uint64		count;			/* rows that were affected */
	MemoryContext row_context;

	/*
	 * How the columns of the rows of that shape become text; all in its
	 * context.
	 */
	MemoryContext shape_context;
	TupleDesc	desc;
	FmgrInfo   *outputs;
	bool		money;			/* see modes_enter() */
	Datum	   *values;			/* of a row */
	bool	   *nulls;
} RowsRun;

static void
count_rows(BatchMember *member, char type, MessageReader *body)
{
	RowsRun    *batch = (RowsRun *) member->run;

	if (type == FRAME_TAG)
		message_get(body, &batch->count, sizeof(batch->count));
}

static const char *
row_text(BatchRun *run, uint64 number)
{
	(void) number;
	return ((RowsRun *) run)->sql;
}

/* --- rows become items ------------------------------------------------------------------ */

/* Rows of that shape come. */
static void
start_shape(RowsRun *batch, TupleDesc desc)
{
	MemoryContext old;

	MemoryContextReset(batch->shape_context);
	old = MemoryContextSwitchTo(batch->shape_context);
	desc = CreateTupleDescCopy(desc);
	batch->desc = desc;
	batch->outputs = palloc0(sizeof(FmgrInfo) * Max(desc->natts, 1));
	batch->values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	batch->nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
	batch->money = false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Oid			output;
		bool		varlena;

		if (att->attisdropped)
			continue;
		getTypeOutputInfo(att->atttypid, &output, &varlena);
		fmgr_info(output, &batch->outputs[i]);
		batch->money |= modes_money_type(att->atttypid);
	}
	MemoryContextSwitchTo(old);
}

/* The text of the first item; that of the others is the same. */
static const char *
item_text(const RowsRun *batch)
{
	return batch->run.items->n == 0 ? batch->sql : NULL;
}

static void
put_param_value(RowsRun *batch, FmgrInfo *output, Datum value, bool isnull)
{
	char	   *text;

	if (isnull)
	{
		batch_param(batch->run.items, NULL, 0);
		return;
	}
	text = OutputFunctionCall(output, value);
	batch_param(batch->run.items, text, strlen(text));
}

/* Its parameters, as they lie in values and nulls. */
static void
put_param_row(RowsRun *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->row_context);

	for (int i = 0; i < batch->desc->natts; i++)
	{
		if (!TupleDescAttr(batch->desc, i)->attisdropped)
			put_param_value(batch, &batch->outputs[i], batch->values[i], batch->nulls[i]);
	}
	batch_item(batch->run.items, item_text(batch));
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->row_context);
}

/* Rows of a table's type, or of no type's: each says which it is of. */
static void
put_composites(RowsRun *batch, const Datum *rows, int n)
{
	Oid			type = InvalidOid;
	int32		typmod = -1;

	for (int i = 0; i < n; i++)
	{
		HeapTupleHeader row = DatumGetHeapTupleHeader(rows[i]);
		HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row),.t_data = row};
		TupleDesc	desc;

		CHECK_FOR_INTERRUPTS();
		if (type != HeapTupleHeaderGetTypeId(row) || typmod != HeapTupleHeaderGetTypMod(row))
		{
			type = HeapTupleHeaderGetTypeId(row);
			typmod = HeapTupleHeaderGetTypMod(row);
			desc = lookup_rowtype_tupdesc(type, typmod);
			start_shape(batch, desc);
			ReleaseTupleDesc(desc);
		}
		heap_deform_tuple(&tuple, batch->desc, batch->values, batch->nulls);
		put_param_row(batch);
	}
}

static void
put_row_array(RowsRun *batch, ArrayType *array)
{
	Oid			element = ARR_ELEMTYPE(array);
	int16		len;
	bool		byval;
	char		align;
	Datum	   *rows;
	bool	   *nulls;
	int			n;
	int			level;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("\"rows\" must be a one-dimensional array"),
				 errhint("Make it of rows: ARRAY[ROW(1, 'one'), ROW(2, 'two')], or SELECT array_agg(t) FROM t.")));
	get_typlenbyvalalign(element, &len, &byval, &align);
	deconstruct_array(array, element, len, byval, align, &rows, &nulls, &n);
	for (int i = 0; i < n && type_is_rowtype(element); i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("row %d of the batch is null", i + 1),
					 errdetail("No statement was run.")));
	}
	level = modes_enter(modes_money_type(element) || type_is_rowtype(element));
	if (type_is_rowtype(element))
		put_composites(batch, rows, n);
	else
	{
		/* each is a row of one value */
		TupleDesc	desc = CreateTemplateTupleDesc(1);

		TupleDescInitEntry(desc, 1, "value", element, -1, 0);
		start_shape(batch, desc);
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			batch->values[0] = rows[i];
			batch->nulls[0] = nulls[i];
			put_param_row(batch);
		}
	}
	modes_leave(level);
}

/* A portion of a query's rows. */
static void
put_portion(RowsRun *batch, const SPITupleTable * table, uint64 n)
{
	int			level;

	if (batch->desc == NULL)
		start_shape(batch, table->tupdesc);
	level = modes_enter(batch->money);
	for (uint64 i = 0; i < n; i++)
	{
		heap_deform_tuple(table->vals[i], batch->desc, batch->values, batch->nulls);
		put_param_row(batch);
	}
	modes_leave(level);
}

static void
in_batch_query(void *arg)
{
	(void) arg;
	if (geterrcode() == ERRCODE_UNDEFINED_PARAMETER)
		errhint("The local query of a batch has no parameters. Put values into its text by format() with %%L.");
}

static Portal
open_query(const char *query)
{
	ErrorContextCallback context = {error_context_stack, in_batch_query, NULL};
	SPIPlanPtr	plan;
	Portal		portal;

	error_context_stack = &context;
	plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_NO_SCROLL);
	error_context_stack = context.previous;
	if (plan == NULL)
		elog(ERROR, "could not prepare the query of a batch: %s",
			 SPI_result_code_string(SPI_result));
	if (!SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a batch must be one statement that returns rows"),
				 errdetail("Its rows are the parameters of the remote statement. No statement was run."),
				 errhint("It can be a SELECT, VALUES, TABLE or WITH, or INSERT, UPDATE or DELETE with RETURNING.")));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	if (portal == NULL)
		elog(ERROR, "could not run the query of a batch: %s",
			 SPI_result_code_string(SPI_result));
	return portal;
}

static void
put_query(RowsRun *batch, const char *query)
{
	Portal		portal;

	SPI_connect();
	portal = open_query(query);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, PORTION_ROWS);
		if (SPI_processed == 0)
			break;
		put_portion(batch, SPI_tuptable, SPI_processed);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
}

/* --- the call ---------------------------------------------------------------------------- */

static RowsRun *
start(FunctionCallInfo fcinfo, const char *rows)
{
	RowsRun    *batch = palloc0(sizeof(RowsRun));

	client_require_workers();
	batch->run.call.pool = batch_pool(fcinfo);
	for (int i = 1; i <= 2; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("\"%s\" of a batch must not be null", i == 1 ? "sql" : rows)));
	}
	batch->sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	batch_check_text(batch->sql, 0);
	batch->run.call.shown = batch->sql;
	batch->run.call.batch_sql = batch->sql;
	batch->run.call.batch = BATCH_ONE | BATCH_SUM;
	batch->run.items = batch_items_make();
	batch->run.frame = count_rows;
	batch->run.text = row_text;
	batch->run.unit = "row";
	batch->shape_context = AllocSetContextCreate(CurrentMemoryContext, "dbpool shape",
												 ALLOCSET_DEFAULT_SIZES);
	batch->row_context = AllocSetContextCreate(CurrentMemoryContext, "dbpool row",
											   ALLOCSET_DEFAULT_SIZES);
	return batch;
}

static Datum
run_rows(RowsRun *batch)
{
	if (batch->run.items->n > 0)
		batch_run(&batch->run, 1);
	tuplestore_end(batch->run.items->store);
	PG_RETURN_INT64((int64) batch->count);
}

/*
 * dbpool_exec_batch(pool name, sql text, rows anyarray) returns bigint
 *
 * Runs the statement once for each row, whose columns are $1, $2, ..., in one remote
 * transaction; the elements of an array of another type are rows of one column.
 * Returns the rows affected by all together.  An error has the number of the row in its
 * context, and nothing stays.
 *
 * Errors: those of dbpool_batch() in one transaction.
 */
Datum
dbpool_exec_batch_rows(PG_FUNCTION_ARGS)
{
	RowsRun    *batch = start(fcinfo, "rows");

	put_row_array(batch, PG_GETARG_ARRAYTYPE_P(2));
	return run_rows(batch);
}

/*
 * dbpool_exec_batch(pool name, sql text, query text) returns bigint
 *
 * The same with the rows of a local query.  It is run to its end, as the caller,
 * before a connection is asked for.
 */
Datum
dbpool_exec_batch_query(PG_FUNCTION_ARGS)
{
	RowsRun    *batch = start(fcinfo, "query");

	put_query(batch, text_to_cstring(PG_GETARG_TEXT_PP(2)));
	return run_rows(batch);
}
