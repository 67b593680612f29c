/*
 * stats_file.c
 *	  Statistics outlive an orderly restart of the server, as PostgreSQL's own do.
 *
 * The postmaster writes them into a file when it is the last process that has the shared
 * memory, reads them when it makes it anew, and removes the file then: after a crash there
 * is none, and what it would have had may not be true.  Of a pool there is one record,
 * whatever workers it had; which those are may be others by now.  After these come
 * those of statements.
 *
 * What does not look as it was written is left out as a whole, with a line in the log.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/transam.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "ipc/shmem.h"
#include "ipc/statements.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#define STATS_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/dbpool.stat"
#define STATS_FILE_NEW	STATS_FILE ".tmp"

/* To be changed with what records mean. */
#define STATS_FILE_MAGIC	0x64620201

typedef struct FileHeader
{
	uint32		magic;
	uint32		record_bytes;
	uint32		nrecords;
	uint32		statement_bytes;
	uint32		nstatements;
	pg_crc32c	crc;			/* of the records, and of the statements */
} FileHeader;

/* Times are of the day: who knows when the machine's clock of Ticks began. */
typedef struct FileRecord
{
	PoolKey		key;
	Oid			owner;
	int			min_size;
	int			max_size;
	NameData	server;
	NameData	username;
	char		connect_error[DBPOOL_SHOWN_ERROR];
	TimestampTz used_at;
	TimestampTz connected_at;
	TimestampTz connect_failed_at;
	TimestampTz reset_at;
	PoolCounters counters;
	uint64		wake_us;
	uint64		take_us;
	HistogramSum latency[LATENCY_KINDS];
} FileRecord;

/* One at a time; the postmaster has no room for it on its stack. */
static FileRecord record;
static StatementShared statement;

/* What to add to Ticks. */
static int64
time_of_day_offset(void)
{
	return GetCurrentTimestamp() - ticks_now();
}

static bool
is_kept(const PoolShared *pool)
{
	return pool->in_use && !pool->dropped && pool->key.xid == InvalidTransactionId;
}

static bool
is_same_pool(const PoolShared *a, const PoolShared *b)
{
	return memcmp(&a->key, &b->key, sizeof(PoolKey)) == 0;
}

static void
latest(TimestampTz *at, Ticks moment, int64 offset)
{
	if (moment != 0)
		*at = Max(*at, moment + offset);
}

/* Counters are numbers, but for what is longest, and what is a time. */
static void
add_counters(PoolCounters *sum, const PoolCounters *more)
{
	PoolCounters before = *sum;
	uint64	   *to = (uint64 *) sum;
	const uint64 *from = (const uint64 *) more;

	StaticAssertStmt(offsetof(PoolCounters, reset_at) % sizeof(uint64) == 0,
					 "counters are numbers of 64 bits");
	for (size_t i = 0; i < offsetof(PoolCounters, reset_at) / sizeof(uint64); i++)
		to[i] += from[i];
	sum->wait_max_us = Max(before.wait_max_us, more->wait_max_us);
	sum->exec_max_us = Max(before.exec_max_us, more->exec_max_us);
	sum->transaction_max_us = Max(before.transaction_max_us, more->transaction_max_us);
	split_add(&sum->split, &more->split);
}

/* Put all entries of a pool, of which this one is the first, into the record. */
static void
fill_record(int first, int64 offset)
{
	Ticks		used_at = 0;

	memset(&record, 0, sizeof(record));
	record.key = shmem_pool(first)->key;
	for (int i = first; i < dbpool_shared->npools; i++)
	{
		const PoolShared *pool = shmem_pool(i);
		PoolStats  *stats = stats_of(i);

		if (!is_kept(pool) || !is_same_pool(pool, shmem_pool(first)))
			continue;
		if (i == first || pool->used_at > used_at)
		{
			used_at = pool->used_at;
			record.owner = pool->owner;
			record.min_size = pool->min_size;
			record.max_size = pool->max_size;
			record.server = pool->server;
			record.username = pool->username;
		}
		if (pool->connect_failed_at != 0 && pool->connect_failed_at + offset > record.connect_failed_at)
			strlcpy(record.connect_error, pool->connect_error, sizeof(record.connect_error));
		latest(&record.used_at, pool->used_at, offset);
		latest(&record.connected_at, pool->connected_at, offset);
		latest(&record.connect_failed_at, pool->connect_failed_at, offset);
		latest(&record.reset_at, pool->counters.reset_at, offset);
		add_counters(&record.counters, &pool->counters);
		record.wake_us += pg_atomic_read_u64(&stats->wake_us);
		record.take_us += pg_atomic_read_u64(&stats->take_us);
		for (int kind = 0; kind < LATENCY_KINDS; kind++)
			histogram_add_to(&record.latency[kind], &stats->latency[kind]);
	}
}

/* Is no entry before it of the same pool? */
static bool
is_first_of_pool(int index)
{
	for (int i = 0; i < index; i++)
	{
		if (is_kept(shmem_pool(i)) && is_same_pool(shmem_pool(i), shmem_pool(index)))
			return false;
	}
	return true;
}

/* The time of a statement is of the day, too. */
static bool
write_statements(FILE * file, FileHeader *header, int64 offset)
{
	for (int i = 0; i < dbpool_max_statements; i++)
	{
		if (!statement_copy(i, &statement))
			continue;
		statement.counters.last_at += offset;
		COMP_CRC32C(header->crc, &statement, sizeof(statement));
		header->nstatements++;
		if (fwrite(&statement, sizeof(statement), 1, file) != 1)
			return false;
	}
	return true;
}

/* False when it cannot be written; then errno says why. */
static bool
write_file(FILE * file)
{
	FileHeader	header = {STATS_FILE_MAGIC, sizeof(FileRecord), 0, sizeof(StatementShared), 0};
	int64		offset = time_of_day_offset();

	INIT_CRC32C(header.crc);
	if (fwrite(&header, sizeof(header), 1, file) != 1)
		return false;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		if (!is_kept(shmem_pool(i)) || !is_first_of_pool(i))
			continue;
		fill_record(i, offset);
		COMP_CRC32C(header.crc, &record, sizeof(record));
		header.nrecords++;
		if (fwrite(&record, sizeof(record), 1, file) != 1)
			return false;
	}
	if (!write_statements(file, &header, offset))
		return false;
	FIN_CRC32C(header.crc);
	return fseek(file, 0, SEEK_SET) == 0 && fwrite(&header, sizeof(header), 1, file) == 1;
}

/* Will the next start need no recovery?  After an immediate shutdown it does. */
static bool
has_ended_in_order(void)
{
	bool		whole;
	ControlFileData *control = get_controlfile(DataDir, &whole);

	return whole && (control->state == DB_SHUTDOWNED || control->state == DB_SHUTDOWNED_IN_RECOVERY);
}

/* The server ends: write the file, if that is in order. */
void
stats_file_save(int code, Datum arg)
{
	FILE	   *file;
	bool		written;

	(void) arg;
	if (code != 0 || IsBinaryUpgrade || dbpool_shared == NULL || !has_ended_in_order())
		return;
	file = AllocateFile(STATS_FILE_NEW, PG_BINARY_W);
	written = file != NULL && write_file(file);
	/* that closes it in any case, and may be what fails */
	if (file != NULL && FreeFile(file) != 0)
		written = false;
	if (written)
		(void) durable_rename(STATS_FILE_NEW, STATS_FILE, LOG);
	else
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("dbpool could not write its statistics to file \"%s\": %m", STATS_FILE_NEW)));
		(void) unlink(STATS_FILE_NEW);
	}
}

/* Does the file look as it was written?  Leaves it at its first record. */
static bool
file_is_whole(FILE * file, FileHeader *header)
{
	struct stat st;
	pg_crc32c	crc;

	if (fread(header, sizeof(*header), 1, file) != 1 || header->magic != STATS_FILE_MAGIC ||
		header->record_bytes != sizeof(FileRecord) || header->statement_bytes != sizeof(StatementShared) ||
		fstat(fileno(file), &st) != 0 ||
		st.st_size != (off_t) sizeof(*header) + (off_t) header->nrecords * sizeof(FileRecord) +
		(off_t) header->nstatements * sizeof(StatementShared))
		return false;
	INIT_CRC32C(crc);
	for (uint32 i = 0; i < header->nrecords; i++)
	{
		if (fread(&record, sizeof(record), 1, file) != 1)
			return false;
		COMP_CRC32C(crc, &record, sizeof(record));
	}
	for (uint32 i = 0; i < header->nstatements; i++)
	{
		if (fread(&statement, sizeof(statement), 1, file) != 1)
			return false;
		COMP_CRC32C(crc, &statement, sizeof(statement));
	}
	FIN_CRC32C(crc);
	return EQ_CRC32C(crc, header->crc) && fseek(file, sizeof(*header), SEEK_SET) == 0;
}

/* That moment in Ticks.  One before the machine started is negative, which is no harm. */
static Ticks
ticks_of(TimestampTz at, int64 offset)
{
	return at == 0 ? 0 : at == offset ? 1 : at - offset;
}

/* Take an entry for the record's pool. */
static void
put_record(int index, int64 offset)
{
	PoolShared *pool = shmem_pool(index);
	PoolStats  *stats = stats_of(index);

	pool->in_use = true;
	pool->key = record.key;
	pool->worker = shmem_first_worker(&pool->key);
	pool->owner = record.owner;
	pool->min_size = record.min_size;
	pool->max_size = record.max_size;
	pool->server = record.server;
	pool->username = record.username;
	strlcpy(pool->connect_error, record.connect_error, sizeof(pool->connect_error));
	pool->used_at = ticks_of(record.used_at, offset);
	pool->connected_at = ticks_of(record.connected_at, offset);
	pool->connect_failed_at = ticks_of(record.connect_failed_at, offset);
	pool->counters = record.counters;
	pool->counters.reset_at = ticks_of(record.reset_at, offset);
	memset(pool->counters.minute, 0, sizeof(pool->counters.minute));
	pg_atomic_write_u64(&stats->wake_us, record.wake_us);
	pg_atomic_write_u64(&stats->take_us, record.take_us);
	for (int kind = 0; kind < LATENCY_KINDS; kind++)
		histogram_put(&stats->latency[kind], &record.latency[kind]);
}

/* Of a file that is whole: what it has, as far as there are places. */
static void
read_file(FILE * file, const FileHeader *header, int64 offset)
{
	for (uint32 i = 0; i < header->nrecords; i++)
	{
		if (fread(&record, sizeof(record), 1, file) == 1 && i < (uint32) dbpool_shared->npools)
			put_record((int) i, offset);
	}
	for (uint32 i = 0; i < Min(header->nstatements, (uint32) dbpool_max_statements); i++)
	{
		if (fread(&statement, sizeof(statement), 1, file) != 1)
			continue;
		statement.counters.last_at = ticks_of(statement.counters.last_at, offset);
		statement_put(&statement);
	}
}

/*
 * The shared memory has just been made: read what an orderly end has left.  In the
 * postmaster, before it has a child.
 */
void
stats_file_load(void)
{
	FILE	   *file;
	FileHeader	header;
	int64		offset = time_of_day_offset();

	if (IsBinaryUpgrade)
		return;
	file = AllocateFile(STATS_FILE, PG_BINARY_R);
	if (file == NULL && errno == ENOENT)
		return;
	if (file == NULL)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("dbpool could not read its statistics from file \"%s\": %m", STATS_FILE)));
	else if (!file_is_whole(file, &header))
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("dbpool ignores the statistics in file \"%s\"", STATS_FILE),
				 errdetail("The file is damaged, or of another version of dbpool. Statistics begin anew.")));
	else
		read_file(file, &header, offset);
	if (file != NULL)
		FreeFile(file);
	/* it is not to be read once more after a crash */
	(void) durable_unlink(STATS_FILE, LOG);
}
