/* Bindings, inside the SDK: the stream of events. */
#ifndef SDK_PLUGIN_BINDING_H
#define SDK_PLUGIN_BINDING_H

#include "sdk/plugin/runtime.h"

/* InputBinding/Read: runs the table's read operation for as long as the runtime listens. */
int sdk_binding_read(struct dapr_call *dc, struct str req);

#endif
