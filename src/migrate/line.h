/*
 * line.h
 *	  A text line by line, as the tools look at their files of migrations.
 */
#ifndef DBPOOL_MIGRATE_LINE_H
#define DBPOOL_MIGRATE_LINE_H

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A line of a text, its line end not in. */
typedef struct Line
{
	const char *start;
	const char *end;
	const char *next;			/* the next line, or the text's end */
	int			number;			/* from 1 */
} Line;

static inline void
read_line(Line *line, const char *at, int number)
{
	const char *newline = strchr(at, '\n');

	line->start = at;
	line->end = newline ? newline : at + strlen(at);
	line->next = newline ? newline + 1 : line->end;
	line->number = number;
	if (line->end > at && line->end[-1] == '\r')
		line->end--;
}

/* Move to the next line; false if there is none. */
static inline bool
next_line(Line *line)
{
	if (*line->next == '\0')
		return false;
	read_line(line, line->next, line->number + 1);
	return true;
}

static inline bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r';
}

static inline const char *
skip_blanks(const char *at, const char *end)
{
	while (at < end && is_blank(*at))
		at++;
	return at;
}

/* Behind that prefix, which has no capital letters if case is ignored; or NULL. */
static inline const char *
skip_prefix(const char *at, const char *end, const char *prefix, bool ignore_case)
{
	for (; *prefix != '\0'; at++, prefix++)
	{
		if (at == end)
			return NULL;
		if (*at != *prefix &&
			(!ignore_case || pg_ascii_tolower((unsigned char) *at) != (unsigned char) *prefix))
			return NULL;
	}
	return at;
}

/* The first place of those words in the line, or NULL. */
static inline const char *
find_words(const char *at, const char *end, const char *words, bool ignore_case)
{
	for (; at < end; at++)
	{
		if (skip_prefix(at, end, words, ignore_case) != NULL)
			return at;
	}
	return NULL;
}

/* Is one of the words, parted by blanks, this one? */
static inline bool
has_word(const char *at, const char *end, const char *word)
{
	while ((at = skip_blanks(at, end)) < end)
	{
		const char *behind = skip_prefix(at, end, word, false);

		if (behind != NULL && (behind == end || is_blank(*behind)))
			return true;
		while (at < end && !is_blank(*at))
			at++;
	}
	return false;
}

/* Only blanks, or a comment? */
static inline bool
is_void(const Line *line)
{
	const char *at = skip_blanks(line->start, line->end);

	return at == line->end || skip_prefix(at, line->end, "--", false) != NULL;
}

/*
 * Is it a mark of that direction to a tool whose files are understood?  (Words like
 * node-pg-migrate's may be anybody's.)  In marks.c.
 */
extern bool marks_direction(const Line *line, bool down);

/* Does it begin or end statements that goose and sql-migrate send as one? */
typedef enum MarkBlock
{
	MARK_BLOCK_NONE,
	MARK_BLOCK_BEGIN,
	MARK_BLOCK_END
} MarkBlock;

extern MarkBlock marks_block(const Line *line);

#endif							/* DBPOOL_MIGRATE_LINE_H */
