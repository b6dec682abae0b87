/*
 * gRPC proxying: a method that daprd does not serve goes, frame by frame and unread, to the app that the call's metadata name: to the own
 * app, or to its sidecar, which does the same. Any kind of call; metadata, trailers and status come back as the app gave them.
 *
 * A caller that has said all when its call arrives needs one fiber. Else there are two: this one carries the app's answers, a second one
 * the caller's messages. The app's end is the call's end; the second fiber is stopped then. When the caller breaks off, both are
 * cancelled and the app's call with them.
 *
 * Policies and counters go by the caller's "dapr-app-id", which the callee's sidecar does not see. With retries the first message is kept for the next try; a second one makes the call a
 * stream, which cannot be tried again, unless metadata "dapr-stream" say so from the start: then policies cover its opening only.
 */
#include <errno.h>

#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/mesh/mesh_metrics.h"
#include "kernel/observe/trace.h"
#include "sdk/base/loop.h"

#define CALLEE_KEY "dapr-callee-app-id"
#define CALLER_KEY "dapr-caller-app-id"
#define APP_ID_KEY "dapr-app-id"
#define STREAM_KEY "dapr-stream"
#define NO_STREAM_RETRIES "cannot use resiliency policies with retries on streaming RPCs"

enum { PROXY_HOPS_MAX = 16 }; /* sidecars that one call may pass */

struct proxy {
        struct kernel *k;
        struct rpc_call *caller, *app;
        struct invoke_dest dest;
        struct rpc_mdlist md;
        struct peer_link *link;      /* to another sidecar */
        struct str counted;          /* app id for the metrics; n == 0: not counted */
        double began;
        bool is_stream, keeps_first; /* by "dapr-stream"; a policy with retries */
        bool has_first, caller_ended, headers_sent, violated;
        struct str first;
        struct rpc_status status;    /* of the last try, when the app was not reached */
};

/* ---- frames ---- */

/* The caller's message on its way: may it be passed on? */
static bool keep_first(struct proxy *p, struct str *frame)
{
        if (!p->keeps_first)
                return true;
        p->violated = p->has_first;
        if (p->violated)
                return false;
        p->first = arena_str(p->caller->arena, *frame);
        p->has_first = p->first.p != NULL;
        *frame = p->first;
        return p->has_first;
}

static void forward_requests(void *arg)
{
        struct proxy *p = arg;
        struct str frame;
        int r = 0;

        if (p->has_first && rpc_send(p->app, p->first))
                return;
        while (!p->caller_ended && (r = rpc_recv(p->caller, &frame)) > 0) {
                if (!keep_first(p, &frame)) {
                        rpc_cancel(p->app);
                        return;
                }
                if (rpc_send(p->app, frame))
                        return; /* the app's status tells why */
        }
        if (r == 0) {
                p->caller_ended = true;
                rpc_send_end(p->app);
        } else if (!fiber_is_cancelled()) {
                rpc_cancel(p->app);
        }
}

/* 0 when the app has ended. */
static int forward_answers(struct proxy *p)
{
        struct str frame;
        int r = rpc_headers(p->app);

        if (r == 0 && p->app->md_in.n && !p->headers_sent) {
                p->caller->md_out = p->app->md_in;
                p->headers_sent = !p->keeps_first; /* else they wait for a message: a status alone may be tried again */
                r = p->keeps_first ? 0 : rpc_send_headers(p->caller);
        }
        while (r == 0 && (r = rpc_recv(p->app, &frame)) > 0) {
                p->headers_sent = true;
                r = rpc_send(p->caller, frame);
        }
        return r;
}

/* 0: the app's status is the answer (p->app->status). < 0: this fiber's own end. */
static int run(struct proxy *p)
{
        struct scope requests;
        int r = 0;

        p->caller->flags |= RPC_REUSE;
        p->app->flags |= RPC_REUSE;
        scope_init(&requests);
        if (p->caller_ended || rpc_peer_ended(p->caller))
                forward_requests(p);
        else
                r = fiber_go(&requests, "proxy", forward_requests, p);
        if (r == 0)
                r = forward_answers(p);
        if (r)
                rpc_cancel(p->app);
        scope_cancel(&requests);
        scope_join(&requests);
        rpc_finish(p->app);
        return fiber_is_cancelled() ? -ECANCELED : 0;
}

static int answer(struct proxy *p)
{
        if (p->violated)
                return rpc_fail(p->caller, RPC_FAILED_PRECONDITION, NO_STREAM_RETRIES);
        if (p->caller->status.code)
                return 0; /* the caller's own fault */
        if (!p->app)
                return rpc_fail_details(p->caller, p->status.code, p->status.message, p->status.details);
        p->caller->md_trailers_out = p->app->md_trailers;
        if (!p->app->status.code)
                return 0;
        return rpc_fail_details(p->caller, p->app->status.code, p->app->status.message, p->app->status.details);
}

/* ---- one try ---- */

static void count_answered(struct proxy *p, int code)
{
        if (p->counted.n)
                mesh_count_answered(mesh_metrics(p->k->mesh), p->counted, code, p->is_stream, (loop_now_exact() - p->began) * 1e3);
}

static int refused(struct proxy *p, int code, const char *why)
{
        p->status = (struct rpc_status){.code = code, .message = str_of(why ? why : "out of memory")};
        return code;
}

/* May the own app be called so? */
static int check_own(struct proxy *p)
{
        struct rpc_call *rpc = p->caller;
        const char *why;
        struct str method = convert_method(rpc->arena, rpc->method, &why);
        int code;

        if (!method.p)
                return refused(p, RPC_INVALID_ARGUMENT, arena_printf(rpc->arena, "invalid method: %s", why));
        code = mesh_allows(p->k->mesh, rpc, method, 0, &why);
        return code ? refused(p, code, why) : 0;
}

static int open_own(struct proxy *p)
{
        struct rpc_call *rpc = p->caller;

        if (!p->k->app || !app_is_grpc(p->k->app))
                return refused(p, RPC_UNAVAILABLE, p->k->app ? "the app does not speak gRPC" : "there is no app: app channel not initialized");
        return app_grpc_open(p->k->app, rpc->arena, arena_strdup(rpc->arena, rpc->method), p->md.v, p->md.n, &p->app, &p->status);
}

/* The gRPC code, with p->status. */
static int open_remote(struct proxy *p, bool again)
{
        struct rpc_call *rpc = p->caller;
        const struct rpc_opts o = {.md = p->md.v, .n_md = p->md.n};
        const char *why;
        int code = invoke_locate(p->k, rpc->arena, &p->dest, again, &why);

        if (code)
                return refused(p, code, why);
        code = peers_get(mesh_peers(p->k->mesh), str_of(p->dest.address), p->dest.ns, p->dest.id, &p->link, &p->status);
        if (code)
                return code;
        code = rpc_open(peers_channel(p->link), rpc->arena, arena_strdup(rpc->arena, rpc->method), &o, &p->app, &p->status);
        if (!code)
                return 0;
        if (invoke_is_transient(code))
                peers_retire(p->link);
        else
                peers_put(p->link);
        p->link = NULL;
        return code;
}

/* As the reference: a connection to a sidecar that cannot be made is tried once more at once, if need be elsewhere. */
static int open_call(struct proxy *p)
{
        bool is_own = p->dest.kind == INVOKE_OWN;
        int code;

        p->app = NULL;
        p->began = loop_now_exact();
        if (is_own && (code = check_own(p)))
                return code;
        if (p->counted.n)
                mesh_count_sent(mesh_metrics(p->k->mesh), p->counted, p->is_stream);
        code = is_own ? open_own(p) : open_remote(p, false);
        if (!is_own && invoke_is_transient(code))
                code = open_remote(p, true);
        if (code)
                count_answered(p, code);
        return code;
}

static int run_call(struct proxy *p)
{
        int r = run(p);

        if (p->link)
                peers_put(p->link);
        p->link = NULL;
        count_answered(p, p->violated ? RPC_FAILED_PRECONDITION : r ? RPC_CANCELLED : p->app->status.code);
        return r;
}

static int try_call(void *arg, struct policy_try *t)
{
        struct proxy *p = arg;
        int code = open_call(p), r;

        if (code || p->is_stream)
                return code;
        r = run_call(p);
        t->permanent = p->violated || p->headers_sent;
        t->code = r ? 0 : p->app->status.code;
        return r ? r : p->violated ? -EINVAL : p->app->status.code;
}

/* ---- the call ---- */

static int policy_failed(struct proxy *p, enum policy_result r)
{
        int code = r == POLICY_TIMEOUT ? RPC_DEADLINE_EXCEEDED : r == POLICY_CANCELED ? RPC_CANCELLED : RPC_UNKNOWN;

        return rpc_fail(p->caller, code, "%s", policy_result_text(r));
}

static int proxy_with_policy(struct proxy *p)
{
        struct call c = {.k = p->k, .arena = p->caller->arena, .door = DOOR_GRPC, .rpc = p->caller};
        struct str stream = rpc_md_get(&p->caller->md_in, STREAM_KEY);
        struct policy policy = {0};
        enum policy_result r;
        int e = 0;

        p->is_stream = stream.n && parse_truthy(arena_strdup(p->caller->arena, stream));
        if (p->counted.n)
                invoke_policy(&c, &p->dest, p->caller->method, &policy);
        p->keeps_first = !p->is_stream && policy_has_retries(&policy);
        r = policy_run(&policy, try_call, p);
        if (r != POLICY_OK && r != POLICY_FAILED)
                return policy_failed(p, r);
        if (p->is_stream && p->app)
                e = run_call(p);
        return e || fiber_is_cancelled() ? -ECANCELED : answer(p);
}

/* ---- door ---- */

static bool is_trace(struct str key)
{
        return str_eqz(key, "traceparent") || str_eqz(key, "tracestate") || str_eqz(key, "grpc-trace-bin");
}

/* The metadata that go along: all but the target's name; to another sidecar with the call's own trace. 0, -ELOOP, -ENOMEM. */
static int metadata_of(struct proxy *p)
{
        struct rpc_call *rpc = p->caller;
        const struct trace *t = trace_current();
        bool traced = p->dest.kind != INVOKE_OWN && t && t->has_ctx;
        size_t hops = 0;

        for (size_t i = 0; i < rpc->md_in.n; i++) {
                const struct rpc_md *md = &rpc->md_in.v[i];
                hops += str_eqz(md->key, CALLER_KEY);
                if (traced && is_trace(md->key))
                        continue;
                if (!str_eqz(md->key, APP_ID_KEY) && rpc_md_add(&p->md, rpc->arena, md->key, md->value))
                        return -ENOMEM;
        }
        if (p->dest.kind == INVOKE_OWN)
                return 0;
        if (hops >= PROXY_HOPS_MAX)
                return -ELOOP;
        if (traced && mesh_trace(rpc->arena, &p->md))
                return -ENOMEM;
        return rpc_md_add(&p->md, rpc->arena, STR(CALLER_KEY), str_of(p->k->opts.app_id)) ||
                               rpc_md_add(&p->md, rpc->arena, STR(CALLEE_KEY), p->dest.id)
                       ? -ENOMEM
                       : 0;
}

static int proxy_to(struct kernel *k, struct rpc_call *rpc, struct str id)
{
        struct proxy p = {.k = k, .caller = rpc, .counted = rpc_md_get(&rpc->md_in, APP_ID_KEY)};
        const char *why = NULL;
        int r;

        if (!invoke_find(k, rpc->arena, id, &p.dest, &why) && p.dest.kind != INVOKE_OWN)
                return rpc_fail(rpc, RPC_UNKNOWN, "%s", why ? why : "out of memory");
        if (p.dest.kind == INVOKE_ENDPOINT)
                return rpc_fail(rpc, RPC_UNKNOWN, "%.*s is an HTTP endpoint: gRPC methods cannot be proxied to it", STR_FMT(id));
        r = metadata_of(&p);
        if (r == -ELOOP)
                return rpc_fail(rpc, RPC_ABORTED, "the call has passed %d sidecars: a loop of invocations", PROXY_HOPS_MAX);
        if (r)
                return r;
        return proxy_with_policy(&p);
}

int invoke_proxy(struct kernel *k, struct rpc_call *rpc)
{
        struct str id = rpc_md_get(&rpc->md_in, CALLEE_KEY);

        if (!id.p)
                id = rpc_md_get(&rpc->md_in, APP_ID_KEY);
        if (!id.p)
                return rpc_fail(rpc, RPC_UNKNOWN, "failed to proxy request: required metadata %s or %s not found", CALLEE_KEY, APP_ID_KEY);
        return proxy_to(k, rpc, id);
}
