/*
 * The connections of one HTTP client. HTTP/1: a pool, most recently used first; while a connection serves an exchange it belongs to that
 * fiber (conn's fiber way), while it rests a handler drops it as soon as the peer closes or speaks. HTTP/2: as many connections as the
 * peer's limit of streams asks for.
 *
 * Which of the two a peer speaks is known beforehand, or by the ALPN of the last handshake. Until the first one is done, and as long as
 * it is HTTP/2, one fiber dials and the others wait for what comes of it.
 */
#include "sdk/net/http_pool.h"

#include <errno.h>
#include <stdlib.h>

#include "sdk/base/log.h"
#include "sdk/net/http1.h"
#include "sdk/net/tls.h"

enum { DEFAULT_CONNS = 1024, DEFAULT_IDLE = 64, DEFAULT_HEADER_BYTES = 64 * 1024, PROXY_HEAD_BYTES = 16 * 1024 };
#define DEFAULT_CONNECT_S 5.0
#define IDLE_S 90.0 /* as Go's transport */

struct session {
        struct list link;
        struct http_client *client;
        struct h2_conn *h2;
};

/* ---- HTTP/1 ---- */

void http_pool_drop(struct pooled *p)
{
        struct http_client *c = p->client;
        conn_free(p->io);
        free(p);
        c->n_conns--;
        cond_signal(&c->freed);
}

static void idle_drop(struct pooled *p)
{
        list_del(&p->link);
        p->client->n_idle--;
        http_pool_drop(p);
}

static void idle_read(struct conn *io)
{
        idle_drop(io->owner); /* nobody has asked anything */
}

static void idle_close(struct conn *io, int err)
{
        idle_drop(io->owner);
}

static const struct conn_handler idle_handler = {.on_read = idle_read, .on_close = idle_close};

static void on_sweep(struct timer *t)
{
        struct http_client *c = container_of(t, struct http_client, sweep);
        double old = loop_now() - IDLE_S;
        while (c->n_idle) {
                struct pooled *p = list_entry(c->idle.prev, struct pooled, link);
                if (p->idle_since > old + 0.01) {
                        timer_start(&c->sweep, p->idle_since - old, 0);
                        break;
                }
                idle_drop(p);
        }
}

void http_pool_put_back(struct pooled *p)
{
        struct http_client *c = p->client;
        p->used = true;
        p->idle_since = loop_now();
        list_add_head(&c->idle, &p->link);
        c->n_idle++;
        conn_set_handler(p->io, &idle_handler, p);
        if (!timer_is_active(&c->sweep))
                timer_start(&c->sweep, IDLE_S, 0);
        if (c->n_idle > c->conf.max_idle)
                idle_drop(list_entry(c->idle.prev, struct pooled, link));
        else
                cond_signal(&c->freed);
}

/* Has the peer closed, or sent what it should not? For requests that must not go out twice. */
static bool is_dead(const struct conn *io)
{
        char b;
        return recv(io->fd, &b, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static struct pooled *take_idle(struct http_client *c, bool ask)
{
        while (c->n_idle) {
                struct pooled *p = list_entry(c->idle.next, struct pooled, link);
                list_del(&p->link);
                c->n_idle--;
                conn_set_handler(p->io, NULL, NULL);
                if (!p->io->eof && !p->io->error && !buf_len(&p->io->in) && !(ask && is_dead(p->io)))
                        return p;
                http_pool_drop(p);
        }
        return NULL;
}

/* ---- HTTP/2 ---- */

static void session_closed(struct h2_conn *h2, int err)
{
        struct session *s = h2_conn_owner(h2);
        struct http_client *c = s->client;
        list_del(&s->link);
        free(s);
        c->n_conns--;
        cond_broadcast(&c->freed);
}

static void session_room(struct h2_conn *h2)
{
        struct session *s = h2_conn_owner(h2);
        cond_broadcast(&s->client->freed);
}

/* Takes a fresh connection that n_conns counts already. */
static int session_new(struct http_client *c, struct conn *io, struct h2_conn **ret)
{
        struct session *s = calloc(1, sizeof(*s));
        struct h2_conf conf = {.max_header_list = (uint32_t)c->conf.max_header_bytes, .on_close = session_closed, .on_room = session_room,
                               .idle_timeout_s = c->conf.h2 ? 0 : IDLE_S, .owner = s};
        if (!s) {
                conn_free(io);
                return -ENOMEM;
        }
        s->client = c;
        list_add_tail(&c->h2, &s->link);
        *ret = s->h2 = h2_conn_new(io, &conf);
        if (s->h2)
                return 0;
        list_del(&s->link);
        free(s);
        return -ENOMEM;
}

static struct h2_conn *session_find(struct http_client *c)
{
        list_for_each(l, &c->h2) {
                struct session *s = list_entry(l, struct session, link);
                if (s->h2 && h2_conn_is_usable(s->h2) && h2_conn_has_room(s->h2))
                        return s->h2;
        }
        return NULL;
}

/* ---- both ---- */

/* A way through the proxy. 0, -ECONNABORTED (it refuses), -EBADMSG and what ends a connection. Parks. */
static int tunnel(struct http_client *c, struct conn *io)
{
        struct http1_head h = {.response = true};
        struct arena a;
        size_t scanned = 0;
        ssize_t n;
        int r;
        buf_printf(&io->out, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", c->target, c->target);
        if (*c->proxy_authorization)
                http1_put_header(&io->out, STR("Proxy-Authorization"), str_of(c->proxy_authorization));
        if (buf_adds(&io->out, STR("\r\n")))
                return -ENOMEM;
        conn_flush_soon(io);
        while (!(n = http1_head_scan(buf_str(&io->in), &scanned, PROXY_HEAD_BYTES)))
                if ((r = conn_read(io)) <= 0)
                        return r ? r : -ECONNRESET;
        if (n < 0)
                return -EBADMSG;
        arena_init(&a, 0);
        r = http1_head_parse(&h, &a, str_n(io->in.p + io->in.off, (size_t)n));
        arena_fini(&a);
        buf_consume(&io->in, (size_t)n);
        return r ? r : h.status == 200 ? 0 : -ECONNABORTED;
}

/* *ret_h2: the peer has chosen HTTP/2. */
static int dial(struct http_client *c, struct conn **ret, bool *ret_h2)
{
        struct conn *io = NULL;
        double old = fiber_set_deadline(loop_now() + c->conf.connect_timeout_s);
        int r = conn_dial(str_of(*c->proxy ? c->proxy : c->target), &io);
        *ret_h2 = c->conf.h2;
        if (!r && c->conf.tls) {
                r = *c->proxy ? tunnel(c, io) : 0;
                if (!r)
                        r = conn_start_tls(io, c->conf.tls, str_of(c->server_name), false);
                struct str alpn = r ? STR_NULL : tls_session_alpn(io->tls);
                bool is_h2 = str_eq(alpn, STR("h2"));
                if (!r && c->conf.h2 != is_h2 && !c->conf.h2_by_alpn && (alpn.n || c->conf.h2))
                        r = -EPROTO;
                *ret_h2 = is_h2;
                if (r)
                        conn_free(io);
        }
        fiber_restore_deadline(old);
        *ret = r ? NULL : io;
        return r;
}

static int dial_one(struct http_client *c, struct http_use *ret)
{
        struct pooled *p = calloc(1, sizeof(*p));
        struct conn *io;
        bool is_h2;
        int r;
        if (!p)
                return -ENOMEM;
        p->client = c;
        c->n_conns++;
        c->dialling++;
        r = dial(c, &io, &is_h2);
        c->dialling--;
        if (!r)
                c->speaks = is_h2 ? SPEAKS_HTTP2 : SPEAKS_HTTP1;
        if (!r && is_h2)
                r = session_new(c, io, &ret->h2);
        if (r)
                c->n_conns--;
        if (r || is_h2) {
                free(p);
                cond_broadcast(&c->freed);
                return r;
        }
        p->io = io;
        ret->conn = p;
        if (c->conf.h2_by_alpn)
                cond_broadcast(&c->freed);
        return 0;
}

int http_pool_get(struct http_client *c, bool fresh, bool ask, struct http_use *ret)
{
        *ret = (struct http_use){0};
        for (;;) {
                if ((ret->h2 = session_find(c)) || (!fresh && (ret->conn = take_idle(c, ask))))
                        return 0;
                if (c->n_conns < c->conf.max_conns && !(c->dialling && c->speaks != SPEAKS_HTTP1))
                        return dial_one(c, ret);
                if (fresh && c->n_idle) {
                        idle_drop(list_entry(c->idle.prev, struct pooled, link));
                        continue;
                }
                int r = cond_wait(&c->freed);
                if (r)
                        return r;
        }
}

/* ---- the client ---- */

static char *copy(struct str s)
{
        return strndup(s.p ? s.p : "", s.n);
}

/* "unix:…" has no host of its own. */
static struct str host_of(struct str target, bool with_port)
{
        if (str_has_prefix(target, STR("unix")) && !str_has_prefix(target, STR("unix.")))
                return STR("localhost");
        const char *colon = target.n ? memrchr(target.p, ':', target.n) : NULL;
        struct str host = with_port || !colon ? target : str_n(target.p, (size_t)(colon - target.p));
        if (!with_port && host.n > 1 && host.p[0] == '[')
                host = str_n(host.p + 1, host.n - 2);
        return host;
}

int http_client_new(struct http_client **ret, const struct http_client_conf *conf)
{
        struct http_client *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->conf = *conf;
        c->conf.max_conns = conf->max_conns ? conf->max_conns : DEFAULT_CONNS;
        c->conf.max_idle = conf->max_idle ? conf->max_idle : DEFAULT_IDLE;
        c->conf.connect_timeout_s = conf->connect_timeout_s > 0 ? conf->connect_timeout_s : DEFAULT_CONNECT_S;
        c->conf.max_header_bytes = conf->max_header_bytes ? conf->max_header_bytes : DEFAULT_HEADER_BYTES;
        c->conf.tls = conf->tls ? tls_context_ref(conf->tls) : NULL;
        c->target = copy(conf->target);
        c->authority = copy(conf->authority.n ? conf->authority : host_of(conf->target, true));
        c->server_name = copy(conf->server_name.n ? conf->server_name : host_of(conf->target, false));
        c->proxy = copy(conf->proxy);
        c->proxy_authorization = copy(conf->proxy_authorization);
        list_init(&c->idle);
        list_init(&c->h2);
        cond_init(&c->freed);
        c->speaks = conf->h2 ? SPEAKS_HTTP2 : conf->h2_by_alpn && conf->tls ? SPEAKS_UNKNOWN : SPEAKS_HTTP1;
        timer_init(&c->sweep, on_sweep);
        if (!c->target || !c->authority || !c->server_name || !c->proxy || !c->proxy_authorization) {
                http_client_free(c);
                return -ENOMEM;
        }
        *ret = c;
        return 0;
}

void http_client_free(struct http_client *c)
{
        if (!c)
                return;
        must(!c->n_running);
        timer_stop(&c->sweep);
        while (c->n_idle)
                idle_drop(list_entry(c->idle.next, struct pooled, link));
        list_for_each_safe(l, next, &c->h2)
                h2_conn_close(list_entry(l, struct session, link)->h2, 0);
        if (c->conf.tls)
                tls_context_unref(c->conf.tls);
        free(c->target);
        free(c->authority);
        free(c->server_name);
        free(c->proxy);
        free(c->proxy_authorization);
        free(c);
}
