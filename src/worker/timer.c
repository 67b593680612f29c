/*
 * timer.c
 *	  Things that a worker does at a certain time: a heap of timers.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "worker/timer.h"

static pairingheap *timers;

/* A pairing heap has its greatest on top; ours is to be the earliest. */
static int
timer_compare(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	Ticks		x = pairingheap_const_container(Timer, node, a)->at;
	Ticks		y = pairingheap_const_container(Timer, node, b)->at;

	(void) arg;
	return x < y ? 1 : (x > y ? -1 : 0);
}

void
timer_init(Timer *timer, void (*fire) (void *owner), WorkRecovery recover,
		   void *owner)
{
	if (timers == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		timers = pairingheap_allocate(timer_compare, NULL);
		MemoryContextSwitchTo(old);
	}
	timer->armed = false;
	timer->at = 0;
	work_init(&timer->work, fire, recover, owner);
}

/* Fire at that time, whatever was set before. */
void
timer_set(Timer *timer, Ticks at)
{
	timer_stop(timer);
	timer->at = at;
	timer->armed = true;
	pairingheap_add(timers, &timer->node);
}

/*
 * Fire at that time or earlier.  Cheap when something earlier is set already;
 * for timers whose function looks for itself what is due and sets the next.
 */
void
timer_set_by(Timer *timer, Ticks at)
{
	if (!timer->armed || timer->at > at)
		timer_set(timer, at);
}

void
timer_stop(Timer *timer)
{
	if (timer->armed)
	{
		pairingheap_remove(timers, &timer->node);
		timer->armed = false;
	}
}

/* Disarm the earliest timer and return it if its time has come, else NULL. */
Timer *
timer_take_due(Ticks now)
{
	Timer	   *timer;

	if (timers == NULL || pairingheap_is_empty(timers))
		return NULL;
	timer = pairingheap_container(Timer, node, pairingheap_first(timers));
	if (timer->at > now)
		return NULL;
	timer_stop(timer);
	return timer;
}

/* Milliseconds until the next timer is due, or -1. */
long
timer_wait_ms(void)
{
	Timer	   *timer;

	if (timers == NULL || pairingheap_is_empty(timers))
		return -1;
	timer = pairingheap_container(Timer, node, pairingheap_first(timers));
	return ticks_left_ms(timer->at);
}
