/* URL helpers against what Go's net/url and path give. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "sdk/net/http.h"

static struct arena arena;

static const char *z(struct str s)
{
        return s.p ? arena_strdup(&arena, s) : "(null)";
}

START_TEST(unescape_follows_go)
{
        static const struct {
                const char *in, *query, *path;
        } rows[] = {
                {"", "", ""}, {"abc", "abc", "abc"}, {"1%41", "1A", "1A"}, {"1%41%42%43", "1ABC", "1ABC"}, {"%4a", "J", "J"},
                {"%6F", "o", "o"}, {"%", "(null)", "(null)"}, {"%a", "(null)", "(null)"}, {"%1", "(null)", "(null)"},
                {"123%45%6", "(null)", "(null)"}, {"%zzzzz", "(null)", "(null)"}, {"a+b", "a b", "a+b"}, {"a%20b", "a b", "a b"},
                {"%2F%2f", "//", "//"}, {"a%2", "(null)", "(null)"}, {"\xc3\xa9%C3%A9", "\xc3\xa9\xc3\xa9", "\xc3\xa9\xc3\xa9"},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                ck_assert_str_eq(z(url_unescape(&arena, str_of(rows[i].in), true)), rows[i].query);
                ck_assert_str_eq(z(url_unescape(&arena, str_of(rows[i].in), false)), rows[i].path);
        }
        struct str nul = url_unescape(&arena, STR("a%00b"), false);
        ck_assert_uint_eq(nul.n, 3);
}
END_TEST

START_TEST(escape_round_trips_every_byte)
{
        char all[256];
        for (int i = 0; i < 256; i++)
                all[i] = (char)i;
        struct str e = url_escape(&arena, str_n(all, 256));
        for (size_t i = 0; i < e.n; i++)
                ck_assert_msg(strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~%", e.p[i]), "%d", e.p[i]);
        struct str back = url_unescape(&arena, e, true);
        ck_assert(str_eq(back, str_n(all, 256)));
        ck_assert_str_eq(z(url_escape(&arena, STR("a b/c+d~"))), "a%20b%2Fc%2Bd~");
        ck_assert_str_eq(z(url_escape_path(&arena, STR("a b/c:d@e+?#%~"))), "a%20b/c:d@e+%3F%23%25~");
        ck_assert_str_eq(z(url_escape_path(&arena, str_n("a\0b", 3))), "a%00b");
}
END_TEST

START_TEST(path_clean_follows_go)
{
        static const char *const rows[][2] = {
                {"", "."}, {"abc", "abc"}, {"abc/def", "abc/def"}, {"a/b/c", "a/b/c"}, {".", "."}, {"..", ".."}, {"../..", "../.."},
                {"../../abc", "../../abc"}, {"/abc", "/abc"}, {"/", "/"}, {"abc/", "abc"}, {"abc/def/", "abc/def"},
                {"./", "."}, {"../", ".."}, {"../../", "../.."}, {"/abc/", "/abc"}, {"abc//def//ghi", "abc/def/ghi"},
                {"//abc", "/abc"}, {"///abc", "/abc"}, {"//abc//", "/abc"}, {"abc//", "abc"}, {"abc/./def", "abc/def"},
                {"/./abc/def", "/abc/def"}, {"abc/.", "abc"}, {"abc/def/ghi/../jkl", "abc/def/jkl"},
                {"abc/def/../ghi/../jkl", "abc/jkl"}, {"abc/def/..", "abc"}, {"abc/def/../..", "."}, {"/abc/def/../..", "/"},
                {"abc/def/../../..", ".."}, {"/abc/def/../../..", "/"}, {"abc/def/../../../ghi/jkl/../../../mno", "../../mno"},
                {"abc/./../def", "def"}, {"abc//./../def", "def"}, {"abc/../../././../def", "../../def"}, {"/..", "/"},
                {"/../..", "/"}, {"/../a", "/a"}, {"...", "..."}, {"/a/.../b", "/a/.../b"}, {"//", "/"}, {"a/..", "."},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                ck_assert_msg(strcmp(z(path_clean(&arena, str_of(rows[i][0]))), rows[i][1]) == 0, "%s gives %s", rows[i][0],
                              z(path_clean(&arena, str_of(rows[i][0]))));
}
END_TEST

START_TEST(query_pairs_are_read_in_order_and_bad_ones_skipped)
{
        struct str rest = STR("a=1&&b=&c&%zz=1&d=%zz&e=x;y&f%20=+1%2B&=v&g=1=2"), k, v;
        static const char *const want[][2] = {{"a", "1"}, {"b", ""}, {"c", ""}, {"f ", " 1+"}, {"", "v"}, {"g", "1=2"}};
        size_t n = 0;
        while (query_next(&arena, &rest, &k, &v)) {
                ck_assert_uint_lt(n, 6);
                ck_assert_str_eq(z(k), want[n][0]);
                ck_assert_str_eq(z(v), want[n++][1]);
        }
        ck_assert_uint_eq(n, 6);
        rest = STR("");
        ck_assert(!query_next(&arena, &rest, &k, &v));
        rest = STR_NULL;
        ck_assert(!query_next(&arena, &rest, &k, &v));
}
END_TEST

START_TEST(headers_are_found_without_case_and_removed)
{
        struct http_headers h = {0};
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(http_headers_add(&h, &arena, STR("X-A"), str_of(arena_printf(&arena, "%d", i))), 0);
        http_headers_add(&h, &arena, STR("Empty"), STR_NULL);
        ck_assert_str_eq(z(http_headers_get(&h, "x-a")), "0");
        ck_assert_str_eq(z(http_headers_get(&h, "empty")), "");
        ck_assert_ptr_null(http_headers_get(&h, "X-B").p);
        http_headers_remove(&h, "x-A");
        ck_assert_uint_eq(h.n, 1);
        struct arena small;
        arena_init(&small, 64);
        struct http_headers full = {0};
        ck_assert_int_eq(http_headers_add(&full, &small, STR("a"), STR("b")), -ENOMEM);
        arena_fini(&small);
        ck_assert(http_value_has_token(STR("keep-alive, Upgrade"), "upgrade"));
        ck_assert(!http_value_has_token(STR("upgraded"), "upgrade"));
}
END_TEST

START_TEST(status_texts)
{
        ck_assert_str_eq(http_status_text(200), "OK");
        ck_assert_str_eq(http_status_text(431), "Request Header Fields Too Large");
        ck_assert_str_eq(http_status_text(511), "Network Authentication Required");
        ck_assert_str_eq(http_status_text(226), "IM Used");
        for (int i = -10; i < 1100; i++)
                ck_assert_ptr_nonnull(http_status_text(i));
        ck_assert_str_eq(http_status_text(299), "");
        ck_assert_str_eq(http_status_text(600), "");
}
END_TEST

int main(void)
{
        Suite *s = suite_create("url");
        TCase *t = tcase_create("url");
        arena_init(&arena, 0);
        tcase_add_test(t, unescape_follows_go);
        tcase_add_test(t, escape_round_trips_every_byte);
        tcase_add_test(t, path_clean_follows_go);
        tcase_add_test(t, query_pairs_are_read_in_order_and_bad_ones_skipped);
        tcase_add_test(t, headers_are_found_without_case_and_removed);
        tcase_add_test(t, status_texts);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        arena_fini(&arena);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
