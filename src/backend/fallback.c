/*
 * fallback.c
 *	  fallback_server: reads of a pool whose remote cannot be reached go to another pool.
 *
 * A worker marks the error of a request that got no connection since none could be opened.
 * The session that gets it runs its call once more, on the pool that the server's option
 * names, if the call may be run there:
 *	 - It is one statement by itself, and none that begins as a write does.  It is run there
 *	   in a transaction that is read-only, so that the remote itself refuses what turns
 *	   out to write; who wanted to write is told the first pool's error.
 *	 - The caller may use the other server, and has a user mapping for it: all that is
 *	   looked up and checked as if he had called it, so that he gets no right by this.  And the owner of
 *	   the first server may use it, too: else he could have others' statements run where he has no
 *	   business.
 *	 - It belongs to no transaction.  It does not join one that the session has on the
 *	   other pool either.
 * That is one step: what fails there, fails, whatever that server's own option says.
 */
#include "postgres.h"

#include "backend/client_slot.h"
#include "backend/transaction.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"

/* The call is a read, as far as can be seen, and is all of a transaction. */
static bool
may_run_elsewhere(const Call *call)
{
	return call->stands_in_for == NULL && call->transaction == NULL &&
		call_is_one_transaction(call) && !call_begins_as_write(call);
}

/* The option of a server, or NULL. */
static const char *
fallback_of(const ForeignServer *server)
{
	ListCell   *lc;

	foreach(lc, server->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "fallback_server") == 0)
			return defGetString(def);
	}
	return NULL;
}

/* Why the current role's call on one server cannot go to the other; NULL: it can. */
static const char *
why_not(const ForeignServer *server, const char *name)
{
	Oid			other = definition_server(name, true);
	const char *role = GetUserNameFromId(GetUserId(), false);

	if (!OidIsValid(other))
		return "there is no pool of that name";
	if (other == server->serverid)
		return "it is the pool itself";
	if (compat_server_usage(other, server->owner) != ACLCHECK_OK)
		return psprintf("the pool's owner, \"%s\", has no USAGE on it", GetUserNameFromId(server->owner, false));
	if (compat_server_usage(other, GetUserId()) != ACLCHECK_OK)
		return psprintf("role \"%s\" has no USAGE on it", role);
	if (!definition_has_mapping(other, GetUserId()))
		return psprintf("role \"%s\" has no user mapping for it", role);
	return NULL;
}

/*
 * The answer to a call is complete: is it that its remote cannot be reached, and can another
 * pool stand in?  Then the call has been changed to run there.  If only that pool is of no
 * use, call->no_fallback says why.
 */
bool
fallback_take(Client *client)
{
	Call	   *call = client->call;
	const ForeignServer *server;
	const char *name;
	const char *why;

	if (!error_has_no_remote(client->error.data, client->error.len) || !may_run_elsewhere(call))
		return false;
	server = GetForeignServerExtended(client->slot->task.key.serverid, FSV_MISSING_OK);
	name = server != NULL ? fallback_of(server) : NULL;
	if (name == NULL)
		return false;
	why = why_not(server, name);
	if (why != NULL)
	{
		call->no_fallback = psprintf("fallback_server \"%s\" is not used: %s", name, why);
		return false;
	}
	pool_count_fallback(&client->slot->task.key);
	initStringInfo(&call->first_error);
	appendBinaryStringInfo(&call->first_error, client->error.data, client->error.len);
	call->stands_in_for = call->pool;
	call->pool = name;
	return true;
}

/*
 * The answer of a pool that stands in is complete.  If it is that the statement would write,
 * the first pool's error is the one to be told.
 */
void
fallback_judge(Client *client)
{
	Call	   *call = client->call;
	MessageReader body = {client->error.data, client->error.data + client->error.len};
	char		sqlstate[6];
	char	   *message;

	if (call->stands_in_for == NULL || client->error.len == 0)
		return;
	error_texts(&body, sqlstate, &message);
	if (strcmp(sqlstate, "25006") != 0)
		return;
	call->no_fallback = psprintf("fallback_server \"%s\" takes no writes", call->pool);
	resetStringInfo(&client->error);
	appendBinaryStringInfo(&client->error, call->first_error.data, call->first_error.len);
	call->pool = call->stands_in_for;
	call->stands_in_for = NULL;
}

/* For errors of a call: what has become of it on its way. */
void
fallback_context(void *arg)
{
	const Call *call = arg;
	MessageReader body;
	char		sqlstate[6];
	char	   *message;

	if (call->no_fallback != NULL)
		errcontext("%s", call->no_fallback);
	if (call->stands_in_for == NULL)
		return;
	body.at = call->first_error.data;
	body.end = body.at + call->first_error.len;
	error_texts(&body, sqlstate, &message);
	errcontext("pool \"%s\" stands in for pool \"%s\": %s", call->pool, call->stands_in_for, message);
}
