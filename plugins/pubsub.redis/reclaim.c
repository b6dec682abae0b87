/*
 * Redelivery: entries that are pending for longer than processingTimeout, whoever had them, are claimed and delivered. Once at the
 * start, once more when the leftovers of an earlier life have become old enough, then every redeliverInterval.
 *
 * The list of pending entries is read a page at a time, from the oldest on; those that this subscription has in hand are passed over.
 * Entries that are pending but no longer in the stream (trimmed) are acknowledged: nobody can deliver them.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.redis/streams.h"
#include "sdk/base/flags.h"
#include "sdk/base/loop.h"

enum { PAGE = 100, HEAD_ARGS = 5 };

struct page {
        char ids[PAGE][ID_MAX];
        int n;
        bool last;
        char next[ID_MAX]; /* where the next page begins */
};

/* The id after this one. */
static void id_after(char out[ID_MAX], const char *id)
{
        char *dash;
        unsigned long long ms = strtoull(id, &dash, 10), seq = *dash == '-' ? strtoull(dash + 1, NULL, 10) : 0;
        if (++seq == 0)
                ms++;
        snprintf(out, ID_MAX, "%llu-%llu", ms, seq);
}

/* XPENDING's rows: [id, consumer, idle, deliveries]. */
static int read_page(struct source *src, struct page *p)
{
        char count[16];
        snprintf(count, sizeof(count), "%d", PAGE);
        struct redis_arg a[] = {redis_arg_z("XPENDING"), redis_arg_z(src->stream), redis_arg_z(src->b->group),
                                redis_arg_z(p->next),    redis_arg_z("+"),         redis_arg_z(count)};
        redisReply *reply = NULL;
        int r = source_do(src, "cannot list pending entries", 1, a, 6, &reply);
        if (r)
                return r;
        p->n = 0;
        p->last = reply->type != REDIS_REPLY_ARRAY || reply->elements < PAGE;
        for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements && i < PAGE; i++) {
                const redisReply *row = reply->element[i];
                if (row->type != REDIS_REPLY_ARRAY || row->elements < 3 || row->element[0]->len >= ID_MAX)
                        continue;
                const char *id = row->element[0]->str;
                id_after(p->next, id);
                if (row->element[2]->integer >= src->b->processing_ms && !map_get(&src->known, str_of(id)))
                        snprintf(p->ids[p->n++], ID_MAX, "%s", id);
        }
        freeReplyObject(reply);
        return 0;
}

/* Is the entry in the stream no more? Then it is acknowledged. */
static int drop_if_gone(struct source *src, const char *id)
{
        struct redis_arg range[] = {redis_arg_z("XRANGE"), redis_arg_z(src->stream), redis_arg_z(id), redis_arg_z(id)};
        struct redis_arg ack[] = {redis_arg_z("XACK"), redis_arg_z(src->stream), redis_arg_z(src->b->group), redis_arg_z(id)};
        redisReply *reply = NULL;
        int r = source_do(src, "cannot look up an entry", 1, range, 4, &reply);
        bool gone = r == 0 && reply->type == REDIS_REPLY_ARRAY && reply->elements == 0;
        freeReplyObject(reply);
        reply = NULL;
        if (gone)
                r = source_do(src, "cannot acknowledge", 1, ack, 4, &reply);
        freeReplyObject(reply);
        return r;
}

static bool holds(const redisReply *entries, const char *id)
{
        for (size_t i = 0; i < entries->elements; i++) {
                const redisReply *x = entries->element[i];
                if (x->type == REDIS_REPLY_ARRAY && x->elements == 2 && x->element[0]->str && strcmp(x->element[0]->str, id) == 0)
                        return true;
        }
        return false;
}

static int claim(struct source *src, const struct page *p)
{
        char idle[24];
        snprintf(idle, sizeof(idle), "%lld", (long long)src->b->processing_ms);
        struct redis_arg a[HEAD_ARGS + PAGE] = {redis_arg_z("XCLAIM"), redis_arg_z(src->stream), redis_arg_z(src->b->group),
                                                redis_arg_z(src->b->group), redis_arg_z(idle)};
        redisReply *reply = NULL;
        int n = HEAD_ARGS;
        for (int i = 0; i < p->n; i++)
                a[n++] = redis_arg_z(p->ids[i]);
        int r = source_do(src, "cannot claim pending entries", 1, a, n, &reply);
        if (r)
                return r;
        r = source_deliver(src, reply);
        for (int i = 0; reply->type == REDIS_REPLY_ARRAY && i < p->n && r == 0; i++)
                if (!holds(reply, p->ids[i]))
                        r = drop_if_gone(src, p->ids[i]);
        freeReplyObject(reply);
        return r;
}

static int reclaim(struct source *src, struct page *p)
{
        snprintf(p->next, ID_MAX, "-");
        do {
                int r = read_page(src, p);
                if (r == 0 && p->n)
                        r = claim(src, p);
                if (r)
                        return r;
        } while (!p->last);
        return 0;
}

void reclaim_fiber(void *arg)
{
        struct source *src = arg;
        double every = src->b->redeliver_ms / 1e3, first = src->b->processing_ms / 1e3;
        double next_extra = first < every ? loop_now() + first + 0.01 : INFINITY;
        struct page *p = malloc(sizeof(*p));
        while (p && reclaim(src, p) != -ECANCELED) {
                double at = loop_now() + every;
                if (next_extra < at)
                        at = next_extra, next_extra = INFINITY;
                if (fiber_sleep(fmax(at - loop_now(), 0.001)))
                        break;
        }
        if (!p)
                dapr_log(DAPR_LOG_ERROR, "stream %s: no memory to look for pending entries", src->stream);
        free(p);
}
