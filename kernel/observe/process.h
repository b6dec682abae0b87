/* Metrics of the process itself (process_*), read from /proc at each scrape. */
#ifndef KERNEL_PROCESS_H
#define KERNEL_PROCESS_H

#include "kernel/observe/metrics.h"

struct process_metrics;
int process_metrics_new(struct process_metrics **ret, struct metrics *m); /* 0 or -ENOMEM */
void process_metrics_free(struct process_metrics *p);

#endif
