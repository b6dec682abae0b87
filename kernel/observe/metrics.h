/*
 * Metrics: a registry of counters, gauges and histograms with labels, written as Prometheus text. Names and buckets as the
 * reference (API.md 7.4). Series are found by label values once and then kept by the caller on hot paths.
 */
#ifndef KERNEL_METRICS_H
#define KERNEL_METRICS_H

#include "sdk/base/buf.h"
#include "sdk/base/map.h"
#include "sdk/base/str.h"

enum {
        METRIC_LABELS_MAX = 8,
        METRIC_SERIES_MAX = 20000,          /* of all metrics together */
        METRIC_BYTES_MAX = 8 * 1024 * 1024, /* what they take in memory */
        METRIC_SHARE = 4,                   /* one metric has a fourth of either at most, so that no other loses its own */
        METRICS_PORTION_BYTES = 64 * 1024
};
enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_def {
        const char *name, *help;
        enum metric_type type;
        const char *labels;     /* "app_id,component,operation": sorted as written */
        const double *buckets;  /* histogram upper bounds, INFINITY-terminated; NULL = the registry's for latencies (ms) */
};
struct arena;
struct metric;
struct metric_series;

struct metrics;
int metrics_new(struct metrics **ret);
void metrics_free(struct metrics *m);
/* Upper bounds of histograms whose definition names none, INFINITY-terminated, from here on; kept. */
void metrics_set_latency_buckets(struct metrics *m, const double *buckets);
struct metric *metric_add(struct metrics *m, const struct metric_def *def);
/* Series for label values in the order of def.labels; NULL when METRIC_SERIES_MAX or METRIC_BYTES_MAX is reached: all
 * calls on it do nothing then. */
struct metric_series *metric_series_get(struct metric *m, const struct str *values);
void metric_inc(struct metric_series *s, double by);
void metric_set(struct metric_series *s, double v);
void metric_observe(struct metric_series *s, double v);
/* Forgets every series of a metric: for gauges that are rebuilt at each scrape. Pointers to them die. */
void metric_series_drop_all(struct metric *m);
/* fn is asked for every label value that is not empty when a series is looked up; it gives the one that stands for it, in a or static. */
void metrics_set_rewrite(struct metrics *m, struct str (*fn)(void *arg, const char *metric, struct str label, struct str value, struct arena *a),
                         void *arg);
/* Callback run before each scrape, for gauges that are read (RSS, CPU, fds). */
void metrics_on_scrape(struct metrics *m, void (*fn)(void *arg), void *arg);
/* Calls fn for every metric, by name, whether it has series or not. */
void metrics_each(const struct metrics *m, void (*fn)(void *arg, const struct metric_def *def), void *arg);
size_t metrics_bytes(const struct metrics *m); /* what the series take */
int metrics_write(struct metrics *m, struct buf *out); /* appends the text form; 0 or -ENOMEM */
/* The same in portions, for readers that may be slow: appends whole series until out has METRICS_PORTION_BYTES. at: zeroed before the first.
 * 1 = there is more, 0 = that was all, -ENOMEM. What is counted between two portions is in the later one only. */
struct metrics_at {
        const struct metric *metric; /* the next one; NULL with begun = the end */
        size_t series;               /* so many of it are written */
        bool begun;
};
int metrics_write_some(struct metrics *m, struct metrics_at *at, struct buf *out);
/* A number as the text form has it: shortest decimal that reads back, exponent from 1e+06 on. */
void metric_number(char to[32], double v);

extern const double metric_latency_buckets[]; /* ms */
extern const double metric_size_buckets[];

#endif
