/*
 * wire.h
 *	  A look at what a remote sends, before libpq reads it.
 *
 * libpq collects a message whole, whatever its length, and keeps what it is
 * told of settings for ever.  So bytes that the socket has are looked at first.
 */
#ifndef DBPOOL_WIRE_H
#define DBPOOL_WIRE_H

#include "dbpool.h"

/* Bytes that a message begins with: its letter, its length. */
#define WIRE_HEADER			5

/* libpq takes a message of a type that is short for garbage if its body is longer. */
#define WIRE_SHORT_MOST		30000

/* Most bytes that are looked at, see wire.c. */
#define WIRE_WINDOW			(128 * 1024)

/* Most iterations of SCRAM that are computed: about a second and a half. */
#define WIRE_SCRAM_MOST		1000000

/* Most bytes that a log-in takes; those of PostgreSQL take some hundred. */
#define WIRE_LOGIN_MOST		(256 * 1024)

/* Most bytes of a row, as in PostgreSQL; and of any other message. */
#define WIRE_ROW_MOST		0x3fffffff
#define WIRE_OTHER_MOST		(4 * 1024 * 1024)

/* Above these, a message makes libpq's buffers large. */
#define WIRE_ROW_LARGE		(16 * 1024 * 1024)
#define WIRE_OTHER_LARGE	(256 * 1024)

/* So much of settings is as large. */
#define WIRE_SETTINGS_LARGE	(1024 * 1024)

/* Most bytes of a field of an error or a notice that are passed on. */
#define WIRE_FIELD_MOST		(64 * 1024)

typedef struct WireMessage
{
	char		type;			/* the protocol's letter */
	uint32		length;			/* of the body */
	const char *body;
	Size		have;			/* so much of the body can be seen */
	bool		certain;		/* it surely is a message, and no part of one */
} WireMessage;

/* Where in the stream of messages we are. */
typedef struct Wire
{
	bool		lost;			/* we do not know */
	bool		certain;		/* we have known ever since it was idle */
	bool		in_body;		/* inside of a message that libpq has to make
								 * room for */
	bool		unsure;			/* so it is a guess, until wire_moved() says
								 * where we are */
	bool		far;			/* more was seen than libpq surely has room
								 * for */
	bool		answered;		/* the last message was the end of an answer */
	char		suspect;		/* perhaps an error or a notice that is too
								 * large has begun, and its body comes next;
								 * or 0 */
	uint32		suspect_length;
	int64		place;			/* in the stream, when libpq has taken all
								 * that was seen; -1: not known */
	int64		skip;			/* bytes to the next message */
	int			nhead;			/* bytes that we have of its first five */
	char		head[WIRE_HEADER];
	int			reach;			/* bytes to be looked at */
	int			futile;			/* looks in vain, since we are lost */
	int			pause;			/* so often nothing is looked at */
	bool		short_answers;	/* all that may come is short: a guess will do */
	uint32		row_most;
	uint32		other_most;
	int64		settings;		/* bytes of ParameterStatus so far */
	bool		large;			/* something large was among it */
	bool		has_key;		/* the log-in has told what cancels ask for */
	int			key_missing;	/* bytes of it that have not come */
	char		key[8];			/* process ID and key, as a CancelRequest has
								 * them */
} Wire;

extern int64 wire_body_length(const char *at);
extern void wire_init(Wire *wire);
extern void wire_idle(Wire *wire);
extern bool wire_look(Wire *wire, const char *buf, Size n, WireMessage *large);
extern bool wire_wants(Wire *wire);
extern void wire_moved(Wire *wire, int64 place);
extern bool wire_is_amid(const Wire *wire);
extern void wire_result(Wire *wire);
extern const char *wire_field(const WireMessage *message, char letter, Size *len,
							  bool *cut);
extern const char *wire_name(char type);

#endif							/* DBPOOL_WIRE_H */
