/*
 * Subscriptions, wherever they come from: Subscription resources (v1alpha1 with one route, v2alpha1 with rules), the app's answer to
 * GET /dapr/subscribe or ListTopicSubscriptions, or a stream. One plain struct for all; rules are text here, compiled later.
 */
#ifndef KERNEL_RESOURCES_SUBSCRIPTION_H
#define KERNEL_RESOURCES_SUBSCRIPTION_H

#include "kernel/resources/resources.h"

enum { SUBSCRIPTION_RULES_MAX = 1024 };

enum subscription_origin { SUBSCRIPTION_DECLARATIVE, SUBSCRIPTION_PROGRAMMATIC, SUBSCRIPTION_STREAMING, SUBSCRIPTION_INTERNAL /* outbox */ };

struct subscription_rule {
        const char *match; /* CEL; "" = always */
        const char *path;
};
struct subscription_item {
        const char *key, *value;
};
struct subscription_spec {
        enum subscription_origin origin;
        const char *name;  /* of the resource; "" for others */
        const struct raw_resource *resource; /* in whose memory it lives; NULL for others */
        const char *pubsub, *topic, *dead_letter; /* "" if absent */
        struct subscription_rule *rules;
        size_t n_rules;
        struct subscription_item *metadata;
        size_t n_metadata;
        bool bulk;
        int bulk_max_messages, bulk_max_await_ms; /* 0 = default */
};
/* NULL if absent. */
const char *subscription_metadata(const struct subscription_spec *s, const char *key);

/* A Subscription resource: v1alpha1 has `route`, v2alpha1 `routes`. Scopes are the loader's matter. Everything in a. 0; -EINVAL with Go's
 * text of an ill-typed field in *ret_err; -ENOMEM. */
int subscription_read(struct arena *a, const struct raw_resource *r, struct subscription_spec **ret, const char **ret_err);
/* The app's list (API.md 3.2): route or routes, entries without a route included (n_rules 0). 0; -EINVAL with Go's text of what is
 * wrong in *ret_err; -ENOMEM. An empty text is an empty list. */
int subscription_read_list(struct arena *a, struct str json, struct subscription_spec ***ret, size_t *ret_n, const char **ret_err);

#endif
