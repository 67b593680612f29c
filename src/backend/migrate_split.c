/*
 * migrate_split.c
 *	  The statements of a migration's text.
 *
 * A text is divided where psql would divide it: at semicolons that are outside
 * of strings, comments, parentheses (CREATE RULE has statements in them) and the
 * bodies of functions in standard SQL (BEGIN ATOMIC ... END).
 *
 * The lexer is one of its own, since the server's is for statements that the
 * same server is to run.  It refuses what newer servers accept (15 does not know
 * 0xff and 1_000), checks escapes against the local encoding, reports names that
 * are too long, and its errors quote the whole rest of a text.  Like psql's, this
 * one only looks for where things end; what is wrong with a statement is for the
 * remote to say.  Its rules are those of the server's scan.l all the same.
 *
 * How backslashes are read depends on standard_conforming_strings, which a text
 * may set.  Statements that say so are followed, as psql does by the setting that
 * the remote reports; migrate_run.c sees to what only the remote knows.
 *
 * Everything is found in one pass, in time and memory linear to the text.
 */
#include "postgres.h"

#include "backend/migrate.h"
#include "backend/migrate_line.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include <limits.h>

/* Words that say what kind of a statement it is; the longest is ISOLATION. */
#define HEAD_WORDS	6
#define WORD_SIZE	12

/* Where people look for something in a text. */
typedef struct Cursor
{
	const char *at;
	int			line;
	int			column;
} Cursor;

/* What one token is; others than these are told by their first byte. */
enum
{
	TOKEN_END,
	TOKEN_WORD = UCHAR_MAX + 1, /* name without quotes, or keyword */
	TOKEN_OTHER					/* string, number, name in quotes, operator */
};

typedef struct Lexer
{
	const char *text;
	bool		standard_strings;	/* backslashes in '...' are ordinary */
	const char *token;			/* the one just read */
	const char *end;			/* its end, and where the next one is sought */
	bool		backslash;		/* a '...' with one was read */
	int			block;			/* a tool's block that it is in, or 0 */
	int			blocks;			/* that have begun so far */
	bool		passed;			/* a mark of a block was before the token */
} Lexer;

/* What is known of the statement that is being read. */
typedef struct Statement
{
	const char *start;			/* NULL: no token so far */
	const char *end;			/* of the last token */
	int			tokens;
	char		head[HEAD_WORDS][WORD_SIZE];	/* the first tokens in lower
												 * case, "" if not words */
	int			parentheses;	/* open ones */
	int			body;			/* open BEGIN ATOMIC and CASE */
	int			last;			/* kind of the last token */
	char		last_word[WORD_SIZE];	/* and its text, if a word */
	const char *copy;			/* COPY's FROM or TO just read, or NULL */
} Statement;

/* --- lines and columns ------------------------------------------------------------- */

/* Move on; CR LF and LF end a line. */
static void
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
static void
__attribute__((noreturn))
refuse(const Lexer *lexer, const char *at, int code, const char *what, const char *hint)
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
	refuse(lexer, lexer->token, ERRCODE_SYNTAX_ERROR, psprintf("unterminated %s", what), NULL);
}

/* No statement has a backslash outside of strings; psql's commands begin by one. */
static void
__attribute__((noreturn))
refuse_backslash(const Lexer *lexer)
{
	int			length = strcspn(lexer->token, " \t\r\n;");

	refuse(lexer, lexer->token, ERRCODE_SYNTAX_ERROR,
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

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
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

/* Behind a comment in slashes and stars, which may have others within. */
static const char *
skip_block_comment(Lexer *lexer, const char *at)
{
	int			depth = 0;

	lexer->token = at;
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
			unterminated(lexer, "comment");
		else
			at++;
	} while (depth > 0);
	return at;
}

/* A comment to the end of the line, which may be a tool's mark of a block. */
static void
look_for_block(Lexer *lexer, const char *at)
{
	const char *start = at;
	Line		line;
	MarkBlock	mark;

	while (start > lexer->text && start[-1] != '\n' && is_space(start[-1]))
		start--;
	if (start > lexer->text && start[-1] != '\n')
		return;
	read_line(&line, start, 1);
	mark = marks_block(&line);
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

static int
next_token(Lexer *lexer)
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
static bool
skip_restriction(Lexer *lexer)
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

/* --- statements -------------------------------------------------------------------- */

static bool
head_is(const Statement *statement, int n, const char *word)
{
	return n < HEAD_WORDS && n < statement->tokens &&
		strcmp(statement->head[n], word) == 0;
}

/* CREATE [OR REPLACE] FUNCTION or PROCEDURE: the only ones with bodies in SQL. */
static bool
makes_routine(const Statement *statement)
{
	int			n = 1;

	if (!head_is(statement, 0, "create"))
		return false;
	if (head_is(statement, 1, "or") && head_is(statement, 2, "replace"))
		n = 3;
	return head_is(statement, n, "function") || head_is(statement, n, "procedure");
}

static void
classify(const Statement *statement, SqlPiece *piece)
{
	int			n = 1;

	piece->kind = PIECE_PLAIN;
	piece->bare = false;
	if (head_is(statement, 0, "prepare") && head_is(statement, 1, "transaction"))
		piece->kind = PIECE_OTHER_END;
	else if (head_is(statement, 0, "begin"))
		piece->kind = PIECE_BEGIN;
	else if (head_is(statement, 0, "start") && head_is(statement, 1, "transaction"))
		piece->kind = PIECE_BEGIN;
	else if (head_is(statement, 0, "commit") || head_is(statement, 0, "end"))
		piece->kind = PIECE_COMMIT;
	else if (head_is(statement, 0, "rollback") || head_is(statement, 0, "abort"))
		piece->kind = PIECE_ROLLBACK;
	else
		return;
	if (head_is(statement, n, "work") || head_is(statement, n, "transaction"))
		n++;
	piece->bare = statement->tokens == n;
	if (piece->kind == PIECE_ROLLBACK && head_is(statement, n, "to"))
		piece->kind = PIECE_PLAIN;
	else if (piece->kind != PIECE_BEGIN && head_is(statement, n, "prepared"))
		piece->kind = PIECE_OTHER_END;
}

/*
 * COPY from or to the client: there is no client whose data it could be.  Called
 * for each token of a COPY.
 */
static void
check_copy(const Lexer *lexer, Statement *statement, const char *word)
{
	bool		end = strcmp(word, "stdin") == 0 || strcmp(word, "stdout") == 0;

	if (statement->copy != NULL && end)
		refuse(lexer, statement->start, ERRCODE_FEATURE_NOT_SUPPORTED,
			   "COPY from or to the client cannot be part of a migration,",
			   "Use INSERT, for example as written by pg_dump --inserts, or dbpool_bulk_insert().");
	statement->copy = (strcmp(word, "from") == 0 || strcmp(word, "to") == 0) ? lexer->token : NULL;
}

/* One more token of the statement. */
static void
take_token(const Lexer *lexer, Statement *statement, int kind)
{
	char		word[WORD_SIZE] = "";
	bool		outside = statement->parentheses == 0;
	bool		label = statement->last == '.' || strcmp(statement->last_word, "as") == 0;

	if (statement->start == NULL)
		statement->start = lexer->token;
	statement->end = lexer->end;
	if (kind == TOKEN_WORD && lexer->end - lexer->token < WORD_SIZE)
		for (int i = 0; lexer->token + i < lexer->end; i++)
			word[i] = pg_ascii_tolower((unsigned char) lexer->token[i]);
	if (statement->tokens < HEAD_WORDS)
		memcpy(statement->head[statement->tokens], word, WORD_SIZE);
	statement->tokens++;

	if (kind == '(')
		statement->parentheses++;
	else if (kind == ')' && !outside)
		statement->parentheses--;
	else if (outside && statement->body > 0 && !label)
	{
		/* CASE has an END too; SELECT 1 AS end is a name */
		if (strcmp(word, "case") == 0)
			statement->body++;
		else if (strcmp(word, "end") == 0)
			statement->body--;
	}
	else if (outside && strcmp(word, "atomic") == 0 &&
			 strcmp(statement->last_word, "begin") == 0 && makes_routine(statement))
		statement->body = 1;
	if (outside && head_is(statement, 0, "copy"))
		check_copy(lexer, statement, word);
	statement->last = kind;
	memcpy(statement->last_word, word, WORD_SIZE);
}

/* Is the token that word, as a name or in quotes? */
static bool
token_is(const Lexer *lexer, const char *word)
{
	const char *at = lexer->token;
	int			length = lexer->end - at;

	if (length >= 2 && (*at == '\'' || *at == '"'))
	{
		at++;
		length -= 2;
	}
	return length == (int) strlen(word) && pg_strncasecmp(at, word, length) == 0;
}

/* The same for the next one. */
static bool
next_is(Lexer *lexer, const char *word)
{
	(void) next_token(lexer);
	return token_is(lexer, word);
}

#define STRINGS_SETTING	"standard_conforming_strings"

/*
 * How strings are read after a statement, as far as its text says: SET, RESET, or
 * a call of set_config().  initial: how they are by default.
 */
static bool
strings_after(const Lexer *lexer, const Statement *statement, bool initial)
{
	static const char *const on[] = {"on", "true", "yes", "1"};
	static const char *const off[] = {"off", "false", "no", "0"};
	bool		now = lexer->standard_strings;
	Lexer		again = {lexer->text, now, statement->start, statement->start};

	if (head_is(statement, 0, "reset"))
	{
		(void) next_token(&again);
		(void) next_token(&again);
		return token_is(&again, STRINGS_SETTING) || token_is(&again, "all") ? initial : now;
	}
	if ((head_is(statement, 0, "discard") && head_is(statement, 1, "all")) ||
		head_is(statement, 0, "rollback"))
		return initial;
	(void) next_token(&again);
	(void) next_token(&again);
	if (head_is(statement, 0, "set"))
	{
		if (token_is(&again, "session") || token_is(&again, "local"))
			(void) next_token(&again);
		if (!token_is(&again, STRINGS_SETTING))
			return now;
		(void) next_token(&again);
		if (!token_is(&again, "=") && !token_is(&again, "to"))
			return now;
	}
	else if (head_is(statement, 0, "select"))
	{
		if (token_is(&again, "pg_catalog"))
		{
			if (!next_is(&again, "."))
				return now;
			(void) next_token(&again);
		}
		if (!token_is(&again, "set_config") || !next_is(&again, "(") ||
			!next_is(&again, STRINGS_SETTING) || !next_is(&again, ","))
			return now;
	}
	else
		return now;
	(void) next_token(&again);
	if (token_is(&again, "default"))
		return initial;
	for (int i = 0; i < lengthof(on); i++)
	{
		if (token_is(&again, on[i]))
			return true;
		if (token_is(&again, off[i]))
			return false;
	}
	return now;
}

/*
 * May strings be read in another way after it?  What works on tables does not
 * change that, whatever it may call.
 */
static bool
may_set(const Statement *statement)
{
	static const char *const heads[] = {
		"insert", "update", "delete", "create", "alter", "drop", "comment", "grant", "revoke"
	};

	for (int i = 0; i < lengthof(heads); i++)
	{
		if (head_is(statement, 0, heads[i]))
			return false;
	}
	return true;
}

/* A text under way of being divided. */
typedef struct Splitter
{
	Lexer		lexer;
	Cursor		cursor;
	Statement	statement;
	bool		initial;		/* how strings are read by default */
	bool		gap;
	SqlPiece   *pieces;
	int			n;
	int			size;
} Splitter;

/* The statement that was read is the next piece; its first byte is at "start". */
static SqlPiece *
add_piece(Splitter *splitter, const char *start, const char *end, int block)
{
	SqlPiece   *piece;

	if (splitter->n == splitter->size)
	{
		splitter->size *= 2;
		splitter->pieces = repalloc_huge(splitter->pieces, sizeof(SqlPiece) * splitter->size);
	}
	piece = &splitter->pieces[splitter->n++];
	memset(piece, 0, sizeof(*piece));
	cursor_move(&splitter->cursor, start);
	piece->at = start - splitter->lexer.text;
	piece->len = end - start;
	piece->line = splitter->cursor.line;
	piece->column = splitter->cursor.column;
	piece->gap = splitter->gap;
	piece->block = block;
	piece->standard_strings = splitter->lexer.standard_strings;
	piece->backslash = splitter->lexer.backslash;
	piece->may_set = may_set(&splitter->statement);
	return piece;
}

static void
split_all(Splitter *splitter)
{
	Lexer	   *lexer = &splitter->lexer;
	Statement  *statement = &splitter->statement;
	int			kind;

	do
	{
		int			block = lexer->block;
		bool		broken;

		kind = next_token(lexer);
		/* a block begins and ends statements, with or without semicolons */
		broken = lexer->passed && statement->start != NULL;
		if (broken)
		{
			lexer->end = lexer->token;
			kind = ';';
		}
		else if (kind == '\\')
		{
			if (statement->start != NULL || !skip_restriction(lexer))
				refuse_backslash(lexer);
			splitter->gap = true;
			continue;
		}
		if (kind != TOKEN_END && !broken &&
			(kind != ';' || statement->parentheses > 0 || statement->body > 0))
		{
			take_token(lexer, statement, kind);
			continue;
		}
		if (statement->start == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		classify(statement, add_piece(splitter, statement->start, statement->end, block));
		splitter->gap = broken;
		lexer->standard_strings = strings_after(lexer, statement, splitter->initial);
		lexer->backslash = false;
		memset(statement, 0, sizeof(*statement));
	} while (kind != TOKEN_END);
}

static void
split_init(Splitter *splitter, const char *sql, const SqlPiece *from, bool standard_strings)
{
	memset(splitter, 0, sizeof(*splitter));
	splitter->lexer.text = sql;
	splitter->lexer.standard_strings = standard_strings;
	splitter->lexer.token = splitter->lexer.end = sql + from->at;
	splitter->lexer.block = splitter->lexer.blocks = from->block;
	splitter->cursor.at = sql + from->at;
	splitter->cursor.line = from->line;
	splitter->cursor.column = from->column;
	splitter->initial = standard_strings;
	splitter->gap = from->gap;
	splitter->size = 16;
	splitter->pieces = palloc(sizeof(SqlPiece) * splitter->size);
}

static const SqlPiece text_start = {.line = 1,.column = 1};

SqlPiece *
split_sql(const char *sql, bool standard_conforming_strings, int *n)
{
	Splitter	splitter;

	split_init(&splitter, sql, &text_start, standard_conforming_strings);
	split_all(&splitter);
	*n = splitter.n;
	return splitter.pieces;
}

/*
 * Run split_all(); a syntax error is returned, so that what came before can be
 * used.  All that runs here works on memory of the current context alone.
 */
static ErrorData *
try_split(Splitter *splitter)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback *callbacks = error_context_stack;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		split_all(splitter);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_SYNTAX_ERROR)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error_context_stack = callbacks;
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

SqlPiece *
split_rest(const char *sql, const SqlPiece *from, bool standard_conforming_strings, int *n)
{
	Splitter	splitter;
	ErrorData  *error;

	if (from == NULL)
		from = &text_start;
	split_init(&splitter, sql, from, standard_conforming_strings);
	error = try_split(&splitter);
	if (error != NULL)
	{
		const char *start = splitter.statement.start;
		bool		may_differ = false;

		for (int i = 0; i < splitter.n; i++)
			may_differ |= splitter.pieces[i].may_set;
		if (!may_differ || strchr(sql, '\\') == NULL)
			ReThrowError(error);
		if (start == NULL)
			start = splitter.lexer.token;
		add_piece(&splitter, start, start + strlen(start), 0)->broken = true;
	}
	*n = splitter.n;
	return splitter.pieces;
}

SqlPiece *
split_anyhow(const char *sql, int *n)
{
	Splitter	splitter;
	ErrorData  *error;

	split_init(&splitter, sql, &text_start, true);
	error = try_split(&splitter);
	if (error != NULL)
	{
		if (strchr(sql, '\\') == NULL)
			ReThrowError(error);
		split_init(&splitter, sql, &text_start, false);
		if (try_split(&splitter) != NULL)
			ReThrowError(error);
		ereport(NOTICE,
				(errmsg("the text can be read only where standard_conforming_strings is off"),
				 errdetail("Where it is on: %s.", error->message)));
	}
	*n = splitter.n;
	return splitter.pieces;
}

bool
split_is_wrapped(const SqlPiece *pieces, int n)
{
	return n >= 2 && pieces[0].kind == PIECE_BEGIN && pieces[0].bare &&
		pieces[n - 1].kind == PIECE_COMMIT && pieces[n - 1].bare;
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
