/*
 * checksum.c
 *	  What tells that a migration's text is the same as another.
 *
 * Three kinds of checksums, one per format of the remote's history, and the
 * number of the lock that sqlx takes.  All of them are of bytes in UTF-8, so
 * that they do not depend on the encoding of the database that has the text.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/pg_crc.h"

PG_FUNCTION_INFO_V1(dbpool_migration_checksum);

/* sqlx multiplies the checksum of the database's name by it. */
#define SQLX_LOCK_FACTOR	INT64CONST(0x3d32ad9e)

static const char *
in_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

/* The texts are long, and many. */
static void
free_utf8(const char *bytes, const char *text)
{
	if (bytes != text)
		pfree(unconstify(char *, bytes));
}

/* --- SHA ------------------------------------------------------------------------- */

/* Prefix and hexadecimal digits. */
static char *
sha(pg_cryptohash_type type, int length, const char *prefix, const char *sql)
{
	const char *bytes = in_utf8(sql);
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(type);
	uint8		digest[PG_SHA512_DIGEST_LENGTH];
	size_t		start = strlen(prefix);
	char	   *text = palloc(start + length * 2 + 1);

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) bytes, strlen(bytes)) < 0 ||
		pg_cryptohash_final(ctx, digest, length) < 0)
		elog(ERROR, "could not compute a checksum: %s",
			 ctx ? pg_cryptohash_error(ctx) : "out of memory");
	pg_cryptohash_free(ctx);
	free_utf8(bytes, sql);
	memcpy(text, prefix, start);
	hex_encode((const char *) digest, length, text + start);
	text[start + length * 2] = '\0';
	return text;
}

char *
checksum_dbpool(const char *sql)
{
	return sha(PG_SHA256, PG_SHA256_DIGEST_LENGTH, "sha256:", sql);
}

char *
checksum_sqlx(const char *sql)
{
	return sha(PG_SHA384, PG_SHA384_DIGEST_LENGTH, "", sql);
}

/* --- SipHash-1-3 ----------------------------------------------------------------- */

/* The hash of Aumasson and Bernstein with one round per word and three at the end. */
typedef struct Sip
{
	uint64		v0;
	uint64		v1;
	uint64		v2;
	uint64		v3;
	uint64		word;			/* what has come of the next one */
	uint64		length;			/* in bytes, of all that has come */
} Sip;

static inline uint64
rotate(uint64 word, int bits)
{
	return (word << bits) | (word >> (64 - bits));
}

static void
sip_round(Sip *sip)
{
	sip->v0 += sip->v1;
	sip->v1 = rotate(sip->v1, 13) ^ sip->v0;
	sip->v0 = rotate(sip->v0, 32);
	sip->v2 += sip->v3;
	sip->v3 = rotate(sip->v3, 16) ^ sip->v2;
	sip->v0 += sip->v3;
	sip->v3 = rotate(sip->v3, 21) ^ sip->v0;
	sip->v2 += sip->v1;
	sip->v1 = rotate(sip->v1, 17) ^ sip->v2;
	sip->v2 = rotate(sip->v2, 32);
}

/* Both halves of the key are 0. */
static void
sip_init(Sip *sip)
{
	sip->v0 = UINT64CONST(0x736f6d6570736575);
	sip->v1 = UINT64CONST(0x646f72616e646f6d);
	sip->v2 = UINT64CONST(0x6c7967656e657261);
	sip->v3 = UINT64CONST(0x7465646279746573);
	sip->word = 0;
	sip->length = 0;
}

static void
sip_byte(Sip *sip, uint8 byte)
{
	sip->word |= (uint64) byte << (8 * (sip->length % 8));
	if (++sip->length % 8 != 0)
		return;
	sip->v3 ^= sip->word;
	sip_round(sip);
	sip->v0 ^= sip->word;
	sip->word = 0;
}

static uint64
sip_end(Sip *sip)
{
	uint64		last = sip->word | (sip->length % 256) << 56;

	sip->v3 ^= last;
	sip_round(sip);
	sip->v0 ^= last;
	sip->v2 ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(sip);
	return sip->v0 ^ sip->v1 ^ sip->v2 ^ sip->v3;
}

/* A string as Rust hashes it: a byte that UTF-8 does not have ends it. */
static void
sip_string(Sip *sip, const char *string)
{
	for (const char *at = string; *at != '\0'; at++)
		sip_byte(sip, (uint8) *at);
	sip_byte(sip, 0xff);
}

/* Throws when the version does not fit. */
char *
checksum_refinery(const char *name, int64 version, const char *sql, bool wide)
{
	Sip			sip;
	const char *bytes = in_utf8(sql);

	if (!wide && version > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("version %lld is too high for refinery", (long long) version),
				 errdetail("Its versions are 32 bits wide, at most %d, unless it was built with the feature \"int8-versions\".",
						   PG_INT32_MAX)));
	sip_init(&sip);
	sip_string(&sip, in_utf8(name));
	for (int i = 0; i < (wide ? 8 : 4); i++)
		sip_byte(&sip, (uint8) ((uint64) version >> (8 * i)));
	sip_string(&sip, bytes);
	free_utf8(bytes, sql);
	return psprintf(UINT64_FORMAT, sip_end(&sip));
}

/* --- the rest -------------------------------------------------------------------- */

char *
checksum_line_ends(const char *sql, bool crlf)
{
	Size		length = 0;
	char	   *text;
	char	   *to;

	for (const char *at = sql; *at != '\0'; at++)
		length += (crlf && *at == '\n') ? 2 : 1;
	text = to = palloc(length + 1);
	for (const char *at = sql; *at != '\0'; at++)
	{
		if (at[0] == '\r' && at[1] == '\n')
			continue;
		if (*at == '\n' && crlf)
			*to++ = '\r';
		*to++ = *at;
	}
	*to = '\0';
	return text;
}

int64
checksum_lock_key(const char *database)
{
	const char *bytes = in_utf8(database);
	pg_crc32	crc;

	INIT_TRADITIONAL_CRC32(crc);
	COMP_TRADITIONAL_CRC32(crc, bytes, strlen(bytes));
	FIN_TRADITIONAL_CRC32(crc);
	return SQLX_LOCK_FACTOR * (int64) crc;
}

/*
 * dbpool_migration_checksum(format text, version dbpool_migration_version, name text, sql text)
 * returns text
 *
 * What a history of that format has for such a migration.  Errors: 22023 for an
 * unknown format, 22003 for a version that refinery cannot have.
 */
Datum
dbpool_migration_checksum(PG_FUNCTION_ARGS)
{
	char	   *format = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		version = 0;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(3));
	char	   *sum = NULL;

	if (strncmp(format, "refinery", 8) == 0)
		version = DatumGetInt64(DirectFunctionCall1(dbpool_migration_version_int8, PG_GETARG_DATUM(1)));
	if (strcmp(format, "dbpool") == 0)
		sum = checksum_dbpool(sql);
	else if (strcmp(format, "refinery") == 0)
		sum = checksum_refinery(name, version, sql, false);
	else if (strcmp(format, "refinery int8") == 0)
		sum = checksum_refinery(name, version, sql, true);
	else if (strcmp(format, "sqlx") == 0)
		sum = checksum_sqlx(sql);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown format of a migration history: \"%s\"", format),
				 errhint("There are \"dbpool\", \"refinery\", \"refinery int8\" and \"sqlx\".")));
	PG_RETURN_TEXT_P(cstring_to_text(sum));
}
