/* The streams of subscriptions, for subscription.c. */
#ifndef KERNEL_PUBSUB_PULL_H
#define KERNEL_PUBSUB_PULL_H

#include "kernel/blocks/pubsub/subscription.h"

#define PUBSUB_SERVICE "/dapr.proto.components.v1.PubSub/"

/* One life of a subscription's PullMessages stream. Its messages hold it until they are settled. */
struct pull {
        struct list node;  /* subscription.older, while it is one of those */
        struct subscription *sub;
        unsigned refs;     /* its reader's, and each message's */
        bool dead;
        bool replaced;     /* another one reads on: this one's end is the end of its reader */
        bool closed;       /* what comes by it now is held */
        struct rpc_call *call;
        struct fmutex sending;
        struct arena arena;
};
/* Opens it at c (NULL = the broker is gone) and names the topic; our plugins then say when the subscription stands. 0 and *ret, or -1
 * with the text in *ret_err (a). Parks. */
int pull_open(struct subscription *s, struct component *c, struct arena *a, struct pull **ret, const char **ret_err);
void pull_close(struct subscription *s, struct pull *p); /* gives the reader's reference. Parks. */
void pull_unref(struct pull *p);

/* ---- inbox.c ---- */
/* A message that the stream p brought (bytes of a PullMessagesResponse): to the app, now or when it is its turn. One that cannot be
 * read is logged and left. Parks only when there are no more fibers. */
void message_take(struct subscription *s, struct pull *p, struct str bytes);

#endif
