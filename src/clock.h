/*
 * clock.h
 *	  The clock by which dbpool waits and measures.
 *
 * Ticks are microseconds of the monotonic clock, which no one can set and which
 * all processes of a machine share.  A time of the day never meets them: only
 * views show one, and views.c makes it of Ticks just then.  scripts/lint keeps
 * PostgreSQL's timestamps out of everything else.
 *
 * A Ticks of 0 means "never" or "not yet"; the clock is never at 0.
 */
#ifndef DBPOOL_CLOCK_H
#define DBPOOL_CLOCK_H

#include <limits.h>
#include <time.h>

typedef int64 Ticks;

static inline Ticks
ticks_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64CONST(1000000) + now.tv_nsec / 1000;
}

static inline Ticks
ticks_plus_ms(Ticks from, int64 ms)
{
	return from + ms * 1000;
}

/* Milliseconds until then, rounded up, as the functions that wait want them. */
static inline long
ticks_left_ms(Ticks until)
{
	Ticks		left = until - ticks_now();

	return left <= 0 ? 0 : (long) Min((left + 999) / 1000, INT_MAX);
}

#endif							/* DBPOOL_CLOCK_H */
