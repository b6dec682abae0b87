/* `plugin list` and `plugin restart`: component instances of running sidecars, or the plugins that are installed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/plugins.h"

#define RESTART_TIMEOUT_S 60.0

#define O(f) offsetof(struct plugin_list_opts, f)
static const struct flag_row list_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "Show the component instances of this app's running sidecar", .short_name = 'a'},
        {"all", FLAG_BOOL, O(all), "false", NULL, "Show the component instances of every running sidecar", .short_name = 'A'},
        {"plugins-path", FLAG_STRING, O(plugins_path), "", "DIRS", "Folders to search first, separated by colons (default: DAPR_PLUGINS_PATH)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_list_opts),
};
#undef O
const struct flag_program plugin_list_program = {
        .name = "dapr plugin list", .summary = "List installed plugins, or the component instances of running sidecars",
        .usage = "dapr plugin list [NAME|KIND] [flags]",
        .examples = "  # What is installed, the own ones first\n  dapr plugin list\n\n  # State stores only\n  dapr plugin list state.\n\n  # Which process serves which component of an app, and how it is doing\n"
                    "  dapr plugin list --app-id myapp\n",
        .rows = list_rows, .n_rows = sizeof(list_rows) / sizeof(*list_rows)};

/* ---- installed ---- */

static const char *joined_types(struct arena *a, const struct plugin_manifest *m)
{
        const char *all = "", *type;
        for (size_t i = 0; (type = plugin_type(a, m, i)); i++)
                all = arena_printf(a, "%s%s%s", all, i ? ", " : "", type);
        return all;
}

/* A row a type: that is what a component names. */
static void print_installed_json(struct arena *a, const struct plugin_manifests *all)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < all->n; i++) {
                const struct plugin_manifest *m = &all->v[i];
                const char *type = plugin_type(a, m, 0);
                for (size_t k = 0; type || k == 0; type = plugin_type(a, m, ++k)) {
                        json_object_begin(&w);
                        json_kv(&w, "type", str_of(type ? type : ""));
                        json_kv(&w, "name", str_of(m->name));
                        json_kv(&w, "version", str_of(m->version));
                        json_kv(&w, "title", str_of(m->title));
                        json_kv(&w, "description", str_of(m->description));
                        json_kv(&w, "folder", str_of(m->folder));
                        json_kv_nonempty(&w, "error", str_of(m->error));
                        json_object_end(&w);
                }
        }
        json_array_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

static const char *short_folder(struct arena *a, const char *folder)
{
        const char *home = getenv("HOME");
        size_t n = home ? strlen(home) : 0;
        return n > 1 && strncmp(folder, home, n) == 0 && folder[n] == '/' ? arena_printf(a, "~%s", folder + n) : folder;
}

static void print_installed(struct arena *a, const struct plugin_manifests *all)
{
        static const char *const header[] = {"NAME", "VERSION", "TYPES", "FOLDER", "ERROR", "DESCRIPTION"};
        struct table t;
        table_init(&t, header, 6);
        for (size_t i = 0; i < all->n; i++) {
                const struct plugin_manifest *m = &all->v[i];
                table_add(&t, (const char *[]){m->name, m->version, joined_types(a, m), short_folder(a, m->folder), m->error ? m->error : "", m->description});
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static bool is_meant(struct arena *a, const struct plugin_manifest *m, const char *what)
{
        const char *type;
        bool hit = !what || strcasestr(m->name, what);
        for (size_t i = 0; !hit && (type = plugin_type(a, m, i)); i++)
                hit = strcasestr(type, what);
        return hit;
}

/* The user's own, by install or DAPR_PLUGINS_PATH, and not what came with daprd. */
static bool is_own(const struct plugin_list_opts *o, const struct plugin_manifest *m)
{
        const char *path = *o->plugins_path ? o->plugins_path : getenv("DAPR_PLUGINS_PATH"), *home = getenv("HOME");
        size_t n = home ? strlen(home) : 0;
        struct str rest = str_of(path);
        while (rest.p) {
                struct str folder = str_cut(&rest, ':');
                if (folder.n && str_has_prefix(str_of(m->file), folder))
                        return true;
        }
        return n && strncmp(m->file, home, n) == 0 && str_has_prefix(str_of(m->file + n), STR("/.dapr/plugins/"));
}

/* Those that are meant, the user's first. */
static int choose(struct arena *a, const struct plugin_list_opts *o, const char *what, struct plugin_manifests *all)
{
        struct plugin_manifest *v = arena_alloc(a, (all->n + 1) * sizeof *v);
        size_t n = 0;
        if (!v)
                return -ENOMEM;
        for (int own = 1; own >= 0; own--)
                for (size_t i = 0; i < all->n; i++)
                        if (is_own(o, &all->v[i]) == own && is_meant(a, &all->v[i], what))
                                v[n++] = all->v[i];
        *all = (struct plugin_manifests){.v = v, .n = n};
        return 0;
}

static int list_installed(struct arena *a, const struct plugin_list_opts *o, const char *what)
{
        struct plugin_manifests all;
        int r = plugins_find(a, o->globals.runtime_path, o->plugins_path, &all);
        bool any = r == 0 && all.n > 0;
        if (r == 0)
                r = choose(a, o, what, &all);
        if (r)
                ui_say(UI_FAILURE, "Could not look for plugins: %s", strerror(-r));
        else if (ui_is_json(o->output))
                print_installed_json(a, &all);
        else if (all.n == 0 && any)
                printf("No installed plugin has %s in its name or its types.\n", what);
        else if (all.n == 0)
                printf("No plugins found. Folders are named in DAPR_PLUGINS_PATH; ../plugins beside daprd is searched, too.\n");
        else
                print_installed(a, &all);
        return r ? 1 : 0;
}

/* ---- running ---- */

enum { COL_STATE = 4 };

static const char *cell_color(size_t col, const char *text)
{
        return col == COL_STATE ? live_color(text) : NULL;
}

static void print_lives(struct arena *a, const struct lives *all, bool of_one)
{
        static const char *const header[] = {"APP ID", "NAME", "TYPE", "VERSION", "STATE", "PID", "RESTARTS", "BACKEND", "CALLS", "ERRORS", "RSS", "UPTIME", "FAULT", "LAST ERROR"};
        struct table t;
        table_init(&t, header, sizeof(header) / sizeof(*header));
        t.color = cell_color;
        for (size_t i = 0; i < all->n; i++) {
                const struct live *l = &all->v[i];
                const char *pid = l->pid > 0 ? arena_printf(a, "%lld%s", (long long)l->pid, l->adopted ? " adopted" : "") : l->foreign ? "foreign" : "-";
                table_add(&t, (const char *[]){of_one ? "" : l->app_id, l->name, l->type, l->plugin_version, l->state, pid, arena_printf(a, "%lld", (long long)l->restarts), l->backend,
                                               arena_printf(a, "%lld", (long long)l->calls), arena_printf(a, "%lld", (long long)l->errors),
                                               l->rss_bytes > 0 ? ui_bytes(a, l->rss_bytes) : "-", l->uptime_s >= 0 ? ui_age(a, l->uptime_s) : "-",
                                               l->fault, l->last_error});
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static void print_lives_json(struct arena *a, const struct lives *all)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < all->n; i++)
                live_write_json(&w, a, &all->v[i]);
        json_array_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

/* Those whose name or type has it. */
static void keep_meant(struct lives *all, const char *what)
{
        size_t n = 0;
        for (size_t i = 0; i < all->n; i++)
                if (!what || strcasestr(all->v[i].name, what) || strcasestr(all->v[i].type, what))
                        all->v[n++] = all->v[i];
        all->n = n;
}

static int list_running(struct arena *a, const struct plugin_list_opts *o, const char *what)
{
        struct sidecars found = {0};
        struct lives all = {0};
        int failed = 0;
        if (live_sidecars(a, o->app_id, &found))
                return 1;
        for (size_t i = 0; i < found.n; i++)
                failed |= live_list(a, &found.v[i], &all);
        bool any = all.n > 0;
        keep_meant(&all, what);
        if (ui_is_json(o->output))
                print_lives_json(a, &all);
        else if (all.n)
                print_lives(a, &all, *o->app_id != 0);
        else if (!failed)
                printf("%s\n", any ? "No component has that in its name or type." : *o->app_id ? "This sidecar has no components." : "No component instances found.");
        return failed;
}

int plugin_list_run(void *opts, int argc, char **argv)
{
        struct plugin_list_opts *o = opts;
        if (!ui_output_ok(o->output, false))
                return 1;
        struct arena a;
        arena_init(&a, 0);
        const char *what = argc ? argv[0] : NULL;
        int code = argc > 1 ? 1 : *o->app_id || o->all ? list_running(&a, o, what) : list_installed(&a, o, what);
        if (argc > 1)
                ui_say(UI_FAILURE, "One word: dapr plugin list [NAME|KIND]");
        arena_fini(&a);
        return code;
}

/* ---- restart ---- */

static const struct flag_row restart_rows[] = {
        {"app-id", FLAG_STRING, offsetof(struct plugin_restart_opts, app_id), "", "ID", "The app whose sidecar holds the component", .short_name = 'a'},
        {"force", FLAG_BOOL, offsetof(struct plugin_restart_opts, force), "false", NULL, "End the old process first (it is killed after 6 s), for one that hangs, or holds what the new one needs; calls wait meanwhile"},
        CTL_GLOBAL_ROWS(plugin_restart_opts),
};
const struct flag_program plugin_restart_program = {
        .name = "dapr plugin restart", .summary = "Start a component's process anew, also one that has FAILED",
        .usage = "dapr plugin restart NAME --app-id ID [flags]",
        .examples = "  # The old process serves until the new one is ready\n  dapr plugin restart statestore --app-id myapp\n\n"
                    "  # The old one ends first\n  dapr plugin restart statestore --app-id myapp --force\n",
        .rows = restart_rows, .n_rows = sizeof(restart_rows) / sizeof(*restart_rows)};

int plugin_restart_run(void *opts, int argc, char **argv)
{
        struct plugin_restart_opts *o = opts;
        if (argc != 1 || !*o->app_id) {
                ui_say(UI_FAILURE, "Say which component of which app: dapr plugin restart statestore --app-id myapp");
                return 1;
        }
        struct arena a;
        struct str body;
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        int code = s ? live_ask(&a, s, "POST", live_path(&a, argv[0], o->force ? "/restart?force=1" : "/restart"), RESTART_TIMEOUT_S, &body) : 1;
        if (!code)
                ui_say(UI_SUCCESS, "Restarted %s", argv[0]);
        arena_fini(&a);
        return code;
}
