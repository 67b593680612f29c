/*
 * ledger.c
 *	  What became of each write, and whether the remote agrees.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stress.h"

typedef struct Entry
{
	int			leaves;			/* rows, if it succeeded */
	Outcome		outcome;
	const char *function;		/* of its op */
	bool		found;
} Entry;

/* The entries of a session, by serial number. */
typedef struct Ledger
{
	Entry	   *entries;
	int			n;
} Ledger;

static Ledger *ledgers;
static int	nledgers;

static Ledger *
ledger_of(int session)
{
	while (nledgers <= session)
	{
		ledgers = realloc(ledgers, sizeof(Ledger) * (nledgers + 1));
		if (ledgers == NULL)
			abort();
		memset(&ledgers[nledgers++], 0, sizeof(Ledger));
	}
	return &ledgers[session];
}

/* An operation has ended; serial numbers only grow. */
void
ledger_note(const Op *op, Outcome outcome)
{
	Ledger	   *ledger = ledger_of(op->session);
	int			room = ledger->n;

	if (op->serial >= room)
	{
		room = op->serial * 2 + 1000;
		ledger->entries = realloc(ledger->entries, sizeof(Entry) * room);
		if (ledger->entries == NULL)
			abort();
		memset(ledger->entries + ledger->n, 0, sizeof(Entry) * (room - ledger->n));
		ledger->n = room;
	}
	if (op->writes)
	{
		ledger->entries[op->serial].outcome = outcome;
		ledger->entries[op->serial].leaves = op->leaves;
		ledger->entries[op->serial].function = op->function;
	}
}

static const char *
entry_function(const Entry *entry)
{
	return entry->function != NULL ? entry->function : "one call";
}

static const char *
outcome_name(Outcome outcome)
{
	static const char *const names[] = {"no write", "ok", "failed", "unknown"};

	return names[outcome];
}

/* The rows that the remote has of one write: how many, and are they right? */
static void
compare_found(int session, int serial, int rows, bool right)
{
	Ledger	   *ledger = ledger_of(session);
	Entry	   *entry;
	bool		allowed;

	if (serial < 0 || serial >= ledger->n)
	{
		fail("s%d.%d: nobody wrote this", session, serial);
		return;
	}
	entry = &ledger->entries[serial];
	entry->found = true;
	allowed = entry->outcome == OUTCOME_OK || entry->outcome == OUTCOME_UNKNOWN;
	if (!allowed || rows != entry->leaves)
		fail("s%d.%d: %s, %s, should leave %d rows, has left %d", session, serial,
			 entry_function(entry), outcome_name(entry->outcome), allowed ? entry->leaves : 0, rows);
	else if (!right)
		fail("s%d.%d: its rows are wrong, or there twice", session, serial);
}

/* Writes that ended well have to be there.  Counts all of them. */
static void
compare_missing(void)
{
	int			counts[OUTCOME_UNKNOWN + 1][2] = {{0}};

	for (int session = 0; session < nledgers; session++)
	{
		Ledger	   *ledger = &ledgers[session];

		for (int serial = 0; serial < ledger->n; serial++)
		{
			Entry	   *entry = &ledger->entries[serial];

			counts[entry->outcome][entry->found]++;
			if (entry->outcome == OUTCOME_OK && entry->leaves > 0 && !entry->found)
				fail("s%d.%d: %s, ok, should leave %d rows, has left none", session,
					 serial, entry_function(entry), entry->leaves);
		}
	}
	printf("count writes_ok %d\n", counts[OUTCOME_OK][true]);
	printf("count writes_failed %d\n", counts[OUTCOME_FAILED][false]);
	printf("count writes_unknown_there %d\n", counts[OUTCOME_UNKNOWN][true]);
	printf("count writes_unknown_not_there %d\n", counts[OUTCOME_UNKNOWN][false]);
}

static int
int_at(const PGresult *res, int row, int column)
{
	return atoi(PQgetvalue(res, row, column));
}

/* Each write of stress_hot's sum has a row in the log. */
static void
compare_sums(PGconn *remote)
{
	PGresult   *res = PQexec(remote,
							 "SELECT (SELECT sum(n) FROM stress_hot),"
							 " (SELECT count(*) FROM stress_log WHERE hot)");

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		fail("could not read the sums: %s", PQerrorMessage(remote));
	else if (int_at(res, 0, 0) != int_at(res, 0, 1))
		fail("hot rows were updated %s times, should be %s", PQgetvalue(res, 0, 0),
			 PQgetvalue(res, 0, 1));
	PQclear(res);
}

/* All sessions have ended: does the remote have what they were told it has? */
void
ledger_compare(PGconn *remote)
{
	PGresult   *res = PQexec(remote,
							 "SELECT session, serial, count(*),"
							 " bool_and(payload = stress_payload(session, serial, part))"
							 " AND count(DISTINCT part) = count(*) AND min(part) = 0"
							 " AND max(part) = count(*) - 1"
							 " FROM stress_log GROUP BY session, serial");

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		fail("could not read the log: %s", PQerrorMessage(remote));
	for (int row = 0; row < PQntuples(res); row++)
		compare_found(int_at(res, row, 0), int_at(res, row, 1), int_at(res, row, 2),
					  PQgetvalue(res, row, 3)[0] == 't');
	PQclear(res);
	compare_missing();
	compare_sums(remote);
}
