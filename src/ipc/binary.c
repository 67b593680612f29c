/*
 * binary.c
 *	  The list of types that binary.h speaks of.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "ipc/binary.h"

/*
 * The type that has the same binary form and stands for all of those that do,
 * or InvalidOid if it is not certain which form the other end gives it.
 *
 * Interval is missing: since PostgreSQL 17 it has infinity, which for older ones
 * is some 178 million years.
 */
Oid
binary_type(Oid type)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return TEXTOID;
		case BOOLOID:
		case BYTEAOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
			return type;
		default:
			return InvalidOid;
	}
}
