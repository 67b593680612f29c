/*
 * text.c
 *	  Text that may be in another encoding than this database's: what sessions
 *	  of other databases have left in shared memory, and what a remote says
 *	  before it knows the encoding that it is to speak.
 */
#include "postgres.h"

#include "backend/text.h"
#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

/*
 * Make a text of that encoding one of this database's, in the current memory
 * context.  Bytes that are no character there, and characters that do not exist
 * here, become question marks; a character that was cut off at the end is left
 * out.  Throws nothing for what the text has in it.
 */
char *
text_from(const char *text, int encoding)
{
	const char *at = text;
	int			left = (int) strlen(text);
	int			here = GetDatabaseEncoding();
	Oid			conversion = InvalidOid;
	StringInfoData buf;

	/* bytes of no known encoding are taken for those of the other */
	if (encoding == PG_SQL_ASCII)
		encoding = here;
	if (here == PG_SQL_ASCII)
		here = encoding;
	if (encoding != here)
		conversion = FindDefaultConversionProc(encoding, here);
	initStringInfo(&buf);
	while (left > 0)
	{
		int			good;
		int			length;

		if (OidIsValid(conversion))
		{
			enlargeStringInfo(&buf, left * MAX_CONVERSION_GROWTH + 1);
			good = pg_do_encoding_conversion_buf(conversion, encoding, here,
												 (unsigned char *) at, left,
												 (unsigned char *) buf.data + buf.len,
												 left * MAX_CONVERSION_GROWTH + 1, true);
			buf.len += (int) strlen(buf.data + buf.len);
		}
		else
		{
			/* without a conversion, ASCII is all that two encodings share */
			good = pg_encoding_verifymbstr(encoding == here ? here : PG_SQL_ASCII, at, left);
			for (int i = 0; encoding != here && i < good; i++)
			{
				if (IS_HIGHBIT_SET(at[i]))
					good = i;
			}
			appendBinaryStringInfo(&buf, at, good);
		}
		at += good;
		left -= good;
		if (left == 0)
			break;
		length = pg_encoding_mblen(encoding, at);
		if (length > left)
			break;
		/* is it one character, or the first of bytes that are none? */
		if (pg_encoding_verifymbchar(encoding, at, left) != length)
			length = 1;
		appendStringInfoChar(&buf, '?');
		at += length;
		left -= length;
	}
	return buf.data;
}

/* Copy a text of this database's encoding, as much as goes into size bytes. */
void
text_clip(char *to, const char *from, Size size)
{
	Size		len = strnlen(from, size);

	if (len == size)
		len = pg_mbcliplen(from, (int) strnlen(from, size + MAX_MULTIBYTE_CHAR_LEN),
						   (int) size - 1);
	memcpy(to, from, len);
	to[len] = '\0';
}

/*
 * Behind a comment of SQL in slashes and stars, which may have others within; NULL when it
 * has no end.
 */
const char *
text_skip_comment(const char *at)
{
	int			depth = 0;

	do
	{
		if (at[0] == '/' && at[1] == '*')
		{
			depth++;
			at += 2;
		}
		else if (at[0] == '*' && at[1] == '/')
		{
			depth--;
			at += 2;
		}
		else if (*at == '\0')
			return NULL;
		else
			at++;
	} while (depth > 0);
	return at;
}
