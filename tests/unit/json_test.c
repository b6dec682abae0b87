/* json.h, utf8.h and rfc3339.h */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/rfc3339.h"
#include "sdk/base/utf8.h"
#include "tests/unit/fault.h"

#define ck_assert_str(s, z) ck_assert_msg(str_eqz((s), (z)), "\"%.*s\" is not \"%s\"", STR_FMT(s), (z))
#define N(array) (int)(sizeof(array) / sizeof *(array))

/* ---- whole texts ---- */

static const char *const valid[] = {
        "null", "true", "false", "0", "-0", "1", "-1", "10", "1.5", "0.0", "1e5", "1E+5", "1e-5", "0e0", "-0.0e-0",
        "123456789012345678901234567890", "1e400", "\"\"", "\"a\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0000\"",
        "\"\\uD834\\uDd1e\"", "\"\\ud800\"", "\"\\udc00x\"", "\"\x7f\"", "\"\xc2\x80\"", "\"\xf4\x8f\xbf\xbf\"", "[]", "{}",
        " [ ] ", "\t{\n}\r", "[1]", "[1,2]", "[ 1 , 2 ]", "[[],{}]", "{\"a\":1}", "{ \"a\" : 1 , \"b\" : [ ] }",
        "{\"a\":{\"a\":{\"a\":[[[1]]]}}}", "{\"\":0}", "{\"a\":1,\"a\":2}", "[null,true,false]",
};

static const char *const invalid[] = {
        "", " ", "nul", "nulll", "True", "tru", "+1", "01", "-", "-a", "1.", ".5", "1e", "1e+", "0x1", "1.e1", "--1", "00", "-01",
        "NaN", "Infinity", "\"", "\"a", "'a'", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\", "\"\\u", "\"\n\"", "\"\x1f\"",
        "\"\x80\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"", "\"\xf0\x80\x80\x80\"",
        "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"", "\"\xc2\"", "\"\xe2\x82\"", "\"\xff\"", "[", "]", "{", "}", "[1", "[1,", "[1,]",
        "[,]", "[,1]", "[1,,2]", "[1 2]", "[1:2]", "[}", "{]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\" 1}", "{1:1}", "{a:1}",
        "{\"a\":1 \"b\":2}", "{\"a\":1,,\"b\":2}", "{\"a\"::1}", "{null:1}", "1 2", "{} {}", "[] ]", "[1]x", "\xef\xbb\xbf[]", "/**/1",
        "[1]//", "{\"a\":1]", "[1}", "\"\\u00\xc2\x80\"",
};

START_TEST(grammar_accepts_what_rfc8259_accepts)
{
        ck_assert_msg(json_valid(str_of(valid[_i])), "%s", valid[_i]);
}
END_TEST

START_TEST(grammar_refuses_the_rest)
{
        struct json_reader r;
        ck_assert_msg(!json_valid(str_of(invalid[_i])), "%s", invalid[_i]);
        json_read_init(&r, str_of(invalid[_i]));
        if (json_skip(&r))
                ck_assert(!json_at_end(&r));
        else if (str_trim(str_of(invalid[_i])).n)
                ck_assert_ptr_nonnull(r.error);
        ck_assert_uint_le(r.error_pos, strlen(invalid[_i]));
}
END_TEST

START_TEST(each_cut_of_a_text_is_refused)
{
        const char *z = "{\"a\\u00e9\":[1.5e+3,true,null,{\"b\":\"\\ud834\\udd1e\xf0\x9d\x84\x9e\"}],\"c\":false}";
        for (size_t n = 0; n < strlen(z); n++) {
                char *copy = malloc(n + 1); /* exact size, so that reading past the end is seen */
                memcpy(copy, z, n);
                ck_assert_msg(!json_valid(str_n(copy, n)), "%.*s", (int)n, z);
                free(copy);
        }
        ck_assert(json_valid(str_of(z)));
}
END_TEST

START_TEST(nul_bytes_are_refused_where_text_is_expected)
{
        ck_assert(!json_valid(str_n("1\0", 2)));
        ck_assert(!json_valid(str_n("\"\0\"", 3)));
        ck_assert(!json_valid(str_n("\"\\\0\"", 4)));
        ck_assert(!json_valid(str_n("[\0]", 3)));
}
END_TEST

START_TEST(depth_is_limited)
{
        struct buf b = {0};
        for (int depth = JSON_MAX_DEPTH - 1; depth <= JSON_MAX_DEPTH + 1; depth++) {
                for (int object = 0; object < 2; object++) {
                        buf_clear(&b);
                        for (int i = 0; i < depth; i++)
                                buf_addz(&b, object ? "{\"a\":" : "[");
                        buf_addz(&b, "1");
                        for (int i = 0; i < depth; i++)
                                buf_addz(&b, object ? "}" : "]");
                        ck_assert_int_eq(json_valid(buf_str(&b)), depth <= JSON_MAX_DEPTH);
                }
        }
        buf_clear(&b);
        for (int i = 0; i < 1000000; i++)
                buf_addc(&b, '[');
        ck_assert(!json_valid(buf_str(&b)));
        buf_fini(&b);
}
END_TEST

/* ---- pull reading ---- */

START_TEST(reader_walks_an_object)
{
        struct json_reader r;
        struct arena a = {0};
        struct str name, s;
        int64_t i;
        double d;
        bool b;
        json_read_init(&r, STR(" {\"n\": -7 ,\"s\":\"x\\ny\",\"l\":[1,2,[3]],\"o\":{\"k\":true},\"z\":null,\"d\":2.5} "));
        ck_assert_int_eq(json_peek(&r), JSON_OBJECT);
        ck_assert(json_enter_object(&r));
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert_str(name, "n");
        ck_assert(json_read_int64(&r, &i));
        ck_assert_int_eq(i, -7);
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert(!json_read_int64(&r, &i)); /* another type: not consumed */
        ck_assert(!json_read_null(&r));
        ck_assert(!json_enter_array(&r));
        ck_assert_ptr_null(r.error);
        ck_assert(json_read_string(&r, &a, &s));
        ck_assert_str(s, "x\ny");
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert(json_read_raw(&r, &s));
        ck_assert_str(s, "[1,2,[3]]");
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert(json_enter_object(&r));
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert(json_read_bool(&r, &b) && b);
        ck_assert(!json_next_member(&r, &a, &name));
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert_str(name, "z");
        ck_assert(json_read_null(&r));
        ck_assert(json_next_member(&r, &a, &name));
        ck_assert(json_read_double(&r, &d) && d == 2.5);
        ck_assert(!json_next_member(&r, &a, &name));
        ck_assert(json_at_end(&r));
        ck_assert_int_eq(json_peek(&r), JSON_END);
        arena_fini(&a);
}
END_TEST

START_TEST(reader_walks_lists)
{
        struct json_reader r;
        int64_t i, sum = 0;
        int n = 0;
        json_read_init(&r, STR("[[],[1],[2,3], [ ]]"));
        ck_assert(json_enter_array(&r));
        while (json_next_element(&r)) {
                ck_assert(json_enter_array(&r));
                while (json_next_element(&r)) {
                        ck_assert(json_read_int64(&r, &i));
                        sum += i;
                }
                n++;
        }
        ck_assert_ptr_null(r.error);
        ck_assert(json_at_end(&r));
        ck_assert_int_eq(n, 4);
        ck_assert_int_eq(sum, 6);
        ck_assert(!json_next_element(&r));
}
END_TEST

START_TEST(a_value_left_unread_is_an_error)
{
        struct json_reader r;
        struct str name;
        json_read_init(&r, STR("{\"a\":1,\"b\":2}"));
        ck_assert(json_enter_object(&r));
        ck_assert(json_next_member(&r, NULL, &name));
        ck_assert(!json_next_member(&r, NULL, &name));
        ck_assert_ptr_nonnull(r.error);
        ck_assert_uint_eq(r.error_pos, 5);
        ck_assert(!json_skip(&r));
        ck_assert_int_eq(json_peek(&r), JSON_ERROR);
        json_read_init(&r, STR("[1]"));
        ck_assert(json_enter_array(&r));
        ck_assert(!json_next_member(&r, NULL, &name));
        ck_assert_ptr_nonnull(r.error);
}
END_TEST

START_TEST(data_behind_the_value_is_seen)
{
        struct json_reader r;
        json_read_init(&r, STR("null x"));
        ck_assert(!json_at_end(&r));
        ck_assert(json_read_null(&r));
        ck_assert(!json_at_end(&r));
        ck_assert_int_eq(json_peek(&r), JSON_ERROR);
}
END_TEST

START_TEST(strings_borrow_unless_escaped)
{
        struct json_reader r;
        struct arena a = {0};
        struct str s, in = STR("[\"plain text of some length\",\"\\u0041\\u00e9\\u20ac\\ud834\\udd1e\\ud800\\udc\"]");
        json_read_init(&r, in);
        json_enter_array(&r);
        json_next_element(&r);
        ck_assert(json_read_string(&r, NULL, &s));
        ck_assert(s.p > in.p && s.p < in.p + in.n);
        json_next_element(&r);
        ck_assert(!json_read_string(&r, NULL, &s)); /* the last escape is cut */
        json_read_init(&r, STR("\"\\u0041\\u00e9\\u20ac\\ud834\\udd1e|\\ud800|\\udc00|\\ud800\\u0041\""));
        ck_assert(json_read_string(&r, &a, &s));
        ck_assert_str(s, "A\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e|\xef\xbf\xbd|\xef\xbf\xbd|\xef\xbf\xbd" "A");
        json_read_init(&r, STR("\"\\n\""));
        ck_assert(!json_read_string(&r, NULL, &s));
        ck_assert_str(str_of(r.error), "out of memory");
        arena_fini(&a);
}
END_TEST

START_TEST(integers_are_exact)
{
        static const struct {
                const char *text;
                bool ok;
                int64_t v;
        } rows[] = {
                {"0", true, 0}, {"-0", true, 0}, {"1e3", true, 1000}, {"1.0", true, 1}, {"-1.50e1", true, -15}, {"100e-2", true, 1},
                {"9223372036854775807", true, INT64_MAX}, {"-9223372036854775808", true, INT64_MIN},
                {"9223372036854775808", false, 0}, {"-9223372036854775809", false, 0}, {"1.5", false, 0}, {"1e-1", false, 0},
                {"1e19", false, 0}, {"0e999999999999", true, 0}, {"1e999999999999", false, 0}, {"1e-999999999999", false, 0},
                {"0.000", true, 0}, {"922337203685477580.7e1", true, INT64_MAX}, {"10000000000000000000000e-20", true, 100},
                {"1234500000000000000000000000000e-28", false, 0}, {"0.00001e5", true, 1}, {"1.0000000000000000000000000", true, 1},
        };
        for (int i = 0; i < N(rows); i++) {
                struct json_reader r;
                int64_t v = 0;
                json_read_init(&r, str_of(rows[i].text));
                ck_assert_msg(json_read_int64(&r, &v) == rows[i].ok && (!rows[i].ok || v == rows[i].v), "%s", rows[i].text);
                ck_assert_int_eq(json_at_end(&r), rows[i].ok);
                ck_assert_ptr_null(r.error);
        }
        uint64_t u;
        ck_assert(json_number_to_uint64(STR("18446744073709551615"), &u) && u == UINT64_MAX);
        ck_assert(!json_number_to_uint64(STR("18446744073709551616"), &u));
        ck_assert(!json_number_to_uint64(STR("-1"), &u));
        ck_assert(json_number_to_uint64(STR("-0"), &u) && u == 0);
}
END_TEST

START_TEST(doubles_are_read)
{
        struct json_reader r;
        double d;
        char z[400] = "0.";
        json_read_init(&r, STR("1e309"));
        ck_assert(!json_read_double(&r, &d));
        ck_assert(json_number_to_double(STR("-1.7976931348623157e308"), &d) && d == -DBL_MAX);
        ck_assert(json_number_to_double(STR("1e-400"), &d) && d == 0);
        memset(z + 2, '3', 350);
        ck_assert(json_number_to_double(str_of(z), &d) && d == 1.0 / 3);
        ck_assert(json_is_number(STR("-1.5e3")) && !json_is_number(STR("1 ")) && !json_is_number(STR(" 1")) && !json_is_number(STR("")));
}
END_TEST

/* ---- writing ---- */

START_TEST(writer_places_commas)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_key(&w, STR("a"));
        json_array_begin(&w);
        json_int(&w, INT64_MIN);
        json_uint(&w, UINT64_MAX);
        json_int(&w, -1);
        json_array_begin(&w);
        json_array_end(&w);
        json_object_begin(&w);
        json_object_end(&w);
        json_array_end(&w);
        json_kv(&w, "k", STR("v"));
        json_kv_nonempty(&w, "empty", STR(""));
        json_key(&w, STR("t"));
        json_bool(&w, true);
        json_key(&w, STR("n"));
        json_null(&w);
        json_key(&w, STR("r"));
        json_raw(&w, STR("[1 ]"));
        json_object_end(&w);
        ck_assert_int_eq(w.depth, 0);
        ck_assert_str(buf_str(&b), "{\"a\":[-9223372036854775808,18446744073709551615,-1,[],{}],\"k\":\"v\",\"t\":true,"
                                   "\"n\":null,\"r\":[1 ]}");
        buf_fini(&b);
}
END_TEST

START_TEST(strings_are_escaped_as_encoding_json_does)
{
        static const char *const rows[][2] = {
                {"", "\"\""}, {"plain <&> text", "\"plain <&> text\""}, {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
                {"\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\""}, {"\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\""},
                {"\xe2\x80\xa8|\xe2\x80\xa9|\xe2\x80\xaa", "\"\\u2028|\\u2029|\xe2\x80\xaa\""},
                {"\xff|\xc3|\xed\xa0\x80", "\"\\ufffd|\\ufffd|\\ufffd\\ufffd\\ufffd\""},
                {"long enough for words \xf0\x9d\x84\x9e and \"quotes\" in them", "\"long enough for words \xf0\x9d\x84\x9e and "
                                                                                "\\\"quotes\\\" in them\""},
        };
        for (int i = 0; i < N(rows); i++) {
                struct buf b = {0};
                struct json_writer w;
                json_write_init(&w, &b);
                json_string(&w, str_of(rows[i][0]));
                ck_assert_str(buf_str(&b), rows[i][1]);
                ck_assert(json_valid(buf_str(&b)));
                buf_fini(&b);
        }
}
END_TEST

START_TEST(doubles_are_shortest)
{
        static const struct {
                double v;
                const char *text;
        } rows[] = {
                {0, "0"}, {-0.0, "-0"}, {1, "1"}, {-1.5, "-1.5"}, {0.1, "0.1"}, {1.0 / 3, "0.3333333333333333"}, {100, "100"},
                {123456789.125, "123456789.125"}, {1e20, "100000000000000000000"}, {1e21, "1e+21"}, {1.5e300, "1.5e+300"},
                {1e-6, "0.000001"}, {1.25e-6, "0.00000125"}, {1e-7, "1e-7"}, {-1.25e-7, "-1.25e-7"}, {5e-324, "5e-324"},
                {DBL_MAX, "1.7976931348623157e+308"}, {0.1 + 0.2, "0.30000000000000004"}, {9007199254740993.0, "9007199254740992"},
                {123456789012345680000.0, "123456789012345680000"},
        };
        for (int i = 0; i < N(rows); i++) {
                struct buf b = {0};
                struct json_writer w;
                json_write_init(&w, &b);
                json_double(&w, rows[i].v);
                ck_assert_str(buf_str(&b), rows[i].text);
                ck_assert(strtod(rows[i].text, NULL) == rows[i].v);
                buf_fini(&b);
        }
        char z[JSON_DOUBLE_BYTES];
        ck_assert_str(str_n(z, json_format_double(z, 0.1f, true)), "0.1");
        ck_assert_str(str_n(z, json_format_double(z, FLT_MAX, true)), "3.4028235e+38");
        ck_assert_str(str_n(z, json_format_double(z, -1.17549435e-38f, true)), "-1.1754944e-38");
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_double(&w, (double)NAN);
        ck_assert_str(buf_str(&b), "null");
        buf_fini(&b);
}
END_TEST

START_TEST(many_doubles_come_back_the_same)
{
        uint64_t bits = 88172645463325252u;
        for (int i = 0; i < 20000; i++) {
                double v, back;
                char z[JSON_DOUBLE_BYTES];
                bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
                memcpy(&v, &bits, sizeof v);
                if (!isfinite(v))
                        continue;
                size_t n = json_format_double(z, v, false);
                ck_assert_uint_lt(n, sizeof z);
                ck_assert(json_is_number(str_n(z, n)));
                ck_assert(json_number_to_double(str_n(z, n), &back) && memcmp(&v, &back, sizeof v) == 0);
        }
}
END_TEST

/* ---- the rest ---- */

START_TEST(base64_follows_rfc4648)
{
        static const char *const rows[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xbf", "+/+/"}};
        static const char *const decoded[][2] = {{"-_-_", "\xfb\xff\xbf"}, {"Zg", "f"}, {"Zm8", "fo"}, {"Zm\r\n9v", "foo"},
                                                {"Zh==", "f"}};
        static const char *const bad[] = {"Z", "Zm9vY", "Zg=", "Zg===", "Z===", "====", "=", "Zm=v", "Zm 9v", "Zm9v=", "Zm8=Zm8=", "\xff", "+_==", "//--"};
        struct arena a = {0};
        for (int i = 0; i < N(rows); i++) {
                ck_assert_str(base64_encode(&a, str_of(rows[i][0])), rows[i][1]);
                struct str back = base64_decode(&a, str_of(rows[i][1]));
                ck_assert_ptr_nonnull(back.p);
                ck_assert_str(back, rows[i][0]);
        }
        for (int i = 0; i < N(decoded); i++)
                ck_assert_str(base64_decode(&a, str_of(decoded[i][0])), decoded[i][1]);
        for (int i = 0; i < N(bad); i++)
                ck_assert_msg(!base64_decode(&a, str_of(bad[i])).p, "%s", bad[i]);
        arena_fini(&a);
}
END_TEST

START_TEST(times_are_read_and_written)
{
        static const struct {
                const char *text, *back;
                int64_t seconds;
                int32_t nanos;
        } rows[] = {
                {"1970-01-01T00:00:00Z", NULL, 0, 0},
                {"2026-07-14T10:20:30.5Z", "2026-07-14T10:20:30.500Z", 1784024430, 500000000},
                {"2000-02-29T23:59:59.123456789Z", NULL, 951868799, 123456789},
                {"2000-02-29T23:59:59.000001Z", NULL, 951868799, 1000},
                {"1969-12-31T23:59:59.999Z", NULL, -1, 999000000},
                {"2024-01-01T02:00:00+02:30", "2023-12-31T23:30:00Z", 1704065400, 0},
                {"2024-01-01T02:00:00-00:01", "2024-01-01T02:01:00Z", 1704074460, 0},
                {"0001-01-01T00:00:00Z", NULL, -62135596800, 0},
                {"9999-12-31T23:59:59.999999999Z", NULL, 253402300799, 999999999},
        };
        static const char *const bad[] = {
                "", "2024", "2024-01-01", "2024-01-01T00:00:00", "2024-1-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z",
                "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-01-32T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z",
                "2024-01-01T00:00:60Z", "2024-01-01T00:00:00.Z", "2024-01-01T00:00:00.1234567890Z", "2024-01-01 00:00:00Z",
                "2024-01-01T00:00:00Zx", "2024-01-01T00:00:00+2:00", "2024-01-01T00:00:00+24:00", "0000-01-01T00:00:00Z",
                "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2024-01-01T00:00:00.",
        };
        char z[RFC3339_BYTES];
        int64_t s;
        int32_t n;
        for (int i = 0; i < N(rows); i++) {
                ck_assert_msg(rfc3339_parse(str_of(rows[i].text), &s, &n), "%s", rows[i].text);
                ck_assert_int_eq(s, rows[i].seconds);
                ck_assert_int_eq(n, rows[i].nanos);
                ck_assert_uint_gt(rfc3339_format(z, s, n), 0);
                ck_assert_str_eq(z, rows[i].back ? rows[i].back : rows[i].text);
        }
        for (int i = 0; i < N(bad); i++)
                ck_assert_msg(!rfc3339_parse(str_of(bad[i]), &s, &n), "%s", bad[i]);
        ck_assert_uint_eq(rfc3339_format(z, 253402300800, 0), 0);
        ck_assert_uint_eq(rfc3339_format(z, -62135596801, 0), 0);
        ck_assert_uint_eq(rfc3339_format(z, 0, -1), 0);
        ck_assert_uint_eq(rfc3339_format(z, 0, 1000000000), 0);
}
END_TEST

START_TEST(durations_are_read_and_written)
{
        static const struct {
                const char *text, *back;
                int64_t seconds;
                int32_t nanos;
        } rows[] = {
                {"0s", NULL, 0, 0}, {"1s", NULL, 1, 0}, {"1.5s", "1.500s", 1, 500000000}, {"-1.5s", "-1.500s", -1, -500000000},
                {"-0.000000001s", NULL, 0, -1}, {"+3s", "3s", 3, 0}, {".5s", "0.500s", 0, 500000000},
                {"315576000000s", NULL, 315576000000, 0}, {"-315576000000s", NULL, -315576000000, 0},
        };
        static const char *const bad[] = {"", "s", "1", "1m", "1.s", "-s", "1.0000000000s", "315576000001s", "315576000000.1s", " 1s", "1s ",
                                         "1e3s", "--1s", "99999999999999999999999s"};
        char z[RFC3339_BYTES];
        int64_t s;
        int32_t n;
        for (int i = 0; i < N(rows); i++) {
                ck_assert_msg(pbduration_parse(str_of(rows[i].text), &s, &n), "%s", rows[i].text);
                ck_assert_int_eq(s, rows[i].seconds);
                ck_assert_int_eq(n, rows[i].nanos);
                ck_assert_uint_gt(pbduration_format(z, s, n), 0);
                ck_assert_str_eq(z, rows[i].back ? rows[i].back : rows[i].text);
        }
        for (int i = 0; i < N(bad); i++)
                ck_assert_msg(!pbduration_parse(str_of(bad[i]), &s, &n), "%s", bad[i]);
        ck_assert_uint_eq(pbduration_format(z, 1, -1), 0);
        ck_assert_uint_eq(pbduration_format(z, -1, 1), 0);
        ck_assert_uint_eq(pbduration_format(z, INT64_MIN, 0), 0);
        ck_assert_uint_eq(pbduration_format(z, 0, 1000000000), 0);
}
END_TEST

START_TEST(utf8_boundaries)
{
        ck_assert(utf8_is_valid(STR_NULL));
        ck_assert(utf8_is_valid(STR("sixteen ascii ch\xc3\xa9")));
        ck_assert_uint_eq(utf8_valid_len(STR("abcdefgh\xff")), 8);
        ck_assert_uint_eq(utf8_valid_len(STR("ab\xe2\x82")), 2);
        for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
                char z[4];
                int n = utf8_put(z, c);
                ck_assert_int_eq(utf8_char_len(z, (size_t)n), c >= 0xd800 && c <= 0xdfff ? 0 : n);
                ck_assert(n == 1 || utf8_char_len(z, (size_t)n - 1) == 0);
        }
}
END_TEST

/* Reads and writes a text with everything in it; true when a failed allocation showed as an error and nothing broke. */
static bool copy_text(void *arg)
{
        struct json_reader r;
        struct arena a = {0};
        struct buf b = {0};
        struct json_writer w;
        struct str name, s;
        bool ok = true;
        json_read_init(&r, STR("{\"na\\u006de\":\"va\\nlue\",\"two\":\"2\"}"));
        json_write_init(&w, &b);
        json_object_begin(&w);
        ok = json_enter_object(&r);
        while (json_next_member(&r, &a, &name)) {
                json_key(&w, name);
                ok = json_read_string(&r, &a, &s);
                if (ok)
                        json_string(&w, s);
        }
        json_object_end(&w);
        ok = ok && json_at_end(&r) && !b.failed;
        bool right = !ok || str_eqz(buf_str(&b), "{\"name\":\"va\\nlue\",\"two\":\"2\"}");
        bool told = ok || r.error || b.failed;
        arena_fini(&a);
        buf_fini(&b);
        return right && told;
}

START_TEST(a_failed_allocation_is_an_error)
{
        ck_assert_int_ge(fault_each(copy_text, NULL), 2);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("json");
        TCase *t = tcase_create("json");
        suite_add_tcase(s, t);
        tcase_add_loop_test(t, grammar_accepts_what_rfc8259_accepts, 0, N(valid));
        tcase_add_loop_test(t, grammar_refuses_the_rest, 0, N(invalid));
        tcase_add_test(t, each_cut_of_a_text_is_refused);
        tcase_add_test(t, nul_bytes_are_refused_where_text_is_expected);
        tcase_add_test(t, depth_is_limited);
        tcase_add_test(t, reader_walks_an_object);
        tcase_add_test(t, reader_walks_lists);
        tcase_add_test(t, a_value_left_unread_is_an_error);
        tcase_add_test(t, data_behind_the_value_is_seen);
        tcase_add_test(t, strings_borrow_unless_escaped);
        tcase_add_test(t, integers_are_exact);
        tcase_add_test(t, doubles_are_read);
        tcase_add_test(t, writer_places_commas);
        tcase_add_test(t, strings_are_escaped_as_encoding_json_does);
        tcase_add_test(t, doubles_are_shortest);
        tcase_add_test(t, many_doubles_come_back_the_same);
        tcase_add_test(t, base64_follows_rfc4648);
        tcase_add_test(t, times_are_read_and_written);
        tcase_add_test(t, durations_are_read_and_written);
        tcase_add_test(t, utf8_boundaries);
        tcase_add_test(t, a_failed_allocation_is_an_error);
        SRunner *sr = srunner_create(s);
        srunner_run_all(sr, CK_ENV);
        int failed = srunner_ntests_failed(sr);
        srunner_free(sr);
        return failed != 0;
}
