/* spec.metric.rules: label values of metrics rewritten by regular expressions. */
#ifndef KERNEL_METRIC_RULES_H
#define KERNEL_METRIC_RULES_H

#include "kernel/kernel.h"

struct metric_rules;
/* From the Configuration; registers with k->metrics. 0 and *ret (NULL: there are none); with a sentence in *ret_err (a):
 * -EBADMSG, a regular expression is none, and -EINVAL; -ENOMEM. */
int metric_rules_new(struct metric_rules **ret, struct kernel *k, struct arena *a, const char **ret_err);
void metric_rules_free(struct metric_rules *r);

#endif
