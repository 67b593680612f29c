/*
 * metrics_endpoints.c
 *	  What dbpool_metrics() tells of endpoints.
 */
#include "postgres.h"

#include "backend/metrics.h"
#include "backend/text.h"
#include "backend/view_row.h"
#include "mb/pg_wchar.h"

/* An endpoint, and the labels that tell which it is. */
typedef struct MetricEndpoint
{
	const EndpointShared *shared;
	bool		whole;			/* the caller may see all that goes on there */
	char	   *labels;
} MetricEndpoint;

static int
compare_endpoints(const void *a, const void *b)
{
	return strcmp(((const MetricEndpoint *) a)->labels, ((const MetricEndpoint *) b)->labels);
}

/*
 * Those that the caller may see, and their number.  No sample may come twice, though names of hosts
 * that are different may look alike in this database's encoding.
 */
static MetricEndpoint *
metric_endpoints(int *n)
{
	int			ncopies;
	bool	   *whole;
	EndpointShared *copies = endpoints_copy(&ncopies, &whole);
	MetricEndpoint *endpoints = palloc(sizeof(MetricEndpoint) * Max(ncopies, 1));

	for (int i = 0; i < ncopies; i++)
	{
		StringInfoData labels;

		initStringInfo(&labels);
		metrics_label(&labels, "host", text_from(copies[i].host, PG_SQL_ASCII));
		metrics_label(&labels, "port", text_from(copies[i].port, PG_SQL_ASCII));
		endpoints[i].shared = &copies[i];
		endpoints[i].whole = whole[i];
		endpoints[i].labels = labels.data;
	}
	qsort(endpoints, ncopies, sizeof(MetricEndpoint), compare_endpoints);
	*n = 0;
	for (int i = 0; i < ncopies; i++)
	{
		if (*n == 0 || compare_endpoints(&endpoints[i], &endpoints[*n - 1]) != 0)
			endpoints[(*n)++] = endpoints[i];
	}
	return endpoints;
}

static void
put_histograms_of(Metrics *m, const MetricEndpoint *endpoints, int n)
{
	metrics_family(m, "dbpool_endpoint_duration_seconds", METRIC_HISTOGRAM, "seconds",
				   "How long what pools do at an endpoint took: queue, login, execution, network, total.");
	for (int i = 0; i < n * LATENCY_KINDS; i++)
	{
		const MetricEndpoint *endpoint = &endpoints[i / LATENCY_KINDS];
		LatencyKind kind = (LatencyKind) (i % LATENCY_KINDS);
		HistogramSum sum;

		if (endpoint->whole && endpoint_sum_latency(endpoint->shared, kind, &sum))
			metrics_histogram(m, metrics_with_label(endpoint->labels, "part", latency_name(kind)), &sum);
	}
}

/* All about endpoints that the caller may know. */
void
metrics_endpoints(Metrics *m)
{
	static const EndpointState states[] = {ENDPOINT_CLOSED, ENDPOINT_HALF_OPEN, ENDPOINT_OPEN};
	int			n;
	MetricEndpoint *endpoints = metric_endpoints(&n);

	metrics_family(m, "dbpool_endpoint_breaker", METRIC_GAUGE, NULL, "1 for the state in which the circuit breaker of an endpoint is.");
	for (int i = 0; i < n; i++)
	{
		for (int s = 0; s < lengthof(states); s++)
			metrics_sample(m, metrics_with_label(endpoints[i].labels, "state", endpoint_state_name(states[s])),
						   endpoints[i].shared->state == states[s]);
	}
	metrics_family(m, "dbpool_endpoint_connections", METRIC_GAUGE, NULL, "Connections of all pools to an endpoint.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, endpoints[i].labels, endpoints[i].shared->conns);
	metrics_family(m, "dbpool_endpoint_login_failures", METRIC_COUNTER, NULL, "Log-ins at an endpoint that were not answered, or by a server that says it is unwell.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, endpoints[i].labels, (double) endpoints[i].shared->logins_failed);
	metrics_family(m, "dbpool_endpoint_losses", METRIC_COUNTER, NULL, "Open connections to an endpoint that were lost through the server.");
	for (int i = 0; i < n; i++)
		metrics_sample(m, endpoints[i].labels, (double) endpoints[i].shared->losses);
	put_histograms_of(m, endpoints, n);
}
