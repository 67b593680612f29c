/*
 * compat.h
 *	  The only place that knows that PostgreSQL and libpq have versions.
 *
 * PostgreSQL 15 to 18 are covered.  The last part needs libpq-fe.h to have
 * been included before this file, and is left out otherwise.
 */
#ifndef DBPOOL_COMPAT_H
#define DBPOOL_COMPAT_H

#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "clock.h"

#if PG_VERSION_NUM < 150000
#error "dbpool needs PostgreSQL 15 or later"
#endif

/* Number of this process in the PGPROC array. */
static inline int
compat_my_proc_number(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

/* Latch of the process with that number. */
static inline Latch *
compat_proc_latch(int procno)
{
	return &ProcGlobal->allProcs[procno].procLatch;
}

/* A wait event set that lives until it is freed, whatever becomes of the transaction. */
static inline WaitEventSet *
compat_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* Name for pg_stat_activity.wait_event; before 17 every extension's is "Extension". */
static inline uint32
compat_wait_event(uint32 *cache, const char *name)
{
#if PG_VERSION_NUM >= 170000
	if (*cache == 0)
		*cache = WaitEventExtensionNew(name);
#else
	(void) name;
	*cache = PG_WAIT_EXTENSION;
#endif
	return *cache;
}

static inline AclResult
compat_server_usage(Oid serverid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, serverid, roleid, ACL_USAGE);
#else
	return pg_foreign_server_aclcheck(serverid, roleid, ACL_USAGE);
#endif
}

static inline bool
compat_server_owner(Oid serverid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ForeignServerRelationId, serverid, roleid);
#else
	return pg_foreign_server_ownercheck(serverid, roleid);
#endif
}

#ifdef LIBPQ_FE_H

#include <sys/ioctl.h>
#include <sys/socket.h>

/*
 * Cancelling: libpq 17 has an object that cancels over TLS when the connection
 * uses it; PQcancel() of older ones always sends the key in the clear.  Both
 * may be run from another thread than the one that uses the connection.
 */
#ifdef LIBPQ_HAS_ASYNC_CANCEL
typedef PGcancelConn CompatCancel;
#else
typedef PGcancel CompatCancel;
#endif

static inline CompatCancel *
compat_cancel_create(PGconn *conn)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	return PQcancelCreate(conn);
#else
	return PQgetCancel(conn);
#endif
}

/* Blocks until the remote has taken the request or refused it. */
static inline bool
compat_cancel_run(CompatCancel *cancel)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	return PQcancelBlocking(cancel) == 1;
#else
	char		errbuf[256];

	return PQcancel(cancel, errbuf, sizeof(errbuf)) == 1;
#endif
}

/*
 * Before libpq learned to drain what TLS has decrypted, it could leave bytes
 * there that no socket tells of.  The server is linked to OpenSSL if libpq is.
 */
extern int	SSL_pending(const void *ssl) __attribute__((weak));

static inline bool
compat_hidden_input(PGconn *conn)
{
	const void *ssl = PQsslStruct(conn, "OpenSSL");

	return ssl != NULL && SSL_pending != NULL && SSL_pending(ssl) > 0;
}

/* Is a TLS handshake under way?  Then what comes is not for us to look at. */
extern int	SSL_is_init_finished(const void *ssl) __attribute__((weak));

static inline bool
compat_handshake(PGconn *conn)
{
	const void *ssl = PQsslStruct(conn, "OpenSSL");

	return ssl != NULL &&
		(SSL_is_init_finished == NULL || !SSL_is_init_finished(ssl));
}

/*
 * The end of one statement of a pipeline.  Before libpq 17 each is handed to
 * the kernel at once; from then on, PQflush() does it for all of them.
 */
static inline int
compat_send_sync(PGconn *conn)
{
#ifdef LIBPQ_HAS_SEND_PIPELINE_SYNC
	return PQsendPipelineSync(conn);
#else
	return PQpipelineSync(conn);
#endif
}

/* Get rid of a prepared statement, whose name needs no quotes. */
static inline int
compat_send_close_prepared(PGconn *conn, const char *name)
{
#ifdef LIBPQ_HAS_CLOSE_PREPARED
	return PQsendClosePrepared(conn, name);
#else
	char		sql[NAMEDATALEN + 16];

	snprintf(sql, sizeof(sql), "DEALLOCATE %s", name);
	return PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0);
#endif
}

/*
 * Look at what the socket has, without taking it away from libpq: how many
 * bytes were put into buf, 0 at the end of the stream, negative when there is
 * nothing to see.
 */
extern int	SSL_peek(void *ssl, void *buf, int num) __attribute__((weak));

static inline ssize_t
compat_peek_input(PGconn *conn, char *buf, Size size)
{
	void	   *ssl = PQsslStruct(conn, "OpenSSL");

	if (PQgssEncInUse(conn))
		return -1;
	if (ssl != NULL)
		return SSL_peek != NULL ? SSL_peek(ssl, buf, (int) size) : -1;
	return recv(PQsocket(conn), buf, size, MSG_PEEK | MSG_DONTWAIT);
}

/* How many bytes the socket has, encrypted or not. */
static inline int
compat_unread_bytes(PGconn *conn)
{
	int			n = 0;

	return ioctl(PQsocket(conn), FIONREAD, &n) == 0 ? n : 0;
}

static inline void
compat_cancel_free(CompatCancel *cancel)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	PQcancelFinish(cancel);
#else
	PQfreeCancel(cancel);
#endif
}

#ifdef LIBPQ_HAS_ASYNC_CANCEL

#include <poll.h>

/*
 * Have the remote cancel what it does for a connection, and give up after so
 * many milliseconds: true when it has taken the request.
 */
static inline bool
compat_cancel_within(PGconn *conn, int milliseconds)
{
	PGcancelConn *cancel = PQcancelCreate(conn);
	Ticks		until = ticks_plus_ms(ticks_now(), milliseconds);
	PostgresPollingStatusType status = PGRES_POLLING_FAILED;

	if (cancel != NULL && PQcancelStart(cancel) == 1)
		status = PGRES_POLLING_WRITING;
	while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
	{
		struct pollfd socket = {PQcancelSocket(cancel),
		status == PGRES_POLLING_READING ? POLLIN : POLLOUT, 0};
		long		left = ticks_left_ms(until);

		if (left <= 0 || (poll(&socket, 1, (int) left) < 0 && errno != EINTR))
			break;
		if (socket.revents != 0)
			status = PQcancelPoll(cancel);
	}
	PQcancelFinish(cancel);
	return status == PGRES_POLLING_OK;
}

#else

#include <pthread.h>
#include <signal.h>
#include <time.h>

/* A PQcancel() in a thread: it blocks, and a hung remote would hang us. */
typedef struct CompatCancelJob
{
	pthread_mutex_t lock;		/* protects the rest */
	pthread_cond_t ended;
	PGcancel   *cancel;
	bool		done;
	bool		taken;
	bool		abandoned;
} CompatCancelJob;

static inline void
compat_cancel_job_free(CompatCancelJob *job)
{
	PQfreeCancel(job->cancel);
	pthread_cond_destroy(&job->ended);
	pthread_mutex_destroy(&job->lock);
	free(job);
}

static inline void *
compat_cancel_thread(void *arg)
{
	CompatCancelJob *job = (CompatCancelJob *) arg;
	char		errbuf[256];
	bool		taken = PQcancel(job->cancel, errbuf, sizeof(errbuf)) == 1;
	bool		abandoned;

	pthread_mutex_lock(&job->lock);
	job->taken = taken;
	job->done = true;
	abandoned = job->abandoned;
	pthread_cond_signal(&job->ended);
	pthread_mutex_unlock(&job->lock);
	if (abandoned)
		compat_cancel_job_free(job);
	return NULL;
}

/*
 * Have the remote cancel what it does for a connection, and give up after so
 * many milliseconds: true when it has taken the request.
 */
static inline bool
compat_cancel_within(PGconn *conn, int milliseconds)
{
	CompatCancelJob *job = (CompatCancelJob *) calloc(1, sizeof(CompatCancelJob));
	struct timespec until;
	pthread_condattr_t monotonic;
	pthread_attr_t attr;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	before;
	bool		started;
	bool		taken = false;
	bool		done = true;
	int			error = 0;

	if (job == NULL)
		return false;
	pthread_mutex_init(&job->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&job->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	job->cancel = PQgetCancel(conn);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += milliseconds / 1000;

	/* PostgreSQL's handlers are for its own thread */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	started = job->cancel != NULL &&
		pthread_create(&thread, &attr, compat_cancel_thread, job) == 0;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	if (started)
	{
		pthread_mutex_lock(&job->lock);
		while (!job->done && error == 0)
			error = pthread_cond_timedwait(&job->ended, &job->lock, &until);
		done = job->done;
		taken = job->taken;
		job->abandoned = !done;
		pthread_mutex_unlock(&job->lock);
	}
	if (done)
		compat_cancel_job_free(job);
	return taken;
}

#endif							/* LIBPQ_HAS_ASYNC_CANCEL */

#endif							/* LIBPQ_FE_H */

#endif							/* DBPOOL_COMPAT_H */
