/*
 * json.c
 *	  Arguments that are JSON objects.
 */
#include "postgres.h"

#include "backend/client.h"
#include "utils/builtins.h"

/*
 * Call pair for each member of an object, in the order of its storage; key and value
 * are valid in the current context.  Throws if it is no object: what names it, as in
 * "pool options", and example is one that would do.
 */
void
json_members(Jsonb *json, const char *what, const char *example, JsonPair pair, void *arg)
{
	JsonbIterator *it = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;

	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", what),
				 errhint("For example: %s.", example)));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE && key != NULL)
			pair(key, &value, arg);
	}
}
