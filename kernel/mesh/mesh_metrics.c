/* Series are looked up by their labels at each event: a hash of some 60 bytes. */
#include "kernel/mesh/mesh_metrics.h"

#include <errno.h>
#include <stdlib.h>

enum metric_id { SENT, RECEIVED, ANSWER_SENT, ANSWERED, LATENCY, ACL_APP_ALLOWED, ACL_GLOBAL_ALLOWED, ACL_APP_BLOCKED, ACL_GLOBAL_BLOCKED, METRICS };

#define ACL_LABELS "app_id,namespace,trustDomain"
#define INVOCATION "dapr_runtime_service_invocation_"

static const struct metric_def defs[METRICS] = {
        [SENT] = {INVOCATION "req_sent_total", "The number of requests sent via service invocation.", METRIC_COUNTER, "app_id,dst_app_id,type", NULL},
        [RECEIVED] = {INVOCATION "req_recv_total", "The number of requests received via service invocation.", METRIC_COUNTER, "app_id,src_app_id", NULL},
        [ANSWER_SENT] = {INVOCATION "res_sent_total", "The number of responses sent via service invocation.", METRIC_COUNTER,
                         "app_id,dst_app_id,status", NULL},
        [ANSWERED] = {INVOCATION "res_recv_total", "The number of responses received via service invocation.", METRIC_COUNTER,
                      "app_id,src_app_id,status,type", NULL},
        [LATENCY] = {INVOCATION "res_recv_latency_ms", "The latency of service invocation response.", METRIC_HISTOGRAM, "app_id,src_app_id,status",
                     NULL},
        [ACL_APP_ALLOWED] = {"dapr_runtime_acl_app_policy_action_allowed_total",
                             "The number of requests allowed by the app specific action specified in the access control policy.", METRIC_COUNTER,
                             ACL_LABELS, NULL},
        [ACL_GLOBAL_ALLOWED] = {"dapr_runtime_acl_global_policy_action_allowed_total",
                                "The number of requests allowed by the global action specified in the access control policy.", METRIC_COUNTER,
                                ACL_LABELS, NULL},
        [ACL_APP_BLOCKED] = {"dapr_runtime_acl_app_policy_action_blocked_total",
                             "The number of requests blocked by the app specific action specified in the access control policy.", METRIC_COUNTER,
                             ACL_LABELS, NULL},
        [ACL_GLOBAL_BLOCKED] = {"dapr_runtime_acl_global_policy_action_blocked_total",
                                "The number of requests blocked by the global action specified in the access control policy.", METRIC_COUNTER,
                                ACL_LABELS, NULL},
};

struct mesh_metrics {
        struct str app_id;
        struct metric *metric[METRICS];
};

int mesh_metrics_new(struct mesh_metrics **ret, struct metrics *m, const char *app_id)
{
        struct mesh_metrics *x = calloc(1, sizeof *x);

        if (!x)
                return -ENOMEM;
        x->app_id = str_of(app_id);
        for (int i = 0; i < METRICS; i++) {
                if ((x->metric[i] = metric_add(m, &defs[i])))
                        continue;
                free(x);
                return -ENOMEM;
        }
        *ret = x;
        return 0;
}

void mesh_metrics_free(struct mesh_metrics *m)
{
        free(m);
}

static void count(struct mesh_metrics *m, enum metric_id id, struct str b, struct str c, struct str d)
{
        const struct str labels[] = {m->app_id, b, c, d};

        metric_inc(metric_series_get(m->metric[id], labels), 1);
}

static struct str type_of(bool is_stream)
{
        return is_stream ? STR("streaming") : STR("unary");
}

void mesh_count_sent(struct mesh_metrics *m, struct str callee, bool is_stream)
{
        if (m)
                count(m, SENT, callee, type_of(is_stream), STR(""));
}

void mesh_count_answered(struct mesh_metrics *m, struct str callee, int status, bool is_stream, double elapsed_ms)
{
        char text[12];
        struct str code = str_int(text, status);
        const struct str labels[] = {m ? m->app_id : STR(""), callee, code};

        if (!m)
                return;
        count(m, ANSWERED, callee, code, type_of(is_stream));
        if (!is_stream)
                metric_observe(metric_series_get(m->metric[LATENCY], labels), elapsed_ms);
}

static struct str known(struct str caller)
{
        return caller.n ? caller : STR("unknown");
}

void mesh_count_received(struct mesh_metrics *m, struct str caller)
{
        if (m)
                count(m, RECEIVED, known(caller), STR(""), STR(""));
}

void mesh_count_answer_sent(struct mesh_metrics *m, struct str caller, int status)
{
        char text[12];

        if (m)
                count(m, ANSWER_SENT, known(caller), str_int(text, status), STR(""));
}

void mesh_count_acl(struct mesh_metrics *m, bool by_app, bool allowed, struct str app_id, struct str trust_domain, struct str ns)
{
        const struct str labels[] = {app_id, ns, trust_domain};
        enum metric_id id = by_app ? (allowed ? ACL_APP_ALLOWED : ACL_APP_BLOCKED) : allowed ? ACL_GLOBAL_ALLOWED : ACL_GLOBAL_BLOCKED;

        if (m)
                metric_inc(metric_series_get(m->metric[id], labels), 1);
}
