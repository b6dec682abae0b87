/*
 * InvokeService. The app's metadata comes back as the call's: of gRPC apps headers and trailers, of HTTP apps their headers and
 * "dapr-http-status". A status of an HTTP app outside 2xx becomes a gRPC code with its text as message and the body, cut off, in an
 * ErrorInfo. Every failure is one that a policy may retry; only its last metadata goes out.
 */
#include <errno.h>

#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/blocks/invoke.h"
#include "kernel/front/errors.h"
#include "kernel/front/trace_attrs.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SERVICE "/dapr.proto.runtime.v1.Dapr/InvokeService"
#define API_SCOPE "dapr.runtime.grpc.api"

enum { DETAIL_MAX = 63 };

static bool said_deprecated, said_http; /* once a process, as the reference */

static int code_of_http(int status)
{
        static const struct {
                int status, code;
        } rows[] = {{408, RPC_CANCELLED},          {500, RPC_UNKNOWN},       {400, RPC_INTERNAL},          {504, RPC_DEADLINE_EXCEEDED},
                    {404, RPC_NOT_FOUND},          {409, RPC_ALREADY_EXISTS}, {403, RPC_PERMISSION_DENIED}, {401, RPC_UNAUTHENTICATED},
                    {429, RPC_RESOURCE_EXHAUSTED}, {501, RPC_UNIMPLEMENTED}, {503, RPC_UNAVAILABLE}};

        if (status >= 200 && status < 300)
                return RPC_OK;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (rows[i].status == status)
                        return rows[i].code;
        return RPC_UNKNOWN;
}

struct service_try {
        struct call *c;
        const struct invoke_request *in;
        struct invoke_answer answer;
        const char *err; /* the call could not be made */
};

static int try_service(void *arg, struct policy_try *t)
{
        struct service_try *x = arg;

        if (invoke_whole(x->c, x->in, &x->answer, &x->err))
                return -1;
        return x->answer.is_http ? code_of_http(x->answer.code) : x->answer.code;
}

static int answer_metadata(struct call *c, const struct invoke_answer *a)
{
        struct rpc_call *rpc = c->rpc;

        rpc->md_out = a->md;
        if (!a->is_http) {
                rpc->md_trailers_out = a->trailers;
                return 0;
        }
        if (!said_http)
                log_warn(API_SCOPE, "[DEPRECATION NOTICE] Invocation path of gRPC -> HTTP is deprecated and will be removed in the future.");
        said_http = true;
        return rpc_md_add(&rpc->md_out, c->arena, STR("dapr-http-status"), str_of(arena_printf(c->arena, "%d", a->code)));
}

/* A status without details is told by code and message alone. */
static bool has_details(struct call *c, struct str status)
{
        const Google__Rpc__Status *st = status.n ? pb_unpack(c->arena, &google__rpc__status__descriptor, status) : NULL;

        return st && st->n_details;
}

/* What the app said, when it is not an answer. */
static int answer_status(struct call *c, const struct invoke_answer *a)
{
        const char *text;
        int r = rpc_send_headers(c->rpc);

        if (r)
                return r;
        if (!a->is_http)
                return rpc_fail_details(c->rpc, a->code, a->message, has_details(c, a->details) ? a->details : STR(""));
        text = arena_strdup(c->arena, str_n(a->body.p, a->body.n < DETAIL_MAX ? a->body.n : DETAIL_MAX));
        return rpc_fail_http(c->rpc, code_of_http(a->code), a->code, text ? text : "");
}

static int answer_message(struct call *c, const struct invoke_answer *a)
{
        Dapr__Proto__Common__V1__InvokeResponse out = DAPR__PROTO__COMMON__V1__INVOKE_RESPONSE__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;

        out.content_type = arena_strdup(c->arena, a->content_type);
        any.type_url = arena_strdup(c->arena, a->type_url);
        any.value = pb_bytes(a->body);
        if (a->body.n || a->type_url.n || a->too_large)
                out.data = &any;
        if (a->too_large && out.content_type && any.type_url) {
                any.value.len = a->too_large;
                int r = rpc_send_headers(c->rpc);
                return r ? r : rpc_fail(c->rpc, RPC_RESOURCE_EXHAUSTED, "grpc: trying to send message larger than max (%zu vs. %lld)", pb_size(&out.base),
                                        (long long)c->k->opts.max_body_size);
        }
        return out.content_type && any.type_url ? rpc_send_pb(c->rpc, &out.base) : -ENOMEM;
}

static int invoke(struct call *c, const char *id, const struct invoke_request *in, struct policy *policy)
{
        struct service_try x = {.c = c, .in = in};

        switch (policy_run(policy, try_service, &x)) {
        case POLICY_OK:
                return answer_metadata(c, &x.answer) ? -ENOMEM : answer_message(c, &x.answer);
        case POLICY_FAILED:
                if (x.err)
                        return call_fail(c, ERR_DIRECT_INVOKE, id, x.err);
                return answer_metadata(c, &x.answer) ? -ENOMEM : answer_status(c, &x.answer);
        case POLICY_TIMEOUT:
                return rpc_fail(c->rpc, RPC_DEADLINE_EXCEEDED, "%s", policy_result_text(POLICY_TIMEOUT));
        case POLICY_CANCELED:
                return rpc_fail(c->rpc, RPC_CANCELLED, "%s", policy_result_text(POLICY_CANCELED));
        case POLICY_OPEN:
                return rpc_fail(c->rpc, RPC_UNKNOWN, "%s", policy_result_text(POLICY_OPEN));
        case POLICY_TOO_MANY:
                return rpc_fail(c->rpc, RPC_UNKNOWN, "%s", policy_result_text(POLICY_TOO_MANY));
        }
        return -EINVAL;
}

static int serve(struct call *c)
{
        const Dapr__Proto__Common__V1__InvokeRequest none = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
        const Dapr__Proto__Runtime__V1__InvokeServiceRequest *req;
        struct invoke_request in = {.md = &c->rpc->md_in};
        const char *why = NULL;
        struct invoke_dest dest;
        struct policy policy;
        int r = rpc_recv_pb(c->rpc, &dapr__proto__runtime__v1__invoke_service_request__descriptor, &req);

        if (r != 1)
                return r < 0 ? r : rpc_fail(c->rpc, RPC_INTERNAL, "io: EOF");
        if (!said_deprecated)
                log_warn(API_SCOPE, "[DEPRECATION NOTICE] InvokeService is deprecated and will be removed in the future, please use proxy mode instead.");
        said_deprecated = true;
        if (rpc_md_add(&c->rpc->md_in, c->arena, STR(":authority"), c->rpc->authority))
                return -ENOMEM;
        in.message = req->message ? req->message : &none;
        trace_attrs_invoke(c->trace, c->arena, str_of(req->id), str_of(in.message->method));
        in.dest = &dest;
        in.method = convert_method(c->arena, str_of(in.message->method), &why);
        if (!in.method.p)
                why = arena_printf(c->arena, "rpc error: code = InvalidArgument desc = invalid method: %s", why);
        if (!in.method.p || !invoke_find(c->k, c->arena, str_of(req->id), &dest, &why))
                return call_fail(c, ERR_DIRECT_INVOKE, req->id, why ? why : "out of memory");
        invoke_policy(c, &dest, str_of(in.message->method), &policy);
        return invoke(c, req->id, &in, &policy);
}

int invoke_service(struct call *c)
{
        double began = loop_now_exact();
        int r = serve(c), code = c->failed ? c->grpc_code : r < 0 ? RPC_INTERNAL : c->rpc->status.code;

        observe_grpc_server(c->k->observe, SERVICE, code, true, c->rpc->bytes_in, c->rpc->bytes_out, (loop_now_exact() - began) * 1e3);
        return r;
}
