/* plugin.yaml as a struct. Every fault names file, line, column, key and what is expected there. */
#include "kernel/super/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/super/manifest_keys.h"
#include "sdk/base/flags.h"
#include "sdk/base/yaml.h"

#define HANG_AFTER_MIN_NS 1000000000
#define HANG_AFTER_MAX_NS (86400 * (int64_t)1000000000)

struct reader {
        struct manifest *m;
        struct arena *errors;
        const char *err;
        int r;
};

static const char *const kind_names[FIELD_KINDS] = {"string", "bool", "int", "float", "duration", "bytes", "enum"};

const char *manifest_kind_name(enum manifest_kind k)
{
        return kind_names[k];
}

/* ---- faults ---- */

#define fault(rd, node, ...) fault_text((rd), yaml_error((rd)->errors, (node), __VA_ARGS__))
static void fault_text(struct reader *rd, const char *text)
{
        if (rd->r)
                return;
        rd->err = text;
        rd->r = -EINVAL;
}

static void check_keys(struct reader *rd, const struct yaml_node *map, const char *which, const char *where)
{
        for (const struct yaml_item *i = map->items; i; i = i->next) {
                const char *near;
                if (!manifest_key_known(which, i->key->text, &near))
                        fault(rd, i->key, "unknown key '%.*s' in %s%s%s%s", STR_FMT(i->key->text), where, near ? "; did you mean '" : "",
                              near ? near : "", near ? "'?" : "");
        }
}

/* ---- values ---- */

static const char *text(struct reader *rd, const struct yaml_node *map, const char *key, bool required)
{
        struct yaml_node *n = yaml_get(map, key);
        struct str s;
        if (!n || yaml_is_null(n)) {
                if (required)
                        fault(rd, n ? n : map, "'%s' is missing", key);
                return NULL;
        }
        if (yaml_string(&rd->m->arena, n, YAML_V3, &s) || !s.p) {
                fault(rd, n, "'%s' must be text", key);
                return NULL;
        }
        if (required && s.n == 0)
                fault(rd, n, "'%s' is empty", key);
        return arena_strdup(&rd->m->arena, s);
}

static bool flag(struct reader *rd, const struct yaml_node *map, const char *key)
{
        struct yaml_node *n = yaml_get(map, key);
        struct yaml_value v;
        if (!n)
                return false;
        if (n->kind != YAML_SCALAR || yaml_resolve(&rd->m->arena, n, YAML_1_1, &v) || v.type != YAML_BOOL) {
                fault(rd, n, "'%s' must be true or false", key);
                return false;
        }
        return v.b;
}

static const char **texts(struct reader *rd, const struct yaml_node *map, const char *key, size_t *ret_n)
{
        struct yaml_node *n = yaml_get(map, key);
        *ret_n = 0;
        if (!n || yaml_is_null(n))
                return NULL;
        if (n->kind != YAML_LIST) {
                fault(rd, n, "'%s' must be a list of texts", key);
                return NULL;
        }
        const char **v = arena_zalloc(&rd->m->arena, n->n * sizeof *v);
        for (const struct yaml_item *i = n->items; v && i; i = i->next) {
                struct str s;
                if (yaml_string(&rd->m->arena, i->value, YAML_V3, &s) || !s.p || s.n == 0)
                        fault(rd, i->value, "'%s' must be a list of texts", key);
                else
                        v[(*ret_n)++] = arena_strdup(&rd->m->arena, s);
        }
        return v;
}

static struct yaml_node *list(struct reader *rd, const struct yaml_node *map, const char *key)
{
        struct yaml_node *n = yaml_get(map, key);
        if (!n || yaml_is_null(n))
                return NULL;
        if (n->kind == YAML_LIST)
                return n;
        fault(rd, n, "'%s' must be a list", key);
        return NULL;
}

/* ---- parts ---- */

static void read_contract(struct reader *rd, const struct yaml_node *root)
{
        struct manifest *m = rd->m;
        size_t n;
        const char **v = texts(rd, root, "contract", &n);
        for (size_t i = 0; i < n; i++) {
                int64_t k;
                if (!v[i] || parse_int64(str_of(v[i]), &k) || k < 1 || k > 1000 || m->n_contract == MANIFEST_CONTRACTS_MAX)
                        fault(rd, yaml_get(root, "contract"), "'contract' must list version numbers, such as [1]");
                else
                        m->contract[m->n_contract++] = (unsigned)k;
        }
        if (n == 0)
                fault(rd, root, "'contract' is missing: the versions of the plugin contract that the plugin speaks, such as [1]");
}

static void read_type(struct reader *rd, const struct yaml_node *n, struct manifest_type *t)
{
        if (n->kind != YAML_MAP) {
                fault(rd, n, "each entry of 'types' must be a map with 'type' and 'versions'");
                return;
        }
        check_keys(rd, n, "types", "'types'");
        t->type = text(rd, n, "type", true);
        if (t->type && !strchr(t->type, '.'))
                fault(rd, yaml_get(n, "type"), "'%s' is not a component type: category.name, such as state.sqlite", t->type);
        t->versions = texts(rd, n, "versions", &t->n_versions);
        t->features = texts(rd, n, "features", &t->n_features);
        if (t->n_versions == 0) {
                static const char *v1[] = {"v1"};
                t->versions = v1;
                t->n_versions = 1;
        }
}

static enum manifest_kind read_kind(struct reader *rd, const struct yaml_node *n)
{
        const char *z = text(rd, n, "type", false);
        if (!z)
                return FIELD_STRING;
        for (int k = 0; k < FIELD_KINDS; k++)
                if (strcmp(z, kind_names[k]) == 0)
                        return (enum manifest_kind)k;
        fault(rd, yaml_get(n, "type"), "unknown type '%s': string, bool, int, float, duration, bytes or enum", z);
        return FIELD_STRING;
}

static void read_field(struct reader *rd, const struct yaml_node *n, struct manifest_field *f)
{
        if (n->kind != YAML_MAP) {
                fault(rd, n, "each entry of 'metadata' must be a map with 'name'");
                return;
        }
        check_keys(rd, n, "metadata", "'metadata'");
        f->name = text(rd, n, "name", true);
        f->kind = read_kind(rd, n);
        f->def = text(rd, n, "default", false);
        f->missing = text(rd, n, "missing", false);
        f->description = text(rd, n, "description", false);
        f->required = flag(rd, n, "required");
        f->sensitive = flag(rd, n, "sensitive");
        f->values = texts(rd, n, "values", &f->n_values);
        f->aliases = texts(rd, n, "aliases", &f->n_aliases);
        if (f->kind == FIELD_ENUM && f->n_values == 0)
                fault(rd, n, "the enum '%s' has no 'values'", f->name ? f->name : "");
        if (f->required && f->def)
                fault(rd, yaml_get(n, "default"), "'%s' is required and has a default: one of both", f->name ? f->name : "");
        const char *wrong = f->def ? manifest_value_fault(f, str_of(f->def)) : NULL;
        if (wrong)
                fault(rd, yaml_get(n, "default"), "default '%s' of '%s' is not %s", f->def, f->name ? f->name : "", wrong);
}

static void read_lists(struct reader *rd, const struct yaml_node *root)
{
        struct manifest *m = rd->m;
        struct yaml_node *n = list(rd, root, "types");
        if (!n || n->n == 0)
                fault(rd, root, "'types' is missing: the component types that the plugin serves");
        m->types = arena_zalloc(&m->arena, (n ? n->n : 0) * sizeof *m->types);
        for (const struct yaml_item *i = n ? n->items : NULL; m->types && i; i = i->next)
                read_type(rd, i->value, &m->types[m->n_types++]);
        n = list(rd, root, "metadata");
        m->fields = arena_zalloc(&m->arena, (n ? n->n : 0) * sizeof *m->fields);
        for (const struct yaml_item *i = n ? n->items : NULL; m->fields && i; i = i->next)
                read_field(rd, i->value, &m->fields[m->n_fields++]);
        m->environment = texts(rd, root, "environment", &m->n_environment);
}

static void read_executable(struct reader *rd, const struct yaml_node *root)
{
        struct manifest *m = rd->m;
        const char *z = text(rd, root, "executable", false), *file = m->file ? m->file : "", *slash = strrchr(file, '/');
        if (!z)
                z = m->name ? m->name : "";
        if (z[0] == '/')
                m->executable = z;
        else
                m->executable = arena_printf(&m->arena, "%.*s%s", slash ? (int)(slash - file + 1) : 0, file, z);
}

static void read_sandbox(struct reader *rd, const struct yaml_node *root)
{
        struct manifest *m = rd->m;
        const char *err = NULL;
        int r = rights_read(&m->arena, yaml_get(root, "sandbox"), &m->rights, rd->errors, &err);
        if (r && !rd->r) {
                rd->err = err;
                rd->r = r;
        }
        for (size_t i = 0; i < m->rights.n; i++) {
                const char *what = m->rights.v[i].what, *end = what && !strncmp(what, "${", 2) ? strchr(what, '}') : NULL;
                const char *field = end ? arena_printf(&m->arena, "%.*s", (int)(end - what - 2), what + 2) : NULL;
                if (field && !manifest_field(m, field))
                        fault(rd, yaml_get(root, "sandbox"), "'%s' names no field of 'metadata'", what);
        }
        if (m->share && rights_need_metadata(&m->rights))
                fault(rd, yaml_get(root, "sandbox"), "rights that depend on metadata need a process of their own: 'share' must be false");
}

static void read_hang_after(struct reader *rd, const struct yaml_node *root)
{
        const char *z = text(rd, root, "hangAfter", false);
        int64_t ns = 0;
        rd->m->hang_after_s = -1;
        if (!z)
                return;
        if ((parse_duration(str_of(z), &ns) && strcmp(z, "0") != 0) || ns < 0 || (ns > 0 && ns < HANG_AFTER_MIN_NS) || ns > HANG_AFTER_MAX_NS)
                fault(rd, yaml_get(root, "hangAfter"), "'hangAfter' must be a duration from 1s to 24h, or 0 for never, not '%s'", z);
        else
                rd->m->hang_after_s = (double)ns / 1e9;
}

static void read_root(struct reader *rd, const struct yaml_node *root)
{
        struct manifest *m = rd->m;
        if (root->kind != YAML_MAP) {
                fault(rd, root, "a plugin manifest is a map with 'name', 'version', 'contract' and 'types'");
                return;
        }
        check_keys(rd, root, "", "a plugin manifest");
        m->name = text(rd, root, "name", true);
        m->version = text(rd, root, "version", true);
        m->title = text(rd, root, "title", false);
        m->description = text(rd, root, "description", false);
        m->share = flag(rd, root, "share");
        m->is_volatile = flag(rd, root, "volatile");
        read_hang_after(rd, root);
        read_contract(rd, root);
        read_lists(rd, root);
        read_executable(rd, root);
        read_sandbox(rd, root);
}

int manifest_parse(struct str in, const char *file, struct manifest **ret, struct arena *a, const char **ret_err)
{
        struct manifest *m = calloc(1, sizeof *m);
        if (!m) {
                *ret_err = "out of memory";
                return -ENOMEM;
        }
        arena_init(&m->arena, 4 * 1024 * 1024);
        m->file = arena_strdup(&m->arena, str_of(file));
        struct reader rd = {.m = m, .errors = a};
        struct yaml_node *root = NULL;
        int r = yaml_read(&m->arena, in, m->file, 1, YAML_UNIQUE_KEYS, &root, &rd.err);
        if (r == 0 && !root) {
                rd.err = arena_printf(a, "%s: the file is empty", file);
                r = -EINVAL;
        } else if (r == 0) {
                read_root(&rd, root);
                r = rd.r ? rd.r : m->arena.exhausted ? -ENOMEM : 0;
        } else if (rd.err) {
                rd.err = arena_strdup(a, str_of(rd.err)); /* it stood in the manifest's arena */
        }
        if (r) {
                *ret_err = rd.err ? rd.err : "out of memory";
                manifest_free(m);
                return r;
        }
        *ret = m;
        return 0;
}

int manifest_read(const char *path, struct manifest **ret, struct arena *a, const char **ret_err)
{
        struct arena file;
        struct str in;
        arena_init(&file, 8 * 1024 * 1024);
        int r = yaml_read_file(&file, path, false, &in, ret_err);
        if (r)
                *ret_err = arena_strdup(a, str_of(*ret_err));
        else
                r = manifest_parse(in, path, ret, a, ret_err);
        if (r == 0 && !((*ret)->text = arena_str(&(*ret)->arena, in)).p) {
                manifest_free(*ret);
                *ret_err = "out of memory";
                r = -ENOMEM;
        }
        arena_fini(&file);
        return r;
}

void manifest_free(struct manifest *m)
{
        if (!m)
                return;
        arena_fini(&m->arena);
        free(m);
}
