/*
 * resolve_alert.c
 *	  What the log is told of prepared transactions that stay in doubt.
 */
#include "postgres.h"

#include "backend/resolve.h"
#include "backend/tables.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "ipc/alert.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* So many seconds after it was decided, a transaction that is not ended is worth a warning. */
#define ALERT_S			60

/* Warnings at a time; further ones are counted. */
#define ALERTS_MOST		100

static void
warn_of(HeapTuple row, TupleDesc desc, const char *why)
{
	const char *gid = SPI_getvalue(row, desc, 1);
	bool		isnull;
	int			attempts = DatumGetInt32(SPI_getbinval(row, desc, 4, &isnull));

	ereport(WARNING,
			(errcode(ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN),
			 errmsg("prepared transaction \"%s\" of pool \"%s\" has been in doubt for %s s",
					gid, SPI_getvalue(row, desc, 2), SPI_getvalue(row, desc, 3)),
			 errdetail_plural("It is to be committed, and keeps its locks at the remote server until it is. %d attempt has failed: %s",
							  "It is to be committed, and keeps its locks at the remote server until it is. %d attempts have failed, the last one so: %s",
							  attempts, attempts, why),
			 errhint("dbpool goes on trying, see dbpool_in_doubt. Let the pool reach the remote server, or end the transaction there by COMMIT PREPARED '%s'.", gid)));
}

/* Those who listen are told once of each place. */
static void
alert_begins(Place *place, HeapTuple row, TupleDesc desc)
{
	if (NameStr(place->alerted)[0] != '\0')
		return;
	namestrcpy(&place->alerted, SPI_getvalue(row, desc, 2));
	alert_tell(MyDatabaseId, "in_doubt", "critical", ALERT_BEGINS, NameStr(place->alerted), NULL,
			   strtod(SPI_getvalue(row, desc, 3), NULL), ALERT_S);
}

/* Nothing is left at the place. */
void
rows_alert_ends(Place *place)
{
	if (NameStr(place->alerted)[0] == '\0')
		return;
	alert_tell(MyDatabaseId, "in_doubt", "critical", ALERT_ENDS, NameStr(place->alerted), NULL, 0, ALERT_S);
	namestrcpy(&place->alerted, "");
}

/*
 * An attempt has failed, to end one gid or, if that is NULL, all that the place has: warn
 * of those that have been in doubt for long.  That is due once of each, when the first attempt
 * fails after ALERT_S: an attempt before is known by last_attempt, which is to be written
 * after this.  In a transaction.
 */
void
rows_alert(Place *place, const char *gid, const char *why)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_prepared");
	Oid			types[] = {OIDOID, OIDOID, TEXTOID};
	Datum		values[] = {
		ObjectIdGetDatum(place->serverid), ObjectIdGetDatum(place->userid),
		CStringGetTextDatum(gid ? gid : place->prefix)
	};

	/* until tables_end(): the resolver's other warnings are remotes' */
	(void) set_config_option("log_min_messages", "warning", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	tables_run(psprintf("SELECT d.gid, coalesce(s.srvname, d.pool), d.age::pg_catalog.int8, d.attempts OPERATOR(pg_catalog.+) 1 FROM ("
						"SELECT p.*, EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.prepared_at) AS age, "
						"EXTRACT(epoch FROM p.last_attempt OPERATOR(pg_catalog.-) p.prepared_at) AS last_age "
						"FROM %s.dbpool_prepared p "
						"WHERE p.serverid OPERATOR(pg_catalog.=) $1 AND p.userid OPERATOR(pg_catalog.=) $2 "
						"AND pg_catalog.left(p.gid, pg_catalog.length($3)) OPERATOR(pg_catalog.=) $3) d "
						"LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid OPERATOR(pg_catalog.=) d.serverid "
						"WHERE d.age OPERATOR(pg_catalog.>=) %d AND coalesce(d.last_age OPERATOR(pg_catalog.<) %d, true) "
						"ORDER BY d.age DESC LIMIT %d", schema, ALERT_S, ALERT_S, ROWS_MOST),
			   lengthof(types), types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed > 0)
		alert_begins(place, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	for (uint64 i = 0; i < Min(SPI_processed, ALERTS_MOST); i++)
		warn_of(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, why);
	if (SPI_processed > ALERTS_MOST)
		ereport(WARNING,
				(errcode(ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN),
				 errmsg("%d more prepared transactions of the same pool have been in doubt for as long",
						(int) SPI_processed - ALERTS_MOST),
				 errhint("See dbpool_in_doubt.")));
	tables_end(&tables);
}

/*
 * Prepared transactions, a list of strings, that were to be committed are not at their remote
 * any more, which has failed over since: warn of them.
 */
void
alert_of_lost(const char *pool, List *gids)
{
	int			level = NewGUCNestLevel();
	int			shown = Min(list_length(gids), ALERTS_MOST);

	(void) set_config_option("log_min_messages", "warning", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < shown; i++)
		ereport(WARNING,
				(errcode(ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN),
				 errmsg("prepared transaction \"%s\" of pool \"%s\" is not at the remote server any more, which has failed over since",
						(char *) list_nth(gids, i), pool),
				 errdetail("It was to be committed, as it was here. Either it was before the failover, or the new primary has lost it."),
				 errhint("Look at the remote server for what it has written. A synchronous standby would not have lost it.")));
	if (shown < list_length(gids))
		ereport(WARNING,
				(errcode(ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN),
				 errmsg("%d more prepared transactions of the same pool are not there either", list_length(gids) - shown)));
	AtEOXact_GUC(true, level);
}
