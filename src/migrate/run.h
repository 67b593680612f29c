/*
 * run.h
 *	  A run of migrations, as run.c has its transactions and run_statements.c
 *	  the statements in them.
 */
#ifndef DBPOOL_MIGRATE_RUN_H
#define DBPOOL_MIGRATE_RUN_H

#include "migrate/migrate.h"
#include "portability/instr_time.h"

typedef struct Runner
{
	RemoteWatcher watcher;
	MigrateSession *session;
	MemoryContext context;		/* of the call */
	ReturnSetInfo *rsinfo;
	Direction	direction;
	bool		dry_run;
	bool		grouped;
	bool		fake;
	int			total;			/* migrations */
	const Migration *left_out;	/* by a dry run, the last one; or NULL */
	Outcome    *outcome;

	/* The migration that runs, for messages. */
	const Migration *migration; /* NULL: none */
	const char *sql;
	SqlPiece   *pieces;
	int			npieces;
	int			first;			/* first statement of the portion under way */
	int			last;			/* and the last */
	int			failed;			/* the one that failed, or -1 */
} Runner;

static inline double
elapsed_ms(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/* run_statements.c */
extern const RemoteWatcher run_watcher;

extern void run_load_text(Runner *run, const Migration *migration);
extern void run_forget_text(Runner *run);
extern void run_statements(Runner *run);
extern void run_statements_alone(Runner *run);

#endif							/* DBPOOL_MIGRATE_RUN_H */
