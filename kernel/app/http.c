/*
 * Calls to HTTP apps. A call holds its slot from before the request goes out until its response body was read or given up; the
 * caller's headers come first, then the content type, the trace headers of the calling fiber and the app's token.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "kernel/app/internal.h"
#include "kernel/observe/observe.h"
#include "kernel/pipeline/exchange.h"
#include "sdk/base/loop.h"

#define HTTP_BROKEN "net/http: HTTP/1.x transport connection broken: "

enum { EXTRA_HEADERS = 6, PROBE_BODY_MAX = 1 << 20 };

static bool has_header(const struct app_request *in, const char *name)
{
        for (size_t i = 0; i < in->n_headers; i++)
                if (str_ieq(in->headers[i].name, str_of(name)))
                        return true;
        return false;
}

/* The request's headers with ours behind. NULL = no memory. */
static struct http_header *all_headers(struct app *p, struct arena *a, const struct app_request *in, size_t *ret_n)
{
        struct http_header *h = arena_alloc(a, (in->n_headers + EXTRA_HEADERS) * sizeof *h);
        const struct trace *t = trace_current();
        size_t n = 0;

        if (!h)
                return NULL;
        for (size_t i = 0; i < in->n_headers; i++) {
                struct str name = in->headers[i].name;
                bool ours = str_ieq(name, STR("Content-Type")) || (p->token.n && str_ieq(name, STR(TOKEN_HEADER))) ||
                            (t && t->has_ctx && (str_ieq(name, STR("traceparent")) || str_ieq(name, STR("tracestate"))));
                if (!ours)
                        h[n++] = in->headers[i];
        }
        if (in->content_type.n)
                h[n++] = (struct http_header){STR("Content-Type"), in->content_type};
        for (int i = 0; i < TRACE_HEADERS; i++) {
                struct str value = trace_value(t, (enum trace_header)i);
                bool given = (!t || !t->has_ctx || i == TRACE_BAGGAGE) && has_header(in, trace_header_name((enum trace_header)i));
                if (value.n && !given)
                        h[n++] = (struct http_header){str_of(trace_header_name((enum trace_header)i)), value};
        }
        if (p->token.n)
                h[n++] = (struct http_header){STR(TOKEN_HEADER), p->token};
        *ret_n = n;
        return h;
}

static struct str path_of(struct str target)
{
        ptrdiff_t q = str_chr(target, '?');

        return q < 0 ? target : str_n(target.p, (size_t)q);
}

static void started(struct app *p, struct arena *a, const struct app_request *in)
{
        observe_http_client_started(p->k->observe, a, in->method, path_of(in->path), in->body.n);
}

static void completed(struct app *p, struct arena *a, const struct app_request *in, const struct http_exchange *x, int r, double began)
{
        struct trace *t = trace_current();

        if (t)
                t->app_ms += (loop_now_exact() - began) * 1e3;
        observe_http_client_completed(p->k->observe, a, in->method, path_of(in->path), r ? 500 : x->status, r ? -1 : x->content_length,
                                      (loop_now_exact() - began) * 1e3);
}

/* As http_client_start, through appHttpPipeline. */
static int start(struct app *p, struct arena *a, const struct app_request *in, const struct http_header *h, size_t n, int64_t length,
                 struct str body_now, struct http_exchange **ret)
{
        return pipeline_exchange_start(p->k->app_pipeline, a, &(struct pipeline_call){.client = p->http,
                                                                                     .scheme = p->has_tls ? "https" : "http",
                                                                                     .authority = str_of(p->target),
                                                                                     .method = in->method,
                                                                                     .target = in->path,
                                                                                     .headers = h,
                                                                                     .n_headers = n,
                                                                                     .length = length,
                                                                                     .body_now = body_now}, ret);
}

/* What the metrics of a streamed exchange need when it ends. In its arena. */
struct open_call {
        struct arena *arena;
        struct app_request head;
        double began;
};

static struct str key_of(struct http_exchange *const *x)
{
        return str_n(x, sizeof *x);
}

int app_http_open(struct app *p, struct arena *a, const struct app_request *head, int64_t length, struct http_exchange **ret)
{
        size_t n;
        struct http_header *h = all_headers(p, a, head, &n);
        struct open_call *open = arena_new(a, struct open_call);
        int r;

        if (!h || !open)
                return -ENOMEM;
        *open = (struct open_call){.arena = a, .head = *head};
        if ((r = app_slot_take(p)))
                return r;
        started(p, a, head);
        open->began = loop_now_exact();
        r = start(p, a, head, h, n, length, head->body, ret);
        if (r) {
                completed(p, a, head, NULL, r, open->began);
                app_slot_give(p);
        } else {
                map_set(&p->open, key_of(ret), open); /* without memory for it the call is only not counted */
        }
        return r;
}

void app_http_close(struct app *p, struct http_exchange *x)
{
        struct open_call *open = map_del(&p->open, key_of(&x));

        if (open)
                completed(p, open->arena, &open->head, x, x->status ? 0 : -ECONNRESET, open->began);
        http_exchange_close(x);
        app_slot_give(p);
}

/* The exchange's strings go when it is closed. */
static int keep_headers(struct arena *a, const struct http_headers *from, struct http_headers *to)
{
        *to = (struct http_headers){0};
        for (size_t i = 0; i < from->n; i++) {
                struct str name = arena_str(a, from->v[i].name), value = arena_str(a, from->v[i].value);
                if (!name.p || !value.p || http_headers_add(to, a, name, value))
                        return -ENOMEM;
        }
        return 0;
}

int app_http(struct app *p, struct arena *a, const struct app_request *in, struct app_response *out)
{
        const struct daprd_opts *o = &p->k->opts;
        size_t n, max = in->max_response_bytes ? in->max_response_bytes : o->max_body_size > 0 ? (size_t)o->max_body_size : SIZE_MAX;
        struct http_header *h = all_headers(p, a, in, &n);
        struct http_exchange *x = NULL;
        double began;
        int r;

        if (!h)
                return -ENOMEM;
        if ((r = app_slot_take(p)))
                return r;
        started(p, a, in);
        began = loop_now_exact();
        r = start(p, a, in, h, n, (int64_t)in->body.n, in->body.p ? in->body : STR(""), &x);
        if (r == 0)
                r = http_exchange_response(x);
        completed(p, a, in, x, r, began);
        if (r == 0)
                r = http_exchange_body(x, a, max, &out->body);
        if (r == 0) {
                out->status = x->status;
                r = keep_headers(a, &x->headers, &out->headers);
        }
        if (x)
                http_exchange_close(x);
        app_slot_give(p);
        return r;
}

int app_http_probe(struct app *p, struct arena *a, const char *path, int *status)
{
        struct http_exchange *x;
        struct str body;
        int r = http_client_start(p->http, a, STR("GET"), str_of(path), NULL, 0, 0, STR(""), &x);

        if (r)
                return r;
        r = http_exchange_response(x);
        if (r == 0) {
                *status = x->status;
                http_exchange_body(x, a, PROBE_BODY_MAX, &body); /* so that the connection can be used again */
        }
        http_exchange_close(x);
        return r;
}

size_t app_header_bytes(const struct app *p)
{
        int64_t n = p->k->opts.read_buffer_size;

        return n > APP_HEADER_BYTES_MIN ? (size_t)n : APP_HEADER_BYTES_MIN;
}

const char *app_http_error(struct app *p, struct arena *a, const struct app_request *in, int r)
{
        const char *scheme = p->has_tls ? "https" : "http", *verb = "", *rest = "", *text;
        char method[16];

        snprintf(method, sizeof method, "%c%.*s", in->method.n ? in->method.p[0] : ' ', (int)(in->method.n ? in->method.n - 1 : 0),
                 in->method.n ? in->method.p + 1 : "");
        for (char *c = method + 1; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        switch (-r) {
        case ECONNREFUSED: verb = "dial tcp "; rest = ": connect: connection refused"; break;
        case ENOENT: return arena_printf(a, "%s \"%s://%s%.*s\": dial tcp: lookup %s: no such host", method, scheme, p->target, STR_FMT(in->path),
                                         p->k->opts.app_channel_address);
        case ETIMEDOUT: return arena_printf(a, "%s", "context deadline exceeded");
        case ECANCELED: return arena_printf(a, "%s", "context canceled");
        case ECONNRESET: rest = "EOF"; break;
        case EMSGSIZE: return arena_printf(a, "%s", "stream too large");
        case EOVERFLOW:
                rest = arena_printf(a, HTTP_BROKEN "net/http: server response headers exceeded %zu bytes; aborted", app_header_bytes(p));
                break;
        case EBADMSG: rest = HTTP_BROKEN "malformed HTTP response"; break;
        default: rest = strerrordesc_np(-r); break;
        }
        text = arena_printf(a, "%s \"%s://%s%.*s\": %s%s%s", method, scheme, p->target, STR_FMT(in->path), verb, *verb ? p->target : "",
                            rest ? rest : "unknown error");
        return text ? text : "out of memory";
}
