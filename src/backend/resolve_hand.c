/*
 * resolve_hand.c
 *	  dbpool_resolve(): a human ends a prepared transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/resolve.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "compat.h"
#include "ipc/errand.h"

PG_FUNCTION_INFO_V1(dbpool_resolve);

static void
ignore_answer(AnswerSink *sink, char type, MessageReader *body)
{
	(void) sink;
	(void) type;
	(void) body;
}

/* Is it "commit"?  Throws unless it is one of the two. */
static bool
is_commit(const char *outcome)
{
	if (pg_strcasecmp(outcome, "commit") == 0)
		return true;
	if (pg_strcasecmp(outcome, "rollback") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid outcome of a prepared transaction: \"%s\"", outcome),
				 errhint("Valid are \"commit\" and \"rollback\".")));
	return false;
}

/*
 * Where the gid belongs, if the current role owns that server.  One that was dropped is
 * its last owner's no more: superusers may.
 */
static Place
place_of_gid(const char *gid)
{
	Place		place = {0};
	ForeignServer *server;

	if (!two_phase_place(gid, &place))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no prepared transaction \"%s\" of dbpool", gid),
				 errhint("See dbpool_in_doubt, and pg_prepared_xacts of the remote server.")));
	server = GetForeignServerExtended(place.serverid, FSV_MISSING_OK);
	if (server == NULL && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to forget a prepared transaction whose server was dropped")));
	if (server != NULL && !compat_server_owner(place.serverid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, server->servername);
	return place;
}

/*
 * dbpool_resolve(gid text, outcome text) returns void
 *
 * Ends a prepared transaction by hand, "commit" or "rollback", against what dbpool would
 * decide if need be; for the server's owner.  Errors: 42704 for a gid that is not
 * dbpool's, or that the remote does not know; 55006 while a session is about it.  If there
 * is no way to the remote any more, it is forgotten.
 */
Datum
dbpool_resolve(PG_FUNCTION_ARGS)
{
	char	   *gid = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		commit = is_commit(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	char	   *sql = psprintf("%s PREPARED %s", commit ? "COMMIT" : "ROLLBACK", quote_literal_cstr(gid));
	Place		place;
	Definition	definition;
	Call		call;
	AnswerSink	sink = {ignore_answer};

	/* the remote is not to be told what could not be noted here */
	PreventCommandIfReadOnly("dbpool_resolve()");
	client_require_workers();
	place = place_of_gid(gid);
	if (gid_is_under_way(gid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a session is still about the prepared transaction \"%s\"", gid)));
	if (definition_to_warm(place.serverid, place.userid, &definition))
	{
		memset(&call, 0, sizeof(call));
		call.pool = NameStr(definition.options->server);
		call.definition = &definition;
		call.kind = REQUEST_SCRIPT;
		call.sql = sql;
		call.traces = TRACE_LOGIN_ROLE;
		client_run(&call, &sink);
		shmem_count_resolved(&definition.key);
	}
	else
		ereport(WARNING,
				(errmsg("prepared transaction \"%s\" was forgotten, and not ended at the remote server", gid),
				 errdetail("Its server or user mapping cannot be used any more."),
				 errhint("At the remote server: %s", sql)));
	rows_delete(list_make1(gid));
	(void) errand_want(ERRAND_RESOLVE, MyDatabaseId);
	PG_RETURN_VOID();
}
