/*
 * options.c
 *	  A pool's own options, those of its server that are not libpq's: names, values.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "backend/options.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/guc.h"

typedef enum OptionType
{
	OPTION_BOOL,
	OPTION_COUNT,
	OPTION_DURATION,			/* milliseconds, with PostgreSQL's units */
	OPTION_SECONDS,				/* likewise, a bare number is seconds */
	OPTION_LAG,					/* milliseconds, or below 0 kilobytes */
	OPTION_PERCENTILE,			/* tenths of a percent, or "off": 0 */
	OPTION_WORD,				/* one of a few */
	OPTION_SCHEMA,				/* a name; not in PoolOptions, as no worker
								 * needs it */
	OPTION_SERVER,				/* likewise */
	OPTION_TEXT					/* of max bytes at most; not in PoolOptions,
								 * but among libpq's in the definition */
} OptionType;

/* What an option of words may be: the number of each is its place, NULL is none. */
static const char *const history_words[] = {"dbpool", "refinery", "sqlx", NULL};

/* XACT_READ_COMMITTED and what follows it */
static const char *const isolation_words[] = {NULL, "read committed", "repeatable read", "serializable", NULL};
static const char *const balance_words[] = {"off", "random", "least_busy", NULL};
static const char *const retried_words[] = {"off", "serialization", NULL};
static const char *const reset_words[] = {"smart", "always", "never", NULL};
static const char *const transaction_words[] = {"autonomous", "bound", "two_phase", NULL};

/* The options of a pool, of the server. */
static const struct PoolOption
{
	const char *keyword;
	OptionType	type;
	Size		offset;			/* in PoolOptions */
	int			min;
	int			max;
	int			initial;
	const char *const *words;
}			pool_options[] = {
	{"acquire_timeout", OPTION_DURATION, offsetof(PoolOptions, acquire_timeout), 1, INT_MAX, 30000},
	{"connect_sql", OPTION_TEXT, 0, 0, DBPOOL_CONNECT_SQL, 0},
	{"connect_timeout", OPTION_SECONDS, offsetof(PoolOptions, connect_timeout), 1, INT_MAX, 10000},
	{"failover_wait", OPTION_DURATION, offsetof(PoolOptions, failover_wait), 0, INT_MAX, 0},
	{"fallback_server", OPTION_SERVER, 0, 0, 0, 0},
	{"health_check_interval", OPTION_DURATION, offsetof(PoolOptions, health_check_interval), 0, INT_MAX, 30000},
	{"hedge", OPTION_PERCENTILE, offsetof(PoolOptions, hedge), 500, 999, 0},
	{"history_format", OPTION_WORD, offsetof(PoolOptions, history_format), 0, lengthof(history_words), HISTORY_DBPOOL, history_words},
	{"history_schema", OPTION_SCHEMA, 0, 0, 0, 0},
	{"idle_timeout", OPTION_DURATION, offsetof(PoolOptions, idle_timeout), 0, INT_MAX, 600000},
	{"isolation", OPTION_WORD, offsetof(PoolOptions, isolation), 0, lengthof(isolation_words), 0, isolation_words},
	{"leak_threshold", OPTION_DURATION, offsetof(PoolOptions, leak_threshold), 0, INT_MAX, 60000},
	{"lease_idle_timeout", OPTION_DURATION, offsetof(PoolOptions, lease_idle_timeout), 0, INT_MAX, 300000},
	{"load_balance", OPTION_WORD, offsetof(PoolOptions, load_balance), 0, lengthof(balance_words), BALANCE_OFF, balance_words},
	{"max_lag", OPTION_LAG, offsetof(PoolOptions, max_lag), 0, INT_MAX, 0},
	{"max_lifetime", OPTION_DURATION, offsetof(PoolOptions, max_lifetime), 0, INT_MAX, 1800000},
	{"max_size", OPTION_COUNT, offsetof(PoolOptions, max_size), 1, 10000, 10},
	{"max_waiting", OPTION_COUNT, offsetof(PoolOptions, max_waiting), 0, 1000000, 0},
	{"min_size", OPTION_COUNT, offsetof(PoolOptions, min_size), 0, 10000, 0},
	{"multiplex", OPTION_BOOL, offsetof(PoolOptions, multiplex), 0, 1, 1},
	{"prepare_threshold", OPTION_COUNT, offsetof(PoolOptions, prepare_threshold), 0, 1000000, 5},
	{"read_only", OPTION_BOOL, offsetof(PoolOptions, read_only), 0, 1, 0},
	{"read_only_when_degraded", OPTION_BOOL, offsetof(PoolOptions, read_only_when_degraded), 0, 1, 0},
	{"reset", OPTION_WORD, offsetof(PoolOptions, reset), 0, lengthof(reset_words), RESET_SMART, reset_words},
	{"resolve_outcome", OPTION_BOOL, offsetof(PoolOptions, resolve_outcome), 0, 1, 1},
	{"retry_attempts", OPTION_COUNT, offsetof(PoolOptions, retry_attempts), 1, 100, 3},
	{"retry_on", OPTION_WORD, offsetof(PoolOptions, retry_on), 0, lengthof(retried_words), RETRY_ON_NOTHING, retried_words},
	{"shed", OPTION_BOOL, offsetof(PoolOptions, shed), 0, 1, 0},
	{"slow_query_threshold", OPTION_DURATION, offsetof(PoolOptions, slow_query_threshold), 0, INT_MAX, 0},
	{"statement_cache_size", OPTION_COUNT, offsetof(PoolOptions, statement_cache_size), 0, 10000, 100},
	{"transaction", OPTION_WORD, offsetof(PoolOptions, transaction), 0, lengthof(transaction_words), TRANSACTION_AUTONOMOUS, transaction_words},
	{"validate_after", OPTION_DURATION, offsetof(PoolOptions, validate_after), -1, INT_MAX, 500},
};

StaticAssertDecl(XACT_READ_COMMITTED == 1 && XACT_SERIALIZABLE == 3,
				 "the numbers of isolation_words are the server's");

static const struct PoolOption *
find_pool_option(const char *keyword)
{
	for (int i = 0; i < lengthof(pool_options); i++)
	{
		if (strcmp(pool_options[i].keyword, keyword) == 0)
			return &pool_options[i];
	}
	return NULL;
}

/* The n-th keyword, from 0; NULL when there are no more. */
const char *
option_of_pool(int n)
{
	return n < lengthof(pool_options) ? pool_options[n].keyword : NULL;
}

/* Is it an option of the pool itself, and not libpq's? */
bool
option_is_pool(const char *keyword)
{
	return find_pool_option(keyword) != NULL;
}

/* Is it one that a worker gets in the way of libpq's? */
bool
option_is_text(const char *keyword)
{
	const struct PoolOption *option = find_pool_option(keyword);

	return option != NULL && option->type == OPTION_TEXT;
}

/* Refuse a value; detail and hint are whole sentences, or NULL. */
void
option_bad_value(const char *keyword, const char *value, const char *detail,
				 const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", keyword, value),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/*
 * The number without zeros before it, since parse_int() would take it for an
 * octal one.  NULL when it begins otherwise than a decimal number.
 */
static const char *
decimal(const char *value)
{
	bool		negative;

	while (isspace((unsigned char) *value))
		value++;
	negative = *value == '-';
	value += negative || *value == '+';
	while (value[0] == '0' && isdigit((unsigned char) value[1]))
		value++;
	if (!isdigit((unsigned char) *value) && *value != '.')
		return NULL;
	if (value[0] == '0' && (value[1] == 'x' || value[1] == 'X'))
		return NULL;
	return negative ? psprintf("-%s", value) : value;
}

/* Which of an option's words it is. */
static int
parse_word(const struct PoolOption *option, const char *value)
{
	StringInfoData hint;
	int			n = option->max - 1;	/* the last one ends the list */

	for (int i = 0; i < n; i++)
	{
		if (option->words[i] != NULL && strcmp(value, option->words[i]) == 0)
			return i;
	}
	initStringInfo(&hint);
	for (int i = 0; i < n; i++)
	{
		if (option->words[i] != NULL)
			appendStringInfo(&hint, "%s\"%s\"", hint.len == 0 ? "" : i < n - 1 ? ", " : " and ",
							 option->words[i]);
	}
	option_bad_value(option->keyword, value, NULL, psprintf("Valid values are %s.", hint.data));
}

/* Is its value a name, which is not in PoolOptions? */
static bool
is_name(const struct PoolOption *option)
{
	return option->type == OPTION_SCHEMA || option->type == OPTION_SERVER;
}

/* Has PoolOptions a place for it? */
static bool
has_number(const struct PoolOption *option)
{
	return !is_name(option) && option->type != OPTION_TEXT;
}

/* A time or an amount of WAL, see PoolOptions.max_lag. */
static int
parse_lag(const struct PoolOption *option, const char *value)
{
	const char *number = decimal(value);
	int			result;

	if (number != NULL && strspn(number, "0 ") == strlen(number))
		return 0;
	if (number == NULL || strspn(number, "0123456789. ") == strlen(number))
		option_bad_value(option->keyword, value, NULL, "A time or a number of bytes is expected, with its unit, as \"5s\" or \"16MB\".");
	if (parse_int(number, &result, GUC_UNIT_MS, NULL) && result > 0)
		return result;
	if (parse_int(number, &result, GUC_UNIT_KB, NULL) && result > 0)
		return -result;
	option_bad_value(option->keyword, value, "The valid ranges are 1 ms to 2147483647 ms, and 1 kB to 2147483647 kB.",
					 "Valid units are \"ms\", \"s\", \"min\", \"h\" and \"d\" for a time, and \"kB\", \"MB\", \"GB\" and \"TB\" for bytes.");
	pg_unreachable();
}

/* A percentile, as "95%" or "99.5%", in tenths of a percent; or off. */
static int
parse_percentile(const struct PoolOption *option, const char *value)
{
	Size		digits = strspn(value, "0123456789");
	int			tenths;

	if (strcmp(value, "off") == 0)
		return 0;
	tenths = digits > 0 && digits <= 3 ? atoi(value) * 10 : 0;
	value += digits;
	if (value[0] == '.' && isdigit((unsigned char) value[1]))
	{
		tenths += value[1] - '0';
		value += 2;
	}
	return strcmp(value, "%") == 0 && tenths >= option->min && tenths <= option->max ? tenths : -1;
}

/* The value of a pool's option as a number. */
static int
parse_value(const struct PoolOption *option, const char *value)
{
	const char *hint = NULL;
	const char *number = decimal(value);
	int			result;

	if (option->type == OPTION_WORD)
		return parse_word(option, value);
	if (option->type == OPTION_LAG)
		return parse_lag(option, value);
	if (option->type == OPTION_PERCENTILE)
	{
		result = parse_percentile(option, value);
		if (result < 0)
			option_bad_value(option->keyword, value, "The valid range is 50% to 99.9%, by tenths.",
							 "A percentile is expected, as \"95%\": a read that has taken longer than so many of the same text is sent to another host as well. \"off\" sends none.");
		return result;
	}
	if (is_name(option))
	{
		if (value[0] == '\0' || strlen(value) >= NAMEDATALEN)
			option_bad_value(option->keyword, value, psprintf("A name has 1 to %d bytes.", NAMEDATALEN - 1), NULL);
		if (option->type == OPTION_SERVER)
			return 0;
		if (strncmp(value, "pg_", 3) == 0 || strcmp(value, "information_schema") == 0)
			option_bad_value(option->keyword, value, "Schemas of that name are the system's.", NULL);
		return 0;
	}
	if (option->type == OPTION_TEXT)
	{
		if (strlen(value) > option->max)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("option \"%s\" is too long", option->keyword),
					 errdetail("It has %zu bytes, and may have %d.", strlen(value), option->max),
					 errhint("Put the statements into a function on the remote server, and have the option call that.")));
		return 0;
	}
	if (option->type == OPTION_BOOL)
	{
		bool		on;

		if (!parse_bool(value, &on))
			option_bad_value(option->keyword, value, NULL, "Valid values are \"on\" and \"off\".");
		return on;
	}
	/* parse_int() takes a bare number in the unit that the flag names */
	if (option->type == OPTION_SECONDS &&
		number != NULL && strspn(number, "0123456789 ") == strlen(number))
		number = psprintf("%s s", number);
	/* the views cast these to int */
	if (option->type == OPTION_COUNT && strspn(value, "0123456789") != strlen(value))
		option_bad_value(option->keyword, value, NULL, "A whole number is expected.");
	if (number == NULL || !parse_int(number, &result,
									 option->type == OPTION_COUNT ? 0 : GUC_UNIT_MS, &hint))
		option_bad_value(option->keyword, value, NULL,
						 hint ? hint : "A number is expected.");
	if (result < option->min || result > option->max)
		option_bad_value(option->keyword, value,
						 option->type == OPTION_COUNT ?
						 psprintf("The valid range is %d to %d.", option->min, option->max) :
						 psprintf("The valid range is %d ms to %d ms.", option->min, option->max),
						 NULL);
	return result;
}

/*
 * A pool that is served by a standby for a while has to want a primary, and
 * read-only sessions are not to be left otherwise.
 */
static void
check_degraded(List *defs, const PoolOptions *options)
{
	const char *wanted = "any";
	ListCell   *lc;

	if (!options->read_only_when_degraded)
		return;
	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "target_session_attrs") == 0)
			wanted = defGetString(def);
	}
	if (strcmp(wanted, "read-write") != 0 && strcmp(wanted, "primary") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"read_only_when_degraded\" cannot be on while \"target_session_attrs\" is \"%s\"", wanted),
				 errdetail("It is for pools that want a primary."),
				 errhint("Set target_session_attrs to \"read-write\" or \"primary\".")));
	if (options->reset == RESET_NEVER)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"read_only_when_degraded\" cannot be on while \"reset\" is \"never\""),
				 errdetail("A call that makes its session read-write would leave it so for others.")));
}

/* How many hosts does the server name? */
static int
count_hosts(List *defs)
{
	int			most = 1;
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		int			n = 1;

		if (strcmp(def->defname, "host") != 0 && strcmp(def->defname, "hostaddr") != 0)
			continue;
		for (const char *c = defGetString(def); *c != '\0'; c++)
			n += *c == ',';
		most = Max(most, n);
	}
	return most;
}

/* What is sent twice has to do no harm, and to have somewhere to go. */
static void
check_hedge(List *defs, const PoolOptions *options)
{
	if (options->hedge == 0)
		return;
	if (!options->read_only)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"hedge\" needs \"read_only\" to be on"),
				 errdetail("It has statements run twice, which what writes must not."),
				 errhint("Make a second server for reads, with \"read_only\" and the same hosts.")));
	if (count_hosts(defs) < 2)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"hedge\" needs two hosts or more"),
				 errdetail("A read that takes long is sent to another host as well."),
				 errhint("List the hosts in \"host\", separated by commas.")));
}

/* Read the options of a server (DefElems); those not given get their defaults. */
void
options_read(List *defs, PoolOptions *options)
{
	ListCell   *lc;

	for (int i = 0; i < lengthof(pool_options); i++)
		if (has_number(&pool_options[i]))
			*(int *) ((char *) options + pool_options[i].offset) = pool_options[i].initial;
	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const struct PoolOption *option = find_pool_option(def->defname);

		if (option != NULL && !has_number(option))
			(void) parse_value(option, defGetString(def));
		else if (option != NULL)
			*(int *) ((char *) options + option->offset) =
				parse_value(option, defGetString(def));
	}
	if (options->min_size > options->max_size)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"min_size\" (%d) must not be greater than \"max_size\" (%d)",
						options->min_size, options->max_size)));
	check_degraded(defs, options);
	check_hedge(defs, options);
	/* what a call has changed in its session would stay */
	if (options->read_only && options->reset == RESET_NEVER)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"read_only\" cannot be on while \"reset\" is \"never\""),
				 errdetail("A call that makes its session read-write would leave it so for others.")));
	if (options->load_balance != BALANCE_OFF && !options->read_only)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"load_balance\" needs \"read_only\" to be on"),
				 errdetail("What writes cannot be spread over hosts of which one takes writes."),
				 errhint("Make a second server for reads, with \"read_only\" and the same hosts.")));
	if (options->max_lag != 0 && !options->read_only)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"max_lag\" needs \"read_only\" to be on"),
				 errdetail("It is about standbys, which do not write."),
				 errhint("Make a second server for reads, with \"read_only\" and the same hosts.")));
}

/* A server's option history_schema, or NULL. */
char *
options_history_schema(List *defs)
{
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "history_schema") == 0)
			return defGetString(def);
	}
	return NULL;
}
