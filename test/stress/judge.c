/*
 * judge.c
 *	  Is an answer what it has to be, and what does it say of a write?
 */
#include <stdio.h>
#include <string.h>

#include "stress.h"

/* How often a statement may be run until it has not failed for another's sake. */
#define MAX_RUNS	6

static bool
same(const PGresult *res, int row, int column, const char *value)
{
	if (PQgetisnull(res, row, column))
		return value == NULL;
	return value != NULL && strcmp(PQgetvalue(res, row, column), value) == 0;
}

/* Is this exactly the answer that the operation has to have? */
static void
check_rows(const Session *s, const PGresult *res)
{
	const Op   *op = &s->op;
	int			ncells = op->ncells + (op->numbered ? 1 : 0);

	if (PQntuples(res) != op->nrows || PQnfields(res) != ncells)
	{
		fail("s%d.%d: pool \"%s\", %d rows of %d columns, should be %d of %d: %.200s",
			 s->id, op->serial, op->pool, PQntuples(res), PQnfields(res), op->nrows, ncells, op->sql);
		return;
	}
	for (int row = 0; row < op->nrows; row++)
	{
		for (int i = 0; i < ncells; i++)
		{
			char		buffer[12];
			const char *value = op->cells[i];

			if (i == op->ncells)
			{
				snprintf(buffer, sizeof(buffer), "%d", row);
				value = buffer;
			}
			if (same(res, row, i, value))
				continue;
			fail("s%d.%d: pool \"%s\", row %d has \"%.200s\", should be \"%.200s\": %.200s",
				 s->id, op->serial, op->pool, row, PQgetvalue(res, row, i), value ? value : "NULL",
				 op->sql);
			return;
		}
	}

	/*
	 * a statement that was sent again, unseen, may have raised its notices
	 * before
	 */
	if (s->notices < op->notices || s->notices > op->notices * MAX_RUNS)
		fail("s%d.%d: pool \"%s\", %d notices, should be %d", s->id, op->serial,
			 op->pool, s->notices, op->notices);
}

static bool
is_one_of(const char *state, const char *list)
{
	return state[0] != '\0' && strstr(list, state) != NULL;
}

/* An error has come.  May it, and what does it say of a write? */
static Outcome
judge_error(const Session *s, const PGresult *res)
{
	const Op   *op = &s->op;
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	bool		loud_meanwhile = loud || s->since <= quiet_since;

	state = state ? state : "";
	message = message ? message : PQresultErrorMessage(res);
	if (op->state != NULL && strcmp(state, op->state) == 0 &&
		strstr(message, op->message) != NULL)
	{
		count("expected_errors", 1);
		return op->runs ? OUTCOME_UNKNOWN : OUTCOME_FAILED;
	}
	if (strcmp(state, "57014") == 0 &&
		((s->cancelled && strstr(message, "user request") != NULL) ||
		 (s->timeout > 0 && strstr(message, "statement timeout") != NULL)))
	{
		count(strstr(message, "timeout") ? "timed_out" : "cancelled", 1);
		return OUTCOME_UNKNOWN;
	}
	if (strcmp(state, "57P01") == 0 && s->killed)
	{
		count("killed", 1);
		return OUTCOME_UNKNOWN;
	}
	if (strcmp(state, "08007") == 0 && loud_meanwhile)
	{
		count("lost", 1);
		return OUTCOME_UNKNOWN;
	}
	if (is_one_of(state, "08000 08001 08006 53300") && loud_meanwhile)
	{
		count("not_run", 1);
		return OUTCOME_FAILED;
	}
	/* somebody else's DEALLOCATE in a function: it was rolled back */
	if (strcmp(state, "26000") == 0 && op->function != NULL)
	{
		count("deallocated", 1);
		return OUTCOME_FAILED;
	}
	if (is_one_of(state, "08001 53300") && strcmp(op->pool, "tight") == 0 &&
		strncmp(message, "could not get a connection", 26) == 0)
	{
		count("not_acquired", 1);
		return OUTCOME_FAILED;
	}
	fail("s%d.%d: %s on pool \"%s\", error %s %s, should be %s %s: %.200s", s->id, op->serial,
		 op->function ? op->function : "one call", op->pool, state, PQresultErrorMessage(res), op->state ? op->state : "none",
		 op->state ? op->message : "", op->sql);
	return OUTCOME_UNKNOWN;
}

/* The answer of a session has come as a whole. */
Outcome
judge(const Session *s)
{
	const PGresult *res = s->answer;

	switch (PQresultStatus(res))
	{
		case PGRES_TUPLES_OK:
			if (s->op.state != NULL)
				fail("s%d.%d: pool \"%s\", ok, should be error %s: %.200s", s->id,
					 s->op.serial, s->op.pool, s->op.state, s->op.sql);
			else
				check_rows(s, res);
			count(s->op.function != NULL ? "transactions" : "ok", 1);
			count("rows", PQntuples(res));
			return OUTCOME_OK;
		case PGRES_FATAL_ERROR:
			/* libpq's own word, when the connection ended without one */
			if (PQresultErrorField(res, PG_DIAG_SQLSTATE) != NULL || !s->killed)
				return judge_error(s, res);
			break;
		default:
			if (!s->killed)
				fail("s%d.%d: no answer: %.200s", s->id, s->op.serial, s->op.sql);
	}
	count("killed", 1);
	return OUTCOME_UNKNOWN;
}

/* Notices that statements of ours raise must come to those who ran them. */
void
on_notice(void *arg, const PGresult *res)
{
	static const char ours[] = "stress ";
	Session    *s = arg;
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

	if (message == NULL || strncmp(message, ours, strlen(ours)) != 0)
		return;
	if (s->state != SESSION_RUNNING || s->op.notices == 0 ||
		strcmp(message, s->op.params[0]) != 0)
		fail("s%d.%d: notice of somebody else: %s", s->id, s->op.serial, message);
	else
		s->notices++;
}
