/* Metrics of the plugin processes. */
#ifndef KERNEL_PLUGIN_METRICS_H
#define KERNEL_PLUGIN_METRICS_H

#include "kernel/kernel.h"

struct plugin_metrics;
int plugin_metrics_new(struct plugin_metrics **ret, struct kernel *k); /* registers with k->metrics; 0 or -ENOMEM */
void plugin_metrics_free(struct plugin_metrics *p);

#endif
