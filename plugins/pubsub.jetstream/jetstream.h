/*
 * pubsub.jetstream, inside. A topic is a subject; a subscription is a push consumer of the stream that has it. One connection publishes,
 * each subscription has its own: a slow app holds up nobody else.
 */
#ifndef PUBSUB_JETSTREAM_H
#define PUBSUB_JETSTREAM_H

#include "plugins/shared/nats/nats.h"
#include "sdk/base/map.h"

enum { BACKOFF_MAX = 32, API_S = 5, NAME_MAX_BYTES = 300, WHY_MAX = 300 };
enum js_ack { JS_EXPLICIT, JS_ALL, JS_NONE };

struct broker { /* one component */
        struct nats_settings s;
        struct nats *nats;
        char *instance, *stream, *durable, *queue, *prefix; /* prefix: "$JS.API." */
        const char *deliver_policy; /* as the server names it */
        enum js_ack ack;
        bool flow_control, memory_storage, single;
        int64_t start_sequence, start_time, ack_wait_ns, heartbeat_ns, max_deliver, max_ack_pending, replicas, rate_limit; /* 0 = not given */
        int64_t backoff_ns[BACKOFF_MAX];
        size_t n_backoff;
};

/* ---- consumer.c ---- */
struct consumer { /* what the server has made */
        char stream[NAME_MAX_BYTES], name[NAME_MAX_BYTES], subject[NAME_MAX_BYTES]; /* subject: it delivers to this one */
        double ack_wait_s;      /* the shortest time until a redelivery */
        uint64_t max_deliver;   /* 0 = no limit */
        size_t max_ack_pending;
};
struct consumer_wish {
        const char *topic, *inbox; /* inbox: delivers to it when it is new */
        uint64_t from;             /* sequence that a consumer without a name begins with when it is made again; 0 = deliverPolicy */
};
/* Finds the stream, and finds or makes the consumer. 0; a dapr_code with the text in why; or -errno (no connection, no time). Parks. */
int consumer_bind(struct broker *b, struct nats *n, const struct consumer_wish *w, struct consumer *ret, char why[WHY_MAX]);
/* Is it still there? 1, 0 or -errno. Parks. */
int consumer_is_there(struct broker *b, struct nats *n, const struct consumer *c);
/* The last sequence of the stream; 0 when it cannot be told. Parks. */
uint64_t consumer_stream_end(struct broker *b, struct nats *n, const struct consumer *c);

/* ---- subscribe.c ---- */
int jetstream_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic);

#endif
