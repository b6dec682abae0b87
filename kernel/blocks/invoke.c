/*
 * Service invocation over HTTP (API.md 1.2): whom a request is for, and the answers that daprd makes itself. The own gRPC app is asked
 * by OnInvoke; its status becomes an HTTP status with the status as JSON. All others are relayed (invoke_relay.c).
 */
#include <errno.h>

#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/front/http.h"
#include "kernel/front/target.h"
#include "kernel/front/trace_attrs.h"
#include "sdk/base/pbjson.h"
#include "sdk/net/sniff.h"

void invoke_reply_failure(struct call *c, struct str name, int code, const char *why)
{
        if (code == RPC_PERMISSION_DENIED)
                call_fail_code(c, ERR_DIRECT_INVOKE, 403, RPC_PERMISSION_DENIED, arena_strdup(c->arena, name), why);
        else
                call_fail(c, ERR_DIRECT_INVOKE, arena_strdup(c->arena, name), why);
        reply_error(c);
}

/* ---- answers of gRPC apps ---- */

static int http_status_of(int code)
{
        static const int of[] = {200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401};

        return code >= 0 && (size_t)code < sizeof of / sizeof *of ? of[code] : 500;
}

void invoke_reply_status(struct call *c, int code, struct str message, struct str details, const struct http_headers *h)
{
        Google__Rpc__Status plain = GOOGLE__RPC__STATUS__INIT, *st = NULL;
        struct buf b = {0};

        if (details.n)
                st = pb_unpack(c->arena, &google__rpc__status__descriptor, details);
        if (!st)
                st = &plain;
        st->code = code;
        st->message = arena_strdup(c->arena, message);
        if (!st->message || pbjson_write(&b, &st->base, 0)) {
                call_fail(c, ERR_MALFORMED_RESPONSE, "the details of the app's status have no JSON form");
                reply_error(c);
        } else
                reply_bytes(c, http_status_of(code), sniff_type(buf_str(&b)).p, buf_str(&b), h->v, h->n); /* nobody says that it is JSON */
        buf_fini(&b);
}

/* ---- the own gRPC app ---- */

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

static void answer_grpc(struct call *c, struct grpc_try *x)
{
        struct http_headers headers = {0};

        if (convert_md_to_http(c->arena, &x->answer.md, &headers)) {
                invoke_reply_failure(c, x->in->dest->name, RPC_RESOURCE_EXHAUSTED, "out of memory");
        } else if (x->answer.code) {
                invoke_reply_status(c, x->answer.code, x->answer.message, x->answer.details, &headers);
        } else {
                const char *type = x->answer.type_url.n ? "application/x-protobuf" : arena_strdup(c->arena, x->answer.content_type);
                if (x->answer.body.n && (!type || !*type))
                        type = sniff_type(x->answer.body).p;
                reply_bytes(c, 200, type && *type ? type : NULL, x->answer.body, headers.v, headers.n);
        }
}

static void invoke_grpc_app(struct call *c, struct invoke_dest *dest, struct str method, struct policy *policy)
{
        Dapr__Proto__Common__V1__InvokeRequest m = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
        Dapr__Proto__Common__V1__HTTPExtension extension = DAPR__PROTO__COMMON__V1__HTTPEXTENSION__INIT;
        Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
        struct invoke_request in = {.message = &m, .method = method, .headers = &c->http->headers, .dest = dest};
        struct grpc_try x = {.c = c, .in = &in};
        enum policy_result r;
        struct str body;

        int failed = http_req_body(c->http, &body);
        if (failed) {
                policy_release(policy);
                invoke_reply_failure(c, dest->name, RPC_UNKNOWN, body_error(failed));
                return;
        }
        extension.verb = (Dapr__Proto__Common__V1__HTTPExtension__Verb)convert_verb(c->http->method);
        extension.querystring = arena_strdup(c->arena, c->http->query);
        data.value = pb_bytes(body);
        m.content_type = arena_strdup(c->arena, http_headers_get(&c->http->headers, "Content-Type"));
        m.data = &data;
        m.http_extension = &extension;
        if (!m.content_type || !extension.querystring) {
                policy_release(policy);
                invoke_reply_failure(c, dest->name, RPC_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        r = policy_run(policy, try_grpc, &x);
        if (r == POLICY_OK)
                answer_grpc(c, &x);
        else
                invoke_reply_failure(c, dest->name, RPC_UNKNOWN, r == POLICY_FAILED ? x.err : policy_result_text(r));
}

/* ---- door ---- */

static void invoke_http(struct call *c)
{
        struct str path = url_unescape(c->arena, c->http->path, false), method;
        struct invoke_target t = invoke_target_find(c->arena, path, &c->http->headers);
        struct invoke_dest dest;
        struct policy policy;
        const char *why = NULL;

        if (!t.id.n) {
                call_fail(c, ERR_DIRECT_INVOKE_NO_APP_ID);
                reply_error(c);
                return;
        }
        trace_attrs_invoke(c->trace, c->arena, t.id, t.method);
        method = convert_method(c->arena, t.method, &why);
        if (!method.p)
                why = arena_printf(c->arena, "rpc error: code = InvalidArgument desc = invalid method: %s", why);
        if (!method.p || !invoke_find(c->k, c->arena, t.id, &dest, &why)) {
                invoke_reply_failure(c, t.id, RPC_INVALID_ARGUMENT, why ? why : "out of memory");
                return;
        }
        bool own_grpc = dest.kind == INVOKE_OWN && app_is_grpc(c->k->app);
        if (dest.kind == INVOKE_OWN && !own_grpc && !app_takes_calls(c->k->app)) {
                invoke_reply_failure(c, t.id, RPC_INTERNAL, INVOKE_UNHEALTHY);
                return;
        }
        invoke_policy(c, &dest, method, &policy);
        if (own_grpc)
                invoke_grpc_app(c, &dest, method, &policy);
        else
                invoke_relay(c, &dest, method, &policy);
}

static const struct http_route routes[] = {{"*", "/v1.0/invoke/{rest...}", "invoke", "v1", "InvokeService", invoke_http, .fallback = true}};
static const struct grpc_route rows[] = {{"InvokeService", "invoke.v1", &dapr__proto__runtime__v1__invoke_service_request__descriptor,
                                          &dapr__proto__common__v1__invoke_response__descriptor, NULL, invoke_service}};
const struct block invoke_block_def = {
        .name = "invoke", .http = routes, .n_http = 1, .grpc = rows, .n_grpc = 1, .unknown = invoke_proxy};
