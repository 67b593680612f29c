/*
 * dbpool.c
 *	  Settings, and what all of dbpool's background processes have in common.
 */
#include "postgres.h"

#include <limits.h>

#include "dbpool.h"
#include "utils/guc.h"

int			dbpool_alert_errors = 5;
int			dbpool_alert_utilisation = 90;
int			dbpool_alert_wait = 5000;
int			dbpool_history_interval = 60000;
bool		dbpool_inherit_read_only = false;
uint64		dbpool_min_lsn = 0;
int			dbpool_log_parameter_max_length = 0;
int			dbpool_workers = 1;
int			dbpool_max_connections = 256;
int			dbpool_max_connections_per_endpoint = 0;
int			dbpool_max_min_size = 10;
int			dbpool_max_pools = 128;
int			dbpool_max_requests = 0;
int			dbpool_max_statements = 1000;
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

char	   *dbpool_traceparent = "";

static char *min_lsn_text = "";

/* Read a position as pg_lsn has it; false when it is none. */
bool
dbpool_parse_lsn(const char *text, uint64 *lsn)
{
	static const char *const digits = "0123456789abcdefABCDEF";
	size_t		high = strspn(text, digits);
	size_t		low = text[high] == '/' ? strspn(text + high + 1, digits) : 0;

	if (high < 1 || high > 8 || low < 1 || low > 8 || text[high + 1 + low] != '\0')
		return false;
	*lsn = (uint64) strtoul(text, NULL, 16) << 32 | strtoul(text + high + 1, NULL, 16);
	return true;
}

static bool
check_min_lsn(char **value, void **extra, GucSource source)
{
	uint64		lsn;

	if ((*value)[0] == '\0' || dbpool_parse_lsn(*value, &lsn))
		return true;
	GUC_check_errdetail("A position in the WAL is expected, as pg_lsn has it and dbpool_last_lsn() returns it, or nothing.");
	return false;
}

static void
assign_min_lsn(const char *value, void *extra)
{
	if (value == NULL || !dbpool_parse_lsn(value, &dbpool_min_lsn))
		dbpool_min_lsn = 0;
}

/* So many digits of hexadecimal numbers, in small letters, not all of them 0 unless that may be. */
static bool
is_hex(const char *text, size_t n, bool zero)
{
	return strspn(text, "0123456789abcdef") >= n && (zero || strspn(text, "0") < n);
}

/*
 * Is it the traceparent of a W3C Trace Context: version, trace, parent, flags?  Versions to
 * come may have more behind that, which would be of no use here.
 */
bool
dbpool_is_traceparent(const char *text)
{
	return strnlen(text, TRACEPARENT_BYTES) == TRACEPARENT_BYTES - 1 &&
		text[2] == '-' && text[35] == '-' && text[52] == '-' &&
		is_hex(text, 2, true) && strncmp(text, "ff", 2) != 0 &&
		is_hex(text + 3, 32, false) && is_hex(text + 36, 16, false) && is_hex(text + 53, 2, true);
}

static bool
check_traceparent(char **value, void **extra, GucSource source)
{
	if ((*value)[0] == '\0' || dbpool_is_traceparent(*value))
		return true;
	GUC_check_errdetail("The traceparent of a W3C Trace Context is expected, as \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\", or nothing.");
	return false;
}

static void
define_alert_settings(void)
{
	DefineCustomIntVariable("dbpool.alert_errors",
							"Sets how many of a pool's calls may fail within a minute before dbpool_alerts shows it.",
							"In percent. Zero means that it never does.",
							&dbpool_alert_errors,
							5, 0, 100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.alert_utilisation",
							"Sets how much of a pool's connections, and of what all pools share, may be in use before dbpool_alerts shows it.",
							"In percent. Zero means that it never does.",
							&dbpool_alert_utilisation,
							90, 0, 100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.alert_wait",
							"Sets how long a call may wait for a connection before dbpool_alerts shows it.",
							"Zero means that it never does.",
							&dbpool_alert_wait,
							5000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* How much one role may have of what there is, and one session. */
static void
define_role_settings(void)
{
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
}

/* What holds for calls. */
static void
define_call_settings(void)
{
	DefineCustomBoolVariable("dbpool.inherit_read_only",
							 "Makes remote transactions read-only while the local one is.",
							 NULL, &dbpool_inherit_read_only,
							 false, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.log_parameter_max_length",
							"Sets how much of each parameter the lines about slow statements show.",
							"Zero means that they show none, -1 all of them in full.",
							&dbpool_log_parameter_max_length,
							0, -1, INT_MAX / 2, PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomStringVariable("dbpool.min_lsn",
							   "Sets how far servers are to have replayed that calls on read-only pools are run on.",
							   "A pg_lsn. Nothing means that any will do.",
							   &min_lsn_text,
							   "", PGC_USERSET, 0, check_min_lsn, assign_min_lsn, NULL);
	DefineCustomStringVariable("dbpool.traceparent",
							   "Sets the trace to which calls belong.",
							   "The traceparent of a W3C Trace Context, which remotes find in a setting of that name. Nothing means that of sqlcommenter's comment in the statement, if there is one.",
							   &dbpool_traceparent,
							   "", PGC_USERSET, 0, check_traceparent, NULL, NULL);
	DefineCustomEnumVariable("dbpool.transaction",
							 "Sets which calls are one transaction on the remote server.",
							 "By \"server\" the server's option transaction does.",
							 &dbpool_transaction, TRANSACTION_SERVER, transaction_modes,
							 PGC_USERSET, 0, NULL, NULL, NULL);
}

void
dbpool_define_settings(void)
{
	define_alert_settings();
	define_call_settings();
	DefineCustomIntVariable("dbpool.history_interval",
							"Sets how long a row of dbpool_stat_history is, of which sixty are kept for each pool.",
							NULL, &dbpool_history_interval,
							60000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.max_connections",
							"Sets how many remote connections all pools together may have.",
							NULL, &dbpool_max_connections,
							256, 1, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dbpool.max_connections_per_endpoint",
							"Sets how many connections all pools together may have to one host and port.",
							"Zero means no limit but the others.",
							&dbpool_max_connections_per_endpoint,
							0, 0, 100000, PGC_SIGHUP, 0, NULL, NULL, NULL);
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
	DefineCustomIntVariable("dbpool.max_statements",
							"Sets for how many statements there are statistics at a time.",
							"Zero means none.",
							&dbpool_max_statements,
							1000, 0, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	define_role_settings();
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
