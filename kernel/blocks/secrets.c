/*
 * The secrets building block: one secret or all of a store, filtered by the scopes of the Configuration; and secretKeyRef of other
 * components, which no scope restricts. Values go from the store's reply to the caller's and into nothing else: never into logs.
 */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/secretstore.pb-c.h"
#include "dapr/proto/runtime/v1/secret.pb-c.h"
#include "kernel/blocks/secrets.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define STORE "/dapr.proto.components.v1.SecretStore/"

typedef Dapr__Proto__Components__V1__GetSecretResponse store_get;
typedef Dapr__Proto__Components__V1__BulkGetSecretResponse store_bulk;
typedef Dapr__Proto__Runtime__V1__GetSecretRequest get_request;
typedef Dapr__Proto__Runtime__V1__GetSecretResponse get_response;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretRequest bulk_request;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretResponse bulk_response;
typedef Dapr__Proto__Runtime__V1__GetSecretResponse__DataEntry kv_entry;
typedef Dapr__Proto__Components__V1__BulkGetSecretResponse__DataEntry bulk_in;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretResponse__DataEntry bulk_out;

/* Entries of the two contracts' maps have one layout. */
_Static_assert(sizeof(kv_entry) == sizeof(Dapr__Proto__Components__V1__GetSecretResponse__DataEntry), "layout of map entries");
_Static_assert(sizeof(kv_entry) == sizeof(Dapr__Proto__Components__V1__SecretResponse__SecretsEntry), "layout of map entries");

/* ---- scopes ---- */

static bool is_listed(const char *const *list, size_t n, const char *secret)
{
        for (size_t i = 0; i < n; i++)
                if (!strcmp(list[i], secret))
                        return true;
        return false;
}

bool secret_scope_allows(const struct secret_scope *s, const char *secret)
{
        if (s->n_allowed)
                return is_listed(s->allowed, s->n_allowed, secret);
        if (is_listed(s->denied, s->n_denied, secret))
                return false;
        return !s->default_access || strcasecmp(s->default_access, "deny") != 0;
}

static bool is_allowed(const struct kernel *k, const char *store, const char *secret)
{
        for (size_t i = 0; i < k->config.n_secret_scopes; i++)
                if (!strcmp(k->config.secret_scopes[i].store, store))
                        return secret_scope_allows(&k->config.secret_scopes[i], secret);
        return true;
}

/* The reference's check is on what is loaded already; here it is made once all components are. */
static int init(struct kernel *k)
{
        for (size_t i = 0; i < k->config.n_secret_scopes; i++) {
                const char *store = k->config.secret_scopes[i].store;
                if (!kernel_component(k, KIND_SECRETSTORE, str_of(store)))
                        log_warn("dapr.runtime.compstore", "Secrets configuration added for '%s', but no matching secret store was found", store);
        }
        return 0;
}

/* ---- operations ---- */

static struct component *find_store(struct call *c, const char *name)
{
        struct component *s = kernel_component(c->k, KIND_SECRETSTORE, str_of(name));
        if (s)
                return s;
        if (!kernel_component_count(c->k, KIND_SECRETSTORE))
                call_fail(c, ERR_SECRET_STORES_NOT_CONFIGURED);
        else
                call_fail(c, ERR_SECRET_STORE_NOT_FOUND, name);
        return NULL;
}

static void observe(struct call *c, const char *store, const char *operation, bool ok, double since)
{
        observe_component(c->k->observe, OBSERVE_SECRET, str_of(store), operation, ok, (loop_now_exact() - since) * 1000);
}

static int get_secret(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const get_request *in = (const void *)req;
        get_response *out = (void *)resp;
        Dapr__Proto__Components__V1__GetSecretRequest ask = DAPR__PROTO__COMPONENTS__V1__GET_SECRET_REQUEST__INIT;
        store_get *answer = NULL;
        struct rpc_status st = {0};
        const char *policy_error;
        struct component *store = find_store(c, in->store_name);
        if (!store)
                return -1;
        if (!is_allowed(c->k, in->store_name, in->key))
                return call_fail(c, ERR_SECRET_PERMISSION_DENIED, in->key, in->store_name);
        ask.key = in->key;
        ask.metadata = (void *)in->metadata;
        ask.n_metadata = in->n_metadata;
        double since = loop_now_exact();
        int code = resiliency_component_call(c->k, store, c->arena, STORE "Get", &ask.base,
                                             &dapr__proto__components__v1__get_secret_response__descriptor, &answer, &st, &policy_error);
        observe(c, in->store_name, "get", !code, since);
        if (code)
                return call_fail(c, ERR_SECRET_GET, in->key, in->store_name, policy_error ? policy_error : call_component_error(c, store, &st));
        out->data = (void *)answer->data;
        out->n_data = answer->n_data;
        return 0;
}

static bulk_out *bulk_entry(struct arena *a, const bulk_in *from)
{
        bulk_out *e = arena_new(a, bulk_out);
        Dapr__Proto__Runtime__V1__SecretResponse *s = arena_new(a, Dapr__Proto__Runtime__V1__SecretResponse);
        if (!e || !s)
                return NULL;
        dapr__proto__runtime__v1__get_bulk_secret_response__data_entry__init(e);
        dapr__proto__runtime__v1__secret_response__init(s);
        e->key = from->key;
        e->value = s;
        if (from->value) {
                s->secrets = (void *)from->value->secrets;
                s->n_secrets = from->value->n_secrets;
        }
        return e;
}

static int get_bulk_secret(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const bulk_request *in = (const void *)req;
        bulk_response *out = (void *)resp;
        Dapr__Proto__Components__V1__BulkGetSecretRequest ask = DAPR__PROTO__COMPONENTS__V1__BULK_GET_SECRET_REQUEST__INIT;
        store_bulk *answer = NULL;
        struct rpc_status st = {0};
        const char *policy_error;
        struct component *store = find_store(c, in->store_name);
        if (!store)
                return -1;
        ask.metadata = (void *)in->metadata;
        ask.n_metadata = in->n_metadata;
        double since = loop_now_exact();
        int code = resiliency_component_call(c->k, store, c->arena, STORE "BulkGet", &ask.base,
                                             &dapr__proto__components__v1__bulk_get_secret_response__descriptor, &answer, &st, &policy_error);
        observe(c, in->store_name, "bulk_get", !code, since);
        if (code)
                return call_fail(c, ERR_BULK_SECRET_GET, in->store_name, policy_error ? policy_error : call_component_error(c, store, &st));
        out->data = arena_alloc(c->arena, answer->n_data * sizeof *out->data);
        for (size_t i = 0; out->data && i < answer->n_data; i++) {
                if (!is_allowed(c->k, in->store_name, answer->data[i]->key)) {
                        log_debug("dapr.runtime.secrets", "access denied by policy to get \"%s\" from \"%s\"", answer->data[i]->key, in->store_name);
                        continue;
                }
                out->data[out->n_data] = bulk_entry(c->arena, answer->data[i]);
                if (!out->data[out->n_data++])
                        out->data = NULL;
        }
        return out->data ? 0 : call_fail(c, ERR_BULK_SECRET_GET, in->store_name, "out of memory");
}

int secrets_resolve(struct kernel *k, const char *store, const char *secret, const char *key, struct arena *a, const char **value,
                    const char **err)
{
        Dapr__Proto__Components__V1__GetSecretRequest ask = DAPR__PROTO__COMPONENTS__V1__GET_SECRET_REQUEST__INIT;
        store_get *answer = NULL;
        struct rpc_status st = {0};
        struct component *s = kernel_component(k, KIND_SECRETSTORE, str_of(store));
        if (!s)
                return SECRET_NO_STORE;
        ask.key = secret;
        int code = component_call(s, a, STORE "Get", &ask.base, &dapr__proto__components__v1__get_secret_response__descriptor, &answer, &st);
        if (code) {
                *err = component_is_foreign(s) ? arena_printf(a, "rpc error: code = %s desc = %.*s", rpc_code_name(st.code), STR_FMT(st.message))
                                               : arena_strdup(a, st.message);
                return -EIO;
        }
        for (size_t i = 0; i < answer->n_data; i++)
                if (!strcmp(answer->data[i]->key, key && *key ? key : secret)) {
                        *value = answer->data[i]->value;
                        return **value ? SECRET_FOUND : SECRET_NO_KEY;
                }
        return SECRET_NO_KEY;
}

/* ---- HTTP ---- */

static int by_key(const void *a, const void *b)
{
        return strcmp((*(kv_entry *const *)a)->key, (*(kv_entry *const *)b)->key);
}

/* {"name": "value", …} with the names sorted, as the reference writes maps. */
static void write_values(struct json_writer *w, void *entries, size_t n)
{
        kv_entry **e = entries;
        if (n)
                qsort(e, n, sizeof *e, by_key);
        json_object_begin(w);
        for (size_t i = 0; i < n; i++)
                json_kv(w, e[i]->key, str_of(e[i]->value));
        json_object_end(w);
}

static void send_written(struct call *c, struct buf *b)
{
        buf_addc(b, '\n');
        if (b->failed) {
                call_fail(c, ERR_UNTYPED, "out of memory");
                reply_error(c);
        } else {
                reply_json(c, 200, json_escape_html(c->arena, buf_str(b)));
        }
        explicit_bzero(b->p, b->p ? b->cap : 0);
        buf_fini(b);
}

/* Query parameters metadata.<k> as entries of a request's map. False = answered. */
static bool query_metadata(struct call *c, void ***ret, size_t *ret_n)
{
        typedef Dapr__Proto__Runtime__V1__GetSecretRequest__MetadataEntry entry_t;
        struct rpc_mdlist md = {0};
        bool ok = !call_query_metadata(c, &md) && (*ret = arena_alloc(c->arena, md.n * sizeof **ret));
        for (*ret_n = 0; ok && *ret_n < md.n; ++*ret_n) {
                entry_t *e = arena_new(c->arena, entry_t);
                if ((ok = e != NULL)) {
                        dapr__proto__runtime__v1__get_secret_request__metadata_entry__init(e);
                        e->key = arena_strdup(c->arena, md.v[*ret_n].key);
                        e->value = arena_strdup(c->arena, md.v[*ret_n].value);
                        ok = e->key && e->value;
                        (*ret)[*ret_n] = e;
                }
        }
        if (!ok) {
                call_fail(c, ERR_UNTYPED, "out of memory");
                reply_error(c);
        }
        return ok;
}

static void http_get_secret(struct call *c)
{
        get_request in = DAPR__PROTO__RUNTIME__V1__GET_SECRET_REQUEST__INIT;
        get_response out = DAPR__PROTO__RUNTIME__V1__GET_SECRET_RESPONSE__INIT;
        struct buf b = {0};
        struct json_writer w;
        if (!query_metadata(c, (void ***)&in.metadata, &in.n_metadata))
                return;
        in.store_name = arena_strdup(c->arena, route_param(c, "secretStoreName"));
        in.key = arena_strdup(c->arena, route_param(c, "key"));
        if (get_secret(c, &in.base, &out.base)) {
                reply_error(c);
                return;
        }
        if (!out.n_data) {
                reply_empty(c);
                return;
        }
        json_write_init(&w, &b);
        write_values(&w, out.data, out.n_data);
        send_written(c, &b);
}

static int by_name(const void *a, const void *b)
{
        return strcmp((*(bulk_out *const *)a)->key, (*(bulk_out *const *)b)->key);
}

static void http_get_bulk_secret(struct call *c)
{
        bulk_request in = DAPR__PROTO__RUNTIME__V1__GET_BULK_SECRET_REQUEST__INIT;
        bulk_response out = DAPR__PROTO__RUNTIME__V1__GET_BULK_SECRET_RESPONSE__INIT;
        struct buf b = {0};
        struct json_writer w;
        if (!query_metadata(c, (void ***)&in.metadata, &in.n_metadata))
                return;
        in.store_name = arena_strdup(c->arena, route_param(c, "secretStoreName"));
        if (get_bulk_secret(c, &in.base, &out.base)) {
                reply_error(c);
                return;
        }
        if (out.n_data)
                qsort(out.data, out.n_data, sizeof *out.data, by_name);
        json_write_init(&w, &b);
        json_object_begin(&w);
        for (size_t i = 0; i < out.n_data; i++) {
                json_key(&w, str_of(out.data[i]->key));
                write_values(&w, out.data[i]->value->secrets, out.data[i]->value->n_secrets);
        }
        json_object_end(&w);
        send_written(c, &b);
}

static const struct http_route http_routes[] = {
        {"GET", "/v1.0/secrets/{secretStoreName}/bulk", "secrets", "v1", "GetBulkSecret", http_get_bulk_secret},
        {"GET", "/v1.0/secrets/{secretStoreName}/{key}", "secrets", "v1", "GetSecret", http_get_secret},
};
static const struct grpc_route grpc_routes[] = {
        {"GetSecret", "secrets.v1", &dapr__proto__runtime__v1__get_secret_request__descriptor,
         &dapr__proto__runtime__v1__get_secret_response__descriptor, get_secret, NULL},
        {"GetBulkSecret", "secrets.v1", &dapr__proto__runtime__v1__get_bulk_secret_request__descriptor,
         &dapr__proto__runtime__v1__get_bulk_secret_response__descriptor, get_bulk_secret, NULL},
};
const struct block secrets_block_def = {
        .name = "secrets",
        .http = http_routes,
        .n_http = sizeof http_routes / sizeof *http_routes,
        .grpc = grpc_routes,
        .n_grpc = sizeof grpc_routes / sizeof *grpc_routes,
        .init = init,
};
