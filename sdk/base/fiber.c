/*
 * Fibers on Boost.Context's two C entry points, which are known here only.
 *
 * A fiber's struct lies at the top of its own stack, so that starting a pooled fiber touches memory that it uses anyway; the
 * stack below runs fiber_main() for ever: one round of its loop is one life. Only the loop's own stack resumes fibers
 * (fiber_run_ready()), never a callback or another fiber, so a wake is nothing but an append to the run queue.
 *
 * Deadlines are a binary heap of fibers, kept lazily. A fiber has at most one entry, whose key is never later than the fiber's
 * real deadline; a park whose deadline lies behind the key leaves the heap alone, a wake does nothing, and an entry that comes
 * up early is put back at the real deadline. Requests with a timeout therefore cost no heap work in the usual case.
 *
 * Invariants: the heap has room for every fiber that exists, so parking cannot fail for memory; a fiber in the pool may keep
 * its heap entry (it comes up, is seen to be idle and leaves).
 */
#include "sdk/base/fiber.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sdk/base/fiber_san.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/spare.h"

enum {
        GUARD_BYTES = 4096,
        POOL_KEEP = 64,      /* stacks that are never given back ... */
        BIG_KEEP = 8,        /* ... and big ones */
        COLOURS = 16,        /* stack tops differ in their cache lines */
        MAPS_RESERVED = 8192 /* mappings left for everything else */
};

/* ---- contexts ---- */

typedef struct {
        void *ctx;
        void *data;
} transfer_t;
transfer_t jump_fcontext(void *to, void *data);
void *make_fcontext(void *stack_top, size_t size, void (*fn)(transfer_t));

/* IDLE -> READY (queued, not begun) -> RUNNING -> ENDED -> IDLE; RUNNING <-> YIELDED; RUNNING -> PARKED -> WOKEN (queued) -> RUNNING */
enum state { IDLE, READY, RUNNING, YIELDED, PARKED, WOKEN, ENDED };

struct fiber {
        struct fiber *next;      /* in the run queue, the yield queue or the pool */
        void *ctx;               /* where to jump to resume it */
        fiber_fn fn;
        void *arg;
        enum state state;
        int result;              /* of the park that was ended */
        int shield;
        bool wake_pending, cancelled;
        double deadline;         /* its own */
        double park_until;       /* of the current park */
        size_t heap_at;          /* index + 1; 0 = not in the heap */
        double heap_key;
        struct scope *scope, *joining;
        struct list in_scope;
        void *local;
        const char *name;
        char *map;               /* the mapping: guard page, then the stack */
        size_t map_bytes;
        int flags;
        struct san san;
};

struct pool {
        struct spare spare;
        struct fiber *head;
};

static struct {
        struct fiber *current;
        void *loop_ctx;
        struct fiber *ready_head, **ready_tail;
        struct fiber *yield_head, **yield_tail;
        size_t live, total, limit, made;
        struct pool pools[2];    /* by FIBER_BIG */
        struct fiber **heap;
        size_t heap_n, heap_cap;
        struct timer timer;
        double timer_at;         /* INFINITY = not set */
        bool light_guards;       /* the kernel has guards that split no mapping */
        bool started;
} F;

/* ---- heap of deadlines: children of i are 2i and 2i+1, positions count from 1 ---- */

static void heap_place(struct fiber *f, size_t i)
{
        F.heap[i - 1] = f;
        f->heap_at = i;
}

static void heap_up(struct fiber *f, size_t i)
{
        for (; i > 1 && F.heap[i / 2 - 1]->heap_key > f->heap_key; i /= 2)
                heap_place(F.heap[i / 2 - 1], i);
        heap_place(f, i);
}

static void heap_down(struct fiber *f, size_t i)
{
        for (size_t c; (c = 2 * i) <= F.heap_n; i = c) {
                if (c < F.heap_n && F.heap[c]->heap_key < F.heap[c - 1]->heap_key)
                        c++;
                if (F.heap[c - 1]->heap_key >= f->heap_key)
                        break;
                heap_place(F.heap[c - 1], i);
        }
        heap_place(f, i);
}

static void heap_remove(struct fiber *f)
{
        if (!f->heap_at)
                return;
        size_t i = f->heap_at;
        struct fiber *last = F.heap[--F.heap_n];
        f->heap_at = 0;
        if (last == f)
                return;
        heap_up(last, i);
        heap_down(last, last->heap_at);
}

static void timer_arm(double key)
{
        F.timer_at = key;
        timer_start(&F.timer, key - loop_now(), 0);
}

static void deadline_arm(struct fiber *f, double at)
{
        if (f->heap_at && f->heap_key <= at)
                return; /* comes up early and is put back then */
        f->heap_key = at;
        heap_up(f, f->heap_at ? f->heap_at : ++F.heap_n);
        if (at < F.timer_at)
                timer_arm(at);
}

static void ready_append(struct fiber *f)
{
        f->next = NULL;
        *F.ready_tail = f;
        F.ready_tail = &f->next;
}

static void unpark(struct fiber *f, int result)
{
        f->state = WOKEN;
        f->result = result;
        ready_append(f);
}

static void deadline_cb(struct timer *t)
{
        double now = loop_now();
        F.timer_at = INFINITY;
        while (F.heap_n && F.heap[0]->heap_key <= now) {
                struct fiber *f = F.heap[0];
                if (f->state == PARKED && f->park_until > now && f->park_until < INFINITY) {
                        f->heap_key = f->park_until;
                        heap_down(f, 1);
                        continue;
                }
                heap_remove(f);
                if (f->state == PARKED && f->park_until <= now)
                        unpark(f, -ETIMEDOUT);
        }
        if (F.heap_n)
                timer_arm(F.heap[0]->heap_key);
}

/* ---- stacks ---- */

/* Guards by madvise (Linux 6.13) split no mapping, so that the limit of mappings does not limit fibers. */
static int guard_install(char *map)
{
        enum { MADV_GUARD_INSTALL_ = 102 };
        if (F.light_guards && madvise(map, GUARD_BYTES, MADV_GUARD_INSTALL_) == 0)
                return 0;
        F.light_guards = false;
        return mprotect(map, GUARD_BYTES, PROT_NONE);
}

/* With a mapping for each guard and each stack, the kernel's limit of mappings comes first. */
static size_t limit_of_mappings(void)
{
        long n = 65530;
        FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
        if (f) {
                if (fscanf(f, "%ld", &n) != 1)
                        n = 65530;
                fclose(f);
        }
        return n > 2 * MAPS_RESERVED ? (size_t)(n - MAPS_RESERVED) / 2 : MAPS_RESERVED / 2;
}

static int heap_reserve(size_t n)
{
        if (n <= F.heap_cap)
                return 0;
        size_t cap = F.heap_cap ? F.heap_cap * 2 : 64;
        struct fiber **heap = realloc(F.heap, cap * sizeof(*heap));
        if (!heap)
                return -ENOMEM;
        F.heap = heap;
        F.heap_cap = cap;
        return 0;
}

static void fiber_main(transfer_t t);

static struct fiber *stack_new(int flags)
{
        size_t stack = flags & FIBER_BIG ? FIBER_BIG_STACK_BYTES : FIBER_STACK_BYTES, bytes = stack + GUARD_BYTES;
        if (heap_reserve(F.total + 1))
                return NULL;
        char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (map == MAP_FAILED)
                return NULL;
        if (guard_install(map)) {
                munmap(map, bytes);
                return NULL;
        }
        size_t size = (sizeof(struct fiber) + 63) / 64 * 64 + F.made++ % COLOURS * 64;
        struct fiber *f = (struct fiber *)(map + bytes - size);
        *f = (struct fiber){.san = {map + GUARD_BYTES, stack}, .map = map, .map_bytes = bytes, .flags = flags & FIBER_BIG, .state = IDLE};
        f->ctx = make_fcontext(f, stack - size, fiber_main);
        san_new(&f->san);
        F.total++;
        return f;
}

static void stack_free(struct fiber *f)
{
        heap_remove(f);
        san_free(&f->san);
        F.total--;
        munmap(f->map, f->map_bytes);
}

static struct fiber *pool_get(int flags)
{
        struct pool *p = &F.pools[!!(flags & FIBER_BIG)];
        struct fiber *f = p->head;
        if (!f)
                return stack_new(flags);
        p->head = f->next;
        spare_taken(&p->spare);
        return f;
}

static void pool_put(struct fiber *f)
{
        struct pool *p = &F.pools[!!(f->flags & FIBER_BIG)];
        f->state = IDLE;
        f->next = p->head;
        p->head = f;
        spare_put(&p->spare);
}

static void pool_drop(struct spare *s)
{
        struct pool *p = container_of(s, struct pool, spare);
        struct fiber *f = p->head;
        p->head = f->next;
        stack_free(f);
}

static void start(void)
{
        F.started = true;
        F.ready_tail = &F.ready_head;
        F.yield_tail = &F.yield_head;
        F.timer_at = INFINITY;
        F.light_guards = true;
        timer_init(&F.timer, deadline_cb);
        for (int i = 0; i < 2; i++)
                F.pools[i].spare = (struct spare){.keep = i ? BIG_KEEP : POOL_KEEP, .drop = pool_drop};
}

void fiber_pool_fini(void)
{
        if (!F.started)
                return;
        timer_stop(&F.timer);
        F.timer_at = INFINITY;
        spare_drop(&F.pools[0].spare);
        spare_drop(&F.pools[1].spare);
        if (F.total)
                return; /* some still live: the process is about to end anyway */
        free(F.heap);
        F.heap = NULL;
        F.heap_cap = 0;
}

/* ---- switching ---- */

static void resume(struct fiber *f)
{
        f->state = RUNNING;
        F.current = f;
        san_enter(&f->san);
        transfer_t t = jump_fcontext(f->ctx, f);
        san_left();
        f->ctx = t.ctx;
        F.current = NULL;
        if (f->state == ENDED)
                pool_put(f);
}

/* To the loop's stack; returns when the fiber is resumed. */
static void leave(struct fiber *f, bool ends)
{
        san_leave(&f->san, ends);
        transfer_t t = jump_fcontext(F.loop_ctx, NULL);
        F.loop_ctx = t.ctx;
        san_entered(&f->san);
}

static void end(struct fiber *f)
{
        struct scope *s = f->scope;
        must(!f->shield);
        list_del(&f->in_scope);
        F.live--;
        if (--s->count == 0 && s->joiner)
                fiber_wake(s->joiner);
        f->state = ENDED;
}

__attribute__((no_sanitize_address)) static void fiber_main(transfer_t t)
{
        struct fiber *f = t.data;
        F.loop_ctx = t.ctx;
        san_entered(&f->san);
        for (;;) {
                f->fn(f->arg);
                end(f);
                leave(f, true);
        }
}

void fiber_turn_begin(void)
{
        if (!F.yield_head)
                return;
        *F.ready_tail = F.yield_head;
        F.ready_tail = F.yield_tail;
        F.yield_head = NULL;
        F.yield_tail = &F.yield_head;
}

bool fiber_run_ready(unsigned max)
{
        must(!F.current);
        for (struct fiber *f; max && (f = F.ready_head); max--) {
                F.ready_head = f->next;
                if (!F.ready_head)
                        F.ready_tail = &F.ready_head;
                resume(f);
        }
        return F.ready_head || F.yield_head;
}

/* ---- life ---- */

int fiber_go_flags(struct scope *s, const char *name, int flags, fiber_fn fn, void *arg)
{
        if (!F.started)
                start();
        if (s->cancelled)
                return -ECANCELED;
        if (F.live >= fiber_limit())
                return -EAGAIN;
        struct fiber *f = pool_get(flags);
        if (!f)
                return -ENOMEM;
        f->fn = fn;
        f->arg = arg;
        f->name = name;
        f->state = READY;
        f->shield = 0;
        f->wake_pending = f->cancelled = false;
        f->deadline = f->park_until = INFINITY;
        f->local = NULL;
        f->joining = NULL;
        f->scope = s;
        list_add_tail(&s->fibers, &f->in_scope);
        s->count++;
        F.live++;
        ready_append(f);
        return 0;
}

int fiber_go(struct scope *s, const char *name, fiber_fn fn, void *arg)
{
        return fiber_go_flags(s, name, 0, fn, arg);
}

struct fiber *fiber_self(void)
{
        return F.current;
}

const char *fiber_name(const struct fiber *f)
{
        return f->name;
}

size_t fiber_count(void)
{
        return F.live;
}

void fiber_set_limit(size_t n)
{
        if (!F.started)
                start();
        struct fiber *probe = F.total ? NULL : stack_new(0); /* finds out which guards the kernel has */
        if (probe)
                pool_put(probe);
        size_t max = F.light_guards ? SAN_FIBERS_MAX : limit_of_mappings();
        if (max > SAN_FIBERS_MAX)
                max = SAN_FIBERS_MAX;
        F.limit = n < max ? n : max;
}

size_t fiber_limit(void)
{
        if (!F.limit)
                fiber_set_limit(FIBER_MAX);
        return F.limit;
}

__attribute__((no_sanitize_address)) size_t fiber_stack_used(void)
{
        const char *low = F.current->map + GUARD_BYTES, *p = low;
        while (p < (char *)F.current && *(volatile const uint64_t *)(const void *)p == 0)
                p += sizeof(uint64_t);
        return (size_t)((char *)F.current - p);
}

void fiber_cancel(struct fiber *f)
{
        must(f->state != IDLE);
        f->cancelled = true;
        if (f->state == PARKED && !f->shield)
                unpark(f, -ECANCELED);
        else if (f->joining)
                scope_cancel(f->joining);
}

bool fiber_is_cancelled(void)
{
        return F.current && F.current->cancelled && !F.current->shield;
}

/* ---- parking ---- */

static struct fiber *self(void)
{
        must(F.current);
        return F.current;
}

int fiber_park_until(double deadline)
{
        struct fiber *f = self();
        if (f->wake_pending) {
                f->wake_pending = false;
                return 0;
        }
        if (!f->shield) {
                if (f->cancelled)
                        return -ECANCELED;
                if (f->deadline < deadline)
                        deadline = f->deadline;
        }
        if (deadline < INFINITY) {
                if (deadline <= loop_now())
                        return -ETIMEDOUT;
                deadline_arm(f, deadline);
        }
        f->park_until = deadline;
        f->state = PARKED;
        leave(f, false);
        return f->result;
}

int fiber_park(void)
{
        return fiber_park_until(INFINITY);
}

void fiber_wake(struct fiber *f)
{
        must(f->state != IDLE && f->state != ENDED);
        if (f->state == PARKED)
                unpark(f, 0);
        else if (f->state == WOKEN)
                f->result = 0; /* what it waited for came after all, before it ran */
        else
                f->wake_pending = true;
}

double fiber_deadline(void)
{
        return self()->deadline;
}

double fiber_set_deadline(double at)
{
        struct fiber *f = self();
        double old = f->deadline;
        if (at < old)
                f->deadline = at;
        return old;
}

void fiber_restore_deadline(double old)
{
        self()->deadline = old;
}

void fiber_shield_begin(void)
{
        self()->shield++;
}

void fiber_shield_end(void)
{
        must(self()->shield > 0);
        self()->shield--;
}

static int interrupted(const struct fiber *f)
{
        if (f->shield)
                return 0;
        if (f->cancelled)
                return -ECANCELED;
        return f->deadline < INFINITY && f->deadline <= loop_now() ? -ETIMEDOUT : 0;
}

int fiber_sleep(double seconds)
{
        double at = loop_now() + seconds;
        int r;
        while ((r = fiber_park_until(at)) == 0)
                ;
        if (r == -ETIMEDOUT && loop_now() >= at)
                return 0;
        return r;
}

int fiber_yield(void)
{
        struct fiber *f = self();
        f->state = YIELDED;
        f->next = NULL;
        *F.yield_tail = f;
        F.yield_tail = &f->next;
        leave(f, false);
        return interrupted(f);
}

void *fiber_local(void)
{
        return F.current ? F.current->local : NULL;
}

void fiber_set_local(void *p)
{
        self()->local = p;
}

/* ---- scopes ---- */

void scope_init(struct scope *s)
{
        *s = (struct scope){0};
        list_init(&s->fibers);
}

void scope_cancel(struct scope *s)
{
        s->cancelled = true;
        list_for_each(l, &s->fibers)
                fiber_cancel(list_entry(l, struct fiber, in_scope));
}

void scope_join(struct scope *s)
{
        if (!s->count)
                return;
        struct fiber *f = self();
        bool outer = f->shield > 0;
        double limit = outer ? INFINITY : f->deadline;
        must(f->scope != s && !s->joiner);
        if (interrupted(f) == -ECANCELED)
                scope_cancel(s);
        s->joiner = f;
        f->joining = outer ? NULL : s;
        f->shield++;
        while (s->count) {
                if (fiber_park_until(limit) == -ETIMEDOUT) {
                        scope_cancel(s);
                        limit = INFINITY;
                }
        }
        f->shield--;
        f->joining = NULL;
        s->joiner = NULL;
}
