/*
 * GET /v1.0/metadata, PUT /v1.0/metadata/{key}, GetMetadata, SetMetadata. Both doors get one message; HTTP writes it by hand because
 * its form differs from proto-JSON (names, order, flat rules). Attributes set by PUT live in memory only.
 */
#include "kernel/blocks/metadata.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "google/protobuf/empty.pb-c.h"
#include "kernel/front/http.h"
#include "kernel/runtime.h"
#include "sdk/base/json.h"

typedef Dapr__Proto__Runtime__V1__RegisteredComponents registered;
typedef Dapr__Proto__Runtime__V1__GetMetadataResponse__ExtendedMetadataEntry extended_entry;
typedef Dapr__Proto__Runtime__V1__AppConnectionProperties app_connection;
typedef Dapr__Proto__Runtime__V1__AppConnectionHealthProperties app_health;
typedef Dapr__Proto__Runtime__V1__ActorRuntime actor_runtime;
typedef Dapr__Proto__Runtime__V1__MetadataWorkflows workflows;

#define RUNTIME_VERSION_KEY "daprRuntimeVersion"

enum { CAPABILITIES_MAX = 16, EXTENDED_KEYS_MAX = 10000, EXTENDED_BYTES_MAX = 4 * 1024 * 1024 };

/* ---- the message ---- */

static const struct {
        unsigned bit;
        const char *name;
} feature_names[] = {
        {FEATURE_ETAG, "ETAG"},
        {FEATURE_TRANSACTIONAL, "TRANSACTIONAL"},
        {FEATURE_TTL, "TTL"},
        {FEATURE_QUERY_API, "QUERY_API"},
        {FEATURE_DELETE_WITH_PREFIX, "DELETE_WITH_PREFIX"},
        {FEATURE_PARTITION_KEY, "PARTITION_KEY"},
        {FEATURE_KEYS_LIKE, "KEYS_LIKE"},
        {FEATURE_MULTIPLE_VALUES_PER_SECRET, "MULTIPLE_KEY_VALUES_PER_SECRET"},
        {FEATURE_BULK_PUBLISH, "BULK_PUBSUB"},
        {FEATURE_MESSAGE_TTL, "MESSAGE_TTL"},
        {FEATURE_SUBSCRIBE_WILDCARDS, "SUBSCRIBE_WILDCARDS"},
        {FEATURE_INPUT_BINDING, "INPUT_BINDING"},
        {FEATURE_OUTPUT_BINDING, "OUTPUT_BINDING"},
};

static registered *component_entry(struct arena *a, const struct component *c)
{
        const struct component_spec *spec = component_spec_of(c);
        registered *r = arena_new(a, registered);
        unsigned bits = component_features(c);

        if (!r)
                return NULL;
        dapr__proto__runtime__v1__registered_components__init(r);
        r->name = spec->name;
        r->type = spec->type;
        r->version = spec->version;
        r->capabilities = arena_zalloc(a, CAPABILITIES_MAX * sizeof r->capabilities[0]);
        if (!r->capabilities)
                return NULL;
        for (size_t i = 0; i < sizeof feature_names / sizeof feature_names[0]; i++)
                if (bits & feature_names[i].bit)
                        r->capabilities[r->n_capabilities++] = feature_names[i].name;
        if (component_kind_of(c) == KIND_STATE && (bits & FEATURE_ETAG) && (bits & FEATURE_TRANSACTIONAL))
                r->capabilities[r->n_capabilities++] = "ACTOR";
        return r;
}

static int fill_components(struct kernel *k, struct arena *a, metadata_message *m)
{
        m->registered_components = arena_zalloc(a, (k->n_components + 1) * sizeof m->registered_components[0]);
        if (!m->registered_components)
                return -ENOMEM;
        for (size_t i = 0; i < k->n_components; i++)
                if (!(m->registered_components[m->n_registered_components++] = component_entry(a, k->all_components[i])))
                        return -ENOMEM;
        return 0;
}

static int fill_endpoints(struct kernel *k, struct arena *a, metadata_message *m)
{
        m->http_endpoints = arena_zalloc(a, (k->resources.n_others + 1) * sizeof m->http_endpoints[0]);
        if (!m->http_endpoints)
                return -ENOMEM;
        for (size_t i = 0; k->endpoints && i < k->resources.n_others; i++) {
                Dapr__Proto__Runtime__V1__MetadataHTTPEndpoint *e;
                if (strcmp(k->resources.others[i]->kind, "HTTPEndpoint") != 0)
                        continue;
                if (!(e = arena_new(a, Dapr__Proto__Runtime__V1__MetadataHTTPEndpoint)))
                        return -ENOMEM;
                dapr__proto__runtime__v1__metadata_httpendpoint__init(e);
                e->name = k->resources.others[i]->name;
                m->http_endpoints[m->n_http_endpoints++] = e;
        }
        return 0;
}

static int by_key(const void *x, const void *y)
{
        return strcmp((*(extended_entry *const *)x)->key, (*(extended_entry *const *)y)->key);
}

static int add_extended(struct arena *a, metadata_message *m, const char *key, const char *value)
{
        extended_entry *e = arena_new(a, extended_entry);

        if (!e || !key || !value)
                return -ENOMEM;
        dapr__proto__runtime__v1__get_metadata_response__extended_metadata_entry__init(e);
        e->key = key;
        e->value = value;
        m->extended_metadata[m->n_extended_metadata++] = e;
        return 0;
}

static int fill_extended(struct kernel *k, struct arena *a, metadata_message *m)
{
        m->extended_metadata = arena_zalloc(a, (k->extended.count + 1) * sizeof m->extended_metadata[0]);
        if (!m->extended_metadata || add_extended(a, m, RUNTIME_VERSION_KEY, DAPR_VERSION))
                return -ENOMEM;
        for (struct map_entry *e = NULL; (e = map_next(&k->extended, e));)
                if (strcmp(e->key, RUNTIME_VERSION_KEY) != 0 &&
                    add_extended(a, m, arena_strdup(a, str_of(e->key)), arena_strdup(a, str_of(e->value))))
                        return -ENOMEM;
        qsort(m->extended_metadata, m->n_extended_metadata, sizeof m->extended_metadata[0], by_key);
        return 0;
}

static const char *duration(struct arena *a, int64_t ns)
{
        char text[40];

        duration_text(text, ns);
        return arena_strdup(a, str_of(text));
}

static int fill_app(const struct daprd_opts *o, struct arena *a, metadata_message *m)
{
        app_connection *p = m->app_connection_properties = arena_new(a, app_connection);

        if (!p)
                return -ENOMEM;
        dapr__proto__runtime__v1__app_connection_properties__init(p);
        p->port = o->app_port;
        p->protocol = o->app_protocol;
        p->channel_address = o->app_channel_address;
        p->max_concurrency = o->app_max_concurrency;
        if (!o->enable_app_health_check)
                return 0;
        if (!(p->health = arena_new(a, app_health)))
                return -ENOMEM;
        dapr__proto__runtime__v1__app_connection_health_properties__init(p->health);
        if (strncmp(o->app_protocol, "grpc", 4) != 0)
                p->health->health_check_path = o->app_health_check_path;
        p->health->health_probe_interval = duration(a, (int64_t)o->app_health_probe_interval * 1000000000);
        p->health->health_probe_timeout = duration(a, (int64_t)o->app_health_probe_timeout * 1000000);
        p->health->health_threshold = o->app_health_threshold;
        return p->health->health_probe_interval && p->health->health_probe_timeout ? 0 : -ENOMEM;
}

static int fill_actors(struct kernel *k, struct arena *a, metadata_message *m)
{
        actor_runtime *r = m->actor_runtime = arena_new(a, actor_runtime);
        workflows *w = arena_new(a, workflows);

        if (!r || !w)
                return -ENOMEM;
        dapr__proto__runtime__v1__actor_runtime__init(r);
        r->runtime_status = DAPR__PROTO__RUNTIME__V1__ACTOR_RUNTIME__ACTOR_RUNTIME_STATUS__INITIALIZING;
        if (health_check(&k->health, HEALTH_ALL, NULL)) {
                r->runtime_status = DAPR__PROTO__RUNTIME__V1__ACTOR_RUNTIME__ACTOR_RUNTIME_STATUS__DISABLED;
                r->placement = "placement: disconnected";
        }
        dapr__proto__runtime__v1__metadata_workflows__init(w);
        m->_workflows_case = DAPR__PROTO__RUNTIME__V1__GET_METADATA_RESPONSE___WORKFLOWS_WORKFLOWS;
        m->workflows = w;
        return 0;
}

int metadata_fill(struct kernel *k, struct arena *a, metadata_message *m)
{
        m->id = k->opts.app_id;
        m->runtime_version = DAPR_VERSION;
        m->n_enabled_features = k->config.n_features;
        m->enabled_features = k->config.features;
        if (fill_components(k, a, m) || fill_extended(k, a, m) || metadata_fill_subscriptions(k, a, m) || fill_app(&k->opts, a, m) ||
            fill_actors(k, a, m) || fill_endpoints(k, a, m))
                return -ENOMEM;
        return 0;
}

/* ---- doors ---- */

static int get(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        return metadata_fill(c->k, c->arena, (metadata_message *)out) ? call_fail(c, ERR_UNTYPED, "out of memory") : 0;
}

static size_t extended_bytes(const struct kernel *k)
{
        size_t n = 0;

        for (struct map_entry *e = NULL; (e = map_next(&k->extended, e));)
                n += e->key_n + strlen(e->value);
        return n;
}

static int set_value(struct kernel *k, struct str key, struct str value)
{
        char *copy, *old;

        if (!key.n)
                return 0;
        old = map_get(&k->extended, key);
        if (!old && k->extended.count >= EXTENDED_KEYS_MAX)
                return -ENOSPC;
        if (key.n + value.n > EXTENDED_BYTES_MAX || extended_bytes(k) - (old ? key.n + strlen(old) : 0) + key.n + value.n > EXTENDED_BYTES_MAX)
                return -EDQUOT;
        if (!(copy = strndup(value.p ? value.p : "", value.n)))
                return -ENOMEM;
        if (map_set(&k->extended, key, copy)) {
                free(copy);
                return -ENOMEM;
        }
        free(old);
        return 0;
}

static int set_fails(struct call *c, int r)
{
        if (r == -ENOSPC)
                return call_fail(c, ERR_UNTYPED, arena_printf(c->arena, "there are %d keys already: set one of them again", EXTENDED_KEYS_MAX));
        if (r == -EDQUOT)
                return call_fail(c, ERR_UNTYPED, arena_printf(c->arena, "keys and values would take more than %d bytes: set shorter ones",
                                                              EXTENDED_BYTES_MAX));
        return call_fail(c, ERR_UNTYPED, "out of memory");
}

static int set(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        const Dapr__Proto__Runtime__V1__SetMetadataRequest *req = (const void *)in;
        int r = set_value(c->k, str_of(req->key), str_of(req->value));

        return r ? set_fails(c, r) : 0;
}

static void http_get(struct call *c)
{
        metadata_message m = DAPR__PROTO__RUNTIME__V1__GET_METADATA_RESPONSE__INIT;
        struct buf b = {0};

        if (metadata_fill(c->k, c->arena, &m)) {
                call_fail(c, ERR_UNTYPED, "out of memory");
                reply_error(c);
                return;
        }
        metadata_json(c->k, c->arena, &m, &b);
        reply_json(c, 200, json_escape_html(c->arena, buf_str(&b)));
        buf_fini(&b);
}

static void http_put(struct call *c)
{
        struct str body;

        if (call_body(c, &body))
                return;
        int r = set_value(c->k, route_param(c, "key"), body);
        if (r) {
                set_fails(c, r);
                reply_error(c);
                return;
        }
        reply_empty(c);
}

static const struct http_route http_rows[] = {
        {"GET", "/v1.0/metadata", "metadata", "v1", "GetMetadata", http_get, .public_ = true},
        {"PUT", "/v1.0/metadata/{key}", "metadata", "v1", "PutMetadata", http_put, .public_ = true},
};
static const struct grpc_route grpc_rows[] = {
        {"GetMetadata", "metadata.v1", &dapr__proto__runtime__v1__get_metadata_request__descriptor,
         &dapr__proto__runtime__v1__get_metadata_response__descriptor, get, NULL},
        {"SetMetadata", "metadata.v1", &dapr__proto__runtime__v1__set_metadata_request__descriptor,
         &google__protobuf__empty__descriptor, set, NULL},
};
const struct block metadata_block_def = {.name = "metadata", .http = http_rows, .n_http = sizeof http_rows / sizeof http_rows[0],
                                         .grpc = grpc_rows, .n_grpc = sizeof grpc_rows / sizeof grpc_rows[0]};
