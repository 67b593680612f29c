/*
 * view_row.h
 *	  A row of a view in the making, and who sees what in it.
 */
#ifndef DBPOOL_VIEW_ROW_H
#define DBPOOL_VIEW_ROW_H

#include "funcapi.h"

#include "clock.h"
#include "ipc/endpoint.h"
#include "ipc/shmem.h"

#define MAX_VIEW_COLUMNS	48

/* A row in the making: columns are put one after the other. */
typedef struct Row
{
	ReturnSetInfo *rsinfo;
	int			n;
	Datum		values[MAX_VIEW_COLUMNS];
	bool		nulls[MAX_VIEW_COLUMNS];
} Row;

extern Row	row_start(FunctionCallInfo fcinfo);
extern void row_put(Row *row, Datum value, bool isnull);
extern void row_put_int(Row *row, int value, bool isnull);
extern void row_put_count(Row *row, uint64 value);
extern void row_put_ms(Row *row, uint64 us);
extern void row_put_us(Row *row, double us);
extern void row_put_mean(Row *row, uint64 us, uint64 calls);
extern void row_put_latency(Row *row, const HistogramSum *sum);
extern void row_put_parts(Row *row, const TimeSplit *split);
extern void row_put_time(Row *row, Ticks moment);
extern void row_put_name(Row *row, const char *name, int encoding);
extern void row_put_text(Row *row, const char *text, int encoding);
extern void row_put_sql(Row *row, const char *sql, int encoding, Oid roleid);
extern void row_end(Row *row);

extern char *time_text(Ticks moment);
extern int	database_encoding(Oid dbid);
extern bool role_is_shown(Oid roleid);
extern bool pool_is_shown(const PoolKey *key);
extern bool pool_is_overseen(const PoolKey *key);
extern PoolShared *pools_copy(int *n);
extern int	pools_copy_locked(PoolShared *copies);

/* view_endpoints.c */
extern EndpointShared *endpoints_copy(int *n, bool **whole);

/* view_statistics.c */
extern PoolShared *pools_by_key(int *n);
extern Datum put_pools_by_key(FunctionCallInfo fcinfo, void (*put) (Row *row, const PoolShared *pools, int n));
extern void pools_sum_latency(const PoolShared *pools, int n, LatencyKind kind, HistogramSum *sum);
extern int	entries_of_pool(const PoolShared *pools, int n);
extern const PoolShared *latest_entry(const PoolShared *pools, int n);

#endif							/* DBPOOL_VIEW_ROW_H */
