/*
 * Service invocation over HTTP (API.md 1.2). Between an HTTP caller and the own HTTP app everything is streamed: bodies both ways, a
 * request of known length keeps its length; status, headers and body of the app come back as they are. Hop-by-hop headers stay on
 * their hop (RFC 9110, 7.6.1).
 * Policies: a request without a known length goes out once. With retries a request of known length is read first, and an answer outside
 * 200..399 is held back until no further try follows; what has begun to go to the caller is never tried again.
 * A gRPC app is asked by OnInvoke; its status becomes an HTTP status with the status as JSON.
 */
#include <errno.h>

#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/front/target.h"
#include "kernel/front/trace_attrs.h"
#include "kernel/observe/observe.h"
#include "sdk/base/pbjson.h"

enum { COPY_BYTES = 16 * 1024 };

static void fail(struct call *c, struct str id, const char *why)
{
        call_fail(c, ERR_DIRECT_INVOKE, arena_strdup(c->arena, id), why);
        reply_error(c);
}

/* ---- HTTP app ---- */

struct http_try {
        struct call *c;
        struct app_request head;
        int64_t length;             /* of the request's body; -1 unknown */
        struct str body;            /* p != NULL: read already */
        bool holds_back;            /* failures are kept for another try */
        bool begun;                 /* the answer is on its way to the caller */
        int r;
        int status;                 /* held back: the answer */
        struct http_headers headers;
        struct str answer;
        char *buffer;
};

static int copy_headers(struct arena *a, const struct http_headers *from, struct http_headers *to, bool keep)
{
        struct str connection = http_headers_get(from, "Connection");

        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name, value = from->v[i].value;
                if (invoke_is_hop_by_hop(name, connection) || str_has_suffix(name, STR("-bin")))
                        continue;
                if (keep && (!(name = arena_str(a, name)).p || !(value = arena_str(a, value)).p))
                        return -ENOMEM;
                if (http_headers_add(to, a, name, value))
                        return -ENOMEM;
        }
        return 0;
}

/* The request's body to the app. 0, or what reading or writing gave. */
static int send_body(struct http_try *x, struct http_exchange *e)
{
        struct str rest = x->body;

        for (;;) {
                ssize_t n = x->body.p ? (ssize_t)rest.n : http_req_read(x->c->http, x->buffer, COPY_BYTES);
                if (n < 0)
                        return (int)n;
                if (n == 0)
                        return http_exchange_end(e);
                int r = http_exchange_write(e, x->body.p ? rest : str_n(x->buffer, (size_t)n));
                if (r)
                        return r == -EPIPE || r == -ECONNRESET ? 0 : r; /* the app may have answered early */
                rest.n = 0;
        }
}

/* The app's answer to the caller; once it has begun, a failure can only break it off. */
static int relay_answer(struct http_try *x, struct http_exchange *e)
{
        struct http_req *q = x->c->http;
        struct http_headers out = {0};
        bool no_body = e->status == 204 || e->status == 304 || str_eqz(q->method, "HEAD");
        int r = copy_headers(x->c->arena, &e->headers, &out, false);

        if (r)
                return r;
        call_headers_into(x->c, &out);
        x->begun = true;
        r = http_resp_begin(q, e->status, out.v, out.n, no_body ? 0 : e->content_length);
        while (!r && !no_body) {
                ssize_t n = http_exchange_read(e, x->buffer, COPY_BYTES);
                if (n == 0)
                        break;
                r = n < 0 ? (int)n : http_resp_write(q, str_n(x->buffer, (size_t)n));
        }
        if (r)
                http_resp_abort(q);
        else
                http_resp_end(q, e->trailers.v, e->trailers.n);
        return r;
}

static int hold_back(struct http_try *x, struct http_exchange *e)
{
        int64_t max = x->c->k->opts.max_body_size;

        x->headers = (struct http_headers){0};
        x->status = 0;
        int r = copy_headers(x->c->arena, &e->headers, &x->headers, true);
        if (!r)
                r = http_exchange_body(e, x->c->arena, max > 0 ? (size_t)max : SIZE_MAX, &x->answer);
        if (!r)
                x->status = e->status;
        return r;
}

static int try_http(void *arg, struct policy_try *t)
{
        struct http_try *x = arg;
        struct app *app = x->c->k->app;
        struct http_exchange *e = NULL;
        bool good = false;

        x->status = 0;
        x->r = app_http_open(app, x->c->arena, &x->head, x->length, &e);
        if (!x->r)
                x->r = x->length ? send_body(x, e) : http_exchange_end(e);
        if (!x->r)
                x->r = http_exchange_response(e);
        if (!x->r) {
                good = e->status >= 200 && e->status <= 399;
                t->code = good ? 0 : e->status;
                x->r = !good && x->holds_back ? hold_back(x, e) : relay_answer(x, e);
        }
        if (e)
                app_http_close(app, e);
        t->permanent = x->begun || !x->holds_back;
        return x->r || !good;
}

static void invoke_http_app(struct call *c, const struct invoke_target *t, struct policy *policy)
{
        struct http_req *q = c->http;
        bool bodyless = q->content_length < 0 && (str_eqz(q->method, "GET") || str_eqz(q->method, "HEAD"));
        struct http_try x = {.c = c, .length = bodyless ? 0 : q->content_length};
        struct http_headers headers = {0};
        enum policy_result r;

        x.head = (struct app_request){.method = q->method, .path = invoke_path(c->arena, t->method, q->query)};
        x.holds_back = x.length >= 0 && policy_has_retries(policy);
        x.buffer = arena_alloc(c->arena, COPY_BYTES);
        if (x.holds_back && x.length && call_body(c, &x.body)) {
                policy_release(policy);
                return;
        }
        if (!x.buffer || !x.head.path.p || copy_headers(c->arena, &q->headers, &headers, false)) {
                policy_release(policy);
                fail(c, t->id, "out of memory");
                return;
        }
        x.head.content_type = http_headers_get(&headers, "Content-Type");
        x.head.headers = headers.v;
        x.head.n_headers = headers.n;
        r = policy_run(policy, try_http, &x);
        if (x.begun || r == POLICY_OK)
                return;
        if (r != POLICY_FAILED)
                fail(c, t->id, policy_result_text(r));
        else if (x.status) {
                observe_error_code(c->k->observe, error_rows[ERR_DIRECT_INVOKE].tag, error_rows[ERR_DIRECT_INVOKE].category);
                call_headers_into(c, &x.headers);
                http_resp_send(q, x.status, x.headers.v, x.headers.n, x.answer);
        } else if (x.r == -EMSGSIZE) {
                call_fail(c, ERR_BODY_READ, "http: request body too large");
                reply_error(c);
        } else
                fail(c, t->id, app_http_error(c->k->app, c->arena, &x.head, x.r));
}

/* ---- gRPC app ---- */

static int http_status_of(int code)
{
        static const int of[] = {200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401};

        return code >= 0 && (size_t)code < sizeof of / sizeof *of ? of[code] : 500;
}

static void reply_status(struct call *c, const struct invoke_answer *answer, const struct http_headers *h)
{
        Google__Rpc__Status plain = GOOGLE__RPC__STATUS__INIT, *st = NULL;
        struct buf b = {0};

        if (answer->details.n)
                st = pb_unpack(c->arena, &google__rpc__status__descriptor, answer->details);
        if (!st)
                st = &plain;
        st->code = answer->code;
        st->message = arena_strdup(c->arena, answer->message);
        if (!st->message || pbjson_write(&b, &st->base, 0)) {
                call_fail(c, ERR_MALFORMED_RESPONSE, "the details of the app's status have no JSON form");
                reply_error(c);
        } else
                reply_bytes(c, http_status_of(answer->code), "application/json", buf_str(&b), h->v, h->n);
        buf_fini(&b);
}

struct grpc_try {
        struct call *c;
        const struct invoke_request *in;
        struct invoke_answer answer;
        const char *err;
};

/* Whatever status the app answers with is a success to the policy, as in the reference. */
static int try_grpc(void *arg, struct policy_try *t)
{
        struct grpc_try *x = arg;

        return invoke_whole(x->c, x->in, &x->answer, &x->err);
}

static void invoke_grpc_app(struct call *c, const struct invoke_target *t, struct policy *policy)
{
        Dapr__Proto__Common__V1__InvokeRequest m = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
        Dapr__Proto__Common__V1__HTTPExtension extension = DAPR__PROTO__COMMON__V1__HTTPEXTENSION__INIT;
        Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
        struct invoke_request in = {.message = &m, .method = t->method, .headers = &c->http->headers};
        struct grpc_try x = {.c = c, .in = &in};
        struct http_headers headers = {0};
        enum policy_result r;
        struct str body;

        if (call_body(c, &body)) {
                policy_release(policy);
                return;
        }
        extension.verb = (Dapr__Proto__Common__V1__HTTPExtension__Verb)invoke_verb(c->http->method);
        extension.querystring = arena_strdup(c->arena, c->http->query);
        data.value = pb_bytes(body);
        m.content_type = arena_strdup(c->arena, http_headers_get(&c->http->headers, "Content-Type"));
        m.data = &data;
        m.http_extension = &extension;
        if (!m.content_type || !extension.querystring) {
                policy_release(policy);
                fail(c, t->id, "out of memory");
                return;
        }
        r = policy_run(policy, try_grpc, &x);
        if (r != POLICY_OK)
                fail(c, t->id, r == POLICY_FAILED ? x.err : policy_result_text(r));
        else if (invoke_md_to_headers(c->arena, &x.answer.md, &headers))
                fail(c, t->id, "out of memory");
        else if (x.answer.code)
                reply_status(c, &x.answer, &headers);
        else {
                const char *type = x.answer.type_url.n ? "application/x-protobuf" : arena_strdup(c->arena, x.answer.content_type);
                reply_bytes(c, 200, type && *type ? type : NULL, x.answer.body, headers.v, headers.n);
        }
}

/* ---- door ---- */

static void invoke_http(struct call *c)
{
        struct str path = url_unescape(c->arena, c->http->path, false);
        struct invoke_target t = invoke_target_find(c->arena, path, &c->http->headers);
        struct policy policy;
        const char *why = NULL;

        if (!t.id.n) {
                call_fail(c, ERR_DIRECT_INVOKE_NO_APP_ID);
                reply_error(c);
                return;
        }
        trace_attrs_invoke(c->trace, c->arena, t.id, t.method);
        t.method = invoke_method(c->arena, t.method, &why);
        if (!t.method.p || !invoke_find(c, t.id, &why)) {
                fail(c, t.id, why);
                return;
        }
        if (!app_is_grpc(c->k->app) && !app_is_healthy(c->k->app)) {
                fail(c, t.id, INVOKE_UNHEALTHY);
                return;
        }
        resiliency_app(c->k, t.id, str_of(arena_printf(c->arena, "%.*s:%.*s", STR_FMT(t.id), STR_FMT(t.method))), &policy);
        if (app_is_grpc(c->k->app))
                invoke_grpc_app(c, &t, &policy);
        else
                invoke_http_app(c, &t, &policy);
}

static const struct http_route routes[] = {{"*", "/v1.0/invoke/{rest...}", "invoke", "v1", "InvokeService", invoke_http, .fallback = true}};
static const struct grpc_route rows[] = {{"InvokeService", "invoke.v1", &dapr__proto__runtime__v1__invoke_service_request__descriptor,
                                          &dapr__proto__common__v1__invoke_response__descriptor, NULL, invoke_service}};
const struct block invoke_block_def = {
        .name = "invoke", .http = routes, .n_http = 1, .grpc = rows, .n_grpc = 1, .unknown = invoke_proxy};
