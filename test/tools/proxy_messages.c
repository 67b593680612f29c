/*
 * proxy_messages.c: where in a flow the messages of PostgreSQL's protocol 3 begin and
 * end.
 *
 * A message is shown to the rules once, before a byte of it goes on that a rule might
 * want to hold back: as soon as its header is there, or when a rule looks for a text,
 * all of its body or MOST_BODY bytes of that. Without rules nothing is held back.
 *
 * What is encrypted, or does not look like the protocol, is opaque: from there on bytes
 * are all that counts.
 */
#include <stdlib.h>
#include <string.h>

#include "proxy.h"

#define MOST_STARTUP	10000	/* bytes, as in the server */
#define MOST_MESSAGE	0x3fffffff

static const struct
{
	const char *name;
	int			kind;
}			kinds[] =

{
	{"any", KIND_ANY},
	{"startup", KIND_STARTUP},
	{"ssl", KIND_SSL},
	{"gss", KIND_GSS},
	{"cancel", KIND_CANCEL},
	{"answer", KIND_ANSWER}
};

#define NKINDS	((int) (sizeof(kinds) / sizeof(kinds[0])))

/* A kind's name, for which there is room for two bytes in the buffer. */
const char *
kind_name(int kind, char *buffer)
{
	for (int i = 0; i < NKINDS; i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	buffer[0] = kind;
	buffer[1] = '\0';
	return buffer;
}

/* -1 when there is none of that name. */
int
kind_by_name(const char *name)
{
	for (int i = 0; i < NKINDS; i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i].kind;
	return name[0] > ' ' && name[1] == '\0' ? (unsigned char) name[0] : -1;
}

static uint32_t
number_at(const unsigned char *bytes)
{
	return (uint32_t) bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

static void
become_opaque(Link *link, int from, const char *why)
{
	link->flows[from].parser.state = PARSER_OPAQUE;
	put_event(link, from, 0, "is opaque from here on", why);
}

/* The message has begun: what it is and how long. False when it is none. */
static bool
message_begins(Link *link, int from)
{
	Parser	   *parser = &link->flows[from].parser;
	Message    *message = &parser->message;
	bool		startup = parser->state == PARSER_STARTUP;
	uint32_t	length = number_at(parser->header + (startup ? 0 : 1));

	if (length < (startup ? 8 : 4) || length > (startup ? MOST_STARTUP : MOST_MESSAGE))
		return false;
	message->length = (int64_t) length + (startup ? 0 : 1);
	message->kind = parser->header[0];
	if (startup)
		switch (number_at(parser->header + 4))
		{
			case 80877102:
				message->kind = KIND_CANCEL;
				break;
			case 80877103:
				message->kind = KIND_SSL;
				break;
			case 80877104:
				message->kind = KIND_GSS;
				break;
			default:
				message->kind = KIND_STARTUP;
		}
	if (message->kind == KIND_SSL || message->kind == KIND_GSS)
		link->flows[1 - from].parser.state = PARSER_ANSWER;
	parser->left = message->length - parser->nheader;
	return true;
}

/* The rules see the message, which is there as far as they want it. */
static void
judge(Link *link, int from)
{
	Flow	   *flow = &link->flows[from];
	Parser	   *parser = &flow->parser;

	parser->judged = true;
	plan_message(link, from, &parser->message);
	for (int i = 0; i < flow->nmarks; i++)
		if (flow->marks[i].message == 0 &&
			flow->marks[i].pos <= parser->message.start + parser->message.length)
			flow->marks[i].message = parser->message.number;
}

static void
message_ended(Link *link, int from)
{
	Parser	   *parser = &link->flows[from].parser;
	const Message *message = &parser->message;

	/* BackendKeyData */
	if (from == SERVER && message->kind == 'K' && message->nbody >= 4)
		link->server_pid = number_at((const unsigned char *) message->body);
	parser->nheader = 0;
	if (message->kind != KIND_SSL && message->kind != KIND_GSS)
		parser->state = PARSER_HEADER;
	else
		parser->state = PARSER_STARTUP;
}

/* The server's answer to a request for encryption. Returns how many bytes it has. */
static size_t
answer(Link *link, const char *byte)
{
	Parser	   *parser = &link->flows[SERVER].parser;
	Message    *message = &parser->message;

	/* an ErrorResponse of a server that does not know the question */
	if (*byte == 'E')
	{
		parser->state = PARSER_HEADER;
		return 0;
	}
	message->kind = KIND_ANSWER;
	message->number++;
	message->start = link->flows[SERVER].read;
	message->length = 1;
	message->nbody = 1;
	message->body[0] = *byte;
	parser->counts[KIND_ANSWER]++;
	parser->state = PARSER_HEADER;
	judge(link, SERVER);
	if (*byte != 'N')
	{
		become_opaque(link, SERVER, "it is encrypted");
		become_opaque(link, CLIENT, "it is encrypted");
	}
	return 1;
}

/* Some bytes of a header. Returns how many. */
static size_t
parse_header(Link *link, int from, const char *data, size_t n)
{
	Flow	   *flow = &link->flows[from];
	Parser	   *parser = &flow->parser;
	size_t		wanted = parser->state == PARSER_STARTUP ? 8 : 5;

	if (parser->nheader == 0)
	{
		parser->message.number++;
		parser->message.start = flow->read;
		parser->message.nbody = 0;
		parser->judged = false;
	}
	if (n > wanted - parser->nheader)
		n = wanted - parser->nheader;
	memcpy(parser->header + parser->nheader, data, n);
	parser->nheader += n;
	if (parser->nheader < wanted)
		return n;
	if (!message_begins(link, from))
	{
		become_opaque(link, from, "it does not look like the protocol");
		return n;
	}
	parser->counts[parser->message.kind]++;
	parser->state = PARSER_BODY;
	return n;
}

static size_t
parse_body(Link *link, int from, const char *data, size_t n)
{
	Parser	   *parser = &link->flows[from].parser;
	Message    *message = &parser->message;
	size_t		room = MOST_BODY - message->nbody;

	if ((int64_t) n > parser->left)
		n = parser->left;
	if (room > n)
		room = n;
	memcpy(message->body + message->nbody, data, room);
	message->nbody += room;
	parser->left -= n;
	return n;
}

/*
 * Bytes that have come are counted, and the rules see what they are; afterwards the
 * flow's read and judged are true.
 */
void
parse(Link *link, int from, const char *data, size_t n)
{
	Flow	   *flow = &link->flows[from];
	Parser	   *parser = &flow->parser;

	while (n > 0)
	{
		size_t		taken = n;

		switch (parser->state)
		{
			case PARSER_OPAQUE:
				break;
			case PARSER_ANSWER:
				taken = answer(link, data);
				break;
			case PARSER_STARTUP:
			case PARSER_HEADER:
				taken = parse_header(link, from, data, n);
				break;
			case PARSER_BODY:
				taken = parse_body(link, from, data, n);
				break;
		}
		flow->read += taken;
		data += taken;
		n -= taken;
		if (parser->state != PARSER_BODY)
			continue;
		if (!parser->judged &&
			(!plan_has_texts() || parser->left == 0 || parser->message.nbody == MOST_BODY))
			judge(link, from);
		if (parser->left == 0)
			message_ended(link, from);
	}
	flow->judged = flow->read;
	if (!plan_is_empty() && parser->state != PARSER_OPAQUE && parser->nheader > 0 &&
		!parser->judged)
		flow->judged = parser->message.start;
}
