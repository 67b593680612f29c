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
#include "port/pg_bswap.h"
#include "pq/login.h"

/* So much is looked at; what a log-in has takes some hundred bytes. */
#define LOOK_BYTES		(8 * 1024)

/* So often, for what is of use, but not needed. */
#define MOST_GREETINGS	20

/* Numbers that authentication requests begin with. */
#define AUTH_OK				0
#define AUTH_GSS			7
#define AUTH_GSS_CONTINUE	8
#define AUTH_SSPI			9
#define AUTH_SASL_CONTINUE	11
#define AUTH_SASL_FINAL		12

/* What the remote asks for in a log-in, see read_requests(). */
typedef enum Asked
{
	ASKED_PARTIAL,				/* a message that is not complete */
	ASKED_QUICK,				/* nothing that costs time */
	ASKED_SLOW,					/* something that may take long */
	ASKED_DONE					/* nothing more: it has accepted us */
} Asked;

/* The iterations that a server-first-message of SCRAM asks for (RFC 5802). */
static int64
scram_iterations(const char *at, const char *end)
{
	int64		most = 0;

	while (at < end)
	{
		const char *comma = memchr(at, ',', end - at);
		int64		count = 0;

		if (comma == NULL)
			comma = end;
		if (comma - at > 2 && at[0] == 'i' && at[1] == '=')
		{
			/*
			 * libpq reads it as strtol() does, which lets blanks and a sign
			 * pass
			 */
			for (at += 2; at < comma; at++)
			{
				if (*at >= '0' && *at <= '9')
					count = Min(count * 10 + (*at - '0'), PG_INT32_MAX);
			}
			most = Max(most, count);
		}
		at = comma + 1;
	}
	return most;
}

/*
 * What does the remote ask for?  buf has what it has sent and libpq not read,
 * from the beginning of a message on.  *iterations is how many times SCRAM has
 * to hash the password, 0 if it has not to.
 */
static Asked
read_requests(const char *buf, Size n, int64 *iterations)
{
	Size		at = 0;
	Asked		found = ASKED_QUICK;

	*iterations = 0;
	while (at < n)
	{
		int64		length = at + WIRE_HEADER <= n ? wire_body_length(buf + at) : 0;
		const char *body = buf + at + WIRE_HEADER;
		uint32		request;

		/* what is none, and what is too long, libpq refuses by itself */
		if (length < 0 || length > WIRE_SHORT_MOST)
			return found;
		if (at + WIRE_HEADER + length > n)
			return ASKED_PARTIAL;
		at += WIRE_HEADER + length;
		if (body[-WIRE_HEADER] != 'R' || length < (int64) sizeof(request))
			continue;
		memcpy(&request, body, sizeof(request));
		switch (pg_ntoh32(request))
		{
			case AUTH_OK:
			case AUTH_SASL_FINAL:
				return found == ASKED_SLOW ? found : ASKED_DONE;
			case AUTH_SASL_CONTINUE:
				*iterations = Max(*iterations,
								  scram_iterations(body + sizeof(request), body + length));
				found = ASKED_SLOW;
				break;
			case AUTH_GSS:
			case AUTH_GSS_CONTINUE:
			case AUTH_SSPI:
				found = ASKED_SLOW;
				break;
			default:
				break;
		}
	}
	return found;
}

/* Is the end of a log-in, good or bad, in what was sent? */
static bool
has_greeted(const char *buf, Size n)
{
	Size		at = 0;

	while (at + WIRE_HEADER <= n)
	{
		int64		length = wire_body_length(buf + at);

		if (length < 0 || buf[at] == 'E' ||
			(buf[at] == 'Z' && at + WIRE_HEADER + length <= n))
			return true;
		at += WIRE_HEADER + length;
	}
	return false;
}

/*
 * Is that error of a limit which a role or a database has of its own (CONNECTION LIMIT)?  It has
 * the code of a server that is full; the functions that raise it are never translated.
 */
static bool
error_is_own_limit(const WireMessage *message)
{
	static const char *const functions[] = {"InitializeSessionUserId", "CheckMyDatabase"};
	Size		len;
	bool		cut;
	const char *function = wire_field(message, 'R', &len, &cut);

	for (int i = 0; function != NULL && !cut && i < lengthof(functions); i++)
	{
		if (len == strlen(functions[i]) && memcmp(function, functions[i], len) == 0)
			return true;
	}
	return false;
}

/* Is there an error in what was sent?  buf begins with a message. */
static void
find_error_state(const char *buf, Size n, Login *login)
{
	for (Size at = 0; at + WIRE_HEADER <= n;)
	{
		int64		length = wire_body_length(buf + at);
		WireMessage message = {.type = buf[at],.body = buf + at + WIRE_HEADER};
		const char *code;
		Size		len;
		bool		cut;

		if (length < 0)
			return;
		message.have = Min((Size) length, n - at - WIRE_HEADER);
		if (message.type == 'E')
		{
			code = wire_field(&message, 'C', &len, &cut);
			if (code != NULL && !cut && len == 5)
				strlcpy(login->sqlstate, code, sizeof(login->sqlstate));
			login->own_limit = error_is_own_limit(&message);
			return;
		}
		at += WIRE_HEADER + length;
	}
}

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

	switch (read_requests(buf, n, &iterations))
	{
		case ASKED_PARTIAL:
			return LOGIN_WAIT;
		case ASKED_SLOW:
			if (iterations <= WIRE_SCRAM_MOST)
				return LOGIN_SLOW_STEP;
			snprintf(what, sizeof(what),
					 "the server asks for %lld iterations of SCRAM, and dbpool computes %d at most",
					 (long long) iterations, WIRE_SCRAM_MOST);
			return refuse_step(pg, why, what);
		case ASKED_DONE:

			/*
			 * In one piece, so that what it says of cancels is surely seen;
			 * but of what is encrypted, one record can be seen at a time.
			 */
			if (!PQsslInUse(pg) && !has_greeted(buf, n) && n < LOOK_BYTES &&
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
		find_error_state(buf, n, login);
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
