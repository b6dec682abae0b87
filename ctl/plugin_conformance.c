/* `plugin conformance`: runs the kit over a plugin's folder, a package, an installed plugin or somebody's socket, and shows what came out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/compile.h"
#include "ctl/conform.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/store.h"
#include "ctl/plugins.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "plugin/v1/nameresolution.pb-c.h"

enum { METADATA_MAX = 256 };

#define O(f) offsetof(struct plugin_conformance_opts, f)
static const struct flag_row rows[] = {
        {"type", FLAG_STRING, O(type), "", "TYPE", "Component type to check (default: the plugin's first)", .short_name = 't'},
        {"resource", FLAG_STRING, O(resource), "", "FILE", "Component whose type, version and metadata are taken", .short_name = 'r'},
        {"metadata", FLAG_ARRAY, O(metadata), NULL, "NAME=VALUE", "A setting of the component", .short_name = 'm'},
        {"secret", FLAG_ARRAY, O(secrets), NULL, "NAME=VALUE", "A secret that the store holds"},
        {"key", FLAG_ARRAY, O(keys), NULL, "NAME[:ALGORITHM]", "A key that the provider holds, and what it is for (default: all that it takes)"},
        {"topic-prefix", FLAG_STRING, O(topic_prefix), "conformance-", "TEXT", "How the kit's topics begin, where a broker must know its topics first"},
        {"ordered", FLAG_BOOL, O(ordered), "false", NULL, "The messages of a topic must come in their order"},
        {"subscribe-metadata", FLAG_ARRAY, O(subscribe_metadata), NULL, "NAME=VALUE", "What a subscription to configuration says, as an app would"},
        {"operation-metadata", FLAG_ARRAY, O(operation_metadata), NULL, "NAME=VALUE", "What a binding's create, get and delete need, such as key=a"},
        {"change", FLAG_STRING, O(change), "", "COMMAND", "Stores the item $KEY with the value $VALUE behind a configuration store"},
        {"save", FLAG_BOOL, O(save), "false", NULL, "Keep the result in the package or the plugin's folder, as conformance.json"},
        {"timeout", FLAG_DURATION, O(timeout_ns), "10s", "DURATION", "How long one call may take"},
        {"no-faults", FLAG_BOOL, O(no_faults), "false", NULL, "Leave out faults and leaks"},
        {"confined", FLAG_BOOL, O(confined), "false", NULL, "Run it inside the walls of its manifest, as daprd does"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_conformance_opts),
};
#undef O
const struct flag_program plugin_conformance_program = {
        .exits = "0 when every check passed; else 1.",
        .name = "dapr plugin conformance", .summary = "Check that a plugin keeps the contract and does what its kind must",
        .usage = "dapr plugin conformance FOLDER|PACKAGE|NAME|SOCKET [flags]",
        .examples = "  # What you are writing\n  dapr plugin conformance ./mystore\n\n  # With a component's settings\n  dapr plugin conformance state.redis --resource components/redis.yaml\n\n"
                    "  # Somebody's pluggable component, in any language\n  dapr plugin conformance /tmp/dapr-components-sockets/mystore.sock --type state.mystore\n\n"
                    "  # Keep the result in the package\n  dapr plugin conformance mystore-1.0.0-linux-amd64.tar --save\n",
        .rows = rows, .n_rows = sizeof(rows) / sizeof(*rows)};

/* What is checked, and where it stands. */
struct target {
        struct arena *a;
        const char *folder;   /* with plugin.yaml; NULL = a socket */
        const char *package;  /* the archive, or NULL */
        const char *unpacked; /* temporary, or NULL */
        const struct yaml_node *manifest, *component;
        struct str launch;    /* the folder and the settings, each text ended by NUL */
        struct subject subject;
};

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* ---- finding it ---- */

static int unpack(struct target *t, const char *path)
{
        struct package *p;
        const char *err = NULL, *tmp = getenv("TMPDIR");
        char *dir = arena_printf(t->a, "%s/dapr-package-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (package_open(path, &p, t->a, &err))
                return refuse(err);
        t->package = path;
        if (!dir || !mkdtemp(dir) || store_install(t->unpacked = dir, p, false, t->a, &err)) {
                package_free(p);
                return refuse(err ? err : "no temporary folder could be made");
        }
        t->folder = arena_printf(t->a, "%s/%s/%s", dir, p->name, p->version);
        package_free(p);
        return 0;
}

static int find_target(struct target *t, const struct plugin_conformance_opts *o, const char *what)
{
        struct stat st;
        struct plugin_manifests all;
        if (stat(what, &st) == 0 && S_ISSOCK(st.st_mode)) {
                t->subject.socket = what;
                return *o->type || *o->resource ? 0 : refuse("Say what it is: --type state.NAME (or pubsub, bindings, secretstores)");
        }
        if (stat(what, &st) == 0 && S_ISDIR(st.st_mode))
                return compile_plugin(t->a, what, false, &t->folder);
        if (stat(what, &st) == 0)
                return unpack(t, what);
        const struct plugin_manifest *m = plugins_find(t->a, o->globals.runtime_path, NULL, &all) ? NULL : plugins_get(&all, what);
        if (!m)
                return refuse(arena_printf(t->a, "%s is no folder, package or socket, and no plugin of that name is installed", what));
        t->folder = m->folder;
        return 0;
}

static const struct yaml_node *read_yaml(struct target *t, const char *file)
{
        struct str text;
        struct yaml_node *root = NULL;
        const char *err = NULL;
        if (yaml_read_file(t->a, file, false, &text, &err) || yaml_read(t->a, text, file, 1, 0, &root, &err) || !root) {
                ui_say(UI_FAILURE, "%s", err ? err : "an empty file");
                return NULL;
        }
        return root;
}

static const struct yaml_node *list_of(const struct yaml_node *map, const char *path)
{
        const struct yaml_node *n = yaml_path(map, path);
        return n && n->kind == YAML_LIST ? n : NULL;
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

/* The manifest's defaults, then the component, then --metadata; as the runtime would send them. */
static int read_settings(struct target *t, const struct plugin_conformance_opts *o, const char *kind, struct str *ret)
{
        Dapr__Proto__Components__V1__InitRequest req = DAPR__PROTO__COMPONENTS__V1__INIT_REQUEST__INIT;
        Dapr__Proto__Components__V1__MetadataRequest md = DAPR__PROTO__COMPONENTS__V1__METADATA_REQUEST__INIT;
        struct settings s = {.n = 0};
        const struct yaml_node *fields = list_of(t->manifest, "metadata"), *items = list_of(t->component, "spec.metadata");
        for (const struct yaml_item *i = fields ? fields->items : NULL; i; i = i->next)
                if (yaml_get(i->value, "default"))
                        put(t, &s, plugin_text(t->a, i->value, "name"), plugin_text(t->a, i->value, "default"));
        for (const struct yaml_item *i = items ? items->items : NULL; i; i = i->next)
                put(t, &s, plugin_text(t->a, i->value, "name"), plugin_text(t->a, i->value, "value"));
        for (size_t i = 0; i < o->metadata.n; i++) {
                const char *eq = strchr(o->metadata.v[i], '=');
                if (!eq)
                        return refuse("--metadata is NAME=VALUE");
                put(t, &s, arena_strdup(t->a, str_n(o->metadata.v[i], (size_t)(eq - o->metadata.v[i]))), eq + 1);
        }
        if (str_has_prefix(str_of(kind), STR("pubsub")))
                put_default(t, &s, "consumerID", "conformance"); /* the runtime's default is the app's id */
        t->launch = launch_text(t, &s);
        md.properties = s.v;
        md.n_properties = s.n;
        req.metadata = &md;
        *ret = strcmp(kind, "nameresolution") == 0 ? resolver_init(t, &md) : pb_pack(t->a, &req.base);
        return ret->p ? 0 : refuse(NULL);
}

static void read_environment(struct target *t)
{
        static const char *const words[] = {"PATH", "HOME", "LANG", "TZ", "TMPDIR"};
        const struct yaml_node *list = list_of(t->manifest, "environment");
        const char **v = arena_alloc(t->a, ((list ? list->n : 0) + 5) * sizeof *v);
        for (const struct yaml_item *i = list && v ? list->items : NULL; i; i = i->next) {
                const char *name = i->value->kind == YAML_SCALAR ? arena_strdup(t->a, i->value->text) : "";
                if (strcmp(name, "*") != 0)
                        v[t->subject.n_environment++] = name;
                else
                        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
                                v[t->subject.n_environment++] = words[k];
        }
        t->subject.environment = v;
}

/* features: of the type's row in the manifest. */
static void read_declared(struct target *t, struct conform *c)
{
        const struct yaml_node *types = list_of(t->manifest, "types");
        for (const struct yaml_item *i = types ? types->items : NULL; i; i = i->next) {
                const struct yaml_node *features = list_of(i->value, "features");
                if (strcasecmp(plugin_text(t->a, i->value, "type"), c->type) != 0)
                        continue;
                for (const struct yaml_item *f = features ? features->items : NULL; f && c->n_declared < CONFORM_FEATURES_MAX; f = f->next)
                        if (f->value->kind == YAML_SCALAR)
                                c->declared[c->n_declared++] = arena_strdup(t->a, f->value->text);
        }
}

static int read_target(struct target *t, const struct plugin_conformance_opts *o, struct conform *c)
{
        if (*o->resource && !(t->component = read_yaml(t, o->resource)))
                return 1;
        if (t->folder && !(t->manifest = read_yaml(t, path_join(t->a, t->folder, PACKAGE_MANIFEST))))
                return 1;
        if (t->folder) {
                const char *exe = plugin_text(t->a, t->manifest, "executable");
                c->plugin_name = plugin_text(t->a, t->manifest, "name");
                t->subject.program = path_join(t->a, t->folder, *exe ? exe : c->plugin_name);
                if (access(t->subject.program, X_OK) != 0)
                        return refuse(arena_printf(t->a, "%s: %s; build the plugin first", t->subject.program, strerror(errno)));
                char *real = realpath(t->subject.program, NULL);
                t->subject.program = arena_strdup(t->a, str_of(real));
                free(real);
                read_environment(t);
        }
        const struct yaml_node *spec = yaml_get(t->component, "spec"), *types = list_of(t->manifest, "types");
        c->type = *o->type ? o->type : spec ? plugin_text(t->a, spec, "type") : types ? plugin_text(t->a, types->items->value, "type") : "";
        c->is_volatile = strcmp(plugin_text(t->a, t->manifest, "volatile"), "true") == 0;
        read_declared(t, c);
        const char *version = spec ? plugin_text(t->a, spec, "version") : "";
        c->version = *version ? version : "v1";
        struct str kind = str_of(c->type);
        ptrdiff_t dot = str_chr(kind, '.');
        c->kind = dot > 0 ? arena_strdup(t->a, str_n(kind.p, (size_t)dot)) : "";
        return *conform_service(c) ? read_settings(t, o, c->kind, &c->init) : refuse(arena_printf(t->a, "\"%s\" is no component type: --type state.NAME", c->type));
}

/* ---- what came out ---- */

static const char *const words[] = {[CONFORM_PASS] = "pass", [CONFORM_FAIL] = "FAIL", [CONFORM_SKIP] = "skip"};

static size_t count(const struct conform *c, enum conform_status s)
{
        size_t n = 0;
        for (size_t i = 0; i < c->n; i++)
                n += c->v[i].status == s;
        return n;
}

static void write_result(const struct conform *c, struct buf *b)
{
        struct json_writer w;
        const struct { const char *key; size_t n; } counts[] = {{"passed", count(c, CONFORM_PASS)}, {"failed", count(c, CONFORM_FAIL)}, {"skipped", count(c, CONFORM_SKIP)}};
        json_write_init(&w, b);
        json_object_begin(&w);
        json_kv_nonempty(&w, "plugin", str_of(c->plugin_name));
        json_kv_nonempty(&w, "version", str_of(c->plugin_version));
        json_kv(&w, "type", str_of(c->type));
        json_key(&w, STR("features"));
        json_array_begin(&w);
        for (size_t i = 0; i < c->n_features; i++)
                json_string(&w, str_of(c->features[i]));
        json_array_end(&w);
        for (size_t i = 0; i < 3; i++) {
                json_key(&w, str_of(counts[i].key));
                json_uint(&w, counts[i].n);
        }
        json_key(&w, STR("checks"));
        json_array_begin(&w);
        for (size_t i = 0; i < c->n; i++) {
                json_object_begin(&w);
                json_kv(&w, "group", str_of(c->v[i].group));
                json_kv(&w, "name", str_of(c->v[i].name));
                json_kv(&w, "result", str_of(c->v[i].status == CONFORM_FAIL ? "fail" : words[c->v[i].status]));
                json_kv_nonempty(&w, "detail", str_of(c->v[i].detail));
                json_object_end(&w);
        }
        json_array_end(&w);
        json_object_end(&w);
}

static const char *color_of(size_t col, const char *text)
{
        if (col != 2)
                return NULL;
        return strcmp(text, "pass") == 0 ? "\033[32m" : strcmp(text, "FAIL") == 0 ? "\033[31m" : "\033[33m";
}

static void print_result(const struct conform *c)
{
        static const char *const header[] = {"GROUP", "CHECK", "RESULT", "MS", "DETAIL"};
        struct table t;
        table_init(&t, header, 5);
        t.color = color_of;
        for (size_t i = 0; i < c->n; i++)
                table_add(&t, (const char *[]){c->v[i].group, c->v[i].name, words[c->v[i].status],
                                               c->v[i].status == CONFORM_SKIP ? "" : conform_text((struct conform *)c, "%.0f", c->v[i].ms), c->v[i].detail});
        table_print(&t, stdout);
        table_fini(&t);
        size_t failed = count(c, CONFORM_FAIL);
        ui_say(failed ? UI_FAILURE : UI_SUCCESS, "%s: %zu passed, %zu failed, %zu left out", c->type, count(c, CONFORM_PASS), failed, count(c, CONFORM_SKIP));
}

/* Into the folder, or into the package: its list changes, so a signature is no more. */
static int save(struct target *t, const struct buf *result)
{
        struct package *p = NULL;
        struct buf b = {0};
        const char *err = NULL, *file = t->folder ? path_join(t->a, t->folder, PACKAGE_CONFORMANCE) : NULL;
        if (!file)
                return refuse("--save needs a folder or a package");
        if (path_write(file, buf_str(result), 0644, true))
                return refuse(arena_printf(t->a, "%s could not be written", file));
        if (!t->package) {
                ui_say(UI_SUCCESS, "Wrote %s", file);
                return 0;
        }
        const char *temp = arena_printf(t->a, "%s.%d", t->package, (int)getpid());
        int r = package_from_folder(t->folder, &p, t->a, &err);
        if (r == 0)
                r = package_write(p, &b);
        if (r == 0)
                r = path_write(temp, buf_str(&b), 0644, true);
        if (r == 0 && rename(temp, t->package) != 0)
                r = -errno;
        if (r == 0)
                ui_say(UI_SUCCESS, "%s holds the result now: sign it (dapr plugin sign %s)", t->package, t->package);
        buf_fini(&b);
        package_free(p);
        return r ? refuse(err ? err : arena_printf(t->a, "%s could not be written", t->package)) : 0;
}

/* --confined: daprd puts up the walls and becomes the plugin. */
static int confine(struct target *t, const struct plugin_conformance_opts *o)
{
        if (!t->folder)
                return refuse("--confined needs a plugin's folder or package: its manifest says what the walls are");
        if (yaml_is_null(yaml_get(t->manifest, "sandbox")))
                return refuse(arena_printf(t->a, "%s/" PACKAGE_MANIFEST ": it has no key 'sandbox', so that daprd does not confine the plugin", t->folder));
        t->subject.launcher = path_program(t->a, o->globals.runtime_path, "daprd");
        t->subject.launch = t->launch;
        return t->subject.launcher ? 0 : refuse("daprd was not found beside this program, in the install folder's bin or in PATH");
}

static int run_all(struct target *t, struct conform *c, bool faults)
{
        int r = subject_open(&t->subject, t->a);
        if (r)
                return refuse(arena_printf(t->a, "%s: %s", t->subject.program ? t->subject.program : t->subject.socket, strerror(-r)));
        c->subject = &t->subject;
        const char *fault = conform_connect(c);
        if (fault) {
                const char *out = subject_output(&t->subject, t->a);
                ui_say(UI_FAILURE, "The plugin does not start: %s%s%s", fault, *out ? "; it has written: " : "", out);
                return 1;
        }
        if (t->subject.launcher)
                conform_walls(c);
        conform_contract(c);
        conform_kind(c);
        conform_swap(c);
        if (faults)
                conform_faults(c);
        conform_undeclared(c);
        conform_ending(c);
        return 0;
}

int plugin_conformance_run(void *opts, int argc, char **argv)
{
        struct plugin_conformance_opts *o = opts;
        struct arena a;
        struct buf b = {0};
        arena_init(&a, 0);
        struct target t = {.a = &a, .subject = {.listen_fd = -1, .control_fd = -1, .pidfd = -1}};
        struct conform c = {.arena = &a, .timeout_s = (double)o->timeout_ns / 1e9, .topic_prefix = o->topic_prefix, .secrets = {o->secrets.v, o->secrets.n}, .keys = {o->keys.v, o->keys.n},
                            .subscribe_metadata = {o->subscribe_metadata.v, o->subscribe_metadata.n},
                            .operation_metadata = {o->operation_metadata.v, o->operation_metadata.n}, .change = o->change, .ordered = o->ordered};
        int r = !ui_output_ok(o->output, false) ? 1 : argc == 1 ? find_target(&t, o, argv[0]) : refuse("Say one plugin: dapr plugin conformance PATH");
        arena_init(&c.call, 0);
        if (r == 0)
                r = read_target(&t, o, &c);
        c.md[0] = (struct rpc_md){STR("x-component-instance"), STR("conformance")};
        c.md[1] = (struct rpc_md){STR("x-component-type"), str_of(c.type)};
        c.md[2] = (struct rpc_md){STR("x-component-version"), str_of(c.version)};
        c.n_md = t.subject.program ? 3 : 1;
        if (r == 0 && o->confined)
                r = confine(&t, o);
        if (r == 0 && (r = run_all(&t, &c, !o->no_faults)) == 0) {
                write_result(&c, &b);
                if (ui_is_json(o->output))
                        ui_print_json(&b);
                else
                        print_result(&c);
                r = (o->save && save(&t, &b)) || count(&c, CONFORM_FAIL);
        }
        if (c.ch)
                rpc_channel_close(c.ch);
        if (t.subject.program)
                subject_close(&t.subject);
        if (t.unpacked)
                store_remove_tree(t.unpacked);
        buf_fini(&b);
        arena_fini(&c.call);
        arena_fini(&a);
        return r ? 1 : 0;
}
