/*
 * directory.c
 *	  The files of a directory of migrations: what their names say, and whether
 *	  they fit together.
 *
 * Names follow one of three conventions, which tell themselves:
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

#include "mb/pg_wchar.h"
#include "migrate/line.h"
#include "migrate/load.h"
#include "miscadmin.h"
#include "storage/fd.h"

/* --- names ------------------------------------------------------------------------- */

static const char conventions[] =
"Names are V1__name.sql and U1__name.sql (refinery, Flyway), R__name.sql (Flyway), "
"1_name.up.sql and 1_name.down.sql (sqlx, golang-migrate), or 1_name.sql (sqlx, goose, dbmate and others).";

/* A file cannot be what its name, or its text, would make it. */
void
directory_refuse_file(const Load *load, const char *shown, const char *reason, const char *hint)
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
		directory_refuse_file(load, shown, why, conventions);
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
		directory_refuse_file(load, shown,
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
		directory_refuse_file(load, shown, "Its direction is not in small letters.",
							  "Rename it: directions are .up.sql and .down.sql.");
	if (has_suffix(at, ".rollback.sql") || has_suffix(at, ".undo.sql") || has_suffix(at, ".revert.sql"))
		directory_refuse_file(load, shown, "It seems to be a way back, which would run as a migration of its own.",
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
		directory_refuse_file(load, shown, "It has a version, but no name.", conventions);
	}
	directory_refuse_file(load, shown, "Its name follows none of the naming conventions.", conventions);
}

/* --- the directory ----------------------------------------------------------------- */

/* Names are taken to be UTF-8. */
static char *
shown_name(const Load *load, const char *name)
{
	int			len = strlen(name);
	int			valid = pg_encoding_verifymbstr(PG_UTF8, name, len);

	if (valid < len)
		directory_refuse_file(load, psprintf("%.*s...", valid, name),
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

/* Two files cannot be migrations of one pool. */
void
directory_refuse_pair(const Load *load, const SourceFile *a, const SourceFile *b, int code, const char *what,
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
			directory_refuse_pair(load, &load->files[0], other, ERRCODE_INVALID_NAME,
								  "are named by different conventions", conventions);
		if (strcmp(one->version, other->version) != 0)
			continue;
		if (one->part == other->part || (one->part == PART_UP && other->part == PART_SIMPLE))
			directory_refuse_pair(load, one, other, ERRCODE_DUPLICATE_OBJECT, "have the same version",
								  "Give one of them another version.");
		if (one->part == PART_V)
			load->undoes = true;
	}
}

/*
 * List what of the directory's files are migrations, in the order of their versions
 * and of FilePart.  Throws if one of them cannot be one, or two do not fit together.
 */
void
directory_list(Load *load)
{
	list_directory(load);
	leave_out_unpaired(load);
	check_files(load);
}
