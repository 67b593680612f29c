/*
 * herald.c
 *	  "dbpool herald": sends news by NOTIFY, see ipc/news.h.
 *
 * A worker is in no database, where alone one can notify.  So it has this process started in
 * the database, which sends what there is in one transaction, and goes.  What it could not
 * send, as when the queue of notifications is full, it leaves for the next.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/view_row.h"
#include "commands/async.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "compat.h"
#include "ipc/errand.h"
#include "ipc/news.h"

#define CHANNEL		"dbpool"

PGDLLEXPORT void dbpool_herald_main(Datum arg);

/* With its number, without which two that are alike would be told as one, and the time. */
static void
tell(const NewsItem *item)
{
	char	   *text = pstrdup(item->text);

	/* the names of this database's objects are in its encoding */
	if (!pg_verify_mbstr(GetDatabaseEncoding(), text, (int) strlen(text), true))
	{
		for (char *at = text; *at != '\0'; at++)
			*at = IS_HIGHBIT_SET(*at) ? '?' : *at;
	}
	/* in place of the last brace */
	text[strlen(text) - 1] = '\0';
	Async_Notify(CHANNEL, psprintf("%s, \"id\": " UINT64_FORMAT ", \"at\": \"%s\"}", text, item->number, time_text(item->at)));
}

static void
tell_lost(uint32 lost, uint64 last)
{
	NewsItem	item = {.number = last,.at = ticks_now()};

	news_begin(item.text, "lost");
	news_put_number(item.text, "count", lost);
	tell(&item);
}

/* As this process's settings are the database's. */
static void
settle(void)
{
	/* nobody's news are worth waiting for a standby */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION);
	/* another one that notifies may hold the queue's lock */
	SetConfigOption("lock_timeout", "10s", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("timezone", "UTC", PGC_USERSET, PGC_S_SESSION);
	compat_no_transaction_timeout();
}

/* The process goes. */
static void
herald_ends(int code, Datum arg)
{
	if (code != 0)
		news_give_back(DatumGetObjectId(arg));
}

void
dbpool_herald_main(Datum arg)
{
	Oid			dbid;
	ErrandShared *errand;
	NewsItem	item;
	uint64		last = 0;
	uint32		lost;

	(void) arg;
	memcpy(&dbid, MyBgworkerEntry->bgw_extra, sizeof(dbid));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dbid, InvalidOid, 0);
	errand = errand_begin(ERRAND_NEWS);
	if (errand == NULL)
		return;
	/* before another may begin */
	before_shmem_exit(herald_ends, ObjectIdGetDatum(dbid));
	pg_atomic_exchange_u32(&errand->wanted, 0);
	lost = pg_atomic_read_u32(&errand->lost);
	settle();
	StartTransactionCommand();
	for (int i = 0; i < NEWS_MOST && news_next(dbid, last, &item); i++)
	{
		tell(&item);
		last = item.number;
	}
	if (lost > 0)
		tell_lost(lost, last);
	CommitTransactionCommand();
	news_told(dbid, last);
	pg_atomic_fetch_sub_u32(&errand->lost, lost);
}
