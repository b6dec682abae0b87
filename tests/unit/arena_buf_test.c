/* arena.h, buf.h, str.h and list.h */
#include <stdint.h>
#include <stdio.h>

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/list.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

START_TEST(arena_allocations_are_aligned_and_apart)
{
        struct arena a;
        char *last = NULL;
        arena_init(&a, 0);
        for (size_t n = 0; n < 3000; n += 7) {
                char *p = arena_alloc(&a, n);
                ck_assert_ptr_nonnull(p);
                ck_assert_uint_eq((uintptr_t)p % 16, 0);
                ck_assert_ptr_ne(p, last);
                memset(p, 0xa5, n);
                last = p;
        }
        arena_fini(&a);
        arena_fini(&a);
}
END_TEST

START_TEST(arena_cap_is_the_quota)
{
        struct arena a;
        arena_init(&a, 1000);
        ck_assert_ptr_nonnull(arena_alloc(&a, 900));
        ck_assert(!a.exhausted);
        ck_assert_ptr_null(arena_alloc(&a, 200));
        ck_assert(a.exhausted);
        ck_assert_uint_le(a.used_bytes, 1000);
        ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX));
        ck_assert_ptr_null(arena_strdup(&a, str_n("x", SIZE_MAX - 1)));
        arena_reset(&a);
        ck_assert(!a.exhausted);
        ck_assert_ptr_nonnull(arena_alloc(&a, 900));
        arena_fini(&a);
}
END_TEST

START_TEST(arena_grow_keeps_the_bytes)
{
        struct arena a;
        arena_init(&a, 0);
        char *p = arena_strdup(&a, STR("hello"));
        char *q = arena_grow(&a, p, 6, 100);
        ck_assert_ptr_eq(p, q);
        arena_alloc(&a, 1);
        q = arena_grow(&a, p, 100, 5000);
        ck_assert_ptr_ne(p, q);
        ck_assert_str_eq(q, "hello");
        arena_fini(&a);
}
END_TEST

START_TEST(arena_reset_keeps_one_block)
{
        struct arena a;
        arena_init(&a, 0);
        for (int i = 0; i < 100; i++)
                arena_alloc(&a, 5000);
        arena_reset(&a);
        ck_assert_uint_eq(a.used_bytes, 0);
        void *block = a.head;
        ck_assert_ptr_nonnull(block);
        arena_alloc(&a, 16);
        ck_assert_ptr_eq(a.head, block);
        arena_fini(&a);
}
END_TEST

START_TEST(buf_adds_and_consumes)
{
        struct buf b = {0};
        static char want[10000], got[10000];
        size_t n = 0;
        for (int i = 0; i < 10000; i++)
                want[i] = (char)('a' + i % 26);
        for (size_t i = 0; i < 10000;) {
                size_t add = i % 97 + 1 < 10000 - i ? i % 97 + 1 : 10000 - i, take = add / 2;
                ck_assert_int_eq(buf_add(&b, want + i, add), 0);
                i += add;
                memcpy(got + n, buf_str(&b).p, take);
                buf_consume(&b, take);
                n += take;
        }
        memcpy(got + n, buf_str(&b).p, buf_len(&b));
        n += buf_len(&b);
        ck_assert_uint_eq(n, 10000);
        ck_assert_mem_eq(got, want, n);
        buf_consume(&b, SIZE_MAX);
        ck_assert_uint_eq(buf_len(&b), 0);
        buf_fini(&b);
        ck_assert_uint_eq(buf_str(&b).n, 0);
}
END_TEST

START_TEST(buf_refuses_what_cannot_fit)
{
        struct buf b = {0};
        ck_assert_int_eq(buf_addz(&b, "x"), 0);
        ck_assert_int_eq(buf_reserve(&b, SIZE_MAX), -ENOMEM);
        ck_assert(b.failed);
        ck_assert(str_eqz(buf_str(&b), "x"));
        buf_fini(&b);
}
END_TEST

START_TEST(str_cut_gives_every_part)
{
        const char *want[] = {"a", "", "b", ""};
        int i = 0;
        struct str rest = STR("a,,b,");
        for (struct str t; rest.p;) {
                t = str_cut(&rest, ',');
                ck_assert(str_eqz(t, want[i++]));
        }
        ck_assert_int_eq(i, 4);
}
END_TEST

START_TEST(str_int_is_the_decimal_text)
{
        static const int v[] = {0, 7, 200, -1, 2147483647, -2147483647 - 1};
        for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
                char room[12], want[12];
                struct str s = str_int(room, v[i]);
                snprintf(want, sizeof(want), "%d", v[i]);
                ck_assert_str_eq(s.p, want);
                ck_assert_uint_eq(s.n, strlen(want));
        }
}
END_TEST

START_TEST(arena_printf_takes_any_length)
{
        struct arena a;
        arena_init(&a, 0);
        for (int n = 250; n < 262; n++) {
                char *p = arena_printf(&a, "%0*d", n, 1);
                ck_assert_uint_eq(strlen(p), (size_t)n);
                ck_assert_int_eq(p[n - 1], '1');
        }
        arena_fini(&a);
}
END_TEST

START_TEST(list_del_twice_is_harmless)
{
        struct list h, a, b;
        list_init(&h);
        ck_assert(list_is_empty(&h));
        list_add_tail(&h, &a);
        list_add_tail(&h, &b);
        list_del(&a);
        list_del(&a);
        ck_assert_ptr_eq(h.next, &b);
        list_del(&b);
        ck_assert(list_is_empty(&h));
}
END_TEST

static bool use_arena(void *arg)
{
        struct arena a;
        arena_init(&a, 0);
        bool all = true;
        for (int i = 0; i < 50; i++)
                all &= arena_zalloc(&a, (size_t)i * 100) != NULL;
        char *p = arena_printf(&a, "%d", 7), *q = p ? arena_grow(&a, p, 2, 70000) : NULL;
        bool ok = a.exhausted == !(all && p && q);
        arena_fini(&a);
        return ok;
}

static bool use_buf(void *arg)
{
        struct buf b = {0};
        size_t n = 0;
        for (int i = 0; i < 200; i++)
                n += buf_printf(&b, "%08d", i) == 0 ? 8 : 0;
        bool ok = buf_len(&b) == n && b.failed == (n != 1600);
        buf_fini(&b);
        return ok;
}

START_TEST(failed_allocations_are_reported_and_nothing_is_lost)
{
        ck_assert_int_ge(fault_each(use_arena, NULL), 3);
        ck_assert_int_ge(fault_each(use_buf, NULL), 3);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("arena_buf");
        TCase *t = tcase_create("arena_buf");
        tcase_add_test(t, arena_allocations_are_aligned_and_apart);
        tcase_add_test(t, arena_cap_is_the_quota);
        tcase_add_test(t, arena_grow_keeps_the_bytes);
        tcase_add_test(t, arena_reset_keeps_one_block);
        tcase_add_test(t, buf_adds_and_consumes);
        tcase_add_test(t, buf_refuses_what_cannot_fit);
        tcase_add_test(t, str_cut_gives_every_part);
        tcase_add_test(t, str_int_is_the_decimal_text);
        tcase_add_test(t, arena_printf_takes_any_length);
        tcase_add_test(t, list_del_twice_is_harmless);
        tcase_add_test(t, failed_allocations_are_reported_and_nothing_is_lost);
        suite_add_tcase(s, t);
        return run_suite(s);
}
