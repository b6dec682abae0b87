/*
 * A call's messages, the same for both sides: frames out of and into an HTTP/2 stream, with limits, gzip and back-pressure.
 *
 * A message that has arrived whole with the end of the stream is handed out where it lies (nothing can move the buffer any
 * more); others are copied into the message arena while the stream's credit is given back, so a message may be larger than
 * the window.
 */
#include "sdk/net/rpc_call.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>

#include "sdk/base/log.h"

static struct str header(const struct http_headers *h, struct str name)
{
        for (size_t i = 0; i < h->n; i++) {
                if (str_eq(h->v[i].name, name))
                        return h->v[i].value;
        }
        return STR_NULL;
}

/* ---- how calls end ---- */

static void set_status(struct call *k, int code, const char *fmt, va_list ap)
{
        char *p = arena_vprintf(k->c.arena, fmt, ap);
        k->c.status = (struct rpc_status){.code = code, .message = p ? str_of(p) : STR("out of memory")};
}

int call_fail(struct call *k, int code, const char *fmt, ...)
{
        if (k->server ? k->c.status.code == RPC_OK : !k->ended) {
                va_list ap;
                va_start(ap, fmt);
                set_status(k, code, fmt, ap);
                va_end(ap);
        }
        if (!k->server) {
                k->ended = true;
                if (!k->s->closed)
                        h2_reset(k->s, H2_CANCEL);
        }
        return -EBADMSG;
}

int call_interrupted(struct call *k, int err)
{
        if (k->server)
                return err;
        if (err == -ETIMEDOUT)
                call_fail(k, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
        else if (err == -ECANCELED)
                call_fail(k, RPC_CANCELLED, "context canceled");
        else
                call_fail(k, rpc_code_of_errno(err), "%s", strerror(-err));
        return err;
}

static void lost_status(struct call *k, int err)
{
        if (err == -ETIMEDOUT)
                call_fail(k, RPC_UNAVAILABLE, "keepalive ping failed to receive ACK within timeout");
        else if (err == -ECONNRESET)
                call_fail(k, RPC_UNAVAILABLE, "error reading from server: EOF");
        else
                call_fail(k, RPC_UNAVAILABLE, "error reading from server: %s", strerror(-err));
}

int call_broken(struct call *k)
{
        struct h2_stream *s = k->s;
        const char *name;
        if (k->ended)
                return -EPIPE;
        if (s->error == -EMSGSIZE) {
                call_fail(k, RPC_INTERNAL, "peer header list size exceeded limit");
        } else if (s->error == -E2BIG) {
                call_fail(k, RPC_INTERNAL, "header list size to send violates the maximum size (%d bytes)", H2_MAX_SEND_HEADERS);
        } else if (s->rst_code) {
                int code = rpc_code_of_rst(s->rst_code, &name);
                double end = fiber_self() ? fiber_deadline() : INFINITY;
                if (code == RPC_CANCELLED && loop_now() >= (k->deadline < end ? k->deadline : end))
                        call_fail(k, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
                else
                        call_fail(k, code, "stream terminated by RST_STREAM with error code: %s", name);
        } else if (s->error == -ENETRESET) {
                call_fail(k, RPC_UNAVAILABLE, "the connection is draining");
        } else if (s->conn) {
                call_fail(k, RPC_INTERNAL, "server closed the stream without sending trailers");
        } else {
                lost_status(k, s->error);
        }
        k->c.status.transport = true;
        k->c.status.unprocessed = s->error == -ENETRESET;
        return -EPIPE;
}

static int parse_code(struct str s)
{
        int n = 0;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9' || n > 1000)
                        return -1;
                n = n * 10 + (s.p[i] - '0');
        }
        return s.n ? n : -1;
}

/* The peer has ended: status and trailers. */
static int take_status(struct call *k)
{
        struct h2_stream *s = k->s;
        const struct http_headers *h = s->trailers.n ? &s->trailers : &s->headers;
        struct str code = header(h, STR("grpc-status"));
        if (k->ended)
                return 0;
        if (!code.p)
                return call_fail(k, RPC_INTERNAL, "server closed the stream without sending trailers");
        int n = parse_code(code);
        if (n < 0)
                return call_fail(k, RPC_UNKNOWN, "malformed grpc-status: \"%.*s\"", STR_FMT(code));
        struct rpc_status *st = &k->c.status;
        *st = (struct rpc_status){.code = n, .message = STR("")};
        if (n) {
                st->message = rpc_percent_decode(k->c.arena, header(h, STR("grpc-message")));
                struct str details = header(h, STR("grpc-status-details-bin"));
                struct rpc_mdlist l = {0};
                const struct http_headers one = {&(struct http_header){STR("x-bin"), details}, 1, 1};
                if (details.p && !rpc_md_from_headers(k->c.arena, &one, true, &l))
                        st->details = l.v[0].value;
        }
        if (k->keep_md && rpc_md_from_headers(k->c.arena, h, true, &k->c.md_trailers))
                return call_fail(k, RPC_RESOURCE_EXHAUSTED, "out of memory");
        k->ended = true;
        return 0;
}

/* Client: response headers have come. 0, or the call is over. */
static int check_headers(struct call *k)
{
        struct h2_stream *s = k->s;
        struct str type = header(&s->headers, STR("content-type"));
        bool is_grpc = rpc_is_grpc_content(type);
        k->headers_seen = true;
        if (!is_grpc || (s->status != 200 && !header(&s->headers, STR("grpc-status")).p)) {
                int code = s->status == 200 ? RPC_UNKNOWN : rpc_code_of_http(s->status);
                const char *text = http_status_text(s->status);
                if (is_grpc)
                        return call_fail(k, code, "unexpected HTTP status code received from server: %d (%s)", s->status, text);
                if (type.p)
                        return call_fail(k, code,
                                         "unexpected HTTP status code received from server: %d (%s); transport: received unexpected "
                                         "content-type \"%.*s\"",
                                         s->status, text, STR_FMT(type));
                return call_fail(k, code,
                                 "unexpected HTTP status code received from server: %d (%s); malformed header: missing HTTP "
                                 "content-type",
                                 s->status, text);
        }
        struct str enc = header(&s->headers, STR("grpc-encoding"));
        k->gzip_in = str_eq(enc, STR("gzip"));
        if (enc.n && !k->gzip_in && !str_eq(enc, STR("identity")))
                return call_fail(k, RPC_INTERNAL, "grpc: Decompressor is not installed for grpc-encoding \"%.*s\"", STR_FMT(enc));
        if (k->keep_md && !(s->remote_ended && !s->trailers.n && !buf_len(&s->in)) &&
            rpc_md_from_headers(k->c.arena, &s->headers, true, &k->c.md_in))
                return call_fail(k, RPC_RESOURCE_EXHAUSTED, "out of memory");
        return 0;
}

int call_take_headers(struct call *k)
{
        if (k->ended)
                return k->c.status.code ? -EPIPE : 0;
        return k->headers_seen ? 0 : check_headers(k);
}

/* ---- receiving ---- */

static int wait_change(struct call *k)
{
        int r = cond_wait_until(&k->s->changed, k->deadline);
        return r ? call_interrupted(k, r) : 0;
}

struct arena *rpc_msg_arena(struct rpc_call *c)
{
        return c->flags & RPC_REUSE ? &call_of(c)->scratch : c->arena;
}

/* 1 = a frame's head is at the front of s->in, 0 = end, <0. */
static int next_head(struct call *k, struct rpc_frame *f)
{
        struct h2_stream *s = k->s;
        for (;;) {
                if (!k->server && !k->headers_seen && s->have_headers && check_headers(k))
                        return -EBADMSG;
                int r = rpc_frame_get(buf_str(&s->in), f);
                if (r < 0)
                        return call_fail(k, RPC_INTERNAL, "grpc: received unexpected payload format %d", (uint8_t)s->in.p[s->in.off]);
                if (r)
                        return 1;
                if (s->remote_ended && !buf_len(&s->in))
                        return k->server ? 0 : take_status(k);
                if (s->remote_ended)
                        return call_fail(k, RPC_INTERNAL, "unexpected EOF");
                if (s->closed)
                        return k->server ? -ECANCELED : call_broken(k);
                r = wait_change(k);
                if (r)
                        return r;
        }
}

/* The rest of a message that is still on its way goes straight to where it belongs. */
static int fill_body(struct call *k, char *p, size_t n)
{
        struct h2_stream *s = k->s;
        int r = 0;
        s->sink = p;
        s->sink_n = n;
        while (s->sink_n && !r) {
                if (s->remote_ended)
                        r = call_fail(k, RPC_INTERNAL, "unexpected EOF");
                else if (s->closed)
                        r = k->server ? -ECANCELED : call_broken(k);
                else
                        r = wait_change(k);
        }
        s->sink_n = 0;
        return r;
}

static int take_body(struct call *k, size_t n, struct str *ret)
{
        struct h2_stream *s = k->s;
        h2_consume(s, RPC_FRAME_HEAD);
        size_t have = buf_len(&s->in) < n ? buf_len(&s->in) : n;
        k->in_place = s->remote_ended && have == n && !(k->c.flags & RPC_KEEP);
        if (k->in_place) {
                *ret = (struct str){s->in.p + s->in.off, n};
                h2_consume(s, n);
                return 0;
        }
        char *p = arena_alloc(rpc_msg_arena(&k->c), n);
        if (!p)
                return call_fail(k, RPC_RESOURCE_EXHAUSTED, "out of memory for a message of %zu bytes", n);
        memcpy(p, s->in.p + s->in.off, have);
        h2_consume(s, have);
        *ret = (struct str){p, n};
        return have < n ? fill_body(k, p + have, n - have) : 0;
}

static int expand(struct call *k, struct str *msg)
{
        int r = rpc_gunzip(rpc_msg_arena(&k->c), *msg, k->max_recv, msg);
        k->in_place = false;
        switch (r) {
        case 0:
                return 0;
        case -EMSGSIZE:
                return call_fail(k, RPC_RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max %lld",
                                 (long long)k->max_recv);
        default:
                return call_fail(k, RPC_INTERNAL, "grpc: failed to decompress the received message: gzip: invalid data");
        }
}

int call_next(struct call *k, struct str *ret)
{
        struct rpc_frame f;
        if (k->ended)
                return k->c.status.code ? -EPIPE : 0;
        if (k->c.flags & RPC_REUSE)
                arena_reset(&k->scratch);
        int r = next_head(k, &f);
        if (r <= 0)
                return r;
        if (k->max_recv >= 0 && f.n > k->max_recv)
                return call_fail(k, RPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%u vs. %lld)", f.n,
                                 (long long)k->max_recv);
        if (f.compressed && !k->gzip_in)
                return call_fail(k, RPC_INTERNAL, "grpc: compressed flag set with identity or empty encoding");
        r = take_body(k, f.n, ret);
        if (!r && f.compressed)
                r = expand(k, ret);
        if (r)
                return r;
        k->c.bytes_in += ret->n;
        k->c.msg_compressed = f.compressed;
        if (k->watch)
                k->watch(k->watch_arg, &k->c, false, *ret);
        return 1;
}

void rpc_watch(struct rpc_call *c, rpc_watch_fn fn, void *arg)
{
        call_of(c)->watch = fn;
        call_of(c)->watch_arg = arg;
}

int rpc_recv(struct rpc_call *c, struct str *ret)
{
        return call_next(call_of(c), ret);
}

bool rpc_recv_done(const struct rpc_call *c)
{
        const struct call *k = (const struct call *)c;
        return k->ended || !k->s || (k->s->remote_ended && !buf_len(&k->s->in));
}

bool rpc_peer_ended(const struct rpc_call *c)
{
        const struct call *k = (const struct call *)c;
        return k->ended || !k->s || k->s->remote_ended;
}

int rpc_recv_pb(struct rpc_call *c, const ProtobufCMessageDescriptor *d, void *ret)
{
        struct str bytes;
        int r = call_next(call_of(c), &bytes);
        if (r <= 0)
                return r;
        void *m = pb_unpack_borrow(rpc_msg_arena(c), d, bytes);
        if (!m) {
                const char *side = call_of(c)->server ? "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"
                                                      : "grpc: failed to unmarshal the received message: proto: cannot parse invalid "
                                                        "wire-format data";
                return call_fail(call_of(c), RPC_INTERNAL, "%s", side);
        }
        *(void **)ret = m;
        return 1;
}

/* ---- sending ---- */

enum { KEEP_PACKED_BYTES = 64 * 1024 };

/* Packed messages on their way into a stream; never held across a park. */
static struct buf packed;

int call_put(struct call *k, struct str msg, bool last)
{
        char head[RPC_FRAME_HEAD];
        struct arena zipped = {0};
        bool zip = k->gzip_out && k->c.flags & RPC_GZIP;
        k->c.bytes_out += msg.n;
        if (k->watch)
                k->watch(k->watch_arg, &k->c, true, msg);
        if (zip && !(msg = rpc_gzip(&zipped, msg)).p) {
                arena_fini(&zipped);
                return -ENOMEM;
        }
        rpc_frame_put(head, zip, msg.n);
        int r = h2_send(k->s, head, sizeof(head), last && !msg.n);
        if (!r && msg.n)
                r = h2_send(k->s, msg.p, msg.n, last);
        k->send_ended |= last;
        arena_fini(&zipped);
        return r == -ENOMEM ? r : r ? -EPIPE : 0;
}

int call_put_pb(struct call *k, const ProtobufCMessage *m, bool last)
{
        buf_clear(&packed);
        int r = pb_pack_buf(&packed, m);
        if (!r && k->max_send >= 0 && buf_len(&packed) > (uint64_t)k->max_send)
                r = call_too_large(k, buf_len(&packed));
        if (!r)
                r = call_put(k, buf_str(&packed), last);
        if (packed.cap > KEEP_PACKED_BYTES)
                buf_fini(&packed);
        return r;
}

void rpc_call_fini(void)
{
        buf_fini(&packed);
}

int call_too_large(struct call *k, size_t n)
{
        call_fail(k, RPC_RESOURCE_EXHAUSTED, "%strying to send message larger than max (%zu vs. %lld)", k->server ? "grpc: " : "", n,
                  (long long)k->max_send);
        return -EMSGSIZE;
}

/* Until one more message may be queued. */
static int wait_room(struct call *k)
{
        while (h2_unsent(k->s) >= H2_STREAM_HIGH_WATER && !k->s->closed) {
                int r = wait_change(k);
                if (r)
                        return r;
        }
        if (k->ended || k->send_ended || k->s->closed || (!k->server && k->s->remote_ended))
                return -EPIPE;
        return k->server ? call_send_headers(k) : 0;
}

int rpc_send(struct rpc_call *c, struct str msg)
{
        struct call *k = call_of(c);
        if (k->max_send >= 0 && msg.n > (uint64_t)k->max_send)
                return call_too_large(k, msg.n);
        int r = wait_room(k);
        return r ? r : call_put(k, msg, false);
}

int rpc_send_pb(struct rpc_call *c, const ProtobufCMessage *m)
{
        struct call *k = call_of(c);
        int r = wait_room(k);
        return r ? r : call_put_pb(k, m, false);
}
