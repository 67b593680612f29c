/*
 * wire_open.c
 *	  From nothing to a connection that is ready: look up the host names, log
 *	  in at one place after the other, make our settings.
 *
 * libpq resolves host names synchronously, so it is never given one without
 * its address: a thread looks it up when its turn has come.  Nor does its asynchronous interface
 * time out and go on to the next host of a list, so each place (a host's
 * address, or a socket) is a libpq connection of its own with a deadline,
 * connect_timeout.  target_session_attrs is libpq's business, but for
 * prefer-standby, which is two rounds through the places.
 *
 * authenticated() is the one place that decides, by the definition alone, whether
 * a remote that has let us in without a password is talked to.  Before it only
 * the log-in has gone there: no SQL of ours.
 */
#include "postgres.h"

#include <netdb.h>
#include <libpq-fe.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "ipc/home.h"
#include "worker/endpoints.h"
#include "worker/offload.h"
#include "worker/places.h"

/* A lifetime is shortened by up to this part, so that not all end at once. */
#define LIFETIME_JITTER		0.1

/* The job of looking up a name; all of it malloc'd, as the thread needs it. */
typedef struct Lookup
{
	char	   *name;
	int			error;			/* getaddrinfo()'s */
	struct addrinfo *found;
	Pool	   *pool;			/* this and the rest are the loop's */
	Conn	   *conn;
} Lookup;

ConnHandlers conn_handlers;

static void attempt(Conn *conn);
static void open_failed(Conn *conn, const char *message);
static void place_failed(Conn *conn, Lesson lesson, const char *message, const char *hint);

/* In a thread. */
static void
lookup_run(void *data)
{
	Lookup	   *lookup = data;
	struct addrinfo hints = {0};

	hints.ai_socktype = SOCK_STREAM;
	lookup->error = getaddrinfo(lookup->name, NULL, &hints, &lookup->found);
}

static void
lookup_free(Lookup *lookup)
{
	if (lookup == NULL)
		return;
	free(lookup->name);
	if (lookup->found != NULL)
		freeaddrinfo(lookup->found);
	free(lookup);
}

static void
looked_up_piece(void *arg)
{
	Lookup	   *lookup = arg;
	Conn	   *conn = lookup->conn;

	if (lookup->error == 0)
	{
		places_put_addresses(conn->opening.candidates, lookup->found);
		attempt(conn);
	}
	else
		place_failed(conn, ENDPOINT_COST_LITTLE,
					 psprintf("could not translate host name \"%s\" to address: %s",
							  lookup->name, gai_strerror(lookup->error)),
					 login_hint_unknown_host());
}

/* Back in the loop. */
static void
lookup_done(void *data, void *arg)
{
	Lookup	   *lookup = data;
	Conn	   *conn = arg;

	lookup->pool->lookups--;
	pool_mark(lookup->pool);
	if (conn != NULL)
	{
		conn->opening.lookup = NULL;
		lookup->conn = conn;
		(void) work_guard(looked_up_piece, lookup, conn_recover, conn);
	}
	lookup_free(lookup);
}

/* Look up the name of the current place. */
static void
lookup_start(Conn *conn)
{
	Lookup	   *lookup;

	conn->opening.phase = PHASE_LOOKUP;
	conn->opening.lookup = NULL;
	if (!offload_has_room(OFFLOAD_LOOKUP, conn->pool->lookups))
	{
		timer_set(&conn->watch, ticks_plus_ms(ticks_now(), LOGIN_AGAIN_MS));
		return;
	}
	lookup = calloc(1, sizeof(Lookup));

	if (lookup != NULL)
	{
		lookup->pool = conn->pool;
		lookup->name = strdup(conn->opening.candidates->places[conn->opening.candidates->at].host);
	}
	if (lookup != NULL && lookup->name != NULL)
		conn->opening.lookup = offload_submit(OFFLOAD_LOOKUP, lookup_run, lookup_done,
											  lookup, conn);
	if (conn->opening.lookup != NULL)
	{
		conn->pool->lookups++;
		return;
	}
	lookup_free(lookup);
	open_failed(conn, "could not start a look-up of the host name");
}

static void
lookup_abandon(Conn *conn)
{
	offload_abandon(&conn->opening.lookup);
}

/* What libpq is told for a place. */
static void
make_keywords(Conn *conn, const Place *place, Keywords *keywords)
{
	const Pool *pool = conn->pool;
	const Candidates *list = conn->opening.candidates;
	const char *attrs = list->session_attrs;

	keywords_init(keywords, pool->definition, pool->definition_len);
	/* libpq's own: bounds cancels, which open a connection each (libpq 17) */
	keywords_add(keywords, "connect_timeout",
				 psprintf("%d", (pool->options.connect_timeout + 999) / 1000));
	keywords_add_place(keywords, place);
	if (attrs != NULL && strcmp(attrs, "prefer-standby") == 0)
		attrs = list->round == 0 ? "standby" : "any";
	else if (list->round > 0)
		attrs = "standby";
	keywords_add(keywords, "target_session_attrs", attrs);
	keywords_add(keywords, "fallback_application_name", "dbpool");
}

/* Of a log-in, which may be in a thread's hands. */
static void
ignore_notice(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

/* Every place was tried, or passed over. */
static void
open_gave_up(Conn *conn)
{
	Pool	   *pool = conn->pool;
	char	   *errors = pstrdup(conn->opening.errors.data);
	const char *sqlstate = conn->opening.password_unasked ? "2F003" : "08001";
	const char *hint = conn->opening.hint;
	bool		probe = conn_finds_out(conn);
	bool		unwell = errors[0] != '\0' && !conn->opening.blameless;

	if (!probe)
		pool->tried_standby = conn->opening.candidates->round > 0;
	conn_close(conn, "it could not be opened");
	if (errors[0] != '\0' && probe)
		pool_probe_failed(pool, errors, hint);
	else if (errors[0] != '\0')
		pool_conn_failed(pool, sqlstate, errors, hint);
	else						/* others have been faster */
		timer_set_by(&pool->upkeep, ticks_plus_ms(ticks_now(), ENDPOINT_AGAIN_MS));
	if (unwell)
		pool_note_unwell(pool);
}

/*
 * May the connection be opened at the current place?  Then its endpoint has been entered.
 * All addresses of a name are one endpoint's.
 */
static bool
enter_place(Conn *conn)
{
	const Candidates *list = conn->opening.candidates;
	int			endpoint;

	if (list->at >= list->n)
		return false;
	endpoint = pool_endpoint(conn->pool, &list->places[list->at]);
	if (endpoint != ENDPOINT_NONE && endpoint == conn->endpoint.at)
		return true;
	conn_leave(conn);
	if (conn_probes(conn) && endpoint != conn->endpoint.probes)
		return false;
	return conn_enter(conn, endpoint) == ENDPOINT_ENTERED;
}

/*
 * Move to the next place.  When there is none, and a standby may serve in place of a
 * primary, all are tried once more, as standbys.
 */
static bool
next_place(Conn *conn)
{
	Candidates *list = conn->opening.candidates;

	if (list->at < list->n && places_next(list))
		return true;
	if (list->round > 0 || conn_finds_out(conn) || !pool_may_degrade(conn->pool))
		return false;
	list->round = 1;
	list->at = 0;
	return list->n > 0;
}

/* Try to log in at the current place, or the next that can be begun with. */
static void
attempt(Conn *conn)
{
	Candidates *list = conn->opening.candidates;
	Keywords	keywords;

	while (!enter_place(conn))
	{
		if (!next_place(conn))
		{
			open_gave_up(conn);
			return;
		}
	}
	timer_set(&conn->deadline,
			  ticks_plus_ms(ticks_now(),
							conn->pool->options.connect_timeout));
	if (list->places[list->at].lookup)
	{
		lookup_start(conn);
		return;
	}
	conn->opening.phase = PHASE_LOGIN;
	make_keywords(conn, &list->places[list->at], &keywords);
	if (!AcquireExternalFD())
	{
		open_failed(conn, "too many files are open in the dbpool worker; "
					"see max_files_per_process");
		return;
	}
	conn->io.pg = PQconnectStartParams(keywords.names, keywords.values, 0);
	if (conn->io.pg == NULL)
	{
		ReleaseExternalFD();
		open_failed(conn, "out of memory");
	}
	else if (PQstatus(conn->io.pg) == CONNECTION_BAD)
	{
		const char *host;
		const char *port;

		conn_open_place(conn, &host, &port);
		conn->opening.refused = host[0] == '/' && login_nobody_listens(host, port);
		open_failed(conn, PQerrorMessage(conn->io.pg));
	}
	else
	{
		/* so that a remote which does not read cannot hold us either */
		(void) PQsetnonblocking(conn->io.pg, 1);
		PQsetNoticeReceiver(conn->io.pg, ignore_notice, NULL);
		memset(&conn->opening.login, 0, sizeof(Login));
		conn->opening.cut_off = false;
		conn->loss.error[0] = '\0';
		wire_init(&conn->io.wire);
		poll_socket(&conn->io.poll, PQsocket(conn->io.pg), WL_SOCKET_WRITEABLE);
	}
}

/*
 * Host and port of the place that is being tried, or libpq's defaults.  Valid as
 * long as conn->opening.candidates, and until libpq's connection is closed.
 */
void
conn_open_place(const Conn *conn, const char **host, const char **port)
{
	const Candidates *list = conn->opening.candidates;
	const Place *place = &list->places[Min(list->at, DBPOOL_MAX_PLACES - 1)];

	*host = place->host ? place->host : place->hostaddr;
	if (*host == NULL && conn->io.pg != NULL)
		*host = PQhost(conn->io.pg);
	if (*host == NULL || (*host)[0] == '\0')
		*host = DEFAULT_PGSOCKET_DIR;
	*port = place->port;
	if (*port == NULL && conn->io.pg != NULL)
		*port = PQport(conn->io.pg);
	if (*port == NULL || (*port)[0] == '\0')
		*port = DEF_PGPORT_STR;
}

/*
 * It did not work at this place: note why, and what to do about it if hint is not
 * NULL, and try the next.  Of several places that of the last is told, but
 * rather one's that had a server than one's that was not reached.
 */
static void
place_failed(Conn *conn, Lesson lesson, const char *message, const char *hint)
{
	Candidates *list = conn->opening.candidates;
	char		what[LOGIN_MESSAGE_BYTES];
	const char *host;
	const char *port;
	bool		was_server = conn->opening.login.sqlstate[0] != '\0';
	EndpointRole role = conn->io.pg != NULL ? conn_role(conn) : ENDPOINT_ROLE_UNKNOWN;

	conn_open_place(conn, &host, &port);
	login_describe(what, sizeof(what), host, port, message);
	if (conn->opening.errors.len > 0)
		appendStringInfoChar(&conn->opening.errors, '\n');
	appendStringInfoString(&conn->opening.errors, what);
	if (hint != NULL && (was_server || !conn->opening.hint_of_server))
	{
		conn->opening.hint = hint;
		conn->opening.hint_of_server = was_server;
	}
	conn->opening.blameless |= lesson <= LESSON_WELL;
	memset(&conn->opening.login, 0, sizeof(Login));
	conn->opening.refused = false;

	poll_forget(&conn->io.poll);
	conn_hang_up(conn);
	lookup_abandon(conn);
	login_abandon(conn);
	if (places_next(list) && list->at < list->n &&
		pool_endpoint(conn->pool, &list->places[list->at]) == conn->endpoint.at)
	{
		/* another address of the same name */
		attempt(conn);
		return;
	}
	if (lesson == LESSON_WELL)
		conn_login_answered(conn, role);
	else if (lesson != LESSON_NONE)
		conn_login_failed(conn, (EndpointCost) lesson, what);
	attempt(conn);
}

static bool
is_at_connect_sql(const Conn *conn)
{
	return conn->opening.phase == PHASE_SETTINGS && session_runs_connect_sql(conn);
}

/* The same with what is known of libpq's connection, if there is one. */
static void
open_failed(Conn *conn, const char *message)
{
	if (is_at_connect_sql(conn))
		place_failed(conn, login_lesson(conn), psprintf("connect_sql failed: %s", message),
					 login_hint_connect_sql());
	else
		place_failed(conn, conn->io.pg != NULL ? login_lesson(conn) : LESSON_NONE, message,
					 conn->io.pg != NULL ? login_hint(conn->io.pg, &conn->opening.login, message) : NULL);
}

/* The same when the time is up. */
void
conn_open_overdue(Conn *conn)
{
	bool		lookup = conn->opening.phase == PHASE_LOOKUP;

	if (is_at_connect_sql(conn))
	{
		connect_sql_stop(conn);
		open_failed(conn, psprintf("it did not end within connect_timeout, which is %g s",
								   conn->pool->options.connect_timeout / 1000.0));
		return;
	}
	place_failed(conn,
				 conn->pool->options.connect_timeout >= ENDPOINT_PATIENCE_MS &&
				 conn->opening.login.received == 0 ? ENDPOINT_COST_NOTHING : LESSON_NONE,
				 psprintf("%s within %g s",
						  lookup ? "the host name could not be looked up" :
						  "the server did not answer",
						  conn->pool->options.connect_timeout / 1000.0),
				 lookup ? login_hint_unknown_host() : login_hint_timeout());
}

/*
 * The remote has let us in, or libpq has broken off since it would have done so,
 * without the password that the definition demands.
 */
static void
password_not_asked(Conn *conn)
{
	const Place *place = &conn->opening.candidates->places[conn->opening.candidates->at];

	conn->opening.password_unasked = true;
	open_failed(conn,
				psprintf("The remote at host \"%s\", port %s did not ask for a password.",
						 place->host ? place->host : PQhost(conn->io.pg),
						 PQport(conn->io.pg)));
}

/* Logged in: make our settings, if we may. */
static void
authenticated(Conn *conn)
{
	ConnShared *shared = conn->shared;
	const char *host = PQhost(conn->io.pg);
	const char *why;

	if (conn->pool->options.need_password && !PQconnectionUsedPassword(conn->io.pg))
	{
		password_not_asked(conn);
		return;
	}

	/*
	 * what follows is the pool's own affair, and may take as long as its
	 * owner likes
	 */
	conn_login_answered(conn, conn_role(conn));
	conn->session.degraded = pool_wants_primary(conn->pool) && conn->opening.candidates->round > 0;
	conn->io.tls = PQsslInUse(conn->io.pg) != 0;
	SpinLockAcquire(&shared->mutex);
	shared->remote_pid = PQbackendPID(conn->io.pg);
	shared->tls = conn->io.tls;
	strlcpy(NameStr(shared->address), host ? host : "", NAMEDATALEN);
	shared->port = atoi(PQport(conn->io.pg));
	SpinLockRelease(&shared->mutex);

	why = settings_begin(conn);
	if (why != NULL)
		open_failed(conn, why);
}

/* When a connection opened at that time is to be replaced; 0: never. */
static Ticks
lifetime_end(const Pool *pool, Ticks from)
{
	double		lifetime = pool->options.max_lifetime;

	if (lifetime == 0)
		return 0;
	lifetime *= 1.0 - LIFETIME_JITTER * pg_prng_double(&pg_global_prng_state);
	return ticks_plus_ms(from, (int64) lifetime);
}

/* A connection has been opened. */
static void
opened(Conn *conn)
{
	Pool	   *pool = conn->pool;
	PoolShared *shared = pool->shared;
	Ticks		now = ticks_now();
	int64		us = now - conn->opened_at;

	pool->connect_us = pool->connect_us == 0 ? us : pool->connect_us * 0.7 + us * 0.3;
	SpinLockAcquire(&conn->shared->mutex);
	conn->shared->connected_at = now;
	SpinLockRelease(&conn->shared->mutex);
	SpinLockAcquire(&shared->mutex);
	shared->connected_at = now;
	shared->counters.connects++;
	shared->counters.connect_us += us;
	SpinLockRelease(&shared->mutex);
	measure(pool, conn->endpoint.at, LATENCY_LOGIN, us);
	conn->used_at = now;
	conn->worked_at = now;
	if (!conn->session.degraded)
	{
		if (pool_restored(pool))
			pool_leave_standbys(pool);
	}
	else if (!conn->session.unsuited)
	{
		if (conn->opening.errors.len > 0 && pool->degraded_since == 0)
			pool_note_error(pool, conn->opening.errors.data);
		pool_degraded(pool);
	}
	conn->expires_at = lifetime_end(pool, now);
	if (conn_is_newest(conn))
		pool_renewed(pool);
	conn_ready(conn);
}

/* Our settings are made. */
static void
settled(Conn *conn)
{
	const char *datetimes = PQparameterStatus(conn->io.pg, "integer_datetimes");

	timer_stop(&conn->deadline);
	conn_remember_settings(conn);
	if (conn->opening.home_mark[0] != '\0' &&
		home_has_mark(PQbackendPID(conn->io.pg), conn->opening.home_mark, &conn->session.home_role))
		conn->session.home_pid = PQbackendPID(conn->io.pg);
	conn->session.integer_datetimes = datetimes != NULL && strcmp(datetimes, "on") == 0;
	pool_saw_round_trip(conn, ticks_now() - conn->asked_at);
	opened(conn);
}

/* A step of the log-in was made, see login_step(). */
static void
stepped(Conn *conn, int status, const char *why)
{
	switch (status)
	{
		case PGRES_POLLING_READING:
			poll_socket(&conn->io.poll, PQsocket(conn->io.pg), WL_SOCKET_READABLE);
			break;
		case PGRES_POLLING_WRITING:
			poll_socket(&conn->io.poll, PQsocket(conn->io.pg), WL_SOCKET_WRITEABLE);
			break;
		case PGRES_POLLING_OK:
			authenticated(conn);
			break;
		default:
			if (why != NULL)
				open_failed(conn, why);
			else if (conn->pool->options.need_password &&
					 login_missed_password(conn->io.pg, definition_value(conn->pool->definition,
																		 conn->pool->definition_len,
																		 "require_auth")))
				password_not_asked(conn);
			else
				open_failed(conn, PQerrorMessage(conn->io.pg));
			break;
	}
}

/* The socket of a connection that is being opened is ready. */
void
conn_open_event(Conn *conn)
{
	SettingsStep step;
	const char *why;

	switch (conn->opening.phase)
	{
		case PHASE_LOOKUP:
			lookup_start(conn);
			break;
		case PHASE_LOGIN:
			login_step(conn, stepped);
			break;
		case PHASE_SETTINGS:
			step = settings_read(conn, &why);
			if (step == SETTINGS_MADE)
				settled(conn);
			else if (step == SETTINGS_FAILED)
				open_failed(conn, why);
			break;
	}
}

/* A connection to be, of which nobody knows yet.  In a context of the turn's. */
Conn *
conn_make(Pool *pool)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dbpool connection",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext places = AllocSetContextCreate(context, "dbpool places",
												 ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Conn	   *conn = palloc0(sizeof(Conn));

	conn->context = context;
	conn->pool = pool;
	conn->state = CONN_CONNECTING;
	conn->endpoint.at = ENDPOINT_NONE;
	conn->endpoint.probes = ENDPOINT_NONE;
	conn->opening.phase = PHASE_LOOKUP;
	conn->generation = pool->generation;
	conn->opened_at = ticks_now();
	dlist_init(&conn->flights.list);
	dlist_init(&conn->prepared.lru);
	dlist_init(&conn->prepared.doomed);
	poll_init(&conn->io.poll, conn_handlers.ready, conn_recover, conn);
	work_init(&conn->go_on, conn_handlers.go_on, conn_recover, conn);
	timer_init(&conn->deadline, conn_handlers.deadline, conn_recover, conn);
	timer_init(&conn->watch, conn_handlers.watch, conn_recover, conn);
	timer_init(&conn->janitor, conn_handlers.idle, conn_recover, conn);
	initStringInfo(&conn->opening.errors);
	MemoryContextSwitchTo(places);
	conn->opening.candidates = palloc0(sizeof(Candidates));
	conn->opening.candidates->context = places;
	places_list(conn->opening.candidates, pool);
	MemoryContextSwitchTo(old);
	return conn;
}

static void
attempt_piece(void *conn)
{
	attempt(conn);
}

/* Begin with a connection that was made and has its entry.  Throws nothing. */
void
conn_open(Conn *conn)
{
	MemoryContextSetParent(conn->context, worker_context);
	if (conn->pool->degraded_since != 0 && !conn_finds_out(conn) && pool_may_degrade(conn->pool))
		conn->opening.candidates->round = 1;
	(void) work_guard(attempt_piece, conn, conn_recover, conn);
}
