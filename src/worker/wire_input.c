/*
 * wire_input.c
 *	  What the remote may send, once we are logged in.
 *
 * A look is taken at the messages that libpq will read (wire.c), as it collects
 * each of them whole, and some of them several times over.
 *	 - A row may be as long as in PostgreSQL, any other message WIRE_OTHER_MOST.
 *	   Of an error that is longer, its beginning is passed on.
 *	 - While nobody's statement runs, the remote has little to say.
 *	 - What it reports of settings libpq keeps until the connection ends.
 *	 - Where no rows are due, libpq would keep all that come.
 * Beyond these bounds the connection is given up, by whoever has asked.  Below them, one that
 * carried something large is given up when it has done its work, so that libpq's
 * buffers go (conn_settle()).
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "pq/look.h"
#include "worker/connection.h"

/* Most bytes in answer to a check, a reset or our settings, and of an idle remote. */
#define OWN_MOST		(256 * 1024)

/*
 * Honest answers of that kind are no longer: then a guess where messages begin is right.  Those to
 * connect_sql may be, and with more it may be wrong.
 */
#define OWN_SHORT		(8 * 1024)

/* With so much of settings the connection is given up at once. */
#define SETTINGS_MOST	(4 * 1024 * 1024)

/* So many looks at what has come are not worth watching libpq's memory for. */
#define WATCHED_FROM	32

/* Most bytes that libpq may keep while it gives no result, and no rows are due. */
#define KEPT_MOST		(4 * WIRE_OTHER_MOST)

/* Of what came while nobody's statement ran so much is known: is it too much? */
static bool
is_too_much(Conn *conn, int64 n)
{
	if (n <= OWN_MOST)
		return false;
	snprintf(conn->loss.error, sizeof(conn->loss.error),
			 "The remote server sent more than %d bytes %s.", OWN_MOST,
			 conn->state == CONN_IDLE || conn->state == CONN_LEASED ? "without being asked anything" :
			 session_runs_connect_sql(conn) ? "in answer to connect_sql" :
			 conn->state == CONN_CHECKING ? "in answer to a check" :
			 conn->state == CONN_RESETTING ? "in answer to a reset of the session" :
			 "in answer to the settings of the session");
	return true;
}

/*
 * A look has found n bytes, and there may be more.  What libpq leaves of them is counted once more by
 * the next look: so a flood is soon known, and an eighth of that fits in any case, as libpq reads 8 kB
 * at least at a time.
 */
static bool
receives_too_much(Conn *conn, int64 n)
{
	if (n == conn->io.wire.reach)
		n = Max(n, compat_unread_bytes(conn->io.pg));
	conn->io.received += n;
	return is_too_much(conn, conn->io.received);
}

/*
 * libpq reads as long as more comes, and so may have read more than the look before: what it
 * gives is counted, too.  Does that result make it too much?  Then loss.error says so.
 */
bool
input_gave_too_much(Conn *conn, const PGresult *res)
{
	int			ncolumns = PQnfields(res);
	int			nrows = PQntuples(res);

	/* the fields of a DataRow, each with its length before it */
	for (int row = 0; row < nrows; row++)
	{
		conn->io.given += WIRE_HEADER + sizeof(int16);
		for (int i = 0; i < ncolumns; i++)
			conn->io.given += sizeof(int32) + PQgetlength(res, row, i);
	}
	return is_too_much(conn, conn->io.given);
}

/* Note in loss.error that the message at which input_look() has stopped is too large. */
void
input_describe_large(Conn *conn, const WireMessage *large)
{
	snprintf(conn->loss.error, sizeof(conn->loss.error),
			 "The remote server sent %s of %u bytes, and dbpool takes %d at most.",
			 wire_name(large->type), large->length, conn->io.wire.other_most);
}

/*
 * Before libpq reads from the socket, look at what it will read.  INPUT_LARGE: it
 * is to read once more, and what it then gives is to be taken, before the
 * connection is given up for the large message; until then nothing else may be
 * looked at.  INPUT_REFUSED: it is to be given up at once, and loss.error says why.
 */
InputLook
input_look(Conn *conn, WireMessage *large)
{
	static char window[WIRE_WINDOW];
	Wire	   *wire = &conn->io.wire;
	ssize_t		n;
	bool		runs = conn->state == CONN_BUSY || conn->state == CONN_CANCELLING;
	bool		fits;

	if (runs && !wire_wants(wire))
		return INPUT_FITS;
	n = look_peek(conn->io.pg, wire, window);
	if (n <= 0)
		return INPUT_FITS;
	wire->row_most = runs ? WIRE_ROW_MOST : OWN_MOST;
	wire->other_most = runs ? WIRE_OTHER_MOST : OWN_MOST;
	if (!runs && receives_too_much(conn, n))
		return INPUT_REFUSED;
	wire->short_answers = !runs && conn->io.received <= OWN_SHORT;
	fits = look_at(conn->io.pg, wire, window, n, large);
	if (wire->settings > SETTINGS_MOST)
	{
		snprintf(conn->loss.error, sizeof(conn->loss.error),
				 "The remote server reported more than %d bytes of settings.",
				 SETTINGS_MOST);
		return INPUT_REFUSED;
	}
	conn->io.big |= wire->large;
	return fits ? INPUT_FITS : INPUT_LARGE;
}

/*
 * Before libpq looks at what it has read: where the first flight's answer is not to come
 * row by row, as it was there already or is that of a prelude, no rows are due.  An odd
 * remote may send them without end, and libpq gives none before the last.  So its
 * memory is watched as long as it gives nothing; from the WATCHED_FROM'th look on, as
 * malloc() counts by walking over what is free, and answers in good order are there before.
 * Returns what input_hoards() is to be told afterwards.
 */
int64
input_before(Conn *conn)
{
	const Flight *flight = conn_head(conn);

	if (flight == NULL || flight->row_mode || !conn->io.waits ||
		conn->io.looks++ < WATCHED_FROM)
		return -1;
	return compat_malloc_bytes();
}

/* Does libpq keep too much?  Then loss.error says so, and the connection is to be given up. */
bool
input_hoards(Conn *conn, int64 before)
{
	if (before < 0)
		return false;
	conn->io.kept += compat_malloc_bytes() - before;
	if (conn->io.kept <= KEPT_MOST)
		return false;
	strlcpy(conn->loss.error, "The remote server sent rows that it was not asked for.",
			sizeof(conn->loss.error));
	return true;
}
