/*
 * A link: a fiber reads frames and hands them on, another sends heartbeats; callers write into the connection's output and park.
 *
 * One method with a reply runs at a time (calling). Confirmations come by number, in the order of publishing, possibly several at
 * once. Messages are put together of method, header and body frames, then wait in `incoming`; the broker's prefetch bounds them,
 * and for consumers without acknowledgement AMQP_INCOMING_MAX: then nothing is read until some were taken.
 */
#include "plugins/shared/amqp/amqp.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/loop.h"
#include "sdk/net/conn.h"

enum { FRAME_MAX = 65536, /* as much as the codec takes before it was tuned, which needs a connection of its own */
       FRAME_EXTRA = 8, METHOD_MAX = 3000, CHANNEL = 1, ERROR_MAX = 300, FRAME_END = 0xce };
#define THROTTLE_S 0.005

struct publishing {
        struct list node;
        struct fiber *fiber;
        uint64_t tag;
        int result; /* 1 = none yet */
};
struct amqp_link {
        struct conn *conn;
        amqp_connection_state_t codec;
        struct scope scope;
        int broken;
        char error[ERROR_MAX];
        struct fmutex calling;
        amqp_method_number_t reply;  /* the last that came and answers a call */
        struct cond replied;         /* also when it breaks */
        size_t frame_max;
        double heartbeat_s;
        bool confirms;
        uint64_t last_tag;
        struct list publishing, incoming;
        size_t n_incoming;
        struct cond arrived, taken;
        struct amqp_message *partial;
        struct map exchanges;
};

/* ---- the end of a link ---- */

static void fail(struct amqp_link *l, int err, const char *why)
{
        if (l->broken)
                return;
        l->broken = err ? err : -ECONNRESET;
        snprintf(l->error, sizeof(l->error), "%s", why ? why : strerror(-l->broken));
        cond_broadcast(&l->replied);
        cond_broadcast(&l->arrived);
        while (!list_is_empty(&l->publishing)) {
                struct publishing *p = list_entry(l->publishing.next, struct publishing, node);
                list_del(&p->node);
                p->result = l->broken;
                fiber_wake(p->fiber);
        }
}

static void fail_by_server(struct amqp_link *l, int code, amqp_bytes_t text)
{
        char why[ERROR_MAX];
        snprintf(why, sizeof(why), "%d %.*s", code, (int)(text.len < 250 ? text.len : 250), (const char *)text.bytes);
        fail(l, code == 403 ? -EACCES : code == 404 ? -ENOENT : code == 406 ? -EINVAL : -ECONNRESET, why);
}

/* ---- writing ---- */

static void put_frame(struct amqp_link *l, uint8_t type, uint16_t channel, const void *p, size_t n)
{
        const uint8_t head[7] = {type, (uint8_t)(channel >> 8), (uint8_t)channel, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
        struct buf *out = &l->conn->out;
        buf_add(out, head, sizeof(head));
        buf_add(out, p, n);
        buf_addc(out, (char)FRAME_END);
        if (out->failed)
                fail(l, -ENOMEM, NULL); /* half a frame may stand there: the link is of no use any more */
        else
                conn_flush_soon(l->conn);
}

static int put_method(struct amqp_link *l, uint16_t channel, amqp_method_number_t method, void *decoded)
{
        uint8_t bytes[METHOD_MAX] = {(uint8_t)(method >> 24), (uint8_t)(method >> 16), (uint8_t)(method >> 8), (uint8_t)method};
        int n = l->broken ? 0 : amqp_encode_method(method, decoded, (amqp_bytes_t){sizeof(bytes) - 4, bytes + 4});
        if (l->broken)
                return l->broken;
        if (n < 0)
                return -EINVAL;
        put_frame(l, AMQP_FRAME_METHOD, channel, bytes, (size_t)n + 4);
        return l->broken;
}

int amqp_link_send(struct amqp_link *l, amqp_method_number_t method, void *decoded)
{
        return put_method(l, CHANNEL, method, decoded);
}

static int wait_reply(struct amqp_link *l, amqp_method_number_t reply, double limit)
{
        while (!l->broken && l->reply != reply) {
                int r = cond_wait_until(&l->replied, limit);
                if (r)
                        return r;
        }
        return l->broken;
}

static int call_on(struct amqp_link *l, uint16_t channel, amqp_method_number_t method, void *decoded, amqp_method_number_t reply)
{
        int r = fmutex_lock(&l->calling);
        if (r)
                return r;
        l->reply = 0;
        r = put_method(l, channel, method, decoded);
        if (!r)
                r = wait_reply(l, reply, loop_now() + AMQP_CALL_S);
        if (r && !l->broken)
                fail(l, r, "a call was given up"); /* its answer would be taken for another's */
        fmutex_unlock(&l->calling);
        return r;
}

int amqp_link_call(struct amqp_link *l, amqp_method_number_t method, void *decoded, amqp_method_number_t reply)
{
        return call_on(l, CHANNEL, method, decoded, reply);
}

int amqp_link_exchange(struct amqp_link *l, const char *name, const char *kind, bool durable, bool auto_delete)
{
        if (map_get(&l->exchanges, str_of(name)))
                return 0;
        amqp_exchange_declare_t d = {.exchange = amqp_z(name), .type = amqp_z(kind), .durable = durable, .auto_delete = auto_delete};
        if (strlen(name) > AMQP_SHORT_MAX)
                return -ENAMETOOLONG;
        int r = amqp_link_call(l, AMQP_EXCHANGE_DECLARE_METHOD, &d, AMQP_EXCHANGE_DECLARE_OK_METHOD);
        return r ? r : map_set(&l->exchanges, str_of(name), l);
}

/* ---- publishing ---- */

static void on_confirm(struct amqp_link *l, uint64_t tag, bool multiple, int result)
{
        list_for_each_safe(pos, tmp, &l->publishing) {
                struct publishing *p = list_entry(pos, struct publishing, node);
                if (p->tag > tag)
                        return;
                if (p->tag != tag && !multiple)
                        continue;
                list_del(&p->node);
                p->result = result;
                fiber_wake(p->fiber);
        }
}

static int put_message(struct amqp_link *l, const char *exchange, const char *key, const amqp_basic_properties_t *p, struct str body)
{
        amqp_basic_publish_t m = {.exchange = amqp_z(exchange), .routing_key = amqp_z(key)};
        uint8_t head[METHOD_MAX] = {0, AMQP_BASIC_CLASS};
        for (int i = 0; i < 8; i++)
                head[4 + i] = (uint8_t)((uint64_t)body.n >> (56 - 8 * i));
        int n = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)p, (amqp_bytes_t){sizeof(head) - 12, head + 12});
        if (n < 0 || strlen(key) > AMQP_SHORT_MAX)
                return -EINVAL;
        int r = put_method(l, CHANNEL, AMQP_BASIC_PUBLISH_METHOD, &m);
        if (!r)
                put_frame(l, AMQP_FRAME_HEADER, CHANNEL, head, (size_t)n + 12);
        for (size_t at = 0; at < body.n && !l->broken;) {
                size_t part = body.n - at < l->frame_max - FRAME_EXTRA ? body.n - at : l->frame_max - FRAME_EXTRA;
                put_frame(l, AMQP_FRAME_BODY, CHANNEL, body.p + at, part);
                at += part;
        }
        return l->broken;
}

int amqp_link_publish(struct amqp_link *l, const char *exchange, const char *key, const amqp_basic_properties_t *props, struct str body)
{
        int r = 0;
        if (!l->confirms) {
                amqp_confirm_select_t select = {0};
                r = amqp_link_call(l, AMQP_CONFIRM_SELECT_METHOD, &select, AMQP_CONFIRM_SELECT_OK_METHOD);
                l->confirms |= r == 0;
        }
        while (!r && !l->broken && conn_out_len(l->conn) > CONN_HIGH_WATER)
                r = fiber_sleep(THROTTLE_S);
        if (!r)
                r = l->broken ? l->broken : put_message(l, exchange, key, props, body);
        if (r)
                return r;
        struct publishing p = {.fiber = fiber_self(), .tag = ++l->last_tag, .result = 1};
        list_add_tail(&l->publishing, &p.node);
        while (p.result > 0 && !r)
                r = fiber_park();
        list_del(&p.node);
        return p.result > 0 ? r : p.result;
}

/* ---- messages that come ---- */

void amqp_message_free(struct amqp_message *m)
{
        if (!m)
                return;
        free(m->body);
        free(m->message_id);
        free(m->correlation_id);
        free(m->type);
        free(m->content_type);
        for (size_t i = 0; i < m->n_headers; i++)
                free((char *)m->headers[i].key); /* the value stands behind it */
        free(m->headers);
        free(m);
}

static char *keep(bool given, amqp_bytes_t b)
{
        return given ? strndup(b.bytes, b.len) : NULL;
}

static void keep_headers(struct amqp_message *m, const amqp_table_t *t)
{
        int n = t->num_entries < AMQP_HEADERS_MAX ? t->num_entries : AMQP_HEADERS_MAX;
        m->headers = n > 0 ? calloc((size_t)n, sizeof(*m->headers)) : NULL;
        for (int i = 0; m->headers && i < n; i++) {
                amqp_bytes_t key = t->entries[i].key, value = t->entries[i].value.value.bytes;
                if (t->entries[i].value.kind != AMQP_FIELD_KIND_UTF8)
                        continue;
                char *both = calloc(1, key.len + value.len + 2);
                if (!both)
                        return;
                memcpy(both, key.bytes, key.len);
                memcpy(both + key.len + 1, value.bytes, value.len);
                m->headers[m->n_headers++] = (struct dapr_kv){both, both + key.len + 1};
        }
}

static void complete(struct amqp_link *l)
{
        if (l->partial->n < l->partial->want)
                return;
        list_add_tail(&l->incoming, &l->partial->node);
        l->n_incoming++;
        l->partial = NULL;
        cond_signal(&l->arrived);
}

static int on_header(struct amqp_link *l, const amqp_frame_t *f)
{
        const amqp_basic_properties_t *p = f->payload.properties.decoded;
        struct amqp_message *m = l->partial;
        if (!m || m->body || f->payload.properties.class_id != AMQP_BASIC_CLASS)
                return -EBADMSG;
        if (f->payload.properties.body_size > AMQP_MESSAGE_MAX)
                return -EMSGSIZE;
        m->want = f->payload.properties.body_size;
        m->body = malloc(m->want + 1);
        if (!m->body)
                return -ENOMEM;
        m->message_id = keep(p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG, p->message_id);
        m->correlation_id = keep(p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG, p->correlation_id);
        m->type = keep(p->_flags & AMQP_BASIC_TYPE_FLAG, p->type);
        m->content_type = keep(p->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG, p->content_type);
        if (p->_flags & AMQP_BASIC_HEADERS_FLAG)
                keep_headers(m, &p->headers);
        complete(l);
        return 0;
}

static int on_body(struct amqp_link *l, const amqp_frame_t *f)
{
        amqp_bytes_t b = f->payload.body_fragment;
        struct amqp_message *m = l->partial;
        if (!m || !m->body || b.len > m->want - m->n)
                return -EBADMSG;
        memcpy(m->body + m->n, b.bytes, b.len);
        m->n += b.len;
        complete(l);
        return 0;
}

bool amqp_link_take(struct amqp_link *l, struct amqp_message **ret)
{
        if (list_is_empty(&l->incoming))
                return false;
        *ret = list_entry(l->incoming.next, struct amqp_message, node);
        list_del(&(*ret)->node);
        l->n_incoming--;
        cond_signal(&l->taken);
        return true;
}

int amqp_link_next(struct amqp_link *l, struct amqp_message **ret)
{
        while (list_is_empty(&l->incoming) && !l->broken) {
                int r = cond_wait(&l->arrived);
                if (r)
                        return r;
        }
        if (l->broken)
                return l->broken; /* what came and was not taken yet comes again */
        amqp_link_take(l, ret);
        return 0;
}

/* ---- frames ---- */

static int on_method(struct amqp_link *l, const amqp_frame_t *f)
{
        void *d = f->payload.method.decoded;
        switch (f->payload.method.id) {
        case AMQP_BASIC_DELIVER_METHOD:
                if (l->partial || !(l->partial = calloc(1, sizeof(*l->partial))))
                        return l->partial ? -EBADMSG : -ENOMEM;
                l->partial->tag = ((amqp_basic_deliver_t *)d)->delivery_tag;
                return 0;
        case AMQP_BASIC_ACK_METHOD:
                on_confirm(l, ((amqp_basic_ack_t *)d)->delivery_tag, ((amqp_basic_ack_t *)d)->multiple, 0);
                return 0;
        case AMQP_BASIC_NACK_METHOD:
                on_confirm(l, ((amqp_basic_nack_t *)d)->delivery_tag, ((amqp_basic_nack_t *)d)->multiple, -EIO);
                return 0;
        case AMQP_BASIC_CANCEL_METHOD:
                fail(l, -ECONNRESET, "the server has cancelled the consumer: its queue is gone");
                return 0;
        case AMQP_CHANNEL_CLOSE_METHOD:
                fail_by_server(l, ((amqp_channel_close_t *)d)->reply_code, ((amqp_channel_close_t *)d)->reply_text);
                return 0;
        case AMQP_CONNECTION_CLOSE_METHOD:
                fail_by_server(l, ((amqp_connection_close_t *)d)->reply_code, ((amqp_connection_close_t *)d)->reply_text);
                return 0;
        case AMQP_CONNECTION_TUNE_METHOD: {
                const amqp_connection_tune_t *t = d;
                if (t->frame_max && t->frame_max < l->frame_max)
                        l->frame_max = t->frame_max;
                if (t->heartbeat && (l->heartbeat_s <= 0 || t->heartbeat < l->heartbeat_s))
                        l->heartbeat_s = t->heartbeat;
                break;
        }
        default:
                break;
        }
        l->reply = f->payload.method.id;
        cond_broadcast(&l->replied);
        return 0;
}

static int on_frame(struct amqp_link *l, const amqp_frame_t *f)
{
        switch (f->frame_type) {
        case AMQP_FRAME_METHOD: return on_method(l, f);
        case AMQP_FRAME_HEADER: return on_header(l, f);
        case AMQP_FRAME_BODY: return on_body(l, f);
        case AMQP_FRAME_HEARTBEAT: return 0;
        default: return -EPROTO; /* a server that answers with another version of the protocol */
        }
}

static int read_frames(struct amqp_link *l)
{
        struct str in = buf_str(&l->conn->in);
        while (in.n && !l->broken) {
                amqp_frame_t f;
                int n = amqp_handle_input(l->codec, (amqp_bytes_t){in.n, (void *)in.p}, &f);
                if (n < 0)
                        return -EBADMSG;
                in = str_skip(in, (size_t)n);
                buf_consume(&l->conn->in, (size_t)n);
                if (f.frame_type == 0)
                        continue;
                int r = on_frame(l, &f);
                amqp_maybe_release_buffers_on_channel(l->codec, f.channel);
                if (r)
                        return r;
        }
        return 0;
}

static void read_fiber(void *arg)
{
        struct amqp_link *l = arg;
        int r = 0;
        while (!r && !l->broken) {
                double old = fiber_set_deadline(l->heartbeat_s > 0 ? loop_now() + l->heartbeat_s * 2 : INFINITY);
                r = conn_read(l->conn);
                fiber_restore_deadline(old);
                r = r == 1 ? read_frames(l) : r ? r : -ECONNRESET;
                while (!r && !l->broken && l->n_incoming >= AMQP_INCOMING_MAX)
                        r = cond_wait(&l->taken);
        }
        fail(l, r, r == -ETIMEDOUT ? "the server has sent no heartbeat" : r == -ECONNRESET ? "the connection has ended" : NULL);
}

static void heartbeat_fiber(void *arg)
{
        struct amqp_link *l = arg;
        while (!l->broken && fiber_sleep(l->heartbeat_s / 2) == 0)
                if (!l->broken)
                        put_frame(l, AMQP_FRAME_HEARTBEAT, 0, "", 0);
}

/* ---- opening and closing ---- */

static int login(struct amqp_link *l, const struct amqp_settings *s)
{
        char secret[600];
        const amqp_field_value_t yes = {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}};
        amqp_table_entry_t caps[] = {{amqp_z("consumer_cancel_notify"), yes}, {amqp_z("authentication_failure_close"), yes}};
        amqp_table_entry_t props[] = {{amqp_z("product"), {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_z("microdapr")}}},
                                      {amqp_z("capabilities"), {AMQP_FIELD_KIND_TABLE, {.table = {2, caps}}}},
                                      {amqp_z("connection_name"), {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_z(s->client_name)}}}};
        int n = snprintf(secret, sizeof(secret), "%c%s%c%s", 0, s->user, 0, s->password);
        if (n < 0 || (size_t)n >= sizeof(secret))
                return -EINVAL;
        amqp_connection_start_ok_t ok = {.client_properties = {s->client_name ? 3 : 2, props},
                                         .mechanism = amqp_z(s->external ? "EXTERNAL" : "PLAIN"),
                                         .response = s->external ? amqp_z("") : (amqp_bytes_t){(size_t)n, secret},
                                         .locale = amqp_z("en_US")};
        int r = wait_reply(l, AMQP_CONNECTION_START_METHOD, loop_now() + AMQP_CALL_S);
        if (!r)
                r = call_on(l, 0, AMQP_CONNECTION_START_OK_METHOD, &ok, AMQP_CONNECTION_TUNE_METHOD);
        if (r)
                return r;
        amqp_connection_tune_ok_t tune = {.channel_max = CHANNEL, .frame_max = (uint32_t)l->frame_max, .heartbeat = (uint16_t)l->heartbeat_s};
        amqp_connection_open_t open = {.virtual_host = amqp_z(s->vhost)};
        amqp_channel_open_t channel = {0};
        r = put_method(l, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &tune);
        if (!r)
                r = call_on(l, 0, AMQP_CONNECTION_OPEN_METHOD, &open, AMQP_CONNECTION_OPEN_OK_METHOD);
        if (!r)
                r = call_on(l, CHANNEL, AMQP_CHANNEL_OPEN_METHOD, &channel, AMQP_CHANNEL_OPEN_OK_METHOD);
        return r;
}

int amqp_link_open(struct amqp_link **ret, const struct amqp_settings *s, char *err, size_t err_n)
{
        struct amqp_link *l = calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        scope_init(&l->scope);
        fmutex_init(&l->calling);
        cond_init(&l->replied);
        cond_init(&l->arrived);
        cond_init(&l->taken);
        list_init(&l->publishing);
        list_init(&l->incoming);
        l->frame_max = FRAME_MAX;
        l->heartbeat_s = s->heartbeat_s;
        l->codec = amqp_new_connection();
        double old = fiber_set_deadline(loop_now() + AMQP_CALL_S);
        int r = l->codec ? conn_dial(str_of(s->address), &l->conn) : -ENOMEM;
        if (!r && s->tls)
                r = conn_start_tls(l->conn, s->tls, str_of(s->host), false);
        if (!r)
                r = conn_write(l->conn, "AMQP\0\0\x09\x01", 8);
        if (!r)
                r = fiber_go(&l->scope, "amqp-read", read_fiber, l);
        if (!r)
                r = login(l, s);
        if (!r && l->heartbeat_s > 0)
                r = fiber_go(&l->scope, "amqp-heartbeat", heartbeat_fiber, l);
        fiber_restore_deadline(old);
        if (r) {
                snprintf(err, err_n, "%s", l->broken ? l->error : strerror(-r));
                amqp_link_close(l);
                return r;
        }
        *ret = l;
        return 0;
}

void amqp_link_close(struct amqp_link *l)
{
        if (!l)
                return;
        if (l->conn && !l->broken) {
                amqp_connection_close_t bye = {.reply_code = 200, .reply_text = amqp_z("bye")};
                put_method(l, 0, AMQP_CONNECTION_CLOSE_METHOD, &bye);
        }
        fiber_shield_begin();
        scope_cancel(&l->scope);
        scope_join(&l->scope);
        fiber_shield_end();
        fail(l, -ECANCELED, "closed");
        if (l->conn)
                conn_close(l->conn, 1);
        while (!list_is_empty(&l->incoming)) {
                struct amqp_message *m = list_entry(l->incoming.next, struct amqp_message, node);
                list_del(&m->node);
                amqp_message_free(m);
        }
        amqp_message_free(l->partial);
        map_fini(&l->exchanges);
        if (l->codec)
                amqp_destroy_connection(l->codec);
        free(l);
}

bool amqp_link_is_broken(const struct amqp_link *l)
{
        return l->broken != 0;
}

const char *amqp_link_error(const struct amqp_link *l)
{
        return l->error;
}
