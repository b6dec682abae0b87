/* Metrics of the plugin processes. */
#ifndef KERNEL_PLUGIN_METRICS_H
#define KERNEL_PLUGIN_METRICS_H

#include "kernel/kernel.h"

struct plugin_metrics;
int plugin_metrics_new(struct plugin_metrics **ret, struct kernel *k); /* registers with k->metrics; 0 or -ENOMEM */
struct metric *plugin_metrics_hop(struct plugin_metrics *p); /* how long calls take: super_conf.hop_seconds */
void plugin_metrics_free(struct plugin_metrics *p);

#endif
