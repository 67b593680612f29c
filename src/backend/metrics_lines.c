/*
 * metrics_lines.c
 *	  The lines of dbpool_metrics(): families, samples, labels.
 */
#include "postgres.h"

#include "backend/metrics.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

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

	*is_shown = true;
	if (IS_HIGHBIT_SET(*value) && GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		length = pg_utf_mblen((const unsigned char *) value);
		*is_shown = length <= (int) strnlen(value, length) && pg_utf8_islegal((const unsigned char *) value, length);
	}
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
