/* semver.h */
#include "sdk/base/semver.h"
#include "tests/unit/on_loop.h"

static struct str s_(const char *z)
{
        return str_of(z);
}

START_TEST(versions_are_told_from_other_texts)
{
        static const char *const good[] = {"0.0.0", "1.2.3", "v1.2.3", "1.0.0-rc.1", "1.0.0-alpha+build.5", "10.20.300", "1.0.0-0a"};
        static const char *const bad[] = {"", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.2.3-", "1.2.3-01", "1.2.3+", "a.b.c", "1.2.3 ",
                                          "-1.2.3", "1..3", "1.2.9999999999", "1.2.3-a..b", "1.2.3-\xc3\xa4"};
        for (size_t i = 0; i < sizeof good / sizeof *good; i++)
                ck_assert_msg(semver_is_valid(s_(good[i])), "%s", good[i]);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                ck_assert_msg(!semver_is_valid(s_(bad[i])), "%s", bad[i]);
}
END_TEST

START_TEST(the_order_is_that_of_the_specification)
{
        static const char *const up[] = {"nonsense", "0.9.9", "1.0.0-1", "1.0.0-2", "1.0.0-11", "1.0.0-alpha", "1.0.0-alpha.1",
                                         "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
                                         "1.0.1", "1.2.0", "1.10.0", "2.0.0"};
        size_t n = sizeof up / sizeof *up;
        for (size_t i = 0; i < n; i++)
                for (size_t k = 0; k < n; k++) {
                        int c = semver_compare(s_(up[i]), s_(up[k]));
                        ck_assert_msg(i < k ? c < 0 : i > k ? c > 0 : c == 0, "%s %s %d", up[i], up[k], c);
                }
        ck_assert_int_eq(semver_compare(STR("1.0.0+a"), STR("v1.0.0+b")), 0);
}
END_TEST

START_TEST(constraints_hold_or_do_not)
{
        static const struct { const char *range, *yes, *no; } rows[] = {
                {"1.2.3", "1.2.3", "1.2.4"}, {"1.2", "1.2.9", "1.3.0"}, {"1.x", "1.9.0", "2.0.0"}, {"1", "1.0.0", "2.0.0"}, {"*", "7.0.0", "x"},
                {"", "1.0.0", "1.0.0-rc.1"}, {"^1.2", "1.9.0", "2.0.0"}, {"^1.2.3", "1.2.3", "1.2.2"}, {"^0.2.3", "0.2.9", "0.3.0"},
                {"^0.0.3", "0.0.3", "0.0.4"}, {"^0", "0.9.0", "1.0.0"}, {"~1.2", "1.2.7", "1.3.0"}, {"~1", "1.9.0", "2.0.0"},
                {">=1.0 <2", "1.5.0", "2.0.0"}, {">= 1.0, < 2", "1.0.0", "0.9.0"}, {">1.2", "1.3.0", "1.2.5"}, {"<=1.2", "1.2.5", "1.3.0"},
                {"!=1.2.3", "1.2.4", "1.2.3"}, {"=1.0.0-rc.1", "1.0.0-rc.1", "1.0.0"}, {">=1.0.0-a", "1.0.0-b", "0.9.0"}, {"v1.2.3", "1.2.3", "1.2.4"},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                ck_assert_msg(semver_is_range(s_(rows[i].range)), "%s", rows[i].range);
                ck_assert_msg(semver_matches(s_(rows[i].yes), s_(rows[i].range)), "%s takes %s", rows[i].range, rows[i].yes);
                ck_assert_msg(!semver_matches(s_(rows[i].no), s_(rows[i].range)), "%s does not take %s", rows[i].range, rows[i].no);
        }
        static const char *const bad[] = {"latest", ">", "1.2.3.4", "1.x.2", ">=a", "1 ||", "^"};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                ck_assert_msg(!semver_is_range(s_(bad[i])), "%s", bad[i]);
                ck_assert_msg(!semver_matches(STR("1.2.3"), s_(bad[i])), "%s", bad[i]);
        }
}
END_TEST

int main(void)
{
        Suite *s = suite_create("semver");
        TCase *t = tcase_create("semver");
        tcase_add_test(t, versions_are_told_from_other_texts);
        tcase_add_test(t, the_order_is_that_of_the_specification);
        tcase_add_test(t, constraints_hold_or_do_not);
        suite_add_tcase(s, t);
        return run_suite(s);
}
