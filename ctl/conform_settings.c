/*
 * See conform_target.h: the settings that the plugin gets at Init. Where no component is named, the one in resources/ beside the sources is
 * taken, as `plugin new` writes it. What the runtime would refuse before it starts the plugin is refused here: a required setting that is
 * missing. Secrets and variables that a component refers to are not looked up: --metadata says them.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/conform_target.h"
#include "ctl/package/package.h"
#include "ctl/plugins.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "plugin/v1/nameresolution.pb-c.h"
#include "sdk/base/near.h"

enum { METADATA_MAX = 256 };

/* ---- the component ---- */

/* wanted: "" = any of the plugin's. */
static bool has_type(struct target *t, const struct yaml_node *component, const char *wanted)
{
        const struct yaml_node *types = target_list(t->manifest, "types");
        const char *type = plugin_text(t->a, yaml_get(component, "spec"), "type");
        if (!*type || (*wanted && strcasecmp(type, wanted) != 0))
                return false;
        for (const struct yaml_item *i = types ? types->items : NULL; i; i = i->next)
                if (strcasecmp(plugin_text(t->a, i->value, "type"), type) == 0)
                        return true;
        return false;
}

static bool is_yaml(const char *name)
{
        return str_has_suffix(str_of(name), STR(".yaml")) || str_has_suffix(str_of(name), STR(".yml"));
}

/* The first by name in the folder that names one of the plugin's types; other files are nobody's business here. */
static void find_component(struct target *t, const char *dir, const char *type)
{
        struct dirent **v = NULL;
        int n = scandir(dir, &v, NULL, alphasort);
        for (int i = 0; i < n; i++) {
                struct str text;
                struct yaml_node *root = NULL;
                const char *err = NULL, *file = path_join(t->a, dir, v[i]->d_name);
                if (!t->component && is_yaml(v[i]->d_name) && !yaml_read_file(t->a, file, false, &text, &err)
                    && !yaml_read(t->a, text, file, 1, 0, &root, &err) && has_type(t, root, type)) {
                        t->component = root;
                        t->resource = file;
                        t->resource_found = true;
                }
                free(v[i]);
        }
        free(v);
}

int settings_component(struct target *t, const struct plugin_conformance_opts *o)
{
        t->resource = o->resource;
        if (*o->resource)
                return (t->component = target_read_yaml(t, o->resource)) ? 0 : 1;
        if (o->metadata.n)
                return 0; /* somebody says the settings */
        if (t->given)
                find_component(t, path_join(t->a, t->given, "resources"), o->type);
        if (t->given && !t->component)
                find_component(t, path_join(t->a, t->given, "../resources"), o->type);
        return 0;
}

static size_t n_items(const struct target *t)
{
        const struct yaml_node *items = target_list(t->component, "spec.metadata");
        return items ? items->n : 0;
}

/* What the checks of a kind write, or NULL. */
static const char *writes_of(const char *kind)
{
        static const struct { const char *kind, *what; } rows[] = {{"state", "keys"}, {"lock", "locks"}, {"pubsub", "messages"}, {"bindings", "items"}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (strcmp(rows[i].kind, kind) == 0)
                        return rows[i].what;
        return NULL;
}

int settings_confirm(const struct target *t, const struct plugin_conformance_opts *o, const char *kind)
{
        const char *what = writes_of(kind);
        char line[16] = "";
        if (o->yes || !what || n_items(t) == 0)
                return 0;
        ui_say(UI_WARNING, "The checks write %s of their own to what %s names, also while a sidecar uses it, and remove them at the end", what, t->resource);
        if (isatty(0) && isatty(2)) {
                fprintf(stderr, "Go on? (y/N) ");
                return fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y') ? 0 : target_refuse("Nothing was done");
        }
        return t->resource_found ? target_refuse(arena_printf(t->a, "Nobody said that this is meant: say --yes, or --resource %s, or other settings by --metadata", t->resource)) : 0;
}

/* ---- settings ---- */

typedef Dapr__Proto__Components__V1__MetadataRequest__PropertiesEntry entry_t;
struct settings {
        entry_t *v[METADATA_MAX];
        size_t n;
};

static void put(struct target *t, struct settings *s, const char *name, const char *value)
{
        entry_t *e = NULL;
        for (size_t i = 0; i < s->n && !e; i++)
                if (strcasecmp(s->v[i]->key, name) == 0)
                        e = s->v[i];
        if (!e && s->n < METADATA_MAX && (e = arena_new(t->a, entry_t))) {
                dapr__proto__components__v1__metadata_request__properties_entry__init(e);
                s->v[s->n++] = e;
        }
        if (e) {
                e->key = name;
                e->value = value;
        }
}

static void put_default(struct target *t, struct settings *s, const char *name, const char *value)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcasecmp(s->v[i]->key, name) == 0)
                        return;
        put(t, s, name, value);
}

/* The settings as the block `configuration` of a resolver: what is JSON stays it, such as a map, true or 3. */
static const char *resolver_configuration(struct target *t, const Dapr__Proto__Components__V1__MetadataRequest *md)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        for (size_t i = 0; i < md->n_properties; i++) {
                struct str value = str_of(md->properties[i]->value);
                json_key(&w, str_of(md->properties[i]->key));
                if (json_valid(value))
                        json_raw(&w, value);
                else
                        json_string(&w, value);
        }
        json_object_end(&w);
        const char *z = md->n_properties ? arena_strdup(t->a, buf_str(&b)) : "";
        buf_fini(&b);
        return z ? z : "";
}

/* A name resolver is told of the sidecar, too. */
static struct str resolver_init(struct target *t, Dapr__Proto__Components__V1__MetadataRequest *md)
{
        Microdapr__Plugin__V1__NameResolutionInitRequest req = MICRODAPR__PLUGIN__V1__NAME_RESOLUTION_INIT_REQUEST__INIT;
        Microdapr__Plugin__V1__NameResolutionInstance self = MICRODAPR__PLUGIN__V1__NAME_RESOLUTION_INSTANCE__INIT;
        self.app_id = "conformance";
        self.namespace_ = "default";
        self.address = "127.0.0.1";
        self.internal_port = 50002;
        self.http_port = 3500;
        req.metadata = md;
        req.configuration = resolver_configuration(t, md);
        req.instance = &self;
        return pb_pack(t->a, &req.base);
}

static struct str launch_text(struct target *t, const struct settings *s)
{
        struct buf b = {0};
        if (!t->folder)
                return STR_NULL;
        char *real = realpath(t->folder, NULL);
        buf_add(&b, real ? real : "", strlen(real ? real : "") + 1);
        for (size_t i = 0; i < s->n; i++) {
                buf_add(&b, s->v[i]->key, strlen(s->v[i]->key) + 1);
                buf_add(&b, s->v[i]->value, strlen(s->v[i]->value) + 1);
        }
        struct str in = buf_str(&b);
        char *z = arena_alloc(t->a, in.n);
        if (z && in.n)
                memcpy(z, in.p, in.n);
        buf_fini(&b);
        free(real);
        return z ? str_n(z, in.n) : STR_NULL;
}

/* Is it given, by its name or another that components use? */
static bool names_field(struct target *t, const char *name, const struct yaml_node *field)
{
        const struct yaml_node *aliases = target_list(field, "aliases");
        bool hit = strcasecmp(name, plugin_text(t->a, field, "name")) == 0;
        for (const struct yaml_item *k = aliases ? aliases->items : NULL; k; k = k->next)
                hit |= k->value->kind == YAML_SCALAR && str_ieq(k->value->text, str_of(name));
        return hit;
}

static bool is_given(struct target *t, const struct settings *s, const struct yaml_node *field)
{
        for (size_t i = 0; i < s->n; i++)
                if (names_field(t, s->v[i]->key, field))
                        return true;
        return false;
}

static bool is_true(struct target *t, const struct yaml_node *map, const char *key)
{
        const struct yaml_node *n = yaml_get(map, key);
        struct yaml_value v;
        return n && n->kind == YAML_SCALAR && yaml_resolve(t->a, n, YAML_1_1, &v) == 0 && v.type == YAML_BOOL && v.b;
}

static int check_required(struct target *t, const struct settings *s)
{
        const struct yaml_node *fields = target_list(t->manifest, "metadata");
        struct buf names = {0}, say = {0};
        for (const struct yaml_item *i = fields ? fields->items : NULL; i; i = i->next)
                if (is_true(t, i->value, "required") && !is_given(t, s, i->value)) {
                        const char *name = plugin_text(t->a, i->value, "name");
                        buf_printf(&names, "%s'%s'", buf_str(&names).n ? ", " : "", name);
                        buf_printf(&say, "%s--metadata %s=...", buf_str(&say).n ? " " : "", name);
                }
        int r = buf_str(&names).n ? target_refuse(arena_printf(t->a, PACKAGE_MANIFEST " requires %.*s: say %.*s or --resource FILE", STR_FMT(buf_str(&names)), STR_FMT(buf_str(&say)))) : 0;
        buf_fini(&names);
        buf_fini(&say);
        return r;
}

/* A name that the manifest does not know is passed on, but is rarely meant. */
static void warn_unknown(struct target *t, const struct settings *s)
{
        const struct yaml_node *fields = target_list(t->manifest, "metadata");
        for (size_t i = 0; fields && i < s->n; i++) {
                const char *near = NULL;
                bool known = false;
                unsigned best = 3;
                for (const struct yaml_item *k = fields->items; k && !known; k = k->next) {
                        const char *name = plugin_text(t->a, k->value, "name");
                        unsigned d = edit_distance(str_of(s->v[i]->key), str_of(name), 2);
                        known = names_field(t, s->v[i]->key, k->value);
                        if (d < best) {
                                best = d;
                                near = name;
                        }
                }
                if (!known && near)
                        ui_say(UI_WARNING, PACKAGE_MANIFEST " knows no setting '%s'; did you mean '%s'?", s->v[i]->key, near);
        }
}

static int put_component(struct target *t, struct settings *s, const struct plugin_conformance_opts *o)
{
        const struct yaml_node *items = target_list(t->component, "spec.metadata");
        for (const struct yaml_item *i = items ? items->items : NULL; i; i = i->next) {
                const char *name = plugin_text(t->a, i->value, "name");
                bool said = false;
                for (size_t k = 0; k < o->metadata.n; k++)
                        said |= strncasecmp(o->metadata.v[k], name, strlen(name)) == 0 && o->metadata.v[k][strlen(name)] == '=';
                const char *from = yaml_get(i->value, "secretKeyRef") ? "a secret store" : yaml_get(i->value, "envRef") ? "the environment" : NULL;
                if (from && !said)
                        return target_refuse(arena_printf(t->a, "%s:%d: '%s' comes from %s, which is not asked here: say --metadata %s=...", t->resource, i->value->line, name, from, name));
                put(t, s, name, plugin_text(t->a, i->value, "value"));
        }
        return 0;
}

int settings_read(struct target *t, const struct plugin_conformance_opts *o, const char *kind, struct str *ret)
{
        Dapr__Proto__Components__V1__InitRequest req = DAPR__PROTO__COMPONENTS__V1__INIT_REQUEST__INIT;
        Dapr__Proto__Components__V1__MetadataRequest md = DAPR__PROTO__COMPONENTS__V1__METADATA_REQUEST__INIT;
        struct settings s = {.n = 0};
        const struct yaml_node *fields = target_list(t->manifest, "metadata");
        for (const struct yaml_item *i = fields ? fields->items : NULL; i; i = i->next)
                if (yaml_get(i->value, "default"))
                        put(t, &s, plugin_text(t->a, i->value, "name"), plugin_text(t->a, i->value, "default"));
        if (put_component(t, &s, o))
                return 1;
        for (size_t i = 0; i < o->metadata.n; i++) {
                const char *eq = strchr(o->metadata.v[i], '=');
                if (!eq)
                        return target_refuse("--metadata is NAME=VALUE");
                put(t, &s, arena_strdup(t->a, str_n(o->metadata.v[i], (size_t)(eq - o->metadata.v[i]))), eq + 1);
        }
        warn_unknown(t, &s);
        if (check_required(t, &s))
                return 1;
        if (str_has_prefix(str_of(kind), STR("pubsub")))
                put_default(t, &s, "consumerID", "conformance"); /* the runtime's default is the app's id */
        t->launch = launch_text(t, &s);
        md.properties = s.v;
        md.n_properties = s.n;
        req.metadata = &md;
        *ret = strcmp(kind, "nameresolution") == 0 ? resolver_init(t, &md) : pb_pack(t->a, &req.base);
        return ret->p ? 0 : target_refuse(NULL);
}
