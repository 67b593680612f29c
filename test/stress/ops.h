/*
 * ops.h
 *	  What a session may do, as ops.c chooses it and the other ops_*.c make it.
 */
#ifndef STRESS_OPS_H
#define STRESS_OPS_H

#include "stress.h"

/* ops.c */
extern char *print(Op *op, const char *format,...) __attribute__((format(printf, 2, 3)));
extern char *repeat(Op *op, const char *what, int times);
extern char *tag(Op *op);
extern char *number(Op *op, int n);
extern void param(Op *op, const char *value);
extern void cell(Op *op, const char *value);
extern void expect_error(Op *op, const char *state, const char *message);
extern void is_slow(Op *op);
extern void is_delicate(Op *op);
extern void set_sql(Op *op, const char *sql);
extern char *placeholders(Op *op);
extern void as_query(Op *op, const char *columns, const char *sql);
extern void as_exec(Op *op, int affected, const char *sql);
extern char *some_text(Op *op);
extern const char *some_state(void);
extern double moody_sleep(Op *op, int n);

/* ops_read.c */
extern void make_echo(Op *op);
extern void make_lookup(Op *op);
extern void make_shifting(Op *op);
extern void make_nothing(Op *op);
extern void make_row(Op *op);
extern void make_json(Op *op);
extern void make_series(Op *op);
extern void make_long_series(Op *op);
extern void make_big_value(Op *op);
extern void make_big_param(Op *op);
extern void make_sleep(Op *op);
extern void make_moody(Op *op);
extern void make_moody_rows(Op *op);
extern void make_lateral(Op *op);
extern void make_notice(Op *op);
extern void make_ping(Op *op);
extern void make_probe(Op *op);
extern void make_leftover(Op *op);
extern void make_left_setting(Op *op);
extern void make_left_lock(Op *op);
extern void make_deallocate(Op *op);
extern void make_zero(Op *op);
extern void make_zero_midway(Op *op);
extern void make_bad_cast(Op *op);
extern void make_raise(Op *op);
extern void make_syntax(Op *op);
extern void make_bad_value(Op *op);
extern void make_bad_shape(Op *op);
extern void make_copy(Op *op);

/* ops_write.c */
extern void write_params(Op *op, int rows);

/* Row number "part" of a write, given those parameters. */
#define ROW(part) \
	"$1::int, $2::int, " part ", repeat($3 || " part " || ';', $4::int)"
#define INSERT	"INSERT INTO stress_log (session, serial, part, payload) "

extern void make_insert(Op *op);
extern void make_insert_exec(Op *op);
extern void make_insert_many(Op *op);
extern void make_insert_with(Op *op);
extern void make_hot(Op *op);
extern void make_moody_insert(Op *op);
extern void make_slow_insert(Op *op);
extern void make_slow_commit(Op *op);
extern void make_failing_commit(Op *op);
extern void make_script(Op *op);
extern void make_early_commit(Op *op);
extern void make_failing_script(Op *op);
extern void make_insert_zero(Op *op);
extern void make_insert_twice(Op *op);
extern void make_insert_raise(Op *op);
extern void make_insert_bad_value(Op *op);

/* ops_transaction.c */
extern void make_bound(Op *op);
extern void make_named(Op *op);
extern void make_two_phase(Op *op);
extern void make_batch(Op *op);
extern void make_independent(Op *op);
extern void make_exec_batch(Op *op);

#endif							/* STRESS_OPS_H */
