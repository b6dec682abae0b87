/*
 * A Component document as a struct. Field names match without regard to case and numbers become text where text is wanted, as in
 * the reference; a wrong type refuses the whole document with file, line and field.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/resources/resources.h"
#include "sdk/base/yaml.h"
#include "sdk/base/flags.h"
#include "sdk/base/log.h"

#define DEFAULT_INIT_TIMEOUT_NS (INT64_C(5) * 1000 * 1000 * 1000)
enum { COMPONENT_MAX_BYTES = 32 * 1024 * 1024 };

struct decode {
        struct component_spec *c;
        struct arena *errors;
        const char *error; /* the first one */
        bool no_memory;
};

static const char *const kind_names[] = {[YAML_SCALAR] = "a single value", [YAML_MAP] = "a map", [YAML_LIST] = "a list"};

static void no_memory(struct decode *d)
{
        d->no_memory = true;
        if (!d->error)
                d->error = "a Component needs too much memory";
}

static void wrong(struct decode *d, const struct yaml_node *at, const char *field, const char *wanted)
{
        if (!d->error)
                d->error = yaml_error(d->errors, at, "%s must be %s, not %s", field, wanted, kind_names[at->kind]);
}

static const char *copy(struct decode *d, struct str s)
{
        const char *z = arena_strdup(&d->c->arena, s);
        if (!z)
                no_memory(d);
        return z ? z : "";
}

/* Text of a scalar; `none` for an absent one or null. */
static const char *text_of(struct decode *d, const struct yaml_node *n, const char *field, const char *none)
{
        struct str s;

        if (!n)
                return none;
        int r = yaml_string(&d->c->arena, n, YAML_1_1, &s);
        if (r == -ENOMEM)
                no_memory(d);
        else if (r && n->kind != YAML_SCALAR)
                wrong(d, n, field, "text");
        else if (r && !d->error)
                d->error = yaml_error(d->errors, n, "%s: the value does not fit its tag %s", field, n->tag ? n->tag : "");
        if (r || !s.p)
                return none;
        if (memchr(s.p, 0, s.n) && !d->error)
                d->error = yaml_error(d->errors, n, "%s holds a NUL character", field);
        return copy(d, s);
}

/* A map below `parent`; NULL if absent, null or (with an error) of another kind. */
static const struct yaml_node *map_of(struct decode *d, const struct yaml_node *parent, const char *key, const char *field)
{
        const struct yaml_node *n = yaml_get_fold(parent, key);
        if (yaml_is_null(n))
                return NULL;
        if (n->kind == YAML_MAP)
                return n;
        wrong(d, n, field, "a map");
        return NULL;
}

static const struct yaml_node *list_of(struct decode *d, const struct yaml_node *parent, const char *key, const char *field)
{
        const struct yaml_node *n = yaml_get_fold(parent, key);
        if (yaml_is_null(n))
                return NULL;
        if (n->kind == YAML_LIST)
                return n;
        wrong(d, n, field, "a list");
        return NULL;
}

static bool bool_of(struct decode *d, const struct yaml_node *n, const char *field)
{
        struct yaml_value v;

        if (yaml_is_null(n))
                return false;
        if (n->kind != YAML_SCALAR) {
                wrong(d, n, field, "true or false");
        } else if (yaml_resolve(&d->c->arena, n, YAML_1_1, &v) || v.type != YAML_BOOL) {
                if (!d->error)
                        d->error = yaml_error(d->errors, n, "%s must be true or false (without quotes), not \"%.*s\"", field,
                                              STR_FMT(n->text));
        } else {
                return v.b;
        }
        return false;
}

static void *array_of(struct decode *d, size_t n, size_t size)
{
        void *p = arena_zalloc(&d->c->arena, n * size);
        if (!p)
                no_memory(d);
        return p;
}

/* A metadata value: text as it is, everything else as JSON. NULL for an absent value and for null. */
static const char *value_of(struct decode *d, const struct yaml_node *n)
{
        struct buf json = {0};
        struct yaml_value v;
        const char *z = NULL;
        int r;

        if (yaml_is_null(n))
                return NULL;
        if (n->kind == YAML_SCALAR && yaml_resolve(&d->c->arena, n, YAML_1_1, &v) == 0 && v.type == YAML_STRING)
                return text_of(d, n, "spec.metadata.value", NULL);
        r = yaml_to_json(&json, n, YAML_1_1);
        if (r == 0)
                z = copy(d, buf_str(&json));
        else if (r == -ENOMEM)
                no_memory(d);
        else if (!d->error)
                d->error = yaml_error(d->errors, n, "spec.metadata.value has no form in JSON; quote it to make it text");
        buf_fini(&json);
        return z;
}

static void read_item(struct decode *d, const struct yaml_node *n, struct metadata_item *m)
{
        m->line = n->line;
        m->name = "";
        if (yaml_is_null(n))
                return;
        if (n->kind != YAML_MAP) {
                wrong(d, n, "an item of spec.metadata", "a map with name and value");
                return;
        }
        const struct yaml_node *ref = map_of(d, n, "secretKeyRef", "spec.metadata.secretKeyRef");
        m->name = text_of(d, yaml_get_fold(n, "name"), "spec.metadata.name", "");
        m->value = value_of(d, yaml_get_fold(n, "value"));
        m->env_ref = text_of(d, yaml_get_fold(n, "envRef"), "spec.metadata.envRef", NULL);
        if (m->env_ref && !*m->env_ref)
                m->env_ref = NULL;
        const char *secret = text_of(d, yaml_get_fold(ref, "name"), "spec.metadata.secretKeyRef.name", "");
        const char *key = text_of(d, yaml_get_fold(ref, "key"), "spec.metadata.secretKeyRef.key", "");
        if (*secret) {
                m->secret_name = secret;
                m->secret_key = *key ? key : secret;
        }
}

static void read_metadata(struct decode *d, const struct yaml_node *list)
{
        struct component_spec *c = d->c;
        if (!list)
                return;
        c->metadata = array_of(d, list->n, sizeof *c->metadata);
        for (const struct yaml_item *i = list->items; i && c->metadata; i = i->next)
                read_item(d, i->value, &c->metadata[c->n_metadata++]);
}

static void read_scopes(struct decode *d, const struct yaml_node *list)
{
        struct component_spec *c = d->c;
        if (!list)
                return;
        c->scopes = array_of(d, list->n, sizeof *c->scopes);
        for (const struct yaml_item *i = list->items; i && c->scopes; i = i->next)
                c->scopes[c->n_scopes++] = text_of(d, i->value, "an item of scopes", "");
}

/* As the reference: what is no duration means the default. */
static int64_t read_timeout(struct decode *d, const struct yaml_node *n)
{
        const char *text = text_of(d, n, "spec.initTimeout", "");
        int64_t ns;

        if (!*text)
                return DEFAULT_INIT_TIMEOUT_NS;
        if (parse_duration(str_of(text), &ns) == 0)
                return ns;
        log_warn("dapr.runtime", "%s:%d: spec.initTimeout \"%s\" of Component %s is not a duration like 10s; using 5s", n->file,
                 n->line, text, d->c->name);
        return DEFAULT_INIT_TIMEOUT_NS;
}

static void read_document(struct decode *d, const struct yaml_node *doc)
{
        struct component_spec *c = d->c;
        const struct yaml_node *meta = map_of(d, doc, "metadata", "metadata");
        const struct yaml_node *spec = map_of(d, doc, "spec", "spec");
        const struct yaml_node *auth = map_of(d, doc, "auth", "auth");
        const struct yaml_node *notes = map_of(d, meta, "annotations", "metadata.annotations");

        c->line = doc->line;
        c->file = copy(d, str_of(doc->file));
        c->name = text_of(d, yaml_get_fold(meta, "name"), "metadata.name", "");
        c->namespace_ = text_of(d, yaml_get_fold(meta, "namespace"), "metadata.namespace", "");
        c->type = text_of(d, yaml_get_fold(spec, "type"), "spec.type", "");
        c->version = text_of(d, yaml_get_fold(spec, "version"), "spec.version", "");
        c->plugin_version = text_of(d, yaml_get(notes, "microdapr.io/version"), "metadata.annotations[microdapr.io/version]", "");
        c->ignore_errors = bool_of(d, yaml_get_fold(spec, "ignoreErrors"), "spec.ignoreErrors");
        c->init_timeout_ns = read_timeout(d, yaml_get_fold(spec, "initTimeout"));
        c->secret_store = text_of(d, yaml_get_fold(auth, "secretStore"), "auth.secretStore", "");
        read_metadata(d, list_of(d, spec, "metadata", "spec.metadata"));
        read_scopes(d, list_of(d, doc, "scopes", "scopes"));
}

/* Everything that makes one document another, each text with its length. */
static struct str origin_of(struct component_spec *c)
{
        struct buf b = {0};
        const char *head[] = {c->name, c->namespace_, c->type, c->version, c->secret_store, c->ignore_errors ? "1" : "0", c->plugin_version};
        for (size_t i = 0; i < sizeof head / sizeof *head; i++)
                buf_printf(&b, "%zu:%s", strlen(head[i]), head[i]);
        buf_printf(&b, "%lld/%zu/%zu", (long long)c->init_timeout_ns, c->n_metadata, c->n_scopes);
        for (size_t i = 0; i < c->n_metadata; i++) {
                const struct metadata_item *m = &c->metadata[i];
                const char *v[] = {m->name, m->value, m->secret_name, m->secret_key, m->env_ref};
                for (size_t k = 0; k < sizeof v / sizeof *v; k++)
                        buf_printf(&b, v[k] ? "%zu:%s" : "-", v[k] ? strlen(v[k]) : 0, v[k]);
        }
        for (size_t i = 0; i < c->n_scopes; i++)
                buf_printf(&b, "%zu:%s", strlen(c->scopes[i]), c->scopes[i]);
        struct str ret = b.failed ? STR_NULL : arena_str(&c->arena, buf_str(&b));
        buf_fini(&b);
        return ret;
}

int component_read(const struct yaml_node *doc, struct component_spec **ret, struct arena *errors, const char **ret_err)
{
        struct decode d = {.c = calloc(1, sizeof *d.c), .errors = errors};

        if (!d.c) {
                *ret_err = "out of memory while reading resources";
                return -ENOMEM;
        }
        arena_init(&d.c->arena, COMPONENT_MAX_BYTES);
        read_document(&d, doc);
        if (d.error) {
                component_spec_free(d.c);
                *ret_err = d.error;
                return d.no_memory ? -ENOMEM : -EINVAL;
        }
        d.c->origin = origin_of(d.c);
        *ret = d.c;
        return 0;
}

struct component_spec *component_spec_ref(struct component_spec *c)
{
        c->refs++;
        return c;
}

void component_spec_free(struct component_spec *c)
{
        if (!c)
                return;
        if (c->refs) {
                c->refs--;
                return;
        }
        arena_fini(&c->arena);
        free(c);
}

const char *component_log_name(struct component_spec *c)
{
        const char *z = arena_printf(&c->arena, *c->version ? "%s (%s/%s)" : "%s (%s%s)", c->name, c->type, c->version);
        return z ? z : c->name;
}

const char *component_metadata(const struct component_spec *c, const char *name)
{
        for (size_t i = c->n_metadata; i-- > 0;)
                if (strcasecmp(c->metadata[i].name, name) == 0)
                        return c->metadata[i].value;
        return NULL;
}

static bool same(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

bool component_spec_equal(const struct component_spec *a, const struct component_spec *b)
{
        if (!same(a->name, b->name) || !same(a->namespace_, b->namespace_) || !same(a->type, b->type) ||
            !same(a->version, b->version) || !same(a->plugin_version, b->plugin_version) || !same(a->secret_store, b->secret_store) || a->ignore_errors != b->ignore_errors ||
            a->init_timeout_ns != b->init_timeout_ns || a->n_metadata != b->n_metadata || a->n_scopes != b->n_scopes)
                return false;
        for (size_t i = 0; i < a->n_metadata; i++) {
                const struct metadata_item *x = &a->metadata[i], *y = &b->metadata[i];
                if (!same(x->name, y->name) || !same(x->value, y->value) || !same(x->secret_name, y->secret_name) ||
                    !same(x->secret_key, y->secret_key) || !same(x->env_ref, y->env_ref))
                        return false;
        }
        for (size_t i = 0; i < a->n_scopes; i++)
                if (!same(a->scopes[i], b->scopes[i]))
                        return false;
        return true;
}

bool component_spec_same(const struct component_spec *a, const struct component_spec *b)
{
        return a->origin.p && b->origin.p && str_eq(a->origin, b->origin);
}

bool component_secrets_same(const struct component_spec *a, const struct component_spec *b)
{
        for (size_t i = 0; i < a->n_metadata && i < b->n_metadata; i++)
                if (a->metadata[i].secret_name && !same(a->metadata[i].value, b->metadata[i].value))
                        return false;
        return true;
}
