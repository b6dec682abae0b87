/*
 * A call from another sidecar to the own app. To HTTP apps bodies are streamed both ways: this fiber carries the answer, a second one
 * what is still to come of the request; neither holds more than a piece. gRPC apps are asked by OnInvoke with the whole body, which
 * --max-body-size bounds.
 * An answer of a known length up to a piece goes out as one message with its head; a longer one keeps its Content-Length, and is
 * broken off when the app does not keep its word.
 */
#include "kernel/mesh/local.h"

#include <errno.h>

#include "dapr/proto/common/v1/common.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/kernel.h"
#include "kernel/mesh/convert.h"
#include "kernel/mesh/mesh.h"
#include "kernel/mesh/mesh_metrics.h"
#include "kernel/observe/observe.h"
#include "kernel/observe/trace.h"
#include "sdk/base/loop.h"

#define ON_INVOKE "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
#define PARSE_ERROR "parsing InternalInvokeRequest error: %s"
#define CHANNEL_ERROR "error invoking app channel: %s"

typedef Dapr__Proto__Common__V1__InvokeResponse invoke_response;

struct inbound {
        struct kernel *k;
        struct rpc_call *rpc;
        struct mesh_request q;
        struct str caller, piece;  /* piece: taken, not yet used */
        uint64_t seq;
        bool has_piece, ended;
        const char *broken;        /* why the rest of the request cannot be had */
        struct http_exchange *x;
        int status;                /* for the metrics */
};

/* ---- the request's body ---- */

static int broken(struct inbound *in, const char *why)
{
        in->broken = why;
        return -EBADMSG;
}

/* 1 and *ret, 0 at the end, < 0. Parks. */
static int next_piece(struct inbound *in, struct str *ret)
{
        struct mesh_request more;
        struct mesh_payload payload;
        struct str msg;
        bool has_head;

        if (in->has_piece) {
                in->has_piece = false;
                *ret = in->piece;
                return 1;
        }
        while (!in->ended) {
                int r = rpc_recv(in->rpc, &msg);
                if (r <= 0) {
                        in->ended = true;
                        return r;
                }
                if (mesh_read_request(in->rpc->arena, msg, &more, &has_head, &payload))
                        return broken(in, "malformed message");
                if (has_head && (more.has_message || more.md.n))
                        return broken(in, "request metadata found in non-leading chunk");
                if (!payload.present)
                        continue;
                if (payload.seq != in->seq++)
                        return broken(in, "invalid sequence number received");
                *ret = payload.data;
                if (payload.data.n)
                        return 1;
        }
        return 0;
}

/* Peeks at the next piece; false at the end. */
static bool await_piece(struct inbound *in)
{
        if (!in->has_piece)
                in->has_piece = next_piece(in, &in->piece) == 1;
        return in->has_piece;
}

static void pump(void *arg)
{
        struct inbound *in = arg;
        struct str piece;
        int r;

        while ((r = next_piece(in, &piece)) > 0)
                if (http_exchange_write(in->x, piece))
                        return; /* the app has answered early, or is gone: its answer tells */
        if (r < 0 || http_exchange_end(in->x))
                http_exchange_abort(in->x); /* short of what was announced */
}

/* Length of the body for the app: known by the header or because all of it is here, else -1. *ret_whole.p != NULL: all of it. */
static int64_t body_length(struct inbound *in, struct str *ret_whole)
{
        int64_t n = convert_length(http_headers_get(&in->q.md, "Content-Length"));

        *ret_whole = STR_NULL;
        if (!in->ended && rpc_recv_done(in->rpc))
                in->ended = true;
        if (!in->ended && n > 0)
                return n;
        if (!in->ended && await_piece(in) && !rpc_recv_done(in->rpc))
                return -1;
        *ret_whole = in->has_piece ? in->piece : STR("");
        in->has_piece = false;
        in->ended = true;
        return (int64_t)ret_whole->n;
}

/* ---- the answer ---- */

static int channel_failed(struct inbound *in, const char *why)
{
        in->status = RPC_INTERNAL;
        return rpc_fail(in->rpc, RPC_INTERNAL, CHANNEL_ERROR, why ? why : "out of memory");
}

static int send_head(struct inbound *in, const struct mesh_response *r, struct str payload)
{
        struct str msg = mesh_put_response(in->rpc->arena, r, payload);

        return msg.p ? rpc_send(in->rpc, msg) : -ENOMEM;
}

/* What is left of the app's body, piece by piece. */
static int send_pieces(struct inbound *in)
{
        char *room = arena_alloc(in->rpc->arena, MESH_CHUNK_ROOM + MESH_CHUNK_BYTES);
        uint64_t seq = 0;
        ssize_t n = 0;
        int r = room ? 0 : -ENOMEM;

        while (!r && (n = http_exchange_read(in->x, room + MESH_CHUNK_ROOM, MESH_CHUNK_BYTES)) > 0)
                r = rpc_send(in->rpc, mesh_put_chunk(room, (size_t)n, seq++));
        if (!r && n < 0 && n != -ECANCELED && n != -ETIMEDOUT)
                return rpc_fail(in->rpc, RPC_UNAVAILABLE, "the app broke its answer off");
        return r ? r : (int)n;
}

static int add_trailers(struct inbound *in)
{
        const struct http_headers *h = &in->x->trailers;

        for (size_t i = 0; i < h->n; i++) {
                char *key = arena_printf(in->rpc->arena, MESH_TRAILER_PREFIX "%.*s", STR_FMT(h->v[i].name));
                for (char *p = key; p && *p; p++)
                        if (*p >= 'A' && *p <= 'Z')
                                *p = (char)(*p - 'A' + 'a');
                if (!key || rpc_md_add(&in->rpc->md_trailers_out, in->rpc->arena, str_of(key), h->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

/* A short body as a whole: -1 when it is not one. A body that ends too early counts as far as it came. */
static int read_short(struct inbound *in, struct str *ret)
{
        int64_t length = in->x->content_length;
        char *p;
        size_t n = 0;

        if (length < 0 || length > MESH_CHUNK_BYTES)
                return -1;
        if (!(p = arena_alloc(in->rpc->arena, (size_t)length + 1)))
                return -ENOMEM;
        for (ssize_t got = 1; got > 0; n += got > 0 ? (size_t)got : 0) {
                got = http_exchange_read(in->x, p + n, (size_t)length + 1 - n);
                if (got == -ECANCELED || got == -ETIMEDOUT)
                        return (int)got;
        }
        *ret = str_n(p, n);
        return 0;
}

static int set_length(struct inbound *in, struct mesh_response *r, int64_t n)
{
        char *text = n >= 0 ? arena_printf(in->rpc->arena, "%lld", (long long)n) : NULL;

        http_headers_remove(&r->headers, "Content-Length");
        return n < 0 ? 0 : text ? rpc_md_add(&in->rpc->md_out, in->rpc->arena, STR(MESH_LENGTH_KEY), str_of(text)) : -ENOMEM;
}

static bool is_sse(const struct inbound *in)
{
        return str_ieq(str_trim(http_headers_get(&in->q.md, "Accept")), STR("text/event-stream"));
}

static int answer_http(struct inbound *in)
{
        struct http_exchange *x = in->x;
        struct mesh_response resp = {.code = x->status, .content_type = http_headers_get(&x->headers, "Content-Type")};
        bool bodyless = in->q.verb == 2 || x->status == 204 || x->status == 304;
        struct str body = STR_NULL;
        int r;

        if (is_sse(in) && (x->status < 200 || x->status > 299))
                return channel_failed(in, "no response received from stream"); /* the reference's callee has no other answer */
        in->status = x->status;
        if (convert_http_to_internal(in->rpc->arena, &x->headers, &resp.headers))
                return -ENOMEM;
        if (bodyless)
                return set_length(in, &resp, in->q.verb == 2 ? x->content_length : -1) ? -ENOMEM : send_head(in, &resp, STR_NULL);
        r = read_short(in, &body);
        if (r < -1)
                return r;
        if (set_length(in, &resp, r == 0 ? (int64_t)body.n : x->content_length))
                return -ENOMEM;
        if (r == 0)
                return send_head(in, &resp, body.n ? body : STR_NULL) || add_trailers(in) ? -EPIPE : 0;
        r = send_head(in, &resp, STR_NULL);
        if (!r)
                r = send_pieces(in);
        return r ? r : add_trailers(in);
}

/* ---- HTTP apps ---- */

static const char *http_refusal(const struct inbound *in)
{
        if (!in->q.has_http)
                return "rpc error: code = InvalidArgument desc = missing HTTP extension field";
        if (in->q.verb <= 0 || in->q.verb >= CONVERT_VERBS || in->q.verb == CONVERT_CONNECT)
                return "rpc error: code = InvalidArgument desc = invalid HTTP verb";
        return NULL;
}

/* 0, or < 0 with a sentence. */
static int http_request(struct inbound *in, struct app_request *ret, const char **ret_err)
{
        struct arena *a = in->rpc->arena;
        struct http_headers headers = {0};

        *ret_err = "out of memory";
        if (convert_internal_to_http(a, &in->q.md, &headers))
                return -ENOMEM;
        *ret = (struct app_request){.method = str_of(convert_verbs[in->q.verb]),
                                    .path = convert_path(a, app_base_url(in->k->app), in->q.method, in->q.query, ret_err),
                                    .headers = headers.v,
                                    .n_headers = headers.n,
                                    .content_type = in->q.type_url.n ? STR("application/x-protobuf") : in->q.content_type};
        return ret->path.p ? 0 : -EINVAL;
}

static int exchange_http(struct inbound *in, struct app_request *head)
{
        struct app *app = in->k->app;
        struct scope rest;
        int64_t length = body_length(in, &head->body);
        int r = app_http_open(app, in->rpc->arena, head, length, &in->x);

        if (r)
                return channel_failed(in, app_http_error(app, in->rpc->arena, head, r));
        scope_init(&rest);
        in->rpc->flags |= RPC_REUSE; /* the head's message stays, those that follow do not */
        if (!in->ended && !in->x->ops)
                r = fiber_go(&rest, "mesh-request", pump, in);
        else if (!in->ended)
                pump(in); /* filters want the request to its end first */
        if (!r)
                r = http_exchange_response(in->x);
        if (r && !fiber_is_cancelled())
                r = channel_failed(in, in->broken ? in->broken : app_http_error(app, in->rpc->arena, head, r));
        else if (!r)
                r = answer_http(in);
        scope_cancel(&rest);
        scope_join(&rest);
        app_http_close(app, in->x);
        return r;
}

static int serve_http(struct inbound *in)
{
        struct app_request head;
        const char *why = http_refusal(in);

        if (why || http_request(in, &head, &why))
                return channel_failed(in, why);
        return exchange_http(in, &head);
}

/* ---- gRPC apps ---- */

/* The whole body, in the arena. 0, -EMSGSIZE with only the length of *ret, … */
static int collect(struct inbound *in, struct str *ret)
{
        int64_t max = in->k->opts.max_body_size;
        struct str piece;
        char *p = NULL;
        size_t n = 0, cap = 0;
        int r;

        *ret = STR("");
        if (in->has_piece && rpc_recv_done(in->rpc)) {
                *ret = in->piece;
                in->has_piece = false;
                return 0;
        }
        in->rpc->flags |= RPC_REUSE;
        while ((r = next_piece(in, &piece)) > 0) {
                if (max > 0 && n + piece.n > (size_t)max) {
                        n += piece.n;
                        continue; /* counted: the failure tells how long it is */
                }
                if (n + piece.n > cap) {
                        size_t want = cap * 2 > n + piece.n ? cap * 2 : n + piece.n;
                        if (!(p = arena_grow(in->rpc->arena, p, n, want)))
                                return -ENOMEM;
                        cap = want;
                }
                memcpy(p + n, piece.p, piece.n);
                n += piece.n;
        }
        if (n)
                *ret = str_n(p, n);
        return !r && max > 0 && n > (size_t)max ? -EMSGSIZE : r;
}

/* The message to the app, of parts that keep it. */
struct on_invoke {
        Dapr__Proto__Common__V1__InvokeRequest req;
        Dapr__Proto__Common__V1__HTTPExtension extension;
        Google__Protobuf__Any data;
};
static int fill(struct inbound *in, struct on_invoke *m, struct str body)
{
        struct arena *a = in->rpc->arena;

        dapr__proto__common__v1__invoke_request__init(&m->req);
        dapr__proto__common__v1__httpextension__init(&m->extension);
        google__protobuf__any__init(&m->data);
        m->req.method = arena_strdup(a, in->q.method);
        m->req.content_type = arena_strdup(a, in->q.content_type);
        m->data.type_url = arena_strdup(a, in->q.type_url);
        m->data.value = pb_bytes(body);
        m->req.data = &m->data;
        m->extension.verb = (Dapr__Proto__Common__V1__HTTPExtension__Verb)in->q.verb;
        m->extension.querystring = arena_strdup(a, in->q.query);
        m->req.http_extension = in->q.has_http ? &m->extension : NULL;
        return a->exhausted ? -ENOMEM : 0;
}

/* The answer to a body over the limit, as grpc-go words it. */
static int too_large(struct inbound *in, struct str body, struct mesh_response *out)
{
        struct on_invoke m;

        if (fill(in, &m, body))
                return -ENOMEM;
        in->status = out->code = RPC_RESOURCE_EXHAUSTED;
        out->message = str_of(arena_printf(in->rpc->arena, "trying to send message larger than max (%zu vs. %lld)", pb_size(&m.req.base),
                                           (long long)in->k->opts.max_body_size));
        return out->message.p ? 0 : -ENOMEM;
}

static int ask_grpc(struct inbound *in, struct str body, struct mesh_response *out, struct str *ret_body)
{
        struct arena *a = in->rpc->arena;
        struct on_invoke m;
        struct app_grpc_md answer = {0};
        struct rpc_mdlist md = {0};
        struct rpc_status st = {0};
        invoke_response *resp;

        if (fill(in, &m, body) || convert_internal_to_md(a, &in->q.md, &md))
                return -ENOMEM;
        out->code = app_grpc_md(in->k->app, a, ON_INVOKE, &m.req.base, &dapr__proto__common__v1__invoke_response__descriptor, &resp, md.v, md.n,
                                &answer, &st);
        in->status = out->code;
        out->message = st.message;
        out->status = st.details;
        if (!out->code) {
                out->content_type = str_of(resp->content_type);
                if (resp->data) {
                        out->type_url = str_of(resp->data->type_url);
                        *ret_body = pb_str(resp->data->value);
                }
        }
        return convert_md_to_internal(a, &answer.headers, &out->headers) || convert_md_to_internal(a, &answer.trailers, &out->trailers) ? -ENOMEM : 0;
}

/* A body that is there already, behind the head in one message or in pieces. */
static int send_whole(struct inbound *in, const struct mesh_response *r, struct str body)
{
        char *room;
        uint64_t seq = 0;
        int e;

        if (body.n <= MESH_CHUNK_BYTES)
                return send_head(in, r, body.n ? body : STR_NULL);
        e = send_head(in, r, STR_NULL);
        if (!(room = arena_alloc(in->rpc->arena, MESH_CHUNK_ROOM + MESH_CHUNK_BYTES)))
                return -ENOMEM;
        while (!e && body.n) {
                size_t n = body.n < MESH_CHUNK_BYTES ? body.n : MESH_CHUNK_BYTES;
                memcpy(room + MESH_CHUNK_ROOM, body.p, n);
                e = rpc_send(in->rpc, mesh_put_chunk(room, n, seq++));
                body = str_skip(body, n);
        }
        return e;
}

static int serve_grpc(struct inbound *in)
{
        struct mesh_response resp = {0};
        struct str body, answer = STR("");
        int r = collect(in, &body);

        if (r == -EMSGSIZE)
                return too_large(in, body, &resp) ? -ENOMEM : send_whole(in, &resp, STR(""));
        if (r == -EBADMSG && in->broken)
                return channel_failed(in, in->broken);
        if (!r)
                r = ask_grpc(in, body, &resp, &answer);
        return r ? r : send_whole(in, &resp, answer);
}

/* ---- the call ---- */

/* The head was read: may the call be made? 1 = the failure is the answer. */
static int admit(struct inbound *in)
{
        struct arena *a = in->rpc->arena;
        bool is_http = !app_is_grpc(in->k->app);
        const char *why;
        struct str method = convert_method(a, in->q.method, &why);
        int code = 0;

        if (!method.p) {
                rpc_fail(in->rpc, RPC_INVALID_ARGUMENT, "invalid method: %s", why);
                return 1;
        }
        in->q.method = method;
        code = mesh_allows(in->k->mesh, in->rpc, method, is_http && in->q.has_http ? in->q.verb : 0, &why);
        if (code)
                rpc_fail(in->rpc, code, "%s", why ? why : "out of memory");
        return code != 0;
}

static void describe(const struct inbound *in)
{
        struct trace *t = trace_current();
        struct str method = in->q.method;

        if (!trace_is_recorded(t))
                return;
        while (method.n && method.p[0] == '/')
                method = str_skip(method, 1);
        trace_attr(t, "rpc.service", STR("ServiceInvocation"));
        trace_attr(t, "dapr.invoke_method", method);
        trace_rename(t, str_of(arena_printf(in->rpc->arena, "CallLocal/%s/%.*s", in->k->opts.app_id, STR_FMT(method))));
}

static int serve(struct inbound *in, int (*fn)(struct inbound *in))
{
        struct mesh_metrics *m = mesh_metrics(in->k->mesh);
        int r;

        if (admit(in))
                return 0;
        describe(in);
        in->caller = http_headers_get(&in->q.md, "dapr-caller-app-id");
        mesh_count_received(m, in->caller);
        if (app_takes_calls(in->k->app))
                r = fn(in);
        else
                r = channel_failed(in, "rpc error: code = Internal desc = app is not in a healthy state");
        mesh_count_answer_sent(m, in->caller, in->status);
        return r;
}

int mesh_call_local_stream(struct rpc_call *rpc, void *arg)
{
        struct inbound in = {.k = arg, .rpc = rpc, .seq = 1};
        struct mesh_payload payload;
        struct str msg;
        bool has_head;
        int r;

        if (!in.k->app)
                return rpc_fail(rpc, RPC_INTERNAL, "app channel is not initialized");
        r = rpc_recv(rpc, &msg);
        if (r <= 0)
                return r < 0 ? r : rpc_fail(rpc, RPC_INTERNAL, "io: EOF");
        if (mesh_read_request(rpc->arena, msg, &in.q, &has_head, &payload))
                return rpc_fail(rpc, RPC_INVALID_ARGUMENT, PARSE_ERROR, "malformed message");
        if (!has_head || !in.q.md.n || !in.q.has_message)
                return rpc_fail(rpc, RPC_INVALID_ARGUMENT, PARSE_ERROR, "request does not contain the required fields in the leading chunk");
        if (payload.present && payload.seq)
                return rpc_fail(rpc, RPC_INVALID_ARGUMENT, PARSE_ERROR, "the first piece of the body has not the number 0");
        in.seq = payload.present;
        in.piece = payload.data;
        in.has_piece = payload.data.n > 0;
        return serve(&in, app_is_grpc(in.k->app) ? serve_grpc : serve_http);
}

static int answer_whole(struct inbound *in, const struct mesh_response *resp, struct str body)
{
        struct str msg = mesh_put_whole_response(in->rpc->arena, resp, body);

        return msg.p ? rpc_send(in->rpc, msg) : -ENOMEM;
}

static int serve_whole(struct inbound *in)
{
        struct mesh_response resp = {0};
        struct app_request head;
        struct app_response answer = {0};
        struct str body = STR("");
        const char *why = app_is_grpc(in->k->app) ? NULL : http_refusal(in);
        int r;

        if (why)
                return channel_failed(in, why);
        if (app_is_grpc(in->k->app))
                return (r = ask_grpc(in, in->piece, &resp, &body)) ? r : answer_whole(in, &resp, body);
        if (http_request(in, &head, &why))
                return channel_failed(in, why);
        head.body = in->piece;
        r = app_http(in->k->app, in->rpc->arena, &head, &answer);
        if (r)
                return channel_failed(in, app_http_error(in->k->app, in->rpc->arena, &head, r));
        in->status = resp.code = answer.status;
        resp.content_type = http_headers_get(&answer.headers, "Content-Type");
        if (convert_http_to_internal(in->rpc->arena, &answer.headers, &resp.headers))
                return -ENOMEM;
        return answer_whole(in, &resp, answer.body);
}

int mesh_call_local(struct rpc_call *rpc, void *arg)
{
        struct inbound in = {.k = arg, .rpc = rpc};
        double began = loop_now_exact();
        struct str msg;
        int r;

        if (!in.k->app)
                return rpc_fail(rpc, RPC_INTERNAL, "app channel is not initialized");
        r = rpc_recv(rpc, &msg);
        if (r <= 0)
                return r < 0 ? r : rpc_fail(rpc, RPC_INTERNAL, "io: EOF");
        if (mesh_read_whole_request(rpc->arena, msg, &in.q, &in.piece))
                r = rpc_fail(rpc, RPC_INVALID_ARGUMENT, PARSE_ERROR, "malformed message");
        else if (!in.q.has_message)
                r = rpc_fail(rpc, RPC_INVALID_ARGUMENT, PARSE_ERROR, "field Message is nil");
        else
                r = serve(&in, serve_whole);
        observe_grpc_server(in.k->observe, "/dapr.proto.internals.v1.ServiceInvocation/CallLocal", r < 0 ? RPC_INTERNAL : rpc->status.code, true,
                            rpc->bytes_in, rpc->bytes_out, (loop_now_exact() - began) * 1e3);
        return r;
}
