/*
 * The resources folders: files in order of their names, documents in order of the text. What is wrong with a file or a document
 * is logged with its place and left out; what makes the whole start fail (a folder that cannot be read, a Component that is
 * defined twice) is returned. Owned by the caller's set: every Component and other document that this app may see.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "kernel/opts.h"
#include "kernel/resources/resources.h"
#include "sdk/base/yaml.h"
#include "sdk/base/log.h"
#include "sdk/base/map.h"

static const char scope[] = "dapr.runtime.loader.disk";
enum { DOCUMENT_MAX_BYTES = 256 * 1024 * 1024, RESOURCES_MAX = 10000 };

static const struct {
        const char *kind, *versions[2];
        bool scoped; /* documents of other apps are left out */
} kinds[] = {
        {"Component", {"v1alpha1"}, true},
        {"Subscription", {"v2alpha1", "v1alpha1"}, true},
        {"HTTPEndpoint", {"v1alpha1"}, true},
        {"Resiliency", {"v1alpha1"}, true},
        {"Configuration", {"v1alpha1"}, false},
        {"MCPServer", {"v1alpha1"}, true},
        {"WorkflowAccessPolicy", {"v1alpha1"}, true},
};

struct load {
        struct resource_set *set;
        const struct daprd_opts *o;
        const struct configuration *cfg;
        struct arena *errors;
        size_t cap_components, cap_others, cap_broken;
        bool wrong; /* something of the present file */
};

/* ---- growing lists ---- */

/* Room for one more pointer: the list, moved or not; NULL when it may not grow (the old one stays valid). */
static void *list_room(void *list, size_t n, size_t *cap)
{
        if (n < *cap)
                return list;
        size_t more = *cap ? *cap * 2 : 16;
        void *grown = n < RESOURCES_MAX ? realloc(list, more * sizeof(void *)) : NULL;
        if (grown)
                *cap = more;
        return grown;
}

static int keep_component(struct load *l, struct component_spec *c)
{
        void *list = list_room(l->set->components, l->set->n_components, &l->cap_components);
        if (!list)
                return -ENOMEM;
        l->set->components = list;
        l->set->components[l->set->n_components++] = c;
        return 0;
}

static int keep_other(struct load *l, struct raw_resource *r)
{
        void *list = list_room(l->set->others, l->set->n_others, &l->cap_others);
        if (!list)
                return -ENOMEM;
        l->set->others = list;
        l->set->others[l->set->n_others++] = r;
        return 0;
}

/* ---- one document ---- */

static const char *text_at(struct arena *a, const struct yaml_node *n, const char *key)
{
        const struct yaml_node *v = yaml_get_fold(n, key);
        struct str s;

        if (!v || yaml_string(a, v, YAML_1_1, &s) || !s.p)
                return "";
        const char *z = arena_strdup(a, s);
        return z ? z : "";
}

/* A name becomes part of API paths. Returns what is wrong with it, or NULL. */
static const char *name_problem(const char *name)
{
        if (strcmp(name, ".") == 0)
                return "may not be '.'";
        if (strcmp(name, "..") == 0)
                return "may not be '..'";
        if (strchr(name, '/'))
                return strchr(name, '%') ? "may not contain '/'; may not contain '%'" : "may not contain '/'";
        return strchr(name, '%') ? "may not contain '%'" : NULL;
}

static void log_wrong(struct load *l, const char *kind, const char *file, const char *error)
{
        l->wrong = true;
        log_warn(scope, "daprd load %s error when parsing manifests yaml resource in %s: %s", kind, file, error);
}

static int add_component(struct load *l, const struct yaml_node *doc)
{
        struct component_spec *c;
        struct arena errors = {0};
        const char *error;
        int r = component_read(doc, &c, &errors, &error);

        if (r)
                log_wrong(l, "Component", doc->file, error);
        else if ((r = keep_component(l, c)))
                component_spec_free(c);
        arena_fini(&errors);
        return r == -ENOMEM ? r : 0;
}

static const char *check_raw(struct raw_resource *r, const struct yaml_node *doc)
{
        const struct yaml_node *meta = yaml_get_fold(doc, "metadata"), *spec = yaml_get_fold(doc, "spec");
        const struct yaml_node *scopes = yaml_get_fold(doc, "scopes");

        if (!yaml_is_null(meta) && meta->kind != YAML_MAP)
                return yaml_error(&r->arena, meta, "metadata must be a map");
        if (!yaml_is_null(spec) && spec->kind != YAML_MAP)
                return yaml_error(&r->arena, spec, "spec must be a map");
        if (yaml_is_null(scopes))
                return NULL;
        if (scopes->kind != YAML_LIST)
                return yaml_error(&r->arena, scopes, "scopes must be a list of app ids");
        r->scopes = arena_zalloc(&r->arena, scopes->n * sizeof *r->scopes);
        for (const struct yaml_item *i = scopes->items; i; i = i->next) {
                struct str s;
                const char *z = NULL;
                if (yaml_string(&r->arena, i->value, YAML_1_1, &s))
                        return yaml_error(&r->arena, i->value, "an item of scopes must be an app id");
                if (!r->scopes || !(z = arena_strdup(&r->arena, s)))
                        return "a resource needs too much memory";
                r->scopes[r->n_scopes++] = z;
        }
        return NULL;
}

/* The tree stays: the resource takes over the document's arena. */
static int add_raw(struct load *l, struct arena *a, const struct yaml_node *doc, const char *kind, const char *api_version)
{
        struct raw_resource *r = calloc(1, sizeof *r);
        struct buf json = {0};

        if (!r)
                return -ENOMEM;
        r->arena = *a;
        *a = (struct arena){0};
        r->doc = doc;
        r->kind = kind;
        r->api_version = api_version;
        r->name = text_at(&r->arena, yaml_get_fold(doc, "metadata"), "name");
        r->namespace_ = text_at(&r->arena, yaml_get_fold(doc, "metadata"), "namespace");
        r->file = doc->file;
        r->line = doc->line;
        const char *error = check_raw(r, doc);
        int e = error ? 0 : yaml_to_json(&json, doc, YAML_1_1);
        if (e == -EINVAL)
                error = yaml_error(&r->arena, doc, "a value has no form in JSON (.inf, .nan, a null key or a wrong tag); quote it");
        if (e == 0 && !error)
                r->json = arena_str(&r->arena, buf_str(&json));
        buf_fini(&json);
        if (error)
                log_wrong(l, r->kind, r->file, error);
        if (error || e || !r->json.p || keep_other(l, r)) {
                raw_resource_free(r);
                return error ? 0 : -ENOMEM;
        }
        return 0;
}

/* Index into `kinds`, or -1 when the document is not for us (logged when it looks like a slip). */
static int find_kind(const struct yaml_node *doc, const char *kind, const char *api_version)
{
        struct str version = str_of(api_version);
        bool ours = str_has_prefix(version, STR("dapr.io/"));

        for (size_t i = 0; (ours || version.n == 0) && i < sizeof kinds / sizeof *kinds; i++) {
                if (strcmp(kind, kinds[i].kind) != 0)
                        continue;
                if (!ours) {
                        log_warn(scope, "%s:%d: kind %s has no apiVersion, the document is skipped; write dapr.io/%s", doc->file,
                                 doc->line, kind, kinds[i].versions[0]);
                        return -1;
                }
                for (size_t k = 0; k < 2 && kinds[i].versions[k]; k++)
                        if (str_eqz(str_skip(version, 8), kinds[i].versions[k]))
                                return (int)i;
                log_warn(scope, "%s:%d: apiVersion \"%s\" of kind %s is not known, the document is skipped; write dapr.io/%s",
                         doc->file, doc->line, api_version, kind, kinds[i].versions[0]);
                return -1;
        }
        if (ours)
                log_warn(scope, "%s:%d: kind \"%s\" is not known, the document is skipped", doc->file, doc->line, kind);
        else
                log_debug(scope, "%s:%d: apiVersion \"%s\" kind \"%s\" is not for daprd, the document is skipped", doc->file,
                          doc->line, api_version, kind);
        return -1;
}

/* The arena is taken over (and zeroed) when the document is kept as a tree. */
static int add_document(struct load *l, struct arena *a, struct str text, const char *file, int line)
{
        struct yaml_node *doc = NULL;
        const char *error, *problem;
        int r = yaml_read(a, text, file, line, 0, &doc, &error);

        if (r)
                log_wrong(l, "Component", file, error);
        else if (error)
                log_warn(scope, "%s", error);
        if (r || yaml_is_null(doc))
                return 0;
        if (doc->kind != YAML_MAP) {
                log_wrong(l, "Component", file, yaml_error(a, doc, "a resource must be a map with apiVersion, kind, metadata and spec"));
                return 0;
        }
        const char *kind = text_at(a, doc, "kind"), *api_version = text_at(a, doc, "apiVersion");
        int k = find_kind(doc, kind, api_version);
        if (k < 0)
                return 0;
        const char *name = text_at(a, yaml_get_fold(doc, "metadata"), "name");
        if ((problem = name_problem(name))) {
                log_warn(scope, "daprd load %s error when parsing manifests yaml resource in %s: invalid name \"%s\" for \"%s\": %s",
                         kind, file, name, kind, problem);
                l->wrong = true;
                return 0;
        }
        return k == 0 ? add_component(l, doc) : add_raw(l, a, doc, kind, api_version);
}

/* ---- files and folders ---- */

static int note_broken(struct load *l, const char *path)
{
        void *list = list_room(l->set->broken, l->set->n_broken, &l->cap_broken);
        char *copy = list ? strdup(path) : NULL;

        if (list)
                l->set->broken = list;
        if (!copy)
                return -ENOMEM;
        l->set->broken[l->set->n_broken++] = copy;
        return 0;
}

static int load_file(struct load *l, const char *path)
{
        struct arena file = {0};
        struct str rest;
        const char *error = NULL;
        int r = yaml_read_file(&file, path, false, &rest, &error), line = 1;

        if (r) {
                if (r == -EFBIG || r == -EINVAL || r == -EISDIR)
                        log_wrong(l, "Component", path, error);
                else
                        log_warn(scope, "daprd load Component error when opening file %s: %s", path, error);
                arena_fini(&file);
                return r == -ENOENT ? 0 : note_broken(l, path);
        }
        l->wrong = false;
        while (rest.p && r == 0) {
                struct arena doc;
                int at = line;
                struct str text = yaml_next_document(&rest, &line);
                arena_init(&doc, DOCUMENT_MAX_BYTES);
                const char *name = arena_strdup(&doc, str_of(path)); /* lives as long as the tree */
                r = name ? add_document(l, &doc, text, name, at) : -ENOMEM;
                arena_fini(&doc);
        }
        arena_fini(&file);
        return r == 0 && l->wrong ? note_broken(l, path) : r;
}

static bool is_yaml_name(const char *name)
{
        const char *dot = strrchr(name, '.');
        return dot && (strcasecmp(dot, ".yaml") == 0 || strcasecmp(dot, ".yml") == 0);
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_entry(struct load *l, const char *dir, const struct dirent *e)
{
        if (e->d_type == DT_DIR)
                return 0;
        if (!is_yaml_name(e->d_name)) {
                log_warn(scope, "A non-YAML Component file %s was detected, it will not be loaded", e->d_name);
                return 0;
        }
        size_t n = strlen(dir);
        struct arena a = {0};
        while (n > 1 && dir[n - 1] == '/')
                n--;
        const char *path = arena_printf(&a, "%.*s%s%s", (int)n, dir, dir[n - 1] == '/' ? "" : "/", e->d_name);
        int r = path ? load_file(l, path) : -ENOMEM;
        arena_fini(&a);
        return r;
}

static int load_dir(struct load *l, const char *dir, const char **ret_err)
{
        struct dirent **list = NULL;
        int n = *dir ? scandir(dir, &list, NULL, by_bytes) : (errno = ENOENT, -1), r = 0;

        if (n < 0) {
                *ret_err = os_error(l->errors, "open", dir, errno);
                return -EINVAL;
        }
        for (int i = 0; i < n; i++) {
                if (r == 0 && strcmp(list[i]->d_name, ".") != 0 && strcmp(list[i]->d_name, "..") != 0)
                        r = load_entry(l, dir, list[i]);
                free(list[i]);
        }
        free(list);
        if (r)
                *ret_err = "too many resources, or out of memory";
        return r;
}

/* ---- what this app may see ---- */

static bool in_scope(const char *const *scopes, size_t n, const char *app_id)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(scopes[i], app_id) == 0)
                        return true;
        return n == 0;
}

/* Namespaces count only when both the process and the document have one. */
static bool in_namespace(const struct daprd_opts *o, const char *namespace_)
{
        return !*o->namespace_ || !*namespace_ || strcmp(o->namespace_, namespace_) == 0;
}

static bool denied_by(const char *rule, const struct component_spec *c)
{
        struct str rest = str_of(rule), type = str_cut(&rest, '/');
        if (type.n == 0 && !rest.p)
                return false;
        if (rest.p && str_chr(rest, '/') >= 0)
                return false;
        return str_eqz(type, c->type) && (!rest.p || rest.n == 0 || str_eqz(rest, c->version));
}

static bool is_allowed(const struct configuration *cfg, struct component_spec *c)
{
        if (!cfg || cfg->n_components_deny == 0)
                return true;
        if (!*c->type || !*c->version)
                return false;
        for (size_t i = 0; i < cfg->n_components_deny; i++) {
                if (!denied_by(cfg->components_deny[i], c))
                        continue;
                log_warn("dapr.runtime.authorizer", "component '%s' cannot be loaded because components of type '%s' are not allowed",
                         c->name, component_log_name(c));
                return false;
        }
        return true;
}

/* Adds a line to the joined error. */
static void add_error(struct buf *errors, const char *kind, const char *log_name, const char *existing)
{
        buf_printf(errors, "%sduplicate definition of %s name %s with existing %s", errors->len ? "\n" : "", kind, log_name, existing);
}

static int filter_components(struct load *l, struct buf *errors)
{
        struct resource_set *s = l->set;
        struct map names = {0};
        size_t kept = 0;
        int r = 0;

        for (size_t i = 0; i < s->n_components; i++) {
                struct component_spec *c = s->components[i], *existing;
                bool keep = in_namespace(l->o, c->namespace_);
                if (keep && (existing = map_get(&names, str_of(c->name)))) {
                        add_error(errors, "Component", component_log_name(c), component_log_name(existing));
                        keep = false;
                }
                keep = keep && in_scope(c->scopes, c->n_scopes, l->o->app_id);
                if (keep && map_set(&names, str_of(c->name), c))
                        r = -ENOMEM;
                if (keep)
                        s->components[kept++] = c;
                else
                        component_spec_free(c);
        }
        s->n_components = kept;
        map_fini(&names);
        return errors->failed ? -ENOMEM : r;
}

static void drop_denied(struct load *l)
{
        struct resource_set *s = l->set;
        size_t kept = 0;

        for (size_t i = 0; i < s->n_components; i++) {
                struct component_spec *c = s->components[i];
                bool keep = is_allowed(l->cfg, c);
                if (keep && !*c->name) {
                        log_warn(scope, "%s:%d: a Component has no metadata.name; it is not loaded", c->file, c->line);
                        keep = false;
                }
                if (keep)
                        s->components[kept++] = c;
                else
                        component_spec_free(c);
        }
        s->n_components = kept;
}

/* ---- the other kinds ---- */

static bool is_kind(const struct raw_resource *r, const char *kind)
{
        return strcmp(r->kind, kind) == 0;
}

static bool raw_is_visible(const struct load *l, const struct raw_resource *r)
{
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (is_kind(r, kinds[i].kind) && !kinds[i].scoped)
                        return true;
        if (!in_scope(r->scopes, r->n_scopes, l->o->app_id))
                return false;
        return is_kind(r, "Subscription") || is_kind(r, "Resiliency") || in_namespace(l->o, r->namespace_);
}

static const char *endpoint_log_name(struct raw_resource *r)
{
        const char *url = text_at(&r->arena, yaml_get_fold(r->doc, "spec"), "baseUrl");
        const char *z = arena_printf(&r->arena, "%s (%s)", r->name, url);
        return z ? z : r->name;
}

/* HTTPEndpoints that stand twice take all HTTPEndpoints out (as the reference, with a log line); of Subscriptions with one name
 * the last stays. */
static int filter_others(struct load *l)
{
        struct resource_set *s = l->set;
        struct map endpoints = {0}, subscriptions = {0};
        struct buf errors = {0};
        size_t kept = 0;
        int r = 0;

        for (size_t i = 0; i < s->n_others && r == 0; i++) {
                struct raw_resource *x = s->others[i], *existing;
                if (!raw_is_visible(l, x))
                        continue;
                if (is_kind(x, "HTTPEndpoint")) {
                        if ((existing = map_get(&endpoints, str_of(x->name))))
                                add_error(&errors, x->kind, endpoint_log_name(x), endpoint_log_name(existing));
                        r = map_set(&endpoints, str_of(x->name), x);
                } else if (is_kind(x, "Subscription")) {
                        r = map_set(&subscriptions, str_of(x->name), x);
                }
        }
        for (size_t i = 0; i < s->n_others; i++) {
                struct raw_resource *x = s->others[i];
                bool keep = raw_is_visible(l, x) && !(errors.len && is_kind(x, "HTTPEndpoint")) &&
                            !(is_kind(x, "Subscription") && map_get(&subscriptions, str_of(x->name)) != x);
                if (keep)
                        s->others[kept++] = x;
                else
                        raw_resource_free(x);
        }
        s->n_others = kept;
        if (errors.len)
                log_warn("dapr.runtime", "failed to load HTTP endpoints: %.*s", STR_FMT(buf_str(&errors)));
        r = r || errors.failed ? -ENOMEM : 0;
        buf_fini(&errors);
        map_fini(&endpoints);
        map_fini(&subscriptions);
        return r;
}

/* ---- all together ---- */

static int filter(struct load *l, const char **ret_err)
{
        struct buf errors = {0};
        int r = filter_components(l, &errors);

        if (r == 0 && errors.len) {
                *ret_err = arena_strdup(l->errors, buf_str(&errors));
                r = *ret_err ? -EINVAL : -ENOMEM;
        }
        buf_fini(&errors);
        if (r == 0)
                r = filter_others(l);
        if (r == 0)
                drop_denied(l);
        if (r == -ENOMEM)
                *ret_err = "out of memory while reading resources";
        return r;
}

int resources_read(struct resource_set *set, const struct daprd_opts *o, const struct configuration *cfg, struct arena *err_arena,
                   const char **ret_err)
{
        struct load l = {.set = set, .o = o, .cfg = cfg, .errors = err_arena};
        int r = 0;

        *set = (struct resource_set){0};
        for (size_t i = 0; i < o->resources_path.n && r == 0; i++)
                r = load_dir(&l, o->resources_path.v[i], ret_err);
        if (r == 0)
                r = filter(&l, ret_err);
        if (r)
                resource_set_fini(set);
        return r;
}

int resources_load(struct resource_set *set, const struct daprd_opts *o, const struct configuration *cfg, struct arena *err_arena,
                   const char **ret_err)
{
        const char *why = NULL;
        int r = resources_read(set, o, cfg, err_arena, &why);

        if (r) {
                *ret_err = arena_printf(err_arena, "failed to load components: %s", why);
                if (!*ret_err)
                        *ret_err = "failed to load components";
        }
        return r;
}

void raw_resource_free(struct raw_resource *r)
{
        if (!r)
                return;
        arena_fini(&r->arena);
        free(r);
}

void resource_set_fini(struct resource_set *set)
{
        for (size_t i = 0; i < set->n_components; i++)
                component_spec_free(set->components[i]);
        for (size_t i = 0; i < set->n_others; i++)
                raw_resource_free(set->others[i]);
        for (size_t i = 0; i < set->n_broken; i++)
                free(set->broken[i]);
        free(set->components);
        free(set->others);
        free(set->broken);
        *set = (struct resource_set){0};
}
