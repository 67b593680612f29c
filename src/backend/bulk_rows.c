/*
 * bulk_rows.c
 *	  The rows of a bulk insert in a format of COPY.
 *
 * The executor hands each row to a receiver of ours, which writes it into a
 * buffer of a few kB, and the buffer into the request's ring.  So neither the
 * rows nor a whole row are ever held; what is held of a large value is what the
 * output function of its type makes.
 *
 * The binary format costs both ends about half of what text does.  It is used
 * when all columns have types that agree with the other end's (ipc/binary.h).
 * What holds text is not left to the type's send function: that writes it in
 * the encoding of this session's client, while the remote session expects this
 * database's.
 *
 * Text means the same at both ends under the settings of modes_enter(), which
 * must not hold while the query computes.  Where they are the session's anyway
 * a row is written as it comes.  Where not, changing them there and back costs
 * more than a row does, so rows are put aside and written some at a time.
 */
#include "postgres.h"

#include "backend/bulk.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Most rows, and about how many bytes of them, that are put aside. */
#define ASIDE_ROWS		128
#define ASIDE_BYTES		(256 * 1024)

typedef enum ColumnForm
{
	/* text format */
	FORM_OTHER,					/* any type, by its output function */
	FORM_PLAIN,					/* likewise, nothing in it is to be escaped */
	FORM_TEXT,					/* the value is the text */
	FORM_INT4,
	FORM_INT8,
	/* binary format */
	FORM_1,						/* the value is so many bytes */
	FORM_2,
	FORM_4,
	FORM_8,
	FORM_BYTES,					/* the value is the bytes of a varlena */
	FORM_JSONB,					/* a version, and text */
	FORM_SEND					/* by its send function */
} ColumnForm;

typedef struct BulkColumn
{
	ColumnForm	form;
	FmgrInfo	output;			/* or its send function */
} BulkColumn;

static ColumnForm
text_form(Oid type)
{
	switch (getBaseType(type))
	{
		case INT4OID:
			return FORM_INT4;
		case INT8OID:
			return FORM_INT8;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
			return FORM_TEXT;
		case BOOLOID:
		case INT2OID:
		case OIDOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
			return FORM_PLAIN;
		default:
			return FORM_OTHER;
	}
}

/* Of those that binary_type() has. */
static ColumnForm
binary_sender(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return FORM_1;
		case INT2OID:
			return FORM_2;
		case INT4OID:
		case OIDOID:
		case FLOAT4OID:
		case DATEOID:
			return FORM_4;
		case INT8OID:
		case FLOAT8OID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return FORM_8;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
		case BYTEAOID:
			return FORM_BYTES;
		case JSONBOID:
			return FORM_JSONB;
		default:
			return FORM_SEND;
	}
}

/* --- writing ----------------------------------------------------------------- */

static void
flush(Bulk *bulk)
{
	if (!bulk->refused && bulk->len > 0)
		bulk->refused = !client_send(bulk->client, bulk->buffer, bulk->len);
	bulk->len = 0;
}

static inline void
put_char(Bulk *bulk, char c)
{
	if (bulk->len == BULK_BUFFER_BYTES)
		flush(bulk);
	bulk->buffer[bulk->len++] = c;
}

static void
put_bytes(Bulk *bulk, const char *data, Size len)
{
	for (;;)
	{
		Size		part = Min(len, (Size) (BULK_BUFFER_BYTES - bulk->len));

		memcpy(bulk->buffer + bulk->len, data, part);
		bulk->len += (int) part;
		data += part;
		len -= part;
		if (len == 0)
			return;
		flush(bulk);
		if (bulk->refused)
			return;
	}
}

static inline void
put_int16(Bulk *bulk, int16 value)
{
	uint16		net = pg_hton16((uint16) value);

	put_bytes(bulk, (char *) &net, sizeof(net));
}

static inline void
put_int32(Bulk *bulk, int32 value)
{
	uint32		net = pg_hton32((uint32) value);

	put_bytes(bulk, (char *) &net, sizeof(net));
}

static inline void
put_int64(Bulk *bulk, int64 value)
{
	uint64		net = pg_hton64((uint64) value);

	put_bytes(bulk, (char *) &net, sizeof(net));
}

/* What stands after the backslash for a character, or 0 when it needs none. */
static inline char
escape_of(char c)
{
	switch (c)
	{
		case '\\':
			return '\\';
		case '\n':
			return 'n';
		case '\r':
			return 'r';
		case '\t':
			return 't';
		default:
			return 0;
	}
}

#define EACH_BYTE(c)	(~UINT64CONST(0) / 255 * (c))

/*
 * May one of eight bytes need an escape, being a backslash or below 16?  Wrong
 * in one direction only; none of the characters of a multibyte encoding that a
 * server can have contains such a byte.
 */
static inline bool
may_need_escape(const char *at)
{
	uint64		word;
	uint64		other;

	memcpy(&word, at, sizeof(word));
	other = word ^ EACH_BYTE('\\');
	return ((((word - EACH_BYTE(16)) & ~word) |
			 ((other - EACH_BYTE(1)) & ~other)) & EACH_BYTE(0x80)) != 0;
}

static void
copy_text(Bulk *bulk, const char *text, Size len)
{
	const char *end = text + len;
	const char *start = text;

	while (text < end && !bulk->refused)
	{
		char		escape;

		if (end - text >= 8 && !may_need_escape(text))
		{
			text += 8;
			continue;
		}
		escape = escape_of(*text);
		if (escape != 0)
		{
			put_bytes(bulk, start, text - start);
			put_char(bulk, '\\');
			put_char(bulk, escape);
			start = text + 1;
		}
		text++;
	}
	put_bytes(bulk, start, text - start);
}

static void
put_text_value(Bulk *bulk, BulkColumn *column, Datum value)
{
	char		digits[MAXINT8LEN + 1];
	int			ndigits;
	char	   *text;

	switch (column->form)
	{
		case FORM_INT4:
			ndigits = pg_ltoa(DatumGetInt32(value), digits);
			put_bytes(bulk, digits, ndigits);
			break;
		case FORM_INT8:
			ndigits = pg_lltoa(DatumGetInt64(value), digits);
			put_bytes(bulk, digits, ndigits);
			break;
		case FORM_TEXT:
			{
				struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);

				copy_text(bulk, VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed));
				break;
			}
		case FORM_PLAIN:
			text = OutputFunctionCall(&column->output, value);
			put_bytes(bulk, text, strlen(text));
			break;
		default:
			text = OutputFunctionCall(&column->output, value);
			copy_text(bulk, text, strlen(text));
			break;
	}
}

/* A value in the binary format: its length and its bytes. */
static void
put_binary_value(Bulk *bulk, BulkColumn *column, Datum value)
{
	struct varlena *packed;
	bytea	   *sent;
	char	   *text;

	switch (column->form)
	{
		case FORM_1:
			put_int32(bulk, 1);
			put_char(bulk, DatumGetBool(value) ? 1 : 0);
			break;
		case FORM_2:
			put_int32(bulk, 2);
			put_int16(bulk, DatumGetInt16(value));
			break;
		case FORM_4:
			put_int32(bulk, 4);
			put_int32(bulk, DatumGetInt32(value));
			break;
		case FORM_8:
			put_int32(bulk, 8);
			put_int64(bulk, DatumGetInt64(value));
			break;
		case FORM_BYTES:
			packed = PG_DETOAST_DATUM_PACKED(value);
			put_int32(bulk, (int32) VARSIZE_ANY_EXHDR(packed));
			put_bytes(bulk, VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed));
			break;
		case FORM_JSONB:
			text = OutputFunctionCall(&column->output, value);
			put_int32(bulk, (int32) strlen(text) + 1);
			put_char(bulk, 1);
			put_bytes(bulk, text, strlen(text));
			break;
		default:
			sent = SendFunctionCall(&column->output, value);
			put_int32(bulk, (int32) (VARSIZE(sent) - VARHDRSZ));
			put_bytes(bulk, VARDATA(sent), VARSIZE(sent) - VARHDRSZ);
			break;
	}
}

static void
put_text_row(Bulk *bulk, TupleTableSlot *slot)
{
	for (int i = 0; i < bulk->desc->natts; i++)
	{
		if (i > 0)
			put_char(bulk, '\t');
		if (slot->tts_isnull[i])
			put_bytes(bulk, "\\N", 2);
		else
			put_text_value(bulk, &bulk->columns[i], slot->tts_values[i]);
	}
	put_char(bulk, '\n');
}

static void
put_binary_row(Bulk *bulk, TupleTableSlot *slot)
{
	put_int16(bulk, (int16) bulk->desc->natts);
	for (int i = 0; i < bulk->desc->natts; i++)
	{
		if (slot->tts_isnull[i])
			put_int32(bulk, -1);
		else
			put_binary_value(bulk, &bulk->columns[i], slot->tts_values[i]);
	}
}

static void
copy_row(Bulk *bulk, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->row_context);

	slot_getallattrs(slot);
	if (bulk->binary)
		put_binary_row(bulk, slot);
	else
		put_text_row(bulk, slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(bulk->row_context);
	if (!client_count_row(bulk->client))
		bulk->refused = true;
}

/* Write the rows that were put aside. */
static void
put_aside(Bulk *bulk)
{
	int			level = modes_enter(bulk->money);

	for (int i = 0; i < bulk->naside && !bulk->refused; i++)
	{
		ExecStoreMinimalTuple(bulk->aside[i], bulk->aside_slot, false);
		copy_row(bulk, bulk->aside_slot);
	}
	modes_leave(level);
	ExecClearTuple(bulk->aside_slot);
	MemoryContextReset(bulk->aside_context);
	bulk->naside = 0;
	bulk->aside_bytes = 0;
}

/* --- the receiver ------------------------------------------------------------ */

static void
start_column(Bulk *bulk, BulkColumn *column, Oid type)
{
	Oid			output;
	bool		varlena;

	column->form = bulk->binary ? binary_sender(type) : text_form(type);
	if (column->form == FORM_SEND)
		getTypeBinaryOutputInfo(type, &output, &varlena);
	else
		getTypeOutputInfo(type, &output, &varlena);
	fmgr_info(output, &column->output);
	bulk->money |= modes_money_type(type);
}

static void
receiver_start(DestReceiver *dest, int operation, TupleDesc desc)
{
	Bulk	   *bulk = (Bulk *) dest;
	int			level;

	(void) operation;
	bulk->desc = desc;
	bulk->columns = palloc0(sizeof(BulkColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
		start_column(bulk, &bulk->columns[i], TupleDescAttr(desc, i)->atttypid);
	bulk->row_context = AllocSetContextCreate(CurrentMemoryContext, "dbpool row",
											  ALLOCSET_DEFAULT_SIZES);
	if (bulk->binary)
	{
		/* signature, flags, length of a header extension */
		put_bytes(bulk, "PGCOPY\n\377\r\n", 11);
		put_int32(bulk, 0);
		put_int32(bulk, 0);
		return;
	}
	level = modes_enter(bulk->money);
	modes_leave(level);
	if (level < 0)
		return;
	bulk->aside_context = AllocSetContextCreate(CurrentMemoryContext, "dbpool rows",
												ALLOCSET_DEFAULT_SIZES);
	bulk->aside_slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	bulk->aside = palloc(sizeof(MinimalTuple) * ASIDE_ROWS);
}

/* A row of the query; false ends the query. */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *dest)
{
	Bulk	   *bulk = (Bulk *) dest;
	MemoryContext old;

	if (bulk->binary)
	{
		copy_row(bulk, slot);
		return !bulk->refused;
	}
	if (bulk->aside == NULL)
	{
		int			level = modes_enter(bulk->money);

		copy_row(bulk, slot);
		modes_leave(level);
		return !bulk->refused;
	}
	old = MemoryContextSwitchTo(bulk->aside_context);
	bulk->aside[bulk->naside] = ExecCopySlotMinimalTuple(slot);
	MemoryContextSwitchTo(old);
	bulk->aside_bytes += bulk->aside[bulk->naside++]->t_len;
	if (bulk->naside == ASIDE_ROWS || bulk->aside_bytes > ASIDE_BYTES)
		put_aside(bulk);
	return !bulk->refused;
}

static void
receiver_end(DestReceiver *dest)
{
	Bulk	   *bulk = (Bulk *) dest;

	if (bulk->aside != NULL)
	{
		put_aside(bulk);
		ExecDropSingleTupleTableSlot(bulk->aside_slot);
	}
	if (bulk->binary)
		put_int16(bulk, -1);
	flush(bulk);
}

static void
destroy_receiver(DestReceiver *dest)
{
	(void) dest;
}

void
bulk_init_receiver(Bulk *bulk)
{
	bulk->dest.receiveSlot = receive_row;
	bulk->dest.rStartup = receiver_start;
	bulk->dest.rShutdown = receiver_end;
	bulk->dest.rDestroy = destroy_receiver;
	bulk->dest.mydest = DestNone;
}
