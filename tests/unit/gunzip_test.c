/* Unpacking of gzip bodies: cut anywhere, member after member, and what is no gzip. */
#include "sdk/net/gunzip.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "tests/unit/fault.h"

static char packed[1 << 16], plain[1 << 16];

/* One member in gzip of n bytes, at packed + at. Gives the end. */
static size_t pack(size_t at, const char *p, size_t n)
{
        z_stream z = {0};

        ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        z.next_in = (Bytef *)(uintptr_t)p;
        z.avail_in = (unsigned)n;
        z.next_out = (Bytef *)packed + at;
        z.avail_out = (unsigned)(sizeof packed - at);
        ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
        at = sizeof packed - z.avail_out;
        deflateEnd(&z);
        return at;
}

/* All of `in` in pieces of `step`, unpacked into plain in pieces of `room`: bytes, or the error. *whole: it may end there. */
static ssize_t unpack(struct str in, size_t step, size_t room, bool *whole)
{
        struct gunzip *g;
        ssize_t n = 0, r = 0;

        ck_assert_int_eq(gunzip_new(&g), 0);
        while (in.n && r >= 0) {
                struct str piece = str_n(in.p, in.n < step ? in.n : step);
                in = str_skip(in, piece.n);
                while ((r = gunzip_read(g, &piece, plain + n, room)) > 0)
                        n += r;
                ck_assert(r < 0 || !piece.n);
        }
        *whole = gunzip_is_whole(g);
        gunzip_free(g);
        return r < 0 ? r : n;
}

START_TEST(members_come_out_whole_cut_anywhere)
{
        static const char text[] = "a text that is not short, a text that is not short, and another";
        size_t n = pack(pack(0, text, sizeof text), text, 10), want = sizeof text + 10;
        bool whole;

        for (size_t step = 1; step <= n; step++)
                for (size_t room = 1; room <= want + 1; room += 5) {
                        ck_assert_int_eq(unpack(str_n(packed, n), step, room, &whole), (ssize_t)want);
                        ck_assert(whole && !memcmp(plain, text, sizeof text) && !memcmp(plain + sizeof text, text, 10));
                }
        n = pack(0, "", 0);
        ck_assert_int_eq(unpack(str_n(packed, n), 3, 10, &whole), 0);
        ck_assert(whole);
        ck_assert_int_eq(unpack(STR(""), 1, 1, &whole), 0);
        ck_assert(whole);
}
END_TEST

START_TEST(what_is_cut_short_is_not_whole)
{
        size_t n = pack(0, "some text", 9);
        bool whole;

        for (size_t end = 1; end < n; end++) {
                ck_assert_int_ge(unpack(str_n(packed, end), end, 100, &whole), 0);
                ck_assert(!whole);
        }
}
END_TEST

START_TEST(what_is_no_gzip_is_refused)
{
        static const char *const texts[] = {"not gzip", "\x1f\x8b\x09 odd method", "\x78\x9c zlib's own"};
        size_t n = pack(0, "some text", 9);
        bool whole;

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                ck_assert_int_eq(unpack(str_of(texts[i]), 1, 100, &whole), -EBADMSG);
        memcpy(packed + n, "more", 4);
        ck_assert_int_eq(unpack(str_n(packed, n + 4), 1, 100, &whole), -EBADMSG);
        packed[n - 5] ^= 1; /* the sum */
        ck_assert_int_eq(unpack(str_n(packed, n), n, 100, &whole), -EBADMSG);
}
END_TEST

START_TEST(a_bomb_gives_no_more_than_is_asked_for)
{
        static char zeros[1 << 20];
        size_t n = pack(0, zeros, sizeof zeros), total = 0;
        struct str in = str_n(packed, n);
        struct gunzip *g;
        ssize_t r;

        ck_assert_uint_lt(n, 2000);
        ck_assert_int_eq(gunzip_new(&g), 0);
        while ((r = gunzip_read(g, &in, plain, 1000)) > 0) {
                ck_assert_int_le(r, 1000);
                total += (size_t)r;
        }
        ck_assert_uint_eq(total, sizeof zeros);
        ck_assert(!r && gunzip_is_whole(g));
        gunzip_free(g);
}
END_TEST

static bool made_or_not(void *arg)
{
        struct gunzip *g = NULL;
        int r = gunzip_new(&g);

        gunzip_free(g);
        return r == 0 || r == -ENOMEM;
}

START_TEST(without_memory_it_says_so)
{
        ck_assert_int_ge(fault_each(made_or_not, NULL), 1);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("gunzip");
        TCase *t = tcase_create("gunzip");
        SRunner *r;
        int failed;

        tcase_add_test(t, members_come_out_whole_cut_anywhere);
        tcase_add_test(t, what_is_cut_short_is_not_whole);
        tcase_add_test(t, what_is_no_gzip_is_refused);
        tcase_add_test(t, a_bomb_gives_no_more_than_is_asked_for);
        tcase_add_test(t, without_memory_it_says_so);
        suite_add_tcase(s, t);
        r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
