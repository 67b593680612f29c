/*
 * load.c
 *	  The library's entry: starts each room.
 *
 * Without shared_preload_libraries there is no shared memory and no worker;
 * then nothing is set up here but the functions, and each of those says what
 * to do (client_require_preload()).
 */
#include "postgres.h"

#include "dbpool.h"
#include "fmgr.h"
#include "ipc/shmem.h"
#include "miscadmin.h"

PG_MODULE_MAGIC;

/* Each room starts itself. */
extern void worker_register(void);
extern void backend_register(void);
extern void transactions_register(void);
extern void migrate_register(void);

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	dbpool_define_settings();
	shmem_register();
	worker_register();
	backend_register();
	transactions_register();
	migrate_register();
	dbpool_preloaded = true;
}
