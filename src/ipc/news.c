/*
 * news.c
 *	  News on their way to those who listen, see news.h.
 *
 * Nothing here waits, allocates or throws.
 */
#include "postgres.h"

#include <math.h>

#include "access/xlog.h"
#include "ipc/errand.h"
#include "ipc/news.h"
#include "ipc/shmem.h"

/* The longest that one byte becomes in JSON: \u001f. */
#define ESCAPED_MOST	6

/* An object that says what has happened; for the next two. */
void
news_begin(char *text, const char *event)
{
	strlcpy(text, "{}", NEWS_BYTES);
	news_put(text, "event", event);
}

/* Where the next pair begins, with its key; NULL if there is no room for a value of so many bytes. */
static char *
news_put_key(char *text, const char *key, int room)
{
	char	   *end = text + strlen(text) - 1;

	Assert(*end == '}');
	if (end + strlen(key) + room + 8 > text + NEWS_BYTES)
		return NULL;
	return end + sprintf(end, "%s\"%s\": ", end == text + 1 ? "" : ", ", key);
}

static char *
put_escaped(char *to, unsigned char c)
{
	if (c < ' ')
		return to + sprintf(to, "\\u%04x", c);
	if (c == '"' || c == '\\')
		*to++ = '\\';
	*to++ = (char) c;
	return to;
}

/*
 * Add a pair; NULL is null.  A value for which there is no room is cut, and a pair of which
 * nothing has room is left out.  What is cut goes back to an ASCII character, in whatever
 * encoding, and the object is always whole.
 */
void
news_put(char *text, const char *key, const char *value)
{
	char	   *most = text + (NEWS_BYTES - ESCAPED_MOST - 3);
	char	   *to = news_put_key(text, key, ESCAPED_MOST);
	char	   *begin;

	if (to == NULL)
		return;
	if (value == NULL)
	{
		strcpy(to, "null}");
		return;
	}
	*to++ = '"';
	begin = to;
	while (*value != '\0' && to < most)
		to = put_escaped(to, (unsigned char) *value++);
	while (*value != '\0' && to > begin && IS_HIGHBIT_SET(to[-1]))
		to--;
	strcpy(to, "\"}");
}

/* Add a number; what is none in JSON is null. */
void
news_put_number(char *text, const char *key, double value)
{
	char	   *to = news_put_key(text, key, 24);

	if (to == NULL)
		return;
	if (isfinite(value))
		sprintf(to, "%.6g}", value);
	else
		strcpy(to, "null}");
}

/* What is to be told is lost, unless a herald has it already. */
static void
news_lose(NewsItem *item)
{
	ErrandShared *errand = errand_of(ERRAND_NEWS, item->dbid);

	item->dbid = InvalidOid;
	if (item->under_way)
		return;
	dbpool_shared->news.lost++;
	if (errand != NULL)
		pg_atomic_fetch_add_u32(&errand->lost, 1);
}

/*
 * Have those who listen in the database told.  On a standby nobody can be, and the news are
 * dropped.
 */
void
news_post(Oid dbid, const char *text)
{
	NewsShared *news = &dbpool_shared->news;
	NewsItem   *item;

	if (RecoveryInProgress() || !OidIsValid(dbid))
		return;
	SpinLockAcquire(&news->mutex);
	item = &news->items[news->posted++ % NEWS_MOST];
	if (OidIsValid(item->dbid))
		news_lose(item);
	item->number = news->posted;
	item->dbid = dbid;
	item->under_way = false;
	item->at = ticks_now();
	strlcpy(item->text, text, NEWS_BYTES);
	SpinLockRelease(&news->mutex);
	/* of too many databases at a time, one is not told */
	if (!errand_want(ERRAND_NEWS, dbid))
		news_drop(dbid);
}

/* Take the first news of the database behind that number; false if there are none. */
bool
news_next(Oid dbid, uint64 after, NewsItem *item)
{
	NewsShared *news = &dbpool_shared->news;
	NewsItem   *next = NULL;

	SpinLockAcquire(&news->mutex);
	for (int i = 0; i < NEWS_MOST; i++)
	{
		NewsItem   *other = &news->items[i];

		if (other->dbid == dbid && other->number > after &&
			(next == NULL || other->number < next->number))
			next = other;
	}
	if (next != NULL)
	{
		next->under_way = true;
		*item = *next;
	}
	SpinLockRelease(&news->mutex);
	return next != NULL;
}

/* All of the database up to that number have been told. */
void
news_told(Oid dbid, uint64 last)
{
	NewsShared *news = &dbpool_shared->news;

	SpinLockAcquire(&news->mutex);
	for (int i = 0; i < NEWS_MOST; i++)
	{
		if (news->items[i].dbid == dbid && news->items[i].number <= last)
			news->items[i].dbid = InvalidOid;
	}
	SpinLockRelease(&news->mutex);
}

/* The database cannot be told. */
void
news_drop(Oid dbid)
{
	NewsShared *news = &dbpool_shared->news;

	SpinLockAcquire(&news->mutex);
	for (int i = 0; i < NEWS_MOST; i++)
	{
		if (news->items[i].dbid == dbid)
			news_lose(&news->items[i]);
	}
	SpinLockRelease(&news->mutex);
}

/* Who has taken them goes, and has told none of them. */
void
news_give_back(Oid dbid)
{
	NewsShared *news = &dbpool_shared->news;

	SpinLockAcquire(&news->mutex);
	for (int i = 0; i < NEWS_MOST; i++)
	{
		if (news->items[i].dbid == dbid)
			news->items[i].under_way = false;
	}
	SpinLockRelease(&news->mutex);
}

/* How many there were, and how many of them nobody was told. */
void
news_count(uint64 *posted, uint64 *lost)
{
	SpinLockAcquire(&dbpool_shared->news.mutex);
	*posted = dbpool_shared->news.posted;
	*lost = dbpool_shared->news.lost;
	SpinLockRelease(&dbpool_shared->news.mutex);
}
