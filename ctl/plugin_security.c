/*
 * `plugin security`: what plugins may do, as their manifests ask for it, each right with its reason, and a score: 0 = touches nothing
 * but its socket, 10 = everything that its user may. With an app's id, the walls that really stand around its running processes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/plugins.h"

#define O(f) offsetof(struct plugin_security_opts, f)
static const struct flag_row security_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "Show the components of this app's running sidecar and the walls around them", .short_name = 'a'},
        {"plugins-path", FLAG_STRING, O(plugins_path), "", "DIRS", "Folders to search first, separated by colons (default: DAPR_PLUGINS_PATH)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_security_opts),
};
#undef O
const struct flag_program plugin_security_program = {
        .name = "dapr plugin security", .summary = "Show what plugins may do, why, and how exposed that makes you",
        .usage = "dapr plugin security [NAME|TYPE] [flags]",
        .examples = "  # The score of every plugin that is installed\n  dapr plugin security\n\n"
                    "  # The rights of one, each with its reason\n  dapr plugin security state.sqlite\n\n"
                    "  # What stands around the processes of a running sidecar\n  dapr plugin security --app-id myapp\n",
        .rows = security_rows, .n_rows = sizeof(security_rows) / sizeof(*security_rows)};

enum { RIGHTS_MAX = 64, POINTS_MAX = 100 }; /* points are tenths */

struct right {
        const char *kind, *what, *when, *reason;
        int points;
};
struct rights {
        struct right v[RIGHTS_MAX];
        size_t n;
        int points;
};

/* ---- the score ---- */

static int points_of(const char *list, const char *what, bool writes)
{
        if (strcmp(list, "programs") == 0)
                return 30;
        if (strcmp(list, "files") == 0)
                return writes ? 20 : 10;
        if (strcmp(what, "*") == 0)
                return 25;
        return strcmp(what, "unix") == 0 ? 20 : strcmp(what, "udp") == 0 ? 5 : 10;
}

/* Twice the same under two conditions opens one door. */
static bool stands_before(const struct rights *r, const struct right *x)
{
        for (const struct right *o = r->v; o < x; o++)
                if (strcmp(o->kind, x->kind) == 0 && strcmp(o->what, x->what) == 0)
                        return true;
        return false;
}

static void add_list(struct arena *a, const struct yaml_node *sandbox, const char *list, struct rights *r)
{
        const struct yaml_node *n = yaml_get(sandbox, list);
        for (struct yaml_item *it = n && n->kind == YAML_LIST ? n->items : NULL; it && r->n < RIGHTS_MAX; it = it->next) {
                const char *path = plugin_text(a, it->value, "path"), *connect = plugin_text(a, it->value, "connect");
                const char *listen = plugin_text(a, it->value, "listen");
                bool writes = strcmp(plugin_text(a, it->value, "access"), "write") == 0;
                struct right *x = &r->v[r->n++];
                x->what = *path ? path : *connect ? connect : listen;
                if (strcmp(plugin_text(a, it->value, "beside"), "true") == 0)
                        x->what = arena_printf(a, "folder of %s", path);
                x->kind = strcmp(list, "programs") == 0 ? "start" : *connect ? "connect" : *listen ? "listen" : writes ? "write" : "read";
                x->when = plugin_text(a, it->value, "when");
                x->reason = plugin_text(a, it->value, "reason");
                x->points = (points_of(list, x->what, writes) + (*x->reason ? 0 : 5)) / (*x->when ? 2 : 1);
                if (!stands_before(r, x))
                        r->points += x->points;
        }
}

static void collect(struct arena *a, const struct plugin_manifest *m, struct rights *r)
{
        *r = (struct rights){0};
        if (!m->sandbox) {
                r->points = POINTS_MAX;
                return;
        }
        add_list(a, m->sandbox, "files", r);
        add_list(a, m->sandbox, "network", r);
        add_list(a, m->sandbox, "programs", r);
        if (r->points > POINTS_MAX - 5) /* confined is never as open as not confined */
                r->points = POINTS_MAX - 5;
}

static const char *score_text(struct arena *a, int points)
{
        return arena_printf(a, "%d.%d", points / 10, points % 10);
}

static const char *word_of(int points)
{
        return points >= POINTS_MAX ? "not confined" : points >= 50 ? "exposed" : points >= 20 ? "medium" : points > 0 ? "good" : "closed";
}

static const char *word_color(size_t col, const char *text)
{
        if (col != 2)
                return NULL;
        return strcmp(text, "not confined") == 0 || strcmp(text, "exposed") == 0 ? "\033[31m" : strcmp(text, "medium") == 0 ? "\033[33m" : "\033[32m";
}

/* ---- for people ---- */

static void print_all(struct arena *a, const struct plugin_manifests *all)
{
        static const char *const header[] = {"PLUGIN", "EXPOSURE", "", "RIGHTS"};
        struct table t;
        struct rights r;
        table_init(&t, header, 4);
        t.color = word_color;
        for (size_t i = 0; i < all->n; i++) {
                collect(a, &all->v[i], &r);
                const char *what = r.points == POINTS_MAX ? "everything that its user may" : "";
                for (size_t k = 0; k < r.n; k++)
                        what = arena_printf(a, "%s%s%s %s", what, k ? ", " : "", r.v[k].kind, r.v[k].what);
                table_add(&t, (const char *[]){all->v[i].name, score_text(a, r.points), word_of(r.points), what});
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static void print_one(struct arena *a, const struct plugin_manifest *m)
{
        static const char *const header[] = {"RIGHT", "WHAT", "WHEN", "POINTS", "REASON"};
        struct rights r;
        struct table t;
        collect(a, m, &r);
        printf("%s %s: exposure %s of 10, %s\n", m->name, m->version, score_text(a, r.points), word_of(r.points));
        if (!m->sandbox) {
                printf("Its manifest has no key 'sandbox': the process may do all that its user may.\n");
                return;
        }
        if (r.n == 0) {
                printf("It may read its program, the machine's libraries and certificates, and talk to its sidecar. Nothing else.\n");
                return;
        }
        table_init(&t, header, 5);
        for (size_t i = 0; i < r.n; i++)
                table_add(&t, (const char *[]){r.v[i].kind, r.v[i].what, r.v[i].when, score_text(a, r.v[i].points),
                                               *r.v[i].reason ? r.v[i].reason : "none is given"});
        table_print(&t, stdout);
        table_fini(&t);
}

/* ---- for scripts ---- */

static void write_one(struct json_writer *w, struct arena *a, const struct plugin_manifest *m)
{
        struct rights r;
        collect(a, m, &r);
        json_object_begin(w);
        json_kv(w, "name", str_of(m->name));
        json_kv(w, "version", str_of(m->version));
        json_key(w, STR("confined"));
        json_bool(w, m->sandbox != NULL);
        json_key(w, STR("exposure"));
        json_double(w, r.points / 10.0);
        json_key(w, STR("rights"));
        json_array_begin(w);
        for (size_t i = 0; i < r.n; i++) {
                json_object_begin(w);
                json_kv(w, "right", str_of(r.v[i].kind));
                json_kv(w, "what", str_of(r.v[i].what));
                json_kv_nonempty(w, "when", str_of(r.v[i].when));
                json_kv(w, "reason", str_of(r.v[i].reason));
                json_object_end(w);
        }
        json_array_end(w);
        json_object_end(w);
}

static void print_json(struct arena *a, const struct plugin_manifest *v, size_t n, bool is_list)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        if (is_list)
                json_array_begin(&w);
        for (size_t i = 0; i < n; i++)
                write_one(&w, a, &v[i]);
        if (is_list)
                json_array_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

/* ---- running sidecars ---- */

static const char *walls_of(struct arena *a, const struct live *l)
{
        struct json_reader r;
        struct str name, wall;
        const char *all = "";
        json_read_init(&r, l->raw);
        if (!json_enter_object(&r))
                return "";
        while (json_next_member(&r, a, &name)) {
                if (!str_eqz(name, "walls") || !json_enter_array(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_element(&r) && json_read_string(&r, a, &wall))
                        all = arena_printf(a, "%s%s%.*s", all, *all ? ", " : "", STR_FMT(wall));
        }
        return all;
}

/* "a, b" of an array of strings. */
static const char *read_list(struct arena *a, struct json_reader *r)
{
        const char *all = "";
        struct str one;
        if (!json_enter_array(r)) {
                json_skip(r);
                return all;
        }
        while (json_next_element(r) && json_read_string(r, a, &one))
                all = arena_printf(a, "%s%s%.*s", all, *all ? ", " : "", STR_FMT(one));
        return all;
}

/* What the sidecar says of the machine. */
static void print_machine(struct arena *a, const struct sidecar *s)
{
        struct json_reader r;
        struct str body, name, own = STR(""), missing = STR("");
        const char *limits = "", *lacking = "";
        if (live_try(a, s, "GET", "/v1/plugins", 5, &body))
                return;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "cgroupLimits"))
                        limits = read_list(a, &r);
                else if (str_eqz(name, "wallsLacking"))
                        lacking = read_list(a, &r);
                else if (!(str_eqz(name, "cgroups") && json_read_string(&r, a, &own)) && !(str_eqz(name, "cgroupsMissing") && json_read_string(&r, a, &missing)))
                        json_skip(&r);
        }
        if (*lacking)
                printf("\nThis machine's kernel lacks the walls: %s\n", lacking);
        if (*limits)
                printf("\nLimits of %s hold by cgroups below %.*s\n", limits, STR_FMT(own));
        if (missing.n)
                printf("\n%s hold by rlimits: %.*s\n", *limits ? "Others" : "Limits", STR_FMT(missing));
}

static int print_running(struct arena *a, const struct plugin_security_opts *o)
{
        static const char *const header[] = {"COMPONENT", "TYPE", "PID", "WALLS"};
        struct sidecar *s = live_sidecar(a, o->app_id);
        struct lives all = {0};
        struct table t;
        if (!s || live_list(a, s, &all))
                return 1;
        table_init(&t, header, 4);
        for (size_t i = 0; i < all.n; i++) {
                const char *walls = walls_of(a, &all.v[i]);
                table_add(&t, (const char *[]){all.v[i].name, all.v[i].type, all.v[i].pid > 0 ? arena_printf(a, "%lld", (long long)all.v[i].pid) : "-",
                                               *walls ? walls : all.v[i].foreign ? "not ours to confine" : "none"});
        }
        table_print(&t, stdout);
        table_fini(&t);
        print_machine(a, s);
        return 0;
}

int plugin_security_run(void *opts, int argc, char **argv)
{
        struct plugin_security_opts *o = opts;
        struct plugin_manifests all = {0};
        struct arena a;
        if (!ui_output_ok(o->output, false))
                return 1;
        arena_init(&a, 0);
        int code = *o->app_id ? print_running(&a, o) : plugins_find(&a, o->globals.runtime_path, o->plugins_path, &all) != 0;
        const struct plugin_manifest *m = argc && !code ? plugins_get(&all, argv[0]) : NULL;
        if (!code && argc && !*o->app_id && !m) {
                ui_say(UI_FAILURE, "no plugin of the name or type %s is installed (dapr plugin list shows those that are)", argv[0]);
                code = 1;
        } else if (!code && !*o->app_id) {
                if (ui_is_json(o->output))
                        print_json(&a, m ? m : all.v, m ? 1 : all.n, !m);
                else if (m)
                        print_one(&a, m);
                else
                        print_all(&a, &all);
        }
        arena_fini(&a);
        return code;
}
