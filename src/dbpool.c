/*
 * dbpool.c
 *	  Settings, and what all of dbpool's background processes have in common.
 */
#include "postgres.h"

#include <limits.h>

#include "dbpool.h"
#include "utils/guc.h"

bool		dbpool_inherit_read_only = false;
int			dbpool_workers = 1;
int			dbpool_max_connections = 256;
int			dbpool_max_min_size = 10;
int			dbpool_max_pools = 128;
int			dbpool_max_requests = 0;
int			dbpool_role_max_connections = 0;
int			dbpool_role_max_pools = 0;
int			dbpool_role_max_request_memory = 131072;
int			dbpool_role_max_requests = 0;
int			dbpool_session_max_requests = 16;
int			dbpool_split_threshold = 80;
int			dbpool_stall_timeout = 100;
int			dbpool_transaction = TRANSACTION_SERVER;
bool		dbpool_preloaded = false;

static const struct config_enum_entry transaction_modes[] = {
	{"server", TRANSACTION_SERVER, false},
	{"autonomous", TRANSACTION_AUTONOMOUS, false},
	{"bound", TRANSACTION_BOUND, false},
	{"two_phase", TRANSACTION_TWO_PHASE, false},
	{NULL, 0, false}
};

void
dbpool_define_settings(void)
{
	DefineCustomBoolVariable("dbpool.inherit_read_only",
							 "Makes remote transactions read-only while the local one is.",
							 NULL, &dbpool_inherit_read_only,
							 false, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.max_connections",
							"Sets how many remote connections all pools together may have.",
							NULL, &dbpool_max_connections,
							256, 1, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.max_min_size",
							"Sets the highest min_size that counts for servers of those who are no superusers.",
							"Such a server cannot be given a higher one.",
							&dbpool_max_min_size,
							10, 0, 10000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.max_pools",
							"Sets how many pools can be in use at a time.",
							NULL, &dbpool_max_pools,
							128, 1, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.max_requests",
							"Sets how many statements can be under way at a time.",
							"Zero means as many as max_connections.",
							&dbpool_max_requests,
							0, 0, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.role_max_connections",
							"Sets how many remote connections the pools of one owner may have together.",
							"Zero means nine tenths of dbpool.max_connections. Superusers are not limited.",
							&dbpool_role_max_connections,
							0, 0, 100000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.role_max_pools",
							"Sets how many pools of one owner can be in use at a time.",
							"Zero means nine tenths of dbpool.max_pools. Superusers are not limited.",
							&dbpool_role_max_pools,
							0, 0, 100000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.role_max_request_memory",
							"Sets how much of the large statements of one role a worker takes in at a time.",
							"The others wait in their sessions. One by itself may be larger.",
							&dbpool_role_max_request_memory,
							131072, 64, MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.role_max_requests",
							"Sets how many statements of one role can be under way at a time.",
							"Zero means nine tenths of dbpool.max_requests. Superusers are not limited.",
							&dbpool_role_max_requests,
							0, 0, 100000, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.session_max_requests",
							"Sets how many statements of one session can be under way at a time.",
							"Calls that run further calls have several. Superusers are not limited.",
							&dbpool_session_max_requests,
							16, 1, 100000, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.split_threshold",
							"Sets how busy a worker may be before its busiest pool gets more workers.",
							"In percent of one processor. Has no effect with one worker.",
							&dbpool_split_threshold,
							80, 0, 100, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.stall_timeout",
							"Sets how long a statement may hold up others on its connection before it is given one of its own.",
							"It is cancelled and run again. Zero means for as long as it takes.",
							&dbpool_stall_timeout,
							100, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("dbpool.transaction",
							 "Sets which calls are one transaction on the remote server.",
							 "By \"server\" the server's option transaction does.",
							 &dbpool_transaction, TRANSACTION_SERVER, transaction_modes,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.workers",
							"Sets the number of background workers that share out the pools.",
							NULL, &dbpool_workers,
							1, 1, DBPOOL_MAX_WORKERS, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("dbpool");
}

void
dbpool_fill_bgworker(BackgroundWorker *bgw, const char *function,
					 const char *type, int worker)
{
	memset(bgw, 0, sizeof(BackgroundWorker));
	bgw->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	bgw->bgw_start_time = BgWorkerStart_ConsistentState;
	bgw->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(bgw->bgw_library_name, "dbpool", sizeof(bgw->bgw_library_name));
	strlcpy(bgw->bgw_function_name, function, sizeof(bgw->bgw_function_name));
	strlcpy(bgw->bgw_type, type, sizeof(bgw->bgw_type));
	bgw->bgw_main_arg = Int32GetDatum(worker);
}
