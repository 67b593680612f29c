/*
 * retryable.c
 *	  Which errors an application may answer by running its transaction again.
 *
 * An error is in the list only if nothing of the statement has taken effect whenever
 * dbpool or the remote reports it, and if another attempt may well end otherwise.
 * docs/errors.md has the reasons, also for those that are left out.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_is_retryable);

static const char *const retryable[] = {
	"08001",					/* sqlclient_unable_to_establish_sqlconnection */
	"08006",					/* connection_failure: of dbpool's, what was
								 * not run or was rolled back */
	"40001",					/* serialization_failure */
	"40P01",					/* deadlock_detected */
	"53300",					/* too_many_connections */
	"55P03",					/* lock_not_available */
	"57P01",					/* admin_shutdown: of dbpool's, at log-in */
	"57P02",					/* crash_shutdown: likewise */
	"57P03",					/* cannot_connect_now */
};

/*
 * dbpool_is_retryable(sqlstate text) returns boolean
 *
 * Errors: 22023 for what is no SQLSTATE.
 */
Datum
dbpool_is_retryable(PG_FUNCTION_ARGS)
{
	const char *sqlstate = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (strlen(sqlstate) != 5 ||
		strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid SQLSTATE: \"%s\"", sqlstate),
				 errdetail("A SQLSTATE has five digits and upper-case letters.")));
	for (int i = 0; i < lengthof(retryable); i++)
	{
		if (strcmp(sqlstate, retryable[i]) == 0)
			PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(false);
}
