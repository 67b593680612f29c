/*
 * params.c
 *	  The parameters of a call as text, and the settings under which text means
 *	  the same at both ends.
 */
#include "postgres.h"

#include "access/transam.h"
#include "backend/client.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/xml.h"

/* May a value of that type hold money, whose text depends on lc_monetary? */
bool
modes_money_type(Oid type)
{
	return type == MONEYOID || type == MONEYARRAYOID || type >= FirstNormalObjectId;
}

static void
set_mode(int *level, const char *name, const char *value)
{
	if (*level < 0)
		*level = NewGUCNestLevel();
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Make the local settings match those of the remote session (SETTINGS_SQL of
 * the worker), as far as they differ.  Returns what modes_leave() wants; on an
 * error the end of the transaction undoes them.
 */
int
modes_enter(bool money)
{
	int			level = -1;

	if (DateStyle != USE_ISO_DATES)
		set_mode(&level, "datestyle", "ISO");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		set_mode(&level, "intervalstyle", "postgres");
	if (extra_float_digits < 1)
		set_mode(&level, "extra_float_digits", "3");
	if (xmloption != XMLOPTION_CONTENT)
		set_mode(&level, "xmloption", "content");
	/* by name: its variable is declared among headers of ICU */
	if (money && strcmp(GetConfigOption("lc_monetary", false, false), "C") != 0)
		set_mode(&level, "lc_monetary", "C");
	return level;
}

void
modes_leave(int level)
{
	if (level >= 0)
		AtEOXact_GUC(true, level);
}

static void
put_param(StringInfo buf, Oid type, Datum value, bool isnull)
{
	int32		len = -1;
	Oid			output;
	bool		varlena;
	char	   *text;

	if (isnull)
	{
		message_put(buf, &len, sizeof(len));
		return;
	}
	getTypeOutputInfo(type, &output, &varlena);
	text = OidOutputFunctionCall(output, value);

	len = (int32) strlen(text);
	message_put(buf, &len, sizeof(len));
	message_put(buf, text, len + 1);
	pfree(text);
}

/* VARIADIC array: its elements are the parameters. */
static void
put_array(Call *call, Oid type, Datum value, bool isnull)
{
	ArrayType  *array;
	Oid			element = get_base_element_type(type);
	int16		len;
	bool		byval;
	char		align;
	Datum	   *values;
	bool	   *nulls;

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("VARIADIC argument must not be null"),
				 errhint("Pass an empty array for no parameters.")));
	if (!OidIsValid(element))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("VARIADIC argument must be an array")));
	array = DatumGetArrayTypeP(value);
	get_typlenbyvalalign(element, &len, &byval, &align);
	deconstruct_array(array, element, len, byval, align, &values, &nulls,
					  &call->nparams);
	for (int i = 0; i < call->nparams; i++)
		put_param(&call->params, element, values[i], nulls[i]);
}

/* Most parameters of a statement: the protocol counts them in 16 bits. */
#define MAX_PARAMS	65535

/* Collect the arguments from number first on as parameters. */
void
params_collect(FunctionCallInfo fcinfo, int first, Call *call)
{
	int			level;
	bool		money = false;

	call->nparams = 0;
	if (PG_NARGS() <= first)
		return;
	for (int i = first; i < PG_NARGS(); i++)
		money |= modes_money_type(get_fn_expr_argtype(fcinfo->flinfo, i));
	initStringInfo(&call->params);
	level = modes_enter(money);
	if (get_fn_expr_variadic(fcinfo->flinfo))
		put_array(call, get_fn_expr_argtype(fcinfo->flinfo, first),
				  fcinfo->args[first].value, PG_ARGISNULL(first));
	else
	{
		call->nparams = PG_NARGS() - first;
		for (int i = first; i < PG_NARGS(); i++)
			put_param(&call->params, get_fn_expr_argtype(fcinfo->flinfo, i),
					  fcinfo->args[i].value, PG_ARGISNULL(i));
	}
	modes_leave(level);
	if (call->nparams > MAX_PARAMS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_ARGUMENTS),
				 errmsg("too many parameters: %d", call->nparams),
				 errdetail("A statement can have at most %d.", MAX_PARAMS),
				 errhint("Pass an array as one parameter.")));
}
