/*
 * binary.h
 *	  Which types have a binary form that both ends surely share.
 *
 * Their receive and send functions do the same in all versions of PostgreSQL
 * that have integer datetimes, and under all settings.  (The encoding is the
 * one exception: what holds text is in that of the connection.)  A form that
 * some version reads in another way is none of them; text tells of the
 * difference, by an error.
 */
#ifndef DBPOOL_BINARY_H
#define DBPOOL_BINARY_H

#include "dbpool.h"

extern Oid	binary_type(Oid type);

/*
 * Does a value of the one end's type, in binary, mean to the other end's type
 * what its text would?
 */
static inline bool
binary_types_agree(Oid here, Oid there)
{
	return OidIsValid(binary_type(here)) && binary_type(here) == binary_type(there);
}

#endif							/* DBPOOL_BINARY_H */
