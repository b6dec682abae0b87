/*
 * What happens when the runtime is gone. Without lingering the process ends at once. With it (the runtime's Accept said how long) the
 * process keeps its instances and its socket and serves nothing but the lifecycle, until another runtime attaches with the token, or the
 * time is over. A stop in good order is told by Drain: after that the end of the runtime is the end of the process.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "plugin/v1/lifecycle.pb-c.h"
#include "sdk/plugin/runtime.h"

enum { BACKLOG = 1024, LINGER_MAX_MS = 3600 * 1000 };

static void on_over(struct timer *t)
{
        struct lifeline *l = container_of(t, struct lifeline, timer);
        l->end(l->end_arg);
}

void sdk_lifeline_init(struct lifeline *l, pid_t runtime, void (*end)(void *arg), void *end_arg)
{
        l->runtime = runtime;
        l->end = end;
        l->end_arg = end_arg;
        timer_init(&l->timer, on_over);
}

void sdk_lifeline_told(struct runtime *rt, uint32_t linger_ms, const char *token)
{
        struct lifeline *l = &rt->lifeline;
        size_t n = strlen(token);
        if (!l->end || !linger_ms || !n || n >= sizeof l->token) {
                l->linger_s = 0;
                return;
        }
        l->linger_s = (linger_ms < LINGER_MAX_MS ? linger_ms : LINGER_MAX_MS) / 1000.0;
        memcpy(l->token, token, n + 1);
        listen(PLUGIN_FD_LISTEN, BACKLOG); /* who connects sees this process behind the socket, not the one that made it */
}

void sdk_lifeline_lost(struct runtime *rt)
{
        struct lifeline *l = &rt->lifeline;
        if (rt->draining || l->linger_s <= 0) {
                l->end(l->end_arg);
                return;
        }
        l->lost = true;
        timer_start(&l->timer, l->linger_s, 0);
}

static int say_instances(struct rpc_call *c, const struct runtime *rt)
{
        Microdapr__Plugin__V1__AttachResponse out = MICRODAPR__PLUGIN__V1__ATTACH_RESPONSE__INIT;
        size_t n = 0;
        list_for_each(pos, &rt->instances)
                n++;
        out.instances = arena_alloc(c->arena, (n + 1) * sizeof *out.instances);
        if (!out.instances)
                return -ENOMEM;
        list_for_each(pos, &rt->instances) {
                const struct instance *i = list_entry(pos, struct instance, node);
                if (i->ready)
                        out.instances[out.n_instances++] = i->name;
        }
        return rpc_send_pb(c, &out.base);
}

int sdk_attach(struct rpc_call *c, void *arg)
{
        struct runtime *rt = sdk_runtime();
        struct lifeline *l = &rt->lifeline;
        const Microdapr__Plugin__V1__AttachRequest *in;
        c->flags |= RPC_REUSE;
        if (rpc_recv_pb(c, &microdapr__plugin__v1__attach_request__descriptor, &in) != 1)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "not an AttachRequest");
        if (!l->lost)
                return rpc_fail(c, RPC_FAILED_PRECONDITION, "the process has a runtime");
        if (strcmp(in->token, l->token) != 0)
                return rpc_fail(c, RPC_PERMISSION_DENIED, "the token is another one");
        l->lost = false;
        l->runtime = (pid_t)in->pid;
        timer_stop(&l->timer);
        rpc_server_dismiss(rt->server);
        int r = say_instances(c, rt);
        while (r == 0 && rpc_recv_pb(c, &microdapr__plugin__v1__attach_request__descriptor, &in) == 1)
                ;
        sdk_lifeline_lost(rt);
        return 0;
}
