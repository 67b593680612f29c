/*
 * errand.c
 *	  What has to be done in which database, see errand.h.
 */
#include "postgres.h"

#include "ipc/errand.h"
#include "ipc/shmem.h"
#include "miscadmin.h"
#include "storage/ipc.h"

/* The database's entry, or NULL. */
ErrandShared *
errand_of(ErrandKind kind, Oid dbid)
{
	for (int i = 0; i < ERRAND_DATABASES; i++)
	{
		if (pg_atomic_read_u32(&dbpool_shared->errands[kind][i].dbid) == dbid)
			return &dbpool_shared->errands[kind][i];
	}
	return NULL;
}

/* The same, made of one that is not used if need be; the mutex is held. */
static ErrandShared *
errand_make_entry(ErrandKind kind, Oid dbid)
{
	ErrandShared *entry = errand_of(kind, dbid);

	for (int i = 0; i < ERRAND_DATABASES && entry == NULL; i++)
	{
		ErrandShared *other = &dbpool_shared->errands[kind][i];

		if (pg_atomic_read_u32(&other->wanted) != 0 || pg_atomic_read_u32(&other->pid) != 0)
			continue;
		pg_atomic_write_u32(&other->failures, 0);
		pg_atomic_write_u32(&other->lost, 0);
		pg_atomic_write_u32(&other->dbid, dbid);
		entry = other;
	}
	return entry;
}

/*
 * The database needs a process for that, now or soon.  Neither waits nor throws.  If it has
 * been wanted, and nobody has come since, the first worker has been woken.  Returns false if
 * too many databases need theirs.
 */
bool
errand_want(ErrandKind kind, Oid dbid)
{
	ErrandShared *entry;
	bool		wanted = false;

	SpinLockAcquire(&dbpool_shared->errands_mutex);
	entry = errand_make_entry(kind, dbid);
	if (entry != NULL)
		wanted = pg_atomic_exchange_u32(&entry->wanted, 1) != 0;
	SpinLockRelease(&dbpool_shared->errands_mutex);
	if (entry == NULL)
		return false;
	if (wanted)
		return true;
	pg_atomic_exchange_u32(&dbpool_shared->errands_attention, 1);
	shmem_wake_worker(0);
	return true;
}

/* The database was dropped. */
void
errand_forget(Oid dbid)
{
	for (int kind = 0; kind < ERRAND_KINDS; kind++)
	{
		ErrandShared *entry = errand_of(kind, dbid);

		if (entry != NULL)
			pg_atomic_write_u32(&entry->wanted, 0);
	}
}

/* The process goes; arg is its entry, which nobody else gets as long as its pid is there. */
static void
errand_end(int code, Datum arg)
{
	ErrandShared *entry = (ErrandShared *) DatumGetPointer(arg);

	SpinLockAcquire(&dbpool_shared->errands_mutex);
	/* one that has failed has not looked at all */
	if (code != 0)
		pg_atomic_write_u32(&entry->wanted, 1);
	else
		pg_atomic_write_u32(&entry->failures, 0);
	pg_atomic_write_u32(&entry->pid, 0);
	SpinLockRelease(&dbpool_shared->errands_mutex);
	/* it may be wanted again, and others may have waited for it to end */
	pg_atomic_exchange_u32(&dbpool_shared->errands_attention, 1);
	shmem_wake_worker(0);
}

/*
 * This process, which is in its database, takes the errand: until it ends, nobody else
 * does.  Returns NULL if nobody needs it any more, or somebody else has it.
 */
ErrandShared *
errand_begin(ErrandKind kind)
{
	ErrandShared *entry;

	SpinLockAcquire(&dbpool_shared->errands_mutex);
	entry = errand_of(kind, MyDatabaseId);
	if (entry != NULL && pg_atomic_read_u32(&entry->pid) != 0)
		entry = NULL;
	if (entry != NULL)
		pg_atomic_write_u32(&entry->pid, (uint32) MyProcPid);
	SpinLockRelease(&dbpool_shared->errands_mutex);
	if (entry != NULL)
		before_shmem_exit(errand_end, PointerGetDatum(entry));
	return entry;
}
