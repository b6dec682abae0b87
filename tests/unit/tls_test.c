/* TLS on connections, and HTTP over it. Both ends in process. */
#include "tests/unit/net_test.h"

#include <stdio.h>
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/work.h"
#include "sdk/net/http.h"
#include "sdk/net/pki.h"
#include "sdk/net/tls.h"
#include "tests/unit/pki.h"

static char why[256];
static enum tls_renegotiation allowed;

static struct tls_context *context(struct tls_options o)
{
        struct tls_context *t = NULL;
        ck_assert_msg(tls_context_new(&t, &o, why, sizeof(why)) == 0, "%s", why);
        return t;
}

static struct tls_options server_options(void)
{
        return (struct tls_options){.server = true, .cert_pem = str_of(pki_server_chain), .key_pem = str_of(pki_server_key)};
}

static struct tls_options client_options(void)
{
        return (struct tls_options){.roots_pem = str_of(pki_root), .renegotiation = allowed};
}

static void clients_by_openssl(void)
{
        allowed = TLS_RENEGOTIATE_FREELY;
}

/* ---- a pair of connections ---- */

static struct {
        struct listener l;
        struct scope scope;
        struct conn *server, *client;
        struct tls_context *tls;
        int server_result;
        bool done;
} P;

static void accepted(struct listener *l, struct conn *c)
{
        P.server = c;
}

static void server_handshake(void *arg)
{
        P.server_result = conn_start_tls(P.server, P.tls, STR_NULL, true);
        P.done = true;
}

/* Handshakes of both ends; the client's result. */
static int pair(struct tls_options so, struct tls_options co, const char *name)
{
        struct tls_context *ct = context(co);
        P.tls = context(so);
        P.server = NULL;
        P.done = false;
        scope_init(&P.scope);
        ck_assert_int_eq(listener_open(&P.l, STR("127.0.0.1:0"), accepted, NULL), 0);
        ck_assert_int_eq(conn_dial(str_of(P.l.addr), &P.client), 0);
        WAIT_FOR(P.server);
        listener_close(&P.l);
        ck_assert_int_eq(fiber_go(&P.scope, "server", server_handshake, NULL), 0);
        int r = conn_start_tls(P.client, ct, str_of(name), false);
        tls_context_unref(ct);
        return r;
}

static void unpair(void)
{
        conn_free(P.client);
        scope_join(&P.scope);
        conn_free(P.server);
        tls_context_unref(P.tls);
}

static int try(struct tls_options so, struct tls_options co, const char *name)
{
        int r = pair(so, co, name);
        unpair();
        return r;
}

static void expect(struct conn *c, const char *text)
{
        while (buf_len(&c->in) < strlen(text))
                ck_assert_int_eq(conn_read(c), 1);
        ck_assert(str_eqz(buf_str(&c->in), text));
        buf_clear(&c->in);
}

ON_LOOP_TEST(bytes_pass_both_ways_and_the_end_is_seen)
{
        ck_assert_int_eq(pair(server_options(), client_options(), "app.test"), 0);
        WAIT_FOR(P.done);
        ck_assert_int_eq(P.server_result, 0);
        ck_assert_str_eq(tls_session_version(P.client->tls), "TLSv1.3");
        ck_assert_uint_gt(tls_session_peer_leaf(P.client->tls).n, 100);
        ck_assert_uint_eq(tls_session_peer_leaf(P.server->tls).n, 0);
        conn_write(P.client, "hello", 5);
        expect(P.server, "hello");
        conn_write(P.server, "world", 5);
        expect(P.client, "world");
        conn_write(P.server, "last", 4);
        conn_close(P.server, 1);
        P.server = NULL;
        expect(P.client, "last");
        ck_assert_int_eq(conn_read(P.client), 0);
        unpair();
}

ON_LOOP_TEST(names_and_addresses_are_verified)
{
        static const struct {
                const char *name;
                int result;
        } rows[] = {
                {"app.test", 0}, {"APP.test", 0}, {"a.wild.test", 0}, {"127.0.0.1", 0}, {"::1", 0},
                {"other.test", -EKEYREJECTED}, {"app.test.", 0}, {"server", -EKEYREJECTED}, {"a.b.wild.test", -EKEYREJECTED}, {"wild.test", -EKEYREJECTED}, {"127.0.0.2", -EKEYREJECTED},
                {"::2", -EKEYREJECTED}, {"app.test.evil", -EKEYREJECTED}, {"", -EINVAL},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                int r = try(server_options(), client_options(), rows[i].name);
                ck_assert_msg(r == rows[i].result, "%s: %d", rows[i].name, r);
        }
}

ON_LOOP_TEST(untrusted_and_expired_certificates_are_refused)
{
        struct tls_options so = server_options(), co = client_options();
        so.cert_pem = str_of(pki_stranger_cert);
        so.key_pem = str_of(pki_stranger_key);
        ck_assert_int_eq(try(so, co, "app.test"), -EKEYREJECTED);
        co.insecure_skip_verify = true;
        ck_assert_int_eq(try(so, co, "other.test"), 0);
        ck_assert_int_eq(try(so, co, ""), 0);
        so = server_options();
        co = client_options();
        co.roots_pem = str_of(pki_other_root);
        ck_assert_int_eq(try(so, co, "app.test"), -EKEYREJECTED);
        co.roots_pem = STR_NULL; /* the system's */
        ck_assert_int_eq(try(so, co, "app.test"), -EKEYREJECTED);
        so.cert_pem = str_of(pki_expired_chain);
        ck_assert_int_eq(try(so, client_options(), "app.test"), -EKEYREJECTED);
        /* the issuer is missing */
        struct str leaf = str_of(pki_server_chain);
        leaf.n = (size_t)str_find(str_skip(leaf, 20), STR("-----BEGIN")) + 20;
        so.cert_pem = leaf;
        ck_assert_int_eq(try(so, client_options(), "app.test"), -EKEYREJECTED);
}

ON_LOOP_TEST(other_kinds_of_keys)
{
        struct tls_options so = server_options();
        so.cert_pem = str_of(pki_ed25519_cert);
        so.key_pem = str_of(pki_ed25519_key);
        ck_assert_int_eq(try(so, client_options(), "app.test"), 0);
        so.cert_pem = str_of(pki_rsa_cert);
        so.key_pem = str_of(pki_rsa_key);
        ck_assert_int_eq(try(so, client_options(), "app.test"), 0);
}

static struct tls_options with_identity(struct tls_options o, const char *cert, const char *key)
{
        o.cert_pem = str_of(cert);
        o.key_pem = str_of(key);
        return o;
}

/* TLS 1.3 clients are done before the server has judged them: the server's result counts, and the next read. */
static int try_mutual(struct tls_options so, struct tls_options co)
{
        int r = pair(so, co, "app.test");
        if (!r) {
                WAIT_FOR(P.done);
                r = P.server_result;
                if (r)
                        ck_assert_int_lt(conn_read(P.client), 0);
        }
        unpair();
        return r;
}

ON_LOOP_TEST(mutual_tls)
{
        struct tls_options so = server_options(), co = client_options();
        so.require_peer_cert = true;
        so.roots_pem = str_of(pki_root);
        ck_assert_int_eq(try_mutual(so, with_identity(co, pki_client_cert, pki_client_key)), 0);
        ck_assert_int_eq(try_mutual(so, co), -EKEYREJECTED);
        ck_assert_int_eq(try_mutual(so, with_identity(co, pki_stranger_cert, pki_stranger_key)), -EKEYREJECTED);
        ck_assert_int_eq(pair(so, with_identity(co, pki_client_cert, pki_client_key), "app.test"), 0);
        WAIT_FOR(P.done);
        ck_assert_uint_gt(tls_session_peer_leaf(P.server->tls).n, 100);
        unpair();
}

static int judged, verdict;
static int judge(void *arg, struct str der)
{
        judged++;
        ck_assert_ptr_eq(arg, &verdict);
        ck_assert(str_find(der, STR("spiffe://td/ns/default/")) > 0);
        return verdict;
}

ON_LOOP_TEST(the_owner_may_judge_the_peer)
{
        struct tls_options so = server_options(), co = client_options();
        co.verify_peer = so.verify_peer = judge;
        co.verify_arg = so.verify_arg = &verdict;
        verdict = judged = 0;
        ck_assert_int_eq(try(server_options(), co, "td"), 0); /* takes the place of the name */
        ck_assert_int_eq(judged, 1);
        ck_assert_int_eq(try(server_options(), co, ""), 0);
        verdict = -EACCES;
        ck_assert_int_eq(try(server_options(), co, "td"), -EKEYREJECTED);
        verdict = judged = 0;
        so.require_peer_cert = true;
        so.roots_pem = str_of(pki_root);
        co = with_identity(client_options(), pki_client_cert, pki_client_key);
        ck_assert_int_eq(try_mutual(so, co), 0);
        ck_assert_int_eq(judged, 1);
        verdict = -EACCES;
        ck_assert_int_eq(try_mutual(so, co), -EKEYREJECTED);
        /* the chain is still verified first */
        judged = verdict = 0;
        co = client_options();
        co.verify_peer = judge;
        co.verify_arg = &verdict;
        co.roots_pem = str_of(pki_other_root);
        ck_assert_int_eq(try(server_options(), co, "td"), -EKEYREJECTED);
        ck_assert_int_eq(judged, 0);
}

ON_LOOP_TEST(alpn_is_agreed)
{
        static const char *const both[] = {"h2", "http/1.1", NULL}, *const one[] = {"http/1.1", NULL}, *const none[] = {"x", NULL};
        static const struct {
                const char *const *server, *const *client;
                const char *want;
        } rows[] = {{both, both, "h2"}, {both, one, "http/1.1"}, {one, both, "http/1.1"}, {both, NULL, ""}, {NULL, both, ""}, {both, none, ""}};
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                struct tls_options so = server_options(), co = client_options();
                so.alpn = rows[i].server;
                co.alpn = rows[i].client;
                ck_assert_int_eq(pair(so, co, "app.test"), 0);
                WAIT_FOR(P.done);
                ck_assert_msg(str_eqz(tls_session_alpn(P.client->tls), rows[i].want), "row %zu", i);
                ck_assert_msg(str_eqz(tls_session_alpn(P.server->tls), rows[i].want), "row %zu", i);
                unpair();
        }
}

ON_LOOP_TEST(megabytes_pass_with_bounded_buffers)
{
        enum { TOTAL = 8 << 20, CHUNK = 50000 };
        static char chunk[CHUNK];
        ck_assert_int_eq(pair(server_options(), client_options(), "app.test"), 0);
        WAIT_FOR(P.done);
        size_t sent = 0, got = 0, wrong = 0, most = 0;
        while (got < TOTAL) {
                while (sent < TOTAL && conn_out_len(P.client) < CONN_HIGH_WATER) {
                        size_t n = TOTAL - sent < CHUNK ? TOTAL - sent : CHUNK;
                        for (size_t i = 0; i < n; i++)
                                chunk[i] = (char)((sent + i) * 7 >> 3);
                        ck_assert_int_eq(conn_write(P.client, chunk, n), 0);
                        sent += n;
                }
                ck_assert_int_eq(conn_read(P.server), 1);
                struct str in = buf_str(&P.server->in);
                most = in.n > most ? in.n : most;
                for (size_t i = 0; i < in.n; i++)
                        wrong += in.p[i] != (char)((got + i) * 7 >> 3);
                got += in.n;
                buf_clear(&P.server->in);
        }
        ck_assert_uint_eq(wrong, 0);
        ck_assert_uint_lt(most, 1 << 20);
        unpair();
}

static void closed_while_handshaking(void *arg)
{
        struct conn *c = arg;
        conn_close(c, 0);
}

ON_LOOP_TEST(handshakes_that_go_wrong)
{
        static const char *const garbage[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x40\x01zzzzzzzzzzzz", "\x16\x03\x03\x00\x04\x01\x00\x00\x00"};
        for (size_t i = 0; i < sizeof(garbage) / sizeof(*garbage) + 1; i++) {
                struct conn *c;
                struct scope s;
                memset(&P, 0, sizeof(P));
                P.tls = context(server_options());
                scope_init(&s);
                scope_init(&P.scope);
                ck_assert_int_eq(listener_open(&P.l, STR("127.0.0.1:0"), accepted, NULL), 0);
                ck_assert_int_eq(conn_dial(str_of(P.l.addr), &c), 0);
                WAIT_FOR(P.server);
                listener_close(&P.l);
                fiber_go(&P.scope, "server", server_handshake, NULL);
                if (i < 3) {
                        size_t n = i == 2 ? 9 : strlen(garbage[i]);
                        conn_write(c, garbage[i], n);
                        conn_flush(c);
                }
                if (i == 1) /* a record that never gets complete */
                        fiber_sleep(0.05);
                if (i == 1 || i == 3)
                        fiber_go(&s, "close", closed_while_handshaking, c);
                WAIT_FOR(P.done);
                ck_assert_msg(P.server_result == (i == 1 || i == 3 ? -ECONNRESET : -EPROTO), "%zu: %d", i, P.server_result);
                conn_free(P.server);
                if (i != 1 && i != 3)
                        conn_free(c);
                scope_join(&s);
                scope_join(&P.scope);
                tls_context_unref(P.tls);
        }
}

ON_LOOP_TEST(a_handshake_keeps_its_deadline)
{
        struct conn *c;
        struct tls_context *ct = context(client_options());
        memset(&P, 0, sizeof(P));
        ck_assert_int_eq(listener_open(&P.l, STR("127.0.0.1:0"), accepted, NULL), 0);
        ck_assert_int_eq(conn_dial(str_of(P.l.addr), &c), 0);
        double old = fiber_set_deadline(loop_now() + 0.1);
        ck_assert_int_eq(conn_start_tls(c, ct, STR("app.test"), false), -ETIMEDOUT);
        fiber_restore_deadline(old);
        conn_free(c);
        WAIT_FOR(P.server);
        conn_free(P.server);
        listener_close(&P.l);
        tls_context_unref(ct);
}

ON_LOOP_TEST(changed_ciphertext_is_an_error)
{
        ck_assert_int_eq(pair(server_options(), client_options(), "app.test"), 0);
        WAIT_FOR(P.done);
        buf_add(&P.client->tls->out, "\x17\x03\x03\x00\x20" "0123456789abcdef0123456789abcdef", 37);
        conn_write(P.client, "x", 1);
        ck_assert_int_eq(conn_read(P.server), -EPROTO);
        ck_assert_str_ne(tls_session_error(P.server->tls), "");
        unpair();
}

START_TEST(bad_options_are_explained)
{
        struct tls_context *t;
        struct tls_options o = {.server = true};
        ck_assert_int_eq(tls_context_new(&t, &o, why, sizeof(why)), -EINVAL);
        ck_assert_str_eq(why, "a TLS server needs a certificate and its private key");
        o = server_options();
        o.cert_pem = STR("nonsense");
        ck_assert_int_eq(tls_context_new(&t, &o, why, sizeof(why)), -EINVAL);
        ck_assert_ptr_nonnull(strstr(why, "certificate cannot be read"));
        o = server_options();
        o.key_pem = STR("nonsense");
        ck_assert_int_eq(tls_context_new(&t, &o, why, sizeof(why)), -EINVAL);
        ck_assert_ptr_nonnull(strstr(why, "private key cannot be read"));
        o = server_options();
        o.key_pem = str_of(pki_rsa_key);
        ck_assert_int_eq(tls_context_new(&t, &o, why, sizeof(why)), -EINVAL);
        ck_assert_msg(strstr(why, "private key"), "%s", why);
        o = client_options();
        o.roots_pem = STR("nonsense");
        ck_assert_int_eq(tls_context_new(&t, &o, why, sizeof(why)), -EINVAL);
        ck_assert_ptr_nonnull(strstr(why, "trust anchors cannot be read"));
        tls_context_unref(NULL);
}
END_TEST

/* ---- HTTP over TLS ---- */

static void answer(struct http_req *r, void *arg)
{
        struct str body;
        if (!http_req_body(r, &body))
                http_resp_send(r, 200, NULL, 0, body.n ? body : r->version == 20 ? STR("two") : STR("one"));
}

static void https(bool h2)
{
        static const char *const both[] = {"h2", "http/1.1", NULL}, *const one[] = {"http/1.1", NULL};
        static char large[1 << 20];
        struct tls_options so = server_options(), co = client_options();
        struct http_server *s;
        struct http_client *c;
        struct arena a;
        so.alpn = both;
        co.alpn = h2 ? both : one;
        struct tls_context *st = context(so), *ct = context(co);
        struct http_server_conf sc = {.name = "https", .handler = answer, .tls = st};
        ck_assert_int_eq(http_server_new(&s, &sc), 0);
        ck_assert_int_eq(http_server_listen(s, STR("127.0.0.1:0")), 0);
        char target[32];
        snprintf(target, sizeof(target), "127.0.0.1:%d", http_server_port(s));
        struct http_client_conf cc = {.target = str_of(target), .tls = ct, .h2 = h2};
        ck_assert_int_eq(http_client_new(&c, &cc), 0);
        tls_context_unref(st);
        tls_context_unref(ct);
        arena_init(&a, 0);
        for (int i = 0; i < 4; i++) {
                struct http_exchange *x;
                struct str body, out = i % 2 ? str_n(large, sizeof(large)) : STR("");
                ck_assert_int_eq(http_client_start(c, &a, STR("POST"), STR("/"), NULL, 0, 0, out, &x), 0);
                ck_assert_int_eq(http_exchange_body(x, &a, 2 << 20, &body), 0);
                ck_assert(i % 2 ? body.n == sizeof(large) : str_eqz(body, h2 ? "two" : "one"));
                http_exchange_close(x);
        }
        /* the wrong name */
        http_client_free(c);
        cc.tls = context(co);
        cc.server_name = STR("other.test");
        ck_assert_int_eq(http_client_new(&c, &cc), 0);
        tls_context_unref(cc.tls);
        struct http_exchange *x;
        ck_assert_int_eq(http_client_start(c, &a, STR("GET"), STR("/"), NULL, 0, 0, STR(""), &x), -EKEYREJECTED);
        http_client_free(c);
        arena_fini(&a);
        http_server_stop(s, 1);
        http_server_free(s);
}

ON_LOOP_TEST(https_over_http1)
{
        https(false);
}
ON_LOOP_TEST(https_over_http2)
{
        https(true);
}

static int request_key(void *arg)
{
        return pki_key_new(arg);
}

/* On a thread of the pool, which ends with the test: under LeakSanitizer nothing of it may stay. */
ON_LOOP_TEST(certificate_requests_are_of_version_0)
{
        static struct pki_key k;
        struct arena a;
        ck_assert_int_eq(work_run(request_key, &k), 0);
        work_fini();
        arena_init(&a, 0);
        struct str pem = str_of(k.csr_pem), der = STR("");
        str_cut(&pem, '\n');
        char *text = arena_strdup(&a, str_cut(&pem, '-')), *to = text;
        for (const char *p = text; *p; p++)
                if (*p != '\n')
                        *to++ = *p;
        der = base64_decode(&a, str_n(text, (size_t)(to - text)));
        ck_assert(der.n > 16);
        int at = str_find(der, STR("\x02\x01")); /* the first INTEGER */
        ck_assert(at > 0 && at < 8);
        ck_assert_int_eq(der.p[at + 2], 0);
        arena_fini(&a);
}

int main(void)
{
        Suite *s = suite_create("tls");
        TCase *t = tcase_create("tls");
        tcase_set_timeout(t, 40);
        tcase_add_test(t, bytes_pass_both_ways_and_the_end_is_seen);
        tcase_add_test(t, names_and_addresses_are_verified);
        tcase_add_test(t, untrusted_and_expired_certificates_are_refused);
        tcase_add_test(t, other_kinds_of_keys);
        tcase_add_test(t, mutual_tls);
        tcase_add_test(t, the_owner_may_judge_the_peer);
        tcase_add_test(t, alpn_is_agreed);
        tcase_add_test(t, megabytes_pass_with_bounded_buffers);
        tcase_add_test(t, handshakes_that_go_wrong);
        tcase_add_test(t, a_handshake_keeps_its_deadline);
        tcase_add_test(t, changed_ciphertext_is_an_error);
        tcase_add_test(t, bad_options_are_explained);
        tcase_add_test(t, certificate_requests_are_of_version_0);
        tcase_add_test(t, https_over_http1);
        tcase_add_test(t, https_over_http2);
        suite_add_tcase(s, t);
        t = tcase_create("clients by OpenSSL");
        tcase_set_timeout(t, 40);
        tcase_add_checked_fixture(t, clients_by_openssl, NULL);
        tcase_add_test(t, bytes_pass_both_ways_and_the_end_is_seen);
        tcase_add_test(t, names_and_addresses_are_verified);
        tcase_add_test(t, untrusted_and_expired_certificates_are_refused);
        tcase_add_test(t, other_kinds_of_keys);
        tcase_add_test(t, mutual_tls);
        tcase_add_test(t, alpn_is_agreed);
        tcase_add_test(t, megabytes_pass_with_bounded_buffers);
        tcase_add_test(t, a_handshake_keeps_its_deadline);
        tcase_add_test(t, changed_ciphertext_is_an_error);
        tcase_add_test(t, bad_options_are_explained);
        suite_add_tcase(s, t);
        return run_suite(s);
}
