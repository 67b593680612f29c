/*
 * offload.c
 *	  Calls that may block, run in threads of their own, see offload.h.
 *
 * A thread takes one job after the other and ends when there are none.  All
 * signals are blocked in it, so that PostgreSQL's handlers run in the loop's
 * thread alone.
 *
 * Jobs that hang must not keep others' from running.  So each pool may always
 * have one job of a kind, which gets a thread, and a few more as long as there
 * are not many (offload_has_room()): at most SHARED_JOBS threads of a kind, and
 * one for each pool.
 */
#include "postgres.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "worker/fault_points.h"
#include "worker/offload.h"

#define JOBS_PER_POOL	4
#define SHARED_JOBS		64
#define STACK_BYTES		(256 * 1024)
#define LOGIN_NICE		10

static int	wake_pipe[2] = {-1, -1};

/* Protects all that follows. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static OffloadJob *waiting[OFFLOAD_NKINDS];
static OffloadJob *finished;
static int	nthreads[OFFLOAD_NKINDS];

/* Jobs that are not done; the loop's. */
static int	njobs[OFFLOAD_NKINDS];

/* Signalled when a thread ends. */
static pthread_cond_t thread_ended;

static void *
thread_main(void *arg)
{
	OffloadKind kind = (OffloadKind) (intptr_t) arg;

#ifdef __linux__
	/* what computes is not to take the processor from the loop */
	if (kind == OFFLOAD_LOGIN)
		(void) setpriority(PRIO_PROCESS, 0, LOGIN_NICE);
#endif
	pthread_mutex_lock(&lock);
	while (waiting[kind] != NULL)
	{
		OffloadJob *job = waiting[kind];
		ssize_t		ignored;

		waiting[kind] = job->next;
		pthread_mutex_unlock(&lock);

		job->run(job->data);

		pthread_mutex_lock(&lock);
		job->next = finished;
		finished = job;
		/* a full pipe wakes the loop just as well */
		ignored = write(wake_pipe[1], "", 1);
		(void) ignored;
	}
	nthreads[kind]--;
	pthread_cond_signal(&thread_ended);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Once per worker process. */
void
offload_start(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&thread_ended, &attr);
	pthread_condattr_destroy(&attr);
	if (pipe(wake_pipe) != 0 ||
		fcntl(wake_pipe[0], F_SETFL, O_NONBLOCK) != 0 ||
		fcntl(wake_pipe[1], F_SETFL, O_NONBLOCK) != 0 ||
		fcntl(wake_pipe[0], F_SETFD, FD_CLOEXEC) != 0 ||
		fcntl(wake_pipe[1], F_SETFD, FD_CLOEXEC) != 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not make a pipe for dbpool's threads: %m")));
}

/* Readable when a job has ended. */
int
offload_fd(void)
{
	return wake_pipe[0];
}

static bool
thread_start(OffloadKind kind)
{
	sigset_t	all;
	sigset_t	before;
	pthread_attr_t attr;
	pthread_t	thread;
	bool		ok;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	ok = pthread_create(&thread, &attr, thread_main,
						(void *) (intptr_t) kind) == 0;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ok;
}

/*
 * Run a job.  The caller keeps what is returned only to clear or read its arg,
 * and only until done was called.  NULL when there is no memory or no thread;
 * then nothing was done and data is still the caller's.
 */
OffloadJob *
offload_submit(OffloadKind kind, void (*run) (void *data),
			   void (*done) (void *data, void *arg), void *data, void *arg)
{
	OffloadJob *job = malloc(sizeof(OffloadJob));
	OffloadJob **tail = &waiting[kind];

	if (job == NULL)
		return NULL;
	job->kind = kind;
	job->run = run;
	job->done = done;
	job->data = data;
	job->arg = arg;
	job->next = NULL;

	pthread_mutex_lock(&lock);
	if (nthreads[kind] <= njobs[kind] && thread_start(kind))
		nthreads[kind]++;
	if (nthreads[kind] == 0)
	{
		pthread_mutex_unlock(&lock);
		free(job);
		return NULL;
	}
	while (*tail != NULL)
		tail = &(*tail)->next;
	*tail = job;
	pthread_mutex_unlock(&lock);
	njobs[kind]++;
	return job;
}

/* Nobody waits for the job any more, if there is one. */
void
offload_abandon(OffloadJob **job)
{
	if (*job != NULL)
		(*job)->arg = NULL;
	*job = NULL;
}

/* May a pool that has so many jobs of a kind under way have another? */
bool
offload_has_room(OffloadKind kind, int pool_has)
{
	return pool_has == 0 ||
		(pool_has < JOBS_PER_POOL && njobs[kind] < SHARED_JOBS);
}

/* Are there threads?  A process that has some must not run exit handlers. */
bool
offload_busy(void)
{
	bool		busy = false;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < OFFLOAD_NKINDS; i++)
		busy |= nthreads[i] > 0;
	pthread_mutex_unlock(&lock);
	return busy;
}

/* At exit: wait for the threads of a kind, for so many seconds at most. */
void
offload_wait(OffloadKind kind, int seconds)
{
	struct timespec until;
	int			error = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&lock);
	while (nthreads[kind] > 0 && error == 0)
		error = pthread_cond_timedwait(&thread_ended, &lock, &until);
	pthread_mutex_unlock(&lock);
}

/* The loop's: hand out the jobs that have ended. */
void
offload_collect(void)
{
	char		drain[256];
	OffloadJob *job;

	while (read(wake_pipe[0], drain, sizeof(drain)) > 0)
		;
	for (;;)
	{
		pthread_mutex_lock(&lock);
		job = finished;
		if (job != NULL)
			finished = job->next;
		pthread_mutex_unlock(&lock);
		if (job == NULL)
			break;
		njobs[job->kind]--;
		job->done(job->data, job->arg);
		free(job);
	}
}
