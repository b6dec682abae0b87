/*
 * state.redis: the reference's layout, one hash a key with the fields data, version and (after a first-write) first-write, so that
 * both read each other's values. Each write is one Lua script: check of the ETag, value, version and TTL in one round trip.
 * A transaction is one script over all its keys, which checks every ETag before it changes anything: unlike a plain MULTI it
 * is applied whole or not at all. In a cluster its keys must share a hash slot ({tag}).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/redis/redis.h"
#include "plugins/state.redis/store.h"

/* KEYS: one a operation. ARGV: five a operation: kind (s|d), expected version ("" = any), value, first-write (1|0), ttl ("" = leave,
 * <= 0 = remove, else seconds). A write under first-write without an ETag is refused on a key that was itself written so. */
static const char script[] =
        "local n = #KEYS\n"
        "for i = 1, n do\n"
        "  local b = (i - 1) * 5\n"
        "  local kind, want = ARGV[b + 1], ARGV[b + 2]\n"
        "  local t = redis.call('TYPE', KEYS[i]).ok\n"
        "  if t == 'hash' then\n"
        "    local have = redis.call('HGET', KEYS[i], 'version')\n"
        "    if have and have ~= '' then\n"
        "      if want ~= '' then\n"
        "        if want ~= have then return redis.error_reply('ETAGMISMATCH ' .. i) end\n"
        "      elseif kind == 's' and redis.call('HEXISTS', KEYS[i], 'first-write') == 1 then\n"
        "        return redis.error_reply('ETAGMISMATCH ' .. i)\n"
        "      end\n"
        "    end\n"
        "  end\n"
        "end\n"
        "for i = 1, n do\n"
        "  local b = (i - 1) * 5\n"
        "  local k = KEYS[i]\n"
        "  if ARGV[b + 1] == 'd' then\n"
        "    redis.call('DEL', k)\n"
        "  else\n"
        "    if redis.call('TYPE', k).ok ~= 'hash' then redis.call('DEL', k) end\n"
        "    redis.call('HSET', k, 'data', ARGV[b + 3])\n"
        "    if ARGV[b + 4] == '1' then redis.call('HSET', k, 'first-write', 0) end\n"
        "    redis.call('HINCRBY', k, 'version', 1)\n"
        "    local ttl = ARGV[b + 5]\n"
        "    if ttl ~= '' then\n"
        "      if tonumber(ttl) > 0 then redis.call('EXPIRE', k, ttl) else redis.call('PERSIST', k) end\n"
        "    end\n"
        "  end\n"
        "end\n"
        "return n\n";
enum { ARGS_PER_OP = 5, WAIT_MS = 1000 };

int store_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct store *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        struct redis_settings settings;
        const char *ttl = dapr_md_string(md, "ttlInSeconds");
        int r = redis_settings_read(c, md, &settings);
        if (!r && ttl && *ttl) {
                char *end;
                s->default_ttl_s = strtoll(ttl, &end, 10);
                s->has_default_ttl = true;
                if (*end)
                        r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: ttlInSeconds is %s: write whole seconds", ttl);
        }
        const char *indexes = dapr_md_string(md, "queryIndexes");
        if (!r && indexes && *indexes)
                r = query_schemas_parse(c, s, indexes);
        if (r) {
                redis_settings_fini(&settings);
                query_schemas_free(s);
                free(s);
                return r;
        }
        r = redis_open(c, &settings, &s->redis);
        if (!r) {
                s->has_json = redis_has_module(s->redis, "ReJSON");
                r = query_schemas_register(c, s);
        }
        if (r) {
                store_close(s);
                return r;
        }
        *instance = s;
        return 0;
}

void store_close(void *instance)
{
        struct store *s = instance;
        if (!s)
                return;
        redis_close(s->redis);
        query_schemas_free(s);
        free(s);
}

static int store_ping(struct dapr_call *c, void *instance)
{
        struct store *s = instance;
        return redis_ping(c, s->redis);
}

static int read_hash(struct dapr_call *c, const redisReply *reply, struct dapr_item *out)
{
        const redisReply *data = NULL, *version = NULL;
        for (size_t i = 0; i + 1 < reply->elements; i += 2) {
                const redisReply *k = reply->element[i];
                if (k->len == 4 && memcmp(k->str, "data", 4) == 0)
                        data = reply->element[i + 1];
                else if (k->len == 7 && memcmp(k->str, "version", 7) == 0)
                        version = reply->element[i + 1];
        }
        if (!data || !version)
                return dapr_fail(c, DAPR_INTERNAL, "required hash field 'data' or 'version' was not found");
        out->found = true;
        out->value = dapr_copy(c, data->str, data->len);
        out->etag = dapr_strdup(c, version->str);
        return out->etag && (out->value.p || !out->value.n) ? 0 : -ENOMEM;
}

/* A key that is no hash: a plain string written by somebody else. */
static int get_plain(struct dapr_call *c, struct store *s, const char *key, struct dapr_item *out)
{
        struct redis_arg a[] = {redis_arg_z("GET"), redis_arg_z(key)};
        redisReply *reply = NULL;
        int r = redis_do(s->redis, REDIS_READ, 1, a, 2, &reply);
        if (r)
                return redis_fail(c, s->redis, r);
        if (reply->type == REDIS_REPLY_ERROR)
                r = dapr_fail(c, DAPR_INTERNAL, "%s", reply->str);
        else if (reply->type == REDIS_REPLY_STRING) {
                out->found = true;
                out->value = dapr_copy(c, reply->str, reply->len);
        }
        freeReplyObject(reply);
        return r;
}

int store_get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct store *s = instance;
        const char *type = dapr_kvs_get(in->metadata, "contentType");
        if (s->has_json && type && strcmp(type, "application/json") == 0)
                return json_get(c, s, in->key, out);
        struct redis_arg a[] = {redis_arg_z("HGETALL"), redis_arg_z(in->key)};
        redisReply *reply = NULL;
        int r = redis_do(s->redis, REDIS_READ, 1, a, 2, &reply);
        if (r)
                return redis_fail(c, s->redis, r);
        if (reply->type == REDIS_REPLY_ERROR)
                r = get_plain(c, s, in->key, out);
        else if (reply->type == REDIS_REPLY_ARRAY && reply->elements)
                r = read_hash(c, reply, out);
        freeReplyObject(reply);
        return r;
}

/* The version a write expects, as text: "" = any. */
static int wanted_version(struct dapr_call *c, const struct dapr_set *in, const char **ret)
{
        *ret = "";
        if (in->concurrency == DAPR_LAST_WRITE || !in->etag || !*in->etag)
                return 0;
        char *end;
        errno = 0;
        long long v = strtoll(in->etag, &end, 10);
        if (*end || errno)
                return dapr_fail(c, DAPR_ETAG_INVALID, "strconv.Atoi: parsing \"%s\": invalid syntax", in->etag);
        /* 0 means "no version known" in this layout. */
        *ret = v == 0 ? "" : dapr_printf(c, "%lld", v);
        return *ret ? 0 : -ENOMEM;
}

static int add_set(struct dapr_call *c, struct store *s, const struct dapr_set *in, struct redis_arg *key, struct redis_arg *argv)
{
        const char *want;
        int r = wanted_version(c, in, &want);
        if (r)
                return r;
        int64_t ttl = in->ttl_s;
        bool has_ttl = dapr_kvs_get(in->metadata, "ttlInSeconds") != NULL && ttl != 0;
        const char *given = dapr_kvs_get(in->metadata, "ttlInSeconds");
        if (given && strcmp(given, "0") == 0)
                has_ttl = true;
        if (!given && s->has_default_ttl) {
                ttl = s->default_ttl_s;
                has_ttl = true;
        }
        *key = redis_arg_z(in->key);
        argv[0] = redis_arg_z("s");
        argv[1] = redis_arg_z(want);
        argv[2] = (struct redis_arg){in->value.p, in->value.n};
        argv[3] = redis_arg_z(in->concurrency == DAPR_FIRST_WRITE ? "1" : "0");
        argv[4] = has_ttl ? redis_arg_i(c, ttl) : redis_arg_z("");
        return 0;
}

static void add_delete(const struct dapr_delete *in, struct redis_arg *key, struct redis_arg *argv)
{
        bool any = !in->etag || !*in->etag || strcmp(in->etag, "0") == 0;
        *key = redis_arg_z(in->key);
        argv[0] = redis_arg_z("d");
        argv[1] = redis_arg_z(any ? "" : in->etag);
        argv[2] = argv[4] = redis_arg_z("");
        argv[3] = redis_arg_z("0");
}

/* Runs the script over n prepared operations: a = EVAL script n keys… argv…, laid out by the caller. */
static int run_script(struct dapr_call *c, struct store *s, struct redis_arg *a, size_t n, redisReply **ret)
{
        a[0] = redis_arg_z("EVAL");
        a[1] = (struct redis_arg){script, sizeof(script) - 1};
        a[2] = redis_arg_i(c, (int64_t)n);
        int r = redis_do(s->redis, REDIS_WRITE, 3, a, (int)(3 + n * (1 + ARGS_PER_OP)), ret);
        return r ? redis_fail(c, s->redis, r) : 0;
}

static bool is_mismatch(const redisReply *reply)
{
        return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "ETAGMISMATCH", 12) == 0;
}

static int wait_replicas(struct dapr_call *c, struct store *s, enum dapr_consistency consistency)
{
        int replicas = redis_replicas(s->redis);
        if (consistency != DAPR_STRONG || replicas <= 0)
                return 0;
        struct redis_arg a[] = {redis_arg_z("WAIT"), redis_arg_i(c, replicas), redis_arg_i(c, WAIT_MS)};
        redisReply *reply = NULL;
        int r = redis_do(s->redis, REDIS_READ, -1, a, 3, &reply);
        if (r)
                return redis_fail(c, s->redis, r);
        freeReplyObject(reply);
        return 0;
}

int store_set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        struct store *s = instance;
        const char *type = dapr_kvs_get(in->metadata, "contentType");
        if (s->has_json && type && strcmp(type, "application/json") == 0)
                return json_set(c, s, in);
        struct redis_arg a[3 + 1 + ARGS_PER_OP];
        int r = add_set(c, s, in, &a[3], &a[4]);
        if (r)
                return r;
        redisReply *reply = NULL;
        r = run_script(c, s, a, 1, &reply);
        if (r)
                return r;
        if (is_mismatch(reply))
                r = in->etag && *in->etag ? dapr_fail(c, DAPR_ETAG_MISMATCH, "failed to set key %s", in->key)
                                          : dapr_fail(c, DAPR_INTERNAL, "failed to set key %s: it was written with first-write", in->key);
        else if (reply->type == REDIS_REPLY_ERROR)
                r = dapr_fail(c, DAPR_INTERNAL, "failed to set key %s: %s", in->key, reply->str);
        freeReplyObject(reply);
        return r ? r : wait_replicas(c, s, in->consistency);
}

int store_del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        struct store *s = instance;
        struct redis_arg a[3 + 1 + ARGS_PER_OP];
        add_delete(in, &a[3], &a[4]);
        redisReply *reply = NULL;
        int r = run_script(c, s, a, 1, &reply);
        if (r)
                return r;
        if (is_mismatch(reply))
                r = dapr_fail(c, DAPR_ETAG_MISMATCH, "failed to delete %s", in->key);
        else if (reply->type == REDIS_REPLY_ERROR)
                r = dapr_fail(c, DAPR_INTERNAL, "failed to delete key %s: %s", in->key, reply->str);
        freeReplyObject(reply);
        return r;
}

static int store_transact(struct dapr_call *c, void *instance, const struct dapr_op *ops, size_t n, struct dapr_kvs metadata)
{
        struct store *s = instance;
        if (n == 0)
                return 0;
        const char *type = dapr_kvs_get(metadata, "contentType");
        if (s->has_json && type && strcmp(type, "application/json") == 0)
                return dapr_fail(c, DAPR_UNIMPLEMENTED, "a transaction of JSON documents is not supported: leave contentType out");
        struct redis_arg *a = dapr_alloc(c, (3 + n * (1 + ARGS_PER_OP)) * sizeof(*a));
        if (!a)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                struct redis_arg *argv = &a[3 + n + i * ARGS_PER_OP];
                int r = 0;
                if (ops[i].kind == DAPR_OP_SET)
                        r = add_set(c, s, &ops[i].set, &a[3 + i], argv);
                else
                        add_delete(&ops[i].del, &a[3 + i], argv);
                if (r)
                        return r;
        }
        redisReply *reply = NULL;
        int r = run_script(c, s, a, n, &reply);
        if (r)
                return r;
        if (is_mismatch(reply)) {
                size_t at = (size_t)atoi(reply->str + 13) - 1;
                const char *key = at < n ? ops[at].kind == DAPR_OP_SET ? ops[at].set.key : ops[at].del.key : "";
                r = dapr_fail(c, DAPR_ETAG_MISMATCH, "failed to set key %s: nothing of the transaction was applied", key);
        } else if (reply->type == REDIS_REPLY_ERROR)
                r = dapr_fail(c, DAPR_INTERNAL, "%s", reply->str);
        freeReplyObject(reply);
        return r;
}

/* Bulk get: all commands go out before the first reply is awaited, because each runs on a fiber of its own. */
static const struct dapr_state_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TRANSACTIONAL | DAPR_FEATURE_TTL | DAPR_FEATURE_KEYS_LIKE,
        .init = store_init,
        .close = store_close,
        .ping = store_ping,
        .get = store_get,
        .set = store_set,
        .del = store_del,
        .transact = store_transact,
        .query = store_query,
        .keys_like = store_keys_like,
        .ttl_error = "failed to parse ttl from metadata: ",
        .ttl_parser = "strconv.ParseInt",
};
static const struct dapr_component_type types[] = {{.type = "state.redis", .versions = "v1", .state = &ops}};
static const struct dapr_plugin plugin = {.name = "state.redis", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
