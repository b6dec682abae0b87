/* Subscriptions as the metadata lists them: those that apply, whatever they come from. */
#include <errno.h>

#include "kernel/blocks/metadata.h"
#include "kernel/blocks/pubsub/pubsub.h"

typedef Dapr__Proto__Runtime__V1__PubsubSubscription message;
typedef Dapr__Proto__Runtime__V1__PubsubSubscription__MetadataEntry entry;
typedef Dapr__Proto__Runtime__V1__PubsubSubscriptionRule rule;

static int fill_rules(struct arena *a, const struct subscription_spec *s, message *m)
{
        m->rules = arena_new(a, Dapr__Proto__Runtime__V1__PubsubSubscriptionRules);
        if (!m->rules)
                return -ENOMEM;
        dapr__proto__runtime__v1__pubsub_subscription_rules__init(m->rules);
        m->rules->rules = arena_alloc(a, (s->n_rules + 1) * sizeof m->rules->rules[0]);
        if (!m->rules->rules)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_rules; i++) {
                rule *x = arena_new(a, rule);
                if (!x)
                        return -ENOMEM;
                dapr__proto__runtime__v1__pubsub_subscription_rule__init(x);
                x->match = s->rules[i].match;
                x->path = s->rules[i].path;
                m->rules->rules[m->rules->n_rules++] = x;
        }
        return 0;
}

static int fill_metadata(struct arena *a, const struct subscription_spec *s, message *m)
{
        m->metadata = arena_alloc(a, (s->n_metadata + 1) * sizeof m->metadata[0]);
        if (!m->metadata)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_metadata; i++) {
                entry *e = arena_new(a, entry);
                if (!e)
                        return -ENOMEM;
                dapr__proto__runtime__v1__pubsub_subscription__metadata_entry__init(e);
                e->key = s->metadata[i].key;
                e->value = s->metadata[i].value;
                m->metadata[m->n_metadata++] = e;
        }
        return 0;
}

static message *fill(struct arena *a, const struct subscription_spec *s)
{
        message *m = arena_new(a, message);

        if (!m)
                return NULL;
        dapr__proto__runtime__v1__pubsub_subscription__init(m);
        m->pubsub_name = s->pubsub;
        m->topic = s->topic;
        m->dead_letter_topic = s->dead_letter;
        m->type = s->origin == SUBSCRIPTION_DECLARATIVE    ? DAPR__PROTO__RUNTIME__V1__PUBSUB_SUBSCRIPTION_TYPE__DECLARATIVE
                  : s->origin == SUBSCRIPTION_PROGRAMMATIC ? DAPR__PROTO__RUNTIME__V1__PUBSUB_SUBSCRIPTION_TYPE__PROGRAMMATIC
                                                           : DAPR__PROTO__RUNTIME__V1__PUBSUB_SUBSCRIPTION_TYPE__STREAMING;
        return fill_rules(a, s, m) || fill_metadata(a, s, m) ? NULL : m;
}

int metadata_fill_subscriptions(struct kernel *k, struct arena *a, metadata_message *m)
{
        const struct subscription_spec **v;
        size_t n;

        if (!k->pubsub)
                return 0;
        if (subscriber_list(k->pubsub, a, &v, &n))
                return -ENOMEM;
        m->subscriptions = arena_alloc(a, (n + 1) * sizeof m->subscriptions[0]);
        if (!m->subscriptions)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (!(m->subscriptions[m->n_subscriptions++] = fill(a, v[i])))
                        return -ENOMEM;
        return 0;
}
