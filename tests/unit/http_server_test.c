/* The HTTP server against a client that writes raw bytes, good and bad. */
#include "tests/unit/net_test.h"

#include <stdio.h>
#include <string.h>

#include "sdk/net/http1.h"
#include "sdk/net/http2.h"
#include "sdk/net/http_server.h"

static struct {
        struct http_server *s;
        char target[32];
        int started, ended, cancelled, last_error;
        int64_t body_bytes;
        uint64_t written;
        char path[64], query[64], authority[64], method[16], peer[64];
        bool hold;
        struct cond go;
} T;

static const struct http_header text_plain = {STR("Content-Type"), STR("text/plain")};

static void answer_body(struct http_req *r)
{
        struct str body;
        int e = http_req_body(r, &body);
        T.last_error = e;
        if (e == -EMSGSIZE)
                http_resp_send(r, 413, NULL, 0, STR("too large"));
        else if (e == -EBADMSG)
                http_resp_send(r, 400, NULL, 0, STR("bad"));
        else if (!e)
                http_resp_send(r, 200, &text_plain, 1, body);
}

static void flood(struct http_req *r)
{
        static char block[16384];
        int e = http_resp_begin(r, 200, NULL, 0, -1);
        while (!e && T.written < 64 << 20) {
                e = http_resp_write(r, str_n(block, sizeof(block)));
                T.written = r->bytes_out;
        }
        T.last_error = e;
        if (!e)
                http_resp_end(r, NULL, 0);
}

static void stream(struct http_req *r)
{
        const struct http_header trailers[] = {{STR("X-Sum"), STR("42")}, {STR("Content-Length"), STR("7")}};
        http_resp_begin(r, 200, &text_plain, 1, -1);
        http_resp_write(r, STR("one"));
        http_resp_write(r, STR(""));
        http_resp_write(r, STR("two"));
        http_resp_end(r, trailers, 2);
}

static void handle(struct http_req *r, void *arg)
{
        T.started++;
        snprintf(T.path, sizeof(T.path), "%.*s", STR_FMT(r->path));
        snprintf(T.query, sizeof(T.query), "%.*s", STR_FMT(r->query));
        snprintf(T.authority, sizeof(T.authority), "%.*s", STR_FMT(r->authority));
        snprintf(T.method, sizeof(T.method), "%.*s", STR_FMT(r->method));
        if (str_eqz(r->path, "/echo")) {
                answer_body(r);
        } else if (str_eqz(r->path, "/hold")) {
                int e = 0;
                while (T.hold && !e)
                        e = cond_wait(&T.go);
                fiber_sleep(0.01); /* the connection may be gone by now, the request is not */
                snprintf(T.peer, sizeof(T.peer), "%s", r->peer);
                T.cancelled += e == -ECANCELED;
                T.last_error = e;
                if (!e)
                        http_resp_send(r, 200, &text_plain, 1, STR("held"));
        } else if (str_eqz(r->path, "/flood")) {
                flood(r);
        } else if (str_eqz(r->path, "/stream")) {
                stream(r);
        } else if (str_eqz(r->path, "/cookie")) {
                http_resp_send(r, 200, NULL, 0, http_headers_get(&r->headers, "Cookie"));
        } else if (str_eqz(r->path, "/none")) {
                /* answers nothing */
        } else if (str_eqz(r->path, "/half")) {
                http_resp_begin(r, 200, NULL, 0, 100);
                http_resp_write(r, STR("half"));
        } else if (str_eqz(r->path, "/abort")) {
                http_resp_begin(r, 200, NULL, 0, -1);
                http_resp_write(r, STR("some"));
                http_resp_abort(r);
        } else if (str_eqz(r->path, "/over")) {
                http_resp_begin(r, 200, NULL, 0, 3);
                T.last_error = http_resp_write(r, STR("four"));
                http_resp_write(r, STR("two"));
                http_resp_end(r, NULL, 0);
                ck_assert_int_eq(http_resp_end(r, NULL, 0), -EINVAL);
                ck_assert_int_eq(http_resp_send(r, 200, NULL, 0, STR("")), -EINVAL);
        } else if (str_eqz(r->path, "/204")) {
                http_resp_send(r, 204, &text_plain, 1, STR("not sent"));
        } else if (str_eqz(r->path, "/304")) {
                const struct http_header h = {STR("content-length"), STR("77")};
                http_resp_send(r, 304, &h, 1, STR(""));
        } else if (str_eqz(r->path, "/inject")) {
                const struct http_header h[] = {{STR("X-A"), STR("b\r\nX-Evil: 1")}, {STR("Bad Name"), STR("x")},
                                                {STR("Transfer-Encoding"), STR("gzip")}, {STR("Content-Length"), STR("1")},
                                                {STR("date"), STR("then")}};
                http_resp_send(r, 299, h, 5, STR("ok"));
        } else if (str_eqz(r->path, "/close")) {
                const struct http_header h = {STR("connection"), STR("close")};
                http_resp_send(r, 200, &h, 1, STR("bye"));
        } else {
                http_resp_send(r, 200, &text_plain, 1, STR("hello"));
        }
        T.ended++;
}

static struct http_server_conf conf(void)
{
        return (struct http_server_conf){.name = "test", .handler = handle};
}

static void serve(struct http_server_conf c)
{
        memset(&T, 0, sizeof(T));
        cond_init(&T.go);
        ck_assert_int_eq(http_server_new(&T.s, &c), 0);
        ck_assert_int_eq(http_server_listen(T.s, STR("127.0.0.1:0")), 0);
        snprintf(T.target, sizeof(T.target), "127.0.0.1:%d", http_server_port(T.s));
}

static void stop(void)
{
        http_server_stop(T.s, 0);
        http_server_free(T.s);
}

static struct conn *dial(void)
{
        struct conn *c;
        ck_assert_int_eq(conn_dial(str_of(T.target), &c), 0);
        return c;
}

static void put(struct conn *c, const char *text)
{
        ck_assert_int_eq(conn_write(c, text, strlen(text)), 0);
}

static bool more(struct conn *c)
{
        int r = conn_read(c);
        ck_assert(r == 1 || r == 0 || r == -ECONNRESET);
        return r == 1;
}

/* All until the end of the stream. */
static const char *rest_of(struct conn *c)
{
        while (more(c))
                ;
        buf_addc(&c->in, '\0');
        return c->in.p + c->in.off;
}

struct answer {
        int status;
        struct http_headers headers;
        char body[256];
        size_t n;
};
static struct arena answers;

/* Reads one response. Bodies longer than the buffer are counted only. */
static struct answer get_answer(struct conn *c, const char *method)
{
        struct answer a = {0};
        struct http1_head h = {.response = true};
        struct http1_body b;
        size_t scanned = 0;
        ssize_t n;
        while (!(n = http1_head_scan(buf_str(&c->in), &scanned, 65536)))
                ck_assert_msg(more(c), "connection ended");
        ck_assert_int_gt(n, 0);
        ck_assert_int_eq(http1_head_parse(&h, &answers, arena_str(&answers, str_n(c->in.p + c->in.off, (size_t)n))), 0);
        buf_consume(&c->in, (size_t)n);
        a.status = h.status;
        a.headers = h.headers;
        http1_body_init(&b, http1_body_of_response(&h, str_of(method)), (uint64_t)h.content_length, &answers);
        while (!b.done) {
                char piece[256];
                ssize_t got = http1_body_read(&b, &c->in, piece, sizeof(piece));
                if (got > 0 && a.n + (size_t)got < sizeof(a.body))
                        memcpy(a.body + a.n, piece, (size_t)got);
                if (got > 0)
                        a.n += (size_t)got;
                else if (got == -EAGAIN && !more(c))
                        break;
                else
                        ck_assert(got == 0 || got == -EAGAIN);
        }
        return a;
}

static struct answer ask(struct conn *c, const char *text)
{
        put(c, text);
        return get_answer(c, "GET");
}

static const char *header(const struct answer *a, const char *name)
{
        struct str v = http_headers_get(&a->headers, name);
        return v.p ? arena_strdup(&answers, v) : "(none)";
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: test\r\n\r\n"

ON_LOOP_TEST(a_request_is_answered_and_the_connection_kept)
{
        serve(conf());
        struct conn *c = dial();
        for (int i = 0; i < 3; i++) {
                struct answer a = ask(c, GET("/p%20q?x=1&y"));
                ck_assert_int_eq(a.status, 200);
                ck_assert_str_eq(a.body, "hello");
                ck_assert_str_eq(header(&a, "content-type"), "text/plain");
                ck_assert_str_eq(header(&a, "content-length"), "5");
                ck_assert_str_eq(header(&a, "connection"), "(none)");
                ck_assert_uint_eq(strlen(header(&a, "date")), 29);
        }
        ck_assert_str_eq(T.path, "/p%20q");
        ck_assert_str_eq(T.query, "x=1&y");
        ck_assert_str_eq(T.authority, "test");
        ask(c, "GET http://other:80?q HTTP/1.1\r\nHost: test\r\n\r\n");
        ck_assert_str_eq(T.path, "/");
        ck_assert_str_eq(T.query, "q");
        ck_assert_str_eq(T.authority, "other:80");
        ask(c, "OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
        ck_assert_str_eq(T.path, "*");
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_request_that_comes_byte_by_byte_is_understood)
{
        serve(conf());
        struct conn *c = dial();
        const char *text = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: v\r\n\r\n";
        for (; *text; text++) {
                conn_write(c, text, 1);
                ck_assert_int_eq(conn_flush(c), 0);
                fiber_sleep(0.0002);
        }
        struct answer a = get_answer(c, "POST");
        ck_assert_str_eq(a.body, "abcde");
        conn_free(c);
        stop();
}

ON_LOOP_TEST(pipelined_requests_are_answered_in_order)
{
        serve(conf());
        struct conn *c = dial();
        T.hold = true;
        put(c, GET("/hold") "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc" GET("/204") GET("/stream") GET("/"));
        WAIT_FOR(T.started == 1);
        fiber_sleep(0.02);
        ck_assert_int_eq(T.started, 1);
        T.hold = false;
        cond_broadcast(&T.go);
        ck_assert_str_eq(get_answer(c, "GET").body, "held");
        ck_assert_str_eq(get_answer(c, "GET").body, "abc");
        ck_assert_int_eq(get_answer(c, "GET").status, 204);
        ck_assert_str_eq(get_answer(c, "GET").body, "onetwo");
        ck_assert_str_eq(get_answer(c, "GET").body, "hello");
        /* many more than a turn takes */
        for (int i = 0; i < 2000; i++)
                put(c, GET("/"));
        for (int i = 0; i < 2000; i++)
                ck_assert_int_eq(get_answer(c, "GET").status, 200);
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_client_that_pipelines_and_leaves_gets_all_answers)
{
        serve(conf());
        struct conn *c = dial();
        put(c, GET("/") GET("/") GET("/stream"));
        conn_flush(c);
        shutdown(c->fd, SHUT_WR);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(get_answer(c, "GET").status, 200);
        ck_assert(!more(c));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(responses_without_a_body)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
        struct answer a = get_answer(c, "HEAD");
        ck_assert_str_eq(header(&a, "content-length"), "5");
        put(c, "HEAD /stream HTTP/1.1\r\nHost: t\r\n\r\n");
        a = get_answer(c, "HEAD");
        ck_assert_str_eq(header(&a, "transfer-encoding"), "(none)");
        a = ask(c, GET("/204"));
        ck_assert(a.status == 204 && a.n == 0);
        ck_assert_str_eq(header(&a, "content-length"), "(none)");
        put(c, GET("/304"));
        a = get_answer(c, "GET");
        ck_assert(a.status == 304 && a.n == 0);
        ck_assert_str_eq(header(&a, "content-length"), "77");
        ck_assert_str_eq(ask(c, GET("/")).body, "hello"); /* nothing was left in between */
        conn_free(c);
        stop();
}

ON_LOOP_TEST(streamed_responses_are_chunked_with_trailers)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "GET /stream HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        const char *all = rest_of(c);
        ck_assert_ptr_nonnull(strstr(all, "Transfer-Encoding: chunked\r\n"));
        ck_assert_ptr_nonnull(strstr(all, "Connection: close\r\n"));
        ck_assert_ptr_nonnull(strstr(all, "\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 42\r\n\r\n"));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(http_1_0_closes_unless_asked_and_is_not_chunked)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        struct answer a = get_answer(c, "GET");
        ck_assert_str_eq(header(&a, "connection"), "keep-alive");
        put(c, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        const char *all = rest_of(c);
        ck_assert_msg(str_has_prefix(str_of(all), STR("HTTP/1.0 200 OK\r\n")), "%s", all);
        ck_assert_ptr_nonnull(strstr(all, "\r\n\r\nonetwo"));
        ck_assert_ptr_null(strstr(all, "chunked"));
        conn_free(c);
        c = dial();
        put(c, "GET / HTTP/1.0\r\n\r\n");
        ck_assert_ptr_nonnull(strstr(rest_of(c), "\r\n\r\nhello"));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(the_caller_cannot_break_the_framing)
{
        serve(conf());
        struct conn *c = dial();
        struct answer a = ask(c, GET("/inject"));
        ck_assert_int_eq(a.status, 299);
        ck_assert_str_eq(header(&a, "x-a"), "b  X-Evil: 1");
        ck_assert_str_eq(header(&a, "x-evil"), "(none)");
        ck_assert_str_eq(header(&a, "transfer-encoding"), "(none)");
        ck_assert_str_eq(header(&a, "content-length"), "2");
        ck_assert_str_eq(header(&a, "date"), "then");
        ck_assert_str_eq(a.body, "ok");
        a = ask(c, GET("/over"));
        ck_assert_int_eq(T.last_error, -EMSGSIZE);
        ck_assert_str_eq(a.body, "two");
        a = ask(c, GET("/none"));
        ck_assert_int_eq(a.status, 500);
        a = ask(c, GET("/close"));
        ck_assert_str_eq(header(&a, "connection"), "close");
        ck_assert(!more(c));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(broken_responses_are_seen_as_broken)
{
        serve(conf());
        for (int i = 0; i < 2; i++) {
                struct conn *c = dial();
                put(c, i ? GET("/half") : GET("/abort"));
                const char *all = rest_of(c);
                ck_assert_ptr_null(strstr(all, "\r\n0\r\n\r\n"));
                conn_free(c);
        }
        stop();
}

/* What cannot be a request, and Go's answer to it. */
ON_LOOP_TEST(bad_requests_get_gos_answers)
{
        static const char *const rows[][2] = {
                {"nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"},
                {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request: missing required Host header\r\nContent-Type: text/plain; charset=utf-8\r\n"
                 "Connection: close\r\n\r\n400 Bad Request: missing required Host header"},
                {"GET / HTTP/3.0\r\nHost: t\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported: unsupported protocol version\r\nContent-Type: text/plain;"
                 " charset=utf-8\r\nConnection: close\r\n\r\n505 HTTP Version Not Supported: unsupported protocol version"},
                {"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; charset=utf-8\r\n"
                 "Connection: close\r\n\r\nUnsupported transfer encoding"},
                {"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
                {"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
                {"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcGET", "HTTP/1.1 400 Bad Request\r\n"},
                {"\x16\x03\x01\x01\xa5\x01\n", "HTTP/1.1 400 Bad Request\r\n"},
        };
        serve(conf());
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                struct conn *c = dial();
                put(c, rows[i][0]);
                const char *all = rest_of(c);
                ck_assert_msg(str_has_prefix(str_of(all), str_of(rows[i][1])), "%s gave %s", rows[i][0], all);
                if (i < 4)
                        ck_assert_str_eq(all, rows[i][1]);
                conn_free(c);
        }
        ck_assert_int_eq(T.started, 0);
        stop();
}

ON_LOOP_TEST(headers_are_limited_as_in_go)
{
        static char head[9000];
        serve(conf());
        for (int size = 8192; size <= 8193; size++) {
                struct conn *c = dial();
                int n = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: t\r\nX: ");
                memset(head + n, 'x', sizeof(head) - (size_t)n);
                memcpy(head + size - 4, "\r\n\r\n", 5);
                put(c, head);
                struct answer a = get_answer(c, "GET");
                ck_assert_int_eq(a.status, size == 8192 ? 200 : 431);
                if (size > 8192)
                        ck_assert_str_eq(a.body, "431 Request Header Fields Too Large");
                conn_free(c);
        }
        /* without an end, too */
        struct conn *c = dial();
        memset(head, 'x', sizeof(head));
        conn_write(c, head, 8192);
        ck_assert_int_eq(get_answer(c, "GET").status, 431);
        conn_free(c);
        stop();
}

ON_LOOP_TEST(bodies_are_read_and_limited)
{
        struct http_server_conf cf = conf();
        cf.max_body_bytes = 10;
        serve(cf);
        struct conn *c = dial();
        ck_assert_str_eq(ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n0123456789").body, "0123456789");
        ck_assert_str_eq(ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n").body,
                         "0123456789");
        ck_assert_str_eq(ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").body, "");
        struct answer a = ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n");
        ck_assert_int_eq(a.status, 413);
        ck_assert_str_eq(header(&a, "connection"), "close");
        ck_assert(!more(c));
        conn_free(c);
        c = dial();
        a = ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n");
        ck_assert_int_eq(a.status, 413);
        ck_assert(!more(c));
        conn_free(c);
        c = dial();
        a = ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
        ck_assert_int_eq(a.status, 400);
        ck_assert_int_eq(T.last_error, -EBADMSG);
        ck_assert(!more(c));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_large_body_passes_both_ways)
{
        static char block[3 << 20];
        char head[100];
        serve(conf());
        memset(block, 'x', sizeof(block));
        struct conn *c = dial();
        snprintf(head, sizeof(head), "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: %zu\r\n\r\n", sizeof(block));
        put(c, head);
        conn_write(c, block, sizeof(block));
        ck_assert_uint_eq(get_answer(c, "POST").n, sizeof(block));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_body_that_breaks_off_is_an_error)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n012");
        conn_flush(c);
        conn_free(c);
        WAIT_FOR(T.ended == 1);
        ck_assert(T.last_error == -ECONNRESET || T.last_error == -ECANCELED);
        stop();
}

ON_LOOP_TEST(expect_100_is_answered_at_the_first_read)
{
        serve(conf());
        struct conn *c = dial();
        struct answer a = ask(c, "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        ck_assert_int_eq(a.status, 100);
        ck_assert_str_eq(ask(c, "abc").body, "abc");
        /* no read, no body wanted: the final answer at once, and the connection cannot go on */
        a = ask(c, "POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        ck_assert_int_eq(a.status, 200);
        ck_assert_str_eq(header(&a, "connection"), "close");
        ck_assert(!more(c));
        conn_free(c);
        c = dial();
        ck_assert_int_eq(ask(c, "POST / HTTP/1.1\r\nHost: t\r\nExpect: 200-maybe\r\nContent-Length: 3\r\n\r\n").status, 417);
        conn_free(c);
        stop();
}

ON_LOOP_TEST(an_unread_body_is_skipped_or_ends_the_connection)
{
        static char block[300 * 1024];
        serve(conf());
        struct conn *c = dial();
        ck_assert_int_eq(ask(c, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nGET").status, 200);
        ck_assert_int_eq(ask(c, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n").status, 200);
        put(c, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
        struct answer a = get_answer(c, "POST");
        ck_assert_str_eq(header(&a, "connection"), "(none)");
        conn_write(c, block, 200000);
        ck_assert_int_eq(ask(c, GET("/")).status, 200);
        put(c, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 300000\r\n\r\n");
        conn_write(c, block, 300000);
        a = get_answer(c, "POST");
        ck_assert_int_eq(a.status, 200);
        ck_assert_str_eq(header(&a, "connection"), "close");
        ck_assert(!more(c));
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_client_that_goes_away_cancels_its_handler)
{
        serve(conf());
        T.hold = true;
        for (int i = 0; i < 2; i++) {
                struct conn *c = dial();
                put(c, i ? "POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n" : GET("/hold"));
                WAIT_FOR(T.started == i + 1);
                if (i) {
                        struct linger hard = {.l_onoff = 1};
                        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
                }
                conn_free(c);
                WAIT_FOR(T.cancelled == i + 1);
        }
        stop();
}

ON_LOOP_TEST(requests_are_pooled_up_to_a_limit_and_go_when_nobody_needs_them)
{
        enum { N = HTTP_POOLED_REQUESTS + 10 };
        static struct conn *c[N];

        serve(conf());
        T.hold = true;
        for (int i = 0; i < N; i++)
                put(c[i] = dial(), GET("/hold"));
        WAIT_FOR(T.started == N);
        T.hold = false;
        cond_broadcast(&T.go);
        for (int i = 0; i < N; i++) {
                ck_assert_str_eq(get_answer(c[i], "GET").body, "held");
                conn_free(c[i]);
        }
        ck_assert_uint_eq(T.s->spare.count, HTTP_POOLED_REQUESTS);
        WAIT_FOR(T.s->spare.count == HTTP_KEPT_REQUESTS);
        stop();
}

ON_LOOP_TEST(a_reader_that_stops_stops_the_handler)
{
        serve(conf());
        struct conn *c = dial();
        put(c, GET("/flood"));
        WAIT_FOR(T.written > 1 << 20);
        uint64_t seen = 0;
        while (seen != T.written) {
                seen = T.written;
                fiber_sleep(0.1);
        }
        ck_assert_uint_lt(seen, 32 << 20);
        ck_assert_int_eq(T.ended, 0);
        buf_clear(&c->in);
        while (T.written == seen && more(c))
                buf_clear(&c->in);
        conn_free(c);
        WAIT_FOR(T.ended == 1);
        ck_assert_int_lt(T.last_error, 0);
        stop();
}

ON_LOOP_TEST(slow_heads_and_idle_connections_are_closed)
{
        struct http_server_conf cf = conf();
        cf.header_timeout_s = 0.2;
        cf.idle_timeout_s = 0.4;
        serve(cf);
        double t0 = loop_now();
        struct conn *silent = dial(), *slow = dial(), *idle = dial();
        ck_assert_int_eq(ask(idle, GET("/")).status, 200);
        put(slow, "GET / HT");
        ck_assert(!more(silent));
        ck_assert(!more(slow));
        double t1 = loop_now() - t0;
        ck_assert(t1 > 0.15 && t1 < 0.35);
        ck_assert_int_eq(ask(idle, GET("/")).status, 200);
        t0 = loop_now();
        ck_assert(!more(idle));
        ck_assert(loop_now() - t0 > 0.35);
        /* a head that begins late has its own time */
        conn_free(idle);
        idle = dial();
        ck_assert_int_eq(ask(idle, GET("/")).status, 200);
        fiber_sleep(0.1);
        put(idle, "GET ");
        t0 = loop_now();
        ck_assert(!more(idle));
        ck_assert(loop_now() - t0 < 0.3);
        conn_free(silent);
        conn_free(slow);
        conn_free(idle);
        stop();
}

ON_LOOP_TEST(connections_over_the_limit_wait)
{
        struct http_server_conf cf = conf();
        cf.max_conns = 2;
        serve(cf);
        struct conn *a = dial(), *b = dial();
        ck_assert_int_eq(ask(a, GET("/")).status, 200);
        ck_assert_int_eq(ask(b, GET("/")).status, 200);
        struct conn *c = dial();
        put(c, GET("/"));
        fiber_sleep(0.1);
        ck_assert_int_eq(T.started, 2);
        conn_free(a);
        ck_assert_int_eq(get_answer(c, "GET").status, 200);
        conn_free(b);
        conn_free(c);
        stop();
}

static void stopper(void *arg)
{
        http_server_stop(T.s, *(double *)arg);
}

ON_LOOP_TEST(stopping_lets_requests_finish)
{
        struct scope s;
        double grace = 5;
        serve(conf());
        scope_init(&s);
        T.hold = true;
        struct conn *busy = dial(), *idle = dial(), *d;
        ck_assert_int_eq(ask(idle, GET("/")).status, 200);
        put(busy, GET("/hold"));
        WAIT_FOR(T.started == 2);
        fiber_go(&s, "stop", stopper, &grace);
        ck_assert(!more(idle));
        ck_assert_int_eq(conn_dial(str_of(T.target), &d), -ECONNREFUSED);
        ck_assert_uint_eq(s.count, 1);
        T.hold = false;
        cond_broadcast(&T.go);
        struct answer a = get_answer(busy, "GET");
        ck_assert_str_eq(a.body, "held");
        ck_assert_str_eq(header(&a, "connection"), "close");
        conn_free(busy);
        conn_free(idle);
        scope_join(&s);
        http_server_free(T.s);
}

ON_LOOP_TEST(stopping_cancels_what_does_not_finish)
{
        double grace = 0.1;
        serve(conf());
        T.hold = true;
        struct conn *c = dial();
        put(c, GET("/hold"));
        WAIT_FOR(T.started == 1);
        stopper(&grace);
        ck_assert_int_eq(T.cancelled, 1);
        rest_of(c);
        conn_free(c);
        http_server_free(T.s);
}

/* ---- HTTP/2 on the same port ---- */

static void closed_2(struct h2_conn *c, int err)
{
}

static struct h2_conn *client_2(struct conn *io)
{
        struct h2_conf cf = {.on_close = closed_2};
        return h2_conn_new(io, &cf);
}

static struct h2_stream *open_2(struct h2_conn *c, const char *method, const char *path, bool end)
{
        int e = 0;
        struct h2_stream *s = h2_open(c, str_of(method), STR("http"), STR("test"), str_of(path), NULL, 0, end, &e);
        ck_assert_int_eq(e, 0);
        return s;
}

static size_t body_2(struct h2_stream *s, char *to, size_t n)
{
        size_t at = 0;
        for (ssize_t got; (got = h2_read(s, to + at, n - at)) != 0; at += (size_t)got)
                ck_assert_int_gt(got, 0);
        to[at] = '\0';
        return at;
}

ON_LOOP_TEST(http2_by_prior_knowledge)
{
        char text[256];
        serve(conf());
        struct h2_conn *c = client_2(dial());
        struct h2_stream *s = open_2(c, "GET", "/a?b", true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        ck_assert_int_eq(s->status, 200);
        ck_assert(str_eqz(http_headers_get(&s->headers, "content-length"), "5"));
        ck_assert_uint_eq(http_headers_get(&s->headers, "date").n, 29);
        body_2(s, text, sizeof(text));
        ck_assert_str_eq(text, "hello");
        ck_assert_str_eq(T.path, "/a");
        ck_assert_str_eq(T.query, "b");
        ck_assert_str_eq(T.authority, "test");
        h2_release(s);
        s = open_2(c, "POST", "/echo", false);
        h2_write(s, "abc", 3);
        h2_send(s, "def", 3, true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        body_2(s, text, sizeof(text));
        ck_assert_str_eq(text, "abcdef");
        h2_release(s);
        s = open_2(c, "GET", "/stream", true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        body_2(s, text, sizeof(text));
        ck_assert_str_eq(text, "onetwo");
        ck_assert(str_eqz(http_headers_get(&s->trailers, "x-sum"), "42"));
        h2_release(s);
        s = open_2(c, "HEAD", "/", true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        ck_assert_uint_eq(body_2(s, text, sizeof(text)), 0);
        ck_assert(str_eqz(http_headers_get(&s->headers, "content-length"), "5"));
        h2_release(s);
        s = open_2(c, "GET", "/inject", true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        ck_assert(str_eqz(http_headers_get(&s->headers, "x-a"), "b  X-Evil: 1"));
        h2_release(s);
        s = open_2(c, "GET", "/none", true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        ck_assert_int_eq(s->status, 500);
        h2_release(s);
        h2_conn_close(c, 0);
        stop();
}

ON_LOOP_TEST(http2_reset_cancels_and_aborts_reset)
{
        char text[256];
        serve(conf());
        struct h2_conn *c = client_2(dial());
        T.hold = true;
        struct h2_stream *s = open_2(c, "GET", "/hold", true);
        WAIT_FOR(T.started == 1);
        h2_release(s);
        WAIT_FOR(T.cancelled == 1);
        s = open_2(c, "GET", "/hold", true);
        WAIT_FOR(T.started == 2);
        static const char *const paths[] = {"/abort", "/half"};
        for (int i = 0; i < 2; i++) {
                struct h2_stream *b = open_2(c, "GET", paths[i], true);
                ssize_t n;
                while ((n = h2_read(b, text, sizeof(text))) > 0)
                        ;
                ck_assert_int_lt(n, 0);
                h2_release(b);
        }
        h2_release(s);
        h2_conn_close(c, 0);
        WAIT_FOR(T.cancelled == 2);
        ck_assert_int_eq(strncmp(T.peer, "127.0.0.1:", 10), 0);
        stop();
        ck_assert_int_eq(T.started, 4);
}

ON_LOOP_TEST(http2_cookies_are_one_header_and_lengths_are_kept)
{
        const struct http_header h[] = {{STR("cookie"), STR("a=1")}, {STR("x"), STR("y")}, {STR("cookie"), STR("b=2")}, {STR("cookie"), STR("c")}};
        char text[256];
        int e = 0;
        serve(conf());
        struct h2_conn *c = client_2(dial());
        struct h2_stream *s = h2_open(c, STR("GET"), STR("http"), STR("test"), STR("/cookie"), h, 4, true, &e);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        body_2(s, text, sizeof(text));
        ck_assert_str_eq(text, "a=1; b=2; c");
        h2_release(s);
        s = open_2(c, "GET", "/over", true);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        body_2(s, text, sizeof(text));
        ck_assert_str_eq(text, "two");
        ck_assert_int_eq(T.last_error, -EMSGSIZE);
        h2_release(s);
        h2_conn_close(c, 0);
        stop();
}

ON_LOOP_TEST(an_adopted_listener_serves)
{
        struct http_server_conf cf = conf();
        memset(&T, 0, sizeof(T));
        int fd = socket(AF_INET, SOCK_STREAM, 0); /* unbound: the kernel picks a port */
        ck_assert_int_eq(listen(fd, 5), 0);
        ck_assert_int_eq(http_server_new(&T.s, &cf), 0);
        ck_assert_int_eq(http_server_adopt(T.s, fd), 0);
        snprintf(T.target, sizeof(T.target), "127.0.0.1:%d", http_server_port(T.s));
        struct conn *c = dial();
        ck_assert_int_eq(ask(c, GET("/")).status, 200);
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_handler_that_waits_for_the_body_is_cancelled_by_stop)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
        WAIT_FOR(T.started == 1);
        stop();
        ck_assert_int_eq(T.last_error, -ECANCELED);
        conn_free(c);
}

ON_LOOP_TEST(http2_body_limit)
{
        struct http_server_conf cf = conf();
        cf.max_body_bytes = 5;
        serve(cf);
        struct h2_conn *c = client_2(dial());
        struct h2_stream *s = open_2(c, "POST", "/echo", false);
        h2_write(s, "123456", 6);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        ck_assert_int_eq(s->status, 413);
        h2_release(s);
        h2_conn_close(c, 0);
        stop();
}

ON_LOOP_TEST(http2_by_upgrade)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "GET /up HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
        struct answer a = get_answer(c, "GET");
        ck_assert_int_eq(a.status, 101);
        ck_assert_str_eq(header(&a, "upgrade"), "h2c");
        /* the server's SETTINGS, then HEADERS of stream 1 */
        while (buf_len(&c->in) < 9)
                ck_assert(more(c));
        ck_assert_int_eq(c->in.p[c->in.off + 3], 4);
        WAIT_FOR(T.ended == 1);
        ck_assert_str_eq(T.path, "/up");
        ck_assert_str_eq(T.authority, "t");
        conn_free(c);
        c = dial();
        a = ask(c, "GET /up HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        ck_assert_int_eq(a.status, 200);
        a = ask(c, "GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: *\r\n\r\n");
        ck_assert_int_eq(a.status, 400);
        conn_free(c);
        stop();
}

ON_LOOP_TEST(a_wrong_preface_gets_no_http1_answer)
{
        serve(conf());
        struct conn *c = dial();
        put(c, "INVALID CONN");
        fiber_sleep(0.01); /* in two pieces, as far as the kernel likes */
        put(c, "ECTION PREFACE\r\n\r\n");
        ck_assert_str_eq(rest_of(c), "");
        conn_free(c);
        /* after a request the connection is HTTP/1.1 for good */
        c = dial();
        ck_assert_int_eq(ask(c, GET("/up")).status, 200);
        ck_assert_int_eq(ask(c, "INVALID CONNECTION PREFACE\r\n\r\n").status, 400);
        conn_free(c);
        stop();
}

ON_LOOP_TEST(http2_can_be_refused)
{
        struct http_server_conf cf = conf();
        cf.no_h2c = true;
        serve(cf);
        struct conn *c = dial();
        put(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        ck_assert_int_eq(get_answer(c, "GET").status, 505);
        conn_free(c);
        c = dial();
        put(c, "INVALID CONNECTION PREFACE\r\n\r\n");
        ck_assert_int_eq(get_answer(c, "GET").status, 400);
        conn_free(c);
        stop();
}

int main(void)
{
        Suite *s = suite_create("http_server");
        TCase *t = tcase_create("http_server");
        arena_init(&answers, 0);
        tcase_set_timeout(t, 20);
        tcase_add_test(t, a_request_is_answered_and_the_connection_kept);
        tcase_add_test(t, a_request_that_comes_byte_by_byte_is_understood);
        tcase_add_test(t, pipelined_requests_are_answered_in_order);
        tcase_add_test(t, a_client_that_pipelines_and_leaves_gets_all_answers);
        tcase_add_test(t, responses_without_a_body);
        tcase_add_test(t, streamed_responses_are_chunked_with_trailers);
        tcase_add_test(t, http_1_0_closes_unless_asked_and_is_not_chunked);
        tcase_add_test(t, the_caller_cannot_break_the_framing);
        tcase_add_test(t, broken_responses_are_seen_as_broken);
        tcase_add_test(t, bad_requests_get_gos_answers);
        tcase_add_test(t, headers_are_limited_as_in_go);
        tcase_add_test(t, bodies_are_read_and_limited);
        tcase_add_test(t, a_large_body_passes_both_ways);
        tcase_add_test(t, a_body_that_breaks_off_is_an_error);
        tcase_add_test(t, expect_100_is_answered_at_the_first_read);
        tcase_add_test(t, an_unread_body_is_skipped_or_ends_the_connection);
        tcase_add_test(t, a_client_that_goes_away_cancels_its_handler);
        tcase_add_test(t, requests_are_pooled_up_to_a_limit_and_go_when_nobody_needs_them);
        tcase_add_test(t, a_reader_that_stops_stops_the_handler);
        tcase_add_test(t, slow_heads_and_idle_connections_are_closed);
        tcase_add_test(t, connections_over_the_limit_wait);
        tcase_add_test(t, stopping_lets_requests_finish);
        tcase_add_test(t, stopping_cancels_what_does_not_finish);
        tcase_add_test(t, http2_by_prior_knowledge);
        tcase_add_test(t, http2_reset_cancels_and_aborts_reset);
        tcase_add_test(t, http2_cookies_are_one_header_and_lengths_are_kept);
        tcase_add_test(t, an_adopted_listener_serves);
        tcase_add_test(t, a_handler_that_waits_for_the_body_is_cancelled_by_stop);
        tcase_add_test(t, http2_body_limit);
        tcase_add_test(t, http2_by_upgrade);
        tcase_add_test(t, a_wrong_preface_gets_no_http1_answer);
        tcase_add_test(t, http2_can_be_refused);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
