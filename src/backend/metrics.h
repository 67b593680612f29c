/*
 * metrics.h
 *	  A text in OpenMetrics' format in the making.
 */
#ifndef DBPOOL_METRICS_H
#define DBPOOL_METRICS_H

#include "ipc/histogram.h"
#include "lib/stringinfo.h"

typedef enum MetricType
{
	METRIC_COUNTER = 0,
	METRIC_GAUGE,
	METRIC_HISTOGRAM
} MetricType;

/* A text in the making. */
typedef struct Metrics
{
	StringInfoData text;
	bool		strict;			/* a counter's family has no "_total" */
	const char *family;
	MetricType	type;
} Metrics;

extern void metrics_family(Metrics *m, const char *family, MetricType type, const char *unit, const char *help);
extern void metrics_sample(Metrics *m, const char *labels, double value);
extern void metrics_put_integer(Metrics *m, int64 value);
extern void metrics_put_number(Metrics *m, double value);
extern void metrics_label(StringInfo labels, const char *name, const char *value);
extern const char *metrics_with_label(const char *labels, const char *name, const char *value);
extern void metrics_histogram(Metrics *m, const char *labels, const HistogramSum *sum);

/* metrics_endpoints.c */
extern void metrics_endpoints(Metrics *m);

#endif							/* DBPOOL_METRICS_H */
