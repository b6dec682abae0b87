/*
 * Fibers: straight-line code that parks instead of blocking. One loop thread runs them all; a switch costs a few ns.
 *
 * Every fiber belongs to a scope; a scope ends only when all its fibers have (scope_join). Each fiber has a deadline and a
 * cancel flag. Whatever parks returns 0 or a positive result when done, -ETIMEDOUT when the fiber's (or the call's) deadline
 * passed, -ECANCELED when the fiber was cancelled; data that others may change must be read again after it.
 * Stacks are pooled, 64 KiB with a guard page: no recursion on input, no VLA, no big arrays. Deep callees (getaddrinfo, TLS
 * handshakes, sqlite, printf of doubles in loops) go to work_run() or to a fiber of FIBER_BIG.
 */
#ifndef SDK_BASE_FIBER_H
#define SDK_BASE_FIBER_H

#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/list.h"

enum { FIBER_STACK_BYTES = 64 * 1024, FIBER_BIG_STACK_BYTES = 256 * 1024, FIBER_MAX = 100000 };
enum fiber_flags { FIBER_BIG = 1 };

struct fiber;
typedef void (*fiber_fn)(void *arg);

struct scope {
        struct list fibers;
        size_t count;
        struct fiber *joiner;
        bool cancelled;
};
#define SCOPE_INIT(s) {.fibers = LIST_INIT((s).fibers)}

void scope_init(struct scope *s);
/* Cancels every fiber of the scope; new ones are refused with -ECANCELED. */
void scope_cancel(struct scope *s);
/* Parks until all fibers of the scope have ended; cancel and deadline do not cut it short, but when the joiner (unshielded) is
 * cancelled or its deadline passes, the scope is cancelled: what a caller started ends with it. From the loop's own stack: must
 * be empty. One joiner; not a fiber of the scope itself. */
void scope_join(struct scope *s);

/* Starts fn(arg) on a new fiber; it first runs in this loop turn, after the caller parks or returns to the loop.
 * It begins with no deadline and no local. 0, -ENOMEM, -EAGAIN (limit reached), -ECANCELED (scope cancelled). name: static text. */
int fiber_go(struct scope *s, const char *name, fiber_fn fn, void *arg);
int fiber_go_flags(struct scope *s, const char *name, int flags, fiber_fn fn, void *arg);
struct fiber *fiber_self(void);  /* NULL on the loop's own stack */
const char *fiber_name(const struct fiber *f);
/* Sticky: from now on each unshielded park returns -ECANCELED. */
void fiber_cancel(struct fiber *f);
bool fiber_is_cancelled(void);   /* of the running fiber, shield respected */
size_t fiber_count(void);
/* Most fibers at once: FIBER_MAX, or less where each guard page costs a mapping (Linux before 6.13) and vm.max_map_count is low. */
size_t fiber_limit(void);
void fiber_set_limit(size_t n);
/* Deepest use so far of the stack that the running fiber runs on, by all fibers that had it: for tests. */
size_t fiber_stack_used(void);

/* Lowest layer, for what builds primitives. Park until fiber_wake(); 0, -ETIMEDOUT or -ECANCELED. A wake that comes before the
 * park is not lost. Wakes are queued: the woken fiber runs later in this turn. Several wakes may count as one and a wake meant for
 * an earlier wait may end this one: check a condition in a loop. f must not have ended. */
int fiber_park(void);
int fiber_park_until(double deadline); /* loop time; INFINITY = none; the fiber's own deadline counts too */
void fiber_wake(struct fiber *f);

/* Deadline in loop_now() time; INFINITY = none. Setting returns the old one, to restore; it never extends an outer deadline
 * (fiber_restore_deadline() sets any). */
double fiber_deadline(void);
double fiber_set_deadline(double at);
void fiber_restore_deadline(double old);
/* Clean-up that must run to its end: between begin and end neither cancel nor deadline interrupts parks. Nests. */
void fiber_shield_begin(void);
void fiber_shield_end(void);

int fiber_sleep(double seconds); /* 0, or -ECANCELED / -ETIMEDOUT */
int fiber_yield(void);           /* lets every ready fiber and every ready descriptor have a turn; 0, -ECANCELED, -ETIMEDOUT */

/* Per-fiber pointer for request context (trace, log fields). */
void *fiber_local(void);
void fiber_set_local(void *p);

/* For the loop only: fibers that yielded become ready; at most max ready fibers run. True when some are ready still. */
void fiber_turn_begin(void);
bool fiber_run_ready(unsigned max);
void fiber_pool_fini(void);

/* Condition: fibers wait, others signal. */
struct cond {
        struct list waiters;
};
void cond_init(struct cond *c);
int cond_wait(struct cond *c);                        /* 0, -ETIMEDOUT, -ECANCELED */
int cond_wait_until(struct cond *c, double deadline);
void cond_signal(struct cond *c);                     /* wakes the one that waits longest */
void cond_broadcast(struct cond *c);

/* Mutex between fibers, first come first served. */
struct fmutex {
        struct fiber *owner;
        struct list waiters;
};
void fmutex_init(struct fmutex *m);
int fmutex_lock(struct fmutex *m); /* 0, -ETIMEDOUT, -ECANCELED */
void fmutex_unlock(struct fmutex *m);

/* Counting semaphore. */
struct fsem {
        long count;
        struct list waiters;
};
void fsem_init(struct fsem *s, long count);
int fsem_take(struct fsem *s);
void fsem_give(struct fsem *s);

/* Bounded channel of pointers. Closing wakes all; receivers drain what is left and then get -EPIPE. */
struct chan {
        void **slots;
        size_t cap, head, count;
        bool closed;
        struct cond can_send, can_recv;
};
int chan_init(struct chan *c, size_t cap); /* 0, -ENOMEM */
void chan_fini(struct chan *c);            /* must hold nothing anyone still needs */
int chan_send(struct chan *c, void *p);    /* parks while full; 0, -EPIPE, -ETIMEDOUT, -ECANCELED */
int chan_try_send(struct chan *c, void *p);/* -EAGAIN when full; callable from the loop's stack */
int chan_recv(struct chan *c, void **ret_p);
void chan_close(struct chan *c);

#endif
