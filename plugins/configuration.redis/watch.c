/*
 * Changes, by keyspace notifications. A watch has a connection of its own, subscribed to the channels of its keys; what comes there only
 * notes the key as pending, so a slow app costs one entry a key. The watch's fiber reads the present value of each pending key and hands
 * it on. When the connection breaks it subscribes again and notes every key, since changes may have been missed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/configuration.redis/store.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"
#include "sdk/base/map.h"

enum { PENDING_MAX = 100000 }; /* keys */
static const double PING_EVERY_S = 5, RETRY_MIN_S = 0.05, RETRY_MAX_S = 2;

struct watch {
        struct dapr_call *c;
        struct store *s;
        struct dapr_config_watch *w;
        const struct dapr_config_query *in;
        struct redis *own;
        struct map pending;
        struct cond changed;
        bool broken, overflow;
        char prefix[40]; /* of channels */
};

static int note(void *arg, const char *key)
{
        static char yes;
        struct watch *x = arg;
        if (x->pending.count >= PENDING_MAX && !map_get(&x->pending, str_of(key)))
                return -ENOBUFS;
        return map_set(&x->pending, str_of(key), &yes);
}

/* ["message", channel, event] or ["pmessage", pattern, channel, event] */
static void on_message(void *arg, const redisReply *m)
{
        struct watch *x = arg;
        const char *channel = m ? m->element[m->elements - 2]->str : NULL;
        if (!m)
                x->broken = true;
        else if (channel && strncmp(channel, x->prefix, strlen(x->prefix)) == 0 && note(x, channel + strlen(x->prefix)))
                x->overflow = true;
        cond_broadcast(&x->changed);
}

static int command(struct redis *r, const struct redis_arg *argv, int argc, redisReply **ret)
{
        int e = redis_do(r, REDIS_READ, -1, argv, argc, ret);
        if (e || (*ret)->type != REDIS_REPLY_ERROR)
                return e;
        dapr_log(DAPR_LOG_WARN, "redis answered %.*s: %s", (int)argv[0].n, (const char *)argv[0].p, (*ret)->str);
        freeReplyObject(*ret);
        *ret = NULL;
        return -EPROTO;
}

/* K: by key; g, $, x, e: generic commands, strings, expiry, eviction. What others have set stays. Where CONFIG is forbidden the
 * server may be set up already: then only a line in the log. */
static void turn_on_notifications(struct watch *x)
{
        static const char need[] = "Kg$xe";
        const struct redis_arg get[] = {redis_arg_z("CONFIG"), redis_arg_z("GET"), redis_arg_z("notify-keyspace-events")};
        char flags[64];
        redisReply *reply = NULL;
        if (command(x->s->redis, get, 3, &reply))
                return;
        const char *have = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[1]->str ? reply->element[1]->str : "";
        bool all = strchr(have, 'A') != NULL, enough = true;
        size_t n = (size_t)snprintf(flags, sizeof flags - sizeof need, "%s", have);
        for (const char *p = need; *p; p++)
                if (!strchr(have, *p) && (*p == 'K' || !all)) {
                        flags[n++] = *p;
                        enough = false;
                }
        flags[n] = '\0';
        freeReplyObject(reply);
        const struct redis_arg set[] = {redis_arg_z("CONFIG"), redis_arg_z("SET"), redis_arg_z("notify-keyspace-events"), redis_arg_z(flags)};
        if (!enough && command(x->s->redis, set, 4, &reply) == 0)
                freeReplyObject(reply);
}

static int subscribe_channel(struct watch *x, const char *verb, const char *key)
{
        char *channel = NULL;
        redisReply *reply = NULL;
        if (asprintf(&channel, "%s%s", x->prefix, key) < 0)
                return -ENOMEM;
        const struct redis_arg a[] = {redis_arg_z(verb), redis_arg_z(channel)};
        int r = command(x->own, a, 2, &reply);
        if (r == 0)
                freeReplyObject(reply);
        free(channel);
        return r;
}

static int subscribe(struct watch *x)
{
        int r = 0;
        x->broken = false;
        turn_on_notifications(x);
        if (!x->in->n)
                r = subscribe_channel(x, "PSUBSCRIBE", "*");
        for (size_t i = 0; r == 0 && i < x->in->n; i++)
                r = subscribe_channel(x, "SUBSCRIBE", x->in->keys[i]);
        return r ? r : x->broken ? -ECONNRESET : 0;
}

static int note_all(struct watch *x)
{
        int r = x->in->n ? 0 : store_each_key(x->s, note, x);
        for (size_t i = 0; r == 0 && i < x->in->n; i++)
                r = note(x, x->in->keys[i]);
        return r == -ENOBUFS ? 0 : r; /* that many keys are not followed */
}

/* ---- handing on ---- */

static int tell(struct watch *x, const char *key)
{
        const struct redis_arg a[] = {redis_arg_z("GET"), redis_arg_z(key)};
        struct dapr_config_item item = {.key = key};
        redisReply *reply = NULL;
        int r = redis_do(x->s->redis, REDIS_READ, 1, a, 2, &reply);
        if (r)
                return r;
        if (!item_read(key, reply, &item))
                item = (struct dapr_config_item){.key = key}; /* gone, or no string */
        r = dapr_config_changed(x->w, &item, 1);
        freeReplyObject(reply);
        return r;
}

/* Takes one key out, tells it, until none is left. A key whose value cannot be read now stays. */
static int tell_pending(struct watch *x)
{
        int r = 0;
        while (r == 0 && x->pending.count) {
                char *key = strdup(map_next(&x->pending, NULL)->key);
                if (!key)
                        return -ENOMEM;
                map_del(&x->pending, str_of(key));
                r = tell(x, key);
                if (r)
                        note(x, key);
                free(key);
        }
        return r;
}

static int ping(struct watch *x)
{
        const struct redis_arg a = redis_arg_z("PING");
        redisReply *reply = NULL;
        int r = command(x->own, &a, 1, &reply);
        if (r == 0)
                freeReplyObject(reply);
        return r;
}

/* Until the connection breaks or the watch ends (-ECANCELED). */
static int follow(struct watch *x)
{
        int r = 0;
        while (r == 0 && !x->broken) {
                if (x->overflow) {
                        x->overflow = false;
                        dapr_log(DAPR_LOG_WARN, "more than %d keys changed while the app was busy; some changes are not told", PENDING_MAX);
                }
                r = tell_pending(x);
                if (r || x->broken)
                        break;
                if (x->pending.count)
                        continue;
                r = cond_wait_until(&x->changed, loop_now() + PING_EVERY_S);
                if (r == -ETIMEDOUT)
                        r = ping(x);
        }
        return r;
}

static int run(struct watch *x)
{
        double pause = RETRY_MIN_S;
        int r = subscribe(x);
        if (r)
                return r == -ECANCELED ? r : r == -EPROTO ? dapr_fail(x->c, DAPR_INTERNAL, "redis refused the subscription") : redis_fail(x->c, x->own, r);
        r = dapr_config_subscribed(x->w);
        while (r == 0 || (r != -ECANCELED && r != -ENOMEM)) {
                double began = loop_now();
                r = follow(x);
                if (r == -ECANCELED || r == -ENOMEM)
                        break;
                pause = loop_now() - began > RETRY_MAX_S ? RETRY_MIN_S : pause * 2 > RETRY_MAX_S ? RETRY_MAX_S : pause * 2;
                r = dapr_sleep(pause);
                if (r == 0)
                        r = subscribe(x);
                if (r == 0)
                        r = note_all(x);
        }
        return r;
}

int store_subscribe(struct dapr_call *c, void *instance, struct dapr_config_watch *w, const struct dapr_config_query *in)
{
        struct store *s = instance;
        struct watch x = {.c = c, .s = s, .w = w, .in = in};
        if (s->cluster)
                return dapr_fail(c, DAPR_FAILED_PRECONDITION, "changes cannot be followed in a Redis Cluster: its notifications stay on single nodes");
        cond_init(&x.changed);
        snprintf(x.prefix, sizeof x.prefix, "__keyspace@%d__:", s->db);
        int r = redis_clone(s->redis, 3, &x.own);
        if (r)
                return r;
        redis_on_message(x.own, on_message, &x);
        r = run(&x);
        fiber_shield_begin();
        redis_close(x.own);
        fiber_shield_end();
        map_fini(&x.pending);
        return r;
}
