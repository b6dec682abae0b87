/*
 * state.etcd: etcd's v3 API over gRPC, in the reference's two layouts: v1 stores the value itself, v2 a message with the time of
 * writing and the TTL. Keys are <keyPrefixPath>/<key>; the ETag is the key's mod revision; TTL is a lease.
 * Every write is one transaction whose comparisons are the ETags, so nothing can come between check and write. Endpoints are tried
 * in turn when one does not answer; connections are made when first needed, so Init succeeds while etcd is away.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dapr/plugin.h"
#include "etcd/kv.pb-c.h"
#include "etcd/state_v2.pb-c.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"
#include "sdk/net/rpc.h"
#include "sdk/net/tls.h"

enum { ENDPOINTS_MAX = 16, CALL_TIMEOUT_S = 5, MAX_TXN_OPS_DEFAULT = 128 };

struct store {
        struct rpc_channel *endpoint[ENDPOINTS_MAX];
        size_t n_endpoints, at; /* the one that answered last */
        struct tls_context *tls;
        char *prefix, *names;   /* keyPrefixPath; endpoints as given */
        int64_t max_txn_ops;
        int layout;             /* 1 or 2 */
};

static void store_close(void *instance)
{
        struct store *s = instance;
        for (size_t i = 0; s && i < s->n_endpoints; i++)
                rpc_channel_close(s->endpoint[i]);
        if (s) {
                tls_context_unref(s->tls);
                free(s->prefix);
                free(s->names);
        }
        free(s);
}

static int open_tls(struct dapr_call *c, const struct dapr_metadata *md, struct store *s)
{
        const char *ca = dapr_md_string(md, "ca"), *cert = dapr_md_string(md, "cert"), *key = dapr_md_string(md, "key");
        char err[256];
        if (!dapr_md_bool(md, "tlsEnable"))
                return 0;
        if (!ca || !*ca || !cert || !*cert || !key || !*key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "initializing etcd client: tls authentication information is incomplete");
        struct tls_options o = {.cert_pem = str_of(cert), .key_pem = str_of(key), .roots_pem = str_of(ca)};
        if (tls_context_new(&s->tls, &o, err, sizeof err) != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "initializing etcd client: tls authentication error: %s", err);
        return 0;
}

static int open_endpoints(struct dapr_call *c, struct store *s)
{
        for (struct str rest = str_of(s->names); rest.p;) {
                struct str one = str_trim(str_cut(&rest, ','));
                ptrdiff_t scheme = str_find(one, STR("://"));
                if (scheme >= 0)
                        one = str_skip(one, (size_t)scheme + 3);
                if (!one.n)
                        continue;
                if (s->n_endpoints == ENDPOINTS_MAX)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "initializing etcd client: more than %d endpoints", ENDPOINTS_MAX);
                struct rpc_channel_conf conf = {.target = one, .tls = s->tls, .max_recv_bytes = -1, .connect_timeout_s = CALL_TIMEOUT_S};
                int r = rpc_channel_new(&s->endpoint[s->n_endpoints], &conf);
                if (r)
                        return r;
                s->n_endpoints++;
        }
        return s->n_endpoints ? 0 : dapr_fail(c, DAPR_INVALID_ARGUMENT, "initializing etcd client: endpoints required");
}

static int store_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance, int layout)
{
        struct store *s = calloc(1, sizeof *s);
        const char *prefix = dapr_md_string(md, "keyPrefixPath"), *names = dapr_md_string(md, "endpoints");
        if (!s)
                return -ENOMEM;
        s->layout = layout;
        s->prefix = strdup(prefix ? prefix : "");
        s->names = strdup(names ? names : "");
        s->max_txn_ops = dapr_md_has(md, "maxTxnOps") ? dapr_md_int(md, "maxTxnOps") : MAX_TXN_OPS_DEFAULT;
        int r = s->prefix && s->names ? open_tls(c, md, s) : -ENOMEM;
        if (!r)
                r = open_endpoints(c, s);
        if (r) {
                store_close(s);
                return r;
        }
        *instance = s;
        return 0;
}

static int init_v1(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        return store_init(c, md, instance, 1);
}

static int init_v2(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        return store_init(c, md, instance, 2);
}

/* One call, at the endpoint that answered last and, while it cannot have been carried out, at the others. */
static int call(struct dapr_call *c, struct store *s, struct arena *a, const char *method, const ProtobufCMessage *in,
                const ProtobufCMessageDescriptor *out_d, void *out)
{
        struct rpc_opts o = {.timeout_s = CALL_TIMEOUT_S};
        struct rpc_status st = {0};
        for (size_t tries = 0; tries < s->n_endpoints; tries++) {
                if (rpc_unary_pb(s->endpoint[s->at], a, method, in, out_d, out, &o, &st) == 0) {
                        dapr_backend_up(dapr_instance(c));
                        return 0;
                }
                if (!st.unprocessed)
                        break;
                s->at = (s->at + 1) % s->n_endpoints;
        }
        if (st.transport)
                dapr_backend_down(dapr_instance(c), "etcd does not answer");
        return dapr_fail(c, st.transport ? DAPR_UNAVAILABLE : DAPR_INTERNAL, "etcd at %s: %.*s", s->names, STR_FMT(st.message));
}

static ProtobufCBinaryData full_key(struct dapr_call *c, const struct store *s, const char *key)
{
        char *p = dapr_printf(c, "%s/%s", s->prefix, key);
        return p ? pb_bytes(str_of(p)) : (ProtobufCBinaryData){0};
}

/* ---- values ---- */

static int encode(struct dapr_call *c, struct arena *a, const struct store *s, const struct dapr_set *in, ProtobufCBinaryData *ret)
{
        *ret = (ProtobufCBinaryData){in->value.n, (uint8_t *)in->value.p};
        if (s->layout == 1)
                return 0;
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        Google__Protobuf__Timestamp ts = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Google__Protobuf__Duration ttl = GOOGLE__PROTOBUF__DURATION__INIT;
        Dapr__Proto__Components__State__V2__Value v = DAPR__PROTO__COMPONENTS__STATE__V2__VALUE__INIT;
        ts.seconds = now.tv_sec;
        ts.nanos = (int32_t)now.tv_nsec;
        v.data = *ret;
        v.ts = &ts;
        if (in->ttl_s > 0) {
                ttl.seconds = in->ttl_s;
                v._ttl_case = DAPR__PROTO__COMPONENTS__STATE__V2__VALUE___TTL_TTL;
                v.ttl = &ttl;
        }
        struct str packed = pb_pack(a, &v.base);
        *ret = pb_bytes(packed);
        return packed.p ? 0 : -ENOMEM;
}

static int decode(struct dapr_call *c, struct arena *a, const struct store *s, const Etcdserverpb__KeyValue *kv, struct dapr_item *out)
{
        struct str data = pb_str(kv->value);
        if (s->layout == 2) {
                Dapr__Proto__Components__State__V2__Value *v = pb_unpack(a, &dapr__proto__components__state__v2__value__descriptor, data);
                if (!v)
                        return dapr_fail(c, DAPR_INTERNAL, "the value is not in the layout of version v2");
                data = pb_str(v->data);
                if (v->_ttl_case && v->ttl && v->ttl->seconds > 0 && v->ts) {
                        char when[40];
                        time_t t = v->ts->seconds + v->ttl->seconds;
                        struct tm tm;
                        gmtime_r(&t, &tm);
                        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
                        struct dapr_kv *md = dapr_alloc(c, sizeof *md);
                        if (!md)
                                return -ENOMEM;
                        *md = (struct dapr_kv){"ttlExpireTime", dapr_strdup(c, when)};
                        out->metadata = (struct dapr_kvs){md, 1};
                }
        }
        out->found = true;
        out->value = dapr_copy(c, data.p, data.n);
        out->etag = dapr_printf(c, "%lld", (long long)kv->mod_revision);
        return out->etag ? 0 : -ENOMEM;
}

/* ---- operations ---- */

static int range(struct dapr_call *c, struct store *s, struct arena *a, const char *key, Etcdserverpb__RangeResponse **ret)
{
        Etcdserverpb__RangeRequest in = ETCDSERVERPB__RANGE_REQUEST__INIT;
        in.key = full_key(c, s, key);
        return in.key.data ? call(c, s, a, "/etcdserverpb.KV/Range", &in.base, &etcdserverpb__range_response__descriptor, ret) : -ENOMEM;
}

static int store_get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct arena a;
        Etcdserverpb__RangeResponse *resp;
        arena_init(&a, 0);
        int r = range(c, instance, &a, in->key, &resp);
        if (!r && resp->n_kvs)
                r = decode(c, &a, instance, resp->kvs[0], out);
        arena_fini(&a);
        return r;
}

/* What one write adds to a transaction. */
struct step {
        Etcdserverpb__Compare compare;
        Etcdserverpb__RequestOp op;
        Etcdserverpb__PutRequest put;
        Etcdserverpb__DeleteRangeRequest del;
        bool compares;
        const char *key, *etag;
};

static int add_compare(struct dapr_call *c, struct step *st, ProtobufCBinaryData key, const char *etag, enum dapr_concurrency how)
{
        bool has = etag && *etag;
        etcdserverpb__compare__init(&st->compare);
        st->compare.key = key;
        st->etag = etag;
        if (!has && how != DAPR_FIRST_WRITE)
                return 0;
        st->compares = true;
        if (!has) {
                st->compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
                st->compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
                return 0; /* created at revision 0: there is no such key */
        }
        char *end;
        errno = 0;
        st->compare.mod_revision = strtoll(etag, &end, 10);
        if (*end || errno)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "state etag not match for key=%s: expect=%s is not a revision", st->key, etag);
        st->compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
        st->compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        return 0;
}

static int grant_lease(struct dapr_call *c, struct store *s, struct arena *a, int64_t ttl_s, int64_t *ret)
{
        Etcdserverpb__LeaseGrantRequest in = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
        Etcdserverpb__LeaseGrantResponse *out;
        in.ttl = ttl_s;
        int r = call(c, s, a, "/etcdserverpb.Lease/LeaseGrant", &in.base, &etcdserverpb__lease_grant_response__descriptor, &out);
        if (!r)
                *ret = out->id;
        return r;
}

static int add_set(struct dapr_call *c, struct store *s, struct arena *a, const struct dapr_set *in, struct step *st)
{
        ProtobufCBinaryData key = full_key(c, s, in->key);
        st->key = in->key;
        int r = key.data ? add_compare(c, st, key, in->etag, in->concurrency) : -ENOMEM;
        etcdserverpb__put_request__init(&st->put);
        etcdserverpb__request_op__init(&st->op);
        st->put.key = key;
        if (!r)
                r = encode(c, a, s, in, &st->put.value);
        if (!r && in->ttl_s > 0)
                r = grant_lease(c, s, a, in->ttl_s, &st->put.lease);
        st->op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        st->op.request_put = &st->put;
        return r;
}

static int add_delete(struct dapr_call *c, struct store *s, const struct dapr_delete *in, struct step *st)
{
        ProtobufCBinaryData key = full_key(c, s, in->key);
        st->key = in->key;
        int r = key.data ? add_compare(c, st, key, in->etag, DAPR_LAST_WRITE) : -ENOMEM;
        etcdserverpb__delete_range_request__init(&st->del);
        etcdserverpb__request_op__init(&st->op);
        st->del.key = key;
        st->op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        st->op.request_delete_range = &st->del;
        return r;
}

/* Why the comparisons failed, for a single write: looks at the key once more. */
static int mismatch(struct dapr_call *c, struct store *s, struct arena *a, const struct step *st)
{
        Etcdserverpb__RangeResponse *now;
        if (!st->etag || !*st->etag)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "item already exists and no etag was passed");
        if (range(c, s, a, st->key, &now) != 0 || now->n_kvs == 0)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "state not exist or expired for key=%s", st->key);
        return dapr_fail(c, DAPR_ETAG_MISMATCH, "state etag not match for key=%s: current=%lld, expect=%s", st->key,
                         (long long)now->kvs[0]->mod_revision, st->etag);
}

static int commit(struct dapr_call *c, struct store *s, struct arena *a, struct step *steps, size_t n)
{
        Etcdserverpb__TxnRequest in = ETCDSERVERPB__TXN_REQUEST__INIT;
        Etcdserverpb__TxnResponse *out;
        in.compare = arena_alloc(a, n * sizeof *in.compare);
        in.success = arena_alloc(a, n * sizeof *in.success);
        if (!in.compare || !in.success)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                in.success[in.n_success++] = &steps[i].op;
                if (steps[i].compares)
                        in.compare[in.n_compare++] = &steps[i].compare;
        }
        int r = call(c, s, a, "/etcdserverpb.KV/Txn", &in.base, &etcdserverpb__txn_response__descriptor, &out);
        if (r || out->succeeded)
                return r;
        return n == 1 ? mismatch(c, s, a, steps)
                      : dapr_fail(c, DAPR_ETAG_MISMATCH, "an etag of the transaction is not the current one: nothing was applied");
}

static int store_set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        struct arena a;
        struct step st = {0};
        arena_init(&a, 0);
        int r = add_set(c, instance, &a, in, &st);
        if (!r)
                r = commit(c, instance, &a, &st, 1);
        arena_fini(&a);
        return r;
}

static int store_del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        struct arena a;
        struct step st = {0};
        arena_init(&a, 0);
        int r = add_delete(c, instance, in, &st);
        if (!r)
                r = commit(c, instance, &a, &st, 1);
        arena_fini(&a);
        return r;
}

static int store_transact(struct dapr_call *c, void *instance, const struct dapr_op *ops, size_t n, struct dapr_kvs metadata)
{
        struct store *s = instance;
        struct arena a;
        if (n == 0)
                return 0;
        if (s->max_txn_ops > 0 && n > (size_t)s->max_txn_ops)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "the transaction has %zu operations, maxTxnOps allows %lld", n, (long long)s->max_txn_ops);
        arena_init(&a, 0);
        struct step *steps = arena_zalloc(&a, n * sizeof *steps);
        int r = steps ? 0 : -ENOMEM;
        for (size_t i = 0; !r && i < n; i++)
                r = ops[i].kind == DAPR_OP_SET ? add_set(c, s, &a, &ops[i].set, &steps[i]) : add_delete(c, s, &ops[i].del, &steps[i]);
        if (!r)
                r = commit(c, s, &a, steps, n);
        arena_fini(&a);
        return r;
}

static int store_ping(struct dapr_call *c, void *instance)
{
        struct arena a;
        Etcdserverpb__RangeResponse *resp;
        arena_init(&a, 0);
        int r = range(c, instance, &a, "health", &resp);
        arena_fini(&a);
        return r;
}

/* ---- keys by pattern ---- */

/* SQL LIKE with \ as escape, without backtracking over more than one %: the last one seen is the only that can still give. */
static bool like(const char *s, const char *p)
{
        const char *again_s = NULL, *again_p = NULL;
        while (*s) {
                bool escaped = *p == '\\' && p[1];
                if (*p == '%') {
                        again_p = ++p;
                        again_s = s;
                } else if (!escaped && *p == '_') {
                        p++;
                        do
                                s++;
                        while (((unsigned char)*s & 0xc0) == 0x80); /* one character, not one byte */
                } else if (*s == p[escaped]) {
                        s++;
                        p += 1 + escaped;
                } else if (again_p) {
                        p = again_p;
                        s = ++again_s;
                } else
                        return false;
        }
        while (*p == '%')
                p++;
        return !*p;
}

/* The literal beginning of a pattern, unescaped. */
static char *literal_prefix(struct dapr_call *c, const char *pattern)
{
        char *out = dapr_strdup(c, pattern), *w = out;
        for (const char *p = pattern; out && *p && *p != '%' && *p != '_'; p++) {
                if (*p == '\\' && p[1])
                        p++;
                *w++ = *p;
        }
        if (out)
                *w = '\0';
        return out;
}

struct page { /* of a listing */
        const char **keys;
        size_t n, cap;
        int64_t revision, after; /* snapshot; creation revision of the last key taken */
};

static int take(struct dapr_call *c, struct store *s, const struct dapr_keys_like *in, const Etcdserverpb__RangeResponse *resp, struct page *g)
{
        size_t skip = strlen(s->prefix) + 1;
        for (size_t i = 0; i < resp->n_kvs; i++) {
                struct str full = pb_str(resp->kvs[i]->key);
                const char *key = full.n > skip ? dapr_printf(c, "%.*s", (int)(full.n - skip), full.p + skip) : NULL;
                if (!key || resp->kvs[i]->create_revision <= g->after || !like(key, in->pattern))
                        continue;
                if (g->n == g->cap) {
                        size_t cap = g->cap ? g->cap * 2 : 64;
                        const char **more = dapr_alloc(c, cap * sizeof *more);
                        if (!more)
                                return -ENOMEM;
                        if (g->n)
                                memcpy(more, g->keys, g->n * sizeof *more);
                        g->keys = more;
                        g->cap = cap;
                }
                g->keys[g->n++] = key;
                g->after = resp->kvs[i]->create_revision;
                if (in->page_size && g->n == in->page_size)
                        return 1;
        }
        return 0;
}

static int store_keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        struct store *s = instance;
        struct page g = {0};
        long long rev = 0, after = 0;
        if (!in->pattern || !*in->pattern)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "keys like pattern cannot be empty");
        if (in->token && *in->token && sscanf(in->token, "%lld:%lld", &rev, &after) != 2)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid continue token");
        g.revision = rev;
        g.after = after;
        char *literal = literal_prefix(c, in->pattern);
        if (!literal)
                return -ENOMEM;
        Etcdserverpb__RangeRequest q = ETCDSERVERPB__RANGE_REQUEST__INIT;
        q.key = full_key(c, s, literal);
        q.range_end = full_key(c, s, literal);
        if (!q.key.data || !q.range_end.data)
                return -ENOMEM;
        while (q.range_end.len && q.range_end.data[q.range_end.len - 1] == 0xff)
                q.range_end.len--;
        if (q.range_end.len)
                q.range_end.data[q.range_end.len - 1]++; /* the first key behind all that begin so */
        q.keys_only = true;
        q.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__ASCEND;
        q.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__CREATE;
        struct arena a;
        Etcdserverpb__RangeResponse *resp;
        arena_init(&a, 0);
        q.revision = g.revision;
        int r = call(c, s, &a, "/etcdserverpb.KV/Range", &q.base, &etcdserverpb__range_response__descriptor, &resp);
        if (!r) {
                if (!g.revision && resp->header)
                        g.revision = resp->header->revision;
                r = take(c, s, in, resp, &g);
        }
        arena_fini(&a);
        if (r < 0 || (r > 0 && r != 1))
                return r;
        out->keys = g.keys;
        out->n = g.n;
        out->token = r == 1 ? dapr_printf(c, "%lld:%lld", (long long)g.revision, (long long)g.after) : NULL;
        return 0;
}

enum { FEATURES = DAPR_FEATURE_ETAG | DAPR_FEATURE_TRANSACTIONAL | DAPR_FEATURE_TTL | DAPR_FEATURE_KEYS_LIKE };
#define OPS(init_fn)                                                                                                                   \
        {                                                                                                                              \
                .mode = DAPR_FIBER, .features = FEATURES, .init = init_fn, .close = store_close, .ping = store_ping, .get = store_get, \
                .set = store_set, .del = store_del, .transact = store_transact, .keys_like = store_keys_like,                          \
                .max_transaction_ops = MAX_TXN_OPS_DEFAULT                                                                             \
        }
static const struct dapr_state_ops ops_v1 = OPS(init_v1), ops_v2 = OPS(init_v2);
static const struct dapr_component_type types[] = {
        {.type = "state.etcd", .versions = "v1", .state = &ops_v1},
        {.type = "state.etcd", .versions = "v2", .state = &ops_v2},
};
static const struct dapr_plugin plugin = {.name = "state.etcd", .version = "0.1.0", .types = types, .n_types = 2};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
