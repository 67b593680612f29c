/*
 * wire.c
 *	  A look at what a remote sends, before libpq reads it.
 *
 * A message is a letter, four bytes of length, which count themselves, and a
 * body ("Message Formats" in PostgreSQL's manual).  The look is a peek: what
 * libpq then reads may be more than was seen, and if that was more than it has
 * room for, less.  So how well the place of the next message is known differs:
 *	 known	 Nothing has been read since all was answered; or the kernel has told
 *			 how much libpq has read, which TCP counts (wire_moved()).
 *	 found	 Several messages in a row, each where the one before ends.
 *	 guessed If libpq has read what was seen, and no more.
 *
 * Honest remotes must not suffer from a wrong place: a value may contain anything.
 * Where the place is known, whatever is too large is refused; else only what begins as
 * an error or a notice does, and no text can.  test/wire plays random streams against
 * that.  Where an honest remote has next to nothing to say, as in a log-in, a guess is
 * as good as knowledge.
 *
 * Nothing here allocates or throws.
 */
#include "dbpool.h"

#include "port/pg_bswap.h"
#include "pq/wire.h"

/* So many messages in a row are not taken for something else. */
#define ENOUGH_MESSAGES	3

/* Headers looked at in search of messages, for each byte that is seen. */
#define SEARCH_STEPS		4

/* libpq's input buffer has this size, and is doubled until a message fits. */
#define FIRST_BUFFER	(16 * 1024)

/* It has room for as much at any time (pqReadData()). */
#define SURE_ROOM		(8 * 1024)

/* 32 times at most nothing is looked at. */
#define MOST_FUTILE		5

/* So many bytes of an error's body tell that it is one, in any language's words. */
#define LEAST_ERROR		((Size) 48)

/* A new connection. */
void
wire_init(Wire *wire)
{
	memset(wire, 0, sizeof(Wire));
	wire->certain = true;
	wire->place = -1;
	wire->reach = FIRST_BUFFER;
}

/*
 * All has been answered.  So the next byte is the first of a message, unless the
 * remote has begun one without being asked.
 */
void
wire_idle(Wire *wire)
{
	bool		amid = !wire->lost && (wire->skip > 0 || wire->nhead > 0);

	wire->lost = amid;
	wire->unsure = false;
	wire->place = -1;
	wire->certain = !amid;
	wire->in_body = false;
	wire->skip = 0;
	wire->nhead = 0;
	wire->futile = 0;
	wire->pause = 0;
}

/*
 * Is there a point in looking?  Where messages are so long that their beginnings
 * are seldom seen, it is done less and less often.
 */
bool
wire_wants(Wire *wire)
{
	return !wire->lost || wire->pause == 0 || --wire->pause == 0;
}

/*
 * Before the next look: libpq has taken all up to that place of the stream, which may
 * be more or less than was seen; -1 if that is not known.
 */
void
wire_moved(Wire *wire, int64 place)
{
	int64		more = place - wire->place;

	if (wire->lost || place < 0 || wire->place < 0)
	{
		wire->place = -1;
		return;
	}
	wire->place = place;
	wire->unsure = false;
	wire->far = false;
	if (more > 0 && (wire->nhead > 0 || wire->skip < more))
	{
		wire->lost = true;
		wire->place = -1;
	}
	else if (more > 0)
		wire->skip -= more;
	else if (wire->nhead > -more)
		wire->nhead += (int) more;
	else
	{
		wire->skip -= more + wire->nhead;
		wire->nhead = 0;
	}
}

/*
 * Does it matter how much of what was seen libpq takes?  Not when that was all of an
 * answer: then the next message is another answer's first.
 */
bool
wire_is_amid(const Wire *wire)
{
	return !wire->lost && (wire->far || wire->skip > 0 || wire->nhead > 0 || !wire->answered);
}

/* libpq has given a result: a long message that was under way is complete. */
void
wire_result(Wire *wire)
{
	if (wire->in_body && wire->place < 0)
		wire->lost = true;
	wire->in_body = false;
}

/* Is it a row, or a piece of a COPY? */
static bool
is_row(char type)
{
	return type == 'D' || type == 'd';
}

/* Letters of messages: 1 for those that are short, 2 for the others. */
static const uint8 letters[256] = {
	['1'] = 1,['2'] = 1,['3'] = 1,['A'] = 2,['C'] = 1,['D'] = 2,['E'] = 2,
	['G'] = 1,['H'] = 1,['I'] = 1,['K'] = 1,['N'] = 2,['R'] = 1,['S'] = 1,
	['T'] = 2,['V'] = 2,['W'] = 1,['Z'] = 1,['c'] = 1,['d'] = 2,['n'] = 1,
	['s'] = 1,['t'] = 1,['v'] = 1
};

/* The length of a message's body, from its first WIRE_HEADER bytes; -1: it is none. */
int64
wire_body_length(const char *at)
{
	int			kind = letters[(unsigned char) at[0]];
	uint32		length;

	if (kind == 0)
		return -1;
	memcpy(&length, at + 1, sizeof(length));
	length = pg_ntoh32(length);
	if (length < sizeof(length) || length > PG_INT32_MAX)
		return -1;
	if (length > WIRE_SHORT_MOST && kind == 1)
		return -1;
	return (int64) length - sizeof(length);
}

/* What comes next is the rest of the key that cancels ask for, if any is missing. */
static void
take_key(Wire *wire, const char *buf, Size n)
{
	if (wire->key_missing == 0)
		return;
	n = Min(n, (Size) wire->key_missing);
	memcpy(wire->key + sizeof(wire->key) - wire->key_missing, buf, n);
	wire->key_missing -= (int) n;
	wire->has_key = wire->key_missing == 0;
}

/*
 * Is it the body of an error or a notice?  The first field is the severity, in the
 * words of some language; then comes the severity as it is never translated (from 9.6
 * on), or the SQLSTATE.  See "Error and Notice Message Fields" in the manual.
 */
static bool
is_error(const char *body, Size have)
{
	static const char *const severities[] = {
		"ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "DEBUG", "INFO", "LOG"
	};
	const char *end = body + Min(have, LEAST_ERROR);
	const char *at;

	if (have < LEAST_ERROR || body[0] != 'S')
		return false;
	for (at = body + 1; at < end && (unsigned char) *at > ' '; at++)
		;
	if (at - body < 4 || at + 8 > end || *at++ != '\0')
		return false;
	if (*at == 'C')
	{
		/* the five characters of a SQLSTATE; all of them are there */
		for (int i = 1; i <= 5; i++)
		{
			if (!((at[i] >= '0' && at[i] <= '9') || (at[i] >= 'A' && at[i] <= 'Z')))
				return false;
		}
		return at[6] == '\0';
	}
	for (int i = 0; *at == 'V' && i < lengthof(severities); i++)
	{
		Size		len = strlen(severities[i]) + 1;

		if (at + 1 + len <= end && memcmp(at + 1, severities[i], len) == 0)
			return true;
	}
	return false;
}

/* How the place of a message is known. */
typedef enum Trust
{
	GUESSED,
	FOUND,
	KNOWN
} Trust;

/* Refuse a message. */
static bool
refuse(Wire *wire, char type, uint32 length, const char *body, Size have, WireMessage *large)
{
	large->type = type;
	large->length = length;
	large->body = body;
	large->have = Min(have, (Size) length);
	large->certain = wire->certain;
	return false;
}

/*
 * Where the place is not known: is there an error or a notice that is too large, and is
 * seen to be one?  Returns its header, or NULL.
 */
static const char *
find_large(const Wire *wire, char type, const char *buf, Size n)
{
	const char *end = buf + n;
	const char *at = buf;

	while (end - at >= (ssize_t) (WIRE_HEADER + LEAST_ERROR) &&
		   (at = memchr(at, type, end - at - WIRE_HEADER - LEAST_ERROR + 1)) != NULL)
	{
		int64		length = wire_body_length(at);

		if (length > wire->other_most && is_error(at + WIRE_HEADER, end - at - WIRE_HEADER))
			return at;
		at++;
	}
	return NULL;
}

/* Note what is at hand; false when it is too large. */
static bool
note_message(Wire *wire, Trust trust, const char *head, const char *body, Size have,
			 WireMessage *large)
{
	int64		length = wire_body_length(head);

	if (head[0] == 'S')
		wire->settings += length;
	while (wire->reach < WIRE_WINDOW && wire->reach < WIRE_HEADER + length)
		wire->reach *= 2;
	if (head[0] == 'K' && length == sizeof(wire->key))
	{
		wire->key_missing = sizeof(wire->key);
		take_key(wire, body, have);
	}
	wire->large |= wire->settings > WIRE_SETTINGS_LARGE ||
		(trust != GUESSED &&
		 length > (is_row(head[0]) ? WIRE_ROW_LARGE : WIRE_OTHER_LARGE));
	wire->answered = head[0] == 'Z';
	if (length <= (is_row(head[0]) ? wire->row_most : wire->other_most))
		return true;
	if (trust == KNOWN || ((head[0] == 'E' || head[0] == 'N') && is_error(body, have)))
		return refuse(wire, head[0], (uint32) length, body, have, large);
	/* its body will tell, if it is not to be seen so far */
	if ((head[0] == 'E' || head[0] == 'N') && have < LEAST_ERROR)
	{
		wire->suspect = head[0];
		wire->suspect_length = (uint32) length;
	}
	return true;
}

/*
 * Do messages begin here, and go on to the end of what is seen?  *steps is how many
 * headers may still be looked at.
 */
static bool
messages_begin(const char *buf, Size n, Size at, Size *steps)
{
	int			count = 0;

	while (at + WIRE_HEADER <= n && *steps > 0)
	{
		int64		length = wire_body_length(buf + at);

		(*steps)--;
		if (length < 0)
			return false;
		count++;
		at += WIRE_HEADER + length;
	}
	return count >= ENOUGH_MESSAGES && *steps > 0;
}

/*
 * Find a place where messages begin, for *at.  In bytes that were made for it, each
 * place can begin a chain that is long and leads nowhere: so there is an end to the
 * search.
 */
static bool
find_messages(const char *buf, Size n, Size *at)
{
	Size		steps = SEARCH_STEPS * n;

	for (Size from = 0; from + ENOUGH_MESSAGES * WIRE_HEADER <= n && steps > 0; from++)
	{
		if (messages_begin(buf, n, from, &steps))
		{
			*at = from;
			return true;
		}
	}
	return false;
}

/* There is no telling where we are. */
static bool
lose(Wire *wire, Size n)
{
	wire->lost = true;
	wire->certain = false;
	wire->in_body = false;
	wire->skip = 0;
	wire->nhead = 0;
	wire->place = -1;
	if (n == (Size) wire->reach && wire->reach < WIRE_WINDOW)
		wire->reach *= 2;
	else if (wire->futile < MOST_FUTILE)
		wire->futile++;
	wire->pause = 1 << wire->futile;
	return true;
}

/*
 * The message whose header was not complete: false if it is none.  *fits says whether
 * it may be as large as it is; *at is where it ends.
 */
static bool
complete_header(Wire *wire, Trust trust, const char *buf, Size n, Size *at, bool *fits,
				WireMessage *large)
{
	Size		more = Min((Size) (WIRE_HEADER - wire->nhead), n);
	int64		length;

	*fits = true;
	memcpy(wire->head + wire->nhead, buf, more);
	wire->nhead += (int) more;
	*at = more;
	if (wire->nhead < WIRE_HEADER)
		return true;
	length = wire_body_length(wire->head);
	if (length < 0)
		return false;
	wire->nhead = 0;
	*fits = note_message(wire, trust, wire->head, buf + more, n - more, large);
	*at += length;
	return true;
}

/*
 * Refuse an error or a notice that is too large, and is seen to be one wherever the
 * messages begin: one that the last look suspected, or any where the place is not known.
 */
static bool
pass_errors(Wire *wire, bool known, const char *buf, Size n, WireMessage *large)
{
	char		suspect = wire->suspect;
	const char *at;

	wire->suspect = 0;
	if (suspect != 0 && n >= LEAST_ERROR && is_error(buf, n))
	{
		wire->certain = false;
		return refuse(wire, suspect, wire->suspect_length, buf, n, large);
	}
	if (known)
		return true;
	at = find_large(wire, 'E', buf, n);
	if (at == NULL)
		at = find_large(wire, 'N', buf, n);
	if (at == NULL)
		return true;
	wire->certain = false;
	return refuse(wire, *at, (uint32) wire_body_length(at), at + WIRE_HEADER,
				  buf + n - at - WIRE_HEADER, large);
}

/*
 * Look at the n bytes that come next, as many as there are but wire->reach at
 * most.  Returns false when a message is larger than it may be; then it
 * is in *large, as far as it can be seen.
 */
bool
wire_look(Wire *wire, const char *buf, Size n, WireMessage *large)
{
	bool		known = !wire->lost && (!wire->unsure || wire->short_answers);
	Trust		trust = known ? KNOWN : GUESSED;
	Size		at = (Size) wire->skip;
	bool		fits = true;

	if (!wire->lost)
		take_key(wire, buf, n);
	if (!pass_errors(wire, known, buf, n, large))
		return false;
	if (!wire->lost && wire->skip >= (int64) n)
	{
		wire->skip -= n;
		wire->unsure = true;
		return true;
	}
	if (!known && find_messages(buf, n, &at))
	{
		trust = FOUND;
		wire->nhead = 0;
		wire->futile = 0;
		wire->pause = 0;
	}
	else if (wire->lost)
		return lose(wire, n);
	wire->lost = false;
	wire->skip = 0;
	wire->in_body = false;
	wire->certain &= known;
	if (wire->nhead > 0)
	{
		if (!complete_header(wire, trust, buf, n, &at, &fits, large))
			return lose(wire, n);
		if (!fits)
			return false;
	}
	while (at + WIRE_HEADER <= n)
	{
		int64		length = wire_body_length(buf + at);

		if (length < 0)
			return lose(wire, n);
		if (!note_message(wire, trust, buf + at, buf + at + WIRE_HEADER, n - at - WIRE_HEADER, large))
			return false;
		at += WIRE_HEADER + length;
	}
	if (at < n)
	{
		wire->nhead = (int) (n - at);
		memcpy(wire->head, buf + at, wire->nhead);
	}
	else if (at > n)
		wire->skip = at - n;
	/* a long body is read in pieces of any size, until it is complete */
	wire->in_body = wire->skip > WIRE_WINDOW;
	wire->far = n > SURE_ROOM && !wire->in_body;
	wire->unsure = true;
	return true;
}

/*
 * A field of an error or a notice, or NULL; not terminated.  *cut: it goes on
 * beyond what can be seen.
 */
const char *
wire_field(const WireMessage *message, char letter, Size *len, bool *cut)
{
	const char *at = message->body;
	const char *end = message->body + message->have;

	while (at < end && *at != '\0')
	{
		const char *text = at + 1;
		const char *zero = memchr(text, '\0', end - text);

		*cut = zero == NULL;
		*len = (zero ? zero : end) - text;
		if (*at == letter)
			return text;
		if (zero == NULL)
			break;
		at = zero + 1;
	}
	return NULL;
}

/* What a message is called in texts. */
const char *
wire_name(char type)
{
	switch (type)
	{
		case 'A':
			return "a notification";
		case 'D':
			return "a row";
		case 'E':
			return "an error";
		case 'N':
			return "a notice";
		case 'T':
			return "a description of rows";
		default:
			return "a message";
	}
}
