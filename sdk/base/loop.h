/*
 * The event loop of the process (one thread), on libev. Only loop.c knows libev: watchers are opaque storage here.
 * Callbacks run on the loop's own stack, never on a fiber: they move bytes or wake a fiber and return.
 * All functions belong to the loop thread except loop_post().
 */
#ifndef SDK_BASE_LOOP_H
#define SDK_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { IO_READ = 1, IO_WRITE = 2 };

int loop_init(void);      /* 0 or -errno; once per process */
void loop_fini(void);
void loop_run(void);      /* until loop_stop() */
void loop_stop(void);
bool loop_is_running(void);
/* Polls without sleeping for this long after the last activity: lower latency of a lone caller for CPU. 0 (default) = off. */
void loop_set_spin(double seconds);
/* Monotonic seconds, cached for the loop turn (read when first asked). loop_now_exact() asks the clock. */
double loop_now(void);
double loop_now_exact(void);
/* Nanoseconds of the realtime clock. */
int64_t wall_ns(void);

struct io_watch {
        void (*cb)(struct io_watch *w, int events);
        void *priv[10];
};
void io_watch_init(struct io_watch *w, int fd, void (*cb)(struct io_watch *, int events));
void io_watch_set(struct io_watch *w, int events); /* 0 stops it */
void io_watch_stop(struct io_watch *w);            /* before the fd is closed; harmless on a zero value */

struct timer {
        void (*cb)(struct timer *t);
        void *priv[10];
};
void timer_init(struct timer *t, void (*cb)(struct timer *));
void timer_start(struct timer *t, double after_s, double repeat_s); /* restarts when active; repeat 0 = once */
void timer_stop(struct timer *t);
bool timer_is_active(const struct timer *t);

/* Runs once before the loop sleeps next (after all events of this turn): the place to flush what a turn has gathered. */
struct defer {
        void (*cb)(struct defer *d);
        struct defer *next;
        bool queued;
};
void defer_run(struct defer *d); /* queues d; again while queued does nothing */
void defer_cancel(struct defer *d);

struct sig_watch {
        void (*cb)(struct sig_watch *w, int signo);
        void *priv[10];
};
void sig_watch_start(struct sig_watch *w, int signo, void (*cb)(struct sig_watch *, int));
void sig_watch_stop(struct sig_watch *w);

/* From any thread: runs fn(arg) on the loop thread soon. Never fails, never blocks long. Needs a loop (loop_init). */
void loop_post(void (*fn)(void *), void *arg);
/* The same with the caller's storage, which must live until fn is called (fn may free it). Posted once at a time. */
struct post {
        void (*fn)(void *);
        void *arg;
        struct post *next;
};
void loop_post_node(struct post *p); /* keeps p until fn runs */

#endif
