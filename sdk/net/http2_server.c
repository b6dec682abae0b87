/*
 * The server's side of an HTTP/2 connection: each stream is a request, which a fiber of its own handles. Request and stream share an
 * arena, and go together. A stream that the client resets, or whose connection is lost, cancels its fiber.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/net/http2.h"
#include "sdk/net/http_server.h"

struct h2_peer {
        struct http_peer peer;
        struct h2_conn *h2;
};

struct h2_req {
        struct http_req r;
        struct h2_stream *s;
        struct fiber *fiber;
        bool cancelled, aborted, no_body_out;
        int body_error;
        int64_t left_out;
};

static struct h2_req *h2_of(const struct http_req *r)
{
        return r->impl;
}

static int h2_error(const struct h2_stream *s)
{
        return s->error ? s->error : -EPIPE;
}

ssize_t h2_req_read(struct http_req *r, void *p, size_t n)
{
        struct h2_req *q = h2_of(r);
        int64_t max = r->server->conf.max_body_bytes;
        if (q->body_error)
                return q->body_error;
        if (max > 0 && r->content_length > max)
                return q->body_error = -EMSGSIZE;
        ssize_t got = h2_read(q->s, p, n);
        if (got > 0)
                r->bytes_in += (uint64_t)got;
        if (max > 0 && r->bytes_in > (uint64_t)max)
                return q->body_error = -EMSGSIZE;
        return got;
}

/* Fields of a connection have no place in HTTP/2. */
static bool is_hop_by_hop(struct str name)
{
        switch (http1_field_kind(name)) {
        case HTTP1_CONNECTION:
        case HTTP1_TRANSFER_ENCODING:
        case HTTP1_HOST:
                return true;
        case HTTP1_PLAIN:
                return str_ieq(name, STR("Keep-Alive")) || str_ieq(name, STR("Proxy-Connection")) || str_ieq(name, STR("Upgrade"));
        case HTTP1_DATE:
        case HTTP1_CONTENT_LENGTH:
                return false;
        }
        return false;
}

static struct str uint_text(struct arena *a, uint64_t v)
{
        char *p = arena_alloc(a, 24);
        struct buf b = {.p = p, .cap = 24};
        if (!p)
                return STR_NULL;
        http1_put_uint(&b, v);
        return str_n(p, b.len);
}

/* As the HTTP/1 side: Date and Content-Length are ours. Values lose their line breaks, names must be tokens. */
static int h2_put_head(struct h2_req *q, int status, const struct http_header *h, size_t n, int64_t length, bool end)
{
        struct http_req *r = &q->r;
        struct http_headers out = {0};
        bool has_date = false, has_length = false, head = str_eq(r->method, STR("HEAD"));
        bool bare = status < 200 || status == 204 || status == 304;
        if (r->begun || status < 200 || status > 999)
                return -EINVAL;
        q->no_body_out = head || bare;
        for (size_t i = 0; i < n; i++) {
                struct str v = h[i].value;
                enum http1_field kind = http1_field_kind(h[i].name);
                if (is_hop_by_hop(h[i].name) || !http1_is_token(h[i].name) || (kind == HTTP1_CONTENT_LENGTH && !q->no_body_out))
                        continue;
                has_date |= kind == HTTP1_DATE;
                has_length |= kind == HTTP1_CONTENT_LENGTH;
                if (v.n && (memchr(v.p, '\r', v.n) || memchr(v.p, '\n', v.n) || memchr(v.p, 0, v.n))) {
                        char *p = arena_strdup(r->arena, v);
                        for (size_t k = 0; p && k < v.n; k++)
                                p[k] = p[k] == '\r' || p[k] == '\n' || !p[k] ? ' ' : p[k];
                        v.p = p;
                }
                if ((v.n && !v.p) || http_headers_add(&out, r->arena, h[i].name, v.p ? v : STR("")))
                        return -ENOMEM;
        }
        if (!has_date) {
                struct str d = http1_date_line();
                if (http_headers_add(&out, r->arena, STR("date"), str_n(d.p + 6, d.n - 8)))
                        return -ENOMEM;
        }
        if (!bare && length >= 0 && !(q->no_body_out && (has_length || !length))) {
                struct str v = uint_text(r->arena, (uint64_t)length);
                if (!v.p || http_headers_add(&out, r->arena, STR("content-length"), v))
                        return -ENOMEM;
        }
        q->left_out = q->no_body_out ? -1 : length;
        int e = h2_respond(q->s, status, out.v, out.n, end || q->no_body_out);
        if (!e) {
                r->begun = true;
                r->status = status;
        }
        return e;
}

int h2_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body)
{
        struct h2_req *q = h2_of(r);
        int e = h2_put_head(q, status, h, n, (int64_t)body.n, !body.n);
        if (e)
                return e;
        r->ended = true;
        if (q->no_body_out || !body.n)
                return 0;
        r->bytes_out += body.n;
        while (!e && body.n > HTTP_BODY_STEP_BYTES) {
                e = h2_write(q->s, body.p, HTTP_BODY_STEP_BYTES);
                body = str_skip(body, HTTP_BODY_STEP_BYTES);
        }
        if (!e)
                e = h2_send(q->s, body.p, body.n, true);
        q->aborted = e != 0;
        return e;
}

int h2_resp_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length)
{
        return h2_put_head(h2_of(r), status, h, n, length, false);
}

int h2_resp_write(struct http_req *r, struct str data)
{
        struct h2_req *q = h2_of(r);
        if (!r->begun || r->ended || q->aborted)
                return -EINVAL;
        if (q->no_body_out || !data.n)
                return q->s->closed ? h2_error(q->s) : 0;
        if (q->left_out >= 0) {
                if ((uint64_t)q->left_out < data.n)
                        return -EMSGSIZE;
                q->left_out -= (int64_t)data.n;
        }
        int e = h2_write(q->s, data.p, data.n);
        if (!e)
                r->bytes_out += data.n;
        return e;
}

int h2_resp_end(struct http_req *r, const struct http_header *trailers, size_t n)
{
        struct h2_req *q = h2_of(r);
        struct http_headers out = {0};
        if (!r->begun || r->ended || q->aborted)
                return -EINVAL;
        if (q->left_out > 0) {
                q->aborted = true;
                return -EMSGSIZE;
        }
        r->ended = true;
        if (q->no_body_out)
                return 0;
        for (size_t i = 0; i < n; i++) {
                struct str name = trailers[i].name;
                if (is_hop_by_hop(name) || !http1_is_token(name) || http1_field_kind(name) != HTTP1_PLAIN)
                        continue;
                char *low = arena_strdup(r->arena, name);
                for (size_t k = 0; low && k < name.n; k++)
                        low[k] = low[k] >= 'A' && low[k] <= 'Z' ? (char)(low[k] + 32) : low[k];
                if (!low || http_headers_add(&out, r->arena, str_n(low, name.n), trailers[i].value)) {
                        q->aborted = true;
                        return -ENOMEM;
                }
        }
        int e = out.n ? h2_send_trailers(q->s, out.v, out.n) : h2_send(q->s, NULL, 0, true);
        q->aborted = e != 0;
        return e;
}

void h2_resp_abort(struct http_req *r)
{
        h2_of(r)->aborted = true;
}

static void h2_fiber(void *arg)
{
        struct h2_req *q = arg;
        q->fiber = fiber_self();
        if (q->cancelled)
                fiber_cancel(q->fiber);
        http_run_handler(&q->r);
        if (!q->r.begun && !q->aborted)
                h2_resp_send(&q->r, 500, NULL, 0, STR(""));
        if (!q->r.ended || q->aborted)
                h2_reset(q->s, H2_INTERNAL_ERROR);
        q->s->user = NULL;
        h2_release(q->s);
}

/* HTTP/2 lets a client cut its cookies into several fields; handlers get one, as in HTTP/1. */
static void join_cookies(struct http_req *r)
{
        size_t n = 0, bytes = 0;
        for (size_t i = 0; i < r->headers.n; i++)
                if (str_ieq(r->headers.v[i].name, STR("cookie"))) {
                        n++;
                        bytes += r->headers.v[i].value.n + 2;
                }
        char *p = n > 1 ? arena_alloc(r->arena, bytes) : NULL;
        if (!p)
                return;
        size_t at = 0;
        for (size_t i = 0; i < r->headers.n; i++)
                if (str_ieq(r->headers.v[i].name, STR("cookie"))) {
                        if (at) {
                                p[at++] = ';';
                                p[at++] = ' ';
                        }
                        memcpy(p + at, r->headers.v[i].value.p, r->headers.v[i].value.n);
                        at += r->headers.v[i].value.n;
                }
        http_headers_remove(&r->headers, "cookie");
        http_headers_add(&r->headers, r->arena, STR("cookie"), str_n(p, at));
}

static int64_t length_of(const struct h2_stream *st)
{
        struct str v = http_headers_get(&st->headers, "content-length");
        int64_t n = 0;
        if (!v.n || v.n > 18)
                return st->remote_ended && !buf_len(&st->in) ? 0 : -1;
        for (size_t i = 0; i < v.n; i++) {
                if (v.p[i] < '0' || v.p[i] > '9')
                        return -1;
                n = n * 10 + (v.p[i] - '0');
        }
        return n;
}

static void on_stream(struct h2_conn *c, struct h2_stream *st)
{
        struct h2_peer *p = h2_conn_owner(c);
        struct http_server *s = p->peer.server;
        st->arena.cap_bytes = s->conf.arena_cap_bytes;
        struct h2_req *q = arena_new(&st->arena, struct h2_req);
        if (!q) {
                h2_release(st);
                return;
        }
        q->s = st;
        q->left_out = -1;
        q->r = (struct http_req){
                .method = st->method, .authority = st->authority, .headers = st->headers, .version = 20, .arena = &st->arena,
                .server = s, .peer = arena_strdup(&st->arena, str_of(h2_conn_io(c)->peer)), .impl = q, .content_length = length_of(st),
        };
        http_req_set_target(&q->r, st->path);
        join_cookies(&q->r);
        st->user = q;
        if (fiber_go(&s->handlers, s->conf.name, h2_fiber, q)) {
                st->user = NULL;
                h2_respond(st, 503, NULL, 0, true);
                h2_release(st);
        }
}

static void on_event(struct h2_stream *st)
{
        struct h2_req *q = st->user;
        if (!q || !st->closed || !st->error || q->cancelled)
                return;
        q->cancelled = true;
        if (q->fiber)
                fiber_cancel(q->fiber);
}

static void on_close(struct h2_conn *c, int err)
{
        struct h2_peer *p = h2_conn_owner(c);
        http_peer_del(&p->peer);
        free(p);
}

static void h2_peer_drain(struct http_peer *p)
{
        if (!p->drained)
                h2_conn_goaway(container_of(p, struct h2_peer, peer)->h2);
        p->drained = true;
}

static void h2_peer_close(struct http_peer *p)
{
        h2_conn_close(container_of(p, struct h2_peer, peer)->h2, -ECONNRESET);
}

static const struct http_peer_ops h2_peer_ops = {h2_peer_drain, h2_peer_close};

static struct h2_peer *h2_peer_new(struct http_server *s, struct h2_conf *conf)
{
        struct h2_peer *p = calloc(1, sizeof(*p));
        if (!p)
                return NULL;
        *conf = (struct h2_conf){
                .server = true,
                .max_streams = s->conf.max_streams,
                .max_header_list = (uint32_t)(s->conf.max_header_bytes + HTTP_HEADER_SLACK),
                .idle_timeout_s = s->conf.idle_timeout_s,
                .on_stream = on_stream,
                .on_event = on_event,
                .on_close = on_close,
                .owner = p,
        };
        http_peer_add(&p->peer, s, &h2_peer_ops);
        return p;
}

static void h2_peer_started(struct h2_peer *p, struct h2_conn *h2)
{
        if (!h2) {
                http_peer_del(&p->peer);
                free(p);
                return;
        }
        p->h2 = h2;
        if (p->peer.server->stopping)
                h2_conn_goaway(h2);
}

void h2_serve(struct http_server *s, struct conn *io)
{
        struct h2_conf conf;
        struct h2_peer *p = h2_peer_new(s, &conf);
        if (!p)
                conn_free(io);
        else
                h2_peer_started(p, h2_conn_new(io, &conf));
}

void h2_serve_upgrade(struct http_server *s, struct conn *io, struct str settings, const struct http1_head *h)
{
        struct h2_conf conf;
        struct h2_peer *p = h2_peer_new(s, &conf);
        if (!p)
                conn_free(io);
        else
                h2_peer_started(p, h2_conn_new_upgrade(io, &conf, settings, h->method, h->target, &h->headers));
}
