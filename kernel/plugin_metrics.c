/*
 * How the processes behind the components fare, read at each scrape: microdapr_plugin_*. The series are made anew each time, so a
 * component that is gone leaves none behind.
 */
#include "kernel/plugin_metrics.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/metrics.h"

enum { P_STATE, P_UP, P_BACKEND, P_RESTARTS, P_CALLS, P_ERRORS, P_INFLIGHT, P_RSS, P_CPU, P_FDS, P_N };

#define LABELS "app_id,component,type"

static const struct metric_def defs[P_N] = {
        [P_STATE] = {"microdapr_plugin_state", "1 for the state the component's process is in.", METRIC_GAUGE, LABELS ",state", NULL},
        [P_UP] = {"microdapr_plugin_up", "1 when the component serves calls.", METRIC_GAUGE, LABELS, NULL},
        [P_BACKEND] = {"microdapr_plugin_backend_reachable", "1 when the component reaches what it stands for.", METRIC_GAUGE, LABELS,
                       NULL},
        [P_RESTARTS] = {"microdapr_plugin_restarts_total", "Number of times the component's process was started again.", METRIC_COUNTER,
                        LABELS, NULL},
        [P_CALLS] = {"microdapr_plugin_calls_total", "Number of calls to the component.", METRIC_COUNTER, LABELS, NULL},
        [P_ERRORS] = {"microdapr_plugin_errors_total", "Number of calls to the component that failed.", METRIC_COUNTER, LABELS, NULL},
        [P_INFLIGHT] = {"microdapr_plugin_calls_inflight", "Number of calls to the component that run or wait.", METRIC_GAUGE, LABELS,
                        NULL},
        [P_RSS] = {"microdapr_plugin_resident_memory_bytes", "Resident memory size of the component's process in bytes.", METRIC_GAUGE,
                   LABELS, NULL},
        [P_CPU] = {"microdapr_plugin_cpu_seconds_total", "Total user and system CPU time of the component's process in seconds.",
                   METRIC_COUNTER, LABELS, NULL},
        [P_FDS] = {"microdapr_plugin_open_fds", "Number of open file descriptors of the component's process.", METRIC_GAUGE, LABELS, NULL},
};

/* In seconds; a call over the socket takes some tens of microseconds. */
static const double hop_buckets[] = {.000025, .00005, .0001, .00015, .0002, .0003, .0005, .00075, .001, .0015, .002, .003, .005, .0075, .01,
                                     .025, .05, .1, .25, .5, 1, 2.5, 5, 10, INFINITY};
static const struct metric_def hop_def = {"microdapr_plugin_call_duration_seconds", "How long calls to the component's process take.",
                                          METRIC_HISTOGRAM, "app_id,component,method", hop_buckets};

struct plugin_metrics {
        struct kernel *k;
        struct metric *metric[P_N];
        struct metric *hop;
};

static void set(struct plugin_metrics *p, int which, const struct str *labels, double v)
{
        metric_set(metric_series_get(p->metric[which], labels), v);
}

/* -1: not to be seen. */
static int open_fds(pid_t pid)
{
        char path[40];
        DIR *d;
        int n = -2; /* "." and ".." */

        snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
        if (!(d = opendir(path)))
                return -1;
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static void scrape_one(struct plugin_metrics *p, const struct component *c, struct arena *a)
{
        struct component_status s = {0};
        struct str labels[4] = {str_of(p->k->opts.app_id), str_of(component_name(c)), str_of(component_spec_of(c)->type)};

        component_status_get(c, a, &s);
        labels[3] = str_of(plugin_state_name(s.state));
        set(p, P_STATE, labels, 1);
        set(p, P_UP, labels, s.state == PLUGIN_READY || s.state == PLUGIN_DEGRADED);
        if (s.backend_known)
                set(p, P_BACKEND, labels, s.backend_reachable);
        set(p, P_RESTARTS, labels, s.restarts);
        set(p, P_CALLS, labels, (double)s.calls);
        set(p, P_ERRORS, labels, (double)s.errors);
        set(p, P_INFLIGHT, labels, (double)s.inflight);
        if (s.pid) {
                set(p, P_RSS, labels, (double)s.rss_bytes);
                set(p, P_CPU, labels, s.cpu_seconds);
                int fds = open_fds(s.pid);
                if (fds >= 0)
                        set(p, P_FDS, labels, fds);
        }
}

static void scrape(void *arg)
{
        struct plugin_metrics *p = arg;
        struct arena a;

        arena_init(&a, 0);
        for (int i = 0; i < P_N; i++)
                metric_series_drop_all(p->metric[i]);
        for (size_t i = 0; i < p->k->n_components; i++)
                scrape_one(p, p->k->all_components[i], &a);
        arena_fini(&a);
}

int plugin_metrics_new(struct plugin_metrics **ret, struct kernel *k)
{
        struct plugin_metrics *p = calloc(1, sizeof *p);

        if (!p)
                return -ENOMEM;
        p->k = k;
        for (int i = 0; i < P_N; i++)
                if (!(p->metric[i] = metric_add(k->metrics, &defs[i]))) {
                        free(p);
                        return -ENOMEM;
                }
        if (!(p->hop = metric_add(k->metrics, &hop_def))) {
                free(p);
                return -ENOMEM;
        }
        metrics_on_scrape(k->metrics, scrape, p);
        *ret = p;
        return 0;
}

struct metric *plugin_metrics_hop(struct plugin_metrics *p)
{
        return p->hop;
}

void plugin_metrics_free(struct plugin_metrics *p)
{
        free(p);
}
