/* bindings.redis: an output binding on the keys of a Redis server. The key stands in the request's metadata. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/binding/metadata.h"
#include "plugins/shared/redis/redis.h"

enum { ARGS_MAX = 3 };
static const char *const operations[] = {"create", "delete", "get", "increment", NULL};

static int keys_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct redis_settings s;
        struct redis *redis;
        int r = redis_settings_read(c, md, &s);
        if (!r)
                r = redis_open(c, &s, &redis);
        if (!r)
                *instance = redis;
        return r;
}

static void keys_close(void *instance)
{
        redis_close(instance);
}

static int keys_ping(struct dapr_call *c, void *instance)
{
        return redis_ping(c, instance);
}

static int expire(struct dapr_call *c, struct redis *redis, const char *key, int64_t ttl_ms)
{
        const struct redis_arg a[] = {redis_arg_z("EXPIRE"), redis_arg_z(key), redis_arg_i(c, ttl_ms / 1000)};
        redisReply *reply;
        int r = redis_run(c, redis, REDIS_WRITE, 1, a, ARGS_MAX, &reply);
        if (!r)
                freeReplyObject(reply);
        return r;
}

static int take_value(struct dapr_call *c, const redisReply *reply, struct dapr_invoke_result *out)
{
        if (reply->type != REDIS_REPLY_STRING)
                return 0; /* there is no such key */
        out->data = dapr_copy(c, reply->str, reply->len);
        return out->data.p ? 0 : -ENOMEM;
}

static int keys_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        const char *key = dapr_kvs_get(in->metadata, "key"), *then = dapr_kvs_get(in->metadata, "delete");
        bool creates = strcmp(in->operation, "create") == 0, reads = strcmp(in->operation, "get") == 0;
        bool increments = strcmp(in->operation, "increment") == 0, takes = reads && then && strcmp(then, "true") == 0;
        struct redis_arg a[ARGS_MAX] = {redis_arg_z(creates ? "SET" : takes ? "GETDEL" : reads ? "GET" : increments ? "INCR" : "DEL")};
        int64_t ttl_ms = -1;
        redisReply *reply;
        if (!key || !*key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis binding: missing key in request metadata");
        if (!creates && !reads && !increments && strcmp(in->operation, "delete") != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid operation type: %s", in->operation);
        int r = creates || increments ? binding_ttl(c, in->metadata, &ttl_ms) : 0;
        if (r)
                return r;
        a[1] = redis_arg_z(key);
        a[2] = (struct redis_arg){in->data.p, in->data.n};
        r = redis_run(c, instance, reads && !takes ? REDIS_READ : REDIS_WRITE, 1, a, creates ? ARGS_MAX : ARGS_MAX - 1, &reply);
        if (r)
                return r;
        if (reads)
                r = take_value(c, reply, out);
        freeReplyObject(reply);
        return r || ttl_ms < 0 ? r : expire(c, instance, key, ttl_ms);
}

static const struct dapr_binding_ops ops = {
        .mode = DAPR_FIBER,
        .init = keys_init,
        .close = keys_close,
        .ping = keys_ping,
        .operations = operations,
        .invoke = keys_invoke,
};
static const struct dapr_component_type types[] = {{.type = "bindings.redis", .versions = "v1", .binding = &ops}};
static const struct dapr_plugin plugin = {.name = "bindings.redis", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
