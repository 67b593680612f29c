/*
 * uses.c
 *	  What runs on a pool: the statements and transactions that somebody who stops it
 *	  waits for.
 */
#include "postgres.h"

#include "backend/client.h"
#include "backend/operate.h"
#include "ipc/lease.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Of those who keep an error waiting, how many it names. */
#define USES_SHOWN		10

/* Of sessions that run statements for each other, how many are followed. */
#define CHAIN_MOST		100

/* Who keeps a pool from resting. */
typedef struct Use
{
	int			pid;
	Oid			roleid;
	bool		transaction;	/* else a statement by itself */
	NameData	name;			/* of the transaction, or empty */
	Ticks		since;			/* when it began */
	Ticks		idle_since;		/* 0: a statement runs */
} Use;

/* Is it an open transaction on the server?  Then *use tells of it. */
static bool
lease_use(LeaseShared *lease, Oid serverid, Use *use)
{
	uint64		word = lease_word(lease);
	bool		uses;

	if (lease_word_state(word) != LEASE_OPEN)
		return false;
	SpinLockAcquire(&lease->mutex);
	uses = lease->dbid == MyDatabaseId && lease->serverid == serverid;
	use->pid = lease->pid;
	use->roleid = lease->roleid;
	use->name = lease->name;
	use->since = lease->began_at;
	use->idle_since = lease->idle_since;
	SpinLockRelease(&lease->mutex);
	use->transaction = true;
	return uses && lease_word(lease) == word;
}

/*
 * Is it a statement that runs on the server, or, if that is invalid, in the process of
 * this server with that ID?  Then *use tells of it.
 */
static bool
request_use(RequestSlot *slot, Oid serverid, int home_pid, Use *use)
{
	uint64		word = request_word(slot);
	bool		uses;

	if (request_word_state(word) != REQUEST_RUNNING)
		return false;
	if (OidIsValid(serverid))
		uses = slot->task.lease == LEASE_NONE && operation_matches(&slot->task.key, &serverid);
	else
		uses = slot->home_pid == home_pid;
	use->pid = slot->task.pid;
	use->roleid = slot->task.roleid;
	use->transaction = false;
	use->idle_since = 0;
	SpinLockAcquire(&slot->mutex);
	use->since = slot->running_since;
	SpinLockRelease(&slot->mutex);
	return uses && request_word(slot) == word;
}

/* All uses of the server; *n is their number. */
static Use *
uses_of(Oid serverid, int *n)
{
	Use		   *uses = palloc(sizeof(Use) * (lease_count() + request_count()));

	*n = 0;
	for (int i = 0; i < lease_count(); i++)
	{
		if (lease_use(lease_entry(i), serverid, &uses[*n]))
			(*n)++;
	}
	for (int i = 0; i < request_count(); i++)
	{
		if (request_use(request_slot(i), serverid, 0, &uses[*n]))
			(*n)++;
	}
	return uses;
}

/* The session whose statement the process runs, by a pool that points home; or 0. */
static int
caller_of(int pid)
{
	Use			use;

	for (int i = 0; i < request_count(); i++)
	{
		if (request_use(request_slot(i), InvalidOid, pid, &use))
			return use.pid;
	}
	return 0;
}

/* How many transactions and statements run on the server? */
void
uses_count(Oid serverid, int *transactions, int *statements)
{
	int			n;
	Use		   *uses = uses_of(serverid, &n);

	*transactions = 0;
	for (int i = 0; i < n; i++)
		*transactions += uses[i].transaction;
	*statements = n - *transactions;
	pfree(uses);
}

/*
 * Who waits for this session, as that session itself does, waits for the end of the
 * call: no use of theirs would end.
 */
void
uses_check_not_own(const Operation *op)
{
	int			n;
	Use		   *uses = uses_of(op->serverid, &n);
	int			pid = MyProcPid;

	for (int depth = 0; pid != 0 && depth < CHAIN_MOST; depth++)
	{
		for (int i = 0; i < n; i++)
		{
			if (uses[i].pid != pid)
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("pool \"%s\" cannot be %s by a session that uses it", op->pool,
							op->kind->done),
					 errdetail("The call would wait for the end of %s of %s, which can only come after it.",
							   uses[i].transaction ? "a transaction" : "a statement",
							   pid == MyProcPid ? "this session" :
							   psprintf("process %d, which waits for this session", pid)),
					 errhint("End that before, or have nothing waited for: %s(%s, '0').",
							 op->kind->function, quote_literal_cstr(op->pool))));
		}
		pid = caller_of(pid);
	}
	pfree(uses);
}

/* A line about a use. */
static void
explain_use(StringInfo buf, const Use *use, Ticks now)
{
	const char *role = GetUserNameFromId(use->roleid, true);

	appendStringInfo(buf, "Process %d of role \"%s\" ", use->pid, role ? role : "?");
	if (!use->transaction)
		appendStringInfo(buf, "has been running a statement for %.1f s.\n",
						 (now - use->since) / 1000000.0);
	else
	{
		if (NameStr(use->name)[0] == '\0')
			appendStringInfoString(buf, "has a transaction open, ");
		else
			appendStringInfo(buf, "has transaction \"%s\" open, ", NameStr(use->name));
		if (use->idle_since == 0)
			appendStringInfo(buf, "begun %.1f s ago, which runs a statement.\n",
							 (now - use->since) / 1000000.0);
		else
			appendStringInfo(buf, "idle for %.1f s.\n", (now - use->idle_since) / 1000000.0);
	}
}

/*
 * What is it that has not ended?  Not what has begun after since, unless that is 0.  Lines
 * with their ends.
 */
char *
uses_explain(Oid serverid, Ticks since)
{
	StringInfoData buf;
	Ticks		now = ticks_now();
	int			n;
	Use		   *uses = uses_of(serverid, &n);
	int			shown = 0;
	int			more = 0;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
	{
		if (since != 0 && uses[i].since > since)
			continue;
		if (shown == USES_SHOWN)
			more++;
		else
		{
			explain_use(&buf, &uses[i], now);
			shown++;
		}
	}
	if (shown == 0)
		appendStringInfoString(&buf, "Connections are being cancelled, checked or reset.\n");
	if (more > 0)
		appendStringInfo(&buf, "So have %d more.\n", more);
	return buf.data;
}
