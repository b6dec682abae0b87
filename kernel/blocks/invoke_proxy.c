/*
 * gRPC proxying: a method that daprd does not serve goes, frame by frame and unread, to the app that the call's metadata name. Any kind
 * of call; metadata, trailers and status come back as the app gave them.
 *
 * Two fibers a call: this one carries the app's answers, a second one the caller's messages. The app's end is the call's end; the
 * second fiber is stopped then. When the caller breaks off, both are cancelled and the app's call with them.
 */
#include <errno.h>

#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "sdk/base/log.h"

#define CALLEE_KEY "dapr-callee-app-id"
#define APP_ID_KEY "dapr-app-id"

struct proxy {
        struct rpc_call *caller, *app;
};

static void forward_requests(void *arg)
{
        struct proxy *p = arg;
        struct str frame;
        int r;

        while ((r = rpc_recv(p->caller, &frame)) > 0)
                if (rpc_send(p->app, frame))
                        return; /* the app's status tells why */
        if (r == 0)
                rpc_send_end(p->app);
        else if (!fiber_is_cancelled())
                rpc_cancel(p->app);
}

/* 0 when the app has ended. */
static int forward_answers(struct proxy *p)
{
        struct str frame;
        int r = rpc_headers(p->app);

        if (r == 0 && p->app->md_in.n) {
                p->caller->md_out = p->app->md_in;
                r = rpc_send_headers(p->caller);
        }
        while (r == 0 && (r = rpc_recv(p->app, &frame)) > 0)
                r = rpc_send(p->caller, frame);
        return r;
}

static int run(struct proxy *p)
{
        struct scope requests;
        int r;

        p->caller->flags |= RPC_REUSE;
        p->app->flags |= RPC_REUSE;
        scope_init(&requests);
        r = fiber_go(&requests, "proxy", forward_requests, p);
        if (r == 0)
                r = forward_answers(p);
        if (r)
                rpc_cancel(p->app);
        scope_cancel(&requests);
        scope_join(&requests);
        rpc_finish(p->app);
        if (fiber_is_cancelled())
                return -ECANCELED;
        p->caller->md_trailers_out = p->app->md_trailers;
        if (p->caller->status.code || !p->app->status.code)
                return 0; /* the caller's own fault, or fine */
        return rpc_fail_details(p->caller, p->app->status.code, p->app->status.message, p->app->status.details);
}

/* The metadata that go along: all but the target's name. */
static int metadata_of(const struct rpc_call *rpc, struct rpc_mdlist *to)
{
        for (size_t i = 0; i < rpc->md_in.n; i++)
                if (!str_eqz(rpc->md_in.v[i].key, APP_ID_KEY) && rpc_md_add(to, rpc->arena, rpc->md_in.v[i].key, rpc->md_in.v[i].value))
                        return -ENOMEM;
        return 0;
}

int invoke_proxy(struct kernel *k, struct rpc_call *rpc)
{
        const struct call c = {.k = k, .arena = rpc->arena, .door = DOOR_GRPC, .rpc = rpc};
        struct proxy p = {.caller = rpc};
        struct rpc_status st = {0};
        struct rpc_mdlist md = {0};
        struct str id = rpc_md_get(&rpc->md_in, CALLEE_KEY);
        const char *why;

        if (!id.p)
                id = rpc_md_get(&rpc->md_in, APP_ID_KEY);
        if (!id.p)
                return rpc_fail(rpc, RPC_UNKNOWN, "failed to proxy request: required metadata %s or %s not found", CALLEE_KEY, APP_ID_KEY);
        if (!invoke_find(&c, id, &why))
                return rpc_fail(rpc, RPC_UNKNOWN, "%s", why);
        if (!app_is_grpc(k->app))
                return rpc_fail(rpc, RPC_UNAVAILABLE, "the app does not speak gRPC");
        if (metadata_of(rpc, &md))
                return -ENOMEM;
        if (app_grpc_open(k->app, rpc->arena, arena_strdup(rpc->arena, rpc->method), md.v, md.n, &p.app, &st))
                return rpc_fail_details(rpc, st.code, st.message, st.details);
        return run(&p);
}
