/*
 * HTTP/2 on nghttp2, which is known here only.
 *
 * Three steps, never mixed: feed (nghttp2 reads bytes; its callbacks store headers and body in streams and put each stream that
 * changed on the connection's event list), dispatch (the list is worked off: owners' callbacks run, fibers are woken), pump
 * (once a turn: frames go to the conn's output, body bytes straight from the stream's buffer). So owners' code never runs inside
 * nghttp2, may call anything here, and a request that came with its whole body is one event.
 *
 * A stream belongs to its owner from on_stream/h2_open to h2_release. Released with output still queued it is `detached`: it
 * goes when nghttp2 closes it. A stream outlives its connection (s->conn is NULL then).
 * Credit is returned by h2_consume only. Output is bounded: frames are made only while the conn's output is below its
 * high-water mark, so bytes wait in the streams, where h2_write() parks.
 * A connection that dies inside one of our own frames (`busy`) is freed when the outermost one unwinds.
 */
#include "sdk/net/http2.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/log.h"

enum {
        DEFAULT_STREAMS = 250,
        DEFAULT_STREAM_WINDOW = 1024 * 1024,
        DEFAULT_CONN_WINDOW = 16 * 1024 * 1024,
        DEFAULT_HEADER_LIST = 16 * 1024,
        HEADER_OVERHEAD = 32,        /* RFC 9113, 6.5.2 */
        POOL_MAX = 1024,
        KEEP_BUF_BYTES = 16 * 1024,  /* larger buffers do not stay in the pool */
        STACK_HEADERS = 48,
};
#define LINGER_S 1.0
#define DRAIN_ACK_S 1.0     /* wait for the ping that follows a shutdown notice */
#define PING_TIMEOUT_S 20.0

/* Tokens that come back with time. */
struct bucket {
        double tokens, at;
};

struct h2_conn {
        nghttp2_session *ng;
        struct conn *io;
        struct h2_conf conf;
        struct defer pump;
        struct timer tick;
        struct list streams;         /* all, attached and detached */
        struct list events;          /* changed ones */
        size_t n_streams, n_open;    /* n_open: known to nghttp2 */
        int busy;
        bool dead;                   /* torn down, memory stays while busy */
        bool going_away;             /* no new streams: GOAWAY came or was asked for */
        bool final_goaway;           /* ours has its last stream id */
        bool seen_settings, was_full, pinging;
        double last_recv, opened_at, idle_since, ping_at, drain_at;
        double last_ping_in;
        int strikes;
        int32_t last_id, skipped_from, skipped_to; /* server: ids between the last two were never used */
        struct bucket resets, controls;
};

struct stream {
        struct h2_stream s;          /* first: handed out */
        struct list link, event;
        struct buf out;
        bool queued, is_new, detached;
        bool open;                   /* known to nghttp2 */
        bool head_sent, end_sent, parked; /* parked: nghttp2 asked for body and there was none */
        bool over_limit, above_high, responded, informational;
        size_t header_bytes;
        const struct http_header *trailers;
        size_t n_trailers;
        bool has_trailers;
        struct stream *next_free;
};

static struct {
        struct stream *head;
        size_t count;
} pool;

static void conn_dies(struct h2_conn *c, int err);

static struct stream *priv(struct h2_stream *s)
{
        return (struct stream *)s;
}

/* ---- streams' memory ---- */

static struct stream *stream_new(struct h2_conn *c)
{
        struct stream *s = pool.head;
        if (s) {
                pool.head = s->next_free;
                pool.count--;
                struct arena arena = s->s.arena;
                struct buf in = s->s.in, out = s->out;
                memset(s, 0, sizeof(*s));
                s->s.arena = arena;
                s->s.in = in;
                s->out = out;
        } else if (!(s = calloc(1, sizeof(*s)))) {
                return NULL;
        }
        s->s.conn = c;
        cond_init(&s->s.changed);
        list_init(&s->event);
        list_add_tail(&c->streams, &s->link);
        c->n_streams++;
        return s;
}

static void buf_recycle(struct buf *b)
{
        if (b->cap > KEEP_BUF_BYTES)
                buf_fini(b);
        else
                buf_clear(b);
}

static void stream_free(struct stream *s)
{
        struct h2_conn *c = s->s.conn;
        list_del(&s->link);
        list_del(&s->event);
        if (c && --c->n_streams == 0) {
                c->idle_since = loop_now();
                defer_run(&c->pump); /* a draining connection ends with its last stream */
        }
        if (pool.count >= POOL_MAX) {
                arena_fini(&s->s.arena);
                buf_fini(&s->s.in);
                buf_fini(&s->out);
                free(s);
                return;
        }
        arena_reset(&s->s.arena);
        buf_recycle(&s->s.in);
        buf_recycle(&s->out);
        s->next_free = pool.head;
        pool.head = s;
        pool.count++;
}

void h2_pool_fini(void)
{
        while (pool.head) {
                struct stream *s = pool.head;
                pool.head = s->next_free;
                arena_fini(&s->s.arena);
                buf_fini(&s->s.in);
                buf_fini(&s->out);
                free(s);
        }
        pool.count = 0;
}

static void stream_changed(struct stream *s)
{
        struct h2_conn *c = s->s.conn;
        if (s->queued || !c)
                return;
        s->queued = true;
        list_add_tail(&c->events, &s->event);
        defer_run(&c->pump);
}

static void stream_fails(struct stream *s, int err)
{
        if (s->s.closed)
                return;
        s->s.closed = true;
        s->s.error = err;
        buf_clear(&s->out);
        stream_changed(s);
}

/* ---- limits ---- */

static bool bucket_take(struct bucket *b, double burst, double per_s)
{
        double now = loop_now();
        b->tokens = b->at ? b->tokens + (now - b->at) * per_s : burst;
        b->at = now ? now : 1e-9;
        if (b->tokens > burst)
                b->tokens = burst;
        if (b->tokens < 1)
                return false;
        b->tokens--;
        return true;
}

/* Ends the session by GOAWAY; the pump closes the connection once it is out. */
static int calm_down(struct h2_conn *c, const char *text)
{
        nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng),
                              NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)text, strlen(text));
        c->going_away = c->final_goaway = true;
        nghttp2_session_terminate_session(c->ng, NGHTTP2_ENHANCE_YOUR_CALM);
        return 0;
}

static int control_frame(struct h2_conn *c)
{
        if (bucket_take(&c->controls, H2_CONTROL_BURST, H2_CONTROL_PER_S))
                return 0;
        return calm_down(c, "too_many_control_frames");
}

/* grpc-go's rule: too early more than twice without anything sent in between. */
static int ping_came(struct h2_conn *c)
{
        double now = loop_now(), last = c->last_ping_in;
        if (control_frame(c) || !c->conf.min_ping_interval_s)
                return 0;
        c->last_ping_in = now;
        if (last && now - last < c->conf.min_ping_interval_s && ++c->strikes > H2_PING_STRIKES)
                return calm_down(c, "too_many_pings");
        return 0;
}

/* ---- nghttp2 callbacks: incoming ---- */

static struct stream *stream_of(struct h2_conn *c, int32_t id)
{
        return nghttp2_session_get_stream_user_data(c->ng, id);
}

/* Stream ids that the peer has skipped are used up; nghttp2 would take HEADERS on one for a late frame of a closed stream. */
static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *f, void *user)
{
        struct h2_conn *c = user;
        if (f->type == NGHTTP2_HEADERS && f->stream_id > c->skipped_from && f->stream_id < c->skipped_to)
                return nghttp2_session_terminate_session(ng, NGHTTP2_PROTOCOL_ERROR);
        return 0;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
        struct h2_conn *c = user;
        if (!c->conf.server || f->headers.cat != NGHTTP2_HCAT_REQUEST) {
                struct stream *s = stream_of(c, f->hd.stream_id);
                if (s)
                        s->header_bytes = 0;
                return 0;
        }
        if (f->hd.stream_id > c->last_id + 2) {
                c->skipped_from = c->last_id;
                c->skipped_to = f->hd.stream_id;
        }
        c->last_id = f->hd.stream_id;
        /* Handlers of streams that were reset still run: they count, whatever the peer does (rapid reset). */
        if (c->final_goaway || c->n_streams >= 2 * (size_t)c->conf.max_streams)
                return nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        struct stream *s = stream_new(c);
        if (!s)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        s->s.id = f->hd.stream_id;
        s->open = s->is_new = true;
        c->n_open++;
        nghttp2_session_set_stream_user_data(ng, s->s.id, s);
        return 0;
}

static int add_header(struct stream *s, struct http_headers *l, struct str name, struct str value)
{
        struct arena *a = &s->s.arena;
        if (l->n == l->cap) {
                size_t cap = l->cap ? l->cap * 2 : 16;
                struct http_header *v = arena_grow(a, l->v, l->cap * sizeof(*v), cap * sizeof(*v));
                if (!v)
                        return -ENOMEM;
                l->v = v;
                l->cap = cap;
        }
        l->v[l->n++] = (struct http_header){name, value};
        return 0;
}

static int add_pseudo(struct stream *s, struct str name, struct str value)
{
        struct h2_stream *h = &s->s;
        if (str_eq(name, STR(":method"))) {
                h->method = value;
        } else if (str_eq(name, STR(":scheme"))) {
                h->scheme = value;
        } else if (str_eq(name, STR(":authority"))) {
                h->authority = value;
        } else if (str_eq(name, STR(":path"))) {
                h->path = value;
        } else if (str_eq(name, STR(":status"))) {
                h->status = 0;
                for (size_t i = 0; i < value.n; i++)
                        h->status = h->status * 10 + (value.p[i] - '0');
                s->informational = h->status / 100 == 1;
        }
        return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *f, nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                     void *user)
{
        struct h2_conn *c = user;
        struct stream *s = stream_of(c, f->hd.stream_id);
        nghttp2_vec n = nghttp2_rcbuf_get_buf(name), v = nghttp2_rcbuf_get_buf(value);
        if (!s || s->detached || s->over_limit)
                return 0;
        s->header_bytes += n.len + v.len + HEADER_OVERHEAD;
        if (s->header_bytes > c->conf.max_header_list) {
                s->over_limit = true;
                return 0;
        }
        /* Both with a NUL behind, in one piece. */
        char *p = arena_alloc(&s->s.arena, n.len + v.len + 2);
        if (!p)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        memcpy(p, n.base, n.len + 1);
        memcpy(p + n.len + 1, v.base, v.len + 1);
        struct str ns = {p, n.len}, vs = {p + n.len + 1, v.len};
        if (ns.n && ns.p[0] == ':')
                return add_pseudo(s, ns, vs);
        if (add_header(s, s->s.have_headers ? &s->s.trailers : &s->s.headers, ns, vs))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = stream_of(c, id);
        if (!s || s->detached || s->s.closed || buf_add(&s->s.in, p, n)) {
                nghttp2_session_consume_connection(ng, n);
                if (s && !s->detached && !s->s.closed) {
                        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
                        stream_fails(s, -ENOMEM);
                }
                return 0;
        }
        stream_changed(s);
        return 0;
}

static const struct http_header too_large[] = {{{":status", 7}, {"431", 3}}, {{"content-length", 14}, {"0", 1}}};

static void headers_too_large(struct h2_conn *c, struct stream *s)
{
        if (s->is_new) {
                s->is_new = false;
                s->detached = true;
                h2_respond_nocopy(&s->s, too_large, 2, true);
                return;
        }
        nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->s.id, NGHTTP2_FRAME_SIZE_ERROR);
        stream_fails(s, -EMSGSIZE);
}

static void headers_came(struct h2_conn *c, struct stream *s, bool end)
{
        if (s->over_limit) {
                headers_too_large(c, s);
        } else if (s->informational) {
                s->s.headers.n = 0;
                s->s.status = 0;
                s->informational = false;
                return;
        } else {
                s->s.have_headers = true;
        }
        s->s.remote_ended |= end;
        stream_changed(s);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
        struct h2_conn *c = user;
        struct stream *s;
        bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
        switch (f->hd.type) {
        case NGHTTP2_DATA:
                if (!f->hd.length && !end)
                        return control_frame(c);
                s = end ? stream_of(c, f->hd.stream_id) : NULL;
                if (s) {
                        s->s.remote_ended = true;
                        stream_changed(s);
                }
                return 0;
        case NGHTTP2_HEADERS:
                s = stream_of(c, f->hd.stream_id);
                if (s && !s->detached)
                        headers_came(c, s, end);
                return 0;
        case NGHTTP2_RST_STREAM:
                if (!bucket_take(&c->resets, H2_RESET_BURST, H2_RESET_PER_S))
                        return calm_down(c, "too_many_resets");
                return 0;
        case NGHTTP2_PING:
                if (f->hd.flags & NGHTTP2_FLAG_ACK) {
                        c->pinging = false;
                        if (c->drain_at)
                                c->drain_at = -1;
                        return 0;
                }
                return ping_came(c);
        case NGHTTP2_SETTINGS:
                c->seen_settings = true;
                return f->hd.flags & NGHTTP2_FLAG_ACK ? 0 : control_frame(c);
        case NGHTTP2_GOAWAY:
                c->going_away = true;
                return 0;
        case NGHTTP2_WINDOW_UPDATE:
                return 0;
        default:
                return control_frame(c);
        }
}

static int error_of(const struct stream *s, uint32_t code)
{
        switch (code) {
        case NGHTTP2_NO_ERROR:
                return s->s.remote_ended && !s->s.conn->conf.server ? -EPIPE : -ECONNRESET;
        case NGHTTP2_CANCEL:
                return -ECANCELED;
        case NGHTTP2_REFUSED_STREAM:
                return -ENETRESET;
        case NGHTTP2_PROTOCOL_ERROR:
                return -EPROTO;
        default:
                return -ECONNRESET;
        }
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = stream_of(c, id);
        if (!s)
                return 0;
        s->open = false;
        c->n_open--;
        if (c->was_full)
                defer_run(&c->pump);
        if (s->detached) {
                stream_free(s);
                return 0;
        }
        if (code || !s->s.remote_ended || !s->end_sent) {
                s->s.rst_code = code;
                stream_fails(s, error_of(s, code));
        }
        stream_changed(s);
        return 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int code, void *user)
{
        return control_frame(user);
}

/* ---- nghttp2 callbacks: outgoing ---- */

/* With copies (h2_*) nghttp2 lowers and keeps the strings; without, they stay ours. Values that differ each time would only
 * push useful entries out of the peer's table. */
static void nv_fill(nghttp2_nv *nv, const struct http_header *h, size_t n, uint8_t flags)
{
        for (size_t i = 0; i < n; i++) {
                struct str k = h[i].name;
                bool varies = (k.n == 12 && !memcmp(k.p, "grpc-timeout", 12)) || (k.n == 11 && !memcmp(k.p, "traceparent", 11)) ||
                              (k.n == 14 && !memcmp(k.p, "grpc-trace-bin", 14));
                nv[i] = (nghttp2_nv){(uint8_t *)k.p, (uint8_t *)h[i].value.p, k.n, h[i].value.n,
                                     varies ? flags | NGHTTP2_NV_FLAG_NO_INDEX : flags};
        }
}

enum { NO_COPY = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };

static int submit_trailers(nghttp2_session *ng, struct stream *s)
{
        nghttp2_nv fixed[STACK_HEADERS], *nv = fixed;
        if (s->n_trailers > STACK_HEADERS && !(nv = arena_alloc(&s->s.arena, s->n_trailers * sizeof(*nv))))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        nv_fill(nv, s->trailers, s->n_trailers, NO_COPY);
        return nghttp2_submit_trailer(ng, s->s.id, nv, s->n_trailers);
}

static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t n, uint32_t *flags, nghttp2_data_source *src,
                         void *user)
{
        struct stream *s = src->ptr;
        size_t have = buf_len(&s->out);
        if (!have && !s->s.local_ended) {
                s->parked = true;
                return NGHTTP2_ERR_DEFERRED;
        }
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (have > n)
                return (ssize_t)n;
        if (s->s.local_ended) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
                if (s->has_trailers) {
                        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
                        if (submit_trailers(ng, s))
                                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
                }
        }
        return (ssize_t)have;
}

static int send_body(nghttp2_session *ng, nghttp2_frame *f, const uint8_t *head, size_t n, nghttp2_data_source *src, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = src->ptr;
        struct buf *out = &c->io->out;
        if (s->s.closed)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* reset since the frame was made */
        if (buf_len(out) > CONN_HIGH_WATER)
                return NGHTTP2_ERR_WOULDBLOCK;
        /* A frame between the body and its trailers that carries nothing and ends nothing need not exist. */
        if (!n && !(f->hd.flags & NGHTTP2_FLAG_END_STREAM))
                return 0;
        if (buf_reserve(out, 9 + n))
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        buf_add(out, head, 9);
        buf_add(out, s->out.p + s->out.off, n);
        buf_consume(&s->out, n);
        if (s->above_high && buf_len(&s->out) < H2_STREAM_LOW_WATER) {
                s->above_high = false;
                stream_changed(s);
        }
        return 0;
}

static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
        struct h2_conn *c = user;
        /* The ping that tells when the peer has read our notice; nghttp2 would send it before the notice. */
        if (f->hd.type == NGHTTP2_GOAWAY && c->drain_at && !c->final_goaway)
                return nghttp2_submit_ping(ng, NGHTTP2_FLAG_NONE, (const uint8_t *)"draining");
        if (f->hd.type != NGHTTP2_DATA && f->hd.type != NGHTTP2_HEADERS)
                return 0;
        c->strikes = 0;
        struct stream *s = stream_of(c, f->hd.stream_id);
        if (!s)
                return 0;
        s->head_sent = true;
        if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
                s->end_sent = true;
                if (s->detached && !s->s.remote_ended)
                        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->s.id, NGHTTP2_NO_ERROR);
        }
        return 0;
}

/* Mostly because a header block is too large; a request's stream is then closed by nghttp2, a response's must be by us. */
static int on_frame_not_sent(nghttp2_session *ng, const nghttp2_frame *f, int err, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = f->hd.type == NGHTTP2_HEADERS ? stream_of(c, f->hd.stream_id) : NULL;
        if (!s || s->s.closed || !s->open)
                return 0;
        if (f->headers.cat != NGHTTP2_HCAT_REQUEST)
                nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
        if (err == NGHTTP2_ERR_FRAME_SIZE_ERROR)
                stream_fails(s, -E2BIG);
        return 0;
}

static nghttp2_session_callbacks *make_callbacks(void)
{
        nghttp2_session_callbacks *cb;
        if (nghttp2_session_callbacks_new(&cb))
                return NULL;
        nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_session_callbacks_set_send_data_callback(cb, send_body);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_sent);
        return cb;
}

/* ---- the connection's life ---- */

static void conn_release(struct h2_conn *c)
{
        if (c->dead && !c->busy)
                free(c);
}

/* Streams fail, the owner is told, everything but the memory goes. */
static void conn_dies(struct h2_conn *c, int err)
{
        if (c->dead)
                return;
        c->dead = c->going_away = true;
        c->busy++;
        if (err == -EPIPE)
                err = -ECONNRESET; /* to a stream it would mean that the peer wants no more body */
        defer_cancel(&c->pump);
        timer_stop(&c->tick);
        while (!list_is_empty(&c->streams)) {
                struct stream *s = list_entry(c->streams.next, struct stream, link);
                bool fresh = s->is_new;
                if (!s->s.closed && !(s->s.remote_ended && s->end_sent)) {
                        s->s.closed = true;
                        s->s.error = !s->head_sent && !c->conf.server ? -ENETRESET : err ? err : -ECONNRESET;
                }
                s->open = false;
                list_del(&s->link);
                list_del(&s->event);
                s->s.conn = NULL;
                c->n_streams--;
                if (s->detached || fresh) {
                        stream_free(s);
                        continue;
                }
                cond_broadcast(&s->s.changed);
                if (c->conf.on_event)
                        c->conf.on_event(&s->s);
        }
        nghttp2_session_del(c->ng);
        c->ng = NULL;
        if (err)
                conn_free(c->io);
        else
                conn_close(c->io, LINGER_S);
        c->io = NULL;
        if (c->conf.on_close)
                c->conf.on_close(c, err);
        c->busy--;
}

static void dispatch(struct h2_conn *c)
{
        while (!c->dead && !list_is_empty(&c->events)) {
                struct stream *s = list_entry(c->events.next, struct stream, event);
                list_del(&s->event);
                s->queued = false;
                if (s->detached)
                        continue;
                if (s->is_new) {
                        if (s->s.closed) {
                                s->is_new = false;
                                h2_release(&s->s);
                        } else if (s->s.have_headers) {
                                s->is_new = false;
                                c->conf.on_stream(c, &s->s);
                        }
                        continue;
                }
                cond_broadcast(&s->s.changed);
                if (c->conf.on_event)
                        c->conf.on_event(&s->s);
        }
        if (!c->dead && c->was_full && h2_conn_has_room(c)) {
                c->was_full = false;
                if (c->conf.on_room)
                        c->conf.on_room(c);
        }
}

static void feed(struct h2_conn *c)
{
        struct buf *in = &c->io->in;
        if (!buf_len(in))
                return;
        bool was_usable = !c->going_away;
        c->last_recv = loop_now();
        ssize_t n = nghttp2_session_mem_recv(c->ng, (const uint8_t *)in->p + in->off, buf_len(in));
        if (n < 0) {
                /* What is queued, such as an earlier GOAWAY, is not sent: the peer does not speak HTTP/2, or floods. */
                conn_dies(c, n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO);
                return;
        }
        buf_consume(in, (size_t)n);
        if (was_usable && c->going_away && c->conf.on_room)
                c->conf.on_room(c);
}

static void tick_start(struct h2_conn *c);

static void send_frames(struct h2_conn *c)
{
        struct buf *out = &c->io->out;
        bool any = false;
        while (buf_len(out) <= CONN_HIGH_WATER) {
                const uint8_t *p;
                size_t had = buf_len(out);
                ssize_t n = nghttp2_session_mem_send(c->ng, &p);
                any |= buf_len(out) != had;
                if (n < 0 || (n && buf_add(out, p, (size_t)n))) {
                        conn_dies(c, -ENOMEM);
                        return;
                }
                if (!n)
                        break;
                any = true;
        }
        if (any)
                conn_flush_soon(c->io);
}

/* A draining connection: first the notice and a ping, when that is answered the last stream id, then the end. */
static void drain_step(struct h2_conn *c)
{
        if (c->conf.server && !c->final_goaway && c->drain_at && (c->drain_at < 0 || loop_now() >= c->drain_at)) {
                c->final_goaway = true;
                nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng),
                                      NGHTTP2_NO_ERROR, NULL, 0);
                send_frames(c);
        }
}

static void pump(struct h2_conn *c)
{
        c->busy++;
        dispatch(c);
        if (!c->dead)
                send_frames(c);
        if (!c->dead)
                dispatch(c);
        if (!c->dead && c->going_away)
                drain_step(c);
        if (!c->dead && !nghttp2_session_want_write(c->ng) &&
            (!nghttp2_session_want_read(c->ng) || (c->going_away && (c->final_goaway || !c->conf.server) && !c->n_streams)))
                conn_dies(c, 0);
        c->busy--;
        conn_release(c);
}

static void pump_cb(struct defer *d)
{
        pump(container_of(d, struct h2_conn, pump));
}

static void io_read(struct conn *io)
{
        struct h2_conn *c = io->owner;
        c->busy++;
        feed(c);
        if (!c->dead) {
                dispatch(c);
                defer_run(&c->pump);
        }
        if (c->dead)
                defer_cancel(&c->pump);
        c->busy--;
        conn_release(c);
}

static void io_drain(struct conn *io)
{
        struct h2_conn *c = io->owner;
        defer_run(&c->pump);
}

static void io_close(struct conn *io, int err)
{
        struct h2_conn *c = io->owner;
        c->busy++;
        dispatch(c);
        conn_dies(c, err ? err : c->n_streams ? -ECONNRESET : 0);
        c->busy--;
        conn_release(c);
}

static const struct conn_handler io_handler = {io_read, io_drain, io_close};

/* ---- time: one timer a connection, set to the earliest thing that may happen ---- */

static bool pings_now(const struct h2_conn *c)
{
        return c->conf.ping_interval_s > 0 && (c->conf.server || c->n_streams || c->conf.ping_without_streams);
}

static double next_tick(const struct h2_conn *c)
{
        double at = 1e300, t;
        if (!c->seen_settings && (t = c->opened_at + H2_PREFACE_TIMEOUT_S) < at)
                at = t;
        if (c->conf.ping_interval_s > 0) {
                t = c->pinging ? c->ping_at + c->conf.ping_timeout_s : c->last_recv + c->conf.ping_interval_s;
                if (!c->pinging && !pings_now(c) && t < loop_now())
                        t = loop_now() + c->conf.ping_interval_s;
                at = t < at ? t : at;
        }
        if (c->conf.idle_timeout_s > 0 && !c->going_away) {
                t = (c->n_streams ? loop_now() : c->idle_since) + c->conf.idle_timeout_s;
                at = t < at ? t : at;
        }
        if (c->drain_at > 0 && !c->final_goaway && c->drain_at < at)
                at = c->drain_at;
        return at;
}

static void tick_start(struct h2_conn *c)
{
        double at = next_tick(c);
        if (at < 1e300)
                timer_start(&c->tick, at > loop_now() ? at - loop_now() : 0.001, 0);
}

static int tick(struct h2_conn *c)
{
        double now = loop_now();
        if (!c->seen_settings && now >= c->opened_at + H2_PREFACE_TIMEOUT_S)
                return -ETIMEDOUT;
        if (c->pinging && c->last_recv > c->ping_at)
                c->pinging = false;
        if (c->pinging && now >= c->ping_at + c->conf.ping_timeout_s)
                return -ETIMEDOUT;
        if (!c->pinging && pings_now(c) && now >= c->last_recv + c->conf.ping_interval_s) {
                c->pinging = true;
                c->ping_at = now;
                nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, NULL);
        }
        if (c->conf.idle_timeout_s > 0 && !c->n_streams && now >= c->idle_since + c->conf.idle_timeout_s)
                h2_conn_goaway(c);
        defer_run(&c->pump);
        return 0;
}

static void tick_cb(struct timer *t)
{
        struct h2_conn *c = container_of(t, struct h2_conn, tick);
        int err = tick(c);
        if (err) {
                h2_conn_close(c, err);
                return;
        }
        tick_start(c);
}

/* ---- new connections ---- */

static void conf_defaults(struct h2_conf *f)
{
        f->max_streams = f->max_streams ? f->max_streams : DEFAULT_STREAMS;
        f->stream_window = f->stream_window ? f->stream_window : DEFAULT_STREAM_WINDOW;
        f->conn_window = f->conn_window ? f->conn_window : DEFAULT_CONN_WINDOW;
        f->max_header_list = f->max_header_list ? f->max_header_list : DEFAULT_HEADER_LIST;
        f->ping_timeout_s = f->ping_timeout_s > 0 ? f->ping_timeout_s : PING_TIMEOUT_S;
}

static int session_new(struct h2_conn *c)
{
        nghttp2_option *o;
        nghttp2_session_callbacks *cb = make_callbacks();
        if (!cb)
                return -ENOMEM;
        int r = nghttp2_option_new(&o);
        if (!r) {
                nghttp2_option_set_no_auto_window_update(o, 1);
                nghttp2_option_set_max_outbound_ack(o, H2_MAX_ACKS);
                nghttp2_option_set_max_send_header_block_length(o, H2_MAX_SEND_HEADERS);
                nghttp2_option_set_max_continuations(o, H2_MAX_CONTINUATIONS);
                nghttp2_option_set_stream_reset_rate_limit(o, H2_RESET_BURST, H2_RESET_PER_S);
                r = c->conf.server ? nghttp2_session_server_new2(&c->ng, cb, c, o) : nghttp2_session_client_new2(&c->ng, cb, c, o);
                nghttp2_option_del(o);
        }
        nghttp2_session_callbacks_del(cb);
        return r ? -ENOMEM : 0;
}

static int send_settings(struct h2_conn *c)
{
        const nghttp2_settings_entry server[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->conf.max_streams},
                                                 {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->conf.stream_window},
                                                 {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, c->conf.max_header_list}};
        const nghttp2_settings_entry client[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                                 {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->conf.stream_window},
                                                 {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, c->conf.max_header_list}};
        if (nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, c->conf.server ? server : client, 3))
                return -ENOMEM;
        if (nghttp2_session_set_local_window_size(c->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)c->conf.conn_window))
                return -ENOMEM;
        return 0;
}

static struct h2_conn *conn_make(struct conn *io, const struct h2_conf *conf)
{
        struct h2_conn *c = calloc(1, sizeof(*c));
        if (!c) {
                conn_free(io);
                return NULL;
        }
        c->io = io;
        c->conf = *conf;
        conf_defaults(&c->conf);
        list_init(&c->streams);
        list_init(&c->events);
        c->pump.cb = pump_cb;
        timer_init(&c->tick, tick_cb);
        c->opened_at = c->last_recv = c->idle_since = loop_now();
        if (session_new(c)) {
                conn_free(io);
                free(c);
                return NULL;
        }
        return c;
}

static struct h2_conn *conn_begin(struct h2_conn *c)
{
        if (send_settings(c)) {
                nghttp2_session_del(c->ng);
                conn_free(c->io);
                free(c);
                return NULL;
        }
        conn_set_handler(c->io, &io_handler, c);
        tick_start(c);
        defer_run(&c->pump);
        return c;
}

struct h2_conn *h2_conn_new(struct conn *io, const struct h2_conf *conf)
{
        struct h2_conn *c = conn_make(io, conf);
        return c ? conn_begin(c) : NULL;
}

static int upgrade_stream(struct h2_conn *c, struct str settings, struct str method, struct str target,
                          const struct http_headers *h)
{
        if (nghttp2_session_upgrade2(c->ng, (const uint8_t *)settings.p, settings.n, str_eq(method, STR("HEAD")), NULL))
                return -EPROTO;
        struct stream *s = stream_new(c);
        if (!s)
                return -ENOMEM;
        s->s.id = c->last_id = 1;
        s->open = s->is_new = s->s.have_headers = s->s.remote_ended = true;
        c->n_open++;
        nghttp2_session_set_stream_user_data(c->ng, 1, s);
        struct arena *a = &s->s.arena;
        s->s.method = arena_str(a, method);
        s->s.scheme = STR("http");
        s->s.path = arena_str(a, target);
        for (size_t i = 0; i < h->n; i++) {
                struct str name = arena_str(a, h->v[i].name), value = arena_str(a, h->v[i].value);
                for (size_t k = 0; k < name.n; k++) {
                        char *ch = (char *)name.p + k;
                        *ch = *ch >= 'A' && *ch <= 'Z' ? (char)(*ch + 32) : *ch;
                }
                if (str_eq(name, STR("host")))
                        s->s.authority = value;
                else if (!str_eq(name, STR("connection")) && !str_eq(name, STR("upgrade")) && !str_eq(name, STR("http2-settings")))
                        add_header(s, &s->s.headers, name, value);
        }
        stream_changed(s);
        return s->s.arena.exhausted ? -ENOMEM : 0;
}

struct h2_conn *h2_conn_new_upgrade(struct conn *io, const struct h2_conf *conf, struct str settings, struct str method,
                                    struct str target, const struct http_headers *h)
{
        struct h2_conn *c = conn_make(io, conf);
        if (!c)
                return NULL;
        if (upgrade_stream(c, settings, method, target, h)) {
                c->conf.on_close = NULL;
                conn_dies(c, -EPROTO);
                free(c);
                return NULL;
        }
        return conn_begin(c);
}

void *h2_conn_owner(struct h2_conn *c)
{
        return c->conf.owner;
}

struct conn *h2_conn_io(struct h2_conn *c)
{
        return c->io;
}

size_t h2_conn_streams(const struct h2_conn *c)
{
        return c->n_streams;
}

bool h2_conn_is_usable(const struct h2_conn *c)
{
        return !c->dead && !c->going_away && nghttp2_session_check_request_allowed(c->ng);
}

bool h2_conn_has_room(const struct h2_conn *c)
{
        return !c->dead && c->n_open < nghttp2_session_get_remote_settings(c->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

void h2_conn_goaway(struct h2_conn *c)
{
        if (c->dead || c->final_goaway || c->drain_at)
                return;
        c->going_away = true;
        if (c->conf.server) {
                nghttp2_submit_shutdown_notice(c->ng);
                c->drain_at = loop_now() + DRAIN_ACK_S;
                tick_start(c);
        } else {
                c->final_goaway = true;
                nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
        }
        defer_run(&c->pump);
}

void h2_conn_goaway_code(struct h2_conn *c, uint32_t code, const char *text)
{
        if (c->dead || c->final_goaway)
                return;
        c->going_away = c->final_goaway = true;
        nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng), code,
                              (const uint8_t *)text, strlen(text));
        defer_run(&c->pump);
}

void h2_conn_close(struct h2_conn *c, int err)
{
        if (c->dead)
                return;
        conn_dies(c, err);
        conn_release(c);
}

/* ---- streams ---- */

void *h2_stream_owner(struct h2_stream *s)
{
        return s->conn ? s->conn->conf.owner : NULL;
}

static struct h2_stream *open_nv(struct h2_conn *c, struct stream *s, const nghttp2_nv *nv, size_t n, bool end_stream, int *ret_err)
{
        nghttp2_data_provider body = {{.ptr = s}, read_body};
        s->s.local_ended = end_stream;
        int32_t id = nghttp2_submit_request(c->ng, NULL, nv, n, end_stream ? NULL : &body, s);
        if (id < 0) {
                stream_free(s);
                *ret_err = id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -ENETRESET;
                return NULL;
        }
        s->s.id = id;
        s->open = true;
        c->n_open++;
        c->was_full |= !h2_conn_has_room(c);
        defer_run(&c->pump);
        return &s->s;
}

static struct stream *open_begin(struct h2_conn *c, size_t n, nghttp2_nv *fixed, nghttp2_nv **nv, int *ret_err)
{
        if (!h2_conn_is_usable(c)) {
                *ret_err = -ENETRESET;
                return NULL;
        }
        struct stream *s = stream_new(c);
        if (s && n > STACK_HEADERS && !(fixed = arena_alloc(&s->s.arena, n * sizeof(*fixed)))) {
                stream_free(s);
                s = NULL;
        }
        *nv = fixed;
        if (!s)
                *ret_err = -ENOMEM;
        return s;
}

struct h2_stream *h2_open(struct h2_conn *c, struct str method, struct str scheme, struct str authority, struct str path,
                          const struct http_header *h, size_t n, bool end_stream, int *ret_err)
{
        const struct http_header pseudo[] = {
                {STR(":method"), method}, {STR(":scheme"), scheme}, {STR(":path"), path}, {STR(":authority"), authority}};
        nghttp2_nv fixed[STACK_HEADERS], *nv;
        struct stream *s = open_begin(c, n + 4, fixed, &nv, ret_err);
        if (!s)
                return NULL;
        size_t np = authority.n ? 4 : 3;
        nv_fill(nv, pseudo, np, NGHTTP2_NV_FLAG_NO_COPY_NAME);
        nv_fill(nv + np, h, n, 0);
        return open_nv(c, s, nv, np + n, end_stream, ret_err);
}

struct h2_stream *h2_open_nocopy(struct h2_conn *c, const struct http_header *h, size_t n, bool end_stream, int *ret_err)
{
        nghttp2_nv fixed[STACK_HEADERS], *nv;
        struct stream *s = open_begin(c, n, fixed, &nv, ret_err);
        if (!s)
                return NULL;
        nv_fill(nv, h, n, NO_COPY);
        return open_nv(c, s, nv, n, end_stream, ret_err);
}

static int send_error(const struct stream *s)
{
        if (s->s.closed || !s->s.conn)
                return s->s.error ? s->s.error : -EPIPE;
        return s->s.local_ended ? -EPIPE : 0;
}

static int respond_nv(struct stream *s, const nghttp2_nv *nv, size_t n, bool end_stream)
{
        nghttp2_data_provider body = {{.ptr = s}, read_body};
        if (nghttp2_submit_response(s->s.conn->ng, s->s.id, nv, n, end_stream ? NULL : &body))
                return -ENOMEM;
        s->responded = true;
        s->s.local_ended = end_stream;
        defer_run(&s->s.conn->pump);
        return 0;
}

/* Before the response: an informational one, which may be sent again. */
static int respond(struct stream *s, const struct http_header *status, const struct http_header *h, size_t n, bool end_stream,
                   uint8_t flags)
{
        nghttp2_nv fixed[STACK_HEADERS], *nv = fixed;
        int r = send_error(s);
        if (r)
                return r;
        if (s->responded)
                return -EINVAL;
        if (n + 1 > STACK_HEADERS && !(nv = arena_alloc(&s->s.arena, (n + 1) * sizeof(*nv))))
                return -ENOMEM;
        if (status)
                nv_fill(nv, status, 1, NGHTTP2_NV_FLAG_NO_COPY_NAME);
        nv_fill(nv + (status != NULL), h, n, flags);
        n += status != NULL;
        if (status && status->value.p[0] == '1') {
                r = nghttp2_submit_headers(s->s.conn->ng, NGHTTP2_FLAG_NONE, s->s.id, NULL, nv, n, NULL);
                defer_run(&s->s.conn->pump);
                return r < 0 ? -ENOMEM : 0;
        }
        return respond_nv(s, nv, n, end_stream);
}

int h2_respond(struct h2_stream *hs, int status, const struct http_header *h, size_t n, bool end_stream)
{
        char text[4] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10), (char)('0' + status % 10), 0};
        const struct http_header st = {STR(":status"), {text, 3}};
        return respond(priv(hs), &st, h, n, end_stream, 0);
}

int h2_respond_nocopy(struct h2_stream *hs, const struct http_header *h, size_t n, bool end_stream)
{
        return respond(priv(hs), NULL, h, n, end_stream, NO_COPY);
}

static void resume(struct stream *s)
{
        if (s->parked) {
                s->parked = false;
                nghttp2_session_resume_data(s->s.conn->ng, s->s.id);
        }
        defer_run(&s->s.conn->pump);
}

int h2_send(struct h2_stream *hs, const void *p, size_t n, bool end_stream)
{
        struct stream *s = priv(hs);
        int r = send_error(s);
        if (r)
                return r;
        if (n && buf_add(&s->out, p, n))
                return -ENOMEM;
        s->s.local_ended = end_stream;
        s->above_high |= buf_len(&s->out) >= H2_STREAM_HIGH_WATER;
        resume(s);
        return 0;
}

size_t h2_unsent(const struct h2_stream *hs)
{
        return buf_len(&((const struct stream *)hs)->out);
}

int h2_send_trailers_nocopy(struct h2_stream *hs, const struct http_header *h, size_t n)
{
        struct stream *s = priv(hs);
        int r = send_error(s);
        if (r)
                return r;
        s->trailers = h;
        s->n_trailers = n;
        s->has_trailers = n > 0;
        s->s.local_ended = true;
        resume(s);
        return 0;
}

int h2_send_trailers(struct h2_stream *hs, const struct http_header *h, size_t n)
{
        struct arena *a = &hs->arena;
        struct http_header *copy = arena_alloc(a, n * sizeof(*copy));
        if (!copy)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                copy[i] = (struct http_header){arena_str(a, h[i].name), arena_str(a, h[i].value)};
                if (!copy[i].name.p || !copy[i].value.p)
                        return -ENOMEM;
        }
        return h2_send_trailers_nocopy(hs, copy, n);
}

int h2_write(struct h2_stream *hs, const void *p, size_t n)
{
        struct stream *s = priv(hs);
        while (buf_len(&s->out) >= H2_STREAM_HIGH_WATER) {
                int r = send_error(s);
                if (!r)
                        r = cond_wait(&hs->changed);
                if (r)
                        return r;
        }
        return h2_send(hs, p, n, false);
}

void h2_consume(struct h2_stream *hs, size_t n)
{
        buf_consume(&hs->in, n);
        if (!hs->conn || hs->conn->dead)
                return;
        /* A stream that nghttp2 has closed gives back to the connection only. */
        nghttp2_session_consume(hs->conn->ng, hs->id, n);
        if (nghttp2_session_want_write(hs->conn->ng))
                defer_run(&hs->conn->pump);
}

ssize_t h2_read(struct h2_stream *hs, void *p, size_t n)
{
        while (!buf_len(&hs->in)) {
                if (hs->remote_ended)
                        return 0;
                if (hs->closed)
                        return hs->error ? hs->error : -ECONNRESET;
                int r = cond_wait(&hs->changed);
                if (r)
                        return r;
        }
        n = n < buf_len(&hs->in) ? n : buf_len(&hs->in);
        memcpy(p, hs->in.p + hs->in.off, n);
        h2_consume(hs, n);
        return (ssize_t)n;
}

int h2_wait_headers(struct h2_stream *hs)
{
        while (!hs->have_headers) {
                if (hs->closed)
                        return hs->error ? hs->error : -ECONNRESET;
                int r = cond_wait(&hs->changed);
                if (r)
                        return r;
        }
        return 0;
}

static void reset(struct stream *s, uint32_t code)
{
        if (s->open && s->s.conn) {
                nghttp2_submit_rst_stream(s->s.conn->ng, NGHTTP2_FLAG_NONE, s->s.id, code);
                defer_run(&s->s.conn->pump);
        }
}

void h2_reset(struct h2_stream *hs, uint32_t code)
{
        struct stream *s = priv(hs);
        if (hs->closed)
                return;
        reset(s, code);
        hs->closed = true;
        hs->error = code == NGHTTP2_CANCEL ? -ECANCELED : -ECONNRESET;
        buf_clear(&s->out);
        cond_broadcast(&hs->changed);
}

void h2_release(struct h2_stream *hs)
{
        struct stream *s = priv(hs);
        struct h2_conn *c = hs->conn;
        if (buf_len(&hs->in))
                h2_consume(hs, buf_len(&hs->in));
        if (!c || !s->open) {
                stream_free(s);
                return;
        }
        /* A frame of it may be half made: nghttp2 says when it is gone. */
        s->detached = true;
        bool flush = c->conf.server && hs->local_ended && !hs->closed;
        if (!flush)
                h2_reset(hs, NGHTTP2_CANCEL);
        else if (s->end_sent && !hs->remote_ended)
                reset(s, NGHTTP2_NO_ERROR);
}
