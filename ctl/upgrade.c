/* `upgrade`: a running sidecar's daprd takes another program, in place. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/net/http.h"

#define ASK_TIMEOUT_S 15.0
#define DONE_TIMEOUT_S 90.0
#define POLL_S 0.02

static const struct flag_row rows[] = {
        {"app-id", FLAG_STRING, offsetof(struct upgrade_opts, app_id), "", "ID", "The app whose sidecar is upgraded", .short_name = 'a'},
        {"binary", FLAG_STRING, offsetof(struct upgrade_opts, binary), "", "PATH", "The new daprd (default: what stands where the running one was started from)"},
        CTL_GLOBAL_ROWS(upgrade_opts),
};
const struct flag_program upgrade_program = {
        .name = "dapr upgrade", .summary = "Change the daprd of a running sidecar for another one, without losing a request or a plugin",
        .usage = "dapr upgrade --app-id ID [--binary PATH]",
        .examples = "  # A newer daprd stands where the running one came from\n  dapr upgrade --app-id myapp\n\n"
                    "  dapr upgrade --app-id myapp --binary ~/.dapr/bin/daprd.new\n",
        .rows = rows, .n_rows = sizeof(rows) / sizeof(*rows)};

struct answer {
        int64_t upgrades;
        bool started;
        const char *version;
};

static struct answer read_answer(struct arena *a, struct str body)
{
        struct answer ret = {-1, false, ""};
        struct json_reader r;
        struct str name, text;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return ret;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "upgrades"))
                        json_read_int64(&r, &ret.upgrades);
                else if (str_eqz(name, "started"))
                        json_read_bool(&r, &ret.started);
                else if (str_eqz(name, "version") && json_read_string(&r, a, &text))
                        ret.version = arena_strdup(a, text);
                else if (!str_eqz(name, "version"))
                        json_skip(&r);
        }
        return ret;
}

/* Parks until the new program answers. 0, or 1 after saying what is wrong. */
static int wait_done(struct arena *a, const struct sidecar *s, int64_t before, struct answer *ret)
{
        double until = loop_now() + DONE_TIMEOUT_S;
        struct str body;
        while (loop_now() < until) {
                const char *why = live_try(a, s, "GET", "/v1/plugins", ASK_TIMEOUT_S, &body);
                *ret = why ? (struct answer){-1, false, ""} : read_answer(a, body);
                if (ret->upgrades > before && ret->started)
                        return 0;
                if (fiber_sleep(POLL_S))
                        break;
        }
        ui_say(UI_FAILURE, "The new daprd has not answered within %.0f s; see the sidecar's log", DONE_TIMEOUT_S);
        return 1;
}

int upgrade_run(void *opts, int argc, char **argv)
{
        struct upgrade_opts *o = opts;
        struct arena a;
        struct str body;
        if (argc != 0 || !*o->app_id) {
                ui_say(UI_FAILURE, "Say which app's sidecar: dapr upgrade --app-id myapp");
                return 1;
        }
        arena_init(&a, 0);
        char *full = *o->binary ? realpath(o->binary, NULL) : NULL;
        const char *path = "/v1/upgrade";
        if (*o->binary) {
                struct str value = url_escape(&a, str_of(full ? full : o->binary));
                path = arena_printf(&a, "/v1/upgrade?binary=%.*s", STR_FMT(value));
        }
        free(full);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        int code = s ? live_ask(&a, s, "POST", path, ASK_TIMEOUT_S, &body) : 1;
        struct answer before = code ? (struct answer){-1, false, ""} : read_answer(&a, body), after;
        if (!code)
                code = wait_done(&a, s, before.upgrades, &after);
        if (!code)
                ui_say(UI_SUCCESS, "The sidecar of %s runs daprd %s", o->app_id, after.version);
        arena_fini(&a);
        return code;
}
