/*
 * options.c
 *	  The options of servers and user mappings: names, values, who may set them.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "backend/options.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_FUNCTION_INFO_V1(dbpool_validator);

typedef enum OptionType
{
	OPTION_BOOL,
	OPTION_COUNT,
	OPTION_DURATION,			/* milliseconds, with PostgreSQL's units */
	OPTION_SECONDS,				/* likewise, a bare number is seconds */
	OPTION_RESET,
	OPTION_HISTORY
} OptionType;

/* The options of a pool, of the server. */
static const struct PoolOption
{
	const char *keyword;
	OptionType	type;
	Size		offset;			/* in PoolOptions */
	int			min;
	int			max;
	int			initial;
}			pool_options[] = {
	{"acquire_timeout", OPTION_DURATION, offsetof(PoolOptions, acquire_timeout), 1, INT_MAX, 30000},
	{"connect_timeout", OPTION_SECONDS, offsetof(PoolOptions, connect_timeout), 1, INT_MAX, 10000},
	{"health_check_interval", OPTION_DURATION, offsetof(PoolOptions, health_check_interval), 0, INT_MAX, 30000},
	{"history_format", OPTION_HISTORY, offsetof(PoolOptions, history_format), 0, 0, HISTORY_DBPOOL},
	{"idle_timeout", OPTION_DURATION, offsetof(PoolOptions, idle_timeout), 0, INT_MAX, 600000},
	{"max_lifetime", OPTION_DURATION, offsetof(PoolOptions, max_lifetime), 0, INT_MAX, 1800000},
	{"max_size", OPTION_COUNT, offsetof(PoolOptions, max_size), 1, 10000, 10},
	{"min_size", OPTION_COUNT, offsetof(PoolOptions, min_size), 0, 10000, 0},
	{"multiplex", OPTION_BOOL, offsetof(PoolOptions, multiplex), 0, 1, 1},
	{"prepare_threshold", OPTION_COUNT, offsetof(PoolOptions, prepare_threshold), 0, 1000000, 5},
	{"reset", OPTION_RESET, offsetof(PoolOptions, reset), 0, 0, RESET_SMART},
	{"statement_cache_size", OPTION_COUNT, offsetof(PoolOptions, statement_cache_size), 0, 10000, 100},
	{"validate_after", OPTION_DURATION, offsetof(PoolOptions, validate_after), -1, INT_MAX, 500},
};

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

/* Is it an option of the pool itself, and not libpq's? */
bool
option_is_pool(const char *keyword)
{
	return find_pool_option(keyword) != NULL;
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

static void
bad_value(const struct PoolOption *option, const char *value, const char *detail,
		  const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option->keyword, value),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

/* The value of a pool's option as a number. */
static int
parse_value(const struct PoolOption *option, const char *value)
{
	const char *hint = NULL;
	const char *number = value;
	int			result;

	if (option->type == OPTION_RESET)
	{
		if (strcmp(value, "smart") == 0)
			return RESET_SMART;
		if (strcmp(value, "always") == 0)
			return RESET_ALWAYS;
		if (strcmp(value, "never") == 0)
			return RESET_NEVER;
		bad_value(option, value, NULL, "Valid values are \"smart\", \"always\" and \"never\".");
	}
	if (option->type == OPTION_HISTORY)
	{
		if (strcmp(value, "dbpool") == 0)
			return HISTORY_DBPOOL;
		if (strcmp(value, "refinery") == 0)
			return HISTORY_REFINERY;
		if (strcmp(value, "sqlx") == 0)
			return HISTORY_SQLX;
		bad_value(option, value, NULL, "Valid values are \"dbpool\", \"refinery\" and \"sqlx\".");
	}
	if (option->type == OPTION_BOOL)
	{
		bool		on;

		if (!parse_bool(value, &on))
			bad_value(option, value, NULL, "Valid values are \"on\" and \"off\".");
		return on;
	}
	/* parse_int() takes a bare number in the unit that the flag names */
	if (option->type == OPTION_SECONDS &&
		strspn(value, "0123456789 ") == strlen(value) && value[0] != '\0')
		number = psprintf("%s s", value);
	/* the views cast these to int */
	if (option->type == OPTION_COUNT && strspn(value, "0123456789") != strlen(value))
		bad_value(option, value, NULL, "A whole number is expected.");
	if (!parse_int(number, &result,
				   option->type == OPTION_COUNT ? 0 : GUC_UNIT_MS, &hint))
		bad_value(option, value, NULL,
				  hint ? hint : "A number is expected.");
	if (result < option->min || result > option->max)
		bad_value(option, value,
				  option->type == OPTION_COUNT ?
				  psprintf("The valid range is %d to %d.", option->min, option->max) :
				  psprintf("The valid range is %d ms to %d ms.", option->min, option->max),
				  NULL);
	return result;
}

/* Read the options of a server (DefElems); those not given get their defaults. */
void
options_read(List *defs, PoolOptions *options)
{
	ListCell   *lc;

	for (int i = 0; i < lengthof(pool_options); i++)
		*(int *) ((char *) options + pool_options[i].offset) = pool_options[i].initial;
	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const struct PoolOption *option = find_pool_option(def->defname);

		if (option != NULL)
			*(int *) ((char *) options + option->offset) =
				parse_value(option, defGetString(def));
	}
	if (options->min_size > options->max_size)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"min_size\" (%d) must not be greater than \"max_size\" (%d)",
						options->min_size, options->max_size)));
}

/* Say which options there are. */
static void
unknown_option(const char *keyword, Oid catalog)
{
	StringInfoData valid;
	int			n;
	const ConninfoOption *options = conninfo_options(&n);

	initStringInfo(&valid);
	for (int i = 0; i < n; i++)
	{
		if (options[i].mapping != (catalog == UserMappingRelationId))
			continue;
		appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", options[i].keyword);
	}
	if (catalog == UserMappingRelationId)
		appendStringInfoString(&valid, ", password_required");
	else if (catalog == ForeignServerRelationId)
	{
		for (int i = 0; i < lengthof(pool_options); i++)
			appendStringInfo(&valid, ", %s", pool_options[i].keyword);
	}
	else
		resetStringInfo(&valid);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", keyword),
			 valid.len == 0 ?
			 errhint("There are no valid options in this context.") :
			 errhint("Valid options in this context are: %s.", valid.data)));
}

/* Options that let one read the server's files are for superusers. */
static void
check_right(const ConninfoOption *option)
{
	if (option->file && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->keyword),
				 errdetail("It names a file on the database server's machine, and only superusers may set such options.")));
}

static void
check_password_required(DefElem *def)
{
	if (!defGetBoolean(def) && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("password_required=false is superuser-only"),
				 errhint("User mappings with the password_required option set to false may only be created or modified by a superuser.")));
}

static void
check_libpq_option(DefElem *def, Oid catalog)
{
	int			n;
	const ConninfoOption *options = conninfo_options(&n);

	for (int i = 0; i < n; i++)
	{
		if (strcmp(options[i].keyword, def->defname) != 0)
			continue;
		if (options[i].mapping != (catalog == UserMappingRelationId) ||
			catalog == ForeignDataWrapperRelationId)
			break;
		check_right(&options[i]);
		return;
	}
	unknown_option(def->defname, catalog);
}

/*
 * dbpool_validator(options text[], catalog oid)
 *
 * Called by CREATE and ALTER SERVER, USER MAPPING and FOREIGN DATA WRAPPER with
 * all options that the object would have.
 */
Datum
dbpool_validator(PG_FUNCTION_ARGS)
{
	List	   *defs = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	PoolOptions options;
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (catalog == ForeignServerRelationId && option_is_pool(def->defname))
			continue;
		if (catalog == UserMappingRelationId &&
			strcmp(def->defname, "password_required") == 0)
			check_password_required(def);
		else
			check_libpq_option(def, catalog);
	}
	if (catalog == ForeignServerRelationId)
		options_read(defs, &options);
	PG_RETURN_VOID();
}
