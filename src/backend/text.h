/*
 * text.h
 *	  Text that may be in another encoding than this database's.
 */
#ifndef DBPOOL_TEXT_H
#define DBPOOL_TEXT_H

#include "dbpool.h"

extern char *text_from(const char *text, int encoding);
extern const char *text_skip_comment(const char *at);
extern void text_clip(char *to, const char *from, Size size);

#endif							/* DBPOOL_TEXT_H */
