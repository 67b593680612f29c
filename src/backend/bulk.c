/*
 * bulk.c
 *	  dbpool_bulk_insert(): rows of a local query go into a remote table.
 *
 * The remote is asked for the types of the table's columns first.  Do they agree
 * with the query's, the rows go in the binary format of COPY (bulk_rows.c),
 * which must not be given to columns of other types: four bytes are a number
 * for any type of that length.  So the statement that starts such a COPY also
 * looks at the types once more, with the table locked, and fails if they are
 * not the same any longer.
 */
#include "postgres.h"

#include "backend/bulk.h"
#include "catalog/pg_type.h"
#include "ipc/binary.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(dbpool_bulk_insert);

/* The table, and those of its columns that are to be filled. */
typedef struct Target
{
	char	   *name;			/* as SQL, each part quoted */
	const char *shown;			/* for people */
	int			ncolumns;		/* -1: all that COPY takes by default */
	char	  **columns;
} Target;

/* The remote waits for rows: run the query. */
static void
give_rows(RowSource *source, Client *client, int columns)
{
	Bulk	   *bulk = (Bulk *) ((char *) source - offsetof(Bulk, source));
	SPIExecuteOptions options = {0};
	int			status;

	if (columns != bulk->desc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg_plural("the query returns %d column, but %d of table %s are to be filled",
							   "the query returns %d columns, but %d of table %s are to be filled",
							   bulk->desc->natts, bulk->desc->natts, columns, bulk->call.target),
				 errdetail("No row was inserted."),
				 errhint("Name the table's columns in the argument \"columns\", or change the query.")));
	bulk->client = client;
	bulk->asked = true;
	options.dest = &bulk->dest;
	status = SPI_execute_plan_extended(bulk->plan, &options);
	if (status < 0)
		elog(ERROR, "could not run the query of a bulk insert: %s",
			 SPI_result_code_string(status));
}

static void
bulk_frame(AnswerSink *sink, char type, MessageReader *body)
{
	Bulk	   *bulk = (Bulk *) ((char *) sink - offsetof(Bulk, sink));

	if (type == FRAME_TAG)
		message_get(body, &bulk->count, sizeof(bulk->count));
}

/* --- the target -------------------------------------------------------------- */

/* Quoted whatever it is: the remote may have words that are reserved there. */
static void
append_identifier(StringInfo buf, const char *name)
{
	appendStringInfoChar(buf, '"');
	for (; *name != '\0'; name++)
	{
		if (*name == '"')
			appendStringInfoChar(buf, '"');
		appendStringInfoChar(buf, *name);
	}
	appendStringInfoChar(buf, '"');
}

static void
read_table(Target *target, const char *table)
{
	StringInfoData buf;
	List	   *names;
	ListCell   *cell;

	if (!SplitIdentifierString(pstrdup(table), '.', &names) ||
		list_length(names) < 1 || list_length(names) > 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a table: \"%s\"", table),
				 strchr(table, '(') != NULL ?
				 errhint("The columns that are to be filled go into the argument \"columns\": columns => '{a,b}'.") :
				 errhint("Write it as in SQL: \"mytable\", \"myschema.mytable\", or with parts in double quotes.")));
	initStringInfo(&buf);
	foreach(cell, names)
	{
		if (cell != list_head(names))
			appendStringInfoChar(&buf, '.');
		append_identifier(&buf, lfirst(cell));
	}
	target->name = buf.data;
	target->shown = list_length(names) == 1 ? quote_identifier(linitial(names)) :
		quote_qualified_identifier(linitial(names), lsecond(names));
}

static void
read_columns(Target *target, ArrayType *columns)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(columns, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	if (n == 0 || ARR_NDIM(columns) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"columns\" must be a one-dimensional array of names"),
				 errhint("Leave it out for all columns of the table.")));
	target->ncolumns = n;
	target->columns = palloc(sizeof(char *) * n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("\"columns\" must not contain nulls")));
		target->columns[i] = TextDatumGetCString(names[i]);
	}
}

/* COPY table (columns) FROM STDIN */
static char *
copy_statement(const Target *target)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "COPY %s", target->name);
	for (int i = 0; i < target->ncolumns; i++)
	{
		appendStringInfoString(&buf, i == 0 ? " (" : ", ");
		append_identifier(&buf, target->columns[i]);
	}
	if (target->ncolumns > 0)
		appendStringInfoChar(&buf, ')');
	appendStringInfoString(&buf, " FROM STDIN");
	return buf.data;
}

/*
 * A query for the types of the columns to be filled, as an array of OIDs: null
 * if there is no such table or none that one can be sure of.
 */
static char *
types_query(const Target *target)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (target->ncolumns < 0)
		appendStringInfoString(&buf,
							   "SELECT pg_catalog.array_agg(a.atttypid ORDER BY a.attnum) "
							   "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a "
							   "ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 "
							   "AND NOT a.attisdropped AND a.attgenerated OPERATOR(pg_catalog.=) ''");
	else
	{
		appendStringInfoString(&buf,
							   "SELECT pg_catalog.array_agg(a.atttypid ORDER BY n.number) "
							   "FROM pg_catalog.pg_class c CROSS JOIN pg_catalog.unnest(ARRAY[");
		for (int i = 0; i < target->ncolumns; i++)
			appendStringInfo(&buf, "%s%s", i == 0 ? "" : ", ",
							 quote_literal_cstr(target->columns[i]));
		appendStringInfoString(&buf,
							   "]::pg_catalog.name[]) WITH ORDINALITY AS n(name, number) "
							   "LEFT JOIN pg_catalog.pg_attribute a "
							   "ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 "
							   "AND a.attname OPERATOR(pg_catalog.=) n.name");
	}
	appendStringInfo(&buf,
					 " WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}') "
					 "AND c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%s)",
					 quote_literal_cstr(target->name));
	return buf.data;
}

/* --- the format -------------------------------------------------------------- */

typedef struct TypesSink
{
	AnswerSink	sink;			/* must be first */
	char	   *types;			/* what the query gave, or NULL */
} TypesSink;

static void
take_types(AnswerSink *sink, char type, MessageReader *body)
{
	if (type == FRAME_ROW && message_get_int32(body) >= 0)
		((TypesSink *) sink)->types = pstrdup(message_get_string(body));
}

/* Do the query's columns have the types that the remote has said it has? */
static bool
is_still_of_types(const Bulk *bulk, const char *types)
{
	const char *at = types;

	for (int i = 0; i < bulk->desc->natts; i++)
	{
		char	   *end;
		Oid			there;

		/* one more number, behind the brace or a comma */
		if (*at == '\0' || *at == '}')
			return false;
		there = (Oid) strtoul(at + 1, &end, 10);
		if (end == at + 1 ||
			!binary_types_agree(TupleDescAttr(bulk->desc, i)->atttypid, there))
			return false;
		at = end;
	}
	return *at == '}';
}

/* May all columns go in binary?  Then so they will. */
static void
choose_format(Bulk *bulk, const Target *target)
{
	char	   *query = types_query(target);
	TypesSink	sink = {{take_types}, NULL};
	Call		call = {.pool = bulk->call.pool,.kind = REQUEST_QUERY,.sql = query};

	for (int i = 0; i < bulk->desc->natts; i++)
	{
		Oid			type = TupleDescAttr(bulk->desc, i)->atttypid;

		if (!OidIsValid(binary_type(type)))
			return;
	}
	client_run(&call, &sink.sink);
	if (sink.types == NULL || !is_still_of_types(bulk, sink.types))
		return;
	bulk->binary = true;
	bulk->call.shown = bulk->call.sql;
	/* EXPLAIN locks the table as COPY will, and needs no other right */
	bulk->call.sql = psprintf("EXPLAIN INSERT INTO %s DEFAULT VALUES; "
							  "SELECT (CASE WHEN (%s) OPERATOR(pg_catalog.=) '%s' THEN '0' "
							  "ELSE 'the columns of the table have just changed' END)::pg_catalog.int4; "
							  "%s (FORMAT binary)",
							  target->name, query, sink.types, bulk->call.sql);
}

/* --- the call ---------------------------------------------------------------- */

/* An argument that has to be there. */
static text *
text_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the %s of a bulk insert must not be null", what)));
	return PG_GETARG_TEXT_PP(n);
}

static void
in_query(void *arg)
{
	(void) arg;
	if (geterrcode() == ERRCODE_UNDEFINED_PARAMETER)
		errhint("A bulk insert's query has no parameters. Put values into its text by format() with %%L.");
}

/* Prepare the local query: one statement that returns rows. */
static void
prepare_query(Bulk *bulk, const char *query)
{
	ErrorContextCallback context = {error_context_stack, in_query, NULL};
	List	   *sources;
	CachedPlanSource *source;

	error_context_stack = &context;
	bulk->plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_PARALLEL_OK);
	error_context_stack = context.previous;
	if (bulk->plan == NULL)
		elog(ERROR, "could not prepare the query of a bulk insert: %s",
			 SPI_result_code_string(SPI_result));
	sources = SPI_plan_get_plan_sources(bulk->plan);
	if (list_length(sources) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a bulk insert must be one statement, not %d",
						list_length(sources))));
	source = linitial(sources);
	if (source->resultDesc == NULL || source->query_list == NIL ||
		linitial_node(Query, source->query_list)->commandType == CMD_UTILITY)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a bulk insert must return rows"),
				 errhint("It can be a SELECT, VALUES, TABLE or WITH, or INSERT, UPDATE or DELETE with RETURNING.")));
	bulk->desc = source->resultDesc;
}

/*
 * dbpool_bulk_insert(pool name, target text, query text, columns text[])
 * returns bigint
 *
 * Runs the query here, as the caller, and inserts its rows into the remote table
 * by one COPY FROM STDIN: all of them or none.  target is a name as in SQL, with
 * or without schema; columns are names as they are, not quoted, or NULL for all
 * that the remote's COPY takes by default.  Values are read by the types of the
 * remote's columns.  Returns the rows that the remote has counted, which are
 * fewer than the query's if a trigger there left some out.
 *
 * The query is prepared before a connection is asked for, and runs when the
 * remote is ready for its rows; meanwhile the connection is its own.
 *
 * Errors: those of the query, and of the remote with its CONTEXT (line and
 * column of the COPY); those of dbpool_query(); 42602 for a target that is no
 * name; 42601 for a query that is not one statement with rows; 42804 for a wrong
 * number of columns; 08006 when the connection was lost before the last row was
 * sent, when none was inserted; 08007 when it was lost after that.
 */
Datum
dbpool_bulk_insert(PG_FUNCTION_ARGS)
{
	Bulk	   *bulk;
	Target		target = {.ncolumns = -1};
	char	   *query;

	client_require_workers();
	client_refuse_read_only("dbpool_bulk_insert()");
	bulk = palloc0(sizeof(Bulk));
	bulk->call.pool = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	if (bulk->call.pool == NULL || bulk->call.pool[0] == '\0')
		(void) definition_server(bulk->call.pool, false);
	read_table(&target, text_to_cstring(text_argument(fcinfo, 1, "target")));
	query = text_to_cstring(text_argument(fcinfo, 2, "query"));
	if (!PG_ARGISNULL(3))
		read_columns(&target, PG_GETARG_ARRAYTYPE_P(3));

	bulk->source.give = give_rows;
	bulk->sink.frame = bulk_frame;
	bulk->call.kind = REQUEST_COPY;
	bulk->call.sql = copy_statement(&target);
	bulk->call.rows = &bulk->source;
	bulk->call.target = target.shown;
	bulk_init_receiver(bulk);

	SPI_connect();
	prepare_query(bulk, query);
	if (target.ncolumns >= 0 && target.ncolumns != bulk->desc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the query returns %d columns, but \"columns\" names %d",
						bulk->desc->natts, target.ncolumns)));
	choose_format(bulk, &target);
	client_run(&bulk->call, &bulk->sink);
	SPI_finish();
	if (!bulk->asked)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the remote server of pool \"%s\" broke the protocol",
						bulk->call.pool),
				 errdetail("It ended COPY without asking for rows.")));
	PG_RETURN_INT64((int64) bulk->count);
}
