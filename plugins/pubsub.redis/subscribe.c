/*
 * A subscription: reads new entries of the stream for the consumer group and hands them to the runtime.
 *
 * An entry is in src->known from the moment it was read until it is acknowledged or failed. What the runtime failed stays pending at
 * the server and is claimed again (reclaim.c) once it has been idle for processingTimeout; without redelivery it is acknowledged,
 * since nobody would ever see it again. A group that is gone (a server that lost its data) is created again.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.redis/streams.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { BLOCK_MS = 5000, READ_GRACE_S = 3, METADATA_MAX = 256 };

void source_warn(struct source *src, const char *what, const char *why)
{
        if (loop_now() < src->next_error_log)
                return;
        src->next_error_log = loop_now() + WARN_EVERY_S;
        dapr_log(DAPR_LOG_WARN, "stream %s: %s: %s", src->stream, what, why);
}

int source_do(struct source *src, const char *what, int key, const struct redis_arg *argv, int argc, redisReply **ret)
{
        int r = redis_do(src->b->redis, REDIS_READ, key, argv, argc, ret);
        if (r) {
                if (r != -ECANCELED)
                        source_warn(src, what, strerror(-r));
                return r;
        }
        if ((*ret)->type != REDIS_REPLY_ERROR)
                return 0;
        source_warn(src, what, (*ret)->str);
        freeReplyObject(*ret);
        *ret = NULL;
        return DAPR_INTERNAL;
}

int source_group(struct source *src, char *err, size_t err_n)
{
        struct redis_arg a[] = {redis_arg_z("XGROUP"), redis_arg_z("CREATE"),      redis_arg_z(src->stream),
                                redis_arg_z(src->b->group), redis_arg_z("0"), redis_arg_z("MKSTREAM")};
        redisReply *reply = NULL;
        int r = redis_do(src->b->redis, REDIS_READ, 2, a, 6, &reply);
        if (r)
                return r;
        if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "BUSYGROUP", 9) != 0) {
                snprintf(err, err_n, "%s", reply->str);
                r = DAPR_INTERNAL;
        }
        freeReplyObject(reply);
        return r;
}

/* ---- one entry ---- */

static void on_done(void *arg, enum dapr_outcome outcome)
{
        struct entry *e = arg;
        struct source *src = e->src;
        fsem_give(&src->b->workers);
        if (outcome == DAPR_ACKED || (outcome == DAPR_NACKED && !redelivers(src->b))) {
                list_add_tail(&src->done, &e->node);
                cond_signal(&src->have_done);
                return;
        }
        if (outcome == DAPR_HANDED_BACK) {
                list_add_tail(&src->back, &e->node);
                return;
        }
        map_del(&src->known, str_of(e->id));
        free(e);
}

/* NULL: no memory, or the id is already ours. */
static struct entry *entry_new(struct source *src, const redisReply *id)
{
        struct entry *e = id->len < ID_MAX && !map_get(&src->known, str_n(id->str, id->len)) ? calloc(1, sizeof(*e)) : NULL;
        if (!e)
                return NULL;
        memcpy(e->id, id->str, id->len);
        e->src = src;
        if (map_set(&src->known, str_of(e->id), e)) {
                free(e);
                return NULL;
        }
        return e;
}

static struct dapr_kvs read_metadata(struct source *src, struct arena *a, const redisReply *text, const char *id)
{
        struct json_reader r;
        struct str key, value;
        struct dapr_kv *v = arena_alloc(a, METADATA_MAX * sizeof(*v));
        size_t n = 0;
        json_read_init(&r, str_n(text->str, text->len));
        bool good = v && json_enter_object(&r);
        while (good && n < METADATA_MAX && json_next_member(&r, a, &key)) {
                good = json_read_string(&r, a, &value);
                if (!good)
                        break;
                v[n] = (struct dapr_kv){arena_strdup(a, key), arena_strdup(a, value)};
                good = v[n].key && v[n].value;
                n++;
        }
        if (!good || r.error) {
                source_warn(src, "metadata of an entry is no JSON object of strings", id);
                n = 0;
        }
        return (struct dapr_kvs){v, n};
}

/* 0, or -ECANCELED (the entry is in src->back). */
static int deliver_entry(struct source *src, struct entry *e)
{
        const redisReply *fields = e->fields;
        struct dapr_message m = {.data = {"", 0}};
        struct arena a;
        arena_init(&a, 0);
        for (size_t i = 0; fields->type == REDIS_REPLY_ARRAY && i + 1 < fields->elements; i += 2) {
                const redisReply *k = fields->element[i], *v = fields->element[i + 1];
                if (k->len == 4 && memcmp(k->str, "data", 4) == 0)
                        m.data = (struct dapr_bytes){v->str, v->len};
                else if (k->len == 8 && memcmp(k->str, "metadata", 8) == 0)
                        m.metadata = read_metadata(src, &a, v, e->id);
        }
        int r = fsem_take(&src->b->workers);
        if (!r) {
                while ((r = dapr_deliver(src->sub, &m, on_done, e)) == -ENOMEM)
                        if (fiber_sleep(0.1))
                                break;
                if (r)
                        fsem_give(&src->b->workers);
        }
        arena_fini(&a);
        if (r)
                list_add_tail(&src->back, &e->node);
        return r ? -ECANCELED : 0;
}

int source_deliver(struct source *src, const redisReply *entries)
{
        struct list batch;
        int r = 0;
        list_init(&batch);
        /* All are ours from here on: none is claimed again while the first ones wait for the app. */
        for (size_t i = 0; entries->type == REDIS_REPLY_ARRAY && i < entries->elements; i++) {
                const redisReply *x = entries->element[i];
                if (x->type != REDIS_REPLY_ARRAY || x->elements != 2 || x->element[0]->type != REDIS_REPLY_STRING)
                        continue;
                struct entry *e = entry_new(src, x->element[0]);
                if (!e)
                        continue;
                e->fields = x->element[1];
                list_add_tail(&batch, &e->node);
        }
        while (!list_is_empty(&batch)) {
                struct entry *e = list_entry(batch.next, struct entry, node);
                list_del(&e->node);
                if (!r)
                        r = deliver_entry(src, e);
                else
                        list_add_tail(&src->back, &e->node);
        }
        return r;
}

/* ---- the stream ---- */

static int read_new(struct source *src)
{
        struct broker *b = src->b;
        char count[24], block[24];
        snprintf(count, sizeof(count), "%lld", (long long)b->queue_depth);
        snprintf(block, sizeof(block), "%d", BLOCK_MS);
        struct redis_arg a[] = {redis_arg_z("XREADGROUP"), redis_arg_z("GROUP"), redis_arg_z(b->group), redis_arg_z(b->group),
                                redis_arg_z("COUNT"),      redis_arg_z(count),   redis_arg_z("BLOCK"),  redis_arg_z(block),
                                redis_arg_z("STREAMS"),    redis_arg_z(src->stream), redis_arg_z(">")};
        redisReply *reply = NULL;
        char err[256] = "";
        int r = redis_do(src->reader, REDIS_READ, 9, a, 11, &reply);
        if (r)
                return r;
        if (reply->type == REDIS_REPLY_ERROR) {
                bool lost = strncmp(reply->str, "NOGROUP", 7) == 0;
                source_warn(src, lost ? "the server has lost the group, which is created again" : "cannot read", reply->str);
                r = lost ? source_group(src, err, sizeof(err)) : -EIO;
        } else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 && reply->element[0]->elements == 2) {
                r = source_deliver(src, reply->element[0]->element[1]);
        }
        freeReplyObject(reply);
        return r > 0 ? -EIO : r;
}

static void read_until_end(struct source *src)
{
        double pause = 0.05;
        while (!dapr_subscription_is_ended(src->sub)) {
                int r = read_new(src);
                if (r == 0) {
                        pause = 0.05;
                        continue;
                }
                if (r == -ECANCELED)
                        return;
                source_warn(src, "cannot read", strerror(-r));
                if (fiber_sleep(pause))
                        return;
                pause = fmin(pause * 2, 2);
        }
}

int streams_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic)
{
        struct broker *b = instance;
        struct source src = {.b = b, .sub = s, .stream = topic->name};
        char err[256] = "";
        list_init(&src.done);
        list_init(&src.back);
        cond_init(&src.have_done);
        if (!b->group)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis streams: consumerID is empty: name the consumer group");
        int r = source_group(&src, err, sizeof(err));
        if (r)
                return dapr_fail(c, r < 0 ? DAPR_UNAVAILABLE : r, "redis streams: %s", r < 0 ? strerror(-r) : err);
        scope_init(&src.helpers);
        r = redis_clone(b->redis, BLOCK_MS / 1e3 + READ_GRACE_S, &src.reader);
        if (!r)
                r = fiber_go(&src.helpers, "settle", settle_fiber, &src);
        if (!r && redelivers(b))
                r = fiber_go(&src.helpers, "reclaim", reclaim_fiber, &src);
        if (!r) {
                dapr_subscribed(s);
                read_until_end(&src);
                r = dapr_subscription_wait(s);
        }
        fiber_shield_begin();
        scope_cancel(&src.helpers);
        scope_join(&src.helpers);
        redis_close(src.reader);
        settle_rest(&src);
        fiber_shield_end();
        map_fini(&src.known);
        return r;
}
