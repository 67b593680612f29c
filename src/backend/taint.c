/*
 * taint.c
 *	  What does a text look as if it did to the remote session?
 *
 * The functions that change a session are known by name, and those are looked
 * for: in parameters too, since the remote may run what stands in those.  What
 * a function of the remote's users does inside, nobody can see from here.
 */
#include "postgres.h"

#include <ctype.h>

#include "backend/client.h"
#include "backend/text.h"
#include "miscadmin.h"

/* Above this, a reset costs less than looking whether one is needed. */
#define LOOK_MAX_BYTES	(256 * 1024)

/*
 * Names that tell of something, in any letters' case.  One that ends in _ is
 * the beginning of a name.
 */
static const struct Sign
{
	const char *word;
	int			traces;
}			signs[] = {
	{"currval", TRACE_READS_SEQUENCES},
	/* they run a text, which may say what it does in escapes */
	{"connectby", TRACE_RESET},
	{"crosstab", TRACE_RESET},
	{"crosstab2", TRACE_RESET},
	{"crosstab3", TRACE_RESET},
	{"crosstab4", TRACE_RESET},
	{"crosstab_", TRACE_RESET},
	{"cursor_to_", TRACE_RESET},
	{"dblink_", TRACE_RESET},
	{"dblink_connect", TRACE_CLOSE},
	{"dblink_connect_u", TRACE_CLOSE},
	{"hypopg_", TRACE_CLOSE},
	{"lastval", TRACE_READS_SEQUENCES},
	{"lo_", TRACE_RESET},
	{"pg_advisory_", TRACE_RESET},
	/* the session is in the backup until it ends it, or ends */
	{"pg_backup_start", TRACE_CLOSE},
	/* a slot may be a temporary one, which lives as long as the session */
	{"pg_copy_logical_replication_slot", TRACE_CLOSE},
	{"pg_copy_physical_replication_slot", TRACE_CLOSE},
	{"pg_create_logical_replication_slot", TRACE_CLOSE},
	{"pg_create_physical_replication_slot", TRACE_CLOSE},
	{"pg_replication_origin_", TRACE_CLOSE},
	/* an UPDATE of that view is a SET */
	{"pg_settings", TRACE_RESET},
	{"pg_start_backup", TRACE_CLOSE},
	{"pg_temp", TRACE_RESET},
	{"pg_temp_", TRACE_RESET},
	{"pg_try_advisory_", TRACE_RESET},
	{"pgv_", TRACE_CLOSE},
	{"query_to_", TRACE_RESET},
	{"set_config", TRACE_RESET},
	{"set_limit", TRACE_RESET},
	{"setseed", TRACE_CLOSE},
	{"temp", TRACE_RESET},
	{"temporary", TRACE_RESET},
	{"ts_rewrite", TRACE_RESET},
	{"ts_stat", TRACE_RESET},
	{"xpath_table", TRACE_RESET},
};

static int
traces_of_word(const char *word, Size len)
{
	int			traces = 0;

	/* most words begin otherwise */
	if (strchr("cdhlpqstxCDHLPQSTX", word[0]) == NULL)
		return 0;

	for (int i = 0; i < lengthof(signs); i++)
	{
		Size		want = strlen(signs[i].word);
		bool		prefix = signs[i].word[want - 1] == '_';

		if ((prefix ? len >= want : len == want) &&
			pg_strncasecmp(word, signs[i].word, want) == 0)
			traces |= signs[i].traces;
	}
	return traces;
}

/* Is this LOAD 'file', from behind the first word? */
static bool
is_load(const char *word, Size len, const char *behind, const char *end)
{
	if (len != strlen("load") || pg_strncasecmp(word, "load", len) != 0)
		return false;
	while (behind < end && isspace((unsigned char) *behind))
		behind++;
	return behind < end && (*behind == '\'' || *behind == '$');
}

static int
traces_of_text(const char *text, Size size)
{
	const char *end = text + size;
	int			traces = 0;

	while (text < end)
	{
		Size		len = 0;

		while (text + len < end &&
			   (isalnum((unsigned char) text[len]) || text[len] == '_'))
			len++;
		if (len > 0)
		{
			traces |= traces_of_word(text, len);
			if (is_load(text, len, text + len, end))
				traces |= TRACE_CLOSE;
			/* U&"set\005Fconfig": an identifier whose letters are escaped */
			if (len == 1 && pg_tolower((unsigned char) *text) == 'u' &&
				end - text > 2 && text[1] == '&' && text[2] == '"')
				traces |= TRACE_RESET | TRACE_CLOSE | TRACE_READS_SEQUENCES;
		}
		text += Max(len, 1);
	}
	return traces;
}

/*
 * The same of the statements of a batch, one after the other; sql is NULL if it is
 * the same as before.  *looked counts the bytes of all of them.
 */
int
batch_traces(const char *sql, const char *params, Size params_len, Size *looked)
{
	int			traces = 0;

	if (sql != NULL)
	{
		Size		len = strlen(sql);

		traces |= traces_of_text(sql, len);
		*looked += len;
	}
	if (*looked <= LOOK_MAX_BYTES && (*looked += params_len) <= LOOK_MAX_BYTES)
		traces |= traces_of_text(params, params_len);
	if (*looked > LOOK_MAX_BYTES)
		traces |= TRACE_RESET | TRACE_READS_SEQUENCES;
	return traces;
}

/* Has a WITH query words of a write in it?  They may be another thing's names. */
static bool
has_write(const char *sql)
{
	for (Size len; *sql != '\0'; sql += Max(len, 1))
	{
		len = 0;
		while (isalnum((unsigned char) sql[len]) || sql[len] == '_')
			len++;
		if ((len == 6 && (pg_strncasecmp(sql, "insert", len) == 0 ||
						  pg_strncasecmp(sql, "update", len) == 0 ||
						  pg_strncasecmp(sql, "delete", len) == 0)) ||
			(len == 5 && pg_strncasecmp(sql, "merge", len) == 0))
			return true;
	}
	return false;
}

/* Behind white space, comments and opening brackets. */
static const char *
skip_to_word(const char *sql)
{
	const char *behind;

	for (;;)
	{
		if (sql[0] == '/' && sql[1] == '*' && (behind = text_skip_comment(sql)) != NULL)
			sql = behind;
		else if (sql[0] == '-' && sql[1] == '-')
			sql += strcspn(sql, "\n\r");
		else if (sql[0] == '(' || isspace((unsigned char) sql[0]))
			sql++;
		else
			return sql;
	}
}

/* Is a word, of letters, one of those? */
static bool
is_listed(const char *word, Size len, const char *const *words, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (len == strlen(words[i]) && pg_strncasecmp(word, words[i], len) == 0)
			return true;
	}
	return false;
}

/* Its first word, of letters. */
static const char *
first_word(const char *sql, Size *len)
{
	sql = skip_to_word(sql);
	*len = 0;
	while (isalpha((unsigned char) sql[*len]))
		(*len)++;
	return sql;
}

/*
 * Does its text begin with what steers a transaction, or what is to come before its queries?  In a
 * transaction over calls, no query of ours comes before that: ROLLBACK TO is all that a
 * failed one takes, and a LOCK is to be there before the next snapshot.
 */
bool
call_steers(const Call *call)
{
	static const char *const words[] = {
		"set", "reset", "lock", "savepoint", "release", "rollback", "abort", "begin", "start",
		"commit", "end", "prepare", "discard"
	};
	const char *word;
	Size		len;

	if (call->kind != REQUEST_QUERY && call->kind != REQUEST_SCRIPT)
		return false;
	word = first_word(call->sql, &len);
	return is_listed(word, len, words, lengthof(words));
}

/*
 * Is it the text of one statement that is one transaction when it runs by itself?  Not one
 * that may commit on its way, as CALL and DO may, and VACUUM does; nor
 * one that says what transactions are like.  A text of several statements has a semicolon
 * before its end; so has one with a semicolon in a string, which is taken for several.
 */
bool
call_is_one_transaction(const Call *call)
{
	static const char *const words[] = {"select", "insert", "update", "delete", "merge", "with", "values", "table"};
	const char *sql;
	const char *semicolon;
	Size		len;

	if ((call->kind != REQUEST_QUERY && call->kind != REQUEST_SCRIPT) || call->ends_transaction)
		return false;
	sql = first_word(call->sql, &len);
	semicolon = call->kind == REQUEST_SCRIPT ? strchr(sql, ';') : NULL;
	return is_listed(sql, len, words, lengthof(words)) &&
		(semicolon == NULL || semicolon[1 + strspn(semicolon + 1, " \t\r\n;")] == '\0');
}

/* Is its first statement one that writes, by its text? */
bool
call_begins_as_write(const Call *call)
{
	static const char *const words[] = {"insert", "update", "delete", "merge", "with"};
	Size		len;
	const char *sql = first_word(call->sql, &len);

	for (int i = 0; i < lengthof(words); i++)
	{
		if (len == strlen(words[i]) && pg_strncasecmp(sql, words[i], len) == 0)
			return i < lengthof(words) - 1 || has_write(sql);
	}
	return false;
}

/*
 * Is it a statement that writes, or the end of a transaction that has?  Not of scripts, which nobody
 * can be asked about.
 */
bool
call_writes(const Call *call)
{
	return call->kind == REQUEST_QUERY && (call->ends_transaction || call_begins_as_write(call));
}

static bool
is_word_part(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/* Is this the next word?  Then *at is moved behind it, and what comes before the next. */
static bool
next_word(const char **at, const char *word)
{
	Size		len = strlen(word);

	if (pg_strncasecmp(*at, word, len) != 0 || is_word_part((*at)[len]))
		return false;
	*at = skip_to_word(*at + len);
	return true;
}

/*
 * Is there ROLLBACK AND CHAIN in the text?  It has the tag of ROLLBACK TO, but has
 * begun another transaction.  What looks so in a string or a comment is taken for it.
 */
static bool
may_chain(const char *sql)
{
	for (const char *at = sql; *at != '\0'; at++)
	{
		const char *behind = at;

		if (strchr("rRaA", *at) == NULL || (at > sql && is_word_part(at[-1])))
			continue;
		if (!next_word(&behind, "ROLLBACK") && !next_word(&behind, "ABORT"))
			continue;
		/* comments within comments may be looked through many times */
		CHECK_FOR_INTERRUPTS();
		if (!next_word(&behind, "WORK"))
			(void) next_word(&behind, "TRANSACTION");
		if (next_word(&behind, "AND") && next_word(&behind, "CHAIN"))
			return true;
	}
	return false;
}

/*
 * What the call may leave in the remote session that its command tag will not
 * tell, and what it may find there: TRACE_ flags.
 */
int
call_traces(const Call *call)
{
	Size		sql_len = strlen(call->sql);
	Size		params_len = call->nparams > 0 ? call->params.len : 0;
	int			traces = traces_of_text(call->sql, sql_len);

	if (sql_len + params_len > LOOK_MAX_BYTES)
		traces |= TRACE_RESET | TRACE_READS_SEQUENCES;
	else if (params_len > 0)
		traces |= traces_of_text(call->params.data, params_len);
	if (call->transaction != NULL && may_chain(call->sql))
		traces |= TRACE_CHAINS;
	return traces;
}
