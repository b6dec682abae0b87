/* `invoke-binding`: one operation of an output binding, through an app's sidecar. */
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/payload.h"
#include "sdk/net/http.h"

#define ASK_TIMEOUT_S 60.0

#define O(f) offsetof(struct invoke_binding_opts, f)
static const struct flag_row invoke_binding_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar holds the binding", .short_name = 'a'},
        {"operation", FLAG_STRING, O(operation), "create", "NAME", "The operation; which there are tells the binding's documentation"},
        {"data", FLAG_STRING, O(data), "", "DATA", "The data: JSON, or else a text (optional)", .short_name = 'd'},
        {"data-file", FLAG_STRING, O(data_file), "", "FILE", "A file containing the data (optional); - is the standard input", .short_name = 'f'},
        {"metadata", FLAG_STRING, O(metadata), "", "JSON", "The JSON serialized metadata of the request (optional)", .short_name = 'm'},
        {"unix-domain-socket", FLAG_STRING, O(socket), "", "DIR", "Path to a unix domain socket dir of the sidecar", .short_name = 'u'},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json (status and answer), or only the answer (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(invoke_binding_opts),
};
#undef O
const struct flag_program invoke_binding_program = {
        .name = "dapr invoke-binding", .summary = "Run an operation of an output binding",
        .usage = "dapr invoke-binding NAME --app-id ID [--operation NAME] [flags]",
        .examples = "  # Write a file by bindings.localstorage\n"
                    "  dapr invoke-binding files --app-id myapp --data hello --metadata '{\"fileName\":\"a.txt\"}'\n\n"
                    "  # And read it\n  dapr invoke-binding files --app-id myapp --operation get --metadata '{\"fileName\":\"a.txt\"}'\n",
        .rows = invoke_binding_rows, .n_rows = sizeof(invoke_binding_rows) / sizeof(*invoke_binding_rows)};

static void add_metadata(void *arg, struct str key, struct str value)
{
        json_key(arg, key);
        json_string(arg, value);
}

/* The request's body; p == NULL after saying what is wrong. */
static struct str request_body(struct arena *a, const struct invoke_binding_opts *o, struct str data)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "operation", str_of(o->operation));
        if (data.n) {
                json_key(&w, STR("data"));
                if (json_valid(data))
                        json_raw(&w, str_trim(data));
                else
                        json_string(&w, data);
        }
        json_key(&w, STR("metadata"));
        json_object_begin(&w);
        int r = payload_metadata(a, o->metadata, add_metadata, &w);
        json_object_end(&w);
        json_object_end(&w);
        struct str ret = r ? STR_NULL : arena_str(a, buf_str(&b));
        buf_fini(&b);
        return ret;
}

static int report(struct arena *a, const struct invoke_binding_opts *o, const char *name, int r, int status, struct str body)
{
        bool good = !r && status < 300;
        if (!good && !ui_is_json(o->output)) {
                struct str why = r ? str_of(strerror(-r)) : payload_error(a, body);
                ui_say(UI_FAILURE, "Error invoking binding %s: %.*s", name, STR_FMT(why));
                return 1;
        }
        if (!ui_is_json(o->output)) {
                if (body.n)
                        printf("%.*s\n", STR_FMT(body));
                fflush(stdout);
                ui_say(UI_SUCCESS, "Binding invoked successfully");
                return 0;
        }
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "binding", str_of(name));
        json_key(&w, STR("status"));
        json_int(&w, status);
        json_key(&w, STR("answer"));
        if (r)
                json_string(&w, str_of(strerror(-r)));
        else if (body.n && json_valid(body))
                json_raw(&w, str_trim(body));
        else
                json_string(&w, body.p ? body : STR(""));
        json_object_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
        return !good;
}

int invoke_binding_run(void *opts, int argc, char **argv)
{
        struct invoke_binding_opts *o = opts;
        struct arena a;
        struct str data, answer = STR("");
        int status = 0, code = 1;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc != 1 || !*o->app_id) {
                ui_say(UI_FAILURE, "Say which binding of which app: dapr invoke-binding files --app-id myapp --operation list");
                return 1;
        }
        arena_init(&a, 0);
        struct str body = payload_read(&a, "invoke-binding", o->data, o->data_file, &data) ? STR_NULL : request_body(&a, o, data);
        struct sidecar *s = body.p ? payload_sidecar(&a, o->app_id, o->socket) : NULL;
        if (s) {
                struct str name = url_escape(&a, str_of(argv[0]));
                struct sidecar_request req = {.method = "POST", .path = arena_printf(&a, "/v1.0/bindings/%.*s", STR_FMT(name)), .body = body,
                                              .content_type = "application/json", .timeout_s = ASK_TIMEOUT_S};
                int r = sidecar_send(&a, s, &req, &status, &answer);
                code = report(&a, o, argv[0], r, status, answer);
        }
        arena_fini(&a);
        return code;
}
