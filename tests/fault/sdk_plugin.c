/* A plugin of every shape the SDK has: a state store inline and one on workers (the same operations), a secret store. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dapr/plugin.h"

static pthread_t loop_thread;

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        *instance = strdup(dapr_instance(c));
        if (!*instance)
                return -ENOMEM;
        if (dapr_md_has(md, "fail")) {
                free(*instance);
                return -ECONNREFUSED;
        }
        dapr_log(DAPR_LOG_WARN, "bool %d int %lld duration %lld string %s all %zu", dapr_md_bool(md, "flag"),
                 (long long)dapr_md_int(md, "number"), (long long)dapr_md_duration_ns(md, "wait"),
                 dapr_md_string(md, "text") ? dapr_md_string(md, "text") : "none", dapr_md_all(md).n);
        return 0;
}

static void close_instance(void *instance)
{
        free(instance);
}

static int ping(struct dapr_call *c, void *instance)
{
        return dapr_fail(c, DAPR_UNAVAILABLE, "%s does not ping", (char *)instance);
}

/* A pipe that becomes readable after a while: waiting for a descriptor works in every mode. */
static int wait_for_pipe(void)
{
        int p[2], r;
        if (pipe(p))
                return -errno;
        fcntl(p[0], F_SETFL, O_NONBLOCK);
        if (write(p[1], "x", 1) != 1)
                return -EIO;
        r = dapr_io_wait(p[0], 1);
        close(p[0]);
        close(p[1]);
        return r;
}

static int add_one(void *arg)
{
        ++*(int *)arg;
        return 0;
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        int n = 41;
        if (strcmp(in->key, "bad") == 0)
                return dapr_fail(c, DAPR_INTERNAL, "bad key %s", in->key);
        if (strcmp(in->key, "errno") == 0)
                return -ENOSPC;
        if (strcmp(in->key, "missing") == 0)
                return 0;
        if (strcmp(in->key, "tools") == 0) {
                int r = dapr_sleep(0.01);
                if (r == 0)
                        r = wait_for_pipe();
                if (r == 0)
                        r = dapr_work(add_one, &n);
                if (r || n != 42)
                        return dapr_fail(c, DAPR_INTERNAL, "tools: %d %d", r, n);
        }
        const char *where = pthread_equal(pthread_self(), loop_thread) ? "loop" : "worker";
        const char *x = dapr_kvs_get(in->metadata, "X");
        char *text = dapr_printf(c, "%s %s %s %s %d %s", (char *)instance, in->key, where, x ? x : "-", in->consistency,
                                 dapr_deadline_s(c) < 100 ? "deadline" : "forever");
        if (!text)
                return -ENOMEM;
        out->found = true;
        out->value = (struct dapr_bytes){text, strlen(text)};
        out->etag = "e1";
        out->content_type = "text/plain";
        return 0;
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        if (strncmp(in->key, "etag", 4) == 0)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "%s is not %s", in->key, in->etag ? in->etag : "given");
        if (strcmp(in->key, "invalid") == 0)
                return dapr_fail(c, DAPR_ETAG_INVALID, "no number");
        if (strcmp(in->key, "show") == 0)
                return dapr_fail(c, DAPR_ALREADY_EXISTS, "value %.*s etag %s type %s ttl %lld concurrency %d consistency %d", (int)in->value.n,
                                 (const char *)in->value.p, in->etag ? in->etag : "none", in->content_type ? in->content_type : "none",
                                 (long long)in->ttl_s, in->concurrency, in->consistency);
        return 0;
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        return strcmp(in->key, "bad") == 0 ? dapr_fail(c, DAPR_PERMISSION_DENIED, "not yours") : 0;
}

static int transact(struct dapr_call *c, void *instance, const struct dapr_op *ops, size_t n, struct dapr_kvs metadata)
{
        char *text = dapr_strdup(c, "");
        for (size_t i = 0; text && i < n; i++)
                text = ops[i].kind == DAPR_OP_SET ? dapr_printf(c, "%sset %s ttl %lld;", text, ops[i].set.key, (long long)ops[i].set.ttl_s)
                                                  : dapr_printf(c, "%sdelete %s;", text, ops[i].del.key);
        return dapr_fail(c, DAPR_FAILED_PRECONDITION, "%s %zu", text ? text : "", metadata.n);
}

static int query(struct dapr_call *c, void *instance, const struct dapr_query *in, struct dapr_query_result *out)
{
        struct dapr_query_row *row = dapr_alloc(c, sizeof *row);
        if (!row)
                return -ENOMEM;
        *row = (struct dapr_query_row){.key = "k", .item = {.found = true, .value = {in->json, strlen(in->json)}, .etag = "2"}};
        *out = (struct dapr_query_result){.rows = row, .n = 1, .token = "next"};
        return 0;
}

static int keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        const char **keys = dapr_alloc(c, sizeof *keys);
        if (!keys)
                return -ENOMEM;
        keys[0] = dapr_printf(c, "%s %u %s", in->pattern, in->page_size, in->token ? in->token : "none");
        *out = (struct dapr_keys){.keys = keys, .n = 1, .token = "more"};
        return 0;
}

static int delete_with_prefix(struct dapr_call *c, void *instance, const char *prefix, int64_t *deleted)
{
        *deleted = (int64_t)strlen(prefix);
        return 0;
}

#define STATE_OPS(how)                                                                                                            \
        {                                                                                                                         \
                .mode = how, .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TRANSACTIONAL | DAPR_FEATURE_QUERY | DAPR_FEATURE_KEYS_LIKE | \
                                         DAPR_FEATURE_DELETE_WITH_PREFIX,                                                          \
                .init = init, .close = close_instance, .ping = ping, .get = get, .set = set, .del = del, .transact = transact,    \
                .query = query, .keys_like = keys_like, .delete_with_prefix = delete_with_prefix, .max_transaction_ops = 2        \
        }
static const struct dapr_state_ops inline_ops = STATE_OPS(DAPR_INLINE), worker_ops = STATE_OPS(DAPR_WORKER);

/* ---- secrets ---- */

static int secret_get(struct dapr_call *c, void *instance, const char *name, struct dapr_kvs metadata, struct dapr_kvs *out)
{
        static const struct dapr_kv values[] = {{"user", "u"}, {"password", "p"}};
        if (strcmp(name, "db") != 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "secret %s not found", name);
        *out = (struct dapr_kvs){values, 2};
        return 0;
}

static int secret_all(struct dapr_call *c, void *instance, struct dapr_kvs metadata, struct dapr_secrets *out)
{
        static const struct dapr_kv values[] = {{"user", "u"}, {"password", "p"}};
        static const struct dapr_secret all[] = {{"db", {values, 2}}, {"empty", {NULL, 0}}};
        *out = (struct dapr_secrets){all, 2};
        return 0;
}

static const struct dapr_secret_ops secret_ops = {.mode = DAPR_WORKER,
                                                  .features = DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET,
                                                  .init = init,
                                                  .close = close_instance,
                                                  .get = secret_get,
                                                  .bulk_get = secret_all};

static const struct dapr_component_type types[] = {{.type = "state.inline", .state = &inline_ops},
                                                   {.type = "state.worker", .versions = "v1,v2", .state = &worker_ops},
                                                   {.type = "secretstores.test", .versions = "v1", .secrets = &secret_ops}};

static int start(void)
{
        loop_thread = pthread_self();
        return 0;
}

static const struct dapr_plugin plugin = {.name = "sdk", .version = "1", .types = types, .n_types = 3, .worker_threads = 2, .start = start};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
