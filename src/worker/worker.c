/*
 * worker.c
 *	  What the files of a worker share, see worker.h.
 */
#include "postgres.h"

#include "worker/worker.h"

int			my_worker;
MemoryContext worker_context;
Request    *requests;
Timer		deadlock_look;
