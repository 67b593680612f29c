/*
 * conninfo.c
 *	  What libpq knows of connection strings: its options, and its parser.
 *
 * Apart from migrations' connections, this is all that a backend uses libpq
 * for; it opens nothing.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "backend/options.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/memutils.h"

/*
 * libpq's options that make no sense here.  A service file would be read by
 * the worker, behind the back of the checks; the others are dbpool's to set.
 */
static const char *const left_out[] = {
	"service", "servicefile", "replication", "fallback_application_name", "client_encoding",
	"connect_timeout",			/* dbpool's own option of that name */
	/* would have the worker fetch from addresses that a user names */
	"oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
};

static const char *const files[] = {
	"passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile"
};

static bool
is_in(const char *keyword, const char *const *list, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(keyword, list[i]) == 0)
			return true;
	}
	return false;
}

/*
 * libpq's options as options of servers and user mappings, from its own list,
 * so that those of newer versions need nothing here.  Secrets, which libpq
 * marks with "*", and who one is, belong to the user mapping.  The array
 * lives as long as the session.
 */
const ConninfoOption *
conninfo_options(int *n)
{
	static ConninfoOption *options;
	static int	noptions;
	PQconninfoOption *libpq;

	if (options == NULL)
	{
		ConninfoOption *list;
		int			count = 0;

		libpq = PQconndefaults();
		if (libpq == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_OUT_OF_MEMORY),
					 errmsg("could not get libpq's default connection options")));
		while (libpq[count].keyword != NULL)
			count++;
		list = MemoryContextAlloc(TopMemoryContext, sizeof(ConninfoOption) * count);
		noptions = 0;
		for (PQconninfoOption *at = libpq; at->keyword != NULL; at++)
		{
			if (strchr(at->dispchar, 'D') ||
				is_in(at->keyword, left_out, lengthof(left_out)))
				continue;
			list[noptions].keyword = MemoryContextStrdup(TopMemoryContext, at->keyword);
			list[noptions].file = is_in(at->keyword, files, lengthof(files));
			list[noptions].mapping = strchr(at->dispchar, '*') != NULL ||
				strcmp(at->keyword, "user") == 0 ||
				strcmp(at->keyword, "sslcert") == 0 ||
				strcmp(at->keyword, "sslkey") == 0;
			noptions++;
		}
		PQconninfoFree(libpq);
		options = list;
	}
	*n = noptions;
	return options;
}

/*
 * Take a connection string apart, URI or keywords and values, into DefElems.
 * The error does not repeat the string or libpq's words about it, since either
 * may hold the password.
 */
List *
conninfo_parse(const char *conninfo)
{
	char	   *error = NULL;
	PQconninfoOption *parsed = PQconninfoParse(conninfo, &error);
	List	   *list = NIL;

	if (error != NULL)
		PQfreemem(error);
	if (parsed == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("could not parse the connection string"),
				 errdetail("It is neither a list of keyword=value pairs nor a URI that begins with postgresql://, or uses a keyword that libpq does not know."),
				 errhint("In a URI, special characters of names and passwords are written as %%XX. See \"Connection Strings\" in the manual's chapter on libpq.")));
	PG_TRY();
	{
		for (PQconninfoOption *at = parsed; at->keyword != NULL; at++)
		{
			if (at->val != NULL)
				list = lappend(list, makeDefElem(pstrdup(at->keyword),
												 (Node *) makeString(pstrdup(at->val)), -1));
		}
	}
	PG_FINALLY();
	{
		PQconninfoFree(parsed);
	}
	PG_END_TRY();
	return list;
}
