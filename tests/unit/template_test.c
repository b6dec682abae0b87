/* plugins/middleware.http.routeralias/template.h */
#include "plugins/middleware.http.routeralias/template.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct arena a;

static void setup(void)
{
        arena_init(&a, 0);
}

static void teardown(void)
{
        arena_fini(&a);
}

static const struct {
        const char *template, *path;
        const char *values; /* of the variables, with commas between; NULL: no match */
} matches[] = {
        {"/a", "/a", ""},
        {"/a", "/a/", NULL},
        {"/a", "/ab", NULL},
        {"/", "/", ""},
        {"/{x}", "/one", "one"},
        {"/{x}", "/", NULL},
        {"/{x}", "/one/two", NULL},
        {"/{x}/{y}/end", "/1/2/end", "1,2"},
        {"/{x}/{y}/end", "/1/2/3/end", NULL},
        {"/{x:[0-9]+}", "/42", "42"},
        {"/{x:[0-9]+}", "/4x", NULL},
        {"/{x:.*}/end", "/a/b/end", "a/b"},
        {"/{x:.+}/{y}", "/a/b/c", "a/b,c"},
        {"/{x:[a-z]{2}}", "/ab", "ab"},
        {"/{x:[a-z]{2}}", "/abc", NULL},
        {"/{x}-{y}", "/a-b-c", "a-b,c"},
        {"/v{x:a|ab}c", "/vabc", "ab"},
        {"/{x}.json", "/a.json.json", "a.json"},
};

START_TEST(a_template_matches_whole_paths_and_gives_the_longest_values)
{
        struct str values[TEMPLATE_PARTS_MAX];
        struct template t;
        const char *why = NULL;
        char got[100] = "";

        ck_assert_int_eq(template_parse(&t, str_of(matches[_i].template), &a, &why), 0);
        int r = template_match(&t, str_of(matches[_i].path), &a, values);
        ck_assert_msg(r == (matches[_i].values != NULL), "%s on %s gives %d", matches[_i].template, matches[_i].path, r);
        for (size_t i = 0; r && i < t.n; i++)
                if (t.parts[i].is_variable) {
                        strncat(got, *got ? "," : "", sizeof got - strlen(got) - 1);
                        strncat(got, values[i].p, values[i].n);
                }
        if (r)
                ck_assert_str_eq(got, matches[_i].values);
}
END_TEST

static const char *const broken[] = {"/{x", "/{x:(}", "/{:a}", "/{x:}", "/{}"};

START_TEST(a_broken_template_is_refused_with_a_reason)
{
        struct template t;
        const char *why = NULL;

        ck_assert_int_eq(template_parse(&t, str_of(broken[_i]), &a, &why), -EINVAL);
        ck_assert_ptr_nonnull(why);
}
END_TEST

START_TEST(a_template_with_too_many_variables_is_refused)
{
        char text[TEMPLATE_PARTS_MAX * 4 + 10] = "";
        struct template t;
        const char *why = NULL;

        for (int i = 0; i <= TEMPLATE_PARTS_MAX; i++)
                strcat(text, "{x}");
        ck_assert_int_eq(template_parse(&t, str_of(text), &a, &why), -EINVAL);
        ck_assert_str_eq(why, "too many variables in a path");
}
END_TEST

START_TEST(a_path_that_almost_matches_costs_no_more_than_its_square)
{
        struct str values[TEMPLATE_PARTS_MAX];
        struct template t;
        const char *why = NULL;
        char path[1001];

        memset(path, 'a', sizeof path - 1);
        path[0] = '/';
        path[sizeof path - 1] = 0;
        ck_assert_int_eq(template_parse(&t, STR("/{a}{b}{c}{d}{e}{f}{g}{h}{i}{j}!"), &a, &why), 0);
        ck_assert_int_eq(template_match(&t, str_of(path), &a, values), 0);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("template");
        TCase *c = tcase_create("all");
        SRunner *r = srunner_create(s);

        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_loop_test(c, a_template_matches_whole_paths_and_gives_the_longest_values, 0, sizeof matches / sizeof *matches);
        tcase_add_loop_test(c, a_broken_template_is_refused_with_a_reason, 0, sizeof broken / sizeof *broken);
        tcase_add_test(c, a_template_with_too_many_variables_is_refused);
        tcase_add_test(c, a_path_that_almost_matches_costs_no_more_than_its_square);
        suite_add_tcase(s, c);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
