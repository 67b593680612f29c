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
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/memutils.h"

/*
 * libpq's options that make no sense here.  A service file would be read by
 * the worker, behind the back of the checks; the others are dbpool's to set.
 */
static const struct
{
	const char *keyword;
	const char *why;			/* NULL: dbpool's own option of that name */
}			left_out[] = {
	{"client_encoding", "it is set to the encoding of the local database"},
	{"connect_timeout", NULL},
	{"fallback_application_name", "set \"application_name\""},
	{"oauth_client_id", "the server would fetch from an address that a user names"},
	{"oauth_client_secret", "the server would fetch from an address that a user names"},
	{"oauth_issuer", "the server would fetch from an address that a user names"},
	{"oauth_scope", "the server would fetch from an address that a user names"},
	{"replication", "a pool runs statements only"},
	{"service", "a service file would be read behind the back of the checks of options"},
	{"servicefile", "a service file would be read behind the back of the checks of options"},
};

static const char *const files[] = {
	"passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile"
};

/* These make use of the Kerberos ticket of the server's operating-system user. */
static const char *const tickets[] = {
	"gssencmode", "gssdelegation"
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

static bool
is_not_for_pools(const char *keyword)
{
	for (int i = 0; i < lengthof(left_out); i++)
	{
		if (strcmp(keyword, left_out[i].keyword) == 0)
			return true;
	}
	return false;
}

/* Why a pool cannot have libpq's option of that name, or NULL. */
const char *
conninfo_why_left_out(const char *keyword)
{
	for (int i = 0; i < lengthof(left_out); i++)
	{
		if (strcmp(keyword, left_out[i].keyword) == 0)
			return left_out[i].why;
	}
	return NULL;
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
				is_not_for_pools(at->keyword))
				continue;
			list[noptions].keyword = MemoryContextStrdup(TopMemoryContext, at->keyword);
			list[noptions].file = is_in(at->keyword, files, lengthof(files));
			list[noptions].ticket = is_in(at->keyword, tickets, lengthof(tickets));
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

/* Does the option belong to the user mapping? */
bool
option_is_mapping(const char *keyword)
{
	int			n;
	const ConninfoOption *options = conninfo_options(&n);

	for (int i = 0; i < n; i++)
	{
		if (strcmp(options[i].keyword, keyword) == 0)
			return options[i].mapping;
	}
	return strcmp(keyword, "password_required") == 0;
}

/* What most drivers call "database" is "dbname" to libpq; else the keyword itself. */
const char *
option_known_as(const char *keyword)
{
	return strcmp(keyword, "database") == 0 ? "dbname" : keyword;
}

/* How a URI begins, for libpq; the length of that, 0 for what is none. */
static Size
uri_prefix(const char *conninfo)
{
	static const char *const prefixes[] = {"postgresql://", "postgres://"};

	for (int i = 0; i < lengthof(prefixes); i++)
	{
		if (strncmp(conninfo, prefixes[i], strlen(prefixes[i])) == 0)
			return strlen(prefixes[i]);
	}
	return 0;
}

/* Does libpq take it for a URI? */
bool
conninfo_is_uri(const char *conninfo)
{
	return uri_prefix(conninfo) > 0;
}

static void
throw_ambiguous(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("the connection string is not clear"),
			 errdetail("%s A piece of the password could be taken for a host, a port or a database, which all may read.", detail),
			 errhint("In names and passwords write %%40 for @, %%2F for /, %%3A for :, %%3F for ? and %%25 for %%.")));
}

/*
 * A URI whose password has a / or an @ in it means something else to libpq,
 * without an error: what stands behind would become a host, a port or a
 * database, which go into the server, for all to read.  So what can be such a
 * piece is refused.
 */
static void
check_uri(const char *conninfo)
{
	const char *rest = conninfo + uri_prefix(conninfo);
	const char *at = strchr(rest, '@');
	const char *path = strchr(rest, '/');
	const char *end;

	if (at != NULL && strchr(at + 1, '@') != NULL)
		throw_ambiguous("It has more than one @.");
	if (at != NULL && path != NULL && path < at)
		throw_ambiguous("It has an @ behind the first slash.");
	/* behind the credentials: hosts and ports, to the path or the parameters */
	rest = at ? at + 1 : rest;
	end = rest + strcspn(rest, "/?");
	while (rest < end)
	{
		if (*rest == '[')
			rest += strcspn(rest, "]/?");
		else if (*rest++ == ':')
		{
			rest += strspn(rest, "0123456789");
			if (rest < end && *rest != ',')
				throw_ambiguous("What stands where a port is expected is no number.");
		}
	}
	if (*end == '/' && strcspn(end + 1, "/:") < strcspn(end + 1, "?"))
		throw_ambiguous("The name of the database has a slash or a colon.");
}

/* host=db2;password=secret is a host to libpq, which separates by blanks. */
static void
check_separated(const PQconninfoOption *option)
{
	if (strchr(option->dispchar, '*') != NULL)
		return;
	for (const char *at = option->val; *at; at++)
	{
		if (pg_strncasecmp(at, "password=", strlen("password=")) == 0 ||
			pg_strncasecmp(at, "pwd=", strlen("pwd=")) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("the connection string is not clear"),
					 errdetail("The value of \"%s\" holds a password, and all may read it.",
							   option->keyword),
					 errhint("Separate keywords and values by blanks: host=db2 user=app password=...")));
	}
}

/* Does libpq know that keyword?  All of its own count, those left out too. */
static bool
is_known(const char *keyword)
{
	PQconninfoOption *libpq = PQconndefaults();
	bool		known = libpq == NULL;

	for (PQconninfoOption *at = libpq; !known && at->keyword != NULL; at++)
		known = strcmp(at->keyword, keyword) == 0;
	PQconninfoFree(libpq);
	return known;
}

/* So many letters may one that was meant have too many. */
#define MOST_BEYOND	3

/*
 * The first keyword of a connection string that libpq does not know, or NULL, if
 * it can be told.  *certain: it has the looks of a keyword, and is no piece of a
 * password in which a special character was not quoted, as none has come before.
 */
static char *
unknown_keyword(const char *conninfo, bool *certain)
{
	bool		uri = conninfo_is_uri(conninfo);
	const char *at = conninfo;

	*certain = true;
	if (uri)
	{
		/* a user and a password end with the "@", which none may hold itself */
		at = strrchr(conninfo, '@') != NULL ? strrchr(conninfo, '@') : conninfo;
		*certain = at == strchr(conninfo, '@') || at == conninfo;
		at = strchr(at, '?');
		at = at ? at + 1 : "";
	}
	while (at[strspn(at, " \t\r\n\f\v")] != '\0')
	{
		char	   *keyword;
		char		quote = uri ? '&' : ' ';

		at += strspn(at, " \t\r\n\f\v");
		keyword = pnstrdup(at, strcspn(at, "= \t\r\n\f\v&"));
		at += strlen(keyword);
		at += strspn(at, " \t\r\n\f\v");
		/* libpq itself makes sslmode=require of a URI's ssl=true */
		if (*at != '=' || (uri && strcmp(keyword, "ssl") == 0))
			return NULL;
		if (!is_known(keyword))
		{
			const char *value = at + 1 + strspn(at + 1, " \t\r\n\f\v");

			/* "secret=password" is the wrong way round */
			if (is_known(pnstrdup(value, strcspn(value, " \t\r\n\f\v&"))))
				return NULL;
			if (strspn(keyword, "abcdefghijklmnopqrstuvwxyz_") != strlen(keyword))
				*certain = false;
			return keyword;
		}
		if (option_is_mapping(keyword) && strcmp(keyword, "user") != 0)
			*certain = false;
		at++;
		if (!uri)
			at += strspn(at, " \t\r\n\f\v");
		if (!uri && *at == '\'')
			quote = *at++;
		while (*at != '\0' && *at != quote && (quote != ' ' || !isspace((unsigned char) *at)))
			at += !uri && *at == '\\' && at[1] != '\0' ? 2 : 1;
		if (*at != '\0')
			at++;
	}
	return NULL;
}

/*
 * The connection string cannot be parsed.  Neither it nor libpq's words about it
 * are repeated, since either may hold the password; a keyword is, if it is none
 * of that for sure, or is near to one that there is.
 */
static void
__attribute__((noreturn))
refuse_conninfo(const char *conninfo)
{
	bool		certain;
	char	   *keyword = unknown_keyword(conninfo, &certain);
	NearestName nearest;
	int			n;
	const ConninfoOption *options = conninfo_options(&n);

	nearest_init(&nearest, keyword ? option_known_as(keyword) : "");
	for (int i = 0; i < n; i++)
		nearest_try(&nearest, options[i].keyword);
	/* what only begins with a keyword may go on with a password */
	if (!certain && keyword != NULL && strlen(keyword) > strlen(nearest.name) + MOST_BEYOND)
		nearest.name[0] = '\0';
	if (keyword != NULL && (certain || nearest.name[0] != '\0' || option_is_pool(keyword) ||
							strcmp(keyword, "password_required") == 0))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("could not parse the connection string"),
				 errdetail("libpq does not know the keyword \"%s\".", keyword),
				 option_is_pool(keyword) || strcmp(keyword, "password_required") == 0 ?
				 errhint("It is an option of the pool, and goes into the third argument: {\"%s\": ...}.",
						 keyword) :
				 nearest.name[0] != '\0' ?
				 errhint("Perhaps you meant \"%s\".", nearest.name) :
				 errhint("See \"Parameter Key Words\" in the manual's chapter on libpq. Options of the pool go into the third argument.")));
	if (keyword != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("could not parse the connection string"),
				 errdetail("There is a keyword that libpq does not know. It is not shown, since it may be a piece of the password."),
				 errhint("A password with blanks or quotes is written as password='it\\'s secret', in a URI its special characters as %%XX. Otherwise a keyword behind the password is misspelt; options of the pool go into the third argument.")));
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("could not parse the connection string"),
			 errdetail("It is neither a list of keyword=value pairs nor a URI that begins with postgresql://."),
			 errhint("In a URI, special characters of names and passwords are written as %%XX. See \"Connection Strings\" in the manual's chapter on libpq.")));
	pg_unreachable();
}

/* Take a connection string apart, URI or keywords and values, into DefElems. */
List *
conninfo_parse(const char *conninfo)
{
	char	   *error = NULL;
	PQconninfoOption *parsed;
	List	   *list = NIL;

	if (conninfo_is_uri(conninfo))
		check_uri(conninfo);
	parsed = PQconninfoParse(conninfo, &error);
	if (error != NULL)
		PQfreemem(error);
	if (parsed == NULL)
		refuse_conninfo(conninfo);
	PG_TRY();
	{
		for (PQconninfoOption *at = parsed; at->keyword != NULL; at++)
		{
			if (at->val == NULL)
				continue;
			check_separated(at);
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

/*
 * The methods of libpq's option require_auth by which a remote asks for a
 * password, those that "asked" rules out left out; NULL: that of libpq's own
 * default.  NULL when this libpq does not have the option yet.
 */
char *
conninfo_password_methods(const char *asked)
{
	static const char *const methods[] = {"password", "md5", "scram-sha-256"};
	PQconninfoOption *defaults = PQconndefaults();
	StringInfoData allowed;
	char	   *list = NULL;

	for (PQconninfoOption *at = defaults; at != NULL && at->keyword != NULL; at++)
	{
		if (strcmp(at->keyword, "require_auth") == 0)
			list = pstrdup(asked ? asked : at->val ? at->val : "");
	}
	PQconninfoFree(defaults);
	if (list == NULL)
		return NULL;
	initStringInfo(&allowed);
	for (int i = 0; i < lengthof(methods); i++)
	{
		/* a list names those that are allowed, or those that are not */
		bool		allow = list[0] == '\0' || list[0] == '!';
		char	   *rest = pstrdup(list);
		char	   *method;

		while ((method = strsep(&rest, ",")) != NULL)
		{
			if (strcmp(method + (method[0] == '!'), methods[i]) == 0)
				allow = method[0] != '!';
		}
		if (allow)
			appendStringInfo(&allowed, "%s%s", allowed.len > 0 ? "," : "", methods[i]);
	}
	return allowed.data;
}
