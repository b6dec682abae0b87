/* configuration.redis: string keys as configuration items. This file: the component and reading. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/configuration.redis/store.h"
#include "sdk/base/map.h"

enum { BATCH = 128 };
static const char SEPARATOR[] = "||";

/* ---- the component ---- */

static void store_close(void *instance)
{
        struct store *s = instance;
        if (!s)
                return;
        redis_close(s->redis);
        free(s);
}

static int store_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct redis_settings settings;
        struct store *s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        int r = redis_settings_read(c, md, &settings);
        if (!r) {
                s->db = settings.db;
                s->cluster = settings.type == REDIS_CLUSTER;
                r = redis_open(c, &settings, &s->redis);
        }
        if (r) {
                store_close(s);
                return r;
        }
        *instance = s;
        return 0;
}

static int store_ping(struct dapr_call *c, void *instance)
{
        struct store *s = instance;
        return redis_ping(c, s->redis);
}

/* ---- reading ---- */

bool item_read(const char *key, redisReply *value, struct dapr_config_item *ret)
{
        if (value->type != REDIS_REPLY_STRING)
                return false;
        char *bars = strstr(value->str, SEPARATOR);
        *ret = (struct dapr_config_item){.key = key, .value = value->str};
        if (bars) {
                char *end = strstr(bars + 2, SEPARATOR);
                *bars = '\0';
                if (end)
                        *end = '\0';
                ret->version = bars + 2;
        }
        return *ret->value;
}

struct scan {
        int (*fn)(void *arg, const char *key);
        void *arg;
};

static int scan_node(void *arg, struct redis *r, const char *node)
{
        struct scan *s = arg;
        char cursor[32] = "0";
        do {
                const struct redis_arg a[] = {redis_arg_z("SCAN"), redis_arg_z(cursor), redis_arg_z("COUNT"), redis_arg_z("1000")};
                redisReply *reply = NULL;
                int e = redis_do_on(r, node, REDIS_READ, a, sizeof a / sizeof *a, &reply);
                if (e)
                        return e;
                bool ok = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->str;
                e = ok ? 0 : -EBADMSG;
                for (size_t i = 0; e == 0 && i < reply->element[1]->elements; i++)
                        e = s->fn(s->arg, reply->element[1]->element[i]->str);
                snprintf(cursor, sizeof cursor, "%s", ok ? reply->element[0]->str : "0");
                freeReplyObject(reply);
                if (e)
                        return e;
        } while (strcmp(cursor, "0") != 0);
        return 0;
}

int store_each_key(struct store *s, int (*fn)(void *arg, const char *key), void *arg)
{
        struct scan scan = {fn, arg};
        return redis_each_master(s->redis, scan_node, &scan);
}

struct result {
        struct dapr_call *c;
        struct dapr_config_item *v;
        size_t n, cap;
};

static int add(struct result *to, const char *key, redisReply *value)
{
        struct dapr_config_item item;
        if (!item_read(key, value, &item))
                return 0;
        if (to->n == to->cap) {
                size_t cap = to->cap ? to->cap * 2 : 16;
                struct dapr_config_item *v = dapr_alloc(to->c, cap * sizeof *v);
                if (!v)
                        return -ENOMEM;
                if (to->n)
                        memcpy(v, to->v, to->n * sizeof *v);
                to->v = v;
                to->cap = cap;
        }
        item.key = dapr_strdup(to->c, key);
        item.value = dapr_strdup(to->c, item.value);
        item.version = item.version ? dapr_strdup(to->c, item.version) : "";
        to->v[to->n++] = item;
        return item.key && item.value && item.version ? 0 : -ENOMEM;
}

static int fail_get(struct dapr_call *c, const char *key, const char *why)
{
        return dapr_fail(c, DAPR_INTERNAL, "fail to get configuration for redis key=%s, error is %s", key, why);
}

/* A batch by one MGET (keys of other types are nil in it); in a cluster each key has its own node. */
static int get_batch(struct store *s, const char *const *keys, size_t n, struct result *to)
{
        struct redis_arg a[BATCH + 1] = {redis_arg_z(s->cluster ? "GET" : "MGET")};
        size_t at_once = s->cluster ? 1 : n;
        for (size_t done = 0; done < n; done += at_once) {
                redisReply *reply = NULL;
                for (size_t i = 0; i < at_once; i++)
                        a[i + 1] = redis_arg_z(keys[done + i]);
                int r = redis_do(s->redis, REDIS_READ, 1, a, (int)at_once + 1, &reply);
                if (r)
                        return redis_fail(to->c, s->redis, r);
                if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "WRONGTYPE", 9) != 0)
                        r = fail_get(to->c, keys[done], reply->str);
                else if (s->cluster)
                        r = add(to, keys[done], reply);
                for (size_t i = 0; !s->cluster && r == 0 && i < reply->elements && i < at_once; i++)
                        r = add(to, keys[done + i], reply->element[i]);
                freeReplyObject(reply);
                if (r)
                        return r;
        }
        return 0;
}

static int remember(void *arg, const char *key)
{
        static char yes;
        return map_set(arg, str_of(key), &yes);
}

static int get_all(struct dapr_call *c, struct store *s, struct result *to)
{
        struct map names = {0};
        const char *batch[BATCH];
        size_t n = 0;
        int r = store_each_key(s, remember, &names);
        if (r && r != -ENOMEM)
                r = redis_fail(c, s->redis, r);
        for (struct map_entry *e = NULL; r == 0 && (e = map_next(&names, e));) {
                batch[n++] = e->key;
                if (n == BATCH) {
                        r = get_batch(s, batch, n, to);
                        n = 0;
                }
        }
        if (r == 0 && n)
                r = get_batch(s, batch, n, to);
        map_fini(&names);
        return r;
}

static int store_get(struct dapr_call *c, void *instance, const struct dapr_config_query *in, struct dapr_config_items *out)
{
        struct store *s = instance;
        struct result to = {.c = c};
        int r = in->n ? 0 : get_all(c, s, &to);
        for (size_t i = 0; r == 0 && i < in->n; i += BATCH)
                r = get_batch(s, in->keys + i, in->n - i < BATCH ? in->n - i : BATCH, &to);
        *out = (struct dapr_config_items){to.v, to.n};
        return r;
}

static const struct dapr_configuration_ops ops = {
        .mode = DAPR_FIBER,
        .init = store_init,
        .close = store_close,
        .ping = store_ping,
        .get = store_get,
        .subscribe = store_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "configuration.redis", .versions = "v1", .configuration = &ops}};
static const struct dapr_plugin plugin = {.name = "configuration.redis", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
