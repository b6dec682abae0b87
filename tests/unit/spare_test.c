/* sdk/base/spare.h */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sdk/base/spare.h"
#include "tests/unit/on_loop.h"

static size_t dropped;

static void drop(struct spare *s)
{
        dropped++;
}

static void setup(void)
{
        dropped = 0;
}

ON_LOOP_TEST(what_nobody_needs_goes_down_to_what_is_kept)
{
        struct spare s = {.keep = 3, .drop = drop};

        for (int i = 0; i < 10; i++)
                spare_put(&s);
        WAIT_FOR(s.count == 3);
        ck_assert_uint_eq(dropped, 7);
        spare_drop(&s);
        ck_assert_uint_eq(dropped, 10);
        ck_assert_uint_eq(s.count, 0);
}

ON_LOOP_TEST(what_was_needed_since_the_last_look_stays)
{
        struct spare s = {.keep = 0, .drop = drop};

        for (int i = 0; i < 10; i++)
                spare_put(&s);
        WAIT_FOR(s.low == 10); /* the first look */
        for (int i = 0; i < 4; i++)
                spare_taken(&s);
        for (int i = 0; i < 4; i++)
                spare_put(&s);
        WAIT_FOR(dropped);
        ck_assert_uint_eq(dropped, 6);
        ck_assert_uint_eq(s.count, 4);
        spare_drop(&s);
}

ON_LOOP_TEST(a_look_takes_a_portion)
{
        struct spare s = {.keep = 0, .drop = drop};

        for (int i = 0; i < SPARE_DROP_MAX + 1; i++)
                spare_put(&s);
        WAIT_FOR(s.count <= 1);
        ck_assert_uint_ge(dropped, SPARE_DROP_MAX);
        WAIT_FOR(s.count == 0);
        spare_drop(&s);
}

static void work(int ms)
{
        struct timespec t;
        double end = 0, now;

        do {
                clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
                now = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
                end = end > 0 ? end : now + ms;
        } while (now < end);
}

static long resident_pages(void)
{
        long pages = 0, rss = 0;
        FILE *f = fopen("/proc/self/statm", "re");

        ck_assert_ptr_nonnull(f);
        ck_assert_int_eq(fscanf(f, "%ld %ld", &pages, &rss), 2);
        fclose(f);
        return rss;
}

ON_LOOP_TEST(freed_pages_go_back_when_it_is_quiet)
{
        enum { BLOCKS = 2000, BYTES = 16 * 1024 };
        struct spare s = {.keep = 100, .drop = drop};
        static char *v[BLOCKS];
        size_t before = spare_trims();
        long full;

        for (int i = 0; i < BLOCKS; i++) {
                ck_assert_ptr_nonnull(v[i] = malloc(BYTES));
                memset(v[i], i, BYTES);
        }
        full = resident_pages();
        for (int i = 0; i < BLOCKS - 1; i++) /* the last one pins the heap's top */
                free(v[i]);
        spare_put(&s);
        work(SPARE_WORK_MS + 20);
        WAIT_FOR(spare_trims() > before);
        ck_assert_int_lt(resident_pages(), full - BLOCKS * (BYTES / 4096) / 2);
        before = spare_trims();
        spare_taken(&s); /* little work: nothing is given back */
        spare_put(&s);
        ck_assert_int_eq(fiber_sleep(SPARE_LOOK_MS * 1.2e-3), 0);
        ck_assert_uint_eq(spare_trims(), before);
        free(v[BLOCKS - 1]);
        spare_drop(&s);
}

int main(void)
{
        Suite *s = suite_create("spare");
        TCase *t = tcase_create("spare");

        tcase_set_timeout(t, 60);
        tcase_add_checked_fixture(t, setup, NULL);
        tcase_add_test(t, what_nobody_needs_goes_down_to_what_is_kept);
        tcase_add_test(t, what_was_needed_since_the_last_look_stays);
        tcase_add_test(t, a_look_takes_a_portion);
        tcase_add_test(t, freed_pages_go_back_when_it_is_quiet);
        suite_add_tcase(s, t);
        return run_suite(s);
}
