/* `trace`: the slowest requests of a sidecar's last minutes, and where their time went. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"

#define ASK_TIMEOUT_S 5.0

#define O(f) offsetof(struct trace_opts, f)
static const struct flag_row trace_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar is asked", .short_name = 'a'},
        {"min", FLAG_DURATION, O(min_ns), "0s", "TIME", "Only requests that took at least this long"},
        {"limit", FLAG_INT, O(limit), "20", "N", "At most N requests"},
        {"sort", FLAG_STRING, O(sort), "duration", "BY", "Order: duration (the slowest first) or time (the latest first)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(trace_opts),
};
#undef O
const struct flag_program trace_program = {
        .name = "dapr trace", .summary = "Show the slowest requests of a sidecar's last five minutes",
        .usage = "dapr trace --app-id ID [flags]",
        .examples = "  # The twenty slowest requests, and how much of each was spent in components and in the app\n  dapr trace --app-id myapp\n\n"
                    "  # What took at least 50 ms, the latest first\n  dapr trace --app-id myapp --min 50ms --sort time\n\n"
                    "  # The same for scripts\n  dapr trace --app-id myapp -o json\n",
        .rows = trace_rows, .n_rows = sizeof(trace_rows) / sizeof(*trace_rows)};

struct request {
        struct str time, protocol, operation, trace_id, raw;
        double ms, component_ms, app_ms;
        int64_t status;
};
struct requests {
        struct request *v;
        size_t n;
};

static bool read_request(struct arena *a, struct request *q)
{
        const struct { const char *name; struct str *to; } texts[] = {
                {"time", &q->time}, {"protocol", &q->protocol}, {"operation", &q->operation}, {"traceId", &q->trace_id}};
        const struct { const char *name; double *to; } numbers[] = {{"durationMs", &q->ms}, {"componentMs", &q->component_ms}, {"appMs", &q->app_ms}};
        struct json_reader r;
        struct str name;
        json_read_init(&r, q->raw);
        if (!json_enter_object(&r))
                return false;
        while (json_next_member(&r, a, &name)) {
                bool taken = str_eqz(name, "status") && json_read_int64(&r, &q->status);
                for (size_t i = 0; !taken && i < sizeof(texts) / sizeof(*texts); i++)
                        taken = str_eqz(name, texts[i].name) && json_read_string(&r, a, texts[i].to);
                for (size_t i = 0; !taken && i < sizeof(numbers) / sizeof(*numbers); i++)
                        taken = str_eqz(name, numbers[i].name) && json_read_double(&r, numbers[i].to);
                if (!taken)
                        json_skip(&r);
        }
        return !r.error;
}

static int read_requests(struct arena *a, struct str body, double min_ms, struct requests *ret)
{
        struct json_reader r;
        struct request q;
        *ret = (struct requests){0};
        json_read_init(&r, body);
        if (!json_enter_array(&r))
                return -EBADMSG;
        while (json_next_element(&r)) {
                q = (struct request){.status = 0};
                if (!json_read_raw(&r, &q.raw) || !read_request(a, &q))
                        return -EBADMSG;
                if (q.ms < min_ms)
                        continue;
                struct request *v = arena_grow(a, ret->v, ret->n * sizeof(*v), (ret->n + 1) * sizeof(*v));
                if (!v)
                        return -ENOMEM;
                ret->v = v;
                v[ret->n++] = q;
        }
        return r.error ? -EBADMSG : 0;
}

static int slowest_first(const void *a, const void *b)
{
        const struct request *x = a, *y = b;
        return (x->ms < y->ms) - (x->ms > y->ms);
}

static int latest_first(const void *a, const void *b)
{
        const struct request *x = a, *y = b;
        size_t n = x->time.n < y->time.n ? x->time.n : y->time.n;
        return n ? memcmp(y->time.p, x->time.p, n) : 0;
}

static void print_json(const struct requests *all, size_t n)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < n; i++)
                json_raw(&w, all->v[i].raw);
        json_array_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

static const char *ms(struct arena *a, double v)
{
        return v <= 0 ? "" : arena_printf(a, v < 10 ? "%.2f" : v < 100 ? "%.1f" : "%.0f", v);
}

static void print_table(struct arena *a, const struct requests *all, size_t n)
{
        static const char *const header[] = {"TIME", "MS", "COMPONENT", "APP", "DAPR", "STATUS", "OPERATION", "TRACE"};
        struct table t;
        table_init(&t, header, sizeof(header) / sizeof(*header));
        for (size_t i = 0; i < n; i++) {
                const struct request *q = &all->v[i];
                double rest = q->ms - q->component_ms - q->app_ms;
                const char *row[] = {arena_printf(a, "%.*s", q->time.n > 23 ? 12 : 0, q->time.p ? q->time.p + 11 : ""), ms(a, q->ms),
                                     ms(a, q->component_ms), ms(a, q->app_ms), ms(a, rest),
                                     arena_printf(a, "%s%lld", str_eqz(q->protocol, "grpc") ? "grpc " : "", (long long)q->status),
                                     arena_printf(a, "%.*s", STR_FMT(q->operation)), arena_printf(a, "%.*s", STR_FMT(q->trace_id))};
                table_add(&t, row);
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static int show(struct arena *a, const struct trace_opts *o, struct str body)
{
        struct requests all;
        if (read_requests(a, body, (double)o->min_ns / 1e6, &all)) {
                ui_say(UI_FAILURE, "the sidecar of %s answers something that this version does not understand", o->app_id);
                return 1;
        }
        if (all.n)
                qsort(all.v, all.n, sizeof(*all.v), strcmp(o->sort, "time") == 0 ? latest_first : slowest_first);
        size_t n = (size_t)o->limit < all.n ? (size_t)o->limit : all.n;
        if (ui_is_json(o->output))
                print_json(&all, n);
        else if (n == 0)
                printf("No requests in the last five minutes.\n");
        else
                print_table(a, &all, n);
        return 0;
}

int trace_run(void *opts, int argc, char **argv)
{
        struct trace_opts *o = opts;
        struct arena a;
        struct str body;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || !*o->app_id || o->limit < 1 || (strcmp(o->sort, "time") != 0 && strcmp(o->sort, "duration") != 0)) {
                ui_say(UI_FAILURE, "%s", argc || !*o->app_id ? "Say which app: dapr trace --app-id myapp"
                                         : o->limit < 1      ? "--limit must be at least 1"
                                                             : "--sort takes duration or time");
                return 1;
        }
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        int code = !s || live_ask(&a, s, "GET", "/v1/requests", ASK_TIMEOUT_S, &body) ? 1 : show(&a, o, body);
        arena_fini(&a);
        return code;
}
