/*
 * Calls with bodies held whole, as InvokeService and HTTP calls of the own gRPC app need them: the own app (HTTP apps by verb, path and
 * query, gRPC apps by OnInvoke), apps behind other sidecars, and HTTP servers outside.
 */
#include <errno.h>

#include "google/rpc/status.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/mesh/endpoints.h"
#include "kernel/mesh/mesh_metrics.h"
#include "sdk/base/loop.h"

#define ON_INVOKE "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
#define STATUS_ERROR(code, text) "rpc error: code = " code " desc = " text

typedef Dapr__Proto__Common__V1__InvokeResponse invoke_response;

static int out_of_memory(const char **ret_err)
{
        *ret_err = "out of memory";
        return RPC_RESOURCE_EXHAUSTED;
}

/* ---- the own app ---- */

static bool is_traced(struct str key)
{
        return str_eqz(key, "traceparent") || str_eqz(key, "tracestate") || str_eqz(key, "grpc-trace-bin") || str_eqz(key, "destination-app-id");
}

static int md_of(struct arena *a, const struct invoke_request *in, struct rpc_mdlist *to)
{
        if (in->headers)
                return convert_http_to_md(a, in->headers, false, to);
        for (size_t i = 0; i < in->md->n; i++)
                if (!is_traced(in->md->v[i].key) && rpc_md_add(to, a, in->md->v[i].key, in->md->v[i].value))
                        return -ENOMEM;
        return 0;
}

static int whole_grpc(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        Dapr__Proto__Common__V1__InvokeRequest req = *in->message;
        struct rpc_mdlist md = {0};
        struct rpc_status st = {0};
        struct app_grpc_md answer = {0};
        invoke_response *resp;

        req.method = arena_strdup(c->arena, in->method);
        if (!req.method || md_of(c->arena, in, &md))
                return out_of_memory(ret_err);
        out->code = app_grpc_md(c->k->app, c->arena, ON_INVOKE, &req.base, &dapr__proto__common__v1__invoke_response__descriptor, &resp, md.v,
                                md.n, &answer, &st);
        out->md = answer.headers;
        out->trailers = answer.trailers;
        if (out->code) {
                out->message = st.message;
                out->details = st.details;
                return 0;
        }
        out->content_type = str_of(resp->content_type);
        if (resp->data) {
                out->type_url = str_of(resp->data->type_url);
                out->body = pb_str(resp->data->value);
        }
        return 0;
}

/* Path, headers and content type of the request for an HTTP server. 0, or < 0 with a sentence. */
static int http_request(struct call *c, const struct invoke_request *in, const char *base, struct app_request *ret, struct http_headers *headers,
                        const char **ret_err)
{
        const Dapr__Proto__Common__V1__InvokeRequest *m = in->message;
        const Dapr__Proto__Common__V1__HTTPExtension *x = m->http_extension;
        bool has_type = m->data && *m->data->type_url;

        *ret = (struct app_request){.method = str_of(convert_verbs[x->verb]),
                                    .path = convert_path(c->arena, base, in->method, str_of(x->querystring), ret_err),
                                    .content_type = has_type ? STR("application/x-protobuf") : str_of(m->content_type),
                                    .body = m->data ? pb_str(m->data->value) : STR("")};
        if (!ret->body.p)
                ret->body = STR("");
        if (!ret->path.p)
                return -EINVAL;
        *ret_err = "out of memory";
        if (convert_md_to_http(c->arena, in->md, headers))
                return -ENOMEM;
        ret->headers = headers->v;
        ret->n_headers = headers->n;
        return 0;
}

static int http_answer(struct call *c, int status, const struct http_headers *headers, struct str body, struct invoke_answer *out, const char **ret_err)
{
        out->is_http = true;
        out->code = status;
        out->content_type = http_headers_get(headers, "Content-Type");
        out->body = body;
        return convert_http_to_md(c->arena, headers, true, &out->md) ? out_of_memory(ret_err) : 0;
}

static int whole_http(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        struct http_headers headers = {0};
        struct app_request req;
        struct app_response resp = {0};
        int r;

        if (http_request(c, in, app_base_url(c->k->app), &req, &headers, ret_err))
                return RPC_INTERNAL;
        *ret_err = NULL;
        r = app_http(c->k->app, c->arena, &req, &resp);
        if (!r)
                return http_answer(c, resp.status, &resp.headers, resp.body, out, ret_err);
        *ret_err = app_http_error(c->k->app, c->arena, &req, r);
        return RPC_UNKNOWN;
}

static const char *http_refusal(const struct invoke_request *in)
{
        const Dapr__Proto__Common__V1__HTTPExtension *x = in->message->http_extension;

        if (!x)
                return STATUS_ERROR("InvalidArgument", "missing HTTP extension field");
        if (x->verb <= 0 || (int)x->verb >= CONVERT_VERBS || (int)x->verb == CONVERT_CONNECT)
                return STATUS_ERROR("InvalidArgument", "invalid HTTP verb");
        return NULL;
}

static int whole_own(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        bool is_grpc = app_is_grpc(c->k->app);

        *ret_err = is_grpc ? NULL : http_refusal(in);
        if (!*ret_err && !app_takes_calls(c->k->app))
                *ret_err = INVOKE_UNHEALTHY;
        if (*ret_err)
                return RPC_INTERNAL;
        return is_grpc ? whole_grpc(c, in, out, ret_err) : whole_http(c, in, out, ret_err);
}

/* ---- a server outside ---- */

static int exchange_outside(struct call *c, struct endpoint *e, struct endpoint_request *q, struct invoke_answer *out, const char **ret_err)
{
        int64_t limit = c->k->opts.max_body_size;
        struct http_headers kept = {0};
        struct http_exchange *x = NULL;
        struct str body = STR("");
        int status = 0, r = endpoint_open(e, c->arena, q, &x);

        if (!r)
                r = http_exchange_response(x);
        if (!r)
                r = endpoint_redirect(e, c->arena, q, &x);
        if (!r)
                r = http_exchange_body(x, c->arena, limit > 0 ? (size_t)limit : SIZE_MAX, &body);
        for (size_t i = 0; !r && i < x->headers.n; i++) {
                struct str name = arena_str(c->arena, x->headers.v[i].name), value = arena_str(c->arena, x->headers.v[i].value);
                r = name.p && value.p ? http_headers_add(&kept, c->arena, name, value) : -ENOMEM;
        }
        if (x)
                status = x->status;
        http_exchange_close(x);
        if (!r)
                return http_answer(c, status, &kept, body, out, ret_err);
        *ret_err = endpoint_error(e, c->arena, q, r);
        return RPC_UNKNOWN;
}

static int whole_outside(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        struct http_headers headers = {0};
        struct app_request req;
        struct endpoint_request q;
        struct endpoint *e;
        int r;

        if ((*ret_err = http_refusal(in)))
                return RPC_INTERNAL;
        e = endpoint_get(c->k->endpoints, c->arena, in->dest->id, ret_err);
        if (!e) {
                *ret_err = *ret_err ? *ret_err : "the HTTP endpoint is gone";
                return RPC_INVALID_ARGUMENT;
        }
        if (http_request(c, in, arena_strdup(c->arena, endpoint_base_url(e)), &req, &headers, ret_err) ||
            (req.content_type.n && http_headers_add(&headers, c->arena, STR("Content-Type"), req.content_type))) {
                endpoint_put(e);
                return RPC_INTERNAL;
        }
        *ret_err = NULL;
        q = (struct endpoint_request){.method = req.method, .path = req.path, .headers = headers.v, .n_headers = headers.n, .body = req.body};
        r = exchange_outside(c, e, &q, out, ret_err);
        endpoint_request_fini(&q);
        endpoint_put(e);
        return r;
}

/* ---- an app behind another sidecar ---- */

static int remote_request(struct call *c, const struct invoke_request *in, struct mesh_request *ret)
{
        const Dapr__Proto__Common__V1__InvokeRequest *m = in->message;
        const Dapr__Proto__Common__V1__HTTPExtension *x = m->http_extension;

        *ret = (struct mesh_request){.method = in->method,
                                     .content_type = str_of(m->content_type),
                                     .type_url = m->data ? str_of(m->data->type_url) : STR(""),
                                     .has_message = true,
                                     .has_http = x != NULL,
                                     .query = x ? str_of(x->querystring) : STR(""),
                                     .verb = x ? (int)x->verb : 0};
        if (in->headers ? convert_http_to_internal(c->arena, in->headers, &ret->md) : convert_md_to_internal(c->arena, in->md, &ret->md))
                return -ENOMEM;
        return mesh_hop(c->k->mesh, c->arena, in->dest->id, &ret->md);
}

/* The answer's body; over --max-body-size its length only. 0, -ENOMEM, or the call's failure. */
static int read_all(struct call *c, struct mesh_call *m, struct str *ret, size_t *ret_too_large)
{
        int64_t limit = c->k->opts.max_body_size;
        size_t max = limit > 0 ? (size_t)limit : SIZE_MAX, n = 0, cap = 0;
        struct str piece;
        char *p = NULL;
        int r;

        while ((r = mesh_call_read(m, &piece)) > 0) {
                if (n > max || piece.n > max - n) {
                        n += piece.n;
                        continue; /* counted: the failure tells how long it is */
                }
                if (n + piece.n > cap) {
                        size_t want = cap * 2 > n + piece.n ? cap * 2 : n + piece.n;
                        if (!(p = arena_grow(c->arena, p, n, want)))
                                return -ENOMEM;
                        cap = want;
                }
                memcpy(p + n, piece.p, piece.n);
                n += piece.n;
        }
        *ret = n && n <= max ? str_n(p, n) : STR("");
        *ret_too_large = n > max ? n : 0;
        return r;
}

/* The app's status, when it says more than code and message. */
static struct str details_of(struct call *c, struct str status)
{
        Google__Rpc__Status *st = status.n ? pb_unpack(c->arena, &google__rpc__status__descriptor, status) : NULL;

        return st && st->n_details ? status : STR("");
}

static int remote_answer(struct call *c, struct mesh_call *m, struct invoke_answer *out, const char **ret_err)
{
        const struct mesh_response *r = &m->answer;
        int e;

        out->is_http = r->code >= 100;
        out->code = r->code;
        out->message = r->message;
        out->details = r->code > 0 && r->code < 100 ? details_of(c, r->status) : STR("");
        out->content_type = r->content_type;
        out->type_url = r->type_url;
        if (convert_internal_to_md(c->arena, &r->headers, &out->md) || convert_internal_to_md(c->arena, &r->trailers, &out->trailers))
                return out_of_memory(ret_err);
        e = read_all(c, m, &out->body, &out->too_large);
        if (e)
                *ret_err = e == -ENOMEM ? "out of memory" : invoke_status_text(c->arena, &m->status);
        return e ? RPC_UNKNOWN : 0;
}

struct remote_try {
        struct call *c;
        const struct invoke_request *in;
        struct invoke_answer *out;
        struct mesh_request request;
        const char *err;
        unsigned attempt;
        int code;
        bool failed_before;
};

static int failed(struct remote_try *x, const struct rpc_status *st)
{
        x->err = invoke_status_text(x->c->arena, st);
        x->failed_before = invoke_is_transient(st->code);
        return st->code;
}

static int ask_remote(struct remote_try *x)
{
        struct call *c = x->c;
        struct invoke_dest *d = x->in->dest;
        const Dapr__Proto__Common__V1__InvokeRequest *m = x->in->message;
        struct mesh_target t = {.id = d->id, .ns = d->ns};
        struct mesh_metrics *metrics = mesh_metrics(c->k->mesh);
        struct rpc_status st = {0};
        struct mesh_call *call;
        double began = loop_now_exact();
        int code = invoke_locate(c->k, c->arena, d, x->failed_before, &x->err);

        if (code)
                return code;
        t.address = str_of(d->address);
        mesh_count_sent(metrics, t.id, false);
        if (mesh_call_open(c->k->mesh, c->arena, &t, &x->request, m->data && m->data->value.len ? pb_str(m->data->value) : STR(""), true, &call, &st))
                return failed(x, &st);
        code = mesh_call_answer(call);
        if (code) {
                failed(x, &call->status);
        } else {
                mesh_count_answered(metrics, t.id, call->answer.code, false, (loop_now_exact() - began) * 1e3);
                code = remote_answer(c, call, x->out, &x->err);
        }
        mesh_call_close(call, x->failed_before);
        return code;
}

static int try_remote(void *arg, struct policy_try *t)
{
        struct remote_try *x = arg;

        x->attempt++;
        x->failed_before = x->attempt > 1;
        x->code = ask_remote(x);
        t->permanent = !invoke_is_transient(x->code);
        return x->code;
}

static int whole_remote(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        struct remote_try x = {.c = c, .in = in, .out = out};
        struct policy builtin;
        enum policy_result r;
        int e = remote_request(c, in, &x.request);

        if (e) {
                *ret_err = e == -ELOOP ? "the request has passed too many sidecars: a loop of invocations" : "out of memory";
                return e == -ELOOP ? RPC_ABORTED : RPC_RESOURCE_EXHAUSTED;
        }
        if (invoke_has_own_retries(c, in->dest)) {
                resiliency_builtin(c->k, POLICY_SERVICE_RETRIES, &builtin);
                r = policy_run(&builtin, try_remote, &x);
        } else {
                r = try_remote(&x, &(struct policy_try){.attempt = 1}) ? POLICY_FAILED : POLICY_OK;
        }
        if (r == POLICY_OK)
                return 0;
        *ret_err = x.err;
        if (r == POLICY_FAILED && invoke_is_transient(x.code) && invoke_has_own_retries(c, in->dest))
                *ret_err = arena_printf(c->arena, "failed to invoke target %.*s after %u retries. Error: %s", STR_FMT(in->dest->id), x.attempt - 1, x.err);
        else if (r != POLICY_FAILED)
                *ret_err = policy_result_text(r);
        return x.code ? x.code : RPC_UNKNOWN;
}

int invoke_whole(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        *out = (struct invoke_answer){0};
        *ret_err = NULL;
        switch (in->dest->kind) {
        case INVOKE_OWN:
                return whole_own(c, in, out, ret_err);
        case INVOKE_REMOTE:
                return whole_remote(c, in, out, ret_err);
        case INVOKE_ENDPOINT:
                return whole_outside(c, in, out, ret_err);
        }
        return RPC_INTERNAL;
}
