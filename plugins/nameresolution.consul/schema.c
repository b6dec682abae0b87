/* One walk over the JSON along the table. The table ends, so the walk's depth does, whatever the text holds. */
#include "plugins/nameresolution.consul/schema.h"

#include <errno.h>
#include <stdio.h>

#include "sdk/base/flags.h"

static const struct consul_field auth[] = {{"Username", CONSUL_TEXT}, {"Password", CONSUL_TEXT}, {NULL}};
static const struct consul_field tls[] = {{"Address", CONSUL_TEXT},  {"CAFile", CONSUL_TEXT},  {"CAPath", CONSUL_TEXT},
                                          {"CertFile", CONSUL_TEXT}, {"KeyFile", CONSUL_TEXT}, {"InsecureSkipVerify", CONSUL_BOOL},
                                          {NULL}};
static const struct consul_field client[] = {{"Address", CONSUL_TEXT},   {"Scheme", CONSUL_TEXT},  {"Datacenter", CONSUL_TEXT},
                                             {"HTTPAuth", CONSUL_OBJECT, auth}, {"WaitTime", CONSUL_NS},  {"Token", CONSUL_TEXT},
                                             {"TokenFile", CONSUL_TEXT}, {"TLSConfig", CONSUL_OBJECT, tls}, {NULL}};
static const struct consul_field check[] = {{"Args", CONSUL_TEXTS},
                                            {"CheckID", CONSUL_TEXT},
                                            {"Name", CONSUL_TEXT},
                                            {"DockerContainerID", CONSUL_TEXT},
                                            {"Shell", CONSUL_TEXT},
                                            {"Interval", CONSUL_TEXT},
                                            {"Timeout", CONSUL_TEXT},
                                            {"TTL", CONSUL_TEXT},
                                            {"HTTP", CONSUL_TEXT},
                                            {"Method", CONSUL_TEXT},
                                            {"TCP", CONSUL_TEXT},
                                            {"Status", CONSUL_TEXT},
                                            {"Notes", CONSUL_TEXT},
                                            {"GRPC", CONSUL_TEXT},
                                            {"AliasNode", CONSUL_TEXT},
                                            {"AliasService", CONSUL_TEXT},
                                            {"DeregisterCriticalServiceAfter", CONSUL_TEXT},
                                            {"Header", CONSUL_TEXTS_MAP},
                                            {"TLSSkipVerify", CONSUL_BOOL},
                                            {"GRPCUseTLS", CONSUL_BOOL},
                                            {NULL}};
static const struct consul_field query[] = {{"Namespace", CONSUL_TEXT},     {"Partition", CONSUL_TEXT},
                                            {"Datacenter", CONSUL_TEXT},    {"WaitHash", CONSUL_TEXT},
                                            {"Token", CONSUL_TEXT},         {"Near", CONSUL_TEXT},
                                            {"Filter", CONSUL_TEXT},        {"MaxAge", CONSUL_NS},
                                            {"StaleIfError", CONSUL_NS},    {"WaitIndex", CONSUL_INT},
                                            {"WaitTime", CONSUL_NS},        {"NodeMeta", CONSUL_TEXT_MAP},
                                            {"AllowStale", CONSUL_BOOL},    {"RequireConsistent", CONSUL_BOOL},
                                            {"UseCache", CONSUL_BOOL},      {"RelayFactor", CONSUL_INT},
                                            {"LocalOnly", CONSUL_BOOL},     {"Connect", CONSUL_BOOL},
                                            {NULL}};
static const struct consul_field address[] = {{"Address", CONSUL_TEXT}, {"Port", CONSUL_INT}, {NULL}};
static const struct consul_field weights[] = {{"Passing", CONSUL_INT}, {"Warning", CONSUL_INT}, {NULL}};
static const struct consul_field gateway[] = {{"Mode", CONSUL_TEXT}, {NULL}};
static const struct consul_field upstream[] = {{"DestinationType", CONSUL_TEXT},  {"DestinationNamespace", CONSUL_TEXT},
                                               {"DestinationName", CONSUL_TEXT},  {"Datacenter", CONSUL_TEXT},
                                               {"LocalBindAddress", CONSUL_TEXT}, {"LocalBindPort", CONSUL_INT},
                                               {"Config", CONSUL_ANY},            {"MeshGateway", CONSUL_OBJECT, gateway},
                                               {NULL}};
static const struct consul_field path[] = {{"ListenerPort", CONSUL_INT}, {"Path", CONSUL_TEXT},         {"LocalPathPort", CONSUL_INT},
                                           {"Protocol", CONSUL_TEXT},    {"ParsedFromCheck", CONSUL_BOOL}, {NULL}};
static const struct consul_field expose[] = {{"Checks", CONSUL_BOOL}, {"Paths", CONSUL_LIST, path}, {NULL}};
static const struct consul_field proxy[] = {{"DestinationServiceName", CONSUL_TEXT}, {"DestinationServiceID", CONSUL_TEXT},
                                            {"LocalServiceAddress", CONSUL_TEXT},    {"LocalServicePort", CONSUL_INT},
                                            {"Config", CONSUL_ANY},                  {"Upstreams", CONSUL_LIST, upstream},
                                            {"MeshGateway", CONSUL_OBJECT, gateway}, {"Expose", CONSUL_OBJECT, expose},
                                            {NULL}};
static const struct consul_field connect[] = {{"Native", CONSUL_BOOL}, {"SidecarService", CONSUL_ANY}, {NULL}};
static const struct consul_field registration[] = {{"Kind", CONSUL_TEXT},
                                                   {"ID", CONSUL_TEXT},
                                                   {"Name", CONSUL_TEXT},
                                                   {"Tags", CONSUL_TEXTS},
                                                   {"Port", CONSUL_INT},
                                                   {"Address", CONSUL_TEXT},
                                                   {"TaggedAddresses", CONSUL_OBJECT_MAP, address},
                                                   {"EnableTagOverride", CONSUL_BOOL},
                                                   {"Meta", CONSUL_TEXT_MAP},
                                                   {"Weights", CONSUL_OBJECT, weights},
                                                   {"Check", CONSUL_OBJECT, check},
                                                   {"Checks", CONSUL_LIST, check},
                                                   {"Proxy", CONSUL_OBJECT, proxy},
                                                   {"Connect", CONSUL_OBJECT, connect},
                                                   {NULL}};
const struct consul_field consul_configuration[] = {{"Client", CONSUL_OBJECT, client},
                                                    {"Checks", CONSUL_LIST, check},
                                                    {"Tags", CONSUL_TEXTS},
                                                    {"Meta", CONSUL_TEXT_MAP},
                                                    {"QueryOptions", CONSUL_OBJECT, query},
                                                    {"AdvancedRegistration", CONSUL_OBJECT, registration},
                                                    {"DaprPortMetaKey", CONSUL_TEXT},
                                                    {"SelfRegister", CONSUL_BOOL},
                                                    {"SelfDeregister", CONSUL_BOOL},
                                                    {"UseCache", CONSUL_BOOL},
                                                    {NULL}};

/* ---- the walk ---- */

struct walk {
        struct json_reader in;
        struct json_writer out;
        struct arena a;
        struct buf *unknown;
        char *err;
        size_t err_n;
};

static int wrong(struct walk *w, const char *where, const char *expected)
{
        if (w->in.error)
                snprintf(w->err, w->err_n, "the configuration is no JSON: %s", w->in.error);
        else
                snprintf(w->err, w->err_n, "field '%s': %s expected", where, expected);
        return -EINVAL;
}

static int walk_texts(struct walk *w, const char *where)
{
        struct str s;

        if (!json_enter_array(&w->in))
                return wrong(w, where, "a list of texts");
        json_array_begin(&w->out);
        while (json_next_element(&w->in)) {
                if (!json_read_string(&w->in, &w->a, &s))
                        return wrong(w, where, "a list of texts");
                json_string(&w->out, s);
        }
        json_array_end(&w->out);
        return w->in.error ? wrong(w, where, "") : 0;
}

static int walk_text_map(struct walk *w, const char *where, bool lists)
{
        struct str name, s;

        if (!json_enter_object(&w->in))
                return wrong(w, where, "a map");
        json_object_begin(&w->out);
        while (json_next_member(&w->in, &w->a, &name)) {
                json_key(&w->out, name);
                if (lists ? walk_texts(w, where) != 0 : !json_read_string(&w->in, &w->a, &s))
                        return lists ? -EINVAL : wrong(w, where, "a map of texts");
                if (!lists)
                        json_string(&w->out, s);
        }
        json_object_end(&w->out);
        return w->in.error ? wrong(w, where, "") : 0;
}

static int walk_scalar(struct walk *w, enum consul_kind kind, const char *where)
{
        struct str s;
        int64_t n;
        bool b;

        switch (kind) {
        case CONSUL_TEXT:
                if (!json_read_string(&w->in, &w->a, &s))
                        return wrong(w, where, "a text");
                json_string(&w->out, s);
                return 0;
        case CONSUL_BOOL:
                if (!json_read_bool(&w->in, &b))
                        return wrong(w, where, "true or false");
                json_bool(&w->out, b);
                return 0;
        case CONSUL_NS:
                if (json_read_string(&w->in, &w->a, &s)) {
                        if (parse_duration(s, &n) || n < 0)
                                return wrong(w, where, "a duration, or nanoseconds,");
                        json_int(&w->out, n);
                        return 0;
                }
                __attribute__((fallthrough));
        case CONSUL_INT:
                if (!json_read_int64(&w->in, &n) || n < 0)
                        return wrong(w, where, kind == CONSUL_NS ? "a duration, or nanoseconds," : "a whole number");
                json_int(&w->out, n);
                return 0;
        case CONSUL_ANY:
                if (!json_read_raw(&w->in, &s))
                        return wrong(w, where, "a value");
                json_raw(&w->out, s);
                return 0;
        case CONSUL_TEXTS: return walk_texts(w, where);
        case CONSUL_TEXT_MAP: return walk_text_map(w, where, false);
        case CONSUL_TEXTS_MAP: return walk_text_map(w, where, true);
        case CONSUL_OBJECT:
        case CONSUL_LIST:
        case CONSUL_OBJECT_MAP: break;
        }
        return -EINVAL;
}

static const struct consul_field *find(const struct consul_field *fields, struct str name)
{
        for (; fields->name; fields++)
                if (str_ieq(name, str_of(fields->name)))
                        return fields;
        return NULL;
}

static int walk_object(struct walk *w, const struct consul_field *fields, const char *where);

static int walk_value(struct walk *w, const struct consul_field *f, const char *where)
{
        struct str name;
        int r = 0;

        if (f->kind == CONSUL_OBJECT)
                return walk_object(w, f->sub, where);
        if (f->kind == CONSUL_LIST) {
                if (!json_enter_array(&w->in))
                        return wrong(w, where, "a list");
                json_array_begin(&w->out);
                while (r == 0 && json_next_element(&w->in))
                        r = json_read_null(&w->in) ? 0 : walk_object(w, f->sub, where);
                json_array_end(&w->out);
                return r ? r : w->in.error ? wrong(w, where, "") : 0;
        }
        if (f->kind == CONSUL_OBJECT_MAP) {
                if (!json_enter_object(&w->in))
                        return wrong(w, where, "a map");
                json_object_begin(&w->out);
                while (r == 0 && json_next_member(&w->in, &w->a, &name)) {
                        json_key(&w->out, name);
                        r = walk_object(w, f->sub, where);
                }
                json_object_end(&w->out);
                return r ? r : w->in.error ? wrong(w, where, "") : 0;
        }
        return walk_scalar(w, f->kind, where);
}

/* Its depth is that of the table. */
static int walk_object(struct walk *w, const struct consul_field *fields, const char *where)
{
        struct str name;
        int r = 0;

        if (!json_enter_object(&w->in))
                return wrong(w, where, "a map");
        json_object_begin(&w->out);
        while (r == 0 && json_next_member(&w->in, &w->a, &name)) {
                const struct consul_field *f = find(fields, name);
                const char *at = arena_printf(&w->a, "%s%s%.*s", where, *where ? "." : "", STR_FMT(name));
                if (!at)
                        return -ENOMEM;
                if (!f) {
                        buf_printf(w->unknown, "%s%s", buf_len(w->unknown) ? ", " : "", at);
                        json_skip(&w->in);
                } else if (!json_read_null(&w->in)) {
                        json_key(&w->out, str_of(f->name));
                        r = walk_value(w, f, at);
                }
        }
        json_object_end(&w->out);
        return r ? r : w->in.error ? wrong(w, where, "") : 0;
}

int consul_canonical(struct str json, struct buf *out, struct buf *unknown, char *err, size_t err_n)
{
        struct walk w = {.unknown = unknown, .err = err, .err_n = err_n};
        int r;

        json_read_init(&w.in, json);
        json_write_init(&w.out, out);
        arena_init(&w.a, 16 * 1024 * 1024);
        r = walk_object(&w, consul_configuration, "");
        if (r == -EINVAL && w.a.exhausted)
                r = -ENOMEM;
        arena_fini(&w.a);
        return r ? r : out->failed || unknown->failed ? -ENOMEM : 0;
}

/* ---- reading what was written ---- */

struct str consul_at(struct str object, const char *name)
{
        struct json_reader r;
        struct str n, raw, found = STR_NULL;
        struct arena a = {0};

        json_read_init(&r, object);
        if (!object.p || !json_enter_object(&r))
                return STR_NULL;
        while (!found.p && json_next_member(&r, &a, &n) && json_read_raw(&r, &raw))
                if (str_eqz(n, name))
                        found = raw;
        arena_fini(&a);
        return found;
}

const char *consul_text(struct arena *a, struct str object, const char *name)
{
        struct str raw = consul_at(object, name), s;
        struct json_reader r;

        json_read_init(&r, raw.p ? raw : STR(""));
        return json_read_string(&r, a, &s) ? arena_strdup(a, s) : a->exhausted ? NULL : "";
}

bool consul_bool(struct str object, const char *name)
{
        return str_eqz(consul_at(object, name), "true");
}

int64_t consul_int(struct str object, const char *name)
{
        struct str raw = consul_at(object, name);
        struct json_reader r;
        int64_t n;

        json_read_init(&r, raw.p ? raw : STR(""));
        return json_read_int64(&r, &n) ? n : 0;
}
