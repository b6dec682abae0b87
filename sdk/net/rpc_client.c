/*
 * gRPC client: channels and calls.
 *
 * A channel has one connection for new calls and perhaps older ones that drain after a GOAWAY. A fiber of its own dials, so that
 * a caller that gives up does not take the attempt away from others; callers wait for the outcome. After a failure TCP targets
 * are left alone for a while that doubles (calls fail at once with the last error meanwhile); Unix sockets are tried each time.
 * A channel is freed when it is closed and its last call and its dialling fiber have gone (refs).
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/log.h"
#include "sdk/net/rpc_call.h"
#include "sdk/net/tls.h"

enum {
        HEAD = 8,                    /* constant request headers */
        STACK_MD = 32,
        UNIX_STREAM_WINDOW = 4 * 1024 * 1024,
        CLIENT_MAX_HEADERS = 64 * 1024,
};
#define CONNECT_TIMEOUT_S 5.0
#define BACKOFF_FIRST_S 0.1
#define BACKOFF_MAX_S 5.0
#define RETRY_UNIX_S 0.02 /* with RPC_WAIT_READY */

#ifndef MICRODAPR_VERSION
#define MICRODAPR_VERSION "1.17"
#endif

/* A connection of a channel. */
struct link {
        struct list link;
        struct rpc_channel *ch;
        struct h2_conn *h2;
};

struct rpc_channel {
        struct rpc_channel_conf conf; /* strings point into mem */
        struct arena mem;
        struct http_header head[HEAD];
        struct link *live;           /* new calls go here; NULL = not connected */
        struct list links;
        struct cond changed;         /* connected, an attempt failed, room, closed */
        struct fiber *dialler;
        unsigned failures;           /* attempts failed in all */
        double backoff_s, retry_at;
        size_t refs, wait_ready;
        bool dialling, closed, is_unix;
        char error[256];             /* of the last attempt */
        int last_errno;
        void (*on_lost)(void *);
        void *lost_arg;
};

static struct scope diallers = SCOPE_INIT(diallers);

static void channel_unref(struct rpc_channel *ch)
{
        if (--ch->refs)
                return;
        tls_context_unref(ch->conf.tls);
        arena_fini(&ch->mem);
        free(ch);
}

/* ---- connections ---- */

static void unlive(struct rpc_channel *ch)
{
        if (!ch->live)
                return;
        ch->live = NULL;
        cond_broadcast(&ch->changed);
        if (ch->on_lost)
                ch->on_lost(ch->lost_arg);
}

static void link_closed(struct h2_conn *h2, int err)
{
        struct link *l = h2_conn_owner(h2);
        struct rpc_channel *ch = l->ch;
        list_del(&l->link);
        bool was_live = ch->live == l;
        free(l);
        if (was_live)
                unlive(ch);
}

static void link_room(struct h2_conn *h2)
{
        struct link *l = h2_conn_owner(h2);
        if (l->ch->live == l && !h2_conn_is_usable(h2))
                unlive(l->ch);
        else
                cond_broadcast(&l->ch->changed);
}

static int adopt(struct rpc_channel *ch, struct conn *io)
{
        struct link *l = calloc(1, sizeof(*l));
        if (!l) {
                conn_free(io);
                return -ENOMEM;
        }
        struct h2_conf conf = {.stream_window = ch->is_unix ? UNIX_STREAM_WINDOW : 0,
                               .max_header_list = ch->conf.max_header_bytes ? ch->conf.max_header_bytes : CLIENT_MAX_HEADERS,
                               .ping_interval_s = ch->conf.ping_interval_s,
                               .ping_timeout_s = ch->conf.ping_timeout_s,
                               .ping_without_streams = ch->conf.ping_without_streams,
                               .on_room = link_room,
                               .on_close = link_closed,
                               .owner = l};
        l->ch = ch;
        l->h2 = h2_conn_new(io, &conf);
        if (!l->h2) {
                free(l);
                return -ENOMEM;
        }
        list_add_tail(&ch->links, &l->link);
        ch->live = l;
        return 0;
}

/* ---- dialling ---- */

/* As Go's net package puts it: "dial unix /x: connect: no such file or directory". */
static void dial_error(struct rpc_channel *ch, int err)
{
        struct str t = ch->conf.target;
        const char *net = ch->is_unix ? "unix" : "tcp";
        char text[96];
        if (str_has_prefix(t, STR("unix:")))
                t = str_skip(t, 5);
        snprintf(text, sizeof(text), "%s", err == -ETIMEDOUT ? "i/o timeout" : strerror(-err));
        if (!isupper((unsigned char)text[1]))
                text[0] = (char)tolower((unsigned char)text[0]);
        snprintf(ch->error, sizeof(ch->error), "connection error: desc = \"transport: Error while dialing: dial %s %.*s: %s%s\"", net,
                 STR_FMT(t), err == -ETIMEDOUT ? "" : "connect: ", text);
}

static int dial_once(struct rpc_channel *ch)
{
        struct conn *io = NULL;
        int r = conn_dial(ch->conf.target, &io);
        if (r) {
                dial_error(ch, r);
                return r;
        }
        if (ch->conf.tls) {
                r = conn_start_tls(io, ch->conf.tls, ch->conf.server_name, false);
                if (r) {
                        snprintf(ch->error, sizeof(ch->error),
                                 "connection error: desc = \"transport: authentication handshake failed: %s\"",
                                 io->tls ? tls_session_error(io->tls) : strerror(-r));
                        conn_free(io);
                        return r;
                }
        }
        if (ch->closed) {
                conn_free(io);
                return -ECANCELED;
        }
        return adopt(ch, io);
}

static void dial_fiber(void *arg)
{
        struct rpc_channel *ch = arg;
        ch->dialler = fiber_self();
        while (!ch->closed) {
                double limit = ch->conf.connect_timeout_s > 0 ? ch->conf.connect_timeout_s : CONNECT_TIMEOUT_S;
                double old = fiber_set_deadline(loop_now() + limit);
                int r = dial_once(ch);
                fiber_restore_deadline(old);
                if (!r) {
                        ch->backoff_s = 0;
                        break;
                }
                ch->failures++;
                ch->last_errno = r;
                ch->backoff_s = ch->is_unix ? 0 : ch->backoff_s > 0 ? fmin(ch->backoff_s * 2, BACKOFF_MAX_S) : BACKOFF_FIRST_S;
                ch->retry_at = loop_now() + ch->backoff_s;
                cond_broadcast(&ch->changed);
                if (!ch->wait_ready || fiber_sleep(ch->is_unix ? RETRY_UNIX_S : ch->backoff_s))
                        break;
                if (!ch->wait_ready)
                        break;
        }
        ch->dialling = false;
        ch->dialler = NULL;
        cond_broadcast(&ch->changed);
        channel_unref(ch);
}

static int dial_start(struct rpc_channel *ch)
{
        if (ch->dialling)
                return 0;
        if (!diallers.fibers.next)
                scope_init(&diallers);
        int r = fiber_go(&diallers, "rpc-dial", dial_fiber, ch);
        if (r)
                return r;
        ch->dialling = true;
        ch->refs++;
        return 0;
}

/* ---- channels ---- */

static void make_head(struct rpc_channel *ch)
{
        const struct http_header head[HEAD] = {{STR(":method"), STR("POST")},
                                               {STR(":scheme"), ch->conf.tls ? STR("https") : STR("http")},
                                               {STR(":path"), STR("/")}, /* set per call */
                                               {STR(":authority"), ch->conf.authority},
                                               {STR("content-type"), STR("application/grpc")},
                                               {STR("user-agent"), str_of(ch->conf.user_agent)},
                                               {STR("te"), STR("trailers")},
                                               {STR("grpc-accept-encoding"), STR("gzip")}};
        memcpy(ch->head, head, sizeof(head));
}

/* "host:port" and "[v6]:port" without the port. */
static struct str host_of(struct str target)
{
        const char *colon = target.n ? memrchr(target.p, ':', target.n) : NULL;
        struct str host = {target.p, colon ? (size_t)(colon - target.p) : target.n};
        if (host.n > 1 && host.p[0] == '[' && host.p[host.n - 1] == ']')
                host = (struct str){host.p + 1, host.n - 2};
        return host;
}

int rpc_channel_new(struct rpc_channel **ret, const struct rpc_channel_conf *conf)
{
        struct rpc_channel *ch = calloc(1, sizeof(*ch));
        if (!ch)
                return -ENOMEM;
        struct arena *a = &ch->mem;
        struct rpc_channel_conf *f = &ch->conf;
        *f = *conf;
        ch->refs = 1;
        ch->is_unix = str_has_prefix(f->target, STR("unix:")) || str_has_prefix(f->target, STR("unix-abstract:"));
        list_init(&ch->links);
        cond_init(&ch->changed);
        f->target = arena_str(a, conf->target);
        f->authority = conf->authority.n ? arena_str(a, conf->authority) : ch->is_unix ? STR("localhost") : f->target;
        f->server_name = arena_str(a, conf->server_name.n ? conf->server_name : host_of(f->target));
        f->user_agent = arena_strdup(a, conf->user_agent ? str_of(conf->user_agent) : STR("microdapr/" MICRODAPR_VERSION));
        f->tls = conf->tls ? tls_context_ref(conf->tls) : NULL;
        if (!f->max_recv_bytes)
                f->max_recv_bytes = RPC_DEFAULT_MAX_RECV;
        if (a->exhausted) {
                channel_unref(ch);
                return -ENOMEM;
        }
        make_head(ch);
        *ret = ch;
        return 0;
}

bool rpc_channel_is_connected(const struct rpc_channel *ch)
{
        return ch->live && h2_conn_is_usable(ch->live->h2);
}

void rpc_channel_on_lost(struct rpc_channel *ch, void (*fn)(void *arg), void *arg)
{
        ch->on_lost = fn;
        ch->lost_arg = arg;
}

void rpc_channel_reset(struct rpc_channel *ch)
{
        ch->refs++;
        while (!list_is_empty(&ch->links))
                h2_conn_close(list_entry(ch->links.next, struct link, link)->h2, -ECONNRESET);
        channel_unref(ch);
}

void rpc_channel_retry_now(struct rpc_channel *ch)
{
        ch->backoff_s = ch->retry_at = 0;
}

void rpc_channel_close(struct rpc_channel *ch)
{
        if (!ch)
                return;
        ch->closed = true;
        ch->on_lost = NULL;
        if (ch->dialler)
                fiber_cancel(ch->dialler);
        rpc_channel_reset(ch);
        cond_broadcast(&ch->changed);
        channel_unref(ch);
}

static int no_connection(struct rpc_status *st, struct arena *a, int code, const char *text)
{
        rpc_status_set(st, a, code, "%s", text);
        st->transport = st->unprocessed = true;
        return code;
}

/* An older connection drains on its own; calls that come now need another. */
static struct link *usable(struct rpc_channel *ch)
{
        if (ch->live && !h2_conn_is_usable(ch->live->h2)) {
                h2_conn_goaway(ch->live->h2);
                unlive(ch); /* whose owner may close it */
        }
        return ch->live;
}

struct waiting {
        struct rpc_channel *ch;
        double deadline;
        bool wait_ready, may_dial;
};

/* One step towards a connection: 0 = look again, else the gRPC code. Parks. */
static int wait_step(const struct waiting *w, unsigned seen, struct arena *a, struct rpc_status *st)
{
        struct rpc_channel *ch = w->ch;
        if (ch->closed)
                return no_connection(st, a, RPC_CANCELLED, "grpc: the client connection is closing");
        if (!w->wait_ready && ch->failures != seen)
                return no_connection(st, a, RPC_UNAVAILABLE, ch->error);
        if (!ch->live && !ch->dialling) {
                if (!w->may_dial && !w->wait_ready)
                        return no_connection(st, a, RPC_UNAVAILABLE, *ch->error ? ch->error : "not connected");
                if (!w->wait_ready && loop_now() < ch->retry_at)
                        return no_connection(st, a, RPC_UNAVAILABLE, ch->error);
                if (w->may_dial && dial_start(ch))
                        return no_connection(st, a, RPC_RESOURCE_EXHAUSTED, "no fiber left for dialling");
        }
        int r = cond_wait_until(&ch->changed, w->deadline);
        if (r == -ETIMEDOUT)
                return no_connection(st, a, RPC_DEADLINE_EXCEEDED, "context deadline exceeded while waiting for connections to become ready");
        return r ? no_connection(st, a, RPC_CANCELLED, "context canceled") : 0;
}

/* Parks until a connection has room for one more stream. 0, or the gRPC code. */
static int wait_link(const struct waiting *w, struct arena *a, struct link **ret, struct rpc_status *st)
{
        struct rpc_channel *ch = w->ch;
        unsigned seen = ch->failures;
        int code = 0;
        ch->refs++;
        ch->wait_ready += w->wait_ready;
        while (!code) {
                *ret = usable(ch);
                if (!ch->closed && *ret && h2_conn_has_room((*ret)->h2))
                        break;
                code = wait_step(w, seen, a, st);
        }
        ch->wait_ready -= w->wait_ready;
        channel_unref(ch);
        return code;
}

int rpc_channel_connect(struct rpc_channel *ch)
{
        unsigned seen = ch->failures;
        int r = 0;
        ch->refs++;
        while (!r && !usable(ch)) {
                if (ch->closed)
                        r = -ECANCELED;
                else if (ch->failures != seen)
                        r = ch->last_errno;
                else
                        r = dial_start(ch);
                if (!r)
                        r = cond_wait(&ch->changed);
        }
        channel_unref(ch);
        return r;
}

/* ---- calls ---- */

static double earlier(double a, double b)
{
        return a < b ? a : b;
}

/* Opens the stream with headers that need no copy until it is released. */
static int open_stream(struct call *k, struct link *l, const char *method, const struct rpc_opts *o, double deadline)
{
        struct rpc_channel *ch = k->ch;
        struct arena *a = k->c.arena;
        size_t max = HEAD + 2 + (o ? o->n_md : 0), n = HEAD;
        struct http_header fixed[STACK_MD], *h = fixed;
        char *timeout;
        int err = -ENOMEM;
        if (max > STACK_MD && !(h = arena_alloc(a, max * sizeof(*h))))
                return err;
        memcpy(h, ch->head, sizeof(ch->head));
        h[2].value = str_of(method);
        k->gzip_out = k->c.flags & RPC_GZIP;
        if (k->gzip_out)
                h[n++] = (struct http_header){STR("grpc-encoding"), STR("gzip")};
        if (deadline < INFINITY) {
                if (!(timeout = arena_alloc(a, RPC_TIMEOUT_BYTES)))
                        return err;
                h[n++] = (struct http_header){STR("grpc-timeout"), {timeout, rpc_timeout_format(timeout, deadline - loop_now())}};
        }
        if (o && o->n_md && (err = rpc_md_to_headers(a, o->md, o->n_md, h, &n)))
                return err;
        k->s = h2_open_nocopy(l->h2, h, n, false, &err);
        return k->s ? 0 : err;
}

/* 0, or the gRPC code. On success ch has one more ref. */
static int begin(struct call *k, struct rpc_channel *ch, struct arena *a, const char *method, const struct rpc_opts *o,
                 struct rpc_status *st)
{
        struct link *l;
        double limit = fiber_deadline();
        k->c.arena = a;
        k->c.method = str_of(method);
        k->c.flags = o ? o->flags : 0;
        k->c.peer = ch->conf.target.p;
        k->deadline = o && o->timeout_s > 0 ? loop_now() + o->timeout_s : INFINITY;
        k->max_recv = ch->conf.max_recv_bytes;
        k->max_send = -1;
        k->ch = ch;
        limit = earlier(limit, k->deadline);
        if (limit <= loop_now())
                return no_connection(st, a, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
        if (fiber_is_cancelled())
                return no_connection(st, a, RPC_CANCELLED, "context canceled");
        for (;;) {
                l = ch->live;
                if (!l || !h2_conn_is_usable(l->h2) || !h2_conn_has_room(l->h2)) {
                        const struct waiting w = {ch, k->deadline, k->c.flags & RPC_WAIT_READY, !ch->conf.no_reconnect};
                        int code = wait_link(&w, a, &l, st);
                        if (code)
                                return code;
                }
                int r = open_stream(k, l, method, o, limit);
                if (r == -ENETRESET)
                        continue;
                if (r)
                        return no_connection(st, a, RPC_RESOURCE_EXHAUSTED, "out of memory");
                ch->refs++;
                return 0;
        }
}

/* The stream and the channel go; the call's memory stays. */
static void release(struct call *k)
{
        h2_release(k->s);
        k->s = NULL;
        arena_fini(&k->scratch);
        channel_unref(k->ch);
}

/* The reply of a unary call after the request was queued; it may lie in the stream's buffer still (in_place). */
static void unary_reply(struct call *k, struct str *msg)
{
        struct str extra;
        int r = call_next(k, msg);
        if (r == 0 && k->c.status.code == RPC_OK)
                rpc_status_set(&k->c.status, k->c.arena, RPC_INTERNAL,
                               "cardinality violation: received no response message from non-server-streaming RPC");
        if (r <= 0) {
                k->ended = true;
                return;
        }
        bool in_place = k->in_place;
        r = call_next(k, &extra);
        k->in_place = in_place;
        if (r > 0)
                call_fail(k, RPC_INTERNAL,
                          "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message");
}

static int unary_end(struct call *k, struct rpc_status *st)
{
        *st = k->c.status;
        release(k);
        return st->code;
}

int rpc_unary(struct rpc_channel *ch, struct arena *a, const char *method, struct str req, struct str *resp,
              const struct rpc_opts *o, struct rpc_status *st)
{
        struct call k = {0};
        struct str msg;
        int code = begin(&k, ch, a, method, o, st);
        if (code)
                return code;
        if (call_put(&k, req, true) == -ENOMEM)
                call_fail(&k, RPC_RESOURCE_EXHAUSTED, "out of memory");
        unary_reply(&k, &msg);
        if (!k.c.status.code) {
                *resp = k.in_place ? arena_str(a, msg) : msg;
                if (!resp->p)
                        call_fail(&k, RPC_RESOURCE_EXHAUSTED, "out of memory");
        }
        return unary_end(&k, st);
}

int rpc_unary_pb(struct rpc_channel *ch, struct arena *a, const char *method, const ProtobufCMessage *req,
                 const ProtobufCMessageDescriptor *resp_d, void *resp, const struct rpc_opts *o, struct rpc_status *st)
{
        struct call k = {0};
        struct str msg;
        int code = begin(&k, ch, a, method, o, st);
        if (code)
                return code;
        if (call_put_pb(&k, req, true) == -ENOMEM)
                call_fail(&k, RPC_RESOURCE_EXHAUSTED, "out of memory");
        unary_reply(&k, &msg);
        if (!k.c.status.code) {
                void *m = k.in_place ? pb_unpack(a, resp_d, msg) : pb_unpack_borrow(a, resp_d, msg);
                if (m)
                        *(void **)resp = m;
                else
                        rpc_status_set(&k.c.status, a, RPC_INTERNAL,
                                       "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data");
        }
        return unary_end(&k, st);
}

int rpc_open(struct rpc_channel *ch, struct arena *a, const char *method, const struct rpc_opts *o, struct rpc_call **ret,
             struct rpc_status *st)
{
        struct call *k = arena_new(a, struct call);
        if (!k)
                return no_connection(st, a, RPC_RESOURCE_EXHAUSTED, "out of memory");
        int code = begin(k, ch, a, method, o, st);
        if (code)
                return code;
        k->keep_md = true;
        k->c.authority = ch->conf.authority;
        *ret = &k->c;
        return 0;
}

int rpc_send_end(struct rpc_call *c)
{
        struct call *k = call_of(c);
        if (k->server || k->send_ended)
                return 0;
        k->send_ended = true;
        return k->s && h2_send(k->s, NULL, 0, true) ? -EPIPE : 0;
}

bool rpc_is_broken(const struct rpc_call *c)
{
        const struct call *k = call_of((struct rpc_call *)c);
        return k->ended || k->s->closed;
}

int rpc_headers(struct rpc_call *c)
{
        struct call *k = call_of(c);
        while (!k->ended && !k->s->have_headers) {
                if (k->s->closed)
                        return call_broken(k);
                int r = cond_wait_until(&k->s->changed, k->deadline);
                if (r)
                        return call_interrupted(k, r);
        }
        return call_take_headers(k);
}

void rpc_cancel(struct rpc_call *c)
{
        struct call *k = call_of(c);
        if (!k->ended)
                call_fail(k, RPC_CANCELLED, "context canceled");
}

int rpc_finish(struct rpc_call *c)
{
        struct call *k = call_of(c);
        struct str skipped;
        if (!k->s)
                return c->status.code;
        if (!k->ended) {
                rpc_send_end(c);
                c->flags |= RPC_REUSE;
                while (call_next(k, &skipped) > 0)
                        ;
                k->ended = true;
        }
        release(k);
        return c->status.code;
}
