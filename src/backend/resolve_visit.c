/*
 * resolve_visit.c
 *	  A visit of "dbpool resolver" to one place: what is prepared there is ended.
 *
 * A visit reads, in this order:
 *	 P	what is prepared at the remote,
 *	 A	what a session of this server is still about (a gid in a lease),
 *	 T	the rows of dbpool_prepared, by a new snapshot,
 *	 Q	what is prepared at the remote, again;
 * and acts on what is in P and in Q and not in A: with a row it is committed, without one
 * rolled back.  A row that is neither in P nor in Q nor in A has been dealt with, and is
 * deleted.  If nobody has seen that, and the remote is of another timeline by now than
 * when that was prepared, its new primary may never have had it: the log is told.  And it
 * may have got what was prepared, and not that it was committed: what is known to have been
 * is committed again.
 *
 * Why in this order: a gid gets into a lease before it is prepared, and leaves it when
 * the local transaction's fate is there for all to see.  So what is in P and not in A has
 * met its fate before T is read.  What was in A, or came into P later, is left for the next
 * visit.  And what is in P and not in Q has been ended by a worker, or a human.
 *
 * WHEN NOTHING IS LEFT
 *
 * A PREPARE TRANSACTION of which nobody here knows any more may be on its way yet: its
 * session has been given up, or this server has crashed, and the remote's process hangs, or
 * waits for a lock.  What it prepares later, nobody would look for.  So with P comes
 * what transactions run at the remote by the same role and have a number, as all have that
 * write; and the place is visited until each of those of the first look has ended.  Not
 * counted are those that leases have.
 *
 * WHO WAITS
 *
 * Nobody: a visit goes on when an answer has come, and others beside it.  No local
 * transaction, nor a snapshot, is open meanwhile.  The remote is reached through the pool,
 * as by everybody else.
 */
#include "postgres.h"

#include "backend/client_slot.h"
#include "backend/resolve.h"
#include "common/pg_prng.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "compat.h"

/* Milliseconds to wait for an answer, besides what a connection may be waited for. */
#define ANSWER_MS		10000

typedef enum Step
{
	STEP_BEFORE,				/* P is asked for */
	STEP_AFTER,					/* Q is */
	STEP_END					/* one after the other is ended */
} Step;

struct Visit
{
	AnswerSink	sink;			/* must be first */
	MemoryContext context;
	Definition	definition;
	char		prefix[LEASE_GID];
	Step		step;
	bool		open;			/* the client has a request */
	Client		client;
	Call		call;
	Ticks		deadline;		/* of the answer */

	HTAB	   *gids;			/* of Gid */
	HTAB	   *running;		/* of Running, of the first look */
	bool		fresh;			/* what runs is all to be waited for */
	bool		primary;		/* the remote has said that it is no standby */
	char		system[LEASE_SYSTEM];	/* the remote's, if Q has it; or empty */
	int			nrows;			/* of the answer */

	List	   *to_end;			/* of Gid */
	int			next;			/* of it */
	int			committed;
	int			rolled_back;
	bool		left;
};

/* How many requests there have been: whoever submits one may wait, see resolve.c. */
uint64		visit_requests;

/* A transaction at the remote: "process number". */
#define RUNNING_NAME	32

typedef struct Running
{
	char		name[RUNNING_NAME]; /* hash key */
} Running;

static HTAB *
make_running(MemoryContext context)
{
	return gid_set("dbpool running", sizeof(Running), RUNNING_NAME, context);
}

static Gid *
gid_entry(Visit *visit, const char *gid)
{
	bool		found;
	Gid		   *entry = hash_search(visit->gids, gid, HASH_ENTER, &found);

	if (!found)
		memset((char *) entry + LEASE_GID, 0, sizeof(Gid) - LEASE_GID);
	return entry;
}

/* --- what the remote says -------------------------------------------------------------- */

/* The answer begins anew. */
static void
forget_answer(Visit *visit)
{
	HASH_SEQ_STATUS seq;
	Gid		   *entry;
	Running    *running;

	visit->primary = false;
	visit->nrows = 0;
	hash_seq_init(&seq, visit->gids);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (visit->step == STEP_BEFORE)
			entry->before = false;
		else
			entry->after = false;
	}
	if (visit->step != STEP_BEFORE)
		return;
	hash_seq_init(&seq, visit->running);
	while ((running = hash_seq_search(&seq)) != NULL)
		hash_search(visit->running, running->name, HASH_REMOVE, NULL);
}

static void
take_row(Visit *visit, const char *text)
{
	if (++visit->nrows > GIDS_MOST)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the remote server has more than %d prepared transactions of one pool", GIDS_MOST)));
	if (strcmp(text, "primary") == 0)
		visit->primary = true;
	else if (gid_is_of(text, visit->prefix))
	{
		if (visit->step == STEP_BEFORE)
			gid_entry(visit, text)->before = true;
		else
			gid_entry(visit, text)->after = true;
	}
	else if (visit->step == STEP_AFTER && strncmp(text, "system ", 7) == 0 &&
			 strlen(text + 7) < sizeof(visit->system))
		strcpy(visit->system, text + 7);
	else if (visit->step == STEP_BEFORE && strncmp(text, "running ", 8) == 0 &&
			 strlen(text + 8) < RUNNING_NAME)
		(void) hash_search(visit->running, text + 8, HASH_ENTER, NULL);
}

static void
visit_frame(AnswerSink *base, char type, MessageReader *body)
{
	Visit	   *visit = (Visit *) base;

	if (visit->step == STEP_END)
		return;
	if (type == FRAME_RESTART)
		forget_answer(visit);
	/* one column, which is not NULL */
	else if (type == FRAME_ROW && message_get_int32(body) >= 0)
		take_row(visit, message_get_string(body));
}

/* --- what is asked ----------------------------------------------------------------------- */

/* Let go of the request, if there is one. */
static void
close_request(Visit *visit)
{
	if (!visit->open)
		return;
	visit->open = false;
	client_leave(&visit->client);
}

static void
ask_remote(Visit *visit, RequestKind kind, char *sql)
{
	close_request(visit);
	memset(&visit->call, 0, sizeof(visit->call));
	visit->call.pool = NameStr(visit->definition.options->server);
	visit->call.definition = &visit->definition;
	visit->call.kind = kind;
	visit->call.sql = sql;
	/* a prepared transaction is its role's to end */
	if (kind == REQUEST_SCRIPT)
		visit->call.traces = TRACE_LOGIN_ROLE;
	client_init(&visit->client, &visit->call, &visit->sink);
	visit->client.lasting = true;
	visit->open = true;
	visit_requests++;
	visit->deadline = ticks_plus_ms(ticks_now(), visit->definition.options->acquire_timeout + ANSWER_MS);
	client_enter(&visit->client);
	client_submit(&visit->client);
}

/*
 * Which remote this is, if a row says which it was when it was prepared: then the role may ask.
 * It has two words of what CONN_RUN_SQL gives.
 */
static const char *
system_sql(Visit *visit)
{
	HASH_SEQ_STATUS seq;
	Gid		   *gid;
	bool		known = false;

	hash_seq_init(&seq, visit->gids);
	while ((gid = hash_seq_search(&seq)) != NULL)
		known |= gid->system[0] != '\0';
	return !known ? "" :
		"SELECT pg_catalog.format('system %s %s', system_identifier, "
		"pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)) "
		"FROM pg_catalog.pg_control_system() WHERE NOT pg_catalog.pg_is_in_recovery() UNION ALL ";
}

/*
 * What is prepared there: P, or Q.  What runs comes first: what is prepared meanwhile would be
 * in neither otherwise.
 */
static void
ask_prepared(Visit *visit, Step step)
{
	visit->step = step;
	forget_answer(visit);
	ask_remote(visit, REQUEST_QUERY,
			   psprintf("%sSELECT 'primary'::pg_catalog.text WHERE NOT pg_catalog.pg_is_in_recovery() UNION ALL "
						"SELECT pg_catalog.format('running %%s %%s', a.pid, a.backend_xid) FROM pg_catalog.pg_stat_activity a "
						"WHERE a.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() "
						"AND a.usename OPERATOR(pg_catalog.=) session_user "
						"AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() AND a.backend_xid IS NOT NULL UNION ALL "
						"SELECT p.gid FROM pg_catalog.pg_prepared_xacts p "
						"WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database() "
						"AND pg_catalog.left(p.gid, %d) OPERATOR(pg_catalog.=) '%s'",
						step == STEP_AFTER ? system_sql(visit) : "", (int) strlen(visit->prefix), visit->prefix));
}

static void
ask_end(Visit *visit)
{
	const Gid  *gid = list_nth(visit->to_end, visit->next);

	compat_injection_point("dbpool-resolver-before-end");
	ask_remote(visit, REQUEST_SCRIPT, psprintf("%s PREPARED '%s'", gid->row ? "COMMIT" : "ROLLBACK", gid->gid));
}

/* --- the steps ------------------------------------------------------------------------------ */

static int
compare_pids(const void *a, const void *b)
{
	int			x = *(const int *) a;
	int			y = *(const int *) b;

	return x < y ? -1 : x > y;
}

/*
 * A: what sessions are still about.  And what runs in leases of the pool, or has not been
 * seen to run at the first look, is not waited for.
 */
static void
note_leases(Visit *visit, HTAB *seen_before)
{
	int		   *pids = palloc(sizeof(int) * lease_count());
	int			n = 0;
	HASH_SEQ_STATUS seq;
	Running    *running;

	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);
		char		gid[LEASE_GID];

		if (lease_word_state(lease_word(lease)) == LEASE_FREE)
			continue;
		SpinLockAcquire(&lease->mutex);
		strlcpy(gid, lease->gid, sizeof(gid));
		if (lease->dbid == MyDatabaseId && lease->remote_pid != 0 &&
			strcmp(NameStr(lease->server), NameStr(visit->definition.options->server)) == 0)
			pids[n++] = lease->remote_pid;
		SpinLockRelease(&lease->mutex);
		if (gid_is_of(gid, visit->prefix))
			gid_entry(visit, gid)->under_way = true;
	}
	qsort(pids, n, sizeof(int), compare_pids);
	hash_seq_init(&seq, visit->running);
	while ((running = hash_seq_search(&seq)) != NULL)
	{
		int			pid = atoi(running->name);

		if (bsearch(&pid, pids, n, sizeof(int), compare_pids) != NULL ||
			(!visit->fresh && (seen_before == NULL ||
							   hash_search(seen_before, running->name, HASH_FIND, NULL) == NULL)))
			hash_search(visit->running, running->name, HASH_REMOVE, NULL);
	}
	pfree(pids);
}

/* P has come: A and T are read, Q is asked for. */
static void
before_came(Place *place)
{
	Visit	   *visit = place->visit;

	compat_injection_point("dbpool-resolver-before-sessions");
	note_leases(visit, place->running);
	compat_injection_point("dbpool-resolver-before-rows");
	/* the pair of a transaction's end before its gid leaves its lease */
	pg_memory_barrier();
	visit->left |= rows_note(place, visit->gids) >= ROWS_MOST;
	ask_prepared(visit, STEP_AFTER);
}

/* Q has come: now it is known what is to be done. */
static void
after_came(Place *place)
{
	Visit	   *visit = place->visit;
	List	   *done = NIL;
	List	   *lost = NIL;
	HASH_SEQ_STATUS seq;
	Gid		   *gid;

	hash_seq_init(&seq, visit->gids);
	while ((gid = hash_seq_search(&seq)) != NULL)
	{
		if (gid->before && gid->after && !gid->under_way)
		{
			/* a failover may bring back what was dealt with long ago */
			gid->row |= lease_saw_committed(gid->gid);
			visit->to_end = lappend(visit->to_end, gid);
		}
		if (gid->before || gid->after || gid->under_way)
			/* its row goes when it is seen to be gone */
			visit->left = true;
		else
		{
			done = lappend(done, gid->gid);
			if (gid->system[0] != '\0' && visit->system[0] != '\0' &&
				strcmp(gid->system, visit->system) != 0 && !lease_saw_committed(gid->gid))
				lost = lappend(lost, gid->gid);
		}
	}
	if (lost != NIL)
		alert_of_lost(visit->call.pool, lost);
	compat_injection_point("dbpool-resolver-before-delete");
	if (done != NIL)
		rows_delete(done);
	if (hash_get_num_entries(visit->running) > 0)
		visit->left = true;

	/*
	 * a remote that shows for ever what it has ended is not worth a line each
	 * time
	 */
	if (place->ended[0] != '\0' &&
		(gid = hash_search(visit->gids, place->ended, HASH_FIND, NULL)) != NULL && gid->before && gid->after)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("the remote server has ended the prepared transaction \"%s\", it says, and shows it all the same", place->ended)));
	/* if some are always refused, let it not be the same ones that are tried */
	if (list_length(visit->to_end) > ENDS_MOST)
		visit->to_end = list_copy_tail(visit->to_end,
									   pg_prng_uint32(&pg_global_prng_state) % (list_length(visit->to_end) - ENDS_MOST + 1));
	visit->step = STEP_END;
}

/*
 * COMMIT or ROLLBACK PREPARED has been answered.  What this one gid is refused is not to
 * keep others waiting: it may be another role's.
 */
static void
end_came(Place *place)
{
	Visit	   *visit = place->visit;
	const Gid  *gid = list_nth(visit->to_end, visit->next);

	visit->next++;
	if (visit->client.error.len > 0)
	{
		StringInfo	error = &visit->client.error;
		MessageReader body = {error->data, error->data + error->len};
		char		sqlstate[6];
		char	   *message;

		error_texts(&body, sqlstate, &message);
		if (strncmp(sqlstate, "42", 2) != 0 && strncmp(sqlstate, "55", 2) != 0)
			client_finish(&visit->client);
		if (strcmp(sqlstate, "42704") == 0)
			return;
		rows_note_failure(place, gid->gid, message);
		if (!place->complained)
			ereport(LOG,
					(errmsg("dbpool cannot end the prepared transaction \"%s\" of pool \"%s\": %s",
							gid->gid, visit->call.pool, message)));
		place->complained = true;
		return;
	}
	client_finish(&visit->client);
	shmem_count_resolved(&visit->definition.key);
	if (gid->row)
	{
		visit->committed++;
		lease_note_committed(gid->gid);
	}
	else
		visit->rolled_back++;
	strlcpy(place->ended, gid->gid, sizeof(place->ended));
}

/* The answer that was asked for is complete; ask for the next.  Returns true at the end. */
static bool
answered(Place *place)
{
	Visit	   *visit = place->visit;

	if (visit->step != STEP_END)
	{
		client_finish(&visit->client);

		/*
		 * one of several hosts perhaps: what it does not show may be prepared
		 * all the same
		 */
		if (!visit->primary)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the remote server of pool \"%s\" is a standby, which does not know what is prepared",
							visit->call.pool),
					 errhint("Set target_session_attrs to read-write on the server.")));
	}
	if (visit->step == STEP_BEFORE)
	{
		before_came(place);
		return false;
	}
	if (visit->step == STEP_AFTER)
		after_came(place);
	else
		end_came(place);
	if (visit->next >= Min(list_length(visit->to_end), ENDS_MOST))
		return true;
	ask_end(visit);
	return false;
}

/* --- the visit -------------------------------------------------------------------------------- */

/*
 * Begin to visit a place, in a transaction.  Returns NULL when nothing can be done there,
 * now or ever; the place knows then whether something is left.  Throws if it may be possible
 * later.
 */
Visit *
visit_begin(Place *place)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "dbpool visit", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Visit	   *visit = palloc0(sizeof(Visit));

	place->visit = visit;
	visit->context = context;
	visit->sink.frame = visit_frame;
	visit->fresh = place->fresh;
	place->fresh = false;
	strlcpy(visit->prefix, place->prefix, sizeof(visit->prefix));
	if (!definition_to_warm(place->serverid, place->userid, &visit->definition))
	{
		bool		server = GetForeignServerExtended(place->serverid, FSV_MISSING_OK) != NULL;
		bool		mapping = SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(place->userid),
													ObjectIdGetDatum(place->serverid));

		place->left = rows_delete_committed(place);
		if (server || !rows_forget_place(place))
			rows_note_failure(place, NULL, !server ? "The server was dropped." :
							  !mapping ? "The user mapping was dropped." :
							  "dbpool may not use the server and its user mapping by itself any more.");
		MemoryContextSwitchTo(old);
		visit_end(place);
		return NULL;
	}
	visit->gids = gid_set("dbpool gids", sizeof(Gid), LEASE_GID, context);
	visit->running = make_running(context);
	ask_prepared(visit, STEP_BEFORE);
	MemoryContextSwitchTo(old);
	return visit;
}

/* The next visit is to know what still runs. */
static void
keep_running(Place *place)
{
	HASH_SEQ_STATUS seq;
	Running    *running;

	if (place->running != NULL)
		hash_destroy(place->running);
	place->running = make_running(TopMemoryContext);
	hash_seq_init(&seq, place->visit->running);
	while ((running = hash_seq_search(&seq)) != NULL)
		(void) hash_search(place->running, running->name, HASH_ENTER, NULL);
}

/*
 * Go on as far as that is possible without waiting, in a transaction.  Returns true when
 * the visit is over: the place knows then what is left.
 */
bool
visit_go_on(Place *place)
{
	Visit	   *visit = place->visit;
	MemoryContext old = MemoryContextSwitchTo(visit->context);
	bool		over = false;

	while (!over && client_take(&visit->client))
		over = answered(place);
	CHECK_FOR_INTERRUPTS();
	MemoryContextSwitchTo(old);
	if (over)
	{
		/* it may be wanted again since it began */
		place->left = visit->left || place->fresh;
		keep_running(place);
		if (visit->committed + visit->rolled_back > 0)
		{
			/* that they are gone is seen soon */
			place->pause = 0;
			ereport(LOG,
					(errmsg("dbpool has ended prepared transactions of pool \"%s\" that were left behind: %d committed, %d rolled back",
							visit->call.pool, visit->committed, visit->rolled_back),
					 errdetail("The last of them is \"%s\".", place->ended)));
		}
	}
	else if (ticks_now() >= visit->deadline)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the remote server of pool \"%s\" does not answer", visit->call.pool)));
	return over;
}

Ticks
visit_deadline(const Visit *visit)
{
	return visit->deadline;
}

/* The pool's name; NULL if it has none, or has not begun. */
const char *
visit_pool(const Visit *visit)
{
	return visit != NULL ? visit->call.pool : NULL;
}

/* End it, in whatever state it is.  Throws nothing. */
void
visit_end(Place *place)
{
	Visit	   *visit = place->visit;

	if (visit == NULL)
		return;
	place->visit = NULL;
	close_request(visit);
	MemoryContextDelete(visit->context);
}
