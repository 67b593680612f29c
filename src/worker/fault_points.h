/*
 * fault_points.h
 *	  The fault points of the worker, see fault.h.
 *
 * Included after everything else, since these macros have the names of functions.
 * What a function of the server's allocates in its middle, and what libpq does
 * within itself, has no point of its own: to the caller it is all the same.
 */
#ifndef DBPOOL_FAULT_POINTS_H
#define DBPOOL_FAULT_POINTS_H

#include "fault.h"

#ifdef DBPOOL_FAULTS

/* Something may fail here that has no point of its own. */
#define FAULT_POINT(what) fault_throw(what, __FILE__, __LINE__)

/* It fails by an error, or by its value. */
#define FAULT_THROWS(f, ...) \
	(fault_throw(#f, __FILE__, __LINE__), f(__VA_ARGS__))
#define FAULT_VALUE(value, f, ...) \
	(fault_here(#f, __FILE__, __LINE__, false) ? (value) : f(__VA_ARGS__))

#define palloc(...) FAULT_THROWS(palloc, __VA_ARGS__)
#define palloc0(...) FAULT_THROWS(palloc0, __VA_ARGS__)
#define repalloc(...) FAULT_THROWS(repalloc, __VA_ARGS__)
#define pstrdup(...) FAULT_THROWS(pstrdup, __VA_ARGS__)
#define pnstrdup(...) FAULT_THROWS(pnstrdup, __VA_ARGS__)
#define psprintf(...) FAULT_THROWS(psprintf, __VA_ARGS__)
#define MemoryContextAlloc(...) FAULT_THROWS(MemoryContextAlloc, __VA_ARGS__)
#define MemoryContextAllocZero(...) FAULT_THROWS(MemoryContextAllocZero, __VA_ARGS__)
#define MemoryContextStrdup(...) FAULT_THROWS(MemoryContextStrdup, __VA_ARGS__)
#define MemoryContextAllocExtended(context, size, flags) \
	(((flags) & MCXT_ALLOC_NO_OOM) != 0 ? \
	 FAULT_VALUE(NULL, MemoryContextAllocExtended, context, size, flags) : \
	 FAULT_THROWS(MemoryContextAllocExtended, context, size, flags))
#undef AllocSetContextCreate
#define AllocSetContextCreate(...) FAULT_THROWS(AllocSetContextCreateInternal, __VA_ARGS__)
#define initStringInfo(...) FAULT_THROWS(initStringInfo, __VA_ARGS__)
#define appendStringInfo(...) FAULT_THROWS(appendStringInfo, __VA_ARGS__)
#undef appendStringInfoChar
#define appendStringInfoChar(...) FAULT_THROWS(appendStringInfoChar, __VA_ARGS__)
#define appendStringInfoString(...) FAULT_THROWS(appendStringInfoString, __VA_ARGS__)
#define appendBinaryStringInfo(...) FAULT_THROWS(appendBinaryStringInfo, __VA_ARGS__)
#define message_put(...) FAULT_THROWS(message_put, __VA_ARGS__)
#define message_put_string(...) FAULT_THROWS(message_put_string, __VA_ARGS__)
#define message_put_field(...) FAULT_THROWS(message_put_field, __VA_ARGS__)
#define hash_create(...) FAULT_THROWS(hash_create, __VA_ARGS__)
#define hash_search(table, key, action, found) \
	((action) == HASH_ENTER ? FAULT_THROWS(hash_search, table, key, action, found) : \
	 hash_search(table, key, action, found))

#define compat_create_wait_event_set(...) \
	FAULT_THROWS(compat_create_wait_event_set, __VA_ARGS__)
#define AddWaitEventToSet(...) FAULT_THROWS(AddWaitEventToSet, __VA_ARGS__)
#define epoll_ctl(fd, op, sock, event) \
	((op) == EPOLL_CTL_DEL ? epoll_ctl(fd, op, sock, event) : \
	 FAULT_VALUE(-1, epoll_ctl, fd, op, sock, event))
#define AcquireExternalFD(...) FAULT_VALUE(false, AcquireExternalFD, __VA_ARGS__)

#undef malloc
#define malloc(...) FAULT_VALUE(NULL, malloc, __VA_ARGS__)
#undef calloc
#define calloc(...) FAULT_VALUE(NULL, calloc, __VA_ARGS__)
#undef strdup
#define strdup(...) FAULT_VALUE(NULL, strdup, __VA_ARGS__)
#define pthread_create(...) FAULT_VALUE(EAGAIN, pthread_create, __VA_ARGS__)
#define getaddrinfo(...) FAULT_VALUE(EAI_MEMORY, getaddrinfo, __VA_ARGS__)

#ifdef LIBPQ_FE_H

#define PQconnectStartParams(...) FAULT_VALUE(NULL, PQconnectStartParams, __VA_ARGS__)
#define PQconnectPoll(...) FAULT_VALUE(PGRES_POLLING_FAILED, PQconnectPoll, __VA_ARGS__)
#define PQsetnonblocking(...) FAULT_VALUE(-1, PQsetnonblocking, __VA_ARGS__)
#define PQparameterStatus(...) FAULT_VALUE(NULL, PQparameterStatus, __VA_ARGS__)
#define PQenterPipelineMode(...) FAULT_VALUE(0, PQenterPipelineMode, __VA_ARGS__)
#define PQexitPipelineMode(...) FAULT_VALUE(0, PQexitPipelineMode, __VA_ARGS__)
#define PQsendQuery(...) FAULT_VALUE(0, PQsendQuery, __VA_ARGS__)
#define PQsendQueryParams(...) FAULT_VALUE(0, PQsendQueryParams, __VA_ARGS__)
#define PQsendPrepare(...) FAULT_VALUE(0, PQsendPrepare, __VA_ARGS__)
#define PQsendQueryPrepared(...) FAULT_VALUE(0, PQsendQueryPrepared, __VA_ARGS__)
#define PQsendFlushRequest(...) FAULT_VALUE(0, PQsendFlushRequest, __VA_ARGS__)
#define PQsetSingleRowMode(...) FAULT_VALUE(0, PQsetSingleRowMode, __VA_ARGS__)
#define PQflush(...) FAULT_VALUE(-1, PQflush, __VA_ARGS__)
#define PQconsumeInput(...) FAULT_VALUE(0, PQconsumeInput, __VA_ARGS__)
#define PQgetResult(conn) fault_result(conn, __FILE__, __LINE__)
#define PQputCopyData(...) FAULT_VALUE(-1, PQputCopyData, __VA_ARGS__)
#define PQputCopyEnd(...) FAULT_VALUE(-1, PQputCopyEnd, __VA_ARGS__)
#define PQgetCopyData(...) FAULT_VALUE(-2, PQgetCopyData, __VA_ARGS__)
#define compat_send_sync(...) FAULT_VALUE(0, compat_send_sync, __VA_ARGS__)
#define compat_send_close_prepared(...) \
	FAULT_VALUE(0, compat_send_close_prepared, __VA_ARGS__)
#define compat_cancel_create(...) FAULT_VALUE(NULL, compat_cancel_create, __VA_ARGS__)
#define compat_cancel_run(...) FAULT_VALUE(false, compat_cancel_run, __VA_ARGS__)

#endif							/* LIBPQ_FE_H */

#else

#define FAULT_POINT(what) ((void) 0)

#endif							/* DBPOOL_FAULTS */

#endif							/* DBPOOL_FAULT_POINTS_H */
