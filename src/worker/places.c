/*
 * places.c
 *	  Where a connection may be opened: hosts and ports of a definition, and the
 *	  addresses that their names turn out to have.
 */
#include "postgres.h"

#include <netdb.h>

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "worker/balance.h"

/* Shuffle the places from one up to, but not including, another. */
static void
shuffle(Candidates *list, int from, int to)
{
	for (int i = to - 1; i > from; i--)
	{
		int			j = (int) pg_prng_uint64_range(&pg_global_prng_state, from, i);
		Place		place = list->places[i];

		list->places[i] = list->places[j];
		list->places[j] = place;
	}
}

/* Fill in the places that the pool's definition names. */
void
places_list(Candidates *list, Pool *pool)
{
	const char *definition = pool->definition;
	Size		len = pool->definition_len;
	const char *balance = definition_value(definition, len, "load_balance_hosts");

	list->n = definition_places(definition, len);
	for (int i = 0; i < list->n; i++)
		definition_place(definition, len, i, &list->places[i]);
	list->session_attrs = definition_value(definition, len, "target_session_attrs");
	list->shuffle = pool->options.load_balance != BALANCE_OFF ||
		(balance != NULL && strcmp(balance, "random") == 0);
	if (list->shuffle)
		shuffle(list, 0, list->n);
	balance_places(list, pool);
}

/* Put the addresses of the current place's name where the name was. */
void
places_put_addresses(Candidates *list, const struct addrinfo *found)
{
	Place		named = list->places[list->at];
	int			at = list->at;

	Assert(list->at < list->n);
	list->n--;
	memmove(&list->places[at], &list->places[at + 1], sizeof(Place) * (list->n - at));
	named.lookup = false;
	named.looked_up = true;
	for (; found != NULL && list->n < DBPOOL_MAX_PLACES; found = found->ai_next)
	{
		char		address[NI_MAXHOST];

		if (getnameinfo(found->ai_addr, found->ai_addrlen, address,
						sizeof(address), NULL, 0, NI_NUMERICHOST) != 0)
			continue;
		memmove(&list->places[at + 1], &list->places[at], sizeof(Place) * (list->n - at));
		list->places[at] = named;
		list->places[at++].hostaddr = MemoryContextStrdup(list->context, address);
		list->n++;
	}
	if (list->shuffle)
		shuffle(list, list->at, at);
}

/* Is there another place to try?  Moves to it. */
bool
places_next(Candidates *list)
{
	if (++list->at < list->n)
		return true;
	if (list->session_attrs != NULL && list->round == 0 &&
		strcmp(list->session_attrs, "prefer-standby") == 0)
	{
		list->round = 1;
		list->at = 0;
		return list->n > 0;
	}
	return false;
}
