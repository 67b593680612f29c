/*
 * nearest.c
 *	  Of many names, the one that was perhaps meant by one that does not exist.
 */
#include "postgres.h"

#include "backend/options.h"
#include "mb/pg_wchar.h"
#include "utils/varlena.h"

/* Most letters that may be wrong. */
#define MOST_WRONG	3

/* The length of a name as far as it is compared: whole characters. */
static int
compared_len(const char *name)
{
	return pg_mbcliplen(name, (int) strlen(name), NAMEDATALEN - 1);
}

/* Lower case of ASCII letters, as other ones seldom differ by mistake. */
static char *
lower(const char *name)
{
	char	   *copy = pnstrdup(name, compared_len(name));

	for (char *at = copy; *at; at++)
	{
		if (*at >= 'A' && *at <= 'Z')
			*at += 'a' - 'A';
	}
	return copy;
}

/* Look for names near to the one wanted, which must stay where it is. */
void
nearest_init(NearestName *nearest, const char *wanted)
{
	nearest->wanted = wanted;
	nearest->distance = Min(MOST_WRONG, (int) strlen(wanted) / 2) + 1;
	nearest->name[0] = '\0';
}

/* Is this name nearer than those before? */
void
nearest_try(NearestName *nearest, const char *name)
{
	char	   *wanted = lower(nearest->wanted);
	char	   *other = lower(name);
	int			most = nearest->distance - 1;
	int			distance;

	if (most < 0)
		return;
	distance = varstr_levenshtein_less_equal(wanted, (int) strlen(wanted),
											 other, (int) strlen(other),
											 1, 1, 1, most, true);
	/* "username" for "user" */
	if (distance > most && strlen(other) >= 4 && most >= MOST_WRONG &&
		strncmp(wanted, other, strlen(other)) == 0)
		distance = MOST_WRONG;
	if (distance <= most)
	{
		nearest->distance = distance;
		strlcpy(nearest->name, other, NAMEDATALEN);
		memcpy(nearest->name, name, strlen(other));
	}
	pfree(wanted);
	pfree(other);
}
