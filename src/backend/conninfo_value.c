/*
 * conninfo_value.c
 *	  Which values libpq takes for its options.
 *
 * libpq looks at a value when it connects, in the worker, when nobody is there
 * who could be told what is wrong with it; so the validator looks before.  The
 * sets are those of the newest libpq that is known: an older one may refuse a
 * value that is let pass here.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <limits.h>

#include "backend/options.h"
#include "commands/defrem.h"

typedef enum ValueKind
{
	VALUE_WORD,					/* one of words */
	VALUE_WORDS,				/* some of words, each maybe behind a "!" */
	VALUE_NUMBER,				/* within min and max */
	VALUE_PORTS,				/* a list of such, maybe empty ones */
	VALUE_ADDRESSES				/* a list of numeric addresses, maybe empty
								 * ones */
} ValueKind;

static const struct ValueRule
{
	const char *keyword;
	ValueKind	kind;
	const char *words;			/* in lower case, with commas between */
	int			min;
	int			max;
}			rules[] = {
	{"channel_binding", VALUE_WORD, "disable,prefer,require"},
	{"gssdelegation", VALUE_WORD, "0,1"},
	{"gssencmode", VALUE_WORD, "disable,prefer,require"},
	{"gsslib", VALUE_WORD, "gssapi,sspi"},
	{"hostaddr", VALUE_ADDRESSES},
	{"keepalives", VALUE_NUMBER, NULL, 0, INT_MAX},
	{"keepalives_count", VALUE_NUMBER, NULL, 0, INT_MAX},
	{"keepalives_idle", VALUE_NUMBER, NULL, 0, INT_MAX},
	{"keepalives_interval", VALUE_NUMBER, NULL, 0, INT_MAX},
	{"load_balance_hosts", VALUE_WORD, "disable,random"},
	{"max_protocol_version", VALUE_WORD, "3.0,3.2,latest"},
	{"min_protocol_version", VALUE_WORD, "3.0,3.2,latest"},
	{"port", VALUE_PORTS, NULL, 1, 65535},
	{"require_auth", VALUE_WORDS, "password,md5,gss,sspi,scram-sha-256,oauth,none"},
	{"ssl_max_protocol_version", VALUE_WORD, "tlsv1,tlsv1.1,tlsv1.2,tlsv1.3"},
	{"ssl_min_protocol_version", VALUE_WORD, "tlsv1,tlsv1.1,tlsv1.2,tlsv1.3"},
	{"sslcertmode", VALUE_WORD, "disable,allow,require"},
	{"sslcompression", VALUE_WORD, "0,1"},
	{"sslmode", VALUE_WORD, "disable,allow,prefer,require,verify-ca,verify-full"},
	{"sslnegotiation", VALUE_WORD, "postgres,direct"},
	{"sslsni", VALUE_WORD, "0,1"},
	{"target_session_attrs", VALUE_WORD, "any,read-write,read-only,primary,standby,prefer-standby"},
	{"tcp_user_timeout", VALUE_NUMBER, NULL, 0, INT_MAX},
};

/* The next element of a list, up to a comma; NULL at its end.  Moves *list. */
static char *
next_element(const char **list)
{
	const char *start = *list;
	Size		len;

	if (start == NULL)
		return NULL;
	len = strcspn(start, ",");
	*list = start[len] == ',' ? start + len + 1 : NULL;
	return pnstrdup(start, len);
}

/* Is it one of the words?  Versions of TLS are the only ones of any case. */
static bool
is_one_of(const char *value, const struct ValueRule *rule)
{
	const char *words = rule->words;
	bool		any_case = strncmp(rule->keyword, "ssl_m", 5) == 0;
	char	   *word;

	while ((word = next_element(&words)) != NULL)
	{
		if (any_case ? pg_strcasecmp(word, value) == 0 : strcmp(word, value) == 0)
			return true;
	}
	return false;
}

/* A decimal number within the limits, with nothing but blanks around it. */
static bool
is_number(const char *value, const struct ValueRule *rule)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (end == value || errno != 0)
		return false;
	while (isspace((unsigned char) *end))
		end++;
	return *end == '\0' && number >= rule->min && number <= rule->max;
}

static bool
is_address(const char *value)
{
	struct in6_addr address;

	/* an IPv6 address may name an interface: fe80::1%eth0 */
	char	   *plain = pnstrdup(value, strcspn(value, "%"));

	return inet_pton(AF_INET, value, &address) == 1 ||
		inet_pton(AF_INET6, plain, &address) == 1;
}

/* Is each element of the list good?  Without it, libpq has a default of its own. */
static bool
is_list_of(const char *value, const struct ValueRule *rule)
{
	char	   *element;
	bool		negated = value[0] == '!';

	while ((element = next_element(&value)) != NULL)
	{
		if (rule->kind == VALUE_WORDS)
		{
			/* all of them are wanted, or none of them is */
			if ((element[0] == '!') != negated || !is_one_of(element + negated, rule))
				return false;
		}
		else if (element[0] != '\0' &&
				 !(rule->kind == VALUE_PORTS ? is_number(element, rule) : is_address(element)))
			return false;
	}
	return true;
}

static bool
is_valid(const char *value, const struct ValueRule *rule)
{
	if (value[0] == '\0')
		return true;
	switch (rule->kind)
	{
		case VALUE_WORD:
			return is_one_of(value, rule);
		case VALUE_NUMBER:
			return is_number(value, rule);
		default:
			return is_list_of(value, rule);
	}
}

/* What is valid, as a sentence. */
static char *
valid_values(const struct ValueRule *rule)
{
	StringInfoData buf;
	const char *words = rule->words;
	char	   *word;

	switch (rule->kind)
	{
		case VALUE_NUMBER:
			return psprintf("A whole number from %d to %d is expected.", rule->min, rule->max);
		case VALUE_PORTS:
			return psprintf("A port from %d to %d is expected, or a list of them with commas between.",
							rule->min, rule->max);
		case VALUE_ADDRESSES:
			return pstrdup("A numeric address is expected, or a list of them with commas between. Names are for the option \"host\".");
		default:
			break;
	}
	initStringInfo(&buf);
	while ((word = next_element(&words)) != NULL)
	{
		/* as the manual writes them */
		if (strncmp(word, "tls", 3) == 0)
			memcpy(word, "TLS", 3);
		appendStringInfo(&buf, "%s\"%s\"", buf.len > 0 ? ", " : "", word);
	}
	return rule->kind == VALUE_WORDS ?
		psprintf("A list of these is expected, all or none of them with a \"!\" before: %s.", buf.data) :
		psprintf("Valid values are %s.", buf.data);
}

/*
 * Refuse a value that libpq would refuse, or would make something else of.  An
 * empty value stands for libpq's default, as in libpq itself.
 */
void
conninfo_check_value(const char *keyword, const char *value)
{
	for (int i = 0; i < lengthof(rules); i++)
	{
		const struct ValueRule *rule = &rules[i];
		NearestName nearest;
		const char *words = rule->words;
		char	   *word;
		char	   *hint;

		if (strcmp(rule->keyword, keyword) != 0 || is_valid(value, rule))
			continue;
		hint = valid_values(rule);
		nearest_init(&nearest, value);
		while ((word = next_element(&words)) != NULL)
			nearest_try(&nearest, word);
		if (nearest.name[0] != '\0' && strncmp(nearest.name, "tls", 3) != 0)
			hint = psprintf("Perhaps you meant \"%s\". %s", nearest.name, hint);
		option_bad_value(keyword, value, NULL, hint);
	}
}

static const char *
value_of(List *defs, const char *keyword)
{
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, keyword) == 0 && defGetString(def)[0] != '\0')
			return defGetString(def);
	}
	return NULL;
}

/* Refuse a range of versions, which sort as words, that has nothing in it. */
static void
check_range(List *defs, const char *min, const char *max)
{
	const char *lowest = value_of(defs, min);
	const char *highest = value_of(defs, max);

	if (lowest != NULL && highest != NULL && pg_strcasecmp(lowest, highest) > 0)
		option_bad_value(max, highest,
						 psprintf("It is below \"%s\", which is \"%s\".", min, lowest), NULL);
}

/*
 * What one host of a list may be.  Else it may be a piece of a connection
 * string that was cut at the wrong place, and all may read a server's options:
 * so the error does not repeat it.
 */
static void
check_host(const char *host, Size len)
{
	if (len == 0 || host[0] == '/' || host[0] == '@')
		return;
	for (Size i = 0; i < len; i++)
	{
		if (!isalnum((unsigned char) host[i]) && !IS_HIGHBIT_SET(host[i]) &&
			strchr("-._:%", host[i]) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid character in option \"host\""),
					 errdetail("A host is a name, an address, or the directory of a Unix socket."),
					 errhint("Separate several hosts by commas. Ports, names and passwords are options of their own.")));
	}
}

/* Look at each element of a list; returns how many there are, 0 for none. */
static int
count_elements(const char *list, void (*check) (const char *element, Size len))
{
	int			n = 1;

	if (list == NULL)
		return 0;
	for (;; n++)
	{
		Size		len = strcspn(list, ",");

		if (check != NULL)
			check(list, len);
		if (list[len] == '\0')
			return n;
		list += len + 1;
	}
}

/*
 * Lists of hosts, addresses and ports have to be of one length, but that one
 * port may do for all; as libpq has it ("Specifying Multiple Hosts" in the
 * manual's chapter on libpq), which never sees the lists themselves.
 */
static void
check_places(List *defs)
{
	const char *host = value_of(defs, "host");
	const char *hostaddr = value_of(defs, "hostaddr");
	int			nhosts = count_elements(host, check_host);
	int			naddrs = count_elements(hostaddr, NULL);
	int			nports = count_elements(value_of(defs, "port"), NULL);
	int			n = Max(Max(nhosts, naddrs), 1);

	if (nhosts > 0 && naddrs > 0 && nhosts != naddrs)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("could not match %d host names to %d addresses", nhosts, naddrs),
				 errhint("The lists in \"host\" and \"hostaddr\" must be of the same length.")));
	if (nports > 1 && nports != n)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("could not match %d ports to %d hosts", nports, n),
				 errhint("Give one port for all hosts, or one for each, separated by commas.")));
	if (n > DBPOOL_MAX_PLACES)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("too many hosts: %d", n),
				 errdetail("At most %d are tried.", DBPOOL_MAX_PLACES)));
}

/*
 * The name of the database is all that a server shows which could be anything:
 * no connection string may be in it.
 */
static void
check_dbname(const char *dbname)
{
	if (dbname == NULL || !conninfo_is_uri(dbname))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("option \"dbname\" holds a connection string"),
			 errhint("Give the connection string to dbpool_create_pool(), which puts the password into the user mapping.")));
}

/* Refuse options of a server that libpq takes one by one, but not together. */
void
conninfo_check_together(List *defs)
{
	const char *sslmode = value_of(defs, "sslmode");
	const char *negotiation = value_of(defs, "sslnegotiation");

	check_places(defs);
	check_dbname(value_of(defs, "dbname"));
	check_range(defs, "ssl_min_protocol_version", "ssl_max_protocol_version");
	check_range(defs, "min_protocol_version", "max_protocol_version");
	if (negotiation != NULL && strcmp(negotiation, "direct") == 0 &&
		(sslmode == NULL || (strcmp(sslmode, "require") != 0 && strncmp(sslmode, "verify-", 7) != 0)))
		option_bad_value("sslnegotiation", negotiation,
						 "It needs an \"sslmode\" of \"require\", \"verify-ca\" or \"verify-full\".", NULL);
}
