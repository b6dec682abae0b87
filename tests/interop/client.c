/*
 * gRPC's interoperability cases as a client: interop_client --server_host=H --server_port=P --test_case=NAME.
 * Exit 0 = passed. What each case must see: grpc/doc/interop-test-descriptions.md.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "tests/interop/messages.h"

enum { LARGE_REQUEST = 271828, LARGE_REPLY = 314159 };

static struct {
        const char *test;
        struct rpc_channel *ch;
        struct arena a;
        struct rpc_status st;
        int failures;
} T;

#define check(x)                                                                      \
        do {                                                                          \
                if (!(x)) {                                                           \
                        fprintf(stderr, "%s:%d: %s: not %s (status %d %.*s)\n", __FILE__, __LINE__, T.test, #x, T.st.code, \
                                STR_FMT(T.st.message));                               \
                        T.failures++;                                                 \
                        return;                                                       \
                }                                                                     \
        } while (0)

static const char text_unicode[] = "\t\ntest with whitespace\r\nand Unicode BMP \xe2\x98\xba and non-BMP \xf0\x9f\x98\x88\t\n";

static int unary(const char *method, struct str req, struct str *resp, const struct rpc_opts *o)
{
        return rpc_unary(T.ch, &T.a, method, req, resp, o, &T.st);
}

static struct rpc_call *open_call(const char *method, const struct rpc_opts *o)
{
        struct rpc_call *c = NULL;
        rpc_open(T.ch, &T.a, method, o, &c, &T.st);
        return c;
}

static int finish(struct rpc_call *c)
{
        rpc_finish(c);
        T.st = c->status;
        return T.st.code;
}

static struct str simple_request(struct buf *b, size_t reply, size_t payload)
{
        put_int(b, SIMPLE_SIZE, reply);
        put_payload(b, SIMPLE_PAYLOAD, payload);
        return buf_str(b);
}

static void put_params(struct buf *b, size_t size, unsigned us)
{
        struct buf p = {0};
        put_int(&p, PARAM_SIZE, size);
        if (us)
                put_int(&p, PARAM_INTERVAL_US, us);
        put_bytes(b, OUTPUT_PARAMS, buf_str(&p));
        buf_fini(&p);
}

static void put_status(struct buf *b, uint32_t number, int code, struct str text)
{
        struct buf s = {0};
        put_int(&s, STATUS_CODE, (uint64_t)code);
        put_bytes(&s, STATUS_MESSAGE, text);
        put_bytes(b, number, buf_str(&s));
        buf_fini(&s);
}

static void put_bool(struct buf *b, uint32_t number, bool v)
{
        struct buf s = {0};
        put_int(&s, BOOL_VALUE, v);
        put_bytes(b, number, buf_str(&s));
        buf_fini(&s);
}

/* ---- cases ---- */

static void empty_unary(void)
{
        struct str resp;
        check(unary(SERVICE "EmptyCall", STR(""), &resp, NULL) == 0);
        check(resp.n == 0);
}

static void large_unary(void)
{
        struct buf b = {0};
        struct str resp;
        check(unary(SERVICE "UnaryCall", simple_request(&b, LARGE_REPLY, LARGE_REQUEST), &resp, NULL) == 0);
        buf_fini(&b);
        check(payload_size(resp, REPLY_PAYLOAD) == LARGE_REPLY);
}

static void client_compressed_unary(void)
{
        const struct rpc_opts zip = {.flags = RPC_GZIP};
        struct buf b = {0};
        struct str resp;
        put_bool(&b, SIMPLE_EXPECT, true);
        simple_request(&b, LARGE_REPLY, LARGE_REQUEST);
        check(unary(SERVICE "UnaryCall", buf_str(&b), &resp, NULL) == RPC_INVALID_ARGUMENT);
        check(unary(SERVICE "UnaryCall", buf_str(&b), &resp, &zip) == 0);
        buf_fini(&b);
        check(payload_size(resp, REPLY_PAYLOAD) == LARGE_REPLY);
}

static void server_compressed_unary(void)
{
        for (int on = 0; on < 2; on++) {
                struct buf b = {0};
                struct str m;
                put_bool(&b, SIMPLE_COMPRESSED, on);
                simple_request(&b, LARGE_REPLY, LARGE_REQUEST);
                struct rpc_call *c = open_call(SERVICE "UnaryCall", NULL);
                check(c && rpc_send(c, buf_str(&b)) == 0 && rpc_send_end(c) == 0);
                check(rpc_recv(c, &m) == 1);
                check(payload_size(m, REPLY_PAYLOAD) == LARGE_REPLY);
                check(c->msg_compressed == on);
                check(finish(c) == 0);
                buf_fini(&b);
        }
}

static const size_t request_sizes[] = {27182, 8, 1828, 45904};
static const size_t reply_sizes[] = {31415, 9, 2653, 58979};

static void client_streaming(void)
{
        struct rpc_call *c = open_call(SERVICE "StreamingInputCall", NULL);
        struct str m;
        check(c);
        for (int i = 0; i < 4; i++) {
                struct buf b = {0};
                put_payload(&b, INPUT_PAYLOAD, request_sizes[i]);
                check(rpc_send(c, buf_str(&b)) == 0);
                buf_fini(&b);
        }
        check(rpc_send_end(c) == 0);
        check(rpc_recv(c, &m) == 1);
        check(find_field(m, INPUT_TOTAL).value == 74922);
        check(finish(c) == 0);
}

static void server_streaming(void)
{
        struct rpc_call *c = open_call(SERVICE "StreamingOutputCall", NULL);
        struct buf b = {0};
        struct str m;
        int n = 0;
        for (int i = 0; i < 4; i++)
                put_params(&b, reply_sizes[i], 0);
        check(c && rpc_send(c, buf_str(&b)) == 0 && rpc_send_end(c) == 0);
        buf_fini(&b);
        while (rpc_recv(c, &m) > 0) {
                check(n < 4 && payload_size(m, REPLY_PAYLOAD) == reply_sizes[n]);
                n++;
        }
        check(finish(c) == 0);
        check(n == 4);
}

/* One request of a ping-pong: asks for `reply` bytes, carries `payload`. */
static int ping(struct rpc_call *c, size_t reply, size_t payload, unsigned us)
{
        struct buf b = {0};
        put_params(&b, reply, us);
        put_payload(&b, OUTPUT_PAYLOAD, payload);
        int r = rpc_send(c, buf_str(&b));
        buf_fini(&b);
        return r;
}

static void ping_pong(void)
{
        const struct rpc_opts reuse = {.flags = RPC_REUSE};
        struct rpc_call *c = open_call(SERVICE "FullDuplexCall", &reuse);
        struct str m;
        check(c);
        for (int i = 0; i < 4; i++) {
                check(ping(c, reply_sizes[i], request_sizes[i], 0) == 0);
                check(rpc_recv(c, &m) == 1);
                check(payload_size(m, REPLY_PAYLOAD) == reply_sizes[i]);
        }
        check(rpc_send_end(c) == 0);
        check(rpc_recv(c, &m) == 0);
        check(finish(c) == 0);
}

static void empty_stream(void)
{
        struct rpc_call *c = open_call(SERVICE "FullDuplexCall", NULL);
        struct str m;
        check(c && rpc_send_end(c) == 0);
        check(rpc_recv(c, &m) == 0);
        check(finish(c) == 0);
}

static void timeout_on_sleeping_server(void)
{
        const struct rpc_opts o = {.timeout_s = 0.001};
        struct rpc_call *c = open_call(SERVICE "FullDuplexCall", &o);
        if (!c) {
                check(T.st.code == RPC_DEADLINE_EXCEEDED);
                return;
        }
        ping(c, 31415, 27182, 100000);
        check(finish(c) == RPC_DEADLINE_EXCEEDED);
}

static void cancel_after_begin(void)
{
        struct rpc_call *c = open_call(SERVICE "StreamingInputCall", NULL);
        check(c);
        rpc_cancel(c);
        check(finish(c) == RPC_CANCELLED);
}

static void cancel_after_first_response(void)
{
        struct rpc_call *c = open_call(SERVICE "FullDuplexCall", NULL);
        struct str m;
        check(c && ping(c, 31415, 27182, 0) == 0);
        check(rpc_recv(c, &m) == 1);
        rpc_cancel(c);
        check(finish(c) == RPC_CANCELLED);
}

static void status_with(struct str text, bool stream_too)
{
        struct buf b = {0};
        struct str resp;
        put_status(&b, SIMPLE_STATUS, 2, text);
        check(unary(SERVICE "UnaryCall", buf_str(&b), &resp, NULL) == RPC_UNKNOWN);
        check(str_eq(T.st.message, text));
        if (stream_too) {
                struct rpc_call *c = open_call(SERVICE "FullDuplexCall", NULL);
                check(c && rpc_send(c, buf_str(&b)) == 0);
                check(finish(c) == RPC_UNKNOWN);
                check(str_eq(T.st.message, text));
        }
        buf_fini(&b);
}

static void status_code_and_message(void)
{
        status_with(STR("test status message"), true);
}

static void special_status_message(void)
{
        status_with(STR(text_unicode), false);
}

static void unimplemented_method(void)
{
        struct str resp;
        check(unary(SERVICE "UnimplementedCall", STR(""), &resp, NULL) == RPC_UNIMPLEMENTED);
}

static void unimplemented_service(void)
{
        struct str resp;
        check(unary("/grpc.testing.UnimplementedService/UnimplementedCall", STR(""), &resp, NULL) == RPC_UNIMPLEMENTED);
}

static void check_echo(struct rpc_call *c)
{
        check(finish(c) == 0);
        check(str_eq(rpc_md_get(&c->md_in, ECHO_HEADER), STR("test_initial_metadata_value")));
        check(str_eq(rpc_md_get(&c->md_trailers, ECHO_TRAILER), STR("\xab\xab\xab")));
}

static void custom_metadata(void)
{
        const struct rpc_md md[] = {{STR(ECHO_HEADER), STR("test_initial_metadata_value")}, {STR(ECHO_TRAILER), STR("\xab\xab\xab")}};
        const struct rpc_opts o = {.md = md, .n_md = 2};
        struct buf b = {0};
        struct str m;
        struct rpc_call *c = open_call(SERVICE "UnaryCall", &o);
        check(c && rpc_send(c, simple_request(&b, 1, 1)) == 0 && rpc_send_end(c) == 0);
        check(rpc_recv(c, &m) == 1);
        check_echo(c);
        c = open_call(SERVICE "FullDuplexCall", &o);
        check(c && ping(c, 1, 1, 0) == 0 && rpc_send_end(c) == 0);
        check(rpc_recv(c, &m) == 1);
        check_echo(c);
        buf_fini(&b);
}

static const struct {
        const char *name;
        void (*fn)(void);
} cases[] = {
        {"empty_unary", empty_unary},
        {"large_unary", large_unary},
        {"client_compressed_unary", client_compressed_unary},
        {"server_compressed_unary", server_compressed_unary},
        {"client_streaming", client_streaming},
        {"server_streaming", server_streaming},
        {"ping_pong", ping_pong},
        {"empty_stream", empty_stream},
        {"timeout_on_sleeping_server", timeout_on_sleeping_server},
        {"cancel_after_begin", cancel_after_begin},
        {"cancel_after_first_response", cancel_after_first_response},
        {"status_code_and_message", status_code_and_message},
        {"special_status_message", special_status_message},
        {"unimplemented_method", unimplemented_method},
        {"unimplemented_service", unimplemented_service},
        {"custom_metadata", custom_metadata},
};

static void run(void *arg)
{
        bool found = false;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                if (strcmp(T.test, cases[i].name) == 0) {
                        cases[i].fn();
                        found = true;
                }
        }
        if (!found) {
                fprintf(stderr, "no such case: %s\n", T.test);
                T.failures++;
        }
        rpc_channel_close(T.ch);
        loop_stop();
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
        size_t n = strlen(name);
        for (int i = 1; i < argc; i++) {
                const char *p = argv[i] + strspn(argv[i], "-");
                if (strncmp(p, name, n) == 0 && p[n] == '=')
                        return p + n + 1;
        }
        return otherwise;
}

int main(int argc, char **argv)
{
        char target[256];
        struct scope s;
        T.test = option(argc, argv, "test_case", "large_unary");
        snprintf(target, sizeof(target), "%s:%s", option(argc, argv, "server_host", "127.0.0.1"),
                 option(argc, argv, "server_port", "10000"));
        const struct rpc_channel_conf conf = {.target = str_of(target)};
        scope_init(&s);
        if (loop_init() || rpc_channel_new(&T.ch, &conf) || fiber_go(&s, "run", run, NULL))
                return 1;
        loop_run();
        arena_fini(&T.a);
        work_fini();
        loop_fini();
        return T.failures != 0;
}
