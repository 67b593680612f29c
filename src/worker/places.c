/*
 * places.c
 *	  Where a connection may be opened: hosts and ports of a definition, and the
 *	  addresses that their names turn out to have.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netdb.h>

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "worker/places.h"

/* The value of a keyword in the pool's definition, or NULL. */
const char *
definition_value(const Pool *pool, const char *keyword)
{
	const char *at = pool->definition + sizeof(PoolOptions);
	const char *end = pool->definition + pool->definition_len;

	while (at < end)
	{
		const char *value = at + strlen(at) + 1;

		if (strcmp(at, keyword) == 0)
			return value;
		at = value + strlen(value) + 1;
	}
	return NULL;
}

/* Element n of a comma-separated list; NULL when empty or not there. */
static char *
list_element(const char *list, int n)
{
	const char *end;

	if (list == NULL)
		return NULL;
	for (; n > 0; n--)
	{
		list = strchr(list, ',');
		if (list == NULL)
			return NULL;
		list++;
	}
	end = strchr(list, ',');
	if (end == NULL)
		end = list + strlen(list);
	return end == list ? NULL : pnstrdup(list, end - list);
}

static int
list_elements(const char *list)
{
	int			n = 1;

	if (list == NULL || list[0] == '\0')
		return 0;
	for (; *list; list++)
		n += *list == ',';
	return n;
}

static bool
is_numeric(const char *host)
{
	struct in6_addr address;

	return inet_pton(AF_INET, host, &address) == 1 ||
		inet_pton(AF_INET6, host, &address) == 1;
}

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

/* Fill in the places that the definition names. */
void
places_list(Candidates *list, const Pool *pool)
{
	const char *hosts = definition_value(pool, "host");
	const char *addrs = definition_value(pool, "hostaddr");
	const char *ports = definition_value(pool, "port");
	int			nports = list_elements(ports);
	int			n = Max(Max(list_elements(hosts), list_elements(addrs)), 1);

	list->n = Min(n, DBPOOL_MAX_PLACES);
	for (int i = 0; i < list->n; i++)
	{
		Place	   *place = &list->places[i];

		place->host = list_element(hosts, i);
		place->hostaddr = list_element(addrs, i);
		place->port = list_element(ports, nports == 1 ? 0 : i);
		if (place->hostaddr != NULL || place->host == NULL ||
			place->host[0] == '/' || place->host[0] == '@')
			continue;
		if (is_numeric(place->host))
			place->hostaddr = place->host;
		else
			place->lookup = true;
	}
	list->session_attrs = definition_value(pool, "target_session_attrs");
	list->shuffle =
		definition_value(pool, "load_balance_hosts") != NULL &&
		strcmp(definition_value(pool, "load_balance_hosts"), "random") == 0;
	if (list->shuffle)
		shuffle(list, 0, list->n);
}

/* Put the addresses of the current place's name where the name was. */
void
places_put_addresses(Candidates *list, const struct addrinfo *found)
{
	Place		named = list->places[list->at];
	int			at = list->at;

	list->n--;
	memmove(&list->places[at], &list->places[at + 1], sizeof(Place) * (list->n - at));
	named.lookup = false;
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
