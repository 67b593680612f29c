/*
 * proxy: passes connections on to a server of PostgreSQL, and does to them what
 * networks do, at a place that is said.
 *
 *	  proxy [-i] LISTEN CONNECT [COMMAND ...]
 *
 * LISTEN and CONNECT are paths of Unix sockets or HOST:PORT in numbers; port 0 is any
 * that is free. The first line of its standard output is "port N", 0 for a path; its
 * standard error has the log, which begins with the seed. With -i it takes commands from its
 * standard input, too, and ends with it; each is answered by lines of which the last
 * is "ok" or "error: ...".
 *
 *	  on [each] [link N] [after "TEXT"] frontend|backend PLACE ACTION
 *		  PLACE: byte N, or
 *				 message KIND [N] ["TEXT"] [chance P] before|after|anywhere|inside N
 *		  When so many bytes have been delivered, or all that is before that place in
 *		  the Nth message (1st if not said) of this kind that has the text, the action
 *		  is taken: once in all, or with "each" for each link, each Nth message, each
 *		  text. Both are counted from the first byte that comes after the command;
 *		  with "after", in the first link in which the client sends a message with
 *		  that text: from that message's first byte, or from the server's next.
 *		  KIND: the message's letter, startup, ssl, gss, cancel (the client's without
 *		  one), answer (the byte that answers ssl and gss), any. With a chance, from
 *		  the Nth on each of them by lot. Of longer messages the first 64 kB are
 *		  searched for texts.
 *	  now [link N] ACTION	on one, or all links that there are
 *	  always ACTION			on these and those to come
 *	  resume				stalls and delays end, and what "always" said
 *	  clear					forgets all rules
 *	  counters				prints the seed, links, rules and how often they have fired
 *	  seed N				for what is by lot
 *	  pieces N				read at most so many bytes at a time, how many by lot; 0: no
 *
 *	  ACTION: reset [WHOM]			RST, after all that was delivered has arrived
 *			  fin [WHOM]			an end in good order
 *			  drop [WHOM]			silence: the rest is taken and thrown away
 *			  stall [TIME] [WHOM]	silence: the rest is kept for a time, or until "resume"
 *			  delay TIME [WHOM]		the rest comes later, each byte by so much
 *	  TIME: 500us, 2ms, 1.5s. WHOM: client, server or both, who sees it. If not said:
 *	  both by reset, fin and commands without a place; else who is to get the bytes.
 *
 * If one alone sees a reset, the other hears nothing any more, not even of the end.
 * If one alone sees the end, what it still says goes on. A Unix socket has no RST: its
 * end looks like fin.
 *
 * Nothing is ever reordered. An end that comes is passed on, as what it was. The
 * proxy delays and does not throttle: it does not wait for the receiver before it reads
 * on, so any number of chunks is on the way at a time, each with the time at which
 * it is due; only with MOST_HELD bytes in one direction it reads no more.
 *
 * The log has a line for each event: seconds, link, direction, how many bytes have been
 * delivered, the message's number there, what, and the rule. But for the seconds it is
 * the same with the same seed, as far as what passes is the same.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proxy.h"

#define MOST_HELD		(4 * 1024 * 1024)
#define MOST_LINE		4096

uint64_t	seed;
static int64_t began;

void
die(const char *what)
{
	perror(what);
	exit(1);
}

int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A number that follows from the seed and these. */
uint64_t
lot(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t	in[] = {a, b, c, d};
	uint64_t	x = seed;

	/* splitmix64's mixer, by Vigna */
	for (int i = 0; i < 4; i++)
	{
		x += in[i] + UINT64_C(0x9e3779b97f4a7c15);
		x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
		x ^= x >> 31;
	}
	return x;
}

void
set_seed(uint64_t new_seed)
{
	seed = new_seed;
}

/* A line of the log. Link, direction, message and why may be missing. */
void
put_event(const Link *link, int from, int64_t message, const char *event, const char *why)
{
	fprintf(stderr, "%.6f", (now() - began) / 1e9);
	if (link)
		fprintf(stderr, " link %d", link->number);
	if (link && from >= 0)
		fprintf(stderr, " %s byte %" PRId64, from == CLIENT ? "frontend" : "backend",
				link->flows[from].delivered);
	if (message > 0)
		fprintf(stderr, " message %" PRId64, message);
	fprintf(stderr, " %s%s%s\n", event, why ? ": " : "", why ? why : "");
}

/* --- sockets ---------------------------------------------------------------- */

typedef union Address
{
	struct sockaddr any;
	struct sockaddr_un path;
	struct sockaddr_in host;
} Address;

/* Returns its length; dies when it is none. */
static socklen_t
address_parse(const char *text, Address *address)
{
	const char *colon = strrchr(text, ':');
	char		host[INET_ADDRSTRLEN] = "";

	memset(address, 0, sizeof(Address));
	if (text[0] == '/' && strlen(text) < sizeof(address->path.sun_path))
	{
		address->path.sun_family = AF_UNIX;
		strcpy(address->path.sun_path, text);
		return sizeof(address->path);
	}
	if (text[0] != '/' && colon && colon - text < (int) sizeof(host))
		memcpy(host, text, colon - text);
	address->host.sin_family = AF_INET;
	if (!colon || inet_pton(AF_INET, host, &address->host.sin_addr) != 1)
	{
		fprintf(stderr, "neither a path nor HOST:PORT in numbers: %s\n", text);
		exit(2);
	}
	address->host.sin_port = htons(atoi(colon + 1));
	return sizeof(address->host);
}

static int
listen_at(const char *text)
{
	Address		address;
	socklen_t	length = address_parse(text, &address);
	int			fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int			on = 1;

	if (text[0] == '/')
		unlink(text);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		bind(fd, &address.any, length) < 0 || listen(fd, 1024) < 0 ||
		getsockname(fd, &address.any, &length) < 0)
		die(text);
	printf("port %d\n", text[0] == '/' ? 0 : ntohs(address.host.sin_port));
	fflush(stdout);
	return fd;
}

/* Never waits; -1, and errno, when nobody is there. */
int
connect_to(const char *text)
{
	Address		address;
	socklen_t	length = address_parse(text, &address);
	int			fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int			saved;

	if (fd < 0)
		die("socket");
	if (connect(fd, &address.any, length) == 0 || errno == EINPROGRESS)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* --- the turn --------------------------------------------------------------- */

/* Does what the lines say that have come; false at their end. */
static bool
take_commands(void)
{
	static char buffer[MOST_LINE];
	static size_t n;
	ssize_t		got = read(STDIN_FILENO, buffer + n, sizeof(buffer) - 1 - n);
	char	   *end;

	if (got < 0 && errno == EINTR)
		return true;
	if (got <= 0)
		return false;
	n += got;
	while ((end = memchr(buffer, '\n', n)) != NULL)
	{
		size_t		length = end + 1 - buffer;
		const char *error;

		*end = '\0';
		error = plan_command(buffer, stdout);
		printf("%s%s\n", error ? "error: " : "ok", error ? error : "");
		n -= length;
		memmove(buffer, end + 1, n);
	}
	fflush(stdout);
	if (n == sizeof(buffer) - 1)
		fprintf(stderr, "a line is too long\n");
	return n < sizeof(buffer) - 1;
}

/* What to wait for; returns when something is due. */
static int64_t
fill_pollfds(struct pollfd *pollfds, int listener, bool interactive)
{
	int64_t		due = NEVER;

	pollfds[0].fd = listener;
	pollfds[0].events = nlinks < MOST_LINKS ? POLLIN : 0;
	pollfds[1].fd = interactive ? STDIN_FILENO : -1;
	pollfds[1].events = POLLIN;
	for (int l = 0; l < nlinks; l++)
		for (int i = 0; i < 2; i++)
		{
			Flow	   *in = &links[l]->flows[i];
			Flow	   *out = &links[l]->flows[1 - i];
			struct pollfd *pollfd = &pollfds[2 + 2 * l + i];
			int64_t		when = flow_due(in);

			/* A negative descriptor is not polled: it would report its end. */
			pollfd->fd = in->ended && !out->blocked ? -1 : links[l]->fds[i];
			pollfd->events = (in->ended || in->read - in->delivered > MOST_HELD ? 0 : POLLIN) |
				(out->blocked ? POLLOUT : 0);
			if (when < due)
				due = when;
		}
	return due;
}

static void
wait_for(struct pollfd *pollfds, int64_t due)
{
	int64_t		left = due == NEVER ? 0 : due - now();
	struct timespec timeout;

	if (left < 0)
		left = 0;
	timeout.tv_sec = left / 1000000000;
	timeout.tv_nsec = left % 1000000000;
	if (ppoll(pollfds, 2 + 2 * nlinks, due == NEVER ? NULL : &timeout, NULL) < 0 &&
		errno != EINTR)
		die("ppoll");
}

static void
turn(int listener, const char *target, bool interactive)
{
	static struct pollfd pollfds[2 + 2 * MOST_LINKS];

	wait_for(pollfds, fill_pollfds(pollfds, listener, interactive));
	for (int l = 0; l < nlinks; l++)
		for (int i = 0; i < 2; i++)
		{
			if (pollfds[2 + 2 * l + i].revents & (POLLIN | POLLHUP | POLLERR) &&
				!links[l]->closed && !links[l]->flows[i].ended)
				flow_read(links[l], i);
			if (!links[l]->closed)
				flow_deliver(links[l], i);
		}
	if (pollfds[1].revents && !take_commands())
		exit(0);
	links_sweep();
	if (pollfds[0].revents & POLLIN && nlinks < MOST_LINKS)
	{
		int			client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (client >= 0)
			link_open(client, target);
	}
}

int
main(int argc, char **argv)
{
	bool		interactive = argc > 1 && strcmp(argv[1], "-i") == 0;
	int			listener;

	argv += interactive;
	argc -= interactive;
	if (argc < 3)
	{
		fprintf(stderr, "usage: proxy [-i] LISTEN CONNECT [COMMAND ...]\n");
		return 2;
	}
	setvbuf(stderr, NULL, _IOLBF, BUFSIZ);
	began = now();
	set_seed(began);
	for (int i = 3; i < argc; i++)
	{
		char	   *line = strdup(argv[i]);
		const char *error = line ? plan_command(line, stderr) : "out of memory";

		if (error)
		{
			fprintf(stderr, "%s: %s\n", argv[i], error);
			return 2;
		}
		free(line);
	}
	fprintf(stderr, "seed %" PRIu64 "\n", seed);
	listener = listen_at(argv[1]);
	/* The kernel would be 50 microseconds late, to save wakeups. */
	prctl(PR_SET_TIMERSLACK, 1UL);

	for (;;)
		turn(listener, argv[2], interactive);
}
