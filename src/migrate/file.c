/*
 * file.c
 *	  The text of a file of migrations.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "migrate/migrate.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Bytes that are read before cancels are looked for. */
#define READ_CHUNK	(1024 * 1024)

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
