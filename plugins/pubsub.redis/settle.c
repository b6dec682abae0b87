/*
 * Acknowledgements: what the app has taken is acknowledged in batches. While the server is away they wait: the entries stay known, so
 * that nobody here claims them again meanwhile. At the end of a subscription what nobody answered is marked as idle for long enough
 * to be claimed by whoever looks next, instead of after processingTimeout.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugins/pubsub.redis/streams.h"
#include "sdk/base/loop.h"

enum { IDS_AT_ONCE = 100, HEAD_ARGS = 5, TAIL_ARGS = 3 };

static void forget(struct source *src, struct list *l)
{
        while (!list_is_empty(l)) {
                struct entry *e = list_entry(l->next, struct entry, node);
                list_del(&e->node);
                map_del(&src->known, str_of(e->id));
                free(e);
        }
}

/* Up to IDS_AT_ONCE of `from` go to `batch` and their ids behind the head of a command. */
static int take(struct list *from, struct list *batch, struct redis_arg *a, int n)
{
        list_init(batch);
        for (int i = 0; i < IDS_AT_ONCE && !list_is_empty(from); i++) {
                struct entry *e = list_entry(from->next, struct entry, node);
                list_del(&e->node);
                list_add_tail(batch, &e->node);
                a[n++] = redis_arg_z(e->id);
        }
        return n;
}

/* 0, or an errno with nothing lost from src->done. */
static int acknowledge(struct source *src)
{
        struct redis_arg a[HEAD_ARGS + IDS_AT_ONCE] = {redis_arg_z("XACK"), redis_arg_z(src->stream), redis_arg_z(src->b->group)};
        struct list batch;
        redisReply *reply = NULL;
        int n = take(&src->done, &batch, a, 3);
        int r = source_do(src, "cannot acknowledge", 1, a, n, &reply);
        freeReplyObject(reply);
        if (r >= 0) { /* an answered error is the server's last word: it will deliver these again */
                forget(src, &batch);
                return 0;
        }
        while (!list_is_empty(&batch)) {
                struct list *last = batch.prev;
                list_del(last);
                list_add_head(&src->done, last);
        }
        return r;
}

void settle_fiber(void *arg)
{
        struct source *src = arg;
        double pause = 0.05;
        for (;;) {
                while (list_is_empty(&src->done))
                        if (cond_wait(&src->have_done))
                                return;
                if (acknowledge(src) == 0) {
                        pause = 0.05;
                        continue;
                }
                if (fiber_sleep(pause))
                        return;
                pause = fmin(pause * 2, 1);
        }
}

static int give_back(struct source *src)
{
        char idle[24];
        struct redis_arg a[HEAD_ARGS + IDS_AT_ONCE + TAIL_ARGS] = {redis_arg_z("XCLAIM"), redis_arg_z(src->stream), redis_arg_z(src->b->group),
                                                                   redis_arg_z(src->b->group), redis_arg_z("0")};
        struct list batch;
        redisReply *reply = NULL;
        int n = take(&src->back, &batch, a, HEAD_ARGS);
        snprintf(idle, sizeof(idle), "%lld", (long long)src->b->processing_ms);
        a[n++] = redis_arg_z("IDLE");
        a[n++] = redis_arg_z(idle);
        a[n++] = redis_arg_z("JUSTID");
        int r = source_do(src, "cannot give back", 1, a, n, &reply);
        freeReplyObject(reply);
        forget(src, &batch);
        return r;
}

void settle_rest(struct source *src)
{
        int r = 0;
        while (r == 0 && !list_is_empty(&src->done))
                r = acknowledge(src);
        while (r == 0 && redelivers(src->b) && !list_is_empty(&src->back))
                r = give_back(src);
        forget(src, &src->done);
        forget(src, &src->back);
}
