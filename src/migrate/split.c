/*
 * split.c
 *	  The statements of a migration's text.
 *
 * A text is divided where psql would divide it: at semicolons that are outside
 * of strings, comments, parentheses (CREATE RULE has statements in them) and the
 * bodies of functions in standard SQL (BEGIN ATOMIC ... END).
 *
 * How backslashes are read depends on standard_conforming_strings, which a text
 * may set.  Statements that say so are followed, as psql does by the setting that
 * the remote reports; run.c sees to what only the remote knows.
 *
 * Everything is found in one pass, in time and memory linear to the text.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "migrate/lex.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* Words that say what kind of a statement it is; the longest is ISOLATION. */
#define HEAD_WORDS	6
#define WORD_SIZE	12

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
		lex_refuse(lexer, statement->start, ERRCODE_FEATURE_NOT_SUPPORTED,
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
	(void) lex_next_token(lexer);
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
		(void) lex_next_token(&again);
		(void) lex_next_token(&again);
		return token_is(&again, STRINGS_SETTING) || token_is(&again, "all") ? initial : now;
	}
	if ((head_is(statement, 0, "discard") && head_is(statement, 1, "all")) ||
		head_is(statement, 0, "rollback"))
		return initial;
	(void) lex_next_token(&again);
	(void) lex_next_token(&again);
	if (head_is(statement, 0, "set"))
	{
		if (token_is(&again, "session") || token_is(&again, "local"))
			(void) lex_next_token(&again);
		if (!token_is(&again, STRINGS_SETTING))
			return now;
		(void) lex_next_token(&again);
		if (!token_is(&again, "=") && !token_is(&again, "to"))
			return now;
	}
	else if (head_is(statement, 0, "select"))
	{
		if (token_is(&again, "pg_catalog"))
		{
			if (!next_is(&again, "."))
				return now;
			(void) lex_next_token(&again);
		}
		if (!token_is(&again, "set_config") || !next_is(&again, "(") ||
			!next_is(&again, STRINGS_SETTING) || !next_is(&again, ","))
			return now;
	}
	else
		return now;
	(void) lex_next_token(&again);
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

		kind = lex_next_token(lexer);
		/* a block begins and ends statements, with or without semicolons */
		broken = lexer->passed && statement->start != NULL;
		if (broken)
		{
			lexer->end = lexer->token;
			kind = ';';
		}
		else if (kind == '\\')
		{
			if (statement->start != NULL || !lex_skip_restriction(lexer))
				lex_refuse_backslash(lexer);
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
splitter_init(Splitter *splitter, const char *sql, const SqlPiece *from, bool standard_strings)
{
	memset(splitter, 0, sizeof(*splitter));
	splitter->lexer.text = sql;
	splitter->lexer.standard_strings = standard_strings;
	splitter->lexer.block_mark = marks_block;
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

	splitter_init(&splitter, sql, &text_start, standard_conforming_strings);
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
	splitter_init(&splitter, sql, from, standard_conforming_strings);
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

	splitter_init(&splitter, sql, &text_start, true);
	error = try_split(&splitter);
	if (error != NULL)
	{
		if (strchr(sql, '\\') == NULL)
			ReThrowError(error);
		splitter_init(&splitter, sql, &text_start, false);
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
