/*
 * The HTTP server: listeners, the life of connections, and what requests have in common. Each protocol's side of a connection is in
 * http1_server.c and http2_server.c. Which one a connection speaks is told by ALPN (TLS) or by its first bytes.
 *
 * Invariants: every connection is a peer in s->peers until its last byte is dealt with; a handler's fiber belongs to
 * s->handlers; n_conns counts peers and running TLS handshakes.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/log.h"
#include "sdk/net/http_server.h"
#include "sdk/net/tls.h"

enum {
        DEFAULT_HEADER_BYTES = 4096,
        DEFAULT_CONNS = 100000,
        DEFAULT_STREAMS = 250,
        DEFAULT_ARENA_BYTES = 64 << 20,
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

static bool is_h2(const struct http_req *r)
{
        return r->version == 20;
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
                        size_t want = exact && !cap ? (size_t)r->content_length + 1 : cap ? cap * 2 : HTTP_BODY_STEP_BYTES;
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
        return is_h2(r) ? h2_resp_begin(r, status, h, n, length) : h1_resp_begin(r, status, h, n, length);
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
                h2_resp_abort(r);
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
