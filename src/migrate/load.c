/*
 * load.c
 *	  dbpool_load_migrations(): a directory of the server's machine.
 *
 * directory.c has its files and their names; here their texts are read and
 * registered, all of one tool's kind.
 */
#include "postgres.h"

#include "migrate/load.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dbpool_load_migrations);

/*
 * Many tools name their files alike, but mean different things by them.  tool:
 * whose marks the file has, or NULL.
 */
static void
note_kind(Load *load, const SourceFile *file, const MarkTool *tool)
{
	const SourceFile *other = NULL;
	const char *name;

	if (tool == NULL)
	{
		load->plain = file;
		if (load->tool != NULL && mark_tool_is_strict(load->tool))
			other = load->marked;
	}
	else if (load->tool != NULL && load->tool != tool)
		other = load->marked;
	else if (load->plain != NULL && mark_tool_is_strict(tool))
		other = load->plain;
	if (tool != NULL && load->tool == NULL)
	{
		load->tool = tool;
		load->marked = file;
	}
	if (other == NULL)
		return;
	name = mark_tool_name(load->tool);
	if (tool != NULL && load->tool != tool)
		directory_refuse_pair(load, other, file, ERRCODE_INVALID_NAME, "are of different kinds",
							  psprintf("The first one has marks of %s, the second one has some of %s.", name,
									   mark_tool_name(tool)));
	directory_refuse_pair(load, load->marked, load->plain, ERRCODE_INVALID_NAME, "are of different kinds",
						  psprintf("The first one has marks of %s, such as \"%s\", the second one has none.",
								   name, mark_tool_up(load->tool)));
}

/*
 * The text of a file.  *tool is the one whose marks part it, or NULL: only files
 * that have no direction in their names have sections.
 */
static char *
read_text(Load *load, const SourceFile *file, const MarkTool **tool)
{
	char	   *sql;
	int			number;

	load->current = file;
	sql = file_read(file->path);
	if (load->placeholders != NULL)
		sql = placeholders_replace(sql, load->placeholders);
	*tool = marks_tool(sql, &number);
	if (file->part != PART_SIMPLE)
	{
		if (*tool != NULL && mark_tool_is_strict(*tool))
			directory_refuse_file(load, file->shown,
								  psprintf("It has remarks of %s, the first in line %d, whose files have names like 1_name.sql.",
										   mark_tool_name(*tool), number),
								  "Rename it, or remove the remarks and what belongs to the other direction.");
		*tool = NULL;
	}
	note_kind(load, file, *tool);
	return sql;
}

/* The file by itself; the way back, if it is a file, comes later. */
static void
read_migration(Load *load, const SourceFile *file, Migration *migration)
{
	char	   *sql;
	const MarkTool *tool;

	if (file->part == PART_U && load->undoes)
		directory_refuse_file(load, file->shown, "There is no file V of that version that it would undo.",
							  "Other files U of the directory undo files V, so this one cannot be one of refinery's that may come out of order.");
	if (file->part == PART_U && load->format != HISTORY_REFINERY)
		directory_refuse_file(load, file->shown, "There is no file V of that version that it would undo.",
							  "If it is one of refinery's that may come out of order, set the server's option history_format to \"refinery\", or register it by dbpool_add_migration() with {\"out_of_order\": true}.");
	memset(migration, 0, sizeof(*migration));
	migration->version = file->version;
	migration->name = file->name;
	migration->file = file->shown;
	migration->out_of_order = file->part == PART_U;
	migration->transaction = true;
	sql = read_text(load, file, &tool);
	migration->up_sql = sql;
	if (tool != NULL)
	{
		MarkedFile	marked;

		marks_read(tool, sql, &marked);
		migration->up_sql = marked.up_sql;
		migration->down_sql = marked.down_sql;
		migration->transaction = marked.transaction;
	}
	if (split_no_transaction(migration->up_sql))
		migration->transaction = false;
}

/* The file with the way back, if there is one, is the next in the list. */
static const SourceFile *
way_back(const Load *load, int i)
{
	if (i + 1 < load->n && strcmp(load->files[i + 1].version, load->files[i].version) == 0)
		return &load->files[i + 1];
	return NULL;
}

static const char *
status_name(SourceStatus status)
{
	switch (status)
	{
		case SOURCE_ADDED:
			return "added";
		case SOURCE_UNCHANGED:
			return "unchanged";
		case SOURCE_REPLACED:
			return "replaced";
		case SOURCE_LINE_ENDS:
			return "line ends differ";
		case SOURCE_WAY_BACK:
			return "way back replaced";
		case SOURCE_KEPT:
			return "kept";
		case SOURCE_OVERRIDDEN:
			return "replaced though applied";
	}
	return NULL;
}

static void
return_row(ReturnSetInfo *rsinfo, const Migration *migration, SourceStatus status)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(migration->version);
	values[1] = CStringGetTextDatum(migration->name);
	values[2] = CStringGetTextDatum(migration->file);
	values[3] = CStringGetTextDatum(status_name(status));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
in_file(void *arg)
{
	Load	   *load = arg;

	if (load->current != NULL)
		errcontext("file \"%s\" of directory \"%s\"", load->current->shown, load->directory);
}

/* A file was changed after it had been applied: that must not keep others out. */
static void
warn_of_kept(const Load *load, const Migration *migration)
{
	ereport(WARNING,
			(errmsg("migration %s \"%s\" of pool \"%s\" has been applied, and its file has been changed since",
					migration->version, migration->name, load->pool),
			 errdetail("File \"%s\" differs from what is registered in: %s. What is registered stays.",
					   migration->file, source_differences(load->serverid, migration)),
			 errhint("Put the file back, and add what is to change as another migration. If the change means nothing, dbpool_load_migrations(..., replace_applied => true) takes it over.")));
}

/* Read and register one after the other, in the order of their versions. */
static void
load_files(Load *load, ReturnSetInfo *rsinfo)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "dbpool migration",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	ErrorContextCallback context = {error_context_stack, in_file, load};

	error_context_stack = &context;
	for (int i = 0; i < load->n; i++)
	{
		const SourceFile *file = &load->files[i];
		const SourceFile *back = way_back(load, i);
		Migration	migration;
		SourceStatus status;

		CHECK_FOR_INTERRUPTS();
		read_migration(load, file, &migration);
		if (back != NULL)
		{
			const MarkTool *tool;

			if (migration.down_sql != NULL)
				directory_refuse_pair(load, file, back, ERRCODE_DUPLICATE_OBJECT, "both have the way back",
									  "Remove one of the two.");
			migration.down_sql = read_text(load, back, &tool);
			i++;
		}
		load->current = file;
		source_check(load->pool, &migration);
		status = source_put(load->serverid, load->pool, &migration, load->change);
		if (status == SOURCE_KEPT)
			warn_of_kept(load, &migration);
		else if (status == SOURCE_OVERRIDDEN)
			source_note_override(load->pool, &migration);
		return_row(rsinfo, &migration, status);
		load->current = NULL;
		MemoryContextReset(scratch);
	}
	error_context_stack = context.previous;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* What once came from a file that is gone would run all the same: say so. */
static void
note_gone(const Load *load)
{
	Datum	   *versions = palloc(sizeof(Datum) * Max(load->n, 1));
	Migration  *gone;
	int			n;

	for (int i = 0; i < load->n; i++)
		versions[i] = CStringGetTextDatum(load->files[i].version);
	gone = source_from_files(load->serverid, construct_array(versions, load->n, TEXTOID, -1,
															 false, TYPALIGN_INT), &n);
	for (int i = 0; i < n; i++)
		if (!source_is_applied(load->serverid, gone[i].version))
			ereport(NOTICE,
					(errmsg("migration %s \"%s\" of pool \"%s\" is still registered, but its file \"%s\" is not in the directory",
							gone[i].version, gone[i].name, load->pool, gone[i].file),
					 errhint("dbpool_drop_migration() removes it.")));
}

/*
 * dbpool_load_migrations(pool name, directory text, replace_applied boolean,
 *						  placeholders jsonb)
 * returns table (version dbpool_migration_version, name text, file text, status text)
 *
 * Registers the migrations in the files of a directory, all of them or none.  A
 * path that is not absolute begins in the data directory.
 *
 * Errors: 42501 for those who may not read files of the server, or not migrate
 * the pool; 22023 for placeholders, 42P02 for one without a value; those of reading files; 42602 for names, 42710 for versions that occur
 * twice; 22021 for what is not UTF-8; 42601 for marks of directions; those of
 * dbpool_add_migration().
 */
Datum
dbpool_load_migrations(PG_FUNCTION_ARGS)
{
	Load		load = {
		.pool = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0)),
		.change = CHANGE_KEEP
	};
	char	   *directory;
	PoolOptions options = {0};

	InitMaterializedSRF(fcinfo, 0);
	load.serverid = migrate_check_right(load.pool, fcinfo->flinfo->fn_oid);
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read files of the server"),
				 errhint("That is for members of the role pg_read_server_files. Others can use dbpool_add_migration().")));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the directory of migrations must not be null")));
	if (!PG_ARGISNULL(2) && PG_GETARG_BOOL(2))
		load.change = CHANGE_OVERRIDE;
	if (!PG_ARGISNULL(3))
	{
		load.placeholders = PG_GETARG_JSONB_P(3);
		placeholders_check(load.placeholders);
	}
	directory = text_to_cstring(PG_GETARG_TEXT_PP(1));
	canonicalize_path(directory);
	load.directory = directory;
	options_read(GetForeignServer(load.serverid)->options, &options);
	load.format = (HistoryFormat) options.history_format;
	directory_list(&load);
	load_files(&load, (ReturnSetInfo *) fcinfo->resultinfo);
	note_gone(&load);
	return (Datum) 0;
}
