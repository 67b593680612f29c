/*
 * compat.h
 *	  The only place that knows that PostgreSQL and libpq have versions.
 *
 * PostgreSQL 15 to 18 are covered.  The last part needs libpq-fe.h to have
 * been included before this file, and is left out otherwise.
 */
#ifndef DBPOOL_COMPAT_H
#define DBPOOL_COMPAT_H

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 170000
#include "utils/injection_point.h"
#endif

#include "clock.h"

#if PG_VERSION_NUM < 150000
#error "dbpool needs PostgreSQL 15 or later"
#endif

/*
 * A place between two steps where a test can hold this process while another one
 * takes its own steps, or can make it throw.  Does nothing unless the server was
 * built with injection points, which exist since 17.  Must not be called with a
 * spinlock or an LWLock held, nor between ConditionVariablePrepareToSleep() and
 * ConditionVariableCancelSleep(): a process is held by a condition variable.  It
 * waits on the process's latch, so that a wake-up of others may be lost.
 */
static inline void
compat_injection_point(const char *name)
{
#if PG_VERSION_NUM >= 180000
	INJECTION_POINT(name, NULL);
#elif PG_VERSION_NUM >= 170000
	INJECTION_POINT(name);
#endif
	(void) name;
}

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

static inline Oid
compat_primary_key_index(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* Is the session to be ended by transaction_timeout, which came with 17? */
static inline bool
compat_transaction_overdue(void)
{
#if PG_VERSION_NUM >= 170000
	return TransactionTimeoutPending;
#else
	return false;
#endif
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

/* Transactions of this process are to have no limit of time. */
static inline void
compat_no_transaction_timeout(void)
{
#if PG_VERSION_NUM >= 170000
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_SESSION);
#endif
}

/* File that a setting comes from; NULL if it is none, but the command line. */
static inline const char *
compat_setting_place(const char *name)
{
#if PG_VERSION_NUM >= 160000
	const struct config_generic *setting = find_option(name, false, false, ERROR);

	return setting->source == PGC_S_FILE ? setting->sourcefile : NULL;
#else
	struct config_generic **settings = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
	{
		if (strcmp(settings[i]->name, name) == 0)
			return settings[i]->source == PGC_S_FILE ? settings[i]->sourcefile : NULL;
	}
	return NULL;
#endif
}

#ifdef LIBPQ_FE_H

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/tcp.h>
#include <netinet/in.h>
#endif

#include "port/pg_bswap.h"
#include "pq/wire.h"

/*
 * Cancelling: libpq 17 has an object that cancels over TLS when the connection
 * uses it.  Older ones have PQcancel(), which always sends the key in the clear,
 * and waits for the remote without end.  So there the request, as the manual has
 * it ("CancelRequest"), is sent by ourselves, the same way, with the key that was
 * seen in the log-in.  Where it was not, as with encryption by GSSAPI, nothing
 * can be cancelled in bounded time, and nothing is.
 *
 * These may be run from another thread than the one that uses the connection.
 */
typedef struct CompatCancel
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	PGcancelConn *libpq;
#else
	struct sockaddr_storage address;
	socklen_t	address_len;
	char		packet[16];
#endif
} CompatCancel;

static inline void
compat_cancel_free(CompatCancel *cancel)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	PQcancelFinish(cancel->libpq);
#endif
	free(cancel);
}

/* NULL when it cannot be had. */
static inline CompatCancel *
compat_cancel_create(PGconn *conn, const Wire *wire)
{
	CompatCancel *cancel = (CompatCancel *) calloc(1, sizeof(CompatCancel));

	if (cancel == NULL)
		return NULL;
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	(void) wire;
	cancel->libpq = PQcancelCreate(conn);
	if (cancel->libpq != NULL)
		return cancel;
#else
	{
		uint32		head[3] = {pg_hton32(16), pg_hton32(80877102),
			pg_hton32((uint32) PQbackendPID(conn))
		};

		cancel->address_len = sizeof(cancel->address);
		if (wire->has_key && memcmp(wire->key, &head[2], sizeof(uint32)) == 0 &&
			getpeername(PQsocket(conn), (struct sockaddr *) &cancel->address,
						&cancel->address_len) == 0)
		{
			memcpy(cancel->packet, head, 8);
			memcpy(cancel->packet + 8, wire->key, 8);
			return cancel;
		}
	}
#endif
	free(cancel);
	return NULL;
}

/* Wait for a socket; false when the time is up first. */
static inline bool
compat_cancel_wait(int sock, short events, Ticks until)
{
	struct pollfd fd = {sock, events, 0};
	int			rc;

	do
	{
		long		left = ticks_left_ms(until);

		if (left <= 0)
			return false;
		rc = poll(&fd, 1, (int) left);
	} while (rc < 0 && errno == EINTR);
	return rc > 0;
}

#ifndef LIBPQ_HAS_ASYNC_CANCEL

/* Send the packet, and wait for the remote to close. */
static inline bool
compat_cancel_send(const CompatCancel *cancel, int sock, Ticks until)
{
	int			error = 0;
	socklen_t	len = sizeof(error);
	char		byte;

	while (connect(sock, (const struct sockaddr *) &cancel->address,
				   cancel->address_len) != 0)
	{
		if (errno == EINPROGRESS)
			break;
		/* a local server that is busy */
		if (errno != EAGAIN || ticks_left_ms(until) <= 0)
			return false;
		(void) poll(NULL, 0, 10);
	}
	if (!compat_cancel_wait(sock, POLLOUT, until) ||
		getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0 ||
		send(sock, cancel->packet, sizeof(cancel->packet), MSG_NOSIGNAL) != sizeof(cancel->packet))
		return false;
	while (compat_cancel_wait(sock, POLLIN, until))
	{
		if (recv(sock, &byte, 1, 0) <= 0)
			return true;
	}
	return false;
}

#endif

/* True when the remote has taken the request within so many milliseconds. */
static inline bool
compat_cancel_run(CompatCancel *cancel, int milliseconds)
{
	Ticks		until = ticks_plus_ms(ticks_now(), milliseconds);
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	PostgresPollingStatusType status = PGRES_POLLING_FAILED;

	if (PQcancelStart(cancel->libpq) == 1)
		status = PGRES_POLLING_WRITING;
	while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
	{
		if (!compat_cancel_wait(PQcancelSocket(cancel->libpq),
								status == PGRES_POLLING_READING ? POLLIN : POLLOUT, until))
			return false;
		status = PQcancelPoll(cancel->libpq);
	}
	return status == PGRES_POLLING_OK;
#else
	int			sock;
	bool		taken;

	sock = socket(cancel->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return false;
	taken = compat_cancel_send(cancel, sock, until);
	close(sock);
	return taken;
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

/*
 * How many bytes libpq has taken from its socket, but for a constant; -1 where
 * nobody tells, as with Unix sockets, and where they are encrypted.
 */
static inline int64
compat_bytes_taken(PGconn *conn)
{
#ifdef __linux__
	struct tcp_info before;
	struct tcp_info after;

	/* more may come between the two questions; but seldom each time */
	for (int tries = 0; tries < 5 && !PQsslInUse(conn); tries++)
	{
		socklen_t	len = sizeof(before);
		int			unread;

		if (getsockopt(PQsocket(conn), IPPROTO_TCP, TCP_INFO, &before, &len) != 0 ||
			len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(before.tcpi_bytes_received))
			return -1;
		unread = compat_unread_bytes(conn);
		len = sizeof(after);
		if (getsockopt(PQsocket(conn), IPPROTO_TCP, TCP_INFO, &after, &len) != 0)
			return -1;
		/* the end of the stream counts as a byte */
		if (before.tcpi_bytes_received == after.tcpi_bytes_received)
			return (int64) after.tcpi_bytes_received - (after.tcpi_state != 1) - unread;
	}
#endif
	return -1;
}

/*
 * Set TCP_USER_TIMEOUT, in milliseconds, of a socket; returns what it was, or 0 where there
 * is no such thing.
 */
static inline int
compat_tcp_user_timeout(int sock, int ms)
{
	unsigned int was = 0;

#if defined(__linux__) && defined(TCP_USER_TIMEOUT)
	socklen_t	len = sizeof(was);

	if (getsockopt(sock, IPPROTO_TCP, TCP_USER_TIMEOUT, &was, &len) != 0 ||
		setsockopt(sock, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms)) != 0)
		return 0;
#else
	(void) sock;
	(void) ms;
#endif
	return (int) was;
}

#endif							/* LIBPQ_FE_H */

/* How many bytes malloc() has given out; 0 where nobody counts. */
static inline int64
compat_malloc_bytes(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
	struct mallinfo2 info = mallinfo2();

	return (int64) (info.uordblks + info.hblkhd);
#else
	return 0;
#endif
}

#endif							/* DBPOOL_COMPAT_H */
