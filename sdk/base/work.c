/*
 * A fixed table of thread slots. A thread starts when an item finds none idle, and ends after IDLE_S without work; its slot
 * keeps the handle until the next start or work_fini() joins it. An item lies on the stack of the fiber that waits for it.
 * Threads block every signal, so that handlers run on the loop thread.
 */
#include "sdk/base/work.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "sdk/base/fiber.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

enum { THREADS_MAX = 64, IDLE_S = 30, THREAD_STACK_BYTES = 1024 * 1024 };

struct item {
        int (*fn)(void *);
        void *arg;
        int result;
        bool done;
        struct fiber *fiber;
        struct item *next;
        struct post post;
};

enum slot { SLOT_FREE, SLOT_RUNS, SLOT_ENDED };

static struct {
        pthread_mutex_t lock;
        pthread_cond_t wake;
        struct item *head, **tail;
        int queued, running, idle, max;
        double since; /* monotonic: of the last item that was finished, or that took the last free thread */
        bool closing, ready;
        enum slot slots[THREADS_MAX];
        pthread_t threads[THREADS_MAX];
} W = {.lock = PTHREAD_MUTEX_INITIALIZER, .max = WORK_THREADS_DEFAULT};

static double now(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void item_done(void *arg)
{
        struct item *i = arg;
        i->done = true;
        fiber_wake(i->fiber);
}

/* With the lock held. Waits for work; NULL when the thread should end. */
static struct item *next_item(void)
{
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += IDLE_S;
        while (!W.head) {
                if (W.closing)
                        return NULL;
                W.idle++;
                int r = pthread_cond_timedwait(&W.wake, &W.lock, &until);
                W.idle--;
                if (r == ETIMEDOUT && !W.head)
                        return NULL;
        }
        struct item *i = W.head;
        W.head = i->next;
        if (!W.head)
                W.tail = &W.head;
        W.queued--;
        if (++W.running == W.max)
                W.since = now();
        return i;
}

static void *thread_main(void *arg)
{
        enum slot *slot = arg;
        pthread_mutex_lock(&W.lock);
        for (struct item *i; (i = next_item());) {
                pthread_mutex_unlock(&W.lock);
                i->result = i->fn(i->arg);
                loop_post_node(&i->post);
                pthread_mutex_lock(&W.lock);
                W.running--;
                W.since = now();
        }
        *slot = SLOT_ENDED;
        pthread_mutex_unlock(&W.lock);
        return NULL;
}

static int thread_create(pthread_t *ret, enum slot *slot)
{
        pthread_attr_t attr;
        sigset_t all, old;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int r = pthread_create(ret, &attr, thread_main, slot);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        return r;
}

/* With the lock held. True when at least one thread runs. */
static bool more_threads(void)
{
        int runs = 0, at = -1;
        for (int i = 0; i < W.max; i++) {
                runs += W.slots[i] == SLOT_RUNS;
                if (W.slots[i] != SLOT_RUNS && at < 0)
                        at = i;
        }
        if (at < 0)
                return true;
        if (W.slots[at] == SLOT_ENDED)
                pthread_join(W.threads[at], NULL);
        W.slots[at] = SLOT_FREE;
        if (thread_create(&W.threads[at], &W.slots[at]))
                return runs > 0;
        W.slots[at] = SLOT_RUNS;
        return true;
}

static void ready(void)
{
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&W.wake, &attr);
        pthread_condattr_destroy(&attr);
        W.tail = &W.head;
        W.closing = false;
        W.ready = true;
}

void work_set_threads(int n)
{
        W.max = n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}

static int enqueue(struct item *i)
{
        int r = 0;
        pthread_mutex_lock(&W.lock);
        if (!W.ready)
                ready();
        if (W.queued >= WORK_QUEUE_MAX || (W.idle <= W.queued && !more_threads())) {
                r = -EAGAIN;
        } else {
                *W.tail = i;
                W.tail = &i->next;
                W.queued++;
                pthread_cond_signal(&W.wake);
        }
        pthread_mutex_unlock(&W.lock);
        return r;
}

int work_run(int (*fn)(void *), void *arg)
{
        struct item i = {.fn = fn, .arg = arg, .fiber = fiber_self()};
        must(i.fiber);
        i.post = (struct post){.fn = item_done, .arg = &i};
        int r = enqueue(&i);
        if (r)
                return r;
        fiber_shield_begin();
        while (!i.done)
                fiber_park();
        fiber_shield_end();
        return i.result;
}

void work_load(struct work_load *ret)
{
        pthread_mutex_lock(&W.lock);
        *ret = (struct work_load){.threads = W.max, .running = W.running, .queued = W.queued};
        if (W.running >= W.max)
                ret->full_s = now() - W.since;
        pthread_mutex_unlock(&W.lock);
}

void work_fini(void)
{
        if (!W.ready)
                return;
        pthread_mutex_lock(&W.lock);
        must(!W.queued);
        W.closing = true;
        pthread_cond_broadcast(&W.wake);
        enum slot slots[THREADS_MAX];
        memcpy(slots, W.slots, sizeof(slots));
        pthread_mutex_unlock(&W.lock);
        for (int i = 0; i < THREADS_MAX; i++)
                if (slots[i] != SLOT_FREE)
                        pthread_join(W.threads[i], NULL);
        memset(W.slots, 0, sizeof(W.slots));
        pthread_cond_destroy(&W.wake);
        W.ready = false;
}
