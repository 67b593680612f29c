/*
 * digest_token.c
 *	  The tokens of a statement's text, for its digest.
 *
 * They are those of the server's scan.l.  migrate/lex.c, which has most of them as well, is for
 * texts that are divided into statements: it knows marks of other tools, throws at
 * what does not end, and passes over operators byte by byte.  This one takes any text, and
 * throws nothing.  Where the remote's standard_conforming_strings decides where a
 * string ends, and where the text is very long, it stops looking: the rest is one token.
 */
#include "postgres.h"

#include "backend/digest_token.h"

/* Behind so many bytes the rest counts as it stands. */
#define TEXT_MOST		(1024 * 1024)

#define OPERATOR_CHARS	"~!@#^&|`?+-*/%<>="

/* With one of these an operator may end by a sign. */
#define SIGNED_CHARS	"~!@#^&|`?%"

static bool
char_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
char_is_newline(char c)
{
	return c == '\n' || c == '\r';
}

bool
char_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
char_is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || IS_HIGHBIT_SET(c);
}

char
char_small(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static bool
char_is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

/* Behind a comment of several lines, in which there may be others; NULL: it has no end. */
static const char *
scan_comment(const char *at)
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
		else if (*at++ == '\0')
			return NULL;
	} while (depth > 0);
	return at;
}

static const char *
scan_line(const char *at)
{
	return at + strcspn(at, "\n\r");
}

/* Behind what does not count; a comment without an end does. */
const char *
scan_blank(const char *at)
{
	for (;;)
	{
		const char *behind;

		if (char_is_blank(*at))
			at++;
		else if (at[0] == '-' && at[1] == '-')
			at = scan_line(at);
		else if (at[0] == '/' && at[1] == '*' && (behind = scan_comment(at)) != NULL)
			at = behind;
		else
			return at;
	}
}

/* Where a string goes on, in another line; NULL if it does not. */
static const char *
string_goes_on(const char *at)
{
	bool		newline = false;

	for (;;)
	{
		newline |= char_is_newline(*at);
		if (char_is_blank(*at))
			at++;
		else if (at[0] == '-' && at[1] == '-')
			at = scan_line(at);
		else
			return newline && *at == '\'' ? at : NULL;
	}
}

/* How a backslash in a string is read. */
typedef enum Backslash
{
	BACKSLASH_PLAIN,
	BACKSLASH_ESCAPES,
	BACKSLASH_EITHER			/* as standard_conforming_strings says */
} Backslash;

/* Behind a string, from its quote on; NULL: it has no end, or one that is not certain. */
static const char *
scan_string(const char *at, Backslash backslash)
{
	const char *end;

	do
	{
		for (at++; *at != '\'' || at[1] == '\''; at++)
		{
			if (*at == '\\' && at[1] == '\'' && backslash == BACKSLASH_EITHER)
				return NULL;
			if (*at == '\'' || (*at == '\\' && backslash == BACKSLASH_ESCAPES))
				at++;
			if (*at == '\0')
				return NULL;
		}
		end = at + 1;
		at = string_goes_on(end);
	} while (at != NULL);
	return end;
}

static const char *
scan_name(const char *at)
{
	for (at++; *at != '"' || at[1] == '"'; at++)
	{
		if (*at == '"')
			at++;
		if (*at == '\0')
			return NULL;
	}
	return at + 1;
}

static const char *
scan_word(const char *at)
{
	while (char_is_letter(*at) || char_is_digit(*at) || *at == '$')
		at++;
	return at;
}

static const char *
scan_digits(const char *at, const char *digits)
{
	for (;;)
	{
		if (char_is_one_of(*at, digits))
			at++;
		else if (*at == '_' && char_is_one_of(at[1], digits))
			at += 2;
		else
			return at;
	}
}

/* Also those that older servers take for a number and a word. */
static const char *
scan_number(const char *at)
{
	static const char decimal[] = "0123456789";
	const char *behind;

	if (*at == '0' && char_is_one_of(at[1], "xXoObB"))
	{
		behind = scan_digits(at + 2, char_is_one_of(at[1], "xX") ? "0123456789abcdefABCDEF" :
							 char_is_one_of(at[1], "oO") ? "01234567" : "01");
		if (behind > at + 2)
			return behind;
	}
	at = scan_digits(at, decimal);
	if (at[0] == '.' && at[1] != '.')
		at = scan_digits(at + 1, decimal);
	if (char_small(*at) == 'e')
	{
		behind = at + 1;
		if (*behind == '+' || *behind == '-')
			behind++;
		if (char_is_digit(*behind))
			return scan_digits(behind, decimal);
	}
	return at;
}

/* What begins with a dollar: a string, a parameter, or just that. */
static const char *
scan_dollar(const char *at, TokenKind *kind)
{
	const char *end = at + 1;
	const char *close;
	Size		len;

	*kind = TOKEN_PARAM;
	if (char_is_digit(*end))
		return end + strspn(end, "0123456789");
	while (char_is_letter(*end) || (end > at + 1 && char_is_digit(*end)))
		end++;
	*kind = TOKEN_OTHER;
	if (*end != '$')
		return at + 1;
	len = ++end - at;
	*kind = TOKEN_STRING;
	for (close = strchr(end, '$'); close != NULL; close = strchr(close + 1, '$'))
	{
		if (strncmp(close, at, len) == 0)
			return close + len;
	}
	return NULL;
}

/* The longest operator that begins here, as the server has it. */
static const char *
scan_operator(const char *at)
{
	int			len = 0;
	bool		may_be_signed = false;

	while (char_is_one_of(at[len], OPERATOR_CHARS) &&
		   !(at[len] == '-' && at[len + 1] == '-') && !(at[len] == '/' && at[len + 1] == '*'))
		may_be_signed |= char_is_one_of(at[len++], SIGNED_CHARS);
	/* a comment that has no end */
	if (len == 0)
		return NULL;
	while (!may_be_signed && len > 1 && char_is_one_of(at[len - 1], "+-"))
		len--;
	return at + len;
}

/* Behind a word, or a string or a name that a letter begins. */
static const char *
scan_letter(const char *at, TokenKind *kind)
{
	char		first = char_small(*at);

	*kind = TOKEN_STRING;
	if (first == 'e' && at[1] == '\'')
		return scan_string(at + 1, BACKSLASH_ESCAPES);
	if ((first == 'b' || first == 'x') && at[1] == '\'')
		return scan_string(at + 1, BACKSLASH_PLAIN);
	if (first == 'n' && at[1] == '\'')
		return scan_string(at + 1, BACKSLASH_EITHER);
	if (first == 'u' && at[1] == '&' && at[2] == '\'')
		return scan_string(at + 2, BACKSLASH_EITHER);
	*kind = TOKEN_NAME;
	if (first == 'u' && at[1] == '&' && at[2] == '"')
		return scan_name(at + 2);
	*kind = TOKEN_WORD;
	return scan_word(at);
}

/* Read the next token; from the text's beginning on, when there is none so far. */
void
token_next(Token *token, const char *text)
{
	const char *from = token->end != NULL ? token->end : text;
	const char *at = scan_blank(from);
	const char *end = at + 1;
	TokenKind	kind = TOKEN_OTHER;

	if (*at == '\0')
	{
		kind = TOKEN_END;
		end = at;
	}
	else if (at - text > TEXT_MOST)
		end = NULL;
	else if (char_is_letter(*at))
		end = scan_letter(at, &kind);
	else if (char_is_digit(*at) || (*at == '.' && char_is_digit(at[1])))
	{
		kind = TOKEN_NUMBER;
		end = scan_number(at);
	}
	else if (*at == '\'')
	{
		kind = TOKEN_STRING;
		end = scan_string(at, BACKSLASH_EITHER);
	}
	else if (*at == '"')
	{
		kind = TOKEN_NAME;
		end = scan_name(at);
	}
	else if (*at == '$')
		end = scan_dollar(at, &kind);
	else if (char_is_one_of(*at, OPERATOR_CHARS))
	{
		kind = TOKEN_OPERATOR;
		end = scan_operator(at);
	}
	else if ((at[0] == ':' && (at[1] == ':' || at[1] == '=')) || (at[0] == '.' && at[1] == '.'))
		end = at + 2;
	*token = (Token)
	{
		end == NULL ? TOKEN_REST : kind, at, end == NULL ? at + strlen(at) : end, at > from
	};
}

/* Is the token that word, which is given in char_small letters? */
bool
token_is_word(const Token *token, const char *word)
{
	Size		len = token->end - token->at;

	if (token->kind != TOKEN_WORD || strlen(word) != len)
		return false;
	for (Size i = 0; i < len; i++)
	{
		if (char_small(token->at[i]) != word[i])
			return false;
	}
	return true;
}

bool
token_reads(const Token *token, const char *text)
{
	return token->kind != TOKEN_NAME && token->end - token->at == (ptrdiff_t) strlen(text) &&
		strncmp(token->at, text, token->end - token->at) == 0;
}
