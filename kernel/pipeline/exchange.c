/*
 * An exchange around the client's own. The request's body is pushed in and goes through the filters to the server as far as it is
 * there; the response is pulled out. When no filter wants anything of the rest the client's exchange is given to the caller as it is.
 */
#include "kernel/pipeline/exchange.h"

#include <errno.h>

#include "sdk/base/json.h"

enum { COPY_BYTES = 16 * 1024 };

struct piped {
        struct http_exchange x;
        struct passage *way;
        struct http_client *client;
        int (*follow)(void *arg, const struct pipeline_head *head, bool whole, struct http_exchange **inner);
        void *follow_arg;
        struct arena *arena;
        struct http_exchange *inner; /* NULL: not yet, or a filter answered */
        int64_t length;
        struct str pushed;           /* of the request's body, not yet taken */
        bool pushed_end;
        bool decided;                /* the filters have seen the request's head */
        bool answered, responded;
        int error;
        struct str answer_rest;      /* answered: of its body */
        char *buffer;
};

static struct piped *piped_of(struct http_exchange *x)
{
        return container_of(x, struct piped, x);
}

static ssize_t from_caller(void *arg, void *p, size_t n)
{
        struct piped *d = arg;

        if (!d->pushed.n)
                return d->pushed_end ? 0 : -EAGAIN;
        n = d->pushed.n < n ? d->pushed.n : n;
        memcpy(p, d->pushed.p, n);
        d->pushed = str_skip(d->pushed, n);
        return (ssize_t)n;
}

static ssize_t from_server(void *arg, void *p, size_t n)
{
        struct piped *d = arg;

        if (!d->answered)
                return http_exchange_read(d->inner, p, n);
        n = d->answer_rest.n < n ? d->answer_rest.n : n;
        memcpy(p, d->answer_rest.p, n);
        d->answer_rest = str_skip(d->answer_rest, n);
        return (ssize_t)n;
}

/* The fault as the answer. */
static int answer_fault(struct piped *d)
{
        struct passage *w = d->way;
        struct buf b = {0};
        struct json_writer j;

        json_write_init(&j, &b);
        json_object_begin(&j);
        json_kv(&j, "errorCode", STR("ERR_MIDDLEWARE"));
        json_kv(&j, "message", str_of(w->fault ? w->fault : "out of memory"));
        json_object_end(&j);
        w->answer.status = w->fault ? w->fault_status : 500;
        w->answer.headers = (struct http_headers){0};
        w->answer.body = b.failed ? STR_NULL : arena_str(d->arena, buf_str(&b));
        buf_fini(&b);
        d->answered = true;
        d->answer_rest = w->answer.body;
        return w->answer.body.p ? http_headers_add(&w->answer.headers, d->arena, STR("Content-Type"), STR("application/json")) : -ENOMEM;
}

/* ---- the request ---- */

static struct str target_of(struct arena *a, const struct pipeline_head *h)
{
        return h->query.n ? str_of(arena_printf(a, "%.*s?%.*s", STR_FMT(h->path), STR_FMT(h->query))) : h->path;
}

static int start_inner(struct piped *d, struct str body_now)
{
        const struct pipeline_head *h = &d->way->head;
        bool through = passage_has_request_body(d->way);
        struct str target = target_of(d->arena, h);

        if (!target.p)
                return -ENOMEM;
        return http_client_start(d->client, d->arena, h->method, target, h->headers.v, h->headers.n, through ? -1 : d->length,
                                 through ? STR_NULL : body_now, &d->inner);
}

/* What is there of the body, to the server. */
static int pump(struct piped *d)
{
        for (;;) {
                ssize_t n = passage_read_request(d->way, d->buffer, COPY_BYTES);
                if (n == -EAGAIN)
                        return 0;
                if (n == -EIO && d->way->fault)
                        return answer_fault(d);
                if (n <= 0)
                        return n ? (int)n : http_exchange_end(d->inner);
                int r = http_exchange_write(d->inner, str_n(d->buffer, (size_t)n));
                if (r)
                        return r;
        }
}

/* Lets the filters decide as far as they can; once they have, the request goes out. */
static int advance(struct piped *d, struct str body_now)
{
        int r;

        if (!d->decided) {
                r = passage_request(d->way);
                if (r == -EAGAIN)
                        return 0;
                d->decided = true;
                if (r == PASSAGE_FAILED)
                        return answer_fault(d);
                if (r == PASSAGE_ANSWERED) {
                        d->answered = true;
                        d->answer_rest = d->way->answer.body;
                        return 0;
                }
                if (r == 0)
                        r = start_inner(d, body_now);
                if (r)
                        return r;
        }
        return !d->answered && passage_has_request_body(d->way) ? pump(d) : 0;
}

static int piped_write(struct http_exchange *x, struct str data)
{
        struct piped *d = piped_of(x);
        int r;

        if (d->answered || !data.n)
                return 0;
        if (d->decided && !passage_has_request_body(d->way))
                return http_exchange_write(d->inner, data);
        d->pushed = data;
        r = advance(d, STR_NULL);
        if (!r && !d->answered && d->decided && d->pushed.n) /* a filter let the rest go by */
                r = http_exchange_write(d->inner, d->pushed);
        d->pushed = STR("");
        return r;
}

static int piped_end(struct http_exchange *x)
{
        struct piped *d = piped_of(x);
        int r = 0;

        if (d->pushed_end)
                return 0;
        d->pushed_end = true;
        if (!d->answered)
                r = advance(d, STR_NULL);
        return r || d->answered || passage_has_request_body(d->way) ? r : http_exchange_end(d->inner);
}

/* ---- the response ---- */

static void take_head(struct piped *d)
{
        struct pipeline_head *h = &d->way->response;

        if (d->answered) {
                h->status = d->way->answer.status;
                h->headers = d->way->answer.headers;
                h->content_length = (int64_t)d->answer_rest.n;
        } else {
                h->status = d->inner->status;
                h->headers = d->inner->headers;
                h->content_length = d->inner->content_length;
        }
        h->has_body = !str_eqz(d->way->head.method, "HEAD") && h->status != 204 && h->status != 304 && h->content_length != 0;
}

static int respond(struct piped *d)
{
        int r = d->answered ? 0 : !d->inner ? -EINVAL : http_exchange_response(d->inner);

        if (r == 0 && !d->answered && d->follow)
                r = d->follow(d->follow_arg, &d->way->head, !passage_has_request_body(d->way), &d->inner);
        if (r)
                return r;
        take_head(d);
        r = passage_response(d->way, from_server, d);
        if (r == PASSAGE_FAILED) {
                r = answer_fault(d);
                passage_free(d->way); /* no filter sees it */
                take_head(d);
        }
        d->x.status = d->way->response.status;
        d->x.headers = d->way->response.headers;
        d->x.content_length = d->way->response.content_length;
        return r;
}

static int piped_response(struct http_exchange *x)
{
        struct piped *d = piped_of(x);

        if (!d->responded) {
                d->error = respond(d);
                d->responded = d->error != -ETIMEDOUT;
        }
        return d->error;
}

static ssize_t piped_read(struct http_exchange *x, void *p, size_t n)
{
        struct piped *d = piped_of(x);
        int r = piped_response(x);
        ssize_t got;

        if (r)
                return r;
        got = passage_has_response_body(d->way) ? passage_read_response(d->way, p, n) : from_server(d, p, n);
        if (got == 0 && !d->answered)
                x->trailers = d->inner->trailers;
        return got == -EIO ? -ECONNRESET : got;
}

static void piped_close(struct http_exchange *x)
{
        struct piped *d = piped_of(x);

        passage_free(d->way);
        http_exchange_close(d->inner);
}

static const struct http_exchange_ops piped_ops = {piped_write, piped_end, piped_response, piped_read, piped_close};

/* ---- start ---- */

static int start(struct piped *d, struct str body_now, struct http_exchange **ret)
{
        int r;

        if (body_now.p) {
                d->pushed = body_now;
                d->pushed_end = true;
        }
        r = advance(d, body_now);
        if (r)
                return r;
        if (d->inner && !passage_has_response(d->way)) {
                *ret = d->inner; /* its strings live in the arena */
                passage_free(d->way);
        } else {
                *ret = &d->x;
        }
        return 0;
}

int pipeline_exchange_start(struct pipeline *p, struct arena *a, const struct pipeline_call *q, struct http_exchange **ret)
{
        struct pipeline_head head = {.method = q->method, .scheme = q->scheme, .authority = q->authority, .version = "HTTP/1.1"};
        struct piped *d;
        struct str rest = q->target;
        int r;

        if (!p)
                return http_client_start(q->client, a, q->method, q->target, q->headers, q->n_headers, q->length, q->body_now, ret);
        d = arena_new(a, struct piped);
        r = d && (d->buffer = arena_alloc(a, COPY_BYTES)) ? 0 : -ENOMEM;
        head.path = str_cut(&rest, '?');
        head.query = rest.p ? rest : STR("");
        head.content_length = q->body_now.p ? (int64_t)q->body_now.n : q->length;
        head.has_body = head.content_length != 0;
        for (size_t i = 0; r == 0 && i < q->n_headers; i++)
                r = http_headers_add(&head.headers, a, q->headers[i].name, q->headers[i].value);
        if (r)
                return r;
        *d = (struct piped){.client = q->client, .follow = q->follow, .follow_arg = q->follow_arg, .arena = a, .length = q->length, .pushed = STR(""), .buffer = d->buffer};
        d->x.ops = &piped_ops;
        d->x.content_length = -1;
        r = passage_new(&d->way, p, a, &head, from_caller, d);
        if (r == 0)
                r = start(d, q->body_now, ret);
        if (r) {
                http_exchange_close(d->inner);
                passage_free(d->way);
        }
        return r;
}
