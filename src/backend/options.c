/*
 * options.c
 *	  The options of servers and user mappings: names, values, who may set them.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/reloptions.h"
#include "backend/client.h"
#include "backend/options.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commands/extension.h"
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
	OPTION_HISTORY,
	OPTION_SCHEMA				/* a name; not in PoolOptions, as no worker
								 * needs it */
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
	{"history_schema", OPTION_SCHEMA, 0, 0, 0, 0},
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

/* The value of a pool's option as a number. */
static int
parse_value(const struct PoolOption *option, const char *value)
{
	const char *hint = NULL;
	const char *number = decimal(value);
	int			result;

	if (option->type == OPTION_RESET)
	{
		if (strcmp(value, "smart") == 0)
			return RESET_SMART;
		if (strcmp(value, "always") == 0)
			return RESET_ALWAYS;
		if (strcmp(value, "never") == 0)
			return RESET_NEVER;
		option_bad_value(option->keyword, value, NULL, "Valid values are \"smart\", \"always\" and \"never\".");
	}
	if (option->type == OPTION_HISTORY)
	{
		if (strcmp(value, "dbpool") == 0)
			return HISTORY_DBPOOL;
		if (strcmp(value, "refinery") == 0)
			return HISTORY_REFINERY;
		if (strcmp(value, "sqlx") == 0)
			return HISTORY_SQLX;
		option_bad_value(option->keyword, value, NULL, "Valid values are \"dbpool\", \"refinery\" and \"sqlx\".");
	}
	if (option->type == OPTION_SCHEMA)
	{
		if (value[0] == '\0' || strlen(value) >= NAMEDATALEN)
			option_bad_value(option->keyword, value, psprintf("A name has 1 to %d bytes.", NAMEDATALEN - 1), NULL);
		if (strncmp(value, "pg_", 3) == 0 || strcmp(value, "information_schema") == 0)
			option_bad_value(option->keyword, value, "Schemas of that name are the system's.", NULL);
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

/* Read the options of a server (DefElems); those not given get their defaults. */
void
options_read(List *defs, PoolOptions *options)
{
	ListCell   *lc;

	for (int i = 0; i < lengthof(pool_options); i++)
		if (pool_options[i].type != OPTION_SCHEMA)
			*(int *) ((char *) options + pool_options[i].offset) = pool_options[i].initial;
	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const struct PoolOption *option = find_pool_option(def->defname);

		if (option != NULL && option->type == OPTION_SCHEMA)
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

/* How one says where an option belongs. */
static const char *
place_of(Oid catalog)
{
	return catalog == UserMappingRelationId ? "the user mapping" :
		catalog == ForeignServerRelationId ? "the server" : "the foreign-data wrapper";
}

/* Where does an option belong?  InvalidOid: there is none of that name. */
static Oid
catalog_of(const char *keyword)
{
	int			n;
	const ConninfoOption *options = conninfo_options(&n);

	if (option_is_mapping(keyword))
		return UserMappingRelationId;
	if (option_is_pool(keyword))
		return ForeignServerRelationId;
	for (int i = 0; i < n; i++)
	{
		if (strcmp(options[i].keyword, keyword) == 0)
			return ForeignServerRelationId;
	}
	return InvalidOid;
}

/* Try one name more as valid in that catalog: for the list, and as the nearest. */
static void
offer(const char *keyword, Oid catalog, StringInfo valid, NearestName *nearest)
{
	nearest_try(nearest, keyword);
	if (catalog_of(keyword) == catalog)
		appendStringInfo(valid, "%s%s", valid->len > 0 ? ", " : "", keyword);
}

/* What most drivers call "database" is "dbname" to libpq; else the keyword itself. */
const char *
option_known_as(const char *keyword)
{
	return strcmp(keyword, "database") == 0 ? "dbname" : keyword;
}

/* Refuse an option that there is not, or not there, and say which there is. */
static void
unknown_option(const char *keyword, Oid catalog)
{
	StringInfoData valid;
	NearestName nearest;
	int			n;
	const ConninfoOption *options = conninfo_options(&n);
	const char *why = conninfo_why_left_out(keyword);
	const char *meant = keyword;
	Oid			place = catalog_of(keyword);
	char	   *hint;

	initStringInfo(&valid);
	nearest_init(&nearest, option_known_as(keyword));
	for (int i = 0; i < n; i++)
		offer(options[i].keyword, catalog, &valid, &nearest);
	offer("password_required", catalog, &valid, &nearest);
	for (int i = 0; i < lengthof(pool_options); i++)
		offer(pool_options[i].keyword, catalog, &valid, &nearest);
	if (!OidIsValid(place) && why == NULL && nearest.name[0] != '\0')
	{
		meant = nearest.name;
		place = catalog_of(meant);
	}

	if (why != NULL)
		hint = psprintf("libpq's option of that name is not for pools: %s.", why);
	else if (OidIsValid(place) && place != catalog && meant == keyword)
		hint = psprintf("It is an option of %s.", place_of(place));
	else if (OidIsValid(place) && place != catalog)
		hint = psprintf("Perhaps you meant \"%s\", which is an option of %s.",
						meant, place_of(place));
	else if (OidIsValid(place))
		hint = psprintf("Perhaps you meant \"%s\".", meant);
	else if (valid.len > 0)
		hint = psprintf("Valid options in this context are: %s.", valid.data);
	else
		hint = pstrdup("There are no valid options in this context.");
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", keyword),
			 errdetail("There is no such option of %s.", place_of(catalog)),
			 errhint("%s", hint)));
}

static void
refuse_right(const ConninfoOption *option, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to set option \"%s\"", option->keyword),
			 errdetail_internal("%s", detail)));
}

/*
 * Would these command-line options have the remote load a library?  It does so
 * when somebody has logged in, and before we can tell whether he should have
 * been asked for a password.  The remote does not mind case, nor "-" for "_" in
 * names, and takes away backslashes.
 */
static bool
loads_libraries(const char *value)
{
	char	   *plain = palloc(strlen(value) + 1);
	char	   *end = plain;

	for (; *value != '\0'; value++)
	{
		if (*value != '\\')
			*end++ = *value == '-' ? '_' : pg_ascii_tolower(*value);
	}
	*end = '\0';
	return strstr(plain, "preload_libraries") != NULL ||
		strstr(plain, "dynamic_library_path") != NULL;
}

/* What would lend others the server's own rights is for superusers to set. */
static void
check_right(const ConninfoOption *option, const char *value)
{
	if (superuser())
		return;
	if (option->file)
		refuse_right(option, _("It names a file on the database server's machine, and only superusers may set such options."));
	if (option->ticket && strcmp(value, "disable") != 0 && strcmp(value, "0") != 0)
		refuse_right(option, _("It makes use of the Kerberos ticket of the database server's operating-system user, and only superusers may set such options."));
	if (strcmp(option->keyword, "options") == 0 && loads_libraries(value))
		refuse_right(option, _("It would have the remote load a library at log-in, and only superusers may do that."));
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
		check_right(&options[i], defGetString(def));
		conninfo_check_value(def->defname, defGetString(def));
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

	/* the script of the extension makes the wrapper, and so calls this once */
	if (creating_extension && !dbpool_preloaded)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dbpool is not loaded via shared_preload_libraries"),
				 errdetail("Pools can be defined, but not used."),
				 client_preload_hint()));
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
	{
		conninfo_check_together(defs);
		options_read(defs, &options);
		if (options.min_size > dbpool_max_min_size && !superuser())
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("option \"min_size\" (%d) is greater than dbpool.max_min_size (%d) allows",
							options.min_size, dbpool_max_min_size),
					 errhint("Superusers may set more, or raise dbpool.max_min_size.")));
	}
	PG_RETURN_VOID();
}
