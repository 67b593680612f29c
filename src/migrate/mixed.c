/*
 * mixed.c
 *	  Texts for one direction that seem to have the other one in them, too.
 *
 * Many tools part the directions of a file by a comment, and each does it in its
 * own words: "-- @UNDO", "-- ==== DOWN ====", "--!Downs", "-- down".  Such a file
 * as a whole would do everything and undo it at once.  So of each text that is
 * registered, the comments between its statements are looked at: one that consists
 * of a direction, and has statements behind it, is a reason to refuse the text.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "migrate/line.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#define WORDS		6
#define WORD_SIZE	16

/* A comment as it is read by people. */
typedef struct Comment
{
	char		words[WORDS][WORD_SIZE];	/* in lower case; longer ones are
											 * cut */
	int			n;				/* words; more than WORDS: too many */
	bool		colon;			/* behind the first word */
	bool		joined;			/* without a blank behind that */
	bool		sign;			/* one of + @ ! before the first word */
	bool		statement;		/* a semicolon at the end */
} Comment;

typedef enum Likeness
{
	LIKE_NONE,
	LIKE_WORDS,					/* there may be a statement behind it */
	LIKE_TITLE,					/* likewise, with others before it */
	LIKE_MARK
} Likeness;

static bool
is_word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		c == '\'' || IS_HIGHBIT_SET(c);
}

/* Words of a comment that is all of its line; false if it is none. */
static bool
read_comment(const Line *line, Comment *comment)
{
	const char *at = skip_blanks(line->start, line->end);
	const char *end = line->end;
	bool		sign = false;

	memset(comment, 0, sizeof(Comment));
	while (end > at && is_blank(end[-1]))
		end--;
	if (end - at >= 4 && at[0] == '/' && at[1] == '*' && end[-2] == '*' && end[-1] == '/')
		end -= 2;
	else if (skip_prefix(at, end, "--", false) == NULL && *at != '#')
		return false;
	comment->statement = end > at && end[-1] == ';';
	while (at < end)
	{
		int			length = 0;

		if (!is_word(*at))
		{
			sign |= *at == '+' || *at == '@' || *at == '!';
			at++;
			continue;
		}
		if (comment->n == 0)
			comment->sign = sign;
		for (; at < end && is_word(*at); at++)
		{
			if (comment->n < WORDS && length < WORD_SIZE - 1)
				comment->words[comment->n][length++] = pg_ascii_tolower((unsigned char) *at);
		}
		if (comment->n++ == 0 && at < end && *at == ':')
		{
			comment->colon = true;
			comment->joined = at + 1 < end && !is_blank(at[1]);
		}
	}
	return comment->n > 0;
}

static bool
is_in_list(const char *word, const char *const *list)
{
	for (; *list != NULL; list++)
	{
		if (strcmp(word, *list) == 0)
			return true;
	}
	return false;
}

/* Is it a word for that direction?  *plain: one that has other meanings as well. */
static bool
is_direction(const char *word, bool down, bool *plain)
{
	static const char *const names[2][3] = {{"up", "ups", NULL}, {"down", "downs", NULL}};
	static const char *const others[2][9] = {
		{"upgrade", "forward", "forwards", NULL},
		{"undo", "rollback", "revert", "reverse", "downgrade", "backward", "backwards", NULL}
	};

	*plain = is_in_list(word, others[down]);
	return *plain || is_in_list(word, names[down]);
}

/* How much does the comment look like the mark of that direction? */
static Likeness
likeness(const Comment *comment, bool down)
{
	static const char *const around[] = {
		"migrate", "migration", "migrations", "section", "script", "sql", "begin", "start", "end",
		"direction", "part", "block", "statement", "statements", "goose", "dbmate", "rambler",
		"micrate", "shmig", "tern", NULL
	};
	int			directions = 0;
	int			others = 0;
	bool		plain = false;

	if (comment->statement)
		return LIKE_NONE;
	if (down && comment->n == 4 && strcmp(comment->words[0], "create") == 0 &&
		strcmp(comment->words[1], "above") == 0 && strcmp(comment->words[2], "drop") == 0 &&
		strcmp(comment->words[3], "below") == 0)
		return LIKE_MARK;
	for (int i = 0; i < Min(comment->n, WORDS); i++)
	{
		bool		this_plain;

		if (is_direction(comment->words[i], down, &this_plain))
		{
			directions++;
			plain = this_plain;
		}
		else if (!is_in_list(comment->words[i], around))
			others++;
	}
	if (comment->n <= WORDS && directions == 1 &&
		(others == 0 ||
	/* +tool down, tool:down */
		 (comment->n == 2 && others == 1 && (comment->sign || comment->joined) &&
		  is_direction(comment->words[1], down, &plain))))
		return plain && !comment->sign && !comment->joined ? LIKE_WORDS : LIKE_MARK;

	/*
	 * with words behind it: down: it; down migration of it; @undo it; +tool
	 * down it
	 */
	if (is_direction(comment->words[0], down, &plain) &&
		(comment->sign || (!plain && (comment->colon || strcmp(comment->words[1], "migration") == 0))))
		return LIKE_TITLE;
	if (is_direction(comment->words[1], down, &plain) && (comment->sign || comment->joined))
		return LIKE_TITLE;
	return LIKE_NONE;
}

/*
 * Do the comments behind that line have a statement?  Then it is the title of a
 * way back that is written there for people.
 */
static bool
is_commented_out(Line line)
{
	Comment		comment;

	while (next_line(&line) && skip_blanks(line.start, line.end) < line.end)
	{
		if (!is_void(&line))
			return false;
		if (read_comment(&line, &comment) && comment.statement)
			return true;
	}
	return false;
}

/* Whose mark may it be, for a message? */
static const char *
guess_tool(const Line *line)
{
	static const char *const known[][2] = {
		{"goose", "goose"}, {"+migrate", "sql-migrate"}, {"micrate", "micrate"},
		{"migrate:", "dbmate"}, {"rambler", "rambler"}, {"@undo", "MyBatis Migrations"},
		{"!downs", "Play's evolutions"}, {"!ups", "Play's evolutions"},
		{"create above", "tern"}, {"====", "shmig"}, {"down migration", "node-pg-migrate"},
		{"up migration", "node-pg-migrate"}
	};

	for (int i = 0; i < lengthof(known); i++)
	{
		if (find_words(line->start, line->end, known[i][0], true) != NULL)
			return psprintf("a mark of %s", known[i][1]);
	}
	return "the mark of a direction";
}

/* Where a line is among the statements of its text. */
typedef struct Place
{
	const char *sql;
	const SqlPiece *pieces;
	int			n;
	int			seen;			/* bytes between statements that were looked
								 * at */
	int			comments;		/* in slashes and stars, open there */
	int			next;			/* first one that does not end before it */
	int			last;			/* the last one that does something, or -1 */
	bool		inside;			/* in one of them, or in such a comment */
	bool		before;			/* one that does something is before it */
} Place;

static Place
first_place(const char *sql, const SqlPiece *pieces, int n)
{
	Place		place = {.sql = sql,.pieces = pieces,.n = n,.last = n - 1};

	while (place.last >= 0 && pieces[place.last].kind != PIECE_PLAIN)
		place.last--;
	return place;
}

/* Go on to that byte of the text. */
static void
move_place(Place *place, int at)
{
	while (place->next < place->n &&
		   place->pieces[place->next].at + place->pieces[place->next].len <= at)
	{
		place->seen = place->pieces[place->next].at + place->pieces[place->next].len;
		place->comments = 0;
		place->before |= place->pieces[place->next++].kind == PIECE_PLAIN;
	}
	place->inside = place->next < place->n && place->pieces[place->next].at <= at;
	while (!place->inside && place->seen < at)
	{
		const char *here = place->sql + place->seen;
		int			length = 2;

		if (here[0] == '/' && here[1] == '*')
			place->comments++;
		else if (here[0] == '*' && here[1] == '/')
			place->comments--;
		else if (place->comments == 0 && here[0] == '-' && here[1] == '-')
			length = strcspn(here, "\r\n");
		else
			length = 1;
		place->seen += length;
	}
	place->inside |= place->comments > 0;
}

/* Does the line seem to begin that direction, with statements behind it? */
static bool
begins_direction(const char *sql, const Line *line, Place *place, bool down)
{
	const char *at = skip_blanks(line->start, line->end);
	Comment		comment;
	Likeness	like;

	if (!read_comment(line, &comment))
		return false;
	like = marks_direction(line, down) ? LIKE_MARK : likeness(&comment, down);
	if (like == LIKE_NONE)
		return false;
	move_place(place, at - sql);
	/* Play's marks have a number sign before them, so are part of a statement */
	if (*at == '#' ? !comment.sign : place->inside)
		return false;
	if (place->last < place->next || (like != LIKE_MARK && !place->before))
		return false;
	return like != LIKE_WORDS || !is_commented_out(*line);
}

void
mixed_check(const char *sql, const SqlPiece *pieces, int n, bool down_text)
{
	Place		place = first_place(sql, pieces, n);
	Line		line;

	read_line(&line, sql, 1);
	do
	{
		const char *at = skip_blanks(line.start, line.end);

		CHECK_FOR_INTERRUPTS();
		if (at == line.end || (*at != '-' && *at != '/' && *at != '#'))
			continue;
		at = skip_prefix(at, line.end, "--", false);
		if (at != NULL && skip_prefix(skip_blanks(at, line.end), line.end,
									  "liquibase formatted sql", true) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("line %d says that this is a changelog of Liquibase", line.number),
					 errdetail("Its changesets may be meant for other databases, and have their ways back in comments."),
					 errhint("Make a migration of each changeset, with its way back in a text of its own.")));
		if (begins_direction(sql, &line, &place, !down_text))
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 down_text ?
					 errmsg("the way there seems to begin in line %d of the way back", line.number) :
					 errmsg("the way back seems to begin in line %d", line.number),
					 errdetail("\"%.*s\" looks like %s, and has statements behind it, which would run together with those of the other direction.",
							   pg_mbcliplen(line.start, line.end - line.start, 60), line.start,
							   guess_tool(&line)),
					 errhint("Make two texts of it, up_sql and down_sql, or two files, 1_name.up.sql and 1_name.down.sql. If the line is an ordinary comment, word it otherwise.")));
	} while (next_line(&line));
}
