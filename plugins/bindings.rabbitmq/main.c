/*
 * bindings.rabbitmq: one queue. Both directions use one link, since an exclusive queue is seen only by the connection that declared it;
 * the broker's prefetch keeps messages from holding up the confirmations of what is sent. Messages go to the app one after the other.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/amqp/amqp.h"
#include "plugins/shared/binding/metadata.h"
#include "plugins/shared/options/options.h"
#include "sdk/base/arena.h"
#include "sdk/base/flags.h"

enum { SEND_TRIES = 3, ERR_MAX = 300, PREFETCH = 100, SENT_HEADERS_MAX = AMQP_HEADERS_MAX };
#define TAG "microdapr"
#define PAUSE_FIRST_S 0.1
#define FAILED_PAUSE_MAX_S 1.0

static const char *const operations[] = {"create", NULL};

struct queue { /* one component */
        struct amqp_settings s;
        struct amqp_shared shared;
        char *instance, *name, *content_type;
        bool durable, delete_unused, exclusive;
        int64_t ttl_ms, max_priority; /* -1 = none */
        uint16_t prefetch;
        double reconnect_s;
};

/* ---- the component ---- */

static int declare(void *arg, struct amqp_link *l)
{
        struct queue *q = arg;
        amqp_table_entry_t e[2];
        amqp_table_t args = {0, e};
        if (q->ttl_ms >= 0)
                e[args.num_entries++] = (amqp_table_entry_t){amqp_z("x-message-ttl"), {.kind = AMQP_FIELD_KIND_I64, .value = {.i64 = q->ttl_ms}}};
        if (q->max_priority >= 0)
                e[args.num_entries++] = (amqp_table_entry_t){amqp_z("x-max-priority"),
                                                             {.kind = AMQP_FIELD_KIND_U8, .value = {.u8 = (uint8_t)q->max_priority}}};
        amqp_queue_declare_t d = {.queue = amqp_z(q->name), .durable = q->durable, .exclusive = q->exclusive, .auto_delete = q->delete_unused,
                                  .arguments = args};
        return amqp_link_call(l, AMQP_QUEUE_DECLARE_METHOD, &d, AMQP_QUEUE_DECLARE_OK_METHOD);
}

static int read_settings(struct dapr_call *c, const struct dapr_metadata *md, struct queue *q)
{
        const char *host = dapr_md_string(md, "host"), *name = dapr_md_string(md, "queueName"), *type = dapr_md_string(md, "contentType");
        int64_t prefetch = 0;
        if (!host || !*host)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing host address");
        if (!name || !*name)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing queue Name");
        if (strlen(name) > AMQP_SHORT_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "rabbitmq binding error: queueName is longer than %d bytes", AMQP_SHORT_MAX);
        int r = option_count(c, md, "rabbitmq binding error", "maxPriority", -1, INT64_MAX, &q->max_priority);
        if (!r)
                r = option_count(c, md, "rabbitmq binding error", "prefetchCount", 0, AMQP_INCOMING_MAX - 1, &prefetch);
        if (!r)
                r = binding_ttl(c, dapr_md_all(md), &q->ttl_ms);
        if (r)
                return r;
        q->max_priority = q->max_priority > 255 ? 255 : q->max_priority;
        q->prefetch = prefetch ? (uint16_t)prefetch : PREFETCH;
        q->durable = dapr_md_bool(md, "durable");
        q->delete_unused = dapr_md_bool(md, "deleteWhenUnused");
        q->exclusive = dapr_md_bool(md, "exclusive");
        q->reconnect_s = dapr_md_has(md, "reconnectWaitInSeconds") ? (double)dapr_md_duration_ns(md, "reconnectWaitInSeconds") / 1e9 : 5;
        q->name = strdup(name);
        q->content_type = strdup(type && *type ? type : "text/plain");
        q->instance = strdup(dapr_instance(c));
        return q->name && q->content_type && q->instance ? 0 : -ENOMEM;
}

static void queue_close(void *instance)
{
        struct queue *q = instance;
        amqp_shared_fini(&q->shared);
        amqp_settings_fini(&q->s);
        free(q->instance);
        free(q->name);
        free(q->content_type);
        free(q);
}

static int queue_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct queue *q = calloc(1, sizeof(*q));
        struct amqp_link *l;
        char err[ERR_MAX] = "";
        if (!q)
                return -ENOMEM;
        int r = read_settings(c, md, q);
        if (!r)
                r = amqp_settings_read(c, md, "rabbitmq binding error: ", &q->s);
        amqp_shared_init(&q->shared, &q->s, q->instance);
        q->shared.opened = declare;
        q->shared.arg = q;
        if (!r && (r = amqp_shared_get(&q->shared, &l, err, sizeof(err))) < 0 && r != -ENOMEM && r != -ECANCELED)
                r = dapr_fail(c, r == -EACCES ? DAPR_PERMISSION_DENIED : r == -EINVAL ? DAPR_FAILED_PRECONDITION : DAPR_UNAVAILABLE,
                              "rabbitmq binding error: cannot open queue %s at %s: %s", q->name, q->s.address, *err ? err : strerror(-r));
        if (r) {
                queue_close(q);
                return r;
        }
        amqp_shared_put(&q->shared);
        *instance = q;
        return 0;
}

static int queue_ping(struct dapr_call *c, void *instance)
{
        struct queue *q = instance;
        struct amqp_link *l;
        char err[ERR_MAX] = "";
        int r = amqp_shared_get(&q->shared, &l, err, sizeof(err));
        if (r)
                return dapr_fail(c, DAPR_UNAVAILABLE, "rabbitmq binding error: %s", *err ? err : strerror(-r));
        amqp_shared_put(&q->shared);
        return 0;
}

/* ---- sending ---- */

static void text_property(amqp_basic_properties_t *p, amqp_flags_t flag, amqp_bytes_t *to, const char *v)
{
        if (!v || !*v || strlen(v) > AMQP_SHORT_MAX)
                return;
        *to = amqp_z(v);
        p->_flags |= flag;
}

/* Metadata become headers, some of them properties too. */
static int fill(struct dapr_call *c, const struct queue *q, const struct dapr_invoke *in, amqp_table_entry_t *e, amqp_basic_properties_t *p)
{
        const char *type = dapr_kvs_get(in->metadata, "contentType");
        int64_t ttl_ms;
        int priority, r = binding_ttl(c, in->metadata, &ttl_ms);
        if (!r)
                r = binding_priority(c, in->metadata, &priority);
        if (r)
                return r;
        *p = (amqp_basic_properties_t){._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = 2};
        text_property(p, AMQP_BASIC_CONTENT_TYPE_FLAG, &p->content_type, type && *type ? type : q->content_type);
        text_property(p, AMQP_BASIC_MESSAGE_ID_FLAG, &p->message_id, dapr_kvs_get(in->metadata, "messageID"));
        text_property(p, AMQP_BASIC_CORRELATION_ID_FLAG, &p->correlation_id, dapr_kvs_get(in->metadata, "correlationID"));
        text_property(p, AMQP_BASIC_TYPE_FLAG, &p->type, dapr_kvs_get(in->metadata, "type"));
        if (ttl_ms >= 0)
                text_property(p, AMQP_BASIC_EXPIRATION_FLAG, &p->expiration, dapr_printf(c, "%lld", (long long)ttl_ms));
        if (priority >= 0) {
                p->priority = (uint8_t)priority;
                p->_flags |= AMQP_BASIC_PRIORITY_FLAG;
        }
        for (size_t i = 0; i < in->metadata.n && p->headers.num_entries < SENT_HEADERS_MAX; i++)
                if (strlen(in->metadata.v[i].key) <= AMQP_SHORT_MAX)
                        e[p->headers.num_entries++] = (amqp_table_entry_t){amqp_z(in->metadata.v[i].key),
                                                                           {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_z(in->metadata.v[i].value)}}};
        p->headers.entries = e;
        p->_flags |= p->headers.num_entries ? AMQP_BASIC_HEADERS_FLAG : 0;
        return 0;
}

static int send_once(struct queue *q, const amqp_basic_properties_t *p, struct str body, char *err, size_t err_n)
{
        struct amqp_link *l;
        int r = amqp_shared_get(&q->shared, &l, err, err_n);
        if (r)
                return r;
        r = amqp_link_publish(l, "", q->name, p, body);
        if (r)
                snprintf(err, err_n, "%s", r == -EIO ? "the broker has refused it" : r == -EINVAL ? "its metadata is too long" :
                                           amqp_link_is_broken(l) ? amqp_link_error(l) : strerror(-r));
        amqp_shared_put(&q->shared);
        return r;
}

static int queue_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        struct queue *q = instance;
        amqp_table_entry_t *e = dapr_alloc(c, SENT_HEADERS_MAX * sizeof(*e));
        amqp_basic_properties_t props;
        char err[ERR_MAX] = "";
        double pause = fmin(PAUSE_FIRST_S, q->reconnect_s);
        if (strcmp(in->operation, "create") != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid operation type: %s. Expected create", in->operation);
        int r = e ? fill(c, q, in, e, &props) : -ENOMEM;
        if (r)
                return r;
        for (int i = 1;; i++) {
                r = send_once(q, &props, str_n(in->data.p, in->data.n), err, sizeof(err));
                if (!amqp_is_lost(r) || i == SEND_TRIES)
                        break;
                if (fiber_sleep(pause))
                        return -ECANCELED;
                pause = fmin(pause * 5, q->reconnect_s);
        }
        if (r == 0 || r == -ECANCELED || r == -ENOMEM)
                return r;
        return dapr_fail(c, r == -EINVAL ? DAPR_INVALID_ARGUMENT : DAPR_UNAVAILABLE, "failed to publish message: %s", *err ? err : strerror(-r));
}

/* ---- reading ---- */

static int consume(struct queue *q, struct amqp_link *l)
{
        amqp_basic_qos_t qos = {.prefetch_count = q->prefetch};
        amqp_basic_consume_t what = {.queue = amqp_z(q->name), .consumer_tag = amqp_z(TAG)};
        int r = amqp_link_call(l, AMQP_BASIC_QOS_METHOD, &qos, AMQP_BASIC_QOS_OK_METHOD);
        return r ? r : amqp_link_call(l, AMQP_BASIC_CONSUME_METHOD, &what, AMQP_BASIC_CONSUME_OK_METHOD);
}

static void settle(struct amqp_link *l, uint64_t tag, bool taken)
{
        amqp_basic_ack_t ack = {.delivery_tag = tag};
        amqp_basic_nack_t nack = {.delivery_tag = tag, .requeue = 1};
        if (taken)
                amqp_link_send(l, AMQP_BASIC_ACK_METHOD, &ack);
        else
                amqp_link_send(l, AMQP_BASIC_NACK_METHOD, &nack);
}

/* Keys as they can go in URLs and headers. */
static struct dapr_kvs event_metadata(struct arena *a, const struct amqp_message *m)
{
        struct dapr_kv *v = arena_alloc(a, m->n_headers * sizeof(*v));
        size_t n = 0;
        for (; v && n < m->n_headers; n++) {
                static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~", hex[] = "0123456789ABCDEF";
                const char *key = m->headers[n].key;
                char *to = arena_alloc(a, strlen(key) * 3 + 1), *at = to;
                if (!to)
                        break;
                for (; *key; key++) {
                        if (strchr(plain, *key) || *key == ' ')
                                *at++ = *key == ' ' ? '+' : *key;
                        else
                                *at++ = '%', *at++ = hex[(unsigned char)*key >> 4], *at++ = hex[*key & 15];
                }
                *at = '\0';
                v[n] = (struct dapr_kv){to, m->headers[n].value};
        }
        return (struct dapr_kvs){v, n};
}

/* Hands messages on until the link breaks or the runtime reads no more (-ECANCELED); what is not taken goes back to the queue. */
static int read_link(struct amqp_link *l, struct dapr_reader *reader)
{
        double pause = 0;
        for (;;) {
                struct amqp_message *m;
                struct arena a;
                int r = amqp_link_next(l, &m);
                if (r)
                        return r;
                arena_init(&a, 0);
                struct dapr_event e = {.data = {m->body, m->n}, .content_type = m->content_type, .metadata = event_metadata(&a, m)};
                r = dapr_binding_event(reader, &e, NULL);
                arena_fini(&a);
                pause = r == 0 ? 0 : fmin(pause ? pause * 2 : PAUSE_FIRST_S / 2, FAILED_PAUSE_MAX_S);
                if (r && r != -ECANCELED && fiber_sleep(pause)) /* an app that always fails must not be asked in a loop */
                        r = -ECANCELED;
                settle(l, m->tag, r == 0);
                amqp_message_free(m);
                if (r == -ECANCELED)
                        return r;
        }
}

static void stop_consuming(struct amqp_link *l)
{
        amqp_basic_cancel_t cancel = {.consumer_tag = amqp_z(TAG)};
        struct amqp_message *m;
        fiber_shield_begin();
        int r = amqp_link_is_broken(l) ? -1 : amqp_link_call(l, AMQP_BASIC_CANCEL_METHOD, &cancel, AMQP_BASIC_CANCEL_OK_METHOD);
        while (!r && amqp_link_take(l, &m)) {
                settle(l, m->tag, false);
                amqp_message_free(m);
        }
        fiber_shield_end();
}

static int queue_read(struct dapr_call *c, void *instance, struct dapr_reader *reader)
{
        struct queue *q = instance;
        char err[ERR_MAX] = "";
        double pause = PAUSE_FIRST_S;
        for (;;) {
                struct amqp_link *l;
                int r = amqp_shared_get(&q->shared, &l, err, sizeof(err));
                if (!r) {
                        r = consume(q, l);
                        if (!r) {
                                pause = PAUSE_FIRST_S;
                                r = read_link(l, reader);
                                stop_consuming(l);
                        }
                        snprintf(err, sizeof(err), "%s", amqp_link_is_broken(l) ? amqp_link_error(l) : strerror(-r));
                        amqp_shared_put(&q->shared);
                }
                if (r == -ECANCELED || dapr_reader_is_cancelled(reader))
                        return -ECANCELED;
                dapr_log(DAPR_LOG_WARN, "queue %s: the connection has ended or could not be made: %s", q->name, err);
                if (fiber_sleep(pause))
                        return -ECANCELED;
                pause = fmin(pause * 2, q->reconnect_s);
        }
}

static const struct dapr_binding_ops ops = {
        .mode = DAPR_FIBER,
        .init = queue_init,
        .close = queue_close,
        .ping = queue_ping,
        .operations = operations,
        .invoke = queue_invoke,
        .read = queue_read,
};
static const struct dapr_component_type types[] = {{.type = "bindings.rabbitmq", .versions = "v1", .binding = &ops}};
static const struct dapr_plugin plugin = {.name = "bindings.rabbitmq", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
