/*
 * preload.c
 *	  Is dbpool loaded by the server, and has it workers?
 */
#include "postgres.h"

#include "backend/client.h"
#include "catalog/pg_authid.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"

/*
 * The hint of an ereport() for a server that has not loaded dbpool.  What the
 * list holds, and where, is told to those who may see settings.
 */
int
client_preload_hint(void)
{
	const char *list;
	const char *place;

	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_SETTINGS))
		return errhint("Have dbpool added to shared_preload_libraries in postgresql.conf, and the server restarted.");
	list = GetConfigOption("shared_preload_libraries", false, false);
	if (list[0] == '\0')
		return errhint("Add dbpool to shared_preload_libraries in \"%s\", keep what is there, and restart the server. It was started with an empty list.",
					   ConfigFileName);
	place = compat_setting_place("shared_preload_libraries");
	if (place == NULL)
		return errhint("Add dbpool to shared_preload_libraries in the command that starts the server, keep what is there, and restart it. It was started with: %s.",
					   list);
	if (strcmp(last_dir_separator(place) ? last_dir_separator(place) + 1 : place, PG_AUTOCONF_FILENAME) == 0)
		return errhint("Add dbpool to shared_preload_libraries by ALTER SYSTEM SET, which needs the whole list, each name in quotes of its own, and restart the server. It was started with: %s.",
					   list);
	return errhint("Add dbpool to shared_preload_libraries in \"%s\", keep what is there, and restart the server. It was started with: %s.",
				   place, list);
}

/* Every function that needs the shared memory calls this first. */
void
client_require_preload(void)
{
	if (!dbpool_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dbpool must be loaded via shared_preload_libraries"),
				 client_preload_hint()));
}

/* Every function that has something done remotely calls this first. */
void
client_require_workers(void)
{
	client_require_preload();
	if (IsBinaryUpgrade)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dbpool has no workers in binary upgrade mode"),
				 errdetail("The server was started with -b, as by pg_upgrade. Nothing was sent to a remote."),
				 errhint("Start the server without -b.")));
}
