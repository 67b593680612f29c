/*
 * report.h
 *	  What the files of dbpool_report() share.
 */
#ifndef DBPOOL_REPORT_H
#define DBPOOL_REPORT_H

#include "dbpool.h"
#include "lib/stringinfo.h"

/* What a page has at most.  With all of it, it stays below a megabyte. */
#define REPORT_ALERTS		50
#define REPORT_POOLS		50
#define REPORT_PLOTS		24
#define REPORT_ENDPOINTS	50
#define REPORT_STATEMENTS	25

/* Characters of a text. */
#define REPORT_QUERY		300
#define REPORT_MESSAGE		300
#define REPORT_NAME			64

/* What a pool did from one moment to another: seconds, and times in milliseconds. */
typedef struct PlotPoint
{
	double		from;
	double		until;
	double		calls;			/* per second */
	double		errors;			/* of these */
	double		p50;			/* NAN without calls */
	double		p95;
	double		p99;
	double		utilisation;	/* percent */
} PlotPoint;

/* Points in their order, and from when to when the plot shows. */
typedef struct Plot
{
	const PlotPoint *points;
	int			n;
	double		from;
	double		until;
} Plot;

/* report_style.c */
extern const char *const report_style;

/* report_plot.c */
extern void plot_latencies(StringInfo page, const Plot *plot);
extern void plot_calls(StringInfo page, const Plot *plot);
extern void plot_utilisation(StringInfo page, const Plot *plot);

#endif							/* DBPOOL_REPORT_H */
