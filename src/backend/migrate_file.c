/*
 * migrate_file.c
 *	  What is in a file of migrations: its text, and goose's sections.
 *
 * goose has both directions in one file, parted by remarks that are comments from
 * the first column on:
 *
 *		-- +goose Up
 *		CREATE TABLE t (a int);
 *		-- +goose Down
 *		DROP TABLE t;
 *
 * Everything else that goose knows is either needless here, or refused.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "backend/migrate.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Bytes that are read before cancels are looked for. */
#define READ_CHUNK	(1024 * 1024)

/* --- the text ---------------------------------------------------------------------- */

/* All of the file, and a zero byte. */
static char *
read_bytes(const char *path, Size *len)
{
	FILE	   *file = AllocateFile(path, PG_BINARY_R);
	struct stat status;
	char	   *bytes;

	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\" for reading: %m", path)));
	if (fstat(fileno(file), &status) < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	/* a value has a header of four bytes */
	if (status.st_size > (off_t) (MaxAllocSize - VARHDRSZ - 1))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("file \"%s\" is too large", path),
				 errdetail("A migration can have up to 1 GB.")));
	bytes = palloc(status.st_size + 1);
	*len = 0;
	while (*len < (Size) status.st_size)
	{
		Size		n = fread(bytes + *len, 1, Min(READ_CHUNK, status.st_size - *len), file);

		if (n == 0)
			break;
		*len += n;
		CHECK_FOR_INTERRUPTS();
	}
	if (ferror(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", path)));
	if (*len < (Size) status.st_size || fgetc(file) != EOF)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("file \"%s\" was changed while it was read", path)));
	FreeFile(file);
	bytes[*len] = '\0';
	return bytes;
}

char *
file_read(const char *path)
{
	static const char mark[] = "\xEF\xBB\xBF";
	Size		len;
	char	   *bytes = read_bytes(path, &len);
	Size		valid = pg_encoding_verifymbstr(PG_UTF8, bytes, len);
	Size		start = 0;

	if (valid < len)
	{
		unsigned char byte = bytes[valid];

		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("file \"%s\" is not valid UTF-8", path),
				 errdetail("Byte 0x%02x at offset %zu is %s.", byte, valid,
						   byte == 0 ? "no character of a text" : "not part of a character"),
				 byte == 0 ? errhint("It may have been written as UTF-16. Save it as UTF-8.") :
				 errhint("Save it as UTF-8.")));
	}
	if (strncmp(bytes, mark, sizeof(mark) - 1) == 0)
		start = sizeof(mark) - 1;
	return pg_any_to_server(bytes + start, len - start, PG_UTF8);
}

/* --- goose ------------------------------------------------------------------------- */

typedef enum Remark
{
	REMARK_NONE,
	REMARK_UP,
	REMARK_DOWN,
	REMARK_NO_TRANSACTION,
	REMARK_NEEDLESS,
	REMARK_ENVSUB,
	REMARK_UNKNOWN
} Remark;

/* In small letters, each space standing for one or more. */
static const struct
{
	const char *words;
	Remark		remark;
}			remarks[] = {
	{"up", REMARK_UP},
	{"down", REMARK_DOWN},
	{"no transaction", REMARK_NO_TRANSACTION},
	{"statementbegin", REMARK_NEEDLESS},
	{"statementend", REMARK_NEEDLESS},
	{"envsub off", REMARK_NEEDLESS},
	{"envsubst off", REMARK_NEEDLESS},
	{"envsub on", REMARK_ENVSUB},
	{"envsubst on", REMARK_ENVSUB}
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static const char *
skip_blanks(const char *at, const char *end)
{
	while (at < end && is_blank(*at))
		at++;
	return at;
}

/* Are the bytes up to "end" these words? */
static bool
says(const char *at, const char *end, const char *words)
{
	for (; *words != '\0'; words++)
	{
		if (*words == ' ')
		{
			const char *next = skip_blanks(at, end);

			if (next == at)
				return false;
			at = next;
		}
		else if (at == end || pg_ascii_tolower((unsigned char) *at++) != (unsigned char) *words)
			return false;
	}
	return skip_blanks(at, end) == end;
}

/* What a line, which ends before "end", says to goose. */
static Remark
read_remark(const char *line, const char *end)
{
	static const char prefix[] = "+goose";
	const char *at;

	if (end - line < 2 || line[0] != '-' || line[1] != '-')
		return REMARK_NONE;
	at = skip_blanks(line + 2, end);
	if (end - at < (int) sizeof(prefix) - 1 ||
		pg_strncasecmp(at, prefix, sizeof(prefix) - 1) != 0)
		return REMARK_NONE;
	at += sizeof(prefix) - 1;
	if (at < end && !is_blank(*at))
		return REMARK_NONE;
	at = skip_blanks(at, end);
	for (int i = 0; i < lengthof(remarks); i++)
		if (says(at, end, remarks[i].words))
			return remarks[i].remark;
	return REMARK_UNKNOWN;
}

static const char *
end_of_line(const char *at)
{
	const char *end = strchr(at, '\n');

	return end ? end : at + strlen(at);
}

/* Only blanks, or a comment? */
static bool
is_void(const char *line, const char *end)
{
	line = skip_blanks(line, end);
	return line == end || (end - line >= 2 && line[0] == '-' && line[1] == '-');
}

bool
file_is_goose(const char *sql)
{
	for (const char *line = sql;; line++)
	{
		const char *end = end_of_line(line);

		if (read_remark(line, end) != REMARK_NONE)
			return true;
		if (*end == '\0')
			return false;
		line = end;
	}
}

static void
__attribute__((noreturn))
refuse(int line, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("%s in line %d", what, line),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

void
file_goose(const char *sql, GooseFile *goose)
{
	const char *line = sql;
	const char *up = NULL;
	const char *down = NULL;
	int			down_line = 0;

	goose->transaction = true;
	goose->down_sql = NULL;
	for (int number = 1;; number++)
	{
		const char *end = end_of_line(line);

		switch (read_remark(line, end))
		{
			case REMARK_NONE:
				if (up == NULL && !is_void(line, end))
					refuse(number, "statement before \"-- +goose Up\"", NULL);
				break;
			case REMARK_UP:
				if (up != NULL)
					refuse(number, "second \"-- +goose Up\"", NULL);
				up = line;
				break;
			case REMARK_DOWN:
				if (up == NULL)
					refuse(number, "\"-- +goose Down\" before \"-- +goose Up\"", NULL);
				if (down != NULL)
					refuse(number, "second \"-- +goose Down\"", NULL);
				down = line;
				down_line = number;
				break;
			case REMARK_NO_TRANSACTION:
				goose->transaction = false;
				break;
			case REMARK_NEEDLESS:
				break;
			case REMARK_ENVSUB:
				refuse(number, "goose's substitution of environment variables",
					   "A migration has to be the same wherever it runs. Write the values into the file.");
			case REMARK_UNKNOWN:
				refuse(number, "unknown remark of goose",
					   "There are Up, Down, StatementBegin, StatementEnd and NO TRANSACTION.");
		}
		if (*end == '\0')
			break;
		line = end + 1;
	}
	if (up == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("\"-- +goose Up\" is missing")));

	/* what is before it are comments, which hold the places of their lines */
	goose->up_sql = down ? pnstrdup(sql, down - sql) : pstrdup(sql);
	if (down != NULL)
	{
		goose->down_sql = palloc(down_line + strlen(down));
		memset(goose->down_sql, '\n', down_line - 1);
		strcpy(goose->down_sql + down_line - 1, down);
	}
}
