/*
 * lex.h
 *	  The tokens of a migration's text; for split.c.
 */
#ifndef DBPOOL_MIGRATE_LEX_H
#define DBPOOL_MIGRATE_LEX_H

#include "postgres.h"

#include <limits.h>

#include "migrate/line.h"

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
	MarkBlock	(*block_mark) (const Line *line);	/* finds them; or NULL */
} Lexer;

/* Move on; CR LF and LF end a line. */
extern void cursor_move(Cursor *cursor, const char *to);

/* A text that cannot be divided: say what and where.  hint may be NULL. */
extern void lex_refuse(const Lexer *lexer, const char *at, int code, const char *what,
					   const char *hint) __attribute__((noreturn));

/* The token is a backslash: a command of psql's. */
extern void lex_refuse_backslash(const Lexer *lexer) __attribute__((noreturn));

/* Read the next token; returns its kind. */
extern int	lex_next_token(Lexer *lexer);

/* The token is a backslash: pass over psql's \restrict or \unrestrict; false if it is another one. */
extern bool lex_skip_restriction(Lexer *lexer);

#endif							/* DBPOOL_MIGRATE_LEX_H */
