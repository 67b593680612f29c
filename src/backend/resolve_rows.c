/*
 * resolve_rows.c
 *	  The tables of transactions in two phases: dbpool_two_phase, dbpool_prepared.
 *
 * A row of dbpool_two_phase is good for the database in which it was made, and for no copy:
 * CREATE DATABASE ... TEMPLATE, logical replication and pg_upgrade bring rows to where they
 * mean other servers, or to where nobody knows what the original has decided since.  So
 * each has its origin: the server's system identifier and the database's OID.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "backend/extension.h"
#include "backend/resolve.h"
#include "backend/tables.h"
#include "backend/text.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "compat.h"

PGDLLEXPORT void dbpool_two_phase_main(Datum arg);

/* Bytes of an error that a row keeps. */
#define LAST_ERROR		1000

char *
two_phase_origin(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

/* --- the processes ----------------------------------------------------------------------- */

/*
 * What the database, or the server's configuration, has for others' transactions is not
 * for the resolver's.  That a row is deleted may be lost: it is deleted again.
 */
void
two_phase_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"synchronous_commit", "off"},
		{"dbpool.inherit_read_only", "off"},
		/* a remote may send warnings for ever */
		{"log_min_messages", "error"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_SESSION);
	compat_no_transaction_timeout();
}

/*
 * The present transaction decides about others: its commit must not be lost, be it by a
 * crash, or by a failover to a standby that is a synchronous one.
 */
void
two_phase_force_commit(void)
{
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_WRITE)
		(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	ForceSyncCommit();
}

/* --- gids --------------------------------------------------------------------------------- */

/* Is it one of that prefix, to the letter?  A remote may send anything. */
bool
gid_is_of(const char *gid, const char *prefix)
{
	Size		len = strlen(prefix);

	return strlen(gid) == len + 17 && strncmp(gid, prefix, len) == 0 && gid[len] == '_' &&
		strspn(gid + len + 1, "0123456789abcdef") == 16;
}

/* A set of them, or of other names: of entries of that size, which begin with the name. */
HTAB *
gid_set(const char *name, Size entry_size, Size key_size, MemoryContext context)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = key_size;
	ctl.entrysize = entry_size;
	ctl.hcxt = context;
	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* Is a session still about it, or the worker that the session has left it to? */
bool
gid_is_under_way(const char *gid)
{
	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);
		bool		same;

		if (lease_word_state(lease_word(lease)) == LEASE_FREE)
			continue;
		SpinLockAcquire(&lease->mutex);
		same = strcmp(lease->gid, gid) == 0;
		SpinLockRelease(&lease->mutex);
		if (same)
			return true;
	}
	return false;
}

/* --- dbpool_two_phase ------------------------------------------------------------------ */

/* Where a gid belongs, by how it begins.  False when it is none of ours. */
bool
two_phase_place(const char *gid, Place *place)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_two_phase");
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(gid), CStringGetTextDatum(two_phase_origin())};
	bool		found;
	bool		isnull;

	tables_run(psprintf("SELECT t.serverid, t.userid, t.prefix FROM %s.dbpool_two_phase t "
						"WHERE pg_catalog.left($1, pg_catalog.length(t.prefix)) OPERATOR(pg_catalog.=) t.prefix "
						"AND t.origin OPERATOR(pg_catalog.=) $2", schema),
			   lengthof(types), types, values, NULL, SPI_OK_SELECT);
	found = SPI_processed == 1;
	if (found)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		place->serverid = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
		place->userid = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
		strlcpy(place->prefix, SPI_getvalue(row, desc, 3), sizeof(place->prefix));
	}
	tables_end(&tables);
	return found && gid_is_of(gid, place->prefix);
}

/* The place of a list that a row is about; made and added if there is none. */
static Place *
place_of_row(List **places, Oid serverid, Oid userid, const char *prefix)
{
	ListCell   *lc;
	Place	   *place;
	MemoryContext old;

	foreach(lc, *places)
	{
		place = lfirst(lc);
		if (place->serverid == serverid && place->userid == userid && strcmp(place->prefix, prefix) == 0)
			return place;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	place = palloc0(sizeof(Place));
	place->serverid = serverid;
	place->userid = userid;
	strlcpy(place->prefix, prefix, sizeof(place->prefix));
	*places = lappend(*places, place);
	MemoryContextSwitchTo(old);
	return place;
}

/*
 * Bring a list of the places of this database up to date, which lives as long as the
 * process does: new ones are added; "listed" is set for those that are there.
 */
List *
two_phase_places(List *places)
{
	ListCell   *lc;
	Oid			schema = extension_schema();
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(two_phase_origin())};
	Tables		tables;
	const char *name;

	foreach(lc, places)
		((Place *) lfirst(lc))->listed = false;
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("dbpool_two_phase", schema)))
		return places;
	name = tables_begin(&tables, "dbpool_two_phase");
	tables_run(psprintf("SELECT t.serverid, t.userid, t.prefix FROM %s.dbpool_two_phase t "
						"WHERE t.origin OPERATOR(pg_catalog.=) $1", name),
			   lengthof(types), types, values, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		place_of_row(&places, DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull)),
					 DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull)),
					 SPI_getvalue(row, desc, 3))->listed = true;
	}
	tables_end(&tables);
	return places;
}

/* The first time for a pool: see two_phase.c.  A row that came from elsewhere goes. */
void
dbpool_two_phase_main(Datum arg)
{
	PoolKey		key;

	(void) arg;
	memcpy(&key, MyBgworkerEntry->bgw_extra, sizeof(key));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(key.dbid, InvalidOid, 0);
	two_phase_settings();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (definition_is_for_others(&key))
	{
		Tables		tables;
		const char *schema = tables_begin(&tables, "dbpool_two_phase");
		Oid			types[] = {OIDOID, OIDOID, TEXTOID, TEXTOID};
		uint64		number;
		Datum		values[4];

		if (!pg_strong_random(&number, sizeof(number)))
			elog(ERROR, "could not get a random number");
		values[0] = ObjectIdGetDatum(key.serverid);
		values[1] = ObjectIdGetDatum(key.userid);
		values[2] = CStringGetTextDatum(psprintf("dbpool_%016llx", (unsigned long long) number));
		values[3] = CStringGetTextDatum(two_phase_origin());
		tables_run(psprintf("INSERT INTO %s.dbpool_two_phase AS t (serverid, userid, prefix, origin) "
							"VALUES ($1, $2, $3, $4) ON CONFLICT (serverid, userid) "
							"DO UPDATE SET (prefix, origin) = ROW (excluded.prefix, excluded.origin) "
							"WHERE t.origin OPERATOR(pg_catalog.<>) excluded.origin", schema),
				   lengthof(types), types, values, NULL, SPI_OK_INSERT);
		tables_end(&tables);
	}
	PopActiveSnapshot();
	two_phase_force_commit();
	CommitTransactionCommand();
}

/* --- dbpool_prepared ------------------------------------------------------------------- */

/* Set "row" and "system" of the gids that the query at hand has found. */
static void
note_found(HTAB *gids)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		found;
		char	   *gid = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		char	   *system = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);
		Gid		   *entry = hash_search(gids, gid, HASH_ENTER, &found);

		if (!found)
			memset((char *) entry + LEASE_GID, 0, sizeof(Gid) - LEASE_GID);
		entry->row = true;
		strlcpy(entry->system, system, sizeof(entry->system));
		pfree(gid);
		pfree(system);
	}
}

static Datum
text_array(List *gids)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(list_length(gids), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, gids)
		elements[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * T: which of the gids that are there have a row?  And which others have the place's rows,
 * of which no more than ROWS_MOST are looked at; returns how many those are.
 */
int
rows_note(const Place *place, HTAB *gids)
{
	Tables		tables;
	const char *schema;
	Oid			types[] = {TEXTARRAYOID};
	Oid			place_types[] = {OIDOID, OIDOID, TEXTOID};
	Datum		values[3];
	List	   *known = NIL;
	HASH_SEQ_STATUS seq;
	Gid		   *entry;
	int			n;

	hash_seq_init(&seq, gids);
	while ((entry = hash_seq_search(&seq)) != NULL)
		known = lappend(known, entry->gid);
	PushActiveSnapshot(GetLatestSnapshot());
	schema = tables_begin(&tables, "dbpool_prepared");
	if (known != NIL)
	{
		values[0] = text_array(known);
		tables_run(psprintf("SELECT p.gid, p.system FROM %s.dbpool_prepared p "
							"WHERE p.gid OPERATOR(pg_catalog.=) ANY ($1)", schema),
				   1, types, values, NULL, SPI_OK_SELECT);
		note_found(gids);
	}
	values[0] = ObjectIdGetDatum(place->serverid);
	values[1] = ObjectIdGetDatum(place->userid);
	values[2] = CStringGetTextDatum(place->prefix);
	tables_run(psprintf("SELECT p.gid, p.system FROM %s.dbpool_prepared p "
						"WHERE p.serverid OPERATOR(pg_catalog.=) $1 AND p.userid OPERATOR(pg_catalog.=) $2 "
						"AND pg_catalog.left(p.gid, pg_catalog.length($3)) OPERATOR(pg_catalog.=) $3 "
						"AND pg_catalog.length(p.gid) OPERATOR(pg_catalog.<) %d LIMIT %d", schema, LEASE_GID, ROWS_MOST),
			   lengthof(place_types), place_types, values, NULL, SPI_OK_SELECT);
	note_found(gids);
	n = (int) SPI_processed;
	tables_end(&tables);
	PopActiveSnapshot();
	return n;
}

/* Delete the rows of those gids, a list of strings. */
void
rows_delete(List *gids)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_prepared");
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[] = {text_array(gids)};

	tables_run(psprintf("DELETE FROM %s.dbpool_prepared p WHERE p.gid OPERATOR(pg_catalog.=) ANY ($1)", schema),
			   1, types, values, NULL, SPI_OK_DELETE);
	tables_end(&tables);
}

/*
 * There is no way to the remote of the place any more: what is known to have been committed
 * there needs none.  Returns whether a session, or a worker, is still about something there.
 */
bool
rows_delete_committed(const Place *place)
{
	HTAB	   *gids = gid_set("dbpool gids", sizeof(Gid), LEASE_GID, CurrentMemoryContext);
	List	   *committed = NIL;
	bool		under_way = false;
	HASH_SEQ_STATUS seq;
	Gid		   *gid;

	(void) rows_note(place, gids);
	hash_seq_init(&seq, gids);
	while ((gid = hash_seq_search(&seq)) != NULL)
	{
		if (gid_is_under_way(gid->gid))
			under_way = true;
		else if (lease_saw_committed(gid->gid))
			committed = lappend(committed, gid->gid);
	}
	if (committed != NIL)
		rows_delete(committed);
	hash_destroy(gids);
	return under_way;
}

/* It has been tried in vain, of one gid or, if that is NULL, of all that the place has. */
void
rows_note_failure(Place *place, const char *gid, const char *why)
{
	Tables		tables;
	const char *schema;
	Oid			types[] = {OIDOID, OIDOID, TEXTOID, TEXTOID};
	char		clipped[LAST_ERROR];
	Datum		values[4];

	text_clip(clipped, why, sizeof(clipped));
	rows_alert(place, gid, clipped);
	schema = tables_begin(&tables, "dbpool_prepared");
	values[0] = ObjectIdGetDatum(place->serverid);
	values[1] = ObjectIdGetDatum(place->userid);
	values[2] = CStringGetTextDatum(clipped);
	values[3] = CStringGetTextDatum(gid ? gid : place->prefix);
	tables_run(psprintf("UPDATE %s.dbpool_prepared p SET attempts = p.attempts OPERATOR(pg_catalog.+) 1, "
						"last_attempt = pg_catalog.clock_timestamp(), last_error = $3 "
						"WHERE p.serverid OPERATOR(pg_catalog.=) $1 AND p.userid OPERATOR(pg_catalog.=) $2 "
						"AND pg_catalog.left(p.gid, pg_catalog.length($4)) OPERATOR(pg_catalog.=) $4", schema),
			   lengthof(types), types, values, NULL, SPI_OK_UPDATE);
	tables_end(&tables);
}

/*
 * The server of a place is no more: forget the place, unless there are rows, which a human
 * may need to see what was to be committed.  Returns whether it is forgotten.
 */
bool
rows_forget_place(const Place *place)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_two_phase");
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(place->prefix)};
	bool		forgotten;

	tables_run(psprintf("DELETE FROM %s.dbpool_two_phase t WHERE t.prefix OPERATOR(pg_catalog.=) $1 "
						"AND NOT EXISTS (SELECT FROM %s.dbpool_prepared p WHERE "
						"pg_catalog.left(p.gid, pg_catalog.length(t.prefix)) OPERATOR(pg_catalog.=) t.prefix)", schema, schema),
			   lengthof(types), types, values, NULL, SPI_OK_DELETE);
	forgotten = SPI_processed > 0;
	tables_end(&tables);
	return forgotten;
}
