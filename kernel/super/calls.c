/*
 * Calls to components. A call takes the component's present instance and its plugin's present life and goes out on that connection;
 * when it breaks, the call is sent again, to what is present then, if the other side certainly has not seen it or the plugin said
 * that the method may be repeated, else it fails; while a version of before stands by, some more are (repeat.c). A call that was the
 * first in flight at two hangs in a row is taken for their cause and not sent again; those that were beside it are. A call that finds no usable life waits for one: not longer than its own deadline or
 * PLUGIN_WAIT_MAX_S, and only tuning.calls_waiting_max at a time; where nothing is to be expected (FAILED, STOPPED, removed) it fails
 * at once. An instance that was exchanged under a running call stays until the call is over.
 */
#include <errno.h>
#include <stdio.h>

#include "kernel/super/fault.h"
#include "kernel/super/plugin.h"
#include "kernel/super/swap.h"
#include "kernel/super/tap.h"
#include "sdk/net/rpc_watch.h"

enum { RESENDS_MAX = 3, HANGS_MAX = 2, BYSTANDER_MAX = 10 };

/* How often a call was lost with its process. */
struct losses {
        int hangs;     /* in a row, of which it may be the cause */
        int beside;    /* hangs of which another one may be */
        int others;
};

static void count_loss(struct losses *n, bool hung, bool suspect)
{
        n->others += !hung;
        n->beside += hung && !suspect;
        n->hangs = hung && suspect ? n->hangs + 1 : 0;
}

static bool may_be_sent_again(const struct losses *n)
{
        return n->others <= RESENDS_MAX && n->hangs < HANGS_MAX && n->beside <= BYSTANDER_MAX;
}

static int fail(struct rpc_status *st, struct arena *a, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static int fail(struct rpc_status *st, struct arena *a, int code, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *text = arena_vprintf(a, fmt, ap);
        va_end(ap);
        *st = (struct rpc_status){.code = code, .message = str_of(text ? text : ""), .transport = true};
        return code;
}

static int give_up_waiting(const struct instance *i, struct arena *a, struct rpc_status *st, int r)
{
        const struct plugin *p = i->plugin;
        const char *why = i->init_error[0] ? i->init_error : p->last_error;
        if (r == -ECANCELED)
                return fail(st, a, RPC_CANCELLED, "the call was cancelled");
        return fail(st, a, fiber_deadline() <= loop_now() ? RPC_DEADLINE_EXCEEDED : RPC_UNAVAILABLE,
                    "component %s is not ready (%s)%s%s", i->spec->name, plugin_state_name(p->state), why[0] ? ": " : "", why);
}

/* Waits in i until something changes. 0: look again; or a gRPC code with st. */
static int wait_once(struct component *c, struct instance *i, double deadline, struct arena *a, struct rpc_status *st)
{
        struct plugin *p = i->plugin;
        if (c->disabled)
                return fail(st, a, RPC_UNAVAILABLE, "component %s is disabled by the operator; daprctl plugin enable %s", c->name, c->name);
        if (p->state == PLUGIN_FAILED)
                return fail(st, a, RPC_UNAVAILABLE, "component %s has failed: its plugin %s %s", c->name, p->name, p->last_error);
        if (i->stopping || (!p->restarting && (p->state == PLUGIN_STOPPED || p->state == PLUGIN_DRAINING || p->state == PLUGIN_ABSENT)))
                return fail(st, a, RPC_UNAVAILABLE, "component %s is stopped", c->name);
        instance_hold(i);
        int r = cond_wait_until(&p->changed, deadline);
        if (r && c->now == i && !instance_is_usable(i))
                r = give_up_waiting(i, a, st, r);
        else
                r = 0;
        instance_release(i);
        return r;
}

/* Parks until the component can be called. 0, or a gRPC code with st. */
static int wait_usable(struct component *c, struct arena *a, struct rpc_status *st)
{
        struct super *s = c->super;
        double deadline = loop_now() + PLUGIN_WAIT_MAX_S;
        int r = 0;
        if (s->waiting >= s->tuning.calls_waiting_max)
                return fail(st, a, RPC_RESOURCE_EXHAUSTED, "component %s is being started again and too many calls wait for it", c->name);
        s->waiting++;
        while (r == 0 && c->now && (c->disabled || !instance_is_usable(c->now)))
                r = wait_once(c, c->now, deadline, a, st);
        s->waiting--;
        if (r == 0 && !c->now)
                r = fail(st, a, RPC_UNAVAILABLE, "component %s has been removed", c->name);
        return r;
}

static bool is_usable(const struct component *c)
{
        return c->now && !c->disabled && instance_is_usable(c->now);
}

/* The connection broke under a call. The process's end, which says more, is known a moment later. */
static int broken(struct instance *i, struct arena *a, const char *method, struct life *l, const struct losses *n, struct rpc_status *st)
{
        struct plugin *p = i->plugin;
        const char *name = strrchr(method, '/');
        double deadline = loop_now() + 0.05;
        while (!l->ended && cond_wait_until(&p->changed, deadline) == 0)
                ;
        const char *then = n->hangs >= HANGS_MAX ? "; it was the first call in flight at two hangs in a row and is not sent again"
                           : map_get(&p->idempotent, str_of(method)) ? "" : "; it may or may not have been done";
        return fail(st, a, RPC_UNAVAILABLE, "%s of component %s was in flight when its plugin %s %s%s", name ? name + 1 : method, i->spec->name, p->name,
                    l->ended && p->last_error[0] ? p->last_error : "closed the connection", then);
}

/* One sending to a usable instance. *ret_again: the call may be sent once more. */
static int send_once(struct instance *i, struct arena *a, const char *method, struct str req, struct str *resp, struct rpc_status *st,
                     struct losses *n, bool *ret_again)
{
        struct rpc_opts o = {.md = &i->md, .n_md = 1};
        struct life *l = i->plugin->life;
        struct sending me = {0};
        bool on_trial = i->component && i->component->standby && i->component->now == i;
        life_ref(l);
        list_add_tail(&l->calls, &me.in_life);
        int r = rpc_unary(l->ch, a, method, req, resp, &o, st);
        list_del(&me.in_life);
        if (r == 0)
                l->good_calls++;
        bool lost = r && st->transport && (l->ended || !rpc_channel_is_connected(l->ch));
        if (lost && l == i->plugin->life)
                l->usable = false; /* the event may come after this fiber */
        if (r && st->transport)
                count_loss(n, lost && l->verdict == DEATH_HANG, me.is_suspect);
        *ret_again = r && st->transport && may_be_sent_again(n) &&
                     (st->unprocessed || (lost && (map_get(&i->plugin->idempotent, str_of(method)) || (on_trial && call_may_be_repeated(a, method, req)))));
        if (lost && !*ret_again)
                r = broken(i, a, method, l, n, st);
        life_unref(l);
        return r;
}

int instance_call(struct instance *i, struct arena *a, const char *method, struct str req, struct str *resp, struct rpc_status *st)
{
        struct losses once = {.others = RESENDS_MAX};
        bool again;
        if (!instance_is_usable(i))
                return fail(st, a, RPC_UNAVAILABLE, "component %s is not ready (%s)", i->spec->name, plugin_state_name(i->plugin->state));
        instance_hold(i);
        int r = send_once(i, a, method, req, resp, st, &once, &again);
        instance_release(i);
        return r;
}

int component_call_bytes(struct component *c, struct arena *a, const char *method, struct str req, struct str *resp,
                         struct rpc_status *st)
{
        struct losses losses = {0};
        bool again = true;
        int r = 0;
        struct hop hop;
        c->calls++;
        hop_begin(&hop, c, method);
        if (c->fault && (r = fault_meet(c, a, method, st)))
                again = false;
        while (again) {
                if (!is_usable(c)) {
                        r = wait_usable(c, a, st);
                        if (r)
                                break;
                }
                struct instance *i = c->now;
                instance_hold(i);
                r = send_once(i, a, method, req, resp, st, &losses, &again);
                instance_release(i);
        }
        double seconds = hop_end(&hop, c, method, r, r ? st->message : STR_NULL);
        if (r)
                c->errors++;
        if (c->tap)
                tap_call(c, method, req, r ? STR_NULL : *resp, r, r ? st->message : STR_NULL, seconds);
        if (c->shadow)
                shadow_call(c, method, req, r, r ? STR_NULL : *resp, seconds);
        return r;
}

int component_call(struct component *c, struct arena *a, const char *method, const ProtobufCMessage *req,
                   const ProtobufCMessageDescriptor *resp_d, void *resp, struct rpc_status *st)
{
        struct str bytes, packed = pb_pack(a, req);
        if (!packed.p)
                return fail(st, a, RPC_RESOURCE_EXHAUSTED, "the request needs more memory than one request may take");
        int r = component_call_bytes(c, a, method, packed, &bytes, st);
        if (r)
                return r;
        void *m = pb_unpack(a, resp_d, bytes);
        if (!m) {
                c->errors++;
                return fail(st, a, RPC_INTERNAL, "component %s answered %s with bytes that are no %s", c->name, method, resp_d->name);
        }
        *(void **)resp = m;
        return 0;
}

static void see_message(void *arg, const struct rpc_call *rpc, bool sent, struct str msg)
{
        struct component *c = arg;
        if (c->tap)
                tap_message(c, rpc->method, sent, msg);
}

int component_open(struct component *c, struct arena *a, const char *method, struct rpc_call **ret, struct rpc_status *st)
{
        int r = c->fault ? fault_meet(c, a, method, st) : 0;
        if (r == 0 && !is_usable(c))
                r = wait_usable(c, a, st);
        if (r)
                return r;
        struct rpc_opts o = {.md = &c->now->md, .n_md = 1};
        c->calls++;
        r = rpc_open(c->now->plugin->life->ch, a, method, &o, ret, st);
        if (r) {
                c->errors++;
                return r;
        }
        /* always: somebody may begin to record a stream that stands already */
        rpc_watch(*ret, see_message, c->stands_for ? c->stands_for : c);
        return 0;
}
