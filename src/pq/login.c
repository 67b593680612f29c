/*
 * login.c
 *	  What a remote may cost us in a log-in: a look before each PQconnectPoll().
 *
 * Most steps cost nothing.  But SCRAM hashes the password as often as the remote
 * says, Kerberos may ask a server of its own, and libpq collects what it is sent.
 * So what has come is looked at before libpq does.  A message that has not come
 * whole is waited for: libpq would take its beginning, and the rest would tell
 * nothing.
 *
 * Nothing here allocates or throws.
 */
#include "dbpool.h"

#include <libpq-fe.h>

#include "compat.h"
#include "pq/login.h"

/* So much is looked at; what a log-in has takes some hundred bytes. */
#define LOOK_BYTES		(8 * 1024)

/* So often, for what is of use, but not needed. */
#define MOST_GREETINGS	20

static LoginLook
refuse_step(PGconn *pg, char *why, const char *what)
{
	const char *host = PQhost(pg);
	const char *port = PQport(pg);

	snprintf(why, LOGIN_WHY_BYTES, "log-in at host \"%.100s\", port %.20s, was given up: %s",
			 host ? host : "", port ? port : "", what);
	return LOGIN_REFUSE;
}

/* The remote has not accepted us so far: what does it want? */
static LoginLook
look_at_requests(PGconn *pg, Login *login, const char *buf, Size n, char *why)
{
	char		what[200];
	int64		iterations;

	switch (wire_login(buf, n, &iterations))
	{
		case WIRE_LOGIN_PARTIAL:
			return LOGIN_WAIT;
		case WIRE_LOGIN_SLOW:
			if (iterations <= WIRE_SCRAM_MOST)
				return LOGIN_SLOW_STEP;
			snprintf(what, sizeof(what),
					 "the server asks for %lld iterations of SCRAM, and dbpool computes %d at most",
					 (long long) iterations, WIRE_SCRAM_MOST);
			return refuse_step(pg, why, what);
		case WIRE_LOGIN_DONE:

			/*
			 * In one piece, so that what it says of cancels is surely seen;
			 * but of what is encrypted, one record can be seen at a time.
			 */
			if (!PQsslInUse(pg) && !wire_greeted(buf, n) && n < LOOK_BYTES &&
				login->greetings++ < MOST_GREETINGS)
				return LOGIN_WAIT;
			login->accepted = true;
			return LOGIN_STEP;
		default:
			return LOGIN_STEP;
	}
}

/* Before and in a handshake: what becomes of TLS? */
static LoginTls
look_at_tls(PGconn *pg, ConnStatusType status)
{
	char		answer;

	if (compat_handshake(pg))
		return LOGIN_TLS_BEGINS;
	if (status != CONNECTION_SSL_STARTUP || compat_peek_input(pg, &answer, 1) != 1)
		return LOGIN_TLS_NOTHING;
	return answer == 'N' ? LOGIN_TLS_REFUSED : LOGIN_TLS_BEGINS;
}

/*
 * The socket is ready for PQconnectPoll(): is that to be called?  why has room for
 * LOGIN_WHY_BYTES and gets the reason for LOGIN_REFUSE.
 */
LoginLook
login_look(PGconn *pg, Login *login, Wire *wire, char *why)
{
	ConnStatusType status = PQstatus(pg);
	bool		starts = status == CONNECTION_STARTED || status == CONNECTION_MADE;
	int			bytes = starts ? 0 : compat_unread_bytes(pg);
	char		what[200];
	char		buf[LOOK_BYTES];
	ssize_t		n = 0;
	LoginLook	look = LOGIN_STEP;
	WireMessage large;

	if (login->received + bytes > WIRE_LOGIN_MOST)
	{
		snprintf(what, sizeof(what), "the server has sent more than %d bytes",
				 WIRE_LOGIN_MOST);
		return refuse_step(pg, why, what);
	}
	login->tls = look_at_tls(pg, status);
	if (PQgssEncInUse(pg) || status == CONNECTION_GSS_STARTUP)
		return LOGIN_SLOW_STEP;
	if (!starts && status != CONNECTION_SSL_STARTUP && !compat_handshake(pg))
		n = compat_peek_input(pg, buf, sizeof(buf));
	if (n > 0)
		wire_error_state(buf, n, login->sqlstate);
	if (n > 0 && !login->accepted)
		look = look_at_requests(pg, login, buf, n, why);
	if (look == LOGIN_WAIT || look == LOGIN_REFUSE)
		return look;
	wire->short_answers = true;
	wire->row_most = wire->other_most = WIRE_LOGIN_MOST;
	if (n > 0 && !wire_look(wire, buf, n, &large))
	{
		snprintf(what, sizeof(what), "the server has sent %s of %u bytes",
				 wire_name(large.type), large.length);
		return refuse_step(pg, why, what);
	}
	login->received += bytes;
	return look;
}
