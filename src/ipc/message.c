/*
 * message.c
 *	  Writing and reading what message.h lays down.
 */
#include "postgres.h"

#include "ipc/message.h"
#include "mb/pg_wchar.h"

void
message_put(StringInfo buf, const void *data, Size len)
{
	appendBinaryStringInfo(buf, data, (int) len);
}

/* A string with its terminating zero. */
void
message_put_string(StringInfo buf, const char *str)
{
	appendBinaryStringInfo(buf, str, (int) strlen(str) + 1);
}

/* Begin a frame; returns what message_end_frame() wants to know. */
int
message_begin_frame(StringInfo buf, char type)
{
	FrameHeader header = {(uint32) type, 0};
	int			start = buf->len;

	message_put(buf, &header, sizeof(header));
	return start;
}

/* End a frame: its length is known now. */
void
message_end_frame(StringInfo buf, int start)
{
	uint32		length = (uint32) (buf->len - start - sizeof(FrameHeader));

	memcpy(buf->data + start + offsetof(FrameHeader, length), &length,
		   sizeof(length));
}

/* A field of ErrorFields; one that is NULL or empty is left out. */
void
message_put_field(StringInfo buf, char field, const char *str)
{
	if (str == NULL || str[0] == '\0')
		return;
	appendStringInfoChar(buf, field);
	message_put_string(buf, str);
}

void
message_get(MessageReader *reader, void *data, Size len)
{
	if ((Size) (reader->end - reader->at) < len)
		elog(ERROR, "dbpool message is shorter than it says");
	memcpy(data, reader->at, len);
	reader->at += len;
}

/* A string with its terminating zero; points into the message. */
const char *
message_get_string(MessageReader *reader)
{
	const char *str = reader->at;
	const char *zero = memchr(str, '\0', reader->end - reader->at);

	if (zero == NULL)
		elog(ERROR, "dbpool message lacks the end of a string");
	reader->at = zero + 1;
	return str;
}

/* n parameters as libpq wants them, in new memory; the values are where they are. */
const char **
message_params(const char *at, int n)
{
	const char **values = palloc(sizeof(char *) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		int32		len;

		memcpy(&len, at, sizeof(len));
		at += sizeof(len);
		values[i] = len < 0 ? NULL : at;
		if (len >= 0)
			at += len + 1;
	}
	return values;
}
