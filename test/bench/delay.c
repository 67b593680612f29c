/*
 * delay: passes connections on from one Unix socket to another and delivers
 * what it reads, in both directions, a fixed time later.
 *
 *   delay MICROSECONDS LISTEN CONNECT
 *
 * It delays and does not throttle: it never waits for the receiver before it
 * reads on, so any number of chunks is on the way at a time, each with the time
 * at which it is due.
 *
 * Link  one connection: a pair of sockets and a flow for each direction
 * Flow  the chunks from one socket to the other, oldest first
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINKS 1024
#define CHUNK_SIZE 16384
#define NEVER INT64_MAX

typedef struct Chunk
{
	struct Chunk *next;
	int64_t		due;			/* nanoseconds */
	size_t		start;			/* of what is not yet delivered */
	size_t		end;			/* 0 when the sender has closed */
	char		data[CHUNK_SIZE];
} Chunk;

typedef struct Flow
{
	Chunk	   *first;
	Chunk	  **last;			/* where the next chunk is hooked in */
	bool		blocked;		/* the receiver's buffer is full */
	bool		ended;			/* the sender has closed */
} Flow;

typedef struct Link
{
	int			fds[2];
	Flow		flows[2];		/* flows[i] is read from fds[i] */
	bool		broken;
} Link;

static Link links[MAX_LINKS];
static int	nlinks;
static int64_t delay;			/* nanoseconds */

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A socket of either kind; dies when it cannot be had. */
static int
unix_socket(const char *path, bool listening)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		die(path);
	strcpy(address.sun_path, path);
	if (listening)
	{
		unlink(path);
		if (bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 ||
			listen(fd, 1024) < 0)
			die(path);
	}
	else if (connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0)
		die(path);
	return fd;
}

static void
link_open(int client, const char *target)
{
	Link	   *link = &links[nlinks++];

	memset(link, 0, sizeof(Link));
	link->fds[0] = client;
	link->fds[1] = unix_socket(target, false);
	for (int i = 0; i < 2; i++)
		link->flows[i].last = &link->flows[i].first;
}

/* Forgets what is on the way, too. The last link takes the place. */
static void
link_close(Link *link)
{
	for (int i = 0; i < 2; i++)
	{
		for (Chunk *chunk = link->flows[i].first, *next; chunk; chunk = next)
		{
			next = chunk->next;
			free(chunk);
		}
		close(link->fds[i]);
	}
	*link = links[--nlinks];
	/* The flow's end may point into the flow itself. */
	for (int i = 0; i < 2; i++)
		if (!link->flows[i].first)
			link->flows[i].last = &link->flows[i].first;
}

/* Takes what the sender has sent and puts it on the way. */
static void
flow_read(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];
	Chunk	   *chunk = malloc(sizeof(Chunk));
	ssize_t		n;

	if (!chunk)
		die("malloc");
	n = recv(link->fds[from], chunk->data, CHUNK_SIZE, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
	{
		free(chunk);
		return;
	}
	/* A reset arrives as an end. */
	flow->ended = n <= 0;
	chunk->next = NULL;
	chunk->due = now() + delay;
	chunk->start = 0;
	chunk->end = n > 0 ? n : 0;
	*flow->last = chunk;
	flow->last = &chunk->next;
}

/* Hands the receiver what is due, as far as it takes it. */
static void
flow_deliver(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];
	Chunk	   *chunk;
	int64_t		t = now();

	flow->blocked = false;
	while ((chunk = flow->first) && chunk->due <= t)
	{
		ssize_t		n;

		if (chunk->end == 0)
		{
			link->broken = true;
			return;
		}
		n = send(link->fds[1 - from], chunk->data + chunk->start,
				 chunk->end - chunk->start, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
		{
			flow->blocked = true;
			return;
		}
		if (n < 0)
		{
			link->broken = true;
			return;
		}
		chunk->start += n;
		if (chunk->start < chunk->end)
			continue;
		flow->first = chunk->next;
		if (!flow->first)
			flow->last = &flow->first;
		free(chunk);
	}
}

/* What to wait for; returns when the next chunk is due. */
static int64_t
fill_pollfds(struct pollfd *pollfds, int listener)
{
	int64_t		due = NEVER;

	pollfds[0].fd = listener;
	pollfds[0].events = nlinks < MAX_LINKS ? POLLIN : 0;
	for (int l = 0; l < nlinks; l++)
		for (int i = 0; i < 2; i++)
		{
			Flow	   *in = &links[l].flows[i];
			Flow	   *out = &links[l].flows[1 - i];
			struct pollfd *pollfd = &pollfds[1 + 2 * l + i];

			/* A negative descriptor is not polled: it would report its end. */
			pollfd->fd = in->ended && !out->blocked ? -1 : links[l].fds[i];
			pollfd->events = (in->ended ? 0 : POLLIN) |
				(out->blocked ? POLLOUT : 0);
			if (in->first && !in->blocked && in->first->due < due)
				due = in->first->due;
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
	if (ppoll(pollfds, 1 + 2 * nlinks, due == NEVER ? NULL : &timeout, NULL) < 0 &&
		errno != EINTR)
		die("ppoll");
}

int
main(int argc, char **argv)
{
	static struct pollfd pollfds[1 + 2 * MAX_LINKS];
	int			listener;

	if (argc != 4)
	{
		fprintf(stderr, "usage: delay MICROSECONDS LISTEN CONNECT\n");
		return 2;
	}
	delay = atol(argv[1]) * 1000;
	listener = unix_socket(argv[2], true);
	/* The kernel would be 50 microseconds late, to save wakeups. */
	prctl(PR_SET_TIMERSLACK, 1UL);

	for (;;)
	{
		int			polled = nlinks;

		wait_for(pollfds, fill_pollfds(pollfds, listener));
		for (int l = 0; l < polled; l++)
			for (int i = 0; i < 2; i++)
			{
				if (pollfds[1 + 2 * l + i].revents && !links[l].flows[i].ended)
					flow_read(&links[l], i);
				flow_deliver(&links[l], i);
			}
		/* Backwards, as closing moves the last link. */
		for (int l = nlinks - 1; l >= 0; l--)
			if (links[l].broken)
				link_close(&links[l]);
		if (pollfds[0].revents & POLLIN)
		{
			int			client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

			if (client >= 0)
				link_open(client, argv[3]);
		}
	}
}
