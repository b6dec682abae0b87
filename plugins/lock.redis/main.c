/*
 * lock.redis: a lock is a key with its owner as value and its term as time to live. Neither operation is sent twice: an outcome that
 * got lost with its connection is told as a failure, and the term ends what may have been taken.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/redis/redis.h"

/* -1: nobody holds it; -2: somebody else does. */
static const char unlock_script[] = "local v = redis.call('get', KEYS[1])\n"
                                    "if v == false then return -1 end\n"
                                    "if v ~= ARGV[1] then return -2 end\n"
                                    "return redis.call('del', KEYS[1])";

static void locks_close(void *instance)
{
        redis_close(instance);
}

static int locks_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct redis_settings s;
        struct redis *redis = NULL;
        int r = redis_settings_read(c, md, &s);
        if (r)
                return r;
        if (s.type == REDIS_CLUSTER) {
                redis_settings_fini(&s);
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "this component does not support connecting to Redis Cluster");
        }
        bool failover = s.failover;
        r = redis_open(c, &s, &redis);
        if (r)
                return r;
        if (redis_replicas(redis) > 0 && !failover) {
                redis_close(redis);
                return dapr_fail(c, DAPR_FAILED_PRECONDITION, "replication is not supported");
        }
        *instance = redis;
        return 0;
}

static int locks_ping(struct dapr_call *c, void *instance)
{
        return redis_ping(c, instance);
}

static int locks_try(struct dapr_call *c, void *instance, const struct dapr_lock *in, bool *taken)
{
        const struct redis_arg a[] = {redis_arg_z("SET"), redis_arg_z(in->resource), redis_arg_z(in->owner), redis_arg_z("EX"),
                                      redis_arg_i(c, in->expiry_s), redis_arg_z("NX")};
        redisReply *reply = NULL;
        int r = redis_run(c, instance, REDIS_WRITE, 1, a, sizeof a / sizeof *a, &reply);
        if (r)
                return r;
        *taken = reply->type == REDIS_REPLY_STATUS;
        freeReplyObject(reply);
        return 0;
}

static int locks_unlock(struct dapr_call *c, void *instance, const struct dapr_lock *in, enum dapr_unlock *out)
{
        const struct redis_arg a[] = {redis_arg_z("EVAL"), redis_arg_z(unlock_script), redis_arg_z("1"), redis_arg_z(in->resource),
                                      redis_arg_z(in->owner)};
        redisReply *reply = NULL;
        int r = redis_run(c, instance, REDIS_WRITE, 3, a, sizeof a / sizeof *a, &reply);
        if (r)
                return r;
        if (reply->type != REDIS_REPLY_INTEGER)
                *out = DAPR_UNLOCK_FAILED;
        else if (reply->integer >= 0)
                *out = DAPR_UNLOCKED;
        else
                *out = reply->integer == -1 ? DAPR_LOCK_MISSING : DAPR_LOCK_OF_OTHERS;
        freeReplyObject(reply);
        return 0;
}

static const struct dapr_lock_ops ops = {
        .mode = DAPR_FIBER,
        .init = locks_init,
        .close = locks_close,
        .ping = locks_ping,
        .try_lock = locks_try,
        .unlock = locks_unlock,
};
static const struct dapr_component_type types[] = {{.type = "lock.redis", .versions = "v1", .lock = &ops}};
static const struct dapr_plugin plugin = {.name = "lock.redis", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
