/*
 * The PullMessages stream of a subscription: opened for one life of the plugin, closed by the fiber that reads it. Acknowledgements are
 * sent by others, under a lock that closing takes too.
 */
#include "kernel/blocks/pubsub/pull.h"

#include <stdlib.h>

#include "dapr/proto/components/v1/pubsub.pb-c.h"
#include "sdk/base/loop.h"

void pull_unref(struct pull *p)
{
        struct arena a;

        if (--p->refs)
                return;
        a = p->arena;
        free(p);
        arena_fini(&a);
}

static bool is_flow_control(const char *key)
{
        return strcmp(key, "maxConcurrency") == 0 || strcmp(key, "maxBytesInFlight") == 0 || strcmp(key, "orderingKey") == 0 ||
               strcmp(key, "subscribeTimeout") == 0;
}

static struct str pack_topic(struct arena *a, const struct subscription *s)
{
        Dapr__Proto__Components__V1__PullMessagesRequest req = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
        Dapr__Proto__Components__V1__Topic topic = DAPR__PROTO__COMPONENTS__V1__TOPIC__INIT;
        Dapr__Proto__Components__V1__Topic__MetadataEntry *e;
        const struct subscription_spec *spec = s->spec;

        topic.name = s->broker_topic.p;
        topic.metadata = arena_alloc(a, (spec->n_metadata + 2) * sizeof *topic.metadata);
        for (size_t i = 0; topic.metadata && i < spec->n_metadata; i++) {
                if (is_flow_control(spec->metadata[i].key))
                        continue;
                e = arena_alloc(a, sizeof *e);
                if (!e)
                        return STR_NULL;
                dapr__proto__components__v1__topic__metadata_entry__init(e);
                e->key = spec->metadata[i].key;
                e->value = spec->metadata[i].value;
                topic.metadata[topic.n_metadata++] = e;
        }
        if (topic.metadata && !s->foreign && (e = arena_alloc(a, sizeof *e))) {
                dapr__proto__components__v1__topic__metadata_entry__init(e);
                e->key = "microdapr.maxInFlight";
                e->value = arena_printf(a, "%zu", s->max_messages);
                if (e->value)
                        topic.metadata[topic.n_metadata++] = e;
        }
        req.topic = &topic;
        return topic.metadata ? pb_pack(a, &req.base) : STR_NULL;
}

static const char *open_error(struct arena *a, const struct subscription *s, const struct rpc_status *st)
{
        const char *text = s->foreign ? arena_printf(a, "rpc error: code = %s desc = %.*s", rpc_code_name(st->code), STR_FMT(st->message))
                                      : arena_strdup(a, st->message);
        return text ? text : "out of memory";
}

/* Parks until the plugin says that the subscription stands, which ours do by the stream's headers; others may not before the first
 * message. Not for ever: a broker or plugin that is stuck would keep the subscription silent and nobody would know. */
static int wait_subscribed(struct subscription *s, struct pull *p, struct arena *a, const char **ret_err)
{
        double limit = loop_now_exact() + s->subscribe_s, old;
        int r;

        if (s->foreign)
                return 0;
        old = fiber_set_deadline(limit);
        r = rpc_headers(p->call);
        fiber_restore_deadline(old);
        if (r && loop_now_exact() >= limit)
                *ret_err = arena_printf(a, "the broker has not confirmed the subscription within %gs", s->subscribe_s);
        return r;
}

int pull_open(struct subscription *s, struct component *c, struct arena *a, struct pull **ret, const char **ret_err)
{
        struct pull *p = c ? calloc(1, sizeof *p) : NULL;
        struct rpc_status st = {0};
        struct str topic;

        *ret_err = c ? "out of memory" : arena_printf(a, "pubsub '%s' not found", s->pubsub);
        if (!p)
                return -1;
        p->refs = 1;
        p->sub = s;
        list_init(&p->node);
        fmutex_init(&p->sending);
        topic = pack_topic(&p->arena, s);
        if (!topic.p || component_open(c, &p->arena, PUBSUB_SERVICE "PullMessages", &p->call, &st)) {
                if (topic.p)
                        *ret_err = open_error(a, s, &st);
                pull_unref(p);
                return -1;
        }
        p->call->flags |= RPC_REUSE;
        *ret_err = NULL;
        if (rpc_send(p->call, topic) || wait_subscribed(s, p, a, ret_err)) {
                rpc_cancel(p->call);
                rpc_finish(p->call);
                if (!*ret_err)
                        *ret_err = open_error(a, s, &p->call->status);
                pull_unref(p);
                return -1;
        }
        *ret = p;
        return 0;
}

void pull_close(struct subscription *s, struct pull *p)
{
        p->dead = true;
        rpc_cancel(p->call);
        fiber_shield_begin();
        fmutex_lock(&p->sending);
        rpc_finish(p->call);
        fmutex_unlock(&p->sending);
        fiber_shield_end();
        list_del(&p->node);
        if (s->pull == p)
                s->pull = NULL;
        pull_unref(p);
        cond_broadcast(&s->changed);
}
