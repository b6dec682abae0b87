/*
 * `plugin tap`: the calls to a component of a running sidecar as they happen, on the terminal or into a file that `plugin replay` reads.
 * The sidecar keeps them in a bounded list; this command takes them out of it several times a second.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/tape.h"
#include "sdk/base/loop.h"
#include "sdk/net/rpc.h"

#define ASK_TIMEOUT_S 10.0
#define PAUSE_S 0.1

#define O(f) offsetof(struct plugin_tap_opts, f)
static const struct flag_row tap_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar holds the component", .short_name = 'a'},
        {"for", FLAG_DURATION, O(for_ns), "30s", "TIME", "How long to record (at most 1h); Ctrl-C ends it, too"},
        {"write", FLAG_STRING, O(file), "", "FILE", "Write a recording for plugin replay (MessagePack, readable by you only)", .short_name = 'w'},
        {"unredacted", FLAG_BOOL, O(unredacted), "false", NULL, "Keep values: state, secrets, messages. Without it only their length and a hash"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json (one object a call), or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_tap_opts),
};
#undef O
const struct flag_program plugin_tap_program = {
        .name = "dapr plugin tap", .summary = "Record the calls to a component, without their values unless asked",
        .usage = "dapr plugin tap NAME --app-id ID [flags]",
        .examples = "  # What is called, how long it takes, how it ends\n  dapr plugin tap statestore --app-id myapp\n\n"
                    "  # A recording to replay against another plugin; it holds all values\n"
                    "  dapr plugin tap statestore --app-id myapp --for 30s --unredacted -w calls.tap\n",
        .rows = tap_rows, .n_rows = sizeof(tap_rows) / sizeof(*tap_rows)};

struct tapping {
        const struct plugin_tap_opts *o;
        const struct sidecar *s;
        const char *name;
        struct tape *tape;
        uint64_t n, dropped, waiting;
        bool active;
};

static bool interrupted; /* signal callbacks have no argument of their own */

static void on_interrupt(struct sig_watch *w, int signo)
{
        interrupted = true;
}

/* ---- one call ---- */

/* Of a stream's message: "sent" to the plugin, "received" from it. */
static const char *direction(const struct tape_call *c)
{
        return c->response_bytes ? "received" : "sent";
}

static void print_json(const struct tape_call *c)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "method", c->method);
        if (c->stream)
                json_kv(&w, "stream", str_of(direction(c)));
        json_kv(&w, "code", str_of(rpc_code_name(c->code)));
        json_kv_nonempty(&w, "message", c->message);
        json_key(&w, STR("latencyMs"));
        json_double(&w, (double)c->latency_ns / 1e6);
        json_key(&w, STR("requestBytes"));
        json_int(&w, c->request_bytes);
        json_key(&w, STR("responseBytes"));
        json_int(&w, c->response_bytes);
        json_object_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

static void print_line(const struct tape_call *c)
{
        time_t s = (time_t)(c->at_ns / 1000000000);
        struct tm tm;
        char at[20] = "";
        localtime_r(&s, &tm);
        strftime(at, sizeof at, "%H:%M:%S", &tm);
        const char *slash = memrchr(c->method.p ? c->method.p : "", '.', c->method.n);
        struct str method = slash ? str_skip(c->method, (size_t)(slash - c->method.p) + 1) : c->method;
        const char *color = ui_color(fileno(stdout)) && c->code ? "\033[31m" : "";
        if (c->stream) {
                printf("%s.%03d  %-26.*s %-17s %12s %8lld B %8lld B\n", at, (int)(c->at_ns / 1000000 % 1000), STR_FMT(method), direction(c), "",
                       (long long)c->request_bytes, (long long)c->response_bytes);
                return;
        }
        printf("%s.%03d  %-26.*s %s%-17s%s %9.3f ms %8lld B %8lld B  %.*s\n", at, (int)(c->at_ns / 1000000 % 1000), STR_FMT(method), color,
               rpc_code_name(c->code), *color ? "\033[0m" : "", (double)c->latency_ns / 1e6, (long long)c->request_bytes,
               (long long)c->response_bytes, STR_FMT(c->message));
}

static int take_call(struct tapping *t, const struct tape_call *c)
{
        t->n++;
        int r = t->tape ? tape_add(t->tape, c) : 0;
        if (r)
                ui_say(UI_FAILURE, "%s cannot be written: %s", t->o->file, strerror(-r));
        else if (!t->tape)
                (ui_is_json(t->o->output) ? print_json : print_line)(c);
        return r ? 1 : 0;
}

/* ---- an answer of the sidecar ---- */

static bool read_call(struct arena *a, struct json_reader *r, struct tape_call *c)
{
        struct str name, v;
        int64_t n;
        *c = (struct tape_call){0};
        if (!json_enter_object(r))
                return false;
        const struct { const char *name; struct str *to; bool is_base64; } texts[] = {
                {"method", &c->method, false}, {"message", &c->message, false}, {"request", &c->request, true}, {"response", &c->response, true}};
        const struct { const char *name; int64_t *to; } numbers[] = {{"time", &c->at_ns}, {"latencyNs", &c->latency_ns},
                                                                    {"requestBytes", &c->request_bytes}, {"responseBytes", &c->response_bytes}};
        while (json_next_member(r, a, &name)) {
                if (json_read_string(r, a, &v)) {
                        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                                if (str_eqz(name, texts[i].name))
                                        *texts[i].to = texts[i].is_base64 && v.n ? base64_decode(a, v) : v;
                } else if (json_read_int64(r, &n)) {
                        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
                                if (str_eqz(name, numbers[i].name))
                                        *numbers[i].to = n;
                        if (str_eqz(name, "code"))
                                c->code = (int)n;
                } else if (str_eqz(name, "stream") && json_read_bool(r, &c->stream)) {
                } else if (!json_skip(r)) {
                        return false;
                }
        }
        return !r->error && c->method.p;
}

static int read_answer(struct arena *a, struct tapping *t, struct str body)
{
        struct json_reader r;
        struct tape_call c;
        struct str name;
        int code = 0;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return 1;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "records") && json_enter_array(&r)) {
                        while (!code && json_next_element(&r))
                                code = !read_call(a, &r, &c) || take_call(t, &c);
                        if (code)
                                return code;
                } else if (!(str_eqz(name, "dropped") && json_read_uint64(&r, &t->dropped)) &&
                           !(str_eqz(name, "waiting") && json_read_uint64(&r, &t->waiting)) &&
                           !(str_eqz(name, "active") && json_read_bool(&r, &t->active))) {
                        json_skip(&r);
                }
        }
        return r.error != NULL;
}

static int take(struct tapping *t)
{
        struct arena a;
        struct str body;
        arena_init(&a, 0);
        int code = live_ask(&a, t->s, "GET", live_path(&a, t->name, "/tap"), ASK_TIMEOUT_S, &body);
        if (!code)
                code = read_answer(&a, t, body);
        if (!t->tape)
                fflush(stdout);
        else if (ui_color(fileno(stdout)) && !ui_is_json_log())
                printf("\r%llu calls", (unsigned long long)t->n), fflush(stdout);
        arena_fini(&a);
        return code;
}

/* ---- the command ---- */

static int record(struct tapping *t)
{
        struct sig_watch watches[2];
        int code = 0;
        interrupted = false;
        sig_watch_start(&watches[0], SIGINT, on_interrupt);
        sig_watch_start(&watches[1], SIGTERM, on_interrupt);
        for (t->active = true; !code && (t->active || t->waiting) && !interrupted;) {
                if (fiber_sleep(PAUSE_S))
                        break;
                code = take(t);
        }
        if (interrupted && !code)
                code = take(t); /* what came since */
        sig_watch_stop(&watches[0]);
        sig_watch_stop(&watches[1]);
        return code;
}

static int start(struct arena *a, struct tapping *t)
{
        struct live l;
        struct str body;
        if (live_get(a, t->s, t->name, &l))
                return 1;
        if (*t->o->file) {
                struct tape_head h = {t->s->app_id, t->name, l.type, l.plugin, l.plugin_version, !t->o->unredacted, wall_ns()};
                int r = tape_create(&t->tape, t->o->file, &h);
                if (r) {
                        ui_say(UI_FAILURE, "%s cannot be written: %s", t->o->file, strerror(-r));
                        return 1;
                }
        }
        const char *verb = arena_printf(a, "/tap?for=%lldns", (long long)t->o->for_ns);
        int code = live_ask(a, t->s, "POST", live_path(a, t->name, verb), ASK_TIMEOUT_S, &body);
        if (code && t->tape) {
                tape_close(t->tape, 0);
                remove(t->o->file);
        }
        return code;
}

static int finish(struct arena *a, struct tapping *t)
{
        struct str body;
        const char *ignored = live_try(a, t->s, "POST", live_path(a, t->name, "/untap"), ASK_TIMEOUT_S, &body);
        int r = t->tape ? tape_close(t->tape, t->dropped) : 0;
        (void)ignored; /* the sidecar may have ended */
        if (r)
                ui_say(UI_FAILURE, "%s cannot be written: %s", t->o->file, strerror(-r));
        if (t->dropped)
                ui_say(UI_WARNING, "%llu further calls came faster than they were taken and are not recorded", (unsigned long long)t->dropped);
        if (t->tape && !r)
                ui_say(UI_SUCCESS, "%s%llu calls recorded in %s%s", ui_color(fileno(stdout)) ? "\r" : "", (unsigned long long)t->n, t->o->file,
                       t->o->unredacted ? ", with all values" : "");
        return r ? 1 : 0;
}

int plugin_tap_run(void *opts, int argc, char **argv)
{
        struct tapping t = {.o = opts};
        struct arena a;
        if (!ui_output_ok(t.o->output, false))
                return 1;
        if (argc != 1 || !*t.o->app_id || (t.o->unredacted && !*t.o->file)) {
                ui_say(UI_FAILURE, argc == 1 && *t.o->app_id ? "--unredacted is for recordings: add -w FILE"
                                                             : "Say which component of which app: dapr plugin tap statestore --app-id myapp");
                return 1;
        }
        t.name = argv[0];
        arena_init(&a, 0);
        t.s = live_sidecar(&a, t.o->app_id);
        int code = t.s ? start(&a, &t) : 1;
        if (!code) {
                code = record(&t);
                code = finish(&a, &t) || code;
        }
        arena_fini(&a);
        return code;
}
