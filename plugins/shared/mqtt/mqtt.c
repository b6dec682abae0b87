/*
 * The client: a fiber keeps the connection and reads; everybody writes into its output.
 *
 * outgoing: publishes and their acknowledgement, sent again with DUP after a reconnection. held: messages that wait for a consumer,
 * oldest first. taken: those in a consumer's hands. Packet ids of both directions are apart, as in the protocol. While MQTT_HELD_MAX
 * messages are held nothing is read: the broker stops sending by its own window.
 */
#include "plugins/shared/mqtt/mqtt.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/mqtt/packet.h"
#include "plugins/shared/mqtt/settings.h"
#include "sdk/base/loop.h"
#include "sdk/net/conn.h"

#define THROTTLE_S 0.005

struct outgoing {
        struct list node;
        struct fiber *fiber;
        const char *topic;
        struct str payload;
        uint16_t id;
        uint8_t qos;
        bool retain, received, done; /* received: PUBREC has come, PUBREL is due */
};
struct mqtt {
        struct mqtt_settings s;
        char *instance;
        struct conn *conn;      /* NULL = not connected */
        bool connected, closing, tried;
        struct cond changed;    /* connected, or a try has failed */
        int error;              /* of the last try; > 0: the code of CONNACK */
        struct scope scope;
        struct list outgoing, held, taken, filters;
        size_t n_held;
        struct cond room;       /* fewer are held */
        uint16_t last_id;
        double last_read;
};

/* ---- writing ---- */

static void flush(struct mqtt *m)
{
        if (m->conn)
                conn_flush_soon(m->conn);
}

static uint16_t next_id(struct mqtt *m)
{
        for (;;) {
                bool used = false;
                if (++m->last_id == 0)
                        m->last_id = 1;
                list_for_each(pos, &m->outgoing)
                        used |= list_entry(pos, struct outgoing, node)->id == m->last_id;
                if (!used)
                        return m->last_id;
        }
}

static void write_publish(struct mqtt *m, const struct outgoing *o, bool dup)
{
        struct mqtt_publish p = {str_of(o->topic), o->payload, o->id, o->qos, o->retain, dup};
        if (o->received)
                mqtt_put_ack(&m->conn->out, MQTT_PUBREL, o->id);
        else if (mqtt_put_publish(&m->conn->out, &p))
                dapr_log(DAPR_LOG_WARN, "no memory to send a message now; it is sent after the next reconnection");
        flush(m);
}

static void write_subscribe(struct mqtt *m, struct mqtt_filter *f)
{
        f->suback_id = next_id(m);
        mqtt_put_subscribe(&m->conn->out, f->suback_id, str_of(f->filter), f->qos);
        flush(m);
}

static void acknowledge(struct mqtt *m, uint8_t qos, uint16_t id)
{
        if (!m->connected || !id || !qos)
                return;
        mqtt_put_ack(&m->conn->out, qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, id);
        flush(m);
}

/* ---- messages that came ---- */

static void message_free(struct mqtt_message *msg)
{
        free((char *)msg->topic);
        free((char *)msg->payload.p);
        free(msg);
}

static struct mqtt_filter *filter_for(struct mqtt *m, const char *topic)
{
        list_for_each(pos, &m->filters) {
                struct mqtt_filter *f = list_entry(pos, struct mqtt_filter, node);
                if (mqtt_topic_fits(str_of(f->filter), str_of(topic)))
                        return f;
        }
        return NULL;
}

/* Is the publish one that we have in our hands already? A broker that lost its memory may give an id anew: then there is nobody to
 * acknowledge the old message to any more. */
static bool has_message(const struct list *l, const struct mqtt_publish *in)
{
        list_for_each(pos, l) {
                struct mqtt_message *m = list_entry(pos, struct mqtt_message, node);
                if (m->id != in->id)
                        continue;
                if (str_eqz(in->topic, m->topic) && str_eq(in->payload, m->payload))
                        return true;
                m->id = 0;
        }
        return false;
}

static void hold(struct mqtt *m, struct mqtt_message *msg, bool first)
{
        if (first)
                list_add_head(&m->held, &msg->node);
        else
                list_add_tail(&m->held, &msg->node);
        m->n_held++;
        msg->filter = filter_for(m, msg->topic);
        if (msg->filter)
                cond_broadcast(&msg->filter->have);
}

static int on_publish(struct mqtt *m, const struct mqtt_packet *p)
{
        struct mqtt_publish in;
        int r = mqtt_publish_get(p, &in);
        if (r)
                return r;
        if (in.id && (has_message(&m->held, &in) || has_message(&m->taken, &in)))
                return 0; /* sent again while it is in our hands */
        struct mqtt_message *msg = calloc(1, sizeof(*msg));
        char *topic = strndup(in.topic.p, in.topic.n), *payload = malloc(in.payload.n + 1);
        if (!msg || !topic || !payload) {
                free(msg);
                free(topic);
                free(payload);
                return -ENOMEM; /* the connection ends; the broker sends it again */
        }
        if (in.payload.n)
                memcpy(payload, in.payload.p, in.payload.n);
        if (in.qos == 0 && !filter_for(m, topic)) { /* nobody, and it would never be asked for again */
                free(msg);
                free(topic);
                free(payload);
                return 0;
        }
        *msg = (struct mqtt_message){.topic = topic, .payload = str_n(payload, in.payload.n), .retained = in.retain, .id = in.id, .qos = in.qos};
        hold(m, msg, false);
        return 0;
}

int mqtt_next(struct mqtt *m, struct mqtt_filter *f, struct mqtt_message **ret)
{
        for (;;) {
                double due = INFINITY, now = loop_now();
                list_for_each(pos, &m->held) {
                        struct mqtt_message *msg = list_entry(pos, struct mqtt_message, node);
                        if (msg->filter != f)
                                continue;
                        if (msg->due > now) {
                                due = fmin(due, msg->due);
                                continue;
                        }
                        list_del(&msg->node);
                        list_add_tail(&m->taken, &msg->node);
                        m->n_held--;
                        cond_broadcast(&m->room);
                        *ret = msg;
                        return 0;
                }
                int r = cond_wait_until(&f->have, due);
                if (r && (r != -ETIMEDOUT || fiber_is_cancelled()))
                        return r;
        }
}

void mqtt_settle(struct mqtt *m, struct mqtt_message *msg, enum mqtt_settle how)
{
        list_del(&msg->node);
        if (how == MQTT_TAKEN) {
                acknowledge(m, msg->qos, msg->id);
                message_free(msg);
                return;
        }
        if (how == MQTT_LATER) {
                list_add_tail(&m->taken, &msg->node);
                mqtt_settle_after(m, msg, fmin(0.5 * (double)(1u << (msg->tries < 6 ? msg->tries : 6)), 30));
        } else {
                hold(m, msg, true);
        }
}

void mqtt_settle_after(struct mqtt *m, struct mqtt_message *msg, double seconds)
{
        list_del(&msg->node);
        msg->due = loop_now() + seconds;
        msg->tries++;
        hold(m, msg, false);
}

unsigned mqtt_tries(const struct mqtt_message *msg)
{
        return msg->tries;
}

/* ---- acknowledgements of ours ---- */

static struct outgoing *outgoing_find(struct mqtt *m, int id)
{
        list_for_each(pos, &m->outgoing)
                if (list_entry(pos, struct outgoing, node)->id == id)
                        return list_entry(pos, struct outgoing, node);
        return NULL;
}

static void on_ack(struct mqtt *m, const struct mqtt_packet *p)
{
        int id = mqtt_id_get(p);
        struct outgoing *o = outgoing_find(m, id);
        if (p->type == MQTT_PUBREC && id > 0) {
                if (o)
                        o->received = true;
                mqtt_put_ack(&m->conn->out, MQTT_PUBREL, (uint16_t)id);
                flush(m);
        } else if (o) {
                o->done = true;
                list_del(&o->node);
                fiber_wake(o->fiber);
        }
}

static void on_suback(struct mqtt *m, const struct mqtt_packet *p)
{
        int id = mqtt_id_get(p);
        list_for_each(pos, &m->filters) {
                struct mqtt_filter *f = list_entry(pos, struct mqtt_filter, node);
                if (id <= 0 || f->suback_id != id || p->body.n < 3)
                        continue;
                f->answer = (uint8_t)p->body.p[2];
                if (f->answer >= 0x80)
                        dapr_log(DAPR_LOG_ERROR, "the broker refuses the subscription to %s", f->filter);
                cond_broadcast(&f->answered);
        }
}

static int on_packet(struct mqtt *m, const struct mqtt_packet *p)
{
        int id;
        switch (p->type) {
        case MQTT_PUBLISH:
                return on_publish(m, p);
        case MQTT_PUBACK:
        case MQTT_PUBREC:
        case MQTT_PUBCOMP:
                on_ack(m, p);
                return 0;
        case MQTT_PUBREL:
                if ((id = mqtt_id_get(p)) < 0)
                        return -EBADMSG;
                mqtt_put_ack(&m->conn->out, MQTT_PUBCOMP, (uint16_t)id);
                flush(m);
                return 0;
        case MQTT_SUBACK:
                on_suback(m, p);
                return 0;
        default:
                return 0;
        }
}

/* ---- the connection ---- */

/* Brokers send acknowledgements in small writes and hold the next back until the last one was acknowledged by TCP, which the kernel
 * delays by 40 ms unless it is told not to, each time anew. */
static void acknowledge_at_once(const struct mqtt *m)
{
        setsockopt(m->conn->fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
}

/* Parks for the next packet and handles it. 0 or -errno. */
static int read_packet(struct mqtt *m, struct mqtt_packet *p, size_t *used)
{
        for (;;) {
                int r = mqtt_packet_get(buf_str(&m->conn->in), p, used);
                if (r)
                        return r < 0 ? r : 0;
                double old = fiber_set_deadline(loop_now() + MQTT_KEEPALIVE_S / 2.0);
                r = conn_read(m->conn);
                fiber_restore_deadline(old);
                if (r == -ETIMEDOUT && loop_now() < m->last_read + MQTT_KEEPALIVE_S * 1.5) {
                        mqtt_put_empty(&m->conn->out, MQTT_PINGREQ);
                        flush(m);
                        continue;
                }
                if (r <= 0)
                        return r ? r : -ECONNRESET;
                acknowledge_at_once(m);
                m->last_read = loop_now();
        }
}

static int handshake(struct mqtt *m)
{
        struct mqtt_packet p;
        size_t used;
        int r = conn_dial(str_of(m->s.address), &m->conn);
        if (!r && m->s.tls)
                r = conn_start_tls(m->conn, m->s.tls, str_of(m->s.host), false);
        if (!r)
                r = mqtt_put_connect(&m->conn->out, m->s.client_id, m->s.user, m->s.password, m->s.clean_session, MQTT_KEEPALIVE_S);
        if (r)
                return r;
        flush(m);
        m->last_read = loop_now();
        r = read_packet(m, &p, &used);
        if (r)
                return r;
        if (p.type != MQTT_CONNACK || p.body.n < 2)
                return -EBADMSG;
        if (p.body.p[1])
                return (uint8_t)p.body.p[1];
        bool session = p.body.p[0] & 1;
        buf_consume(&m->conn->in, used);
        if (!session) { /* the broker knows nothing of what we hold: there is nobody to acknowledge to */
                list_for_each(pos, &m->held)
                        list_entry(pos, struct mqtt_message, node)->id = 0;
                list_for_each(pos, &m->taken)
                        list_entry(pos, struct mqtt_message, node)->id = 0;
        }
        return 0;
}

static void drop_connection(struct mqtt *m)
{
        m->connected = false;
        conn_free(m->conn);
        m->conn = NULL;
        list_for_each(pos, &m->filters)
                list_entry(pos, struct mqtt_filter, node)->suback_id = 0;
}

static int serve(struct mqtt *m)
{
        struct mqtt_packet p;
        size_t used;
        int r = 0;
        list_for_each(pos, &m->filters)
                write_subscribe(m, list_entry(pos, struct mqtt_filter, node));
        list_for_each(pos, &m->outgoing)
                write_publish(m, list_entry(pos, struct outgoing, node), true);
        while (!r && !(r = read_packet(m, &p, &used))) {
                r = on_packet(m, &p);
                buf_consume(&m->conn->in, used);
                while (!r && m->n_held >= MQTT_HELD_MAX)
                        r = cond_wait(&m->room);
                m->last_read = loop_now();
        }
        return r;
}

static void keep_fiber(void *arg)
{
        struct mqtt *m = arg;
        double pause = 0.1;
        while (!m->closing && !fiber_is_cancelled()) {
                double old = fiber_set_deadline(loop_now() + MQTT_WAIT_S);
                int r = m->error = handshake(m);
                fiber_restore_deadline(old);
                if (r == 0) {
                        m->connected = true;
                        pause = 0.1;
                        dapr_backend_up(m->instance);
                        cond_broadcast(&m->changed);
                        r = serve(m);
                }
                m->error = r;
                drop_connection(m);
                m->tried = true;
                cond_broadcast(&m->changed);
                if (r == -ECANCELED || m->closing)
                        return;
                dapr_backend_down(m->instance, mqtt_error(r));
                dapr_log(DAPR_LOG_WARN, "mqtt: the connection to %s has ended or could not be made: %s", m->s.address, mqtt_error(r));
                if (fiber_sleep(pause))
                        return;
                pause = fmin(pause * 2, 5);
        }
}

/* ---- what consumers call ---- */

int mqtt_start(struct dapr_call *c, struct mqtt_settings *s, const char *instance, struct mqtt **ret)
{
        struct mqtt *m = calloc(1, sizeof(*m));
        if (!m) {
                mqtt_settings_fini(s);
                return -ENOMEM;
        }
        m->s = *s;
        *s = (struct mqtt_settings){0};
        scope_init(&m->scope);
        cond_init(&m->changed);
        cond_init(&m->room);
        list_init(&m->outgoing);
        list_init(&m->held);
        list_init(&m->taken);
        list_init(&m->filters);
        m->instance = strdup(instance);
        int r = m->instance ? fiber_go(&m->scope, "mqtt", keep_fiber, m) : -ENOMEM;
        double limit = loop_now() + fmin(MQTT_WAIT_S, dapr_deadline_s(c) - 0.2);
        while (!r && !m->connected) {
                int w = cond_wait_until(&m->changed, limit);
                if (m->connected)
                        break;
                if (w || (m->tried && m->error > 0)) /* an answer does not change by asking again */
                        r = dapr_fail(c, DAPR_UNAVAILABLE, "failed to establish connection to broker: %s", mqtt_error(m->error ? m->error : w));
        }
        if (r) {
                mqtt_close(m);
                return r;
        }
        *ret = m;
        return 0;
}

int mqtt_open(struct dapr_call *c, const struct dapr_metadata *md, struct mqtt **ret)
{
        struct mqtt_settings s = {0};
        int r = mqtt_settings_read(c, md, &s);
        if (r)
                mqtt_settings_fini(&s);
        return r ? r : mqtt_start(c, &s, dapr_instance(c), ret);
}

void mqtt_close(struct mqtt *m)
{
        if (!m)
                return;
        m->closing = true;
        if (m->connected) {
                mqtt_put_empty(&m->conn->out, MQTT_DISCONNECT);
                flush(m);
                double old = fiber_set_deadline(loop_now() + 1);
                conn_flush(m->conn);
                fiber_restore_deadline(old);
        }
        scope_cancel(&m->scope);
        scope_join(&m->scope);
        while (!list_is_empty(&m->held)) {
                struct mqtt_message *msg = list_entry(m->held.next, struct mqtt_message, node);
                list_del(&msg->node);
                message_free(msg);
        }
        mqtt_settings_fini(&m->s);
        free(m->instance);
        free(m);
}

bool mqtt_is_connected(const struct mqtt *m)
{
        return m->connected;
}

uint8_t mqtt_qos(const struct mqtt *m)
{
        return m->s.qos;
}

bool mqtt_clean_session(const struct mqtt *m)
{
        return m->s.clean_session;
}

/* Parks until connected. */
static int wait_connected(struct mqtt *m, double limit)
{
        while (!m->connected) {
                int r = cond_wait_until(&m->changed, limit);
                if (r)
                        return r;
        }
        return 0;
}

int mqtt_publish(struct mqtt *m, const char *topic, struct str payload, uint8_t qos, bool retain)
{
        struct outgoing o = {.fiber = fiber_self(), .topic = topic, .payload = payload, .qos = qos, .retain = retain};
        double limit = loop_now() + MQTT_WAIT_S;
        if (!*topic || strlen(topic) > MQTT_STRING_MAX || strpbrk(topic, "+#") || payload.n > MQTT_PACKET_MAX - MQTT_STRING_MAX - 16)
                return -EINVAL;
        int r = wait_connected(m, limit);
        while (!r && m->connected && conn_out_len(m->conn) > CONN_HIGH_WATER)
                r = fiber_sleep(THROTTLE_S);
        if (!r)
                r = wait_connected(m, limit);
        if (r)
                return r;
        o.id = qos ? next_id(m) : 0;
        if (qos)
                list_add_tail(&m->outgoing, &o.node);
        write_publish(m, &o, false);
        while (qos && !o.done && !r)
                r = fiber_park_until(limit);
        list_del(&o.node);
        return o.done || !qos ? 0 : r;
}

int mqtt_subscribe(struct mqtt *m, struct mqtt_filter *f)
{
        double limit = loop_now() + MQTT_WAIT_S;
        cond_init(&f->have);
        cond_init(&f->answered);
        f->answer = -1;
        f->suback_id = 0;
        list_add_tail(&m->filters, &f->node);
        if (m->connected)
                write_subscribe(m, f);
        list_for_each(pos, &m->held) {
                struct mqtt_message *msg = list_entry(pos, struct mqtt_message, node);
                if (!msg->filter)
                        msg->filter = filter_for(m, msg->topic);
        }
        int r = 0;
        while (!r && f->answer < 0)
                r = cond_wait_until(&f->answered, limit);
        if (!r && f->answer >= 0x80)
                r = -EACCES;
        if (r)
                mqtt_unsubscribe(m, f, false);
        return r;
}

void mqtt_unsubscribe(struct mqtt *m, struct mqtt_filter *f, bool forget)
{
        list_del(&f->node);
        list_for_each(pos, &m->held) {
                struct mqtt_message *msg = list_entry(pos, struct mqtt_message, node);
                if (msg->filter == f && (msg->filter = filter_for(m, msg->topic)))
                        cond_broadcast(&msg->filter->have);
        }
        list_for_each(pos, &m->taken) {
                struct mqtt_message *msg = list_entry(pos, struct mqtt_message, node);
                if (msg->filter == f)
                        msg->filter = NULL;
        }
        if (forget && m->connected) {
                mqtt_put_unsubscribe(&m->conn->out, next_id(m), str_of(f->filter));
                flush(m);
        }
}
