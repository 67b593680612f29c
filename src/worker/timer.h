/*
 * timer.h
 *	  Things that a worker does at a certain time.
 */
#ifndef DBPOOL_TIMER_H
#define DBPOOL_TIMER_H

#include "clock.h"
#include "dbpool.h"
#include "lib/pairingheap.h"
#include "worker/work.h"

typedef struct Timer
{
	pairingheap_node node;		/* valid while armed */
	bool		armed;
	Ticks		at;
	Work		work;			/* to be done then */
} Timer;

extern void timer_init(Timer *timer, void (*fire) (void *owner),
					   WorkRecovery recover, void *owner);
extern void timer_set(Timer *timer, Ticks at);
extern void timer_set_by(Timer *timer, Ticks at);
extern void timer_stop(Timer *timer);
extern Timer *timer_take_due(Ticks now);
extern long timer_wait_ms(void);

#endif							/* DBPOOL_TIMER_H */
