/*
 * result_shape.c
 *	  The row that a caller expects, the row that the remote describes, and
 *	  whether the one fits the other.
 *
 * With no declaration of the caller's, columns have the types that the remote
 * names if they are built in, and text otherwise.
 *
 * Values come in binary when the caller declared types that the worker knows to
 * be those of the remote's columns (ipc/binary.h).  That is looked at once more
 * before the first row, as no receive function notices that it is given bytes
 * of another type.
 */
#include "postgres.h"

#include "access/transam.h"
#include "backend/result.h"
#include "backend/text.h"
#include "catalog/pg_type.h"
#include "ipc/binary.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

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
describe_columns(TupleDesc desc)
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
read_shape(ResultSink *sink, MessageReader *body)
{
	uint32		n;
	TupleDesc	desc;

	message_get(body, &n, sizeof(n));
	sink->binary = message_get_int32(body) != 0;
	sink->unsure = false;
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
		const char *whole = message_get_string(body);
		Oid			type = local_type(remote);
		char		name[NAMEDATALEN];

		/* in our encoding it may be longer than names are */
		if (pg_verifymbstr(whole, strlen(whole), true))
			text_clip(name, whole, sizeof(name));
		else
			snprintf(name, sizeof(name), "column%d", i + 1);
		TupleDescInitEntry(desc, (AttrNumber) (i + 1), name, type,
						   type == remote ? typmod : -1, 0);
		sink->unsure |= !OidIsValid(binary_type(remote));
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
						   describe_columns(remote), describe_columns(sink->desc)),
				 sink->form == RESULT_RECORD ?
				 errhint("Change the column definition list, or the statement.") :
				 errhint("Change the type that is asked for, or the statement.")));
}

/*
 * The worker asks for binary when the types are known, but behind a pooler the
 * statement may be one that was prepared elsewhere at another time.
 */
static void
check_binary(ResultSink *sink, TupleDesc remote)
{
	bool		agree = !sink->unsure;
	int			col = 0;

	for (int i = 0; i < sink->desc->natts && agree; i++)
	{
		if (!TupleDescAttr(sink->desc, i)->attisdropped)
			agree = binary_types_agree(TupleDescAttr(sink->desc, i)->atttypid,
									   TupleDescAttr(remote, col++)->atttypid);
	}
	if (!agree)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the types of the result of pool \"%s\" have just changed",
						sink->call->pool),
				 errdetail("The result is (%s), expected is (%s).",
						   describe_columns(remote), describe_columns(sink->desc)),
				 errhint("The statement may have run. Call it again if that does no harm.")));
}

/*
 * Calls of one place in a query must all give rows of the same shape: the
 * executor remembers the first one's, and would take later rows for such.
 */
void
result_check_same_shape(ResultSink *sink)
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
						   describe_columns(sink->desc), describe_columns(flinfo->fn_extra)),
				 errhint("Use dbpool_query() in FROM with a column definition list, or dbpool_query_json().")));
}

/*
 * Take a row description of the remote's, and see that it is what the caller
 * expects; with no declaration it becomes sink->desc.  What is made is in the
 * current memory context.  Returns how many columns come.
 */
int
result_take_shape(ResultSink *sink, MessageReader *body)
{
	TupleDesc	remote = read_shape(sink, body);

	if (sink->declared)
		check_columns(sink, remote);
	else
	{
		sink->desc = BlessTupleDesc(remote);
		if (sink->form != RESULT_JSON)
			result_check_same_shape(sink);
	}
	if (sink->binary)
		check_binary(sink, remote);
	return remote->natts;
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
			sink->scalar = true;
			break;
		default:
			if (rsinfo != NULL && IsA(rsinfo, ReturnSetInfo))
				desc = rsinfo->expectedDesc;
			break;
	}
	sink->declared = desc != NULL;
	sink->desc = desc;
}

/* Tell the worker what rows are waited for, if all their types can come in binary. */
static void
ask_for_binary(ResultSink *sink, Call *call)
{
	if (!sink->declared)
		return;
	call->types = palloc(sizeof(uint32) * Max(sink->desc->natts, 1));
	for (int i = 0; i < sink->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(sink->desc, i);
		Oid			type = binary_type(att->atttypid);

		if (att->attisdropped)
			continue;
		if (!OidIsValid(type))
		{
			call->ntypes = 0;
			return;
		}
		call->types[call->ntypes++] = type;
	}
}

/*
 * Find out what row the caller expects, for sink->desc, and have the call say
 * so to the worker.
 */
void
result_expect(ResultSink *sink, Call *call)
{
	find_declaration(sink);
	ask_for_binary(sink, call);
}
