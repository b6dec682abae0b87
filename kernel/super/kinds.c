/* The kinds of components as tables: category in spec.type, gRPC services, words for a type that nobody serves, features. */
#include "dapr/proto/components/v1/common.pb-c.h"
#include "kernel/super/plugin.h"

static const struct {
        const char *category;
        const char *noun;        /* "couldn't find <noun> x/v1", as the reference words it */
        const char *services[3]; /* with Init, Features and Ping; the reference's pluggable contract, or ours */
} kinds[KIND_N] = {
        [KIND_STATE] = {"state", "state store", {"dapr.proto.components.v1.StateStore"}},
        [KIND_PUBSUB] = {"pubsub", "message bus", {"dapr.proto.components.v1.PubSub"}},
        [KIND_BINDING] = {"bindings", "output binding",
                          {"dapr.proto.components.v1.InputBinding", "dapr.proto.components.v1.OutputBinding"}},
        [KIND_SECRETSTORE] = {"secretstores", "secret store", {"dapr.proto.components.v1.SecretStore"}},
        [KIND_CONFIGURATION] = {"configuration", "configuration store", {"microdapr.plugin.v1.ConfigurationStore"}},
        [KIND_LOCK] = {"lock", "lock store", {"microdapr.plugin.v1.Lock"}},
        [KIND_CRYPTO] = {"crypto", "crypto provider", {"microdapr.plugin.v1.Crypto"}},
        [KIND_CONVERSATION] = {"conversation", "conversation", {"microdapr.plugin.v1.Conversation"}},
        [KIND_MIDDLEWARE] = {"middleware", "HTTP middleware", {"microdapr.plugin.v1.HttpMiddleware"}},
        [KIND_NAMERESOLUTION] = {"nameresolution", "name resolver", {"microdapr.plugin.v1.NameResolution"}},
};

const char *component_kind_category(enum component_kind k)
{
        return k < KIND_N ? kinds[k].category : "";
}

const char *kind_noun(enum component_kind k)
{
        return kinds[k].noun;
}

const char *kind_service(enum component_kind k, size_t i)
{
        return i < 3 ? kinds[k].services[i] : NULL;
}

bool kind_of_type(struct str type, enum component_kind *ret)
{
        ptrdiff_t dot = str_chr(type, '.');
        for (int k = 0; dot > 0 && k < KIND_N; k++)
                if (str_ieq(str_n(type.p, (size_t)dot), str_of(kinds[k].category))) {
                        *ret = (enum component_kind)k;
                        return true;
                }
        return false;
}

/* ---- features ---- */

static const struct {
        const char *name;
        unsigned bit;
} features[] = {
        {"ETAG", FEATURE_ETAG},
        {"TRANSACTIONAL", FEATURE_TRANSACTIONAL},
        {"TTL", FEATURE_TTL},
        {"QUERY_API", FEATURE_QUERY_API},
        {"DELETE_WITH_PREFIX", FEATURE_DELETE_WITH_PREFIX},
        {"PARTITION_KEY", FEATURE_PARTITION_KEY},
        {"KEYS_LIKE", FEATURE_KEYS_LIKE},
        {"MULTIPLE_KEY_VALUES_PER_SECRET", FEATURE_MULTIPLE_VALUES_PER_SECRET},
        {"BULK_PUBSUB", FEATURE_BULK_PUBLISH},
        {"MESSAGE_TTL", FEATURE_MESSAGE_TTL},
        {"SUBSCRIBE_WILDCARDS", FEATURE_SUBSCRIBE_WILDCARDS},
        {"INPUT_BINDING", FEATURE_INPUT_BINDING},
        {"OUTPUT_BINDING", FEATURE_OUTPUT_BINDING},
        {"HTTP_EXCHANGE", FEATURE_HTTP_EXCHANGE},
};

unsigned component_feature_bit(struct str name)
{
        for (size_t i = 0; i < sizeof features / sizeof *features; i++)
                if (str_eqz(name, features[i].name))
                        return features[i].bit;
        return 0;
}

const char *component_feature_name(unsigned bit)
{
        for (size_t i = 0; i < sizeof features / sizeof *features; i++)
                if (features[i].bit == bit)
                        return features[i].name;
        return NULL;
}

/* Which features of a plugin of ours stand for a further service. */
static const struct {
        const char *service;
        unsigned any_of;
} optional_services[] = {
        {"dapr.proto.components.v1.TransactionalStateStore", FEATURE_TRANSACTIONAL},
        {"dapr.proto.components.v1.TransactionalStoreMultiMaxSize", FEATURE_TRANSACTIONAL},
        {"dapr.proto.components.v1.QueriableStateStore", FEATURE_QUERY_API},
        {"microdapr.plugin.v1.StateStoreExtra", FEATURE_KEYS_LIKE | FEATURE_DELETE_WITH_PREFIX},
};

/* ---- bindings: what is served depends on the plugin and on the component's direction ---- */

static const struct {
        const char *service, *direction;
        unsigned bit;
} directions[] = {
        {"dapr.proto.components.v1.InputBinding", "input", FEATURE_INPUT_BINDING},
        {"dapr.proto.components.v1.OutputBinding", "output", FEATURE_OUTPUT_BINDING},
};

static unsigned directions_of(const struct component_spec *spec, unsigned without)
{
        unsigned bits = 0;
        bool found = false;
        for (size_t i = 0; i < spec->n_metadata; i++) {
                const struct metadata_item *m = &spec->metadata[i];
                if (!m->name || strcasecmp(m->name, "direction") != 0)
                        continue;
                found = true;
                for (struct str rest = str_of(m->value ? m->value : ""), d; rest.p && (d = str_trim(str_cut(&rest, ',')), 1);)
                        for (size_t k = 0; k < 2; k++)
                                if (str_ieq(d, str_of(directions[k].direction)))
                                        bits |= directions[k].bit;
        }
        return found ? bits : without;
}

unsigned component_directions(const struct component_spec *spec)
{
        return directions_of(spec, FEATURE_INPUT_BINDING | FEATURE_OUTPUT_BINDING);
}

unsigned component_explicit_directions(const struct component_spec *spec)
{
        return directions_of(spec, 0);
}

static bool binding_serves(const struct instance *c, const char *service)
{
        for (size_t i = 0; i < 2; i++)
                if (strcmp(directions[i].service, service) == 0 && (component_directions(c->spec) & directions[i].bit))
                        return c->plugin->manifest ? (c->features & directions[i].bit) != 0
                                                   : map_get(&c->plugin->services, str_of(service)) != NULL;
        return false;
}

bool instance_serves(const struct instance *c, const char *service)
{
        if (c->component->kind == KIND_BINDING)
                return binding_serves(c, service);
        if (!c->plugin->manifest)
                return map_get(&c->plugin->services, str_of(service)) != NULL;
        for (size_t i = 0; kind_service(c->component->kind, i); i++)
                if (strcmp(kind_service(c->component->kind, i), service) == 0)
                        return true;
        for (size_t i = 0; i < sizeof optional_services / sizeof *optional_services; i++)
                if (strcmp(optional_services[i].service, service) == 0)
                        return (c->features & optional_services[i].any_of) != 0;
        return false;
}

int instance_ask_features(struct instance *c, struct life *l, struct arena *a, const char *service, struct rpc_status *st)
{
        Dapr__Proto__Components__V1__FeaturesRequest req = DAPR__PROTO__COMPONENTS__V1__FEATURES_REQUEST__INIT;
        const Dapr__Proto__Components__V1__FeaturesResponse *resp;
        struct rpc_opts o = {.md = &c->md, .n_md = 1, .timeout_s = life_limit_s(l, c->plugin->super->tuning.hello_timeout_s)};
        if (c->component->kind == KIND_BINDING) { /* has no Features: its services say it */
                for (size_t i = 0; i < 2; i++)
                        if (binding_serves(c, directions[i].service))
                                c->features |= directions[i].bit;
                return 0;
        }
        int r = rpc_unary_pb(l->ch, a, arena_printf(a, "/%s/Features", service), &req.base,
                             &dapr__proto__components__v1__features_response__descriptor, &resp, &o, st);
        if (r)
                return r;
        c->features = 0;
        for (size_t i = 0; i < resp->n_features; i++)
                c->features |= component_feature_bit(str_of(resp->features[i]));
        return 0;
}

bool component_serves(const struct component *c, const char *service)
{
        return c->now && instance_serves(c->now, service);
}
