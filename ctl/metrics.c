/*
 * `metrics`: what a sidecar has served and what it cost, as tables. Histograms are shown as average, p50 and p99; with --watch the
 * tables are drawn again and again, and counters become rates between two looks.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/prom.h"
#include "sdk/base/loop.h"
#include "sdk/base/map.h"

#define ASK_TIMEOUT_S 5.0

enum { ROWS_MAX = 40 };

#define O(f) offsetof(struct metrics_opts, f)
static const struct flag_row metrics_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar is asked", .short_name = 'a'},
        {"watch", FLAG_BOOL, O(watch), "false", NULL, "Show rates, and go on until the sidecar ends", .short_name = 'w'},
        {"interval", FLAG_DURATION, O(interval_ns), "2s", "TIME", "How often --watch looks"},
        {"filter", FLAG_STRING, O(filter), "", "TEXT", "json: only metrics whose name holds this text"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(metrics_opts),
};
#undef O
const struct flag_program metrics_program = {
        .name = "dapr metrics", .summary = "Show what a sidecar serves and what it costs", .usage = "dapr metrics --app-id ID [flags]",
        .examples = "  # Requests, components, pub/sub and processes since the start\n  dapr metrics --app-id myapp\n\n"
                    "  # The same, live, with rates\n  dapr metrics --app-id myapp --watch\n\n"
                    "  # All metrics of one area for scripts\n  dapr metrics --app-id myapp -o json --filter component_state\n",
        .rows = metrics_rows, .n_rows = sizeof(metrics_rows) / sizeof(*metrics_rows)};

/* ---- rows: series of one operation added up ---- */

struct row {
        struct str group, name;
        double calls, errors, sum, count, below[PROM_BUCKETS_MAX];
        const double *le;
        size_t n_le;
};
struct rows {
        struct row v[ROWS_MAX];
        size_t n;
};
/* Where a table's rows come from. */
struct source {
        const char *count, *histogram;   /* families; count may be NULL: the histogram's own */
        const char *group;               /* label, or the text behind '=' */
        const char *name, *name2;        /* labels: both are shown */
        const char *failed_label, *good; /* a value that does not begin with one of good's characters, or is not good, failed */
        double unit_ms;                  /* of the histogram */
};

static struct row *row_get(struct arena *a, struct rows *all, struct str group, struct str name)
{
        for (size_t i = 0; i < all->n; i++)
                if (str_eq(all->v[i].group, group) && str_eq(all->v[i].name, name))
                        return &all->v[i];
        if (all->n == ROWS_MAX)
                return NULL;
        struct row *r = &all->v[all->n++];
        *r = (struct row){.group = group, .name = arena_str(a, name)};
        return r;
}

static bool is_good(const struct source *s, struct str value)
{
        return !value.n || str_eqz(value, s->good) || (*s->good == '1' && value.p[0] >= '1' && value.p[0] <= '3');
}

static void add_up(struct arena *a, const struct prom *p, const struct source *s, struct rows *all)
{
        for (size_t i = 0; i < p->n; i++) {
                const struct prom_series *x = &p->v[i];
                bool histogram = str_eqz(x->name, s->histogram), count = s->count && str_eqz(x->name, s->count);
                if (!histogram && !count)
                        continue;
                struct str name = prom_label(x, s->name), second = s->name2 ? prom_label(x, s->name2) : STR("");
                if (second.n)
                        name = str_of(arena_printf(a, "%.*s %.*s", STR_FMT(second), STR_FMT(name)));
                struct row *r = row_get(a, all, *s->group == '=' ? str_of(s->group + 1) : prom_label(x, s->group), name);
                if (!r)
                        continue;
                if (count || !s->count) {
                        double n = histogram ? x->count : x->value;
                        r->calls += n;
                        r->errors += s->failed_label && !is_good(s, prom_label(x, s->failed_label)) ? n : 0;
                }
                if (!histogram)
                        continue;
                r->sum += x->value * s->unit_ms;
                r->count += x->count;
                r->le = x->le;
                r->n_le = x->n_buckets;
                for (size_t k = 0; k < x->n_buckets; k++)
                        r->below[k] += x->below[k];
        }
}

static int busiest_first(const void *a, const void *b)
{
        const struct row *x = a, *y = b;
        return (x->calls < y->calls) - (x->calls > y->calls);
}

/* ---- printing ---- */

struct view {
        struct arena *a;
        struct map *before; /* "group\0name" -> double *: calls at the last look; NULL = no rates */
        double seconds;     /* since then */
};

static const char *amount(struct arena *a, double v)
{
        return v == 0 ? "" : arena_printf(a, v < 1e6 ? "%.0f" : "%.4g", v);
}

static const char *time_ms(struct arena *a, double v)
{
        return !isfinite(v) ? "" : arena_printf(a, v < 1 ? "%.3f" : v < 100 ? "%.2f" : "%.0f", v);
}

/* Below the first bucket's bound a histogram knows no more than that. */
static const char *quantile(struct arena *a, const struct row *r, double q, double unit_ms)
{
        double v = prom_quantile(r->le, r->below, r->n_le, r->count, q);
        if (r->n_le && v <= r->le[0])
                return arena_printf(a, "<%g", r->le[0] * unit_ms);
        return time_ms(a, v * unit_ms);
}

static const char *rate(struct view *v, const struct row *r)
{
        if (!v->before)
                return "";
        const char *key = arena_printf(v->a, "%.*s/%.*s", STR_FMT(r->group), STR_FMT(r->name));
        double *old = map_get(v->before, str_of(key)), now = 0;
        if (old) {
                now = v->seconds > 0 ? (r->calls - *old) / v->seconds : 0;
                *old = r->calls;
        } else if ((old = malloc(sizeof(*old)))) {
                *old = r->calls;
                if (map_set(v->before, str_of(key), old))
                        free(old);
        }
        return now > 0 ? arena_printf(v->a, now < 10 ? "%.1f" : "%.0f", now) : "";
}

static void print_rows(struct view *v, const char *title, struct rows *all, double unit_ms)
{
        const char *header[] = {title, "OPERATION", "CALLS", "PER SECOND", "ERRORS", "AVG MS", "P50 MS", "P99 MS"};
        struct table t;
        if (!all->n)
                return;
        qsort(all->v, all->n, sizeof(*all->v), busiest_first);
        table_init(&t, header, sizeof(header) / sizeof(*header));
        for (size_t i = 0; i < all->n; i++) {
                const struct row *r = &all->v[i];
                const char *cells[] = {arena_strdup(v->a, r->group), arena_strdup(v->a, r->name), amount(v->a, r->calls), rate(v, r),
                                       amount(v->a, r->errors), time_ms(v->a, r->count > 0 ? r->sum / r->count : NAN),
                                       quantile(v->a, r, 0.5, unit_ms), quantile(v->a, r, 0.99, unit_ms)};
                table_add(&t, cells);
        }
        table_print(&t, stdout);
        table_fini(&t);
        printf("\n");
}

static double value_of(const struct prom *p, const char *name, const char *label, struct str value)
{
        for (size_t i = 0; i < p->n; i++)
                if (str_eqz(p->v[i].name, name) && (!label || str_eq(prom_label(&p->v[i], label), value)))
                        return p->v[i].value;
        return NAN;
}

static const char *number(struct arena *a, double v, const char *fmt)
{
        return isfinite(v) ? arena_printf(a, strcmp(fmt, "s") == 0 ? "%.2f" : "%.0f", v) : "";
}

static void process_row(struct arena *a, struct table *t, const char *name, const char *type, const char *state, const double v[4])
{
        const char *cells[] = {name, type, state, isfinite(v[0]) ? ui_bytes(a, (int64_t)v[0]) : "", number(a, v[1], "s"), number(a, v[2], ""),
                               number(a, v[3], "")};
        table_add(t, cells);
}

static void print_processes(struct arena *a, const struct prom *p)
{
        static const char *const header[] = {"PROCESS", "TYPE", "STATE", "MEMORY", "CPU S", "FDS", "RESTARTS"};
        struct table t;
        table_init(&t, header, sizeof(header) / sizeof(*header));
        process_row(a, &t, "daprd", "", "", (const double[]){value_of(p, "process_resident_memory_bytes", NULL, STR_NULL),
                                                             value_of(p, "process_cpu_seconds_total", NULL, STR_NULL),
                                                             value_of(p, "process_open_fds", NULL, STR_NULL), NAN});
        for (size_t i = 0; i < p->n; i++) {
                const struct prom_series *x = &p->v[i];
                struct str c = prom_label(x, "component");
                if (!str_eqz(x->name, "microdapr_plugin_state"))
                        continue;
                process_row(a, &t, arena_strdup(a, c), arena_strdup(a, prom_label(x, "type")), arena_strdup(a, prom_label(x, "state")),
                            (const double[]){value_of(p, "microdapr_plugin_resident_memory_bytes", "component", c),
                                             value_of(p, "microdapr_plugin_cpu_seconds_total", "component", c),
                                             value_of(p, "microdapr_plugin_open_fds", "component", c),
                                             value_of(p, "microdapr_plugin_restarts_total", "component", c)});
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static void print_tables(struct view *v, const struct prom *p)
{
        static const struct source api[] = {
                {"dapr_http_server_request_count", "dapr_http_server_latency", "=http", "path", "method", "status", "1", 1},
                {"dapr_grpc_io_server_completed_rpcs", "dapr_grpc_io_server_server_latency", "=grpc", "grpc_server_method", NULL,
                 "grpc_server_status", "OK", 1}};
        static const struct source app[] = {
                {"dapr_http_client_completed_count", "dapr_http_client_roundtrip_latency", "=http", "path", "method", "status", "1", 1},
                {"dapr_grpc_io_client_completed_rpcs", "dapr_grpc_io_client_roundtrip_latency", "=grpc", "grpc_client_method", NULL,
                 "grpc_client_status", "OK", 1}};
        static const struct source plugins[] = {{NULL, "microdapr_plugin_call_duration_seconds", "component", "method", NULL, NULL, "", 1000}};
        static const struct source pubsub[] = {
                {"dapr_component_pubsub_egress_count", "dapr_component_pubsub_egress_latencies", "component", "topic", NULL, "success", "true", 1},
                {"dapr_component_pubsub_ingress_count", "dapr_component_pubsub_ingress_latencies", "component", "topic", "process_status",
                 "process_status", "success", 1}};
        const struct { const char *title; const struct source *v; size_t n; double unit_ms; } tables[] = {
                {"API", api, 2, 1}, {"APP", app, 2, 1}, {"COMPONENT", plugins, 1, 1000}, {"PUBSUB", pubsub, 2, 1}};
        for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
                struct rows *all = arena_zalloc(v->a, sizeof(*all));
                for (size_t k = 0; all && k < tables[i].n; k++)
                        add_up(v->a, p, &tables[i].v[k], all);
                if (all)
                        print_rows(v, tables[i].title, all, tables[i].unit_ms);
        }
        print_processes(v->a, p);
}

/* ---- JSON ---- */

static void json_number_or_null(struct json_writer *w, const char *key, double v)
{
        json_key(w, str_of(key));
        if (isfinite(v))
                json_double(w, v);
        else
                json_null(w);
}

static void print_json(const struct metrics_opts *o, const struct prom *p)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < p->n; i++) {
                const struct prom_series *x = &p->v[i];
                if (*o->filter && str_find(x->name, str_of(o->filter)) < 0)
                        continue;
                json_object_begin(&w);
                json_kv(&w, "name", x->name);
                json_key(&w, STR("labels"));
                json_object_begin(&w);
                for (size_t k = 0; k < x->n_labels; k++) {
                        json_key(&w, x->labels[k].key);
                        json_string(&w, x->labels[k].value);
                }
                json_object_end(&w);
                json_number_or_null(&w, x->is_histogram ? "sum" : "value", x->value);
                if (x->is_histogram) {
                        json_number_or_null(&w, "count", x->count);
                        json_number_or_null(&w, "p50", prom_quantile(x->le, x->below, x->n_buckets, x->count, 0.5));
                        json_number_or_null(&w, "p99", prom_quantile(x->le, x->below, x->n_buckets, x->count, 0.99));
                }
                json_object_end(&w);
        }
        json_array_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

/* ---- the command ---- */

static int look(struct arena *a, const struct sidecar *s, struct prom *p)
{
        struct str body;
        int r = live_ask(a, s, "GET", "/v1/metrics", ASK_TIMEOUT_S, &body);
        if (!r && prom_read(a, body, p)) {
                ui_say(UI_FAILURE, "the sidecar of %s answers something that this version does not understand", s->app_id);
                r = 1;
        }
        return r;
}

static int watch(const struct metrics_opts *o, const struct sidecar *s)
{
        struct map before = {0};
        double at = 0;
        int code = 0;
        while (code == 0 && sidecar_runs(s)) {
                struct arena a;
                struct prom p;
                arena_init(&a, 0);
                code = look(&a, s, &p);
                if (!code) {
                        double now = loop_now_exact();
                        struct view v = {&a, &before, at ? now - at : 0};
                        at = now;
                        if (ui_color(fileno(stdout)))
                                printf("\033[H\033[2J");
                        print_tables(&v, &p);
                        code = fflush(stdout) != 0;
                }
                arena_fini(&a);
                if (fiber_sleep((double)o->interval_ns / 1e9))
                        break;
        }
        for (struct map_entry *e = NULL; (e = map_next(&before, e));)
                free(e->value);
        map_fini(&before);
        return code && !sidecar_runs(s) ? 0 : code;
}

static int show(struct arena *a, const struct metrics_opts *o, const struct sidecar *s)
{
        struct view v = {.a = a};
        struct prom p;
        if (look(a, s, &p))
                return 1;
        if (ui_is_json(o->output))
                print_json(o, &p);
        else
                print_tables(&v, &p);
        return 0;
}

int metrics_run(void *opts, int argc, char **argv)
{
        struct metrics_opts *o = opts;
        struct arena a;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || !*o->app_id || o->interval_ns < 100000000 || (o->watch && ui_is_json(o->output))) {
                ui_say(UI_FAILURE, "%s", argc || !*o->app_id ? "Say which app: dapr metrics --app-id myapp"
                                         : o->interval_ns < 100000000 ? "--interval must be at least 100ms"
                                                                      : "--watch shows tables: leave -o json out");
                return 1;
        }
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        int code = !s ? 1 : o->watch ? watch(o, s) : show(&a, o, s);
        arena_fini(&a);
        return code;
}
