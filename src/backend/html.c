/*
 * html.c
 *	  Pieces of an HTML page, see html.h.
 *
 * What a page says of others' names, texts and errors goes through html_text() without an
 * exception, and cannot be anything but text then: it has no markup, nothing that ends an
 * attribute, no character that XML does not know, and none that turns round the
 * direction of what follows.  What is not ASCII becomes a reference by number, so that
 * the page is right in whatever encoding a client stores it.
 */
#include "postgres.h"

#include <math.h>

#include "backend/html.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

/* What stands for a character that cannot be shown. */
#define REPLACEMENT		0xFFFD

#define ELLIPSIS		"&#8230;"
#define NARROW_SPACE	"&#8239;"
#define DASH			"&#8211;"

/* Code point of a character of this database's encoding that takes so many bytes. */
static pg_wchar
code_point(const char *at, int length)
{
	int			here = GetDatabaseEncoding();
	unsigned char utf8[MAX_CONVERSION_GROWTH * MAX_MULTIBYTE_CHAR_LEN + 1];
	Oid			conversion;

	if (pg_encoding_verifymbchar(here, at, length) != length || here == PG_SQL_ASCII)
		return REPLACEMENT;
	if (here == PG_UTF8)
		return utf8_to_unicode((const unsigned char *) at);
	conversion = FindDefaultConversionProc(here, PG_UTF8);
	if (!OidIsValid(conversion) ||
		pg_do_encoding_conversion_buf(conversion, here, PG_UTF8, (unsigned char *) unconstify(char *, at), length,
									  utf8, sizeof(utf8), true) != length)
		return REPLACEMENT;
	return utf8_to_unicode(utf8);
}

/* Is it one of those that XML has, and that stay in their place? */
static bool
is_plain(pg_wchar c)
{
	return c >= 0xA0 && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF) && (c & 0xFFFE) != 0xFFFE &&
		(c < 0x200E || c > 0x200F) && (c < 0x2028 || c > 0x202E) && (c < 0x2066 || c > 0x2069);
}

static void
put_ascii(StringInfo page, char c)
{
	switch (c)
	{
		case '&':
			appendStringInfoString(page, "&amp;");
			break;
		case '<':
			appendStringInfoString(page, "&lt;");
			break;
		case '>':
			appendStringInfoString(page, "&gt;");
			break;
		case '"':
			appendStringInfoString(page, "&quot;");
			break;
		case '\'':
			appendStringInfoString(page, "&#39;");
			break;
		case '\t':
		case '\n':
		case '\r':
			appendStringInfoChar(page, ' ');
			break;
		default:
			if (c < ' ' || c == 0x7F)
				appendStringInfo(page, "&#%d;", REPLACEMENT);
			else
				appendStringInfoChar(page, c);
	}
}

/*
 * Text of this database's encoding, as content or as the value of an attribute in double
 * quotes; no more than so many characters, and an ellipsis when there are more.  NULL is
 * a dash.
 */
void
html_text(StringInfo page, const char *text, int most_chars)
{
	const char *end = text == NULL ? NULL : text + strlen(text);

	if (text == NULL)
		appendStringInfoString(page, DASH);
	for (int i = 0; text != NULL && text < end; i++)
	{
		int			length = Min(pg_encoding_mblen(GetDatabaseEncoding(), text), (int) (end - text));

		if (i == most_chars)
		{
			appendStringInfoString(page, ELLIPSIS);
			break;
		}
		if (!IS_HIGHBIT_SET(*text))
		{
			put_ascii(page, *text);
			length = 1;
		}
		else
		{
			pg_wchar	c = code_point(text, length);

			appendStringInfo(page, "&#%u;", is_plain(c) ? (unsigned int) c : REPLACEMENT);
		}
		text += length;
	}
}

/* A number with a narrow space between thousands; NAN is a dash. */
void
html_number(StringInfo page, double value, int decimals)
{
	char		digits[400];
	int			whole;

	if (isnan(value) || isinf(value))
	{
		appendStringInfoString(page, DASH);
		return;
	}
	snprintf(digits, sizeof(digits), "%.*f", decimals, value);
	whole = (int) strcspn(digits, ".");
	for (int i = 0; i < whole; i++)
	{
		if (i > 0 && digits[i - 1] != '-' && (whole - i) % 3 == 0)
			appendStringInfoString(page, NARROW_SPACE);
		appendStringInfoChar(page, digits[i]);
	}
	appendStringInfoString(page, digits + whole);
}

/* A table's cell with a number. */
void
html_cell(StringInfo page, double value, int decimals)
{
	appendStringInfoString(page, "<td class=\"n\">");
	html_number(page, value, decimals);
	appendStringInfoString(page, "</td>");
}
