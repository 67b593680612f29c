/*
 * lex.c
 *	  The tokens of a migration's text.
 *
 * The lexer is one of its own, since the server's is for statements that the
 * same server is to run.  It refuses what newer servers accept (15 does not know
 * 0xff and 1_000), checks escapes against the local encoding, reports names that
 * are too long, and its errors quote the whole rest of a text.  Like psql's, this
 * one only looks for where things end; what is wrong with a statement is for the
 * remote to say.  Its rules are those of the server's scan.l all the same.
 */
#include "postgres.h"

#include "backend/text.h"
#include "migrate/migrate.h"
#include "migrate/lex.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

/* --- lines and columns ------------------------------------------------------------- */

/* Move on; CR LF and LF end a line. */
void
cursor_move(Cursor *cursor, const char *to)
{
	while (cursor->at < to)
	{
		if (*cursor->at == '\n')
		{
			cursor->line++;
			cursor->column = 1;
			cursor->at++;
		}
		else
		{
			cursor->column++;
			cursor->at += IS_HIGHBIT_SET(*cursor->at) ? pg_mblen(cursor->at) : 1;
		}
	}
}

void
split_position(const char *sql, int at, int *line, int *column)
{
	Cursor		cursor = {sql, 1, 1};

	cursor_move(&cursor, sql + at);
	*line = cursor.line;
	*column = cursor.column;
}

/* A text that cannot be divided: say what and where.  hint may be NULL. */
void
lex_refuse(const Lexer *lexer, const char *at, int code, const char *what, const char *hint)
{
	int			line;
	int			column;

	split_position(lexer->text, at - lexer->text, &line, &column);
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s in line %d, column %d", what, line, column),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

static void
__attribute__((noreturn))
unterminated(const Lexer *lexer, const char *what)
{
	lex_refuse(lexer, lexer->token, ERRCODE_SYNTAX_ERROR, psprintf("unterminated %s", what), NULL);
}

/* No statement has a backslash outside of strings; psql's commands begin by one. */
void
lex_refuse_backslash(const Lexer *lexer)
{
	int			length = strcspn(lexer->token, " \t\r\n;");

	lex_refuse(lexer, lexer->token, ERRCODE_SYNTAX_ERROR,
			   psprintf("unexpected \"%.*s\"", pg_mbcliplen(lexer->token, length, 40), lexer->token),
			   "A migration is sent to the remote server, which does not know the commands of psql.");
}

/* --- the lexer --------------------------------------------------------------------- */

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_newline(char c)
{
	return c == '\n' || c == '\r';
}

/* May it begin a name? */
static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || IS_HIGHBIT_SET(c);
}

static bool
is_operator(char c)
{
	return c != '\0' && strchr("~!@#^&|`?+-*/%<>=", c) != NULL;
}

static bool
is_line_comment(const char *at)
{
	return at[0] == '-' && at[1] == '-';
}

/* Its end, before the newline. */
static const char *
line_end(const char *at)
{
	return at + strcspn(at, "\r\n");
}

/* Behind a comment in slashes and stars. */
static const char *
skip_block_comment(Lexer *lexer, const char *at)
{
	const char *end = text_skip_comment(at);

	lexer->token = at;
	if (end == NULL)
		unterminated(lexer, "comment");
	return end;
}

/* A comment to the end of the line, which may be a tool's mark of a block. */
static void
look_for_block(Lexer *lexer, const char *at)
{
	const char *start = at;
	Line		line;
	MarkBlock	mark;

	if (lexer->block_mark == NULL)
		return;
	while (start > lexer->text && start[-1] != '\n' && is_space(start[-1]))
		start--;
	if (start > lexer->text && start[-1] != '\n')
		return;
	read_line(&line, start, 1);
	mark = lexer->block_mark(&line);
	if (mark == MARK_BLOCK_NONE)
		return;
	lexer->passed = true;
	lexer->block = mark == MARK_BLOCK_BEGIN ? ++lexer->blocks : 0;
}

/* The next byte that is neither space nor comment. */
static const char *
skip_blank(Lexer *lexer, const char *at)
{
	lexer->passed = false;
	for (;;)
	{
		if (is_space(*at))
			at++;
		else if (is_line_comment(at))
		{
			look_for_block(lexer, at);
			at = line_end(at);
		}
		else if (at[0] == '/' && at[1] == '*')
			at = skip_block_comment(lexer, at);
		else
			return at;
	}
}

/*
 * A string goes on with the quote of the next line; between the two there may be
 * comments to the end of a line.  NULL if it does not.
 */
static const char *
string_continues(const char *at)
{
	bool		newline = false;

	for (;;)
	{
		if (is_newline(*at))
			newline = true;
		if (is_space(*at))
			at++;
		else if (is_line_comment(at))
			at = line_end(at);
		else
			return newline && *at == '\'' ? at : NULL;
	}
}

/*
 * Behind a string, whose opening quote is at "at".  Are backslashes escapes, and
 * are two quotes one?
 */
static const char *
skip_string(Lexer *lexer, const char *at, bool escapes, bool doubles)
{
	do
	{
		const char *close;

		for (at++; *at != '\'' || (doubles && at[1] == '\''); at++)
		{
			if (*at == '\\')
				lexer->backslash = true;
			if (*at == '\'' || (*at == '\\' && escapes))
				at++;
			if (*at == '\0')
				unterminated(lexer, "quoted string");
		}
		close = at + 1;
		at = string_continues(close);
		if (at == NULL)
			return close;
	} while (true);
}

static const char *
skip_quoted_name(Lexer *lexer, const char *at)
{
	for (at++; *at != '"' || at[1] == '"'; at++)
	{
		if (*at == '"')
			at++;
		if (*at == '\0')
			unterminated(lexer, "quoted identifier");
	}
	return at + 1;
}

/* Behind a string in dollars, or behind the dollar that does not begin one. */
static const char *
skip_dollar(Lexer *lexer, const char *at)
{
	const char *end = at + 1;
	char	   *delimiter;
	const char *close;

	if (is_letter(*end))
		while (is_letter(*end) || is_digit(*end))
			end++;
	else if (is_digit(*end))
	{
		/* a parameter */
		while (is_digit(*end))
			end++;
		return end;
	}
	if (*end != '$')
		return at + 1;
	end++;
	delimiter = pnstrdup(at, end - at);
	close = strstr(end, delimiter);
	if (close == NULL)
		unterminated(lexer, "dollar-quoted string");
	close += end - at;
	pfree(delimiter);
	return close;
}

static const char *
skip_word(const char *at)
{
	while (is_letter(*at) || is_digit(*at) || *at == '$')
		at++;
	return at;
}

/*
 * Numbers of any kind, also those that only newer servers know, and what sticks
 * to them.  They may begin or end with the point, but 1..2 has none of them.
 */
static const char *
skip_number(const char *at)
{
	if (*at == '.')
		at++;
	else
	{
		while (is_digit(*at) || *at == '_')
			at++;
		if (at[0] == '.' && at[1] != '.')
			at++;
	}
	while (is_letter(*at) || is_digit(*at))
		at++;
	return at;
}

/* Does a string begin here by a letter, as in E'\n'? */
static bool
is_string_prefix(const char *at)
{
	if (*at != '\0' && strchr("eEbBxX", *at) != NULL)
		return at[1] == '\'';
	return (*at == 'u' || *at == 'U') && at[1] == '&' && at[2] == '\'';
}

int
lex_next_token(Lexer *lexer)
{
	const char *at = skip_blank(lexer, lexer->end);
	int			kind = TOKEN_OTHER;

	lexer->token = at;
	if (*at == '\0')
	{
		lexer->end = at;
		return TOKEN_END;
	}
	if (*at == '\'')
		lexer->end = skip_string(lexer, at, !lexer->standard_strings, true);
	else if (is_string_prefix(at))
	{
		bool		backslash = lexer->backslash;

		lexer->end = skip_string(lexer, strchr(at, '\''), *at == 'e' || *at == 'E',
								 strchr("bBxX", *at) == NULL);
		lexer->backslash = backslash;
	}
	else if (*at == '"')
		lexer->end = skip_quoted_name(lexer, at);
	else if (*at == '$')
		lexer->end = skip_dollar(lexer, at);
	else if (is_letter(*at))
	{
		lexer->end = skip_word(at);
		kind = TOKEN_WORD;
	}
	else if (is_digit(*at) || (*at == '.' && is_digit(at[1])))
		lexer->end = skip_number(at);
	else if (is_operator(*at))
		/* one by one, as a comment may begin in the middle */
		lexer->end = at + 1;
	else
	{
		lexer->end = at + 1;
		kind = (unsigned char) *at;
	}
	return kind;
}

/*
 * \restrict and \unrestrict, which pg_dump puts around what it writes so that
 * psql runs no command in between: to a migration they mean nothing.
 */
bool
lex_skip_restriction(Lexer *lexer)
{
	const char *at = lexer->token;

	if (at > lexer->text && !is_newline(at[-1]))
		return false;
	if (strncmp(at, "\\restrict ", strlen("\\restrict ")) != 0 &&
		strncmp(at, "\\unrestrict ", strlen("\\unrestrict ")) != 0)
		return false;
	lexer->end = at + strcspn(at, "\r\n");
	return true;
}

/* --- remarks ----------------------------------------------------------------------- */

/* Is the text "no-transaction", and nothing else up to the end of the line? */
static bool
says_no_transaction(const char *at, bool alone)
{
	static const char words[] = "no-transaction";

	while (*at == ' ' || *at == '\t')
		at++;
	if (pg_strncasecmp(at, words, sizeof(words) - 1) != 0)
		return false;
	at += sizeof(words) - 1;
	if (!alone)
		return !is_letter(*at) && !is_digit(*at) && *at != '-';
	while (*at == ' ' || *at == '\t')
		at++;
	return *at == '\0' || is_newline(*at);
}

bool
split_no_transaction(const char *sql)
{
	Lexer		lexer = {sql, true, sql, sql};
	const char *at = sql;
	bool		fresh = true;	/* only blanks in this line so far */

	for (;;)
	{
		if (is_space(*at))
		{
			if (is_newline(*at))
				fresh = true;
			at++;
		}
		else if (is_line_comment(at))
		{
			/* sqlx looks at how the text begins, whatever follows */
			if (fresh && says_no_transaction(at + 2, at > sql))
				return true;
			at = line_end(at);
		}
		else if (at[0] == '/' && at[1] == '*')
		{
			at = skip_block_comment(&lexer, at);
			fresh = false;
		}
		else
			return false;
	}
}
