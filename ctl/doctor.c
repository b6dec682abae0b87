/*
 * `doctor`: why does a component not work? Follows each on its way from the file to the server behind it and tells the first step that
 * fails, what shows it, and what to do. With an app's id it asks the running sidecar and reads its folders; with folders alone it starts
 * a throw-away sidecar on them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/doctor.h"
#include "ctl/scratch.h"

#define START_TIMEOUT_S 90.0

#define O(f) offsetof(struct doctor_opts, f)
static const struct flag_row doctor_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app: its running sidecar is asked, or, with folders, its scopes are looked for", .short_name = 'a'},
        {"resources-path", FLAG_LIST, O(resources), NULL, "DIR", "Folders with resources: a throw-away sidecar is started on them; may be repeated",
         .short_name = 'd'},
        {"app-port", FLAG_PORT, O(app_port), "", "PORT", "Where the app should listen (of a running sidecar: what it was told)", .short_name = 'p'},
        {"plugins-path", FLAG_STRING, O(plugins_path), "", "DIRS", "Folders to search first, separated by colons (default: DAPR_PLUGINS_PATH)"},
        {"plugin-verify", FLAG_STRING, O(plugin_verify), "lock", "off|lock|signed", "With folders: daprd's flag of this name"},
        {"plugin-lock", FLAG_STRING, O(plugin_lock), "", "FILE", "With folders: daprd's flag of this name (default: plugins.lock, if it is here)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(doctor_opts),
};
#undef O
const struct flag_program doctor_program = {
        .exits = "0 when nothing is wrong (warnings do not count); 1 when something is, or nothing can be asked.",
        .name = "dapr doctor", .summary = "Find out why a component does not work, and what to do", .usage = "dapr doctor [--app-id ID] [--resources-path DIR] [flags]",
        .examples = "  # A running app\n  dapr doctor --app-id myapp\n\n  # Before anything runs; exits with 1 when something is wrong\n"
                    "  dapr doctor --resources-path ./resources --app-id myapp --app-port 3000\n\n  # For scripts\n"
                    "  dapr doctor --resources-path ./resources -o json\n",
        .rows = doctor_rows, .n_rows = sizeof(doctor_rows) / sizeof(*doctor_rows)};

static const char *const step_names[DOCTOR_STEPS] = {[STEP_YAML] = "yaml", [STEP_SCHEMA] = "schema", [STEP_SCOPE] = "scope", [STEP_PLUGIN] = "plugin",
                                                     [STEP_LOCK] = "lock", [STEP_PACKAGE] = "package", [STEP_SIGNATURE] = "signature",
                                                     [STEP_HELLO] = "hello", [STEP_INIT] = "init", [STEP_PING] = "ping",
                                                     [STEP_PERMISSION] = "permission", [STEP_BACKEND] = "backend", [STEP_APP] = "app"};
static const struct { const char *word, *sign, *color; } results[] = {
        [FOUND_GOOD] = {"ok", "✓", "\033[32m"}, [FOUND_WARNING] = {"warning", "!", "\033[33m"}, [FOUND_WRONG] = {"wrong", "✗", "\033[31m"}};

void doctor_found(struct doctor *d, enum doctor_step step, enum doctor_result result, const char *subject, const char *evidence, const char *fix)
{
        for (size_t i = 0; i < d->n; i++) /* one plugin of several components is told once */
                if (d->v[i].step == step && strcmp(d->v[i].subject, subject) == 0 && strcmp(d->v[i].evidence, evidence) == 0)
                        return;
        struct finding *v = d->n < DOCTOR_FINDINGS_MAX ? arena_grow(d->a, d->v, d->n * sizeof *v, (d->n + 1) * sizeof *v) : NULL;
        if (!v)
                return;
        d->v = v;
        v[d->n++] = (struct finding){step, result, subject, evidence ? evidence : "", fix ? fix : ""};
}

/* ---- printing ---- */

/* In the order of the steps, and within one as it was found. */
static int by_step(const void *x, const void *y)
{
        const struct finding *a = x, *b = y;
        return a->step != b->step ? (int)a->step - (int)b->step : strcmp(a->subject, b->subject);
}

static size_t count(const struct doctor *d, enum doctor_result r)
{
        size_t n = 0;
        for (size_t i = 0; i < d->n; i++)
                n += d->v[i].result == r;
        return n;
}

static void print_people(const struct doctor *d)
{
        bool color = ui_color(fileno(stdout));
        for (size_t i = 0; i < d->n; i++) {
                const struct finding *f = &d->v[i];
                printf("%s%s%s %-10s %-24s %s\n", color ? results[f->result].color : "", results[f->result].sign, color ? "\033[0m" : "", step_names[f->step],
                       f->subject, f->evidence);
                if (*f->fix && f->result != FOUND_GOOD)
                        printf("%-13s%s-> %s%s\n", "", color ? "\033[1m" : "", f->fix, color ? "\033[0m" : "");
        }
        size_t wrong = count(d, FOUND_WRONG), warnings = count(d, FOUND_WARNING);
        fflush(stdout);
        if (wrong)
                ui_say(UI_FAILURE, "%zu of %zu checks found something wrong, %zu warning%s", wrong, d->n, warnings, warnings == 1 ? "" : "s");
        else
                ui_say(UI_SUCCESS, "%zu checks, nothing is wrong, %zu warning%s", d->n, warnings, warnings == 1 ? "" : "s");
}

static void print_json(const struct doctor *d)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "appId", str_of(d->app_id));
        json_key(&w, STR("ok"));
        json_bool(&w, count(d, FOUND_WRONG) == 0);
        json_key(&w, STR("checks"));
        json_array_begin(&w);
        for (size_t i = 0; i < d->n; i++) {
                const struct finding *f = &d->v[i];
                json_object_begin(&w);
                json_kv(&w, "step", str_of(step_names[f->step]));
                json_kv(&w, "subject", str_of(f->subject));
                json_kv(&w, "result", str_of(results[f->result].word));
                json_kv(&w, "evidence", str_of(f->evidence));
                json_kv_nonempty(&w, "fix", str_of(f->result == FOUND_GOOD ? "" : f->fix));
                json_object_end(&w);
        }
        json_array_end(&w);
        json_object_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

/* ---- what is looked at ---- */

/* --resources-path and --components-path of a process's command line; relative ones are below its working folder. */
static void folders_of(struct doctor *d, const struct sidecar *s, struct flag_list *ret)
{
        char path[64], cwd[1024];
        struct flag_list given = {0};
        snprintf(path, sizeof path, "/proc/%d/cwd", s->pid);
        ssize_t k = readlink(path, cwd, sizeof cwd - 1);
        cwd[k > 0 ? k : 0] = '\0';
        doctor_flag_values(d, s->pid, "resources-path", &given);
        if (!given.n)
                doctor_flag_values(d, s->pid, "components-path", &given);
        for (size_t i = 0; i < given.n; i++)
                for (struct str rest = str_of(given.v[i]), one; rest.p && (one = str_cut(&rest, ','), 1);) {
                        const char **v = arena_grow(d->a, ret->v, ret->n * sizeof *v, (ret->n + 1) * sizeof *v);
                        if (!v || !one.n)
                                break;
                        ret->v = v;
                        v[ret->n++] = path_absolute(d->a, cwd, arena_strdup(d->a, one));
                }
}

static void read_folders(struct doctor *d, const struct flag_list *folders)
{
        for (size_t i = 0; i < folders->n; i++)
                doctor_read_folder(d, folders->v[i]);
        doctor_check_plugins(d);
}

static int examine_running(struct doctor *d, const struct doctor_opts *o)
{
        struct flag_list folders = {0};
        struct sidecar *s = live_sidecar(d->a, o->app_id);
        if (!s)
                return 1;
        folders_of(d, s, &folders);
        if (doctor_policy_of(d, s))
                return 1;
        read_folders(d, &folders);
        int port = o->app_port > 0 ? o->app_port : s->app_port;
        if (port > 0)
                doctor_check_app(d, "127.0.0.1", port);
        return doctor_ask(d, s);
}

static int examine_folders(struct doctor *d, const struct doctor_opts *o)
{
        struct scratch s = {0};
        struct scratch_options so = {o->globals.runtime_path, d->app_id, o->resources.v, o->resources.n, *o->plugins_path ? o->plugins_path : NULL, o->plugin_verify,
                                     o->plugin_lock};
        d->is_scratch = true;
        if (doctor_policy_here(d, o->globals.runtime_path, o->plugin_verify, o->plugin_lock))
                return 1;
        read_folders(d, &o->resources);
        if (o->app_port > 0)
                doctor_check_app(d, "127.0.0.1", o->app_port);
        for (size_t i = 0; i < o->resources.n; i++)
                if (!path_exists(o->resources.v[i]))
                        return 0; /* told already */
        int code = scratch_start(&s, d->a, &so, START_TIMEOUT_S) || doctor_ask(d, &s.sidecar);
        scratch_stop(&s);
        return code;
}

int doctor_run(void *opts, int argc, char **argv)
{
        struct doctor_opts *o = opts;
        struct arena a;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || (!*o->app_id && !o->resources.n)) {
                ui_say(UI_FAILURE, "Say which app, or which folders: dapr doctor --app-id myapp, or dapr doctor --resources-path ./resources");
                return 1;
        }
        arena_init(&a, 0);
        struct doctor d = {.a = &a, .app_id = *o->app_id ? o->app_id : "doctor"};
        package_trust_load(&a, &d.trust);
        int code = plugins_find(&a, o->globals.runtime_path, o->plugins_path, &d.plugins) != 0;
        if (!code)
                code = o->resources.n ? examine_folders(&d, o) : examine_running(&d, o);
        if (d.n) {
                qsort(d.v, d.n, sizeof *d.v, by_step);
                ui_is_json(o->output) ? print_json(&d) : print_people(&d);
        }
        code = code || count(&d, FOUND_WRONG) ? 1 : 0;
        arena_fini(&a);
        return code;
}
