/*
 * fault.c
 *	  Counting fault points, and saying which of them fail; see fault.h.
 *
 * Empty unless built by "make FAULTS=1".
 */
#include "postgres.h"

#ifdef DBPOOL_FAULTS

#include <libpq-fe.h>

#include "fmgr.h"
#include "ipc/shmem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

static bool in_worker = false;

/* From here on this process is one whose calls may fail. */
void
fault_worker_starts(void)
{
	in_worker = true;
}

/* The place of that name; noted if it is new; NULL when there are too many. */
static FaultPlace *
find_place(FaultShared *faults, const char *name)
{
	for (int i = 0; i < FAULT_PLACES; i++)
	{
		FaultPlace *place = &faults->places[i];

		if (place->name[0] == '\0')
			strlcpy(place->name, name, sizeof(place->name));
		if (strcmp(place->name, name) == 0)
			return place;
	}
	return NULL;
}

/*
 * A fault point; does it fail?  throws: by an error, which a recovery has to do
 * without.  May be called by threads.
 */
bool
fault_here(const char *function, const char *file, int line, bool throws)
{
	FaultShared *faults = &dbpool_shared->faults;
	bool		recovers = throws && ExitOnAnyError;
	bool		fires = false;
	char		name[sizeof(faults->places[0].name)];
	FaultPlace *place;
	Size		len;

	if (!in_worker)
		return false;
	snprintf(name, sizeof(name), "%s at %s:%d", function, file, line);
	SpinLockAcquire(&faults->mutex);
	if (faults->armed && (place = find_place(faults, name)) != NULL)
	{
		place->passed++;
		if (place - faults->places == faults->place && place->passed == faults->pass)
			faults->left = faults->many;
		fires = faults->left > 0 && !recovers;
		if (fires)
		{
			faults->left--;
			faults->fired++;
		}
		if (recovers)
			faults->in_recovery++;
		len = strnlen(faults->where, sizeof(faults->where) - 1);
		if (fires || recovers)
			snprintf(faults->where + len, sizeof(faults->where) - len, "%s%s",
					 len > 0 ? "; " : "", name);
	}
	SpinLockRelease(&faults->mutex);
	return fires;
}

void
fault_throw(const char *function, const char *file, int line)
{
	if (fault_here(function, file, line, true))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Fault on demand: %s at %s:%d.", function, file, line)));
}

/* libpq has no memory for a result: what it gives then is an error without fields. */
PGresult *
fault_result(PGconn *conn, const char *file, int line)
{
	PGresult   *res = PQgetResult(conn);

	if (res == NULL || !fault_here("PQgetResult", file, line, false))
		return res;
	PQclear(res);
	return PQmakeEmptyPGresult(conn, PGRES_FATAL_ERROR);
}

PG_FUNCTION_INFO_V1(dbpool_fault_arm);
PG_FUNCTION_INFO_V1(dbpool_fault_disarm);
PG_FUNCTION_INFO_V1(dbpool_fault_report);
PG_FUNCTION_INFO_V1(dbpool_fault_places);

/*
 * dbpool_fault_arm(place text, pass int, many int): when that place is passed for
 * that time, it fails, and the next points do, many in all.  No place has that
 * name: they are counted only.
 */
Datum
dbpool_fault_arm(PG_FUNCTION_ARGS)
{
	FaultShared *faults = &dbpool_shared->faults;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	SpinLockAcquire(&faults->mutex);
	faults->armed = true;
	faults->place = -1;
	faults->pass = (uint32) PG_GETARG_INT32(1);
	faults->many = (uint32) PG_GETARG_INT32(2);
	faults->left = 0;
	faults->fired = 0;
	faults->in_recovery = 0;
	faults->where[0] = '\0';
	for (int i = 0; i < FAULT_PLACES; i++)
	{
		faults->places[i].passed = 0;
		if (name[0] != '\0' && strcmp(faults->places[i].name, name) == 0)
			faults->place = i;
	}
	SpinLockRelease(&faults->mutex);
	PG_RETURN_VOID();
}

/* Nothing fails any more, and nothing is counted. */
Datum
dbpool_fault_disarm(PG_FUNCTION_ARGS)
{
	dbpool_shared->faults.armed = false;
	PG_RETURN_VOID();
}

/* How many points have fired, were in a recovery; and where. */
Datum
dbpool_fault_report(PG_FUNCTION_ARGS)
{
	FaultShared *faults = &dbpool_shared->faults;

	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%u|%u|%s", faults->fired,
											  faults->in_recovery, faults->where)));
}

/* Each place that was ever passed, and how often it was since the faults were armed. */
Datum
dbpool_fault_places(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < FAULT_PLACES; i++)
	{
		const FaultPlace *place = &dbpool_shared->faults.places[i];

		if (place->name[0] != '\0')
			appendStringInfo(&buf, "%s|%u\n", place->name, place->passed);
	}
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

#endif							/* DBPOOL_FAULTS */
