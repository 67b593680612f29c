/*
 * home.c
 *	  Connections that lead to this very server: to know them, to stop what
 *	  they run, and to find deadlocks that go through them.
 *
 * A pool may point home, to the server that dbpool runs in: then a call is a
 * transaction of its own beside that of the session which waits for it, and the
 * two may want the same locks.  The server knows nothing of that wait.
 *
 * HOW A CONNECTION IS KNOWN
 *
 * Addresses prove nothing: there are tunnels, poolers and other network
 * namespaces, and the process ID that a remote tells may be anything.  So, if
 * there is a server process here of the process ID that the remote has told,
 * the first statement that is sent to it begins with a comment that is a random
 * number, and when it has been answered we look into our own shared memory for
 * what that process ran last.  Is it that comment, then it has been there, and
 * so it is the other end.  A remote that lies can bring the comment there only
 * by running it as a statement of that process, and who can do that can also end
 * the process in SQL.  Where track_activities is off, or behind a pooler that
 * has process IDs of its own, the connection is taken for one to somewhere else.
 *
 * STOPPING
 *
 * A session that gives up a call and releases its locks must not thereby let
 * the call go on.  The worker sends the signal by itself, without a connection
 * for the cancel: when kill() returns the signal is pending, and the process sees it
 * before it sees anything that happens later, such as the release of a lock.
 * Only a process that has not begun with the statement, as another's is before
 * it, loses it.  So the session waits until the statement has ended, see "the
 * backend", step 6, in request.h.
 *
 * DEADLOCKS
 *
 * Who waits for whom is
 *	 - by a lock: whoever holds it in a mode that conflicts, or waits for that
 *	   before us;
 *	 - by a call: a session waits for the process that runs its statement; or, if
 *	   it has no connection yet, for any of those that the pool has, and in vain if
 *	   all of them wait for it;
 *	 - by rows: a process in COPY FROM STDIN waits for the session that has the
 *	   rows, unless it waits for a lock; then the session will have to wait;
 *	 - by a lease: a process that is in a session's transaction, and runs nothing, keeps
 *	   its locks until that session goes on.
 * A circle that goes through a call, rows, or a lease, is a deadlock that the
 * server does not find.
 *
 * What is seen is not seen at one moment.  But each wait has a number that no
 * later one has: a call its ticket, a lock the time since when it is waited for, a lease
 * the time since when it is idle.
 * A circle that is seen twice with the same numbers has existed as a whole
 * between the two, since all of its waits have lasted from the first look to the
 * second; and a deadlock does not go away by itself.
 */
#include "postgres.h"

#include <signal.h>

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/backend_status.h"

#include "ipc/home.h"

/* Most processes that a search looks at. */
#define MAX_VISITED		1000

/*
 * Write a mark to be sent to the process with that ID, as a comment.  Returns
 * false when there is no such process in this server.
 */
bool
home_make_mark(int pid, char *mark)
{
	uint64		number[2];

	if (BackendPidGetProc(pid) == NULL ||
		!pg_strong_random(number, sizeof(number)))
		return false;
	snprintf(mark, HOME_MARK_BYTES, "/* dbpool %016llx%016llx */ ",
			 (unsigned long long) number[0], (unsigned long long) number[1]);
	return true;
}

/*
 * Does what the process ran last begin with the mark?  Then *role is who it runs
 * as.
 */
bool
home_has_mark(int pid, const char *mark, Oid *role)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc == NULL ||
		strncmp(pgstat_get_backend_current_activity(pid, false), mark, strlen(mark)) != 0)
		return false;
	*role = proc->roleId;
	return OidIsValid(*role);
}

/*
 * Send a signal to a process of this server; false if it is not there any more.
 * When the number has gone to another process meanwhile, that is spared unless
 * it is the same role's, which may end it anyhow: so nobody who lets his
 * processes come and go has another's ended.
 */
bool
home_signal(int pid, Oid role, int signal)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc == NULL || proc->roleId != role)
		return false;
#ifdef HAVE_SETSID
	/* as pg_cancel_backend() does: with what it has started */
	return kill(-pid, signal) == 0;
#else
	return kill(pid, signal) == 0;
#endif
}

/* --- deadlocks --------------------------------------------------------------- */

/* A call that runs in this server. */
typedef struct HomeCall
{
	int			session;
	int			runner;			/* process that runs the statement */
	uint64		ticket;
	bool		gives_rows;		/* the session has rows to send */
} HomeCall;

/* A transaction in this server that does nothing. */
typedef struct HomeLease
{
	LeaseShared *shared;
	int			session;
	int			runner;			/* process that is in the transaction */
	Ticks		idle_since;
	Ticks		began_at;
} HomeLease;

typedef enum WaitKind
{
	WAIT_LOCK,
	WAIT_CALL,
	WAIT_ROWS,
	WAIT_LEASE
} WaitKind;

/* That one process waits for another. */
typedef struct Wait
{
	int			pid;
	int			on;				/* process that is waited for */
	WaitKind	kind;
	uint64		number;			/* ticket, or time since when */
	LOCKTAG		tag;			/* WAIT_LOCK alone */
	LOCKMODE	mode;
	const HomeLease *lease;		/* WAIT_LEASE alone */
} Wait;

typedef struct Search
{
	int			ncalls;
	HomeCall   *calls;
	int			nleases;
	HomeLease  *leases;
	int			target;
	int			nvisited;
	int			visited[MAX_VISITED];
	int			length;			/* of the path */
	Wait		path[MAX_VISITED + 1];
} Search;

/* Read a slot; false when nothing of it runs in this server. */
static bool
read_call(RequestSlot *slot, HomeCall *call)
{
	uint64		word = request_word(slot);

	if (request_word_state(word) != REQUEST_RUNNING)
		return false;
	call->runner = slot->home_pid;
	call->ticket = slot->task.ticket;
	call->gives_rows = slot->task.kind == REQUEST_COPY &&
		pg_atomic_read_u32(&slot->copy_phase) == COPY_COPYING;
	SpinLockAcquire(&slot->mutex);
	call->session = slot->task.pid;
	SpinLockRelease(&slot->mutex);
	pg_read_barrier();
	return call->runner != 0 && request_word(slot) == word;
}

/*
 * The same for a lease, wherever its connection leads; false when it is not one of a
 * transaction that does nothing.
 */
static bool
read_lease(LeaseShared *shared, HomeLease *lease)
{
	uint64		word = lease_word(shared);

	if (lease_word_state(word) != LEASE_OPEN)
		return false;
	lease->shared = shared;
	SpinLockAcquire(&shared->mutex);
	lease->session = shared->pid;
	lease->runner = shared->home_pid;
	lease->idle_since = shared->idle_since;
	lease->began_at = shared->began_at;
	SpinLockRelease(&shared->mutex);
	return lease->idle_since != 0 && lease_word(shared) == word;
}

/* What there is of calls and of leases. */
static void
begin_search(Search *search)
{
	search->calls = palloc(sizeof(HomeCall) * dbpool_shared->nrequests);
	search->ncalls = 0;
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		if (read_call(request_slot(i), &search->calls[search->ncalls]))
			search->ncalls++;
	}
	search->leases = palloc(sizeof(HomeLease) * lease_count());
	search->nleases = 0;
	for (int i = 0; i < lease_count(); i++)
	{
		HomeLease  *lease = &search->leases[search->nleases];

		if (read_lease(lease_entry(i), lease) && lease->runner != 0)
			search->nleases++;
	}
}

static void
end_search(Search *search)
{
	pfree(search->calls);
	pfree(search->leases);
	pfree(search);
}

/* Does the process wait for a lock, as far as can be seen without one? */
static bool
waits_for_lock(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	return proc != NULL && proc->waitLock != NULL;
}

static bool find_from(Search *search, int pid);

/* Does the path go on to the target if that wait is added to it? */
static bool
find_over(Search *search, const Wait *wait)
{
	search->path[search->length++] = *wait;
	if (wait->on == search->target || find_from(search, wait->on))
		return true;
	search->length--;
	return false;
}

/* Does this one of a lock's holders or waiters stand in the way of that one? */
static bool
is_in_the_way(const LockInstanceData * other, const LockInstanceData * blocked,
			  const int *ahead, int nahead)
{
	LOCKMASK	conflicts =
	GetLockTagsMethodTable(&blocked->locktag)->conflictTab[blocked->waitLockMode];

	if (other->leaderPid == blocked->leaderPid || other->pid == 0)
		return false;
	if (other->holdMask & conflicts)
		return true;
	if (other->waitLockMode == NoLock || !(LOCKBIT_ON(other->waitLockMode) & conflicts))
		return false;
	for (int i = 0; i < nahead; i++)
	{
		if (ahead[i] == other->pid)
			return true;
	}
	return false;
}

/* Go on over the lock that one member of a group of processes waits for. */
static bool
find_over_lock(Search *search, int pid, const BlockedProcsData * data,
			   const BlockedProcData * proc)
{
	const		LockInstanceData *locks = &data->locks[proc->first_lock];
	const		LockInstanceData *blocked = NULL;
	PGPROC	   *waiter = BackendPidGetProc(proc->pid);
	uint64		since = waiter != NULL ? pg_atomic_read_u64(&waiter->waitStart) : 0;

	for (int i = 0; i < proc->num_locks; i++)
	{
		if (locks[i].pid == proc->pid)
			blocked = &locks[i];
	}
	for (int i = 0; blocked != NULL && i < proc->num_locks; i++)
	{
		Wait		wait = {pid, locks[i].leaderPid, WAIT_LOCK};

		if (!is_in_the_way(&locks[i], blocked, &data->waiter_pids[proc->first_waiter],
						   proc->num_waiters))
			continue;
		wait.number = since;
		wait.tag = blocked->locktag;
		wait.mode = blocked->waitLockMode;
		if (find_over(search, &wait))
			return true;
	}
	return false;
}

/* The wait that a call is. */
static Wait
wait_of_call(const HomeCall *call)
{
	Wait		wait = {call->session, call->runner, WAIT_CALL};

	if (call->gives_rows && !waits_for_lock(call->runner))
	{
		wait.pid = call->runner;
		wait.on = call->session;
		wait.kind = WAIT_ROWS;
	}
	wait.number = call->ticket;
	return wait;
}

/* The wait that a lease is. */
static Wait
wait_of_lease(const HomeLease *lease)
{
	Wait		wait = {lease->runner, lease->session, WAIT_LEASE, lease->idle_since};

	wait.lease = lease;
	return wait;
}

/* Is there a way from that process to the target?  Then it is in the path. */
static bool
find_from(Search *search, int pid)
{
	BlockedProcsData *data;

	for (int i = 0; i < search->nvisited; i++)
	{
		if (search->visited[i] == pid)
			return false;
	}
	if (search->nvisited == MAX_VISITED)
		return false;
	search->visited[search->nvisited++] = pid;

	data = GetBlockerStatusData(pid);
	for (int i = 0; i < data->nprocs; i++)
	{
		if (find_over_lock(search, pid, data, &data->procs[i]))
			return true;
	}
	pfree(data->procs);
	pfree(data->locks);
	pfree(data->waiter_pids);
	pfree(data);
	for (int i = 0; i < search->ncalls; i++)
	{
		Wait		wait = wait_of_call(&search->calls[i]);

		if (wait.pid == pid && find_over(search, &wait))
			return true;
	}
	for (int i = 0; i < search->nleases; i++)
	{
		Wait		wait = wait_of_lease(&search->leases[i]);

		if (wait.pid == pid && find_over(search, &wait))
			return true;
	}
	return false;
}

static void
describe_wait(StringInfo buf, const Wait *wait)
{
	if (buf->len > 0)
		appendStringInfoChar(buf, '\n');
	switch (wait->kind)
	{
		case WAIT_LOCK:
			appendStringInfo(buf, "Process %d waits for %s on ", wait->pid,
							 GetLockmodeName(wait->tag.locktag_lockmethodid, wait->mode));
			DescribeLockTag(buf, &wait->tag);
			appendStringInfo(buf, "; blocked by process %d.", wait->on);
			break;
		case WAIT_CALL:
			appendStringInfo(buf, "Process %d waits for process %d, which runs its statement.",
							 wait->pid, wait->on);
			break;
		case WAIT_ROWS:
			appendStringInfo(buf, "Process %d waits for the rows of process %d.",
							 wait->pid, wait->on);
			break;
		case WAIT_LEASE:
			if (wait->pid != 0)
				appendStringInfo(buf, "Process %d is in a transaction of process %d, and waits for its next statement.",
								 wait->pid, wait->on);
			else
				appendStringInfo(buf, "A transaction of process %d waits for its next statement.", wait->on);
			break;
	}
}

/* Of the transactions in a deadlock the one that began last is rolled back. */
static void
choose_lease(HomeDeadlock *deadlock, const HomeLease *lease)
{
	if (deadlock->lease != NULL &&
		(deadlock->began_at > lease->began_at ||
		 (deadlock->began_at == lease->began_at && deadlock->lease > lease->shared)))
		return;
	deadlock->lease = lease->shared;
	deadlock->began_at = lease->began_at;
}

/* Add what is in the path to a deadlock. */
static void
take_path(const Search *search, HomeDeadlock *deadlock)
{
	StringInfoData detail;

	initStringInfo(&detail);
	appendStringInfoString(&detail, deadlock->detail ? deadlock->detail : "");
	for (int i = 0; i < search->length; i++)
	{
		const Wait *wait = &search->path[i];

		if (wait->kind == WAIT_LEASE)
			choose_lease(deadlock, wait->lease);
		else if (wait->kind != WAIT_LOCK)
			deadlock->ticket = Max(deadlock->ticket, wait->number);
		/* the sum does not depend on where the search has begun */
		deadlock->signature += hash_combine64(hash_bytes_uint32_extended(wait->pid, wait->kind),
											  hash_combine64(wait->number, wait->on));
		describe_wait(&detail, wait);
	}
	deadlock->detail = detail.data;
}

static HomeDeadlock *
find_deadlock(const Wait *first)
{
	HomeDeadlock *deadlock;
	Search	   *search = palloc0(sizeof(Search));

	begin_search(search);
	search->target = first->pid;
	if (!find_over(search, first))
		return NULL;
	deadlock = palloc0(sizeof(HomeDeadlock));
	take_path(search, deadlock);
	return deadlock;
}

/*
 * Look for a deadlock of which the call in that slot is a part; NULL when there
 * is none.  It is one only if the next look finds the same signature.  Of the
 * calls in it the last one that came is to be given up.  Takes locks of the lock
 * table for a moment, holds none when it returns.
 */
HomeDeadlock *
home_find_deadlock(RequestSlot *slot)
{
	HomeCall	call;
	Wait		first;

	if (!read_call(slot, &call))
		return NULL;
	first = wait_of_call(&call);
	return find_deadlock(&first);
}

/*
 * The same for a lease.  When no call is in the circle, of its transactions the last one
 * that began is to be rolled back.  A session that waits for a call is not looked at,
 * as that is found from the call.
 */
HomeDeadlock *
home_find_lease_deadlock(LeaseShared *lease)
{
	HomeLease	mine;
	Wait		first;
	PGPROC	   *owner;

	if (!read_lease(lease, &mine) || mine.runner == 0)
		return NULL;
	owner = BackendPidGetProc(mine.session);
	/* one of several processes that run its query may be who waits */
	if (owner == NULL || (owner->waitLock == NULL && owner->lockGroupLeader == NULL))
		return NULL;
	first = wait_of_lease(&mine);
	return find_deadlock(&first);
}

/*
 * The same for a statement that this session has a process run over a connection
 * of its own.  Nobody else sees that wait, so this one is to be given up.
 */
HomeDeadlock *
home_find_own_deadlock(int runner)
{
	HomeCall	call = {MyProcPid, runner};
	Wait		first = wait_of_call(&call);

	return find_deadlock(&first);
}

/*
 * Does a process wait for a session, over whatever is between them?  Then that is
 * added to the deadlock.
 */
bool
home_waits_for(int pid, int session, HomeDeadlock *deadlock)
{
	Search	   *search = palloc0(sizeof(Search));
	bool		found;

	begin_search(search);
	search->target = session;
	found = find_from(search, pid);
	if (found)
		take_path(search, deadlock);
	end_search(search);
	return found;
}

/* The same for a transaction that does nothing, wherever its connection leads. */
bool
home_lease_waits_for(LeaseShared *lease, int session, HomeDeadlock *deadlock)
{
	Search	   *search;
	HomeLease	its;
	Wait		first;
	bool		found;

	if (!read_lease(lease, &its))
		return false;
	first = wait_of_lease(&its);
	search = palloc0(sizeof(Search));
	begin_search(search);
	search->target = session;
	found = find_over(search, &first);
	if (found)
		take_path(search, deadlock);
	end_search(search);
	return found;
}
