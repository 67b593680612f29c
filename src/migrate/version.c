/*
 * version.c
 *	  Versions of migrations, the type dbpool_migration_version.
 *
 * A version is a number, or several with points in between, compared one by one,
 * of which missing ones are 0 (as Flyway has them); or "R__name", which is a
 * repeatable migration and comes after all numbers, by name.  Everywhere they are
 * strings in a canonical form, without leading zeros and without parts of 0 at the
 * end; so versions that are equal have the same string.  The type stores it as
 * text is stored.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

/* Most bytes of a version of numbers, and of a part, which fits into a bigint. */
#define MAX_VERSION_BYTES	200
#define MAX_PART_DIGITS		19

#define REPEATABLE			"R__"

PG_FUNCTION_INFO_V1(dbpool_migration_version_in);
PG_FUNCTION_INFO_V1(dbpool_migration_version_out);
PG_FUNCTION_INFO_V1(dbpool_migration_version_recv);
PG_FUNCTION_INFO_V1(dbpool_migration_version_send);
PG_FUNCTION_INFO_V1(dbpool_migration_version_cmp);
PG_FUNCTION_INFO_V1(dbpool_migration_version_lt);
PG_FUNCTION_INFO_V1(dbpool_migration_version_le);
PG_FUNCTION_INFO_V1(dbpool_migration_version_eq);
PG_FUNCTION_INFO_V1(dbpool_migration_version_ne);
PG_FUNCTION_INFO_V1(dbpool_migration_version_ge);
PG_FUNCTION_INFO_V1(dbpool_migration_version_gt);
PG_FUNCTION_INFO_V1(dbpool_migration_version_larger);
PG_FUNCTION_INFO_V1(dbpool_migration_version_smaller);
PG_FUNCTION_INFO_V1(dbpool_migration_version_int8);

/* --- strings ----------------------------------------------------------------------- */

bool
version_is_repeatable(const char *version)
{
	return strncmp(version, REPEATABLE, strlen(REPEATABLE)) == 0;
}

char *
version_of_repeatable(const char *name)
{
	return psprintf(REPEATABLE "%s", name);
}

char *
version_of_number(int64 number)
{
	return psprintf(INT64_FORMAT, number);
}

bool
version_to_number(const char *version, int64 *number)
{
	char	   *end;

	if (version_is_repeatable(version))
		return false;
	errno = 0;
	*number = strtoi64(version, &end, 10);
	return *end == '\0' && errno == 0;
}

char *
version_literal(const char *version)
{
	int64		number;

	return version_to_number(version, &number) ? pstrdup(version) : quote_literal_cstr(version);
}

/*
 * The canonical form of what people write; or NULL, and *why, a sentence, says what
 * is wrong.
 */
char *
version_canonical(const char *text, const char **why)
{
	StringInfoData buf;
	int			len = 0;

	*why = "A version is a number, or several with points in between, or R__ and the name of a repeatable migration.";
	if (version_is_repeatable(text))
	{
		int			length = pg_mbstrlen(text + strlen(REPEATABLE));

		if (length > 0 && length <= MAX_MIGRATION_NAME)
			return pstrdup(text);
		*why = psprintf("After R__ comes the name of the migration, of %d characters at most.",
						MAX_MIGRATION_NAME);
		return NULL;
	}
	initStringInfo(&buf);
	for (const char *at = text;; at++)
	{
		Size		digits = strspn(at, "0123456789");
		Size		zeros = Min(strspn(at, "0"), digits > 0 ? digits - 1 : 0);

		if (digits == 0)
		{
			if (*at == '-')
				*why = "Versions are not negative.";
			return NULL;
		}
		if (digits - zeros > MAX_PART_DIGITS ||
			(digits - zeros == MAX_PART_DIGITS &&
			 strncmp(at + zeros, "9223372036854775807", MAX_PART_DIGITS) > 0))
		{
			*why = "Versions go up to 9223372036854775807.";
			return NULL;
		}
		appendStringInfo(&buf, "%s%.*s", buf.len > 0 ? "." : "", (int) (digits - zeros), at + zeros);
		/* up to the last part that is not 0 */
		if (len == 0 || at[zeros] != '0')
			len = buf.len;
		if (buf.len > MAX_VERSION_BYTES)
		{
			*why = psprintf("It is longer than %d bytes.", MAX_VERSION_BYTES);
			return NULL;
		}
		at += digits;
		if (*at == '\0')
			break;
		if (*at != '.')
			return NULL;
	}
	buf.data[len] = '\0';
	return buf.data;
}

/* Less than, equal to or greater than 0; NULL, as "none", is the lowest. */
int
version_cmp(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	if (version_is_repeatable(a) || version_is_repeatable(b))
	{
		int			cmp = version_is_repeatable(a) - version_is_repeatable(b);

		return cmp != 0 ? cmp : strcmp(a, b);
	}
	for (;;)
	{
		Size		a_len = strcspn(a, ".");
		Size		b_len = strcspn(b, ".");
		int			cmp = a_len != b_len ? (a_len < b_len ? -1 : 1) : strncmp(a, b, a_len);

		if (cmp != 0)
			return cmp;
		a += a_len;
		b += b_len;
		/* the one that has further parts is the greater, as the last is not 0 */
		if (*a == '\0' || *b == '\0')
			return (*a != '\0') - (*b != '\0');
		a++;
		b++;
	}
}

/* --- the type ---------------------------------------------------------------------- */

static Datum
make_datum(const char *text)
{
	const char *why;
	char	   *version = version_canonical(text, &why);

	if (version == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid version of a migration: \"%s\"", text),
				 errdetail_internal("%s", why)));
	return CStringGetTextDatum(version);
}

/* An argument, as a string. */
char *
version_argument(FunctionCallInfo fcinfo, int n)
{
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Datum
dbpool_migration_version_in(PG_FUNCTION_ARGS)
{
	return make_datum(PG_GETARG_CSTRING(0));
}

Datum
dbpool_migration_version_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(version_argument(fcinfo, 0));
}

Datum
dbpool_migration_version_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			len;

	return make_datum(pq_getmsgtext(buf, buf->len - buf->cursor, &len));
}

Datum
dbpool_migration_version_send(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	char	   *version = version_argument(fcinfo, 0);

	pq_begintypsend(&buf);
	pq_sendtext(&buf, version, strlen(version));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

static int
compare_arguments(FunctionCallInfo fcinfo)
{
	return version_cmp(version_argument(fcinfo, 0), version_argument(fcinfo, 1));
}

Datum
dbpool_migration_version_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare_arguments(fcinfo));
}

Datum
dbpool_migration_version_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_arguments(fcinfo) < 0);
}

Datum
dbpool_migration_version_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_arguments(fcinfo) <= 0);
}

Datum
dbpool_migration_version_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_arguments(fcinfo) == 0);
}

Datum
dbpool_migration_version_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_arguments(fcinfo) != 0);
}

Datum
dbpool_migration_version_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_arguments(fcinfo) >= 0);
}

Datum
dbpool_migration_version_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_arguments(fcinfo) > 0);
}

Datum
dbpool_migration_version_larger(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_arguments(fcinfo) >= 0 ? 0 : 1));
}

Datum
dbpool_migration_version_smaller(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_arguments(fcinfo) <= 0 ? 0 : 1));
}

/* Errors: 22003 for one that is no whole number. */
Datum
dbpool_migration_version_int8(PG_FUNCTION_ARGS)
{
	char	   *version = version_argument(fcinfo, 0);
	int64		number;

	if (!version_to_number(version, &number))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("version %s of a migration is no whole number", version)));
	PG_RETURN_INT64(number);
}
