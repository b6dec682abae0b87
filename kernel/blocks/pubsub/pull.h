/* The streams of subscriptions, for subscription.c. */
#ifndef KERNEL_PUBSUB_PULL_H
#define KERNEL_PUBSUB_PULL_H

#include "kernel/blocks/pubsub/subscription.h"

#define PUBSUB_SERVICE "/dapr.proto.components.v1.PubSub/"

/* One life of a subscription's PullMessages stream. Its messages hold it until they are settled. */
struct pull {
        unsigned refs;
        bool dead;
        struct rpc_call *call;
        struct fmutex sending;
        struct arena arena;
};
/* Opens it and names the topic; our plugins then say when the subscription stands. 0 and s->pull, or -1 with the text in *ret_err
 * (a). Parks. */
int pull_open(struct subscription *s, struct arena *a, const char **ret_err);
void pull_close(struct subscription *s); /* s->pull is NULL then. Parks. */
void pull_unref(struct pull *p);

#endif
