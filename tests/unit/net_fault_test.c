/* The network layer when memory runs out at any one place: an exchange fails or succeeds, and nothing else happens. */
#include "tests/unit/net_test.h"

#include <stdio.h>
#include <string.h>

#include "sdk/net/http.h"
#include "sdk/net/http2.h"
#include "sdk/net/tls.h"
#include "tests/unit/fault.h"
#include "tests/unit/pki.h"

static struct {
        struct http_server *s;
        struct tls_context *client_tls;
        bool h2;
        bool failed_oddly;
        char target[32];
} T;

static void handle(struct http_req *r, void *arg)
{
        static char block[100000];
        struct str body;
        const struct http_header h = {STR("X-A"), STR("b")};
        if (http_req_body(r, &body))
                return;
        if (body.n) {
                http_resp_send(r, 200, &h, 1, body);
                return;
        }
        int e = http_resp_begin(r, 200, &h, 1, -1);
        if (!e)
                e = http_resp_write(r, str_n(block, sizeof(block)));
        if (!e)
                http_resp_end(r, &h, 1);
}

/* wolfSSL itself loses a key share when memory ends there. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
        return "leak:TLSX_KeyShare";
}

static bool fetch(struct http_client *c, struct str out, size_t want)
{
        struct arena a;
        struct http_exchange *x;
        struct str body;
        const struct http_header h = {STR("X-Request"), STR("some value")};
        arena_init(&a, 0);
        int r = http_client_start(c, &a, STR("POST"), STR("/path?query"), &h, 1, 0, out, &x);
        if (!r) {
                r = http_exchange_body(x, &a, 1 << 20, &body);
                if (!r && x->status == 200 && body.n != want)
                        T.failed_oddly = true;
                http_exchange_close(x);
        }
        if (r == -ETIMEDOUT)
                T.failed_oddly = true;
        arena_fini(&a);
        return r == 0;
}

static bool exchange(void *arg)
{
        struct http_client *c;
        struct http_client_conf cc = {.target = str_of(T.target), .h2 = T.h2, .tls = T.client_tls, .server_name = STR("app.test")};
        double old = fiber_set_deadline(loop_now() + 5);
        T.failed_oddly = false;
        if (http_client_new(&c, &cc) == 0) {
                for (int i = 0; i < 2; i++) {
                        fetch(c, STR("some bytes"), 10);
                        fetch(c, STR(""), 100000);
                }
                http_client_free(c);
        }
        fiber_restore_deadline(old);
        return !T.failed_oddly;
}

static void nothing(struct timer *t)
{
}

/* libev keeps the tables that it has grown, and aborts when it cannot grow one. */
static void grow_libev(void)
{
        enum { N = 40 };
        static struct timer timers[N];
        struct conn *c[N];
        for (int i = 0; i < N; i++) {
                ck_assert_int_eq(conn_dial(str_of(T.target), &c[i]), 0);
                conn_write(c[i], "GET /", 5);
                timer_init(&timers[i], nothing);
                timer_start(&timers[i], 0.01, 0);
        }
        fiber_sleep(0.1);
        for (int i = 0; i < N; i++)
                conn_free(c[i]);
        fiber_sleep(0.1);
}

static void run(bool h2, bool tls)
{
        static const char *const alpn_1[] = {"http/1.1", NULL}, *const alpn_2[] = {"h2", NULL};
        struct http_server_conf sc = {.name = "test", .handler = handle};
        char err[200];
        memset(&T, 0, sizeof(T));
        T.h2 = h2;
        if (tls) {
                struct tls_options so = {.server = true, .cert_pem = str_of(pki_server_chain), .key_pem = str_of(pki_server_key),
                                         .alpn = h2 ? alpn_2 : alpn_1};
                struct tls_options co = {.roots_pem = str_of(pki_root), .alpn = so.alpn};
                ck_assert_int_eq(tls_context_new(&sc.tls, &so, err, sizeof(err)), 0);
                ck_assert_int_eq(tls_context_new(&T.client_tls, &co, err, sizeof(err)), 0);
        }
        ck_assert_int_eq(http_server_new(&T.s, &sc), 0);
        tls_context_unref(sc.tls);
        ck_assert_int_eq(http_server_listen(T.s, STR("127.0.0.1:0")), 0);
        snprintf(T.target, sizeof(T.target), "127.0.0.1:%d", http_server_port(T.s));
        grow_libev();
        for (int i = 0; i < 3; i++)
                ck_assert(exchange(NULL));
        fiber_restore_deadline(loop_now() + 300);
        if (!tls && !h2)
                ck_assert_int_ge(fault_each(exchange, NULL), 20);
        else /* handshakes take their time: every third allocation */
                for (long n = 1; fault_nth(exchange, NULL, n, false); n += tls ? 3 : 1)
                        ;
        ck_assert(exchange(NULL));
        http_server_stop(T.s, 1);
        http_server_free(T.s);
        tls_context_unref(T.client_tls);
        h2_pool_fini();
}

ON_LOOP_TEST(http1_without_memory)
{
        run(false, false);
}
ON_LOOP_TEST(http2_without_memory)
{
        run(true, false);
}
ON_LOOP_TEST(https_without_memory)
{
        run(false, true);
}

int main(void)
{
        Suite *s = suite_create("net_fault");
        TCase *t = tcase_create("net_fault");
        tcase_set_timeout(t, 300);
        tcase_add_test(t, http1_without_memory);
        tcase_add_test(t, http2_without_memory);
        tcase_add_test(t, https_without_memory);
        suite_add_tcase(s, t);
        return run_suite(s);
}
