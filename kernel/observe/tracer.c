/*
 * The tracer: what was configured, the sampler, and the exporters. The environment of OpenTelemetry fills what the Configuration
 * leaves open: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_* (queue, batch, delay).
 */
#include "kernel/observe/tracer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "kernel/observe/metrics.h"
#include "kernel/observe/span.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime"

static const double DEFAULT_RATE = 1e-4;

enum { RESOURCE_ATTRS_MAX = 64, QUEUE_DEFAULT = 2048, BATCH_DEFAULT = 512, DELAY_DEFAULT_MS = 5000, QUEUE_LIMIT = 65536 };

struct tracer {
        bool off, active;
        double rate;
        uint64_t threshold;      /* of the id's 63 bits */
        uint64_t random[2];
        struct arena arena;
        struct span_attr attrs[RESOURCE_ATTRS_MAX];
        struct span_resource resource;
        struct span_exporter *exporters[EXPORTERS_MAX];
        size_t n_exporters;
        struct metric *exported, *dropped;
};

bool tracer_is_off(const struct tracer *tr)
{
        return !tr || tr->off;
}

bool tracer_is_active(const struct tracer *tr)
{
        return tr && tr->active;
}

bool tracer_records(const struct tracer *tr)
{
        return tr->n_exporters > 0;
}

bool tracer_samples(const struct tracer *tr, const uint8_t *trace_id)
{
        uint64_t x = 0;

        if (tr->rate >= 1)
                return true;
        for (int i = 8; i < TRACE_ID_BYTES; i++)
                x = x << 8 | trace_id[i];
        return x >> 1 < tr->threshold;
}

/* xorshift128+: ids need to be distinct, not secret. */
static uint64_t next_random(struct tracer *tr)
{
        uint64_t x = tr->random[0], y = tr->random[1];

        tr->random[0] = y;
        x ^= x << 23;
        tr->random[1] = x ^ y ^ (x >> 17) ^ (y >> 26);
        return tr->random[1] + y;
}

void tracer_random(struct tracer *tr, uint8_t *to, size_t n)
{
        for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
                uint64_t v = next_random(tr);
                v += v == 0;
                memcpy(to + i, &v, n - i < sizeof v ? n - i : sizeof v);
        }
}

void tracer_export(struct tracer *tr, struct span *s)
{
        for (size_t i = 0; i < tr->n_exporters; i++)
                span_exporter_add(tr->exporters[i], s);
}

/* ---- resource ---- */

static void resource_set(struct tracer *tr, struct str key, struct str value)
{
        struct span_attr a = {arena_str(&tr->arena, key), arena_str(&tr->arena, value)};

        for (size_t i = 0; i < tr->resource.n_attrs; i++)
                if (str_eq(tr->attrs[i].key, key)) {
                        tr->attrs[i] = a;
                        return;
                }
        if (tr->resource.n_attrs < RESOURCE_ATTRS_MAX && a.key.p && a.value.p)
                tr->attrs[tr->resource.n_attrs++] = a;
}

static void resource_from_env(struct tracer *tr)
{
        const char *text = getenv("OTEL_RESOURCE_ATTRIBUTES"), *name = getenv("OTEL_SERVICE_NAME");

        for (struct str rest = str_of(text); rest.p && rest.n;) {
                struct str value = str_cut(&rest, ','), key = str_trim(str_cut(&value, '=')), plain;
                if (!key.n || !value.p) {
                        log_warn(SCOPE, "OTEL_RESOURCE_ATTRIBUTES wants key=value,key=value: an entry without both is left out");
                        continue;
                }
                plain = url_unescape(&tr->arena, str_trim(value), false);
                resource_set(tr, key, plain.p ? plain : str_trim(value));
        }
        if (name && *name)
                resource_set(tr, STR("service.name"), str_of(name));
}

/* ---- new ---- */

static double parse_rate(const char *text)
{
        char *end;
        double v = strtod(text, &end);

        return end == text || *end || isnan(v) || strchr(" \t\n", text[0]) ? DEFAULT_RATE : v;
}

static long env_number(const char *name, long fallback, long most)
{
        const char *text = getenv(name);
        char *end;
        long v;

        if (!text || !*text)
                return fallback;
        v = strtol(text, &end, 10);
        if (*end || v <= 0 || v > most) {
                log_warn(SCOPE, "%s must be a number from 1 to %ld: %ld is used", name, most, fallback);
                return fallback;
        }
        return v;
}

static int add_exporter(struct tracer *tr, const struct tracer_conf *conf, struct span_sink *sink)
{
        struct exporter_conf e = {.queue_max = (size_t)env_number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_DEFAULT, QUEUE_LIMIT),
                                  .batch_max = (size_t)env_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_DEFAULT, QUEUE_LIMIT),
                                  .delay_s = (double)env_number("OTEL_BSP_SCHEDULE_DELAY", DELAY_DEFAULT_MS, 3600000) / 1e3,
                                  .app_id = conf->app_id,
                                  .exported = tr->exported,
                                  .dropped = tr->dropped};
        int r;

        if (e.batch_max > e.queue_max)
                e.batch_max = e.queue_max;
        r = span_exporter_new(&tr->exporters[tr->n_exporters], sink, &e);
        if (r)
                sink->free(sink);
        else
                tr->n_exporters++;
        return r;
}

static int add_exporters(struct tracer *tr, const struct tracer_conf *conf, char *err, size_t err_n)
{
        struct span_sink *sink;
        int r = 0;

        if (conf->stdout_ && !(r = span_sink_log_new(&sink)))
                r = add_exporter(tr, conf, sink);
        if (!r && *conf->zipkin_endpoint && !(r = span_sink_zipkin_new(&sink, conf->zipkin_endpoint, &tr->resource, err, err_n)))
                r = add_exporter(tr, conf, sink);
        if (!r && *conf->otlp_endpoint && *conf->otlp_protocol && !(r = span_sink_otlp_new(&sink, conf, &tr->resource, err, err_n)))
                r = add_exporter(tr, conf, sink);
        return r;
}

static int add_metrics(struct tracer *tr, struct metrics *m)
{
        static const struct metric_def exported = {"microdapr_trace_spans_exported_total",
                                                   "Number of spans that a trace exporter has delivered.", METRIC_COUNTER,
                                                   "app_id,exporter", NULL};
        static const struct metric_def dropped = {"microdapr_trace_spans_dropped_total",
                                                  "Number of spans lost before a trace exporter: its queue was full, or the collector "
                                                  "did not take them.", METRIC_COUNTER, "app_id,exporter,reason", NULL};

        if (!m)
                return 0;
        tr->exported = metric_add(m, &exported);
        tr->dropped = metric_add(m, &dropped);
        return tr->exported && tr->dropped ? 0 : -ENOMEM;
}

static void log_sampler(const struct tracer *tr)
{
        char root[80];

        if (tr->rate >= 1)
                snprintf(root, sizeof root, "AlwaysOnSampler");
        else
                snprintf(root, sizeof root, "TraceIDRatioBased{%.15g}", tr->rate > 0 ? tr->rate : 0);
        log_info(SCOPE, "Dapr trace sampler initialized: ParentBased{root:%s,remoteParentSampled:AlwaysOnSampler,"
                        "remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler}",
                 root);
}

int tracer_new(struct tracer **ret, const struct tracer_conf *conf, char *err, size_t err_n)
{
        struct tracer *tr = calloc(1, sizeof *tr);
        int r;

        snprintf(err, err_n, "out of memory");
        if (!tr)
                return -ENOMEM;
        arena_init(&tr->arena, 0);
        tr->rate = parse_rate(conf->sampling_rate);
        tr->threshold = tr->rate > 0 && tr->rate < 1 ? (uint64_t)(tr->rate * 0x1p63) : 0;
        tr->off = tr->rate == 0;
        if (getrandom(tr->random, sizeof tr->random, 0) != sizeof tr->random)
                tr->random[0] = (uint64_t)wall_ns();
        tr->random[1] |= 1;
        tr->resource.attrs = tr->attrs;
        resource_set(tr, STR("service.name"), str_of(conf->app_id));
        resource_from_env(tr);
        r = add_metrics(tr, conf->metrics);
        if (r == 0 && !tr->off)
                r = add_exporters(tr, conf, err, err_n);
        tr->active = !tr->off && (tr->n_exporters > 0 || *conf->sampling_rate);
        if (r) {
                tracer_free(tr);
                return r;
        }
        log_sampler(tr);
        *ret = tr;
        return 0;
}

void tracer_stop(struct tracer *tr, double timeout_s)
{
        double deadline = loop_now_exact() + timeout_s;

        for (size_t i = 0; tr && i < tr->n_exporters; i++)
                span_exporter_stop(tr->exporters[i], deadline);
}

void tracer_free(struct tracer *tr)
{
        if (!tr)
                return;
        for (size_t i = 0; i < tr->n_exporters; i++)
                span_exporter_free(tr->exporters[i]);
        arena_fini(&tr->arena);
        free(tr);
}
