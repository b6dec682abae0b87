/* sdk/base/regex.h, kernel/policy/zone.h */
#include "sdk/base/regex.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "kernel/policy/zone.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

static const struct {
        const char *pattern, *text, *want;
} vectors[] = {
#include "tests/unit/regex_vectors.inc"
};

/* "true", "false", or the error. In a. */
static const char *match(struct arena *a, const char *pattern, struct str text)
{
        struct regex *re;
        const char *err = NULL;
        int r = regex_compile(&re, str_of(pattern), a, &err);
        if (r)
                return err;
        r = regex_match(re, text, a, NULL);
        return r == 1 ? "true" : r == 0 ? "false" : "error";
}

START_TEST(every_vector_does_what_the_reference_does)
{
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
                struct arena a = {0};
                const char *have = match(&a, vectors[i].pattern, str_of(vectors[i].text));
                ck_assert_msg(!strcmp(have, vectors[i].want), "%s on %s: wanted %s, got %s", vectors[i].pattern, vectors[i].text, vectors[i].want, have);
                arena_fini(&a);
        }
}
END_TEST

START_TEST(bytes_that_are_no_utf8_count_as_the_replacement_character)
{
        struct arena a = {0};
        ck_assert_str_eq(match(&a, "^a.b$", str_n("a\377b", 3)), "true");
        ck_assert_str_eq(match(&a, "^a\\x{fffd}b$", str_n("a\377b", 3)), "true");
        ck_assert_str_eq(match(&a, "^a..b$", str_n("a\303\303b", 4)), "true");
        ck_assert_str_eq(match(&a, "a\377", STR("a")), "invalid UTF-8: `a\377`");
        ck_assert_str_eq(match(&a, "a.b", str_n("a\0b", 3)), "true");
        arena_fini(&a);
}
END_TEST

static double seconds(void)
{
        struct timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

START_TEST(time_is_linear_in_the_text)
{
        static const char *const evil[] = {"(a*)*b", "(a+)+$b", "(a|aa)+b", "(a|a?)+b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)(.*)(.*)(.*)(.*)b", "a{0,100}a{100}b"};
        struct arena a = {0};
        char *text = malloc(1 << 16);
        memset(text, 'a', 1 << 16);
        for (size_t i = 0; i < sizeof evil / sizeof *evil; i++) {
                double began = seconds();
                ck_assert_str_eq(match(&a, evil[i], str_n(text, 1 << 16)), "false");
                ck_assert_msg(seconds() - began < 5, "%s took %.1f s", evil[i], seconds() - began);
        }
        free(text);
        arena_fini(&a);
}
END_TEST

START_TEST(a_budget_ends_a_long_match)
{
        struct arena a = {0};
        struct regex *re;
        const char *err;
        char *text = malloc(1 << 16);
        int64_t steps = 1000;
        memset(text, 'a', 1 << 16);
        ck_assert_int_eq(regex_compile(&re, STR("(a|aa)+b"), &a, &err), 0);
        ck_assert_int_eq(regex_match(re, str_n(text, 1 << 16), &a, &steps), -ETIMEDOUT);
        ck_assert_int_lt(steps, 0);
        steps = 1000;
        ck_assert_int_eq(regex_match(re, STR("aaab"), &a, &steps), 1);
        ck_assert_int_gt(steps, 900);
        free(text);
        arena_fini(&a);
}
END_TEST

/* `open` n times and `close` n times around "a". */
static const char *nested(const char *open, const char *close, int n)
{
        static char text[64 * 1024];
        size_t at = 0;
        for (int i = 0; i < n; i++)
                at += (size_t)sprintf(text + at, "%s", open);
        at += (size_t)sprintf(text + at, "a");
        for (int i = 0; i < n; i++)
                at += (size_t)sprintf(text + at, "%s", close);
        return text;
}

START_TEST(patterns_are_limited)
{
        struct arena a = {0};
        ck_assert_ptr_nonnull(strstr(match(&a, nested("(", ")", REGEX_MAX_DEPTH + 1), STR("a")), "nests too deeply"));
        ck_assert_str_eq(match(&a, nested("(", ")", REGEX_MAX_DEPTH), STR("a")), "true");
        ck_assert_ptr_nonnull(strstr(match(&a, "((a{100}){10}b{1000}){20}", STR("a")), "invalid repeat count"));
        ck_assert_ptr_nonnull(strstr(match(&a, nested("a{1000}", "", 25), STR("a")), "too large"));
        ck_assert_ptr_nonnull(strstr(match(&a, nested("\\pL", "", 400), STR("a")), "too large"));
        ck_assert_str_eq(match(&a, nested("aaaaa", "", 8000), STR("a")), "expression too large");
        ck_assert_str_eq(match(&a, nested("(", "?)?", 900), STR("b")), "true");
        arena_fini(&a);
}
END_TEST

static bool compile_and_match(void *arg)
{
        struct arena a = {0};
        struct regex *re;
        const char *err;
        int r = regex_compile(&re, STR("(?i)^([a-z\\pL]{2,3}|x*y+?|\\Qz.\\E)(?P<n>[^\\d])*$"), &a, &err);
        if (!r)
                r = regex_match(re, STR("abc-"), &a, NULL);
        arena_fini(&a);
        return r == 1 || r == -ENOMEM;
}

START_TEST(every_allocation_may_fail)
{
        ck_assert_int_gt(fault_each(compile_and_match, NULL), 1);
}
END_TEST

START_TEST(a_small_arena_is_enough_or_an_error)
{
        for (size_t cap = 1; cap < 200000; cap += 997) {
                struct arena a;
                struct regex *re;
                const char *err;
                arena_init(&a, cap);
                int r = regex_compile(&re, STR("[\\pL\\p{Greek}]+(a|b){1,50}(?i)[k-z]"), &a, &err);
                if (!r)
                        r = regex_match(re, STR("xabK"), &a, NULL);
                ck_assert(r == 1 || r == -ENOMEM || r == -EINVAL);
                arena_fini(&a);
        }
}
END_TEST

START_TEST(zones_are_found_in_the_systems_database)
{
        static const struct {
                const char *name;
                int64_t at;
                int32_t offset;
        } cases[] = {{"Europe/Berlin", 1711846799, 3600},   {"Europe/Berlin", 1711846800, 7200},  {"Europe/Berlin", 2540163599, 7200}, {"Europe/Berlin", 2555000000, 3600},
                     {"America/New_York", 1720000000, -14400}, {"Australia/Sydney", 1704067200, 39600}, {"Asia/Kolkata", 4000000000, 19800},
                     {"UTC", 5, 0},                        {"", 5, 0},                            {"Etc/GMT+5", 0, -18000}};
        int32_t offset;
        if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK))
                return;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                ck_assert_msg(zone_find(str_of(cases[i].name), cases[i].at, &offset) == 0, "%s", cases[i].name);
                ck_assert_msg(offset == cases[i].offset, "%s at %lld: %d", cases[i].name, (long long)cases[i].at, offset);
        }
}
END_TEST

START_TEST(names_that_are_no_zone_are_refused)
{
        static const char *const bad[] = {"Nowhere/Land", "../../../etc/passwd", "/etc/passwd", "Europe", "zone.tab", "a\nb", "Europe/Berlin/x"};
        int32_t offset;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                ck_assert_msg(zone_find(str_of(bad[i]), 0, &offset) == -ENOENT, "%s", bad[i]);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("regex");
        TCase *t = tcase_create("regex");
        tcase_set_timeout(t, 120);
        tcase_add_test(t, every_vector_does_what_the_reference_does);
        tcase_add_test(t, bytes_that_are_no_utf8_count_as_the_replacement_character);
        tcase_add_test(t, time_is_linear_in_the_text);
        tcase_add_test(t, a_budget_ends_a_long_match);
        tcase_add_test(t, patterns_are_limited);
        tcase_add_test(t, every_allocation_may_fail);
        tcase_add_test(t, a_small_arena_is_enough_or_an_error);
        tcase_add_test(t, zones_are_found_in_the_systems_database);
        tcase_add_test(t, names_that_are_no_zone_are_refused);
        suite_add_tcase(s, t);
        return run_suite(s);
}
