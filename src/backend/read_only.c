/*
 * read_only.c
 *	  What is refused in a local transaction that is read-only, if
 *	  dbpool.inherit_read_only is on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/client.h"

/* Every function that writes on a remote, whatever its arguments, calls this. */
void
client_refuse_read_only(const char *function)
{
	if (dbpool_inherit_read_only && XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", function),
				 errdetail("dbpool.inherit_read_only is on: while the local transaction is read-only, nothing is written on remotes."),
				 errhint("Call it in a transaction that is READ WRITE, or set dbpool.inherit_read_only to off.")));
}
