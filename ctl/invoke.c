/* `invoke`: calls a method of an app through its own sidecar, or through another one that is to find it. */
#include <errno.h>
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/payload.h"
#include "sdk/base/loop.h"
#include "sdk/net/http.h"

#define O(f) offsetof(struct invoke_opts, f)
static const struct flag_row invoke_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The application id to invoke", .short_name = 'a'},
        {"method", FLAG_STRING, O(method), "", "METHOD", "The method to invoke", .short_name = 'm'},
        {"data", FLAG_STRING, O(data), "", "JSON", "The JSON serialized data string (optional)", .short_name = 'd'},
        {"data-file", FLAG_STRING, O(data_file), "", "FILE", "A file containing the JSON serialized data (optional)", .short_name = 'f'},
        {"verb", FLAG_STRING, O(verb), "POST", "VERB", "The HTTP verb to use", .short_name = 'v'},
        {"via", FLAG_STRING, O(via), "", "ID", "Call through the sidecar of another app, which finds this one by its name resolver"},
        {"timeout", FLAG_DURATION, O(timeout_ns), "1m", "TIME", "How long to wait for the answer"},
        {"unix-domain-socket", FLAG_STRING, O(socket), "", "DIR", "Path to a unix domain socket dir of the sidecar", .short_name = 'u'},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "json: status, body and duration; or only the body (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(invoke_opts),
};
#undef O
const struct flag_program invoke_program = {
        .name = "dapr invoke", .summary = "Invoke a method on a given Dapr application", .usage = "dapr invoke --app-id ID --method METHOD [flags]",
        .examples = "  # Invoke a method on a target app\n  dapr invoke --app-id target --method sample --data '{\"key\":\"value\"}'\n\n"
                    "  # With the GET verb\n  dapr invoke --app-id target --method sample --verb GET\n\n"
                    "  # Through the sidecar of another app, as that app would\n  dapr invoke --app-id target --method sample --via caller\n\n"
                    "  # Status, body and duration for scripts\n  dapr invoke --app-id target --method sample -o json\n",
        .rows = invoke_rows, .n_rows = sizeof(invoke_rows) / sizeof(*invoke_rows)};

/* The sidecar that is asked; NULL after saying that there is none. */
static struct sidecar *find(struct arena *a, const struct invoke_opts *o)
{
        const char *id = *o->via ? o->via : o->app_id;
        struct sidecars all;
        int r = sidecars_find(a, false, &all);
        struct sidecar *s = r ? NULL : sidecars_get(&all, id);
        if (r)
                ui_say(UI_FAILURE, "Could not read the process table: %s", strerror(-r));
        else if (!s)
                ui_say(UI_FAILURE, "error invoking app %s: app ID %s not found: no daprd of that id runs here (dapr list shows those that do%s)",
                       o->app_id, id, *o->via ? "" : "; --via calls through one of them");
        if (s && *o->socket)
                s->socket = o->socket;
        return s;
}

static void print_json(int status, struct str body, double ms)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_key(&w, STR("status"));
        json_int(&w, status);
        json_key(&w, STR("durationMs"));
        json_double(&w, (double)(int64_t)(ms * 1000) / 1000);
        json_key(&w, STR("body"));
        if (json_valid(body))
                json_raw(&w, str_trim(body));
        else
                json_string(&w, body);
        json_object_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

static int call(struct arena *a, const struct invoke_opts *o, const struct sidecar *s, struct str data)
{
        struct str id = url_escape(a, str_of(o->app_id)), body;
        const char *method = o->method + (o->method[0] == '/'), *path = arena_printf(a, "/v1.0/invoke/%.*s/method/%s", STR_FMT(id), method);
        double began = loop_now_exact();
        const struct sidecar_request req = {o->verb, path, "application/json", data, (double)o->timeout_ns / 1e9};
        int status = 0, r = path ? sidecar_send(a, s, &req, &status, &body) : -ENOMEM;
        if (r) {
                ui_say(UI_FAILURE, "error invoking app %s: %s", o->app_id, strerror(-r));
                return 1;
        }
        if (ui_is_json(o->output)) {
                print_json(status, body, (loop_now_exact() - began) * 1e3);
                return status >= 400;
        }
        if (body.n)
                printf("%.*s\n", STR_FMT(body));
        fflush(stdout);
        if (status >= 400)
                ui_say(UI_FAILURE, "error invoking app %s: status %d %s", o->app_id, status, http_status_text(status));
        else
                ui_say(UI_SUCCESS, "App invoked successfully");
        return status >= 400;
}

int invoke_run(void *opts, int argc, char **argv)
{
        struct invoke_opts *o = opts;
        struct arena a;
        struct str data;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || !*o->app_id || !*o->method) {
                ui_say(UI_FAILURE, "Say which method of which app: dapr invoke --app-id target --method sample");
                return 1;
        }
        arena_init(&a, 0);
        int code = payload_read(&a, "invoke", o->data, o->data_file, &data);
        struct sidecar *s = code ? NULL : find(&a, o);
        code = s ? call(&a, o, s, data) : 1;
        arena_fini(&a);
        return code;
}
