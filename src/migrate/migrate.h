/*
 * migrate.h
 *	  Bringing foreign databases to the wanted version of their schemas.
 *
 * The cast, in the order in which a run meets them:
 *
 *	 access.c	who may migrate, and the way to the tables
 *	 source.c	migrations as registered in this database
 *	 add.c		the functions that register them one by one
 *	 directory.c	the files of a directory of the server, by their names
 *	 load.c		the function that registers what is in them
 *	 file.c		the text of one of its files
 *	 marks.c	files that have both directions in them
 *	 mixed.c	texts that should have one, and seem to have both
 *	 split.c	the statements of a migration's text
 *	 checksum.c	what tells that a text is the same as another
 *	 remote.c	the connection: dedicated, synchronous, short-lived
 *	 history.c	the remote's history, in one of three formats
 *	 history_write.c	what is written to it
 *	 record.c	the local history, written by a process of its own
 *	 recorder.c	that process
 *	 plan.c		registered and applied, side by side
 *	 doubt.c	remotes that look as if they were new, and are not
 *	 session.c	connection, lock, and what the progress view shows
 *	 migrate.c	what is to be run
 *	 run.c		running it
 *	 run_statements.c	the statements of one migration
 *	 all.c		the same for many pools
 *	 mend.c		what people do when something has gone wrong
 */
#ifndef DBPOOL_MIGRATE_H
#define DBPOOL_MIGRATE_H

#include "backend/tables.h"
#include "backend/extension.h"
#include "migrate/remote.h"
#include "pq/session.h"
#include "backend/options.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* A registered migration; as in table dbpool_migrations. */
typedef struct Migration
{
	char	   *version;		/* see version.c */
	char	   *name;			/* "add_users" */
	char	   *up_sql;			/* in the database's encoding, as given */
	char	   *down_sql;		/* NULL if there is no way back */
	char	   *file;			/* name of the file it came from, or NULL */
	bool		transaction;	/* false: cannot run inside of one */
	bool		out_of_order;	/* may come after higher versions */
	char	   *added_by;		/* role; set by source_read(), source_put() */
} Migration;

/* --- version.c ---------------------------------------------------------- */

/* As wide as the column "name" of refinery's history. */
#define MAX_MIGRATION_NAME	255

/* SQL functions. */
extern Datum dbpool_migration_version_int8(PG_FUNCTION_ARGS);

extern char *version_canonical(const char *text, const char **why);
extern int	version_cmp(const char *a, const char *b);

/* Of the migration that runs again whenever its text changes. */
extern bool version_is_repeatable(const char *version);
extern char *version_of_repeatable(const char *name);

/* False if it is no whole number. */
extern bool version_to_number(const char *version, int64 *number);
extern char *version_of_number(int64 number);

/* As an argument of a function, for hints. */
extern char *version_literal(const char *version);
extern char *version_argument(FunctionCallInfo fcinfo, int n);

/* --- access.c ----------------------------------------------------------- */

/*
 * Throws unless the current role owns the pool's server, is a superuser, or has
 * EXECUTE on the function granted explicitly (that is, not through PUBLIC).
 * Returns the server.
 */
extern Oid	migrate_check_right(const char *pool, Oid function);

/* May the role register migrations of the server?  Not if there is none of the name. */
extern bool migrate_may_add(Oid serverid, const char *role);

/*
 * Throws when who registered it may not do that any more: the server may have
 * another owner since, whose rights on the remote are not his.
 */
extern void migrate_check_author(Oid serverid, const char *pool, const Migration *migration);

/* extension.c: the schema that it is in, or InvalidOid */

/* The schema of all tables and functions of the extension. */
extern Oid	migrate_schema(void);

/* Not so if the extension is not there, or about to be dropped. */
extern bool migrate_tables_exist(void);

/*
 * Condition on rows of table t: they are the server's, whose OID is $1.  Those that
 * another name is written in have come by pg_upgrade, with the OID that a server had
 * before.
 */
#define OF_SERVER(t) \
	t ".serverid OPERATOR(pg_catalog.=) $1 AND " t ".pool OPERATOR(pg_catalog.=) " \
	"(SELECT s.srvname FROM pg_catalog.pg_foreign_server s WHERE s.oid OPERATOR(pg_catalog.=) $1)"

/*
 * The same as tables_run(), writing rows as they are given, past the triggers that are
 * for rows from elsewhere.
 */
extern void tables_write(const char *sql, int nargs, Oid *types, Datum *values,
						 const char *nulls, int expected);

/* This process writes nothing but such rows. */
extern void tables_write_always(void);
extern bool tables_are_written(void);

/* --- source.c ----------------------------------------------------------- */

/*
 * The migrations of a pool in the order of their versions, in the current
 * memory context; their texts with them.
 */
extern Migration *source_read(Oid serverid, int *n);

/* Is the latest word of the local history that this version has been applied? */
extern bool source_is_applied(Oid serverid, const char *version);

/*
 * Throws when a migration cannot be registered for what it is, or its texts are
 * not such that they can be run.
 */
extern void source_check(const char *pool, const Migration *migration);

typedef enum SourceStatus
{
	SOURCE_ADDED,
	SOURCE_UNCHANGED,
	SOURCE_REPLACED,
	SOURCE_LINE_ENDS,			/* applied with other line ends: stays */
	SOURCE_WAY_BACK,			/* applied: the way back alone was replaced */
	SOURCE_KEPT,				/* applied, and differs: stays */
	SOURCE_OVERRIDDEN			/* applied, and was replaced all the same */
} SourceStatus;

/* What is to be done with one that has been applied, and is another one now. */
typedef enum SourceChange
{
	CHANGE_REFUSE,				/* throw */
	CHANGE_KEEP,				/* leave what is registered as it is */
	CHANGE_OVERRIDE				/* replace it, and note that in the history */
} SourceChange;

/*
 * Register a migration that was checked.  Of one that has been applied, the way
 * back may be another one now; for the rest, change says what is to be done.
 */
extern SourceStatus source_put(Oid serverid, const char *pool, const Migration *migration,
							   SourceChange change);

/* What differs between what is registered and this; empty if nothing does. */
extern char *source_differences(Oid serverid, const Migration *migration);

/* Says that what has been applied was replaced here alone. */
extern void source_note_override(const char *pool, const Migration *migration);

/* Says that it has been applied, and why that matters. */
extern void source_refuse_change(const char *pool, const Migration *migration,
								 const char *detail, const char *hint) __attribute__((noreturn));

/* Remove a registered one; throws when there is none, or it has been applied. */
extern void source_drop(Oid serverid, const char *pool, const char *version);

/* The local history forgets that anything of the pool has been applied. */
extern int	source_forget(Oid serverid, const char *pool);

/* Those that came from files, but for these versions; without their texts. */
extern Migration *source_from_files(Oid serverid, ArrayType *except, int *n);

/* The highest version of all pools between the two, or 0. */
extern int64 source_highest(int64 from, int64 to);

/* --- server.c ----------------------------------------------------------- */

extern void migrate_register(void);

/* --- split.c ------------------------------------------------------------ */

typedef enum SqlPieceKind
{
	PIECE_PLAIN,
	PIECE_BEGIN,				/* BEGIN, START TRANSACTION */
	PIECE_COMMIT,				/* COMMIT, END */
	PIECE_ROLLBACK,				/* ROLLBACK, ABORT, but not ROLLBACK TO */
	PIECE_OTHER_END				/* PREPARE TRANSACTION, COMMIT PREPARED, ... */
} SqlPieceKind;

/* A statement of a text: its first character is at "at", its semicolon not in. */
typedef struct SqlPiece
{
	int			at;				/* bytes from the start of the text */
	int			len;			/* bytes */
	int			line;			/* of the first character, from 1 */
	int			column;			/* likewise, in characters */
	SqlPieceKind kind;
	bool		bare;			/* BEGIN, COMMIT or ROLLBACK alone */
	bool		gap;			/* before it stands what is no SQL */
	int			block;			/* those of one number go together; 0: alone */
	bool		standard_strings;	/* how its strings were read */
	bool		backslash;		/* that made or could have made a difference */
	bool		may_set;		/* it may change that for those behind it */
	bool		broken;			/* the rest, which cannot be divided that way */
} SqlPiece;

/*
 * The statements of a text, as psql would divide them; empty ones are left out.
 * A text that ends within a string, a comment or the like throws, with line and
 * column.  *n is set; the array is in the current memory context.
 */
extern SqlPiece *split_sql(const char *sql, bool standard_conforming_strings, int *n);

/*
 * The same for what begins with a statement that was found with another setting,
 * or for all if that is NULL.  What cannot be divided does not throw if statements
 * before it may change the setting; it is the last piece then, and "broken".
 */
extern SqlPiece *split_rest(const char *sql, const SqlPiece *from,
							bool standard_conforming_strings, int *n);

/*
 * The same for a remote whose setting is not known: the SQL standard's way, unless
 * the text can be read in the other one only, which a notice says.
 */
extern SqlPiece *split_anyhow(const char *sql, int *n);

/*
 * Is there a comment "-- no-transaction" before the first statement, in a line of
 * its own?  As the very beginning of the text it may have words behind it.
 */
extern bool split_no_transaction(const char *sql);

/*
 * Are the first and the last one BEGIN and COMMIT, without further words?  They
 * are left out where the text runs in a transaction anyway.
 */
extern bool split_is_wrapped(const SqlPiece *pieces, int n);

/* Line and column, both from 1, of a byte of a text; column in characters. */
extern void split_position(const char *sql, int at, int *line, int *column);

/* --- file.c ------------------------------------------------------------- */

/*
 * The text of a file in the database's encoding, without a byte order mark.
 * Throws when it cannot be read, or is not valid UTF-8.  path is the system's
 * name of it.
 */
extern char *file_read(const char *path);

/* --- placeholder.c ------------------------------------------------------ */

extern void placeholders_check(Jsonb *values);
extern char *placeholders_replace(const char *sql, Jsonb *values);

/* --- marks.c ------------------------------------------------------------ */

/* A tool that has both directions in one file. */
typedef struct MarkTool MarkTool;

/* What such a file says. */
typedef struct MarkedFile
{
	char	   *up_sql;
	char	   *down_sql;		/* NULL if there is no way back */
	bool		transaction;	/* false: neither direction can run inside of
								 * one */
} MarkedFile;

/*
 * The tool whose marks a text has, or NULL; *number is the line of the first.
 * Throws when it has those of several.
 */
extern const MarkTool *marks_tool(const char *sql, int *number);

extern const char *mark_tool_name(const MarkTool *tool);
extern const char *mark_tool_up(const MarkTool *tool);

/* Would the tool take a file without marks for a mistake? */
extern bool mark_tool_is_strict(const MarkTool *tool);

/*
 * The sections of such a text, whose statements keep their lines.  Throws when the
 * marks are not as they should be.
 */
extern void marks_read(const MarkTool *tool, const char *sql, MarkedFile *file);

/* --- mixed.c ------------------------------------------------------------ */

/*
 * Throws when a text for one direction seems to have the other one in it, too.
 * down_text: it is for the way back.
 */
extern void mixed_check(const char *sql, const SqlPiece *pieces, int n, bool down_text);

/* --- checksum.c --------------------------------------------------------- */

/* All take a text in the database's encoding and look at it in UTF-8. */

/* "sha256:" and 64 hexadecimal digits. */
extern char *checksum_dbpool(const char *sql);

/* refinery's: decimal; wide: versions are int8, not int4. */
extern char *checksum_refinery(const char *name, int64 version, const char *sql, bool wide);

/* sqlx': SHA-384, 96 hexadecimal digits. */
extern char *checksum_sqlx(const char *sql);

/* The text with all line ends as LF, or as CRLF. */
extern char *checksum_line_ends(const char *sql, bool crlf);

/* sqlx' advisory lock for a database of that name (in UTF-8). */
extern int64 checksum_lock_key(const char *database);

/* --- history.c ---------------------------------------------------------- */

/* to_char()'s format for the times of RFC 3339, for the remote. */
#define RFC3339		"'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'"

/* The remote's history table. */
typedef struct History
{
	HistoryFormat format;
	Remote	   *remote;
	const char *schema;			/* the server's option, or NULL */
	char	   *table;			/* qualified and quoted; NULL: there is none
								 * yet */
	const char **undone;		/* versions that were rolled back */
	int			nundone;
	bool		wide;			/* refinery's: versions are int8 */
} History;

typedef enum Direction
{
	DIRECTION_UP = 0,
	DIRECTION_DOWN,
	DIRECTION_BASELINE,			/* was there before there was a history */
	DIRECTION_ADOPTED			/* another tool had run it */
} Direction;

extern const char *direction_name(Direction direction);

/* What the remote's history says of a version; the last of it. */
typedef struct Applied
{
	const char *version;
	char	   *name;
	char	   *checksum;		/* in its table's format, see
								 * checksum_matches() */
	char	   *applied_at;		/* as text; or NULL */
	char	   *applied_by;		/* or NULL */
	double		duration;		/* milliseconds; negative if not known */
	Direction	direction;
	bool		started;		/* and not known to have ended */
} Applied;

extern History *history_open(Remote *remote, HistoryFormat format, const char *schema);
extern const char *history_schemas(const History *history, bool all);
extern const char *history_table_name(const History *history);
extern void history_refuse_another(History *history);
extern void history_check_version(const History *history, const char *version);
extern Applied *history_read(History *history, int *n);
extern Applied *history_read_foreign(History *history, const char **table, int *n);
extern char *history_checksum(const History *history, const Migration *migration);
extern bool history_matches(const History *history, const char *checksum,
							const Migration *migration, bool *line_ends_only);

/*
 * history_write.c: statements that write, to be run by remote_exec(); started: not
 * yet done.
 */
extern void history_create(History *history, int64 max_version);
extern char *history_put_sql(const History *history, const Migration *migration,
							 Direction direction, double duration, bool started);
extern char *history_done_sql(const History *history, const Migration *migration,
							  Direction direction, double duration);
extern char *history_forget_sql(const History *history, const char *version);
extern char *history_mend_sql(const History *history, const Migration *migration);

/* --- record.c ----------------------------------------------------------- */

/* An attempt, for the local history. */
typedef struct Attempt
{
	const char *pool;
	const Migration *migration;
	Direction	direction;
	const char *mode;			/* "normal", "grouped", "fake", "dry run", ... */
	const char *checksum;
} Attempt;

extern bool record_is_open_ended(Oid serverid);
extern void record_open(Oid serverid, const char *pool, int patience);
extern void record_close(void);
extern int64 record_begin(const Attempt *attempt);
extern void record_end(int64 id, const char *status, double duration,
					   const char *sqlstate, const char *error);

/* --- plan.c ------------------------------------------------------------- */

typedef enum PlanStatus
{
	PLAN_APPLIED = 0,
	PLAN_PENDING,
	PLAN_MISSING,				/* applied, but not registered here */
	PLAN_DIVERGENT,				/* applied with another text */
	PLAN_OUT_OF_ORDER,			/* pending, with later ones applied */
	PLAN_FAILED					/* has started outside of a transaction */
} PlanStatus;

typedef struct MigrateItem
{
	const char *version;
	const char *name;
	const Migration *migration; /* NULL: not registered */
	const Applied *applied;		/* NULL: not applied, or covered by a baseline */
	PlanStatus	status;
	bool		line_ends_only; /* PLAN_DIVERGENT */
} MigrateItem;

/* Registered and applied, side by side, in the order of their versions. */
typedef struct MigratePlan
{
	const char *pool;
	MigrateItem *items;
	int			n;
	const char *current;		/* highest version applied but for repeatable
								 * ones, or NULL */
	const char *baseline;		/* or NULL */
} MigratePlan;

extern const char *plan_status_name(PlanStatus status);
extern MigratePlan *plan_make(const History *history, const Migration *migrations, int nmigrations,
							  const Applied *applied, int napplied);
extern void plan_check(const MigratePlan *plan, const History *history, bool allow_missing, bool allow_divergent);
extern char *plan_invalid_indexes(Remote *remote);

/* --- session.c ----------------------------------------------------------- */

/* A pool's remote, locked: what all functions that write to it begin with. */
typedef struct MigrateSession
{
	const char *pool;
	Oid			serverid;
	Remote	   *remote;
	History    *history;
	Migration  *migrations;
	int			nmigrations;
	Applied    *applied;
	int			napplied;
	MigratePlan *plan;
	int64		lock_key;
	int			lock_timeout;	/* milliseconds; negative: without the lock */
} MigrateSession;

extern void migrate_open(MigrateSession *session, const char *pool, Oid function,
						 int lock_timeout);
extern void migrate_reread(MigrateSession *session);
extern void migrate_create_history(MigrateSession *session);
extern void migrate_unlock(MigrateSession *session);
extern void migrate_close(MigrateSession *session);
extern void migrate_begin(MigrateSession *session, bool transaction);

extern void migrate_show_phase(const char *phase);
extern void migrate_show_progress(int done, int total);
extern void migrate_show_migration(const Migration *migration, Direction direction, int statements);
extern void migrate_show_statements(int done);

extern const char *migrate_pool_argument(FunctionCallInfo fcinfo);
extern int	migrate_lock_timeout(FunctionCallInfo fcinfo, int argument);

/* --- doubt.c ------------------------------------------------------------ */

extern void doubt_check(MigrateSession *session, int level, bool allow_missing, bool fake);

/* --- migrate.c ------------------------------------------------------------------ */

/* What a call asks for. */
typedef struct Wish
{
	Direction	direction;
	const char *target;			/* NULL: none */
	int			steps;			/* DIRECTION_DOWN without a target */
	bool		dry_run;
	bool		grouped;
	bool		fake;
	bool		allow_missing;
	bool		allow_divergent;
	int			lock_timeout;	/* milliseconds */
} Wish;

/* What came of it; kept up to date while it runs. */
typedef struct Outcome
{
	int			migrations;		/* that have ended well */
	const char *version;		/* the highest that is applied, or NULL */
	bool		touched;		/* the remote's schema may have changed */
	bool		remote_failed;	/* a statement of a migration has */
} Outcome;

extern const char *migrate_target(FunctionCallInfo fcinfo, int n);
extern void migrate_call(const char *pool, Oid function, const Wish *wish,
						 ReturnSetInfo *rsinfo, Outcome *outcome);

/* --- run.c --------------------------------------------------------------- */

extern void migrate_run(MigrateSession *session, const Wish *wish, const Migration **migrations,
						int n, ReturnSetInfo *rsinfo, Outcome *outcome);

#endif							/* DBPOOL_MIGRATE_H */
