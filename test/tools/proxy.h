/*
 * proxy.h: what the files of the fault proxy share; see proxy.c.
 *
 * Link    one connection: a socket to the client, one to the server, two flows
 * Flow    the bytes of one direction
 * Message a message of the protocol, as far as it has been read
 * Rule    what is to happen where
 * Mark    a place in a flow, and the rule that has chosen it
 */
#ifndef PROXY_H
#define PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MOST_LINKS	1024
#define MOST_RULES	64
#define MOST_MARKS	256			/* of a flow */
#define MOST_BODY	65536		/* of a message, that is searched for a text */
#define CHUNK_SIZE	16384
#define NEVER		INT64_MAX

/* An end of a link; and the flow that comes from there, the one of its messages. */
#define CLIENT		0
#define SERVER		1

/* Kinds of messages that have no letter. */
enum
{
	KIND_ANY = 256,
	KIND_STARTUP,
	KIND_SSL,					/* SSLRequest */
	KIND_GSS,					/* GSSENCRequest */
	KIND_CANCEL,				/* CancelRequest */
	KIND_ANSWER,				/* the byte that answers those for encryption */
	KINDS
};

typedef struct Message
{
	int			kind;			/* a letter, or one of the above */
	int64_t		number;			/* in its flow; the first is 1 */
	int64_t		start;			/* where in the flow its first byte is */
	int64_t		length;			/* of all of it */
	size_t		nbody;			/* how much of its body is here */
	char		body[MOST_BODY];
} Message;

typedef enum ParserState
{
	PARSER_STARTUP,				/* what has no letter is to come */
	PARSER_ANSWER,				/* a single byte */
	PARSER_HEADER,
	PARSER_BODY,
	PARSER_OPAQUE				/* encrypted, or not of the protocol */
} ParserState;

typedef struct Parser
{
	ParserState state;
	bool		judged;			/* the rules have seen the message */
	unsigned char header[8];
	size_t		nheader;
	int64_t		left;			/* of the body */
	int64_t		counts[KINDS];
	Message		message;		/* the last one that has begun */
} Parser;

typedef enum ActionKind
{
	ACTION_RESET,
	ACTION_FIN,
	ACTION_DROP,
	ACTION_STALL,
	ACTION_DELAY
} ActionKind;

typedef struct Action
{
	ActionKind	kind;
	bool		to[2];			/* client, server: who is to feel it */
	int64_t		time;			/* nanoseconds */
} Action;

typedef struct Mark
{
	int64_t		pos;
	int64_t		message;		/* its number, 0 when that is not known yet */
	int			rule;
} Mark;

typedef struct Chunk
{
	struct Chunk *next;
	int64_t		due;			/* nanoseconds */
	size_t		start;			/* of what is not yet delivered */
	size_t		end;			/* 0 when the sender has closed */
	char		data[CHUNK_SIZE];
} Chunk;

typedef struct Flow
{
	Chunk	   *first;
	Chunk	  **last;			/* where the next chunk is hooked in */
	int64_t		read;			/* how many bytes have come */
	int64_t		judged;			/* of those, how many may go on */
	int64_t		delivered;		/* and how many have */
	int64_t		delay;			/* nanoseconds */
	int64_t		stalled_until;
	bool		blocked;		/* the receiver's buffer is full */
	bool		ended;			/* the sender has closed */
	bool		reset;			/* by a reset */
	bool		dropping;		/* what comes is thrown away */
	bool		finished;		/* the receiver knows of the end */
	int64_t		unsent_since;	/* a reset waits for what was sent; 0: none */
	Parser		parser;
	Mark		marks[MOST_MARKS];	/* in the order of their places */
	int			nmarks;
} Flow;

/* What a rule has seen of a link. */
typedef struct Sight
{
	bool		armed;
	int64_t		count;			/* messages that match */
} Sight;

typedef struct Link
{
	int			number;
	int			fds[2];			/* -1 when it was reset */
	Flow		flows[2];		/* flows[i] is read from fds[i] */
	int			server_pid;
	bool		closed;			/* forgotten at the end of the turn */
	Sight		sights[MOST_RULES];
} Link;

extern uint64_t seed;
extern Link *links[MOST_LINKS];
extern int	nlinks;

/* proxy.c */
extern int64_t now(void);
extern void die(const char *what) __attribute__((noreturn));
extern uint64_t lot(uint64_t a, uint64_t b, uint64_t c, uint64_t d);
extern void set_seed(uint64_t new_seed);
extern void put_event(const Link *link, int from, int64_t message, const char *event, const char *why);
extern int	connect_to(const char *text);

/* proxy_link.c */
extern void link_open(int client, const char *target);
extern void link_act(Link *link, const Action *action);
extern void flow_read(Link *link, int from);
extern void flow_deliver(Link *link, int from);
extern int64_t flow_due(const Flow *flow);
extern void links_sweep(void);
extern void links_act(int number, const Action *action);
extern void links_resume(void);
extern void links_forget_marks(void);
extern void links_show_rule(int rule);
extern void links_print(FILE * out);
extern void set_pieces(int most);

/* proxy_messages.c */
extern void parse(Link *link, int from, const char *data, size_t n);
extern const char *kind_name(int kind, char *buffer);
extern int	kind_by_name(const char *name);

/* proxy_plan.c */
extern bool plan_is_empty(void);
extern bool plan_has_texts(void);
extern const char *plan_command(char *line, FILE * out);
extern void plan_link(Link *link);
extern void plan_rule_on_link(Link *link, int rule);
extern void plan_message(Link *link, int from, const Message *message);
extern bool plan_resets(const Mark *mark);
extern const Action *plan_fire(const Link *link, int from, const Mark *mark);

#endif
