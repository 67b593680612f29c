/*
 * histogram.c
 *	  src/ipc/histogram.c against what sorting says, without a server.
 *
 *	  histogram [SEED [VALUES]]
 *
 * Of five distributions, so many values each: at every rank the histogram is to be off by
 * 3.1 % at most. That of two halves, put together, is to be that of all. A reset is
 * obeyed. Prints the largest error of each, and what it costs to count a value; fails by
 * what goes wrong first.
 */
#include "postgres.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* What the server's library has, and this does not link to. */
#undef printf
#undef fprintf
#undef qsort
#undef Assert
#define Assert(condition) assert(condition)
#undef AssertPointerAlignment
#define AssertPointerAlignment(pointer, alignment) assert((uintptr_t) (pointer) % (alignment) == 0)

#include "ipc/histogram.c"

#define MOST_ERROR	0.031
#define ROUNDS		10

static uint64 state;

static double
uniform(void)
{
	/* xorshift64*, by Marsaglia and Vigna */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return ((state * UINT64CONST(2685821657736338717)) >> 11) * (1.0 / (UINT64CONST(1) << 53));
}

/* Box and Muller's */
static double
normal(void)
{
	return sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform());
}

static double
even(void)
{
	return 1 + uniform() * 3600e6;
}

static double
exponential(void)
{
	return 1 - 700 * log(1 - uniform());
}

static double
lognormal(void)
{
	return exp(7 + 2 * normal());
}

/* Few are long, but those are very long. */
static double
pareto(void)
{
	return 20 / pow(1 - uniform(), 1 / 0.9);
}

/* Answers of a cache, of a disk, and of what hangs. */
static double
mixed(void)
{
	double		which = uniform();

	return which < 0.9 ? 3 + 60 * uniform() : which < 0.999 ? 8000 + 500 * normal() : 30e6 + uniform();
}

static const struct
{
	const char *name;
	double		(*value) (void);
}			distributions[] = {
	{"even", even},
	{"exponential", exponential},
	{"lognormal", lognormal},
	{"pareto", pareto},
	{"mixed", mixed},
};

static void
fail(const char *what, int64 value)
{
	fprintf(stderr, "%s: " INT64_FORMAT "\n", what, value);
	exit(1);
}

static int
compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

static void
check_buckets(void)
{
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		if (histogram_bucket(first_us(i)) != i || histogram_bucket(first_us(i + 1) - 1) != i)
			fail("a bucket has other ends", i);
	}
	if (histogram_bucket(-1) != 0 || histogram_bucket(PG_INT64_MAX) != HISTOGRAM_BUCKETS - 1 ||
		histogram_bucket(INT64CONST(3600000000)) == HISTOGRAM_BUCKETS - 1)
		fail("what is too short or too long has the wrong bucket", 0);
}

/* Returns the largest error at any rank. */
static double
check_quantiles(const HistogramSum *sum, const int64 *sorted, int n)
{
	double		most = 0;
	uint64		seen = 0;
	int			bucket = -1;

	for (int i = 0; i < n; i++)
	{
		double		value;
		double		error;

		while (seen <= (uint64) i)
			seen += sum->counts[++bucket];
		value = histogram_value_us(bucket);
		error = sorted[i] == 0 ? value : fabs(value - sorted[i]) / sorted[i];
		most = Max(most, error);

		/*
		 * and by the function itself, now and then; half a rank less, as it
		 * rounds up
		 */
		if (i % Max(n / 1000, 1) == 0 && histogram_quantile_us(sum, (i + 0.5) / n) != value)
			fail("a quantile is another one's", i);
	}
	return most;
}

static void
check_distribution(const char *name, double (*value) (void), int n)
{
	static Histogram all;
	static Histogram halves[2];
	static HistogramSum sum;
	static HistogramSum merged;
	int64	   *values = malloc(sizeof(int64) * n);
	uint64		total = 0;
	double		error;
	double		best = 1e9;

	histogram_init(&all);
	histogram_init(&halves[0]);
	histogram_init(&halves[1]);
	for (int i = 0; i < n; i++)
	{
		double		drawn = value();

		values[i] = drawn < 0 ? 0 : (int64) Min(drawn, (double) HISTOGRAM_MOST_US);
		total += values[i];
		histogram_record(&halves[i % 2], values[i]);
	}
	for (int round = 0; round < ROUNDS; round++)
	{
		clock_t		start = clock();

		/* as others may want it */
		histogram_reset(&all);
		for (int i = 0; i < n; i++)
			histogram_record(&all, values[i]);
		best = Min(best, (clock() - start) * 1e9 / CLOCKS_PER_SEC / n);
	}
	memset(&sum, 0, sizeof(sum));
	memset(&merged, 0, sizeof(merged));
	histogram_add_to(&sum, &all);
	histogram_add_to(&merged, &halves[0]);
	histogram_add_to(&merged, &halves[1]);
	if (sum.n != (uint64) n || sum.sum_us != total)
		fail("the histogram has other values", sum.n);
	if (memcmp(&sum, &merged, sizeof(sum)) != 0)
		fail("two halves are not the whole", merged.n);

	qsort(values, n, sizeof(int64), compare);
	error = check_quantiles(&sum, values, n);
	printf("%-12s %d values, largest error %.2f %%, %.1f ns each\n", name, n, error * 100, best);
	if (error > MOST_ERROR)
		fail("too large an error", 0);

	/* wanted, and not obeyed so far; then obeyed, with the next value */
	histogram_reset(&all);
	memset(&sum, 0, sizeof(sum));
	histogram_add_to(&sum, &all);
	if (sum.n != 0 || !isnan(histogram_quantile_us(&sum, 0.5)))
		fail("a histogram that was reset shows values", sum.n);
	histogram_record(&all, 5);
	histogram_add_to(&sum, &all);
	if (sum.n != 1 || sum.sum_us != 5 || histogram_quantile_us(&sum, 0.999) != 5)
		fail("a reset was not obeyed", sum.n);
	free(values);
}

int
main(int argc, char **argv)
{
	uint64		seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	int			n = argc > 2 ? atoi(argv[2]) : 100000;

	if (seed == 0)
		seed = (uint64) time(NULL);
	printf("seed " UINT64_FORMAT "\n", seed);
	state = seed * UINT64CONST(2654435769) + 1;
	check_buckets();
	for (size_t i = 0; i < lengthof(distributions); i++)
		check_distribution(distributions[i].name, distributions[i].value, n);
	return 0;
}
