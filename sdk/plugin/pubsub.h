/* Brokers, inside the SDK: the stream of messages. */
#ifndef SDK_PLUGIN_PUBSUB_H
#define SDK_PLUGIN_PUBSUB_H

#include "sdk/plugin/runtime.h"

/* PubSub/PullMessages: runs the table's subscribe operation for as long as the runtime pulls. */
int sdk_pubsub_pull(struct dapr_call *dc, struct str req);
/* PubSub/Pause and /Resume: of all subscriptions of the instance. */
void sdk_pubsub_pause(struct instance *i, bool paused);

#endif
