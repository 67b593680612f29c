/*
 * extension.h
 *	  The extension in this database.
 */
#ifndef DBPOOL_EXTENSION_H
#define DBPOOL_EXTENSION_H

#include "dbpool.h"

extern Oid	extension_schema(void);

#endif							/* DBPOOL_EXTENSION_H */
