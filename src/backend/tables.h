/*
 * tables.h
 *	  The way to dbpool's own tables, to which no role has a right.
 */
#ifndef DBPOOL_TABLES_H
#define DBPOOL_TABLES_H

#include "dbpool.h"
#include "utils/relcache.h"

typedef struct Tables
{
	Oid			userid;
	int			security;
	int			guc_level;
} Tables;

extern Relation tables_open(Oid schema, const char *name, int columns, int lockmode);
extern const char *tables_begin(Tables *tables, const char *name);
extern void tables_end(const Tables *tables);
extern void tables_run(const char *sql, int nargs, Oid *types, Datum *values,
					   const char *nulls, int expected);

#endif							/* DBPOOL_TABLES_H */
