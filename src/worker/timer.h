/*
 * timer.h
 *	  Things that a worker does at a certain time.
 */
#ifndef DBPOOL_TIMER_H
#define DBPOOL_TIMER_H

#include "dbpool.h"
#include "lib/pairingheap.h"
#include "utils/timestamp.h"

typedef struct Timer
{
	pairingheap_node node;		/* valid while armed */
	bool		armed;
	TimestampTz at;
	void		(*fire) (void *arg);
	void	   *arg;
} Timer;

extern void timer_init(Timer *timer, void (*fire) (void *arg), void *arg);
extern void timer_set(Timer *timer, TimestampTz at);
extern void timer_set_by(Timer *timer, TimestampTz at);
extern void timer_stop(Timer *timer);
extern bool timer_run_one(TimestampTz now);
extern long timer_wait_ms(void);

#endif							/* DBPOOL_TIMER_H */
