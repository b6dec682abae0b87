/*
 * A subscription: a link of its own with one consumer. When the link breaks, the broker hands out again what was not acknowledged;
 * answers for messages of the broken link are forgotten.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.rabbitmq/rabbitmq.h"
#include "sdk/base/flags.h"
#include "sdk/base/loop.h"

enum { QUEUE_ARGS_MAX = 8, NAME_MAX_BYTES = AMQP_SHORT_MAX + 1 };

struct source {
        struct broker *b;
        struct dapr_subscription *sub;
        const struct dapr_topic *topic;
        char queue[NAME_MAX_BYTES];
        struct amqp_link *link;
        struct list in_hand; /* struct item of the present link */
};
struct item {
        struct list node;
        struct source *src;
        uint64_t tag;
        bool stale; /* its link is gone */
};

/* ---- answers ---- */

static void on_done(void *arg, enum dapr_outcome outcome)
{
        struct item *i = arg;
        struct source *src = i->src;
        if (!i->stale && !src->b->auto_ack) {
                amqp_basic_ack_t ack = {.delivery_tag = i->tag};
                amqp_basic_nack_t nack = {.delivery_tag = i->tag, .requeue = outcome == DAPR_HANDED_BACK || src->b->requeue};
                if (outcome == DAPR_ACKED)
                        amqp_link_send(src->link, AMQP_BASIC_ACK_METHOD, &ack);
                else
                        amqp_link_send(src->link, AMQP_BASIC_NACK_METHOD, &nack);
        }
        list_del(&i->node);
        free(i);
}

static int deliver(struct source *src, struct amqp_message *m)
{
        struct dapr_kv md[4];
        const char *names[] = {"metadata.messageid", "metadata.correlationid", "metadata.type", "metadata.contenttype"};
        const char *values[] = {m->message_id, m->correlation_id, m->type, m->content_type};
        struct dapr_message out = {.data = {m->body, m->n}, .metadata = {md, 0}};
        for (size_t i = 0; src->b->properties && i < 4; i++)
                if (values[i] && *values[i])
                        md[out.metadata.n++] = (struct dapr_kv){names[i], values[i]};
        struct item *i = calloc(1, sizeof(*i));
        if (!i)
                return -ENOMEM;
        *i = (struct item){.src = src, .tag = m->tag};
        list_add_tail(&src->in_hand, &i->node);
        int r = dapr_deliver(src->sub, &out, on_done, i);
        if (r) {
                if (!i->stale)
                        list_del(&i->node);
                free(i); /* unacknowledged: the broker has it again when the link is closed */
        }
        return r;
}

/* ---- the queue ---- */

static void add_arg(amqp_table_t *t, const char *key, amqp_field_value_t v)
{
        if (t->num_entries < QUEUE_ARGS_MAX)
                t->entries[t->num_entries++] = (amqp_table_entry_t){amqp_z(key), v};
}

static amqp_field_value_t arg_int(int64_t v)
{
        return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I64, .value = {.i64 = v}};
}

static amqp_field_value_t arg_text(const char *z)
{
        return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8, .value = {.bytes = amqp_z(z)}};
}

static int declare_queue(struct source *src, const char *name, bool durable, amqp_table_t args)
{
        amqp_queue_declare_t d = {.queue = amqp_z(name), .durable = durable, .auto_delete = src->b->auto_delete, .arguments = args};
        return amqp_link_call(src->link, AMQP_QUEUE_DECLARE_METHOD, &d, AMQP_QUEUE_DECLARE_OK_METHOD);
}

static int bind_queue(struct source *src, const char *queue, const char *exchange, struct str key)
{
        amqp_queue_bind_t d = {.queue = amqp_z(queue), .exchange = amqp_z(exchange), .routing_key = {key.n, (void *)key.p}};
        return amqp_link_call(src->link, AMQP_QUEUE_BIND_METHOD, &d, AMQP_QUEUE_BIND_OK_METHOD);
}

/* Exchange and queue for what the app fails, as far as the broker does not get it back. */
static int prepare_dead_letters(struct source *src, char dlx[NAME_MAX_BYTES])
{
        char dlq[NAME_MAX_BYTES];
        amqp_table_entry_t entries[QUEUE_ARGS_MAX];
        amqp_table_t args = {0, entries};
        if (snprintf(dlx, NAME_MAX_BYTES, "dlx-%s", src->queue) >= NAME_MAX_BYTES || snprintf(dlq, sizeof(dlq), "dlq-%s", src->queue) >= NAME_MAX_BYTES)
                return -ENAMETOOLONG;
        if (src->b->max_len > 0)
                add_arg(&args, "x-max-length", arg_int(src->b->max_len));
        if (src->b->max_len_bytes > 0)
                add_arg(&args, "x-max-length-bytes", arg_int(src->b->max_len_bytes));
        add_arg(&args, "x-queue-mode", arg_text("lazy"));
        int r = amqp_link_exchange(src->link, dlx, "fanout", true, src->b->auto_delete);
        if (!r)
                r = declare_queue(src, dlq, true, args);
        return r ? r : bind_queue(src, dlq, dlx, STR(""));
}

static int64_t wish(const struct source *src, const char *key, int64_t dflt)
{
        const char *v = dapr_kvs_get(src->topic->metadata, key);
        int64_t n;
        return v && *v && parse_int64(str_of(v), &n) == 0 && n >= 0 ? n : dflt;
}

static int prepare_queue(struct source *src)
{
        struct broker *b = src->b;
        char dlx[NAME_MAX_BYTES];
        amqp_table_entry_t entries[QUEUE_ARGS_MAX];
        amqp_table_t args = {0, entries};
        const char *type = dapr_kvs_get(src->topic->metadata, "queueType"), *keys = dapr_kvs_get(src->topic->metadata, "routingKey");
        int64_t max_len = wish(src, "maxLen", b->max_len), max_bytes = wish(src, "maxLenBytes", b->max_len_bytes);
        int64_t priority = wish(src, "maxPriority", 0);
        int r = amqp_link_exchange(src->link, src->topic->name, b->kind, b->durable, b->auto_delete);
        if (!r && b->dead_letter && !(r = prepare_dead_letters(src, dlx)))
                add_arg(&args, "x-dead-letter-exchange", arg_text(dlx));
        if (r)
                return r;
        if (max_len > 0)
                add_arg(&args, "x-max-length", arg_int(max_len));
        if (max_bytes > 0)
                add_arg(&args, "x-max-length-bytes", arg_int(max_bytes));
        if (priority > 0)
                add_arg(&args, "x-max-priority", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_U8, .value = {.u8 = priority > 255 ? 255 : (uint8_t)priority}});
        add_arg(&args, "x-queue-type", arg_text(type && *type ? type : "classic"));
        if (parse_truthy(dapr_kvs_get(src->topic->metadata, "singleActiveConsumer")))
                add_arg(&args, "x-single-active-consumer", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}});
        r = declare_queue(src, src->queue, b->durable, args);
        for (struct str rest = str_of(keys ? keys : ""), key; !r && rest.p && (key = str_cut(&rest, ','), true);)
                r = bind_queue(src, src->queue, src->topic->name, key);
        return r;
}

static int start_consumer(struct source *src)
{
        struct broker *b = src->b;
        amqp_basic_qos_t qos = {.prefetch_count = (uint16_t)(b->prefetch > 0 ? b->prefetch : (int64_t)src->topic->max_in_flight)};
        amqp_basic_consume_t consume = {.queue = amqp_z(src->queue), .no_ack = b->auto_ack};
        int r = amqp_link_call(src->link, AMQP_BASIC_QOS_METHOD, &qos, AMQP_BASIC_QOS_OK_METHOD);
        return r ? r : amqp_link_call(src->link, AMQP_BASIC_CONSUME_METHOD, &consume, AMQP_BASIC_CONSUME_OK_METHOD);
}

/* ---- the life of a subscription ---- */

/* Parks until nothing is in the app's hands: messages go one by one. */
static int wait_answered(struct source *src)
{
        while (!list_is_empty(&src->in_hand) && !amqp_link_is_broken(src->link)) {
                int r = fiber_sleep(0.001);
                if (r)
                        return r;
        }
        return 0;
}

static int consume(struct source *src)
{
        for (;;) {
                struct amqp_message *m;
                int r = amqp_link_next(src->link, &m);
                if (r)
                        return r;
                r = deliver(src, m);
                amqp_message_free(m);
                if (!r && src->b->single)
                        r = wait_answered(src);
                if (r)
                        return r;
        }
}

static void drop_link(struct source *src)
{
        amqp_link_close(src->link);
        src->link = NULL;
        while (!list_is_empty(&src->in_hand)) {
                struct item *i = list_entry(src->in_hand.next, struct item, node);
                list_del(&i->node);
                i->stale = true;
        }
}

/* One link from its opening to its end. 0 = it had worked. */
static int run_link(struct source *src, char *err, size_t err_n)
{
        int r = amqp_link_open(&src->link, &src->b->s, err, err_n);
        if (r)
                return r;
        r = prepare_queue(src);
        if (!r)
                r = start_consumer(src);
        if (r) {
                snprintf(err, err_n, "%s", amqp_link_is_broken(src->link) ? amqp_link_error(src->link) : strerror(-r));
                drop_link(src);
                return r;
        }
        dapr_subscribed(src->sub);
        r = consume(src);
        snprintf(err, err_n, "%s", amqp_link_is_broken(src->link) ? amqp_link_error(src->link) : strerror(-r));
        if (r == -ECANCELED)
                dapr_subscription_wait(src->sub); /* answers still reach the broker */
        drop_link(src);
        return r == -ECANCELED ? r : 0;
}

int rabbit_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic)
{
        struct source src = {.b = instance, .sub = s, .topic = topic};
        const char *name = dapr_kvs_get(topic->metadata, "queueName"), *type = dapr_kvs_get(topic->metadata, "queueType");
        char err[300] = "";
        double pause = 0.1;
        list_init(&src.in_hand);
        if ((!name || !*name) && !src.b->consumer_id)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "consumerID is required for subscriptions that don't specify a queue name");
        if (type && *type && strcmp(type, "classic") && strcmp(type, "quorum"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid queue type %s. Valid types are classic and quorum", type);
        int n = name && *name ? snprintf(src.queue, sizeof(src.queue), "%s", name)
                              : snprintf(src.queue, sizeof(src.queue), "%s-%s", src.b->consumer_id, topic->name);
        if (n >= (int)sizeof(src.queue) || strlen(topic->name) > AMQP_SHORT_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "the name of the queue or topic is longer than %d bytes", AMQP_SHORT_MAX);
        for (;;) {
                int r = run_link(&src, err, sizeof(err));
                if (r == -ECANCELED || dapr_subscription_is_ended(s)) {
                        dapr_subscription_wait(s);
                        return -ECANCELED;
                }
                if (r == -EINVAL || r == -EACCES || r == -ENAMETOOLONG)
                        return dapr_fail(c, DAPR_FAILED_PRECONDITION, "rabbitmq pub/sub error: cannot subscribe to %s: %s", topic->name, err);
                dapr_log(DAPR_LOG_WARN, "queue %s: the connection has ended or could not be made: %s", src.queue, err);
                pause = r ? fmin(pause * 2, src.b->reconnect_s) : fmin(0.1, src.b->reconnect_s);
                fiber_sleep(pause);
        }
}
