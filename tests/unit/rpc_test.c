/* gRPC client and server against each other in one process, over a Unix socket; and each against peers that misbehave. */
#include <math.h>
#include <stdio.h>

#include "plugin/v1/lifecycle.pb-c.h"
#include "sdk/base/log.h"
#include "sdk/net/http2.h"
#include "sdk/net/rpc_call.h"
#include "sdk/net/tls.h"
#include "tests/unit/net_test.h"
#include "tests/unit/pki.h"

static char dir[64];
static char target[96];

static void setup(void)
{
        strcpy(dir, "/tmp/rpc_test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        snprintf(target, sizeof(target), "unix:%s/s", dir);
}

static void teardown(void)
{
        rmdir(dir);
        h2_pool_fini();
        rpc_call_fini();
}

/* ---- handlers ---- */

static struct {
        int started, cancelled, timed_out, sent;
        double deadline;
        bool go_on;
        char md[256];
} H;

static int do_echo(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        return r <= 0 ? r : rpc_send(c, m);
}

static int do_chat(struct rpc_call *c, void *arg)
{
        struct str m;
        int r;
        c->flags |= RPC_REUSE;
        while ((r = rpc_recv(c, &m)) > 0) {
                if ((r = rpc_send(c, m)))
                        return r;
        }
        return r;
}

static int do_hang(struct rpc_call *c, void *arg)
{
        H.started++;
        H.deadline = fiber_deadline();
        int r = fiber_sleep(20);
        H.cancelled += r == -ECANCELED;
        H.timed_out += r == -ETIMEDOUT;
        return r;
}

static int do_wait(struct rpc_call *c, void *arg)
{
        H.started++;
        for (int i = 0; i < 1000 && !H.go_on; i++)
                fiber_sleep(0.01);
        return rpc_send(c, STR("late"));
}

/* Says more than anybody reads. */
static int do_flood(struct rpc_call *c, void *arg)
{
        static char block[16 * 1024];
        for (H.sent = 0; H.sent < 10000; H.sent++) {
                int r = rpc_send(c, str_n(block, sizeof(block)));
                if (r) {
                        H.cancelled += r == -ECANCELED;
                        return r;
                }
        }
        return 0;
}

static int do_sink(struct rpc_call *c, void *arg)
{
        char text[32];
        struct str m;
        size_t total = 0;
        int r;
        c->flags |= RPC_REUSE;
        while (!H.go_on)
                fiber_sleep(0.01);
        while ((r = rpc_recv(c, &m)) > 0)
                total += m.n;
        if (r < 0)
                return r;
        return rpc_send(c, str_n(text, (size_t)snprintf(text, sizeof(text), "%zu", total)));
}

static int do_fail(struct rpc_call *c, void *arg)
{
        rpc_md_add(&c->md_trailers_out, c->arena, STR("why"), STR("because"));
        return rpc_fail_details(c, RPC_ABORTED, STR("100% wrong: \xe2\x98\xba"), STR("\1\2\3"));
}

static int do_error(struct rpc_call *c, void *arg)
{
        return (int)(intptr_t)arg;
}

static int do_two(struct rpc_call *c, void *arg)
{
        rpc_send(c, STR("a"));
        return rpc_send(c, STR("b"));
}

static int do_nothing(struct rpc_call *c, void *arg)
{
        return 0;
}

static int do_metadata(struct rpc_call *c, void *arg)
{
        struct str text = rpc_md_get(&c->md_in, "text"), bin = rpc_md_get(&c->md_in, "raw-bin");
        rpc_md_add(&c->md_out, c->arena, STR("text-back"), text);
        rpc_md_add(&c->md_trailers_out, c->arena, STR("raw-back-bin"), bin);
        snprintf(H.md, sizeof(H.md), "%.*s %.*s %s", STR_FMT(rpc_md_get(&c->md_in, "user-agent")), STR_FMT(c->authority), c->peer);
        return rpc_send(c, STR(""));
}

static int do_pb(struct rpc_call *c, void *arg)
{
        Microdapr__Plugin__V1__HelloRequest *m;
        int r = rpc_recv_pb(c, &microdapr__plugin__v1__hello_request__descriptor, &m);
        return r <= 0 ? r : rpc_send_pb(c, &m->base);
}

static int do_peer(struct rpc_call *c, void *arg)
{
        return rpc_send(c, rpc_peer_leaf(c));
}

static const struct rpc_method rows[] = {
        {"/test.T/Echo", do_echo},       {"/test.T/Chat", do_chat},   {"/test.T/Hang", do_hang},
        {"/test.T/Flood", do_flood},     {"/test.T/Sink", do_sink},   {"/test.T/Fail", do_fail},
        {"/test.T/Io", do_error, (void *)(intptr_t)-EIO},             {"/test.T/Two", do_two},
        {"/test.T/Nothing", do_nothing}, {"/test.T/Md", do_metadata}, {"/test.T/Pb", do_pb},
        {"/test.T/Wait", do_wait},       {"/test.T/Peer", do_peer},
};

struct pair {
        struct rpc_server *sv;
        struct rpc_channel *ch;
        struct arena a;
        struct rpc_status st;
        struct str resp;
};

static void pair_start(struct pair *p, const struct rpc_server_conf *sc, const struct rpc_channel_conf *cc)
{
        struct rpc_server_conf s = sc ? *sc : (struct rpc_server_conf){0};
        struct rpc_channel_conf c = cc ? *cc : (struct rpc_channel_conf){0};
        *p = (struct pair){0};
        memset(&H, 0, sizeof(H));
        ck_assert_int_eq(rpc_server_new(&p->sv, &s), 0);
        ck_assert_int_eq(rpc_server_add(p->sv, rows, sizeof(rows) / sizeof(rows[0])), 0);
        ck_assert_int_eq(rpc_server_listen(p->sv, str_of(target)), 0);
        if (!c.target.p)
                c.target = str_of(target);
        ck_assert_int_eq(rpc_channel_new(&p->ch, &c), 0);
}

static void pair_stop(struct pair *p)
{
        rpc_channel_close(p->ch);
        rpc_server_stop(p->sv, 1);
        rpc_server_free(p->sv);
        arena_fini(&p->a);
}

static int call(struct pair *p, const char *method, struct str req, const struct rpc_opts *o)
{
        return rpc_unary(p->ch, &p->a, method, req, &p->resp, o, &p->st);
}

#define ck_status(p, c, text)                                                                        \
        do {                                                                                         \
                ck_assert_int_eq((p)->st.code, c);                                                   \
                ck_assert_msg(str_eqz((p)->st.message, text), "%.*s", STR_FMT((p)->st.message));     \
        } while (0)

/* ---- plain calls ---- */

ON_LOOP_TEST(unary_echoes)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        for (int i = 0; i < 1000; i++) {
                ck_assert_int_eq(call(&p, "/test.T/Echo", STR("hello"), NULL), 0);
                ck_assert(str_eq(p.resp, STR("hello")));
        }
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR(""), NULL), 0);
        ck_assert_uint_eq(p.resp.n, 0);
        pair_stop(&p);
}

ON_LOOP_TEST(unary_echoes_over_tcp)
{
        struct pair p;
        char tcp[32];
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_server_listen(p.sv, STR("127.0.0.1:0")), 0);
        snprintf(tcp, sizeof(tcp), "127.0.0.1:%d", rpc_server_port(p.sv));
        rpc_channel_close(p.ch);
        const struct rpc_channel_conf c = {.target = str_of(tcp)};
        ck_assert_int_eq(rpc_channel_new(&p.ch, &c), 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("hello"), NULL), 0);
        ck_assert(str_eq(p.resp, STR("hello")));
        pair_stop(&p);
}

/* Larger than windows, frames and every buffer's first size. */
ON_LOOP_TEST(messages_of_any_size_pass)
{
        const struct rpc_server_conf s = {.max_recv_bytes = -1};
        const struct rpc_channel_conf c = {.max_recv_bytes = -1};
        const size_t sizes[] = {1, 16379, 16380, 65535, 65536, 1 << 20, (4 << 20) + 1, 33 << 20};
        struct pair p;
        char *m = malloc(33 << 20);
        for (size_t i = 0; i < 33 << 20; i++)
                m[i] = (char)(i * 2654435761u >> 24);
        pair_start(&p, &s, &c);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                ck_assert_int_eq(call(&p, "/test.T/Echo", str_n(m, sizes[i]), NULL), 0);
                ck_assert(str_eq(p.resp, str_n(m, sizes[i])));
                arena_reset(&p.a);
        }
        pair_stop(&p);
        free(m);
}

struct many {
        struct pair *p;
        int done;
};

static void many_fiber(void *arg)
{
        struct many *m = arg;
        struct arena a = {0};
        for (int i = 0; i < 100; i++) {
                char req[48];
                struct str resp;
                struct rpc_status st;
                int n = snprintf(req, sizeof(req), "%d/%p", i, (void *)&a);
                ck_assert_int_eq(rpc_unary(m->p->ch, &a, "/test.T/Echo", str_n(req, (size_t)n), &resp, NULL, &st), 0);
                ck_assert(str_eq(resp, str_n(req, (size_t)n)));
                m->done++;
        }
        arena_fini(&a);
}

ON_LOOP_TEST(many_fibers_share_a_connection_beyond_its_streams)
{
        const struct rpc_server_conf s = {.max_streams = 10};
        struct pair p;
        struct scope sc;
        struct many m = {&p, 0};
        scope_init(&sc);
        pair_start(&p, &s, NULL);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        for (int i = 0; i < 200; i++)
                ck_assert_int_eq(fiber_go(&sc, "many", many_fiber, &m), 0);
        scope_join(&sc);
        ck_assert_int_eq(m.done, 200 * 100);
        pair_stop(&p);
}

ON_LOOP_TEST(protobuf_messages_pass)
{
        struct pair p;
        Microdapr__Plugin__V1__HelloRequest req = MICRODAPR__PLUGIN__V1__HELLO_REQUEST__INIT, *resp;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_unary_pb(p.ch, &p.a, "/test.T/Pb", &req.base, &microdapr__plugin__v1__hello_request__descriptor, &resp, NULL,
                                      &p.st),
                         0);
        ck_assert_int_eq(call(&p, "/test.T/Pb", STR("\xff\xff"), NULL), RPC_INTERNAL);
        ck_assert(str_has_prefix(p.st.message, STR("grpc: error unmarshalling request: ")));
        ck_assert(!p.st.transport);
        pair_stop(&p);
}

ON_LOOP_TEST(status_message_and_details_arrive)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(call(&p, "/test.T/Fail", STR(""), NULL), RPC_ABORTED);
        ck_status(&p, RPC_ABORTED, "100% wrong: \xe2\x98\xba");
        ck_assert(str_eq(p.st.details, STR("\1\2\3")));
        ck_assert(!p.st.transport && !p.st.unprocessed);
        ck_assert_int_eq(call(&p, "/test.T/Io", STR(""), NULL), RPC_INTERNAL);
        pair_stop(&p);
}

ON_LOOP_TEST(unary_reply_is_exactly_one_message)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        call(&p, "/test.T/Nothing", STR(""), NULL);
        ck_status(&p, RPC_INTERNAL, "cardinality violation: received no response message from non-server-streaming RPC");
        call(&p, "/test.T/Two", STR(""), NULL);
        ck_status(&p, RPC_INTERNAL, "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message");
        pair_stop(&p);
}

ON_LOOP_TEST(unknown_methods_are_named)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        call(&p, "/no.Such/Thing", STR(""), NULL);
        ck_status(&p, RPC_UNIMPLEMENTED, "unknown service no.Such");
        call(&p, "/test.T/Nope", STR(""), NULL);
        ck_status(&p, RPC_UNIMPLEMENTED, "unknown method Nope for service test.T");
        call(&p, "/nonsense", STR(""), NULL);
        ck_status(&p, RPC_UNIMPLEMENTED, "malformed method name: \"/nonsense\"");
        pair_stop(&p);
}

static int proxy(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        return r <= 0 ? r : rpc_send(c, c->method);
}

static int intercept(struct rpc_call *c, rpc_handler next, void *next_arg, void *arg)
{
        if (str_eqz(c->method, "/test.T/Echo"))
                return rpc_fail(c, RPC_UNAUTHENTICATED, "not %s", "you");
        return next(c, next_arg);
}

ON_LOOP_TEST(unknown_handler_and_interceptor_run)
{
        const struct rpc_server_conf s = {.unknown = proxy, .intercept = intercept};
        struct pair p;
        pair_start(&p, &s, NULL);
        ck_assert_int_eq(call(&p, "/no.Such/Thing", STR("x"), NULL), 0);
        ck_assert(str_eqz(p.resp, "/no.Such/Thing"));
        call(&p, "/test.T/Echo", STR("x"), NULL);
        ck_status(&p, RPC_UNAUTHENTICATED, "not you");
        pair_stop(&p);
}

ON_LOOP_TEST(metadata_passes_both_ways)
{
        const struct rpc_md md[] = {{STR("text"), STR("some text")}, {STR("raw-bin"), STR("\0\xff\1")}, {STR("te"), STR("never")}};
        const struct rpc_opts o = {.md = md, .n_md = 3};
        const struct rpc_channel_conf c = {.authority = STR("app.example"), .user_agent = "tester/1"};
        struct pair p;
        struct rpc_call *k;
        struct str m;
        pair_start(&p, NULL, &c);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Md", &o, &k, &p.st), 0);
        ck_assert_int_eq(rpc_headers(k), 0);
        ck_assert(str_eqz(rpc_md_get(&k->md_in, "text-back"), "some text"));
        ck_assert_int_eq(rpc_recv(k, &m), 1);
        ck_assert_int_eq(rpc_finish(k), 0);
        ck_assert(str_eq(rpc_md_get(&k->md_trailers, "raw-back-bin"), STR("\0\xff\1")));
        ck_assert_str_eq(H.md, "tester/1 app.example unix");
        pair_stop(&p);
}

/* ---- limits ---- */

ON_LOOP_TEST(message_limits_have_the_texts_of_go)
{
        static char m[1001];
        const struct rpc_server_conf s = {.max_recv_bytes = 1000, .max_send_bytes = 500};
        const struct rpc_channel_conf c = {.max_recv_bytes = 400};
        struct pair p;
        pair_start(&p, &s, &c);
        call(&p, "/test.T/Echo", str_n(m, 1001), NULL);
        ck_status(&p, RPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (1001 vs. 1000)");
        call(&p, "/test.T/Echo", str_n(m, 501), NULL);
        ck_status(&p, RPC_RESOURCE_EXHAUSTED, "grpc: trying to send message larger than max (501 vs. 500)");
        call(&p, "/test.T/Echo", str_n(m, 401), NULL);
        ck_status(&p, RPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (401 vs. 400)");
        ck_assert_int_eq(call(&p, "/test.T/Echo", str_n(m, 400), NULL), 0);
        pair_stop(&p);
}

ON_LOOP_TEST(default_limit_is_four_mebibytes)
{
        struct pair p;
        char *m = calloc(1, (4 << 20) + 1);
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(call(&p, "/test.T/Echo", str_n(m, 4 << 20), NULL), 0);
        call(&p, "/test.T/Echo", str_n(m, (4 << 20) + 1), NULL);
        ck_status(&p, RPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (4194305 vs. 4194304)");
        pair_stop(&p);
        free(m);
}

ON_LOOP_TEST(too_many_request_headers_are_refused)
{
        static char big[20000];
        memset(big, 'x', sizeof(big));
        const struct rpc_md md = {STR("big"), {big, sizeof(big)}};
        const struct rpc_opts o = {.md = &md, .n_md = 1};
        struct pair p;
        pair_start(&p, NULL, NULL);
        ck_assert_int_ne(call(&p, "/test.T/Echo", STR("x"), &o), 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        pair_stop(&p);
}

/* ---- time and cancellation ---- */

ON_LOOP_TEST(deadline_ends_both_sides)
{
        const struct rpc_opts o = {.timeout_s = 0.1};
        struct pair p;
        pair_start(&p, NULL, NULL);
        double t = loop_now();
        call(&p, "/test.T/Hang", STR(""), &o);
        ck_status(&p, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
        ck_assert_double_ge(loop_now() - t, 0.099);
        ck_assert_double_le(loop_now() - t, 0.5);
        WAIT_FOR(H.cancelled + H.timed_out == 1);
        ck_assert_double_eq_tol(H.deadline, t + 0.1, 0.05);
        pair_stop(&p);
}

ON_LOOP_TEST(fiber_deadline_travels_as_grpc_timeout)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        double at = loop_now() + 0.15, old = fiber_set_deadline(at);
        call(&p, "/test.T/Hang", STR(""), NULL);
        fiber_restore_deadline(old);
        ck_assert_int_eq(p.st.code, RPC_DEADLINE_EXCEEDED);
        ck_assert_double_eq_tol(H.deadline, at, 0.05);
        const struct rpc_opts late = {.timeout_s = 1e-12};
        fiber_sleep(0.001);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR(""), &late), RPC_DEADLINE_EXCEEDED);
        pair_stop(&p);
}

static void hang_fiber(void *arg)
{
        struct pair *p = arg;
        call(p, "/test.T/Hang", STR(""), NULL);
}

ON_LOOP_TEST(cancelled_fiber_cancels_its_call)
{
        struct pair p;
        struct scope s;
        scope_init(&s);
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(fiber_go(&s, "hang", hang_fiber, &p), 0);
        WAIT_FOR(H.started == 1);
        scope_cancel(&s);
        scope_join(&s);
        ck_status(&p, RPC_CANCELLED, "context canceled");
        WAIT_FOR(H.cancelled == 1);
        pair_stop(&p);
}

ON_LOOP_TEST(cancelled_stream_cancels_the_handler)
{
        struct pair p;
        struct rpc_call *c;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Hang", NULL, &c, &p.st), 0);
        WAIT_FOR(H.started == 1);
        rpc_cancel(c);
        ck_assert_int_eq(rpc_finish(c), RPC_CANCELLED);
        WAIT_FOR(H.cancelled == 1);
        ck_assert_uint_eq(rpc_server_calls(p.sv), 0);
        pair_stop(&p);
}

/* The stream's frames were never sent. */
ON_LOOP_TEST(call_may_be_cancelled_in_the_turn_that_opened_it)
{
        struct pair p;
        struct rpc_call *c;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_channel_connect(p.ch), 0);
        for (int i = 0; i < 100; i++) {
                ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Hang", NULL, &c, &p.st), 0);
                rpc_send(c, STR("something"));
                rpc_cancel(c);
                ck_assert_int_eq(rpc_finish(c), RPC_CANCELLED);
        }
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        ck_assert_int_eq(H.started, 0);
        pair_stop(&p);
}

/* ---- streams ---- */

/* All of the answer is there before it is asked for: then it is read where it lies, unless it has to stay. */
ON_LOOP_TEST(a_kept_message_outlives_its_call)
{
        const struct rpc_opts o = {.flags = RPC_KEEP};
        enum { BYTES = 70000 }; /* more than a pooled stream keeps room for */
        struct pair p;
        struct rpc_call *c;
        struct str m, other;
        pair_start(&p, NULL, NULL);
        char *text = arena_alloc(&p.a, BYTES);
        memset(text, 'k', BYTES);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Echo", &o, &c, &p.st), 0);
        ck_assert_int_eq(rpc_send(c, str_n(text, BYTES)), 0);
        ck_assert_int_eq(rpc_send_end(c), 0);
        for (int i = 0; i < 1000 && !rpc_peer_ended(c); i++)
                fiber_sleep(0.005);
        ck_assert(rpc_peer_ended(c));
        ck_assert_int_eq(rpc_recv(c, &m), 1);
        ck_assert_int_eq(rpc_finish(c), 0);
        memset(text, 'x', BYTES);
        ck_assert_int_eq(rpc_unary(p.ch, &p.a, "/test.T/Echo", str_n(text, BYTES), &other, NULL, &p.st), 0);
        ck_assert_uint_eq(m.n, BYTES);
        for (size_t i = 0; i < m.n; i++)
                ck_assert(m.p[i] == 'k');
        pair_stop(&p);
}

ON_LOOP_TEST(stream_is_send_and_recv_in_turn)
{
        const struct rpc_opts o = {.flags = RPC_REUSE};
        struct pair p;
        struct rpc_call *c;
        struct str m;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Chat", &o, &c, &p.st), 0);
        size_t used = p.a.used_bytes;
        for (int i = 0; i < 5000; i++) {
                char text[64];
                int n = snprintf(text, sizeof(text), "message %d", i);
                ck_assert_int_eq(rpc_send(c, str_n(text, (size_t)n)), 0);
                ck_assert_int_eq(rpc_recv(c, &m), 1);
                ck_assert(str_eq(m, str_n(text, (size_t)n)));
        }
        ck_assert_uint_le(p.a.used_bytes, used + 4096);
        ck_assert_int_eq(rpc_send_end(c), 0);
        ck_assert_int_eq(rpc_send(c, STR("x")), -EPIPE);
        ck_assert_int_eq(rpc_recv(c, &m), 0);
        ck_assert_int_eq(rpc_recv(c, &m), 0);
        ck_assert_int_eq(rpc_finish(c), 0);
        pair_stop(&p);
}

ON_LOOP_TEST(slow_reader_stops_the_server)
{
        struct pair p;
        struct rpc_call *c;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Flood", NULL, &c, &p.st), 0);
        rpc_send_end(c);
        fiber_sleep(0.3);
        int sent = H.sent;
        /* Windows of 4 MiB, and what sockets and buffers hold. */
        ck_assert_int_gt(sent, 10);
        ck_assert_int_lt((int64_t)sent * 16, 8 * 1024);
        fiber_sleep(0.1);
        ck_assert_int_eq(H.sent, sent);
        rpc_cancel(c);
        rpc_finish(c);
        WAIT_FOR(rpc_server_calls(p.sv) == 0);
        pair_stop(&p);
}

ON_LOOP_TEST(slow_server_stops_the_writer)
{
        static char block[64 * 1024];
        struct pair p;
        struct rpc_call *c;
        struct str m;
        int sent = 0, r;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Sink", NULL, &c, &p.st), 0);
        double old = fiber_set_deadline(loop_now() + 0.3);
        const double one_call = fiber_deadline();
        fiber_restore_deadline(old);
        while (loop_now() < one_call && sent < 64) {
                ck_assert_int_eq(r = rpc_send(c, str_n(block, sizeof(block))), 0);
                sent++;
        }
        H.go_on = true;
        for (; sent < 1000; sent++)
                ck_assert_int_eq(rpc_send(c, str_n(block, sizeof(block))), 0);
        ck_assert_int_eq(rpc_send_end(c), 0);
        ck_assert_int_eq(rpc_recv(c, &m), 1);
        ck_assert(str_eqz(m, "65536000"));
        ck_assert_int_eq(rpc_finish(c), 0);
        pair_stop(&p);
}

static int do_early(struct rpc_call *c, void *arg)
{
        return rpc_fail(c, RPC_OUT_OF_RANGE, "enough");
}

ON_LOOP_TEST(server_may_answer_before_the_client_has_ended)
{
        static const struct rpc_method early[] = {{"/test.Early/Call", do_early}};
        static char block[64 * 1024];
        struct pair p;
        struct rpc_call *c;
        int r = 0;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(rpc_server_add(p.sv, early, 1), 0);
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.Early/Call", NULL, &c, &p.st), 0);
        for (int i = 0; i < 1000 && !r; i++)
                r = rpc_send(c, str_n(block, sizeof(block)));
        ck_assert_int_eq(r, -EPIPE);
        ck_assert_int_eq(rpc_finish(c), RPC_OUT_OF_RANGE);
        ck_assert(str_eqz(c->status.message, "enough"));
        pair_stop(&p);
}

ON_LOOP_TEST(gzip_both_ways)
{
        static char zeros[100000];
        const struct rpc_opts o = {.flags = RPC_GZIP};
        struct pair p;
        struct rpc_call *c;
        struct str m;
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(call(&p, "/test.T/Echo", str_n(zeros, sizeof(zeros)), &o), 0);
        ck_assert(str_eq(p.resp, str_n(zeros, sizeof(zeros))));
        ck_assert_int_eq(rpc_open(p.ch, &p.a, "/test.T/Chat", &o, &c, &p.st), 0);
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(rpc_send(c, str_n(zeros, sizeof(zeros))), 0);
                ck_assert_int_eq(rpc_recv(c, &m), 1);
                ck_assert(c->msg_compressed);
                ck_assert_uint_eq(m.n, sizeof(zeros));
                /* The credit of a compressed message is what came over the wire. */
                c->flags ^= RPC_GZIP;
        }
        ck_assert_int_eq(rpc_finish(c), 0);
        pair_stop(&p);
}

ON_LOOP_TEST(gzip_bomb_is_refused)
{
        const struct rpc_server_conf s = {.max_recv_bytes = 100000};
        const struct rpc_opts o = {.flags = RPC_GZIP};
        struct pair p;
        char *zeros = calloc(1, 10 << 20);
        pair_start(&p, &s, NULL);
        call(&p, "/test.T/Echo", str_n(zeros, 10 << 20), &o);
        ck_status(&p, RPC_RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max 100000");
        pair_stop(&p);
        free(zeros);
}

/* ---- connections ---- */

ON_LOOP_TEST(missing_socket_is_unavailable_and_unprocessed)
{
        struct pair p;
        char text[256];
        const struct rpc_channel_conf c = {.target = STR("unix:/nowhere/x")};
        pair_start(&p, NULL, &c);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR(""), NULL), RPC_UNAVAILABLE);
        snprintf(text, sizeof(text),
                 "connection error: desc = \"transport: Error while dialing: dial unix /nowhere/x: connect: no such file or directory\"");
        ck_status(&p, RPC_UNAVAILABLE, text);
        ck_assert(p.st.transport && p.st.unprocessed);
        ck_assert_int_lt(rpc_channel_connect(p.ch), 0);
        pair_stop(&p);
}

static void late_server(void *arg)
{
        struct pair *p = arg;
        fiber_sleep(0.1);
        ck_assert_int_eq(rpc_server_listen(p->sv, str_of(target)), 0);
}

ON_LOOP_TEST(wait_ready_outlasts_a_missing_server)
{
        const struct rpc_opts o = {.flags = RPC_WAIT_READY, .timeout_s = 5}, hasty = {.flags = RPC_WAIT_READY, .timeout_s = 0.05};
        struct pair p = {0};
        struct scope s;
        const struct rpc_channel_conf c = {.target = str_of(target)};
        const struct rpc_server_conf sc = {0};
        scope_init(&s);
        ck_assert_int_eq(rpc_server_new(&p.sv, &sc), 0);
        ck_assert_int_eq(rpc_server_add(p.sv, rows, sizeof(rows) / sizeof(rows[0])), 0);
        ck_assert_int_eq(rpc_channel_new(&p.ch, &c), 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), &hasty), RPC_DEADLINE_EXCEEDED);
        ck_assert_int_eq(fiber_go(&s, "late", late_server, &p), 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), &o), 0);
        scope_join(&s);
        pair_stop(&p);
}

static void count(void *arg)
{
        ++*(int *)arg;
}

ON_LOOP_TEST(lost_connection_fails_calls_and_comes_back)
{
        struct pair p;
        struct scope s;
        int lost = 0;
        scope_init(&s);
        pair_start(&p, NULL, NULL);
        rpc_channel_on_lost(p.ch, count, &lost);
        ck_assert_int_eq(fiber_go(&s, "hang", hang_fiber, &p), 0);
        WAIT_FOR(H.started == 1);
        ck_assert(rpc_channel_is_connected(p.ch));
        rpc_channel_reset(p.ch);
        scope_join(&s);
        ck_status(&p, RPC_UNAVAILABLE, "error reading from server: EOF");
        ck_assert(p.st.transport && !p.st.unprocessed);
        ck_assert_int_eq(lost, 1);
        ck_assert(!rpc_channel_is_connected(p.ch));
        WAIT_FOR(H.cancelled == 1);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        pair_stop(&p);
        ck_assert_int_eq(lost, 1);
}

static void wait_fiber(void *arg)
{
        struct pair *p = arg;
        struct arena a = {0};
        struct rpc_status st;
        struct str resp;
        ck_assert_int_eq(rpc_unary(p->ch, &a, "/test.T/Wait", STR(""), &resp, NULL, &st), 0);
        arena_fini(&a);
}

static void stop_fiber(void *arg)
{
        struct pair *p = arg;
        rpc_server_stop(p->sv, 5);
}

ON_LOOP_TEST(stopping_server_finishes_its_calls)
{
        struct pair p;
        struct scope s;
        scope_init(&s);
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(fiber_go(&s, "wait", wait_fiber, &p), 0);
        WAIT_FOR(H.started == 1);
        ck_assert_int_eq(fiber_go(&s, "stop", stop_fiber, &p), 0);
        WAIT_FOR(!rpc_channel_is_connected(p.ch));
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), RPC_UNAVAILABLE);
        ck_assert(p.st.unprocessed);
        H.go_on = true;
        scope_join(&s);
        pair_stop(&p);
}

ON_LOOP_TEST(stopping_server_cancels_what_outlasts_its_grace)
{
        struct pair p;
        struct scope s;
        scope_init(&s);
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(fiber_go(&s, "hang", hang_fiber, &p), 0);
        WAIT_FOR(H.started == 1);
        double t = loop_now();
        rpc_server_stop(p.sv, 0.1);
        ck_assert_double_lt(loop_now() - t, 3);
        ck_assert_int_eq(H.cancelled, 1);
        scope_join(&s);
        ck_status(&p, RPC_CANCELLED, "context canceled");
        pair_stop(&p);
}

ON_LOOP_TEST(channel_may_be_closed_under_a_call)
{
        struct pair p;
        struct scope s;
        scope_init(&s);
        pair_start(&p, NULL, NULL);
        ck_assert_int_eq(fiber_go(&s, "hang", hang_fiber, &p), 0);
        WAIT_FOR(H.started == 1);
        rpc_channel_close(p.ch);
        p.ch = NULL;
        scope_join(&s);
        ck_assert_int_eq(p.st.code, RPC_UNAVAILABLE);
        pair_stop(&p);
}

ON_LOOP_TEST(no_reconnect_leaves_it_to_connect)
{
        const struct rpc_channel_conf c = {.no_reconnect = true};
        struct pair p;
        pair_start(&p, NULL, &c);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), RPC_UNAVAILABLE);
        ck_assert_int_eq(rpc_channel_connect(p.ch), 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        pair_stop(&p);
}

struct chaos {
        struct pair *p;
        double end;
        int ok, failed, other;
};

static unsigned dice(unsigned n)
{
        return (unsigned)rand() % n;
}

static void chaos_stream(struct chaos *x, struct arena *a, const struct rpc_opts *o)
{
        struct rpc_call *c;
        struct rpc_status st;
        struct str m;
        if (rpc_open(x->p->ch, a, dice(20) ? "/test.T/Chat" : "/test.T/Flood", o, &c, &st))
                return;
        for (unsigned i = dice(5); i; i--) {
                rpc_send(c, STR("something"));
                if (dice(2))
                        rpc_recv(c, &m);
        }
        if (dice(2) || str_eqz(c->method, "/test.T/Flood"))
                rpc_cancel(c);
        rpc_finish(c);
}

/* Calls of all kinds with short deadlines. */
static void chaos_fiber(void *arg)
{
        static char big[300000];
        struct chaos *x = arg;
        while (loop_now() < x->end) {
                const struct rpc_opts o = {.timeout_s = dice(3) ? 1 : 0.001 * (1 + dice(20)), .flags = (dice(4) ? 0 : RPC_GZIP) | RPC_REUSE};
                struct arena a = {0};
                struct rpc_status st;
                struct str resp;
                int code = 0;
                switch (dice(4)) {
                case 0:
                        chaos_stream(x, &a, &o);
                        break;
                case 1:
                        code = rpc_unary(x->p->ch, &a, "/test.T/Echo", str_n(big, dice(sizeof(big))), &resp, &o, &st);
                        break;
                case 2:
                        code = rpc_unary(x->p->ch, &a, "/test.T/Hang", STR(""), &resp,
                                         &(struct rpc_opts){.timeout_s = 0.001 * (1 + dice(20))}, &st);
                        break;
                default:
                        code = rpc_unary(x->p->ch, &a, "/test.T/Echo", STR("x"), &resp, &o, &st);
                        break;
                }
                x->ok += code == 0;
                x->failed += code == RPC_UNAVAILABLE || code == RPC_DEADLINE_EXCEEDED;
                x->other += code && code != RPC_UNAVAILABLE && code != RPC_DEADLINE_EXCEEDED && code != RPC_CANCELLED;
                arena_fini(&a);
        }
}

ON_LOOP_TEST(nothing_leaks_when_all_breaks_at_once)
{
        const struct rpc_server_conf s = {.max_streams = 20};
        struct pair p;
        struct scope sc;
        scope_init(&sc);
        pair_start(&p, &s, NULL);
        struct chaos x = {.p = &p, .end = loop_now() + 1.5};
        for (int i = 0; i < 40; i++)
                ck_assert_int_eq(fiber_go(&sc, "chaos", chaos_fiber, &x), 0);
        while (loop_now() < x.end) {
                fiber_sleep(0.03);
                rpc_channel_reset(p.ch);
        }
        scope_join(&sc);
        ck_assert_int_gt(x.ok, 10);
        ck_assert_int_gt(x.failed, 100);
        ck_assert_int_eq(x.other, 0);
        WAIT_FOR(rpc_server_calls(p.sv) == 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        pair_stop(&p);
}

/* ---- TLS ---- */

static struct tls_context *tls_new(bool server, bool with_identity)
{
        struct tls_context *t;
        char err[256];
        struct tls_options o = {.server = server, .roots_pem = str_of(pki_root), .require_peer_cert = server};
        if (server) {
                o.cert_pem = str_of(pki_server_chain);
                o.key_pem = str_of(pki_server_key);
        } else if (with_identity) {
                o.cert_pem = str_of(pki_client_cert);
                o.key_pem = str_of(pki_client_key);
        }
        ck_assert_msg(tls_context_new(&t, &o, err, sizeof(err)) == 0, "%s", err);
        return t;
}

static void pair_start_tls(struct pair *p, bool with_identity, const char *name)
{
        struct tls_context *server = tls_new(true, true), *client = tls_new(false, with_identity);
        const struct rpc_server_conf s = {.tls = server};
        const struct rpc_channel_conf c = {.tls = client, .server_name = str_of(name)};
        pair_start(p, &s, &c);
        tls_context_unref(server);
        tls_context_unref(client);
}

ON_LOOP_TEST(mutual_tls_shows_the_callers_certificate)
{
        struct pair p;
        char *m = calloc(1, 3 << 20);
        pair_start_tls(&p, true, "app.test");
        ck_assert_int_eq(call(&p, "/test.T/Peer", STR(""), NULL), 0);
        ck_assert_uint_gt(p.resp.n, 100);
        ck_assert_int_eq(p.resp.p[0], 0x30);
        ck_assert_int_eq(call(&p, "/test.T/Echo", str_n(m, 3 << 20), NULL), 0);
        ck_assert_uint_eq(p.resp.n, 3 << 20);
        pair_stop(&p);
        free(m);
}

ON_LOOP_TEST(tls_that_fails_is_unavailable)
{
        struct pair p;
        pair_start_tls(&p, true, "other.test");
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), RPC_UNAVAILABLE);
        ck_assert_msg(str_has_prefix(p.st.message, STR("connection error: desc = \"transport: authentication handshake failed: ")),
                      "%.*s", STR_FMT(p.st.message));
        pair_stop(&p);
        pair_start_tls(&p, false, "app.test");
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), RPC_UNAVAILABLE);
        pair_stop(&p);
}

/* ---- a client of plain HTTP/2 against the server ---- */

struct raw {
        struct h2_conn *h2;
        struct h2_stream *s;
};

static void raw_open(struct raw *r, struct str method, struct str path, const struct http_header *h, size_t n, bool end)
{
        struct conn *io;
        int err;
        const struct h2_conf conf = {0};
        ck_assert_int_eq(conn_dial(str_of(target), &io), 0);
        r->h2 = h2_conn_new(io, &conf);
        ck_assert_ptr_nonnull(r->h2);
        r->s = h2_open(r->h2, method, STR("http"), STR("localhost"), path, h, n, end, &err);
        ck_assert_ptr_nonnull(r->s);
}

static struct str raw_header(const struct http_headers *h, const char *name)
{
        for (size_t i = 0; i < h->n; i++) {
                if (str_eqz(h->v[i].name, name))
                        return h->v[i].value;
        }
        return STR("(none)");
}

static void raw_close(struct raw *r)
{
        h2_release(r->s);
        h2_conn_close(r->h2, 0);
}

static const struct {
        struct str method, type, name, value;
        int http;
        const char *code, *message;
} refusals[] = {
        {STR("POST"), STR("application/json"), STR("te"), STR("trailers"), 415, "3", "invalid gRPC request content-type \"application/json\""},
        {STR("GET"), STR("application/grpc"), STR("te"), STR("trailers"), 405, "13",
         "Received a HEADERS frame with :method \"GET\" which should be POST"},
        {STR("POST"), STR("application/grpc"), STR("grpc-timeout"), STR("1x"), 400, "13", "malformed grpc-timeout: \"1x\""},
        {STR("POST"), STR("application/grpc"), STR("grpc-encoding"), STR("br"), 200, "12",
         "grpc: Decompressor is not installed for grpc-encoding \"br\""},
};

static void ck_body_is(struct h2_stream *s, const char *text)
{
        char got[128];
        size_t n = 0;
        for (ssize_t r; (r = h2_read(s, got + n, sizeof(got) - n)) != 0; n += (size_t)r)
                ck_assert_int_gt(r, 0);
        ck_assert(str_eqz((struct str){got, n}, text));
}

ON_LOOP_TEST(requests_that_are_not_grpc_are_refused)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
                const struct http_header h[] = {{STR("content-type"), refusals[i].type}, {refusals[i].name, refusals[i].value}};
                struct raw r;
                raw_open(&r, refusals[i].method, STR("/test.T/Echo"), h, 2, false);
                ck_assert_int_eq(h2_wait_headers(r.s), 0);
                ck_assert_int_eq(r.s->status, refusals[i].http);
                if (refusals[i].http == 415)
                        ck_body_is(r.s, refusals[i].message);
                else
                        ck_assert(r.s->remote_ended);
                ck_assert(str_eqz(raw_header(&r.s->headers, "grpc-status"), refusals[i].code));
                ck_assert(str_eqz(raw_header(&r.s->headers, "grpc-message"), refusals[i].message));
                raw_close(&r);
        }
        pair_stop(&p);
}

static const struct {
        struct str body;
        const char *message;
} bodies[] = {
        {STR("\0\0\0\0\5abc"), "unexpected EOF"},
        {STR("\0\0\0"), "unexpected EOF"},
        {STR("\7\0\0\0\1a"), "grpc: received unexpected payload format 7"},
        {STR("\1\0\0\0\1a"), "grpc: compressed flag set with identity or empty encoding"},
};

ON_LOOP_TEST(broken_frames_fail_the_call_only)
{
        struct pair p;
        pair_start(&p, NULL, NULL);
        for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
                const struct http_header h[] = {{STR("content-type"), STR("application/grpc")}};
                struct raw r;
                raw_open(&r, STR("POST"), STR("/test.T/Echo"), h, 1, false);
                ck_assert_int_eq(h2_send(r.s, bodies[i].body.p, bodies[i].body.n, true), 0);
                ck_assert_int_eq(h2_wait_headers(r.s), 0);
                ck_assert(str_eqz(raw_header(&r.s->headers, "grpc-status"), "13"));
                ck_assert_msg(str_eqz(raw_header(&r.s->headers, "grpc-message"), bodies[i].message), "%.*s",
                              STR_FMT(raw_header(&r.s->headers, "grpc-message")));
                raw_close(&r);
        }
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), 0);
        pair_stop(&p);
}

/* ---- a server of plain HTTP/2 against the client ---- */

static const struct odd_reply {
        int http;
        struct str type;
        struct str body;
        const char *status; /* NULL = end without trailers */
        int code;
        const char *message;
} odd[] = {
        {503, STR("text/html"), STR("no"), NULL, RPC_UNAVAILABLE,
         "unexpected HTTP status code received from server: 503 (Service Unavailable); transport: received unexpected content-type "
         "\"text/html\""},
        {404, STR("application/grpc"), STR(""), NULL, RPC_UNIMPLEMENTED,
         "unexpected HTTP status code received from server: 404 (Not Found)"},
        {200, STR("application/grpc"), STR("\0\0\0\0\1x"), NULL, RPC_INTERNAL, "server closed the stream without sending trailers"},
        {200, STR("application/grpc"), STR("\0\0\0\0\4x"), "0", RPC_INTERNAL, "unexpected EOF"},
        {200, STR("application/grpc"), STR("\0\0\0\0\1x"), "x", RPC_UNKNOWN, "malformed grpc-status: \"x\""},
        {200, STR("application/grpc"), STR("\0\0\0\0\1x"), "99", 99, ""},
        {200, STR("application/grpc"), STR("\0\0\0\0\1x"), "0", 0, ""},
};
static const struct odd_reply *odd_now;

static void odd_stream(struct h2_conn *c, struct h2_stream *s)
{
        const struct odd_reply *o = odd_now;
        const struct http_header h = {STR("content-type"), o->type}, t = {STR("grpc-status"), str_of(o->status)};
        ck_assert_int_eq(h2_respond(s, o->http, &h, 1, false), 0);
        ck_assert_int_eq(h2_send(s, o->body.p, o->body.n, !o->status), 0);
        if (o->status)
                ck_assert_int_eq(h2_send_trailers(s, &t, 1), 0);
        h2_release(s);
}

static void reset_stream(struct h2_conn *c, struct h2_stream *s)
{
        h2_reset(s, (uint32_t)(intptr_t)h2_conn_owner(c));
        h2_release(s);
}

static void close_stream(struct h2_conn *c, struct h2_stream *s)
{
        h2_release(s);
        h2_conn_close(c, -ECONNRESET);
}

static struct h2_conf odd_conf;

static void odd_accept(struct listener *l, struct conn *io)
{
        ck_assert_ptr_nonnull(h2_conn_new(io, &odd_conf));
}

static void odd_start(struct listener *l, struct pair *p, void (*on_stream)(struct h2_conn *, struct h2_stream *), void *owner)
{
        const struct rpc_channel_conf c = {.target = str_of(target)};
        *p = (struct pair){0};
        odd_conf = (struct h2_conf){.server = true, .on_stream = on_stream, .owner = owner};
        ck_assert_int_eq(listener_open(l, str_of(target), odd_accept, NULL), 0);
        ck_assert_int_eq(rpc_channel_new(&p->ch, &c), 0);
}

static void odd_stop(struct listener *l, struct pair *p)
{
        rpc_channel_close(p->ch);
        arena_fini(&p->a);
        listener_close(l);
        fiber_sleep(0.05);
}

ON_LOOP_TEST(odd_replies_have_the_status_of_go)
{
        struct listener l;
        struct pair p;
        odd_start(&l, &p, odd_stream, NULL);
        for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
                odd_now = &odd[i];
                ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), odd[i].code);
                ck_status(&p, odd[i].code, odd[i].message);
        }
        odd_stop(&l, &p);
}

static const struct {
        int rst, code;
        bool unprocessed;
        const char *message;
} resets[] = {
        {7, RPC_UNAVAILABLE, true, "stream terminated by RST_STREAM with error code: REFUSED_STREAM"},
        {8, RPC_CANCELLED, false, "stream terminated by RST_STREAM with error code: CANCEL"},
        {2, RPC_INTERNAL, false, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"},
        {11, RPC_RESOURCE_EXHAUSTED, false, "stream terminated by RST_STREAM with error code: ENHANCE_YOUR_CALM"},
};

ON_LOOP_TEST(resets_have_the_status_of_go)
{
        for (size_t i = 0; i < sizeof(resets) / sizeof(resets[0]); i++) {
                struct listener l;
                struct pair p;
                odd_start(&l, &p, reset_stream, (void *)(intptr_t)resets[i].rst);
                call(&p, "/test.T/Echo", STR("x"), NULL);
                ck_status(&p, resets[i].code, resets[i].message);
                ck_assert_int_eq(p.st.unprocessed, resets[i].unprocessed);
                ck_assert(p.st.transport);
                odd_stop(&l, &p);
        }
}

ON_LOOP_TEST(connection_killed_mid_call_is_unavailable)
{
        struct listener l;
        struct pair p;
        odd_start(&l, &p, close_stream, NULL);
        for (int i = 0; i < 20; i++) {
                call(&p, "/test.T/Echo", STR("x"), NULL);
                ck_status(&p, RPC_UNAVAILABLE, "error reading from server: EOF");
                ck_assert(p.st.transport && !p.st.unprocessed);
        }
        odd_stop(&l, &p);
}

static void garbage_accept(struct listener *l, struct conn *io)
{
        conn_write(io, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        conn_close(io, 1);
}

ON_LOOP_TEST(server_that_speaks_something_else_is_unavailable)
{
        struct listener l;
        struct pair p = {0};
        const struct rpc_channel_conf c = {.target = str_of(target)};
        ck_assert_int_eq(listener_open(&l, str_of(target), garbage_accept, NULL), 0);
        ck_assert_int_eq(rpc_channel_new(&p.ch, &c), 0);
        ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), RPC_UNAVAILABLE);
        odd_stop(&l, &p);
}

/* One answer, and in the same breath DATA without a stream: the end of the connection. */
static void last_words(struct conn *io)
{
        static const char words[] = "\0\0\0\4\0\0\0\0\0"
                                    "\0\0\x2f\1\5\0\0\0\1\x88\x10\x0c" "content-type" "\x10" "application/grpc" "\x10\x0b" "grpc-status" "\1" "3"
                                    "\0\0\0\0\0\0\0\0\0";
        if (buf_len(&io->in) > 100) { /* the whole request is there */
                buf_consume(&io->in, buf_len(&io->in));
                conn_write(io, words, sizeof words - 1);
        }
}

static void last_words_drain(struct conn *io)
{
}

static void last_words_close(struct conn *io, int err)
{
        conn_free(io);
}

static void last_words_accept(struct listener *l, struct conn *io)
{
        static const struct conn_handler h = {last_words, last_words_drain, last_words_close};
        conn_set_handler(io, &h, NULL);
}

static int heard;

static void reset_channel(void *arg)
{
        heard++;
        rpc_channel_reset(arg);
}

ON_LOOP_TEST(whoever_hears_of_a_lost_connection_may_close_it)
{
        struct listener l;
        struct pair p = {0};
        const struct rpc_channel_conf c = {.target = str_of(target)};
        ck_assert_int_eq(listener_open(&l, str_of(target), last_words_accept, NULL), 0);
        ck_assert_int_eq(rpc_channel_new(&p.ch, &c), 0);
        rpc_channel_on_lost(p.ch, reset_channel, p.ch);
        heard = 0;
        for (int i = 0; i < 5; i++) /* each but the first finds a connection that is about to end */
                ck_assert_int_eq(call(&p, "/test.T/Echo", STR("x"), NULL), RPC_INVALID_ARGUMENT);
        ck_assert_int_ge(heard, 4);
        odd_stop(&l, &p);
}

static void add_all(TCase *t)
{
        tcase_add_test(t, unary_echoes);
        tcase_add_test(t, whoever_hears_of_a_lost_connection_may_close_it);
        tcase_add_test(t, unary_echoes_over_tcp);
        tcase_add_test(t, messages_of_any_size_pass);
        tcase_add_test(t, many_fibers_share_a_connection_beyond_its_streams);
        tcase_add_test(t, protobuf_messages_pass);
        tcase_add_test(t, status_message_and_details_arrive);
        tcase_add_test(t, unary_reply_is_exactly_one_message);
        tcase_add_test(t, unknown_methods_are_named);
        tcase_add_test(t, unknown_handler_and_interceptor_run);
        tcase_add_test(t, metadata_passes_both_ways);
        tcase_add_test(t, message_limits_have_the_texts_of_go);
        tcase_add_test(t, default_limit_is_four_mebibytes);
        tcase_add_test(t, too_many_request_headers_are_refused);
        tcase_add_test(t, deadline_ends_both_sides);
        tcase_add_test(t, fiber_deadline_travels_as_grpc_timeout);
        tcase_add_test(t, cancelled_fiber_cancels_its_call);
        tcase_add_test(t, cancelled_stream_cancels_the_handler);
        tcase_add_test(t, call_may_be_cancelled_in_the_turn_that_opened_it);
        tcase_add_test(t, a_kept_message_outlives_its_call);
        tcase_add_test(t, stream_is_send_and_recv_in_turn);
        tcase_add_test(t, slow_reader_stops_the_server);
        tcase_add_test(t, slow_server_stops_the_writer);
        tcase_add_test(t, server_may_answer_before_the_client_has_ended);
        tcase_add_test(t, gzip_both_ways);
        tcase_add_test(t, gzip_bomb_is_refused);
        tcase_add_test(t, missing_socket_is_unavailable_and_unprocessed);
        tcase_add_test(t, wait_ready_outlasts_a_missing_server);
        tcase_add_test(t, lost_connection_fails_calls_and_comes_back);
        tcase_add_test(t, stopping_server_finishes_its_calls);
        tcase_add_test(t, stopping_server_cancels_what_outlasts_its_grace);
        tcase_add_test(t, channel_may_be_closed_under_a_call);
        tcase_add_test(t, no_reconnect_leaves_it_to_connect);
        tcase_add_test(t, nothing_leaks_when_all_breaks_at_once);
        tcase_add_test(t, mutual_tls_shows_the_callers_certificate);
        tcase_add_test(t, tls_that_fails_is_unavailable);
        tcase_add_test(t, requests_that_are_not_grpc_are_refused);
        tcase_add_test(t, broken_frames_fail_the_call_only);
        tcase_add_test(t, odd_replies_have_the_status_of_go);
        tcase_add_test(t, resets_have_the_status_of_go);
        tcase_add_test(t, connection_killed_mid_call_is_unavailable);
        tcase_add_test(t, server_that_speaks_something_else_is_unavailable);
}

int main(void)
{
        Suite *s = suite_create("rpc");
        TCase *t = tcase_create("rpc");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_set_timeout(t, 30);
        add_all(t);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
