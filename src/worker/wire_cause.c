/*
 * wire_cause.c
 *	  What the remote's errors mean, by their SQLSTATEs and where they come from.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "worker/connection.h"

/*
 * Would the statement perhaps not have failed, had it been prepared just now?
 * Its parameters have the types that they got when it was: since then, a
 * column may have become a bigint or a text.
 */
static bool
is_of_old_types(const char *sqlstate)
{
	static const char *const states[] = {
		"22003",				/* numeric_value_out_of_range */
		"22007",				/* invalid_datetime_format */
		"22008",				/* datetime_field_overflow */
		"22P02",				/* invalid_text_representation */
		"XX000",				/* internal_error: the type itself is gone */
	};

	for (int i = 0; i < lengthof(states); i++)
	{
		if (strcmp(sqlstate, states[i]) == 0)
			return true;
	}
	/* syntax_error_or_access_rule_violation */
	return strncmp(sqlstate, "42", 2) == 0;
}

/* Why a statement has failed.  The names of the SQLSTATEs are in appendix A of the manual. */
Cause
wire_cause_of(const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *source = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);

	if (sqlstate == NULL)
		return CAUSE_OWN;
	/* query_canceled */
	if (strcmp(sqlstate, "57014") == 0)
		return CAUSE_CANCEL;
	/* serialization_failure, deadlock_detected */
	if (strcmp(sqlstate, "40001") == 0 || strcmp(sqlstate, "40P01") == 0)
		return CAUSE_CONFLICT;
	/* feature_not_supported: "cached plan must not change result type" */
	if (strcmp(sqlstate, "0A000") == 0 && source != NULL &&
		strcmp(source, "RevalidateCachedQuery") == 0)
		return CAUSE_PLAN_OLD;
	/* invalid_sql_statement_name: somebody has deallocated it */
	if (strcmp(sqlstate, "26000") == 0 &&
		PQresultErrorField(res, PG_DIAG_CONTEXT) == NULL)
		return CAUSE_PLAN_GONE;
	/* read_only_sql_transaction */
	if (strcmp(sqlstate, "25006") == 0)
		return CAUSE_READ_ONLY;
	/* duplicate_prepared_statement: behind a pooler, another has been here */
	if (strcmp(sqlstate, "42P05") == 0)
		return CAUSE_PLAN_EXISTS;
	if (is_of_old_types(sqlstate) &&
		(source == NULL || strcmp(source, "exec_stmt_raise") != 0))
		return CAUSE_TYPES_OLD;
	return CAUSE_OWN;
}
