/*
 * wire.c
 *	  Random streams of messages against src/pq/wire.c, without a server.
 *
 *	  wire [SEED [STREAMS]]
 *
 * A stream is what an honest remote sends: answers with rows of all kinds, as text
 * and in binary, with values that look like headers of messages. The kernel gets it in
 * pieces of random sizes, also between a look and libpq's read, which takes what there
 * is and it has room for. However that falls, no message may be found too large.
 *
 * Then the same with a huge error at a random place. Where the place of libpq's reads
 * is known, as with TCP, it has to be found, unless its header came between a look and
 * a read; where it is not known, in most of them.
 *
 * Prints the seed, and fails by the first stream that goes wrong.
 */
#include "postgres.h"

#include <stdio.h>
#include <stdlib.h>

/* What the server's library has, and this does not link to. */
#undef printf
#undef snprintf
#undef strlcpy
#define strlcpy(to, from, size) snprintf(to, size, "%s", from)

#include "pq/wire.c"

#define MOST_BYTES	(8 * 1024 * 1024)
#define HUGE_BYTES	400000000

static uint64 state;

static uint32
number(uint32 below)
{
	/* xorshift64*, by Marsaglia and Vigna */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32) ((state * UINT64CONST(2685821657736338717)) >> 32) % below;
}

static char *stream;
static Size length;

/* Is this byte the first of a message? */
static char starts[MOST_BYTES + 1000000];

/* Places at which all that was asked has been answered. */
static Size pauses[100000];
static int	npauses;

static void
put(const void *bytes, Size n)
{
	memcpy(stream + length, bytes, n);
	length += n;
}

static void
put32(uint32 n)
{
	n = pg_hton32(n);
	put(&n, sizeof(n));
}

/* A header; the length of its body is filled in by end(). */
static Size
begin(char letter)
{
	starts[length] = 1;
	put(&letter, 1);
	put32(0);
	return length;
}

static void
end(Size body)
{
	uint32		n = pg_hton32((uint32) (length - body + 4));

	memcpy(stream + body - 4, &n, sizeof(n));
}

/* A value: text of one letter or many, small numbers in binary, or anything. */
static void
put_value(int kind, uint32 n)
{
	static const char letters[] = "dDENTVASCxTEXTdata \n";
	char		only = letters[number(sizeof(letters) - 1)];

	put32(n);
	for (uint32 i = 0; i < n; i++)
	{
		char		c = kind == 0 ? only :
		kind == 1 ? letters[number(sizeof(letters) - 1)] :
		kind == 2 ? (i % 4 == 3 ? (char) number(256) : 0) :
		(char) number(256);

		put(&c, 1);
	}
}

static void
put_answer(void)
{
	uint32		rows = number(4) == 0 ? number(2000) : number(4);
	int			kind = (int) number(4);
	uint32		size = number(3) == 0 ? number(60000) : number(2) == 0 ? 100 : number(300);
	Size		body;

	end(begin('2'));
	for (uint32 i = 0; i < rows && length < MOST_BYTES - 200000; i++)
	{
		uint16		columns = pg_hton16(2);

		body = begin('D');
		put(&columns, sizeof(columns));
		put_value(kind, size);
		put_value(2, 8);
		end(body);
	}
	if (number(20) == 0)
	{
		body = begin('E');
		put("SERROR\0VERROR\0C22012\0Mdivision by zero\0", 40);
		end(body);
	}
	else
	{
		body = begin('C');
		put("SELECT 1", 9);
		end(body);
	}
	body = begin('Z');
	put("I", 1);
	end(body);
	if (number(3) == 0 && npauses < (int) lengthof(pauses))
		pauses[npauses++] = length;
}

/* The kernel gets more, up to a limit. */
static Size
more_of(Size arrived, uint32 most, Size limit)
{
	arrived += 1 + number(most);
	return Min(arrived, limit);
}

/*
 * Read the stream as the worker does. Returns how far the kernel had it when a message
 * was found too large, or 0. *unseen: the header at that place was never looked at.
 */
static int	thought_large;

static Size
play(bool known, Size huge, bool *unseen)
{
	static char window[WIRE_WINDOW];
	Wire		wire;
	Size		arrived = 0;
	Size		taken = 0;
	Size		room = number(2) == 0 ? FIRST_BUFFER : 8 * FIRST_BUFFER;
	int			next_pause = 0;

	*unseen = huge > 0;
	wire_init(&wire);
	while (taken < length)
	{
		Size		n;
		Size		limit = next_pause < npauses ? pauses[next_pause] : length;
		uint32		most = number(3) == 0 ? 200000 : number(2) == 0 ? 20000 : 200;
		WireMessage large;

		arrived = more_of(arrived, most, limit);
		wire.row_most = WIRE_ROW_MOST;
		wire.other_most = WIRE_OTHER_MOST;
		if (wire_wants(&wire))
		{
			if (known && wire.place >= 0)
				wire_moved(&wire, (int64) taken);
			n = Min(arrived - taken, (Size) wire.reach);
			memcpy(window, stream + taken, n);
			if (huge >= taken && huge + WIRE_HEADER <= taken + n)
				*unseen = false;
			if (n > 0 && !wire_look(&wire, window, n, &large))
			{
				return arrived;
			}
			wire.place = known && wire_is_amid(&wire) ? (int64) (taken + n) : -1;
		}
		/* more may come before libpq reads */
		if (number(4) == 0)
			arrived = more_of(arrived, most, limit);
		n = number((uint32) room);
		n = Max(SURE_ROOM, n);
		n = Min(arrived - taken, n);
		/* a message is complete when the next one begins */
		if (memchr(starts + taken + 1, 1, n) != NULL)
			wire_result(&wire);
		taken += n;
		starts[length] = 1;
		if (taken == limit && next_pause < npauses)
		{
			wire_idle(&wire);
			next_pause++;
		}
	}
	thought_large += wire.large && huge == 0;
	return 0;
}

int
main(int argc, char **argv)
{
	uint64		seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	int			streams = argc > 2 ? atoi(argv[2]) : 300;
	int			found[2] = {0, 0};
	int			missed[2] = {0, 0};

	if (seed == 0)
	{
		FILE	   *random = fopen("/dev/urandom", "r");

		if (random == NULL || fread(&seed, sizeof(seed), 1, random) != 1)
			seed = 1;
		seed |= 1;
	}
	printf("seed %llu\n", (unsigned long long) seed);
	state = seed;
	stream = malloc(MOST_BYTES + 1000000);
	for (int i = 0; i < streams; i++)
	{
		int			answers = 1 + (int) number(20);
		Size		huge = 0;
		bool		unseen;

		memset(starts, 0, sizeof(starts));
		length = 0;
		npauses = 0;
		for (int a = 0; a < answers && length < MOST_BYTES / 2; a++)
			put_answer();
		for (int known = 0; known < 2; known++)
		{
			Size		at = play(known, 0, &unseen);

			if (at != 0)
			{
				printf("stream %d: an honest remote is refused at byte %zu of %zu%s\n",
					   i, at, length, known ? ", with the place known" : "");
				return 1;
			}
		}

		/*
		 * the same, with a huge error behind the last answer, that does not
		 * end
		 */
		huge = length;
		begin('E');
		put("SERROR\0VERROR\0CP0001\0Mxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 52);
		memset(stream + length, 'x', 300000);
		length += 300000;
		{
			uint32		n = pg_hton32(HUGE_BYTES);

			memcpy(stream + huge + 1, &n, sizeof(n));
		}
		for (int known = 0; known < 2; known++)
		{
			if (play(known, huge, &unseen) != 0)
				found[known]++;
			else if (!unseen)
				missed[known]++;
		}
	}
	if (thought_large > streams / 50)
	{
		printf("%d of %d streams without anything large are thought to have it\n",
			   thought_large, 2 * streams);
		return 1;
	}
	printf("%d honest streams pass; of as many huge errors %d are refused, %d have been seen and are not; with the place known %d and %d\n",
		   streams, found[0], missed[0], found[1], missed[1]);
	return 0;
}
