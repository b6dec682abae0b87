/*
 * What fibers wait with: conditions, mutexes, semaphores, channels. All rest on one list of waiters, each on its own stack.
 * Serving a waiter takes it off the list, so that what was handed over cannot be handed over twice or get lost: a cancel or a
 * deadline that comes after it does not count.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/fiber.h"
#include "sdk/base/log.h"

struct waiter {
        struct list link;
        struct fiber *fiber;
        bool served;             /* what was waited for has been handed over; outranks cancel and deadline */
};

/* Not inlined: gcc 12 takes the address that is kept until list_del() for one that dangles. */
__attribute__((noinline)) static void waiter_add(struct list *waiters, struct waiter *w)
{
        list_add_tail(waiters, &w->link);
}

/* Parks until served. The waiter has left the list when this returns. */
static int wait_in(struct list *waiters, double deadline)
{
        struct waiter w = {.fiber = fiber_self()};
        int r = 0;
        waiter_add(waiters, &w);
        while (!w.served && !r)
                r = fiber_park_until(deadline);
        list_del(&w.link);
        return w.served ? 0 : r;
}

static struct fiber *serve_first(struct list *waiters)
{
        if (list_is_empty(waiters))
                return NULL;
        struct waiter *w = list_entry(waiters->next, struct waiter, link);
        struct fiber *f = w->fiber;
        list_del(&w->link);
        w->served = true;
        fiber_wake(f);
        return f;
}

void cond_init(struct cond *c)
{
        list_init(&c->waiters);
}

int cond_wait(struct cond *c)
{
        return wait_in(&c->waiters, INFINITY);
}

int cond_wait_until(struct cond *c, double deadline)
{
        return wait_in(&c->waiters, deadline);
}

void cond_signal(struct cond *c)
{
        serve_first(&c->waiters);
}

void cond_broadcast(struct cond *c)
{
        while (serve_first(&c->waiters))
                ;
}

void fmutex_init(struct fmutex *m)
{
        m->owner = NULL;
        list_init(&m->waiters);
}

int fmutex_lock(struct fmutex *m)
{
        must(m->owner != fiber_self());
        if (m->owner)
                return wait_in(&m->waiters, INFINITY); /* the unlocker makes us the owner */
        m->owner = fiber_self();
        return 0;
}

void fmutex_unlock(struct fmutex *m)
{
        must(m->owner == fiber_self());
        m->owner = serve_first(&m->waiters);
}

void fsem_init(struct fsem *s, long count)
{
        s->count = count;
        list_init(&s->waiters);
}

int fsem_take(struct fsem *s)
{
        if (s->count <= 0)
                return wait_in(&s->waiters, INFINITY); /* the giver's unit is ours */
        s->count--;
        return 0;
}

void fsem_give(struct fsem *s)
{
        if (!serve_first(&s->waiters))
                s->count++;
}

int chan_init(struct chan *c, size_t cap)
{
        *c = (struct chan){.cap = cap ? cap : 1};
        cond_init(&c->can_send);
        cond_init(&c->can_recv);
        c->slots = calloc(c->cap, sizeof(*c->slots));
        return c->slots ? 0 : -ENOMEM;
}

void chan_fini(struct chan *c)
{
        must(list_is_empty(&c->can_send.waiters) && list_is_empty(&c->can_recv.waiters));
        free(c->slots);
        c->slots = NULL;
        c->count = c->cap = 0;
}

int chan_try_send(struct chan *c, void *p)
{
        if (c->closed)
                return -EPIPE;
        if (c->count == c->cap)
                return -EAGAIN;
        c->slots[(c->head + c->count++) % c->cap] = p;
        cond_signal(&c->can_recv);
        return 0;
}

int chan_send(struct chan *c, void *p)
{
        int r;
        while ((r = chan_try_send(c, p)) == -EAGAIN) {
                r = cond_wait(&c->can_send);
                if (r)
                        return r;
        }
        return r;
}

int chan_recv(struct chan *c, void **ret_p)
{
        while (!c->count) {
                if (c->closed)
                        return -EPIPE;
                int r = cond_wait(&c->can_recv);
                if (r)
                        return r;
        }
        *ret_p = c->slots[c->head];
        c->head = (c->head + 1) % c->cap;
        c->count--;
        cond_signal(&c->can_send);
        return 0;
}

void chan_close(struct chan *c)
{
        c->closed = true;
        cond_broadcast(&c->can_send);
        cond_broadcast(&c->can_recv);
}
