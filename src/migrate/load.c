/*
 * load.c
 *	  dbpool_load_migrations(): a directory of the server's machine.
 *
 * Its files are named by one of three conventions, which tell themselves:
 *
 *	 refinery, Flyway	V1__name.sql.  U1__name.sql beside it is Flyway's undo, so
 *						the way back; without a V of that version it is refinery's
 *						"unversioned", so one that may come out of order, and only
 *						where the history is refinery's
 *	 sqlx, golang-migrate	1_name.up.sql, 1_name.down.sql, or simply 1_name.sql
 *	 goose and others	1_name.sql with sections, see marks.c
 *
 * What could be meant in another way than it would be taken is refused: a
 * migration that is left out silently is found out too late.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "migrate/line.h"
#include "migrate/migrate.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dbpool_load_migrations);

/* In the order in which files of one version are sorted. */
typedef enum FilePart
{
	PART_V,						/* V1__, V1.2__, and R__ */
	PART_U,						/* U1__ */
	PART_UP,					/* .up.sql */
	PART_SIMPLE,				/* 1_name.sql */
	PART_DOWN					/* .down.sql */
} FilePart;

typedef struct SourceFile
{
	char	   *path;			/* the system's, as are its bytes */
	char	   *shown;			/* name in the directory, in the database's
								 * encoding */
	FilePart	part;
	char	   *version;
	char	   *name;			/* of the migration */
} SourceFile;

/* One call. */
typedef struct Load
{
	SourceChange change;		/* of those that have been applied */
	const char *pool;
	Oid			serverid;
	Jsonb	   *placeholders;	/* or NULL: the files have none */
	const char *directory;
	SourceFile *files;
	int			n;
	int			size;
	HistoryFormat format;		/* of the pool's history */
	bool		undoes;			/* files U are Flyway's */
	const SourceFile *marked;	/* one with a tool's marks, and one without */
	const SourceFile *plain;
	const MarkTool *tool;		/* of the first one with marks */
	const SourceFile *current;	/* for errors */
} Load;

/* --- names ------------------------------------------------------------------------- */

static const char conventions[] =
"Names are V1__name.sql and U1__name.sql (refinery, Flyway), R__name.sql (Flyway), "
"1_name.up.sql and 1_name.down.sql (sqlx, golang-migrate), or 1_name.sql (sqlx, goose, dbmate and others).";

static void
__attribute__((noreturn))
refuse_file(const Load *load, const char *shown, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_NAME),
			 errmsg("file \"%s\" cannot be a migration of pool \"%s\"", shown, load->pool),
			 errdetail_internal("%s", reason),
			 errhint("%s", hint)));
	pg_unreachable();
}

/* Does it end so in letters of another case? */
static bool
has_suffix_of_case(const char *name, const char *suffix)
{
	Size		len = strlen(name);
	Size		suffix_len = strlen(suffix);

	return len >= suffix_len && pg_strcasecmp(name + len - suffix_len, suffix) == 0 &&
		strcmp(name + len - suffix_len, suffix) != 0;
}

static bool
has_suffix(const char *name, const char *suffix)
{
	Size		len = strlen(name);
	Size		suffix_len = strlen(suffix);

	return len >= suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

/* That of so many bytes; an underscore stands for a point, as in V1_2__name.sql. */
static char *
read_version(const Load *load, const char *shown, const char *at, Size len)
{
	char	   *text = pnstrdup(at, len);
	const char *why;
	char	   *version;

	for (char *c = text; *c != '\0'; c++)
		*c = *c == '_' ? '.' : *c;
	version = version_canonical(text, &why);
	if (version == NULL)
		refuse_file(load, shown, why, conventions);
	return version;
}

/*
 * Letter, version, two underscores, name.  False if it is nothing of that kind.
 * shown ends in ".sql".
 */
static bool
read_letter_name(const Load *load, const char *shown, SourceFile *file)
{
	const char *at = shown + 1;
	const char *separator = strstr(shown, "__");

	if (shown[0] == 'R' && separator == at)
	{
		file->part = PART_V;
		file->name = pnstrdup(separator + 2, strlen(separator + 2) - strlen(".sql"));
		file->version = version_of_repeatable(file->name);
		return true;
	}
	if (strchr("VUB", shown[0]) == NULL || separator == NULL || !is_digit(*at))
		return false;
	if (at + strspn(at, "0123456789._") < separator)
		return false;
	if (shown[0] == 'B')
		refuse_file(load, shown,
					"It is a baseline migration of Flyway, which is in the place of all that come before it.",
					"Make it a migration V, or take it out of the directory.");
	file->part = shown[0] == 'V' ? PART_V : PART_U;
	file->version = read_version(load, shown, at, separator - at);
	file->name = pnstrdup(separator + 2, strlen(separator + 2) - strlen(".sql"));
	return true;
}

/* Version, underscore, name, and direction perhaps. */
static bool
read_number_name(const Load *load, const char *shown, SourceFile *file)
{
	const char *at = shown + strspn(shown, "0123456789");
	const char *suffix = ".sql";

	if (at == shown || *at != '_')
		return false;
	file->part = PART_SIMPLE;
	if (has_suffix(at, ".up.sql"))
	{
		suffix = ".up.sql";
		file->part = PART_UP;
	}
	else if (has_suffix(at, ".down.sql"))
	{
		suffix = ".down.sql";
		file->part = PART_DOWN;
	}
	if (has_suffix_of_case(at, ".up.sql") || has_suffix_of_case(at, ".down.sql"))
		refuse_file(load, shown, "Its direction is not in small letters.",
					"Rename it: directions are .up.sql and .down.sql.");
	if (has_suffix(at, ".rollback.sql") || has_suffix(at, ".undo.sql") || has_suffix(at, ".revert.sql"))
		refuse_file(load, shown, "It seems to be a way back, which would run as a migration of its own.",
					"Rename it: the way back of 1_name.up.sql is 1_name.down.sql.");
	file->version = read_version(load, shown, shown, at - shown);
	file->name = pnstrdup(at + 1, strlen(at + 1) - strlen(suffix));
	return true;
}

static void
read_name(const Load *load, const char *shown, SourceFile *file)
{
	if (has_suffix(shown, ".sql") &&
		(read_letter_name(load, shown, file) || read_number_name(load, shown, file)))
	{
		if (file->name[0] != '\0')
			return;
		refuse_file(load, shown, "It has a version, but no name.", conventions);
	}
	refuse_file(load, shown, "Its name follows none of the naming conventions.", conventions);
}

/* --- the directory ----------------------------------------------------------------- */

/* Names are taken to be UTF-8. */
static char *
shown_name(const Load *load, const char *name)
{
	int			len = strlen(name);
	int			valid = pg_encoding_verifymbstr(PG_UTF8, name, len);

	if (valid < len)
		refuse_file(load, psprintf("%.*s...", valid, name),
					psprintf("Its name is not valid UTF-8 from byte %d on.", valid + 1),
					"Rename it.");
	return pstrdup(pg_any_to_server(name, len, PG_UTF8));
}

/* Is it named as a migration is, but for what comes last?  Editors' copies do not count. */
static bool
looks_like_migration(const char *name)
{
	static const char *const copies[] = {"~", ".bak", ".orig", ".rej", ".swp", ".tmp", ".md", ".txt"};

	for (int i = 0; i < lengthof(copies); i++)
	{
		if (has_suffix(name, copies[i]))
			return false;
	}
	if (strchr("VURB", name[0]) != NULL && (is_digit(name[1]) || name[1] == '_'))
		return strstr(name, "__") != NULL;
	name += strspn(name, "0123456789");
	return *name == '_' && is_digit(name[-1]);
}

/*
 * Is that directory entry left out?  What has nothing to do with migrations is,
 * without a word; of what may have been meant for one, there is a word.
 */
static bool
is_beside_them(const Load *load, const char *name, const char *path)
{
	Size		len = strlen(name);
	struct stat status;

	if (name[0] == '.')
		return true;
	if (len < 4 || pg_strcasecmp(name + len - 4, ".sql") != 0)
	{
		if (looks_like_migration(name))
			ereport(NOTICE,
					(errmsg("file \"%s\" is left out of the migrations of pool \"%s\", as it is no SQL",
							shown_name(load, name), load->pool)));
		return true;
	}
	if (stat(path, &status) == 0)
		return !S_ISREG(status.st_mode);
	if (errno != ENOENT && errno != ELOOP)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	ereport(WARNING,
			(errmsg("file \"%s\" is left out of the migrations of pool \"%s\": %m",
					shown_name(load, name), load->pool),
			 errdetail("It is a link to nothing, or was removed just now.")));
	return true;
}

static int
compare_files(const void *a, const void *b)
{
	const SourceFile *one = a;
	const SourceFile *other = b;

	int			cmp = version_cmp(one->version, other->version);

	if (cmp != 0)
		return cmp;
	if (one->part != other->part)
		return one->part < other->part ? -1 : 1;
	return strcmp(one->shown, other->shown);
}

static void
list_directory(Load *load)
{
	DIR		   *dir = AllocateDir(load->directory);
	struct dirent *entry;

	if (dir == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open directory \"%s\": %m", load->directory),
				 errhint("It is looked for on the machine of the server, as its operating-system user; a relative path begins in the data directory.")));
	load->size = 64;
	load->files = palloc(sizeof(SourceFile) * load->size);
	while ((entry = ReadDir(dir, load->directory)) != NULL)
	{
		char	   *path = psprintf("%s/%s", load->directory, entry->d_name);
		SourceFile *file;

		CHECK_FOR_INTERRUPTS();
		if (is_beside_them(load, entry->d_name, path))
			continue;
		if (load->n == load->size)
		{
			load->size *= 2;
			load->files = repalloc(load->files, sizeof(SourceFile) * load->size);
		}
		file = &load->files[load->n++];
		file->path = path;
		file->shown = shown_name(load, entry->d_name);
		read_name(load, file->shown, file);
	}
	FreeDir(dir);
	if (load->n == 0)
		ereport(NOTICE,
				(errmsg("directory \"%s\" has no files of migrations", load->directory),
				 errdetail("Their names end in .sql. Subdirectories are not looked at.")));
	qsort(load->files, load->n, sizeof(SourceFile), compare_files);
}

static bool
has_letter(const SourceFile *file)
{
	return file->part == PART_V || file->part == PART_U;
}

static void
__attribute__((noreturn))
refuse_pair(const Load *load, const SourceFile *a, const SourceFile *b, int code, const char *what,
			const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("files \"%s\" and \"%s\" %s", a->shown, b->shown, what),
			 errdetail("They would be migrations of pool \"%s\".", load->pool),
			 errhint("%s", hint)));
	pg_unreachable();
}

/* A way back to nowhere is no reason to load nothing. */
static void
leave_out_unpaired(Load *load)
{
	int			kept = 0;

	for (int i = 0; i < load->n; i++)
	{
		const SourceFile *file = &load->files[i];

		if (file->part == PART_DOWN &&
			(kept == 0 || strcmp(load->files[kept - 1].version, file->version) != 0))
			ereport(WARNING,
					(errmsg("file \"%s\" is left out of the migrations of pool \"%s\", as it is the way back of none",
							file->shown, load->pool),
					 errhint("Its .up.sql is missing, or has another version.")));
		else
			load->files[kept++] = *file;
	}
	load->n = kept;
}

/* All of one convention, and no version twice. */
static void
check_files(Load *load)
{
	for (int i = 1; i < load->n; i++)
	{
		const SourceFile *one = &load->files[i - 1];
		const SourceFile *other = &load->files[i];

		if (has_letter(&load->files[0]) != has_letter(other))
			refuse_pair(load, &load->files[0], other, ERRCODE_INVALID_NAME,
						"are named by different conventions", conventions);
		if (strcmp(one->version, other->version) != 0)
			continue;
		if (one->part == other->part || (one->part == PART_UP && other->part == PART_SIMPLE))
			refuse_pair(load, one, other, ERRCODE_DUPLICATE_OBJECT, "have the same version",
						"Give one of them another version.");
		if (one->part == PART_V)
			load->undoes = true;
	}
}

/* --- migrations -------------------------------------------------------------------- */

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
		refuse_pair(load, other, file, ERRCODE_INVALID_NAME, "are of different kinds",
					psprintf("The first one has marks of %s, the second one has some of %s.", name,
							 mark_tool_name(tool)));
	refuse_pair(load, load->marked, load->plain, ERRCODE_INVALID_NAME, "are of different kinds",
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
			refuse_file(load, file->shown,
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
		refuse_file(load, file->shown, "There is no file V of that version that it would undo.",
					"Other files U of the directory undo files V, so this one cannot be one of refinery's that may come out of order.");
	if (file->part == PART_U && load->format != HISTORY_REFINERY)
		refuse_file(load, file->shown, "There is no file V of that version that it would undo.",
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
				refuse_pair(load, file, back, ERRCODE_DUPLICATE_OBJECT, "both have the way back",
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
	list_directory(&load);
	leave_out_unpaired(&load);
	check_files(&load);
	load_files(&load, (ReturnSetInfo *) fcinfo->resultinfo);
	note_gone(&load);
	return (Datum) 0;
}
