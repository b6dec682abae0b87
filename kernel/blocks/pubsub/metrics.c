/* dapr_component_pubsub_*: names, labels and oddities as the reference's (bulk ingress names "pubsubName" as its component). */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/pubsub.h"

#define INGRESS "app_id,component,namespace,process_status,status,topic"
#define BULK_INGRESS "app_id,component,namespace,process_status,topic"
#define EGRESS "app_id,component,namespace,success,topic"
#define PREFIX "dapr_component_pubsub_"

enum { IN_COUNT, IN_LATENCY, IN_BULK_COUNT, IN_BULK_EVENTS, IN_BULK_LATENCY, OUT_COUNT, OUT_LATENCY, OUT_BULK_COUNT, OUT_BULK_LATENCY, N };

struct pubsub_metrics {
        struct str app_id, ns;
        struct metric *m[N];
};

static const struct metric_def defs[N] = {
        [IN_COUNT] = {PREFIX "ingress_count", "The number of incoming messages arriving from the pub/sub component.", METRIC_COUNTER, INGRESS,
                      NULL},
        [IN_LATENCY] = {PREFIX "ingress_latencies", "The consuming app event processing latency.", METRIC_HISTOGRAM, INGRESS, NULL},
        [IN_BULK_COUNT] = {PREFIX "ingress_bulk_count",
                           "The number of incoming bulk subscribe calls arriving from the bulk pub/sub component.", METRIC_COUNTER,
                           BULK_INGRESS, NULL},
        [IN_BULK_EVENTS] = {PREFIX "ingress_bulk_event_count",
                            "Total number of incoming messages arriving from the bulk pub/sub component via Bulk Subscribe.",
                            METRIC_COUNTER, BULK_INGRESS, NULL},
        [IN_BULK_LATENCY] = {PREFIX "ingress_bulk_latencies",
                             "The consuming app event processing latency for the bulk pub/sub component.", METRIC_HISTOGRAM, BULK_INGRESS,
                             NULL},
        [OUT_COUNT] = {PREFIX "egress_count", "The number of outgoing messages published to the pub/sub component.", METRIC_COUNTER, EGRESS,
                       NULL},
        [OUT_LATENCY] = {PREFIX "egress_latencies", "The latency of the response from the pub/sub component.", METRIC_HISTOGRAM, EGRESS,
                         NULL},
        [OUT_BULK_COUNT] = {PREFIX "egress_bulk_count", "The number of bulk publish calls to the pub/sub component.", METRIC_COUNTER, EGRESS,
                            NULL},
        [OUT_BULK_LATENCY] = {PREFIX "egress_bulk_latencies",
                              "The latency of the response for the bulk publish call from the pub/sub component.", METRIC_HISTOGRAM, EGRESS,
                              NULL},
};

int pubsub_metrics_new(struct pubsub_metrics **ret, struct kernel *k)
{
        const struct configuration *c = &k->config;
        struct pubsub_metrics *m;

        *ret = NULL;
        if (!c->metrics_enabled || !k->metrics)
                return 0;
        m = calloc(1, sizeof *m);
        if (!m)
                return -ENOMEM;
        m->app_id = str_of(k->opts.app_id);
        m->ns = str_of(k->opts.namespace_);
        for (int i = 0; i < N; i++) {
                if (!(m->m[i] = metric_add(k->metrics, &defs[i]))) {
                        pubsub_metrics_free(m);
                        return -ENOMEM;
                }
        }
        *ret = m;
        return 0;
}

void pubsub_metrics_free(struct pubsub_metrics *m)
{
        free(m);
}

static void record(struct metric *count, struct metric *latency, const struct str *labels, double elapsed_ms)
{
        metric_inc(metric_series_get(count, labels), 1);
        metric_observe(metric_series_get(latency, labels), elapsed_ms);
}

void pubsub_observe_egress(struct pubsub_metrics *m, struct str component, struct str topic, bool ok, double elapsed_ms)
{
        if (m)
                record(m->m[OUT_COUNT], m->m[OUT_LATENCY],
                       (struct str[]){m->app_id, component, m->ns, ok ? STR("true") : STR("false"), topic}, elapsed_ms);
}

void pubsub_observe_bulk_egress(struct pubsub_metrics *m, struct str component, struct str topic, bool ok, size_t events, double elapsed_ms)
{
        if (m)
                record(m->m[OUT_BULK_COUNT], m->m[OUT_BULK_LATENCY],
                       (struct str[]){m->app_id, component, m->ns, ok ? STR("true") : STR("false"), topic}, elapsed_ms);
}

void pubsub_observe_ingress(struct pubsub_metrics *m, struct str component, const char *process, const char *status, struct str topic,
                            double elapsed_ms)
{
        if (m)
                record(m->m[IN_COUNT], m->m[IN_LATENCY],
                       (struct str[]){m->app_id, component, m->ns, str_of(process), str_of(status ? status : process), topic}, elapsed_ms);
}

void pubsub_observe_bulk_ingress(struct pubsub_metrics *m, struct str topic, double elapsed_ms, const int64_t counts[3])
{
        static const char *const names[3] = {"SUCCESS", "RETRY", "DROP"};
        const struct str component = STR("pubsubName");

        if (!m)
                return;
        record(m->m[IN_BULK_COUNT], m->m[IN_BULK_LATENCY], (struct str[]){m->app_id, component, m->ns, STR(""), topic}, elapsed_ms);
        for (int i = 0; i < 3; i++)
                if (counts[i] > 0)
                        metric_inc(metric_series_get(m->m[IN_BULK_EVENTS],
                                                     (struct str[]){m->app_id, component, m->ns, str_of(names[i]), topic}),
                                   (double)counts[i]);
}
