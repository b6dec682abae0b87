/*
 * Streams: their memory, and what owners do with them (http2.h).
 *
 * A stream belongs to its owner from on_stream/h2_open to h2_release. Released with output still queued it is `detached`: it
 * goes when nghttp2 closes it. It outlives its connection (s->conn is NULL then). Freed ones are pooled with their arena and
 * buffers, so that a call allocates nothing once the process is warm.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/net/http2_impl.h"

enum {
        POOL_MAX = 256,                    /* streams, each with an arena of up to 16 KiB: 4 MiB at most */
        SMALL_BUF_BYTES = 16 * 1024,       /* buffers up to this stay in the pool ... */
        LARGE_BUF_BYTES = 256 * 1024,      /* some up to this too ... */
};

static void pool_drop(struct spare *s);
static struct {
        struct spare spare;
        struct stream *head;
        size_t small_bytes, large_bytes; /* in its buffers */
} pool = {.spare = {.keep = H2_POOL_KEEP, .drop = pool_drop}};

/* ---- memory ---- */

/* Where the bytes of such a buffer are counted. */
static size_t *counter(const struct buf *b)
{
        return b->cap > SMALL_BUF_BYTES ? &pool.large_bytes : &pool.small_bytes;
}

static struct stream *pool_pop(void)
{
        struct stream *s = pool.head;
        pool.head = s->next_free;
        *counter(&s->s.in) -= s->s.in.cap;
        *counter(&s->out) -= s->out.cap;
        return s;
}

static void stream_fini(struct stream *s)
{
        arena_fini(&s->s.arena);
        buf_fini(&s->s.in);
        buf_fini(&s->out);
        free(s);
}

static void pool_drop(struct spare *spare)
{
        stream_fini(pool_pop());
}

struct stream *h2_stream_new(struct h2_conn *c)
{
        struct stream *s;
        if (pool.head) {
                s = pool_pop();
                spare_taken(&pool.spare);
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
        list_init(&s->linger);
        list_add_tail(&c->streams, &s->link);
        c->n_streams++;
        return s;
}

static void buf_recycle(struct buf *b)
{
        size_t *bytes = counter(b), total = bytes == &pool.small_bytes ? H2_POOL_SMALL_BYTES : H2_POOL_LARGE_BYTES;
        if (b->cap > LARGE_BUF_BYTES || *bytes + b->cap > total)
                buf_fini(b);
        else
                buf_clear(b);
        *bytes += b->cap;
}

void h2_stream_free(struct stream *s)
{
        struct h2_conn *c = s->s.conn;
        list_del(&s->link);
        list_del(&s->event);
        list_del(&s->linger);
        if (c && --c->n_streams == 0) {
                c->idle_since = loop_now();
                defer_run(&c->pump); /* a draining connection ends with its last stream */
        }
        if (pool.spare.count >= POOL_MAX) {
                stream_fini(s);
                return;
        }
        arena_reset(&s->s.arena);
        buf_recycle(&s->s.in);
        buf_recycle(&s->out);
        s->next_free = pool.head;
        pool.head = s;
        spare_put(&pool.spare);
}

size_t h2_pool_bytes(void)
{
        return pool.small_bytes + pool.large_bytes;
}

size_t h2_pool_count(void)
{
        return pool.spare.count;
}

void h2_pool_fini(void)
{
        spare_drop(&pool.spare);
}

void h2_stream_changed(struct stream *s)
{
        struct h2_conn *c = s->s.conn;
        if (s->queued || !c)
                return;
        s->queued = true;
        list_add_tail(&c->events, &s->event);
        defer_run(&c->pump);
}

void h2_stream_fails(struct stream *s, int err)
{
        if (s->s.closed)
                return;
        s->s.closed = true;
        s->s.error = err;
        buf_clear(&s->out);
        h2_stream_changed(s);
}

void h2_stream_lingers(struct stream *s)
{
        struct h2_conn *c = s->s.conn;
        if (s->linger_until)
                return;
        s->linger_until = loop_now() + H2_LINGER_MS / 1000.0;
        list_add_tail(&c->lingering, &s->linger);
        h2_conn_tick_at(c, s->linger_until);
}

int h2_stream_add_header(struct stream *s, struct http_headers *l, struct str name, struct str value)
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

/* ---- owners' side ---- */

void *h2_stream_owner(struct h2_stream *s)
{
        return s->conn ? s->conn->conf.owner : NULL;
}

static struct h2_stream *open_stream(struct h2_conn *c, const struct h2_head *head, bool end_stream, int *ret_err)
{
        struct stream *s;
        *ret_err = -ENETRESET;
        if (!h2_conn_is_usable(c))
                return NULL;
        *ret_err = -ENOMEM;
        if (!(s = h2_stream_new(c)))
                return NULL;
        *ret_err = h2_session_request(s, head, end_stream);
        if (*ret_err) {
                h2_stream_free(s);
                return NULL;
        }
        c->was_full |= !h2_conn_has_room(c);
        return &s->s;
}

struct h2_stream *h2_open(struct h2_conn *c, struct str method, struct str scheme, struct str authority, struct str path,
                          const struct http_header *h, size_t n, bool end_stream, int *ret_err)
{
        const struct http_header pseudo[] = {
                {STR(":method"), method}, {STR(":scheme"), scheme}, {STR(":path"), path}, {STR(":authority"), authority}};
        const struct h2_head head = {pseudo, h, authority.n ? 4 : 3, n, false};
        return open_stream(c, &head, end_stream, ret_err);
}

struct h2_stream *h2_open_nocopy(struct h2_conn *c, const struct http_header *h, size_t n, bool end_stream, int *ret_err)
{
        return open_stream(c, &(struct h2_head){.h = h, .n = n, .keep = true}, end_stream, ret_err);
}

static int send_error(const struct stream *s)
{
        if (s->s.closed || !s->s.conn)
                return s->s.error ? s->s.error : -EPIPE;
        return s->s.local_ended ? -EPIPE : 0;
}

static int may_respond(const struct stream *s)
{
        int r = send_error(s);
        return r ? r : s->responded ? -EINVAL : 0;
}

int h2_respond(struct h2_stream *hs, int status, const struct http_header *h, size_t n, bool end_stream)
{
        struct stream *s = h2_priv(hs);
        const char text[3] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
        const struct http_header first = {STR(":status"), {text, 3}};
        const struct h2_head head = {&first, h, 1, n, false};
        int r = may_respond(s);
        if (r)
                return r;
        return status / 100 == 1 ? h2_session_inform(s, &head) : h2_session_respond(s, &head, end_stream);
}

int h2_respond_nocopy(struct h2_stream *hs, const struct http_header *h, size_t n, bool end_stream)
{
        int r = may_respond(h2_priv(hs));
        return r ? r : h2_session_respond(h2_priv(hs), &(struct h2_head){.h = h, .n = n, .keep = true}, end_stream);
}

int h2_send(struct h2_stream *hs, const void *p, size_t n, bool end_stream)
{
        struct stream *s = h2_priv(hs);
        int r = send_error(s);
        if (r)
                return r;
        if (n && buf_add(&s->out, p, n))
                return -ENOMEM;
        s->s.local_ended = end_stream;
        s->above_high |= buf_len(&s->out) >= H2_STREAM_HIGH_WATER;
        h2_session_resume(s);
        return 0;
}

size_t h2_unsent(const struct h2_stream *hs)
{
        return buf_len(&((const struct stream *)hs)->out);
}

int h2_send_trailers_nocopy(struct h2_stream *hs, const struct http_header *h, size_t n)
{
        struct stream *s = h2_priv(hs);
        int r = send_error(s);
        if (r)
                return r;
        s->trailers = h;
        s->n_trailers = n;
        s->has_trailers = n > 0;
        s->s.local_ended = true;
        h2_session_resume(s);
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
        struct stream *s = h2_priv(hs);
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
        h2_session_consume(h2_priv(hs), n);
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

void h2_reset(struct h2_stream *hs, uint32_t code)
{
        struct stream *s = h2_priv(hs);
        if (hs->closed)
                return;
        h2_session_reset(s, code);
        hs->closed = true;
        hs->error = code == H2_CANCEL ? -ECANCELED : -ECONNRESET;
        buf_clear(&s->out);
        cond_broadcast(&hs->changed);
}

void h2_release(struct h2_stream *hs)
{
        struct stream *s = h2_priv(hs);
        struct h2_conn *c = hs->conn;
        if (buf_len(&hs->in))
                h2_consume(hs, buf_len(&hs->in));
        if (!c || !s->open) {
                h2_stream_free(s);
                return;
        }
        /* A frame of it may be half made: nghttp2 says when it is gone. */
        s->detached = true;
        bool flush = c->conf.server && hs->local_ended && !hs->closed;
        if (!flush)
                h2_reset(hs, H2_CANCEL);
        else if (s->end_sent && !hs->remote_ended)
                h2_stream_lingers(s);
}
