/*
 * error.c
 *	  A remote error or notice becomes a local one.
 */
#include "postgres.h"

#include "backend/client.h"
#include "backend/text.h"
#include "mb/pg_wchar.h"
#include "postgres_ext.h"
#include "utils/memutils.h"

typedef struct ErrorFields
{
	const char *of['z' + 1];	/* by the protocol's letter */
} ErrorFields;

/*
 * Text that came from elsewhere, safe to show and to keep: what the remote's
 * server says before it knows our encoding may be in any.  In the current
 * context.
 */
char *
error_clean_text(const char *text)
{
	return text_from(text, GetDatabaseEncoding());
}

static void
read_fields(MessageReader *body, ErrorFields *fields)
{
	memset(fields, 0, sizeof(ErrorFields));
	for (;;)
	{
		unsigned char letter;

		message_get(body, &letter, 1);
		if (letter == '\0')
			break;
		if (letter > 'z')
			elog(ERROR, "dbpool error message has an impossible field");
		fields->of[letter] = error_clean_text(message_get_string(body));
	}
	if (fields->of['M'] == NULL)
		fields->of['M'] = "the remote server reported an error without a message";
}

static int
sqlstate_of(const ErrorFields *fields, int otherwise)
{
	const char *code = fields->of['C'];

	if (code == NULL || strlen(code) != 5)
		return otherwise;
	return MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
}

static int
level_of(const ErrorFields *fields)
{
	const char *severity = fields->of['V'];

	if (severity == NULL)
		return NOTICE;
	if (strcmp(severity, "WARNING") == 0)
		return WARNING;
	if (strcmp(severity, "INFO") == 0)
		return INFO;
	if (strcmp(severity, "LOG") == 0)
		return LOG;
	if (strncmp(severity, "DEBUG", 5) == 0)
		return DEBUG1;
	return NOTICE;
}

/* Pass on the names of database objects, for GET STACKED DIAGNOSTICS. */
static int
object_names(const ErrorFields *fields)
{
	static const struct
	{
		char		letter;
		int			diag;
	}			names[] = {
		{'s', PG_DIAG_SCHEMA_NAME},
		{'t', PG_DIAG_TABLE_NAME},
		{'c', PG_DIAG_COLUMN_NAME},
		{'d', PG_DIAG_DATATYPE_NAME},
		{'n', PG_DIAG_CONSTRAINT_NAME},
	};

	for (int i = 0; i < lengthof(names); i++)
	{
		if (fields->of[(int) names[i].letter] != NULL)
			err_generic_string(names[i].diag, fields->of[(int) names[i].letter]);
	}
	return 0;
}

/* Where in which text: in our statement, or in one that the remote ran for it. */
static int
position_of(const ErrorFields *fields, const char *sql)
{
	if (fields->of['q'] != NULL)
	{
		internalerrquery(fields->of['q']);
		if (fields->of['p'] != NULL)
			internalerrposition(atoi(fields->of['p']));
	}
	else if (fields->of['P'] != NULL && sql != NULL)
	{
		internalerrquery(sql);
		internalerrposition(atoi(fields->of['P']));
	}
	return 0;
}

static int
context_of(const ErrorFields *fields, const char *pool)
{
	if (fields->of['W'] != NULL)
		errcontext("%s", fields->of['W']);
	return errcontext("statement on pool \"%s\"", pool);
}

/* The detail, and what the worker has to say of its tries. */
static int
detail_of(const ErrorFields *fields)
{
	const char *detail = fields->of['D'];
	const char *tries = fields->of['r'];

	if (detail == NULL && tries == NULL)
		return 0;
	return errdetail_internal("%s%s%s", detail ? detail : "", detail && tries ? "\n" : "",
							  tries ? tries : "");
}

/* Throw the error that a FRAME_ERROR describes. */
void
error_throw(const char *pool, const char *sql, MessageReader *body)
{
	ErrorFields fields;

	read_fields(body, &fields);
	ereport(ERROR,
			(errcode(sqlstate_of(&fields, ERRCODE_FDW_ERROR)),
			 errmsg_internal("%s", fields.of['M']),
			 detail_of(&fields),
			 fields.of['H'] ? errhint("%s", fields.of['H']) : 0,
			 object_names(&fields),
			 position_of(&fields, sql),
			 context_of(&fields, pool)));
}

/*
 * The SQLSTATE, of six bytes with its zero, and the primary message of a FRAME_ERROR
 * or a FRAME_FAILED.
 */
void
error_texts(MessageReader *body, char *sqlstate, char **message)
{
	ErrorFields fields;

	read_fields(body, &fields);
	strlcpy(sqlstate, unpack_sql_state(sqlstate_of(&fields, ERRCODE_FDW_ERROR)), 6);
	*message = unconstify(char *, fields.of['M']);
}

/*
 * Does the ErrorFields of that length say that no connection could be had, as none can be
 * opened?  It is the worker's word: a remote's errors have no such field.
 */
bool
error_has_no_remote(const char *body, Size len)
{
	MessageReader reader = {body, body + len};
	ErrorFields fields;

	if (len == 0)
		return false;
	read_fields(&reader, &fields);
	return fields.of['o'] != NULL;
}

/* Pass on the notice that a FRAME_NOTICE describes; there may be many. */
void
error_notice(const char *pool, MessageReader *body)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dbpool notice",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ErrorFields fields;

	read_fields(body, &fields);
	ereport(level_of(&fields),
			(errcode(sqlstate_of(&fields, ERRCODE_SUCCESSFUL_COMPLETION)),
			 errmsg_internal("%s", fields.of['M']),
			 fields.of['D'] ? errdetail_internal("%s", fields.of['D']) : 0,
			 fields.of['H'] ? errhint("%s", fields.of['H']) : 0,
			 context_of(&fields, pool)));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
