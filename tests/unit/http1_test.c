/* HTTP/1 heads and bodies from bytes, cut at every place. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/net/http1.h"

static struct arena arena;

/* Scans as if the bytes came one by one, then parses. > 0 = bytes of the head. */
static ssize_t read_head(struct http1_head *h, struct str in, bool response)
{
        size_t scanned = 0;
        *h = (struct http1_head){.response = response};
        for (size_t n = 0; n <= in.n; n++) {
                ssize_t r = http1_head_scan(str_n(in.p, n), &scanned, 8192);
                if (r < 0)
                        return r;
                if (r > 0) {
                        size_t whole = 0;
                        ck_assert_int_eq(r, http1_head_scan(in, &whole, 8192));
                        int e = http1_head_parse(h, &arena, arena_str(&arena, str_n(in.p, (size_t)r)));
                        return e ? e : r;
                }
        }
        return 0;
}

START_TEST(request_head_is_read)
{
        struct http1_head h;
        struct str in = STR("POST /v1.0/state/s%20t?x=1&y HTTP/1.1\r\nHost: localhost:3500\r\nContent-Length:  12 \r\n"
                            "X-Empty:\r\nx-two: a  b\t\r\n\r\nbody");
        ck_assert_int_eq(read_head(&h, in, false), (ssize_t)in.n - 4);
        ck_assert(str_eqz(h.method, "POST") && str_eqz(h.target, "/v1.0/state/s%20t?x=1&y"));
        ck_assert(h.version == 11 && h.content_length == 12 && !h.chunked && h.keep_alive);
        ck_assert(str_eqz(h.host, "localhost:3500"));
        ck_assert_uint_eq(h.headers.n, 4);
        ck_assert(str_eqz(http_headers_get(&h.headers, "x-empty"), ""));
        ck_assert(str_eqz(http_headers_get(&h.headers, "X-Two"), "a  b"));
}
END_TEST

START_TEST(keep_alive_upgrade_and_expect)
{
        static const struct {
                const char *text;
                bool keep, upgrade, expect, chunked;
        } rows[] = {
                {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, false},
                {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", false, false, false, false},
                {"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, close\r\n\r\n", false, false, false, false},
                {"GET / HTTP/1.0\r\n\r\n", false, false, false, false},
                {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false, false, false},
                {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", true, true, false, false},
                {"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", true, false, true, false},
                {"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", true, false, false, true},
                {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, false},
                {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, false},
                {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, false},
                {"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, false},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                struct http1_head h;
                ck_assert_msg(read_head(&h, str_of(rows[i].text), false) == (ssize_t)strlen(rows[i].text), "%s", rows[i].text);
                ck_assert_msg(h.keep_alive == rows[i].keep && h.upgrade == rows[i].upgrade && h.expect_continue == rows[i].expect &&
                                      h.chunked == rows[i].chunked, "%s", rows[i].text);
        }
}
END_TEST

START_TEST(a_line_of_another_protocol_is_told_from_a_bad_request)
{
        static const struct {
                bool foreign;
                const char *text;
        } rows[] = {
                {true, "INVALID CONNECTION PREFACE\r\n\r\n"},
                {true, "a b c d\r\n\r\n"},
                {false, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
                {false, "GET / FTP/1.0\r\n\r\n"},
                {false, "CONNECT a:80 X\r\n\r\n"},
                {false, "PRI * X\r\n\r\n"},
                {false, "GET x HTTP/1.1\r\n\r\n"},
                {false, "GET x http1\r\n\r\n"},
                {false, "GET x  HTTP/1.1\r\n\r\n"},
                {false, "GET x \r\n\r\n"},
                {false, "GET  x\r\n\r\n"},
                {false, "GET x\r\n\r\n"},
                {false, "\r\na b c\r\n\r\n"},
                {false, "\r\n"},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                ck_assert_msg(http1_is_foreign(str_of(rows[i].text)) == rows[i].foreign, "%s", rows[i].text);
}
END_TEST

START_TEST(ambiguous_requests_are_refused)
{
        static const struct {
                int refuse; /* 0 = by the scan */
                const char *text;
        } rows[] = {
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"},
                {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
                {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
                {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"},
                {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0b" "chunked\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nContent Length: 1\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"},
                {400, "POST / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n"},
                {400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\001b\r\n\r\n"},
                {0, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"},
                {0, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
                {0, "GET / HTTP/1.1\r\nHost: a\r\n\tfolded\r\n\r\n"},
                {0, "GET / HTTP/1.1\nHost: a\n\n"},
                {0, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"},
                {0, "GET / HTTP/1.1\r\nHost: a\r\nX: a\n\r\n"},
                {0, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n"},
                {400, "GET / HTTP/1.1\r\n\r\n"},
                {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
                {400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
                {400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
                {400, "GET /\r\n\r\n"},
                {400, "GET\r\n\r\n"},
                {400, "get / HTTP/1.1\r\nHost: a\r\n\r\n"},
                {400, "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n"},
                {400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"},
                {400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"},
                {400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
                {400, "SETUP rtsp://a/b RTSP/1.0\r\nHost: a\r\n\r\n"},
                {400, "SOURCE /a ICE/1.0\r\nHost: a\r\n\r\n"},
                {400, "\x16\x03\x01\x02\r\n\r\n"},
                {505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"},
                {505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"},
                {505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"},
                {400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"},
                {417, "GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n"},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                struct http1_head h;
                ck_assert_msg(read_head(&h, str_of(rows[i].text), false) == -EBADMSG, "%s", rows[i].text);
                ck_assert_msg(h.refuse == rows[i].refuse, "%d: %s", h.refuse, rows[i].text);
        }
}
END_TEST

START_TEST(head_limits)
{
        struct http1_head h;
        struct buf b = {0};
        buf_addz(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
        while (buf_len(&b) < 8192 - 4)
                buf_addc(&b, 'x');
        buf_addz(&b, "\r\n\r\n");
        ck_assert_int_eq(read_head(&h, buf_str(&b), false), 8192);
        b.len -= 4;
        buf_addz(&b, "x\r\n\r\n");
        ck_assert_int_eq(read_head(&h, buf_str(&b), false), -EMSGSIZE);
        buf_clear(&b);
        buf_addz(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (int i = 0; i < HTTP1_MAX_HEADERS - 1; i++)
                buf_addz(&b, "a: b\r\n");
        size_t n = buf_len(&b);
        buf_addz(&b, "\r\n");
        ck_assert_int_gt(read_head(&h, buf_str(&b), false), 0);
        b.len = n;
        buf_addz(&b, "a: b\r\n\r\n");
        ck_assert_int_eq(read_head(&h, buf_str(&b), false), -EBADMSG);
        ck_assert_int_eq(h.refuse, 431);
        buf_fini(&b);
}
END_TEST

START_TEST(response_heads)
{
        struct http1_head h;
        struct str ok = STR("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        ck_assert_int_eq(read_head(&h, ok, true), (ssize_t)ok.n);
        ck_assert(h.status == 200 && h.content_length == 5 && h.keep_alive);
        ck_assert_int_eq(http1_body_of_response(&h, STR("GET")), HTTP1_BODY_LENGTH);
        ck_assert_int_eq(http1_body_of_response(&h, STR("HEAD")), HTTP1_BODY_NONE);
        struct str bare = STR("HTTP/1.0 404\r\nConnection: keep-alive\r\n\r\n");
        ck_assert_int_eq(read_head(&h, bare, true), (ssize_t)bare.n);
        ck_assert(h.status == 404 && h.version == 10 && h.keep_alive);
        ck_assert_int_eq(http1_body_of_response(&h, STR("GET")), HTTP1_BODY_TO_END);
        struct str up = STR("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        ck_assert_int_eq(read_head(&h, up, true), (ssize_t)up.n);
        struct str chunked = STR("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        ck_assert_int_eq(read_head(&h, chunked, true), (ssize_t)chunked.n);
        ck_assert(!h.keep_alive && http1_body_of_response(&h, STR("GET")) == HTTP1_BODY_CHUNKED);
        ck_assert_int_eq(read_head(&h, STR("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), true), -EBADMSG);
        ck_assert_int_eq(read_head(&h, STR("HTTP/1.1 20 OK\r\n\r\n"), true), -EBADMSG);
        ck_assert_int_eq(read_head(&h, STR("HTTP/1.1 200 OK\nContent-Length: 5\n\n"), true), -EBADMSG);
        ck_assert_int_eq(read_head(&h, STR("nonsense\r\n\r\n"), true), -EBADMSG);
}
END_TEST

/* Reads a body whose input comes in pieces of `step` bytes. 0 or the error; what is left over in *ret_left. */
static int read_body(enum http1_body_kind kind, uint64_t length, struct str in, size_t step, size_t room, struct buf *out,
                     struct http_headers *trailers, size_t *ret_left)
{
        struct http1_body b;
        struct buf inbuf = {0};
        char piece[64];
        int r = 0;
        http1_body_init(&b, kind, length, &arena);
        for (size_t at = 0; !b.done;) {
                ssize_t n = http1_body_read(&b, &inbuf, piece, room);
                if (n > 0) {
                        buf_add(out, piece, (size_t)n);
                } else if (n == -EAGAIN && at < in.n) {
                        size_t more = in.n - at < step ? in.n - at : step;
                        buf_add(&inbuf, in.p + at, more);
                        at += more;
                } else if (n < 0) {
                        r = (int)n;
                        break;
                }
                if (b.done)
                        *ret_left = in.n - at + buf_len(&inbuf);
        }
        if (trailers)
                *trailers = b.trailers;
        buf_fini(&inbuf);
        return r;
}

START_TEST(chunked_bodies_are_read_cut_anywhere)
{
        struct str in = STR("5\r\nhello\r\n06;name=\"v\"\r\n world\r\nA ;x\r\n0123456789\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nGET");
        for (size_t step = 1; step < 12; step++)
                for (size_t room = 1; room < 12; room++) {
                        struct buf out = {0};
                        struct http_headers t;
                        size_t left = 99;
                        ck_assert_int_eq(read_body(HTTP1_BODY_CHUNKED, 0, in, step, room, &out, &t, &left), 0);
                        ck_assert(str_eqz(buf_str(&out), "hello world0123456789"));
                        ck_assert_uint_eq(left, 3);
                        ck_assert_uint_eq(t.n, 1);
                        ck_assert(str_eqz(http_headers_get(&t, "x-sum"), "1"));
                        buf_fini(&out);
                }
}
END_TEST

START_TEST(bad_chunks_are_refused)
{
        static const char *const bad[] = {
                "\r\n", "g\r\n", "-1\r\nx\r\n", "+1\r\nx\r\n", "0x1\r\nx\r\n", " 1\r\nx\r\n", "1\nx\r\n0\r\n\r\n", "1\r\nxy\r\n", "1\r\nx\n0\r\n\r\n",
                "1\r\nx\rX", "1 2\r\nx", "10000000000000000\r\n", "fffffffffffffffff\r\n", "1;a\001\r\nx", "1\r\r\nx", "0\r\nfoo\r\n\r\n",
                "0\r\na b: c\r\n\r\n", "0\r\n a: c\r\n\r\n", "0\r\na: \001\r\n\r\n", "0\r\na: b\n\r\n", "0\r\n: b\r\n\r\n",
        };
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                for (size_t step = 1; step < 4; step++) {
                        struct buf out = {0};
                        size_t left;
                        ck_assert_msg(read_body(HTTP1_BODY_CHUNKED, 0, str_of(bad[i]), step, 8, &out, NULL, &left) == -EBADMSG, "%s",
                                      bad[i]);
                        buf_fini(&out);
                }
        /* size lines and trailers are bounded */
        struct buf in = {0}, out = {0};
        size_t left;
        buf_addz(&in, "1;");
        while (buf_len(&in) < HTTP1_MAX_CHUNK_LINE)
                buf_addc(&in, 'x');
        ck_assert_int_eq(read_body(HTTP1_BODY_CHUNKED, 0, buf_str(&in), 1, 8, &out, NULL, &left), -EBADMSG);
        buf_clear(&in);
        buf_addz(&in, "0\r\n");
        while (buf_len(&in) < 2 * HTTP1_MAX_TRAILER_BYTES)
                buf_addz(&in, "a: b\r\n");
        ck_assert_int_eq(read_body(HTTP1_BODY_CHUNKED, 0, buf_str(&in), 100, 8, &out, NULL, &left), -EBADMSG);
        buf_fini(&in);
        buf_fini(&out);
}
END_TEST

START_TEST(truncated_bodies_wait_for_more)
{
        struct str in = STR("5\r\nhello\r\n0\r\n\r\n");
        for (size_t n = 0; n < in.n; n++) {
                struct buf out = {0};
                size_t left;
                ck_assert_int_eq(read_body(HTTP1_BODY_CHUNKED, 0, str_n(in.p, n), 3, 8, &out, NULL, &left), -EAGAIN);
                buf_fini(&out);
        }
        struct buf out = {0};
        size_t left = 99;
        ck_assert_int_eq(read_body(HTTP1_BODY_LENGTH, 5, STR("hell"), 2, 8, &out, NULL, &left), -EAGAIN);
        buf_clear(&out);
        ck_assert_int_eq(read_body(HTTP1_BODY_LENGTH, 5, STR("helloGET"), 3, 8, &out, NULL, &left), 0);
        ck_assert(str_eqz(buf_str(&out), "hello"));
        ck_assert_uint_eq(left, 3);
        ck_assert_int_eq(read_body(HTTP1_BODY_LENGTH, 0, STR("x"), 3, 8, &out, NULL, &left), 0);
        buf_fini(&out);
}
END_TEST

START_TEST(written_headers_cannot_break_out)
{
        struct buf b = {0};
        http1_put_header(&b, STR("X-A"), STR("a\r\nX-B: c"));
        http1_put_header(&b, STR("X B"), STR("left out"));
        http1_put_header(&b, STR(""), STR("left out"));
        http1_put_header(&b, STR("X\r\nY"), STR("left out"));
        http1_put_header(&b, STR("X-C"), STR_NULL);
        http1_put_uint(&b, 0);
        http1_put_uint(&b, UINT64_MAX);
        http1_put_chunk_size(&b, 0);
        http1_put_chunk_size(&b, 0x1f0);
        ck_assert(str_eqz(buf_str(&b), "X-A: a  X-B: c\r\nX-C: \r\n0184467440737095516150\r\n1f0\r\n"));
        buf_fini(&b);
        struct str d = http1_date_line();
        ck_assert(str_has_prefix(d, STR("Date: ")) && str_has_suffix(d, STR(" GMT\r\n")) && d.n == 37);
}
END_TEST

START_TEST(small_arenas_fail_cleanly)
{
        struct str in = STR("GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n\r\n");
        for (size_t cap = 1; cap < 512; cap += 16) {
                struct arena small;
                struct http1_head h = {0};
                arena_init(&small, cap);
                int r = http1_head_parse(&h, &small, in);
                ck_assert(r == 0 || r == -ENOMEM);
                arena_fini(&small);
        }
}
END_TEST

int main(void)
{
        Suite *s = suite_create("http1");
        TCase *t = tcase_create("http1");
        arena_init(&arena, 0);
        tcase_add_test(t, request_head_is_read);
        tcase_add_test(t, keep_alive_upgrade_and_expect);
        tcase_add_test(t, a_line_of_another_protocol_is_told_from_a_bad_request);
        tcase_add_test(t, ambiguous_requests_are_refused);
        tcase_add_test(t, head_limits);
        tcase_add_test(t, response_heads);
        tcase_add_test(t, chunked_bodies_are_read_cut_anywhere);
        tcase_add_test(t, bad_chunks_are_refused);
        tcase_add_test(t, truncated_bodies_wait_for_more);
        tcase_add_test(t, written_headers_cannot_break_out);
        tcase_add_test(t, small_arenas_fail_cleanly);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        arena_fini(&arena);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
