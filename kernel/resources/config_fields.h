/* The fields of a Configuration as one table, and their decoding from a tree; private to the configuration reader. */
#ifndef KERNEL_RESOURCES_CONFIG_FIELDS_H
#define KERNEL_RESOURCES_CONFIG_FIELDS_H

#include "kernel/resources/resources.h"
#include "sdk/base/yaml.h"

/* Fills c from c->doc and checks every field that the reference knows, also those that only later blocks read. 0; -EINVAL or
 * -ENOMEM with a text in *ret_err (arena of c). */
int config_decode(struct configuration *c, const char **ret_err);
/* spec.metrics laid over spec.metric, member by member. 0 or -ENOMEM. */
int config_apply_metrics(struct configuration *c);

#endif
