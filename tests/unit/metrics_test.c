/* kernel/observe: metrics.h, http_path.h, observe.h */
#include <math.h>
#include <stdio.h>

#include "kernel/observe/http_path.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

static struct metrics *m;
static struct arena arena;

static void setup(void)
{
        log_set_level(LOG_ERROR);
        arena_init(&arena, 0);
        ck_assert_int_eq(metrics_new(&m), 0);
}

static void teardown(void)
{
        metrics_free(m);
        arena_fini(&arena);
}

static const char *text(void)
{
        static struct buf b;

        buf_clear(&b);
        ck_assert_int_eq(metrics_write(m, &b), 0);
        buf_addc(&b, '\0');
        return b.p;
}

#define ck_has(line) ck_assert_msg(strstr(text(), line "\n"), "no line %s in:\n%s", line, text())
#define ck_hasnt(part) ck_assert_msg(!strstr(text(), part), "%s in:\n%s", part, text())

START_TEST(families_are_sorted_and_empty_ones_left_out)
{
        struct metric *b = metric_add(m, &(struct metric_def){"b_total", "B.", METRIC_COUNTER, "x,y", NULL});
        struct metric *a = metric_add(m, &(struct metric_def){"a", "A.", METRIC_GAUGE, NULL, NULL});

        metric_add(m, &(struct metric_def){"c", "C.", METRIC_GAUGE, NULL, NULL});
        metric_inc(metric_series_get(b, (struct str[]){STR("1"), STR("")}), 2);
        metric_inc(metric_series_get(b, (struct str[]){STR("1"), STR("")}), 1);
        metric_set(metric_series_get(a, NULL), -1.5);
        ck_assert_str_eq(text(), "# HELP a A.\n# TYPE a gauge\na -1.5\n# HELP b_total B.\n# TYPE b_total counter\nb_total{x=\"1\",y=\"\"} 3\n");
}
END_TEST

START_TEST(label_values_are_escaped_and_kept_apart)
{
        struct metric *x = metric_add(m, &(struct metric_def){"x", "X.", METRIC_COUNTER, "a,b", NULL});

        metric_inc(metric_series_get(x, (struct str[]){STR("q\"\\\n"), STR("c")}), 1);
        metric_inc(metric_series_get(x, (struct str[]){STR("ab"), STR("c")}), 1);
        metric_inc(metric_series_get(x, (struct str[]){STR("a"), STR("bc")}), 1);
        ck_has("x{a=\"q\\\"\\\\\\n\",b=\"c\"} 1");
        metric_inc(metric_series_get(x, (struct str[]){str_n("n\0l", 3), STR("")}), 1);
        ck_has("x{a=\"n?l\",b=\"\"} 1");
        ck_has("x{a=\"ab\",b=\"c\"} 1");
        ck_has("x{a=\"a\",b=\"bc\"} 1");
}
END_TEST

START_TEST(histogram_buckets_add_up)
{
        static const double bounds[] = {1, 5, 1e6, INFINITY};
        struct metric *x = metric_add(m, &(struct metric_def){"h", "H.", METRIC_HISTOGRAM, NULL, bounds});
        struct metric_series *s = metric_series_get(x, NULL);

        metric_observe(s, 0.5);
        metric_observe(s, 1);
        metric_observe(s, 3);
        metric_observe(s, 2e6);
        ck_has("h_bucket{le=\"1\"} 2");
        ck_has("h_bucket{le=\"5\"} 3");
        ck_has("h_bucket{le=\"1e+06\"} 3");
        ck_has("h_bucket{le=\"+Inf\"} 4");
        ck_has("h_sum 2.0000045e+06");
        ck_has("h_count 4");
}
END_TEST

START_TEST(numbers_are_written_as_prometheus_clients_do)
{
        static const struct {
                double v;
                const char *want;
        } cases[] = {{0, "0"},        {1, "1"},          {-3, "-3"},          {100000, "100000"},   {1e6, "1e+06"},
                     {1048576, "1.048576e+06"}, {0.1, "0.1"}, {0.0001, "0.0001"}, {0.00001, "1e-05"}, {1.5e300, "1.5e+300"},
                     {124268544, "1.24268544e+08"}, {18446744073709551615.0, "1.8446744073709552e+19"}, {INFINITY, "+Inf"}, {-INFINITY, "-Inf"},
                     {NAN, "NaN"}, {1795448999.62, "1.79544899962e+09"}, {123.456, "123.456"}};
        char to[32];

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                metric_number(to, cases[i].v);
                ck_assert_str_eq(to, cases[i].want);
        }
}
END_TEST

static struct metric_series *numbered(struct metric *x, int i)
{
        char value[16];

        return metric_series_get(x, &(struct str){value, (size_t)snprintf(value, sizeof value, "%d", i)});
}

START_TEST(series_are_bounded)
{
        static const char *const names[METRIC_SHARE + 1] = {"a", "b", "c", "d", "e"};
        struct metric *x[METRIC_SHARE + 1];

        for (int k = 0; k <= METRIC_SHARE; k++)
                x[k] = metric_add(m, &(struct metric_def){names[k], "X.", METRIC_COUNTER, "a", NULL});
        for (int k = 0; k < METRIC_SHARE; k++) { /* one metric takes no other's room */
                for (int i = 0; i < METRIC_SERIES_MAX / METRIC_SHARE; i++)
                        ck_assert_ptr_nonnull(numbered(x[k], i));
                ck_assert_ptr_null(metric_series_get(x[k], &STR("one more")));
                ck_assert_ptr_nonnull(numbered(x[k], 7)); /* what is there is still found */
        }
        ck_assert_ptr_null(metric_series_get(x[METRIC_SHARE], &STR("one more")));
        metric_inc(NULL, 1);
        metric_set(NULL, 1);
        metric_observe(NULL, 1);
        metric_series_drop_all(x[0]);
        ck_assert_ptr_nonnull(metric_series_get(x[METRIC_SHARE], &STR("one more")));
        ck_assert_ptr_nonnull(metric_series_get(x[0], &STR("one more")));
}
END_TEST

/* Label values of a client's choice, 64 KiB each. */
START_TEST(series_are_bounded_in_bytes)
{
        static char value[64 * 1024];
        static const char *const names[METRIC_SHARE] = {"a", "b", "c", "d"};
        struct metric *x[METRIC_SHARE];

        memset(value, 'v', sizeof value);
        for (int k = 0; k < METRIC_SHARE; k++) {
                int n = 0;
                x[k] = metric_add(m, &(struct metric_def){names[k], "X.", k ? METRIC_COUNTER : METRIC_HISTOGRAM, "a", NULL});
                for (int i = 0; i < 1000; i++) {
                        snprintf(value, sizeof value, "%d/", i);
                        n += !!metric_series_get(x[k], &(struct str){value, sizeof value});
                }
                ck_assert_int_eq(n, METRIC_BYTES_MAX / METRIC_SHARE / (int)sizeof value - 1);
        }
        ck_assert_uint_le(metrics_bytes(m), METRIC_BYTES_MAX);
        ck_assert_uint_gt(metrics_bytes(m), METRIC_BYTES_MAX / 10 * 9);
        for (int k = 0; k < METRIC_SHARE; k++)
                metric_series_drop_all(x[k]);
        ck_assert_uint_eq(metrics_bytes(m), 0);
        ck_assert_ptr_nonnull(metric_series_get(x[0], &(struct str){value, sizeof value}));
}
END_TEST

static void on_scrape(void *arg)
{
        metric_inc(arg, 1);
}

START_TEST(scrape_callbacks_run_before_each_text)
{
        struct metric *x = metric_add(m, &(struct metric_def){"x", "X.", METRIC_COUNTER, NULL, NULL});

        metrics_on_scrape(m, on_scrape, metric_series_get(x, NULL));
        text();
        ck_has("x 2");
}
END_TEST

/* The text, written in portions. Returns how many these were. */
static size_t portions(struct buf *all)
{
        struct metrics_at at = {0};
        struct buf b = {0};
        size_t n = 0;
        int more;

        do {
                more = metrics_write_some(m, &at, &b);
                ck_assert_int_ge(more, 0);
                ck_assert_uint_gt(buf_len(&b), 0);
                ck_assert_uint_lt(b.cap, 4 * METRICS_PORTION_BYTES);
                buf_adds(all, buf_str(&b));
                buf_clear(&b);
                n++;
        } while (more);
        buf_fini(&b);
        return n;
}

START_TEST(portions_are_the_whole_text)
{
        struct metric *h = metric_add(m, &(struct metric_def){"h", "H.", METRIC_HISTOGRAM, "a", NULL});
        struct metric *g = metric_add(m, &(struct metric_def){"i", "I.", METRIC_GAUGE, "a", NULL});
        struct buf all = {0};
        char name[16];

        metric_set(metric_series_get(g, &STR("v")), 1);
        ck_assert_uint_eq(portions(&all), 1);
        for (int i = 0; i < 500; i++) {
                snprintf(name, sizeof name, "v%d", i);
                metric_observe(metric_series_get(h, &(struct str){name, strlen(name)}), i);
        }
        buf_clear(&all);
        ck_assert_uint_gt(portions(&all), 5);
        buf_addc(&all, '\0');
        ck_assert_str_eq(all.p, text());
        buf_fini(&all);
}
END_TEST

static bool fill(void *arg)
{
        struct metrics *x;
        struct metric *h;
        struct buf b = {0};

        if (metrics_new(&x))
                return true;
        h = metric_add(x, &(struct metric_def){"h", "H.", METRIC_HISTOGRAM, "a", NULL});
        metric_observe(metric_series_get(h, &STR("v")), 1);
        metrics_write(x, &b);
        buf_fini(&b);
        metrics_free(x);
        return true;
}

START_TEST(a_failed_allocation_only_loses_counts)
{
        ck_assert_int_gt(fault_each(fill, NULL), 4);
}
END_TEST

/* ---- paths ---- */

static struct str label(const char *const *patterns, size_t n, bool increased, const char *path)
{
        struct http_paths p;
        struct str s;

        ck_assert_int_eq(http_paths_init(&p, patterns, n, increased), 0);
        s = arena_str(&arena, http_path_label(&p, &arena, str_of(path)));
        http_paths_fini(&p);
        return s;
}

START_TEST(high_cardinality_paths_lose_their_ids)
{
        static const char *const cases[][2] = {
                {"/v1.0/state/store/key", "/v1.0/state/store"},
                {"/v1.0/state/store", "/v1.0/state/store"},
                {"//v1.0//state/store/key/x", "/v1.0/state/store"},
                {"/v1.0/secrets/vault/name", "/v1.0/secrets/vault"},
                {"/v1.0/actors/type/id/method/m", "/v1.0/actors/type/{id}/method"},
                {"/v1.0/actors/type/id", "/v1.0/actors/type/id"},
                {"/actors/type/id/method/m", "actors/type/{id}/method/m"},
                {"/v1.0/workflows/dapr/id", "/v1.0/workflows/dapr/{instanceId}"},
                {"/v1.0/workflows/dapr/name/start", "/v1.0/workflows/dapr/name/start"},
                {"/v1.0/workflows/dapr/id/pause", "/v1.0/workflows/dapr/{instanceId}/pause"},
                {"/v1.0/workflows/dapr/id/raiseEvent/e", "/v1.0/workflows/dapr/{instanceId}/raiseEvent/{eventName}"},
                {"/v1.0/invoke/app/method/a/b", "/v1.0/invoke/app/method/a/b"},
                {"/v1.0/metadata", "/v1.0/metadata"},
                {"foo", "/foo"},
                {"/", "/"},
                {"", ""},
        };

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct str got = label(NULL, 0, true, cases[i][0]);
                ck_assert_msg(str_eqz(got, cases[i][1]), "%s: %.*s", cases[i][0], STR_FMT(got));
                ck_assert_uint_eq(label(NULL, 0, false, cases[i][0]).n, 0);
        }
}
END_TEST

START_TEST(low_cardinality_keeps_what_daprd_asks_the_app_for)
{
        struct http_paths p;

        ck_assert_int_eq(http_paths_init(&p, NULL, 0, false), 0);
        ck_assert(str_eqz(http_path_label_client(&p, &arena, STR("/dapr/config")), "/dapr/config"));
        ck_assert(str_eqz(http_path_label_client(&p, &arena, STR("/dapr/subscribe")), ""));
        ck_assert(str_eqz(http_path_label_client(&p, &arena, STR("/orders")), ""));
        ck_assert(str_eqz(http_path_label(&p, &arena, STR("/dapr/config")), ""));
        http_paths_fini(&p);
}
END_TEST

START_TEST(configured_patterns_replace_paths)
{
        static const char *const patterns[] = {"/orders/{id}", "/orders/all", "/items/{id}/parts/", "/v1.0/state/mystore"};
        static const char *const cases[][3] = { /* path, label with low cardinality, with high cardinality */
                {"/orders/17", "/orders/{id}", "/orders/{id}"},
                {"/orders/all", "/orders/all", "/orders/all"},
                {"/orders/17/x", "", "/orders/17/x"},
                {"/items/1/parts/2/3", "/items/{id}/parts/", "/items/{id}/parts/"},
                {"/v1.0/invoke/app/method/orders/17", "/v1.0/invoke/{app_id}/method/orders/{id}", "/v1.0/invoke/{app_id}/method/orders/{id}"},
                {"/v1.0/state/mystore/key", "/v1.0/state/mystore", "/v1.0/state/mystore"},
                {"/v1.0/state/other/key", "", "/v1.0/state/other"},
                {"/healthz", "/healthz", "/healthz"},
                {"/unknown", "", "/unknown"},
        };

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct str low = label(patterns, 4, false, cases[i][0]), high = label(patterns, 4, true, cases[i][0]);
                ck_assert_msg(str_eqz(low, cases[i][1]), "%s low: %.*s", cases[i][0], STR_FMT(low));
                ck_assert_msg(str_eqz(high, cases[i][2]), "%s high: %.*s", cases[i][0], STR_FMT(high));
        }
}
END_TEST

/* ---- observe ---- */

static struct observe *made(struct observe_conf conf)
{
        struct observe *o;

        conf.app_id = "myapp";
        conf.namespace_ = "ns";
        ck_assert_int_eq(observe_new(&o, m, &conf), 0);
        return o;
}

static void serve(struct observe *o, const char *method, const char *path, int status)
{
        observe_http_server(o, &arena, &(struct observe_http){str_of(method), str_of(path), status, -1, 10, 0.5});
}

/* Rules make one series of all these paths. */
static struct str one(void *arg, const char *metric, struct str label, struct str value, struct arena *a)
{
        return str_eqz(label, "path") ? STR("/one") : value;
}

START_TEST(what_is_cached_of_events_has_a_limit)
{
        struct observe *o = made((struct observe_conf){.enabled = true, .increased_cardinality = true});
        char path[64];

        metrics_set_rewrite(m, one, NULL);
        for (int i = 0; i < OBSERVE_CACHED_MAX + 100; i++) {
                snprintf(path, sizeof path, "/v1.0/invoke/app/method/m%d", i);
                serve(o, "GET", path, 200);
        }
        ck_assert_uint_eq(observe_cached(o), OBSERVE_CACHED_MAX);
        snprintf(path, sizeof path, "%d", OBSERVE_CACHED_MAX + 100);
        ck_assert_msg(strstr(text(), path), "not all were counted:\n%s", text());
        observe_free(o);
}
END_TEST

START_TEST(requests_are_counted_by_route_method_and_status)
{
        struct observe *o = made((struct observe_conf){.enabled = true, .increased_cardinality = true});

        serve(o, "GET", "/v1.0/state/mystore/a", 200);
        serve(o, "GET", "/v1.0/state/mystore/b", 200);
        serve(o, "BREW", "/x", 404);
        ck_has("dapr_http_server_request_count{app_id=\"myapp\",method=\"GET\",path=\"/v1.0/state/mystore\",status=\"200\"} 2");
        ck_has("dapr_http_server_response_count{app_id=\"myapp\",method=\"GET\",path=\"/v1.0/state/mystore\",status=\"200\"} 2");
        ck_has("dapr_http_server_latency_bucket{app_id=\"myapp\",method=\"GET\",path=\"/v1.0/state/mystore\",status=\"200\",le=\"1\"} 2");
        ck_has("dapr_http_server_request_count{app_id=\"myapp\",method=\"UNKNOWN\",path=\"/x\",status=\"404\"} 1");
        ck_has("dapr_http_server_response_bytes_sum{app_id=\"myapp\"} 30");
        observe_free(o);
}
END_TEST

START_TEST(low_cardinality_has_no_path_and_no_response_count)
{
        struct observe *o = made((struct observe_conf){.enabled = true, .exclude_verbs = true});

        serve(o, "GET", "/v1.0/state/mystore/a", 200);
        ck_has("dapr_http_server_request_count{app_id=\"myapp\",method=\"\",path=\"\",status=\"200\"} 1");
        ck_hasnt("response_count");
        observe_free(o);
}
END_TEST

START_TEST(components_calls_and_codes_are_counted)
{
        static const double buckets[] = {10, 100};
        struct observe *o = made((struct observe_conf){.enabled = true, .record_error_codes = true, .latency_buckets = buckets,
                                                       .n_latency_buckets = 2});

        observe_component(o, OBSERVE_STATE, STR("mystore"), "get", true, 50);
        observe_component(o, OBSERVE_STATE, STR("mystore"), "get", false, 5);
        observe_grpc_server(o, "/dapr.proto.runtime.v1.Dapr/GetState", 5, true, 100, 0, 1);
        observe_error_code(o, "ERR_STATE_GET", "state");
        observe_error_code(o, "ERROR", ""); /* untyped: has no category */
        observe_component_loaded(o);
        observe_component_init(o, "state.in-memory");
        observe_component_init_failed(o, "state.x", "creation", "mine");
        ck_has("dapr_component_state_count{app_id=\"myapp\",component=\"mystore\",namespace=\"ns\",operation=\"get\",success=\"true\"} 1");
        ck_has("dapr_component_state_latencies_bucket{app_id=\"myapp\",component=\"mystore\",namespace=\"ns\",operation=\"get\",success=\"true\",le=\"10\"} 0");
        ck_has("dapr_component_state_latencies_bucket{app_id=\"myapp\",component=\"mystore\",namespace=\"ns\",operation=\"get\",success=\"true\",le=\"100\"} 1");
        ck_has("dapr_grpc_io_server_completed_rpcs{app_id=\"myapp\",grpc_server_method=\"/dapr.proto.runtime.v1.Dapr/GetState\",grpc_server_status=\"NotFound\"} 1");
        ck_has("dapr_grpc_io_server_received_bytes_per_rpc_sum{app_id=\"myapp\",grpc_server_method=\"/dapr.proto.runtime.v1.Dapr/GetState\"} 100");
        ck_has("dapr_error_code_total{app_id=\"myapp\",category=\"state\",error_code=\"ERR_STATE_GET\"} 1");
        ck_hasnt("error_code=\"ERROR\"");
        ck_has("dapr_runtime_component_loaded{app_id=\"myapp\"} 1");
        ck_has("dapr_runtime_component_init_total{app_id=\"myapp\",component=\"state.in-memory\"} 1");
        ck_has("dapr_runtime_component_init_fail_total{app_id=\"myapp\",component=\"state.x\",componentName=\"mine\",reason=\"creation\"} 1");
        observe_free(o);
}
END_TEST

START_TEST(switched_off_only_the_process_is_measured)
{
        struct observe *o = made((struct observe_conf){.enabled = false});

        serve(o, "GET", "/x", 200);
        observe_component_loaded(o);
        observe_component(o, OBSERVE_SECRET, STR("s"), "get", true, 1);
        ck_hasnt("HELP dapr_");
        ck_assert_ptr_nonnull(strstr(text(), "process_resident_memory_bytes "));
        ck_assert_ptr_nonnull(strstr(text(), "process_open_fds "));
        ck_assert_ptr_nonnull(strstr(text(), "process_start_time_seconds 1."));
        observe_http_server(NULL, &arena, NULL);
        observe_free(o);
        observe_free(NULL);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("metrics");
        TCase *t = tcase_create("metrics");

        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, families_are_sorted_and_empty_ones_left_out);
        tcase_add_test(t, label_values_are_escaped_and_kept_apart);
        tcase_add_test(t, histogram_buckets_add_up);
        tcase_add_test(t, numbers_are_written_as_prometheus_clients_do);
        tcase_add_test(t, series_are_bounded);
        tcase_add_test(t, series_are_bounded_in_bytes);
        tcase_add_test(t, scrape_callbacks_run_before_each_text);
        tcase_add_test(t, portions_are_the_whole_text);
        tcase_add_test(t, a_failed_allocation_only_loses_counts);
        tcase_add_test(t, high_cardinality_paths_lose_their_ids);
        tcase_add_test(t, low_cardinality_keeps_what_daprd_asks_the_app_for);
        tcase_add_test(t, configured_patterns_replace_paths);
        tcase_add_test(t, what_is_cached_of_events_has_a_limit);
        tcase_add_test(t, requests_are_counted_by_route_method_and_status);
        tcase_add_test(t, low_cardinality_has_no_path_and_no_response_count);
        tcase_add_test(t, components_calls_and_codes_are_counted);
        tcase_add_test(t, switched_off_only_the_process_is_measured);
        suite_add_tcase(s, t);
        return run_suite(s);
}
