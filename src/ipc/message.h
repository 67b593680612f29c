/*
 * message.h
 *	  What goes through the two rings of a request.
 *
 * UP, from the backend: five parts, whose lengths stand in the slot.
 *
 *	 definition	 PoolOptions as they are in memory, then pairs of strings, each
 *				 with its terminating zero: libpq's keywords and values, and
 *				 the server's option connect_sql if there is one.
 *	 sql		 text with its terminating zero.
 *	 params		 per parameter: int32 length or -1 for NULL, the text, a zero.
 *				 Values are in text format, types are left to the remote.
 *	 types		 per column of the rows that the backend waits for, uint32: what
 *				 binary_type() has for its type.  Nothing, unless it has one for
 *				 all of them.
 *	 prelude	 statements to run before sql, each with its zero: those that begin
 *				 the transaction of a lease and its savepoints.
 *
 * A REQUEST_COPY goes on with rows in a format of COPY, a REQUEST_BATCH with its
 * items, after FRAME_COPY has come; request.h says how they end.  An item is a
 * statement to run:
 *
 *	 BatchItem	 its header; then
 *	 sql		 its text with its terminating zero; nothing, when it is the text of
 *				 the item before
 *	 params		 as above
 *
 * DOWN, from the worker: frames, each a FrameHeader and length bytes.
 *
 *	 FRAME_SHAPE  uint32 number of columns; int32 format of the values, 0 for
 *				  text, 1 for binary; per column uint32 type OID, int32 type
 *				  modifier, the name with its zero.  Starts a result.
 *	 FRAME_ROW	  per column int32 length or -1 for NULL, the bytes, a zero.
 *	 FRAME_TAG	  uint64 rows that the statement counted, the command tag with
 *				  its zero.  Ends the result of one statement.
 *	 FRAME_COPY	  uint32 number of columns.  The remote waits for the rows of a
 *				  REQUEST_COPY, or the worker for the items of a REQUEST_BATCH.
 *	 FRAME_ERROR  an ErrorFields, see below.  The statement failed.
 *	 FRAME_NOTICE likewise, a notice.
 *	 FRAME_STALE  empty: the definition that came with the request is older
 *				  than the one in use; nothing was sent; look it up again.
 *	 FRAME_RESTART empty: forget the frames so far, the statement was rolled
 *				  back for no fault of its own and runs again.
 *	 FRAME_FAILED an ErrorFields.  The next item of a BATCH_EACH has failed.
 *	 FRAME_ITEMS  uint64 number of items of a batch that have ended; int64
 *				  microseconds that the last of them took.
 *	 FRAME_LOST	  uint64 number of items of a batch that may have run.  The
 *				  connection was lost; an ERROR follows.  Of a BATCH_ONE it
 *				  comes only when none has.
 *	 FRAME_SPLIT  a SplitFrame, then the host and the port where the statement ran,
 *				  each with its zero; empty, when it has not.  Comes only where the
 *				  pool has a slow_query_threshold.
 *	 FRAME_END	  an EndFrame.  Always the last.
 *
 * ErrorFields: a letter and a string with its zero each, then a zero.  The
 * letters are those of the frontend/backend protocol's ErrorResponse ("Error
 * and Notice Message Fields" in PostgreSQL's manual), and 'r': what the worker has to say
 * of its tries, a sentence or more for the detail; 'o': there was no connection, and none can
 * be opened.
 *
 * Numbers are in the machine's byte order and not aligned.
 */
#ifndef DBPOOL_MESSAGE_H
#define DBPOOL_MESSAGE_H

#include "clock.h"
#include "dbpool.h"
#include "ipc/stats.h"
#include "lib/stringinfo.h"

typedef enum ResetPolicy
{
	RESET_SMART = 0,
	RESET_ALWAYS,
	RESET_NEVER
} ResetPolicy;

/* Options of a pool, of SERVER; times in milliseconds. */
typedef struct PoolOptions
{
	NameData	server;			/* for messages and views */
	NameData	username;
	Oid			owner;			/* of the server; invalid for superusers, who
								 * are not limited */
	int			min_size;
	int			max_size;
	int			acquire_timeout;
	int			idle_timeout;	/* 0: never */
	int			max_lifetime;	/* 0: for ever */
	int			validate_after; /* -1: never */
	int			health_check_interval;	/* 0: never */
	int			connect_timeout;
	ResetPolicy reset;
	int			multiplex;		/* may statements of several sessions share a
								 * connection at a time? */
	int			prepare_threshold;	/* uses of a text before it is prepared;
									 * 0: never */
	int			statement_cache_size;	/* prepared statements per connection */
	int			history_format; /* of migrations; backend/options.h */
	int			need_password;	/* a remote that does not ask for the password
								 * gets no byte of SQL */
	int			transaction;	/* Transactions; backend/options.h */
	int			isolation;		/* of remote transactions at least; likewise */
	int			lease_idle_timeout; /* 0: never */
	int			leak_threshold; /* 0: never */
	int			failover_wait;	/* 0: who finds no server is told at once */
	int			resolve_outcome;	/* is the remote asked what became of a
									 * write whose connection was lost? */
	int			read_only;		/* are its remote sessions? */
	int			retry_attempts; /* tries of a statement, the first included */
	int			retry_on;		/* errors after which one is sent again;
								 * backend/options.c */
	int			max_waiting;	/* for a connection; 0: no limit */
	int			shed;			/* are calls given up while the pool is
								 * overloaded? */
	int			load_balance;	/* of connections and calls over hosts */
	int			read_only_when_degraded;	/* without a primary, is a standby
											 * asked? */
	int			max_lag;		/* of standbys: in milliseconds; below 0: in
								 * kilobytes; 0: any */
	int			slow_query_threshold;	/* what takes so long is logged; 0:
										 * nothing is */
	int			hedge;			/* percentile after which a read is sent to
								 * another host as well, in tenths; 0: never */
} PoolOptions;

/* Definitions are compared by their bytes, and these are the first. */
StaticAssertDecl(sizeof(PoolOptions) == 2 * NAMEDATALEN + 31 * sizeof(int),
				 "PoolOptions has no gaps");

/* PoolOptions.retry_on */
#define RETRY_ON_NOTHING		0
#define RETRY_ON_SERIALIZATION	1

/* PoolOptions.load_balance */
#define BALANCE_OFF				0
#define BALANCE_RANDOM			1
#define BALANCE_LEAST_BUSY		2

#define FRAME_SHAPE		'T'
#define FRAME_ROW		'D'
#define FRAME_TAG		'C'
#define FRAME_COPY		'G'
#define FRAME_ERROR		'E'
#define FRAME_NOTICE	'N'
#define FRAME_STALE		'S'
#define FRAME_RESTART	'R'
#define FRAME_FAILED	'F'
#define FRAME_ITEMS		'B'
#define FRAME_LOST		'L'
#define FRAME_SPLIT		'P'
#define FRAME_END		'Z'

typedef struct FrameHeader
{
	uint32		type;
	uint32		length;
} FrameHeader;

StaticAssertDecl(sizeof(FrameHeader) == 8, "both sides read it as two words");

typedef struct EndFrame
{
	int64		remote_us;		/* that the remote took */
	Ticks		ended_at;		/* when all of the answer was there */
	int32		workers;		/* that the pool has, see worker/split.c */
	int32		pool;			/* index of the PoolStats that are to hear
								 * when it was taken, or -1 */
} EndFrame;

/* Where the time of a statement went, as far as the worker knows. */
typedef struct SplitFrame
{
	TimeSplit	split;			/* of no call, if it is none that has one */
	uint64		rows;			/* that command tags told */
	int32		threshold;		/* milliseconds, above 0 */
	int32		pool;			/* index of its PoolShared, its first worker's
								 * of several */
} SplitFrame;

/* What an item of a batch begins with. */
typedef struct BatchItem
{
	uint32		sql_len;		/* with the terminating zero, or 0 */
	uint32		params_len;
	int32		nparams;
} BatchItem;

/* A position in bytes that were received, with its end. */
typedef struct MessageReader
{
	const char *at;
	const char *end;
} MessageReader;

extern void message_put(StringInfo buf, const void *data, Size len);
extern void message_put_string(StringInfo buf, const char *str);
extern int	message_begin_frame(StringInfo buf, char type);
extern void message_end_frame(StringInfo buf, int start);
extern void message_put_field(StringInfo buf, char field, const char *str);

extern void message_get(MessageReader *reader, void *data, Size len);
extern const char *message_get_string(MessageReader *reader);
extern const char **message_params(const char *at, int n);

/* Read an int32 without asking for alignment. */
static inline int32
message_get_int32(MessageReader *reader)
{
	int32		value;

	message_get(reader, &value, sizeof(value));
	return value;
}

#endif							/* DBPOOL_MESSAGE_H */
