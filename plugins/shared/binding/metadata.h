/* What several bindings read from a request's metadata. */
#ifndef PLUGINS_SHARED_BINDING_METADATA_H
#define PLUGINS_SHARED_BINDING_METADATA_H

#include "dapr/plugin.h"

/* Time to live of ttl or ttlInSeconds: a duration, or a number of seconds. 0 with *ret_ms (-1: none is given), or dapr_fail()'s code. */
int binding_ttl(struct dapr_call *c, struct dapr_kvs md, int64_t *ret_ms);
/* priority, 0 to 255 (what is beyond counts as that end). 0 with *ret (-1: none is given), or dapr_fail()'s code. */
int binding_priority(struct dapr_call *c, struct dapr_kvs md, int *ret);

#endif
