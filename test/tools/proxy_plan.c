/*
 * proxy_plan.c: what is to happen to which links, and where. The head of proxy.c has
 * the commands.
 *
 * A rule that is met puts a mark into a flow; it fires when everything before the mark
 * has been delivered. What is up to chance depends on the seed, the rule, the link's
 * number and the message's alone, never on when something comes or in which pieces.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "proxy.h"

#define MOST_WORDS	24
#define MOST_TEXT	1000
#define MOST_ALWAYS	8

typedef enum Where
{
	WHERE_BEFORE,
	WHERE_AFTER,
	WHERE_INSIDE,
	WHERE_ANYWHERE
} Where;

typedef struct Rule
{
	char	   *command;
	bool		each;			/* fires as often as it can */
	int			link;			/* 0: any */
	char	   *armed_by;		/* or NULL */
	int			from;			/* CLIENT or SERVER */
	bool		bytes;			/* of bytes, or of messages */
	int64_t		n;				/* of them */
	int			kind;			/* of messages */
	char	   *text;			/* or NULL */
	double		chance;
	Where		where;
	int64_t		inside;			/* bytes */
	Action		action;
	int64_t		fired;
} Rule;

static Rule rules[MOST_RULES];
static int	nrules;
static int	ntexts;
static Action always[MOST_ALWAYS];	/* what is done to links that come */
static int	nalways;

bool
plan_is_empty(void)
{
	return nrules == 0;
}

bool
plan_has_texts(void)
{
	return ntexts > 0;
}

/* --- commands --------------------------------------------------------------- */

typedef struct Words
{
	char	   *word[MOST_WORDS + 1];	/* ended by NULL */
	bool		quoted[MOST_WORDS];
	int			next;
} Words;

/* Splits a line in place; "..." is one word, in which "" is a quote. */
static const char *
split(Words *words, char *at)
{
	int			n = 0;

	memset(words, 0, sizeof(Words));
	for (;;)
	{
		char	   *to;

		at += strspn(at, " \t\r\n");
		if (*at == '\0')
			return NULL;
		if (n == MOST_WORDS)
			return "too many words";
		words->quoted[n] = *at == '"';
		if (!words->quoted[n])
		{
			words->word[n++] = at;
			at += strcspn(at, " \t\r\n");
			if (*at != '\0')
				*at++ = '\0';
			continue;
		}
		words->word[n++] = to = ++at;
		while (*at != '\0' && (at[0] != '"' || at[1] == '"'))
		{
			if (*at == '"')
				at++;
			*to++ = *at++;
		}
		if (*at != '"')
			return "a quote is not closed";
		at++;
		*to = '\0';
	}
}

/* Takes the next word if it is that one. */
static bool
take(Words *words, const char *word)
{
	const char *next = words->word[words->next];

	if (next == NULL || words->quoted[words->next] || strcmp(next, word) != 0)
		return false;
	words->next++;
	return true;
}

static bool
take_number(Words *words, int64_t * number)
{
	const char *next = words->word[words->next];
	char	   *end;

	if (next == NULL || *next < '0' || *next > '9')
		return false;
	*number = strtoll(next, &end, 10);
	if (*end != '\0')
		return false;
	words->next++;
	return true;
}

/* A time such as 500us, 2ms, 1.5s. */
static bool
take_time(Words *words, int64_t * time)
{
	const char *next = words->word[words->next];
	double		number;
	char	   *end;

	if (next == NULL || *next < '0' || *next > '9')
		return false;
	number = strtod(next, &end);
	if (strcmp(end, "us") == 0)
		*time = number * 1e3;
	else if (strcmp(end, "ms") == 0)
		*time = number * 1e6;
	else if (strcmp(end, "s") == 0)
		*time = number * 1e9;
	else
		return false;
	words->next++;
	return true;
}

static char *
take_text(Words *words)
{
	if (words->word[words->next] == NULL || !words->quoted[words->next] ||
		*words->word[words->next] == '\0' ||
		strlen(words->word[words->next]) > MOST_TEXT)
		return NULL;
	return words->word[words->next++];
}

/* The action, which ends the command; who feels it, if that is not said. */
static const char *
take_action(Words *words, Action *action, bool client, bool server)
{
	memset(action, 0, sizeof(Action));
	if (take(words, "reset"))
		action->kind = ACTION_RESET;
	else if (take(words, "fin"))
		action->kind = ACTION_FIN;
	else if (take(words, "drop"))
		action->kind = ACTION_DROP;
	else if (take(words, "stall"))
		action->kind = ACTION_STALL;
	else if (take(words, "delay"))
		action->kind = ACTION_DELAY;
	else
		return "no action: reset, fin, drop, stall [TIME] or delay TIME";
	if (action->kind == ACTION_STALL && !take_time(words, &action->time))
		action->time = NEVER;
	if (action->kind == ACTION_DELAY && !take_time(words, &action->time))
		return "no time: a number with us, ms or s";
	if (action->kind == ACTION_RESET || action->kind == ACTION_FIN)
		client = server = true;
	if (take(words, "client"))
		server = !(client = true);
	else if (take(words, "server"))
		client = !(server = true);
	else if (take(words, "both"))
		client = server = true;
	action->to[CLIENT] = client;
	action->to[SERVER] = server;
	return words->word[words->next] == NULL ? NULL : "there is more than an action";
}

static const char *
take_message(Words *words, Rule *rule)
{
	const char *name = words->word[words->next];

	rule->kind = name != NULL && !words->quoted[words->next] ? kind_by_name(name) : -1;
	if (rule->kind < 0)
		return "no kind of message: a letter, startup, ssl, gss, cancel, answer or any";
	words->next++;
	rule->n = 1;
	if (take_number(words, &rule->n) && rule->n == 0)
		return "messages are counted from 1";
	rule->text = take_text(words);
	rule->chance = 1;
	if (take(words, "chance"))
	{
		const char *next = words->word[words->next];
		char	   *end = NULL;

		rule->chance = next != NULL ? strtod(next, &end) : -1;
		if (end == NULL || end == next || *end != '\0' ||
			!(rule->chance >= 0 && rule->chance <= 1))
			return "no chance: a number from 0 to 1";
		words->next++;
	}
	if (take(words, "before"))
		rule->where = WHERE_BEFORE;
	else if (take(words, "after"))
		rule->where = WHERE_AFTER;
	else if (take(words, "anywhere"))
		rule->where = WHERE_ANYWHERE;
	else if (take(words, "inside") && take_number(words, &rule->inside))
		rule->where = WHERE_INSIDE;
	else
		return "no place: before, after, anywhere or inside N";
	return NULL;
}

/* on [each] [link N] [after "TEXT"] frontend|backend byte N|message ... ACTION */
static const char *
take_rule(Words *words, Rule *rule)
{
	const char *error;
	int64_t		link = 0;

	memset(rule, 0, sizeof(Rule));
	rule->each = take(words, "each");
	if (take(words, "link") && !take_number(words, &link))
		return "no number of a link";
	rule->link = link;
	if (take(words, "after") && (rule->armed_by = take_text(words)) == NULL)
		return "no text in quotes";
	if (take(words, "frontend"))
		rule->from = CLIENT;
	else if (take(words, "backend"))
		rule->from = SERVER;
	else
		return "no direction: frontend or backend";
	if (take(words, "byte"))
	{
		rule->bytes = true;
		if (!take_number(words, &rule->n))
			return "no number of bytes";
	}
	else if (!take(words, "message"))
		return "no place: byte or message";
	else if ((error = take_message(words, rule)) != NULL)
		return error;
	return take_action(words, &rule->action, rule->from == SERVER, rule->from == CLIENT);
}

static char *
copy(const char *string)
{
	char	   *result = string != NULL ? strdup(string) : NULL;

	if (string != NULL && result == NULL)
		die("strdup");
	return result;
}

static const char *
rule_add(const Rule *rule, const char *command, FILE * out)
{
	Rule	   *new = &rules[nrules];

	if (nrules == MOST_RULES)
		return "too many rules";
	*new = *rule;
	new->command = copy(command);
	new->armed_by = copy(rule->armed_by);
	new->text = copy(rule->text);
	nrules++;
	ntexts += (rule->armed_by != NULL) + (rule->text != NULL);
	links_show_rule(nrules - 1);
	fprintf(out, "rule %d\n", nrules);
	return NULL;
}

static void
rules_clear(void)
{
	links_forget_marks();
	for (int i = 0; i < nrules; i++)
	{
		free(rules[i].command);
		free(rules[i].armed_by);
		free(rules[i].text);
	}
	nrules = ntexts = 0;
}

/*
 * Does what a line says, which it changes; what is to be answered goes to the file.
 * Returns what is wrong with it, or NULL.
 */
const char *
plan_command(char *line, FILE * out)
{
	char		command[256];
	Words		words;
	Action		action;
	Rule		rule;
	int64_t		number;
	const char *error;
	bool		every;

	snprintf(command, sizeof(command), "%s", line);
	command[strcspn(command, "\r\n")] = '\0';
	if ((error = split(&words, line)) != NULL)
		return error;
	if (take(&words, "on"))
	{
		error = take_rule(&words, &rule);
		return error != NULL ? error : rule_add(&rule, command, out);
	}
	if ((every = take(&words, "always")) || take(&words, "now"))
	{
		number = 0;
		if (!every && take(&words, "link") && !take_number(&words, &number))
			return "no number of a link";
		if ((error = take_action(&words, &action, true, true)) != NULL)
			return error;
		if (every && nalways == MOST_ALWAYS)
			return "too much that is always done";
		if (every)
			always[nalways++] = action;
		put_event(NULL, -1, 0, command, NULL);
		links_act(number, &action);
		return NULL;
	}
	if (take(&words, "resume"))
	{
		nalways = 0;
		put_event(NULL, -1, 0, command, NULL);
		links_resume();
	}
	else if (take(&words, "clear"))
		rules_clear();
	else if (take(&words, "counters"))
	{
		links_print(out);
		for (int i = 0; i < nrules; i++)
			fprintf(out, "rule %d fired %lld: %s\n", i + 1, (long long) rules[i].fired,
					rules[i].command);
	}
	else if (take(&words, "seed"))
	{
		if (!take_number(&words, &number))
			return "no number";
		set_seed(number);
		put_event(NULL, -1, 0, command, NULL);
	}
	else if (take(&words, "pieces"))
	{
		if (!take_number(&words, &number) || number > CHUNK_SIZE)
			return "no number of bytes";
		set_pieces(number);
	}
	else
		return "no command: on, now, always, resume, clear, counters, seed or pieces";
	return words.word[words.next] == NULL ? NULL : "there is more than a command";
}

/* --- rules and links -------------------------------------------------------- */

/* Puts a mark into a flow; when it is there already, or behind, it fires at once. */
static void
mark_put(Link *link, int from, int64_t pos, int64_t message, int rule)
{
	Flow	   *flow = &link->flows[from];
	int			i = flow->nmarks;

	if (flow->dropping)
		return;
	if (flow->nmarks == MOST_MARKS)
	{
		put_event(link, from, message, "has too many marks", rules[rule].command);
		return;
	}
	/* with the same place the one that came first stays first */
	for (; i > 0 && flow->marks[i - 1].pos > pos; i--)
		flow->marks[i] = flow->marks[i - 1];
	flow->marks[i].pos = pos;
	flow->marks[i].message = message;
	flow->marks[i].rule = rule;
	flow->nmarks++;
}

static void
sight_begins(Link *link, int rule, int64_t base)
{
	Sight	   *sight = &link->sights[rule];

	sight->armed = true;
	sight->count = 0;
	if (rules[rule].bytes)
		mark_put(link, rules[rule].from, base + rules[rule].n, 0, rule);
}

/* A rule that has come looks at a link from where it is. */
void
plan_rule_on_link(Link *link, int rule)
{
	link->sights[rule].armed = false;
	if (rules[rule].armed_by == NULL &&
		(rules[rule].link == 0 || rules[rule].link == link->number))
		sight_begins(link, rule, link->flows[rules[rule].from].read);
}

/* A link that has come. */
void
plan_link(Link *link)
{
	for (int i = 0; i < nrules; i++)
		plan_rule_on_link(link, i);
	for (int i = 0; i < nalways && !link->closed; i++)
		link_act(link, &always[i]);
}

static bool
contains(const Message *message, const char *text)
{
	return text == NULL ||
		memmem(message->body, message->nbody, text, strlen(text)) != NULL;
}

/* Of 0 to 1, for each message another. */
static double
chance_of(const Link *link, int from, const Message *message, int rule, int what)
{
	return (lot(rule, link->number, message->number, from * 2 + what) >> 11) / 9007199254740992.0;
}

/* Has the rule seen its message? Then it puts a mark. */
static void
rule_message(Link *link, int from, const Message *message, int i)
{
	const Rule *rule = &rules[i];
	Sight	   *sight = &link->sights[i];
	int64_t		pos = message->start;

	if (rule->bytes || rule->from != from || !sight->armed ||
		(rule->kind != KIND_ANY && rule->kind != message->kind) ||
		!contains(message, rule->text))
		return;
	sight->count++;
	if (rule->each ? sight->count % rule->n != 0 :
		rule->chance < 1 ? sight->count < rule->n : sight->count != rule->n)
		return;
	if (rule->chance < 1 && chance_of(link, from, message, i, 0) >= rule->chance)
		return;
	switch (rule->where)
	{
		case WHERE_BEFORE:
			break;
		case WHERE_AFTER:
			pos += message->length;
			break;
		case WHERE_INSIDE:
			pos += rule->inside < message->length ? rule->inside : message->length;
			break;
		case WHERE_ANYWHERE:
			pos += chance_of(link, from, message, i, 1) * message->length;
	}
	mark_put(link, from, pos, message->number, i);
}

/* A message has come, and nothing that rules want of it has gone on. */
void
plan_message(Link *link, int from, const Message *message)
{
	for (int i = 0; i < nrules; i++)
	{
		const Rule *rule = &rules[i];

		/* each text that arms it has it count anew */
		if (from == CLIENT && rule->armed_by != NULL &&
			(rule->link == 0 || rule->link == link->number) &&
			(!link->sights[i].armed || rule->each) && contains(message, rule->armed_by))
			sight_begins(link, i, rule->from == CLIENT ? message->start :
						 link->flows[SERVER].read);
		rule_message(link, from, message, i);
	}
}

/* Would the mark's rule reset somebody? */
bool
plan_resets(const Mark *mark)
{
	return rules[mark->rule].action.kind == ACTION_RESET;
}

/*
 * A mark has been reached. Returns what is to be done, NULL when its rule has fired
 * elsewhere.
 */
const Action *
plan_fire(const Link *link, int from, const Mark *mark)
{
	Rule	   *rule = &rules[mark->rule];

	if (rule->fired > 0 && !rule->each)
		return NULL;
	rule->fired++;
	put_event(link, from, mark->message, "fires", rule->command);
	return &rule->action;
}
