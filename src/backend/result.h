/*
 * result.h
 *	  The rows of an answer on their way: result_shape.c has what they look
 *	  like, result.c makes values of them and hands those on.
 */
#ifndef DBPOOL_RESULT_H
#define DBPOOL_RESULT_H

#include "access/tupdesc.h"
#include "backend/client.h"
#include "funcapi.h"
#include "utils/tuplestore.h"

/* What the bytes of a value are. */
typedef enum ColumnForm
{
	FORM_TEXT,					/* what the input function takes */
	FORM_JSONB,					/* a version, and then likewise */
	FORM_BINARY					/* what the receive function takes */
} ColumnForm;

/* A column of the remote's result, and how to make a value of it. */
typedef struct Column
{
	ColumnForm	form;
	int			att;			/* index in desc */
	Oid			type;
	int32		typmod;
	const char *type_name;		/* for errors */
	Oid			ioparam;
	FmgrInfo	input;			/* or its receive function */
} Column;

typedef struct ResultSink
{
	AnswerSink	sink;			/* must be first */
	const Call *call;
	FunctionCallInfo fcinfo;
	ResultForm	form;
	TupleDesc	desc;			/* of a row; NULL until it is known */
	bool		declared;		/* by the caller, not the remote */
	Oid			domain;			/* over the row's composite type, or 0 */
	Tuplestorestate *store;		/* not for RESULT_VALUE */
	TupleDesc	store_desc;
	bool		scalar;			/* a row is one value of no composite type */
	Datum		value;			/* of RESULT_VALUE, NULL without a row */
	bool		isnull;
	bool		binary;			/* format of the values */
	bool		unsure;			/* they have a type whose form is not certain */
	Column	   *columns;
	int			ncolumns;
	Datum	   *values;
	bool	   *nulls;
	FmgrInfo	to_jsonb;
	StringInfo	json;			/* rows of RESULT_JSON go here, if not NULL,
								 * and not into a store */
	MemoryContext context;		/* of all this: the caller's */
	MemoryContext row_context;	/* of the row in hand */
	int			modes;			/* see modes_enter() */
	uint64		row;			/* number of the row in hand, from 1 */
	int			column;			/* the one in hand, or -1 */
} ResultSink;

extern void result_start_array(ResultSink *sink, const Call *call, StringInfo json, int modes);
extern void result_expect(ResultSink *sink, Call *call);
extern int	result_take_shape(ResultSink *sink, MessageReader *body);
extern void result_check_same_shape(ResultSink *sink);

#endif							/* DBPOOL_RESULT_H */
