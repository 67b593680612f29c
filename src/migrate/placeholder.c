/*
 * placeholder.c
 *	  Flyway's placeholders, ${name}, in files of migrations.
 *
 * They are replaced when a file is loaded, so that what is registered is what will
 * run, and can be read before.  As with Flyway they are looked for in all of the
 * text, in strings and comments too, and a value is put there as it is.
 */
#include "postgres.h"

#include "backend/client.h"
#include "migrate/migrate.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* What names are made of; "flyway:timestamp" is one. */
#define NAME_CHARACTERS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-"

/* What they are called, and an example. */
#define PLACEHOLDERS	"placeholders of migrations", "{\"schema\": \"app\"}"

static JsonbValue *
find_value(Jsonb *values, const char *name, int len)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = len;
	return findJsonbValueFromContainer(&values->root, JB_FOBJECT, &key);
}

static void
try_name(char *key, const JsonbValue *value, void *arg)
{
	(void) value;
	nearest_try(arg, key);
}

static void
throw_unknown(Jsonb *values, const char *sql, const char *at, int len)
{
	char	   *name = pnstrdup(at + 2, len);
	NearestName nearest;
	int			line;
	int			column;

	split_position(sql, at - sql, &line, &column);
	nearest_init(&nearest, name);
	json_members(values, PLACEHOLDERS, try_name, &nearest);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_PARAMETER),
			 errmsg("placeholder \"${%s}\" in line %d, column %d has no value", name, line, column),
			 nearest.name[0] != '\0' ?
			 errhint("Perhaps you meant \"${%s}\". Otherwise give it a value in the argument \"placeholders\".",
					 nearest.name) :
			 errhint("Give it a value in the argument \"placeholders\": {\"%s\": \"...\"}.", name)));
}

static void
check_value(char *key, const JsonbValue *value, void *arg)
{
	(void) arg;
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the value of placeholder \"%s\" must be a string", key)));
}

/* Throws unless it is an object of strings. */
void
placeholders_check(Jsonb *values)
{
	json_members(values, PLACEHOLDERS, check_value, NULL);
}

/*
 * The text with the values in the place of their names; a name that has no value
 * throws.  What could not be a name is text.
 */
char *
placeholders_replace(const char *sql, Jsonb *values)
{
	StringInfoData buf;
	const char *from = sql;
	const char *at;

	initStringInfo(&buf);
	for (at = strstr(sql, "${"); at != NULL; at = strstr(at, "${"))
	{
		int			len = strspn(at + 2, NAME_CHARACTERS);
		JsonbValue *value;

		CHECK_FOR_INTERRUPTS();
		if (len == 0 || at[2 + len] != '}')
		{
			at += 2;
			continue;
		}
		value = find_value(values, at + 2, len);
		if (value == NULL)
			throw_unknown(values, sql, at, len);
		appendBinaryStringInfo(&buf, from, at - from);
		appendBinaryStringInfo(&buf, value->val.string.val, value->val.string.len);
		from = at = at + len + 3;
	}
	appendStringInfoString(&buf, from);
	return buf.data;
}
