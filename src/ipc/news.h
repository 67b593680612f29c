/*
 * news.h
 *	  What those who listen in a database are told.
 *
 * Whoever has news posts them, be it a worker, which is in no database, or a session.  They
 * stand in a ring until "dbpool herald" of their database (backend/herald.c) has sent them
 * by NOTIFY on the channel "dbpool".  When the ring is full the oldest go, and are counted.
 *
 * News are JSON, an object of one line.  Everybody who can connect to a database may listen
 * there: so they have in them only what all may know, such as the names of servers and
 * SQLSTATEs, and never what a remote says.
 *
 *	 char text[NEWS_BYTES];
 *
 *	 news_begin(text, "paused");
 *	 news_put(text, "pool", NameStr(pool->server));
 *	 news_post(pool->key.dbid, text);
 */
#ifndef DBPOOL_NEWS_H
#define DBPOOL_NEWS_H

#include "dbpool.h"
#include "clock.h"
#include "storage/spin.h"

/* News that are kept at a time, of all databases. */
#define NEWS_MOST	128

/* Bytes of one, with the terminating zero. */
#define NEWS_BYTES	480

typedef struct NewsItem
{
	uint64		number;			/* 1, 2, ... in the order of their coming */
	Oid			dbid;			/* invalid: there are none, or were told */
	bool		under_way;		/* a herald has taken them */
	Ticks		at;
	char		text[NEWS_BYTES];
} NewsItem;

typedef struct NewsShared
{
	slock_t		mutex;			/* protects all of it */
	uint64		posted;			/* the number of the last */
	uint64		lost;			/* that were not told */
	NewsItem	items[NEWS_MOST];
} NewsShared;

extern void news_begin(char *text, const char *event);
extern void news_put(char *text, const char *key, const char *value);
extern void news_put_number(char *text, const char *key, double value);
extern void news_post(Oid dbid, const char *text);

extern bool news_next(Oid dbid, uint64 after, NewsItem *item);
extern void news_told(Oid dbid, uint64 last);
extern void news_give_back(Oid dbid);
extern void news_drop(Oid dbid);
extern void news_count(uint64 *posted, uint64 *lost);

#endif							/* DBPOOL_NEWS_H */
