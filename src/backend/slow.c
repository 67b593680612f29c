/*
 * slow.c
 *	  Calls that take longer than their pool's slow_query_threshold have a line in the log of
 *	  the server.
 *
 * The session writes it, as it alone knows all of the time: what it takes itself to make values
 * of an answer comes last.  What the worker knows of the rest comes with a FRAME_SPLIT.  So
 * the line has the session's log_line_prefix and its encoding; and when the log's reader is
 * slow, those wait who are slow themselves, not the worker, which has others to serve.
 *
 * How many lines there can be: a session has one for each slow_query_threshold that it has
 * waited, at the most, and a pool SLOW_LINES a second.  What is left out is counted, and told
 * by the next one.
 *
 * The text is without its literals, by the digest (digest.c), and cut: in those passwords may stand.  Values
 * of parameters are shown if dbpool.log_parameter_max_length says so.  The statement of the
 * client, in which all of that may stand, and its context are not shown, as they are with
 * other messages; nor does the client get this one, since where a pool leads to may be
 * none of its matters.
 */
#include "postgres.h"

#include "backend/client_slot.h"
#include "backend/digest.h"
#include "backend/text.h"
#include "mb/stringinfo_mb.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/* Lines of a pool in a second. */
#define SLOW_LINES			100

/* Bytes of parameters in a line, whatever dbpool.log_parameter_max_length is. */
#define SLOW_PARAMS_BYTES	(1024 * 1024)

/* May there be a line about the pool?  Then *left_out gets how many there were not since the last one. */
static bool
takes_line(int pool, const PoolKey *key, uint64 *left_out)
{
	PoolShared *shared = shmem_pool(pool);
	int64		second = ticks_now() / 1000000;
	bool		taken;

	*left_out = 0;
	/* another pool has got the entry meanwhile: that is none of its lines */
	if (memcmp(&shared->key, key, sizeof(PoolKey)) != 0)
		return true;
	SpinLockAcquire(&shared->mutex);
	if (shared->slow.second != second)
	{
		shared->slow.second = second;
		shared->slow.n = 0;
	}
	taken = shared->slow.n < SLOW_LINES;
	if (taken)
	{
		shared->slow.n++;
		*left_out = shared->slow.left_out;
		shared->slow.left_out = 0;
	}
	else
		shared->slow.left_out++;
	SpinLockRelease(&shared->mutex);
	return taken;
}

/* The call's text, without literals, into DBPOOL_SHOWN_SQL bytes. */
static void
slow_text(const Client *client, char *text)
{
	const Call *call = client->call;
	int			encoding;
	Digest		digest;
	StringInfoData shown;

	if (call->kind == REQUEST_BATCH && call->batch_sql == NULL)
		snprintf(text, DBPOOL_SHOWN_SQL, "a batch of " UINT64_FORMAT " statements", call->nitems);
	else if (!statement_copy_text(&client->statement, text, &encoding))
	{
		digest_text(call->kind == REQUEST_BATCH ? call->batch_sql :
					call->kind == REQUEST_COPY ? call->shown : call->sql, &digest, &shown);
		text_clip(text, shown.data, DBPOOL_SHOWN_SQL);
	}
}

/* The values of the parameters, as far as they may be shown; NULL: none are. */
static char *
slow_params(const Call *call)
{
	MessageReader reader;
	StringInfoData buf;

	if (call->nparams == 0 || dbpool_log_parameter_max_length == 0)
		return NULL;
	reader.at = call->params.data;
	reader.end = call->params.data + call->params.len;
	initStringInfo(&buf);
	for (int i = 0; i < call->nparams; i++)
	{
		int32		len = message_get_int32(&reader);
		int			room = SLOW_PARAMS_BYTES - buf.len;

		if (room <= 0)
		{
			appendStringInfoString(&buf, ", ...");
			break;
		}
		appendStringInfo(&buf, "%s$%d = ", i > 0 ? ", " : "", i + 1);
		if (len < 0)
		{
			appendStringInfoString(&buf, "NULL");
			continue;
		}
		if (dbpool_log_parameter_max_length > 0)
			room = Min(room, dbpool_log_parameter_max_length);
		appendStringInfoStringQuoted(&buf, reader.at, room);
		reader.at += len + 1;
	}
	return buf.data;
}

/* Where its time went; of bulk inserts and batches that is not known. */
static void
slow_put_split(StringInfo line, const TimeSplit *split)
{
	if (split->calls == 0)
		return;
	appendStringInfo(line, " (queue %.3f, worker %.3f, wire %.3f, remote %.3f, decode %.3f)",
					 split->queue_us / 1000.0, split->worker_us / 1000.0, split->wire_us / 1000.0,
					 split->remote_us / 1000.0, split->decode_us / 1000.0);
}

/*
 * Write the line.  split is NULL when the call was given up, and then how far it had come is
 * all there is to be told.
 */
static void
slow_put(const Client *client, int64 us, const TimeSplit *split, uint64 left_out)
{
	char		text[DBPOOL_SHOWN_SQL];
	const char *params = slow_params(client->call);

	/* after an error, nothing is looked up; and a role may have been dropped */
	const char *role = split != NULL ? GetUserNameFromId(GetUserId(), true) : NULL;
	StringInfoData line;

	slow_text(client, text);
	initStringInfo(&line);
	appendStringInfo(&line, "dbpool: slow statement on pool \"%s\"", client->call->pool);
	if (client->host[0] != '\0' && split != NULL)
		appendStringInfo(&line, " at %s:%s", client->host, client->port);
	appendStringInfo(&line, ": %.3f ms", us / 1000.0);
	if (split == NULL)
		appendStringInfo(&line, ", given up while it %s", client->running ? "ran" : "had no connection");
	else
	{
		slow_put_split(&line, split);
		appendStringInfo(&line, ", " UINT64_FORMAT " rows", client->split.rows);
	}
	if (client->error.len > 0)
		appendStringInfoString(&line, ", failed");
	appendStringInfo(&line, ", process %d", MyProcPid);
	if (role != NULL)
		appendStringInfo(&line, ", role \"%s\"", role);
	if (application_name != NULL && application_name[0] != '\0')
		appendStringInfo(&line, ", application \"%s\"", application_name);
	if (client->traceparent[0] != '\0')
		appendStringInfo(&line, ", traceparent %s", client->traceparent);
	ereport(LOG_SERVER_ONLY,
			(errmsg_internal("%s: %s", line.data, text),
			 params ? errdetail_internal("Parameters: %s", params) : 0,
			 left_out > 0 ? errhint("Others of the pool are not in the log, as there are %d lines a second at most: " UINT64_FORMAT ".",
									SLOW_LINES, left_out) : 0,
			 errhidestmt(true),
			 errhidecontext(true)));
}

/* The same in memory of its own, which may be that of an error. */
static void
slow_log(const Client *client, int64 us, const TimeSplit *split, uint64 left_out)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dbpool slow statement",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext previous = MemoryContextSwitchTo(context);

	slow_put(client, us, split, left_out);
	MemoryContextSwitchTo(previous);
	MemoryContextDelete(context);
}

/* The call is about to be submitted. */
void
slow_begun(Client *client)
{
	RequestKind kind = client->call->kind;

	client->slow_ms = kind == REQUEST_PING || kind == REQUEST_WARM ? 0 :
		client->definition->options->slow_query_threshold;
	client->submitted_at = client->slot->submitted_at;
	client->statement = client->slot->task.statement;
	if (client->slow_ms > 0)
		strlcpy(client->traceparent, client->slot->task.traceparent, sizeof(client->traceparent));
	client->split_known = false;
}

/* A FRAME_SPLIT has come. */
void
slow_split(Client *client, MessageReader *body)
{
	message_get(body, &client->split, sizeof(SplitFrame));
	strlcpy(client->host, message_get_string(body), sizeof(client->host));
	strlcpy(client->port, message_get_string(body), sizeof(client->port));
	client->split_known = true;
}

/* The answer was complete by ended_at, and by now all of it has been taken. */
void
slow_ended(Client *client, Ticks ended_at)
{
	TimeSplit	split = client->split.split;
	Ticks		begun = Max(ended_at, client->awake_at);
	Ticks		now = ticks_now();
	uint64		left_out;

	/* what stats_taken() adds */
	split.worker_us += begun - ended_at;
	split.decode_us += now - begun;
	if (client->slow_ms > 0 && now - client->submitted_at >= (int64) client->slow_ms * 1000 &&
		takes_line(client->split.pool, &client->slot->task.key, &left_out))
		slow_log(client, now - client->submitted_at, &split, left_out);
}

/*
 * The call was given up.  Each is an error, which has lines in the log that are not counted; so
 * is this one not.  Its text and parameters are there as long as the call is.
 */
void
slow_given_up(const Client *client)
{
	int64		us = ticks_now() - client->submitted_at;

	if (us >= (int64) client->slow_ms * 1000)
		slow_log(client, us, NULL, 0);
}
