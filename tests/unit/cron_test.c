/* Schedules (sdk/base/cron.h) and time zones (sdk/base/tz.h). */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/base/cron.h"
#include "tests/unit/cron_vectors.inc"

enum { NS = 1000000000 };

START_TEST(moments_are_those_of_the_reference)
{
        struct cron c;
        char err[256];

        if (access("/usr/share/zoneinfo/Europe/Vienna", R_OK))
                return; /* no time zones on this machine */
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
                int64_t at = vectors[i].after;
                ck_assert_msg(cron_parse(&c, str_of(vectors[i].text), CRON_SECONDS_OPTIONAL, err, sizeof err) == 0, "%s: %s",
                              vectors[i].text, err);
                for (int k = 0; k < 3; k++) {
                        int64_t want = vectors[i].next[k];
                        bool found = cron_next(&c, at, &at);
                        ck_assert_msg(found == (want != -1), "%s (%zu): found %d", vectors[i].text, i, found);
                        if (!found)
                                break;
                        ck_assert_msg(at == want, "%s (%zu.%d): %lld, not %lld", vectors[i].text, i, k, (long long)(at / NS),
                                      (long long)(want / NS));
                }
                cron_fini(&c);
        }
}
END_TEST

START_TEST(wrong_expressions_are_refused_in_the_reference_words)
{
        struct cron c;
        char err[256];

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                int r = cron_parse(&c, str_of(texts[i].text), CRON_SECONDS_OPTIONAL, err, sizeof err);
                ck_assert_msg((r == 0) == (texts[i].error == NULL), "%s: %d", texts[i].text, r);
                if (r)
                        ck_assert_str_eq(err, texts[i].error);
                else
                        cron_fini(&c);
        }
}
END_TEST

START_TEST(required_seconds_are_required)
{
        struct cron c;
        char err[256];

        ck_assert_int_eq(cron_parse(&c, STR("* * * * *"), CRON_SECONDS_REQUIRED, err, sizeof err), -EINVAL);
        ck_assert_str_eq(err, "expected exactly 6 fields, found 5: [* * * * *]");
        ck_assert_int_eq(cron_parse(&c, STR("0 * * * * *"), CRON_SECONDS_REQUIRED, err, sizeof err), 0);
        cron_fini(&c);
}
END_TEST

START_TEST(an_interval_is_longer_than_zero)
{
        struct cron c;
        char err[256];

        ck_assert_int_eq(cron_parse(&c, STR("@every 0s"), CRON_SECONDS_OPTIONAL, err, sizeof err), -EINVAL);
        ck_assert_int_eq(cron_parse(&c, STR("@every -1s"), CRON_SECONDS_OPTIONAL, err, sizeof err), -EINVAL);
        ck_assert_int_eq(cron_parse(&c, STR("TZ=UTC"), CRON_SECONDS_OPTIONAL, err, sizeof err), -EINVAL);
}
END_TEST

START_TEST(zone_names_do_not_leave_their_folder)
{
        struct tz *z;

        ck_assert_int_eq(tz_open(&z, STR("../../etc/passwd")), -EINVAL);
        ck_assert_int_eq(tz_open(&z, STR("/etc/localtime")), -EINVAL);
        ck_assert_int_eq(tz_open(&z, STR("zone.tab/x")), -ENOENT);
        ck_assert_int_lt(tz_open(&z, STR("zone.tab")), 0);
        ck_assert_int_eq(tz_open(&z, STR("UTC")), 0);
        ck_assert_ptr_null(z);
}
END_TEST

START_TEST(broken_zone_files_are_refused)
{
        static const char head[44] = "TZif2";
        struct tz *z;
        char data[200] = "TZif";

        ck_assert_int_eq(tz_parse(&z, STR("")), -EBADMSG);
        ck_assert_int_eq(tz_parse(&z, str_n(head, sizeof head)), -EBADMSG);
        data[35] = 9; /* so many moments, and no room for them */
        ck_assert_int_eq(tz_parse(&z, str_n(data, 60)), -EBADMSG);
        data[32] = (char)0xff;
        ck_assert_int_eq(tz_parse(&z, str_n(data, sizeof data)), -EBADMSG);
}
END_TEST

START_TEST(calendar_and_back)
{
        for (int64_t t = -5000000000; t < 9000000000; t += 86399 * 37) {
                struct civil c = civil_of(t);
                ck_assert_int_eq(civil_seconds(&c), t);
        }
        struct civil leap = civil_of(951782400);
        ck_assert_int_eq(leap.month * 100 + leap.day, 229);
        ck_assert_int_eq(leap.weekday, 2);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("cron");
        TCase *t = tcase_create("cron");
        SRunner *r = srunner_create(s);

        tcase_add_test(t, moments_are_those_of_the_reference);
        tcase_add_test(t, wrong_expressions_are_refused_in_the_reference_words);
        tcase_add_test(t, required_seconds_are_required);
        tcase_add_test(t, an_interval_is_longer_than_zero);
        tcase_add_test(t, zone_names_do_not_leave_their_folder);
        tcase_add_test(t, broken_zone_files_are_refused);
        tcase_add_test(t, calendar_and_back);
        suite_add_tcase(s, t);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
