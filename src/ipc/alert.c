/*
 * alert.c
 *	  Alerts: their names, their beginnings and ends; see alert.h.
 *
 * Nothing here waits, allocates or throws.
 */
#include "postgres.h"

#include <math.h>

#include "ipc/alert.h"
#include "ipc/news.h"

typedef struct AlertWords
{
	const char *name;
	const char *severity;
} AlertWords;

static const AlertWords words[ALERT_KINDS] = {
	[ALERT_UTILISATION] = {"utilisation", "warning"},
	[ALERT_WAIT] = {"wait", "warning"},
	[ALERT_ERRORS] = {"errors", "warning"},
	[ALERT_TIMEOUTS] = {"timeouts", "critical"},
	[ALERT_UNREACHABLE] = {"unreachable", "critical"},
	[ALERT_LEASE_HELD] = {"lease_held", "warning"},
	[ALERT_DEGRADED] = {"degraded", "warning"},
	[ALERT_FALLBACK] = {"fallback", "warning"},
	[ALERT_REQUESTS] = {"requests", "warning"},
	[ALERT_CONNECTIONS] = {"connections", "warning"},
	[ALERT_POOLS] = {"pools", "warning"},
	[ALERT_WORKER_DOWN] = {"worker_down", "critical"},
	[ALERT_WORKER_RESTARTED] = {"worker_restarted", "warning"},
};

/* As views and news have it; stable. */
const char *
alert_name(AlertKind kind)
{
	return words[kind].name;
}

const char *
alert_severity(AlertKind kind)
{
	return words[kind].severity;
}

/*
 * Write down what was found: something is wrong if the value is more than the threshold.
 * NAN is no value, and a threshold of INFINITY none.  The caller holds what protects it.
 */
AlertChange
alert_note(AlertShared *alert, double value, double threshold, Ticks now)
{
	if (value > threshold)
	{
		AlertChange change = alert->since == 0 ? ALERT_BEGINS : ALERT_GOES_ON;

		if (change == ALERT_BEGINS)
			alert->since = now;
		alert->seen = now;
		alert->value = value;
		alert->threshold = threshold;
		return change;
	}
	if (alert->since == 0 || now < ticks_plus_ms(alert->seen, ALERT_CALM_MS))
		return ALERT_GOES_ON;
	alert->since = 0;
	return ALERT_ENDS;
}

/* News of an alert; pool and user may be NULL. */
void
alert_tell(Oid dbid, const char *name, const char *severity, AlertChange change,
		   const char *pool, const char *user, double value, double threshold)
{
	char		text[NEWS_BYTES];

	if (change == ALERT_GOES_ON)
		return;
	news_begin(text, "alert");
	news_put(text, "alert", name);
	news_put(text, "state", change == ALERT_BEGINS ? "begins" : "ends");
	news_put(text, "severity", severity);
	if (pool != NULL)
		news_put(text, "pool", pool);
	if (user != NULL)
		news_put(text, "user", user);
	news_put_number(text, "value", value);
	news_put_number(text, "threshold", threshold);
	news_post(dbid, text);
}
