/*
 * error_fields.h
 *	  Errors and notices of a remote as the ErrorFields of ipc/message.h.
 */
#ifndef DBPOOL_ERROR_FIELDS_H
#define DBPOOL_ERROR_FIELDS_H

#include "dbpool.h"
#include "lib/stringinfo.h"
#include "pq/wire.h"

struct pg_result;

extern void error_field_put(StringInfo out, char field, const char *str, int encoding);
extern void error_fields_put_seen(StringInfo out, const WireMessage *message, int encoding);
extern void error_fields_put(StringInfo out, const struct pg_result *res, int encoding);

#endif							/* DBPOOL_ERROR_FIELDS_H */
