/*
 * report_plot.c
 *	  Plots of dbpool_report(): SVG within the page.
 *
 * A value is a level from the beginning to the end of what it is of, so that also a single
 * one can be seen; where there is none is a gap.
 */
#include "postgres.h"

#include <math.h>

#include "backend/report.h"

/* In the units of an SVG's viewBox. */
#define PLOT_WIDTH		320
#define PLOT_LEFT		40
#define PLOT_RIGHT		2
#define PLOT_TOP		5

/* Times between these, in milliseconds, are told apart: a microsecond and 2 h 47 min. */
#define LEAST_DECADE	(-3)
#define MOST_DECADE		7

/* A plot's value axis. */
typedef struct PlotScale
{
	double		low;			/* of a logarithmic one, the decade */
	double		high;
	bool		logarithmic;
	int			height;			/* of what is drawn on, in units */
} PlotScale;

static double
plot_value(const PlotPoint *point, size_t offset)
{
	double		value;

	memcpy(&value, (const char *) point + offset, sizeof(value));
	return value;
}

static double
plot_x(const Plot *plot, double at)
{
	double		length = Max(plot->until - plot->from, 1e-3);

	return PLOT_LEFT + (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT) * (at - plot->from) / length;
}

static double
plot_y(const PlotScale *scale, double value)
{
	double		level = scale->logarithmic ? log10(Max(value, 1e-9)) : value;
	double		part = (level - scale->low) / (scale->high - scale->low);

	return PLOT_TOP + scale->height * (1 - Max(Min(part, 1), 0));
}

static void
begin_plot(StringInfo page, const PlotScale *scale, const char *label)
{
	appendStringInfo(page, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">",
					 PLOT_WIDTH, scale->height + 2 * PLOT_TOP, label);
}

/* A line across the plot, and what it stands for. */
static void
rule_plot(StringInfo page, double y, const char *label)
{
	appendStringInfo(page, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\">%s</text>",
					 PLOT_LEFT, y, PLOT_WIDTH - PLOT_RIGHT, PLOT_LEFT - 4, y + 3, label);
}

static void
draw_line(StringInfo page, const Plot *plot, const PlotScale *scale, size_t offset, const char *name)
{
	double		drawn_until = NAN;

	appendStringInfo(page, "<path class=\"line %s\" d=\"", name);
	for (int i = 0; i < plot->n; i++)
	{
		const PlotPoint *point = &plot->points[i];
		double		value = plot_value(point, offset);

		if (isnan(value))
			continue;
		if (point->from == drawn_until)
			appendStringInfo(page, "V%.1f", plot_y(scale, value));
		else
			appendStringInfo(page, "M%.1f %.1f", plot_x(plot, point->from), plot_y(scale, value));
		appendStringInfo(page, "H%.1f", plot_x(plot, point->until));
		drawn_until = point->until;
	}
	appendStringInfoString(page, "\"/>");
}

static void
draw_area(StringInfo page, const Plot *plot, const PlotScale *scale, size_t offset, const char *name)
{
	double		bottom = PLOT_TOP + scale->height;

	appendStringInfo(page, "<path class=\"area %s\" d=\"", name);
	for (int i = 0; i < plot->n; i++)
	{
		const PlotPoint *point = &plot->points[i];
		double		value = plot_value(point, offset);

		if (isnan(value) || value <= 0)
			continue;
		appendStringInfo(page, "M%.1f %.1fV%.1fH%.1fV%.1fZ", plot_x(plot, point->from), bottom,
						 plot_y(scale, value), plot_x(plot, point->until), bottom);
	}
	appendStringInfoString(page, "\"/>");
}

/* The decades that have all of the times. */
static void
find_decades(const Plot *plot, PlotScale *scale)
{
	double		least = INFINITY;
	double		most = 0;

	for (int i = 0; i < plot->n; i++)
	{
		if (isnan(plot->points[i].p50))
			continue;
		least = Min(least, plot->points[i].p50);
		most = Max(most, plot->points[i].p99);
	}
	scale->low = floor(log10(Max(Min(least, 1e6), 1e-3)));
	scale->high = ceil(log10(Max(most, 1e-3)));
	scale->low = Max(Min(scale->low, MOST_DECADE - 1), LEAST_DECADE);
	scale->high = Max(Min(scale->high, MOST_DECADE), scale->low + 1);
}

/* p50, p95 and p99 of the times that calls took. */
void
plot_latencies(StringInfo page, const Plot *plot)
{
	static const char *const decades[MOST_DECADE - LEAST_DECADE + 1] = {
		"1 &#181;s", "10 &#181;s", "100 &#181;s", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s", "1000 s", "10 000 s"
	};
	PlotScale	scale = {.logarithmic = true,.height = 88};
	int			step;

	find_decades(plot, &scale);
	step = scale.high - scale.low > 5 ? 2 : 1;
	begin_plot(page, &scale, "times of calls: p50, p95 and p99, on a logarithmic scale");
	for (int decade = (int) scale.low; decade <= (int) scale.high; decade += step)
		rule_plot(page, PLOT_TOP + scale.height * (1 - (decade - scale.low) / (scale.high - scale.low)),
				  decades[decade - LEAST_DECADE]);
	draw_line(page, plot, &scale, offsetof(PlotPoint, p99), "p99");
	draw_line(page, plot, &scale, offsetof(PlotPoint, p95), "p95");
	draw_line(page, plot, &scale, offsetof(PlotPoint, p50), "p50");
	appendStringInfoString(page, "</svg>");
}

/* The next one of 1, 2, 5, 10, 20 and so on, or of their tenths. */
static double
round_up(double value)
{
	double		decade = pow(10, floor(log10(value)));
	double		first = value / decade;

	/* what is computed of 5 may be a bit more */
	return decade * (first <= 1 + 1e-9 ? 1 : first <= 2 + 1e-9 ? 2 : first <= 5 + 1e-9 ? 5 : 10);
}

/* How many calls there were per second, and how many failed. */
void
plot_calls(StringInfo page, const Plot *plot)
{
	PlotScale	scale = {.height = 44};
	double		most = 0.01;
	char		label[32];

	for (int i = 0; i < plot->n; i++)
		most = Max(most, plot->points[i].calls);
	scale.high = round_up(most);
	begin_plot(page, &scale, "calls per second, and how many of them failed");
	snprintf(label, sizeof(label), "%g/s", scale.high);
	rule_plot(page, PLOT_TOP, label);
	rule_plot(page, PLOT_TOP + scale.height, "0");
	draw_area(page, plot, &scale, offsetof(PlotPoint, calls), "calls");
	draw_area(page, plot, &scale, offsetof(PlotPoint, errors), "errors");
	appendStringInfoString(page, "</svg>");
}

/* How much of the pool was in use. */
void
plot_utilisation(StringInfo page, const Plot *plot)
{
	PlotScale	scale = {.high = 100,.height = 28};

	begin_plot(page, &scale, "connections in use, in percent of max_size");
	rule_plot(page, PLOT_TOP, "100 %");
	rule_plot(page, PLOT_TOP + scale.height, "0");
	draw_area(page, plot, &scale, offsetof(PlotPoint, utilisation), "used");
	appendStringInfoString(page, "</svg>");
}
