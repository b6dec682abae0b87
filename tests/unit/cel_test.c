/* kernel/policy/cel.h */
#include "kernel/policy/cel.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "sdk/base/buf.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

/*
 * What vectors expect: true, 5, 5u, double 1.5, "string" (bytes outside of printable ASCII as \xNN), b"bytes", null, [..], {..} with
 * sorted entries, type NAME, timestamp T (UTC), duration NS; "! text" an error of the evaluation, "? line:column: text" one of the
 * compilation, "*" at its end standing for the rest.
 */
static const struct {
        const char *expr, *want;
} vectors[] = {
#include "tests/unit/cel_vectors.inc"
};

static const char event[] =
        "{\"type\": \"a\", \"n\": 1, \"f\": 1.5, \"s\": \"x\", \"l\": [1, 2, \"a\"], \"m\": {\"k\": null}, \"t\": true, \"nul\": null, "
        "\"ts\": \"2020-01-01T00:00:00Z\", \"neg\": -3, \"e\": {}, \"el\": [], \"u\": \"\\u00e4\\u00f6\\u00fc\\u20ac\\ud83d\\ude00\", "
        "\"nest\": {\"a\": {\"b\": [{\"c\": 1}, {\"c\": 2}]}}}";

/* ---- printing ---- */

static void print(struct cel_vm *vm, struct buf *b, struct cel_value v);

static void print_quoted(struct buf *b, struct str s)
{
        buf_addc(b, '"');
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
                        buf_printf(b, "\\x%02x", c);
                else
                        buf_addc(b, (char)c);
        }
        buf_addc(b, '"');
}

static int by_text(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_map(struct cel_vm *vm, struct buf *b, struct cel_value v)
{
        char *parts[64];
        size_t n = cel_count(vm, &v);
        for (size_t i = 0; i < n && i < 64; i++) {
                struct buf p = {0};
                struct cel_value k = cel_item(vm, &v, i), x;
                print(vm, &p, k);
                buf_addz(&p, ": ");
                if (cel_find(vm, &v, &k, &x) == CEL_FOUND)
                        print(vm, &p, x);
                buf_addc(&p, '\0');
                parts[i] = p.p;
        }
        qsort(parts, n, sizeof *parts, by_text);
        buf_addc(b, '{');
        for (size_t i = 0; i < n; i++) {
                buf_printf(b, "%s%s", i ? ", " : "", parts[i]);
                free(parts[i]);
        }
        buf_addc(b, '}');
}

static void print_double(struct buf *b, double d)
{
        if (isnan(d) || isinf(d))
                buf_printf(b, "double %s", isnan(d) ? "NaN" : d > 0 ? "+Inf" : "-Inf");
        else
                buf_printf(b, "double %.17g", d);
}

static void print(struct cel_vm *vm, struct buf *b, struct cel_value v)
{
        char t[48];
        switch ((int)v.type) {
        case CEL_ERROR:
                buf_printf(b, "! %.*s", STR_FMT(v.s));
                break;
        case CEL_NULL:
                buf_addz(b, "null");
                break;
        case CEL_BOOL:
                buf_addz(b, v.b ? "true" : "false");
                break;
        case CEL_INT:
                buf_printf(b, "%lld", (long long)v.i);
                break;
        case CEL_UINT:
                buf_printf(b, "%lluu", (unsigned long long)v.u);
                break;
        case CEL_DOUBLE:
                print_double(b, v.d);
                break;
        case CEL_BYTES:
                buf_addc(b, 'b');
                print_quoted(b, v.s);
                break;
        case CEL_STRING:
                print_quoted(b, v.s);
                break;
        case CEL_TIMESTAMP:
                v.offset_s = 0;
                buf_addz(b, "timestamp ");
                buf_add(b, t, cel_format_timestamp(t, &v));
                break;
        case CEL_DURATION:
                buf_printf(b, "duration %lld", (long long)v.i);
                break;
        case CEL_TYPE:
                buf_printf(b, "type %s", cel_type_name((enum cel_type)v.i));
                break;
        case CEL_LIST:
                buf_addc(b, '[');
                for (size_t i = 0, n = cel_count(vm, &v); i < n; i++) {
                        buf_addz(b, i ? ", " : "");
                        print(vm, b, cel_item(vm, &v, i));
                }
                buf_addc(b, ']');
                break;
        case CEL_MAP:
                print_map(vm, b, v);
                break;
        default:
                break;
        }
}

static void run(struct str expr, struct cel_var *vars, size_t n, struct buf *out)
{
        struct arena a = {0};
        struct cel_error err;
        struct cel_value v;
        struct cel *p;
        int r = cel_compile(&p, expr, &err);
        buf_clear(out);
        if (r == 0) {
                struct cel_vm vm = {.p = p, .a = &a, .steps = CEL_MAX_STEPS, .bytes = CEL_MAX_VALUE_BYTES};
                cel_eval(p, vars, n, &a, &v);
                print(&vm, out, v);
                cel_free(p);
        } else {
                const char *text = strstr(err.text, "<input>:");
                buf_printf(out, "? %s", text ? text + strlen("<input>:") : err.text);
        }
        buf_addc(out, '\0');
        arena_fini(&a);
}

static const char *result(const char *expr, const char *json)
{
        static struct buf out;
        struct cel_var var = cel_var_json("event", str_of(json));
        run(str_of(expr), &var, 1, &out);
        return out.p;
}

static bool fits(const char *have, const char *want)
{
        size_t n = strlen(want);
        return *want == '?' && n && want[n - 1] == '*' ? !strncmp(have, want, n - 1) : !strcmp(have, want);
}

START_TEST(every_vector_comes_to_what_the_reference_makes_of_it)
{
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
                const char *have = result(vectors[i].expr, event);
                ck_assert_msg(fits(have, vectors[i].want), "%s\n  wanted %s\n  got    %s", vectors[i].expr, vectors[i].want, have);
        }
}
END_TEST

/* ---- variables ---- */

START_TEST(a_member_that_stands_twice_counts_as_its_last)
{
        const char *json = "{\"a\": 1, \"b\": 2, \"a\": 3}";
        ck_assert_str_eq(result("event.a", json), "double 3");
        ck_assert_str_eq(result("size(event)", json), "2");
        ck_assert_str_eq(result("event.map(k, k)", json), "? 1:1: expression of type 'any' cannot be range of a comprehension (must be list, map, or dynamic)");
        ck_assert_str_eq(result("dyn(event).map(k, k)", json), "[\"b\", \"a\"]");
        ck_assert_str_eq(result("event == {'b': 2, 'a': 3}", json), "true");
}
END_TEST

START_TEST(members_that_nobody_selects_are_not_converted)
{
        char *json = malloc(1 << 20);
        size_t n = 0;
        struct arena a = {0};
        struct cel_error err;
        struct cel *p;
        bool yes = false;
        const char *why = NULL;
        n += (size_t)sprintf(json + n, "{\"data\": [");
        while (n < (1 << 20) - 100)
                n += (size_t)sprintf(json + n, "\"\\u0041\",");
        n += (size_t)sprintf(json + n, "0], \"type\": \"t\"}");
        struct cel_var var = cel_var_json("event", str_n(json, n));
        ck_assert_int_eq(cel_compile(&p, STR("event.type == 't'"), &err), 0);
        ck_assert_int_eq(cel_eval_bool(p, &var, 1, &a, &yes, &why), 0);
        ck_assert(yes);
        ck_assert_uint_lt(a.used_bytes, 4096);
        cel_free(p);
        arena_fini(&a);
        free(json);
}
END_TEST

START_TEST(one_variable_serves_several_rules_without_being_read_again)
{
        struct arena a = {0};
        struct cel_error err;
        struct cel *p, *q;
        bool yes = false;
        const char *why = NULL;
        struct cel_var var = cel_var_json("event", STR("{\"type\": \"t\", \"n\": 4}"));
        ck_assert_int_eq(cel_compile(&p, STR("event.type == 't'"), &err), 0);
        ck_assert_int_eq(cel_compile(&q, STR("event.n == 4"), &err), 0);
        ck_assert_int_eq(cel_eval_bool(p, &var, 1, &a, &yes, &why), 0);
        ck_assert(yes);
        ck_assert_ptr_nonnull(var.index);
        var.s = STR("no JSON any more");
        ck_assert_int_eq(cel_eval_bool(q, &var, 1, &a, &yes, &why), 0);
        ck_assert(yes);
        cel_free(p);
        cel_free(q);
        arena_fini(&a);
}
END_TEST

START_TEST(json_that_is_none_is_an_error_of_the_evaluation)
{
        static const char *const bad[] = {"", "{", "[1,", "nul", "{\"a\" 1}", "{\"a\": \"\\q\"}"};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                ck_assert_msg(result("event.a == 1", bad[i])[0] == '!', "%s", bad[i]);
                ck_assert_int_ne(result("size(event.a)", bad[i])[0], 't');
        }
        ck_assert_str_eq(result("event", "\"\\ud83d\\ude00\""), "\"\\xf0\\x9f\\x98\\x80\"");
        ck_assert_str_eq(result("event", "12.50"), "double 12.5");
}
END_TEST

START_TEST(numbers_are_variables_for_breakers)
{
        static const struct {
                const char *expr, *want;
        } cases[] = {{"consecutiveFailures > 5", "true"},
                     {"requests >= 10 && totalFailures > 5", "true"},
                     {"double(totalFailures) / double(requests) > 0.5", "true"},
                     {"totalFailures * 100 / requests", "60"},
                     {"consecutiveSuccesses == 0 && totalSuccesses == 4", "true"},
                     {"failures > 1", "! no such attribute(s): failures"}};
        struct cel_var vars[] = {cel_var_int("requests", 10), cel_var_int("totalSuccesses", 4), cel_var_int("totalFailures", 6),
                                 cel_var_int("consecutiveSuccesses", 0), cel_var_int("consecutiveFailures", 6)};
        struct buf out = {0};
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                run(str_of(cases[i].expr), vars, 5, &out);
                ck_assert_str_eq(out.p, cases[i].want);
        }
        buf_fini(&out);
}
END_TEST

START_TEST(rules_must_come_to_a_boolean)
{
        struct arena a = {0};
        struct cel_error err;
        struct cel *p;
        bool yes = false;
        const char *why = NULL;
        struct cel_var var = cel_var_json("event", str_of(event));
        ck_assert_int_eq(cel_compile(&p, STR("event.type"), &err), 0);
        ck_assert_int_eq(cel_eval_bool(p, &var, 1, &a, &yes, &why), -EINVAL);
        ck_assert_str_eq(why, "the result of match expression event.type was not a boolean");
        ck_assert(str_eqz(cel_text(p), "event.type"));
        cel_free(p);
        ck_assert_int_eq(cel_compile(&p, STR("event.nothing"), &err), 0);
        ck_assert_int_eq(cel_eval_bool(p, &var, 1, &a, &yes, &why), -EINVAL);
        ck_assert_str_eq(why, "no such key: nothing");
        cel_free(p);
        arena_fini(&a);
}
END_TEST

START_TEST(errors_name_line_and_column_in_characters)
{
        struct cel_error err = {0};
        struct cel *p = NULL;
        ck_assert_int_eq(cel_compile(&p, STR("'\303\244\303\266' ==\n  'a' &&\n 1 + 'x'"), &err), -EINVAL);
        ck_assert_int_eq(err.line, 3);
        ck_assert_int_eq(err.column, 4);
        ck_assert_str_eq(err.text, "ERROR: <input>:3:4: found no matching overload for '_+_' applied to '(int, string)'");
        ck_assert_int_eq(cel_compile(&p, STR("'\303\244\303\266' +"), &err), -EINVAL);
        ck_assert_int_eq(err.column, 7);
        ck_assert_int_eq(cel_compile(&p, str_n("a\377b", 3), &err), -EINVAL);
        ck_assert_ptr_nonnull(strstr(err.text, "not valid UTF-8"));
        ck_assert_ptr_null(p);
}
END_TEST

/* ---- limits ---- */

/* `open` n times, the middle, `close` n times. */
static const char *nested(const char *open, const char *middle, const char *close, int n)
{
        static char text[CEL_MAX_TEXT_BYTES * 2];
        size_t at = 0;
        for (int i = 0; i < n; i++)
                at += (size_t)sprintf(text + at, "%s", open);
        at += (size_t)sprintf(text + at, "%s", middle);
        for (int i = 0; i < n; i++)
                at += (size_t)sprintf(text + at, "%s", close);
        return text;
}

START_TEST(depth_is_limited)
{
        static const char *const forms[][3] = {{"(", "1", ")"},        {"[", "1", "]"},    {"{1: ", "1", "}"},   {"size(", "[1]", ")"},
                                               {"1 + (", "1", ")"},    {"true ? 1 : ", "1", ""}, {"[0][", "0", "]"}, {"!(", "true", ")"}};
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
                const char *have = result(nested(forms[i][0], forms[i][1], forms[i][2], 4000), event);
                ck_assert_msg(strstr(have, "nested too deeply"), "%s: %s", forms[i][0], have);
                have = result(nested(forms[i][0], forms[i][1], forms[i][2], 200), event);
                ck_assert_msg(!strstr(have, "nested too deeply"), "%s: %s", forms[i][0], have);
        }
        ck_assert(fits(result(nested("(", "1", ")", 400), event), "1"));
        ck_assert(fits(result(nested("", "true", " && true", 3000), event), "true"));
        ck_assert(fits(result(nested("", "1", " + 1", 3000), event), "3001"));
        ck_assert(fits(result(nested("!", "true", "", 3000), event), "true"));
        ck_assert(fits(result(nested("", "event", ".a", 3000), event), "! no such key: a"));
}
END_TEST

START_TEST(size_is_limited)
{
        static char text[CEL_MAX_TEXT_BYTES * 2];
        memset(text, ' ', sizeof text - 1);
        ck_assert_ptr_nonnull(strstr(result(text, event), "longer than 65536 bytes"));
        size_t at = (size_t)sprintf(text, "[1");
        for (int i = 0; i < CEL_MAX_STACK; i++)
                at += (size_t)sprintf(text + at, ",1");
        sprintf(text + at, "]");
        ck_assert_ptr_nonnull(strstr(result(text, event), "too many values at once"));
        at = (size_t)sprintf(text, "x");
        for (int i = 0; i < CEL_MAX_NAMES + 10; i++)
                at += (size_t)sprintf(text + at, "+n%d", i);
        ck_assert_ptr_nonnull(strstr(result(text, event), "too many different names"));
        at = (size_t)sprintf(text, "1");
        while (at < CEL_MAX_TEXT_BYTES - 10)
                at += (size_t)sprintf(text + at, "+1");
        ck_assert_ptr_nonnull(strstr(result(text, event), "too long"));
}
END_TEST

START_TEST(macros_inside_each_other_are_limited_in_number_and_time)
{
        const char *json = "[0,1,2,3,4,5,6,7,8,9]";
        ck_assert_ptr_nonnull(strstr(result(nested("[1].map(x, ", "x", ")", CEL_MAX_ITERS + 1), event), "too many macros"));
        ck_assert(fits(result(nested("[1].all(x, ", "x == 1", ")", CEL_MAX_ITERS), event), "true"));
        ck_assert(fits(result(nested("dyn(event).all(x, ", "true", ")", 8), json), "! the evaluation takes too long"));
        ck_assert(fits(result(nested("dyn(event).all(x, ", "true", ")", 3), json), "true"));
}
END_TEST

START_TEST(memory_is_limited)
{
        ck_assert(fits(result(nested("dyn(event).map(x, ", "string(x) + '0123456789'", ")", 5), "[0,1,2,3,4,5,6,7,8,9]"),
                       "! the evaluation needs too much memory"));
}
END_TEST

START_TEST(a_full_arena_ends_an_evaluation)
{
        struct arena a;
        struct cel_error err;
        struct cel_value v;
        struct cel *p;
        struct cel_var var = cel_var_json("event", str_of(event));
        ck_assert_int_eq(cel_compile(&p, STR("[1,2,3].map(x, string(x) + event.s).size() == 3 || true"), &err), 0);
        for (size_t cap = 1; cap < 8192; cap += 64) {
                arena_init(&a, cap);
                var.index = NULL;
                int r = cel_eval(p, &var, 1, &a, &v);
                ck_assert(r == 0 || r == -ENOMEM);
                arena_fini(&a);
        }
        cel_free(p);
}
END_TEST

static bool compile_and_run(void *arg)
{
        struct arena a = {0};
        struct cel_error err;
        struct cel_value v;
        struct cel *p;
        struct cel_var var = cel_var_json("event", str_of(event));
        int r = cel_compile(&p, str_of(arg), &err), e;
        if (r)
                return r == -ENOMEM;
        e = cel_eval(p, &var, 1, &a, &v);
        cel_free(p);
        arena_fini(&a);
        return e == 0 || e == -ENOMEM;
}

START_TEST(every_allocation_may_fail)
{
        static char *const exprs[] = {"event.l.map(x, {x: [x, 1]}).size() + size('a' + 'b') == 4 && event.u.matches('\\\\p{L}+|[^a-z]{2,3}')",
                                      "[[1], []] == [[1], [2]] ? {'a': event} == {'a': event} : 'x'.matches(event.type)"};
        for (size_t i = 0; i < sizeof exprs / sizeof *exprs; i++)
                ck_assert_int_gt(fault_each(compile_and_run, exprs[i]), 3);
}
END_TEST

/* ---- stack ---- */

static size_t used_by_one, used_by_all;

static void one_fiber(void *arg)
{
        fiber_sleep(0);
        used_by_one = fiber_stack_used();
}

static void all_fiber(void *arg)
{
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
                result(vectors[i].expr, event);
        result(nested("(1 + ", "1", ")", 200), event);
        result("[[[[[[[[[[[[1]]]]]]]]]]]] == [[[[[[[[[[[[2]]]]]]]]]]]]", event);
        used_by_all = fiber_stack_used();
}

static void compare_stacks(void *arg)
{
        struct scope s;
        scope_init(&s);
        fiber_go(&s, "one", one_fiber, NULL);
        scope_join(&s);
        fiber_go(&s, "all", all_fiber, NULL);
        scope_join(&s);
}

START_TEST(a_fiber_has_stack_enough)
{
        on_loop(compare_stacks);
        ck_assert_uint_lt(used_by_all, FIBER_STACK_BYTES / 2);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("cel");
        TCase *t = tcase_create("cel");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, every_vector_comes_to_what_the_reference_makes_of_it);
        tcase_add_test(t, a_member_that_stands_twice_counts_as_its_last);
        tcase_add_test(t, members_that_nobody_selects_are_not_converted);
        tcase_add_test(t, one_variable_serves_several_rules_without_being_read_again);
        tcase_add_test(t, json_that_is_none_is_an_error_of_the_evaluation);
        tcase_add_test(t, numbers_are_variables_for_breakers);
        tcase_add_test(t, rules_must_come_to_a_boolean);
        tcase_add_test(t, errors_name_line_and_column_in_characters);
        tcase_add_test(t, depth_is_limited);
        tcase_add_test(t, size_is_limited);
        tcase_add_test(t, macros_inside_each_other_are_limited_in_number_and_time);
        tcase_add_test(t, memory_is_limited);
        tcase_add_test(t, a_full_arena_ends_an_evaluation);
        tcase_add_test(t, every_allocation_may_fail);
        tcase_add_test(t, a_fiber_has_stack_enough);
        suite_add_tcase(s, t);
        return run_suite(s);
}
