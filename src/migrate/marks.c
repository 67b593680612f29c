/*
 * marks.c
 *	  Texts that have both directions in them, parted by marks of a tool.
 *
 * Some tools keep the way there and the way back in one file:
 *
 *		-- migrate:up
 *		CREATE TABLE t (a int);
 *		-- migrate:down
 *		DROP TABLE t;
 *
 * Their marks are comments, so such a text taken as a whole would do everything
 * and undo it at once.  The files of six tools are understood; each reads its marks
 * line by line, whatever string or comment the line is in, and so does this file:
 *
 *	 goose			-- +goose Up			blanks before it, any case
 *	 dbmate			-- migrate:up			from the first column on; may be
 *											followed by transaction:false
 *	 sql-migrate	-- +migrate Up			likewise; notransaction
 *	 rambler		-- rambler up			from the first column on
 *	 tern			---- create above / drop below ----		anywhere
 *	 node-pg-migrate	-- Up Migration		blanks, dashes, any case; words may follow
 *
 * Other tools' are not, see mixed.c.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "migrate/line.h"
#include "lib/stringinfo.h"

/* --- the marks of each tool -------------------------------------------------------- */

typedef enum MarkKind
{
	MARK_NONE,
	MARK_UP,
	MARK_DOWN,
	MARK_NO_TRANSACTION,		/* of both directions */
	MARK_BEGIN_BLOCK,			/* statements that are sent as one */
	MARK_END_BLOCK,
	MARK_NEEDLESS,
	MARK_SUBSTITUTION,			/* of variables */
	MARK_UNKNOWN
} MarkKind;

/*
 * goose: a comment with "+goose" in it.  All double dashes are left out, and what
 * remains besides has to be one of its words.
 */
static MarkKind
read_goose(const Line *line, bool *no_transaction)
{
	static const struct
	{
		const char *words;
		MarkKind	kind;
	}			remarks[] = {
		{"up", MARK_UP},
		{"down", MARK_DOWN},
		{"no transaction", MARK_NO_TRANSACTION},
		{"statementbegin", MARK_BEGIN_BLOCK},
		{"statementend", MARK_END_BLOCK},
		{"envsub off", MARK_NEEDLESS},
		{"envsubst off", MARK_NEEDLESS},
		{"envsub on", MARK_SUBSTITUTION},
		{"envsubst on", MARK_SUBSTITUTION}
	};
	const char *at = skip_blanks(line->start, line->end);
	char		words[32];
	int			n = 0;
	bool		found = false;

	(void) no_transaction;
	if (skip_prefix(at, line->end, "--", false) == NULL ||
		find_words(at, line->end, "+goose", true) == NULL)
		return MARK_NONE;
	while (at < line->end && n < (int) sizeof(words) - 1)
	{
		const char *name = found ? NULL : skip_prefix(at, line->end, "+goose", true);

		if (name != NULL)
		{
			found = true;
			at = name;
		}
		else if (skip_prefix(at, line->end, "--", false) != NULL)
			at += 2;
		else if (!is_blank(*at))
			words[n++] = pg_ascii_tolower((unsigned char) *at++);
		else
		{
			at = skip_blanks(at, line->end);
			if (n > 0 && words[n - 1] != ' ')
				words[n++] = ' ';
		}
	}
	if (n > 0 && words[n - 1] == ' ')
		n--;
	words[n] = '\0';
	for (int i = 0; i < lengthof(remarks); i++)
	{
		if (at == line->end && strcmp(words, remarks[i].words) == 0)
			return remarks[i].kind;
	}
	return MARK_UNKNOWN;
}

static MarkKind
read_dbmate(const Line *line, bool *no_transaction)
{
	const char *at = skip_prefix(line->start, line->end, "--", false);
	const char *behind;
	MarkKind	kind = MARK_UP;

	if (at == NULL)
		return MARK_NONE;
	at = skip_blanks(at, line->end);
	behind = skip_prefix(at, line->end, "migrate:up", false);
	if (behind == NULL)
	{
		kind = MARK_DOWN;
		behind = skip_prefix(at, line->end, "migrate:down", false);
	}
	if (behind == NULL || (behind < line->end && !is_blank(*behind)))
		return MARK_NONE;
	*no_transaction = has_word(behind, line->end, "transaction:false");
	return kind;
}

static MarkKind
read_sql_migrate(const Line *line, bool *no_transaction)
{
	static const struct
	{
		const char *word;
		MarkKind	kind;
	}			commands[] = {
		{"Up", MARK_UP},
		{"Down", MARK_DOWN},
		{"StatementBegin", MARK_BEGIN_BLOCK},
		{"StatementEnd", MARK_END_BLOCK}
	};
	const char *at = skip_prefix(line->start, line->end, "-- +migrate ", false);

	if (at == NULL)
		return MARK_NONE;
	at = skip_blanks(at, line->end);
	for (int i = 0; i < lengthof(commands); i++)
	{
		const char *behind = skip_prefix(at, line->end, commands[i].word, false);

		if (behind != NULL && (behind == line->end || is_blank(*behind)))
		{
			*no_transaction = has_word(behind, line->end, "notransaction");
			return commands[i].kind;
		}
	}
	return MARK_UNKNOWN;
}

static MarkKind
read_rambler(const Line *line, bool *no_transaction)
{
	const char *at = skip_prefix(line->start, line->end, "-- rambler", false);
	const char *behind;

	(void) no_transaction;
	if (at == NULL)
		return MARK_NONE;
	at = skip_blanks(at, line->end);
	behind = skip_prefix(at, line->end, "up", false);
	if (behind != NULL && skip_blanks(behind, line->end) == line->end)
		return MARK_UP;
	behind = skip_prefix(at, line->end, "down", false);
	if (behind != NULL && skip_blanks(behind, line->end) == line->end)
		return MARK_DOWN;
	return MARK_UNKNOWN;
}

#define TERN_DOWN	"---- create above / drop below ----"

static MarkKind
read_tern(const Line *line, bool *no_transaction)
{
	const char *at;

	(void) no_transaction;
	if (find_words(line->start, line->end, TERN_DOWN, false) != NULL)
		return MARK_DOWN;
	at = skip_prefix(line->start, line->end, "---- tern: disable-tx ----", false);
	return at != NULL && skip_blanks(at, line->end) == line->end ? MARK_NO_TRANSACTION : MARK_NONE;
}

static MarkKind
read_node_pg_migrate(const Line *line, bool *no_transaction)
{
	const char *at = skip_prefix(skip_blanks(line->start, line->end), line->end, "--", false);
	const char *behind;
	MarkKind	kind = MARK_UP;

	(void) no_transaction;
	if (at == NULL)
		return MARK_NONE;
	while (at < line->end && (is_blank(*at) || *at == '-'))
		at++;
	behind = skip_prefix(at, line->end, "up", true);
	if (behind == NULL)
	{
		kind = MARK_DOWN;
		behind = skip_prefix(at, line->end, "down", true);
	}
	if (behind == NULL || behind == line->end || !is_blank(*behind))
		return MARK_NONE;
	behind = skip_prefix(skip_blanks(behind, line->end), line->end, "migration", true);
	return behind == NULL ? MARK_NONE : kind;
}

struct MarkTool
{
	const char *name;
	const char *up;				/* its marks, for messages */
	const char *down;
	MarkKind	(*read) (const Line *line, bool *no_transaction);
	bool		repeats;		/* there may be several sections */
	bool		skips;			/* what is before the first mark does not
								 * count */
	bool		strict;			/* its files cannot be without marks */
};

enum
{
	TOOL_GOOSE = 0,
	TOOL_DBMATE,
	TOOL_SQL_MIGRATE,
	TOOL_RAMBLER,
	TOOL_TERN,
	TOOL_NODE_PG_MIGRATE
};

static const MarkTool tools[] = {
	{"goose", "-- +goose Up", "-- +goose Down", read_goose, false, false, true},
	{"dbmate", "-- migrate:up", "-- migrate:down", read_dbmate, false, false, true},
	{"sql-migrate", "-- +migrate Up", "-- +migrate Down", read_sql_migrate, true, true, true},
	{"rambler", "-- rambler up", "-- rambler down", read_rambler, true, true, true},
	{"tern", "", TERN_DOWN, read_tern, false, false, false},
	{"node-pg-migrate", "-- Up Migration", "-- Down Migration", read_node_pg_migrate, false, true, false}
};

const char *
mark_tool_name(const MarkTool *tool)
{
	return tool->name;
}

const char *
mark_tool_up(const MarkTool *tool)
{
	return tool->up;
}

bool
mark_tool_is_strict(const MarkTool *tool)
{
	return tool->strict;
}

/* Whose mark is it?  NULL: nobody's. */
static const MarkTool *
tool_of_line(const Line *line, MarkKind *kind, bool *no_transaction)
{
	for (int i = 0; i < lengthof(tools); i++)
	{
		*no_transaction = false;
		*kind = tools[i].read(line, no_transaction);
		if (*kind != MARK_NONE)
			return &tools[i];
	}
	return NULL;
}

bool
marks_direction(const Line *line, bool down)
{
	MarkKind	kind;
	bool		no_transaction;
	const MarkTool *tool = tool_of_line(line, &kind, &no_transaction);

	return tool != NULL && tool != &tools[TOOL_NODE_PG_MIGRATE] &&
		kind == (down ? MARK_DOWN : MARK_UP);
}

MarkBlock
marks_block(const Line *line)
{
	bool		no_transaction;
	MarkKind	kind = read_goose(line, &no_transaction);

	if (kind == MARK_NONE)
		kind = read_sql_migrate(line, &no_transaction);
	return kind == MARK_BEGIN_BLOCK ? MARK_BLOCK_BEGIN :
		kind == MARK_END_BLOCK ? MARK_BLOCK_END : MARK_BLOCK_NONE;
}

/*
 * Which tool's file is it?  Words like node-pg-migrate's may be in anybody's
 * comments, so its files have to have both marks.
 */
const MarkTool *
marks_tool(const char *sql, int *number)
{
	const MarkTool *tool = NULL;
	bool		up = false;
	bool		down = false;
	Line		line;

	*number = 0;
	read_line(&line, sql, 1);
	do
	{
		MarkKind	kind;
		bool		no_transaction;
		const MarkTool *one = tool_of_line(&line, &kind, &no_transaction);

		if (one == NULL || (one == &tools[TOOL_RAMBLER] && kind == MARK_UNKNOWN))
			continue;
		if (one == &tools[TOOL_NODE_PG_MIGRATE])
		{
			up |= kind == MARK_UP;
			down |= kind == MARK_DOWN;
			continue;
		}
		if (tool == NULL)
			*number = line.number;
		else if (tool != one)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("marks of %s in line %d, and of %s in line %d", tool->name, *number,
							one->name, line.number),
					 errhint("Leave those of one of them.")));
		tool = one;
	} while (next_line(&line));
	return tool == NULL && up && down ? &tools[TOOL_NODE_PG_MIGRATE] : tool;
}

/* --- sections ---------------------------------------------------------------------- */

typedef struct Section
{
	const char *start;
	const char *end;
	const char *mark;			/* line that says no more than what it is */
	const char *mark_end;
	int			number;			/* of its first line */
} Section;

/* The sections of a direction. */
typedef struct Sections
{
	Section    *list;
	int			n;
	int			size;
	bool		no_transaction;
} Sections;

static void
__attribute__((noreturn))
refuse_marks(int number, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("%s in line %d", what, number),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

static Section *
add_section(Sections *sections, const char *start, const Line *mark)
{
	Section    *section;

	if (sections->n == sections->size)
	{
		sections->size = Max(sections->size * 2, 4);
		sections->list = sections->list == NULL ?
			palloc(sizeof(Section) * sections->size) :
			repalloc(sections->list, sizeof(Section) * sections->size);
	}
	section = &sections->list[sections->n++];
	section->start = start;
	section->end = NULL;
	section->mark = mark->start;
	section->mark_end = mark->end;
	section->number = mark->number;
	return section;
}

/*
 * One text of them, in which statements keep their lines.  Each section may end
 * without a semicolon.  NULL if there is none.
 */
static char *
join(const Sections *sections, bool reversed)
{
	StringInfoData text;
	int			number = 1;

	if (sections->n == 0)
		return NULL;
	initStringInfo(&text);
	for (int i = 0; i < sections->n; i++)
	{
		const Section *section = &sections->list[reversed ? sections->n - 1 - i : i];

		if (i > 0)
			appendStringInfoString(&text, reversed ? "\n;" : ";");
		for (; number < section->number && !(reversed && sections->n > 1); number++)
			appendStringInfoChar(&text, '\n');
		if (i == 0 && sections->no_transaction)
		{
			appendBinaryStringInfo(&text, section->start, section->mark - section->start);
			appendStringInfoString(&text, "-- no-transaction");
			appendBinaryStringInfo(&text, section->mark_end, section->end - section->mark_end);
		}
		else
			appendBinaryStringInfo(&text, section->start, section->end - section->start);
		for (const char *at = section->start; at < section->end; at++)
			number += *at == '\n';
	}
	return text.data;
}

/* A mark that begins a section. */
static Section *
begin_section(const MarkTool *tool, const char *sql, Sections *this, const Sections *other,
			  bool down, const Line *line)
{
	const char *name = down ? tool->down : tool->up;

	if (this->n > 0 && !tool->repeats)
		refuse_marks(line->number, psprintf("second \"%s\"", name),
					 tool == &tools[TOOL_DBMATE] ? "Make a file of its own for each pair." : NULL);
	if (down && other->n == 0 && !tool->skips)
		refuse_marks(line->number, psprintf("\"%s\" before \"%s\"", name, tool->up), NULL);
	if (!down && !tool->skips)
	{
		/* comments before it hold the places of their lines */
		Section    *section = add_section(this, sql, line);

		section->number = 1;
		return section;
	}
	return add_section(this, line->start, line);
}

/* tern's file has one mark, and what is above and below it. */
static void
read_tern_file(const char *sql, MarkedFile *file)
{
	const char *mark = strstr(sql, TERN_DOWN);
	Sections	up = {0};
	Sections	down = {0};
	Line		line;
	Section    *section;

	if (strstr(sql, "{{") != NULL)
	{
		int			number;
		int			column;

		split_position(sql, strstr(sql, "{{") - sql, &number, &column);
		refuse_marks(number, "template of tern", "Write into the file what tern would make of it.");
	}
	read_line(&line, sql, 1);
	section = add_section(&up, sql, &line);
	section->end = mark ? mark : sql + strlen(sql);
	do
	{
		bool		unused;

		if (mark != NULL && down.n == 0 && line.next > mark)
		{
			section = add_section(&down, mark + strlen(TERN_DOWN), &line);
			section->end = sql + strlen(sql);
		}
		else if (read_tern(&line, &unused) == MARK_NO_TRANSACTION)
		{
			section->mark = line.start;
			section->mark_end = line.end;
			*(down.n > 0 ? &down.no_transaction : &up.no_transaction) = true;
		}
	} while (next_line(&line));
	file->up_sql = join(&up, false);
	file->down_sql = join(&down, false);
	if ((up.no_transaction && !split_no_transaction(file->up_sql)) ||
		(down.no_transaction && !split_no_transaction(file->down_sql)))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("\"---- tern: disable-tx ----\" after a statement"),
				 errhint("Let it be the first line of its direction.")));
	/* nothing below the mark: no way back */
	if (file->down_sql != NULL && file->down_sql[strspn(file->down_sql, " \t\r\n\f\v")] == '\0')
		file->down_sql = NULL;
}

void
marks_read(const MarkTool *tool, const char *sql, MarkedFile *file)
{
	Sections	directions[2] = {{0}, {0}};
	Sections   *up = &directions[0];
	Sections   *down = &directions[1];
	Section    *current = NULL;
	Line		line;

	file->transaction = true;
	if (tool == &tools[TOOL_TERN])
	{
		read_tern_file(sql, file);
		return;
	}
	read_line(&line, sql, 1);
	do
	{
		bool		no_transaction = false;
		MarkKind	kind = tool->read(&line, &no_transaction);
		bool		is_down = kind == MARK_DOWN;

		switch (kind)
		{
			case MARK_NONE:
				if (current == NULL && !tool->skips && !is_void(&line))
					refuse_marks(line.number, psprintf("statement before \"%s\"", tool->up), NULL);
				break;
			case MARK_UP:
			case MARK_DOWN:
				if (current != NULL)
					current->end = line.start;
				current = begin_section(tool, sql, &directions[is_down], &directions[!is_down],
										is_down, &line);
				directions[is_down].no_transaction |= no_transaction;
				break;
			case MARK_NO_TRANSACTION:
				file->transaction = false;
				break;
			case MARK_BEGIN_BLOCK:
			case MARK_END_BLOCK:
				/* they stay in the text, see split.c */
			case MARK_NEEDLESS:
				break;
			case MARK_SUBSTITUTION:
				refuse_marks(line.number, "goose's substitution of environment variables",
							 "A migration has to be the same wherever it runs. Write the values into the file.");
			case MARK_UNKNOWN:
				refuse_marks(line.number, psprintf("unknown remark of %s", tool->name),
							 tool == &tools[TOOL_GOOSE] ?
							 "There are Up, Down, StatementBegin, StatementEnd and NO TRANSACTION." :
							 tool == &tools[TOOL_SQL_MIGRATE] ?
							 "There are Up, Down, StatementBegin and StatementEnd, in these letters." :
							 "There are \"-- rambler up\" and \"-- rambler down\".");
		}
	} while (next_line(&line));
	if (current != NULL)
		current->end = line.next;
	if (up->n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("\"%s\" is missing", tool->up)));
	file->up_sql = join(up, false);
	/* rambler undoes the last section first */
	file->down_sql = join(down, tool == &tools[TOOL_RAMBLER]);
}
