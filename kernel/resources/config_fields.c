/*
 * One row a field of spec: its path, its type, where it goes. Fields that only later blocks read have no destination; they are
 * checked here, so that a wrong Configuration is refused at start with its line, and read from the tree or its JSON later.
 * Types convert as yaml.v3 does: any scalar is text; yes, no, on, off are booleans where a boolean is wanted.
 */
#include "kernel/resources/config_fields.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "sdk/base/flags.h"

enum field_kind {
        TEXT,      /* const char * */
        BOOL,      /* bool * */
        TRISTATE,  /* int *, -1 when absent */
        INT,       /* int * */
        DURATION,  /* int64_t *, nanoseconds */
        TEXTS,     /* const char *** and size_t * */
        NUMBERS,   /* double ** and size_t *: integers */
        PAIRS,     /* const char *** and size_t *: "a=b" or a map with name and value, kept as "a=b" */
        TEXT_MAP,  /* checked only */
        ANY,       /* not looked at */
        MAPS,      /* array of `size` bytes each, and size_t *; `rows` say what is in them */
};
#define NOWHERE ((size_t)-1)

struct field {
        const char *path;
        enum field_kind kind;
        size_t offset, offset_n;
        const struct field *rows;
        size_t size;
};
struct decode {
        struct configuration *c;
        const char *error;
        bool no_memory;
};

static const struct field api_rows[] = {
        {"name", TEXT, offsetof(struct api_rule, name)},
        {"version", TEXT, offsetof(struct api_rule, version)},
        {"protocol", TEXT, offsetof(struct api_rule, protocol)},
        {NULL},
};
static const struct field secret_rows[] = {
        {"storeName", TEXT, offsetof(struct secret_scope, store)},
        {"defaultAccess", TEXT, offsetof(struct secret_scope, default_access)},
        {"allowedSecrets", TEXTS, offsetof(struct secret_scope, allowed), offsetof(struct secret_scope, n_allowed)},
        {"deniedSecrets", TEXTS, offsetof(struct secret_scope, denied), offsetof(struct secret_scope, n_denied)},
        {NULL},
};
static const struct field selector_rows[] = {
        {"field", TEXT, NOWHERE},
        {"value", TEXT, NOWHERE},
        {NULL},
};
static const struct field handler_rows[] = {
        {"name", TEXT, offsetof(struct pipeline_handler, name)},
        {"type", TEXT, offsetof(struct pipeline_handler, type)},
        {"version", TEXT, offsetof(struct pipeline_handler, version)},
        {"selector.fields", MAPS, NOWHERE, NOWHERE, selector_rows},
        {NULL},
};
struct feature {
        const char *name;
        bool enabled;
};
static const struct field feature_rows[] = {
        {"name", TEXT, offsetof(struct feature, name)},
        {"enabled", BOOL, offsetof(struct feature, enabled)},
        {NULL},
};
static const struct field label_rows[] = {
        {"name", TEXT, NOWHERE},
        {"regex", TEXT_MAP, NOWHERE},
        {NULL},
};
static const struct field rule_rows[] = {
        {"name", TEXT, NOWHERE},
        {"labels", MAPS, NOWHERE, NOWHERE, label_rows},
        {NULL},
};
static const struct field operation_rows[] = {
        {"name", TEXT, NOWHERE},
        {"httpVerb", TEXTS, NOWHERE, NOWHERE},
        {"action", TEXT, NOWHERE},
        {NULL},
};
static const struct field policy_rows[] = {
        {"appId", TEXT, NOWHERE},
        {"defaultAction", TEXT, NOWHERE},
        {"trustDomain", TEXT, NOWHERE},
        {"namespace", TEXT, NOWHERE},
        {"operations", MAPS, NOWHERE, NOWHERE, operation_rows},
        {NULL},
};
static const struct field validator_rows[] = {
        {"name", TEXT, NOWHERE},
        {"options", ANY, NOWHERE},
        {NULL},
};

#define F(field) offsetof(struct configuration, field)
#define LIST(field) F(field), F(n_##field)
static const struct field rows[] = {
        {"httpPipeline.handlers", MAPS, LIST(http_pipeline), handler_rows, sizeof(struct pipeline_handler)},
        {"appHttpPipeline.handlers", MAPS, LIST(app_http_pipeline), handler_rows, sizeof(struct pipeline_handler)},
        {"tracing.samplingRate", TEXT, F(tracing_sampling_rate)},
        {"tracing.stdout", BOOL, F(tracing_stdout)},
        {"tracing.zipkin.endpointAddress", TEXT, F(tracing_zipkin)},
        {"tracing.otel.protocol", TEXT, F(tracing_otel_protocol)},
        {"tracing.otel.endpointAddress", TEXT, F(tracing_otel_endpoint)},
        {"tracing.otel.isSecure", BOOL, F(tracing_otel_is_secure)},
        {"tracing.otel.headers", PAIRS, LIST(tracing_otel_headers)},
        {"tracing.otel.timeout", DURATION, F(tracing_otel_timeout_ns)},
        {"metric.enabled", BOOL, F(metrics_enabled)},
        {"metric.recordErrorCodes", BOOL, F(metrics_record_error_codes)},
        {"metric.http.increasedCardinality", TRISTATE, F(metrics_increased_cardinality)},
        {"metric.http.pathMatching", TEXTS, LIST(metrics_path_matching)},
        {"metric.http.excludeVerbs", BOOL, F(metrics_exclude_verbs)},
        {"metric.latencyDistributionBuckets", NUMBERS, LIST(metrics_latency_buckets)},
        {"metric.rules", MAPS, NOWHERE, NOWHERE, rule_rows},
        {"metrics.enabled", BOOL, NOWHERE}, /* its members count through metric: config_apply_metrics() */
        {"mtls.enabled", BOOL, NOWHERE},
        {"mtls.workloadCertTTL", TEXT, NOWHERE},
        {"mtls.allowedClockSkew", TEXT, NOWHERE},
        {"mtls.sentryAddress", TEXT, NOWHERE},
        {"mtls.controlPlaneTrustDomain", TEXT, NOWHERE},
        {"mtls.tokenValidators", MAPS, NOWHERE, NOWHERE, validator_rows},
        {"secrets.scopes", MAPS, LIST(secret_scopes), secret_rows, sizeof(struct secret_scope)},
        {"accessControl.defaultAction", TEXT, NOWHERE},
        {"accessControl.trustDomain", TEXT, NOWHERE},
        {"accessControl.policies", MAPS, NOWHERE, NOWHERE, policy_rows},
        {"nameResolution.component", TEXT, F(name_resolution_component)},
        {"nameResolution.version", TEXT, F(name_resolution_version)},
        {"nameResolution.configuration", ANY, NOWHERE},
        {"api.allowed", MAPS, LIST(api_allowed), api_rows, sizeof(struct api_rule)},
        {"api.denied", MAPS, LIST(api_denied), api_rows, sizeof(struct api_rule)},
        {"components.deny", TEXTS, LIST(components_deny)},
        {"logging.apiLogging.enabled", TRISTATE, F(api_logging)},
        {"logging.apiLogging.obfuscateURLs", BOOL, F(api_logging_obfuscate_urls)},
        {"logging.apiLogging.omitHealthChecks", BOOL, F(api_logging_omit_health)},
        {"wasm.strictSandbox", BOOL, F(wasm_strict_sandbox)},
        {"workflow.maxConcurrentWorkflowInvocations", INT, F(max_concurrent_workflows)},
        {"workflow.maxConcurrentActivityInvocations", INT, F(max_concurrent_activities)},
        {"workflow.stateRetentionPolicy.anyTerminal", DURATION, NOWHERE},
        {"workflow.stateRetentionPolicy.completed", DURATION, NOWHERE},
        {"workflow.stateRetentionPolicy.failed", DURATION, NOWHERE},
        {"workflow.stateRetentionPolicy.terminated", DURATION, NOWHERE},
        {NULL},
};
#undef F
#undef LIST

/* ---- errors ---- */

static void no_memory(struct decode *d)
{
        d->no_memory = true;
        if (!d->error)
                d->error = "the Configuration needs too much memory";
}

/* The first error stays. */
static void wrong(struct decode *d, const struct yaml_node *at, struct str path, const char *wanted)
{
        static const char *const kinds[] = {[YAML_MAP] = "a map", [YAML_LIST] = "a list"};

        if (d->error)
                return;
        if (at->kind == YAML_SCALAR)
                d->error = yaml_error(&d->c->arena, at, "%.*s must be %s, not \"%.*s\"", STR_FMT(path), wanted,
                                      at->text.n > 40 ? 40 : (int)at->text.n, at->text.p);
        else
                d->error = yaml_error(&d->c->arena, at, "%.*s must be %s, not %s", STR_FMT(path), wanted, kinds[at->kind]);
}

static void *array_of(struct decode *d, size_t n, size_t size)
{
        void *p = arena_zalloc(&d->c->arena, (n ? n : 1) * size);
        if (!p)
                no_memory(d);
        return p;
}

/* ---- scalars ---- */

static const char *text_of(struct decode *d, const struct yaml_node *n, struct str path)
{
        struct str s = STR_NULL;
        int r = yaml_string(&d->c->arena, n, YAML_V3, &s);

        if (r == -ENOMEM)
                no_memory(d);
        else if (r || (s.p && memchr(s.p, 0, s.n)))
                wrong(d, n, path, "text");
        if (!r && s.p && n->tag && !(s.p = arena_strdup(&d->c->arena, s)))
                no_memory(d);
        return r || !s.p ? "" : s.p; /* node texts end with NUL */
}

static bool bool_of(struct decode *d, const struct yaml_node *n, struct str path)
{
        static const char *const yes[] = {"y", "Y", "yes", "Yes", "YES", "on", "On", "ON"};
        static const char *const no[] = {"n", "N", "no", "No", "NO", "off", "Off", "OFF"};
        struct yaml_value v = {0};

        if (n->kind == YAML_SCALAR && yaml_resolve(&d->c->arena, n, YAML_V3, &v) == 0) {
                if (v.type == YAML_BOOL)
                        return v.b;
                for (size_t i = 0; v.type == YAML_STRING && i < sizeof yes / sizeof *yes; i++) {
                        if (str_eqz(v.s, yes[i]))
                                return true;
                        if (str_eqz(v.s, no[i]))
                                return false;
                }
        }
        wrong(d, n, path, "true or false");
        return false;
}

static int64_t integer_of(struct decode *d, const struct yaml_node *n, struct str path, int64_t max)
{
        struct yaml_value v = {0};

        if (n->kind == YAML_SCALAR && yaml_resolve(&d->c->arena, n, YAML_V3, &v) == 0) {
                if (v.type == YAML_INT && v.i <= max && v.i >= -max - 1)
                        return v.i;
                if (v.type == YAML_FLOAT && v.d > -9e15 && v.d < 9e15 && (int64_t)v.d <= max && (int64_t)v.d >= -max - 1)
                        return (int64_t)v.d;
        }
        wrong(d, n, path, "an integer");
        return 0;
}

static int64_t duration_of(struct decode *d, const struct yaml_node *n, struct str path)
{
        struct yaml_value v = {0};
        int64_t ns;

        if (n->kind == YAML_SCALAR && yaml_resolve(&d->c->arena, n, YAML_V3, &v) == 0 && v.type == YAML_STRING &&
            parse_duration(v.s, &ns) == 0)
                return ns;
        wrong(d, n, path, "a duration like 30s or 1h30m");
        return 0;
}

/* ---- lists ---- */

static const char *pair_of(struct decode *d, const struct yaml_node *n, struct str path)
{
        const struct yaml_node *name = yaml_get(n, "name"), *value = yaml_get(n, "value");

        if (n->kind != YAML_MAP)
                return text_of(d, n, path);
        if (!name || !value) {
                wrong(d, n, path, "\"name=value\", or a map with name and value");
                return "";
        }
        const char *z = arena_printf(&d->c->arena, "%s=%s", text_of(d, name, path), text_of(d, value, path));
        if (!z)
                no_memory(d);
        return z ? z : "";
}

static void decode_rows(struct decode *d, const struct yaml_node *map, struct str prefix, const struct field *table, char *base);

static void list_item(struct decode *d, const struct field *f, const struct yaml_node *n, struct str path, void *list, size_t i)
{
        switch (f->kind) {
        case TEXTS:
                ((const char **)list)[i] = text_of(d, n, path);
                return;
        case PAIRS:
                ((const char **)list)[i] = pair_of(d, n, path);
                return;
        case NUMBERS:
                ((double *)list)[i] = (double)integer_of(d, n, path, INT64_MAX - 1);
                return;
        case MAPS:
                if (yaml_is_null(n))
                        n = yaml_map_new(&d->c->arena, n->file);
                if (!n)
                        no_memory(d);
                else if (n->kind != YAML_MAP)
                        wrong(d, n, path, "a map");
                else
                        decode_rows(d, n, path, f->rows, f->offset == NOWHERE ? NULL : (char *)list + i * f->size);
                return;
        case TEXT:
        case BOOL:
        case TRISTATE:
        case INT:
        case DURATION:
        case TEXT_MAP:
        case ANY:
                return;
        }
}

static void decode_list(struct decode *d, const struct field *f, const struct yaml_node *n, struct str path, char *base)
{
        size_t size = f->kind == MAPS ? f->size : f->kind == NUMBERS ? sizeof(double) : sizeof(char *), count = 0;

        if (n->kind != YAML_LIST) {
                wrong(d, n, path, "a list");
                return;
        }
        void *list = array_of(d, n->n, size ? size : 1);
        for (const struct yaml_item *i = n->items; i && list && !d->error; i = i->next, count++) {
                char where[160];
                snprintf(where, sizeof where, "%.*s[%zu]", STR_FMT(path), count);
                list_item(d, f, i->value, str_of(where), list, count);
        }
        if (list && base && f->offset != NOWHERE) {
                memcpy(base + f->offset, &list, sizeof list);
                memcpy(base + f->offset_n, &count, sizeof count);
        }
}

/* ---- rows ---- */

static void decode_field(struct decode *d, const struct field *f, const struct yaml_node *n, struct str path, char *base)
{
        void *to = base && f->offset != NOWHERE ? base + f->offset : NULL;
        union {
                const char *text;
                bool b;
                int i;
                int64_t ns;
        } v;
        size_t size = 0;

        switch (f->kind) {
        case TEXT:
                v.text = text_of(d, n, path);
                size = sizeof v.text;
                break;
        case BOOL:
                v.b = bool_of(d, n, path);
                size = sizeof v.b;
                break;
        case TRISTATE:
                v.i = bool_of(d, n, path);
                size = sizeof v.i;
                break;
        case INT:
                v.i = (int)integer_of(d, n, path, INT_MAX);
                size = sizeof v.i;
                break;
        case DURATION:
                v.ns = duration_of(d, n, path);
                size = sizeof v.ns;
                break;
        case TEXT_MAP:
                if (n->kind != YAML_MAP)
                        wrong(d, n, path, "a map");
                for (const struct yaml_item *i = n->kind == YAML_MAP ? n->items : NULL; i; i = i->next)
                        text_of(d, i->value, path);
                break;
        case ANY:
                break;
        case TEXTS:
        case NUMBERS:
        case PAIRS:
        case MAPS:
                decode_list(d, f, n, path, base);
                break;
        }
        if (to && size)
                memcpy(to, &v, size);
}

/* Follows a path; what stands on the way must be a map. NULL: absent, null or wrong. */
static const struct yaml_node *follow(struct decode *d, const struct yaml_node *n, struct str prefix, const char *path)
{
        char where[160];

        for (struct str rest = str_of(path), part; rest.p && n;) {
                part = str_cut(&rest, '.');
                const struct yaml_node *next = NULL;
                for (const struct yaml_item *i = n->items; i && !next; i = i->next)
                        if (str_eq(i->key->text, part))
                                next = i->value;
                n = yaml_is_null(next) ? NULL : next;
                if (n && rest.p && n->kind != YAML_MAP) {
                        snprintf(where, sizeof where, "%.*s.%.*s", STR_FMT(prefix), (int)(part.p + part.n - path), path);
                        wrong(d, n, str_of(where), "a map");
                        return NULL;
                }
        }
        return n;
}

/* Tables nest three deep at most, whatever the input is. */
static void decode_rows(struct decode *d, const struct yaml_node *map, struct str prefix, const struct field *table, char *base)
{
        static const char *const empty = "";

        for (const struct field *f = table; f->path && !d->error; f++) {
                const struct yaml_node *n = follow(d, map, prefix, f->path);
                if (!n) {
                        if (base && f->kind == TEXT && f->offset != NOWHERE)
                                memcpy(base + f->offset, &empty, sizeof empty);
                        continue;
                }
                char where[160];
                snprintf(where, sizeof where, "%.*s.%s", STR_FMT(prefix), f->path);
                decode_field(d, f, n, str_of(where), base);
        }
}

/* Enabled ones; a later entry that disables takes the name out again. */
static void read_features(struct decode *d, const struct yaml_node *spec)
{
        const struct field f = {"features", MAPS, 0, sizeof(void *), feature_rows, sizeof(struct feature)};
        const struct yaml_node *n = yaml_get(spec, "features");
        struct {
                struct feature *v;
                size_t n;
        } list = {0};
        struct configuration *c = d->c;

        if (!yaml_is_null(n) && !d->error)
                decode_list(d, &f, n, STR("spec.features"), (char *)&list);
        c->features = array_of(d, list.n, sizeof *c->features);
        for (size_t i = 0; i < list.n && c->features; i++) {
                size_t k = 0;
                while (k < c->n_features && strcmp(c->features[k], list.v[i].name) != 0)
                        k++;
                if (list.v[i].enabled && *list.v[i].name && k == c->n_features)
                        c->features[c->n_features++] = list.v[i].name;
                else if (!list.v[i].enabled && k < c->n_features)
                        c->features[k] = c->features[--c->n_features];
        }
}

int config_decode(struct configuration *c, const char **ret_err)
{
        const struct yaml_node *spec = yaml_get(c->doc, "spec");
        struct decode d = {.c = c};

        c->metrics_increased_cardinality = c->api_logging = -1;
        c->tracing_otel_is_secure = c->metrics_enabled = true;
        if (!yaml_is_null(spec) && spec->kind != YAML_MAP)
                wrong(&d, spec, STR("spec"), "a map");
        if (!spec || spec->kind != YAML_MAP)
                spec = yaml_map_new(&c->arena, "");
        if (!spec) {
                no_memory(&d);
        } else if (!d.error) {
                decode_rows(&d, spec, STR("spec"), rows, (char *)c);
                read_features(&d, spec);
        }
        *ret_err = d.error;
        return d.no_memory ? -ENOMEM : d.error ? -EINVAL : 0;
}

int config_apply_metrics(struct configuration *c)
{
        static const char *const members[] = {"enabled", "rules", "http", "latencyDistributionBuckets", "recordErrorCodes"};
        struct yaml_node *spec = yaml_get(c->doc, "spec"), *metrics = yaml_get(spec, "metrics"), *metric = yaml_get(spec, "metric");

        if (yaml_is_null(metrics) || metrics->kind != YAML_MAP)
                return 0;
        struct yaml_node *empty = yaml_map_new(&c->arena, metrics->file), *merged;
        if (!empty || !(merged = yaml_merge(&c->arena, empty, metric && metric->kind == YAML_MAP ? metric : empty)))
                return -ENOMEM;
        for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
                struct yaml_node *v = yaml_get(metrics, members[i]);
                if (yaml_is_null(v) || (strcmp(members[i], "rules") == 0 && v->kind == YAML_LIST && v->n == 0))
                        continue;
                if (yaml_set(&c->arena, merged, members[i], v))
                        return -ENOMEM;
        }
        return yaml_set(&c->arena, spec, "metric", merged);
}
