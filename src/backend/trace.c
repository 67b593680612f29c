/*
 * trace.c
 *	  To which trace a call belongs.
 *
 * By dbpool.traceparent; or, as many libraries can do no more than that, by a comment of
 * sqlcommenter in the statement of the client that makes the call,
 * which has traceparent='00-...-...-01' in it, and ends the statement, or begins it.  The
 * remote is told by its own setting dbpool.traceparent (worker/trace.c).
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "backend/client.h"
#include "tcop/tcopprot.h"

/* A comment that is longer is none of sqlcommenter's. */
#define COMMENT_MOST	4096

/* What the statement of the client has; found once for it. */
static struct
{
	const char *sql;
	TimestampTz started_at;
	char		traceparent[TRACEPARENT_BYTES];
}			of_client;

/* The value of the key, in a comment from here to there; false: none. */
static bool
find_in_comment(const char *at, const char *end, char *traceparent)
{
	static const char *const key = "traceparent='";
	Size		len = strlen(key);

	for (; at + len + TRACEPARENT_BYTES <= end; at++)
	{
		if (strncmp(at, key, len) != 0 || isalnum((unsigned char) at[-1]) || at[-1] == '_')
			continue;
		memcpy(traceparent, at + len, TRACEPARENT_BYTES - 1);
		traceparent[TRACEPARENT_BYTES - 1] = '\0';
		if (at[len + TRACEPARENT_BYTES - 1] == '\'' && dbpool_is_traceparent(traceparent))
			return true;
	}
	traceparent[0] = '\0';
	return false;
}

/* The same in a comment that begins or ends the text. */
static void
find_in_text(const char *sql, char *traceparent)
{
	const char *end = sql + strlen(sql);
	const char *at;

	traceparent[0] = '\0';
	while (end > sql && (isspace((unsigned char) end[-1]) || end[-1] == ';'))
		end--;
	if (end - sql >= 4 && end[-1] == '/' && end[-2] == '*')
	{
		for (at = end - 4; at > sql && end - at < COMMENT_MOST && (at[0] != '/' || at[1] != '*'); at--)
			;
		if (at[0] == '/' && at[1] == '*' && find_in_comment(at + 2, end - 2, traceparent))
			return;
	}
	while (isspace((unsigned char) *sql))
		sql++;
	if (sql[0] != '/' || sql[1] != '*')
		return;
	at = strstr(sql + 2, "*/");
	if (at != NULL && at - sql < COMMENT_MOST)
		(void) find_in_comment(sql + 2, at, traceparent);
}

/* The traceparent of a call that is made now, into TRACEPARENT_BYTES; empty: it has none. */
void
trace_find(char *traceparent)
{
	const char *sql = debug_query_string;

	if (dbpool_traceparent[0] != '\0')
	{
		strlcpy(traceparent, dbpool_traceparent, TRACEPARENT_BYTES);
		return;
	}
	traceparent[0] = '\0';
	if (sql == NULL)
		return;
	/* many calls are of one statement, and its text may be long */
	if (sql != of_client.sql || GetCurrentStatementStartTimestamp() != of_client.started_at)
	{
		find_in_text(sql, of_client.traceparent);
		of_client.sql = sql;
		of_client.started_at = GetCurrentStatementStartTimestamp();
	}
	if (of_client.traceparent[0] != '\0')
		strlcpy(traceparent, of_client.traceparent, TRACEPARENT_BYTES);
}
