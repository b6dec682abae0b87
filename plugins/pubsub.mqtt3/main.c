/*
 * pubsub.mqtt3: one MQTT connection a component; its client id is consumerID, so the broker keeps the session between runs.
 *
 * A message is acknowledged once the app has taken it. One that the app fails is held here and delivered again after a pause that grows:
 * MQTT has no way to give a single message back. What nobody answered when a subscription ends goes to the next one that fits, or, at
 * the end of the process, is sent again by the broker.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/mqtt/mqtt.h"
#include "sdk/base/flags.h"

struct item { /* a message in the app's hands */
        struct mqtt *m;
        struct mqtt_message *msg;
};

struct component {
        struct mqtt *m;
        bool retain;
};

static int mqtt3_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct component *k = calloc(1, sizeof(*k));
        if (!k)
                return -ENOMEM;
        k->retain = dapr_md_bool(md, "retain");
        int r = mqtt_open(c, md, &k->m);
        if (r)
                free(k);
        else
                *instance = k;
        return r;
}

static void mqtt3_close(void *instance)
{
        struct component *k = instance;
        mqtt_close(k->m);
        free(k);
}

static int mqtt3_publish(struct dapr_call *c, void *instance, const struct dapr_publish *in)
{
        struct component *k = instance;
        const char *wish = dapr_kvs_get(in->metadata, "retain");
        bool retain = k->retain;
        if (!*in->topic)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "topic name is empty");
        if (wish && *wish && parse_bool(str_of(wish), &retain))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "mqtt invalid retain %s: write true or false", wish);
        int r = mqtt_publish(k->m, in->topic, str_n(in->data.p, in->data.n), mqtt_qos(k->m), retain);
        switch (r) {
        case 0:
        case -ECANCELED:
        case -ENOMEM: return r;
        case -EINVAL: return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to publish: the topic has a wildcard or is too long, or the message is");
        default: return dapr_fail(c, DAPR_UNAVAILABLE, "failed to publish: %s", strerror(-r));
        }
}

static void on_done(void *arg, enum dapr_outcome outcome)
{
        struct item *i = arg;
        mqtt_settle(i->m, i->msg, outcome == DAPR_ACKED ? MQTT_TAKEN : outcome == DAPR_NACKED ? MQTT_LATER : MQTT_BACK);
        free(i);
}

static int deliver(struct component *k, struct dapr_subscription *s, struct mqtt_message *msg)
{
        struct dapr_kv retained = {"retained", msg->retained ? "true" : "false"};
        struct dapr_message m = {.topic = msg->topic, .data = {msg->payload.p, msg->payload.n}, .metadata = {&retained, 1}};
        struct item *i = malloc(sizeof(*i));
        int r = i ? 0 : -ENOMEM;
        if (!r) {
                *i = (struct item){k->m, msg};
                r = dapr_deliver(s, &m, on_done, i);
        }
        if (r) {
                free(i);
                mqtt_settle(k->m, msg, r == -ENOMEM ? MQTT_LATER : MQTT_BACK);
        }
        return r;
}

static int mqtt3_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic)
{
        struct component *k = instance;
        struct mqtt_filter f = {.filter = topic->name, .qos = mqtt_qos(k->m)};
        const char *wish = dapr_kvs_get(topic->metadata, "unsubscribeOnClose");
        bool forget = mqtt_clean_session(k->m) || parse_truthy(wish);
        struct mqtt_message *msg;
        if (!*topic->name)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "topic name is empty");
        int r = mqtt_subscribe(k->m, &f);
        if (r)
                return r == -ECANCELED ? r : dapr_fail(c, DAPR_UNAVAILABLE, "mqtt error from subscribe: %s",
                                                       r == -EACCES ? "the broker refuses it" : strerror(-r));
        dapr_subscribed(s);
        while (!(r = mqtt_next(k->m, &f, &msg)))
                if ((r = deliver(k, s, msg)) && r != -ENOMEM)
                        break;
        dapr_subscription_wait(s);
        mqtt_unsubscribe(k->m, &f, forget);
        return -ECANCELED;
}

static int mqtt3_ping(struct dapr_call *c, void *instance)
{
        struct component *k = instance;
        return mqtt_is_connected(k->m) ? 0 : dapr_fail(c, DAPR_UNAVAILABLE, "not connected to the broker");
}

static const struct dapr_pubsub_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_SUBSCRIBE_WILDCARDS | DAPR_FEATURE_PAUSE,
        .init = mqtt3_init,
        .close = mqtt3_close,
        .ping = mqtt3_ping,
        .publish = mqtt3_publish,
        .bulk_at_once = 64,
        .subscribe = mqtt3_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "pubsub.mqtt3", .versions = "v1", .pubsub = &ops}};
static const struct dapr_plugin plugin = {.name = "pubsub.mqtt3", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
