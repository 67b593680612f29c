/*
 * resolve.h
 *	  The parts of "dbpool resolver": its loop (resolve.c), a visit to one place
 *	  (resolve_visit.c), the tables (resolve_rows.c).
 */
#ifndef DBPOOL_RESOLVE_H
#define DBPOOL_RESOLVE_H

#include "backend/client.h"
#include "ipc/lease.h"
#include "utils/hsearch.h"

/*
 * How much is taken from one place at a time, be it what a remote says or what stands in
 * the tables.  What claims to have more prepared than that is not believed.
 */
#define GIDS_MOST		100000
#define ROWS_MOST		20000

/* How many prepared transactions a visit ends; the next one goes on. */
#define ENDS_MOST		1000

typedef struct Visit Visit;

/* A server seen through a mapping, where something may be prepared: a row of dbpool_two_phase. */
typedef struct Place
{
	Oid			serverid;
	Oid			userid;
	char		prefix[LEASE_GID];	/* with which gids begin there */
	Visit	   *visit;			/* one that goes on, or NULL */

	/* What is known, after a visit. */
	bool		listed;			/* the row is still there */
	bool		left;			/* something may be left */
	bool		fresh;			/* somebody has wanted a look since */
	bool		complained;		/* the log has been told what is wrong */
	NameData	alerted;		/* the pool, when those who listen know that
								 * something has been in doubt for long */
	HTAB	   *running;		/* transactions that may prepare something
								 * yet, or NULL; see resolve_visit.c */
	char		ended[LEASE_GID];	/* the last gid that was ended; or empty */

	Ticks		due;			/* when the next visit is */
	int			pause;			/* milliseconds to the one after it */
} Place;

/* What is known of a gid, in the course of a visit. */
typedef struct Gid
{
	char		gid[LEASE_GID]; /* hash key */
	bool		before;			/* P: the remote had it prepared */
	bool		after;			/* Q: the same, later */
	bool		under_way;		/* A: a session, or a worker, is about it */
	bool		row;			/* T: it is to be committed */
	char		system[LEASE_SYSTEM];	/* T: where it was prepared; or empty */
} Gid;

/* resolve_visit.c */
extern uint64 visit_requests;

extern Visit *visit_begin(Place *place);
extern bool visit_go_on(Place *place);
extern Ticks visit_deadline(const Visit *visit);
extern const char *visit_pool(const Visit *visit);
extern void visit_end(Place *place);

/* resolve_rows.c */
extern void two_phase_settings(void);
extern void two_phase_force_commit(void);
extern HTAB *gid_set(const char *name, Size entry_size, Size key_size, MemoryContext context);
extern bool gid_is_of(const char *gid, const char *prefix);
extern bool gid_is_under_way(const char *gid);
extern char *two_phase_origin(void);
extern bool two_phase_place(const char *gid, Place *place);
extern List *two_phase_places(List *places);
extern int	rows_note(const Place *place, HTAB *gids);
extern void rows_delete(List *gids);
extern bool rows_delete_committed(const Place *place);
extern void rows_note_failure(Place *place, const char *gid, const char *why);
extern bool rows_forget_place(const Place *place);

/* resolve_alert.c */
extern void rows_alert(Place *place, const char *gid, const char *why);
extern void rows_alert_ends(Place *place);
extern void alert_of_lost(const char *pool, List *gids);

#endif							/* DBPOOL_RESOLVE_H */
