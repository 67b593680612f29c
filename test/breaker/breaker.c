/*
 * breaker.c
 *	  src/ipc/endpoint.c by a clock of its own, without a server.
 *
 *	  breaker [SEED [ROUNDS]]
 *
 * Holds the breaker to what endpoint.h says of it: what opens it and what does not, for
 * how long, who may probe, how many may log in as it closes; first case by case, then for
 * so many rounds of things that happen at random.  Prints how often a remote that closes
 * all its connections is asked within a minute; fails by what goes wrong first.
 */
#include "postgres.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What the server's library has, and this does not link to. */
#undef printf
#undef fprintf
#undef Assert
#define Assert(condition) assert(condition)
#undef AssertPointerAlignment
#define AssertPointerAlignment(pointer, alignment) assert((uintptr_t) (pointer) % (alignment) == 0)
#undef AssertMacro
#define AssertMacro(condition) ((void) 0)

#include "ipc/endpoint.c"
#include "ipc/histogram.c"

/* --- what endpoint.c needs of the server; there is one process here ------------------------- */

static PoolShared pool;
static DbpoolShared shared = {.npools = 1};

DbpoolShared *dbpool_shared = &shared;
int			dbpool_max_pools = 4;
int			dbpool_max_connections_per_endpoint = 0;

bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	return true;
}

void
LWLockRelease(LWLock *lock)
{
}

int
s_lock(volatile slock_t *lock, const char *file, int line, const char *func)
{
	fprintf(stderr, "a mutex is taken twice: %s, line %d\n", file, line);
	exit(1);
}

Size
mul_size(Size a, Size b)
{
	return a * b;
}

PoolShared *
shmem_pool(int index)
{
	return &pool;
}

/* --- until here ----------------------------------------------------------------------------- */

#define SECOND		INT64CONST(1000000)

static const EndpointEntry as_pool = {0};
static const EndpointEntry as_probe = {.probe = true};
static const EndpointEntry as_last_probe = {.probe = true,.last = true};
static const EndpointEntry as_awaited_probe = {.probe = true,.last = true,.awaited = true};

/* Far from 0, as a machine's is. */
static Ticks now = 1000 * SECOND;
static int	it;
static EndpointShared *entry;

static void
fail(const char *what, int64 value)
{
	fprintf(stderr, "%s: " INT64_FORMAT "\n", what, value);
	exit(1);
}

static int
drawn(int below)
{
	return (int) (pg_prng_double(&pg_global_prng_state) * below);
}

/* Another one, of which nothing is known. */
static void
start(void)
{
	static int	made;
	char		port[ENDPOINT_PORT_BYTES];

	if (entry != NULL)
		endpoint_unuse(it);
	snprintf(port, sizeof(port), "%d", ++made);
	it = endpoint_use("host", port, false);
	if (it == ENDPOINT_NONE)
		fail("there is no entry left", made);
	entry = endpoint_shared(it);
	if (entry->state != ENDPOINT_CLOSED || entry->in_row != 0 || entry->conns != 0)
		fail("an entry has something of the one before", made);
	now += SECOND;
}

static EndpointVerdict
look(EndpointEntry how)
{
	Ticks		until;

	return endpoint_look(it, how, now, &until);
}

static void
enter(EndpointEntry how)
{
	if (endpoint_enter(it, how, 0, now) != ENDPOINT_ENTERED)
		fail("nobody may log in, in state", entry->state);
}

static void
fails(EndpointEntry how, EndpointCost cost)
{
	enter(how);
	endpoint_failed(it, how.probe, cost, "it fails", now);
	endpoint_exit(it);
}

static void
answers(EndpointEntry how)
{
	enter(how);
	endpoint_answered(it, how.probe, ENDPOINT_PRIMARY, now);
	endpoint_exit(it);
}

static void
is_in_state(EndpointState state, const char *when)
{
	if (entry->state != state)
	{
		fprintf(stderr, "it is %s in place of %s %s\n", endpoint_state_name(entry->state), endpoint_state_name(state), when);
		exit(1);
	}
}

static void
open_it(void)
{
	for (int i = 0; i < ENDPOINT_IN_ROW; i++)
		fails(as_pool, ENDPOINT_COST_SOME);
	is_in_state(ENDPOINT_OPEN, "after failures in a row");
}

static void
check_in_row(void)
{
	start();
	for (int round = 0; round < 100; round++)
	{
		for (int i = 1; i < ENDPOINT_IN_ROW; i++)
			fails(as_pool, ENDPOINT_COST_SOME);
		is_in_state(ENDPOINT_CLOSED, "one failure before it opens");
		now += ENDPOINT_WINDOW_S * SECOND;	/* or half of them are too many */
		answers(as_pool);
	}
	now += ENDPOINT_WINDOW_S * SECOND;
	open_it();

	/* of many that were under way the one that opens it counts, and no other */
	start();
	for (int i = 0; i < 4 * ENDPOINT_IN_ROW; i++)
		enter(as_pool);
	for (int i = 0; i < 4 * ENDPOINT_IN_ROW; i++)
	{
		endpoint_failed(it, false, ENDPOINT_COST_SOME, "it fails", now);
		endpoint_exit(it);
	}
	if (entry->opened != 1 || entry->times_opened != 1 || entry->next_at > now + 1.21 * SECOND)
		fail("logins that were under way count as probes", entry->opened);

	start();
	for (int i = 1; i < ENDPOINT_IN_ROW; i++)
		endpoint_lost(it, "it is lost", now);
	is_in_state(ENDPOINT_CLOSED, "one loss before it is doubted");
	endpoint_lost(it, "it is lost", now);
	is_in_state(ENDPOINT_HALF_OPEN, "after losses in a row");
	if (entry->allowed != 1)
		fail("after losses in a row more than one may log in at first", entry->allowed);
}

/* Of n logins within so many seconds so many fail, never too many in a row. */
static void
check_part(int n, int bad, int within_s, EndpointState state)
{
	int			failed = 0;

	start();
	now += SECOND - now % SECOND;
	for (int i = 0; i < n && entry->state == ENDPOINT_CLOSED; i++)
	{
		/* as even as can be; the last one fails */
		if ((i + 1) * bad / n > failed)
		{
			fails(as_pool, ENDPOINT_COST_SOME);
			failed++;
		}
		else
			answers(as_pool);
		if (i < n - 1)
			now += within_s * SECOND / n;
	}
	is_in_state(state, "after part of its logins have failed");
}

static void
check_half(void)
{
	check_part(ENDPOINT_WINDOW_LEAST, ENDPOINT_WINDOW_LEAST / 2, ENDPOINT_WINDOW_S, ENDPOINT_OPEN);
	check_part(ENDPOINT_WINDOW_LEAST, ENDPOINT_WINDOW_LEAST / 2 - 1, 1, ENDPOINT_CLOSED);
	check_part(ENDPOINT_WINDOW_LEAST - 2, ENDPOINT_WINDOW_LEAST / 2 - 1, 1, ENDPOINT_CLOSED);
	check_part(ENDPOINT_WINDOW_LEAST, ENDPOINT_WINDOW_LEAST / 2, 2 * ENDPOINT_WINDOW_S, ENDPOINT_CLOSED);
	check_part(1000, 500, 5, ENDPOINT_OPEN);

	/* what is too old does not count, though nothing came between */
	check_part(ENDPOINT_WINDOW_LEAST - 2, ENDPOINT_WINDOW_LEAST / 2 - 1, 1, ENDPOINT_CLOSED);
	now += (ENDPOINT_WINDOW_S + 5) * SECOND;
	answers(as_pool);
	fails(as_pool, ENDPOINT_COST_SOME);
	is_in_state(ENDPOINT_CLOSED, "with most failures long ago");
	check_part(1000, 480, 5, ENDPOINT_CLOSED);
}

/* The kth time that it is open lasts for 1 s × 2^k, a minute at most, more or less by a fifth. */
static void
check_durations(void)
{
	enum
	{
		TIMES = 9,
		DRAWS = 2000
	};
	double		sum[TIMES] = {0};
	double		least[TIMES];
	double		most[TIMES] = {0};

	for (int k = 0; k < TIMES; k++)
		least[k] = 1e9;
	for (int draw = 0; draw < DRAWS; draw++)
	{
		start();
		open_it();
		for (int k = 0; k < TIMES; k++)
		{
			double		part = (entry->next_at - now) / 1000.0 / Min(60000, 1000 << k);

			sum[k] += part;
			least[k] = Min(least[k], part);
			most[k] = Max(most[k], part);

			/*
			 * before that nobody who has another may enter, the probe not
			 * either
			 */
			now = entry->next_at - 1;
			if (look(as_pool) != ENDPOINT_IS_OUT || look(as_probe) != ENDPOINT_IS_OUT)
				fail("somebody enters before it is due, time", k);
			now = entry->next_at;
			if (look(as_pool) != ENDPOINT_IS_OUT)
				fail("somebody enters who does not probe, time", k);
			fails(as_probe, ENDPOINT_COST_SOME);
		}
	}
	for (int k = 0; k < TIMES; k++)
	{
		if (least[k] < 0.799 || most[k] > 1.201 || fabs(sum[k] / DRAWS - 1) > 0.02)
			fail("it is open for too long or too short, time", k);
		if (least[k] > 0.82 || most[k] < 1.18)
			fail("it is open for nearly the same each time, time", k);
	}
}

/*
 * Who has no other probes as often as that may cost the remote; who has one does not wait longer
 * for that.
 */
static void
check_last(void)
{
	for (int round = 0; round < 100; round++)
	{
		Ticks		due;

		start();
		open_it();
		for (int k = 0; k < 4; k++)
		{
			now = entry->next_at;
			fails(as_probe, ENDPOINT_COST_SOME);
		}
		due = entry->next_at;

		/*
		 * sooner still if somebody waits, though it costs the remote
		 * something
		 */
		now = entry->next_awaited_at - 1;
		if (now - entry->failed_at < 0.79 * ENDPOINT_COST_LITTLE * 1000 || now - entry->failed_at > 1.21 * ENDPOINT_COST_LITTLE * 1000)
			fail("who waits has it probed too soon or too late", now - entry->failed_at);
		if (look(as_awaited_probe) != ENDPOINT_IS_OUT)
			fail("who waits has it probed before it is due", entry->next_awaited_at);
		now++;
		if (look(as_last_probe) != ENDPOINT_IS_OUT || look(as_awaited_probe) != ENDPOINT_ENTERED)
			fail("who waits is not served first", entry->next_last_at - now);
		for (now = entry->next_last_at; now < due; now = entry->next_last_at)
		{
			int64		ms;

			if (look(as_probe) != ENDPOINT_IS_OUT)
				fail("it is due for all", due - now);
			fails(as_last_probe, ENDPOINT_COST_NOTHING);
			ms = (entry->next_last_at - now) / 1000;
			if (entry->next_at != due || entry->opened != 5)
				fail("an early probe has all others wait, us", entry->next_at - due);
			if (ms < 0.79 * ENDPOINT_COST_NOTHING || ms > 1.21 * ENDPOINT_COST_NOTHING)
				fail("an early probe comes too soon or too late, ms", ms);
		}
	}
}

/* As it closes 1, 2, 4, ... log in at a time. */
static void
check_return(void)
{
	start();
	open_it();
	now = entry->next_at;
	answers(as_probe);
	is_in_state(ENDPOINT_HALF_OPEN, "after a probe was answered");
	if (entry->allowed != 1)
		fail("after a probe so many may log in", entry->allowed);
	for (int allowed = 1; allowed < ENDPOINT_ALLOWED_MOST; allowed *= 2)
	{
		for (int i = 0; i < allowed; i++)
			enter(as_pool);
		if (look(as_pool) != ENDPOINT_IS_CROWDED || endpoint_enter(it, as_pool, 0, now) == ENDPOINT_ENTERED)
			fail("one more may log in than", allowed);
		for (int i = 0; i < allowed; i++)
			endpoint_nothing_learned(it, false, now), endpoint_exit(it);
		if (entry->allowed != allowed)
			fail("what teaches nothing allows more", entry->allowed);
		answers(as_pool);
	}
	is_in_state(ENDPOINT_CLOSED, "after enough answers");
	if (entry->opened != 0)
		fail("it remembers failed probes", entry->opened);

	/* who takes very long to log in does not keep the others out */
	start();
	open_it();
	now = entry->next_at;
	answers(as_probe);
	enter(as_pool);
	if (look(as_pool) != ENDPOINT_IS_CROWDED)
		fail("two log in after one answer", entry->logins);
	now += ENDPOINT_SLOW_MS * INT64CONST(1000);
	answers(as_pool);
	answers(as_pool);
	endpoint_nothing_learned(it, false, now);
	endpoint_exit(it);

	/* one failure on the way opens it again, for longer */
	start();
	open_it();
	now = entry->next_at;
	answers(as_probe);
	fails(as_pool, ENDPOINT_COST_SOME);
	is_in_state(ENDPOINT_OPEN, "after it has failed half-open");
	if (entry->next_at - now < 1.59 * SECOND)
		fail("it is open for less than twice as long, us", entry->next_at - now);

	/* calm: who does not want more closes it */
	now = entry->next_at;
	answers(as_probe);
	now += ENDPOINT_CALM_MS * INT64CONST(1000) - 1;
	look(as_pool);
	is_in_state(ENDPOINT_HALF_OPEN, "shortly before it is calm");
	now++;
	look(as_pool);
	is_in_state(ENDPOINT_CLOSED, "when it is calm");
}

/* An outage begins anew when the one before is long over, also if nobody has looked since. */
static void
check_next_outage(void)
{
	start();
	open_it();
	for (int k = 0; k < 5; k++)
	{
		now = entry->next_at;
		fails(as_probe, ENDPOINT_COST_SOME);
	}
	now = entry->next_at;
	enter(as_probe);
	endpoint_answered(it, true, ENDPOINT_PRIMARY, now);
	now += ENDPOINT_CALM_MS * INT64CONST(1000);
	endpoint_lost(it, "it is lost", now);
	endpoint_exit(it);
	for (int i = 1; i < ENDPOINT_IN_ROW; i++)
		fails(as_pool, ENDPOINT_COST_SOME);
	is_in_state(ENDPOINT_OPEN, "in the next outage");
	if (entry->next_at > now + 1.21 * SECOND)
		fail("it is open for as long as after the one before, us", entry->next_at - now);
}

static void
check_probe(void)
{
	start();
	open_it();
	now = entry->next_at;
	enter(as_probe);
	if (endpoint_enter(it, as_probe, 1, now) != ENDPOINT_IS_OUT || endpoint_enter(it, as_last_probe, 1, now) != ENDPOINT_IS_OUT)
		fail("two probe", entry->prober);
	/* it takes very long */
	now += ENDPOINT_SLOW_MS * INT64CONST(1000) - 1;
	if (look(as_probe) != ENDPOINT_IS_OUT)
		fail("two probe too soon", entry->prober);
	now++;
	enter(as_probe);
	if (look(as_probe) != ENDPOINT_IS_OUT)
		fail("three probe", entry->prober);
	endpoint_nothing_learned(it, true, now);
	endpoint_exit(it);
	now = entry->next_at;
	endpoint_nothing_learned(it, true, now);
	endpoint_exit(it);
	now = entry->next_at;
	enter(as_probe);
	/* the worker ends: another one takes over at once */
	endpoint_give_back(it, 0, 1, 1, now);
	entry->users++;				/* that of give_back was another worker's */
	if (entry->conns != 0 || entry->logins != 0)
		fail("a worker has left connections", entry->conns);
	enter(as_probe);
	endpoint_nothing_learned(it, true, now);
	endpoint_exit(it);
	if (look(as_probe) != ENDPOINT_IS_OUT || look(as_awaited_probe) != ENDPOINT_IS_OUT)
		fail("who has learned nothing probes again at once", 0);
	is_in_state(ENDPOINT_OPEN, "after a probe that has taught nothing");

	/* nobody probes for long: the next one may enter */
	now = entry->next_at + ENDPOINT_FORSAKEN_MS * INT64CONST(1000) - 1;
	if (look(as_pool) != ENDPOINT_IS_OUT)
		fail("it is forsaken too early", 0);
	now++;
	enter(as_pool);
	is_in_state(ENDPOINT_HALF_OPEN, "when somebody has entered one that is forsaken");
	endpoint_nothing_learned(it, false, now);
	endpoint_exit(it);
}

/*
 * Somebody asks every millisecond for a minute, of a remote that accepts and closes.  Returns
 * how often it was asked.
 */
static int
attempts_in_a_minute(bool last)
{
	int			n = 0;
	Ticks		end;

	start();
	end = now + 60 * SECOND;
	for (; now < end; now += 1000)
	{
		EndpointEntry how = {.last = last,.probe = entry->state == ENDPOINT_OPEN};

		if (look(how) != ENDPOINT_ENTERED)
			continue;
		fails(how, ENDPOINT_COST_SOME);
		n++;
	}
	return n;
}

static void
check_attempts(void)
{
	int			most = 0;
	int			most_last = 0;

	for (int round = 0; round < 200; round++)
	{
		int			n = attempts_in_a_minute(false);
		int			n_last = attempts_in_a_minute(true);

		most = Max(most, n);
		most_last = Max(most_last, n_last);
	}
	if (most_last > 20 || most > most_last)
		fail("a remote that closes all connections is asked too often in a minute", most_last);
	printf("in a minute it is asked %d times at most, %d times when there is no other\n", most, most_last);
}

/* --- at random ------------------------------------------------------------------------------ */

/* Who is logging in. */
static struct
{
	bool		probe;
	bool		last;
}			login[64];
static int	nlogins;
static int	idle;				/* connections that are open */

static void
one_enters(void)
{
	EndpointEntry how = {.probe = drawn(2) == 0,.last = drawn(2) == 0};
	EndpointShared before;
	EndpointVerdict seen;
	Ticks		due;

	if (nlogins == lengthof(login))
		return;
	how.awaited = how.last && drawn(2) == 0;
	seen = look(how);
	before = *entry;			/* what look() has found out is in there */
	due = how.awaited ? before.next_awaited_at : how.last ? before.next_last_at : before.next_at;
	if (endpoint_enter(it, how, 0, now) != seen)
		fail("who enters is told other than who looks", seen);
	if (seen == ENDPOINT_IS_FULL)
		fail("it is full without a limit", entry->conns);
	if (seen != ENDPOINT_ENTERED)
		return;
	if (before.state == ENDPOINT_OPEN && (now < due || (before.prober != 0 && !is_slow(&before, now))))
		fail("somebody enters before it is due", due - now);
	if (before.state == ENDPOINT_OPEN && !how.probe && now < ticks_plus_ms(due, ENDPOINT_FORSAKEN_MS))
		fail("somebody enters who does not probe", due - now);
	if (before.state != ENDPOINT_OPEN && how.probe)
		fail("somebody probes what is not open", before.state);
	if (before.state == ENDPOINT_HALF_OPEN && before.logins >= before.allowed && !is_slow(&before, now))
		fail("more log in than may", before.logins);
	login[nlogins].probe = how.probe;
	login[nlogins++].last = how.last;
}

static void
one_ends(int chance_of_failure)
{
	int			i;
	bool		probe;

	if (nlogins == 0)
		return;
	i = drawn(nlogins);
	probe = login[i].probe;
	login[i] = login[--nlogins];
	if (drawn(100) < chance_of_failure)
	{
		endpoint_failed(it, probe, drawn(2) == 0 ? ENDPOINT_COST_NOTHING : ENDPOINT_COST_SOME, "it fails", now);
		endpoint_exit(it);
	}
	else if (drawn(10) == 0)
	{
		endpoint_nothing_learned(it, probe, now);
		endpoint_exit(it);
	}
	else
	{
		endpoint_answered(it, probe, ENDPOINT_ROLE_UNKNOWN, now);
		idle++;
	}
}

static void
is_sound(int told_at)
{
	int			probers = 0;

	for (int i = 0; i < nlogins; i++)
		probers += login[i].probe;
	if (entry->prober != 0 && probers == 0)
		fail("the one is noted who does not probe any more", entry->prober);
	if (entry->logins != nlogins || entry->conns != nlogins + idle)
		fail("connections are counted wrong", entry->conns - nlogins - idle);
	if (entry->state == ENDPOINT_OPEN && entry->opened < 1)
		fail("it is open without a failure", entry->opened);
	if (entry->state == ENDPOINT_OPEN &&
		(entry->next_at > now + 72 * SECOND || entry->next_last_at > now + 6 * SECOND))
		fail("it is open for too long, us", entry->next_at - now);
	if (entry->allowed >= ENDPOINT_ALLOWED_MOST && entry->state == ENDPOINT_HALF_OPEN)
		fail("it is half-open, though so many may log in", entry->allowed);
	if (told_at >= 0 && entry->told != told_at)
		fail("what was told is not noted", entry->told);
}

static void
play(int rounds)
{
	int			chance_of_failure = 50;
	uint64		opened = 0;

	start();
	for (int round = 0; round < rounds; round++)
	{
		EndpointShared news;
		int			told_at = -1;

		if (drawn(1000) == 0)
			chance_of_failure = drawn(3) * 50;
		now += drawn(10) == 0 ? drawn(3 * SECOND) : drawn(10000);
		switch (drawn(20))
		{
			case 0:
				if (idle > 0)
				{
					idle--;
					endpoint_lost(it, "it is lost", now);
					endpoint_exit(it);
				}
				break;
			case 1:
				if (drawn(100) == 0)
					endpoint_recheck(it, now);
				break;
			case 2:
				if (endpoint_take_news(it, &news))
					told_at = news.state;
				break;
			case 3:
			case 4:
			case 5:
				if (idle > 0)
				{
					idle--;
					endpoint_exit(it);
				}
				break;
			default:
				if (drawn(2) == 0)
					one_enters();
				else
					one_ends(chance_of_failure);
		}
		is_sound(told_at);
	}
	opened = entry->times_opened;
	if (rounds > 100000 && opened < 10)
		fail("it has hardly been open", (int64) opened);
}

int
main(int argc, char **argv)
{
	uint64		seed = argc > 1 && atoll(argv[1]) != 0 ? (uint64) atoll(argv[1]) : (uint64) ticks_now();
	int			rounds = argc > 2 ? atoi(argv[2]) : 1000000;

	printf("seed " UINT64_FORMAT "\n", seed);
	pg_prng_seed(&pg_global_prng_state, seed);
	endpoint_shmem_init(malloc(endpoint_shmem_bytes()), malloc(endpoint_stats_bytes()), false);
	check_in_row();
	check_half();
	check_durations();
	check_last();
	check_return();
	check_next_outage();
	check_probe();
	check_attempts();
	play(rounds);
	return 0;
}
