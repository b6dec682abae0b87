/*
 * gRPC server: one fiber a call. A call lives in its stream's arena, from the stream's arrival until the handler's fiber has
 * queued the trailers and released the stream.
 *
 * What ends a handler early: the caller's reset or the loss of its connection cancels the fiber; the caller's grpc-timeout is
 * the fiber's deadline; rpc_server_stop cancels the scope after its grace.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "sdk/base/log.h"
#include "sdk/base/map.h"
#include "sdk/net/rpc_call.h"
#include "sdk/net/tls.h"
#include "sdk/net/turns.h"

enum { DEFAULT_STREAMS = 1000, UNIX_STREAM_WINDOW = 4 * 1024 * 1024, FIXED_TRAILERS = 5 };
#define HANDSHAKE_TIMEOUT_S 10.0
#define CLOSE_WAIT_S 1.0 /* for output of ended calls when the server stops */

struct listen {
        struct listener l;
        struct listen *next;
};

/* A connection to the server. */
struct peer {
        struct list link;
        struct rpc_server *sv;
        struct h2_conn *h2;
        char name[64];
};

struct rpc_server {
        struct rpc_server_conf conf;
        struct map methods, services;
        struct listen *listens;
        struct list peers;
        struct scope scope, handshakes;
        size_t calls;
        struct turns turns;
        struct cond changed;         /* a call or a connection has ended */
        bool stopping;
        bool settled;                /* handing over: calls that run still are those that cannot be waited for */
};

/* ---- answers ---- */

static const struct http_header head_ok[] = {{STR(":status"), STR("200")}, {STR("content-type"), STR("application/grpc")}};
static const struct http_header head_gzip[] = {
        {STR(":status"), STR("200")}, {STR("content-type"), STR("application/grpc")}, {STR("grpc-encoding"), STR("gzip")}};
static const struct http_header trailer_ok[] = {{STR("grpc-status"), STR("0")}};

int rpc_fail(struct rpc_call *c, int code, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *p = arena_vprintf(c->arena, fmt, ap);
        va_end(ap);
        c->status = (struct rpc_status){.code = code, .message = p ? str_of(p) : STR("out of memory")};
        return 0;
}

int rpc_fail_details(struct rpc_call *c, int code, struct str message, struct str details)
{
        c->status = (struct rpc_status){.code = code, .message = arena_str(c->arena, message), .details = arena_str(c->arena, details)};
        return 0;
}

int call_send_headers(struct call *k)
{
        if (k->headers_sent)
                return 0;
        bool zip = k->c.flags & RPC_GZIP;
        size_t n = zip ? 3 : 2;
        const struct http_header *fixed = zip ? head_gzip : head_ok;
        int r;
        if (k->c.md_out.n) {
                struct http_header *h = arena_alloc(&k->s->arena, (n + k->c.md_out.n) * sizeof(*h));
                if (!h)
                        return -ENOMEM;
                memcpy(h, fixed, n * sizeof(*h));
                r = rpc_md_to_headers(&k->s->arena, k->c.md_out.v, k->c.md_out.n, h, &n);
                if (!r)
                        r = h2_respond_nocopy(k->s, h, n, false);
        } else {
                r = h2_respond_nocopy(k->s, fixed, n, false);
        }
        k->headers_sent = !r;
        k->gzip_out = zip;
        return r == -ENOMEM ? r : r ? -EPIPE : 0;
}

int rpc_send_headers(struct rpc_call *c)
{
        return call_send_headers(call_of(c));
}

static struct str code_text(struct arena *a, int code)
{
        char *p = arena_alloc(a, 12);
        if (!p)
                return STR("13");
        size_t n = 0;
        if (code >= 10)
                p[n++] = (char)('0' + code / 10 % 10);
        p[n++] = (char)('0' + code % 10);
        return (struct str){p, n};
}

/* Headers (when not sent) and trailers in as few frames as possible. */
static int send_status(struct call *k)
{
        const struct rpc_status *st = &k->c.status;
        struct arena *a = &k->s->arena;
        struct rpc_mdlist *md = &k->c.md_trailers_out;
        size_t n = 0;
        if (k->c.md_out.n || st->code == RPC_OK) {
                int r = call_send_headers(k);
                if (r)
                        return r;
        }
        if (st->code == RPC_OK && !md->n)
                return h2_send_trailers_nocopy(k->s, trailer_ok, 1);
        struct http_header *h = arena_alloc(a, (FIXED_TRAILERS + md->n) * sizeof(*h));
        if (!h)
                return -ENOMEM;
        if (!k->headers_sent) {
                memcpy(h, head_ok, sizeof(head_ok));
                n = 2;
        }
        h[n++] = (struct http_header){STR("grpc-status"), code_text(a, st->code)};
        if (st->message.n)
                h[n++] = (struct http_header){STR("grpc-message"), rpc_percent_encode(a, st->message)};
        if (st->details.n)
                h[n++] = (struct http_header){STR("grpc-status-details-bin"), rpc_bin_encode(a, st->details)};
        int r = rpc_md_to_headers(a, md->v, md->n, h, &n);
        if (r || a->exhausted)
                return -ENOMEM;
        return k->headers_sent ? h2_send_trailers_nocopy(k->s, h, n) : h2_respond_nocopy(k->s, h, n, true);
}

/* Refused before there is a call: HTTP status, and a gRPC status for those who look. Strings are static or in the arena. */
static void refuse(struct h2_stream *s, const char *http, int code, struct str message)
{
        const struct http_header h[] = {{STR(":status"), str_of(http)},
                                        {STR("content-type"), STR("application/grpc")},
                                        {STR("grpc-status"), code_text(&s->arena, code)},
                                        {STR("grpc-message"), rpc_percent_encode(&s->arena, message)}};
        h2_respond_nocopy(s, h, sizeof(h) / sizeof(h[0]), true);
        h2_release(s);
}

/* No gRPC at all: an HTTP client, which is told in a body, as a gRPC client would be in trailers. */
static void refuse_http(struct h2_stream *s, struct str type)
{
        char *text = arena_printf(&s->arena, "invalid gRPC request content-type \"%.*s\"", STR_FMT(type));
        struct str message = text ? str_of(text) : STR("out of memory");
        const struct http_header h[] = {{STR(":status"), STR("415")},
                                        {STR("content-type"), STR("text/plain")},
                                        {STR("grpc-status"), code_text(&s->arena, RPC_INVALID_ARGUMENT)},
                                        {STR("grpc-message"), rpc_percent_encode(&s->arena, message)}};
        bool headers_only = str_eq(s->method, STR("HEAD"));
        if (!h2_respond_nocopy(s, h, sizeof(h) / sizeof(h[0]), headers_only) && !headers_only)
                h2_send(s, message.p, message.n, true);
        h2_release(s);
}

/* ---- calls ---- */

static void call_done(struct rpc_server *sv, unsigned turn)
{
        bool last = turns_leave(&sv->turns, turn);
        if (--sv->calls == 0 || last)
                cond_broadcast(&sv->changed);
}

bool rpc_caller_gone(const struct rpc_call *c)
{
        const struct call *k = call_of((struct rpc_call *)c);
        return k->cancelled || k->deadline <= loop_now();
}

void rpc_call_lasts(struct rpc_call *c)
{
        struct call *k = call_of(c);
        if (turns_leave(&k->sv->turns, k->turn))
                cond_broadcast(&k->sv->changed);
        k->turn = TURN_LASTING;
        k->sv->turns.running[TURN_LASTING]++;
}

static void status_of_result(struct call *k, int r)
{
        if (r >= 0 || k->c.status.code)
                return;
        if (r == -ECANCELED)
                rpc_fail(&k->c, RPC_CANCELLED, "context canceled");
        else if (r == -ETIMEDOUT)
                rpc_fail(&k->c, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
        else
                rpc_fail(&k->c, rpc_code_of_errno(r), "%s", strerror(-r));
}

static void call_fiber(void *arg)
{
        struct call *k = arg;
        struct rpc_server *sv = k->sv;
        const struct rpc_server_conf *f = &sv->conf;
        struct h2_stream *s = k->s;
        k->fiber = fiber_self();
        if (k->deadline < INFINITY)
                fiber_set_deadline(k->deadline);
        if (k->cancelled)
                fiber_cancel(k->fiber);
        rpc_handler fn = k->row ? k->row->fn : f->unknown;
        void *fn_arg = k->row ? k->row->arg : f->unknown_arg;
        int r = f->intercept ? f->intercept(&k->c, fn, fn_arg, f->intercept_arg) : fn(&k->c, fn_arg);
        k->fiber = NULL;
        s->user = NULL;
        status_of_result(k, r);
        if (sv->settled && !k->cancelled && k->c.status.code == RPC_CANCELLED)
                rpc_fail(&k->c, RPC_UNAVAILABLE, "the server goes on in another program: connect again");
        if (!s->closed && send_status(k) && !s->closed)
                h2_reset(s, H2_INTERNAL_ERROR);
        arena_fini(&k->scratch);
        unsigned turn = k->turn;
        h2_release(s); /* k is gone */
        call_done(sv, turn);
}

static void on_event(struct h2_stream *s)
{
        struct call *k = s->user;
        if (!k || !s->closed)
                return;
        k->cancelled = true;
        if (k->fiber)
                fiber_cancel(k->fiber);
}

/* "/package.Service/Method" */
static bool split_method(struct str path, struct str *service, struct str *method)
{
        struct str rest = path.n && path.p[0] == '/' ? str_skip(path, 1) : path;
        const char *slash = rest.n ? memrchr(rest.p, '/', rest.n) : NULL;
        if (!slash)
                return false;
        *service = (struct str){rest.p, (size_t)(slash - rest.p)};
        *method = (struct str){slash + 1, rest.n - service->n - 1};
        return true;
}

static struct str format(struct h2_stream *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static struct str format(struct h2_stream *s, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *p = arena_vprintf(&s->arena, fmt, ap);
        va_end(ap);
        return p ? str_of(p) : STR("out of memory");
}

static void refuse_method(struct rpc_server *sv, struct h2_stream *s)
{
        struct str service, method;
        if (!split_method(s->path, &service, &method))
                refuse(s, "200", RPC_UNIMPLEMENTED, format(s, "malformed method name: \"%.*s\"", STR_FMT(s->path)));
        else if (map_get(&sv->services, service))
                refuse(s, "200", RPC_UNIMPLEMENTED,
                       format(s, "unknown method %.*s for service %.*s", STR_FMT(method), STR_FMT(service)));
        else
                refuse(s, "200", RPC_UNIMPLEMENTED, format(s, "unknown service %.*s", STR_FMT(service)));
}

/* What the request's own headers say. false: it was answered. */
static bool read_headers(struct call *k)
{
        struct h2_stream *s = k->s;
        struct str type = STR(""), enc = STR("");
        double timeout;
        for (size_t i = 0; i < s->headers.n; i++) {
                struct str name = s->headers.v[i].name, value = s->headers.v[i].value;
                if (str_eq(name, STR("content-type"))) {
                        type = value;
                } else if (str_eq(name, STR("grpc-encoding"))) {
                        enc = value;
                } else if (str_eq(name, STR("grpc-timeout"))) {
                        if (rpc_timeout_parse(value, &timeout)) {
                                refuse(s, "400", RPC_INTERNAL, format(s, "malformed grpc-timeout: \"%.*s\"", STR_FMT(value)));
                                return false;
                        }
                        k->deadline = loop_now() + timeout;
                }
        }
        if (!rpc_is_grpc_content(type)) {
                refuse_http(s, type);
                return false;
        }
        if (!str_eq(s->method, STR("POST"))) {
                refuse(s, "405", RPC_INTERNAL,
                       format(s, "Received a HEADERS frame with :method \"%.*s\" which should be POST", STR_FMT(s->method)));
                return false;
        }
        k->gzip_in = str_eq(enc, STR("gzip"));
        if (k->gzip_in) {
                k->c.flags = RPC_GZIP;
        } else if (enc.n && !str_eq(enc, STR("identity"))) {
                refuse(s, "200", RPC_UNIMPLEMENTED,
                       format(s, "grpc: Decompressor is not installed for grpc-encoding \"%.*s\"", STR_FMT(enc)));
                return false;
        }
        return true;
}

static void on_stream(struct h2_conn *h2, struct h2_stream *s)
{
        struct peer *p = h2_conn_owner(h2);
        struct rpc_server *sv = p->sv;
        struct call *k = arena_new(&s->arena, struct call);
        if (!k) {
                h2_release(s);
                return;
        }
        k->s = s;
        k->sv = sv;
        k->server = true;
        k->deadline = INFINITY;
        k->max_recv = sv->conf.max_recv_bytes;
        k->max_send = sv->conf.max_send_bytes;
        k->c.arena = &s->arena;
        k->c.method = s->path;
        k->c.authority = s->authority;
        if (!read_headers(k))
                return;
        k->row = map_get(&sv->methods, s->path);
        struct str service, method;
        if (!k->row && (!sv->conf.unknown || !split_method(s->path, &service, &method))) {
                refuse_method(sv, s);
                return;
        }
        k->c.peer = p->name[0] == 'u' ? "unix" : arena_strdup(&s->arena, str_of(p->name));
        if (rpc_md_from_headers(&s->arena, &s->headers, false, &k->c.md_in)) {
                refuse(s, "200", RPC_RESOURCE_EXHAUSTED, STR("out of memory"));
                return;
        }
        s->user = k;
        int r = fiber_go(&sv->scope, sv->conf.name, call_fiber, k);
        if (r) {
                s->user = NULL;
                refuse(s, "200", r == -ECANCELED ? RPC_UNAVAILABLE : RPC_RESOURCE_EXHAUSTED,
                       r == -ECANCELED ? STR("the server is stopping") : STR("too many calls"));
                return;
        }
        k->turn = turns_enter(&sv->turns);
        sv->calls++;
}

struct str rpc_peer_leaf(const struct rpc_call *c)
{
        const struct h2_stream *s = ((const struct call *)c)->s;
        struct conn *io = s && s->conn ? h2_conn_io(s->conn) : NULL;
        return io && io->tls ? tls_session_peer_leaf(io->tls) : STR_NULL;
}

struct rpc_server *rpc_call_server(struct rpc_call *c)
{
        return call_of(c)->sv;
}

/* ---- connections ---- */

static void peer_closed(struct h2_conn *h2, int err)
{
        struct peer *p = h2_conn_owner(h2);
        list_del(&p->link);
        cond_broadcast(&p->sv->changed);
        free(p);
}

static void serve_plain(struct rpc_server *sv, struct conn *io)
{
        const struct rpc_server_conf *f = &sv->conf;
        struct peer *p = calloc(1, sizeof(*p));
        if (!p || sv->stopping) {
                free(p);
                conn_free(io);
                return;
        }
        bool is_unix = strcmp(io->peer, "unix") == 0;
        struct h2_conf conf = {.server = true,
                               .max_streams = f->max_streams,
                               .stream_window = is_unix ? UNIX_STREAM_WINDOW : 0,
                               .max_header_list = f->max_header_bytes,
                               .ping_interval_s = f->ping_interval_s,
                               .ping_timeout_s = f->ping_timeout_s,
                               .min_ping_interval_s = f->min_ping_interval_s,
                               .idle_timeout_s = f->idle_timeout_s,
                               .on_stream = on_stream,
                               .on_event = on_event,
                               .on_close = peer_closed,
                               .owner = p};
        p->sv = sv;
        memcpy(p->name, io->peer, sizeof(p->name));
        p->h2 = h2_conn_new(io, &conf);
        if (!p->h2) {
                free(p);
                return;
        }
        list_add_tail(&sv->peers, &p->link);
}

struct handshake {
        struct rpc_server *sv;
        struct conn *io;
};

static void handshake_fiber(void *arg)
{
        struct handshake h = *(struct handshake *)arg;
        free(arg);
        fiber_set_deadline(loop_now() + HANDSHAKE_TIMEOUT_S);
        if (conn_start_tls(h.io, h.sv->conf.tls, STR(""), true))
                conn_free(h.io);
        else
                serve_plain(h.sv, h.io);
}

void rpc_server_serve_conn(struct rpc_server *sv, struct conn *io)
{
        if (!sv->conf.tls || io->tls) {
                serve_plain(sv, io);
                return;
        }
        struct handshake *h = malloc(sizeof(*h));
        if (h)
                *h = (struct handshake){sv, io};
        if (!h || fiber_go(&sv->handshakes, "rpc-tls", handshake_fiber, h)) {
                free(h);
                conn_free(io);
        }
}

static bool is_welcome(const struct rpc_server *sv, int fd)
{
        struct ucred peer;
        socklen_t n = sizeof peer;
        return !sv->conf.welcome || (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && sv->conf.welcome(peer.pid));
}

static void on_accept(struct listener *l, struct conn *io)
{
        struct rpc_server *sv = l->owner;
        if (is_welcome(sv, io->fd))
                rpc_server_serve_conn(sv, io);
        else
                conn_free(io);
}

/* ---- the server ---- */

int rpc_server_new(struct rpc_server **ret, const struct rpc_server_conf *conf)
{
        struct rpc_server *sv = calloc(1, sizeof(*sv));
        if (!sv)
                return -ENOMEM;
        sv->conf = *conf;
        sv->conf.name = conf->name ? conf->name : "rpc";
        sv->conf.max_recv_bytes = conf->max_recv_bytes ? conf->max_recv_bytes : RPC_DEFAULT_MAX_RECV;
        sv->conf.max_send_bytes = conf->max_send_bytes ? conf->max_send_bytes : -1;
        sv->conf.max_streams = conf->max_streams ? conf->max_streams : DEFAULT_STREAMS;
        sv->conf.tls = conf->tls ? tls_context_ref(conf->tls) : NULL;
        list_init(&sv->peers);
        scope_init(&sv->scope);
        scope_init(&sv->handshakes);
        cond_init(&sv->changed);
        int r = conf->reflection ? conf->reflection(sv) : 0;
        if (r) {
                rpc_server_free(sv);
                return r;
        }
        *ret = sv;
        return 0;
}

int rpc_server_add(struct rpc_server *sv, const struct rpc_method *rows, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                struct str path = str_of(rows[i].path), service, method;
                if (!split_method(path, &service, &method))
                        return -EINVAL;
                int r = map_set(&sv->methods, path, (void *)(uintptr_t)&rows[i]);
                if (!r)
                        r = map_set(&sv->services, service, sv);
                if (r)
                        return r;
        }
        return 0;
}

struct str rpc_server_next_service(const struct rpc_server *sv, void **it)
{
        struct map_entry *e = map_next(&sv->services, *it);
        *it = e;
        return e ? (struct str){e->key, e->key_n} : STR_NULL;
}

static int listen_with(struct rpc_server *sv, struct str addr, int fd)
{
        struct listen *l = calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        int r = addr.p ? listener_open(&l->l, addr, on_accept, sv) : listener_adopt(&l->l, fd, on_accept, sv);
        if (r) {
                free(l);
                return r;
        }
        struct listen **end = &sv->listens;
        while (*end)
                end = &(*end)->next;
        *end = l;
        return 0;
}

void rpc_server_set_tls(struct rpc_server *sv, struct tls_context *tls)
{
        struct tls_context *old = sv->conf.tls;
        sv->conf.tls = tls ? tls_context_ref(tls) : NULL;
        tls_context_unref(old);
}

int rpc_server_listen(struct rpc_server *sv, struct str addr)
{
        return listen_with(sv, addr, -1);
}

int rpc_server_adopt(struct rpc_server *sv, int listen_fd)
{
        return listen_with(sv, STR_NULL, listen_fd);
}

int rpc_server_port(const struct rpc_server *sv)
{
        for (const struct listen *l = sv->listens; l; l = l->next) {
                int port = listener_port(&l->l);
                if (port)
                        return port;
        }
        return 0;
}

size_t rpc_server_calls(const struct rpc_server *sv)
{
        return sv->calls;
}

static void close_listeners(struct rpc_server *sv)
{
        while (sv->listens) {
                struct listen *l = sv->listens;
                sv->listens = l->next;
                listener_close(&l->l);
                free(l);
        }
}

static void close_peers(struct rpc_server *sv)
{
        while (!list_is_empty(&sv->peers))
                h2_conn_close(list_entry(sv->peers.next, struct peer, link)->h2, -ECONNRESET);
}

/* Those that will end: all, or, when the others had their time already, streams that have been asked to. */
static bool has_calls(const struct rpc_server *sv)
{
        return sv->settled ? sv->turns.running[TURN_LASTING] : sv->calls;
}

void rpc_server_stop(struct rpc_server *sv, double grace_s)
{
        double end = loop_now() + grace_s;
        sv->stopping = true;
        close_listeners(sv);
        scope_cancel(&sv->handshakes);
        list_for_each(p, &sv->peers)
                h2_conn_goaway(list_entry(p, struct peer, link)->h2);
        while (has_calls(sv) && cond_wait_until(&sv->changed, end) == 0)
                ;
        scope_cancel(&sv->scope);
        fiber_shield_begin();
        scope_join(&sv->scope);
        scope_join(&sv->handshakes);
        /* What ended calls have queued goes out; connections without anything to send end by themselves. */
        end = loop_now() + CLOSE_WAIT_S;
        while (!list_is_empty(&sv->peers) && cond_wait_until(&sv->changed, end) == 0)
                ;
        fiber_shield_end();
        close_peers(sv);
}

void rpc_server_dismiss(struct rpc_server *sv)
{
        list_for_each_safe(pos, next, &sv->peers) {
                struct peer *p = list_entry(pos, struct peer, link);
                if (!is_welcome(sv, h2_conn_io(p->h2)->fd))
                        h2_conn_close(p->h2, -ECONNRESET);
        }
}

size_t rpc_server_turn(struct rpc_server *sv)
{
        turns_next(&sv->turns);
        return turns_before(&sv->turns);
}

size_t rpc_server_before(const struct rpc_server *sv)
{
        return turns_before(&sv->turns);
}

void rpc_server_settle(struct rpc_server *sv, double grace_s, void (*give)(void *arg, const char *name, int fd, bool listening), void *arg)
{
        double end = loop_now() + grace_s;
        for (struct listen *l = sv->listens; l; l = l->next) {
                int fd = listener_keep(&l->l);
                if (fd >= 0)
                        give(arg, sv->conf.name ? sv->conf.name : "", fd, true);
        }
        close_listeners(sv);
        list_for_each(p, &sv->peers)
                h2_conn_goaway(list_entry(p, struct peer, link)->h2);
        while (turns_present(&sv->turns) && cond_wait_until(&sv->changed, end) == 0)
                ;
        sv->settled = true;
}

void rpc_server_free(struct rpc_server *sv)
{
        if (!sv)
                return;
        must(!sv->scope.count && !sv->handshakes.count);
        close_listeners(sv);
        close_peers(sv);
        map_fini(&sv->methods);
        map_fini(&sv->services);
        tls_context_unref(sv->conf.tls);
        free(sv);
}
