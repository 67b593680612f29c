/*
 * client.h
 *	  A backend's requests to the workers.
 */
#ifndef DBPOOL_CLIENT_H
#define DBPOOL_CLIENT_H

#include "backend/options.h"
#include "fmgr.h"
#include "ipc/message.h"
#include "ipc/request.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* A request under way (client_slot.h). */
typedef struct Client Client;

/*
 * Who has the rows of a REQUEST_COPY.  give() is called when the remote waits
 * for rows, and sends them by client_send(); columns is how many the remote
 * expects.  It may throw, which fails the COPY.
 */
typedef struct RowSource
{
	void		(*give) (struct RowSource *source, Client *client, int columns);
} RowSource;

/* A transaction of this session on a connection of a pool (transaction.c). */
typedef struct RemoteTransaction RemoteTransaction;

/* A statement to run; see message.h for params. */
typedef struct Call
{
	const char *pool;			/* or a transaction's name, until it is run */
	const Definition *definition;	/* NULL: look the pool up */
	RequestKind kind;
	const char *sql;
	int			nparams;
	StringInfoData params;
	int			ntypes;			/* columns of the rows that it waits for; 0:
								 * it does not say */
	uint32	   *types;			/* see message.h */
	RowSource  *rows;			/* REQUEST_COPY alone */
	const char *target;			/* likewise: where to, for the view */
	const char *shown;			/* for the views, instead of sql; or NULL */
	RemoteTransaction *transaction; /* in which it runs; NULL: by itself, or
									 * as transaction.c finds */
	bool		ends_transaction;
	bool		prepares_transaction;
	int			traces;			/* besides those of its text; of a batch, of
								 * all its items */
	StringInfoData prelude;		/* see message.h */

	/* fallback.c */
	const char *stands_in_for;	/* the pool that was called, and has no remote
								 * now; NULL: it is pool */
	StringInfoData first_error; /* which it has answered */
	const char *no_fallback;	/* why no other pool stands in; or NULL */

	/* REQUEST_BATCH alone: see TaskHeader */
	int			batch;
	uint64		nitems;
	Size		item_most;
	const char *batch_sql;		/* their text; NULL: they have several */

	bool		only_looks;		/* it surely writes nothing; last_lsn.c */
} Call;

/* Who takes the frames of an answer; called in their order. */
typedef struct AnswerSink
{
	void		(*frame) (struct AnswerSink *sink, char type, MessageReader *body);
} AnswerSink;

extern int	client_preload_hint(void);
extern void client_require_preload(void);
extern void client_require_workers(void);
extern void client_refuse_read_only(const char *function);
extern void client_no_frame(AnswerSink *sink, char type, MessageReader *body);
extern int64 client_run(const Call *call, AnswerSink *sink);
extern void client_run_together(Call *calls, AnswerSink **sinks, int n);
extern void client_end_together(Call *calls, AnswerSink **sinks, int n, bool others);
extern bool client_send(Client *client, const char *data, Size len);
extern bool client_count_row(Client *client);

/* definition.c, warm.c */
extern void backend_register(void);

/* admin.c */
extern char *pool_list_usable(NearestName *nearest);

/* json.c */
typedef void (*JsonPair) (char *key, const JsonbValue *value, void *arg);

extern void json_members(Jsonb *json, const char *what, const char *example, JsonPair pair, void *arg);

/* interval.c */
extern int	interval_ms(const Interval *interval);

/* error.c */
extern void guard_register(void);

extern bool limits_allow(int open);
extern void limits_check_session(int open);
extern int	limits_try_count(void);
extern int	limits_count(void);

extern char *error_clean_text(const char *text);
extern void error_throw(const char *pool, const char *sql, MessageReader *body);
extern void error_texts(MessageReader *body, char *sqlstate, char **message);
extern void error_notice(const char *pool, MessageReader *body);
extern bool error_has_no_remote(const char *body, Size len);

/* taint.c */
extern int	call_traces(const Call *call);
extern bool call_begins_as_write(const Call *call);
extern bool call_writes(const Call *call);
extern bool call_is_one_transaction(const Call *call);
extern bool call_steers(const Call *call);
extern int	batch_traces(const char *sql, const char *params, Size params_len, Size *looked);

/* trace.c */
extern void trace_find(char *traceparent);

/* params.c */
extern void params_collect(FunctionCallInfo fcinfo, int first, Call *call);
extern int	modes_enter(bool money);
extern void modes_leave(int level);
extern bool modes_money_type(Oid type);

/* result.c */
typedef enum ResultForm
{
	RESULT_RECORD,				/* as the caller declares, or as they come */
	RESULT_TYPE,				/* the type of the function's first argument */
	RESULT_VALUE,				/* likewise, and at most one row */
	RESULT_JSON
} ResultForm;

extern void result_return_set(FunctionCallInfo fcinfo, Call *call, ResultForm form);
extern Datum result_return_value(FunctionCallInfo fcinfo, Call *call);

#endif							/* DBPOOL_CLIENT_H */
