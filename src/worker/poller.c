/*
 * poller.c
 *	  Sockets that a worker waits for, see poller.h.
 *
 * A wait event set of PostgreSQL cannot lose a member, and libpq opens and closes
 * sockets as it likes.  So there is one descriptor of the kernel's, epoll or
 * kqueue, which has all sockets, and of which the loop's wait event set has but
 * that one: to add, to change and to remove a socket costs one call each.
 *
 * libpq may close a socket by itself, which the kernel then drops, and its number
 * may be another one's at once.  So what the kernel reports names the number and
 * the serial that its entry had then: it is for that entry or for none.
 *
 * A socket that is ready is reported again and again: whoever does not want to hear
 * of it for now says so by poll_want().
 */
#include "postgres.h"

#include <unistd.h>
#ifdef HAVE_SYS_EPOLL_H
#include <sys/epoll.h>
#elif defined(HAVE_SYS_EVENT_H)
#include <sys/event.h>
#else
#error "dbpool needs epoll or kqueue"
#endif

#include "utils/memutils.h"

#include "worker/poller.h"
#include "worker/worker.h"

/* Most sockets that one turn hears of; the others are the next turn's. */
#define EVENTS_MOST		1024

static int	kernel_fd = -1;

/* By the number of a socket: whose it is, or NULL. */
static PollEntry **entries;
static int	nentries;

static uint32 last_serial;

/* --- epoll ------------------------------------------------------------------- */

#ifdef HAVE_SYS_EPOLL_H

static struct epoll_event events[EVENTS_MOST];

static int
kernel_open(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

/*
 * Wait for the socket as its entry says.  known: it has been waited for, so far as we
 * know; libpq may have closed it since, and opened another one of the same number.
 */
static bool
kernel_set(const PollEntry *entry, bool known)
{
	struct epoll_event event = {0};

	if (entry->wants & WL_SOCKET_READABLE)
		event.events |= EPOLLIN;
	if (entry->wants & WL_SOCKET_WRITEABLE)
		event.events |= EPOLLOUT;
	if (entry->wants & WL_SOCKET_CLOSED)
		event.events |= EPOLLRDHUP;
	event.data.u64 = ((uint64) entry->serial << 32) | (uint32) entry->sock;
	if (known && epoll_ctl(kernel_fd, EPOLL_CTL_MOD, entry->sock, &event) == 0)
		return true;
	return epoll_ctl(kernel_fd, EPOLL_CTL_ADD, entry->sock, &event) == 0;
}

/* The kernel may have dropped it already, with the socket. */
static void
kernel_remove(const PollEntry *entry)
{
	(void) epoll_ctl(kernel_fd, EPOLL_CTL_DEL, entry->sock, NULL);
}

static int
kernel_look(void)
{
	return epoll_wait(kernel_fd, events, EVENTS_MOST, 0);
}

/* Errors are found by whoever reads or writes: as WaitEventSetWait() has it. */
static uint32
kernel_event(int i, pgsocket *sock, uint32 *serial)
{
	uint32		what = events[i].events;
	uint32		is = 0;

	*sock = (pgsocket) (uint32) events[i].data.u64;
	*serial = (uint32) (events[i].data.u64 >> 32);
	if (what & (EPOLLIN | EPOLLERR | EPOLLHUP))
		is |= WL_SOCKET_READABLE;
	if (what & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		is |= WL_SOCKET_WRITEABLE;
	if (what & (EPOLLRDHUP | EPOLLERR | EPOLLHUP))
		is |= WL_SOCKET_CLOSED;
	return is;
}

/* --- kqueue ------------------------------------------------------------------ */

#else

static struct kevent events[EVENTS_MOST];

static int
kernel_open(void)
{
	return kqueue();
}

static bool
kernel_filter(const PollEntry *entry, int filter, bool wanted, uint32 fflags, int64 data)
{
	struct kevent change;

	EV_SET(&change, entry->sock, filter, wanted ? EV_ADD : EV_DELETE, fflags, data,
		   (void *) (uintptr_t) entry->serial);
	return kevent(kernel_fd, &change, 1, NULL, 0, NULL) == 0 || !wanted;
}

/*
 * That the other end has closed comes with the filter for reading, whatever the
 * least number of bytes for which that is to tell.
 */
static bool
kernel_set(const PollEntry *entry, bool known)
{
	bool		reads = (entry->wants & WL_SOCKET_READABLE) != 0;
	bool		closes = (entry->wants & WL_SOCKET_CLOSED) != 0;

	return kernel_filter(entry, EVFILT_READ, reads || closes, NOTE_LOWAT,
						 reads ? 1 : INT_MAX) &&
		kernel_filter(entry, EVFILT_WRITE, (entry->wants & WL_SOCKET_WRITEABLE) != 0, 0, 0);
}

static void
kernel_remove(const PollEntry *entry)
{
	(void) kernel_filter(entry, EVFILT_READ, false, 0, 0);
	(void) kernel_filter(entry, EVFILT_WRITE, false, 0, 0);
}

static int
kernel_look(void)
{
	struct timespec now = {0, 0};

	return kevent(kernel_fd, NULL, 0, events, EVENTS_MOST, &now);
}

static uint32
kernel_event(int i, pgsocket *sock, uint32 *serial)
{
	*sock = (pgsocket) events[i].ident;
	*serial = (uint32) (uintptr_t) events[i].udata;
	if (events[i].filter == EVFILT_WRITE)
		return WL_SOCKET_WRITEABLE;
	return WL_SOCKET_READABLE | (events[i].flags & EV_EOF ? WL_SOCKET_CLOSED : 0);
}

#endif

/* --- for all --------------------------------------------------------------------- */

/* Once per worker process. */
void
poller_start(void)
{
	kernel_fd = kernel_open();
	if (kernel_fd < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not make what dbpool's worker waits for sockets with: %m")));
}

/* Readable when a socket is ready. */
int
poller_fd(void)
{
	return kernel_fd;
}

/* Do the work of all sockets that are ready, each under its owner's guard. */
void
poller_run(void)
{
	int			n = kernel_look();

	if (n < 0 && errno != EINTR)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("dbpool's worker could not wait for sockets: %m")));
	for (int i = 0; i < n; i++)
	{
		pgsocket	sock;
		uint32		serial;
		uint32		is = kernel_event(i, &sock, &serial);
		PollEntry  *entry = sock < nentries ? entries[sock] : NULL;

		if (entry == NULL || entry->serial != serial || (is & entry->wants) == 0)
			continue;
		entry->events = is & entry->wants;
		work_do(&entry->ready);
	}
}

/* One without a socket; ready is the work to be done when it has one that is. */
void
poll_init(PollEntry *entry, void (*ready) (void *owner), WorkRecovery recover,
		  void *owner)
{
	entry->sock = PGINVALID_SOCKET;
	entry->wants = 0;
	entry->events = 0;
	entry->serial = 0;
	work_init(&entry->ready, ready, recover, owner);
}

/* The entry is to have no socket.  Throws nothing. */
void
poll_forget(PollEntry *entry)
{
	if (entry->sock >= 0 && entry->sock < nentries && entries[entry->sock] == entry)
	{
		kernel_remove(entry);
		entries[entry->sock] = NULL;
	}
	entry->sock = PGINVALID_SOCKET;
	entry->wants = 0;
}

static void
grow_entries(pgsocket sock)
{
	int			n = Max(64, nentries);
	PollEntry **larger;

	while (n <= sock)
		n *= 2;
	larger = MemoryContextAllocZero(worker_context, sizeof(PollEntry *) * n);
	if (entries != NULL)
	{
		memcpy(larger, entries, sizeof(PollEntry *) * nentries);
		pfree(entries);
	}
	entries = larger;
	nentries = n;
}

/*
 * The entry has a socket, perhaps another one than before, be it of the same
 * number; or the same, waited for otherwise.
 */
void
poll_socket(PollEntry *entry, pgsocket sock, uint32 wants)
{
	if (entry->sock != sock || wants == 0)
		poll_forget(entry);
	entry->sock = sock;
	entry->wants = wants;
	entry->serial = ++last_serial;
	if (sock == PGINVALID_SOCKET || wants == 0)
		return;
	if (sock >= nentries)
		grow_entries(sock);
	if (!kernel_set(entry, entries[sock] == entry))
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("dbpool's worker could not wait for a socket: %m")));
	entries[sock] = entry;
}

/* Change what the entry waits for, whose socket is the same. */
void
poll_want(PollEntry *entry, uint32 wants)
{
	Assert(wants != 0);
	if (entry->wants != wants)
		poll_socket(entry, entry->sock, wants);
}
