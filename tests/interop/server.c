/*
 * grpc.testing.TestService for gRPC's interoperability clients. interop_server -port=N (also --port N); 0 = any, printed.
 * What each method must do: grpc/doc/interop-test-descriptions.md.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "tests/interop/messages.h"

static void echo_metadata(struct rpc_call *c)
{
        struct str h = rpc_md_get(&c->md_in, ECHO_HEADER), t = rpc_md_get(&c->md_in, ECHO_TRAILER);
        if (h.p)
                rpc_md_add(&c->md_out, c->arena, STR(ECHO_HEADER), h);
        if (t.p)
                rpc_md_add(&c->md_trailers_out, c->arena, STR(ECHO_TRAILER), t);
}

/* True when the request asks for a status instead of a reply. */
static bool wants_status(struct rpc_call *c, struct str req)
{
        struct str st = find_field(req, SIMPLE_STATUS).bytes;
        if (!st.p)
                return false;
        rpc_fail(c, (int)find_field(st, STATUS_CODE).value, "%.*s", STR_FMT(find_field(st, STATUS_MESSAGE).bytes));
        return true;
}

static bool asks_compressed(struct str m, uint32_t number)
{
        return find_field(find_field(m, number).bytes, BOOL_VALUE).value;
}

static void set_compression(struct rpc_call *c, bool on)
{
        c->flags = on ? c->flags | RPC_GZIP : c->flags & ~RPC_GZIP;
}

static int send_payload(struct rpc_call *c, size_t n)
{
        struct buf b = {0};
        put_payload(&b, REPLY_PAYLOAD, n);
        int r = rpc_send(c, buf_str(&b));
        buf_fini(&b);
        return r;
}

static int empty_call(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        echo_metadata(c);
        return r < 0 ? r : rpc_send(c, STR(""));
}

static int unary_call(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        if (r <= 0)
                return r;
        echo_metadata(c);
        if (asks_compressed(m, SIMPLE_EXPECT) && !c->msg_compressed)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "expected a compressed message");
        if (wants_status(c, m))
                return 0;
        set_compression(c, asks_compressed(m, SIMPLE_COMPRESSED));
        return send_payload(c, find_field(m, SIMPLE_SIZE).value);
}

static int streaming_input(struct rpc_call *c, void *arg)
{
        struct str m;
        struct buf b = {0};
        size_t total = 0;
        int r;
        c->flags |= RPC_REUSE;
        while ((r = rpc_recv(c, &m)) > 0) {
                if (asks_compressed(m, INPUT_EXPECT) && !c->msg_compressed)
                        return rpc_fail(c, RPC_INVALID_ARGUMENT, "expected a compressed message");
                total += payload_size(m, INPUT_PAYLOAD);
        }
        if (r < 0)
                return r;
        put_int(&b, INPUT_TOTAL, total);
        r = rpc_send(c, buf_str(&b));
        buf_fini(&b);
        return r;
}

static int send_params(struct rpc_call *c, struct str m)
{
        int r = 0;
        for (struct field f; !r && next_field(&m, &f);) {
                if (f.number != OUTPUT_PARAMS)
                        continue;
                uint64_t us = find_field(f.bytes, PARAM_INTERVAL_US).value;
                if (us)
                        r = fiber_sleep((double)us / 1e6);
                set_compression(c, asks_compressed(f.bytes, PARAM_COMPRESSED));
                if (!r)
                        r = send_payload(c, find_field(f.bytes, PARAM_SIZE).value);
        }
        return r;
}

static bool any_compressed(struct str m)
{
        for (struct field f; next_field(&m, &f);) {
                if (f.number == OUTPUT_PARAMS && asks_compressed(f.bytes, PARAM_COMPRESSED))
                        return true;
        }
        return false;
}

static int streaming_output(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        if (r <= 0)
                return r;
        set_compression(c, any_compressed(m));
        r = rpc_send_headers(c);
        return r ? r : send_params(c, m);
}

static int full_duplex(struct rpc_call *c, void *arg)
{
        struct str m;
        int r;
        echo_metadata(c);
        c->flags |= RPC_REUSE;
        while ((r = rpc_recv(c, &m)) > 0) {
                if (wants_status(c, m))
                        return 0;
                r = send_params(c, m);
                if (r)
                        return r;
        }
        return r;
}

static int half_duplex(struct rpc_call *c, void *arg)
{
        struct str all[64];
        size_t n = 0;
        int r;
        while (n < sizeof(all) / sizeof(all[0]) && (r = rpc_recv(c, &all[n])) > 0)
                n++;
        for (size_t i = 0; i < n && r >= 0; i++)
                r = send_params(c, all[i]);
        return r;
}

static const struct rpc_method rows[] = {
        {SERVICE "EmptyCall", empty_call},
        {SERVICE "UnaryCall", unary_call},
        {SERVICE "CacheableUnaryCall", unary_call},
        {SERVICE "StreamingOutputCall", streaming_output},
        {SERVICE "StreamingInputCall", streaming_input},
        {SERVICE "FullDuplexCall", full_duplex},
        {SERVICE "HalfDuplexCall", half_duplex},
};

int main(int argc, char **argv)
{
        const char *port = "10000";
        char addr[32];
        struct rpc_server *sv;
        const struct rpc_server_conf conf = {.name = "interop", .reflection = rpc_reflection};
        for (int i = 1; i < argc; i++) {
                const char *eq = strchr(argv[i], '=');
                if (strstr(argv[i], "port"))
                        port = eq ? eq + 1 : i + 1 < argc ? argv[++i] : port;
        }
        snprintf(addr, sizeof(addr), "127.0.0.1:%s", port);
        if (loop_init() || rpc_server_new(&sv, &conf) || rpc_server_add(sv, rows, sizeof(rows) / sizeof(rows[0])))
                return 1;
        int r = rpc_server_listen(sv, str_of(addr));
        if (r) {
                fprintf(stderr, "cannot listen on %s: %s\n", addr, strerror(-r));
                return 1;
        }
        printf("listening on %d\n", rpc_server_port(sv));
        fflush(stdout);
        loop_run();
        return 0;
}
