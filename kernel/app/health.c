/*
 * Is the app healthy? Without checks: once its port is open. With them: it begins unhealthy, one good probe makes it healthy, as
 * many failures in a row as the threshold says make it unhealthy. Two fibers: one probes, one tells the watchers, so that a watcher
 * that parks (it stops subscriptions, it asks the app for its bindings) does not hold up the probes; what changed twice while a
 * watcher was busy is told as it stands in the end.
 */
#include <errno.h>

#include "google/protobuf/empty.pb-c.h"
#include "kernel/app/internal.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.apphealth"
#define HEALTH_METHOD "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck"

/* ---- watchers ---- */

bool app_is_healthy(const struct app *p)
{
        return p->healthy;
}

bool app_takes_calls(const struct app *p)
{
        return p->healthy || !p->k->opts.enable_app_health_check;
}

int app_watch_health(struct app *p, void (*fn)(void *arg, bool healthy), void *arg)
{
        int r = p->n_watchers < WATCHERS_MAX ? fmutex_lock(&p->telling) : -ENOSPC;

        if (r)
                return r;
        p->watchers[p->n_watchers++] = (struct app_watcher){fn, arg};
        fn(arg, p->told);
        fmutex_unlock(&p->telling);
        return 0;
}

/* Tells the present state until the watchers know it. */
static void tell(struct app *p)
{
        if (fmutex_lock(&p->telling))
                return;
        while (p->told != p->healthy && !fiber_is_cancelled()) {
                bool now = p->healthy;
                if (now)
                        app_config_read(p);
                p->told = now;
                for (size_t i = 0; i < p->n_watchers; i++)
                        p->watchers[i].fn(p->watchers[i].arg, now);
        }
        fmutex_unlock(&p->telling);
}

static void tell_fiber(void *arg)
{
        struct app *p = arg;

        for (;;) {
                while (p->told == p->healthy)
                        if (cond_wait(&p->changed))
                                return;
                tell(p);
                if (fiber_is_cancelled())
                        return;
        }
}

/* ---- probes ---- */

/* One probe's outcome: good, or why not. `error`: the probe itself could not be made, counted whatever the state is. */
struct probe {
        bool good;
        const char *reason, *error;
};

static void probe_http(struct app *p, struct arena *a, struct probe *ret)
{
        const char *path = p->k->opts.app_health_check_path;
        double began = loop_now_exact();
        int status = 500, r;

        path = path[0] == '/' ? path : arena_printf(a, "/%s", path);
        r = path ? app_http_probe(p, a, path, &status) : -ENOMEM;
        observe_health_probe(p->k->observe, false, r ? 500 : status, (loop_now_exact() - began) * 1e3);
        ret->good = r == 0 && status >= 200 && status < 300;
        if (r == -ETIMEDOUT)
                ret->reason = arena_printf(a, "Network error: Get \"%s%s\": context deadline exceeded", p->base_url, path);
        else if (r)
                ret->reason = arena_printf(a, "Network error: %s",
                                           app_http_error(p, a, &(struct app_request){.method = STR("GET"), .path = str_of(path)}, r));
        else if (!ret->good)
                ret->reason = arena_printf(a, "Health check failed with status code: %d", status);
}

static void probe_grpc(struct app *p, struct arena *a, struct probe *ret)
{
        struct rpc_status st = {0};
        struct str resp;
        double began = loop_now_exact();
        int r = rpc_unary(p->grpc, a, HEALTH_METHOD, STR(""), &resp, NULL, &st);

        observe_health_probe(p->k->observe, true, r, (loop_now_exact() - began) * 1e3);
        ret->good = r == 0;
        if (r == 0)
                return;
        ret->error = arena_printf(a, "rpc error: code = %s desc = %.*s", rpc_code_name(r), STR_FMT(st.message));
        ret->error = ret->error ? ret->error : "out of memory";
        ret->reason = arena_printf(a, "Probe error: %s", ret->error);
}

static void set_result(struct app *p, const struct probe *b)
{
        unsigned threshold = (unsigned)p->k->opts.app_health_threshold;

        if (b->good) {
                p->failures = 0;
                if (!p->healthy)
                        log_info(SCOPE, "App entered healthy status");
                p->healthy = true;
        } else {
                if (p->failures < threshold)
                        p->failures++;
                if (p->failures == threshold && p->healthy) {
                        log_warn(SCOPE, "App entered un-healthy status: %s", b->reason ? b->reason : "unknown");
                        p->healthy = false;
                }
        }
        cond_broadcast(&p->changed);
}

static void probe_once(struct app *p)
{
        struct probe b = {0};
        struct arena a;
        double old = fiber_set_deadline(loop_now_exact() + p->k->opts.app_health_probe_timeout / 1e3);

        arena_init(&a, 4 << 20);
        log_debug(SCOPE, "Probing app health");
        if (p->is_grpc)
                probe_grpc(p, &a, &b);
        else
                probe_http(p, &a, &b);
        fiber_restore_deadline(old);
        if (!fiber_is_cancelled()) {
                const char *good = b.good ? "true" : "false";
                if (b.good != p->healthy)
                        log_debug(SCOPE, "App health probe detected status change - health probe successful: %s", good);
                else
                        log_debug(SCOPE, "App health probe status is unchanged - health probe successful: %s", good);
                if (b.good != p->healthy || b.error || (b.good && p->failures))
                        set_result(p, &b);
                if (b.error)
                        log_error(SCOPE, "App health probe could not complete with error: %s", b.error);
        }
        arena_fini(&a);
}

static void probe_fiber(void *arg)
{
        struct app *p = arg;
        double interval = p->k->opts.app_health_probe_interval, next = loop_now_exact();

        log_info(SCOPE, "App health probes starting");
        do {
                probe_once(p);
                for (next += interval; next < loop_now_exact();)
                        next += interval;
        } while (fiber_sleep(next - loop_now_exact()) == 0);
        log_info(SCOPE, "App health probes stopping");
}

/* ---- life ---- */

int app_start(struct app *p)
{
        int r;

        if (!p)
                return 0;
        if (!p->k->opts.enable_app_health_check) {
                p->healthy = true;
                tell(p);
                return fiber_is_cancelled() ? -ECANCELED : 0;
        }
        p->failures = (unsigned)p->k->opts.app_health_threshold;
        r = fiber_go_flags(&p->scope, "app-health-tell", FIBER_BIG, tell_fiber, p);
        return r ? r : fiber_go(&p->scope, "app-health-probe", probe_fiber, p);
}

void app_stop(struct app *p)
{
        if (!p)
                return;
        scope_cancel(&p->scope);
        scope_join(&p->scope);
}
