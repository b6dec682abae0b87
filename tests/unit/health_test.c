/* kernel/observe/health.h, and the texts of durations. */
#include "kernel/observe/health.h"
#include "kernel/runtime.h"
#include "tests/unit/on_loop.h"

static void ck_unready(const struct health *h, enum health_scope scope, const char *want)
{
        struct buf b = {0};
        bool ready = health_check(h, scope, &b);

        buf_addc(&b, '\0');
        ck_assert_str_eq(b.p, want);
        ck_assert_int_eq(ready, want[0] == '\0');
        ck_assert_int_eq(health_check(h, scope, NULL), ready);
        buf_fini(&b);
}

START_TEST(nothing_is_ready_without_targets)
{
        struct health h = {0};

        ck_assert(!health_check(&h, HEALTH_ALL, NULL));
        health_add(&h, "app", HEALTH_OUTBOUND);
        ck_assert(!health_check(&h, HEALTH_ALL, NULL));
}
END_TEST

START_TEST(unready_targets_are_named)
{
        struct health h = {0};
        int a = health_add(&h, "runtime", HEALTH_ALL), b = health_add(&h, "grpc-api-server", HEALTH_ALL);

        ck_unready(&h, HEALTH_ALL, "runtime grpc-api-server");
        health_set(&h, a, true);
        ck_unready(&h, HEALTH_ALL, "grpc-api-server");
        health_set(&h, b, true);
        ck_unready(&h, HEALTH_ALL, "");
        health_set(&h, a, false);
        ck_unready(&h, HEALTH_ALL, "runtime");
}
END_TEST

START_TEST(outbound_looks_at_its_own_targets)
{
        struct health h = {0};
        int all = health_add(&h, "runtime", HEALTH_ALL), out = health_add(&h, "app", HEALTH_OUTBOUND);

        health_set(&h, out, true);
        ck_assert(health_check(&h, HEALTH_OUTBOUND, NULL));
        ck_assert(!health_check(&h, HEALTH_ALL, NULL));
        health_set(&h, out, false);
        health_set(&h, all, true);
        ck_unready(&h, HEALTH_OUTBOUND, "app");
        ck_assert(health_check(&h, HEALTH_ALL, NULL));
}
END_TEST

START_TEST(durations_read_as_go_prints_them)
{
        static const struct {
                int64_t ns;
                const char *want;
        } cases[] = {{0, "0s"},
                     {1, "1ns"},
                     {1500, "1.5µs"},
                     {500000000, "500ms"},
                     {1000000000, "1s"},
                     {1500000000, "1.5s"},
                     {5000000000, "5s"},
                     {180000000000, "3m0s"},
                     {3600000000000, "1h0m0s"},
                     {3661500000000, "1h1m1.5s"}};
        char text[40];

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                duration_text(text, cases[i].ns);
                ck_assert_str_eq(text, cases[i].want);
        }
}
END_TEST

int main(void)
{
        Suite *s = suite_create("health");
        TCase *t = tcase_create("health");

        tcase_add_test(t, nothing_is_ready_without_targets);
        tcase_add_test(t, unready_targets_are_named);
        tcase_add_test(t, outbound_looks_at_its_own_targets);
        tcase_add_test(t, durations_read_as_go_prints_them);
        suite_add_tcase(s, t);
        return run_suite(s);
}
