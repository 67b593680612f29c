/*
 * digest_token.h
 *	  The tokens of a statement's text; for digest.c.
 */
#ifndef DBPOOL_DIGEST_TOKEN_H
#define DBPOOL_DIGEST_TOKEN_H

typedef enum TokenKind
{
	TOKEN_END,
	TOKEN_WORD,
	TOKEN_NAME,					/* in quotes */
	TOKEN_NUMBER,
	TOKEN_STRING,
	TOKEN_PARAM,
	TOKEN_OPERATOR,
	TOKEN_OTHER,				/* a bracket, a comma, ... */
	TOKEN_REST					/* nobody can tell what it is */
} TokenKind;

typedef struct Token
{
	TokenKind	kind;
	const char *at;
	const char *end;
	bool		blank;			/* something that does not count is before it */
} Token;

extern void token_next(Token *token, const char *text);
extern bool token_is_word(const Token *token, const char *word);
extern bool token_reads(const Token *token, const char *text);
extern const char *scan_blank(const char *at);
extern bool char_is_digit(char c);
extern char char_small(char c);

#endif							/* DBPOOL_DIGEST_TOKEN_H */
