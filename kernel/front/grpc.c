/*
 * One call, in the reference's order: API lists, token, API log around the rest, metrics, handler. Unary calls are unpacked into the
 * call's arena, run, and packed; streams get the call.
 */
#include "kernel/front/grpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/front/api_rules.h"
#include "kernel/front/errors.h"
#include "kernel/front/trace_attrs.h"
#include "kernel/front/unconfigured.h"
#include "kernel/observe/observe.h"
#include "kernel/observe/slow.h"
#include "kernel/observe/trace.h"
#include "proto/registry.h"
#include "sdk/base/log.h"

#define SERVICE "/dapr.proto.runtime.v1.Dapr/"
#define TASK_HUB "/TaskHubSidecarService/"
#define RUNTIME_PREFIX "/dapr.proto.runtime."
#define INTERNALS_PREFIX "/dapr.proto.internals."
#define INVOKE_SERVICE SERVICE "InvokeService"
#define TOKEN_KEY "dapr-api-token"

struct grpc_entry {
        struct grpc_door *door;
        const struct pb_method *method;
        const struct grpc_route *route; /* NULL = not implemented */
};

/* ---- handlers ---- */

static int code_of(const struct rpc_call *rpc, int r)
{
        if (r >= 0)
                return rpc->status.code;
        if (rpc->status.code)
                return rpc->status.code;
        return r == -ECANCELED ? RPC_CANCELLED : r == -ETIMEDOUT ? RPC_DEADLINE_EXCEEDED : RPC_INTERNAL;
}

static int answer_failure(struct call *c)
{
        log_debug("dapr.grpc.api", "api error: code = %s desc = %.*s", rpc_code_name(c->grpc_code), STR_FMT(c->message));
        observe_error_code(c->k->observe, call_error_code(c), error_rows[c->error].category);
        return rpc_fail_details(c->rpc, c->grpc_code, c->message, error_status_details(c));
}

static int run_unary(struct call *c, const struct grpc_entry *e, size_t *req_bytes, size_t *resp_bytes)
{
        const ProtobufCMessageDescriptor *out_d = e->method->response;
        ProtobufCMessage *in, *out;
        struct str bytes;
        int r = rpc_recv(c->rpc, &bytes);

        if (r < 0)
                return r;
        if (r == 0)
                return rpc_fail(c->rpc, RPC_INTERNAL, "io: EOF"); /* half-closed without a message */
        *req_bytes = bytes.n;
        in = pb_unpack(c->arena, e->method->request, bytes);
        if (!in)
                return rpc_fail(c->rpc, RPC_INTERNAL, "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data");
        if (trace_is_recorded(c->trace))
                trace_attrs_message(c->trace, e->method->path, in);
        out = arena_alloc(c->arena, out_d->sizeof_message);
        if (!out)
                return rpc_fail(c->rpc, RPC_RESOURCE_EXHAUSTED, "out of memory");
        out_d->message_init(out);
        if (!e->route)
                call_fail(c, ERR_API_UNIMPLEMENTED);
        else if (e->route->fn(c, in, out) && !c->failed)
                call_fail(c, ERR_UNTYPED, "internal error");
        if (c->failed)
                return answer_failure(c);
        bytes = pb_pack(c->arena, out);
        if (!bytes.p)
                return rpc_fail(c->rpc, RPC_RESOURCE_EXHAUSTED, "the reply does not fit into the memory of a request");
        *resp_bytes = bytes.n;
        return rpc_send(c->rpc, bytes);
}

static int handle(struct rpc_call *rpc, void *arg)
{
        const struct grpc_entry *e = arg;
        struct call c = {.k = e->door->k, .arena = rpc->arena, .door = DOOR_GRPC, .rpc = rpc, .operation = e->method->path,
                         .method = e->route, .trace = trace_current()};
        size_t req_bytes = 0, resp_bytes = 0;
        double began = loop_now_exact();
        int r;

        if (e->route && e->route->stream) {
                r = e->route->stream(&c);
                return c.failed ? answer_failure(&c) : r;
        }
        r = run_unary(&c, e, &req_bytes, &resp_bytes);
        observe_grpc_server(c.k->observe, e->method->path, code_of(rpc, r), true, req_bytes, resp_bytes,
                            (loop_now_exact() - began) * 1e3);
        return r;
}

/* ---- table ---- */

static const struct grpc_route *route_find(const struct block *const *blocks, size_t n, const char *name)
{
        const struct grpc_route *r;

        for (size_t b = 0; b < n; b++)
                for (size_t i = 0; i < blocks[b]->n_grpc; i++)
                        if (strcmp(blocks[b]->grpc[i].method, name) == 0)
                                return &blocks[b]->grpc[i];
        for (size_t i = 0; (r = unconfigured_grpc(i)); i++)
                if (strcmp(r->method, name) == 0)
                        return r;
        return NULL;
}

int grpc_door_init(struct grpc_door *d, const struct block *const *blocks, size_t n)
{
        size_t count = 0;

        for (size_t i = 0; i < pb_methods_n; i++)
                count += str_has_prefix(str_of(pb_methods[i].path), STR(SERVICE)) ||
                         str_has_prefix(str_of(pb_methods[i].path), STR(TASK_HUB));
        for (size_t b = 0; b < n; b++)
                d->unknown = blocks[b]->unknown ? blocks[b]->unknown : d->unknown;
        d->entries = calloc(count, sizeof *d->entries);
        d->methods = calloc(count, sizeof *d->methods);
        if (!d->entries || !d->methods)
                return -ENOMEM;
        for (size_t i = 0; i < pb_methods_n; i++) {
                struct grpc_entry *e = &d->entries[d->n];
                const char *path = pb_methods[i].path;
                if (str_has_prefix(str_of(path), STR(TASK_HUB))) {
                        d->methods[d->n++] = (struct rpc_method){path, unconfigured_task_hub, NULL};
                } else if (str_has_prefix(str_of(path), STR(SERVICE))) {
                        *e = (struct grpc_entry){d, &pb_methods[i], route_find(blocks, n, path + sizeof SERVICE - 1)};
                        d->methods[d->n++] = (struct rpc_method){path, handle, e};
                }
        }
        return 0;
}

void grpc_door_fini(struct grpc_door *d)
{
        free(d->entries);
        free(d->methods);
        d->entries = NULL;
        d->methods = NULL;
}

/* ---- around each call ---- */

/* 0 = go on, 1 = answered. */
static int check_lists(const struct grpc_door *d, struct rpc_call *rpc, rpc_handler next, const void *next_arg)
{
        const struct grpc_entry *e = next_arg;
        const char *group = "";

        if (!d->filtered || !str_has_prefix(rpc->method, STR(RUNTIME_PREFIX)))
                return 0;
        if (next == handle && e->route)
                group = e->route->group;
        if (api_rules_allow_grpc(&d->k->config, group))
                return 0;
        rpc_fail_http(rpc, RPC_UNIMPLEMENTED, 501, "requested endpoint is not available");
        return 1;
}

static int check_token(const struct grpc_door *d, struct rpc_call *rpc)
{
        struct rpc_mdlist *md = &rpc->md_in;
        struct str given;
        size_t kept = 0;
        unsigned diff;

        if (!d->token.n)
                return 0;
        given = rpc_md_get(md, TOKEN_KEY);
        if (!given.p) {
                rpc_fail_http(rpc, RPC_UNAUTHENTICATED, 401, "missing api token in request metadata");
                return 1;
        }
        diff = given.n != d->token.n;
        for (size_t i = 0; i < d->token.n; i++)
                diff |= (unsigned char)d->token.p[i] ^ (unsigned char)(i < given.n ? given.p[i] : 0);
        if (diff) {
                rpc_fail_http(rpc, RPC_UNAUTHENTICATED, 401, "authentication error: api token mismatch");
                return 1;
        }
        for (size_t i = 0; i < md->n; i++)
                if (!str_eqz(md->v[i].key, TOKEN_KEY))
                        md->v[kept++] = md->v[i];
        md->n = kept;
        return 0;
}

static void log_call(const struct grpc_door *d, struct rpc_call *rpc, int code, double began)
{
        struct str agent = rpc_md_get(&rpc->md_in, "user-agent");
        char number[12], ms[24];
        struct log_field f[4];
        size_t n = 0;

        snprintf(number, sizeof number, "%d", code);
        snprintf(ms, sizeof ms, "%lld", (long long)((loop_now_exact() - began) * 1e3));
        f[n++] = (struct log_field){"method", rpc->method, false};
        f[n++] = (struct log_field){"duration", str_of(ms), true};
        f[n++] = (struct log_field){"code", str_of(number), true};
        if (agent.n)
                f[n++] = (struct log_field){"useragent", agent, false};
        log_write_always(LOG_INFO, d->info_scope, STR("gRPC API Called"), f, n);
}

/* Who is meant by a call that is proxied; p == NULL: nobody. */
static struct str target_of(const struct rpc_call *rpc)
{
        struct str id = rpc_md_get(&rpc->md_in, "dapr-callee-app-id");

        return id.p ? id : rpc_md_get(&rpc->md_in, "dapr-app-id");
}

static bool is_proxied(const struct rpc_call *rpc)
{
        return !str_has_prefix(rpc->method, STR(RUNTIME_PREFIX)) && !str_has_prefix(rpc->method, STR(INTERNALS_PREFIX)) &&
               !str_has_prefix(rpc->method, STR(TASK_HUB));
}

static enum span_kind kind_of(const struct grpc_door *d, const struct rpc_call *rpc)
{
        if (str_has_prefix(rpc->method, STR(RUNTIME_PREFIX)))
                return SPAN_CLIENT;
        return !is_proxied(rpc) || str_eqz(target_of(rpc), d->k->opts.app_id) ? SPAN_SERVER : SPAN_CLIENT;
}

/* What of the trace goes back to the caller. */
static void answer_trace(struct rpc_call *rpc, const struct trace *t)
{
        uint8_t *binary;

        if (!t->has_ctx)
                return;
        if (t->value[TRACE_BAGGAGE].n)
                rpc_md_add(&rpc->md_out, rpc->arena, STR("baggage"), t->value[TRACE_BAGGAGE]);
        if (is_proxied(rpc) || str_eq(rpc->method, STR(INVOKE_SERVICE)) || !(binary = arena_alloc(rpc->arena, TRACE_BINARY_BYTES)) || !trace_binary(t, binary))
                return;
        rpc_md_add(&rpc->md_out, rpc->arena, STR("grpc-trace-bin"), str_n(binary, TRACE_BINARY_BYTES));
}

static int logged(const struct grpc_door *d, struct rpc_call *rpc, rpc_handler next, void *next_arg)
{
        double began;
        int r;

        if (!d->info_scope)
                return next(rpc, next_arg);
        began = loop_now_exact();
        r = next(rpc, next_arg);
        log_call(d, rpc, code_of(rpc, r), began);
        return r;
}

/* Streams of the API last as long as the app likes: that is not slow. */
static bool is_stream(const struct rpc_call *rpc, rpc_handler next, const void *next_arg)
{
        const struct grpc_entry *e = next_arg;

        return next == handle && e->route && e->route->stream && !str_eq(rpc->method, STR(INVOKE_SERVICE));
}

/* Who names an app asks that app what it serves, not the sidecar. */
static bool is_app_reflection(const struct rpc_call *rpc)
{
        return str_has_prefix(rpc->method, STR("/grpc.reflection.")) && target_of(rpc).p;
}

int grpc_door_intercept(struct rpc_call *rpc, rpc_handler next, void *next_arg, void *arg)
{
        const struct grpc_door *d = arg;
        double began = loop_now_exact();
        struct trace trace;
        const char *why;
        int r;

        if (check_lists(d, rpc, next, next_arg) || check_token(d, rpc))
                return 0;
        if (is_app_reflection(rpc)) {
                next = grpc_door_unknown;
                next_arg = arg;
        }
        why = trace_begin_grpc(&trace, d->k->tracer, rpc->arena, &rpc->md_in, kind_of(d, rpc), rpc->method);
        if (why)
                return rpc_fail(rpc, RPC_INVALID_ARGUMENT, "%s", why);
        answer_trace(rpc, &trace);
        trace_install(&trace);
        r = logged(d, rpc, next, next_arg);
        trace_install(NULL);
        if (!is_stream(rpc, next, next_arg))
                slow_note(d->k->slow, &(struct slow_request){"grpc", STR(""), rpc->method, code_of(rpc, r), (loop_now_exact() - began) * 1e3, &trace});
        if (trace_is_recorded(&trace)) {
                int code = code_of(rpc, r);
                trace_attrs_grpc(&trace, rpc, is_proxied(rpc));
                trace_status_grpc(&trace, code, rpc->status.message.n ? rpc->status.message : str_of(rpc_code_name(code)));
        }
        trace_end(&trace);
        return r;
}

/* The reference counts proxied calls that name their app by dapr-app-id: those of apps as served, those of other sidecars as sent. */
static int counted(const struct grpc_door *d, struct rpc_call *rpc)
{
        double began = loop_now_exact();
        int r = d->unknown(d->k, rpc);
        const char *method;

        if (!rpc_md_get(&rpc->md_in, "dapr-app-id").p || !(method = arena_strdup(rpc->arena, rpc->method)))
                return r;
        if (d->is_internal)
                observe_grpc_proxied(d->k->observe, method, code_of(rpc, r), (loop_now_exact() - began) * 1e3);
        else
                observe_grpc_server(d->k->observe, method, code_of(rpc, r), false, 0, 0, (loop_now_exact() - began) * 1e3);
        return r;
}

/* With tracing the reference looks for the target before its proxy does, and words it otherwise. */
int grpc_door_unknown(struct rpc_call *rpc, void *arg)
{
        const struct grpc_door *d = arg;
        bool traced = !tracer_is_off(d->k->tracer), has_target = target_of(rpc).p != NULL;

        if (!has_target && d->is_internal && str_has_prefix(rpc->method, STR("/dapr.proto.internals.v1.ServiceInvocation/")))
                return rpc_fail(rpc, RPC_UNIMPLEMENTED, "service invocation is not served by this version");
        if (!has_target && traced && !str_has_prefix(rpc->method, STR("/dapr.proto.")) && !str_has_prefix(rpc->method, STR(TASK_HUB)))
                return rpc_fail(rpc, RPC_UNKNOWN, "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata");
        if (!d->unknown)
                return rpc_fail(rpc, RPC_UNKNOWN, "failed to proxy request: proxy not initialized; daprd startup may be incomplete");
        return counted(d, rpc);
}
