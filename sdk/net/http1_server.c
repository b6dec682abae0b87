/*
 * The server's side of an HTTP/1 connection.
 *
 * States: idle (no request; bytes of a head may stand in io->in) -> busy (a head was read; its handler's fiber runs; what the
 * client sends on stays in io->in) -> idle again, or closed. Requests of a connection are served one after another; a response
 * is appended to io->out and leaves with the others of the same turn.
 * The head is copied into the request's arena, because io->in moves while the handler runs. Requests (with their arenas) are
 * pooled by the server, so that an idle connection holds none.
 * A client that goes away while a handler runs cancels its fiber, unless it has sent more requests before.
 * Timers are lazy: one a connection, started when something has to end, and looking at the state when it fires.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/net/http2.h"
#include "sdk/net/http_server.h"

enum { FIELDS_INLINE = 24 };

struct h1_conn {
        struct http_peer peer;
        struct conn *io;
        struct h1_req *req;        /* NULL = idle */
        size_t scanned;            /* of the head that is coming */
        bool sniffed;              /* it is HTTP/1 */
        bool close_after;          /* no request after the one that runs */
        bool gone;                 /* the peer's stream has ended */
        bool served;               /* at least one */
        struct timer timer;
        double timer_at;
        double waits_since;        /* idle: for the next request, or for the rest of its head */
        bool head_begun;
};

struct h1_req {
        struct http_req r;
        struct h1_req *next;       /* in the pool */
        struct h1_conn *conn;      /* NULL: broken */
        struct arena arena;
        struct fiber *fiber;       /* once it runs */
        struct http1_head head;
        struct http1_body body;
        int body_error;
        bool cancelled, may_continue, aborted, close, no_body_out, chunked;
        int64_t left_out;          /* of the announced length; -1 = unknown */
        struct http_header fields[FIELDS_INLINE];
};

static void serve_next(struct h1_conn *hc);

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* ---- life of a connection ---- */

static void h1_free(struct h1_conn *hc)
{
        timer_stop(&hc->timer);
        http_peer_del(&hc->peer);
        free(hc);
}

static void h1_close(struct h1_conn *hc, double linger_s)
{
        conn_close(hc->io, linger_s);
        h1_free(hc);
}

static void arm(struct h1_conn *hc, double at)
{
        if (at == INFINITY || (timer_is_active(&hc->timer) && hc->timer_at <= at))
                return;
        hc->timer_at = at;
        double after = at - loop_now();
        timer_start(&hc->timer, after > 0 ? after : 0, 0);
}

/* When the wait that goes on now has to end. */
static double wait_ends(const struct h1_conn *hc)
{
        const struct http_server_conf *conf = &hc->peer.server->conf;
        if (hc->req)
                return INFINITY;
        double limit = hc->head_begun || !hc->served ? conf->header_timeout_s : conf->idle_timeout_s;
        return limit > 0 ? hc->waits_since + limit : INFINITY;
}

static void on_timer(struct timer *t)
{
        struct h1_conn *hc = container_of(t, struct h1_conn, timer);
        double at = wait_ends(hc);
        if (at <= loop_now() + 0.001)
                h1_close(hc, 0); /* Go closes without a word, too */
        else
                arm(hc, at);
}

static void wait_begins(struct h1_conn *hc, bool head_begun)
{
        hc->head_begun = head_begun;
        hc->waits_since = loop_now();
        arm(hc, wait_ends(hc));
}

/* ---- requests ---- */

static struct h1_req *req_new(struct h1_conn *hc)
{
        struct http_server *s = hc->peer.server;
        struct h1_req *q = s->pool;
        if (q) {
                s->pool = q->next;
                spare_taken(&s->spare);
                /* the arena keeps its block, the fields need no clearing */
                struct arena a = q->arena;
                memset(q, 0, offsetof(struct h1_req, fields));
                q->arena = a;
        } else {
                q = calloc(1, sizeof(*q));
                if (!q)
                        return NULL;
                arena_init(&q->arena, s->conf.arena_cap_bytes);
        }
        q->conn = hc;
        q->head.headers = (struct http_headers){q->fields, 0, FIELDS_INLINE};
        return q;
}

static void req_fini(struct h1_req *q)
{
        arena_fini(&q->arena);
        free(q);
}

static void req_drop(struct spare *spare)
{
        struct http_server *s = container_of(spare, struct http_server, spare);
        struct h1_req *q = s->pool;
        s->pool = q->next;
        req_fini(q);
}

static void req_free(struct http_server *s, struct h1_req *q)
{
        if (s->spare.count >= HTTP_POOLED_REQUESTS) {
                req_fini(q);
                return;
        }
        arena_reset(&q->arena);
        q->next = s->pool;
        s->pool = q;
        spare_put(&s->spare);
}

void h1_req_pool_init(struct http_server *s)
{
        s->spare = (struct spare){.keep = HTTP_KEPT_REQUESTS, .drop = req_drop};
}

void h1_req_pool_fini(struct http_server *s)
{
        spare_drop(&s->spare);
}

static struct h1_req *h1_of(struct http_req *r)
{
        return r->impl;
}

static void cancel(struct h1_req *q)
{
        q->cancelled = true;
        if (q->fiber)
                fiber_cancel(q->fiber);
}

/* Reading rests while a busy connection's input is large; it goes on once that has been taken. */
static void resume_reading(struct h1_conn *hc)
{
        if (hc->io->read_paused && buf_len(&hc->io->in) < CONN_LOW_WATER)
                conn_pause_read(hc->io, false);
}

static bool is_broken(const struct conn *io)
{
        return io->error || io->write_error;
}

/* What the handler has left of the body. Up to a limit it is skipped, for the sake of the next request. True = all gone. */
static bool skip_body(struct h1_req *q)
{
        char scratch[2048];
        size_t skipped = 0;
        if (q->body.done)
                return true;
        double old = fiber_set_deadline(loop_now() + q->r.server->conf.header_timeout_s);
        ssize_t n = 1;
        while (n > 0 && skipped <= HTTP_DRAIN_BYTES) {
                n = h1_req_read(&q->r, scratch, sizeof(scratch));
                skipped += n > 0 ? (size_t)n : 0;
        }
        fiber_restore_deadline(old);
        return q->body.done && !q->body_error;
}

static void finish(struct h1_req *q)
{
        struct h1_conn *hc = q->conn;
        struct http_server *s = hc->peer.server;
        if (!q->r.begun && !q->aborted)
                h1_resp_send(&q->r, 500, NULL, 0, STR(""));
        bool cut = q->aborted || !q->r.ended || is_broken(hc->io);
        bool close_it = cut || q->close || hc->close_after || s->stopping || !skip_body(q) || conn_throttle(hc->io) != 0;
        if (s->give && !cut)
                conn_flush(hc->io); /* soon this program is no more */
        hc->req = NULL;
        req_free(s, q);
        if (close_it) {
                h1_close(hc, cut ? 0 : HTTP_LINGER_S);
                return;
        }
        if (s->give && http_peer_give(s, hc->io) == 0) {
                h1_free(hc);
                return;
        }
        hc->served = true;
        resume_reading(hc);
        serve_next(hc);
}

static void handler_fiber(void *arg)
{
        struct h1_req *q = arg;
        q->fiber = fiber_self();
        if (q->cancelled)
                fiber_cancel(q->fiber);
        http_run_handler(&q->r);
        fiber_restore_deadline(INFINITY);
        finish(q);
}

/* A request that never reaches a handler. Words and form are those of Go's server. */
static void refuse(struct h1_conn *hc, int status, const char *why)
{
        struct buf *o = &hc->io->out;
        const char *text = http_status_text(status);
        bool more = why && *why;
        buf_printf(o, "HTTP/1.1 %d %s%s%s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n", status, text,
                   more ? ": " : "", more ? why : "");
        if (status == 501)
                buf_addz(o, "Unsupported transfer encoding");
        else
                buf_printf(o, "%d %s%s%s", status, text, more ? ": " : "", more ? why : "");
        conn_flush_soon(hc->io);
        h1_close(hc, HTTP_LINGER_S);
}

/* True = the connection is HTTP/2 from here on, or closed. */
static bool upgrade(struct h1_conn *hc, struct h1_req *q)
{
        const struct http1_head *h = &q->head;
        struct http_server *s = hc->peer.server;
        struct str to = http_headers_get(&h->headers, "Upgrade"), settings = http_headers_get(&h->headers, "HTTP2-Settings");
        if (!h->upgrade || s->conf.no_h2c || hc->io->tls || h->version != 11 || !http_value_has_token(to, "h2c") || !settings.p ||
            h->chunked || h->content_length > 0)
                return false;
        struct str raw = settings.n ? base64_decode(&q->arena, settings) : STR("");
        if (!raw.p) {
                req_free(s, q);
                refuse(hc, 400, "");
                return true;
        }
        struct conn *io = hc->io;
        conn_write(io, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 71);
        conn_set_handler(io, NULL, NULL);
        h2_serve_upgrade(s, io, raw, h);
        req_free(s, q);
        h1_free(hc);
        return true;
}

static void fill_req(struct h1_conn *hc, struct h1_req *q)
{
        struct http_req *r = &q->r;
        const struct http1_head *h = &q->head;
        *r = (struct http_req){
                .method = h->method, .authority = h->host, .headers = h->headers, .version = h->version, .arena = &q->arena,
                .server = hc->peer.server, .peer = hc->io->peer, .impl = q,
                .content_length = h->chunked ? -1 : h->content_length < 0 ? 0 : h->content_length,
        };
        http_req_set_target(r, h->target);
        if (h->chunked)
                http1_body_init(&q->body, HTTP1_BODY_CHUNKED, 0, NULL);
        else
                http1_body_init(&q->body, HTTP1_BODY_LENGTH, (uint64_t)r->content_length, NULL);
        q->may_continue = h->expect_continue && h->version == 11 && !q->body.done;
        q->close = !h->keep_alive;
        q->left_out = -1;
}

/* Reads the head of n bytes that stands in `in` and starts its handler. */
static void begin_request(struct h1_conn *hc, size_t n)
{
        struct http_server *s = hc->peer.server;
        struct buf *in = &hc->io->in;
        struct h1_req *q = req_new(hc);
        struct str text = q ? arena_str(&q->arena, str_n(in->p + in->off, n)) : STR_NULL;
        buf_consume(in, n);
        hc->scanned = 0;
        hc->head_begun = false;
        int r = text.p ? http1_head_parse(&q->head, &q->arena, text) : -ENOMEM;
        if (!r) {
                if (upgrade(hc, q))
                        return;
                fill_req(hc, q);
                r = fiber_go(&s->handlers, s->conf.name, handler_fiber, q);
                if (!r) {
                        hc->req = q;
                        return;
                }
        }
        int status = r == -EBADMSG ? q->head.refuse : 503;
        const char *why = r == -EBADMSG ? q->head.why : NULL;
        if (q)
                req_free(s, q);
        refuse(hc, status, why);
}

static void serve_next(struct h1_conn *hc)
{
        const struct http_server_conf *conf = &hc->peer.server->conf;
        ssize_t n = http1_head_scan(buf_str(&hc->io->in), &hc->scanned, conf->max_header_bytes + HTTP_HEADER_SLACK);
        if (n > 0 && !hc->served && !conf->no_h2c && http1_is_foreign(str_n(hc->io->in.p + hc->io->in.off, (size_t)n))) {
                h1_close(hc, 0); /* without a word, as after a wrong preface on a port of HTTP/2 alone */
        } else if (n > 0) {
                begin_request(hc, (size_t)n);
        } else if (n < 0) {
                refuse(hc, n == -EMSGSIZE ? 431 : 400, "");
        } else if (hc->gone) {
                h1_close(hc, HTTP_LINGER_S);
        } else if (buf_len(&hc->io->in)) {
                if (!hc->head_begun)
                        wait_begins(hc, true);
        } else {
                wait_begins(hc, false);
        }
}

/* ---- events ---- */

/* True once it is known that this is HTTP/1; on HTTP/2 the conn is handed over and hc is gone. */
static bool sniff(struct h1_conn *hc)
{
        struct http_server *s = hc->peer.server;
        struct str in = buf_str(&hc->io->in);
        size_t n = in.n < sizeof(preface) - 1 ? in.n : sizeof(preface) - 1;
        if (s->conf.no_h2c || memcmp(in.p, preface, n) != 0) {
                hc->sniffed = true;
                return true;
        }
        if (n == sizeof(preface) - 1) {
                struct conn *io = hc->io;
                conn_set_handler(io, NULL, NULL);
                h1_free(hc);
                h2_serve(s, io);
        }
        return false;
}

static void on_read(struct conn *io)
{
        struct h1_conn *hc = io->owner;
        if (hc->req) {
                if (buf_len(&io->in) > CONN_HIGH_WATER)
                        conn_pause_read(io, true);
        } else if (hc->sniffed || sniff(hc)) {
                serve_next(hc);
        }
}

static void on_close(struct conn *io, int err)
{
        struct h1_conn *hc = io->owner;
        hc->gone = true;
        if (!hc->req)
                h1_close(hc, 0);
        else if (err || !buf_len(&io->in))
                cancel(hc->req);
}

static const struct conn_handler handler = {.on_read = on_read, .on_close = on_close};

static void peer_drain(struct http_peer *p)
{
        struct h1_conn *hc = container_of(p, struct h1_conn, peer);
        if (p->server->give && !p->server->stopping && !is_broken(hc->io) && !hc->io->tls) {
                if (!hc->req && http_peer_give(p->server, hc->io) == 0)
                        h1_free(hc);
                return; /* later, when it is idle */
        }
        hc->close_after = true;
        if (!hc->req)
                h1_close(hc, 0);
}

static void peer_close(struct http_peer *p)
{
        h1_close(container_of(p, struct h1_conn, peer), 0);
}

static const struct http_peer_ops peer_ops = {peer_drain, peer_close};

void h1_serve(struct http_server *s, struct conn *io)
{
        struct h1_conn *hc = calloc(1, sizeof(*hc));
        if (!hc) {
                conn_free(io);
                return;
        }
        hc->io = io;
        timer_init(&hc->timer, on_timer);
        http_peer_add(&hc->peer, s, &peer_ops);
        conn_set_handler(io, &handler, hc);
        wait_begins(hc, false);
}

/* ---- request bodies ---- */

static void send_continue(struct h1_req *q)
{
        struct conn *io = q->conn->io;
        q->may_continue = false;
        if (!q->r.begun)
                conn_write(io, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

static ssize_t body_fails(struct h1_req *q, int err)
{
        q->body_error = err;
        q->close = true;
        return err;
}

ssize_t h1_req_read(struct http_req *r, void *p, size_t n)
{
        struct h1_req *q = h1_of(r);
        struct h1_conn *hc = q->conn;
        struct conn *io = hc->io;
        int64_t max = r->server->conf.max_body_bytes;
        if (q->body_error)
                return q->body_error;
        if (max > 0 && !q->body.done) {
                if (r->content_length > max || r->bytes_in > (uint64_t)max)
                        return body_fails(q, -EMSGSIZE);
                /* One byte more than allowed tells whether there are too many. */
                uint64_t room = (uint64_t)max - r->bytes_in + 1;
                n = n < room ? n : (size_t)room;
        }
        for (;;) {
                ssize_t got = http1_body_read(&q->body, &io->in, p, n);
                if (got >= 0) {
                        r->bytes_in += (uint64_t)got;
                        resume_reading(hc);
                        if (q->body.done && hc->gone && !buf_len(&io->in))
                                cancel(q); /* he left before we had read all that he sent */
                        if (max > 0 && r->bytes_in > (uint64_t)max)
                                return body_fails(q, -EMSGSIZE);
                        return got;
                }
                if (got != -EAGAIN)
                        return body_fails(q, (int)got);
                if (is_broken(io) || io->eof)
                        return body_fails(q, io->error ? io->error : -ECONNRESET);
                if (q->may_continue)
                        send_continue(q);
                resume_reading(hc);
                int e = cond_wait(&io->readable);
                if (e)
                        return e;
        }
}

/* ---- responses ---- */

static bool status_has_no_body(int status)
{
        return status < 200 || status == 204 || status == 304;
}

/* Will this connection end with this response? Known when its head is written. */
static bool must_close(const struct h1_req *q)
{
        if (q->close || q->conn->close_after || q->r.server->stopping || q->body_error)
                return true;
        if (q->body.done)
                return false;
        return q->head.expect_continue || (q->body.kind == HTTP1_BODY_LENGTH && q->body.left > HTTP_DRAIN_BYTES);
}

static void put_status(struct buf *o, int version, int status)
{
        if (status == 200 && version == 11) {
                buf_adds(o, STR("HTTP/1.1 200 OK\r\n"));
                return;
        }
        const char *text = http_status_text(status);
        buf_printf(o, "HTTP/1.%d %03d ", version == 10 ? 0 : 1, status);
        if (*text)
                buf_addz(o, text);
        else
                buf_printf(o, "status code %d", status);
        buf_adds(o, STR("\r\n"));
}

/* The caller's fields. Returns a set of the framing kinds that it has set. */
static unsigned put_fields(struct h1_req *q, struct buf *o, const struct http_header *h, size_t n)
{
        unsigned seen = 0;
        for (size_t i = 0; i < n; i++) {
                enum http1_field kind = http1_field_kind(h[i].name);
                seen |= 1u << kind;
                if (kind == HTTP1_CONNECTION)
                        q->close |= http_value_has_token(h[i].value, "close");
                if (kind == HTTP1_CONTENT_LENGTH && !q->no_body_out)
                        continue;
                if (kind != HTTP1_CONNECTION && kind != HTTP1_TRANSFER_ENCODING)
                        http1_put_header(o, h[i].name, h[i].value);
        }
        return seen;
}

/* length: >= 0 known, -1 unknown. */
static int put_head(struct h1_req *q, int status, const struct http_header *h, size_t n, int64_t length)
{
        struct http_req *r = &q->r;
        struct buf *o = &q->conn->io->out;
        if (r->begun || (status < 200 && status != 101) || status > 999)
                return -EINVAL;
        if (is_broken(q->conn->io))
                return q->conn->io->error ? q->conn->io->error : q->conn->io->write_error;
        bool head = str_eq(r->method, STR("HEAD")), bare = status_has_no_body(status);
        q->no_body_out = head || bare;
        r->begun = true;
        r->status = status;
        buf_reserve(o, 512);
        put_status(o, r->version, status);
        unsigned seen = put_fields(q, o, h, n);
        if (!(seen & 1u << HTTP1_DATE))
                buf_adds(o, http1_date_line());
        bool sized = seen & 1u << HTTP1_CONTENT_LENGTH || (length == 0 && head);
        q->left_out = q->no_body_out ? -1 : length;
        if (!bare && length >= 0 && !(q->no_body_out && sized)) {
                buf_adds(o, STR("Content-Length: "));
                http1_put_uint(o, (uint64_t)length);
                buf_adds(o, STR("\r\n"));
        } else if (!q->no_body_out && length < 0 && r->version >= 11) {
                q->chunked = true;
                buf_adds(o, STR("Transfer-Encoding: chunked\r\n"));
        } else if (!q->no_body_out && length < 0) {
                q->close = true; /* HTTP/1.0: the end of the stream ends the body */
        }
        q->close = must_close(q) || status == 101;
        if (q->close && r->version >= 11)
                buf_adds(o, STR("Connection: close\r\n"));
        else if (!q->close && r->version == 10)
                buf_adds(o, STR("Connection: keep-alive\r\n"));
        buf_adds(o, STR("\r\n"));
        return 0;
}

static int out_done(struct h1_req *q)
{
        struct conn *io = q->conn->io;
        if (io->out.failed) {
                q->aborted = true;
                return -ENOMEM;
        }
        conn_flush_soon(io);
        return conn_out_len(io) > CONN_HIGH_WATER ? conn_throttle(io) : 0;
}

int h1_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body)
{
        struct h1_req *q = h1_of(r);
        int e = put_head(q, status, h, n, (int64_t)body.n);
        if (e)
                return e;
        r->ended = true;
        if (!q->no_body_out) {
                r->bytes_out += body.n;
                if (body.n)
                        conn_write(q->conn->io, body.p, body.n);
        }
        return out_done(q);
}

int h1_resp_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length)
{
        struct h1_req *q = h1_of(r);
        int e = put_head(q, status, h, n, length);
        return e ? e : out_done(q);
}

int h1_resp_write(struct http_req *r, struct str data)
{
        struct h1_req *q = h1_of(r);
        struct conn *io = q->conn->io;
        if (!r->begun || r->ended || q->aborted)
                return -EINVAL;
        if (q->no_body_out || !data.n)
                return is_broken(io) ? -EPIPE : 0;
        if (q->left_out >= 0) {
                if ((uint64_t)q->left_out < data.n)
                        return -EMSGSIZE;
                q->left_out -= (int64_t)data.n;
        }
        r->bytes_out += data.n;
        if (q->chunked)
                http1_put_chunk_size(&io->out, data.n);
        int e = conn_write(io, data.p, data.n);
        if (e)
                return e;
        if (q->chunked)
                buf_adds(&io->out, STR("\r\n"));
        return out_done(q);
}

int h1_resp_end(struct http_req *r, const struct http_header *trailers, size_t n)
{
        struct h1_req *q = h1_of(r);
        struct buf *o = &q->conn->io->out;
        if (!r->begun || r->ended || q->aborted)
                return -EINVAL;
        if (q->left_out > 0) {
                q->aborted = true;
                return -EMSGSIZE;
        }
        r->ended = true;
        if (is_broken(q->conn->io))
                return -EPIPE;
        if (!q->chunked)
                return 0;
        buf_adds(o, STR("0\r\n"));
        for (size_t i = 0; i < n; i++)
                if (http1_field_kind(trailers[i].name) == HTTP1_PLAIN)
                        http1_put_header(o, trailers[i].name, trailers[i].value);
        buf_adds(o, STR("\r\n"));
        return out_done(q);
}

void h1_resp_abort(struct http_req *r)
{
        h1_of(r)->aborted = true;
}
