/* YAML trees: places in errors, limits, types of scalars, aliases and merges, JSON. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/yaml.h"
#include "tests/unit/fault.h"

static struct arena a;
static const char *error;
static char json[65536];

static void setup(void)
{
        arena_init(&a, 0);
}

static void fini(void)
{
        arena_fini(&a);
}

static struct yaml_node *read_flags(const char *text, int flags)
{
        struct yaml_node *n = NULL;
        int r = yaml_read(&a, str_of(text), "f.yaml", 1, flags, &n, &error);
        ck_assert_msg(r == 0, "%s: %s", text, error);
        return n;
}

static struct yaml_node *read_ok(const char *text)
{
        return read_flags(text, 0);
}

static const char *to_json(const struct yaml_node *n, enum yaml_schema schema)
{
        struct buf b = {0};
        int r = yaml_to_json(&b, n, schema);
        snprintf(json, sizeof json, r ? "error %d" : "%.*s", r ? r : (int)buf_len(&b), r ? "" : buf_str(&b).p);
        buf_fini(&b);
        return json;
}

#define json_is(text, want) ck_assert_str_eq(to_json(read_ok(text), YAML_1_1), want)
#define json_v3_is(text, want) ck_assert_str_eq(to_json(read_ok(text), YAML_V3), want)
#define refused(text, want) \
        do { \
                struct yaml_node *n_ = NULL; \
                int r_ = yaml_read(&a, str_of(text), "f.yaml", 1, YAML_UNIQUE_KEYS, &n_, &error); \
                ck_assert_int_eq(r_, -EINVAL); \
                ck_assert_msg(strstr(error, want), "%s", error); \
        } while (0)

START_TEST(scalars_have_the_types_of_yaml_1_1)
{
        json_is("[1, -1, +1, 0, 1_000, 0x1f, 0b11, 0o17, 017, 08, 1.5, .5, 1., 1e3, 1.10]",
                "[1,-1,1,0,1000,31,3,15,15,8,1.5,0.5,1,1000,1.1]");
        json_is("[true, True, yes, Y, on, false, NO, n, off, oN]", "[true,true,true,true,true,false,false,false,false,\"oN\"]");
        json_is("[null, ~, Null, '', \"\", nUll]", "[null,null,null,\"\",\"\",\"nUll\"]");
        json_is("[9223372036854775807, -9223372036854775808, 18446744073709551615, 18446744073709551616]",
                "[9223372036854775807,-9223372036854775808,18446744073709551615,18446744073709552000]");
        json_is("[.5_0, ._5, .5_, 1__0, _1, !!timestamp 2024-01-02]", "[0.5,\"._5\",\".5_\",10,\"_1\",\"2024-01-02\"]");
        ck_assert_str_eq(to_json(read_ok("!!timestamp x"), YAML_1_1), "error -22");
        json_is("[2024-01-02, 12:30:45, 1.2.3, v1, 1e, +, -, ., .e5, 0x, 1e999]",
                "[\"2024-01-02\",\"12:30:45\",\"1.2.3\",\"v1\",\"1e\",\"+\",\"-\",\".\",\".e5\",\"0x\",\"1e999\"]");
        json_is("- '1'\n- \"true\"\n- 'null'\n- |-\n 5\n- >-\n  yes\n", "[\"1\",\"true\",\"null\",\"5\",\"yes\"]");
}
END_TEST

START_TEST(yaml_v3_knows_fewer_booleans)
{
        json_v3_is("[true, yes, on, n, Off, False]", "[true,\"yes\",\"on\",\"n\",\"Off\",false]");
}
END_TEST

START_TEST(numbers_are_written_as_encoding_json_does)
{
        json_is("[1e20, 1e21, 1.5e-7, 0.000001, 123456.789, -0.0, 100.0, 3.141592653589793]",
                "[100000000000000000000,1e+21,1.5e-7,0.000001,123456.789,-0,100,3.141592653589793]");
        ck_assert_str_eq(to_json(read_ok(".inf"), YAML_1_1), "error -22");
        ck_assert_str_eq(to_json(read_ok("a: .nan"), YAML_1_1), "error -22");
}
END_TEST

START_TEST(explicit_tags_win)
{
        json_is("[!!str 5, !!int '5', !!float 5, !!bool 'yes', !!null '', !other 7, !!binary aGk=]",
                "[\"5\",5,5,true,null,\"7\",\"hi\"]");
        ck_assert_str_eq(to_json(read_ok("!!int abc"), YAML_1_1), "error -22");
}
END_TEST

static struct str text(const char *yaml, enum yaml_schema schema)
{
        struct str s;
        ck_assert_int_eq(yaml_string(&a, read_ok(yaml), schema, &s), 0);
        return s;
}

START_TEST(text_fields_take_any_scalar)
{
        ck_assert(str_eqz(text("1.10", YAML_1_1), "1.1"));
        ck_assert(str_eqz(text("1.0", YAML_1_1), "1"));
        ck_assert(str_eqz(text("1e10", YAML_1_1), "1e+10"));
        ck_assert(str_eqz(text("1234567.5", YAML_1_1), "1.2345675e+06"));
        ck_assert(str_eqz(text("0.00001", YAML_1_1), "1e-05"));
        ck_assert(str_eqz(text("0.0001", YAML_1_1), "0.0001"));
        ck_assert(str_eqz(text("123", YAML_1_1), "123"));
        ck_assert(str_eqz(text("yes", YAML_1_1), "true"));
        ck_assert(str_eqz(text("'yes'", YAML_1_1), "yes"));
        ck_assert(str_eqz(text(".inf", YAML_1_1), "+Inf"));
        ck_assert(str_eqz(text("1.10", YAML_V3), "1.10"));
        ck_assert(str_eqz(text("True", YAML_V3), "True"));
        ck_assert_ptr_null(text("null", YAML_1_1).p);
        struct str s;
        ck_assert_int_eq(yaml_string(&a, read_ok("[1]"), YAML_1_1, &s), -EINVAL);
}
END_TEST

START_TEST(json_in_a_yaml_file_is_read)
{
        json_is("{\"b\": [1, {\"x\": null}], \"a\": \"q\\\"\\u00e9\\n\", \"c\": {}, \"d\": []}",
                "{\"a\":\"q\\\"\u00e9\\n\",\"b\":[1,{\"x\":null}],\"c\":{},\"d\":[]}");
        json_is("{\n\t\"a\": 1,\n\t\"b\": 2\n}", "{\"a\":1,\"b\":2}");
}
END_TEST

START_TEST(keys_become_text_and_are_sorted)
{
        json_is("{10: a, 9: b, true: c, 1.50: d, '~': e}", "{\"1.5\":\"d\",\"10\":\"a\",\"9\":\"b\",\"true\":\"c\",\"~\":\"e\"}");
        json_is("{0xa: old, b: 1, 10: new}", "{\"10\":\"new\",\"b\":1}");
        ck_assert_str_eq(to_json(read_ok("{~: 1}"), YAML_1_1), "error -22");
}
END_TEST

START_TEST(nothing_is_no_document)
{
        ck_assert_ptr_null(read_ok(""));
        ck_assert_ptr_null(read_ok("# only a comment\n\n"));
        ck_assert_ptr_nonnull(read_ok("---\n"));
        ck_assert(yaml_is_null(read_ok("---\n")));
}
END_TEST

START_TEST(nodes_know_their_place)
{
        struct yaml_node *n = NULL;
        ck_assert_int_eq(yaml_read(&a, STR("a:\n  - b: c\n"), "x.yaml", 11, 0, &n, &error), 0);
        n = yaml_get(yaml_get(n, "a")->items->value, "b");
        ck_assert_str_eq(yaml_error(&a, n, "wrong %d", 5), "x.yaml:12:8: wrong 5");
}
END_TEST

START_TEST(errors_name_place_and_fix)
{
        refused("a: 1\n\tb: 2\n", "f.yaml:2:1: found a tab character that violates indentation; indent with spaces");
        refused("a:\n  - @x\n", "f.yaml:2:5: found character that cannot start any token");
        refused("a: b: c\n", "f.yaml:1:5: mapping values are not allowed in this context; check the indentation");
        refused("a: 'x\n", "f.yaml:2:1: found unexpected end of stream; a quote or bracket is not closed");
        refused("a: [1, 2\n", "a [ is not closed");
        refused("a: {b: 1\n", "a { is not closed");
        refused("a: 1\n b: 2\n", "f.yaml:2:3");
        refused("a: *x\n", "f.yaml:1:4: unknown anchor 'x' referenced");
        refused("? [1]\n: 2\n", "f.yaml:1:3: a map or list cannot be a key");
        refused("a: 1\nb: \x01\n", "f.yaml:2:4: control characters are not allowed");
        refused("a: \xff\n", "f.yaml:1:4");
}
END_TEST

START_TEST(a_key_that_stands_twice)
{
        refused("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: the key \"a\" stands already in line 1; remove one");
        struct yaml_node *n = read_ok("a: 1\nb: 2\na: 3\n");
        ck_assert_str_eq(error, "f.yaml:3:1: the key \"a\" stands already in line 1; the last one counts");
        ck_assert_str_eq(to_json(n, YAML_1_1), "{\"a\":3,\"b\":2}");
        ck_assert_uint_eq(n->n, 2);
}
END_TEST

START_TEST(large_maps_are_checked_for_double_keys_too)
{
        struct buf b = {0};
        for (int i = 0; i < 5000; i++)
                buf_printf(&b, "k%d: %d\n", i, i);
        buf_printf(&b, "k77: x\n");
        struct yaml_node *n = NULL;
        ck_assert_int_eq(yaml_read(&a, buf_str(&b), "f.yaml", 1, YAML_UNIQUE_KEYS, &n, &error), -EINVAL);
        ck_assert_str_eq(error, "f.yaml:5001:1: the key \"k77\" stands already in line 78; remove one");
        buf_fini(&b);
}
END_TEST

START_TEST(aliases_and_merge_keys)
{
        json_is("a: &x {k: 1, l: 2}\nb: *x\nc:\n  <<: *x\n  l: 3\nd:\n  <<: [*x, {m: 5, k: 9}]\n",
                "{\"a\":{\"k\":1,\"l\":2},\"b\":{\"k\":1,\"l\":2},\"c\":{\"k\":1,\"l\":3},\"d\":{\"k\":1,\"l\":2,\"m\":5}}");
        json_is("'<<': 1", "{\"<<\":1}");
        refused("a: &x [1]\nb:\n  <<: *x\n", "map merge requires map or sequence of maps as the value");
        refused("a: &x [*x]\n", "anchor 'x' value contains itself");
        refused("a: &x {b: *x}\n", "anchor 'x' value contains itself");
}
END_TEST

START_TEST(billion_laughs_are_refused)
{
        struct buf b = {0};
        buf_addz(&b, "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for (int i = 1; i < 12; i++) {
                buf_printf(&b, "a%d: &a%d [", i, i);
                for (int k = 0; k < 9; k++)
                        buf_printf(&b, "%s*a%d", k ? ", " : "", i - 1);
                buf_addz(&b, "]\n");
        }
        struct yaml_node *n = NULL;
        ck_assert_int_eq(yaml_read(&a, buf_str(&b), "f.yaml", 1, 0, &n, &error), -EINVAL);
        ck_assert_ptr_nonnull(strstr(error, "the document is too large; split it; each alias counts"));
        buf_fini(&b);
}
END_TEST

START_TEST(text_repeated_by_aliases_is_bounded)
{
        struct buf b = {0};
        buf_addz(&b, "a: &a '");
        for (int i = 0; i < 1 << 20; i++)
                buf_addc(&b, 'x');
        buf_addz(&b, "'\nb: [");
        for (int i = 0; i < 20; i++)
                buf_addz(&b, "*a, ");
        buf_addz(&b, "]\n");
        struct yaml_node *n = NULL;
        ck_assert_int_eq(yaml_read(&a, buf_str(&b), "f.yaml", 1, 0, &n, &error), -EINVAL);
        buf_fini(&b);
}
END_TEST

static const char *nested(int depth, char open, char close)
{
        static char line[100000];
        memset(line, open, (size_t)depth);
        memset(line + depth, close, (size_t)depth);
        line[2 * depth] = '\0';
        return line;
}

START_TEST(depth_is_bounded)
{
        read_ok(nested(YAML_MAX_DEPTH, '[', ']'));
        ck_assert_int_eq((int)strlen(to_json(read_ok(nested(YAML_MAX_DEPTH, '[', ']')), YAML_1_1)), 2 * YAML_MAX_DEPTH);
        refused(nested(YAML_MAX_DEPTH + 1, '[', ']'), "nested too deeply");
        refused(nested(40000, '[', ']'), "nested too deeply");
        struct buf dashes = {0};
        for (int i = 0; i < 40000; i++)
                buf_addz(&dashes, "- ");
        buf_addc(&dashes, '\0');
        refused(dashes.p, "nested too deeply");
        buf_fini(&dashes);
        /* a chain of aliases is as deep as what it is short for */
        struct buf b = {0};
        buf_addz(&b, "a0: &a0 [1]\n");
        for (int i = 1; i < 200; i++)
                buf_printf(&b, "a%d: &a%d [*a%d]\n", i, i, i - 1);
        struct yaml_node *n = NULL;
        ck_assert_int_eq(yaml_read(&a, buf_str(&b), "f.yaml", 1, 0, &n, &error), -EINVAL);
        buf_fini(&b);
}
END_TEST

START_TEST(only_the_first_document_is_read)
{
        json_is("---\na: 1\n---\nb: [\n", "{\"a\":1}");
}
END_TEST

START_TEST(documents_are_split_at_lines_of_dashes)
{
        struct str rest = STR("a: 1\n---\nb: 2\n\n--- # more\nc: 3\n---");
        int line = 1;
        ck_assert(str_eqz(yaml_next_document(&rest, &line), "a: 1"));
        ck_assert_int_eq(line, 3);
        ck_assert(str_eqz(yaml_next_document(&rest, &line), "b: 2\n"));
        ck_assert_int_eq(line, 6);
        ck_assert(str_eqz(yaml_next_document(&rest, &line), "c: 3"));
        ck_assert_ptr_null(rest.p);
        rest = STR("---\r\na: 1\r\n---\r\nb: 2");
        line = 1;
        ck_assert(str_eqz(yaml_next_document(&rest, &line), "---\r\na: 1\r"));
        ck_assert(str_eqz(yaml_next_document(&rest, &line), "b: 2"));
        ck_assert_int_eq(line, 4);
        rest = STR("");
        ck_assert_uint_eq(yaml_next_document(&rest, &line).n, 0);
        ck_assert_ptr_null(rest.p);
}
END_TEST

START_TEST(access_by_key_and_path)
{
        struct yaml_node *n = read_ok("Spec: 1\nspec: {tracing: {Otel: x}}\n");
        ck_assert_ptr_eq(yaml_get_fold(n, "SPEC"), yaml_get(n, "Spec"));
        ck_assert_ptr_eq(yaml_get_fold(n, "spec"), yaml_get(n, "spec"));
        ck_assert_ptr_nonnull(yaml_path(n, "spec.tracing.Otel"));
        ck_assert_ptr_null(yaml_path(n, "spec.tracing.otel"));
        ck_assert_ptr_null(yaml_path(n, "spec.tracing.Otel.x"));
        ck_assert_ptr_null(yaml_path(NULL, "spec"));
        ck_assert_ptr_null(yaml_get(read_ok("[1]"), "a"));
}
END_TEST

START_TEST(trees_are_laid_over_each_other)
{
        struct yaml_node *base = read_ok("{a: {b: 1, c: {d: 2}}, l: [1, 2], s: x, n: {o: 1}}");
        struct yaml_node *over = read_ok("{a: {c: {e: 3}, f: 4}, l: [3], s: {t: 1}, n: null, new: 1}");
        ck_assert_str_eq(to_json(yaml_merge(&a, base, over), YAML_V3),
                         "{\"a\":{\"b\":1,\"c\":{\"d\":2,\"e\":3},\"f\":4},\"l\":[3],\"n\":null,\"new\":1,\"s\":{\"t\":1}}");
        ck_assert_str_eq(to_json(base, YAML_V3), "{\"a\":{\"b\":1,\"c\":{\"d\":2}},\"l\":[1,2],\"n\":{\"o\":1},\"s\":\"x\"}");
        ck_assert_ptr_eq(yaml_merge(&a, NULL, over), over);
}
END_TEST

/* ---- files ---- */

static char path[] = "/tmp/yaml_test_XXXXXX";

static int read_file(const void *bytes, size_t n, struct str *ret)
{
        strcpy(path + strlen(path) - 6, "XXXXXX");
        int fd = mkstemp(path);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
        close(fd);
        int r = yaml_read_file(&a, path, false, ret, &error);
        unlink(path);
        return r;
}

START_TEST(files_are_text_of_bounded_size)
{
        struct str s;
        ck_assert_int_eq(read_file("a: 1\n", 5, &s), 0);
        ck_assert(str_eqz(s, "a: 1\n"));
        ck_assert_int_eq(read_file("", 0, &s), 0);
        ck_assert_uint_eq(s.n, 0);
        ck_assert_int_eq(read_file("a\0b", 3, &s), -EINVAL);
        ck_assert_ptr_nonnull(strstr(error, "not a text file: byte 1 is NUL"));
        ck_assert_int_eq(read_file("abc\xc3(", 5, &s), -EINVAL);
        ck_assert_ptr_nonnull(strstr(error, "not a text file: byte 3 is not UTF-8"));
        char *big = malloc(10 << 20);
        memset(big, 'a', 10 << 20);
        ck_assert_int_eq(read_file(big, 10 << 20, &s), -EFBIG);
        ck_assert_ptr_nonnull(strstr(error, "the limit for one file"));
        ck_assert_int_eq(read_file(big, YAML_MAX_FILE_BYTES, &s), 0);
        ck_assert_uint_eq(s.n, YAML_MAX_FILE_BYTES);
        free(big);
}
END_TEST

START_TEST(file_errors_read_as_the_references)
{
        struct str s;
        ck_assert_int_eq(yaml_read_file(&a, "/nonexistent/x", false, &s, &error), -ENOENT);
        ck_assert_str_eq(error, "open /nonexistent/x: no such file or directory");
        ck_assert_int_eq(yaml_read_file(&a, "/tmp", false, &s, &error), -EISDIR);
        ck_assert_str_eq(error, "read /tmp: is a directory");
        strcpy(path + strlen(path) - 6, "XXXXXX");
        close(mkstemp(path));
        unlink(path);
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        ck_assert_int_eq(yaml_read_file(&a, path, false, &s, &error), -EINVAL);
        ck_assert_ptr_nonnull(strstr(error, "not a regular file"));
        unlink(path);
}
END_TEST

/* ---- no memory ---- */

static const char sample[] = "a: &x {k: 1, l: [1, 2, three]}\nb:\n  <<: *x\n  l: !!binary aGk=\nc: 1.5\n";

START_TEST(an_arena_that_is_full_is_an_error_anywhere)
{
        for (size_t cap = 16;; cap += 16) {
                struct yaml_node *n = NULL;
                struct arena small;
                arena_init(&small, cap);
                error = NULL;
                int r = yaml_read(&small, STR(sample), "f.yaml", 1, 0, &n, &error);
                ck_assert(r == 0 || (r == -ENOMEM && error));
                arena_fini(&small);
                if (r == 0)
                        break;
                ck_assert_uint_lt(cap, 1 << 20);
        }
}
END_TEST

static bool read_and_write(void *arg)
{
        struct yaml_node *n = NULL;
        struct buf b = {0};
        struct arena own;
        const char *why = NULL;
        (void)arg;
        arena_init(&own, 0);
        int r = yaml_read(&own, STR(sample), "f.yaml", 1, 0, &n, &why);
        if (r == 0)
                r = yaml_to_json(&b, n, YAML_1_1);
        buf_fini(&b);
        arena_fini(&own);
        return r == 0 || r == -ENOMEM;
}

START_TEST(survives_each_failing_allocation)
{
        ck_assert_int_gt(fault_each(read_and_write, NULL), 10);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("yaml");
        TCase *c = tcase_create("yaml");
        tcase_add_checked_fixture(c, setup, fini);
        tcase_add_test(c, scalars_have_the_types_of_yaml_1_1);
        tcase_add_test(c, yaml_v3_knows_fewer_booleans);
        tcase_add_test(c, numbers_are_written_as_encoding_json_does);
        tcase_add_test(c, explicit_tags_win);
        tcase_add_test(c, text_fields_take_any_scalar);
        tcase_add_test(c, json_in_a_yaml_file_is_read);
        tcase_add_test(c, keys_become_text_and_are_sorted);
        tcase_add_test(c, nothing_is_no_document);
        tcase_add_test(c, nodes_know_their_place);
        tcase_add_test(c, errors_name_place_and_fix);
        tcase_add_test(c, a_key_that_stands_twice);
        tcase_add_test(c, large_maps_are_checked_for_double_keys_too);
        tcase_add_test(c, aliases_and_merge_keys);
        tcase_add_test(c, billion_laughs_are_refused);
        tcase_add_test(c, text_repeated_by_aliases_is_bounded);
        tcase_add_test(c, depth_is_bounded);
        tcase_add_test(c, only_the_first_document_is_read);
        tcase_add_test(c, documents_are_split_at_lines_of_dashes);
        tcase_add_test(c, access_by_key_and_path);
        tcase_add_test(c, trees_are_laid_over_each_other);
        tcase_add_test(c, files_are_text_of_bounded_size);
        tcase_add_test(c, file_errors_read_as_the_references);
        tcase_add_test(c, an_arena_that_is_full_is_an_error_anywhere);
        tcase_add_test(c, survives_each_failing_allocation);
        suite_add_tcase(s, c);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
