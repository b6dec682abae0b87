/*
 * bindings.mqtt3: two sessions at the broker, "<consumerID>-producer" and "<consumerID>-consumer" as the reference names them, each
 * opened when its direction is first used. A message is acknowledged when the app has taken it; one that it failed is held here and
 * comes again. Several messages may be in the app's hands: the order is the broker's only as far as the app is quick.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/mqtt/mqtt.h"
#include "plugins/shared/mqtt/settings.h"
#include "sdk/base/flags.h"
#include "sdk/net/tls.h"

enum { QOS = 1, IN_HAND_MAX = 100, RETRIES_DEFAULT = 3 };
#define RETRY_S 5.0
#define LATE_S 30.0

static const char *const operations[] = {"create", NULL};

struct side { /* one direction */
        struct mqtt_settings s; /* until it is opened */
        struct mqtt *m;         /* NULL = not opened yet */
        struct fmutex opening;
};
struct component {
        struct side producer, consumer;
        char *topic, *instance;
        bool retain;
        int64_t max_retries;
};

/* ---- settings ---- */

static int read_side(struct dapr_call *c, const struct dapr_metadata *md, const char *suffix, struct side *side)
{
        char *id = NULL;
        fmutex_init(&side->opening);
        int r = mqtt_settings_read(c, md, &side->s);
        if (r)
                return r;
        if (asprintf(&id, "%s%s", side->s.client_id, suffix) < 0)
                return -ENOMEM;
        free(side->s.client_id);
        side->s.client_id = id;
        side->s.qos = QOS;
        return 0;
}

static void component_free(void *instance)
{
        struct component *k = instance;
        struct side *sides[] = {&k->producer, &k->consumer};
        for (size_t i = 0; i < 2; i++) {
                mqtt_close(sides[i]->m);
                mqtt_settings_fini(&sides[i]->s);
        }
        free(k->topic);
        free(k->instance);
        free(k);
}

static int mqtt3_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct component *k = calloc(1, sizeof(*k));
        const char *topic = dapr_md_string(md, "topic"), *retries = dapr_md_string(md, "backOffMaxRetries");
        if (!k)
                return -ENOMEM;
        k->max_retries = RETRIES_DEFAULT;
        k->retain = dapr_md_bool(md, "retain");
        int r = read_side(c, md, "-producer", &k->producer);
        if (!r)
                r = read_side(c, md, "-consumer", &k->consumer);
        if (!r && (!topic || !*topic))
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing topic");
        if (!r && retries && *retries && (parse_int64(str_of(retries), &k->max_retries) || k->max_retries < -1))
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "mqtt: backOffMaxRetries is %s: write a whole number, -1 for no limit", retries);
        if (!r && (!(k->topic = strdup(topic)) || !(k->instance = strdup(dapr_instance(c)))))
                r = -ENOMEM;
        if (r)
                component_free(k);
        else
                *instance = k;
        return r;
}

/* ---- the two sessions ---- */

/* Opens it when nobody has. A failed try can be repeated: mqtt_start() takes settings, so it gets copies of ours. */
static int settings_copy(const struct mqtt_settings *from, struct mqtt_settings *to)
{
        const char *const strings[] = {from->address, from->host, from->user, from->password, from->client_id};
        char **const places[] = {&to->address, &to->host, &to->user, &to->password, &to->client_id};
        bool good = true;
        *to = (struct mqtt_settings){.tls = from->tls ? tls_context_ref(from->tls) : NULL, .qos = from->qos, .clean_session = from->clean_session};
        for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
                good &= !strings[i] || (*places[i] = strdup(strings[i]));
        if (!good)
                mqtt_settings_fini(to);
        return good ? 0 : -ENOMEM;
}

static int open_side(struct dapr_call *c, const struct component *k, struct side *side)
{
        struct mqtt_settings s;
        if (side->m)
                return 0;
        int r = fmutex_lock(&side->opening);
        if (r)
                return r;
        if (!side->m && !(r = settings_copy(&side->s, &s)))
                r = mqtt_start(c, &s, k->instance, &side->m);
        fmutex_unlock(&side->opening);
        return r;
}

static int mqtt3_ping(struct dapr_call *c, void *instance)
{
        struct component *k = instance;
        bool down = (k->producer.m && !mqtt_is_connected(k->producer.m)) || (k->consumer.m && !mqtt_is_connected(k->consumer.m));
        return down ? dapr_fail(c, DAPR_UNAVAILABLE, "not connected to the broker") : 0;
}

static int mqtt3_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        struct component *k = instance;
        const char *topic = dapr_kvs_get(in->metadata, "topic");
        if (strcmp(in->operation, "create") != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid operation type: %s. Expected create", in->operation);
        int r = open_side(c, k, &k->producer);
        if (!r)
                r = mqtt_publish(k->producer.m, topic && *topic ? topic : k->topic, str_n(in->data.p, in->data.n), QOS, k->retain);
        if (r >= 0 || r == -ECANCELED || r == -ENOMEM)
                return r;
        if (r == -EINVAL)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to publish: the topic has a wildcard or is too long, or the message is");
        return dapr_fail(c, DAPR_UNAVAILABLE, "failed to publish: %s", r == -ETIMEDOUT ? "mqtt client timeout" : strerror(-r));
}

/* ---- reading ---- */

struct reading {
        struct component *k;
        struct mqtt_filter filter;
        struct fsem room;
        unsigned running;
        struct cond ended;
};
struct event {
        struct reading *r;
        struct mqtt_message *msg;
};

static void hand_on(struct dapr_reader *reader, void *arg)
{
        struct event *x = arg;
        struct reading *r = x->r;
        struct mqtt *m = r->k->consumer.m;
        struct dapr_kv topic = {"topic", x->msg->topic};
        struct dapr_event e = {.data = {x->msg->payload.p, x->msg->payload.n}, .metadata = {&topic, 1}};
        int result = dapr_binding_event(reader, &e, NULL);
        if (result == 0)
                mqtt_settle(m, x->msg, MQTT_TAKEN);
        else if (result == -ECANCELED)
                mqtt_settle(m, x->msg, MQTT_BACK);
        else
                mqtt_settle_after(m, x->msg, r->k->max_retries < 0 || mqtt_tries(x->msg) < r->k->max_retries ? RETRY_S : LATE_S);
        free(x);
        r->running--;
        fsem_give(&r->room);
        cond_signal(&r->ended);
}

static int read_one(struct reading *r, struct dapr_reader *reader)
{
        struct mqtt_message *msg;
        int e = fsem_take(&r->room);
        if (e)
                return e;
        e = mqtt_next(r->k->consumer.m, &r->filter, &msg);
        if (e) {
                fsem_give(&r->room);
                return e;
        }
        struct event *x = malloc(sizeof(*x));
        if (x)
                *x = (struct event){r, msg};
        r->running++;
        e = x ? dapr_reader_go(reader, hand_on, x) : -ENOMEM;
        if (e) {
                r->running--;
                free(x);
                fsem_give(&r->room);
                mqtt_settle(r->k->consumer.m, msg, e == -ECANCELED ? MQTT_BACK : MQTT_LATER);
        }
        return e == -ECANCELED ? e : 0;
}

static int mqtt3_read(struct dapr_call *c, void *instance, struct dapr_reader *reader)
{
        struct component *k = instance;
        struct reading r = {.k = k, .filter = {.filter = k->topic, .qos = QOS}};
        cond_init(&r.ended);
        fsem_init(&r.room, IN_HAND_MAX);
        int e = open_side(c, k, &k->consumer);
        if (!e)
                e = mqtt_subscribe(k->consumer.m, &r.filter);
        if (e)
                return e > 0 || e == -ECANCELED ? e : dapr_fail(c, DAPR_UNAVAILABLE, "mqtt: cannot subscribe to %s: %s", k->topic,
                                                                 e == -EACCES ? "the broker refuses it" : strerror(-e));
        while ((e = read_one(&r, reader)) == 0)
                ;
        fiber_shield_begin();
        while (r.running)
                cond_wait(&r.ended);
        fiber_shield_end();
        mqtt_unsubscribe(k->consumer.m, &r.filter, false); /* the broker keeps the session: nothing is missed until the next time */
        return e;
}

static const struct dapr_binding_ops ops = {
        .mode = DAPR_FIBER,
        .init = mqtt3_init,
        .close = component_free,
        .ping = mqtt3_ping,
        .operations = operations,
        .invoke = mqtt3_invoke,
        .read = mqtt3_read,
};
static const struct dapr_component_type types[] = {{.type = "bindings.mqtt3", .versions = "v1", .binding = &ops},
                                                   {.type = "bindings.mqtt", .versions = "v1", .binding = &ops}};
static const struct dapr_plugin plugin = {.name = "bindings.mqtt3", .version = "1.0.0", .types = types, .n_types = 2};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
