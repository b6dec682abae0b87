/*
 * A small pool of threads for what blocks: getaddrinfo, fsync, sqlite, RSA. The calling fiber parks until fn has run.
 * Threads start on first use and end after a while without work. fn must not touch fibers, the loop or the arena of another.
 */
#ifndef SDK_BASE_WORK_H
#define SDK_BASE_WORK_H

enum { WORK_THREADS_DEFAULT = 4, WORK_QUEUE_MAX = 4096 };

void work_set_threads(int n); /* before first use */
/* Runs fn(arg) on a pool thread; parks, shielded: returns only when fn has returned (a thread cannot be interrupted).
 * Returns fn's value, or -EAGAIN (queue full), -ENOMEM. */
int work_run(int (*fn)(void *), void *arg);
/* How the pool fares. */
struct work_load {
        int threads, running, queued; /* threads: at most */
        double full_s; /* for so long every thread has been busy and none has finished anything; 0 = one is free */
};
void work_load(struct work_load *ret);
void work_fini(void); /* joins all threads; no work may be queued; before loop_fini() */

#endif
