/*
 * HTTP/1: a stream of messages, as the server and the client take them apart. The first byte says how the input is cut into
 * pieces and from which side it comes. However it is cut, the same messages must come out; everything borrowed must lie in the
 * text; and a head that is written again from what was read must read the same.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/net/http1.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool lies_in(struct str part, struct str text)
{
        return !part.n || (part.p >= text.p && part.p + part.n <= text.p + text.n);
}

static void write_head(const struct http1_head *h, struct buf *b)
{
        if (h->response) {
                buf_printf(b, "HTTP/1.%d %03d\r\n", h->version - 10, h->status);
        } else {
                buf_printf(b, "%.*s ", STR_FMT(h->method));
                buf_adds(b, h->target);
                buf_printf(b, " HTTP/1.%d\r\n", h->version - 10);
        }
        for (size_t i = 0; i < h->headers.n; i++)
                http1_put_header(b, h->headers.v[i].name, h->headers.v[i].value);
        buf_addz(b, "\r\n");
}

static void check_head(const struct http1_head *h, struct str text)
{
        struct arena a;
        struct buf b = {0};
        struct http1_head again = {.response = h->response};
        size_t scanned = 0;
        must_hold(lies_in(h->target, text) && h->headers.n <= HTTP1_MAX_HEADERS);
        must_hold(!h->chunked || h->content_length == -1);
        for (size_t i = 0; i < h->headers.n; i++) {
                struct http_header f = h->headers.v[i];
                must_hold(lies_in(f.name, text) && lies_in(f.value, text) && http1_is_token(f.name));
                must_hold(!f.value.n || (!memchr(f.value.p, '\n', f.value.n) && !memchr(f.value.p, '\r', f.value.n) &&
                                         !memchr(f.value.p, 0, f.value.n)));
        }
        write_head(h, &b);
        arena_init(&a, 0);
        must_hold(http1_head_scan(buf_str(&b), &scanned, SIZE_MAX) == (ssize_t)buf_len(&b));
        must_hold(http1_head_parse(&again, &a, buf_str(&b)) == 0);
        must_hold(again.headers.n == h->headers.n && again.content_length == h->content_length && again.chunked == h->chunked &&
                  again.keep_alive == h->keep_alive && again.version == h->version && again.status == h->status);
        for (size_t i = 0; i < h->headers.n; i++)
                must_hold(str_eq(again.headers.v[i].name, h->headers.v[i].name) && str_eq(again.headers.v[i].value, h->headers.v[i].value));
        arena_fini(&a);
        buf_fini(&b);
}

struct stream {
        struct arena arena;
        struct buf in, log; /* log: what came out, in a form that can be compared */
        bool response, dead;
        size_t scanned;
        struct http1_head head;
        struct http1_body body;
        bool in_body;
        size_t room;
};

static void take_head(struct stream *s)
{
        ssize_t n = http1_head_scan(buf_str(&s->in), &s->scanned, 4096);
        if (n == 0)
                return;
        struct str text = n > 0 ? arena_str(&s->arena, str_n(s->in.p + s->in.off, (size_t)n)) : STR_NULL;
        int r = n < 0 ? (int)n : 0;
        s->head = (struct http1_head){.response = s->response};
        if (!r)
                r = http1_head_parse(&s->head, &s->arena, text);
        if (r) {
                must_hold(r == -EBADMSG || r == -EMSGSIZE);
                must_hold(n < 0 || s->response || (s->head.refuse >= 400 && s->head.refuse < 600));
                s->dead = true;
                return;
        }
        check_head(&s->head, text);
        buf_consume(&s->in, (size_t)n);
        s->scanned = 0;
        s->in_body = true;
        buf_printf(&s->log, "[%.*s %d %d]", STR_FMT(s->head.method), s->head.status, s->head.version);
        buf_adds(&s->log, s->head.target);
        enum http1_body_kind kind = s->response ? http1_body_of_response(&s->head, STR("GET"))
                                    : s->head.chunked ? HTTP1_BODY_CHUNKED : HTTP1_BODY_LENGTH;
        http1_body_init(&s->body, kind, s->head.content_length > 0 ? (uint64_t)s->head.content_length : 0, &s->arena);
}

/* False when more input is needed, or the stream is dead. */
static bool step(struct stream *s)
{
        char piece[64];
        if (s->dead)
                return false;
        if (!s->in_body) {
                take_head(s);
                return s->in_body;
        }
        if (s->body.done) {
                for (size_t i = 0; i < s->body.trailers.n; i++)
                        http1_put_header(&s->log, s->body.trailers.v[i].name, s->body.trailers.v[i].value);
                s->in_body = false;
                return true;
        }
        ssize_t n = http1_body_read(&s->body, &s->in, piece, s->room);
        if (n == -EAGAIN)
                return false;
        if (n < 0) {
                must_hold(n == -EBADMSG);
                s->dead = true;
                return false;
        }
        must_hold((size_t)n <= s->room && (n > 0 || s->body.done));
        buf_add(&s->log, piece, (size_t)n);
        return true;
}

static void run(struct stream *s, const uint8_t *data, size_t n, size_t cut, size_t room, bool response)
{
        *s = (struct stream){.response = response, .room = room};
        arena_init(&s->arena, 0);
        for (size_t at = 0; at < n && !s->dead; at += cut) {
                buf_add(&s->in, data + at, n - at < cut ? n - at : cut);
                while (step(s))
                        ;
        }
}

static void stream_fini(struct stream *s)
{
        arena_fini(&s->arena);
        buf_fini(&s->in);
        buf_fini(&s->log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct stream whole, cut;
        if (n < 1 || n > 16384)
                return 0;
        bool response = data[0] & 1;
        run(&whole, data + 1, n - 1, n, 64, response);
        run(&cut, data + 1, n - 1, 1 + (data[0] >> 1) % 16, 1 + (data[0] >> 5), response);
        /* Where a body turns out to be bad, more or less of it may have been given out before. */
        if (!whole.dead)
                must_hold(!cut.dead && str_eq(buf_str(&whole.log), buf_str(&cut.log)));
        stream_fini(&whole);
        stream_fini(&cut);
        return 0;
}
