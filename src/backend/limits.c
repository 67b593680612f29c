/*
 * limits.c
 *	  How many requests one session, and one role, may have under way.
 *
 * Slots are for all sessions of the server.  A call that makes further calls
 * while it runs takes several, and so do many sessions of one role.  Superusers
 * are not limited.
 */
#include "postgres.h"

#include "backend/client.h"
#include "ipc/lease.h"
#include "ipc/quota.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"

/* Milliseconds to wait for requests of the role that were given up. */
#define GIVEN_UP_MS		2000

static void
throw_limit(const char *what, int limit, const char *setting)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many dbpool statements of one %s are under way", what),
			 errdetail("There are %d, as many as %s allows. The statement was not run.",
					   limit, setting),
			 errhint("A superuser can raise it, for all or by ALTER ROLE %s SET %s.",
					 quote_identifier(GetUserNameFromId(GetUserId(), false)), setting)));
}

/* May the session make one request more, when it has so many? */
bool
limits_allow(int open)
{
	return open < dbpool_session_max_requests || superuser();
}

/* The same; throws if not. */
void
limits_check_session(int open)
{
	if (!limits_allow(open))
		throw_limit("session", dbpool_session_max_requests, "dbpool.session_max_requests");
}

/* Has the role given up requests, or transactions, that a worker has not freed yet? */
static bool
has_given_up(Oid roleid)
{
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		RequestSlot *slot = request_slot(i);

		if (request_word_state(request_word(slot)) == REQUEST_ABANDONED &&
			slot->task.roleid == roleid)
			return true;
	}
	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);

		/* read without the lock: it is about how long to wait, no more */
		if (lease_word_state(lease_word(lease)) == LEASE_RELEASED && lease->roleid == roleid)
			return true;
	}
	return false;
}

/* How many requests the current role may have. */
static int
role_limit(void)
{
	return quota_limit(dbpool_role_max_requests, dbpool_shared->nrequests);
}

/*
 * Count a request of the current role.  Returns what quota_give() is to be given, or
 * QUOTA_EXCEEDED when the role has too many.
 */
int
limits_try_count(void)
{
	return superuser() ? QUOTA_NONE : quota_take(GetUserId(), role_limit());
}

/*
 * Count a request of the current role, or a transaction.  Returns what quota_give() is
 * to be given.  Throws when the role has too many; those that it has just given up
 * are waited for.
 */
int
limits_count(void)
{
	static uint32 wait_event;
	Oid			roleid = GetUserId();
	int			limit = role_limit();
	int			quota = limits_try_count();
	Ticks		until;

	if (quota != QUOTA_EXCEEDED)
		return quota;

	until = ticks_plus_ms(ticks_now(), GIVEN_UP_MS);
	ConditionVariablePrepareToSleep(&dbpool_shared->slot_freed_cv);
	while (has_given_up(roleid) && ticks_now() < until)
	{
		quota = quota_take(roleid, limit);
		if (quota != QUOTA_EXCEEDED)
			break;
		if (ConditionVariableTimedSleep(&dbpool_shared->slot_freed_cv, GIVEN_UP_MS,
										compat_wait_event(&wait_event, "DbpoolRequestSlot")))
			break;
	}
	ConditionVariableCancelSleep();
	/* the last of them may have gone between the two looks */
	if (quota == QUOTA_EXCEEDED)
		quota = quota_take(roleid, limit);
	if (quota == QUOTA_EXCEEDED)
		throw_limit("role", limit, "dbpool.role_max_requests");
	return quota;
}
