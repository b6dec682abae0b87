/* `plugin conformance`: runs the kit over a plugin's folder, a package, an installed plugin or somebody's socket, and shows what came out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/compile.h"
#include "ctl/conform_target.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/store.h"
#include "ctl/plugins.h"

#define O(f) offsetof(struct plugin_conformance_opts, f)
static const struct flag_row rows[] = {
        {"type", FLAG_STRING, O(type), "", "TYPE", "Component type to check (default: the plugin's first)", .short_name = 't'},
        {"resource", FLAG_STRING, O(resource), "", "FILE", "Component whose type, version and metadata are taken (default: one of its type in resources/ of the folder)", .short_name = 'r'},
        {"metadata", FLAG_ARRAY, O(metadata), NULL, "NAME=VALUE", "A setting of the component", .short_name = 'm'},
        {"secret", FLAG_ARRAY, O(secrets), NULL, "NAME=VALUE", "A secret that the store holds"},
        {"key", FLAG_ARRAY, O(keys), NULL, "NAME[:ALGORITHM]", "A key that the provider holds, and what it is for (default: all that it takes)"},
        {"topic-prefix", FLAG_STRING, O(topic_prefix), "conformance-", "TEXT", "How the kit's topics begin, where a broker must know its topics first"},
        {"ordered", FLAG_BOOL, O(ordered), "false", NULL, "The messages of a topic must come in their order"},
        {"subscribe-metadata", FLAG_ARRAY, O(subscribe_metadata), NULL, "NAME=VALUE", "What a subscription to configuration says, as an app would"},
        {"operation-metadata", FLAG_ARRAY, O(operation_metadata), NULL, "NAME=VALUE", "What a binding's create, get and delete need, such as key=a"},
        {"change", FLAG_STRING, O(change), "", "COMMAND", "Stores the item $KEY with the value $VALUE behind a configuration store"},
        {"yes", FLAG_BOOL, O(yes), "false", NULL, "Do not ask before the checks write to what a component file names"},
        {"save", FLAG_BOOL, O(save), "false", NULL, "Keep the result in the package or the plugin's folder, as conformance.json, unless a check has failed"},
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

int target_refuse(const char *err)
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
                return target_refuse(err);
        t->package = path;
        if (!dir || !mkdtemp(dir) || store_install(t->unpacked = dir, p, false, t->a, &err)) {
                package_free(p);
                return target_refuse(err ? err : "no temporary folder could be made");
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
                return *o->type || *o->resource ? 0 : target_refuse("Say what it is: --type state.NAME (or pubsub, bindings, secretstores)");
        }
        if (stat(what, &st) == 0 && S_ISDIR(st.st_mode)) {
                t->given = what;
                return compile_plugin(t->a, what, false, &t->folder);
        }
        if (stat(what, &st) == 0)
                return unpack(t, what);
        const struct plugin_manifest *m = plugins_find(t->a, o->globals.runtime_path, NULL, &all) ? NULL : plugins_get(&all, what);
        if (!m)
                return target_refuse(arena_printf(t->a, "%s is no folder, package or socket, and no plugin of that name is installed", what));
        t->folder = m->folder;
        return 0;
}

const struct yaml_node *target_read_yaml(struct target *t, const char *file)
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

const struct yaml_node *target_list(const struct yaml_node *map, const char *path)
{
        const struct yaml_node *n = yaml_path(map, path);
        return n && n->kind == YAML_LIST ? n : NULL;
}

static void read_environment(struct target *t)
{
        static const char *const words[] = {"PATH", "HOME", "LANG", "TZ", "TMPDIR"};
        const struct yaml_node *list = target_list(t->manifest, "environment");
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
        const struct yaml_node *types = target_list(t->manifest, "types");
        for (const struct yaml_item *i = types ? types->items : NULL; i; i = i->next) {
                const struct yaml_node *features = target_list(i->value, "features");
                if (strcasecmp(plugin_text(t->a, i->value, "type"), c->type) != 0)
                        continue;
                for (const struct yaml_item *f = features ? features->items : NULL; f && c->n_declared < CONFORM_FEATURES_MAX; f = f->next)
                        if (f->value->kind == YAML_SCALAR)
                                c->declared[c->n_declared++] = arena_strdup(t->a, f->value->text);
        }
}

static int read_target(struct target *t, const struct plugin_conformance_opts *o, struct conform *c)
{
        if (t->folder && !(t->manifest = target_read_yaml(t, path_join(t->a, t->folder, PACKAGE_MANIFEST))))
                return 1;
        if (settings_component(t, o))
                return 1;
        if (t->folder) {
                const char *exe = plugin_text(t->a, t->manifest, "executable");
                c->plugin_name = plugin_text(t->a, t->manifest, "name");
                c->manifest_version = plugin_text(t->a, t->manifest, "version");
                t->subject.program = path_join(t->a, t->folder, *exe ? exe : c->plugin_name);
                if (access(t->subject.program, X_OK) != 0)
                        return target_refuse(arena_printf(t->a, "%s: %s; build the plugin first", t->subject.program, strerror(errno)));
                char *real = realpath(t->subject.program, NULL);
                t->subject.program = arena_strdup(t->a, str_of(real));
                free(real);
                if (t->given)
                        compile_warn_stale(t->a, t->given, t->subject.program);
                read_environment(t);
        }
        const struct yaml_node *spec = yaml_get(t->component, "spec"), *types = target_list(t->manifest, "types");
        c->type = *o->type ? o->type : spec ? plugin_text(t->a, spec, "type") : types ? plugin_text(t->a, types->items->value, "type") : "";
        c->is_volatile = strcmp(plugin_text(t->a, t->manifest, "volatile"), "true") == 0;
        read_declared(t, c);
        const char *version = spec ? plugin_text(t->a, spec, "version") : "";
        c->version = *version ? version : "v1";
        struct str kind = str_of(c->type);
        ptrdiff_t dot = str_chr(kind, '.');
        c->kind = dot > 0 ? arena_strdup(t->a, str_n(kind.p, (size_t)dot)) : "";
        if (*conform_service(c))
                return settings_read(t, o, c->kind, &c->init) || settings_confirm(t, o, c->kind);
        return target_refuse(arena_printf(t->a, "\"%s\" is no component type: --type state.NAME", c->type));
}

/* ---- the run ---- */

/* --confined: daprd puts up the walls and becomes the plugin. */
static int confine(struct target *t, const struct plugin_conformance_opts *o)
{
        if (!t->folder)
                return target_refuse("--confined needs a plugin's folder or package: its manifest says what the walls are");
        if (yaml_is_null(yaml_get(t->manifest, "sandbox")))
                return target_refuse(arena_printf(t->a, "%s/" PACKAGE_MANIFEST ": it has no key 'sandbox', so that daprd does not confine the plugin", t->folder));
        t->subject.launcher = path_program(t->a, o->globals.runtime_path, "daprd");
        t->subject.launch = t->launch;
        return t->subject.launcher ? 0 : target_refuse("daprd was not found beside this program, in the install folder's bin or in PATH");
}

static int cannot_start(struct target *t, const char *fault)
{
        const char *out = subject_output(&t->subject, t->a);
        int code, status;
        if (subject_wait(&t->subject, 0, &code, &status) == 0)
                fault = arena_printf(t->a, "it has ended with %s %d before it answered", code == CLD_EXITED ? "exit code" : "signal", status);
        ui_say(UI_FAILURE, "The plugin does not start: %s%s%s", fault, *out ? "; it has written: " : "", out);
        if (t->subject.launcher)
                ui_say(UI_WARNING, "It ran inside the walls of %s/" PACKAGE_MANIFEST ": what it starts, such as what a shim of pyenv starts, must be granted "
                       "there (sandbox: programs:), as must what it opens (sandbox: files:). Without --confined it runs without walls", t->folder);
        return 1;
}

static void clean(struct conform *c)
{
        size_t left = strcmp(c->kind, "state") != 0 || c->stopped ? 0 : c->dead ? c->n_written : conform_state_clean(c);
        if (left)
                ui_say(UI_WARNING, "Up to %zu keys that begin with " STATE_KEYS "%d- may be left in the store", left, (int)getpid());
}

static int run_all(struct target *t, struct conform *c, bool faults)
{
        int r = subject_open(&t->subject, t->a);
        if (r)
                return target_refuse(arena_printf(t->a, "%s: %s", t->subject.program ? t->subject.program : t->subject.socket, strerror(-r)));
        c->subject = &t->subject;
        const char *fault = conform_connect(c);
        if (fault)
                return cannot_start(t, fault);
        if (t->subject.launcher)
                conform_walls(c);
        conform_contract(c);
        conform_kind(c);
        if (faults)
                conform_faults(c);
        conform_swap(c); /* after the search for leaks: a process that starts anew still fills its pools */
        conform_undeclared(c);
        clean(c);
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
        int r = !ui_output_ok(o->output, false) ? 1 : argc == 1 ? find_target(&t, o, argv[0]) : target_refuse("Say one plugin: dapr plugin conformance PATH");
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
                report_json(&c, &b);
                if (ui_is_json(o->output))
                        ui_print_json(&b);
                else
                        report_print(&c);
                r = (o->save && report_save(&t, &c, &b)) || report_count(&c, CONFORM_FAIL);
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
