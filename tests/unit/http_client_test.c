/* The HTTP client against our server and against servers that say exactly what a test tells them to. */
#include "tests/unit/net_test.h"

#include <stdio.h>
#include <string.h>

#include "sdk/net/http.h"

static struct {
        struct http_server *s;
        struct http_client *c;
        struct arena a;
        int requests;
        char seen[512]; /* method, headers and body of the last request */
        uint64_t taken;
        bool hold;
        struct cond go;
} T;

static void echo_stream(struct http_req *r)
{
        char piece[1000];
        ssize_t n;
        if (http_resp_begin(r, 200, NULL, 0, -1))
                return;
        while ((n = http_req_read(r, piece, sizeof(piece))) > 0)
                if (http_resp_write(r, str_n(piece, (size_t)n)))
                        return;
        if (!n)
                http_resp_end(r, &(struct http_header){STR("X-End"), STR("yes")}, 1);
}

static void describe(struct http_req *r)
{
        struct str body = STR("");
        struct buf b = {0};
        if (http_req_body(r, &body))
                return;
        buf_printf(&b, "%.*s %.*s host=%.*s len=%lld x=%.*s cl=%.*s body=%.*s", STR_FMT(r->method), STR_FMT(r->target),
                   STR_FMT(r->authority), (long long)r->content_length, STR_FMT(http_headers_get(&r->headers, "x-a")),
                   STR_FMT(http_headers_get(&r->headers, "content-length")), STR_FMT(body));
        snprintf(T.seen, sizeof(T.seen), "%.*s", STR_FMT(buf_str(&b)));
        http_resp_send(r, 200, NULL, 0, buf_str(&b));
        buf_fini(&b);
}

static void handle(struct http_req *r, void *arg)
{
        T.requests++;
        if (str_eqz(r->path, "/stream")) {
                echo_stream(r);
        } else if (str_eqz(r->path, "/hold")) {
                while (T.hold && !cond_wait(&T.go))
                        ;
                http_resp_send(r, 200, NULL, 0, STR("held"));
        } else if (str_eqz(r->path, "/swallow")) {
                char piece[100];
                ssize_t n;
                while (T.hold && !cond_wait(&T.go))
                        ;
                while ((n = http_req_read(r, piece, sizeof(piece))) > 0)
                        T.taken += (uint64_t)n;
                http_resp_send(r, 200, NULL, 0, STR("done"));
        } else if (str_eqz(r->path, "/big")) {
                static char block[1 << 20];
                http_resp_send(r, 200, NULL, 0, str_n(block, sizeof(block)));
        } else if (str_eqz(r->path, "/abort")) {
                http_resp_begin(r, 200, NULL, 0, -1);
                http_resp_write(r, STR("some"));
                http_resp_abort(r);
        } else {
                describe(r);
        }
}

static void begin(bool h2, size_t max_conns)
{
        char target[64];
        struct http_server_conf sc = {.name = "test", .handler = handle};
        memset(&T, 0, sizeof(T));
        cond_init(&T.go);
        arena_init(&T.a, 0);
        ck_assert_int_eq(http_server_new(&T.s, &sc), 0);
        ck_assert_int_eq(http_server_listen(T.s, STR("127.0.0.1:0")), 0);
        snprintf(target, sizeof(target), "127.0.0.1:%d", http_server_port(T.s));
        struct http_client_conf cc = {.target = str_of(target), .authority = STR("app"), .h2 = h2, .max_conns = max_conns};
        ck_assert_int_eq(http_client_new(&T.c, &cc), 0);
}

static void end(void)
{
        http_client_free(T.c);
        http_server_stop(T.s, 0);
        http_server_free(T.s);
        arena_fini(&T.a);
}

static struct http_exchange *start(const char *method, const char *target, int64_t length, const char *body)
{
        static const struct http_header h[] = {{STR("X-A"), STR("1")}, {STR("Connection"), STR("close")}, {STR("Content-Length"), STR("99")},
                                               {STR("Transfer-Encoding"), STR("gzip")}};
        struct http_exchange *x = NULL;
        ck_assert_int_eq(http_client_start(T.c, &T.a, str_of(method), str_of(target), h, 4, length, str_of(body), &x), 0);
        return x;
}

/* Status and body of a whole exchange; < 0 = the error. */
static int fetch(const char *method, const char *target, const char *body, struct str *ret)
{
        struct http_exchange *x = start(method, target, 0, body);
        int r = http_exchange_body(x, &T.a, 1 << 24, ret);
        if (!r)
                r = x->status;
        http_exchange_close(x);
        return r;
}

static void requests_and_bodies(bool h2)
{
        struct str body;
        begin(h2, 0);
        ck_assert_int_eq(fetch("GET", "/p?q=1", "", &body), 200);
        ck_assert_str_eq(T.seen, "GET /p?q=1 host=app len=0 x=1 cl= body=");
        ck_assert(str_eqz(body, T.seen));
        ck_assert_int_eq(fetch("POST", "/p", "data", &body), 200);
        ck_assert_str_eq(T.seen, "POST /p host=app len=4 x=1 cl=4 body=data");
        ck_assert_int_eq(fetch("POST", "/p", "", &body), 200);
        ck_assert_str_eq(T.seen, "POST /p host=app len=0 x=1 cl=0 body=");
        ck_assert_int_eq(fetch("HEAD", "/p", "", &body), 200);
        ck_assert_uint_eq(body.n, 0);
        ck_assert_int_eq(fetch("GET", "/big", "", &body), 200);
        ck_assert_uint_eq(body.n, 1 << 20);
        int r = fetch("GET", "/abort", "", &body);
        ck_assert_msg(r == -ECONNRESET, "%d", r);
        ck_assert_int_eq(fetch("GET", "/p", "", &body), 200);
        struct http_exchange *x;
        ck_assert_int_eq(http_client_start(T.c, &T.a, STR("GET"), STR("/a b"), NULL, 0, 0, STR(""), &x), -EINVAL);
        ck_assert_int_eq(http_client_start(T.c, &T.a, STR("GET"), STR("/\r\nX: y"), NULL, 0, 0, STR(""), &x), -EINVAL);
        ck_assert_int_eq(http_client_start(T.c, &T.a, STR("G T"), STR("/"), NULL, 0, 0, STR(""), &x), -EINVAL);
        x = start("GET", "/big", 0, "");
        ck_assert_int_eq(http_exchange_body(x, &T.a, 1000, &body), -EMSGSIZE);
        http_exchange_close(x);
        end();
}

ON_LOOP_TEST(requests_and_bodies_http1)
{
        requests_and_bodies(false);
}
ON_LOOP_TEST(requests_and_bodies_http2)
{
        requests_and_bodies(true);
}

static void streams(bool h2)
{
        begin(h2, 0);
        for (int64_t length = -1; length <= 6; length += 7) {
                struct http_exchange *x = start("POST", "/stream", length, NULL);
                char piece[10];
                ck_assert_int_eq(http_exchange_write(x, STR("abc")), 0);
                ck_assert_int_eq(http_exchange_write(x, STR("")), 0);
                ck_assert_int_eq(http_exchange_response(x), 0);
                ck_assert_int_eq(http_exchange_read(x, piece, sizeof(piece)), 3); /* before the request has ended */
                if (length > 0) {
                        ck_assert_int_eq(http_exchange_end(x), -EINVAL);
                        ck_assert_int_eq(http_exchange_write(x, STR("defg")), -EMSGSIZE);
                }
                ck_assert_int_eq(http_exchange_write(x, STR("def")), 0);
                ck_assert_int_eq(http_exchange_end(x), 0);
                ck_assert_int_eq(http_exchange_read(x, piece, sizeof(piece)), 3);
                ck_assert_mem_eq(piece, "def", 3);
                ck_assert_int_eq(http_exchange_read(x, piece, sizeof(piece)), 0);
                ck_assert(str_eqz(http_headers_get(&x->trailers, "x-end"), "yes"));
                http_exchange_close(x);
        }
        end();
}

ON_LOOP_TEST(bodies_stream_both_ways_http1)
{
        streams(false);
}
ON_LOOP_TEST(bodies_stream_both_ways_http2)
{
        streams(true);
}

static void write_much(void *arg)
{
        static char block[10000];
        struct http_exchange *x = start("POST", "/swallow", -1, NULL);
        uint64_t *written = arg;
        for (int i = 0; i < 2000; i++) {
                ck_assert_int_eq(http_exchange_write(x, str_n(block, sizeof(block))), 0);
                *written += sizeof(block);
        }
        ck_assert_int_eq(http_exchange_end(x), 0);
        ck_assert_int_eq(http_exchange_response(x), 0);
        http_exchange_close(x);
}

static void back_pressure(bool h2)
{
        uint64_t written = 0, seen;
        struct scope s;
        begin(h2, 0);
        T.hold = true;
        scope_init(&s);
        fiber_go(&s, "writer", write_much, &written);
        do {
                seen = written;
                fiber_sleep(0.1);
        } while (written != seen);
        ck_assert_uint_gt(seen, 0);
        ck_assert_uint_lt(seen, 16000000);
        T.hold = false;
        cond_broadcast(&T.go);
        scope_join(&s);
        ck_assert_uint_eq(T.taken, 20000000);
        end();
}

ON_LOOP_TEST(a_server_that_does_not_read_stops_the_writer_http1)
{
        back_pressure(false);
}
ON_LOOP_TEST(a_server_that_does_not_read_stops_the_writer_http2)
{
        back_pressure(true);
}

static void fetch_hold(void *arg)
{
        struct arena a;
        struct str body;
        struct http_exchange *x;
        arena_init(&a, 0);
        int r = http_client_start(T.c, &a, STR("GET"), STR("/hold"), NULL, 0, 0, STR(""), &x);
        if (!r) {
                r = http_exchange_body(x, &a, 100, &body);
                http_exchange_close(x);
        }
        if (arg)
                ++*(int *)arg;
        arena_fini(&a);
}

static void parallel(bool h2)
{
        int done = 0;
        struct scope s;
        begin(h2, 2);
        scope_init(&s);
        T.hold = true;
        for (int i = 0; i < 10; i++)
                fiber_go(&s, "fetch", fetch_hold, &done);
        fiber_sleep(0.1);
        ck_assert_int_eq(T.requests, h2 ? 10 : 2);
        T.hold = false;
        cond_broadcast(&T.go);
        scope_join(&s);
        ck_assert_int_eq(done, 10);
        ck_assert_int_eq(T.requests, 10);
        end();
}

ON_LOOP_TEST(exchanges_wait_for_a_connection_http1)
{
        parallel(false);
}
ON_LOOP_TEST(exchanges_share_a_connection_http2)
{
        parallel(true);
}

static void cancelled(bool h2)
{
        int done = 0;
        struct scope s;
        struct str body;
        begin(h2, 1);
        scope_init(&s);
        T.hold = true;
        for (int i = 0; i < 3; i++)
                fiber_go(&s, "fetch", fetch_hold, &done);
        fiber_sleep(0.05);
        scope_cancel(&s);
        scope_join(&s);
        ck_assert_int_eq(done, 3);
        T.hold = false;
        ck_assert_int_eq(fetch("GET", "/p", "", &body), 200);
        end();
}

ON_LOOP_TEST(cancelled_exchanges_leave_the_pool_usable_http1)
{
        cancelled(false);
}
ON_LOOP_TEST(cancelled_exchanges_leave_the_pool_usable_http2)
{
        cancelled(true);
}

/* ---- against scripted servers ---- */

static struct {
        struct listener l;
        struct scope fibers;
        const char *answers[8]; /* one per connection */
        int accepted;
        bool per_request;       /* an answer for each request, of the connection's script split at '|' */
} S;

static void script_fiber(void *arg)
{
        struct conn *c = arg;
        const char *script = S.answers[S.accepted++];
        struct str rest = str_of(script);
        while (rest.p) {
                struct str part = str_cut(&rest, '|');
                while (str_find(buf_str(&c->in), STR("\r\n\r\n")) < 0)
                        if (conn_read(c) != 1)
                                goto out;
                buf_clear(&c->in);
                conn_write(c, part.p, part.n);
        }
        conn_flush(c);
out:
        conn_close(c, 0.5);
}

static void script_accept(struct listener *l, struct conn *c)
{
        fiber_go(&S.fibers, "script", script_fiber, c);
}

static void script(const char *first, const char *second, const char *third)
{
        memset(&S, 0, sizeof(S));
        memset(&T, 0, sizeof(T));
        arena_init(&T.a, 0);
        scope_init(&S.fibers);
        S.answers[0] = first;
        S.answers[1] = second;
        S.answers[2] = third;
        ck_assert_int_eq(listener_open(&S.l, STR("127.0.0.1:0"), script_accept, NULL), 0);
        struct http_client_conf cc = {.target = str_of(S.l.addr), .max_header_bytes = 1000};
        ck_assert_int_eq(http_client_new(&T.c, &cc), 0);
}

static void script_end(void)
{
        http_client_free(T.c);
        listener_close(&S.l);
        scope_cancel(&S.fibers);
        scope_join(&S.fibers);
        arena_fini(&T.a);
}

#define OK_3 "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"

ON_LOOP_TEST(a_stale_connection_is_replaced_once)
{
        struct str body;
        script(OK_3 "|", OK_3 "|", OK_3);
        ck_assert_int_eq(fetch("GET", "/", "", &body), 200);
        ck_assert_int_eq(fetch("GET", "/", "", &body), 200); /* its connection closes on the request: sent again */
        ck_assert_int_eq(S.accepted, 2);
        /* POST is not sent twice */
        ck_assert_int_eq(fetch("POST", "/", "x", &body), -ECONNRESET);
        ck_assert_int_eq(S.accepted, 2);
        /* ... but a connection seen to be closed is not used for it */
        ck_assert_int_eq(fetch("GET", "/", "", &body), 200);
        script_end();
        script(OK_3, OK_3, "");
        ck_assert_int_eq(fetch("GET", "/", "", &body), 200);
        fiber_sleep(0.05);
        ck_assert_int_eq(fetch("POST", "/", "x", &body), 200);
        ck_assert_int_eq(S.accepted, 2);
        /* a fresh connection that closes without a word is an error */
        fiber_sleep(0.05);
        ck_assert_int_eq(fetch("GET", "/", "", &body), -ECONNRESET);
        ck_assert_int_eq(S.accepted, 3);
        script_end();
}

ON_LOOP_TEST(odd_responses)
{
        static const struct {
                const char *answer;
                int status;
                const char *body;
        } rows[] = {
                {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK_3, 200, "abc"},
                {"HTTP/1.0 200 OK\r\n\r\nall until the end", 200, "all until the end"},
                {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", 200, "to the end"},
                {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, ""},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 200, "ab"},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", -ECONNRESET, ""},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", -EBADMSG, ""},
                {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", -ECONNRESET, ""},
                {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", -EBADMSG, ""},
                {"HTTP/1.1 200 OK\r\nContent-Le", -ECONNRESET, ""},
                {"SSH-2.0-x\r\n\r\n", -EBADMSG, ""},
                {"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, ""},
                {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, ""},
                {"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", 999, ""},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                struct str body = STR("");
                script(rows[i].answer, "", "");
                int r = fetch("GET", "/", "", &body);
                ck_assert_msg(r == rows[i].status && (r < 0 || str_eqz(body, rows[i].body)), "%d: %s", r, rows[i].answer);
                script_end();
        }
        static char large[2000] = "HTTP/1.1 200 OK\r\nX: ";
        struct str body;
        memset(large + 20, 'x', sizeof(large) - 21);
        script(large, "", "");
        ck_assert_int_eq(fetch("GET", "/", "", &body), -EOVERFLOW);
        script_end();
}

ON_LOOP_TEST(a_server_that_speaks_unasked_is_dropped)
{
        struct str body;
        script(OK_3 "HTTP/1.1 200 OK\r\n\r\nevil", OK_3, "");
        ck_assert_int_eq(fetch("GET", "/", "", &body), 200);
        ck_assert(str_eqz(body, "abc"));
        ck_assert_int_eq(fetch("GET", "/", "", &body), 200);
        ck_assert(str_eqz(body, "abc"));
        ck_assert_int_eq(S.accepted, 2);
        script_end();
}

ON_LOOP_TEST(dialling_fails_with_its_reason)
{
        struct http_exchange *x;
        struct listener l;
        struct http_client_conf cc;
        ck_assert_int_eq(listener_open(&l, STR("127.0.0.1:0"), script_accept, NULL), 0);
        cc = (struct http_client_conf){.target = str_of(l.addr)};
        memset(&T, 0, sizeof(T));
        for (int h2 = 0; h2 < 2; h2++) {
                cc.h2 = h2;
                char addr[112];
                memcpy(addr, l.addr, sizeof(addr));
                cc.target = str_of(addr);
                if (!h2)
                        listener_close(&l);
                else
                        cc.target = STR("unix:/no/such/socket");
                memcpy(l.addr, addr, sizeof(addr));
                ck_assert_int_eq(http_client_new(&T.c, &cc), 0);
                int r = http_client_start(T.c, &T.a, STR("GET"), STR("/"), NULL, 0, 0, STR(""), &x);
                ck_assert_int_eq(r, h2 ? -ENOENT : -ECONNREFUSED);
                http_client_free(T.c);
        }
        arena_fini(&T.a);
}

int main(void)
{
        Suite *s = suite_create("http_client");
        TCase *t = tcase_create("http_client");
        tcase_set_timeout(t, 20);
        tcase_add_test(t, requests_and_bodies_http1);
        tcase_add_test(t, requests_and_bodies_http2);
        tcase_add_test(t, bodies_stream_both_ways_http1);
        tcase_add_test(t, bodies_stream_both_ways_http2);
        tcase_add_test(t, a_server_that_does_not_read_stops_the_writer_http1);
        tcase_add_test(t, a_server_that_does_not_read_stops_the_writer_http2);
        tcase_add_test(t, exchanges_wait_for_a_connection_http1);
        tcase_add_test(t, exchanges_share_a_connection_http2);
        tcase_add_test(t, cancelled_exchanges_leave_the_pool_usable_http1);
        tcase_add_test(t, cancelled_exchanges_leave_the_pool_usable_http2);
        tcase_add_test(t, a_stale_connection_is_replaced_once);
        tcase_add_test(t, odd_responses);
        tcase_add_test(t, a_server_that_speaks_unasked_is_dropped);
        tcase_add_test(t, dialling_fails_with_its_reason);
        suite_add_tcase(s, t);
        return run_suite(s);
}
