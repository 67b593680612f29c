/*
 * report.c
 *	  dbpool_report(): a page of HTML about all that the caller may see.
 *
 * The page is made of the views, so that it shows what those show to its caller, and is whole by
 * itself: no script, and nothing that is fetched.  What comes from elsewhere goes through
 * html_text(); what else there is are texts of this file, and numbers.
 */
#include "postgres.h"

#include <math.h>

#include "backend/client.h"
#include "backend/extension.h"
#include "backend/html.h"
#include "backend/report.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "ipc/samples.h"
#include "ipc/shmem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(dbpool_report);

/* Parts of a mean, in the order of the queries' columns. */
#define SPLIT_PARTS		5
static const char *const split_names[SPLIT_PARTS] = {"queue", "worker", "wire", "remote", "decode"};

/* --- rows of a query -------------------------------------------------------------------------- */

/*
 * Run a query in which @ is the schema of the views.  It is qualified throughout: the caller
 * may be a superuser, and his search_path somebody else's.
 */
static int
run_query(const char *sql)
{
	const char *schema = quote_identifier(get_namespace_name(extension_schema()));
	StringInfoData query;

	initStringInfo(&query);
	for (const char *at = sql; *at != '\0'; at++)
	{
		if (*at == '@')
			appendStringInfoString(&query, schema);
		else
			appendStringInfoChar(&query, *at);
	}
	if (SPI_execute(query.data, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query.data);
	return (int) SPI_processed;
}

/* A column of a row, counted from 1; NULL if it is. */
static const char *
field_text(int row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/* One that is a double precision; NAN if it is NULL. */
static double
field_number(int row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == FLOAT8OID);
	return isnull ? NAN : DatumGetFloat8(value);
}

/* --- pieces ----------------------------------------------------------------------------------- */

static void
open_section(StringInfo page, const char *id, const char *heading)
{
	appendStringInfo(page, "<h2 id=\"%s\">%s</h2>\n", id, heading);
}

/* There are more rows than are shown. */
static void
say_more(StringInfo page, int n, int most, const char *view)
{
	if (n > most)
		appendStringInfo(page, "<p class=\"m\">These are the first %d; <code>%s</code> has them all.</p>\n", most, view);
}

static void
name_cell(StringInfo page, int row, int column)
{
	appendStringInfoString(page, "<td>");
	html_text(page, field_text(row, column), REPORT_NAME);
	appendStringInfoString(page, "</td>");
}

/* A pool's database and the role of its mapping, in small. */
static void
put_owner(StringInfo page, const char *database, const char *user)
{
	appendStringInfoString(page, " <span class=\"m\">");
	html_text(page, database, REPORT_NAME);
	appendStringInfoString(page, " &#183; ");
	html_text(page, user, REPORT_NAME);
	appendStringInfoString(page, "</span>");
}

/* How a mean is made up: the columns from the first on are its parts. */
static void
put_split_bar(StringInfo page, int row, int first)
{
	double		sum = 0;

	for (int i = 0; i < SPLIT_PARTS; i++)
		sum += isnan(field_number(row, first + i)) ? 0 : field_number(row, first + i);
	if (sum <= 0)
		return;
	appendStringInfoString(page, "<div class=\"bar\">");
	for (int i = 0; i < SPLIT_PARTS; i++)
	{
		double		part = field_number(row, first + i);

		if (part > 0)
			appendStringInfo(page, "<i class=\"%s\" style=\"width:%.1f%%\"></i>", split_names[i], 100 * part / sum);
	}
	appendStringInfoString(page, "</div>");
}

static void
put_split_key(StringInfo page)
{
	static const char *const meanings[SPLIT_PARTS] = {
		"queue: waiting for a connection", "worker: dbpool and this machine", "wire: on the way",
		"remote: at work there", "decode: making values here"
	};

	appendStringInfoString(page, "<p class=\"m key\">");
	for (int i = 0; i < SPLIT_PARTS; i++)
		appendStringInfo(page, "<span><i class=\"%s\"></i>%s</span> ", split_names[i], meanings[i]);
	appendStringInfoString(page, "</p>\n");
}

/* --- the head of the page --------------------------------------------------------------------- */

static void
put_fact(StringInfo page, const char *name, double value, double most)
{
	appendStringInfo(page, "<div><dt>%s</dt><dd>", name);
	html_number(page, value, 0);
	appendStringInfoString(page, " <span class=\"m\">of ");
	html_number(page, most, 0);
	appendStringInfoString(page, "</span></dd></div>");
}

static void
put_head(StringInfo page)
{
	(void) run_query("SELECT pg_catalog.current_database(), CURRENT_USER, pg_catalog.current_setting('cluster_name'), "
					 "pg_catalog.current_setting('server_version'), pg_catalog.current_setting('TimeZone'), "
					 "pg_catalog.to_char(pg_catalog.clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS'), "
					 "pg_catalog.to_char(pg_catalog.clock_timestamp(), 'TZH:TZM'), "
					 "pg_catalog.to_char(pg_catalog.pg_postmaster_start_time(), 'YYYY-MM-DD HH24:MI'), "
					 "w.up, c.n, r.n FROM "
					 "(SELECT pg_catalog.count(pid)::pg_catalog.float8 AS up FROM @.dbpool_workers) w, "
					 "(SELECT pg_catalog.count(*)::pg_catalog.float8 AS n FROM @.dbpool_connections) c, "
					 "(SELECT pg_catalog.count(*)::pg_catalog.float8 AS n FROM @.dbpool_requests) r");
	appendStringInfoString(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
						   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
						   "<meta name=\"color-scheme\" content=\"light dark\"/><title>dbpool: ");
	html_text(page, field_text(0, 1), REPORT_NAME);
	appendStringInfoString(page, ", ");
	html_text(page, field_text(0, 6), REPORT_NAME);
	appendStringInfo(page, "</title><style>%s</style></head>\n<body><header><h1>dbpool report</h1>\n<p class=\"m\">Database ", report_style);
	html_text(page, field_text(0, 1), REPORT_NAME);
	if (field_text(0, 3)[0] != '\0')
	{
		appendStringInfoString(page, " of ");
		html_text(page, field_text(0, 3), REPORT_NAME);
	}
	appendStringInfoString(page, ", as ");
	html_text(page, field_text(0, 2), REPORT_NAME);
	appendStringInfoString(page, " may see it at ");
	html_text(page, field_text(0, 6), REPORT_NAME);
	appendStringInfoString(page, ". Times are of time zone ");
	html_text(page, field_text(0, 5), REPORT_NAME);
	appendStringInfoString(page, ", UTC");
	html_text(page, field_text(0, 7), REPORT_NAME);
	appendStringInfoString(page, ".<br/>dbpool " DBPOOL_VERSION ", PostgreSQL ");
	html_text(page, field_text(0, 4), REPORT_NAME);
	appendStringInfoString(page, ", started ");
	html_text(page, field_text(0, 8), REPORT_NAME);
	appendStringInfoString(page, ".</p>\n<dl>");
	put_fact(page, "Connections", field_number(0, 10), dbpool_shared->nconns);
	put_fact(page, "Statements under way", field_number(0, 11), dbpool_shared->nrequests);
	put_fact(page, "Workers that run", field_number(0, 9), dbpool_shared->nworkers);
	appendStringInfoString(page, "</dl></header>\n");
}

/* --- alerts ----------------------------------------------------------------------------------- */

static void
put_one_alert(StringInfo page, int row)
{
	bool		critical = strcmp(field_text(row, 1), "critical") == 0;

	appendStringInfo(page, "<div class=\"alert%s\"><h3><span class=\"%s\">", critical ? " critical" : "", critical ? "bad" : "warn");
	html_text(page, field_text(row, 1), REPORT_NAME);
	appendStringInfoString(page, "</span> ");
	html_text(page, field_text(row, 2), REPORT_NAME);
	if (field_text(row, 3) != NULL)
	{
		appendStringInfoString(page, ": ");
		html_text(page, field_text(row, 3), REPORT_NAME);
		put_owner(page, field_text(row, 4), field_text(row, 5));
	}
	if (field_text(row, 6) != NULL)
	{
		appendStringInfoString(page, ": ");
		html_text(page, field_text(row, 6), REPORT_MESSAGE);
	}
	if (field_text(row, 7) != NULL)
	{
		appendStringInfoString(page, " <span class=\"m\">since ");
		html_text(page, field_text(row, 7), REPORT_NAME);
		appendStringInfoString(page, "</span>");
	}
	appendStringInfoString(page, "</h3><p>");
	html_text(page, field_text(row, 8), REPORT_MESSAGE);
	appendStringInfoString(page, "</p><p class=\"m\">");
	html_text(page, field_text(row, 9), REPORT_MESSAGE);
	appendStringInfoString(page, "</p></div>\n");
}

static void
put_alert_section(StringInfo page)
{
	int			n = run_query("SELECT severity, alert, pool, database, user_name, endpoint, "
							  "pg_catalog.to_char(since, 'YYYY-MM-DD HH24:MI:SS'), problem, advice "
							  "FROM @.dbpool_alerts ORDER BY severity, since, alert, pool, database, user_name LIMIT 51");

	StaticAssertStmt(REPORT_ALERTS == 50, "the query asks for one more");
	open_section(page, "alerts", "What is wrong");
	if (n == 0)
		appendStringInfoString(page, "<p class=\"good\">Nothing.</p>\n");
	for (int i = 0; i < Min(n, REPORT_ALERTS); i++)
		put_one_alert(page, i);
	say_more(page, n, REPORT_ALERTS, "dbpool_alerts");
}

/* --- pools ------------------------------------------------------------------------------------ */

static void
put_pool_row(StringInfo page, int row)
{
	const char *state = field_text(row, 4);
	double		utilisation = field_number(row, 9);

	appendStringInfoString(page, "<tr><td class=\"w\"><b>");
	html_text(page, field_text(row, 1), REPORT_NAME);
	appendStringInfoString(page, "</b>");
	put_owner(page, field_text(row, 2), field_text(row, 3));
	appendStringInfo(page, "</td><td class=\"%s\">", strcmp(state, "active") == 0 ? "good" : strcmp(state, "cold") == 0 ? "m" : "warn");
	html_text(page, state, REPORT_NAME);
	if (field_text(row, 21) != NULL)
		appendStringInfoString(page, "<br/><span class=\"warn\">degraded</span>");
	appendStringInfoString(page, "</td>");
	for (int column = 5; column <= 8; column++)
		html_cell(page, field_number(row, column), 0);
	appendStringInfoString(page, "<td class=\"n\">");
	html_number(page, utilisation, 0);
	if (!isnan(utilisation))
		appendStringInfo(page, " %%<div class=\"bar\"><i class=\"use%s\" style=\"width:%.1f%%\"></i></div>",
						 utilisation > 90 ? " full" : "", utilisation);
	appendStringInfoString(page, "</td>");
	for (int column = 10; column <= 11; column++)
		html_cell(page, field_number(row, column), field_number(row, column) < 100 ? 1 : 0);
	for (int column = 12; column <= 14; column++)
		html_cell(page, field_number(row, column), 2);
	appendStringInfoString(page, "<td class=\"n\">");
	html_number(page, field_number(row, 15), 2);
	put_split_bar(page, row, 16);
	appendStringInfoString(page, "</td></tr>\n");
}

static void
put_pools(StringInfo page)
{
	int			n = run_query("SELECT p.pool, p.database, p.user_name, p.state, "
							  "(p.busy OPERATOR(pg_catalog.+) p.leased OPERATOR(pg_catalog.+) p.checking "
							  "OPERATOR(pg_catalog.+) p.cancelling OPERATOR(pg_catalog.+) p.resetting)::pg_catalog.float8, "
							  "(p.busy OPERATOR(pg_catalog.+) p.leased OPERATOR(pg_catalog.+) p.checking "
							  "OPERATOR(pg_catalog.+) p.cancelling OPERATOR(pg_catalog.+) p.resetting "
							  "OPERATOR(pg_catalog.+) p.idle)::pg_catalog.float8, "
							  "p.max_size::pg_catalog.float8, p.waiting::pg_catalog.float8, "
							  "s.utilisation OPERATOR(pg_catalog.*) 100::pg_catalog.float8, "
							  "s.statements_per_second OPERATOR(pg_catalog.+) s.errors_per_second AS calls, s.errors_per_second, "
							  "s.p50, s.p95, s.p99, s.total_mean, s.queue_mean, s.worker_mean, s.wire_mean, s.remote_mean, s.decode_mean, "
							  "p.degraded_since "
							  "FROM @.dbpool_pools p LEFT JOIN @.dbpool_stat_pools s "
							  "ON s.pool OPERATOR(pg_catalog.=) p.pool AND s.database OPERATOR(pg_catalog.=) p.database "
							  "AND s.user_name OPERATOR(pg_catalog.=) p.user_name "
							  "WHERE p.waiting IS NOT NULL "
							  "ORDER BY p.waiting DESC, calls DESC NULLS LAST, s.statements DESC NULLS LAST, p.pool, p.database, p.user_name LIMIT 51");

	StaticAssertStmt(REPORT_POOLS == 50, "the query asks for one more");
	open_section(page, "pools", "Pools");
	if (n == 0)
	{
		appendStringInfoString(page, "<p class=\"m\">There is none that this role may see.</p>\n");
		return;
	}
	appendStringInfoString(page, "<div class=\"box\"><table><thead><tr><th rowspan=\"2\">Pool</th><th rowspan=\"2\">State</th>"
						   "<th colspan=\"4\">Connections, and calls that wait</th><th colspan=\"3\">Last minute</th>"
						   "<th colspan=\"4\">Calls since the statistics began, ms</th></tr>\n"
						   "<tr><th class=\"n\">in use</th><th class=\"n\">open</th><th class=\"n\">most</th><th class=\"n\">waiting</th>"
						   "<th class=\"n\">in use</th><th class=\"n\">calls/s</th><th class=\"n\">errors/s</th>"
						   "<th class=\"n\">p50</th><th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">mean, and its parts</th></tr></thead>\n<tbody>");
	for (int i = 0; i < Min(n, REPORT_POOLS); i++)
		put_pool_row(page, i);
	appendStringInfoString(page, "</tbody></table></div>\n");
	put_split_key(page);
	say_more(page, n, REPORT_POOLS, "dbpool_pools");
}

/* --- the last hour ---------------------------------------------------------------------------- */

/* The rows of a pool, from that one on, as points; how many they are. */
static int
read_points(int row, int n, PlotPoint *points)
{
	const double place = field_number(row, 14);
	int			count = 0;

	for (; row + count < n && count < SAMPLES && field_number(row + count, 14) == place; count++)
	{
		PlotPoint  *point = &points[count];
		int			at = row + count;
		double		length;

		point->from = field_number(at, 4);
		point->until = field_number(at, 5);
		length = Max(point->until - point->from, 1e-3);
		point->calls = field_number(at, 6) / length;
		point->errors = field_number(at, 7) / length;
		point->p50 = field_number(at, 8);
		point->p95 = field_number(at, 9);
		point->p99 = field_number(at, 10);
		point->utilisation = field_number(at, 11);
	}
	return count;
}

static void
put_plots_of_pool(StringInfo page, int row, const Plot *plot)
{
	double		errors = field_number(row, 13);

	appendStringInfoString(page, "<section><h3>");
	html_text(page, field_text(row, 1), REPORT_NAME);
	put_owner(page, field_text(row, 2), field_text(row, 3));
	appendStringInfoString(page, "</h3><p class=\"m\">");
	html_number(page, field_number(row, 12), 0);
	appendStringInfo(page, " calls, %s", errors > 0 ? "<span class=\"bad\">" : "");
	html_number(page, errors, 0);
	appendStringInfo(page, " of them failed%s</p>\n", errors > 0 ? "</span>" : "");
	plot_latencies(page, plot);
	plot_calls(page, plot);
	plot_utilisation(page, plot);
	appendStringInfoString(page, "<p class=\"axis\"><span>");
	html_text(page, field_text(row, 17), REPORT_NAME);
	appendStringInfoString(page, "</span><span>");
	html_text(page, field_text(row, 18), REPORT_NAME);
	appendStringInfoString(page, "</span></p></section>\n");
}

static void
put_plot_key(StringInfo page)
{
	appendStringInfo(page, "<p class=\"m key\"><span>From top to bottom, for every %g s:</span> <span>times of calls, "
					 "<i class=\"k99\"></i>p99 <i class=\"k95\"></i>p95 <i class=\"k50\"></i>p50;</span> "
					 "<span><i class=\"kcalls\"></i>calls per second,</span> <span><i class=\"kerrors\"></i>of these failed;</span> "
					 "<span><i class=\"kcalls\"></i>connections in use</span></p>\n<div class=\"plots\">\n", dbpool_history_interval / 1000.0);
}

static void
put_history(StringInfo page)
{
	int			n = run_query("SELECT pool, database, user_name, began, ended, calls, errors, p50, p95, p99, "
							  "utilisation OPERATOR(pg_catalog.*) 100::pg_catalog.float8, total, failed, place::pg_catalog.float8, "
							  "first, last, pg_catalog.to_char(pg_catalog.to_timestamp(first), 'HH24:MI:SS'), "
							  "pg_catalog.to_char(pg_catalog.to_timestamp(last), 'HH24:MI:SS') "
							  "FROM (SELECT h.*, pg_catalog.dense_rank() OVER (ORDER BY total DESC, pool, database, user_name) AS place "
							  "FROM (SELECT pool, database, user_name, EXTRACT(epoch FROM began_at)::pg_catalog.float8 AS began, "
							  "EXTRACT(epoch FROM ended_at)::pg_catalog.float8 AS ended, "
							  "calls::pg_catalog.float8, errors::pg_catalog.float8, p50, p95, p99, utilisation, "
							  "pg_catalog.sum(calls) OVER of_pool::pg_catalog.float8 AS total, pg_catalog.sum(errors) OVER of_pool::pg_catalog.float8 AS failed, "
							  "EXTRACT(epoch FROM pg_catalog.min(began_at) OVER ())::pg_catalog.float8 AS first, "
							  "EXTRACT(epoch FROM pg_catalog.max(ended_at) OVER ())::pg_catalog.float8 AS last "
							  "FROM @.dbpool_stat_history WINDOW of_pool AS (PARTITION BY pool, database, user_name)) h "
							  "WHERE total OPERATOR(pg_catalog.>) 0::pg_catalog.float8) r "
							  "WHERE place OPERATOR(pg_catalog.<=) 25::pg_catalog.int8 ORDER BY place, began");
	PlotPoint	points[SAMPLES];
	int			plots = 0;

	StaticAssertStmt(REPORT_PLOTS == 24, "the query asks for one more");
	open_section(page, "history", dbpool_history_interval == 60000 ? "The last hour" : "Of late");
	if (n == 0)
	{
		appendStringInfo(page, "<p class=\"m\">No calls so far. There is something to see when %g s are over in which there were some.</p>\n",
						 dbpool_history_interval / 1000.0);
		return;
	}
	put_plot_key(page);
	for (int i = 0, same; i < n; i += same, plots++)
	{
		Plot		plot = {points, 0, field_number(i, 15), field_number(i, 16)};

		plot.n = same = read_points(i, n, points);
		if (plots < REPORT_PLOTS)
			put_plots_of_pool(page, i, &plot);
	}
	appendStringInfoString(page, "</div>\n");
	say_more(page, plots, REPORT_PLOTS, "dbpool_stat_history");
}

/* --- endpoints -------------------------------------------------------------------------------- */

static void
put_endpoint_row(StringInfo page, int row)
{
	const char *state = field_text(row, 4);

	appendStringInfoString(page, "<tr><td class=\"w\"><b>");
	html_text(page, field_text(row, 1), REPORT_NAME);
	appendStringInfoString(page, "</b> <span class=\"m\">");
	html_text(page, field_text(row, 2), REPORT_NAME);
	appendStringInfoString(page, "</span></td>");
	name_cell(page, row, 3);
	appendStringInfo(page, "<td class=\"%s\">", strcmp(state, "closed") == 0 ? "good" : strcmp(state, "open") == 0 ? "bad" : "warn");
	html_text(page, state, REPORT_NAME);
	if (field_text(row, 5) != NULL)
	{
		appendStringInfoString(page, "<br/><span class=\"m\">tried again at ");
		html_text(page, field_text(row, 5), REPORT_NAME);
		appendStringInfoString(page, "</span>");
	}
	appendStringInfoString(page, "</td>");
	for (int column = 6; column <= 10; column++)
		html_cell(page, field_number(row, column), 0);
	html_cell(page, field_number(row, 11), 1);
	appendStringInfoString(page, "<td class=\"t\">");
	if (field_text(row, 13) != NULL)
	{
		appendStringInfoString(page, "<span class=\"m\">");
		html_text(page, field_text(row, 12), REPORT_NAME);
		appendStringInfoString(page, "</span> ");
		html_text(page, field_text(row, 13), REPORT_MESSAGE);
	}
	appendStringInfoString(page, "</td></tr>\n");
}

static void
put_endpoint_section(StringInfo page)
{
	int			n = run_query("SELECT host, port, role, state, pg_catalog.to_char(next_probe, 'HH24:MI:SS'), "
							  "connections::pg_catalog.float8, failures_in_row::pg_catalog.float8, logins::pg_catalog.float8, "
							  "login_failures::pg_catalog.float8, losses::pg_catalog.float8, lag_ms, "
							  "pg_catalog.to_char(failed_at, 'YYYY-MM-DD HH24:MI:SS'), error "
							  "FROM @.dbpool_endpoints ORDER BY state DESC, connections DESC, host, port LIMIT 51");

	StaticAssertStmt(REPORT_ENDPOINTS == 50, "the query asks for one more");
	open_section(page, "endpoints", "Endpoints");
	if (n == 0)
	{
		appendStringInfoString(page, "<p class=\"m\">No pool in use that this role may see leads anywhere.</p>\n");
		return;
	}
	appendStringInfoString(page, "<div class=\"box\"><table><thead><tr><th>Host and port</th><th>Role</th><th>Breaker</th>"
						   "<th class=\"n\">connections</th><th class=\"n\">failures in a row</th><th class=\"n\">log-ins</th>"
						   "<th class=\"n\">failed</th><th class=\"n\">lost</th><th class=\"n\">lag, ms</th><th>Last failure</th></tr></thead>\n<tbody>");
	for (int i = 0; i < Min(n, REPORT_ENDPOINTS); i++)
		put_endpoint_row(page, i);
	appendStringInfoString(page, "</tbody></table></div>\n");
	say_more(page, n, REPORT_ENDPOINTS, "dbpool_endpoints");
}

/* --- statements ------------------------------------------------------------------------------- */

static void
put_worst_statement(StringInfo page, int row)
{
	appendStringInfoString(page, "<tr><td class=\"q\"><code>");
	html_text(page, field_text(row, 1), REPORT_QUERY);
	appendStringInfoString(page, "</code><br/><b>");
	html_text(page, field_text(row, 2), REPORT_NAME);
	appendStringInfoString(page, "</b>");
	put_owner(page, field_text(row, 3), field_text(row, 4));
	put_split_bar(page, row, 13);
	appendStringInfoString(page, "</td>");
	html_cell(page, field_number(row, 5), 1);
	html_cell(page, field_number(row, 6), 1);
	for (int column = 7; column <= 8; column++)
		html_cell(page, field_number(row, column), 0);
	for (int column = 9; column <= 17; column++)
		html_cell(page, field_number(row, column), 2);
	appendStringInfoString(page, "</tr>\n");
}

static void
put_statement_section(StringInfo page)
{
	int			n = run_query("SELECT query, pool, database, user_name, total OPERATOR(pg_catalog./) 1000::pg_catalog.float8, "
							  "CASE WHEN pg_catalog.sum(total) OVER () OPERATOR(pg_catalog.>) 0::pg_catalog.float8 "
							  "THEN 100::pg_catalog.float8 OPERATOR(pg_catalog.*) total OPERATOR(pg_catalog./) pg_catalog.sum(total) OVER () END, "
							  "calls::pg_catalog.float8, errors::pg_catalog.float8, mean, p95, p99, max, "
							  "queue_mean, worker_mean, wire_mean, remote_mean, decode_mean "
							  "FROM (SELECT *, mean OPERATOR(pg_catalog.*) calls::pg_catalog.float8 AS total FROM @.dbpool_stat_statements) s "
							  "ORDER BY total DESC NULLS LAST, digest, pool, database, user_name LIMIT 26");

	StaticAssertStmt(REPORT_STATEMENTS == 25, "the query asks for one more");
	open_section(page, "statements", "Statements that take most of the time");
	if (n == 0)
	{
		appendStringInfoString(page, "<p class=\"m\">None are known.</p>\n");
		return;
	}
	appendStringInfoString(page, "<div class=\"box\"><table><thead><tr><th rowspan=\"2\">Statement, and where its time goes</th>"
						   "<th colspan=\"4\">All calls</th><th colspan=\"4\">A call, ms</th><th colspan=\"5\">Parts of the mean, ms</th></tr>\n"
						   "<tr><th class=\"n\">time, s</th><th class=\"n\">% of all</th><th class=\"n\">calls</th><th class=\"n\">errors</th>"
						   "<th class=\"n\">mean</th><th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">longest</th>"
						   "<th class=\"n\">queue</th><th class=\"n\">worker</th><th class=\"n\">wire</th><th class=\"n\">remote</th><th class=\"n\">decode</th></tr></thead>\n<tbody>");
	for (int i = 0; i < Min(n, REPORT_STATEMENTS); i++)
		put_worst_statement(page, i);
	appendStringInfoString(page, "</tbody></table></div>\n");
	put_split_key(page);
	say_more(page, n, REPORT_STATEMENTS, "dbpool_stat_statements");
}

/* dbpool_report() */
Datum
dbpool_report(PG_FUNCTION_ARGS)
{
	StringInfoData page;

	client_require_preload();
	initStringInfo(&page);
	SPI_connect();
	put_head(&page);
	put_alert_section(&page);
	put_pools(&page);
	put_history(&page);
	put_endpoint_section(&page);
	put_statement_section(&page);
	SPI_finish();
	appendStringInfoString(&page, "<footer><p>Made by <code>SELECT dbpool_report()</code> of the views "
						   "<code>dbpool_alerts</code>, <code>dbpool_pools</code>, <code>dbpool_stat_pools</code>, <code>dbpool_stat_history</code>, "
						   "<code>dbpool_endpoints</code> and <code>dbpool_stat_statements</code>, as they were then.</p></footer>\n</body></html>\n");
	PG_RETURN_TEXT_P(cstring_to_text_with_len(page.data, page.len));
}
