/*
 * metrics_lines.c
 *	  The lines of dbpool_metrics(): families, samples, labels.
 */
#include "postgres.h"

#include "backend/metrics.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Where the buckets that are shown end, about: microseconds. */
static const int bounds_us[] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 5000000, 30000000
};

void
metrics_family(Metrics *m, const char *family, MetricType type, const char *unit, const char *help)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	const char *total = type == METRIC_COUNTER && !m->strict ? "_total" : "";

	m->family = family;
	m->type = type;
	appendStringInfo(&m->text, "# HELP %s%s %s\n# TYPE %s%s %s\n", family, total, help, family, total, types[type]);
	if (unit != NULL)
		appendStringInfo(&m->text, "# UNIT %s%s %s\n", family, total, unit);
}

/*
 * A blank, a number, and the end of the line.  There are thousands of them: that is why they are not
 * left to printf().
 */
void
metrics_put_integer(Metrics *m, int64 value)
{
	char		digits[24];
	int			n;

	digits[0] = ' ';
	n = 1 + pg_lltoa(value, digits + 1);
	digits[n++] = '\n';
	appendBinaryStringInfo(&m->text, digits, n);
}

void
metrics_put_number(Metrics *m, double value)
{
	if (value == (double) (int64) value)
		metrics_put_integer(m, (int64) value);
	else
		appendStringInfo(&m->text, " %.6f\n", value);
}

/* A sample of the family at hand; labels may be empty. */
void
metrics_sample(Metrics *m, const char *labels, double value)
{
	appendStringInfoString(&m->text, m->family);
	if (m->type == METRIC_COUNTER)
		appendStringInfoString(&m->text, "_total");
	if (labels[0] != '\0')
	{
		appendStringInfoChar(&m->text, '{');
		appendStringInfoString(&m->text, labels);
		appendStringInfoChar(&m->text, '}');
	}
	metrics_put_number(m, value);
}

/*
 * The bytes of the character there, and whether it may be shown: a text of ours is to be UTF-8, to which
 * all but SQL_ASCII is converted for a client that wants that.
 */
static int
character(const char *value, bool *is_shown)
{
	int			length = 1;

	if (IS_HIGHBIT_SET(*value) && GetDatabaseEncoding() == PG_SQL_ASCII)
		length = pg_encoding_verifymbchar(PG_UTF8, value, (int) strlen(value));
	*is_shown = length > 0;
	return *is_shown ? length : 1;
}

/* A label's text, escaped, with its name; comma before it if it is not the first. */
void
metrics_label(StringInfo labels, const char *name, const char *value)
{
	int			length;

	appendStringInfo(labels, "%s%s=\"", labels->len > 0 ? "," : "", name);
	for (; *value != '\0'; value += length)
	{
		bool		is_shown;

		length = character(value, &is_shown);
		if (!is_shown)
			appendStringInfoChar(labels, '?');
		else if (*value == '\n')
			appendStringInfoString(labels, "\\n");
		else
		{
			if (*value == '"' || *value == '\\')
				appendStringInfoChar(labels, '\\');
			appendBinaryStringInfo(labels, value, length);
		}
	}
	appendStringInfoChar(labels, '"');
}

/* The labels, and one more, in memory that the next call reuses. */
const char *
metrics_with_label(const char *labels, const char *name, const char *value)
{
	static StringInfoData buf;

	if (buf.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&buf);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&buf);
	appendStringInfoString(&buf, labels);
	metrics_label(&buf, name, value);
	return buf.data;
}

/* The buckets' bounds as they are shown, the last one without end. */
static const char *const *
bound_texts(void)
{
	static char texts[lengthof(bounds_us) + 1][24];
	static const char *list[lengthof(bounds_us) + 1];

	for (int i = 0; list[lengthof(bounds_us)] == NULL && i <= lengthof(bounds_us); i++)
	{
		if (i < lengthof(bounds_us))
			snprintf(texts[i], sizeof(texts[i]), "%.6f\"}",
					 histogram_bound_us(histogram_bucket(bounds_us[i])) / 1e6);
		else
			strcpy(texts[i], "+Inf\"}");
		list[i] = texts[i];
	}
	return list;
}

/* The samples of a histogram; labels are not empty. */
void
metrics_histogram(Metrics *m, const char *labels, const HistogramSum *sum)
{
	const char *const *bounds = bound_texts();
	char	   *bucket = psprintf("%s_bucket{%s,le=\"", m->family, labels);
	int			length = (int) strlen(bucket);
	uint64		seen = 0;
	int			next = 0;

	for (int i = 0; i <= lengthof(bounds_us); i++)
	{
		int			last = i < lengthof(bounds_us) ? histogram_bucket(bounds_us[i]) : HISTOGRAM_BUCKETS - 1;

		while (next <= last)
			seen += sum->counts[next++];
		appendBinaryStringInfo(&m->text, bucket, length);
		appendStringInfoString(&m->text, bounds[i]);
		metrics_put_integer(m, (int64) seen);
	}
	pfree(bucket);
	appendStringInfo(&m->text, "%s_sum{%s}", m->family, labels);
	metrics_put_number(m, sum->sum_us / 1e6);
	appendStringInfo(&m->text, "%s_count{%s}", m->family, labels);
	metrics_put_integer(m, (int64) seen);
}
