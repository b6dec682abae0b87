/* kernel/observe/slow.h and ctl/prom.h: what daprctl trace and daprctl metrics are made of. */
#include <math.h>
#include <stdio.h>

#include "ctl/prom.h"
#include "kernel/observe/slow.h"
#include "sdk/base/json.h"
#include "tests/unit/on_loop.h"

static size_t count(struct str text, const char *what)
{
        size_t n = 0;

        for (ptrdiff_t i; (i = str_find(text, str_of(what))) >= 0; n++)
                text = str_skip(text, (size_t)i + 1);
        return n;
}

ON_LOOP_TEST(the_slowest_of_a_window_are_kept_and_sorted)
{
        struct slow *s;
        struct buf b = {0};
        struct trace t = {.component_ms = 1.5, .app_ms = 0.25};

        ck_assert_int_eq(slow_new(&s), 0);
        slow_note(NULL, NULL);
        for (int i = 0; i < 100; i++) {
                char name[300];
                snprintf(name, sizeof name, "/r%0200d", (i * 37) % 100);
                slow_note(s, &(struct slow_request){"http", STR("GET"), str_of(name), 200, (i * 37) % 100, &t});
        }
        slow_write(s, &b);
        ck_assert(json_valid(buf_str(&b)));
        ck_assert_uint_eq(count(buf_str(&b), "\"time\""), SLOW_KEPT);
        ck_assert_int_ge(str_find(buf_str(&b), STR("\"durationMs\":99,\"componentMs\":1.5,\"appMs\":0.25,\"protocol\":\"http\"")), 0);
        ck_assert_int_lt(str_find(buf_str(&b), STR("\"durationMs\":99")), str_find(buf_str(&b), STR("\"durationMs\":84")));
        ck_assert_int_lt(str_find(buf_str(&b), STR("\"durationMs\":83")), 0);
        buf_fini(&b);
        slow_free(s);
}

START_TEST(a_text_is_read_and_its_quantiles_are_between_the_bounds)
{
        static const char text[] = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"q\\\"\\n\",y=\"\"} 3\n"
                                   "# TYPE h histogram\nh_bucket{op=\"get\",le=\"1\"} 5\nh_bucket{op=\"get\",le=\"2\"} 10\nh_bucket{op=\"get\",le=\"+Inf\"} 10\n"
                                   "h_sum{op=\"get\"} 12.5\nh_count{op=\"get\"} 10\nh_bucket{op=\"set\",le=\"1\"} 0\nh_bucket{op=\"set\",le=\"+Inf\"} 1\n"
                                   "h_sum{op=\"set\"} 9\nh_count{op=\"set\"} 1\n# TYPE g gauge\ng +Inf\n";
        struct arena a;
        struct prom p;

        arena_init(&a, 0);
        ck_assert_int_eq(prom_read(&a, str_of(text), &p), 0);
        ck_assert_uint_eq(p.n, 4);
        ck_assert(str_eqz(prom_label(&p.v[0], "x"), "q\"\n"));
        ck_assert(p.v[0].value == 3 && !p.v[0].is_histogram);
        ck_assert(p.v[1].is_histogram && p.v[1].count == 10 && p.v[1].value == 12.5 && p.v[1].n_buckets == 3);
        ck_assert(prom_quantile(p.v[1].le, p.v[1].below, 3, 10, 0.5) == 1);
        ck_assert(prom_quantile(p.v[1].le, p.v[1].below, 3, 10, 0.75) == 1.5);
        ck_assert(prom_quantile(p.v[2].le, p.v[2].below, 2, 1, 0.5) == 1); /* above the last bound: that bound */
        ck_assert(isnan(prom_quantile(p.v[2].le, p.v[2].below, 0, 0, 0.5)));
        ck_assert(isinf(p.v[3].value));
        for (size_t n = 0; n < sizeof text; n++)
                prom_read(&a, str_n(text, n), &p);
        ck_assert_int_eq(prom_read(&a, STR("a{x=\"1} 2\n"), &p), -EBADMSG);
        ck_assert_int_eq(prom_read(&a, STR("a{} x\n"), &p), -EBADMSG);
        arena_fini(&a);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("observe_ctl");
        TCase *t = tcase_create("observe_ctl");

        tcase_add_test(t, the_slowest_of_a_window_are_kept_and_sorted);
        tcase_add_test(t, a_text_is_read_and_its_quantiles_are_between_the_bounds);
        suite_add_tcase(s, t);
        return run_suite(s);
}
