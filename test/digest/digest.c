/*
 * digest.c
 *	  src/backend/digest.c and digest_token.c against statements whose parts are known, without a server.
 *
 *	  digest [SEED [PAIRS]]
 *
 * A statement is made of random parts, and written in two ways that differ in what does
 * not count: literals, comments, blanks, letters' case, the lengths of lists. Both have
 * to have one digest. Then some of its parts are changed: the digest has to be
 * another one, unless the statement is the same. Prints what it costs to make one; fails
 * by what goes wrong first. With a text as the third argument it prints the digest of
 * that.
 */
#include "postgres.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* What the server's library has, and this does not link to. */
#undef printf
#undef fprintf
#undef snprintf
#undef sprintf
#undef Assert
#define Assert(condition) assert(condition)

#include "backend/digest.c"
#include "backend/digest_token.c"

#define PARTS_MOST	24
#define TEXT_ROOM	16384

typedef enum PartKind
{
	PART_WORD,
	PART_NAME,
	PART_LITERAL,
	PART_PARAM,
	PART_AGAIN,					/* a parameter that has come */
	PART_OPERATOR,
	PART_OPEN,
	PART_CLOSE,
	PART_COMMA,
	PART_IN,
	PART_VALUES,
	PART_ARRAY,
	PART_KINDS
} PartKind;

/* Lists: "what" is a number whose digits, to the base 4, say what the elements are. */
typedef struct Part
{
	PartKind	kind;
	unsigned	what;
} Part;

typedef struct Statement
{
	int			n;
	Part		parts[PARTS_MOST];
} Statement;

static const char *const words[] = {
	"a", "b", "e", "n", "u", "x", "ab", "select", "from", "where", "and", "or", "is", "null", "not", "between", "union",
	"a1", "_a", "a$1", "\xc3\xa9", "\xc3\xa9t", "date", "interval", "returning", "group", "by", "do_it", "creation", "true",
};
static const char *const names[] = {
	"\"a\"", "\"A\"", "\"a b\"", "\"a  b\"", "\"a--b\"", "\"/*\"", "\"*/\"", "\"'\"", "\"a\"\"b\"", "\"$1\"", "\"$2\"",
	"\"?\"", "\"in\"", "\"values\"", "\"1\"", "u&\"a\"", "\"a(1,2)\"",
};
static const char *const operators[] = {
	"+", "-", "*", "/", "<", ">", "=", "<=", ">=", "<>", "!=", "||", "@>", "->", "->>", "?", "?|", "~", "~*", "%", "^", "&",
	"#", "::", ":=", "=>", "..", ".", ":", "@-", "?-", "|/", "<->", ";", "&&", "|", "=-@",
};
static const char *const literals[] = {
	"1", "0", "42", "1.5", ".5", "1e10", "1.5E-3", "0x1F", "1_000", "'a'", "''", "'it''s'", "'--'", "'/*'", "'*/'", "'\"'",
	"'$$'", "' in (1, 2) '", "$$a$$", "$$ 'a' -- $$", "$x$ $$ $y$ $x$", "E'\\''", "e'a\\\\'", "b'101'", "X'1f'", "U&'\\0041'",
	"N'a'", "'a\\b'", "'a'\n'b'", "'a' -- c\n  'b'", "'\xc3\xa9'",
};
static const char *const string_literals[] = {"'a'", "''", "$$1$$", "E'\\''", "'-1'"};
static const char *const blanks[] = {
	" ", "  ", "\n", "\t", " /* a */ ", "/**/", "/* 'a */", "/* /* */ 1 */", " -- it's\n", "\r\n", "/*a*//*b*/", " --\n",
};

static uint64 state;

static unsigned
chance(unsigned n)
{
	/* xorshift64*, by Marsaglia and Vigna */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (unsigned) (((state * UINT64CONST(2685821657736338717)) >> 33) % n);
}

static char
random_case(char c)
{
	if (chance(4) != 0)
		return c;
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 'A';
	return c;
}

/* --- statements ----------------------------------------------------------------------- */

static Part
random_part(void)
{
	static const PartKind likely[] = {PART_WORD, PART_WORD, PART_OPERATOR, PART_OPERATOR, PART_LITERAL, PART_PARAM};
	Part		part;

	part.kind = chance(3) != 0 ? likely[chance(lengthof(likely))] : (PartKind) chance(PART_KINDS);
	part.what = chance(1 << 12);
	return part;
}

static bool
is_constant(PartKind kind)
{
	return kind == PART_LITERAL || kind == PART_PARAM || kind == PART_AGAIN;
}

/*
 * Have it be one that can be written in several ways: what is next to each other must
 * not be something else together, and each bracket has its other one.
 */
static void
mend(Statement *statement)
{
	int			open = 0;
	int			n = 0;
	int			params = 0;

	for (int i = 0; i < statement->n; i++)
	{
		Part		part = statement->parts[i];

		if (n > 0 && is_constant(statement->parts[n - 1].kind) && is_constant(part.kind))
			continue;
		if (part.kind == PART_CLOSE && open == 0)
			continue;
		if (part.kind == PART_AGAIN && params == 0)
			part.kind = PART_PARAM;
		/* a list within brackets would be one of the list's elements */
		if ((part.kind == PART_IN || part.kind == PART_VALUES) && open > 0)
			part.kind = PART_ARRAY;
		open += (part.kind == PART_OPEN) - (part.kind == PART_CLOSE);
		params += part.kind == PART_PARAM;
		statement->parts[n++] = part;
	}
	while (open-- > 0 && n < PARTS_MOST)
		statement->parts[n++] = (Part)
	{
		PART_CLOSE, 0
	};
	if (n == 0)
		statement->parts[n++] = (Part)
	{
		PART_WORD, 0
	};
	statement->n = n;
}

static void
make(Statement *statement)
{
	statement->n = 1 + (int) chance(PARTS_MOST - 8);
	for (int i = 0; i < statement->n; i++)
		statement->parts[i] = random_part();
	mend(statement);
}

static void
change(Statement *statement)
{
	int			at = (int) chance(statement->n);
	Part	   *parts = statement->parts;

	switch (chance(4))
	{
		case 0:
			parts[at] = random_part();
			break;
		case 1:
			if (statement->n > 1)
				memmove(&parts[at], &parts[at + 1], sizeof(Part) * (--statement->n - at));
			break;
		case 2:
			if (statement->n < PARTS_MOST)
			{
				memmove(&parts[at + 1], &parts[at], sizeof(Part) * (statement->n++ - at));
				parts[at] = random_part();
			}
			break;
		default:
			if (at + 1 < statement->n)
			{
				Part		part = parts[at];

				parts[at] = parts[at + 1];
				parts[at + 1] = part;
			}
			break;
	}
	mend(statement);
}

/* --- what they are ---------------------------------------------------------------------- */

/* The elements of a list: l literals, p parameters, w words, alike ones together. */
static int
elements(unsigned what, char *kinds)
{
	static const char letters[] = "llpw";
	int			n = 0;

	for (int i = 0; i < 1 + (int) (what & 3); i++)
		kinds[n++] = letters[(what >> (2 + 2 * i)) & 3];
	return n;
}

/* A text that is the same for two statements if they are. */
static void
identity(const Statement *statement, char *text)
{
	int			params = 0;

	*text = '\0';
	for (int i = 0; i < statement->n; i++)
	{
		const Part *part = &statement->parts[i];
		char		kinds[8];
		int			n;

		text += strlen(text);
		switch (part->kind)
		{
			case PART_WORD:
				/* between brackets and commas they are literals */
				sprintf(text, " w%s", words[part->what % lengthof(words)]);
				if (i > 0 && (statement->parts[i - 1].kind == PART_OPEN || statement->parts[i - 1].kind == PART_COMMA) &&
					i + 1 < statement->n &&
					(statement->parts[i + 1].kind == PART_CLOSE || statement->parts[i + 1].kind == PART_COMMA) &&
					(strcmp(text, " wnull") == 0 || strcmp(text, " wtrue") == 0))
					sprintf(text, " l");
				break;
			case PART_NAME:
				sprintf(text, " n%s", names[part->what % lengthof(names)]);
				break;
			case PART_LITERAL:
				sprintf(text, " l");
				break;
			case PART_PARAM:
				params++;
				sprintf(text, " p");
				break;
			case PART_AGAIN:
				sprintf(text, " r%u", part->what % params);
				break;
			case PART_OPERATOR:
				sprintf(text, " o%s", operators[part->what % lengthof(operators)]);
				break;
			case PART_OPEN:
				sprintf(text, " (");
				break;
			case PART_CLOSE:
				sprintf(text, " )");
				break;
			case PART_COMMA:
				sprintf(text, " ,");
				break;
			default:
				sprintf(text, part->kind == PART_IN ? " IN" : part->kind == PART_VALUES ? " VALUES" : " ARRAY");
				n = elements(part->what, kinds);
				for (int k = 0; k < n; k++)
				{
					/*
					 * of those in which there is a constant, and not of an
					 * array, one will do
					 */
					if (k > 0 && kinds[k] == kinds[k - 1] && part->kind != PART_ARRAY &&
						(kinds[k] != 'w' || part->kind == PART_VALUES))
						continue;
					sprintf(text + strlen(text), "%c", kinds[k]);
				}
				break;
		}
	}
}

/* --- writing them ------------------------------------------------------------------------ */

static char *
put(char *at, const char *text)
{
	strcpy(at, text);
	return at + strlen(text);
}

static char *
put_any_case(char *at, const char *text)
{
	for (; *text != '\0'; text++)
		*at++ = random_case(*text);
	*at = '\0';
	return at;
}

static char *
put_gap(char *at, bool needed)
{
	if (!needed && chance(2) == 0)
		return at;
	do
		at = put(at, blanks[chance(lengthof(blanks))]);
	while (chance(4) == 0);
	return at;
}

static char *
put_elements(char *at, const Part *part, int *next)
{
	char		kinds[8];
	int			n = elements(part->what, kinds);
	bool		rows = part->kind == PART_VALUES;

	for (int k = 0; k < n; k++)
	{
		int			times = part->kind == PART_ARRAY || kinds[k] == 'w' ? 1 : 1 + (int) chance(4);

		for (int i = 0; i < times; i++)
		{
			if (k > 0 || i > 0)
			{
				at = put(at, ",");
				at = put_gap(at, false);
			}
			if (rows)
				at = put_gap(put(at, "("), false);
			if (kinds[k] == 'l')
				at = put(at, literals[chance(lengthof(literals))]);
			else if (kinds[k] == 'p')
				at += sprintf(at, "$%d", (*next)++);
			else
				at = put_any_case(at, "def");
			at = put_gap(at, false);
			if (rows)
				at = put(put(at, ",f(1)"), ")");
		}
	}
	return at;
}

static char *
put_part(char *at, const Statement *statement, int i, int *numbers, int *params, int *next)
{
	const Part *part = &statement->parts[i];
	bool		sign = i > 0 && statement->parts[i - 1].kind == PART_OPERATOR;

	switch (part->kind)
	{
		case PART_WORD:
			return put_any_case(at, words[part->what % lengthof(words)]);
		case PART_NAME:
			return put(at, names[part->what % lengthof(names)]);
		case PART_LITERAL:
			/* a sign before a number may be that of it */
			return put(at, sign ? string_literals[chance(lengthof(string_literals))] :
					   literals[chance(lengthof(literals))]);
		case PART_PARAM:
			numbers[(*params)++] = *next;
			return at + sprintf(at, "$%d", (*next)++);
		case PART_AGAIN:
			return at + sprintf(at, "$%d", numbers[part->what % *params]);
		case PART_OPERATOR:
			return put(at, operators[part->what % lengthof(operators)]);
		case PART_OPEN:
			return put(at, "(");
		case PART_CLOSE:
			return put(at, ")");
		case PART_COMMA:
			return put(at, ",");
		case PART_IN:
			at = put_gap(put_any_case(at, "in"), false);
			return put(put_elements(put(at, "("), part, next), ")");
		case PART_VALUES:
			at = put_gap(put_any_case(at, "values"), false);
			return put(put_elements(at, part, next), "; x");
		default:
			return put(put_elements(put(at, "array["), part, next), "]");
	}
}

static void
write_out(const Statement *statement, char *text)
{
	char	   *at = put_gap(text, false);
	int			numbers[PARTS_MOST];
	int			params = 0;
	int			next = 1;

	for (int i = 0; i < statement->n; i++)
	{
		PartKind	kind = statement->parts[i].kind;
		PartKind	before = i > 0 ? statement->parts[i - 1].kind : PART_COMMA;
		bool		together = before == PART_OPEN || before == PART_COMMA || kind == PART_CLOSE || kind == PART_COMMA;

		if (i > 0)
			at = put_gap(at, !together);
		at = put_part(at, statement, i, numbers, &params, &next);
	}
	(void) put_gap(at, false);
}

/* --- checks ------------------------------------------------------------------------------ */

static void
digest_of(const char *text, Digest *digest, char *shown)
{
	StringInfoData buf;

	memset(digest, 0, sizeof(Digest));
	digest_text(text, digest, &buf);
	snprintf(shown, TEXT_ROOM, "%s", buf.data);
	pfree(buf.data);
}

static bool
is_same(const Digest *a, const Digest *b)
{
	return memcmp(a->hash, b->hash, sizeof(a->hash)) == 0 && a->len == b->len;
}

static void
expect(const char *a, const char *b, bool same)
{
	static char shown[2][TEXT_ROOM];
	Digest		digests[2];

	digest_of(a, &digests[0], shown[0]);
	digest_of(b, &digests[1], shown[1]);
	if (is_same(&digests[0], &digests[1]) == same)
		return;
	printf("%s:\n<%s>\n<%s>\n<%s>\n<%s>\n", same ? "the same, and two digests" : "not the same, and one digest",
		   a, b, shown[0], shown[1]);
	exit(1);
}

static void
check_known(void)
{
	static const char *const same[][2] = {
		{"SELECT a FROM t WHERE b = 1", "select a\nfrom t /* c */ where b='x' -- d"},
		{"SELECT 1", "SELECT -1"},
		{"a IN (1)", "a IN (1, -2, 'c', NULL)"},
		{"a IN ($1)", "a IN ($1, $2, $3)"},
		{"a IN ($1, $2) AND b = $3", "a IN ($1,$2,$3) AND b = $4"},
		{"a = $1 AND b IN ($2) AND c = $1", "a = $1 AND b IN ($2, $3) AND c = $1"},
		{"a IN ($1::uuid)", "a IN ($1::uuid, $2::uuid)"},
		{"a IN (DATE '2020-01-01')", "a IN (DATE '2020-01-01', DATE '2020-01-02')"},
		{"(a, b) IN ((1, 2))", "(a, b) IN ((1, 2), (3, 4))"},
		{"INSERT INTO t VALUES (1, $1)", "INSERT INTO t VALUES (1, $1), (2, $2), (3, $3)"},
		{"INSERT INTO t VALUES ($1, $2) RETURNING a", "INSERT INTO t VALUES ($1, $2), ($3, $4) RETURNING a"},
		{"INSERT INTO t VALUES (1, now(), DEFAULT)", "INSERT INTO t VALUES (1, now(), DEFAULT), (2, now(), DEFAULT)"},
		{"SELECT * FROM (VALUES (1)) v, w", "SELECT * FROM (VALUES (1), (2)) v, w"},
		{"a IN (SELECT 1)", "a IN (SELECT 2)"},
		{"x = 'a' 'b'", "x = 'a' 'c'"},
		{"SET x = 1", "SET x = 2"},
	};
	static const char *const other[][2] = {
		{"SELECT a b", "SELECT ab"},
		{"SELECT a, b", "SELECT a b"},
		{"SELECT f(1)", "SELECT f(1, 2)"},
		{"SELECT ARRAY[1]", "SELECT ARRAY[1, 2]"},
		{"SELECT a IS TRUE", "SELECT a IS FALSE"},
		{"SELECT a IS NULL", "SELECT a IS NOT NULL"},
		{"a = $1 AND b = $2", "a = $2 AND b = $1"},
		{"a = $1 AND b = $1", "a = $1 AND b = $2"},
		{"b = $2 AND a IN ($1, $2, $3)", "b = $2 AND a IN ($1)"},
		{"a IN ($1, $2, $3) AND b = $2", "a IN ($1, $2, $3) AND b = $3"},
		{"a IN ($1, $2, $3) AND b = $3", "a IN ($1, $2) AND b = $3"},
		{"a IN (b, b)", "a IN (b)"},
		{"a IN (f(), f())", "a IN (f())"},
		{"a IN (f(1))", "a IN (f(1, 1))"},
		{"a IN (1), 2", "a IN (1, 2)"},
		{"a IN (1), 1, 1", "a IN (1), 1"},
		{"SELECT (VALUES (1)), 1, 1", "SELECT (VALUES (1)), 1"},
		{"VALUES (1, 2)", "VALUES (1), (2)"},
		{"VALUES (1), (1, 2)", "VALUES (1)"},
		{"a -1", "a 1"},
		{"a @- 1", "a @ -1"},
		{"a @-1", "a @ 1"},
		{"a ? 'b'", "a 'b' ?"},
		{"a ? 1", "a ?? 1"},
		{"a ! - 1", "a ! 1"},
		{"a <- b", "a <-> b"},
		{"a - - b", "a -- b"},
		{"a : : b", "a :: b"},
		{"u&\"a\"", "u & \"a\""},
		{"\"a\"", "\"A\""},
		{"\"a b\"", "\"a  b\""},
		{"\"a\"\"b\"", "\"a\" \"b\""},
		{"DO 'a'", "DO 'b'"},
		{"DO $$a$$", "DO $$b$$"},
		{"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT a'", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT b'"},
		/* what the remote takes for a string is not known here */
		{"SELECT 'a\\' || f() || '", "SELECT 'a\\' || g() || '"},
		{"SELECT 'a", "SELECT 'b"},
		{"SELECT a /* b", "SELECT a /* c"},
		{"SELECT \"a", "SELECT \"b"},
		{"SELECT $$a", "SELECT $$b"},
		{"", ";"},
		{"a IN ()", "a IN (1)"},
	};

	for (int i = 0; i < lengthof(same); i++)
		expect(same[i][0], same[i][1], true);
	for (int i = 0; i < lengthof(other); i++)
		expect(other[i][0], other[i][1], false);
}

/* Texts of any bytes and lengths come to an end; those that are long and end in another way differ. */
static void
check_any(void)
{
	static const char bytes[] = "aeEuUxn019.$$$''\"\"()()[],;:-/*&+\\ \n\t_=<@?!\xc3\xa9\x01";
	static char shown[TEXT_ROOM];
	Size		size = 4 * 1024 * 1024;
	char	   *text = malloc(size + 1);
	char	   *other = malloc(size + 1);
	Digest		digest;

	for (int i = 0; i < 20000; i++)
	{
		int			len = (int) chance(i < 10 ? 100000 : 200);

		for (int at = 0; at < len; at++)
			text[at] = bytes[chance(sizeof(bytes) - 1)];
		text[len] = '\0';
		digest_of(text, &digest, shown);
	}
	for (int kind = 0; kind < 6; kind++)
	{
		static const char *const pieces[] = {"a ", "(", "$1,", "'a',", "in(", "values("};
		Size		len = strlen(pieces[kind]);

		for (Size at = 0; at + len <= size; at += len)
			memcpy(text + at, pieces[kind], len + 1);
		strcpy(other, text);
		other[strlen(other) - 1] = 'z';
		expect(text, text, true);
		expect(text, other, false);
	}
	free(text);
	free(other);
}

static void
print_cost(void)
{
	static const char sql[] = "SELECT id, name, balance FROM accounts WHERE branch = $1 AND kind IN ('a', 'b', 'c') ORDER BY name LIMIT 10";
	struct timespec from;
	struct timespec until;
	static char shown[TEXT_ROOM];
	Digest		digest;
	int			n = 100000;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < n; i++)
		digest_of(sql, &digest, shown);
	clock_gettime(CLOCK_MONOTONIC, &until);
	printf("a text of %zu bytes: %.0f ns\n", strlen(sql),
		   ((until.tv_sec - from.tv_sec) * 1e9 + (until.tv_nsec - from.tv_nsec)) / n);
}

int
main(int argc, char **argv)
{
	static char texts[3][TEXT_ROOM];
	static char identities[2][TEXT_ROOM];
	int			pairs = argc > 2 ? atoi(argv[2]) : 100000;
	int			alike = 0;

	state = argc > 1 && atoll(argv[1]) != 0 ? (uint64) atoll(argv[1]) : (uint64) time(NULL);
	if (argc > 3)
	{
		Digest		digest;

		digest_of(argv[3], &digest, texts[0]);
		printf("%016llx%016llx %u\n%s\n", (unsigned long long) digest.hash[0],
			   (unsigned long long) digest.hash[1], digest.len, texts[0]);
		return 0;
	}
	printf("seed %llu\n", (unsigned long long) state);
	check_known();
	check_any();
	for (int i = 0; i < pairs; i++)
	{
		Statement	statement;
		bool		same;

		make(&statement);
		write_out(&statement, texts[0]);
		write_out(&statement, texts[1]);
		expect(texts[0], texts[1], true);
		identity(&statement, identities[0]);
		do
			change(&statement);
		while (chance(2) == 0);
		identity(&statement, identities[1]);
		write_out(&statement, texts[2]);
		same = strcmp(identities[0], identities[1]) == 0;
		alike += same;
		expect(texts[0], texts[2], same);
	}
	printf("%d pairs that are the same, %d that differ\n", pairs + alike, pairs - alike);
	print_cost();
	return 0;
}
