/*
 * Resource files as a person wrote them: are they readable, are their documents what a sidecar takes, is what they name installed and as
 * it was signed, may the plugin reach the files that it is told to use. Values against a plugin's table are the sidecar's own check.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/doctor.h"
#include "sdk/base/near.h"
#include "sdk/base/runtime_settings.h"

static const char *text(struct arena *a, const struct yaml_node *map, const char *key)
{
        const struct yaml_node *n = yaml_get_fold(map, key);
        struct str s;
        return n && n->kind == YAML_SCALAR && yaml_string(a, n, YAML_1_1, &s) == 0 && s.p ? arena_strdup(a, s) : "";
}

static const char *place(struct doctor *d, const struct yaml_node *n)
{
        return arena_printf(d->a, "%s:%d", n->file, n->line);
}

/* ---- documents ---- */

static bool in_scope(struct doctor *d, const struct yaml_node *doc)
{
        const struct yaml_node *scopes = yaml_get_fold(doc, "scopes");
        struct str s;
        if (!scopes || scopes->kind != YAML_LIST || !scopes->n)
                return true;
        for (struct yaml_item *it = scopes->items; it; it = it->next)
                if (yaml_string(d->a, it->value, YAML_1_1, &s) == 0 && str_eqz(s, d->app_id))
                        return true;
        return false;
}

static const struct doctor_component *twin(const struct doctor *d, const char *name)
{
        for (size_t i = 0; i < d->n_components; i++)
                if (strcmp(d->components[i].name, name) == 0)
                        return &d->components[i];
        return NULL;
}

static const char *schema_fault(struct doctor *d, const struct yaml_node *doc, struct doctor_component *c, const char **ret_fix)
{
        const struct yaml_node *meta = yaml_get_fold(doc, "metadata"), *spec = yaml_get_fold(doc, "spec");
        const struct yaml_node *items = yaml_get_fold(spec, "metadata");
        *ret_fix = "write it as in https://docs.dapr.io/reference/components-reference";
        if (!meta || meta->kind != YAML_MAP || !*c->name)
                return "metadata.name is missing";
        if (!spec || spec->kind != YAML_MAP || !*c->type)
                return "spec.type is missing";
        if (!*c->version)
                return "spec.version is missing";
        if (!yaml_is_null(items) && items->kind != YAML_LIST)
                return arena_printf(d->a, "line %d: spec.metadata must be a list of name and value", items->line);
        for (struct yaml_item *it = items && items->kind == YAML_LIST ? items->items : NULL; it; it = it->next)
                if (it->value->kind != YAML_MAP || !*text(d->a, it->value, "name"))
                        return arena_printf(d->a, "line %d: an item of spec.metadata has no name", it->value->line);
        const struct doctor_component *other = twin(d, c->name);
        if (other && other->in_scope && c->in_scope) {
                *ret_fix = "give one of them another name, or scopes that do not overlap";
                return arena_printf(d->a, "%s:%d defines a component of this name, too", other->file, other->line);
        }
        return NULL;
}

static void add_component(struct doctor *d, const struct yaml_node *doc)
{
        const struct yaml_node *spec = yaml_get_fold(doc, "spec");
        struct doctor_component *v = arena_grow(d->a, d->components, d->n_components * sizeof *v, (d->n_components + 1) * sizeof *v), *c;
        const char *fix;
        if (!v)
                return;
        d->components = v;
        c = &v[d->n_components];
        *c = (struct doctor_component){.name = text(d->a, yaml_get_fold(doc, "metadata"), "name"), .type = text(d->a, spec, "type"),
                                       .version = text(d->a, spec, "version"),
                                       .constraint = text(d->a, yaml_get_fold(yaml_get_fold(doc, "metadata"), "annotations"), "microdapr.io/version"), .file = doc->file, .line = doc->line, .doc = doc,
                                       .in_scope = in_scope(d, doc)};
        const char *fault = schema_fault(d, doc, c, &fix);
        c->wrong_file = fault != NULL;
        d->n_components++;
        if (fault)
                doctor_found(d, STEP_SCHEMA, FOUND_WRONG, place(d, doc), fault, fix);
        else if (!c->in_scope)
                doctor_found(d, STEP_SCOPE, FOUND_WARNING, c->name, arena_printf(d->a, "%s: its scopes do not name %s, so that app does not get it", place(d, doc), d->app_id),
                             arena_printf(d->a, "add %s to scopes, or leave scopes out, if the app is to use it", d->app_id));
        else
                doctor_found(d, STEP_SCHEMA, FOUND_GOOD, c->name, arena_printf(d->a, "%s: %s", place(d, doc), c->type), "");
}

static void check_document(struct doctor *d, const struct yaml_node *doc)
{
        static const char *const kinds[] = {"Component", "Subscription", "Configuration", "Resiliency", "HTTPEndpoint"};
        const char *kind = doc->kind == YAML_MAP ? text(d->a, doc, "kind") : "", *api = doc->kind == YAML_MAP ? text(d->a, doc, "apiVersion") : "";
        size_t i = 0;
        while (i < sizeof kinds / sizeof *kinds && strcmp(kind, kinds[i]) != 0)
                i++;
        if (doc->kind != YAML_MAP)
                doctor_found(d, STEP_SCHEMA, FOUND_WRONG, place(d, doc), "a resource must be a map with apiVersion, kind, metadata and spec", "mend or remove it");
        else if (i == sizeof kinds / sizeof *kinds)
                doctor_found(d, STEP_SCHEMA, FOUND_WARNING, place(d, doc), arena_printf(d->a, "kind \"%s\" is not known, the document is skipped", kind),
                             "write Component, Subscription, Configuration, Resiliency or HTTPEndpoint");
        else if (strncmp(api, "dapr.io/v", 9) != 0)
                doctor_found(d, STEP_SCHEMA, FOUND_WRONG, place(d, doc), arena_printf(d->a, "apiVersion \"%s\" is not known, the document is skipped", api),
                             "write apiVersion: dapr.io/v1alpha1");
        else if (i == 0)
                add_component(d, doc);
}

/* ---- files ---- */

static void read_file(struct doctor *d, const char *path)
{
        const char *err = NULL;
        struct str all, one;
        int line = 1, n = 0, at;
        if (yaml_read_file(d->a, path, false, &all, &err)) {
                doctor_found(d, STEP_YAML, FOUND_WRONG, path, err, "make the file readable for the user that runs daprd");
                return;
        }
        for (struct str rest = all; rest.p; n++) {
                struct yaml_node *doc = NULL;
                at = line;
                one = yaml_next_document(&rest, &line);
                if (yaml_read(d->a, one, path, at, 0, &doc, &err)) {
                        doctor_found(d, STEP_YAML, FOUND_WRONG, path, err, "mend the YAML at this place: indentation, quotes, a missing colon");
                        return;
                }
                if (err)
                        doctor_found(d, STEP_YAML, FOUND_WARNING, path, err, "remove one of them");
                if (doc)
                        check_document(d, doc);
        }
        doctor_found(d, STEP_YAML, FOUND_GOOD, path, arena_printf(d->a, "%d document%s", n, n == 1 ? "" : "s"), "");
}

static int by_name(const void *x, const void *y)
{
        return strcmp(*(const char *const *)x, *(const char *const *)y);
}

void doctor_read_folder(struct doctor *d, const char *dir)
{
        DIR *f = opendir(dir);
        const char **names = NULL;
        size_t n = 0;
        if (!f) {
                doctor_found(d, STEP_YAML, FOUND_WRONG, dir, os_error(d->a, "open", dir, errno), "name the folder that holds your resources");
                return;
        }
        for (struct dirent *e; (e = readdir(f));) {
                const char *dot = strrchr(e->d_name, '.');
                if (!dot || (strcasecmp(dot, ".yaml") != 0 && strcasecmp(dot, ".yml") != 0))
                        continue;
                const char **v = arena_grow(d->a, names, n * sizeof *v, (n + 1) * sizeof *v);
                if (!v)
                        break;
                names = v;
                names[n++] = arena_strdup(d->a, str_of(e->d_name));
        }
        closedir(f);
        if (n)
                qsort(names, n, sizeof *names, by_name);
        else
                doctor_found(d, STEP_YAML, FOUND_WARNING, dir, "there is no .yaml or .yml file in it", "name the folder that holds your resources");
        for (size_t i = 0; i < n; i++)
                read_file(d, path_join(d->a, dir, names[i]));
}

/* ---- plugins and packages ---- */

static bool is_field(struct arena *a, const struct plugin_manifest *m, const char *name)
{
        for (struct yaml_item *f = m->fields ? m->fields->items : NULL; f; f = f->next) {
                const struct yaml_node *aliases = yaml_get(f->value, "aliases");
                if (strcasecmp(plugin_text(a, f->value, "name"), name) == 0)
                        return true;
                for (struct yaml_item *x = aliases && aliases->kind == YAML_LIST ? aliases->items : NULL; x; x = x->next)
                        if (str_ieq(x->value->text, str_of(name)))
                                return true;
        }
        return false;
}

/* A setting that may have been meant; NULL = none is near. */
static const char *near_field(struct arena *a, const struct plugin_manifest *m, const char *name)
{
        const char *near = NULL;
        unsigned least = 3;
        for (struct yaml_item *f = m->fields ? m->fields->items : NULL; f; f = f->next) {
                const char *have = plugin_text(a, f->value, "name");
                unsigned d = edit_distance(str_of(name), str_of(have), 2);
                if (d < least) {
                        least = d;
                        near = have;
                }
        }
        return near;
}

static void check_names(struct doctor *d, const struct doctor_component *c)
{
        const struct yaml_node *items = yaml_get_fold(yaml_get_fold(c->doc, "spec"), "metadata");
        for (struct yaml_item *it = items && items->kind == YAML_LIST ? items->items : NULL; it; it = it->next) {
                const char *name = text(d->a, it->value, "name");
                if (is_field(d->a, c->plugin, name) || runtime_setting(str_of(c->type), str_of(name)))
                        continue;
                const char *near = near_field(d->a, c->plugin, name), *hint = near ? arena_printf(d->a, "; did you mean '%s'?", near) : "";
                doctor_found(d, STEP_SCHEMA, FOUND_WARNING, c->name,
                                     arena_printf(d->a, "%s: %s knows no setting '%s'%s", place(d, it->value), c->plugin->name, name, hint ? hint : ""),
                                     arena_printf(d->a, "dapr plugin info %s lists its settings", c->plugin->name));
        }
}

/* ---- files that a plugin uses ---- */

/* The path in a setting: a plain one, or that of a database's address. NULL: it is none, or not known here. */
static const char *setting_path(struct doctor *d, const struct doctor_component *c, const char *right)
{
        struct str field = str_of(right);
        if (!str_has_prefix(field, STR("${")) || !str_has_suffix(field, STR("}")))
                return *right == '/' ? right : NULL;
        field = str_n(field.p + 2, field.n - 3);
        const struct yaml_node *items = yaml_get_fold(yaml_get_fold(c->doc, "spec"), "metadata");
        for (struct yaml_item *it = items && items->kind == YAML_LIST ? items->items : NULL; it; it = it->next) {
                struct str v = str_of(text(d->a, it->value, "value"));
                if (!str_ieq(str_of(text(d->a, it->value, "name")), field) || !v.n)
                        continue;
                if (str_has_prefix(v, STR("file:")))
                        v = str_skip(v, 5);
                v = str_cut(&v, '?');
                return v.n && v.p[0] == '/' ? arena_strdup(d->a, v) : NULL;
        }
        return NULL;
}

static void check_file(struct doctor *d, const struct doctor_component *c, const struct yaml_node *right)
{
        const char *path = setting_path(d, c, plugin_text(d->a, right, "path")), *slash;
        bool writes = strcmp(plugin_text(d->a, right, "access"), "write") == 0;
        if (!path)
                return;
        const char *at = path;
        if (writes && !path_exists(path) && (slash = strrchr(path, '/')) && slash != path)
                at = arena_strdup(d->a, str_n(path, (size_t)(slash - path)));
        const char *verb = writes ? "write" : "read";
        if (access(at, writes ? W_OK | R_OK : R_OK) == 0)
                doctor_found(d, STEP_PERMISSION, FOUND_GOOD, c->name, arena_printf(d->a, "may %s %s", verb, path), "");
        else
                doctor_found(d, STEP_PERMISSION, FOUND_WRONG, c->name, arena_printf(d->a, "%s is to %s %s: %s: %s", c->plugin->name, verb, path, at, strerror(errno)),
                             errno == ENOENT ? arena_printf(d->a, writes ? "mkdir -p %s" : "put the file there: %s", at)
                                             : arena_printf(d->a, "give the user that runs daprd the right to %s %s", verb, at));
}

void doctor_check_plugins(struct doctor *d)
{
        for (size_t i = 0; i < d->n_components; i++) {
                struct doctor_component *c = &d->components[i];
                if (c->wrong_file || !c->in_scope)
                        continue;
                c->plugin = doctor_plugin_of(d, c);
                if (!c->plugin)
                        continue; /* the sidecar says: it may be a pluggable component behind a socket */
                doctor_found(d, STEP_PLUGIN, c->plugin->error ? FOUND_WRONG : FOUND_GOOD, c->name,
                             c->plugin->error ? c->plugin->error : arena_printf(d->a, "%s %s in %s", c->plugin->name, c->plugin->version, c->plugin->folder),
                             c->plugin->error ? arena_printf(d->a, "dapr plugin install %s --force", c->plugin->name) : "");
                if (c->plugin->error)
                        continue;
                check_names(d, c);
                doctor_check_trust(d, c->plugin);
                const struct yaml_node *files = yaml_get(c->plugin->sandbox, "files");
                for (struct yaml_item *it = files && files->kind == YAML_LIST ? files->items : NULL; it; it = it->next)
                        check_file(d, c, it->value);
        }
}
