/*
 * batch_items.c
 *	  The items of a batch: made, kept, and given out one after the other; and which
 *	  statements cannot be one.
 */
#include "postgres.h"

#include <ctype.h>

#include "backend/batch.h"
#include "backend/text.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Most parameters of a statement: the protocol counts them in 16 bits. */
#define MAX_PARAMS	65535

BatchItems *
batch_items_make(void)
{
	BatchItems *items = palloc0(sizeof(BatchItems));
	TupleDesc	desc = CreateTemplateTupleDesc(1);

	TupleDescInitEntry(desc, 1, "item", BYTEAOID, -1, 0);
	items->store = tuplestore_begin_heap(false, false, work_mem);
	items->context = CurrentMemoryContext;
	items->slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	initStringInfo(&items->params);
	initStringInfo(&items->buf);
	return items;
}

/* Another parameter of the item that is being made; NULL is null. */
void
batch_param(BatchItems *items, const char *value, Size len)
{
	int32		n = value != NULL ? (int32) len : -1;

	message_put(&items->params, &n, sizeof(n));
	if (value != NULL)
	{
		message_put(&items->params, value, len);
		appendStringInfoChar(&items->params, '\0');
	}
	if (++items->nparams > MAX_PARAMS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_ARGUMENTS),
				 errmsg("too many parameters of a statement of a batch"),
				 errdetail("A statement can have at most %d.", MAX_PARAMS)));
}

/* The item is made; sql is NULL if its text is that of the item before. */
void
batch_item(BatchItems *items, const char *sql)
{
	BatchItem	header;
	Datum		datum;
	bool		isnull = false;

	header.sql_len = sql != NULL ? (uint32) strlen(sql) + 1 : 0;
	header.params_len = (uint32) items->params.len;
	header.nparams = items->nparams;
	items->traces |= batch_traces(sql, items->params.data, items->params.len,
								  &items->looked);

	resetStringInfo(&items->buf);
	appendStringInfoSpaces(&items->buf, VARHDRSZ);
	message_put(&items->buf, &header, sizeof(header));
	if (sql != NULL)
		message_put(&items->buf, sql, header.sql_len);
	message_put(&items->buf, items->params.data, items->params.len);
	SET_VARSIZE(items->buf.data, items->buf.len);
	datum = PointerGetDatum(items->buf.data);
	tuplestore_putvalues(items->store, items->slot->tts_tupleDescriptor, &datum, &isnull);

	items->most = Max(items->most, (Size) items->buf.len - VARHDRSZ);
	items->n++;
	items->nparams = 0;
	resetStringInfo(&items->params);
}

/* All items are to be given out from the first on again. */
void
batch_rewind(BatchItems *items)
{
	tuplestore_rescan(items->store);
	items->at = 0;
	items->taken = 0;
}

/* An item that was given out has not been run: it is to be given out again. */
void
batch_give_back(BatchItems *items, uint64 number)
{
	MemoryContext old = MemoryContextSwitchTo(items->context);

	/* of so many statements there is no array */
	Assert(number <= PG_INT32_MAX);
	items->back = bms_add_member(items->back, (int) number);
	items->nback++;
	MemoryContextSwitchTo(old);
}

/* Move to the item that comes next, one that was given back after all others. */
static void
go_to_next(BatchItems *items)
{
	int			next;

	if (items->taken < items->n)
	{
		items->taken++;
		return;
	}
	next = bms_next_member(items->back, (int) items->at);
	if (next < 0)
	{
		tuplestore_rescan(items->store);
		items->at = 0;
		next = bms_next_member(items->back, 0);
	}
	items->back = bms_del_member(items->back, next);
	items->nback--;
	(void) tuplestore_skiptuples(items->store, next - 1 - (int) items->at, true);
	items->at = next - 1;
}

/*
 * The next item and its number, if any are left.  It stays until the one after it is
 * asked for.
 */
const char *
batch_next_item(BatchItems *items, uint64 *number, Size *len)
{
	bool		isnull;
	struct varlena *item;

	go_to_next(items);
	if (!tuplestore_gettupleslot(items->store, true, false, items->slot))
		elog(ERROR, "items of a dbpool batch are missing");
	*number = ++items->at;
	item = (struct varlena *) DatumGetPointer(slot_getattr(items->slot, 1, &isnull));
	*len = VARSIZE_ANY_EXHDR(item);
	return VARDATA_ANY(item);
}

/* --- what cannot be part of a batch ---------------------------------------------- */

/* Behind blanks, comments and empty statements. */
static const char *
skip_nothing(const char *at)
{
	for (;;)
	{
		if (*at == ';' || isspace((unsigned char) *at))
			at++;
		else if (at[0] == '-' && at[1] == '-')
			at += strcspn(at, "\r\n");
		else if (at[0] == '/' && at[1] == '*')
		{
			const char *end = text_skip_comment(at);

			at = end != NULL ? end : at + strlen(at);
		}
		else
			return at;
	}
}

/* Is this the next word?  Then *at is moved behind it. */
static bool
is_next_word(const char **at, const char *word)
{
	Size		len = strlen(word);

	if (pg_strncasecmp(*at, word, len) != 0 || isalnum((unsigned char) (*at)[len]) ||
		(*at)[len] == '_' || (*at)[len] == '$' || IS_HIGHBIT_SET((*at)[len]))
		return false;
	*at = skip_nothing(*at + len);
	return true;
}

/*
 * Refuse what would end or divide the transaction of a batch, or begin another, and
 * COPY, for whose data there is no way.  The remote takes but one statement at a time here, so that its
 * first word tells.
 */
void
batch_check_text(const char *sql, uint64 number)
{
	static const char *const words[] = {
		"BEGIN", "START", "COMMIT", "END", "ABORT", "ROLLBACK", "SAVEPOINT", "RELEASE", "COPY"
	};
	const char *at = skip_nothing(sql);
	const char *found = NULL;

	for (int i = 0; i < lengthof(words) && found == NULL; i++)
	{
		if (is_next_word(&at, words[i]))
			found = words[i];
	}
	if (found == NULL && is_next_word(&at, "PREPARE") && is_next_word(&at, "TRANSACTION"))
		found = "PREPARE TRANSACTION";
	if (found == NULL)
		return;
	ereport(ERROR,
			(errcode(strcmp(found, "COPY") == 0 ? ERRCODE_FEATURE_NOT_SUPPORTED :
					 ERRCODE_INVALID_TRANSACTION_STATE),
			 errmsg("%s cannot be part of a batch", found),
			 number > 0 ? errdetail("It is statement " UINT64_FORMAT ". No statement was run.", number) :
			 errdetail("No statement was run."),
			 strcmp(found, "COPY") == 0 ? errhint("There is dbpool_bulk_insert() for rows.") :
			 errhint("A batch is a transaction by itself, or each of its statements is. A script of dbpool_exec() can have transactions of its own.")));
}
