/*
 * Bytes of a peer through our HTTP/2 callbacks. The first byte says who listens (plain server, client with three streams, gRPC
 * server) and how the rest is read: raw, or as frames whose head is built from three bytes each, so that mutations stay close
 * to the protocol. Nothing may be left behind: no stream, no fiber, no byte.
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/net/http2.h"
#include "sdk/net/rpc.h"

enum { ROLE = 3, SERVER = 0, CLIENT = 1, RPC = 2, RPC_AGAIN = 3, RAW = 4, TURNS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct {
        const uint8_t *data;
        size_t n;
        struct h2_stream *kept[8];
        size_t n_kept;
        int closes;
} F;

/* What the stream's path asks for; most do something at once, some wait. */
static void on_stream(struct h2_conn *c, struct h2_stream *s)
{
        static const struct http_header h[] = {{{"x-a", 3}, {"b", 1}}, {{"content-length", 14}, {"3", 1}}};
        size_t what = s->path.n + s->headers.n;
        if (what % 5 == 0 && F.n_kept < 8) {
                F.kept[F.n_kept++] = s;
                return;
        }
        h2_consume(s, buf_len(&s->in) / 2);
        if (what % 5 != 1)
                h2_respond(s, 200, h, what % 2, what % 5 == 2);
        if (what % 5 == 3) {
                h2_send(s, "abc", 3, false);
                h2_send_trailers(s, h, 1);
        }
        if (what % 7 == 4)
                h2_reset(s, H2_CANCEL);
        h2_release(s);
}

static void on_event(struct h2_stream *s)
{
        if (s->headers.n % 2)
                h2_consume(s, buf_len(&s->in));
}

static void on_close(struct h2_conn *c, int err)
{
        F.closes++;
}

static int echo(struct rpc_call *c, void *arg)
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

static const struct rpc_method rows[] = {{"/a/b", echo}};

static void put_input(struct conn *io, int role, bool raw)
{
        const uint8_t *p = F.data, *end = p + F.n;
        if (role != CLIENT && !raw)
                conn_write(io, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
        if (role == CLIENT && !raw)
                conn_write(io, "\0\0\0\4\0\0\0\0\0", 9);
        if (raw) {
                conn_write(io, p, F.n);
                return;
        }
        while (end - p >= 3) {
                size_t n = p[0], left = (size_t)(end - p) - 3;
                const char head[9] = {0, 0, (char)n, (char)(p[1] & 15), (char)(p[2] & 0x2d), 0, 0, 0, (char)(p[1] >> 4)};
                conn_write(io, head, 9);
                conn_write(io, p + 3, n < left ? n : left);
                p += 3 + (n < left ? n : left);
        }
}

static void drain(struct conn *io)
{
        for (int i = 0; i < TURNS; i++) {
                buf_clear(&io->in);
                fiber_yield();
        }
}

static struct h2_conn *open_client(struct conn *io)
{
        const struct h2_conf conf = {.on_event = on_event, .on_close = on_close, .max_header_list = 1000};
        struct h2_conn *c = h2_conn_new(io, &conf);
        int err;
        for (int i = 0; i < 3; i++) {
                F.kept[F.n_kept++] = h2_open(c, STR("POST"), STR("http"), STR("x"), STR("/"), NULL, 0, i == 2, &err);
                must(F.kept[i]);
        }
        return c;
}

static void run(void *arg)
{
        const struct h2_conf server = {.server = true, .on_stream = on_stream, .on_event = on_event, .on_close = on_close,
                                       .max_header_list = 1000, .max_streams = 5, .min_ping_interval_s = 1};
        const struct rpc_server_conf rpc = {.max_recv_bytes = 1000};
        int fd[2], first = F.data[0], role = first & ROLE;
        struct rpc_server *sv = NULL;
        F.data++;
        F.n--;
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
        struct conn *mine = conn_new(fd[0]), *io = conn_new(fd[1]);
        if (role == SERVER) {
                must(h2_conn_new(mine, &server));
        } else if (role == CLIENT) {
                open_client(mine);
        } else {
                must(rpc_server_new(&sv, &rpc) == 0 && rpc_server_add(sv, rows, 1) == 0);
                rpc_server_serve_conn(sv, mine);
        }
        put_input(io, role, first & RAW);
        conn_read(io);
        drain(io);
        for (size_t i = 0; i < F.n_kept; i += 2)
                h2_release(F.kept[i]);
        drain(io);
        conn_free(io);
        if (sv) {
                rpc_server_stop(sv, 0);
                rpc_server_free(sv);
        } else {
                for (int i = 0; i < 100 && !F.closes; i++)
                        fiber_yield();
                must(F.closes == 1);
        }
        for (size_t i = 1; i < F.n_kept; i += 2)
                h2_release(F.kept[i]);
        for (int i = 0; i < TURNS; i++)
                fiber_yield(); /* a closed conn sees the peer's end and goes */
        loop_stop();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct scope s;
        if (!n)
                return 0;
        memset(&F, 0, sizeof(F));
        F.data = data;
        F.n = n;
        scope_init(&s);
        must(loop_init() == 0);
        must(fiber_go(&s, "run", run, NULL) == 0);
        loop_run();
        must(fiber_count() == 0);
        loop_fini();
        h2_pool_fini();
        rpc_call_fini();
        return 0;
}
