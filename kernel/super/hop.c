/*
 * Measuring of calls to plugins. The series of a component's methods are kept with the component, found by name in a short array: a
 * call pays two looks at the clock and a few comparisons. Methods past the array are counted too, by a look-up each time.
 */
#include "kernel/super/hop.h"

#include <stdio.h>

#include "kernel/observe/metrics.h"
#include "kernel/opts.h"
#include "kernel/super/plugin.h"

/* "StateStore/Get" of "/dapr.proto.components.v1.StateStore/Get" */
static struct str short_method(const char *method)
{
        const char *slash = strrchr(method, '/'), *from = slash ? slash : method;

        while (from > method && from[-1] != '.')
                from--;
        return str_of(from);
}

void hop_begin(struct hop *h, const struct component *c, const char *method)
{
        const struct super_conf *conf = &c->super->conf;

        h->request = trace_current();
        h->traced = conf->hop_tracer && trace_is_recorded(h->request);
        if (h->traced) {
                char name[200];
                struct str m = short_method(method);
                int n = snprintf(name, sizeof name, "plugin/%s/%.*s", c->name, STR_FMT(m));
                trace_begin_child(&h->trace, conf->hop_tracer, h->request, SPAN_CLIENT,
                                  str_n(name, n < (int)sizeof name ? (size_t)n : sizeof name - 1));
                trace_attr(&h->trace, "rpc.system", STR("grpc"));
                trace_attr(&h->trace, "rpc.method", m);
                trace_attr(&h->trace, "microdapr.component", str_of(c->name));
                trace_install(&h->trace);
        }
        h->began = loop_now_exact();
}

static struct metric_series *series_of(struct component *c, struct str method)
{
        struct hop_series *s;

        for (size_t i = 0; i < c->n_hops; i++)
                if (str_eqz(method, c->hops[i].method))
                        return c->hops[i].series;
        struct metric_series *found = metric_series_get(c->super->conf.hop_seconds, (struct str[]){str_of(c->super->conf.opts->app_id),
                                                                                                   str_of(c->name), method});
        if (c->n_hops < HOP_METHODS_MAX && method.n < sizeof c->hops[0].method) {
                s = &c->hops[c->n_hops++];
                snprintf(s->method, sizeof s->method, "%.*s", STR_FMT(method));
                s->series = found;
        }
        return found;
}

double hop_end(struct hop *h, struct component *c, const char *method, int code, struct str message)
{
        double seconds = loop_now_exact() - h->began;

        if (h->request)
                h->request->component_ms += seconds * 1e3;
        if (c->super->conf.hop_seconds)
                metric_observe(series_of(c, short_method(method)), seconds);
        if (!h->traced)
                return seconds;
        trace_install(h->request);
        trace_status_grpc(&h->trace, code, message);
        trace_end(&h->trace);
        return seconds;
}
