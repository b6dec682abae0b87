/*
 * A component's process anew, and a component out of service and back: the operator's wishes.
 *
 * The rule is make before break (swap.c): the old process serves until the new one is ready. That cannot be where the component has no
 * process of its own, where there is none that serves, and where the one that serves holds what the new one needs: a lock, a port, a
 * file. Then the old one ends first, within a bounded time, and calls wait for the new one. It is done unasked for a process that is stuck:
 * nothing comes back from it any more, and it may be what it holds.
 */
#include <errno.h>

#include "kernel/super/history.h"
#include "kernel/super/plugin.h"
#include "kernel/super/swap.h"

/* Stops the process and starts it again. Calls that come meanwhile wait. */
static int restart_broken(struct component *c, double grace_s, struct arena *a, const char **ret_err)
{
        struct instance *i = c->now;
        struct plugin *p = i->plugin;
        double timeout_s = component_timeout_s(i->spec), deadline;
        int r = 0;
        swap_standby_over(c);
        p->restarting = true;
        super_stop_plugin(p, grace_s);
        super_wait_gone(p);
        i->init_error[0] = '\0';
        plugin_event(p, EV_START);
        deadline = loop_now() + timeout_s;
        while (r == 0 && p->state != PLUGIN_FAILED && !instance_is_usable(i))
                r = cond_wait_until(&p->changed, deadline);
        p->restarting = false;
        cond_broadcast(&p->changed);
        if (r == 0 && p->state == PLUGIN_FAILED)
                r = -EIO;
        if (r == -ETIMEDOUT)
                *ret_err = arena_printf(a, "the old process is gone; plugin %s is not ready after %.3g s (%s)%s%s, and goes on trying", p->name, timeout_s,
                                        plugin_state_name(p->state), i->init_error[0] ? ": " : "", i->init_error);
        else if (r)
                *ret_err = arena_printf(a, "plugin %s %s", p->name, i->init_error[0] ? i->init_error : p->last_error);
        return r;
}

static bool is_blocked(const struct plugin *p)
{
        return p->life && p->life->is_blocked;
}

/* The text of a restart that left the old process serving. */
static const char *with_way_out(const struct component *c, const char *err, struct arena *a)
{
        if (!c->now || !instance_is_usable(c->now))
                return err;
        const char *text = arena_printf(a, "%s; what ran before still serves. If it holds what the new process needs (a lock, a file, a port), end it first: "
                                           "daprctl plugin restart %s --force", err, c->name);
        return text ? text : err;
}

int super_component_restart(struct super *s, struct component *c, bool force, struct arena *a, const char **ret_err)
{
        *ret_err = "the component is gone";
        if (!c->now)
                return -ENOENT;
        struct plugin *p = c->now->plugin;
        bool own = p->manifest && !p->manifest->share;
        if (own && instance_is_usable(c->now) && !force && !is_blocked(p)) {
                int r = super_component_swap(s, c, &(struct swap_request){.why = "restart", .restart = true}, a, ret_err);
                *ret_err = r && !c->disabled ? with_way_out(c, *ret_err, a) : *ret_err;
                return r;
        }
        int r = fmutex_lock(&c->changing);
        if (r)
                return r;
        const char *how = "";
        *ret_err = "the component is disabled; daprctl plugin enable it first";
        if (c->disabled) {
                r = -ENOENT;
        } else if (c->now) {
                bool blocked = is_blocked(c->now->plugin), ended = c->now->plugin->life != NULL;
                how = !ended ? "" : blocked ? "the old process, which was stuck, was ended first" : "the old process was ended first";
                r = restart_broken(c, blocked ? 0 : STOP_GRACE_S, a, ret_err);
        }
        history_note(s, c->name, r ? "restart failed" : "restarted", "%s", r ? *ret_err : how);
        fmutex_unlock(&c->changing);
        return r;
}

int super_component_enable(struct super *s, struct component *c, bool on, struct arena *a, const char **ret_err)
{
        int r = fmutex_lock(&c->changing);
        *ret_err = "the component is gone";
        if (r)
                return r;
        struct instance *i = c->now;
        if (!i)
                r = -ENOENT;
        if (r == 0 && !on && !c->disabled) {
                swap_standby_over(c);
                c->disabled = true;
                cond_broadcast(&i->plugin->changed);
                if (s->conf.on_leave)
                        s->conf.on_leave(s->conf.arg, c);
                if (i->plugin->manifest && !i->plugin->manifest->share)
                        super_stop_plugin(i->plugin, STOP_GRACE_S);
        } else if (r == 0 && on && c->disabled) {
                r = i->plugin->manifest && !i->plugin->manifest->share ? restart_broken(c, STOP_GRACE_S, a, ret_err) : 0;
                if (r == 0) {
                        c->disabled = false;
                        cond_broadcast(&i->plugin->changed);
                        if (s->conf.on_arrive)
                                s->conf.on_arrive(s->conf.arg, c);
                }
        }
        history_note(s, c->name, r ? "enable failed" : on ? "enabled" : "disabled", "%s", r ? *ret_err : "");
        fmutex_unlock(&c->changing);
        return r;
}
