/*
 * One loop per process; libev is known here only. Watchers are stored by value in the priv[] of ours.
 *
 * A turn: events' callbacks -> ready fibers -> defers -> sleep. Fibers and defers may make each other ready, so both are run
 * until neither has work, at most TURN_ROUNDS times; what is left then (a defer that queues itself, fibers that yield or play
 * ping-pong) waits for the next turn, which does not sleep. So neither can starve descriptors and timers.
 * A turn of many events goes in portions of 2, 4, 8 ... events and fibers, with defers behind each: the first requests of a burst
 * leave, and wake the next process, while the others are still read; a long turn still gathers most of what it writes.
 * Posts from other threads are a list under a mutex; the doorbell is one ev_async, coalesced by libev.
 */
#include "sdk/base/loop.h"

#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "sdk/base/fiber.h"
#include "sdk/base/log.h"
#include "sdk/base/spare.h"

enum { TURN_ROUNDS = 16, PORTION_FIRST = 2, PORTION_MAX = 256 };

_Static_assert(sizeof(ev_io) <= sizeof(((struct io_watch *)0)->priv), "ev_io fits");
_Static_assert(sizeof(ev_timer) <= sizeof(((struct timer *)0)->priv), "ev_timer fits");
_Static_assert(sizeof(ev_signal) <= sizeof(((struct sig_watch *)0)->priv), "ev_signal fits");
_Static_assert((int)IO_READ == (int)EV_READ && (int)IO_WRITE == (int)EV_WRITE, "event bits are libev's");

static struct {
        struct ev_loop *ev;
        ev_async doorbell;
        bool running, stopping;
        bool now_valid;
        double now;
        unsigned events, portion; /* events handled since fibers ran; how many are handled before they run */
        bool active;             /* something happened since the last poll */
        double spin_s, last_active;
        struct defer *defer_head, **defer_tail;
} L;

/* Apart from L: other threads touch these. */
static struct {
        pthread_mutex_t lock;
        struct post *head, **tail;
        bool open;
} P = {.lock = PTHREAD_MUTEX_INITIALIZER};

static double clock_s(void)
{
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double loop_now(void)
{
        if (!L.now_valid) {
                L.now = clock_s();
                L.now_valid = L.running;
        }
        return L.now;
}

double loop_now_exact(void)
{
        return clock_s();
}

int64_t wall_ns(void)
{
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- posts ---- */

static void doorbell_cb(EV_P_ ev_async *a, int revents)
{
        pthread_mutex_lock(&P.lock);
        struct post *p = P.head;
        P.head = NULL;
        P.tail = &P.head;
        pthread_mutex_unlock(&P.lock);
        L.active = true;
        while (p) {
                struct post *next = p->next; /* fn may free p or post it again */
                p->fn(p->arg);
                p = next;
        }
}

void loop_post_node(struct post *p)
{
        p->next = NULL;
        pthread_mutex_lock(&P.lock);
        must(P.open);
        *P.tail = p;
        P.tail = &p->next;
        /* Under the lock, so that loop_fini() cannot pull the loop away from under us. */
        ev_async_send(L.ev, &L.doorbell);
        pthread_mutex_unlock(&P.lock);
}

struct post_once {
        struct post post;
        void (*fn)(void *);
        void *arg;
};

static void post_once_cb(void *arg)
{
        struct post_once o = *(struct post_once *)arg;
        free(arg);
        o.fn(o.arg);
}

void loop_post(void (*fn)(void *), void *arg)
{
        struct post_once *o = malloc(sizeof(*o));
        must(o);
        *o = (struct post_once){.post = {.fn = post_once_cb, .arg = o}, .fn = fn, .arg = arg};
        loop_post_node(&o->post);
}

/* ---- life ---- */

int loop_init(void)
{
        must(!L.ev);
        L.ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
        if (!L.ev)
                return errno > 0 ? -errno : -ENOMEM;
        L.defer_head = NULL;
        L.defer_tail = &L.defer_head;
        L.stopping = false;
        ev_async_init(&L.doorbell, doorbell_cb);
        ev_async_start(L.ev, &L.doorbell);
        pthread_mutex_lock(&P.lock);
        P.head = NULL;
        P.tail = &P.head;
        P.open = true;
        pthread_mutex_unlock(&P.lock);
        return 0;
}

void loop_fini(void)
{
        if (!L.ev)
                return;
        must(!L.running);
        fiber_pool_fini();
        spare_fini();
        pthread_mutex_lock(&P.lock);
        P.open = false;
        for (struct post *p = P.head, *next; p; p = next) {
                next = p->next;
                if (p->fn == post_once_cb)
                        free(p->arg);
        }
        P.head = NULL;
        ev_async_stop(L.ev, &L.doorbell);
        ev_loop_destroy(L.ev);
        L.ev = NULL;
        pthread_mutex_unlock(&P.lock);
        L.defer_head = NULL;
        L.defer_tail = &L.defer_head;
}

/* ---- defers ---- */

static void defer_append(struct defer *d)
{
        d->next = NULL;
        d->queued = true;
        *L.defer_tail = d;
        L.defer_tail = &d->next;
}

void defer_run(struct defer *d)
{
        if (!d->queued)
                defer_append(d);
}

void defer_cancel(struct defer *d)
{
        if (!d->queued)
                return;
        for (struct defer **at = &L.defer_head; *at; at = &(*at)->next) {
                if (*at != d)
                        continue;
                *at = d->next;
                if (L.defer_tail == &d->next)
                        L.defer_tail = at;
                break;
        }
        d->next = NULL;
        d->queued = false;
}

/* What callbacks queue goes behind the mark: the next round. One at a time, because a callback may cancel others. */
static void run_defers(void)
{
        struct defer mark = {0};
        defer_append(&mark);
        for (struct defer *d; (d = L.defer_head) != &mark;) {
                defer_cancel(d);
                d->cb(d);
        }
        defer_cancel(&mark);
}

/* ---- the loop ---- */

/* Runs what is ready, in portions. True when work is left that must not wait for an event. */
static bool settle(unsigned steps)
{
        bool more;
        do {
                fiber_run_ready(L.portion);
                if (L.defer_head)
                        run_defers();
                L.portion = L.portion < PORTION_MAX / 2 ? L.portion * 2 : PORTION_MAX;
                more = fiber_run_ready(0) || L.defer_head;
        } while (more && --steps);
        return more;
}

/* The same in the midst of a turn: behind a portion of its events. */
static void event_done(void)
{
        L.active = true;
        if (++L.events >= L.portion) {
                L.events = 0;
                settle(1);
        }
}

static int poll_flag(bool more)
{
        if (more)
                return EVRUN_NOWAIT;
        if (L.spin_s > 0) {
                double now = clock_s();
                if (L.active)
                        L.last_active = now;
                if (now - L.last_active < L.spin_s)
                        return EVRUN_NOWAIT;
        }
        return EVRUN_ONCE;
}

void loop_run(void)
{
        must(L.ev && !L.running);
        L.running = true;
        L.now_valid = false;
        L.portion = PORTION_FIRST;
        ev_now_update(L.ev);
        while (!L.stopping) {
                fiber_turn_begin();
                bool more = settle(TURN_ROUNDS);
                if (L.stopping)
                        break;
                int flag = poll_flag(more);
                L.active = false;
                L.now_valid = false;
                L.events = 0;
                L.portion = PORTION_FIRST;
                ev_run(L.ev, flag);
        }
        L.running = false;
        L.stopping = false;
        L.now_valid = false;
}

void loop_stop(void)
{
        L.stopping = true;
}

bool loop_is_running(void)
{
        return L.running;
}

void loop_set_spin(double seconds)
{
        L.spin_s = seconds;
}

/* ---- descriptors ---- */

static ev_io *io_of(struct io_watch *w)
{
        return (ev_io *)w->priv;
}

static void io_cb(EV_P_ ev_io *e, int revents)
{
        struct io_watch *w = (struct io_watch *)((char *)e - offsetof(struct io_watch, priv));
        /* EV_ERROR (the descriptor was closed under us) is shown as ready: the next read or write tells. */
        w->cb(w, revents & EV_ERROR ? IO_READ | IO_WRITE : revents & (IO_READ | IO_WRITE));
        event_done();
}

void io_watch_init(struct io_watch *w, int fd, void (*cb)(struct io_watch *, int events))
{
        w->cb = cb;
        ev_io_init(io_of(w), io_cb, fd, 0);
}

void io_watch_set(struct io_watch *w, int events)
{
        ev_io *e = io_of(w);
        if (!events) {
                ev_io_stop(L.ev, e);
                return;
        }
        if (ev_is_active(e)) {
                if ((e->events & (IO_READ | IO_WRITE)) == events)
                        return;
                ev_io_stop(L.ev, e);
        }
        ev_io_modify(e, events);
        ev_io_start(L.ev, e);
}

void io_watch_stop(struct io_watch *w)
{
        ev_io *e = io_of(w);
        if (!w->cb || !L.ev)
                return;
        ev_io_stop(L.ev, e);
        /* The number may come back as another descriptor: the next start must not rely on what the kernel was told before. */
        e->events |= EV__IOFDSET;
}

/* ---- timers ---- */

static ev_timer *timer_of(const struct timer *t)
{
        return (ev_timer *)(uintptr_t)t->priv;
}

static void timer_cb(EV_P_ ev_timer *e, int revents)
{
        struct timer *t = (struct timer *)((char *)e - offsetof(struct timer, priv));
        L.active = true;
        t->cb(t);
}

void timer_init(struct timer *t, void (*cb)(struct timer *))
{
        t->cb = cb;
        ev_timer_init(timer_of(t), timer_cb, 0, 0);
}

void timer_start(struct timer *t, double after_s, double repeat_s)
{
        ev_timer *e = timer_of(t);
        ev_timer_stop(L.ev, e);
        if (!L.running)
                ev_now_update(L.ev); /* else libev would count from the last poll */
        ev_timer_set(e, after_s > 0 ? after_s : 0, repeat_s);
        ev_timer_start(L.ev, e);
}

void timer_stop(struct timer *t)
{
        if (t->cb && L.ev)
                ev_timer_stop(L.ev, timer_of(t));
}

bool timer_is_active(const struct timer *t)
{
        return t->cb && ev_is_active(timer_of(t));
}

/* ---- signals ---- */

static void sig_cb(EV_P_ ev_signal *e, int revents)
{
        struct sig_watch *w = (struct sig_watch *)((char *)e - offsetof(struct sig_watch, priv));
        L.active = true;
        w->cb(w, e->signum);
}

void sig_watch_start(struct sig_watch *w, int signo, void (*cb)(struct sig_watch *, int))
{
        ev_signal *e = (ev_signal *)w->priv;
        w->cb = cb;
        ev_signal_init(e, sig_cb, signo);
        ev_signal_start(L.ev, e);
}

void sig_watch_stop(struct sig_watch *w)
{
        if (w->cb && L.ev)
                ev_signal_stop(L.ev, (ev_signal *)w->priv);
}
