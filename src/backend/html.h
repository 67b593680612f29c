/*
 * html.h
 *	  Pieces of an HTML page, in ASCII, that is well-formed XML as well.
 */
#ifndef DBPOOL_HTML_H
#define DBPOOL_HTML_H

#include "dbpool.h"
#include "lib/stringinfo.h"

extern void html_text(StringInfo page, const char *text, int most_chars);
extern void html_number(StringInfo page, double value, int decimals);
extern void html_cell(StringInfo page, double value, int decimals);

#endif							/* DBPOOL_HTML_H */
