/*
 * digest.h
 *	  The normal form of a statement's text, and its hash.
 */
#ifndef DBPOOL_DIGEST_H
#define DBPOOL_DIGEST_H

#include "lib/stringinfo.h"

/* Texts are the same statement when all of it is the same. */
typedef struct Digest
{
	uint64		hash[2];
	uint32		len;			/* of the normal form, in bytes */
} Digest;

/* Bytes of a text that is shown are kept up to about so many. */
#define DIGEST_SHOWN	1024

extern void digest_text(const char *sql, Digest *digest, StringInfo shown);

#endif							/* DBPOOL_DIGEST_H */
