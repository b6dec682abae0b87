/* `plugin info`: the manifest of a plugin, for whoever writes a component, and the live state of one when an app is named. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/plugins.h"

#define O(f) offsetof(struct plugin_info_opts, f)
static const struct flag_row info_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "NAME is a component of this app's running sidecar", .short_name = 'a'},
        {"plugins-path", FLAG_STRING, O(plugins_path), "", "DIRS", "Folders to search first, separated by colons (default: DAPR_PLUGINS_PATH)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_info_opts),
};
#undef O
const struct flag_program plugin_info_program = {
        .name = "dapr plugin info", .summary = "Show a plugin's settings, and the live state of a component",
        .usage = "dapr plugin info NAME|TYPE [flags]",
        .examples = "  # The settings that a component of this type takes\n  dapr plugin info state.sqlite\n\n"
                    "  # A component of a running sidecar\n  dapr plugin info statestore --app-id myapp\n",
        .rows = info_rows, .n_rows = sizeof(info_rows) / sizeof(*info_rows)};

/* ---- for people ---- */

static void line(const char *what, const char *value)
{
        if (value && *value)
                printf("%-12s %s\n", what, value);
}

static void print_live(struct arena *a, const struct live *l)
{
        const char *color = ui_color(fileno(stdout)) ? live_color(l->state) : NULL;
        line("Component", l->name);
        line("Type", l->type);
        line("State", arena_printf(a, "%s%s%s", color ? color : "", l->state, color ? "\033[0m" : ""));
        line("Backend", l->backend);
        line("Process", l->pid > 0 ? arena_printf(a, "%lld", (long long)l->pid) : l->foreign ? "foreign" : "");
        line("Uptime", l->uptime_s >= 0 ? ui_age(a, l->uptime_s) : "");
        line("Memory", l->rss_bytes > 0 ? ui_bytes(a, l->rss_bytes) : "");
        line("Calls", arena_printf(a, "%lld, %lld with errors", (long long)l->calls, (long long)l->errors));
        line("Restarts", arena_printf(a, "%lld%s%s", (long long)l->restarts, *l->last_death ? ", last death: " : "", l->last_death));
        if (l->adopted == 1)
                line("Adopted", "taken over from a daprd that crashed: once");
        else if (l->adopted)
                line("Adopted", arena_printf(a, "taken over from a daprd that crashed: %lld times", (long long)l->adopted));
        line("Fault", l->fault);
        line("Last error", l->last_error);
        line("Executable", l->executable);
}

/* Names and values as the sidecar tells them; it hides the sensitive ones. */
static void print_settings(struct arena *a, const struct live *l)
{
        struct json_reader r;
        struct str name, value;
        bool any = false;
        json_read_init(&r, l->raw);
        if (!json_enter_object(&r))
                return;
        while (json_next_member(&r, a, &name)) {
                if (!str_eqz(name, "metadata") || !json_enter_object(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_member(&r, a, &name)) {
                        if (!json_read_string(&r, a, &value) && !json_read_raw(&r, &value))
                                return;
                        printf("%s  %.*s = %.*s\n", any ? "" : "\nGiven settings\n", STR_FMT(name), STR_FMT(value));
                        any = true;
                }
        }
}

static const char *joined(struct arena *a, const struct yaml_node *list)
{
        const char *all = "";
        for (struct yaml_item *it = list && list->kind == YAML_LIST ? list->items : NULL; it; it = it->next)
                if (it->value->kind == YAML_SCALAR)
                        all = arena_printf(a, "%s%s%.*s", all, *all ? ", " : "", STR_FMT(it->value->text));
        return all;
}

static void print_fields(struct arena *a, const struct plugin_manifest *m)
{
        static const char *const header[] = {"SETTING", "TYPE", "REQUIRED", "DEFAULT", "SECRET", "DESCRIPTION"};
        struct table t;
        if (!m->fields) {
                printf("\nIt takes no settings.\n");
                return;
        }
        printf("\n");
        table_init(&t, header, 6);
        for (struct yaml_item *it = m->fields->items; it; it = it->next) {
                const struct yaml_node *f = it->value;
                const char *type = plugin_text(a, f, "type"), *values = joined(a, yaml_get(f, "values"));
                table_add(&t, (const char *[]){plugin_text(a, f, "name"), *values ? values : *type ? type : "string",
                                               strcmp(plugin_text(a, f, "required"), "true") == 0 ? "yes" : "", plugin_text(a, f, "default"),
                                               strcmp(plugin_text(a, f, "sensitive"), "true") == 0 ? "yes" : "", plugin_text(a, f, "description")});
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static void print_manifest(struct arena *a, const struct plugin_manifest *m)
{
        const char *types = "", *type;
        for (size_t i = 0; (type = plugin_type(a, m, i)); i++)
                types = arena_printf(a, "%s%s%s", types, i ? ", " : "", type);
        line("Plugin", *m->version ? arena_printf(a, "%s %s", m->name, m->version) : m->name);
        line("Title", m->title);
        line("Types", types);
        line("Folder", m->folder);
        line("Error", m->error);
        line("About", m->description);
        if (!m->error)
                print_fields(a, m);
}

/* ---- for scripts ---- */

static void manifest_json(struct json_writer *w, struct arena *a, const struct plugin_manifest *m)
{
        struct buf b = {0};
        json_object_begin(w);
        json_kv(w, "name", str_of(m->name));
        json_kv(w, "version", str_of(m->version));
        json_kv(w, "title", str_of(m->title));
        json_kv(w, "description", str_of(m->description));
        json_kv(w, "folder", str_of(m->folder));
        json_kv_nonempty(w, "error", str_of(m->error));
        const struct { const char *name; const struct yaml_node *list; } lists[] = {{"types", m->types}, {"metadata", m->fields}};
        for (size_t i = 0; i < 2; i++) {
                buf_clear(&b);
                json_key(w, str_of(lists[i].name));
                json_raw(w, lists[i].list && yaml_to_json(&b, lists[i].list, YAML_V3) == 0 ? buf_str(&b) : STR("[]"));
        }
        json_object_end(w);
        buf_fini(&b);
}

static void print_json(struct arena *a, const struct live *l, const struct plugin_manifest *m)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        if (l) {
                json_object_begin(&w);
                json_key(&w, STR("component"));
                live_write_json(&w, a, l);
                json_key(&w, STR("plugin"));
        }
        if (m)
                manifest_json(&w, a, m);
        else
                json_null(&w);
        if (l)
                json_object_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

static void print_people(struct arena *a, const struct live *l, const struct plugin_manifest *m)
{
        if (l) {
                print_live(a, l);
                print_settings(a, l);
                if (m)
                        printf("\n");
        }
        if (m)
                print_manifest(a, m);
}

/* ---- the command ---- */

/* The component of that name; else the only one of that type. */
static int find_live(struct arena *a, const char *app_id, const char *name, struct live *ret)
{
        struct sidecar *s = live_sidecar(a, app_id);
        struct lives all = {0};
        const char *hit = NULL;
        if (!s || live_list(a, s, &all))
                return 1;
        for (size_t i = 0; i < all.n; i++)
                if (strcmp(all.v[i].name, name) == 0)
                        return live_get(a, s, name, ret);
        for (size_t i = 0; i < all.n && !hit; i++)
                if (strcasecmp(all.v[i].type, name) == 0)
                        hit = all.v[i].name;
        if (hit)
                return live_get(a, s, hit, ret);
        ui_say(UI_FAILURE, "the sidecar of %s has no component %s (dapr plugin list --app-id %s shows them)", app_id, name, app_id);
        return 1;
}

int plugin_info_run(void *opts, int argc, char **argv)
{
        struct plugin_info_opts *o = opts;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc != 1) {
                ui_say(UI_FAILURE, "Say which plugin: dapr plugin info state.sqlite, or dapr plugin info statestore --app-id myapp");
                return 1;
        }
        struct arena a;
        struct plugin_manifests all = {0};
        struct live live;
        bool has_live = *o->app_id;
        arena_init(&a, 0);
        int code = has_live ? find_live(&a, o->app_id, argv[0], &live) : 0;
        if (!code)
                code = plugins_find(&a, o->globals.runtime_path, o->plugins_path, &all) != 0;
        const struct plugin_manifest *m = code ? NULL : plugins_get(&all, has_live ? live.type : argv[0]);
        if (!code && !m && !has_live) {
                ui_say(UI_FAILURE, "no plugin of the name or type %s is installed (dapr plugin list shows those that are)", argv[0]);
                code = 1;
        }
        if (!code)
                (ui_is_json(o->output) ? print_json : print_people)(&a, has_live ? &live : NULL, m);
        arena_fini(&a);
        return code;
}
