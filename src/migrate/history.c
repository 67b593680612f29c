/*
 * history.c
 *	  The history of migrations on the remote, in one of three formats.
 *
 *	 dbpool		dbpool_migration_history: a row per event, never changed but
 *				for a checksum that is repaired and for the end of a migration
 *				that runs outside of a transaction.  The last row of a version
 *				says how it is.
 *	 refinery	refinery_schema_history of refinery (Rust): a row per version.
 *				It has no place for "started"; checksum 0 stands for it, at
 *				which refinery itself stops.
 *	 sqlx		_sqlx_migrations of sqlx (Rust): a row per version; success is
 *				false while a migration runs outside of a transaction.
 *
 * With format dbpool, and no table of its own yet, those of the other two are
 * looked for: what they say is taken over, and they are left as they are.
 *
 * All statements name the table with its schema, since migrations may have
 * changed search_path.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

typedef struct Format
{
	const char *name;
	const char *table;
	const char *read;			/* %s: table; columns as read_rows() takes
								 * them */
} Format;

/* version, name, checksum, applied_at, applied_by, milliseconds, direction, started */
static const Format formats[] = {
	{
		"dbpool",
		"dbpool_migration_history",
		"SELECT DISTINCT ON (version) version, name, checksum, "
		"pg_catalog.to_char(applied_at AT TIME ZONE 'UTC', " RFC3339 "), applied_by, "
		"1000 OPERATOR(pg_catalog.*) extract(epoch FROM duration), direction, "
		"state OPERATOR(pg_catalog.=) 'started' "
		"FROM %s ORDER BY version, id DESC"
	},
	{
		"refinery",
		"refinery_schema_history",
		"SELECT version, name, checksum, applied_on, NULL, NULL, 'up', "
		"checksum OPERATOR(pg_catalog.=) '0' FROM %s ORDER BY version"
	},
	{
		"sqlx",
		"_sqlx_migrations",
		"SELECT version, description, pg_catalog.encode(checksum, 'hex'), "
		"pg_catalog.to_char(installed_on AT TIME ZONE 'UTC', " RFC3339 "), NULL, "
		"CASE WHEN execution_time OPERATOR(pg_catalog.>=) 0 "
		"THEN execution_time::numeric OPERATOR(pg_catalog./) 1000000 END, "
		"'up', NOT success FROM %s ORDER BY version"
	},
};

static const char *const directions[] = {"up", "down", "baseline", "adopted"};

const char *
direction_name(Direction direction)
{
	return directions[direction];
}

/* --- finding and making ------------------------------------------------------------ */

/*
 * The schemas in which a history is looked for, as an array in SQL: where an
 * unqualified name would be looked for, or the one that the server's option names.
 * all: both, as other tools know nothing of that option.
 */
const char *
history_schemas(const History *history, bool all)
{
	static const char path[] = "pg_catalog.current_schemas(false)";

	if (history->schema == NULL)
		return path;
	return psprintf(all ? "pg_catalog.array_cat(ARRAY[%s::pg_catalog.name], %s)" :
					"ARRAY[%s::pg_catalog.name]",
					quote_literal_cstr(history->schema), path);
}

/*
 * The first table of that name in these schemas, qualified and quoted; NULL if
 * there is none.  dbpool has a table of that name itself, for its own side: where
 * the remote has the extension, that one is not it.
 */
static char *
find_table(Remote *remote, const char *schemas, const char *name, bool *wide)
{
	RemoteRows *rows =
	remote_query(remote,
				 psprintf("SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), "
						  "a.atttypid OPERATOR(pg_catalog.=) 'pg_catalog.int8'::pg_catalog.regtype, "
						  "o.rolsuper OR o.oid OPERATOR(pg_catalog.=) n.nspowner OR o.oid OPERATOR(pg_catalog.=) m.oid "
						  "OR o.oid OPERATOR(pg_catalog.=) (SELECT d.datdba FROM pg_catalog.pg_database d "
						  "WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) "
						  "OR (NOT m.rolsuper AND pg_catalog.pg_has_role(o.oid, 'USAGE')), o.rolname "
						  "FROM pg_catalog.pg_class c "
						  "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
						  "JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) c.relowner "
						  "JOIN pg_catalog.pg_roles m ON m.rolname OPERATOR(pg_catalog.=) current_user "
						  "JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid "
						  "AND a.attname OPERATOR(pg_catalog.=) 'version' AND NOT a.attisdropped "
						  "JOIN pg_catalog.unnest(%s) WITH ORDINALITY s(name, place) "
						  "ON s.name OPERATOR(pg_catalog.=) n.nspname "
						  "WHERE c.relname OPERATOR(pg_catalog.=) %s AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}') "
						  "AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d "
						  "WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass "
						  "AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'e') "
						  "ORDER BY s.place LIMIT 1",
						  schemas, quote_literal_cstr(name)));

	if (rows->nrows == 0)
		return NULL;
	if (wide != NULL)
		*wide = remote_text(rows, 0, 1)[0] == 't';
	if (remote_text(rows, 0, 2)[0] != 't')
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table %s on pool \"%s\" belongs to role \"%s\", whom the role that migrates cannot trust",
						remote_text(rows, 0, 0), remote_pool(remote), remote_text(rows, 0, 3)),
				 errdetail("Its triggers would run with the rights of that role, and its rows say what has been migrated."),
				 errhint("Give it to the role that migrates, or name another schema of the remote by the server's option history_schema.")));
	return remote_text(rows, 0, 0);
}

/* Look for the history of a remote; schema: the server's option, or NULL. */
History *
history_open(Remote *remote, HistoryFormat format, const char *schema)
{
	History    *history = palloc0(sizeof(History));

	history->remote = remote;
	history->format = format;
	history->schema = schema;
	history->wide = true;
	if (schema != NULL &&
		remote_query(remote,
					 psprintf("SELECT 1 FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) %s",
							  quote_literal_cstr(schema)))->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("pool \"%s\" has no schema \"%s\" for the history of migrations",
						remote_pool(remote), schema),
				 errdetail("The server's option history_schema names it, and it does not exist on the remote."),
				 errhint("Create it there, or change the option.")));
	history->table = find_table(remote, history_schemas(history, false), formats[format].table,
								&history->wide);
	return history;
}

static int
compare_applied(const void *a, const void *b)
{
	return version_cmp(((const Applied *) a)->version, ((const Applied *) b)->version);
}

static char *
version_of_remote(Remote *remote, const char *text)
{
	const char *why;
	char	   *version = version_canonical(text, &why);

	if (version == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the history of migrations of pool \"%s\" has an impossible version: \"%s\"",
						remote_pool(remote), text),
				 errdetail_internal("%s", why)));
	return version;
}

/* Rows of a history; the versions that were rolled back are noted in it. */
static Applied *
read_rows(History *history, const char *sql, int *n)
{
	Remote	   *remote = history->remote;
	RemoteRows *rows = remote_query(remote, sql);
	Applied    *list = palloc0(sizeof(Applied) * (rows->nrows + 1));

	history->undone = palloc(sizeof(char *) * (rows->nrows + 1));
	history->nundone = 0;
	*n = 0;
	for (int i = 0; i < rows->nrows; i++)
	{
		Applied    *applied = &list[*n];
		const char *duration = remote_value(rows, i, 5);
		const char *direction = remote_text(rows, i, 6);
		int			known = -1;

		applied->version = version_of_remote(remote, remote_text(rows, i, 0));
		applied->name = remote_value(rows, i, 1);
		applied->checksum = remote_value(rows, i, 2);
		applied->applied_at = remote_value(rows, i, 3);
		applied->applied_by = remote_value(rows, i, 4);
		applied->duration = duration ? strtod(duration, NULL) : -1;
		applied->started = remote_value(rows, i, 7) != NULL &&
			remote_value(rows, i, 7)[0] == 't';
		for (int d = 0; d < lengthof(directions); d++)
		{
			if (strcmp(direction, directions[d]) == 0)
				known = d;
		}
		if (known < 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the history of migrations of pool \"%s\" has an impossible direction: \"%s\"",
							remote_pool(remote), direction)));
		applied->direction = known;
		if (applied->name == NULL)
			applied->name = "";
		if (applied->checksum == NULL)
			applied->checksum = "";
		/* rolled back: as if it had never been there */
		if (applied->direction != DIRECTION_DOWN || applied->started)
			(*n)++;
		else
			history->undone[history->nundone++] = applied->version;
	}
	/* the remote sorts them as strings, or numbers */
	qsort(list, *n, sizeof(Applied), compare_applied);
	return list;
}

/*
 * What another tool's history says, as format dbpool would have it; NULL if
 * there is none.  *table names it.
 */
Applied *
history_read_foreign(History *history, const char **table, int *n)
{
	for (HistoryFormat other = HISTORY_REFINERY; other <= HISTORY_SQLX; other++)
	{
		const char *tool = formats[other].name;
		Applied    *list;

		*table = find_table(history->remote, history_schemas(history, true), formats[other].table,
							NULL);
		if (*table == NULL)
			continue;
		list = read_rows(history, psprintf(formats[other].read, *table), n);
		for (int i = 0; i < *n; i++)
		{
			if (list[i].started)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("the history of %s on pool \"%s\" cannot be adopted: migration %s has not ended",
								tool, remote_pool(history->remote), list[i].version),
						 errhint("Mend it by %s's own means first.", tool)));
			list[i].direction = DIRECTION_ADOPTED;
			list[i].checksum = psprintf("%s:%s", tool, list[i].checksum);
		}
		return list;
	}
	return NULL;
}

/*
 * What was applied, in the order of the versions; in the current context.  That
 * of another tool counts, if it would be adopted.
 */
Applied *
history_read(History *history, int *n)
{
	const char *table;

	*n = 0;
	if (history->table != NULL)
		return read_rows(history,
						 psprintf(formats[history->format].read, history->table), n);
	if (history->format == HISTORY_DBPOOL)
		return history_read_foreign(history, &table, n);
	return NULL;
}

/*
 * There is no history yet.  If there is one in another format, which this one
 * does not adopt, or in another schema, what it has would be run again.
 */
void
history_refuse_another(History *history)
{
	for (HistoryFormat other = HISTORY_DBPOOL; other <= HISTORY_SQLX; other++)
	{
		char	   *table;
		int			n = 0;

		if (history->format == HISTORY_DBPOOL && other != HISTORY_DBPOOL)
			break;
		if (other == history->format && history->schema == NULL)
			continue;
		table = find_table(history->remote, history_schemas(history, true), formats[other].table,
						   NULL);
		if (table != NULL)
			(void) read_rows(history, psprintf(formats[other].read, table), &n);
		if (n > 0 && other == history->format)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the history of migrations of pool \"%s\" is %s, not in schema \"%s\"",
							remote_pool(history->remote), table, history->schema),
					 errdetail("What it says was applied would be run again. The server's option history_schema names the schema."),
					 errhint("On the remote: ALTER TABLE %s SET SCHEMA %s. Or change the option.", table,
							 quote_identifier(history->schema))));
		if (n > 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the remote of pool \"%s\" has a history of migrations in format \"%s\", not \"%s\"",
							remote_pool(history->remote), formats[other].name,
							formats[history->format].name),
					 errdetail("What table %s says was applied would be run again.", table),
					 errhint("Set the server's option history_format to \"%s\"; or rename that table, if it means nothing any more.",
							 formats[other].name)));
	}
}

const char *
history_table_name(const History *history)
{
	return formats[history->format].table;
}

/* --- checksums --------------------------------------------------------------------- */

/* Others' versions are whole numbers, see history_check_version(). */
static int64
number_of(const char *version)
{
	int64		number;

	return version_to_number(version, &number) ? number : 0;
}

/* Throws when a history of that format cannot have such a version. */
void
history_check_version(const History *history, const char *version)
{
	int64		number;

	if (history->format == HISTORY_DBPOOL)
		return;
	if (version_to_number(version, &number))
	{
		if (history->format == HISTORY_REFINERY && number > PG_INT32_MAX && !history->wide)
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("version %s of a migration on pool \"%s\" is out of range for refinery's history",
							version, remote_pool(history->remote)),
					 errdetail("Column \"version\" of %s is of type int4.", history->table),
					 errhint("Use lower versions, or change the type of the column, for which refinery has to be built with int8-versions.")));
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("migration %s of pool \"%s\" cannot be noted in a history of %s", version,
					remote_pool(history->remote), formats[history->format].name),
			 errdetail("The versions of such a history are whole numbers."),
			 errhint("Versions of several parts and repeatable migrations need the server's option history_format to be \"dbpool\".")));
}

static char *
checksum_of(HistoryFormat format, bool wide, const Migration *migration, const char *sql)
{
	if (format == HISTORY_REFINERY)
		return checksum_refinery(migration->name, number_of(migration->version), sql, wide);
	if (format == HISTORY_SQLX)
		return checksum_sqlx(sql);
	return checksum_dbpool(sql);
}

/* What the history has, or would have, for a migration. */
char *
history_checksum(const History *history, const Migration *migration)
{
	return checksum_of(history->format, history->wide, migration, migration->up_sql);
}

static bool
text_matches(const History *history, const char *checksum,
			 const Migration *migration, const char *sql)
{
	if (strncmp(checksum, "refinery:", 9) == 0)
	{
		int64		number = number_of(migration->version);

		return (number <= PG_INT32_MAX &&
				strcmp(checksum + 9, checksum_refinery(migration->name, number, sql, false)) == 0) ||
			strcmp(checksum + 9, checksum_refinery(migration->name, number, sql, true)) == 0;
	}
	if (strncmp(checksum, "sqlx:", 5) == 0)
		return strcmp(checksum + 5, checksum_sqlx(sql)) == 0;
	return strcmp(checksum, checksum_of(history->format, history->wide,
										migration, sql)) == 0;
}

/*
 * Is this the checksum of the migration's text?  If not, *line_ends_only says
 * whether it is that of the text with other line ends.
 */
bool
history_matches(const History *history, const char *checksum,
				const Migration *migration, bool *line_ends_only)
{
	*line_ends_only = false;
	if (text_matches(history, checksum, migration, migration->up_sql))
		return true;
	for (int crlf = 0; crlf < 2 && !*line_ends_only; crlf++)
	{
		char	   *text = checksum_line_ends(migration->up_sql, crlf);

		*line_ends_only = text_matches(history, checksum, migration, text);
		pfree(text);
	}
	return false;
}
