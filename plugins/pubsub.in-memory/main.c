/*
 * pubsub.in-memory: publish hands a message to each subscription of the same instance whose topic fits. Nothing is stored.
 *
 * A subscription's topic that ends with '*' fits every topic that begins with the text before it and is longer. A delivery may park
 * for credit, and subscriptions come and go meanwhile: the walk over them goes on by number, not by position.
 * A failed message is logged and gone; so is one that nobody answered when its subscription ended.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dapr/plugin.h"
#include "sdk/base/list.h"

struct bus {
        struct list subscribers; /* by number */
        uint64_t last;
};
struct subscriber {
        struct list node;
        uint64_t number;
        struct dapr_subscription *sub;
        const char *topic;
        size_t prefix_n;
        bool wildcard;
};

static int bus_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct bus *b = calloc(1, sizeof *b);
        if (!b)
                return -ENOMEM;
        list_init(&b->subscribers);
        *instance = b;
        return 0;
}

static void bus_close(void *instance)
{
        free(instance); /* no call runs any more, so no subscription either */
}

static bool fits(const struct subscriber *s, const char *topic)
{
        if (strcmp(s->topic, topic) == 0)
                return true;
        return s->wildcard && strncmp(topic, s->topic, s->prefix_n) == 0 && topic[s->prefix_n];
}

static void done(void *arg, enum dapr_outcome outcome)
{
        if (outcome == DAPR_NACKED)
                dapr_log(DAPR_LOG_ERROR, "the app has failed a message of a subscription; it is not delivered again");
}

/* The first after `number` that fits. */
static struct subscriber *next(struct bus *b, uint64_t number, const char *topic)
{
        list_for_each(pos, &b->subscribers) {
                struct subscriber *s = list_entry(pos, struct subscriber, node);
                if (s->number > number && fits(s, topic))
                        return s;
        }
        return NULL;
}

static int bus_publish(struct dapr_call *c, void *instance, const struct dapr_publish *in)
{
        struct bus *b = instance;
        struct dapr_message m = {.data = in->data, .metadata = in->metadata};
        uint64_t number = 0;
        for (struct subscriber *s; (s = next(b, number, in->topic));) {
                struct dapr_subscription *sub = s->sub;
                number = s->number;
                int r = dapr_deliver(sub, &m, done, NULL);
                if (r && (r != -ECANCELED || dapr_is_cancelled(c)))
                        return r;
        }
        return 0;
}

static int bus_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *sub, const struct dapr_topic *topic)
{
        struct bus *b = instance;
        size_t n = strlen(topic->name);
        struct subscriber s = {.sub = sub, .topic = topic->name, .number = ++b->last, .wildcard = n && topic->name[n - 1] == '*'};
        s.prefix_n = s.wildcard ? n - 1 : 0;
        list_add_tail(&b->subscribers, &s.node);
        dapr_subscribed(sub);
        int r = dapr_subscription_wait(sub);
        list_del(&s.node);
        return r;
}

static const struct dapr_pubsub_ops ops = {
        .mode = DAPR_INLINE,
        .features = DAPR_FEATURE_SUBSCRIBE_WILDCARDS,
        .init = bus_init,
        .close = bus_close,
        .publish = bus_publish,
        .subscribe = bus_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "pubsub.in-memory", .versions = "v1", .pubsub = &ops}};
static const struct dapr_plugin plugin = {.name = "pubsub.in-memory", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
