/*
 * look.c
 *	  A look at what libpq will read from its socket, and where in the stream of
 *	  messages that is.
 *
 * Nothing here allocates or throws.
 */
#include "dbpool.h"

#include <libpq-fe.h>

#include "compat.h"
#include "pq/look.h"

/*
 * What comes next, as much as there is a point in looking at: how many bytes of it
 * were put into the window, which has room for WIRE_WINDOW; 0 or less for none.
 */
ssize_t
look_peek(PGconn *pg, Wire *wire, char *window)
{
	if (wire->place >= 0)
		wire_moved(wire, compat_bytes_taken(pg));
	return compat_peek_input(pg, window, wire->reach);
}

/*
 * Look at the n bytes that look_peek() has found, before libpq reads.  False when a
 * message is larger than it may be, see wire_look().
 */
bool
look_at(PGconn *pg, Wire *wire, const char *window, Size n, WireMessage *large)
{
	bool		fits = wire_look(wire, window, n, large);

	if (!wire_is_amid(wire))
		wire->place = -1;
	else
	{
		if (wire->place < 0)
			wire->place = compat_bytes_taken(pg);
		if (wire->place >= 0)
			wire->place += n;
	}
	return fits;
}
