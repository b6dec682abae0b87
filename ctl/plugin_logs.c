/* `plugin logs`: the last lines that a component's process has written. Following asks again: the sidecar keeps the lines. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"

#define ASK_TIMEOUT_S 5.0
#define FOLLOW_PAUSE_S 0.3
#define END_POLL_S 0.05

enum { END_POLLS = 100 };

#define O(f) offsetof(struct plugin_logs_opts, f)
static const struct flag_row logs_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar holds the component", .short_name = 'a'},
        {"follow", FLAG_BOOL, O(follow), "false", NULL, "Go on with new lines until the sidecar ends", .short_name = 'f'},
        {"tail", FLAG_INT, O(tail), "-1", "N", "Only the last N lines (default: all that the sidecar keeps)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json (one object a line), or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_logs_opts),
};
#undef O
const struct flag_program plugin_logs_program = {
        .name = "dapr plugin logs", .summary = "Show what a component's process has written", .usage = "dapr plugin logs NAME --app-id ID [flags]",
        .examples = "  # The last lines\n  dapr plugin logs statestore --app-id myapp --tail 20\n\n  # And those to come\n"
                    "  dapr plugin logs statestore --app-id myapp -f\n",
        .rows = logs_rows, .n_rows = sizeof(logs_rows) / sizeof(*logs_rows)};

struct log_line {
        struct str time, level, msg, raw;
};
struct log_lines {
        struct log_line *v;
        size_t n;
};

static void read_line(struct arena *a, struct log_line *l)
{
        struct json_reader r;
        struct str name, v;
        json_read_init(&r, l->raw);
        if (!json_enter_object(&r))
                return;
        while (json_next_member(&r, a, &name)) {
                if (!json_read_string(&r, a, &v)) {
                        json_skip(&r);
                        continue;
                }
                if (str_eqz(name, "time"))
                        l->time = v;
                else if (str_eqz(name, "level"))
                        l->level = v;
                else if (str_eqz(name, "msg"))
                        l->msg = v;
        }
}

/* NULL, or what is wrong. */
static const char *ask(struct arena *a, const struct sidecar *s, const char *component, struct log_lines *ret)
{
        struct str body, name, raw;
        struct json_reader r;
        *ret = (struct log_lines){0};
        const char *wrong = live_try(a, s, "GET", live_path(a, component, "/logs"), ASK_TIMEOUT_S, &body);
        if (wrong)
                return wrong;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return "the sidecar answers something that this version does not understand";
        while (json_next_member(&r, a, &name)) {
                if (!str_eqz(name, "lines") || !json_enter_array(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_element(&r) && json_read_raw(&r, &raw)) {
                        struct log_line *v = arena_grow(a, ret->v, ret->n * sizeof(*v), (ret->n + 1) * sizeof(*v));
                        if (!v)
                                return "out of memory";
                        ret->v = v;
                        v[ret->n] = (struct log_line){.raw = raw};
                        read_line(a, &v[ret->n++]);
                }
        }
        return NULL;
}

static void print_line(const struct log_line *l, bool json)
{
        if (json) {
                printf("%.*s\n", STR_FMT(l->raw));
                return;
        }
        const char *color = str_eqz(l->level, "error") || str_eqz(l->level, "fatal") ? "\033[31m" : str_eqz(l->level, "warning") ? "\033[33m" : NULL;
        if (!ui_color(fileno(stdout)))
                color = NULL;
        printf("%.*s %s%-7.*s%s %.*s\n", STR_FMT(l->time), color ? color : "", STR_FMT(l->level), color ? "\033[0m" : "", STR_FMT(l->msg));
}

/* How many of the lines were there before, last being the newest of those: the sidecar forgets from the old end. */
static size_t seen(const struct log_lines *now, const struct str *last)
{
        for (size_t i = now->n; last->p && i > 0; i--)
                if (str_eq(now->v[i - 1].raw, *last))
                        return i;
        return 0;
}

/* A sidecar that is about to end does not answer any more: that is no failure. */
static int explain(const struct sidecar *s, const char *wrong)
{
        for (int i = 0; i < END_POLLS && sidecar_runs(s); i++)
                if (fiber_sleep(END_POLL_S) != 0)
                        break;
        if (!sidecar_runs(s))
                return 0;
        ui_say(UI_FAILURE, "%s", wrong);
        return 1;
}

static int follow(const struct sidecar *s, const char *component, struct str last, bool json)
{
        struct arena now, kept; /* kept holds the newest line */
        int code = 0;
        bool more = true;
        arena_init(&kept, 0);
        last = arena_str(&kept, last);
        while (more && fiber_sleep(FOLLOW_PAUSE_S) == 0 && sidecar_runs(s)) {
                struct log_lines l;
                arena_init(&now, 0);
                const char *wrong = ask(&now, s, component, &l);
                for (size_t i = wrong ? l.n : seen(&l, &last); i < l.n; i++)
                        print_line(&l.v[i], json);
                if (wrong)
                        code = explain(s, wrong);
                else if (l.n) {
                        arena_reset(&kept);
                        last = arena_str(&kept, l.v[l.n - 1].raw);
                }
                more = !wrong && fflush(stdout) == 0;
                arena_fini(&now);
        }
        arena_fini(&kept);
        return code;
}

int plugin_logs_run(void *opts, int argc, char **argv)
{
        struct plugin_logs_opts *o = opts;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc != 1 || !*o->app_id) {
                ui_say(UI_FAILURE, "Say which component of which app: dapr plugin logs statestore --app-id myapp");
                return 1;
        }
        struct arena a;
        struct log_lines l;
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        const char *wrong = s ? ask(&a, s, argv[0], &l) : NULL;
        int code = !s || wrong;
        if (wrong)
                ui_say(UI_FAILURE, "%s", wrong);
        if (!code) {
                for (size_t i = o->tail >= 0 && (size_t)o->tail < l.n ? l.n - (size_t)o->tail : 0; i < l.n; i++)
                        print_line(&l.v[i], ui_is_json(o->output));
                fflush(stdout);
                if (o->follow)
                        code = follow(s, argv[0], l.n ? l.v[l.n - 1].raw : STR_NULL, ui_is_json(o->output));
        }
        arena_fini(&a);
        return code;
}
