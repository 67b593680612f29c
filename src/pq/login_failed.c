/*
 * login_failed.c
 *	  What is told of a log-in that failed: where it was, and what to do about it.
 *
 * The remote's SQLSTATE is seen by login_look() in the bytes that came, as libpq
 * gives no result for a log-in and has the code in no text that is to be shown.
 * What libpq or the operating system say has no code at all: there the text is
 * compared with what this process itself would call the error.  A remote that
 * sends such a text gets another hint, and nothing else.
 */
#include "dbpool.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <libpq-fe.h>

#include "compat.h"
#include "pq/login.h"

/* The hint for what a server says, or NULL. */
static const char *
hint_for_sqlstate(const char *sqlstate)
{
	static const struct
	{
		const char *sqlstate;
		const char *hint;
	}			hints[] = {
		{"28P01", "Look at user and password, which are options of the user mapping: ALTER USER MAPPING ... OPTIONS (SET password '...')."},
		{"28000", "The remote server does not let that role log in from here: see its pg_hba.conf, whether the role exists there and has LOGIN, and the option user of the user mapping."},
		{"3D000", "The option dbname of the server has to name a database that exists there; without it, it is the name of the remote user."},
		{"42501", "The remote role needs the right to connect (GRANT CONNECT ON DATABASE ... TO ...), and to set what the option \"options\" of the server sets."},
		{"42704", "Settings of the remote session come from the server's option options."},
		{"22023", "Settings of the remote session come from the server's option options."},
		{"08P01", "A connection pooler may not know all that is asked for at the beginning of a session: see the server's option options, and what the pooler is set to ignore."},
		{"53300", "The remote has no connection left for this role or at all: lower max_size of the pools that lead there, or raise max_connections there, or the CONNECTION LIMIT of the role or database."},
		{"55000", "The remote database accepts no connections: see ALLOW_CONNECTIONS of ALTER DATABASE there."},
		{"57P03", "The remote server is starting, recovering or stopping; the pool tries again with the next calls."},
	};

	for (int i = 0; i < lengthof(hints); i++)
	{
		if (strcmp(hints[i].sqlstate, sqlstate) == 0)
			return hints[i].hint;
	}
	return NULL;
}

const char *
login_hint_unknown_host(void)
{
	return "The option host of the server has to be a name that this machine can look up, or an address.";
}

const char *
login_hint_timeout(void)
{
	return "Can the remote be reached from this machine, or does a firewall drop what is sent to it? The options host, port and connect_timeout belong to the server.";
}

const char *
login_hint_connect_sql(void)
{
	return "connect_sql is an option of the server, and runs in each new session there: ALTER SERVER ... OPTIONS (SET connect_sql '...').";
}

/* Does a text have what the operating system calls an error? */
static bool
tells_of(const char *message, int error)
{
	return strstr(message, strerror(error)) != NULL;
}

/* The hint for what libpq says by itself, or NULL. */
static const char *
hint_for_text(const char *message)
{
	static const int unknown_host[] = {EAI_NONAME, EAI_AGAIN, EAI_FAIL};

	if (tells_of(message, ECONNREFUSED) || tells_of(message, ENOENT))
		return "Does a server run there, and do its listen_addresses and port (or unix_socket_directories) fit the options host and port of the foreign server?";
	if (tells_of(message, ETIMEDOUT) || tells_of(message, EHOSTUNREACH) ||
		tells_of(message, ENETUNREACH))
		return login_hint_timeout();
	for (int i = 0; i < lengthof(unknown_host); i++)
	{
		if (strstr(message, gai_strerror(unknown_host[i])) != NULL)
			return login_hint_unknown_host();
	}
	return NULL;
}

/*
 * What a user can do about a log-in that libpq has given up, with the message that
 * it has for this; NULL if nobody knows.
 */
const char *
login_hint(PGconn *pg, const Login *login, const char *message)
{
	if (login->sqlstate[0] != '\0')
		return hint_for_sqlstate(login->sqlstate);
	if (PQconnectionNeedsPassword(pg))
		return "The remote server asks for a password, and the user mapping has none: ALTER USER MAPPING ... OPTIONS (ADD password '...').";
	if (login->tls == LOGIN_TLS_REFUSED)
		return "The remote server does not offer TLS, and sslmode demands it: set ssl = on there, or another sslmode of the server here.";
	if (login->tls == LOGIN_TLS_BEGINS)
		return "It is TLS that failed: see sslmode and sslrootcert of the server here, and the certificate of the remote server.";
	return hint_for_text(message);
}

/* Does a message have the port, which is not empty, in it, as libpq says it? */
static bool
names_port(const char *message, const char *port)
{
	const Size	len = strlen(port);

	for (const char *at = strstr(message, port); at != NULL; at = strstr(at + 1, port))
	{
		if (at - message >= 5 && (at[len] < '0' || at[len] > '9') &&
			(pg_strncasecmp(at - 5, "port ", 5) == 0 || strncmp(at - 5, "GSQL.", 5) == 0))
			return true;
	}
	return false;
}

/*
 * Write a message about a place to buf, without an end of line, and with the place
 * before it if it has no host and port in it.  host may be a socket's folder; either
 * is "" when libpq has not come so far as to know it.
 */
void
login_describe(char *buf, Size size, const char *host, const char *port, const char *message)
{
	Size		len = strlen(message);

	while (len > 0 && message[len - 1] == '\n')
		len--;
	if (host[0] == '\0' || port[0] == '\0' ||
		(strstr(message, host) != NULL && names_port(message, port)))
		snprintf(buf, size, "%.*s", (int) len, message);
	else
		snprintf(buf, size, "connection to server at \"%.300s\", port %.20s failed: %.*s",
				 host, port, (int) len, message);
}

/*
 * Did libpq break off a log-in since the remote did not ask for a password?  That is
 * for libpq 16 and later, which is told by require_auth: its message is in the language
 * of the server, but repeats the methods, the value of that.  NULL: there is none.
 */
bool
login_missed_password(PGconn *pg, const char *methods)
{
	return methods != NULL && pg != NULL && !PQconnectionUsedPassword(pg) &&
		strstr(PQerrorMessage(pg), methods) != NULL;
}

/*
 * Has the socket come to its end, or to an error, with nothing in it to be read?  To be asked
 * before PQconnectPoll(), which says of a failure only what it is called.
 */
bool
login_is_cut_off(PGconn *pg)
{
	struct pollfd look = {PQsocket(pg), POLLIN | POLLOUT, 0};
	char		byte;

	if (look.fd < 0 || poll(&look, 1, 0) <= 0)
		return false;
	/* an error is not to be read: that would take it away from libpq */
	if (look.revents & POLLERR)
		return true;
	if (look.revents & POLLIN)
		return recv(look.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
	return (look.revents & POLLHUP) != 0;
}

/*
 * Is there nobody behind a Unix socket?  There, connecting fails at once, and so do
 * wrong parameters, before libpq has a socket to look at.
 */
bool
login_nobody_listens(const char *folder, const char *port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			sock;
	bool		refused;

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.%s", folder, port) >=
		(int) sizeof(address.sun_path))
		return false;
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return false;
	refused = connect(sock, (struct sockaddr *) &address, sizeof(address)) != 0 &&
		(errno == ENOENT || errno == ECONNREFUSED);
	close(sock);
	return refused;
}

/*
 * Does a server that says so speak of itself, and not of who logs in?  Codes of appendix A of
 * the manual: admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections.
 */
bool
login_is_unwell(const char *sqlstate)
{
	return strcmp(sqlstate, "57P01") == 0 || strcmp(sqlstate, "57P02") == 0 ||
		strcmp(sqlstate, "57P03") == 0 || strcmp(sqlstate, "53300") == 0;
}
