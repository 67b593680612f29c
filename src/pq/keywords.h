/*
 * keywords.h
 *	  What the definition of a pool says to libpq.
 */
#ifndef DBPOOL_KEYWORDS_H
#define DBPOOL_KEYWORDS_H

#include "dbpool.h"

#define KEYWORDS_MOST	96

/* As PQconnectStartParams() wants them; what is not NULL belongs to others. */
typedef struct Keywords
{
	int			n;
	const char *names[KEYWORDS_MOST + 1];
	const char *values[KEYWORDS_MOST + 1];
} Keywords;

/* Where to connect to: one of several in the lists of a definition. */
typedef struct Place
{
	char	   *host;			/* as configured; NULL: libpq's default */
	char	   *hostaddr;		/* numeric; NULL for sockets, and where host
								 * is to be looked up */
	char	   *port;			/* NULL: libpq's default */
	bool		lookup;			/* host is a name still to be looked up */
	bool		looked_up;		/* hostaddr is what that was found to be */
} Place;

extern const char *definition_value(const char *definition, Size len, const char *keyword);
extern int	definition_places(const char *definition, Size len);
extern void definition_place(const char *definition, Size len, int n, Place *place);

extern void keywords_init(Keywords *keywords, const char *definition, Size len);
extern void keywords_add(Keywords *keywords, const char *name, const char *value);
extern void keywords_add_place(Keywords *keywords, const Place *place);

#endif							/* DBPOOL_KEYWORDS_H */
