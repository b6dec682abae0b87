/*
 * pubsub.rabbitmq, inside. A topic is an exchange; a subscription is a queue "<consumerID>-<topic>" bound to it, with names, kinds and
 * arguments as the reference declares them: both can share exchanges and queues. One link publishes, each subscription has its own.
 */
#ifndef PUBSUB_RABBITMQ_H
#define PUBSUB_RABBITMQ_H

#include "plugins/shared/amqp/amqp.h"

struct broker { /* one component */
        struct amqp_settings s;
        char *instance, *consumer_id, *kind;
        bool durable, auto_delete, dead_letter, auto_ack, requeue, single, properties;
        uint8_t delivery_mode;
        int64_t prefetch, max_len, max_len_bytes, ttl_ms; /* ttl_ms -1 = none */
        double reconnect_s;
        struct amqp_shared shared; /* for publishing */
};

int rabbit_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic);

#endif
