/* `plugin upgrade|rollback|enable|disable|history`: what an operator does to a component of a running sidecar. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/compile.h"
#include "ctl/live.h"
#include "ctl/plugins.h"
#include "sdk/base/json.h"
#include "sdk/net/http.h"

#define SWAP_TIMEOUT_S 120.0
#define QUICK_TIMEOUT_S 60.0
#define APP_ROW(opts) {"app-id", FLAG_STRING, offsetof(struct opts, app_id), "", "ID", "The app whose sidecar holds the component", .short_name = 'a'}

#define ALL_ROW(opts) {"all", FLAG_BOOL, offsetof(struct opts, all), "false", NULL, "With it all components that share its process, which move together only"}

static const struct flag_row upgrade_rows[] = {
        APP_ROW(plugin_upgrade_opts),
        {"path", FLAG_STRING, offsetof(struct plugin_upgrade_opts, path), "", "DIR", "The folder of the plugin to change to, with its plugin.yaml: that of its sources, or the one that was built"},
        {"version", FLAG_STRING, offsetof(struct plugin_upgrade_opts, version), "", "V", "The version to change to, of those that are installed"},
        {"shadow", FLAG_DURATION, offsetof(struct plugin_upgrade_opts, shadow_ns), "", "TIME", "Send reads to both for so long first, and take the new one only when its answers are the same"},
        ALL_ROW(plugin_upgrade_opts),
        CTL_GLOBAL_ROWS(plugin_upgrade_opts),
};
const struct flag_program plugin_upgrade_program = {
        .name = "dapr plugin upgrade", .summary = "Change a component's plugin for another version, without losing a request",
        .usage = "dapr plugin upgrade NAME[@VERSION] --app-id ID (--version V | --path DIR) [flags]",
        .examples = "  dapr plugin upgrade statestore --app-id myapp --version 1.1.0\n\n"
                    "  # Compare the answers of both for half a minute before\n"
                    "  dapr plugin upgrade statestore --app-id myapp --path ./state.redis --shadow 30s\n",
        .rows = upgrade_rows, .n_rows = sizeof(upgrade_rows) / sizeof(*upgrade_rows)};

static const struct flag_row rollback_rows[] = {APP_ROW(plugin_rollback_opts), ALL_ROW(plugin_rollback_opts), CTL_GLOBAL_ROWS(plugin_rollback_opts)};
static const struct flag_row service_rows[] = {APP_ROW(plugin_restart_opts), CTL_GLOBAL_ROWS(plugin_restart_opts)};
const struct flag_program plugin_rollback_program = {
        .name = "dapr plugin rollback", .summary = "Change a component's plugin back for the one before the last upgrade",
        .usage = "dapr plugin rollback NAME --app-id ID", .examples = "  dapr plugin rollback statestore --app-id myapp\n",
        .rows = rollback_rows, .n_rows = sizeof(rollback_rows) / sizeof(*rollback_rows)};
const struct flag_program plugin_disable_program = {
        .name = "dapr plugin disable", .summary = "Take a component out of service: its calls fail at once until it is enabled",
        .usage = "dapr plugin disable NAME --app-id ID", .examples = "  dapr plugin disable statestore --app-id myapp\n",
        .rows = service_rows, .n_rows = sizeof(service_rows) / sizeof(*service_rows)};
const struct flag_program plugin_enable_program = {
        .name = "dapr plugin enable", .summary = "Put a component that was disabled back into service",
        .usage = "dapr plugin enable NAME --app-id ID", .examples = "  dapr plugin enable statestore --app-id myapp\n",
        .rows = service_rows, .n_rows = sizeof(service_rows) / sizeof(*service_rows)};

static const struct flag_row history_rows[] = {
        APP_ROW(plugin_history_opts),
        {"output", FLAG_STRING, offsetof(struct plugin_history_opts, output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_history_opts),
};
const struct flag_program plugin_history_program = {
        .name = "dapr plugin history", .summary = "What happened to a component of a running sidecar, and when",
        .usage = "dapr plugin history NAME --app-id ID [flags]", .examples = "  dapr plugin history statestore --app-id myapp\n",
        .rows = history_rows, .n_rows = sizeof(history_rows) / sizeof(*history_rows)};

/* ---- asking ---- */

static int ask(struct arena *a, const char *app_id, int argc, char **argv, const char *verb, const char *method, double timeout_s, struct str *ret)
{
        if (argc != 1 || !*app_id) {
                ui_say(UI_FAILURE, "Say which component of which app: dapr plugin ... statestore --app-id myapp");
                return 1;
        }
        struct sidecar *s = live_sidecar(a, app_id);
        return s ? live_ask(a, s, method, live_path(a, argv[0], verb), timeout_s, ret) : 1;
}

static int simple(void *opts, int argc, char **argv, const char *verb, const char *done)
{
        struct plugin_restart_opts *o = opts;
        struct arena a;
        struct str body;
        arena_init(&a, 0);
        int code = ask(&a, o->app_id, argc, argv, verb, "POST", QUICK_TIMEOUT_S, &body);
        if (!code)
                ui_say(UI_SUCCESS, "%s %s", done, argv[0]);
        arena_fini(&a);
        return code;
}

int plugin_enable_run(void *opts, int argc, char **argv)
{
        return simple(opts, argc, argv, "/enable", "Enabled");
}

int plugin_disable_run(void *opts, int argc, char **argv)
{
        return simple(opts, argc, argv, "/disable", "Disabled");
}

/* ---- upgrade, rollback ---- */

struct swapped {
        const char *plugin, *version;
        int64_t reads, differences, p99_us, present_p99_us;
};

static struct swapped read_swapped(struct arena *a, struct str body)
{
        struct swapped s = {.plugin = "", .version = ""};
        struct json_reader r;
        struct str name, text;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return s;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "plugin") && json_read_string(&r, a, &text))
                        s.plugin = arena_strdup(a, text);
                else if (str_eqz(name, "version") && json_read_string(&r, a, &text))
                        s.version = arena_strdup(a, text);
                else if (str_eqz(name, "shadowReads"))
                        json_read_int64(&r, &s.reads);
                else if (str_eqz(name, "shadowDifferences"))
                        json_read_int64(&r, &s.differences);
                else if (str_eqz(name, "shadowP99Us"))
                        json_read_int64(&r, &s.p99_us);
                else if (str_eqz(name, "presentP99Us"))
                        json_read_int64(&r, &s.present_p99_us);
                else
                        json_skip(&r);
        }
        return s;
}

/* folder: of the plugin, NULL = an installed one of that name. */
static void warn_volatile(struct arena *a, const char *component, const char *plugin, const char *folder, const char *runtime_path)
{
        struct plugin_manifests all;
        const struct plugin_manifest *m = folder || plugins_find(a, runtime_path, NULL, &all) ? NULL : plugins_get(&all, plugin);
        const char *said = folder ? compile_manifest_text(a, folder, "volatile") : m && m->is_volatile ? "true" : NULL;
        if (said && strcmp(said, "true") == 0)
                ui_say(UI_WARNING, "What %s held is gone: it lived in the old process (%s's plugin.yaml: volatile)", component, plugin);
}

/* path: "" = by --version. */
static const char *upgrade_verb(struct arena *a, const struct plugin_upgrade_opts *o, const char *path)
{
        char *full = *path ? realpath(path, NULL) : NULL; /* the sidecar has a folder of its own */
        path = full ? arena_strdup(a, str_of(full)) : path;
        free(full);
        struct str value = url_escape(a, str_of(*path ? path : o->version));
        const char *shadow = o->shadow_ns > 0 ? arena_printf(a, "&shadow=%lldms", (long long)(o->shadow_ns / 1000000)) : "";
        return arena_printf(a, "/upgrade?%s=%.*s%s%s", *path ? "path" : "version", STR_FMT(value), shadow, o->all ? "&all=1" : "");
}

/* NAME@VERSION says it too. */
static char **take_version(struct arena *a, struct plugin_upgrade_opts *o, int argc, char **argv)
{
        char *at = argc == 1 && !*o->path && !*o->version ? strrchr(argv[0], '@') : NULL;
        char **name = at && at > argv[0] && at[1] ? arena_zalloc(a, 2 * sizeof *name) : NULL;
        if (!name || !(name[0] = arena_strdup(a, str_n(argv[0], (size_t)(at - argv[0])))))
                return argv;
        o->version = at + 1;
        return name;
}

int plugin_upgrade_run(void *opts, int argc, char **argv)
{
        struct plugin_upgrade_opts *o = opts;
        struct arena a;
        struct str body;
        arena_init(&a, 0);
        argv = take_version(&a, o, argc, argv);
        if (!*o->path == !*o->version) {
                ui_say(UI_FAILURE, "Say to what: --version of an installed plugin, or --path of its folder");
                arena_fini(&a);
                return 1;
        }
        const char *path = "";
        if (*o->path && compile_find_built(&a, o->path, &path)) {
                arena_fini(&a);
                return 1;
        }
        double shadow_s = o->shadow_ns > 0 ? (double)o->shadow_ns / 1e9 : 0;
        if (shadow_s > 0)
                ui_say(UI_PENDING, "Comparing answers for %.0f s", shadow_s);
        int code = ask(&a, o->app_id, argc, argv, upgrade_verb(&a, o, path), "POST", SWAP_TIMEOUT_S + shadow_s, &body);
        if (!code) {
                struct swapped s = read_swapped(&a, body);
                if (shadow_s > 0)
                        ui_say(s.reads ? UI_INFO : UI_WARNING, "%lld read%s compared, %lld differ; 99 of 100 reads took at most %.2f ms in the new version, %.2f ms in the present one", (long long)s.reads,
                               s.reads == 1 ? "" : "s", (long long)s.differences, (double)s.p99_us / 1e3, (double)s.present_p99_us / 1e3);
                ui_say(UI_SUCCESS, "%s is served by %s %s", argv[0], s.plugin, s.version);
                warn_volatile(&a, argv[0], s.plugin, *path ? path : NULL, o->globals.runtime_path);
        }
        arena_fini(&a);
        return code;
}

int plugin_rollback_run(void *opts, int argc, char **argv)
{
        struct plugin_rollback_opts *o = opts;
        struct arena a;
        struct str body;
        arena_init(&a, 0);
        int code = ask(&a, o->app_id, argc, argv, o->all ? "/rollback?all=1" : "/rollback", "POST", SWAP_TIMEOUT_S, &body);
        if (!code) {
                struct swapped s = read_swapped(&a, body);
                ui_say(UI_SUCCESS, "%s is served by %s %s again", argv[0], s.plugin, s.version);
                warn_volatile(&a, argv[0], s.plugin, NULL, o->globals.runtime_path);
        }
        arena_fini(&a);
        return code;
}

/* ---- history ---- */

static void print_events(struct arena *a, struct str body)
{
        static const char *const header[] = {"TIME", "EVENT", "DETAIL"};
        struct table t;
        struct json_reader r;
        struct str name;
        table_init(&t, header, 3);
        json_read_init(&r, body);
        if (json_enter_object(&r) && json_next_member(&r, a, &name) && json_enter_array(&r))
                while (json_next_element(&r) && json_enter_object(&r)) {
                        const char *cells[3] = {"", "", ""};
                        for (size_t i = 0; json_next_member(&r, a, &name); i++) {
                                struct str text = STR("");
                                json_read_string(&r, a, &text);
                                if (i < 3)
                                        cells[i] = arena_strdup(a, text);
                        }
                        table_add(&t, cells);
                }
        table_print(&t, stdout);
        table_fini(&t);
}

int plugin_history_run(void *opts, int argc, char **argv)
{
        struct plugin_history_opts *o = opts;
        struct arena a;
        struct str body;
        if (!ui_output_ok(o->output, false))
                return 1;
        arena_init(&a, 0);
        int code = ask(&a, o->app_id, argc, argv, "/history", "GET", QUICK_TIMEOUT_S, &body);
        if (!code && ui_is_json(o->output))
                printf("%.*s\n", STR_FMT(body));
        else if (!code)
                print_events(&a, body);
        arena_fini(&a);
        return code;
}
