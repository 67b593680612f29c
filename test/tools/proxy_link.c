/*
 * proxy_link.c: links and their flows: what comes is read, waits, and is delivered, or
 * is not.
 *
 * A link lives until both flows have ended and both receivers know, or both ends were
 * reset. Until then the flow to whom there is no way any more is thrown away.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy.h"

#define UNSENT_LOOK		1000000 /* nanoseconds */
#define UNSENT_MOST		INT64_C(5000000000)

Link	   *links[MOST_LINKS];
int			nlinks;
static int	opened;				/* links so far */
static int	pieces;
static uint64_t nreads;

/* --- sockets ---------------------------------------------------------------- */

static void
at_once(int fd)
{
	int			on = 1;

	/* fails with a Unix socket, which has no such thing */
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void
socket_reset(int fd)
{
	struct linger linger = {.l_onoff = 1};

	(void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* Would a reset throw away some of what was delivered? Not with a Unix socket. */
static bool
has_unsent(int fd)
{
	int			domain = 0;
	int			bytes = 0;
	socklen_t	length = sizeof(domain);

	return fd >= 0 &&
		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
		domain == AF_INET && ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

/* --- links ------------------------------------------------------------------ */

/* Throws away what is on the way, and what comes. */
static void
flow_drop(Flow *flow)
{
	for (Chunk *chunk = flow->first, *next; chunk; chunk = next)
	{
		next = chunk->next;
		free(chunk);
	}
	flow->first = NULL;
	flow->last = &flow->first;
	flow->delivered = flow->read;
	flow->dropping = true;
	flow->blocked = false;
	flow->nmarks = 0;
	if (flow->ended)
		flow->finished = true;
}

/* The link is of no use any more; it is freed at the end of the turn. */
static void
link_close(Link *link)
{
	link->closed = true;
	for (int i = 0; i < 2; i++)
	{
		flow_drop(&link->flows[i]);
		if (link->fds[i] >= 0)
			close(link->fds[i]);
		link->fds[i] = -1;
	}
}

/* Closes it when there is nothing left to tell anybody. */
static void
link_settle(Link *link)
{
	const Flow *flows = link->flows;

	if (flows[0].ended && flows[0].finished && flows[1].ended && flows[1].finished)
		link_close(link);
}

/* A client has come. */
void
link_open(int client, const char *target)
{
	Link	   *link = calloc(1, sizeof(Link));

	if (!link)
		die("calloc");
	link->number = ++opened;
	link->fds[CLIENT] = client;
	link->fds[SERVER] = connect_to(target);
	for (int i = 0; i < 2; i++)
		link->flows[i].last = &link->flows[i].first;
	link->flows[SERVER].parser.state = PARSER_HEADER;
	if (link->fds[SERVER] < 0)
	{
		put_event(link, -1, 0, "is refused", strerror(errno));
		socket_reset(client);
		free(link);
		return;
	}
	at_once(link->fds[CLIENT]);
	at_once(link->fds[SERVER]);
	links[nlinks++] = link;
	plan_link(link);
}

/* One end gets a reset; the other one hears nothing any more. */
static void
end_reset(Link *link, int end)
{
	if (link->fds[end] < 0)
		return;
	socket_reset(link->fds[end]);
	link->fds[end] = -1;
	for (int i = 0; i < 2; i++)
		flow_drop(&link->flows[i]);
	link->flows[end].ended = link->flows[end].finished = true;
	link->flows[1 - end].finished = true;
	link_settle(link);
}

/* One end sees the end of what comes to it, after all that was delivered. */
static void
end_fin(Link *link, int end)
{
	Flow	   *flow = &link->flows[1 - end];

	if (link->fds[end] >= 0 && !flow->finished)
		shutdown(link->fds[end], SHUT_WR);
	flow_drop(flow);
	flow->finished = true;
	link_settle(link);
}

void
link_act(Link *link, const Action *action)
{
	for (int end = 0; end < 2 && !link->closed; end++)
	{
		Flow	   *flow = &link->flows[1 - end];

		if (!action->to[end])
			continue;
		switch (action->kind)
		{
			case ACTION_RESET:
				end_reset(link, end);
				break;
			case ACTION_FIN:
				end_fin(link, end);
				break;
			case ACTION_DROP:
				flow_drop(flow);
				link_settle(link);
				break;
			case ACTION_STALL:
				flow->stalled_until = action->time == NEVER ? NEVER : now() + action->time;
				break;
			case ACTION_DELAY:
				flow->delay = action->time;
				break;
		}
	}
}

/* --- flows ------------------------------------------------------------------ */

/* Takes what the sender has sent and puts it on the way. */
void
flow_read(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];
	Chunk	   *chunk = malloc(sizeof(Chunk));
	size_t		most = pieces > 0 ? 1 + lot(~0, ~0, ~0, ++nreads) % pieces : CHUNK_SIZE;
	ssize_t		n;

	if (!chunk)
		die("malloc");
	n = recv(link->fds[from], chunk->data, most, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
	{
		free(chunk);
		return;
	}
	flow->ended = n <= 0;
	flow->reset = n < 0;
	chunk->next = NULL;
	chunk->due = now() + flow->delay;
	chunk->start = 0;
	chunk->end = n > 0 ? n : 0;
	*flow->last = chunk;
	flow->last = &chunk->next;
	if (n > 0)
		parse(link, from, chunk->data, n);
	else
		flow->judged = flow->read;
}

/* The end has come to its place: the receiver is told, if it is to hear of it. */
static void
flow_end(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];

	if (!flow->finished)
		put_event(link, from, 0, flow->reset ? "is reset" : "ends",
				  flow->dropping ? "nobody is told" : NULL);
	if (!flow->dropping && flow->reset)
	{
		end_reset(link, 1 - from);
		/* it is the sender who has reset it */
		link_close(link);
	}
	else if (!flow->dropping)
		end_fin(link, 1 - from);
	else
	{
		flow_drop(flow);
		flow->finished = true;
		link_settle(link);
	}
}

/*
 * The marks that have been reached fire. False when the flow is not to go on now: when
 * it is stalled, or the link closed, or a reset has to wait.
 */
static bool
flow_fire(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];

	while (flow->nmarks > 0 && flow->marks[0].pos <= flow->delivered)
	{
		const Action *action;

		if (flow->stalled_until > now())
			return false;
		if (plan_resets(&flow->marks[0]) && has_unsent(link->fds[1 - from]))
		{
			if (flow->unsent_since == 0)
				flow->unsent_since = now();
			if (now() - flow->unsent_since < UNSENT_MOST)
				return false;
			put_event(link, from, flow->marks[0].message, "does not arrive", NULL);
		}
		flow->unsent_since = 0;
		action = plan_fire(link, from, &flow->marks[0]);
		flow->nmarks--;
		memmove(flow->marks, flow->marks + 1, flow->nmarks * sizeof(Mark));
		if (action)
			link_act(link, action);
		if (link->closed)
			return false;
	}
	return flow->stalled_until <= now();
}

/* How much of a chunk may go on. */
static size_t
flow_most(const Flow *flow, const Chunk *chunk)
{
	int64_t		most = chunk->end - chunk->start;

	if (most > flow->judged - flow->delivered)
		most = flow->judged - flow->delivered;
	if (flow->nmarks > 0 && most > flow->marks[0].pos - flow->delivered)
		most = flow->marks[0].pos - flow->delivered;
	return most > 0 ? most : 0;
}

/* Hands the receiver what is due, as far as it takes it. */
void
flow_deliver(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];
	Chunk	   *chunk;
	int64_t		t = now();

	flow->blocked = false;
	while (!link->closed && flow_fire(link, from) && (chunk = flow->first) && chunk->due <= t)
	{
		ssize_t		n = flow_most(flow, chunk);

		if (chunk->end == 0)
		{
			flow_end(link, from);
			return;
		}
		if (n == 0)
			return;
		if (!flow->dropping)
			n = send(link->fds[1 - from], chunk->data + chunk->start, n,
					 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
		{
			flow->blocked = true;
			return;
		}
		if (n < 0)
		{
			/* it has gone, which what comes from there tells */
			flow_drop(flow);
			link_settle(link);
			return;
		}
		chunk->start += n;
		flow->delivered += n;
		if (chunk->start < chunk->end)
			continue;
		flow->first = chunk->next;
		if (!flow->first)
			flow->last = &flow->first;
		free(chunk);
	}
}

/* When something is to be done about a flow without anything coming. */
int64_t
flow_due(const Flow *flow)
{
	int64_t		due = NEVER;

	if (flow->unsent_since > 0)
		return now() + UNSENT_LOOK;
	if (flow->blocked)
		return NEVER;
	if (flow->first && (flow->first->end == 0 || flow_most(flow, flow->first) > 0))
		due = flow->first->due;
	if (flow->nmarks > 0 && flow->marks[0].pos <= flow->delivered)
		due = 0;
	if (due < flow->stalled_until)
		due = flow->stalled_until;
	return due;
}

/* --- what is done to all ---------------------------------------------------- */

/* Frees those that are closed. */
void
links_sweep(void)
{
	int			kept = 0;

	for (int l = 0; l < nlinks; l++)
	{
		if (links[l]->closed)
			free(links[l]);
		else
			links[kept++] = links[l];
	}
	nlinks = kept;
}

void
set_pieces(int most)
{
	pieces = most;
}

void
links_act(int number, const Action *action)
{
	for (int l = 0; l < nlinks; l++)
		if (!links[l]->closed && (number == 0 || links[l]->number == number))
			link_act(links[l], action);
}

void
links_resume(void)
{
	for (int l = 0; l < nlinks; l++)
		for (int i = 0; i < 2; i++)
			links[l]->flows[i].delay = links[l]->flows[i].stalled_until = 0;
}

void
links_forget_marks(void)
{
	for (int l = 0; l < nlinks; l++)
		for (int i = 0; i < 2; i++)
			links[l]->flows[i].nmarks = 0;
}

void
links_show_rule(int rule)
{
	for (int l = 0; l < nlinks; l++)
		plan_rule_on_link(links[l], rule);
}

void
links_print(FILE * out)
{
	fprintf(out, "seed %" PRIu64 "\nlinks %d, open %d\n", seed, opened, nlinks);
	for (int l = 0; l < nlinks; l++)
	{
		fprintf(out, "link %d to process %d", links[l]->number, links[l]->server_pid);
		for (int i = 0; i < 2; i++)
		{
			const Flow *flow = &links[l]->flows[i];

			fprintf(out, ", %s read %" PRId64 " delivered %" PRId64 " messages %" PRId64,
					i == CLIENT ? "frontend" : "backend", flow->read, flow->delivered,
					flow->parser.message.number);
			for (int kind = 0; kind < KINDS; kind++)
			{
				char		name[2];

				if (flow->parser.counts[kind] > 0)
					fprintf(out, " %s:%" PRId64, kind_name(kind, name),
							flow->parser.counts[kind]);
			}
		}
		putc('\n', out);
	}
}
