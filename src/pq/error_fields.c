/*
 * error_fields.c
 *	  Errors and notices of a remote as the ErrorFields of ipc/message.h.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "mb/pg_wchar.h"

#include "ipc/message.h"
#include "pq/error_fields.h"

/* The first part of a text, and a word on how much is missing. */
static void
put_beginning(StringInfo buf, char field, const char *str, Size len, Size rest,
			  int encoding)
{
	int			most = (int) Min(len, WIRE_FIELD_MOST);
	int			kept = pg_encoding_mbcliplen(encoding, str, most, most);

	appendStringInfoChar(buf, field);
	message_put(buf, str, kept);
	appendStringInfo(buf, "... (%zu bytes left out)", rest + len - kept);
	appendStringInfoChar(buf, '\0');
}

/* A field of ErrorFields: text of the remote, in that encoding, which may be of any length. */
void
error_field_put(StringInfo buf, char field, const char *str, int encoding)
{
	Size		len = str ? strlen(str) : 0;

	if (len <= WIRE_FIELD_MOST)
		message_put_field(buf, field, str);
	else
		put_beginning(buf, field, str, len, 0, encoding);
}

/* The fields of an error as far as they can be seen. */
void
error_fields_put_seen(StringInfo buf, const WireMessage *message, int encoding)
{
	static const char letters[] = "VCMDHPpqWstcdn";

	for (int i = 0; letters[i] != '\0'; i++)
	{
		Size		len;
		bool		cut;
		const char *str = wire_field(message, letters[i], &len, &cut);

		if (str == NULL || len == 0)
			continue;
		if (cut)
			put_beginning(buf, letters[i], str, len, message->length - message->have,
						  encoding);
		else
		{
			appendStringInfoChar(buf, letters[i]);
			message_put(buf, str, len + 1);
		}
	}
}

static const struct
{
	int			libpq;
	char		field;
}			fields[] = {
	{PG_DIAG_SEVERITY_NONLOCALIZED, 'V'},
	{PG_DIAG_SQLSTATE, 'C'},
	{PG_DIAG_MESSAGE_PRIMARY, 'M'},
	{PG_DIAG_MESSAGE_DETAIL, 'D'},
	{PG_DIAG_MESSAGE_HINT, 'H'},
	{PG_DIAG_INTERNAL_POSITION, 'p'},
	{PG_DIAG_INTERNAL_QUERY, 'q'},
	{PG_DIAG_CONTEXT, 'W'},
	{PG_DIAG_SCHEMA_NAME, 's'},
	{PG_DIAG_TABLE_NAME, 't'},
	{PG_DIAG_COLUMN_NAME, 'c'},
	{PG_DIAG_DATATYPE_NAME, 'd'},
	{PG_DIAG_CONSTRAINT_NAME, 'n'},
};

/*
 * Append all fields but the position in the statement, which the caller knows best,
 * and the zero that ends them.  Each is cut if it is very long, in the encoding of the
 * local database.
 */
void
error_fields_put(StringInfo out, const PGresult *res, int encoding)
{
	/* what libpq itself has to say comes without fields */
	if (PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) == NULL)
		error_field_put(out, 'M', PQresultErrorMessage(res), encoding);
	for (int i = 0; i < lengthof(fields); i++)
		error_field_put(out, fields[i].field, PQresultErrorField(res, fields[i].libpq),
						encoding);
}
