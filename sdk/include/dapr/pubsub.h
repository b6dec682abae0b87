/*
 * Brokers: publish, and subscriptions that hand messages to the runtime with acknowledgements. Included from <dapr/plugin.h>.
 *
 * At least once is kept by one rule: a message is settled at the broker only by what done() was told. Messages that nobody answered
 * (the runtime has ended the subscription, is gone, or drains the plugin) are told as DAPR_HANDED_BACK: leave them with the broker.
 */
#ifndef DAPR_PUBSUB_H
#define DAPR_PUBSUB_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Unanswered messages of one subscription; the runtime lowers it by the topic's metadata microdapr.maxInFlight. */
enum { DAPR_IN_FLIGHT_MAX = 1000 };
enum { DAPR_BULK_AT_ONCE_MAX = 256 };

struct dapr_publish {
        const char *topic;
        struct dapr_bytes data;
        const char *content_type;   /* "" = not given */
        struct dapr_kvs metadata;
};
struct dapr_bulk_entry {
        const char *id;
        struct dapr_bytes data;
        const char *content_type;
        struct dapr_kvs metadata;
};
struct dapr_bulk_publish {
        const char *topic;
        const struct dapr_bulk_entry *entries;
        size_t n;
        struct dapr_kvs metadata;
};
struct dapr_topic { /* valid as long as the subscription */
        const char *name;
        struct dapr_kvs metadata;
        size_t max_in_flight;
};
struct dapr_message { /* borrowed for the call of dapr_deliver() */
        const char *topic;          /* NULL = the subscription's */
        struct dapr_bytes data;
        const char *content_type;   /* NULL = none */
        struct dapr_kvs metadata;
};
enum dapr_outcome {
        DAPR_ACKED,                 /* the app has taken it (or the runtime has put it where it belongs): settle it */
        DAPR_NACKED,                /* the app has failed it: as the broker does with failed messages, mostly deliver it again later */
        DAPR_HANDED_BACK            /* nobody has answered: deliver it again soon, to whoever subscribes */
};
/* Once for each delivered message, on the loop's thread. Must not park or block: it notes the outcome and wakes whoever settles. */
typedef void (*dapr_done_fn)(void *arg, enum dapr_outcome outcome);

struct dapr_subscription; /* given to `subscribe`, valid until it returns */
/* Hands one message to the runtime. Parks only for credit: while max_in_flight messages are unanswered, the component is paused or
 * the connection is slow (on a worker thread: blocks). 0: done(arg, outcome) will be called, perhaps before this returns.
 * -ECANCELED: nothing more is taken, the subscription ends or the plugin drains: keep the message, call dapr_subscription_wait() or
 * return. -ETIMEDOUT: the calling fiber's own deadline. -ENOMEM. In all these cases done is not called. Several fibers and threads
 * may deliver at once; messages of one fiber stay in order. */
int dapr_deliver(struct dapr_subscription *s, const struct dapr_message *m, dapr_done_fn done, void *arg);
/* The same, parked until the answer: 0 = acked, DAPR_INTERNAL = failed, -ECANCELED = handed back or not taken, -ENOMEM. */
int dapr_deliver_wait(struct dapr_subscription *s, const struct dapr_message *m);
/* Tells the runtime that the subscription stands at the broker: from now on nothing that is published is missed. Done by the first
 * delivery too. The runtime sees it as the stream's response headers. */
void dapr_subscribed(struct dapr_subscription *s);
/* Parks until the subscription has ended and every done() was called. Returns -ECANCELED. */
int dapr_subscription_wait(struct dapr_subscription *s);
/* Has it ended, or does the plugin drain? Any thread. */
bool dapr_subscription_is_ended(const struct dapr_subscription *s);
/* A further fiber of this subscription. When the subscription ends it is cancelled: fn must return; `subscribe` returns after it
 * only if it waits for it itself. Not from worker threads. 0 or -errno. */
int dapr_subscription_go(struct dapr_subscription *s, const char *name, void (*fn)(void *arg), void *arg);

struct dapr_pubsub_ops {
        enum dapr_mode mode;
        unsigned features;          /* DAPR_FEATURE_SUBSCRIBE_WILDCARDS, _MESSAGE_TTL, _BULK_PUBSUB, _PAUSE */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        int (*publish)(struct dapr_call *c, void *instance, const struct dapr_publish *in);
        /* How many publishes of one bulk request the SDK may have under way at once, when bulk_publish is NULL and the mode DAPR_FIBER:
         * they begin in order, each on a fiber of its own. 0 and 1: one after the other. At most DAPR_BULK_AT_ONCE_MAX. */
        unsigned bulk_at_once;
        /* Optional: the SDK calls publish for each entry when NULL. out is preset to success; a return value != 0 fails all. */
        int (*bulk_publish)(struct dapr_call *c, void *instance, const struct dapr_bulk_publish *in, struct dapr_bulk_result *out);
        /* Runs for the life of a subscription, on a fiber of its own (DAPR_WORKER: on a thread of the pool, which it keeps). When the
         * subscription ends, first every unanswered message is handed back, then the fiber is cancelled: its parks return -ECANCELED.
         * After it has returned no done() is called. A failure ends the runtime's stream: it subscribes again after a pause. */
        int (*subscribe)(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic);
};

#ifdef __cplusplus
}
#endif
#endif
