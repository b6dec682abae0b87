/*
 * `plugin top`: how the components of a sidecar fare right now. Two looks make a row: rates, shares and quantiles are of the time between
 * them, so the first table comes after one interval.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/prom.h"
#include "sdk/base/loop.h"

#define ASK_TIMEOUT_S 5.0
#define HISTOGRAM "microdapr_plugin_call_duration_seconds"

#define O(f) offsetof(struct plugin_top_opts, f)
static const struct flag_row top_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar is watched", .short_name = 'a'},
        {"interval", FLAG_DURATION, O(interval_ns), "2s", "TIME", "Time between two looks (at least 100ms)"},
        {"once", FLAG_BOOL, O(once), "false", NULL, "One table, of one interval, and no more"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json (one look, as --once), or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_top_opts),
};
#undef O
const struct flag_program plugin_top_program = {
        .name = "dapr plugin top", .summary = "Watch the components of a sidecar: calls, times, errors, CPU, memory",
        .usage = "dapr plugin top --app-id ID [flags]",
        .examples = "  # Until q\n  dapr plugin top --app-id myapp\n\n  # The last second, for scripts\n"
                    "  dapr plugin top --app-id myapp --interval 1s -o json\n",
        .rows = top_rows, .n_rows = sizeof(top_rows) / sizeof(*top_rows)};

struct sample { /* of one component */
        struct live live;
        double cpu_s, inflight, count, below[PROM_BUCKETS_MAX];
        const double *le;
        size_t n_le;
};
struct look {
        struct arena arena;
        double at;
        struct sample *v;
        size_t n;
};
struct rates {
        double calls, errors, p50_ms, p99_ms, cpu_percent; /* NAN = not known */
};

/* ---- looking ---- */

static double member_number(struct arena *a, struct str raw, const char *key)
{
        struct json_reader r;
        struct str name;
        double v = NAN;
        json_read_init(&r, raw);
        if (!json_enter_object(&r))
                return v;
        while (json_next_member(&r, a, &name))
                if (!str_eqz(name, key) || !json_read_double(&r, &v))
                        json_skip(&r);
        return v;
}

/* The methods of a component together. */
static void add_histograms(const struct prom *p, struct sample *s)
{
        for (size_t i = 0; i < p->n; i++) {
                const struct prom_series *x = &p->v[i];
                if (!str_eqz(x->name, HISTOGRAM) || !str_eqz(prom_label(x, "component"), s->live.name))
                        continue;
                s->count += x->count;
                s->le = x->le;
                s->n_le = x->n_buckets;
                for (size_t k = 0; k < x->n_buckets; k++)
                        s->below[k] += x->below[k];
        }
}

static int take(struct look *l, const struct sidecar *s)
{
        struct lives all = {0};
        struct prom p = {0};
        struct str text;
        arena_init(&l->arena, 0);
        l->at = loop_now_exact();
        if (live_list(&l->arena, s, &all) || live_ask(&l->arena, s, "GET", "/v1/metrics", ASK_TIMEOUT_S, &text))
                return 1;
        l->v = arena_zalloc(&l->arena, (all.n + 1) * sizeof *l->v);
        if (!l->v || prom_read(&l->arena, text, &p)) {
                ui_say(UI_FAILURE, "the sidecar of %s answers something that this version does not understand", s->app_id);
                return 1;
        }
        l->n = all.n;
        for (size_t i = 0; i < all.n; i++) {
                l->v[i].live = all.v[i];
                l->v[i].cpu_s = member_number(&l->arena, all.v[i].raw, "cpuSeconds");
                l->v[i].inflight = member_number(&l->arena, all.v[i].raw, "inflight");
                add_histograms(&p, &l->v[i]);
        }
        return 0;
}

static const struct sample *find(const struct look *l, const char *name)
{
        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->v[i].live.name, name) == 0)
                        return &l->v[i];
        return NULL;
}

static struct rates between(const struct look *was, const struct look *now, const struct sample *s)
{
        const struct sample *old = find(was, s->live.name);
        struct rates r = {NAN, NAN, NAN, NAN, NAN};
        double below[PROM_BUCKETS_MAX], count, seconds = now->at - was->at;
        if (!old || seconds <= 0)
                return r;
        r.calls = (double)(s->live.calls - old->live.calls) / seconds;
        r.errors = (double)(s->live.errors - old->live.errors) / seconds;
        if (s->live.pid == old->live.pid && s->live.pid > 0)
                r.cpu_percent = (s->cpu_s - old->cpu_s) / seconds * 100;
        count = s->count - old->count;
        for (size_t i = 0; i < s->n_le; i++)
                below[i] = s->below[i] - (i < old->n_le ? old->below[i] : 0);
        if (count > 0 && s->n_le) {
                r.p50_ms = prom_quantile(s->le, below, s->n_le, count, 0.5) * 1e3;
                r.p99_ms = prom_quantile(s->le, below, s->n_le, count, 0.99) * 1e3;
        }
        return r;
}

/* ---- showing ---- */

enum { COL_STATE = 2, COL_BACKEND = 11 };

static const char *cell_color(size_t col, const char *text)
{
        if (col == COL_BACKEND && strcmp(text, "unreachable") == 0)
                return "\033[31m";
        return col == COL_STATE ? live_color(text) : NULL;
}

static const char *cell(struct arena *a, double v, const char *fmt)
{
        return isfinite(v) ? fmt[0] == 'm' ? arena_printf(a, v < 1 ? "%.3f" : v < 100 ? "%.2f" : "%.0f", v)
                             : fmt[0] == 'n' ? arena_printf(a, "%.0f", v)
                                             : arena_printf(a, v < 10 ? "%.1f" : "%.0f", v)
                           : "-";
}

static void print_table(struct look *was, struct look *now)
{
        static const char *const header[] = {"NAME", "TYPE", "STATE", "CALLS/S", "ERRORS/S", "P50 MS", "P99 MS", "CPU %", "RSS", "IN FLIGHT", "RESTARTS",
                                             "BACKEND", "FAULT", "STUCK"};
        struct arena *a = &now->arena;
        struct table t;
        table_init(&t, header, sizeof(header) / sizeof(*header));
        t.color = cell_color;
        for (size_t i = 0; i < now->n; i++) {
                const struct sample *s = &now->v[i];
                struct rates r = between(was, now, s);
                const char *const cells[] = {s->live.name, s->live.type, s->live.state, cell(a, r.calls, "r"), cell(a, r.errors, "r"), cell(a, r.p50_ms, "m"),
                                             cell(a, r.p99_ms, "m"), cell(a, r.cpu_percent, "r"), s->live.rss_bytes > 0 ? ui_bytes(a, s->live.rss_bytes) : "-",
                                             cell(a, s->inflight, "n"), arena_printf(a, "%lld", (long long)s->live.restarts), s->live.backend, s->live.fault, s->live.stuck};
                table_add(&t, cells);
        }
        table_print(&t, stdout);
        table_fini(&t);
}

static void kv(struct json_writer *w, const char *key, double v)
{
        json_key(w, str_of(key));
        if (isfinite(v))
                json_double(w, v);
        else
                json_null(w);
}

static void print_json(struct look *was, struct look *now)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < now->n; i++) {
                const struct sample *s = &now->v[i];
                struct rates r = between(was, now, s);
                json_object_begin(&w);
                json_kv(&w, "name", str_of(s->live.name));
                json_kv(&w, "type", str_of(s->live.type));
                json_kv(&w, "state", str_of(s->live.state));
                json_kv(&w, "backend", str_of(s->live.backend));
                json_kv_nonempty(&w, "fault", str_of(s->live.fault));
                json_kv_nonempty(&w, "stuck", str_of(s->live.stuck));
                kv(&w, "callsPerSecond", r.calls);
                kv(&w, "errorsPerSecond", r.errors);
                kv(&w, "p50Ms", r.p50_ms);
                kv(&w, "p99Ms", r.p99_ms);
                kv(&w, "cpuPercent", r.cpu_percent);
                kv(&w, "rssBytes", (double)s->live.rss_bytes);
                kv(&w, "inflight", s->inflight);
                kv(&w, "restarts", (double)s->live.restarts);
                kv(&w, "calls", (double)s->live.calls);
                kv(&w, "errors", (double)s->live.errors);
                json_object_end(&w);
        }
        json_array_end(&w);
        ui_print_json(&b);
        buf_fini(&b);
}

/* ---- the terminal: keys without a return, lines cut at its edge; as it was at the end ---- */

static struct screen {
        struct io_watch keys;
        struct sig_watch signals[2];
        struct cond pressed;
        struct termios was;
        bool is_on, has_keys, quit;
} screen;

static void on_key(struct io_watch *w, int events)
{
        char c;
        if (read(STDIN_FILENO, &c, 1) != 1)
                io_watch_set(w, 0);
        else if (c == 'q' || c == 'Q')
                screen.quit = true;
        cond_broadcast(&screen.pressed);
}

static void on_end(struct sig_watch *w, int signo)
{
        screen.quit = true;
        cond_broadcast(&screen.pressed);
}

static void screen_open(void)
{
        struct termios raw;
        screen = (struct screen){.is_on = true};
        cond_init(&screen.pressed);
        sig_watch_start(&screen.signals[0], SIGINT, on_end);
        sig_watch_start(&screen.signals[1], SIGTERM, on_end);
        screen.has_keys = tcgetattr(STDIN_FILENO, &screen.was) == 0;
        if (screen.has_keys) {
                raw = screen.was;
                raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
                tcsetattr(STDIN_FILENO, TCSANOW, &raw);
                io_watch_init(&screen.keys, STDIN_FILENO, on_key);
                io_watch_set(&screen.keys, 1);
        }
        printf("\033[?7l");
}

static void screen_close(void)
{
        if (!screen.is_on)
                return;
        if (screen.has_keys) {
                io_watch_stop(&screen.keys);
                tcsetattr(STDIN_FILENO, TCSANOW, &screen.was);
        }
        sig_watch_stop(&screen.signals[0]);
        sig_watch_stop(&screen.signals[1]);
        printf("\033[?7h");
        fflush(stdout);
        screen.is_on = false;
}

/* Until the next look; false: that is enough. */
static bool rest(double seconds)
{
        double end = loop_now_exact() + seconds;
        if (!screen.is_on)
                return fiber_sleep(seconds) == 0;
        while (!screen.quit && loop_now_exact() < end) {
                int r = cond_wait_until(&screen.pressed, end);
                if (r == -ECANCELED)
                        return false;
        }
        return !screen.quit;
}

static int watch(const struct plugin_top_opts *o, const struct sidecar *s)
{
        struct look looks[2] = {0};
        bool json = ui_is_json(o->output), once = json || o->once, live = ui_color(fileno(stdout)) && !once;
        int code = take(&looks[0], s);
        if (live && !code)
                screen_open();
        for (int i = 1; !code && rest((double)o->interval_ns / 1e9); i ^= 1) {
                struct look *now = &looks[i], *was = &looks[i ^ 1];
                if (!once && !sidecar_runs(s))
                        break;
                arena_fini(&now->arena);
                *now = (struct look){0};
                code = take(now, s);
                if (code)
                        break;
                if (live)
                        printf("\033[H\033[2J%s, every %.3gs; q ends\n\n", s->app_id, (double)o->interval_ns / 1e9);
                json ? print_json(was, now) : print_table(was, now);
                if (!once && !live)
                        printf("\n");
                code = fflush(stdout) != 0;
                if (once)
                        break;
        }
        screen_close();
        arena_fini(&looks[0].arena);
        arena_fini(&looks[1].arena);
        return code && !once && !sidecar_runs(s) ? 0 : code;
}

int plugin_top_run(void *opts, int argc, char **argv)
{
        struct plugin_top_opts *o = opts;
        struct arena a;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || !*o->app_id || o->interval_ns < 100000000) {
                ui_say(UI_FAILURE, "%s", argc || !*o->app_id ? "Say which app: dapr plugin top --app-id myapp" : "--interval must be at least 100ms");
                return 1;
        }
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        int code = s ? watch(o, s) : 1;
        arena_fini(&a);
        return code;
}
