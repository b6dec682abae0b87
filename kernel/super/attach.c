/*
 * A process that ran before this kernel did: one of this kernel's program before, which only needs another connection, or one of a kernel
 * that crashed. That one is attached, with the token that its kernel gave it, and says Hello again; it hangs on the stream of Attach from
 * then on. One that does not let itself be attached is killed.
 */
#include <errno.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/ledger.h"
#include "kernel/super/plugin.h"
#include "plugin/v1/lifecycle.pb-c.h"

enum { ATTACH_TRIES = 50, ATTACH_PAUSE_MS = 20 };

#define LIFECYCLE "/microdapr.plugin.v1.Lifecycle/"

typedef Microdapr__Plugin__V1__AttachResponse attached_t;

/* Instances that it does not hold after all are not looked for in it. */
static void note_attached(struct plugin *p, const attached_t *m)
{
        for (size_t i = 0; p->adopted && i < p->adopted->n_instances; i++) {
                struct ledger_instance *e = &p->adopted->instances[i];
                bool held = false;
                for (size_t k = 0; k < m->n_instances; k++)
                        held |= strcmp(m->instances[k], e->name) == 0;
                if (!held)
                        e->name = "";
        }
}

/* Opens the stream on which the process hangs from now on. It may not have noticed yet that its kernel is gone. 0 or the gRPC code. */
static int attach(struct life *l, struct arena *a, struct rpc_status *st)
{
        Microdapr__Plugin__V1__AttachRequest req = MICRODAPR__PLUGIN__V1__ATTACH_REQUEST__INIT;
        struct rpc_opts o = {.flags = RPC_REUSE};
        const attached_t *m;
        req.token = l->token;
        req.kernel_version = DAPR_VERSION;
        req.pid = (uint32_t)getpid();
        for (int i = 0; i < ATTACH_TRIES; i++) {
                struct rpc_call *c;
                int r = rpc_open(l->ch, a, LIFECYCLE "Attach", &o, &c, st);
                if (r)
                        return r;
                if (rpc_send_pb(c, &req.base) == 0 && rpc_recv_pb(c, &microdapr__plugin__v1__attach_response__descriptor, &m) == 1) {
                        note_attached(l->plugin, m);
                        l->lifeline = c;
                        return 0;
                }
                r = rpc_finish(c);
                *st = c->status;
                if (l->ended || r != RPC_FAILED_PRECONDITION || fiber_sleep(ATTACH_PAUSE_MS / 1000.0))
                        return r ? r : RPC_UNKNOWN;
        }
        return RPC_FAILED_PRECONDITION;
}

/* Until the stream ends. */
static void hang_on(struct life *l)
{
        const attached_t *m;
        struct rpc_call *c = l->lifeline;
        while (!l->ended && rpc_recv_pb(c, &microdapr__plugin__v1__attach_response__descriptor, &m) == 1)
                ;
        l->lifeline = NULL;
        rpc_finish(c);
        if (!l->ended && !c->status.transport && l->plugin->state != PLUGIN_DRAINING) {
                plugin_set_error(l->plugin, "ended its attach stream (%s: %.*s)", rpc_code_name(c->status.code), STR_FMT(c->status.message));
                life_kill(l, DEATH_PROTOCOL);
        }
}

static void resume_attached(struct life *l, struct arena *a)
{
        struct plugin *p = l->plugin;
        struct rpc_status st = {0};
        const char *why = life_check_again(l, a);
        int r = why || l->ended ? 0 : attach(l, a, &st);
        if (l->ended)
                return;
        if (!why)
                why = r ? arena_printf(a, "Attach was answered with %s (%.*s)", rpc_code_name(r), STR_FMT(st.message)) : life_hello_again(l, a);
        if (l->ended)
                return;
        if (why) {
                log_warn(SUPER_SCOPE, "plugin %s, process %d, of the daprd before is not taken over: %s", p->name, (int)l->pid, why);
                plugin_set_error(p, "could not be taken over: %s", why);
                life_kill(l, DEATH_PROTOCOL);
        } else {
                timer_stop(&l->start_timer);
                plugin_event(p, EV_READY);
                life_health_start(l);
        }
        if (l->lifeline)
                hang_on(l);
}

static void resume_fiber(void *arg)
{
        struct life *l = arg;
        struct arena a;
        arena_init(&a, 4 * 1024 * 1024);
        int r = rpc_channel_connect(l->ch);
        if (!l->ended && r) {
                plugin_set_error(l->plugin, "cannot be reached by the daprd that took it over: %s", strerrordesc_np(-r));
                plugin_event(l->plugin, EV_LOST);
        } else if (!l->ended && l->attached) {
                resume_attached(l, &a);
        } else if (!l->ended) {
                plugin_event(l->plugin, EV_READY);
                life_health_start(l);
        }
        if (l->lifeline) /* the life ended while it was opened */
                hang_on(l);
        arena_fini(&a);
        life_unref(l);
}

int life_resume_start(struct life *l)
{
        return life_go(l, "plugin-resume", resume_fiber);
}
