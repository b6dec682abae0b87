/*
 * pubsub.rabbitmq: the component and publishing. Publishing always waits for the broker's confirmation; a publish whose link broke
 * before it came is done again on a new one, so a message may be there twice.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.rabbitmq/rabbitmq.h"
#include "plugins/shared/options/options.h"
#include "sdk/base/flags.h"
#include "sdk/base/loop.h"

enum { PUBLISH_TRIES = 3 };

/* ---- settings ---- */

static int read_settings(struct dapr_call *c, const struct dapr_metadata *md, struct broker *b)
{
        const char *kind = dapr_md_string(md, "exchangeKind"), *id = dapr_md_string(md, "consumerID"), *mode = dapr_md_string(md, "concurrencyMode");
        int64_t delivery_mode;
        if (!mode || !*mode)
                mode = dapr_md_string(md, "concurrency");
        if (!kind || !*kind)
                kind = "fanout";
        if (strcmp(kind, "fanout") && strcmp(kind, "topic") && strcmp(kind, "direct") && strcmp(kind, "headers"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "rabbitmq pub/sub error: invalid RabbitMQ exchange kind %s", kind);
        if (mode && *mode && strcmp(mode, "single") && strcmp(mode, "parallel"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid concurrencyMode %s", mode);
        int r = option_count(c, md, "rabbitmq pub/sub error", "deliveryMode", 0, 2, &delivery_mode);
        if (!r)
                r = option_count(c, md, "rabbitmq pub/sub error", "prefetchCount", 0, 255, &b->prefetch);
        if (!r)
                r = option_count(c, md, "rabbitmq pub/sub error", "maxLen", 0, INT64_MAX, &b->max_len);
        if (!r)
                r = option_count(c, md, "rabbitmq pub/sub error", "maxLenBytes", 0, INT64_MAX, &b->max_len_bytes);
        if (r)
                return r;
        b->delivery_mode = (uint8_t)delivery_mode;
        b->durable = option_toggle(md, "durable", true);
        b->auto_delete = option_toggle(md, "deletedWhenUnused", true);
        b->dead_letter = option_toggle(md, "enableDeadLetter", false);
        b->auto_ack = option_toggle(md, "autoAck", false);
        b->requeue = option_toggle(md, "requeueInFailure", false);
        b->properties = option_toggle(md, "publishMessagePropertiesToMetadata", false);
        b->single = mode && strcmp(mode, "single") == 0;
        b->ttl_ms = dapr_md_has(md, "ttlInSeconds") ? dapr_md_duration_ns(md, "ttlInSeconds") / 1000000 : -1;
        b->reconnect_s = dapr_md_has(md, "reconnectWaitSeconds") ? (double)dapr_md_duration_ns(md, "reconnectWaitSeconds") / 1e9 : 3;
        b->kind = strdup(kind);
        b->consumer_id = id && *id ? strdup(id) : NULL;
        b->instance = strdup(dapr_instance(c));
        return b->kind && b->instance && (b->consumer_id || !id || !*id) ? 0 : -ENOMEM;
}

/* ---- the component ---- */

static void rabbit_close(void *instance)
{
        struct broker *b = instance;
        amqp_shared_fini(&b->shared);
        amqp_settings_fini(&b->s);
        free(b->instance);
        free(b->consumer_id);
        free(b->kind);
        free(b);
}

static int rabbit_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct broker *b = calloc(1, sizeof(*b));
        struct amqp_link *l;
        char err[300] = "";
        if (!b)
                return -ENOMEM;
        int r = read_settings(c, md, b);
        if (!r)
                r = amqp_settings_read(c, md, "rabbitmq pub/sub error: ", &b->s);
        amqp_shared_init(&b->shared, &b->s, b->instance);
        if (!r && (r = amqp_shared_get(&b->shared, &l, err, sizeof(err))) < 0 && r != -ENOMEM && r != -ECANCELED)
                r = dapr_fail(c, r == -EACCES ? DAPR_PERMISSION_DENIED : DAPR_UNAVAILABLE, "rabbitmq pub/sub error: cannot connect to %s: %s",
                              b->s.address, *err ? err : strerror(-r));
        if (r) {
                rabbit_close(b);
                return r;
        }
        amqp_shared_put(&b->shared);
        *instance = b;
        return 0;
}

static int rabbit_ping(struct dapr_call *c, void *instance)
{
        struct broker *b = instance;
        struct amqp_link *l;
        char err[300] = "";
        int r = amqp_shared_get(&b->shared, &l, err, sizeof(err));
        if (r)
                return dapr_fail(c, DAPR_UNAVAILABLE, "rabbitmq pub/sub error: %s", *err ? err : strerror(-r));
        amqp_shared_put(&b->shared);
        return 0;
}

/* ---- publishing ---- */

static void text_property(amqp_basic_properties_t *p, amqp_flags_t flag_, amqp_bytes_t *to, const char *v)
{
        if (!v || strlen(v) > AMQP_SHORT_MAX)
                return;
        *to = amqp_z(v);
        p->_flags |= flag_;
}

/* A number of seconds, or a duration. */
static int64_t message_ttl_ms(struct dapr_kvs md)
{
        const char *v = dapr_kvs_get(md, "ttlInSeconds");
        int64_t n;
        if (!v)
                v = dapr_kvs_get(md, "ttl");
        if (!v || !*v)
                return -1;
        if (parse_int64(str_of(v), &n) == 0)
                return n > 0 && n < INT64_MAX / 1000 ? n * 1000 : -1;
        return parse_duration(str_of(v), &n) == 0 && n > 0 ? n / 1000000 : -1;
}

static void fill_properties(struct dapr_call *c, const struct broker *b, const struct dapr_publish *in, amqp_basic_properties_t *p)
{
        int64_t ttl = message_ttl_ms(in->metadata), n;
        const char *priority = dapr_kvs_get(in->metadata, "priority"), *type = dapr_kvs_get(in->metadata, "contentType");
        if (ttl < 0)
                ttl = b->ttl_ms;
        *p = (amqp_basic_properties_t){0};
        text_property(p, AMQP_BASIC_CONTENT_TYPE_FLAG, &p->content_type, type && *type ? type : "text/plain");
        text_property(p, AMQP_BASIC_MESSAGE_ID_FLAG, &p->message_id, dapr_kvs_get(in->metadata, "messageID"));
        text_property(p, AMQP_BASIC_CORRELATION_ID_FLAG, &p->correlation_id, dapr_kvs_get(in->metadata, "correlationID"));
        text_property(p, AMQP_BASIC_TYPE_FLAG, &p->type, dapr_kvs_get(in->metadata, "type"));
        if (b->delivery_mode) {
                p->delivery_mode = b->delivery_mode;
                p->_flags |= AMQP_BASIC_DELIVERY_MODE_FLAG;
        }
        if (ttl >= 0)
                text_property(p, AMQP_BASIC_EXPIRATION_FLAG, &p->expiration, dapr_printf(c, "%lld", (long long)ttl));
        if (priority && parse_int64(str_of(priority), &n) == 0 && n >= 0) {
                p->priority = n > 255 ? 255 : (uint8_t)n;
                p->_flags |= AMQP_BASIC_PRIORITY_FLAG;
        }
}

static int publish_once(struct dapr_call *c, struct broker *b, const struct dapr_publish *in, char *err, size_t err_n)
{
        amqp_basic_properties_t props;
        struct amqp_link *l;
        const char *key = dapr_kvs_get(in->metadata, "routingKey");
        int r = amqp_shared_get(&b->shared, &l, err, err_n);
        if (r)
                return r;
        fill_properties(c, b, in, &props);
        r = amqp_link_exchange(l, in->topic, b->kind, b->durable, b->auto_delete);
        if (!r)
                r = amqp_link_publish(l, in->topic, key ? key : "", &props, str_n(in->data.p, in->data.n));
        if (r)
                snprintf(err, err_n, "%s", r == -EIO ? "did not receive confirmation of publishing"
                                         : amqp_link_is_broken(l) ? amqp_link_error(l) : strerror(-r));
        amqp_shared_put(&b->shared);
        return r;
}

static int rabbit_publish(struct dapr_call *c, void *instance, const struct dapr_publish *in)
{
        struct broker *b = instance;
        char err[300] = "";
        double pause = fmin(0.2, b->reconnect_s);
        int r = 0;
        for (int i = 0; i < PUBLISH_TRIES; i++) {
                r = publish_once(c, b, in, err, sizeof(err));
                if (!amqp_is_lost(r) || i + 1 == PUBLISH_TRIES)
                        break;
                if (fiber_sleep(pause))
                        return -ECANCELED;
                pause = fmin(pause * 5, b->reconnect_s);
        }
        if (r == 0 || r == -ECANCELED || r == -ENOMEM)
                return r;
        int code = r == -EINVAL || r == -ENAMETOOLONG ? DAPR_INVALID_ARGUMENT : r == -EACCES ? DAPR_PERMISSION_DENIED : DAPR_UNAVAILABLE;
        return dapr_fail(c, code, "rabbitmq pub/sub error: publishing to %s failed: %s", in->topic, *err ? err : strerror(-r));
}

static const struct dapr_pubsub_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_MESSAGE_TTL | DAPR_FEATURE_PAUSE,
        .init = rabbit_init,
        .close = rabbit_close,
        .ping = rabbit_ping,
        .publish = rabbit_publish,
        .bulk_at_once = 64,
        .subscribe = rabbit_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "pubsub.rabbitmq", .versions = "v1", .pubsub = &ops}};
static const struct dapr_plugin plugin = {.name = "pubsub.rabbitmq", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
