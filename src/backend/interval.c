/*
 * interval.c
 *	  Arguments that are intervals.
 */
#include "postgres.h"

#include <math.h>

#include "backend/client.h"

/*
 * An interval in milliseconds, rounded up; a month has 30 days.  -1 when it is negative,
 * or longer than an int has room for (24 days).
 */
int
interval_ms(const Interval *interval)
{
	double		ms = ceil(interval->time / 1000.0 +
						  (interval->day + interval->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0);

	return ms < 0 || ms > PG_INT32_MAX ? -1 : (int) ms;
}
