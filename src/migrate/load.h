/*
 * load.h
 *	  Migrations from a directory, as directory.c finds them and load.c
 *	  registers them.
 */
#ifndef DBPOOL_MIGRATE_LOAD_H
#define DBPOOL_MIGRATE_LOAD_H

#include "migrate/migrate.h"

/* In the order in which files of one version are sorted. */
typedef enum FilePart
{
	PART_V,						/* V1__, V1.2__, and R__ */
	PART_U,						/* U1__ */
	PART_UP,					/* .up.sql */
	PART_SIMPLE,				/* 1_name.sql */
	PART_DOWN					/* .down.sql */
} FilePart;

typedef struct SourceFile
{
	char	   *path;			/* the system's, as are its bytes */
	char	   *shown;			/* name in the directory, in the database's
								 * encoding */
	FilePart	part;
	char	   *version;
	char	   *name;			/* of the migration */
} SourceFile;

/* One call. */
typedef struct Load
{
	SourceChange change;		/* of those that have been applied */
	const char *pool;
	Oid			serverid;
	Jsonb	   *placeholders;	/* or NULL: the files have none */
	const char *directory;
	SourceFile *files;
	int			n;
	int			size;
	HistoryFormat format;		/* of the pool's history */
	bool		undoes;			/* files U are Flyway's */
	const SourceFile *marked;	/* one with a tool's marks, and one without */
	const SourceFile *plain;
	const MarkTool *tool;		/* of the first one with marks */
	const SourceFile *current;	/* for errors */
} Load;

/* directory.c */
extern void directory_list(Load *load);
extern void directory_refuse_file(const Load *load, const char *shown, const char *reason,
								  const char *hint) __attribute__((noreturn));
extern void directory_refuse_pair(const Load *load, const SourceFile *a, const SourceFile *b, int code,
								  const char *what, const char *hint) __attribute__((noreturn));

#endif							/* DBPOOL_MIGRATE_LOAD_H */
