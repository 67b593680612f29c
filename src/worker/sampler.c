/*
 * sampler.c
 *	  The first worker writes samples of all pools, see ipc/samples.h.
 */
#include "postgres.h"

#include "ipc/samples.h"
#include "worker/worker.h"

static Timer span_end;

/* When the present span is over.  One that began before this process did may be so by now. */
void
sampler_watch(void)
{
	if (my_worker == 0)
		timer_set(&span_end, ticks_plus_ms(samples_began_at(), dbpool_history_interval));
}

static void
sampler_fire(void *owner)
{
	(void) owner;
	samples_take();
	sampler_watch();
}

static void
sampler_recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
	sampler_watch();
}

void
sampler_init(void)
{
	timer_init(&span_end, sampler_fire, sampler_recover, NULL);
	sampler_watch();
}
