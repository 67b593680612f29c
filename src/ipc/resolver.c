/*
 * resolver.c
 *	  Which databases have prepared transactions that somebody has to look after.
 */
#include "postgres.h"

#include "ipc/resolver.h"
#include "ipc/shmem.h"

/* The database's entry, made if need be; NULL when there is no room for it. */
ResolverShared *
resolver_of(Oid dbid)
{
	for (int i = 0; i < RESOLVER_DATABASES; i++)
	{
		ResolverShared *entry = &dbpool_shared->resolvers[i];
		uint32		none = 0;

		if (pg_atomic_read_u32(&entry->dbid) == dbid ||
			pg_atomic_compare_exchange_u32(&entry->dbid, &none, dbid) ||
			none == dbid)
			return entry;
	}
	return NULL;
}

/* The database needs its resolver, now or soon.  Neither waits nor throws. */
void
resolver_want(Oid dbid)
{
	ResolverShared *entry = resolver_of(dbid);

	if (entry == NULL)
		return;
	pg_atomic_exchange_u32(&entry->wanted, 1);
	pg_atomic_exchange_u32(&dbpool_shared->resolvers_attention, 1);
	shmem_wake_worker(0);
}
