/*
 * validator.c
 *	  Options as servers and user mappings may have them: where each belongs, and
 *	  who may set it.
 */
#include "postgres.h"

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

PG_FUNCTION_INFO_V1(dbpool_validator);

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
	for (int i = 0; option_of_pool(i) != NULL; i++)
		offer(option_of_pool(i), catalog, &valid, &nearest);
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
