/*
 * The outbox (API.md 8.3): a state transaction and the events of its changes, both or none. A store has one when its component has
 * outboxPublishPubsub and outboxPublishTopic.
 *
 * The transaction first publishes an event a change to a topic of the app's own and then writes a marker beside the values. Every
 * sidecar of the app reads that topic: an event whose marker is there goes on to the real topic and the marker goes away; without a
 * marker the transaction has failed, or not happened yet.
 */
#ifndef KERNEL_OUTBOX_H
#define KERNEL_OUTBOX_H

#include "kernel/blocks/state.h"

int outbox_init(struct kernel *k);   /* from the state components: 0 or -ENOMEM */
/* The state component of that name has come, changed or gone. Parks. */
void outbox_changed(struct kernel *k, const char *store);
void outbox_broker_arrived(struct kernel *k, const char *pubsub); /* that of internal topics, perhaps. Parks. */
void outbox_start(struct kernel *k); /* reads the internal topics, once. Parks. */
void outbox_stop(struct kernel *k);  /* no more events. Parks. */
void outbox_fini(struct kernel *k);

bool outbox_enabled(const struct kernel *k, const char *store);
/* Publishes the events of a transaction's upserts (encrypted already, if the store is), takes projections out of it and puts the
 * markers in: *items is a new list in the call's arena. 0, or -1 after call_fail. Parks. */
int outbox_publish(struct call *c, const char *store, struct state_item **items, size_t *n);

#endif
