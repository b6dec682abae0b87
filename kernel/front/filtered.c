/*
 * Between the door and the routes. While a handler runs, a tap stands in its request: what it reads has passed the filters, what it
 * writes passes them on its way out. A filter that waits for the response's body holds the head back until it has decided.
 */
#include "kernel/front/filtered.h"

#include <errno.h>

#include "kernel/front/http.h"

enum { COPY_BYTES = 16 * 1024 };

struct filtered {
        struct http_tap tap;
        struct call *c;
        struct passage *way;
        struct str data;       /* of the response, not yet taken */
        bool started, ended;   /* by the handler */
        bool out;              /* the head has gone out */
        bool dead;             /* of no use any more: what comes is dropped */
        char *buffer;
};

static struct filtered *filtered_of(struct http_tap *t)
{
        return container_of(t, struct filtered, tap);
}

static ssize_t from_client(void *arg, void *p, size_t n)
{
        struct filtered *f = arg;
        return http_raw_read(f->c->http, p, n);
}

static ssize_t from_handler(void *arg, void *p, size_t n)
{
        struct filtered *f = arg;

        if (!f->data.n)
                return f->ended ? 0 : -EAGAIN;
        n = f->data.n < n ? f->data.n : n;
        memcpy(p, f->data.p, n);
        f->data = str_skip(f->data, n);
        return (ssize_t)n;
}

/* Nothing more goes through the filters: the fault is the answer, or breaks the answer off. */
static int fail(struct filtered *f)
{
        struct http_req *r = f->c->http;
        struct http_tap *tap = r->tap;

        f->dead = true;
        r->tap = NULL;
        if (f->out) {
                http_resp_abort(r);
        } else {
                call_fail_code(f->c, ERR_MIDDLEWARE, f->way->fault ? f->way->fault_status : 500, 0, f->way->fault ? f->way->fault : "out of memory");
                reply_error(f->c);
        }
        r->tap = tap;
        return -EPIPE;
}

static ssize_t tap_read(struct http_tap *t, struct http_req *r, void *p, size_t n)
{
        struct filtered *f = filtered_of(t);
        return passage_has_request_body(f->way) ? passage_read_request(f->way, p, n) : http_raw_read(r, p, n);
}

/* What the handler has written so far, as far as the filters let it go. */
static int pump(struct filtered *f)
{
        struct http_req *r = f->c->http;
        struct pipeline_head *h = &f->way->response;
        int e;

        if (!f->out) {
                e = passage_response(f->way, from_handler, f);
                if (e)
                        return e == -EAGAIN ? 0 : fail(f);
                f->out = true;
                if ((e = http_raw_begin(r, h->status, h->headers.v, h->headers.n, h->content_length)))
                        return e;
        }
        while (h->has_body || passage_has_response_body(f->way)) {
                ssize_t n = passage_read_response(f->way, f->buffer, COPY_BYTES);
                if (n <= 0)
                        return n == -EAGAIN || n == 0 ? 0 : fail(f);
                if ((e = http_raw_write(r, str_n(f->buffer, (size_t)n))))
                        return e;
        }
        return 0;
}

/* Strings of the handler's head may go before a filter has decided. */
static int copy(struct arena *a, const struct http_header *h, size_t n, struct http_headers *to)
{
        *to = (struct http_headers){0};
        for (size_t i = 0; i < n; i++) {
                struct str name = arena_str(a, h[i].name), value = arena_str(a, h[i].value);
                if (!name.p || !value.p || http_headers_add(to, a, name, value))
                        return -ENOMEM;
        }
        return 0;
}

static int tap_begin(struct http_tap *t, struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length)
{
        struct filtered *f = filtered_of(t);
        struct pipeline_head *to = &f->way->response;

        if (f->dead)
                return -EPIPE;
        if (f->way->fault) /* while the handler read the body */
                return fail(f);
        if (f->started) {
                http_resp_abort(r);
                return -EPIPE;
        }
        f->started = true;
        to->status = status;
        to->content_length = length;
        to->has_body = length != 0 && !str_eqz(r->method, "HEAD") && status != 204 && status != 304;
        if (copy(r->arena, h, n, &to->headers))
                return fail(f);
        return pump(f);
}

static int tap_write(struct http_tap *t, struct http_req *r, struct str data)
{
        struct filtered *f = filtered_of(t);
        int e;

        if (f->dead)
                return -EPIPE;
        if (!f->way->response.has_body && !f->out) /* held back, and nothing of it will be sent */
                return 0;
        if (f->out && !passage_has_response_body(f->way))
                return http_raw_write(r, data);
        f->data = data;
        e = pump(f);
        f->data = STR("");
        return e;
}

static int tap_end(struct http_tap *t, struct http_req *r, const struct http_header *trailers, size_t n)
{
        struct filtered *f = filtered_of(t);
        int e;

        if (f->dead)
                return -EPIPE;
        f->ended = true;
        e = f->out && !passage_has_response_body(f->way) ? 0 : pump(f);
        return e ? e : http_raw_end(r, trailers, n);
}

/* The request as the filters left it. */
static int take_head(struct http_req *r, const struct pipeline_head *h)
{
        struct str target = h->query.n ? str_of(arena_printf(r->arena, "%.*s?%.*s", STR_FMT(h->path), STR_FMT(h->query))) : h->path;

        if (!target.p)
                return -ENOMEM;
        r->method = h->method;
        r->path = h->path;
        r->query = h->query;
        r->target = target;
        r->headers = h->headers;
        r->content_length = h->content_length;
        return 0;
}

static void answer(struct filtered *f, int r)
{
        struct passage *w = f->way;

        if (r == PASSAGE_ANSWERED) {
                http_resp_send(f->c->http, w->answer.status, w->answer.headers.v, w->answer.headers.n, w->answer.body);
        } else if (r == PASSAGE_FAILED || r == -ENOMEM) {
                fail(f);
        } else if (r != -ECANCELED) {
                f->c->http->tap = NULL;
                call_fail(f->c, ERR_BODY_READ, body_error(r));
                reply_error(f->c);
        }
}

static const char *version_of(const struct http_req *r)
{
        return r->version == 20 ? "HTTP/2.0" : r->version == 10 ? "HTTP/1.0" : "HTTP/1.1";
}

void filtered_serve(struct pipeline *p, struct call *c, void (*next)(void *arg), void *arg)
{
        struct http_req *r = c->http;
        struct filtered f = {.tap = {tap_read, tap_begin, tap_write, tap_end}, .c = c, .data = STR("")};
        const struct pipeline_head head = {.method = r->method, .path = r->path, .query = r->query, .authority = r->authority, .scheme = "http",
                                           .peer = r->peer, .version = version_of(r), .headers = r->headers,
                                           .content_length = r->content_length,
                                           .has_body = r->content_length > 0 || (r->content_length < 0 && !str_eqz(r->method, "GET") &&
                                                                                 !str_eqz(r->method, "HEAD"))};
        int e = passage_new(&f.way, p, r->arena, &head, from_client, &f);

        if (e) {
                call_fail(c, ERR_MIDDLEWARE, "out of memory");
                reply_error(c);
                return;
        }
        e = passage_request(f.way);
        if (e == 0)
                e = take_head(r, &f.way->head);
        if (e != PASSAGE_FAILED && passage_has_response(f.way)) {
                f.buffer = arena_alloc(r->arena, COPY_BYTES);
                if (f.buffer)
                        r->tap = &f.tap;
                else
                        e = -ENOMEM;
        }
        if (e)
                answer(&f, e);
        else
                next(arg);
        r->tap = NULL;
        passage_free(f.way);
}
