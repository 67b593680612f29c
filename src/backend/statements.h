/*
 * statements.h
 *	  Which statement a call is, for its statistics.
 */
#ifndef DBPOOL_BACKEND_STATEMENTS_H
#define DBPOOL_BACKEND_STATEMENTS_H

#include "backend/client.h"
#include "ipc/statements.h"

extern StatementRef statement_of_call(const Call *call, const Definition *definition);
extern int64 statement_local_queryid(void);

#endif							/* DBPOOL_BACKEND_STATEMENTS_H */
