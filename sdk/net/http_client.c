/*
 * Exchanges of an HTTP client: one request and its response over a connection of its pool (http_pool.c), HTTP/1 or HTTP/2.
 *
 * A connection that rested may be dead without our knowing. Then the request goes out again, once, when that cannot do harm;
 * for other methods the socket is asked before they are sent.
 *
 * A body in gzip that the caller has not asked for is unpacked as it comes, when the client's conf says so: nobody behind it could
 * know what it is.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/net/gunzip.h"
#include "sdk/net/http1.h"
#include "sdk/net/http_pool.h"

enum { BODY_STEP_BYTES = 16 * 1024, PACK_BYTES = 16 * 1024 };

struct exchange {
        struct http_exchange x;
        struct http_client *client;
        struct arena *arena;
        /* the request, for sending it again */
        struct str method, target, body_now;
        const struct http_header *h;
        size_t n_h;
        int64_t length;         /* of the body to come; -1 = unknown */
        bool has_body_now, sent_again;
        /* HTTP/1 */
        struct pooled *conn;
        size_t scanned;
        struct http1_body body;
        bool chunked, sent, keep_alive;
        /* HTTP/2 */
        struct h2_stream *stream;
        /* unpacking */
        bool may_unpack;        /* the request leaves it to us */
        struct gunzip *gunzip;
        struct str packed;      /* read and not unpacked */
        char *pack;             /* PACK_BYTES */
        bool answered;
        int error;              /* of the response; sticky */
};

static struct exchange *priv(struct http_exchange *x)
{
        return container_of(x, struct exchange, x);
}

/* ---- requests ---- */

static bool is_idempotent(struct str m)
{
        static const struct str list[] = {STR("GET"), STR("HEAD"), STR("PUT"), STR("DELETE"), STR("OPTIONS"), STR("TRACE")};
        for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++)
                if (str_eq(m, list[i]))
                        return true;
        return false;
}

static bool can_send_again(const struct exchange *e)
{
        return !e->sent_again && (e->has_body_now || e->length == 0);
}

/* Methods that seldom have a body say so by silence. */
static bool tells_empty(struct str m)
{
        return str_eq(m, STR("POST")) || str_eq(m, STR("PUT")) || str_eq(m, STR("PATCH"));
}

/* Unpacking, as Go's transport does it: not when the caller has a say in it, and not a part of something. */
static bool leaves_it_to_us(const struct exchange *e)
{
        if (e->client->conf.gzip == HTTP_GZIP_AS_IS || str_eq(e->method, STR("HEAD")))
                return false;
        for (size_t i = 0; i < e->n_h; i++)
                if (e->h[i].value.n && (str_ieq(e->h[i].name, STR("Accept-Encoding")) || str_ieq(e->h[i].name, STR("Range"))))
                        return false;
        return true;
}

static bool asks_for_gzip(const struct exchange *e)
{
        return e->may_unpack && e->client->conf.gzip == HTTP_GZIP_ASK;
}

static int start_h2(struct exchange *e, struct h2_conn *h2)
{
        struct http_client *c = e->client;
        struct http_headers h = {0};
        struct str authority = str_of(c->authority);
        int r;
        for (size_t i = 0; i < e->n_h; i++) {
                struct str name = e->h[i].name;
                enum http1_field kind = http1_field_kind(name);
                if (kind == HTTP1_HOST)
                        authority = e->h[i].value;
                else if ((kind == HTTP1_PLAIN || kind == HTTP1_DATE) && http1_is_token(name) && !str_ieq(name, STR("Keep-Alive")) &&
                         !str_ieq(name, STR("Upgrade")) && http_headers_add(&h, e->arena, name, e->h[i].value))
                        return -ENOMEM;
        }
        if (asks_for_gzip(e) && http_headers_add(&h, e->arena, STR("accept-encoding"), STR("gzip")))
                return -ENOMEM;
        int64_t length = e->has_body_now ? (int64_t)e->body_now.n : e->length;
        if (length > 0 || (length == 0 && tells_empty(e->method))) {
                char *text = arena_printf(e->arena, "%lld", (long long)length);
                if (!text || http_headers_add(&h, e->arena, STR("content-length"), str_of(text)))
                        return -ENOMEM;
        }
        e->stream = h2_open(h2, e->method, c->conf.tls ? STR("https") : STR("http"), authority, e->target, h.v, h.n, length == 0, &r);
        if (!e->stream)
                return r;
        if (e->has_body_now && e->body_now.n)
                h2_send(e->stream, e->body_now.p, e->body_now.n, true); /* an error comes back with the response */
        return 0;
}

static int send_head(struct exchange *e)
{
        struct buf *o = &e->conn->io->out;
        const struct http_client *c = e->client;
        bool has_host = false, by_proxy = *c->proxy && !c->conf.tls; /* whole URLs */
        buf_reserve(o, 512);
        buf_adds(o, e->method);
        buf_addc(o, ' ');
        if (by_proxy)
                buf_printf(o, "http://%s", c->authority);
        buf_adds(o, e->target);
        buf_adds(o, STR(" HTTP/1.1\r\n"));
        for (size_t i = 0; i < e->n_h; i++)
                has_host |= http1_field_kind(e->h[i].name) == HTTP1_HOST;
        if (!has_host)
                http1_put_header(o, STR("Host"), str_of(e->client->authority));
        for (size_t i = 0; i < e->n_h; i++) {
                enum http1_field kind = http1_field_kind(e->h[i].name);
                if (kind == HTTP1_PLAIN || kind == HTTP1_DATE || kind == HTTP1_HOST)
                        http1_put_header(o, e->h[i].name, e->h[i].value);
        }
        if (by_proxy && *c->proxy_authorization)
                http1_put_header(o, STR("Proxy-Authorization"), str_of(c->proxy_authorization));
        if (asks_for_gzip(e))
                http1_put_header(o, STR("Accept-Encoding"), STR("gzip"));
        int64_t length = e->has_body_now ? (int64_t)e->body_now.n : e->length;
        e->chunked = length < 0;
        if (e->chunked) {
                buf_adds(o, STR("Transfer-Encoding: chunked\r\n"));
        } else if (length || tells_empty(e->method)) {
                buf_adds(o, STR("Content-Length: "));
                http1_put_uint(o, (uint64_t)length);
                buf_adds(o, STR("\r\n"));
        }
        buf_adds(o, STR("\r\n"));
        if (o->failed)
                return -ENOMEM;
        conn_flush_soon(e->conn->io);
        e->sent = length == 0 || e->has_body_now;
        return 0;
}

static int start_h1(struct exchange *e, struct pooled *conn)
{
        e->conn = conn;
        e->scanned = 0;
        int r = send_head(e);
        if (!r && e->has_body_now)
                conn_write(e->conn->io, e->body_now.p, e->body_now.n); /* an error comes back with the response */
        if (r) {
                http_pool_drop(e->conn);
                e->conn = NULL;
        }
        return r;
}

static int start(struct exchange *e, bool fresh)
{
        bool ask = !(is_idempotent(e->method) && (e->has_body_now || e->length == 0));
        struct http_use use;
        int r = http_pool_get(e->client, fresh, ask, &use);
        if (r)
                return r;
        return use.h2 ? start_h2(e, use.h2) : start_h1(e, use.conn);
}

static bool is_target(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 127)
                        return false;
        return s.n > 0;
}

int http_client_start(struct http_client *c, struct arena *a, struct str method, struct str target,
                      const struct http_header *h, size_t n, int64_t length, struct str body_now, struct http_exchange **ret)
{
        if (!http1_is_token(method) || !is_target(target))
                return -EINVAL;
        struct exchange *e = arena_new(a, struct exchange);
        if (!e)
                return -ENOMEM;
        e->client = c;
        e->arena = a;
        e->method = method;
        e->target = target;
        e->h = h;
        e->n_h = n;
        e->length = length;
        e->body_now = body_now;
        e->has_body_now = body_now.p != NULL;
        e->x.content_length = -1;
        e->x.impl = e;
        e->may_unpack = leaves_it_to_us(e);
        c->n_running++;
        int r = start(e, false);
        if (r) {
                c->n_running--;
                return r;
        }
        *ret = &e->x;
        return 0;
}

int http_exchange_write(struct http_exchange *x, struct str data)
{
        struct exchange *e = priv(x);
        if (x->ops)
                return x->ops->write(x, data);
        if (e->has_body_now || e->sent)
                return -EINVAL;
        if (!data.n)
                return 0;
        if (e->length >= 0) {
                if ((uint64_t)e->length < data.n)
                        return -EMSGSIZE;
                e->length -= (int64_t)data.n;
        }
        if (e->stream)
                return h2_write(e->stream, data.p, data.n);
        struct conn *io = e->conn->io;
        if (e->chunked)
                http1_put_chunk_size(&io->out, data.n);
        int r = conn_write(io, data.p, data.n);
        if (!r && e->chunked)
                r = buf_adds(&io->out, STR("\r\n"));
        return r ? r : conn_throttle(io);
}

int http_exchange_end(struct http_exchange *x)
{
        struct exchange *e = priv(x);
        if (x->ops)
                return x->ops->end(x);
        if (e->has_body_now || e->sent)
                return 0;
        if (e->length > 0)
                return -EINVAL;
        e->sent = true;
        if (e->stream)
                return h2_send(e->stream, NULL, 0, true);
        return e->chunked ? conn_write(e->conn->io, "0\r\n\r\n", 5) : 0;
}

/* ---- responses ---- */

static void take_head(struct exchange *e, const struct http1_head *h)
{
        enum http1_body_kind kind = http1_body_of_response(h, e->method);
        http1_body_init(&e->body, kind, h->content_length > 0 ? (uint64_t)h->content_length : 0, e->arena);
        e->keep_alive = h->keep_alive && kind != HTTP1_BODY_TO_END && h->status != 101; /* whatever it switches to: nothing for us */
        e->x.status = h->status;
        e->x.headers = h->headers;
        e->x.content_length = h->content_length >= 0 ? h->content_length : kind == HTTP1_BODY_NONE ? 0 : -1;
        e->answered = true;
}

/* One head off the input. 1 = read, 0 = more is needed, <0. */
static int read_head(struct exchange *e)
{
        struct buf *in = &e->conn->io->in;
        struct http1_head h = {.response = true};
        ssize_t n = http1_head_scan(buf_str(in), &e->scanned, e->client->conf.max_header_bytes);
        if (n <= 0)
                return n == -EMSGSIZE ? -EOVERFLOW : (int)n;
        struct str text = arena_str(e->arena, str_n(in->p + in->off, (size_t)n));
        int r = text.p ? http1_head_parse(&h, e->arena, text) : -ENOMEM;
        if (r)
                return r;
        buf_consume(in, (size_t)n);
        e->scanned = 0;
        if (h.status >= 200 || h.status == 101)
                take_head(e, &h);
        return 1;
}

/* Once more, by another connection. */
static int again(struct exchange *e)
{
        e->sent_again = true;
        if (e->stream)
                h2_release(e->stream);
        else
                http_pool_drop(e->conn);
        e->stream = NULL;
        e->conn = NULL;
        return start(e, true);
}

/* 1 = the request has gone out again. */
static int response_h1(struct exchange *e)
{
        for (;;) {
                struct conn *io = e->conn->io;
                int r = read_head(e);
                if (r < 0 || e->answered)
                        return r < 0 ? r : 0;
                if (r == 1)
                        continue;
                r = conn_read(io);
                if (r == 1)
                        continue;
                bool silent = !buf_len(&io->in) && (r == 0 || r == -ECONNRESET || r == -EPIPE);
                if (!silent || !e->conn->used || !can_send_again(e) || !is_idempotent(e->method))
                        return r ? r : -ECONNRESET;
                r = again(e);
                return r ? r : 1;
        }
}

/* ---- unpacking ---- */

static bool has_body(const struct exchange *e)
{
        if (e->stream)
                return !e->stream->remote_ended || buf_len(&e->stream->in);
        return e->body.kind != HTTP1_BODY_NONE && e->x.content_length;
}

static int unpack_begin(struct exchange *e)
{
        struct http_headers *h = &e->x.headers;
        if (!e->may_unpack || !str_ieq(http_headers_get(h, "Content-Encoding"), STR("gzip")) || !has_body(e))
                return 0;
        e->pack = arena_alloc(e->arena, PACK_BYTES);
        if (!e->pack || gunzip_new(&e->gunzip))
                return -ENOMEM;
        http_headers_remove(h, "Content-Encoding");
        http_headers_remove(h, "Content-Length");
        e->x.content_length = -1;
        return 0;
}

static int64_t length_of(const struct http_headers *h)
{
        struct str v = http_headers_get(h, "content-length");
        int64_t n = 0;
        if (!v.n || v.n > 18)
                return -1;
        for (size_t i = 0; i < v.n; i++) {
                if (v.p[i] < '0' || v.p[i] > '9')
                        return -1;
                n = n * 10 + (v.p[i] - '0');
        }
        return n;
}

static int response_h2(struct exchange *e)
{
        int r = h2_wait_headers(e->stream);
        if (r == -ENETRESET && can_send_again(e)) {
                r = again(e);
                return r ? r : 1;
        }
        if (r)
                return r;
        e->x.status = e->stream->status;
        e->x.headers = e->stream->headers;
        e->x.content_length = length_of(&e->x.headers);
        e->answered = true;
        return 0;
}

int http_exchange_response(struct http_exchange *x)
{
        struct exchange *e = priv(x);
        if (x->ops)
                return x->ops->response(x);
        if (e->answered || e->error)
                return e->error;
        if (!e->stream && !e->conn)
                return -ECONNRESET; /* a second try had no time left */
        int r;
        do
                r = e->stream ? response_h2(e) : response_h1(e);
        while (r == 1);
        if (!r)
                r = unpack_begin(e);
        if (r && r != -ETIMEDOUT)
                e->error = r;
        return r;
}

static ssize_t read_h2(struct exchange *e, void *p, size_t n)
{
        ssize_t got = h2_read(e->stream, p, n);
        if (got == 0)
                e->x.trailers = e->stream->trailers;
        return got;
}

static ssize_t read_h1(struct http_exchange *x, struct exchange *e, void *p, size_t n)
{
        struct conn *io = e->conn->io;
        for (;;) {
                ssize_t got = http1_body_read(&e->body, &io->in, p, n);
                int r;
                if (got != -EAGAIN) {
                        if (e->body.done)
                                x->trailers = e->body.trailers;
                        return got;
                }
                r = conn_read(io);
                if (r == 0 && e->body.kind == HTTP1_BODY_TO_END) {
                        e->body.done = true;
                        return 0;
                }
                if (r <= 0)
                        return r ? r : -ECONNRESET;
        }
}

static ssize_t read_raw(struct http_exchange *x, struct exchange *e, void *p, size_t n)
{
        return e->stream ? read_h2(e, p, n) : read_h1(x, e, p, n);
}

static ssize_t read_unpacked(struct http_exchange *x, struct exchange *e, void *p, size_t n)
{
        for (;;) {
                ssize_t got = gunzip_read(e->gunzip, &e->packed, p, n);
                if (got)
                        return got;
                got = read_raw(x, e, e->pack, PACK_BYTES);
                if (got <= 0)
                        return got < 0 || gunzip_is_whole(e->gunzip) ? got : -ECONNRESET;
                e->packed = str_n(e->pack, (size_t)got);
        }
}

ssize_t http_exchange_read(struct http_exchange *x, void *p, size_t n)
{
        struct exchange *e = priv(x);
        if (x->ops)
                return x->ops->read(x, p, n);
        int r = http_exchange_response(x);
        if (r)
                return r;
        ssize_t got = e->gunzip ? read_unpacked(x, e, p, n) : read_raw(x, e, p, n);
        if (got == -EBADMSG || got == -ENOMEM)
                e->error = (int)got;
        return got;
}

int http_exchange_body(struct http_exchange *x, struct arena *a, size_t max, struct str *ret)
{
        size_t cap = 0, n = 0;
        char *p = NULL;
        int r = http_exchange_response(x);
        if (r)
                return r;
        if (x->content_length > 0 && (uint64_t)x->content_length > max && !x->ops && !str_eq(priv(x)->method, STR("HEAD")))
                return -EMSGSIZE;
        for (;;) {
                if (n == cap) {
                        size_t want = cap ? cap * 2 : x->content_length >= 0 ? (size_t)x->content_length : BODY_STEP_BYTES;
                        want = want < max ? want + 1 : max + 1; /* one more finds the end, or that there is too much */
                        if (n > max)
                                return -EMSGSIZE;
                        char *q = arena_grow(a, p, n, want);
                        if (!q)
                                return -ENOMEM;
                        p = q;
                        cap = want;
                }
                ssize_t got = http_exchange_read(x, p + n, cap - n);
                if (got < 0)
                        return (int)got;
                if (got == 0) {
                        *ret = str_n(p, n);
                        return n > max ? -EMSGSIZE : 0;
                }
                n += (size_t)got;
        }
}

void http_exchange_abort(struct http_exchange *x)
{
        struct exchange *e = priv(x);
        if (x->ops)
                return; /* they are used by one fiber */
        if (e->stream)
                h2_reset(e->stream, H2_CANCEL);
        else if (e->conn)
                shutdown(e->conn->io->fd, SHUT_RDWR); /* the reader sees the end */
        e->keep_alive = false;
}

void http_exchange_close(struct http_exchange *x)
{
        if (!x)
                return;
        struct exchange *e = priv(x);
        struct http_client *c = x->ops ? NULL : e->client;
        if (x->ops) {
                x->ops->close(x);
                return;
        }
        c->n_running--;
        gunzip_free(e->gunzip);
        if (e->stream)
                h2_release(e->stream);
        if (!e->conn)
                return;
        struct conn *io = e->conn->io;
        if (e->answered && !e->error && e->body.done && e->sent && e->keep_alive && !io->eof && !io->error && !io->write_error &&
            !buf_len(&io->in))
                http_pool_put_back(e->conn);
        else
                http_pool_drop(e->conn);
}
