/*
 * taint.c
 *	  Does a call look as if it left something behind in the remote session?
 */
#include "postgres.h"

#include <ctype.h>

#include "backend/client.h"

/* Is the identifier one that the list has?  An entry that ends in _ is a prefix. */
static bool
word_taints(const char *word, Size len)
{
	static const char *const words[] = {
		"dblink_", "lo_", "pg_advisory_", "pg_temp", "pg_try_advisory_",
		"set_config", "setseed", "temp", "temporary"
	};

	/* most words begin otherwise */
	if (strchr("dlpstDLPST", word[0]) == NULL)
		return false;

	for (int i = 0; i < lengthof(words); i++)
	{
		Size		want = strlen(words[i]);
		bool		prefix = words[i][want - 1] == '_';

		if ((prefix ? len >= want : len == want) &&
			pg_strncasecmp(word, words[i], want) == 0)
			return true;
	}
	return false;
}

static bool
text_taints(const char *text, Size size)
{
	const char *end = text + size;

	while (text < end)
	{
		Size		len = 0;

		while (text + len < end &&
			   (isalnum((unsigned char) text[len]) || text[len] == '_'))
			len++;
		if (len > 0 && word_taints(text, len))
			return true;
		text += Max(len, 1);
	}
	return false;
}

/* Above this, a reset costs less than looking whether one is needed. */
#define LOOK_MAX_BYTES	(256 * 1024)

/*
 * May the call leave something in the remote session which its command tag
 * will not tell?  Looks for the names of what does, in parameters too, since
 * the remote may run those (query_to_xml).  What a function of the remote's
 * users does inside, nobody can see from here.
 */
bool
call_taints(const Call *call)
{
	Size		sql_len = strlen(call->sql);
	Size		params_len = call->nparams > 0 ? call->params.len : 0;

	return sql_len + params_len > LOOK_MAX_BYTES ||
		text_taints(call->sql, sql_len) ||
		(params_len > 0 && text_taints(call->params.data, params_len));
}
