/*
 * digest.c
 *	  Which texts are the same statement?
 *
 * A text is brought into a normal form, and that is hashed.  The form has the tokens of
 * the text with one blank between, words in char_small letters, and what does not count left
 * out: literals, comments, and all of a list after IN or VALUES but one of its elements
 * that look alike.  Two texts have the same form only if they differ in nothing else:
 * what stands for something that was left out begins with a zero, which no text has.
 *
 *	 \0l			a literal
 *	 \0c text \0	a literal that is code, as the body of a function
 *	 \0p			the parameter whose number is next
 *	 \0rN+M			the N-th of those again; or the one with the number that is higher
 *					by M, which was in an element that is left out
 *	 \0qN			one whose number is higher by N than the next
 *	 \0m			in a list: and more like this, or none
 *	 \0t hash		the rest of the text, of which nothing is known
 *
 * So a parameter behind a list is the same whatever the length of that is.
 *
 * The tokens are digest_token.c's.  Throws nothing but for want of memory.
 */
#include "postgres.h"

#include "backend/digest.h"
#include "backend/digest_token.h"
#include "common/hashfn.h"

/* Brackets within brackets; lists in deeper ones are left as they are. */
#define DEPTH_MOST		64

/* The highest number that the protocol has for a parameter. */
#define PARAM_MOST		65535

/* Brackets that are open; or the rows of VALUES, which have none around them. */
typedef struct Level
{
	bool		list;			/* its elements may be left out */
	bool		rows;			/* they are rows of VALUES */
	bool		constant;		/* the present element has a literal or a
								 * parameter */
	int			at;				/* where that begins, in the form */
	int			param;			/* which parameter was next there */
	int			ordinal;		/* and how many there had been */
	int			kept;			/* where the last one that was kept begins; or
								 * -1 */
	int			kept_end;
	int			kept_param;
	int			kept_params;	/* so many are in it */
	int			kept_shown;		/* its end in what is shown */
	bool		more;			/* some after it were left out */
} Level;

/* A parameter that has come: see \0r. */
typedef struct Param
{
	int			ordinal;
	int			above;
} Param;

typedef struct Digester
{
	const char *sql;
	Token		token;
	Token		before;			/* the last one that was put */
	StringInfoData form;
	StringInfo	shown;
	Level		levels[DEPTH_MOST];
	int			depth;
	int			too_deep;		/* so many more are open */
	Param	   *params;			/* by number; [0] is not used */
	int			params_room;
	int			next_param;
	int64		ahead;			/* the highest number that came before its
								 * turn */
	int			ordinal;		/* so many are in the form */
	bool		begins;			/* a statement does */
	bool		creates;		/* it is a CREATE */
	bool		code;			/* its strings are code */
} Digester;

/* --- the form --------------------------------------------------------------------------- */

/* Begin another token: in the form each has a blank before it. */
static void
form_blank(Digester *digester)
{
	if (digester->form.len > 0)
		appendStringInfoChar(&digester->form, ' ');
	if (digester->shown->len > 0 && digester->token.blank && digester->shown->len < DIGEST_SHOWN)
		appendStringInfoChar(digester->shown, ' ');
}

static void
form_shown(Digester *digester, const char *at, Size len)
{
	if (digester->shown->len < DIGEST_SHOWN)
		appendBinaryStringInfo(digester->shown, at, (int) Min(len, DIGEST_SHOWN));
}

/* What stands for something: a zero and a letter. */
static void
form_mark(Digester *digester, char mark)
{
	appendStringInfoChar(&digester->form, '\0');
	appendStringInfoChar(&digester->form, mark);
}

static void
form_hash(StringInfo form, const char *bytes, Size len)
{
	uint64		hash[3] = {0, 0, len};

	/* the server's function takes an int */
	for (Size at = 0; at < len; at += 1 << 30)
	{
		int			piece = (int) Min(len - at, 1 << 30);

		for (int i = 0; i < 2; i++)
			hash[i] = hash_bytes_extended((const unsigned char *) bytes + at, piece, hash[i] + i + 1);
	}
	appendBinaryStringInfo(form, (const char *) hash, sizeof(hash));
}

static void
form_token(Digester *digester)
{
	const Token *token = &digester->token;

	form_blank(digester);
	if (token->kind == TOKEN_WORD)
	{
		enlargeStringInfo(&digester->form, (int) (token->end - token->at));
		for (const char *at = token->at; at < token->end; at++)
			digester->form.data[digester->form.len++] = char_small(*at);
		digester->form.data[digester->form.len] = '\0';
	}
	else
		appendBinaryStringInfo(&digester->form, token->at, (int) (token->end - token->at));
	form_shown(digester, token->at, token->end - token->at);
}

static void
form_literal(Digester *digester)
{
	form_blank(digester);
	if (digester->code && digester->token.kind == TOKEN_STRING)
	{
		form_mark(digester, 'c');
		appendBinaryStringInfo(&digester->form, digester->token.at,
							   (int) (digester->token.end - digester->token.at));
		appendStringInfoChar(&digester->form, '\0');
	}
	else
		form_mark(digester, 'l');
	form_shown(digester, "?", 1);
	if (digester->depth > 0)
		digester->levels[digester->depth - 1].constant = true;
}

/* The parameter whose number is next has come. */
static void
add_param(Digester *digester)
{
	if (digester->next_param >= digester->params_room)
	{
		digester->params_room = Max(64, 2 * digester->params_room);
		if (digester->params == NULL)
			digester->params = palloc(digester->params_room * sizeof(Param));
		else
			digester->params = repalloc(digester->params, digester->params_room * sizeof(Param));
	}
	digester->params[digester->next_param++] = (Param)
	{
		digester->ordinal++, 0
	};
}

static void
form_param(Digester *digester)
{
	const Token *token = &digester->token;
	int64		number = 0;

	for (const char *at = token->at + 1; at < token->end && number < PG_INT32_MAX; at++)
		number = 10 * number + (*at - '0');
	form_blank(digester);
	if (number == digester->next_param && number <= PARAM_MOST)
	{
		form_mark(digester, 'p');
		add_param(digester);
	}
	else if (number > 0 && number < digester->next_param)
	{
		const Param *param = &digester->params[number];

		form_mark(digester, 'r');
		appendStringInfo(&digester->form, "%d+%d", param->ordinal, param->above);
	}
	else
	{
		form_mark(digester, 'q');
		appendStringInfo(&digester->form, INT64_FORMAT, number - digester->next_param);
		digester->ahead = Max(digester->ahead, number);
	}
	form_shown(digester, token->at, token->end - token->at);
	if (digester->depth > 0)
		digester->levels[digester->depth - 1].constant = true;
}

/* Nothing is known of the text from here on. */
static void
form_rest(Digester *digester)
{
	form_blank(digester);
	form_mark(digester, 't');
	form_hash(&digester->form, digester->token.at, digester->token.end - digester->token.at);
	form_shown(digester, "...", 3);
}

/* --- lists ------------------------------------------------------------------------------ */

static void
element_begins(Digester *digester, Level *level)
{
	level->at = digester->form.len;
	level->param = digester->next_param;
	level->ordinal = digester->ordinal;
	level->constant = false;
}

static void
level_open(Digester *digester, bool list, bool rows)
{
	Level	   *level;

	if (digester->depth >= DEPTH_MOST || digester->too_deep > 0)
	{
		digester->too_deep++;
		return;
	}
	level = &digester->levels[digester->depth++];
	memset(level, 0, sizeof(Level));
	level->list = list;
	level->rows = rows;
	level->kept = -1;
	element_begins(digester, level);
}

/* Is the element that ends here like the last one that was kept? */
static bool
element_is_like_last(const Digester *digester, const Level *level)
{
	const char *form = digester->form.data;
	int			len = digester->form.len - level->at;

	/* \0m is at the end of that, and only there */
	return level->kept >= 0 && level->kept_end - level->kept == len + 2 &&
		level->kept_params == digester->next_param - level->param &&
		(level->kept_params == 0 || level->param > digester->ahead) &&
		memcmp(form + level->kept, form + level->at, len) == 0;
}

/* An element of a list ends: leave it out if it is like the last one. */
static void
element_ends(Digester *digester, Level *level)
{
	if (!level->constant)
	{
		level->kept = -1;
		return;
	}
	if (element_is_like_last(digester, level))
	{
		for (int i = 0; i < level->kept_params; i++)
		{
			const Param *kept = &digester->params[level->kept_param + i];
			int			above = level->param - level->kept_param + kept->above;

			digester->params[level->param + i] = (Param)
			{
				kept->ordinal, above
			};
		}
		digester->ordinal = level->ordinal;
		digester->form.len = level->kept_end;
		digester->shown->len = Min(digester->shown->len, level->kept_shown);
		if (!level->more)
			form_shown(digester, ", ...", 5);
		level->more = true;
		level->kept_shown = digester->shown->len;
		return;
	}
	form_mark(digester, 'm');
	level->kept = level->at;
	level->kept_end = digester->form.len;
	level->kept_param = level->param;
	level->kept_params = digester->next_param - level->param;
	level->kept_shown = digester->shown->len;
	level->more = false;
}

static void
level_close(Digester *digester)
{
	bool		constant;

	if (digester->too_deep > 0)
	{
		digester->too_deep--;
		return;
	}
	if (digester->depth == 0)
		return;
	constant = digester->levels[--digester->depth].constant ||
		digester->levels[digester->depth].kept >= 0;
	if (digester->depth > 0)
		digester->levels[digester->depth - 1].constant |= constant;
}

/* The list that the present element may be one of, or NULL. */
static Level *
present_list(Digester *digester)
{
	Level	   *level = &digester->levels[digester->depth - 1];

	return digester->depth > 0 && digester->too_deep == 0 && level->list ? level : NULL;
}

/* Rows of VALUES end by whatever does not go on with them. */
static void
rows_end(Digester *digester)
{
	Level	   *list = present_list(digester);
	const Token *token = &digester->token;

	if (list == NULL || !list->rows || (token->kind == TOKEN_OTHER && *token->at == ',') ||
		(token->kind == TOKEN_OTHER && *token->at == '(' &&
		 (token_reads(&digester->before, ",") || token_is_word(&digester->before, "values"))))
		return;
	element_ends(digester, list);
	level_close(digester);
}

/* Brackets and commas, as far as they are of lists. */
static void
form_other(Digester *digester)
{
	const Token *token = &digester->token;
	Level	   *list;

	if (*token->at == ',' || *token->at == ')' || *token->at == ']')
	{
		list = present_list(digester);
		if (list != NULL)
			element_ends(digester, list);
		if (*token->at != ',')
			level_close(digester);
	}
	/* they have no bracket by which one that is too deep would end */
	if (*token->at == '(' && token_is_word(&digester->before, "values") &&
		digester->depth < DEPTH_MOST && digester->too_deep == 0)
		level_open(digester, true, true);
	form_token(digester);
	if (*token->at == '(')
		level_open(digester, token_is_word(&digester->before, "in"), false);
	else if (*token->at == '[')
		level_open(digester, false, false);
	else if (*token->at == ',' && (list = present_list(digester)) != NULL)
		element_begins(digester, list);
}

/* --- statements ------------------------------------------------------------------------- */

/* Are the strings of the statement code, by what it has begun with? */
static void
note_word(Digester *digester)
{
	const Token *token = &digester->token;

	if (digester->begins)
	{
		digester->creates = token_is_word(token, "create");
		digester->code = token_is_word(token, "do");
	}
	else if (digester->creates &&
			 (token_is_word(token, "function") || token_is_word(token, "procedure")))
		digester->code = true;
}

/* May a sign that comes next be that of a number, and nothing else? */
static bool
sign_is_of_number(const Token *before)
{
	static const char *const words[] = {"select", "then", "else", "when", "and", "or", "not", "limit", "offset", "where",
	"having", "on", "case", "returning", "like", "ilike"};
	static const char *const others[] = {"=", "<", ">", "<=", ">=", "<>", "!=", "+", "-", "*", "/", "||", "=>", ":=", "(", ",", "["};

	for (int i = 0; i < lengthof(words); i++)
	{
		if (token_is_word(before, words[i]))
			return true;
	}
	for (int i = 0; i < lengthof(others); i++)
	{
		if ((before->kind == TOKEN_OPERATOR || before->kind == TOKEN_OTHER) && token_reads(before, others[i]))
			return true;
	}
	return false;
}

/* Take a sign and its number for one literal. */
static void
join_sign(Digester *digester)
{
	Token		sign = digester->token;
	const char *behind = scan_blank(sign.end);

	if (sign.kind != TOKEN_OPERATOR || !(token_reads(&sign, "-") || token_reads(&sign, "+")) ||
		!(char_is_digit(*behind) || (*behind == '.' && char_is_digit(behind[1]))) ||
		!sign_is_of_number(&digester->before))
		return;
	token_next(&digester->token, digester->sql);
	digester->token.at = sign.at;
	digester->token.blank = sign.blank;
}

/* Is it a literal only where an element of a list, or an argument, is expected? */
static bool
is_word_literal(Digester *digester)
{
	const Token *token = &digester->token;
	const char *behind;

	if (!(token_reads(&digester->before, "(") || token_reads(&digester->before, ",")) ||
		!(token_is_word(token, "null") || token_is_word(token, "true") || token_is_word(token, "false")))
		return false;
	behind = scan_blank(token->end);
	return *behind == ',' || *behind == ')';
}

static void
form_take(Digester *digester)
{
	rows_end(digester);
	join_sign(digester);
	switch (digester->token.kind)
	{
		case TOKEN_WORD:
			note_word(digester);
			if (is_word_literal(digester))
				form_literal(digester);
			else
				form_token(digester);
			break;
		case TOKEN_NUMBER:
		case TOKEN_STRING:
			form_literal(digester);
			break;
		case TOKEN_PARAM:
			form_param(digester);
			break;
		case TOKEN_OTHER:
			form_other(digester);
			break;
		case TOKEN_REST:
			form_rest(digester);
			break;
		default:
			form_token(digester);
			break;
	}
	digester->begins = token_reads(&digester->token, ";") && digester->depth == 0;
	if (digester->begins)
		digester->code = digester->creates = false;
	digester->before = digester->token;
}

/*
 * The digest of a text, and what of it may be shown, which is initialised here: the
 * text without its literals.  In memory of the present context.
 */
void
digest_text(const char *sql, Digest *digest, StringInfo shown)
{
	Digester	digester;

	memset(&digester, 0, offsetof(Digester, levels));
	digester.depth = digester.too_deep = 0;
	digester.params = NULL;
	digester.params_room = 0;
	digester.next_param = 1;
	digester.ahead = 0;
	digester.ordinal = 0;
	digester.begins = true;
	digester.creates = digester.code = false;
	digester.sql = sql;
	initStringInfo(&digester.form);
	initStringInfo(shown);
	digester.shown = shown;
	for (;;)
	{
		token_next(&digester.token, digester.sql);
		if (digester.token.kind == TOKEN_END)
			break;
		form_take(&digester);
	}
	rows_end(&digester);
	shown->data[shown->len] = '\0';
	digest->len = digester.form.len;
	for (int i = 0; i < 2; i++)
		digest->hash[i] = hash_bytes_extended((const unsigned char *) digester.form.data,
											  digester.form.len, UINT64CONST(0x9E3779B97F4A7C15) * (i + 1));
	if (digester.params != NULL)
		pfree(digester.params);
	pfree(digester.form.data);
}
