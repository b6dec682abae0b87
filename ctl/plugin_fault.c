/* `plugin fault`: makes calls to a component of a running sidecar slow or fail, or kills its process, for a drill of bounded time. */
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "sdk/net/http.h"

#define ASK_TIMEOUT_S 10.0

#define O(f) offsetof(struct plugin_fault_opts, f)
static const struct flag_row fault_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar holds the component", .short_name = 'a'},
        {"delay", FLAG_DURATION, O(delay_ns), "", "TIME", "Make calls wait for so long first (at most 60s)"},
        {"error", FLAG_STRING, O(error), "", "CODE", "Let calls fail with this gRPC code, as UNAVAILABLE or 14"},
        {"kill", FLAG_BOOL, O(kill), "false", NULL, "Kill the process: once, now; with --rate at that share of the calls"},
        {"rate", FLAG_STRING, O(rate), "", "SHARE", "Only this share of the calls, as 0.1 (default: all)"},
        {"for", FLAG_DURATION, O(for_ns), "60s", "TIME", "When the fault ends by itself (at most 1h)"},
        {"clear", FLAG_BOOL, O(clear), "false", NULL, "End the fault now"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_fault_opts),
};
#undef O
const struct flag_program plugin_fault_program = {
        .name = "dapr plugin fault", .summary = "Make a component slow, failing or dead for a while, to see what your app does",
        .usage = "dapr plugin fault NAME --app-id ID (--delay TIME | --error CODE | --kill | --clear) [flags]",
        .examples = "  # A tenth of the calls takes 100 ms longer, for ten seconds\n"
                    "  dapr plugin fault statestore --app-id myapp --delay 100ms --rate 0.1 --for 10s\n\n"
                    "  # The store is down\n  dapr plugin fault statestore --app-id myapp --error UNAVAILABLE\n\n"
                    "  # Its process dies\n  dapr plugin fault statestore --app-id myapp --kill\n\n"
                    "  # Enough\n  dapr plugin fault statestore --app-id myapp --clear\n",
        .rows = fault_rows, .n_rows = sizeof(fault_rows) / sizeof(*fault_rows)};

static const char *verb_of(struct arena *a, const struct plugin_fault_opts *o)
{
        if (o->clear)
                return "/unfault";
        struct str error = url_escape(a, str_of(o->error)), rate = url_escape(a, str_of(o->rate));
        const char *q = arena_printf(a, "/fault?for=%lldns%s", (long long)o->for_ns, o->kill ? "&kill=true" : "");
        if (o->delay_ns > 0)
                q = arena_printf(a, "%s&delay=%lldns", q, (long long)o->delay_ns);
        if (error.n)
                q = arena_printf(a, "%s&error=%.*s", q, STR_FMT(error));
        if (rate.n)
                q = arena_printf(a, "%s&rate=%.*s", q, STR_FMT(rate));
        return q;
}

static int check(const struct plugin_fault_opts *o, int argc)
{
        bool any = o->delay_ns > 0 || *o->error || o->kill;
        if (argc != 1 || !*o->app_id)
                ui_say(UI_FAILURE, "Say which component of which app: dapr plugin fault statestore --app-id myapp --error UNAVAILABLE");
        else if (any == o->clear)
                ui_say(UI_FAILURE, any ? "--clear ends a fault: leave the others out" : "Say what: --delay 100ms, --error UNAVAILABLE, --kill, or --clear");
        else
                return 0;
        return 1;
}

static void tell(const struct plugin_fault_opts *o, struct arena *a, const struct sidecar *s, const char *name)
{
        struct live l;
        bool once = o->kill && !*o->rate && !*o->error && o->delay_ns <= 0;
        if (live_get(a, s, name, &l))
                return;
        if (ui_is_json(o->output)) {
                struct buf b = {0};
                struct json_writer w;
                json_write_init(&w, &b);
                live_write_json(&w, a, &l);
                ui_print_json(&b);
                buf_fini(&b);
        } else if (o->clear) {
                ui_say(UI_SUCCESS, "%s has no fault any more", name);
        } else if (once) {
                ui_say(UI_SUCCESS, "The process of %s is killed", name);
        } else {
                ui_say(UI_SUCCESS, "%s: %s", name, l.fault);
        }
}

int plugin_fault_run(void *opts, int argc, char **argv)
{
        struct plugin_fault_opts *o = opts;
        struct arena a;
        struct str body;
        if (!ui_output_ok(o->output, false) || check(o, argc))
                return 1;
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        int code = s ? live_ask(&a, s, "POST", live_path(&a, argv[0], verb_of(&a, o)), ASK_TIMEOUT_S, &body) : 1;
        if (!code)
                tell(o, &a, s, argv[0]);
        arena_fini(&a);
        return code;
}
