/*
 * keywords.c
 *	  What the definition of a pool says to libpq: keywords and values, see
 *	  ipc/message.h, and the places that its lists of hosts name.
 *
 * Lists are split here and by nobody else, as "Specifying Multiple Hosts" in the
 * manual's chapter on libpq says: separated by commas, one port may do for all.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "ipc/message.h"
#include "pq/keywords.h"

/* These say where to connect to: they go to libpq for one place at a time. */
static const char *const of_places[] = {
	"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"
};

/*
 * A machine that is gone tells nobody.  By these it is noticed within some ten seconds, where
 * the system's own defaults take hours: by probes while an answer is awaited or nothing is
 * under way, and by what it does not acknowledge else.  In seconds, but the last one.
 */
static const char *const of_dead_peers[][2] = {
	{"keepalives_idle", "5"},
	{"keepalives_interval", "2"},
	{"keepalives_count", "3"},
	{"tcp_user_timeout", "10000"}
};

/* The value of a keyword in the definition, or NULL.  It lives as long as that. */
const char *
definition_value(const char *definition, Size len, const char *keyword)
{
	const char *at = definition + sizeof(PoolOptions);
	const char *end = definition + len;

	while (at < end)
	{
		const char *value = at + strlen(at) + 1;

		if (strcmp(at, keyword) == 0)
			return value;
		at = value + strlen(value) + 1;
	}
	return NULL;
}

/* Element n of a list, from 0, as a copy; NULL when empty or not there. */
static char *
list_element(const char *list, int n)
{
	Size		len;

	if (list == NULL)
		return NULL;
	for (; n > 0; n--)
	{
		list = strchr(list, ',');
		if (list == NULL)
			return NULL;
		list++;
	}
	len = strcspn(list, ",");
	return len == 0 ? NULL : pnstrdup(list, len);
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

/* How many places the definition names: 1 to DBPOOL_MAX_PLACES. */
int
definition_places(const char *definition, Size len)
{
	int			n = Max(list_elements(definition_value(definition, len, "host")),
						list_elements(definition_value(definition, len, "hostaddr")));

	return Min(Max(n, 1), DBPOOL_MAX_PLACES);
}

static bool
is_numeric(const char *host)
{
	struct in6_addr address;

	return inet_pton(AF_INET, host, &address) == 1 ||
		inet_pton(AF_INET6, host, &address) == 1;
}

/* The n-th of them, from 0; what it points to is allocated. */
void
definition_place(const char *definition, Size len, int n, Place *place)
{
	const char *ports = definition_value(definition, len, "port");

	place->host = list_element(definition_value(definition, len, "host"), n);
	place->hostaddr = list_element(definition_value(definition, len, "hostaddr"), n);
	place->port = list_element(ports, list_elements(ports) == 1 ? 0 : n);
	place->lookup = false;
	place->looked_up = false;
	if (place->hostaddr != NULL || place->host == NULL ||
		place->host[0] == '/' || place->host[0] == '@')
		return;
	if (is_numeric(place->host))
		place->hostaddr = place->host;
	else
		place->lookup = true;
}

/* Add a keyword; not when value is NULL.  The last one of a name counts. */
void
keywords_add(Keywords *keywords, const char *name, const char *value)
{
	if (value == NULL || keywords->n == KEYWORDS_MOST)
		return;
	keywords->names[keywords->n] = name;
	keywords->values[keywords->n++] = value;
	keywords->names[keywords->n] = NULL;
	keywords->values[keywords->n] = NULL;
}

static bool
is_of_place(const char *keyword)
{
	for (int i = 0; i < lengthof(of_places); i++)
	{
		if (strcmp(keyword, of_places[i]) == 0)
			return true;
	}
	return false;
}

/* All that the definition says to libpq but where to connect to; lives as long as that. */
void
keywords_init(Keywords *keywords, const char *definition, Size len)
{
	const char *at = definition + sizeof(PoolOptions);
	const char *end = definition + len;

	keywords->n = 0;
	/* may be overridden by the definition, being earlier in the list */
	keywords_add(keywords, "gssencmode", "disable");
	for (int i = 0; i < lengthof(of_dead_peers); i++)
		keywords_add(keywords, of_dead_peers[i][0], of_dead_peers[i][1]);
	while (at < end)
	{
		const char *value = at + strlen(at) + 1;

		if (!is_of_place(at) && strcmp(at, "connect_sql") != 0)
			keywords_add(keywords, at, value);
		at = value + strlen(value) + 1;
	}
}

/* Where to connect to. */
void
keywords_add_place(Keywords *keywords, const Place *place)
{
	keywords_add(keywords, "host", place->host);
	keywords_add(keywords, "hostaddr", place->hostaddr);
	keywords_add(keywords, "port", place->port);
}
