/*
 * What does not come back. Operations that block run on threads, and a thread cannot be interrupted: when its call hangs, the loop goes on,
 * reports of health go out and nothing looks wrong. So the reports tell it: for how long no thread has been free and none has come back,
 * although calls wait for one or were given up by their callers; for how long a ping has been running; how many operations run for nobody.
 * The kernel judges (kernel/super/stuck.c). Pings are asked here: one at a time of each instance, each on a fiber of its own, so that
 * one that hangs is seen by the others. A ping that only waits for a thread is not late: the threads are.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plugin/v1/lifecycle.pb-c.h"
#include "sdk/base/work.h"
#include "sdk/plugin/runtime.h"

static const double PING_INTERVAL_MAX_S = 10, PING_TIMEOUT_MAX_S = 5;
enum { PING_INTERVAL_PART = 6, PING_TIMEOUT_PART = 12 }; /* of the kernel's limit */

static double part_of(const struct runtime *rt, int part, double max)
{
        double s = rt->hang_after_s / part;
        return s > 0 && s < max ? s : max;
}

/* ---- pings ---- */

/* For how long it has been running; 0: none is. */
static double ping_age(const struct instance *i)
{
        const struct dapr_call *dc = i->ping;
        double since = !dc ? 0 : sdk_mode(i->type) == DAPR_WORKER ? dc->works_since : dc->began;
        double s = since > 0 ? loop_now() - since : 0;
        return s > 0 ? s : 0;
}

static void ping_fiber(void *arg)
{
        struct instance *i = arg;
        struct runtime *rt = sdk_runtime();
        struct arena a;
        arena_init(&a, 0);
        struct dapr_call dc = {.rt = rt, .arena = &a, .inst = i, .began = loop_now()};
        double old = fiber_set_deadline(loop_now() + part_of(rt, PING_TIMEOUT_PART, PING_TIMEOUT_MAX_S));
        dc.deadline = fiber_deadline();
        i->ping = &dc;
        int r = sdk_instance_ping(&dc);
        i->ping = NULL;
        i->pinged = false;
        fiber_restore_deadline(old);
        sdk_backend_report(rt, i->name, r == 0, r ? sdk_text(&dc, r) : NULL);
        sdk_instance_unref(rt, i);
        arena_fini(&a);
}

static void ping_all(struct runtime *rt)
{
        list_for_each_safe(pos, tmp, &rt->instances) {
                struct instance *i = list_entry(pos, struct instance, node);
                if (!i->ready || i->pinged || !sdk_ops_of(i->type)->ping)
                        continue;
                sdk_instance_ref(i);
                i->pinged = true;
                if (fiber_go(&rt->scope, "ping", ping_fiber, i)) {
                        i->pinged = false;
                        i->refs--; /* the list holds it, too */
                }
        }
}

static void pings_fiber(void *arg)
{
        struct runtime *rt = arg;
        for (;;) {
                int r = cond_wait_until(&rt->interval_changed, loop_now() + part_of(rt, PING_INTERVAL_PART, PING_INTERVAL_MAX_S));
                if (r == -ETIMEDOUT)
                        ping_all(rt);
                else if (r)
                        return;
        }
}

int sdk_pings_start(struct runtime *rt)
{
        return fiber_go(&rt->scope, "pings", pings_fiber, rt);
}

void sdk_watch_limit(struct runtime *rt, double hang_after_s)
{
        if (rt->hang_after_s == hang_after_s)
                return;
        rt->hang_after_s = hang_after_s;
        cond_broadcast(&rt->interval_changed);
}

/* The oldest of them; one that takes too long says that its backend cannot be reached. */
static double look_at_pings(struct runtime *rt)
{
        double limit = part_of(rt, PING_TIMEOUT_PART, PING_TIMEOUT_MAX_S), oldest = 0;
        list_for_each(pos, &rt->instances) {
                struct instance *i = list_entry(pos, struct instance, node);
                double age = ping_age(i);
                char text[80];
                oldest = age > oldest ? age : oldest;
                snprintf(text, sizeof text, "its ping has not come back for %.3g s", age);
                if (age >= limit)
                        sdk_backend_report(rt, i->name, false, text);
        }
        return oldest;
}

/* ---- calls ---- */

void sdk_call_begins(struct dapr_call *dc, const char *method)
{
        dc->method = method;
        dc->began = loop_now();
        list_add_tail(&dc->rt->running, &dc->in_running);
}

void sdk_call_ends(struct dapr_call *dc)
{
        list_del(&dc->in_running);
}

struct running {
        const struct dapr_call *oldest; /* of those that have a thread, or lost their callers */
        unsigned on_threads, waiting, abandoned;
        double abandoned_s;             /* since the oldest of them began */
};

static struct running look_at_calls(const struct runtime *rt)
{
        struct running r = {0};
        list_for_each(pos, &rt->running) {
                const struct dapr_call *dc = list_entry(pos, struct dapr_call, in_running);
                bool gone = rpc_caller_gone(dc->rpc), runs = dc->on_worker && dc->works_since > 0;
                r.on_threads += runs;
                r.waiting += dc->on_worker && !runs;
                r.abandoned += gone;
                if (gone && r.abandoned == 1)
                        r.abandoned_s = loop_now() - dc->began;
                if (!r.oldest && (runs || gone))
                        r.oldest = dc;
        }
        return r;
}

static void say(struct runtime *rt, const struct running *r, const struct work_load *w, double ping_s)
{
        size_t n = sizeof rt->busy_with, at = 0;
        const char *sep = "";
#define SAY(...) (at += (size_t)snprintf(rt->busy_with + at, at < n ? n - at : 0, __VA_ARGS__), sep = ", ", at = at < n ? at : n - 1)
        if (r->on_threads || r->waiting)
                w->full_s > 0 ? SAY("all %d workers are busy", w->threads) : SAY("%d of %d workers are busy", w->running, w->threads);
        if (r->waiting)
                SAY("%s%u call%s", sep, r->waiting, r->waiting == 1 ? " waits" : "s wait");
        if (r->abandoned)
                SAY("%s%u call%s no caller any more", sep, r->abandoned, r->abandoned == 1 ? " has" : "s have");
        if (r->oldest)
                SAY("%sthe oldest is %s of component %s, for %.0f s", sep, strrchr(r->oldest->method, '/') + 1, dapr_instance(r->oldest),
                    loop_now() - r->oldest->began);
        if (ping_s > 0)
                SAY("%sa ping has not come back for %.3g s", sep, ping_s);
#undef SAY
}

void sdk_watch_report(struct runtime *rt, Microdapr__Plugin__V1__HealthReport *out)
{
        struct running r = look_at_calls(rt);
        struct work_load w;
        double ping_s = look_at_pings(rt);
        work_load(&w);
        if (r.on_threads && (r.waiting || r.abandoned))
                out->stalled_ms = (uint64_t)(w.full_s * 1000);
        out->ping_ms = (uint64_t)(ping_s * 1000);
        out->abandoned = r.abandoned;
        out->abandoned_ms = (uint64_t)(r.abandoned_s * 1000);
        rt->busy_with[0] = '\0';
        if (out->stalled_ms || out->ping_ms || out->abandoned)
                say(rt, &r, &w, ping_s);
        out->busy_with = rt->busy_with;
}
