/*
 * The HTTP server: listeners, the life of connections, and requests over HTTP/2. HTTP/1 is http1_server.c. Which protocol a
 * connection speaks is told by ALPN (TLS) or by its first bytes.
 *
 * Invariants: every connection is a peer in s->peers until its last byte is dealt with; a handler's fiber belongs to
 * s->handlers; n_conns counts peers and running TLS handshakes.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/log.h"
#include "sdk/net/http2.h"
#include "sdk/net/http_server.h"
#include "sdk/net/tls.h"

enum {
        DEFAULT_HEADER_BYTES = 4096,
        DEFAULT_CONNS = 100000,
        DEFAULT_STREAMS = 250,
        DEFAULT_ARENA_BYTES = 64 << 20,
        BODY_STEP_BYTES = 64 * 1024,
        BODY_EXACT_BYTES = 64 << 20,   /* a body announced as larger than this is not given its memory in advance */
};

static const double HAND_OVER_POLL_S = 0.005;

/* ---- peers ---- */

static void set_full(struct http_server *s, bool full)
{
        s->full = full;
        for (size_t i = 0; i < s->n_listeners; i++)
                listener_pause(&s->listeners[i], full);
}

static void conn_counted(struct http_server *s, int delta)
{
        s->n_conns = (size_t)((ptrdiff_t)s->n_conns + delta);
        bool full = s->n_conns >= s->conf.max_conns;
        if (full != s->full && !s->stopping)
                set_full(s, full);
        if (delta < 0)
                cond_broadcast(&s->changed);
}

void http_peer_add(struct http_peer *p, struct http_server *s, const struct http_peer_ops *ops)
{
        p->server = s;
        p->ops = ops;
        list_add_tail(&s->peers, &p->link);
        conn_counted(s, 1);
}

void http_peer_del(struct http_peer *p)
{
        list_del(&p->link);
        conn_counted(p->server, -1);
}

void http_run_handler(struct http_req *r)
{
        struct http_server *s = r->server;
        unsigned turn = turns_enter(&s->turns);
        s->conf.handler(r, s->conf.arg);
        if (turns_leave(&s->turns, turn))
                cond_broadcast(&s->changed);
}

/* ---- HTTP/2 ---- */

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

static bool is_h2(const struct http_req *r)
{
        return r->version == 20;
}

static int h2_error(const struct h2_stream *s)
{
        return s->error ? s->error : -EPIPE;
}

static ssize_t h2_req_read(struct http_req *r, void *p, size_t n)
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

static int h2_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body)
{
        struct h2_req *q = h2_of(r);
        int e = h2_put_head(q, status, h, n, (int64_t)body.n, !body.n);
        if (e)
                return e;
        r->ended = true;
        if (q->no_body_out || !body.n)
                return 0;
        r->bytes_out += body.n;
        while (!e && body.n > BODY_STEP_BYTES) {
                e = h2_write(q->s, body.p, BODY_STEP_BYTES);
                body = str_skip(body, BODY_STEP_BYTES);
        }
        if (!e)
                e = h2_send(q->s, body.p, body.n, true);
        q->aborted = e != 0;
        return e;
}

static int h2_resp_write(struct http_req *r, struct str data)
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

static int h2_resp_end(struct http_req *r, const struct http_header *trailers, size_t n)
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

/* ---- requests, whatever carries them ---- */

void http_req_set_target(struct http_req *r, struct str target)
{
        struct str path = target;
        r->target = target;
        if (str_eq(r->method, STR("CONNECT"))) {
                r->path = r->query = STR("");
                return;
        }
        ptrdiff_t scheme = target.n && target.p[0] != '/' ? str_find(target, STR("://")) : -1;
        if (scheme > 0) {
                struct str rest = str_skip(target, (size_t)scheme + 3);
                size_t n = 0;
                while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
                        n++;
                r->authority = str_n(rest.p, n);
                path = str_skip(rest, n);
                r->target = path.n ? path : STR("/");
        }
        struct str query = path;
        path = str_cut(&query, '?');
        r->path = path.n ? path : STR("/");
        r->query = query.p ? query : STR("");
}

ssize_t http_raw_read(struct http_req *r, void *p, size_t n)
{
        return is_h2(r) ? h2_req_read(r, p, n) : h1_req_read(r, p, n);
}

ssize_t http_req_read(struct http_req *r, void *p, size_t n)
{
        return r->tap ? r->tap->read(r->tap, r, p, n) : http_raw_read(r, p, n);
}

int http_req_body(struct http_req *r, struct str *ret)
{
        size_t cap = 0, n = 0;
        char *p = NULL;
        bool exact = r->content_length >= 0 && r->content_length <= BODY_EXACT_BYTES;
        if (r->content_length == 0) {
                *ret = STR("");
                return 0;
        }
        for (;;) {
                if (n == cap) {
                        size_t want = exact && !cap ? (size_t)r->content_length + 1 : cap ? cap * 2 : BODY_STEP_BYTES;
                        char *q = arena_grow(r->arena, p, n, want);
                        if (!q)
                                return -ENOMEM;
                        p = q;
                        cap = want;
                }
                ssize_t got = http_req_read(r, p + n, cap - n);
                if (got < 0)
                        return (int)got;
                if (got == 0) {
                        *ret = str_n(p, n);
                        return 0;
                }
                n += (size_t)got;
        }
}

static int send_by_tap(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body)
{
        int e = r->tap->begin(r->tap, r, status, h, n, (int64_t)body.n);
        if (!e && body.n)
                e = r->tap->write(r->tap, r, body);
        return e ? e : r->tap->end(r->tap, r, NULL, 0);
}

int http_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body)
{
        if (r->tap)
                return send_by_tap(r, status, h, n, body);
        return is_h2(r) ? h2_resp_send(r, status, h, n, body) : h1_resp_send(r, status, h, n, body);
}

int http_raw_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length)
{
        return is_h2(r) ? h2_put_head(h2_of(r), status, h, n, length, false) : h1_resp_begin(r, status, h, n, length);
}

int http_resp_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length)
{
        return r->tap ? r->tap->begin(r->tap, r, status, h, n, length) : http_raw_begin(r, status, h, n, length);
}

int http_raw_write(struct http_req *r, struct str data)
{
        return is_h2(r) ? h2_resp_write(r, data) : h1_resp_write(r, data);
}

int http_resp_write(struct http_req *r, struct str data)
{
        return r->tap ? r->tap->write(r->tap, r, data) : http_raw_write(r, data);
}

int http_raw_end(struct http_req *r, const struct http_header *trailers, size_t n)
{
        return is_h2(r) ? h2_resp_end(r, trailers, n) : h1_resp_end(r, trailers, n);
}

int http_resp_end(struct http_req *r, const struct http_header *trailers, size_t n)
{
        return r->tap ? r->tap->end(r->tap, r, trailers, n) : http_raw_end(r, trailers, n);
}

void http_resp_abort(struct http_req *r)
{
        if (is_h2(r))
                h2_of(r)->aborted = true;
        else
                h1_resp_abort(r);
}

/* ---- the server ---- */

int http_server_new(struct http_server **ret, const struct http_server_conf *c)
{
        struct http_server *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->conf = *c;
        s->conf.name = c->name ? c->name : "http";
        s->conf.max_header_bytes = c->max_header_bytes ? c->max_header_bytes : DEFAULT_HEADER_BYTES;
        s->conf.header_timeout_s = c->header_timeout_s > 0 ? c->header_timeout_s : 10;
        s->conf.max_conns = c->max_conns ? c->max_conns : DEFAULT_CONNS;
        s->conf.max_streams = c->max_streams ? c->max_streams : DEFAULT_STREAMS;
        if (!c->arena_cap_bytes)
                s->conf.arena_cap_bytes = DEFAULT_ARENA_BYTES + (c->max_body_bytes > 0 ? (size_t)c->max_body_bytes : 0);
        if (c->tls)
                s->conf.tls = tls_context_ref(c->tls);
        h1_req_pool_init(s);
        scope_init(&s->handlers);
        list_init(&s->peers);
        cond_init(&s->changed);
        *ret = s;
        return 0;
}

struct handshake {
        struct http_server *server;
        struct conn *io;
};

static void handshake_fiber(void *arg)
{
        struct handshake *h = arg;
        struct http_server *s = h->server;
        struct conn *io = h->io;
        free(h);
        fiber_set_deadline(loop_now() + s->conf.header_timeout_s);
        int r = conn_start_tls(io, s->conf.tls, STR_NULL, true);
        if (r || s->stopping)
                conn_free(io);
        else if (str_eq(tls_session_alpn(io->tls), STR("h2")))
                h2_serve(s, io);
        else
                h1_serve(s, io);
        conn_counted(s, -1);
}

static void on_accept(struct listener *l, struct conn *io)
{
        struct http_server *s = l->owner;
        if (!s->conf.tls) {
                h1_serve(s, io);
                return;
        }
        struct handshake *h = malloc(sizeof(*h));
        if (!h || (*h = (struct handshake){s, io}, fiber_go(&s->handlers, "tls", handshake_fiber, h))) {
                free(h);
                conn_free(io);
                return;
        }
        conn_counted(s, 1);
}

int http_server_listen(struct http_server *s, struct str addr)
{
        if (s->n_listeners == HTTP_MAX_LISTENERS)
                return -ENOSPC;
        int r = listener_open(&s->listeners[s->n_listeners], addr, on_accept, s);
        s->n_listeners += !r;
        return r;
}

int http_server_adopt(struct http_server *s, int listen_fd)
{
        if (s->n_listeners == HTTP_MAX_LISTENERS)
                return -ENOSPC;
        int r = listener_adopt(&s->listeners[s->n_listeners], listen_fd, on_accept, s);
        s->n_listeners += !r;
        return r;
}

int http_server_port(const struct http_server *s)
{
        for (size_t i = 0; i < s->n_listeners; i++) {
                int port = listener_port(&s->listeners[i]);
                if (port)
                        return port;
        }
        return 0;
}

static void close_listeners(struct http_server *s)
{
        for (size_t i = 0; i < s->n_listeners; i++)
                listener_close(&s->listeners[i]);
        s->n_listeners = 0;
}

static void each_peer(struct http_server *s, bool drain)
{
        list_for_each_safe(l, next, &s->peers) {
                struct http_peer *p = list_entry(l, struct http_peer, link);
                if (drain)
                        p->ops->drain(p);
                else
                        p->ops->close(p);
        }
}

void http_server_stop(struct http_server *s, double grace_s)
{
        double end = loop_now() + grace_s;
        s->stopping = true;
        close_listeners(s);
        each_peer(s, true);
        while (s->n_conns && cond_wait_until(&s->changed, end) == 0)
                ;
        fiber_shield_begin();
        scope_cancel(&s->handlers);
        scope_join(&s->handlers);
        each_peer(s, false);
        fiber_shield_end();
}

int http_peer_give(struct http_server *s, struct conn *io)
{
        if (io->tls || io->eof || io->error || buf_len(&io->in) || conn_out_len(io))
                return -EBUSY;
        int fd = fcntl(io->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return -errno;
        s->give(s->give_arg, s->conf.name, fd, false);
        conn_free(io); /* the peer notices nothing: the other descriptor holds the connection */
        return 0;
}

/* Nothing is left but connections with requests that began before the turn, and had their time. */
static bool is_settled(const struct http_server *s)
{
        return turns_present(&s->turns) == 0 && s->n_conns <= turns_before(&s->turns);
}

size_t http_server_turn(struct http_server *s)
{
        turns_next(&s->turns);
        return turns_before(&s->turns);
}

size_t http_server_before(const struct http_server *s)
{
        return turns_before(&s->turns);
}

void http_server_hand_over(struct http_server *s, double grace_s, void (*give)(void *arg, const char *name, int fd, bool listening), void *arg)
{
        double end = loop_now() + grace_s;
        for (size_t i = 0; i < s->n_listeners; i++) {
                int fd = listener_keep(&s->listeners[i]);
                if (fd >= 0)
                        give(arg, s->conf.name, fd, true);
        }
        s->n_listeners = 0;
        s->give = give;
        s->give_arg = arg;
        for (each_peer(s, true); !is_settled(s) && loop_now() < end; each_peer(s, true)) { /* again: output drains, a request comes whole */
                double next = loop_now() + HAND_OVER_POLL_S;
                cond_wait_until(&s->changed, next < end ? next : end);
        }
        http_server_stop(s, 0);
}

void http_server_take(struct http_server *s, int fd)
{
        struct conn *io = conn_new(fd);
        if (io)
                h1_serve(s, io);
}

void http_server_free(struct http_server *s)
{
        if (!s)
                return;
        close_listeners(s);
        must(!s->handlers.count);
        s->stopping = true;
        each_peer(s, false);
        h1_req_pool_fini(s);
        tls_context_unref(s->conf.tls);
        free(s);
}
