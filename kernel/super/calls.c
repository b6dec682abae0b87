/*
 * Calls to components. A call takes the plugin's present life and goes out on its connection; when that breaks, the call is sent
 * again to the next life if the other side certainly has not seen it or the plugin said that the method may be repeated, else it
 * fails. A call that finds no usable life waits for one: not longer than its own deadline or PLUGIN_WAIT_MAX_S, and only
 * tuning.calls_waiting_max at a time; where nothing is to be expected (FAILED, STOPPED) it fails at once.
 */
#include <errno.h>
#include <stdio.h>

#include "kernel/super/plugin.h"

enum { RESENDS_MAX = 3 };

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

static bool is_usable(const struct component *c)
{
        const struct plugin *p = c->plugin;
        return plugin_is_callable(p) && c->init_life == p->life->number;
}

static int give_up_waiting(struct component *c, struct arena *a, struct rpc_status *st, int r)
{
        const struct plugin *p = c->plugin;
        const char *why = c->init_error[0] ? c->init_error : p->last_error;
        if (r == -ECANCELED)
                return fail(st, a, RPC_CANCELLED, "the call was cancelled");
        return fail(st, a, fiber_deadline() <= loop_now() ? RPC_DEADLINE_EXCEEDED : RPC_UNAVAILABLE,
                    "component %s is not ready (%s)%s%s", c->name, plugin_state_name(p->state), why[0] ? ": " : "", why);
}

/* Parks until the component can be called. 0, or a gRPC code with st. */
static int wait_usable(struct component *c, struct arena *a, struct rpc_status *st)
{
        struct plugin *p = c->plugin;
        struct super *s = c->super;
        double deadline = loop_now() + PLUGIN_WAIT_MAX_S;
        if (s->waiting >= s->tuning.calls_waiting_max)
                return fail(st, a, RPC_RESOURCE_EXHAUSTED, "component %s is being started again and too many calls wait for it", c->name);
        s->waiting++;
        int r = 0;
        while (r == 0 && !is_usable(c)) {
                if (p->state == PLUGIN_FAILED) {
                        r = fail(st, a, RPC_UNAVAILABLE, "component %s has failed: its plugin %s %s", c->name, p->name, p->last_error);
                } else if (c->stopping || p->state == PLUGIN_STOPPED || p->state == PLUGIN_DRAINING || p->state == PLUGIN_ABSENT) {
                        r = fail(st, a, RPC_UNAVAILABLE, "component %s is stopped", c->name);
                } else {
                        int w = cond_wait_until(&p->changed, deadline);
                        if (w && !is_usable(c))
                                r = give_up_waiting(c, a, st, w);
                }
        }
        s->waiting--;
        return r;
}

/* The connection broke under a call. The process's end, which says more, is known a moment later. */
static int broken(struct component *c, struct arena *a, const char *method, struct life *l, struct rpc_status *st)
{
        struct plugin *p = c->plugin;
        const char *name = strrchr(method, '/');
        double deadline = loop_now() + 0.05;
        while (!l->ended && cond_wait_until(&p->changed, deadline) == 0)
                ;
        return fail(st, a, RPC_UNAVAILABLE, "%s of component %s was in flight when its plugin %s %s; it may or may not have been done",
                    name ? name + 1 : method, c->name, p->name, l->ended && p->last_error[0] ? p->last_error : "closed the connection");
}

int component_call_bytes(struct component *c, struct arena *a, const char *method, struct str req, struct str *resp,
                         struct rpc_status *st)
{
        struct rpc_opts o = {.md = &c->md, .n_md = 1};
        int r = 0;
        c->calls++;
        c->inflight++;
        for (int sent = 0;; sent++) {
                if (!is_usable(c)) {
                        r = wait_usable(c, a, st);
                        if (r)
                                break;
                }
                struct life *l = c->plugin->life;
                life_ref(l);
                r = rpc_unary(l->ch, a, method, req, resp, &o, st);
                if (r == 0)
                        l->good_calls++;
                bool lost = r && st->transport && (l->ended || !rpc_channel_is_connected(l->ch));
                if (lost && l == c->plugin->life)
                        l->usable = false; /* the event may come after this fiber */
                bool again = r && st->transport && sent < RESENDS_MAX &&
                             (st->unprocessed || (lost && map_get(&c->plugin->idempotent, str_of(method))));
                if (lost && !again)
                        r = broken(c, a, method, l, st);
                life_unref(l);
                if (!again)
                        break;
        }
        if (r)
                c->errors++;
        if (--c->inflight == 0 && c->stopping)
                cond_broadcast(&c->plugin->changed);
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

int component_open(struct component *c, struct arena *a, const char *method, struct rpc_call **ret, struct rpc_status *st)
{
        struct rpc_opts o = {.md = &c->md, .n_md = 1};
        int r = is_usable(c) ? 0 : wait_usable(c, a, st);
        if (r)
                return r;
        c->calls++;
        r = rpc_open(c->plugin->life->ch, a, method, &o, ret, st);
        if (r)
                c->errors++;
        return r;
}
