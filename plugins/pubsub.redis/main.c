/*
 * pubsub.redis: topics are Redis streams. This file: the component and publishing; subscriptions are in subscribe.c, settle.c and
 * reclaim.c. Publishing shares one pipelined connection; a command that may or may not have reached the server is sent again: a
 * message may then stand in the stream twice, which at-least-once allows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.redis/streams.h"
#include "plugins/shared/options/options.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { XADD_ARGS = 10 };

/* ---- settings ---- */

/* A duration; a bare number means milliseconds here, for reasons of age. */
static int read_ms(struct dapr_call *c, const struct dapr_metadata *md, const char *field, int64_t dflt, int64_t *ret)
{
        const char *v = dapr_md_string(md, field);
        *ret = dflt;
        if (!v || !*v || (parse_int64(str_of(v), ret) == 0 && *ret >= 0))
                return 0;
        if (parse_duration(str_of(v), ret) || *ret < 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                 "redis client configuration error: %s is %s: write a duration such as 500ms or 15s, or milliseconds", field, v);
        *ret = *ret > 0 && *ret < 1000000 ? 1 : *ret / 1000000;
        return 0;
}

static int read_settings(struct dapr_call *c, const struct dapr_metadata *md, struct broker *b)
{
        int64_t workers;
        int r = read_ms(c, md, "processingTimeout", 60000, &b->processing_ms);
        if (!r)
                r = read_ms(c, md, "redeliverInterval", 15000, &b->redeliver_ms);
        if (!r)
                r = option_count(c, md, "redis client configuration error", "queueDepth", 100, INT64_MAX, &b->queue_depth);
        if (!r)
                r = option_count(c, md, "redis client configuration error", "concurrency", 10, INT64_MAX, &workers);
        if (!r)
                r = option_count(c, md, "redis client configuration error", "maxLenApprox", 0, INT64_MAX, &b->max_len);
        if (r)
                return r;
        b->ttl_ms = dapr_md_duration_ns(md, "streamTTL") / 1000000;
        if (b->queue_depth < 1)
                b->queue_depth = 1;
        if (b->queue_depth > QUEUE_DEPTH_MAX)
                b->queue_depth = QUEUE_DEPTH_MAX;
        fsem_init(&b->workers, workers < 1 ? 1 : workers > 1000000 ? 1000000 : (long)workers);
        const char *group = dapr_md_string(md, "consumerID");
        b->group = group && *group ? strdup(group) : NULL;
        return group && *group && !b->group ? -ENOMEM : 0;
}

/* ---- the component ---- */

static void streams_close(void *instance)
{
        struct broker *b = instance;
        if (!b)
                return;
        redis_close(b->redis);
        free(b->group);
        free(b);
}

static int streams_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct broker *b = calloc(1, sizeof(*b));
        struct redis_settings s;
        if (!b)
                return -ENOMEM;
        int r = read_settings(c, md, b);
        if (!r)
                r = redis_settings_read(c, md, &s);
        if (!r)
                r = redis_open(c, &s, &b->redis);
        if (r) {
                streams_close(b);
                return r;
        }
        *instance = b;
        return 0;
}

static int streams_ping(struct dapr_call *c, void *instance)
{
        struct broker *b = instance;
        return redis_ping(c, b->redis);
}

/* ---- publishing ---- */

static int metadata_json(struct dapr_call *c, struct dapr_kvs md, struct dapr_bytes *ret)
{
        struct buf out = {0};
        struct json_writer w;
        json_write_init(&w, &out);
        json_object_begin(&w);
        for (size_t i = 0; i < md.n; i++)
                json_kv(&w, md.v[i].key, str_of(md.v[i].value));
        json_object_end(&w);
        *ret = out.failed ? (struct dapr_bytes){0} : dapr_copy(c, out.p, out.len);
        buf_fini(&out);
        return ret->p ? 0 : -ENOMEM;
}

static int streams_publish(struct dapr_call *c, void *instance, const struct dapr_publish *in)
{
        struct broker *b = instance;
        struct redis_arg a[XADD_ARGS] = {redis_arg_z("XADD"), redis_arg_z(in->topic)};
        int n = 2;
        struct dapr_bytes json;
        if (b->max_len > 0 || b->ttl_ms > 0) {
                a[n++] = redis_arg_z(b->max_len > 0 ? "MAXLEN" : "MINID");
                a[n++] = redis_arg_z("~");
                const char *min_id = dapr_printf(c, "%lld-1", (long long)(wall_ns() / 1000000 - b->ttl_ms));
                a[n++] = b->max_len > 0 ? redis_arg_i(c, b->max_len) : redis_arg_z(min_id ? min_id : "0");
        }
        a[n++] = redis_arg_z("*");
        a[n++] = redis_arg_z("data");
        a[n++] = (struct redis_arg){in->data.p, in->data.n};
        if (in->metadata.n) {
                if (metadata_json(c, in->metadata, &json))
                        return -ENOMEM;
                a[n++] = redis_arg_z("metadata");
                a[n++] = (struct redis_arg){json.p, json.n};
        }
        redisReply *reply = NULL;
        int r = redis_do(b->redis, REDIS_READ, 1, a, n, &reply);
        if (r)
                return r == -ENOMEM || r == -ECANCELED ? r : dapr_fail(c, DAPR_UNAVAILABLE, "redis streams: error from publish: %s", strerror(-r));
        if (reply->type == REDIS_REPLY_ERROR)
                r = dapr_fail(c, DAPR_INTERNAL, "redis streams: error from publish: %s", reply->str);
        freeReplyObject(reply);
        return r;
}

static const struct dapr_pubsub_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_PAUSE,
        .init = streams_init,
        .close = streams_close,
        .ping = streams_ping,
        .publish = streams_publish,
        .bulk_at_once = 64,
        .subscribe = streams_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "pubsub.redis", .versions = "v1", .pubsub = &ops}};
static const struct dapr_plugin plugin = {.name = "pubsub.redis", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
