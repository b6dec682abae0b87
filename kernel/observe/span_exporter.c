/*
 * From ended spans to a sink: a ring that never makes a request wait, and one fiber that sends batches. A batch goes out when it is
 * full or when its first span has waited long enough. What a sink calls worth another try is sent again with growing pauses for
 * RETRY_TOTAL_S, then dropped. Every span that is lost is counted.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/metrics.h"
#include "kernel/observe/span.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.trace"

static const double RETRY_FIRST_S = 1, RETRY_MAX_S = 30, RETRY_TOTAL_S = 60;

struct span_exporter {
        struct span_sink *sink;
        struct span **ring;
        size_t cap, head, count, batch_max;
        double delay_s, oldest;       /* when the first span in the ring came */
        bool stopping, failing;
        double stop_by;               /* while stopping */
        struct scope scope;
        struct cond changed;
        struct span **batch;
        struct metric_series *exported, *full, *failed;
};

static void count_with(struct span_exporter *e, const struct exporter_conf *conf)
{
        struct str v[3] = {str_of(conf->app_id), str_of(e->sink->name), STR("queue_full")};

        if (!conf->exported || !conf->dropped)
                return;
        e->exported = metric_series_get(conf->exported, v);
        e->full = metric_series_get(conf->dropped, v);
        v[2] = STR("export_failed");
        e->failed = metric_series_get(conf->dropped, v);
}

void span_exporter_add(struct span_exporter *e, struct span *s)
{
        if (e->count == e->cap || (e->stopping && e->stop_by == 0)) {
                metric_inc(e->full, 1);
                return;
        }
        s->refs++;
        e->ring[(e->head + e->count++) % e->cap] = s;
        if (e->count == 1) {
                e->oldest = loop_now();
                cond_signal(&e->changed);
        } else if (e->count == e->batch_max) {
                cond_signal(&e->changed);
        }
}

/* ---- the fiber ---- */

static void note(struct span_exporter *e, int r, size_t n, const char *err)
{
        if (r == 0) {
                metric_inc(e->exported, (double)n);
                if (e->failing)
                        log_info(SCOPE, "traces are exported again (%s)", e->sink->name);
                e->failing = false;
                return;
        }
        metric_inc(e->failed, (double)n);
        if (!e->failing)
                log_warn(SCOPE, "traces cannot be exported (%s): %s; spans are dropped until they can", e->sink->name, err);
        e->failing = true;
}

static int send_once(struct span_exporter *e, size_t n, char *err, size_t err_n)
{
        double at = loop_now_exact() + e->sink->timeout_s, old;
        int r;

        if (e->stopping && at > e->stop_by)
                at = e->stop_by;
        old = fiber_set_deadline(at);
        r = e->sink->send(e->sink, e->batch, n, err, err_n);
        fiber_restore_deadline(old);
        return r;
}

/* Until at; false: the stop leaves no time for it. */
static bool wait_until(struct span_exporter *e, double at)
{
        for (;;) {
                if (e->stopping && at > e->stop_by)
                        return false;
                int r = cond_wait_until(&e->changed, at);
                if (r)
                        return r == -ETIMEDOUT;
        }
}

static void send_batch(struct span_exporter *e, size_t n)
{
        double give_up = loop_now_exact() + RETRY_TOTAL_S, pause = RETRY_FIRST_S;
        char err[256] = "";
        int r;

        while ((r = send_once(e, n, err, sizeof err)) == -EAGAIN) {
                double at = loop_now_exact() + pause;
                if (at > give_up || !wait_until(e, at))
                        break;
                pause = pause * 2 > RETRY_MAX_S ? RETRY_MAX_S : pause * 2;
        }
        note(e, r, n, err[0] ? err : strerror(r < 0 ? -r : EIO));
}

static void run(void *arg)
{
        struct span_exporter *e = arg;

        for (;;) {
                while (!e->stopping && e->count < e->batch_max) {
                        double until = e->count ? e->oldest + e->delay_s : INFINITY;
                        if (until <= loop_now())
                                break;
                        if (cond_wait_until(&e->changed, until) == -ECANCELED)
                                return;
                }
                if (e->count == 0 && e->stopping)
                        return;
                size_t n = 0;
                for (; n < e->batch_max && e->count; n++, e->count--) {
                        e->batch[n] = e->ring[e->head];
                        e->head = (e->head + 1) % e->cap;
                }
                e->oldest = loop_now();
                if (n)
                        send_batch(e, n);
                while (n)
                        span_unref(e->batch[--n]);
        }
}

/* ---- life ---- */

int span_exporter_new(struct span_exporter **ret, struct span_sink *sink, const struct exporter_conf *conf)
{
        struct span_exporter *e = calloc(1, sizeof *e);
        int r = -ENOMEM;

        if (!e)
                return -ENOMEM;
        *e = (struct span_exporter){.cap = conf->queue_max, .batch_max = conf->batch_max, .delay_s = conf->delay_s};
        e->ring = calloc(e->cap, sizeof *e->ring);
        e->batch = calloc(e->batch_max, sizeof *e->batch);
        scope_init(&e->scope);
        cond_init(&e->changed);
        if (e->ring && e->batch)
                r = fiber_go(&e->scope, "traces", run, e);
        if (r) {
                free(e->ring);
                free(e->batch);
                free(e);
                return r;
        }
        e->sink = sink;
        count_with(e, conf);
        *ret = e;
        return 0;
}

void span_exporter_stop(struct span_exporter *e, double deadline)
{
        e->stopping = true;
        e->stop_by = deadline;
        cond_broadcast(&e->changed);
        scope_join(&e->scope);
        e->stop_by = 0;
}

void span_exporter_free(struct span_exporter *e)
{
        if (!e)
                return;
        for (; e->count; e->count--, e->head = (e->head + 1) % e->cap)
                span_unref(e->ring[e->head]);
        e->sink->free(e->sink);
        free(e->ring);
        free(e->batch);
        free(e);
}
