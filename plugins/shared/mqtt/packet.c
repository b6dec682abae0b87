/* MQTT packets: fixed header (type, flags, length in 7-bit groups), then the body; strings have a length of two bytes before them. */
#include "plugins/shared/mqtt/packet.h"

#include <errno.h>
#include <string.h>

int mqtt_packet_get(struct str in, struct mqtt_packet *ret, size_t *ret_used)
{
        const uint8_t *p = (const uint8_t *)in.p;
        size_t n = 0, at = 1;
        for (int shift = 0;; shift += 7) {
                if (at >= in.n)
                        return 0;
                if (shift > 21)
                        return -EBADMSG;
                n |= (size_t)(p[at] & 0x7f) << shift;
                if (p[at++] < 0x80)
                        break;
        }
        if (n > MQTT_PACKET_MAX)
                return -EMSGSIZE;
        if (in.n - at < n)
                return 0;
        *ret = (struct mqtt_packet){p[0] >> 4, p[0] & 15, str_n(in.p + at, n)};
        *ret_used = at + n;
        return 1;
}

static int u16(struct str *s)
{
        const uint8_t *p = (const uint8_t *)s->p;
        if (s->n < 2)
                return -1;
        *s = str_skip(*s, 2);
        return p[0] << 8 | p[1];
}

int mqtt_publish_get(const struct mqtt_packet *p, struct mqtt_publish *ret)
{
        struct str rest = p->body;
        int n = u16(&rest), id = 0;
        if (n < 0 || (size_t)n > rest.n)
                return -EBADMSG;
        *ret = (struct mqtt_publish){.topic = str_n(rest.p, (size_t)n), .qos = p->flags >> 1 & 3, .retain = p->flags & 1, .dup = p->flags >> 3};
        rest = str_skip(rest, (size_t)n);
        if (ret->qos > 2 || (ret->qos && (id = u16(&rest)) <= 0))
                return -EBADMSG;
        ret->id = (uint16_t)id;
        ret->payload = rest;
        return 0;
}

int mqtt_id_get(const struct mqtt_packet *p)
{
        struct str rest = p->body;
        return u16(&rest);
}

/* ---- writing ---- */

static void put_head(struct buf *b, enum mqtt_type type, unsigned flags, size_t n)
{
        buf_addc(b, (char)((unsigned)type << 4 | flags));
        do {
                unsigned group = n & 0x7f;
                n >>= 7;
                buf_addc(b, (char)(group | (n ? 0x80 : 0)));
        } while (n);
}

static void put_u16(struct buf *b, unsigned v)
{
        buf_addc(b, (char)(v >> 8));
        buf_addc(b, (char)v);
}

static void put_string(struct buf *b, struct str s)
{
        put_u16(b, (unsigned)s.n);
        buf_adds(b, s);
}

/* All of it or nothing. */
static int finish(struct buf *b, size_t before)
{
        if (!b->failed)
                return 0;
        b->failed = false;
        b->len = b->off + before;
        return -ENOMEM;
}

int mqtt_put_connect(struct buf *b, const char *client_id, const char *user, const char *password, bool clean, unsigned keepalive_s)
{
        size_t before = buf_len(b);
        size_t n = 10 + 2 + strlen(client_id) + (user ? 2 + strlen(user) : 0) + (user && password ? 2 + strlen(password) : 0);
        put_head(b, MQTT_CONNECT, 0, n);
        put_string(b, STR("MQTT"));
        buf_addc(b, 4); /* 3.1.1 */
        buf_addc(b, (char)((clean ? 2 : 0) | (user ? 0x80 : 0) | (user && password ? 0x40 : 0)));
        put_u16(b, keepalive_s);
        put_string(b, str_of(client_id));
        if (user)
                put_string(b, str_of(user));
        if (user && password)
                put_string(b, str_of(password));
        return finish(b, before);
}

int mqtt_put_publish(struct buf *b, const struct mqtt_publish *m)
{
        size_t before = buf_len(b);
        put_head(b, MQTT_PUBLISH, (m->dup ? 8u : 0) | (unsigned)m->qos << 1 | (m->retain ? 1u : 0), 2 + m->topic.n + (m->qos ? 2 : 0) + m->payload.n);
        put_string(b, m->topic);
        if (m->qos)
                put_u16(b, m->id);
        buf_adds(b, m->payload);
        return finish(b, before);
}

int mqtt_put_subscribe(struct buf *b, uint16_t id, struct str filter, uint8_t qos)
{
        size_t before = buf_len(b);
        put_head(b, MQTT_SUBSCRIBE, 2, 2 + 2 + filter.n + 1);
        put_u16(b, id);
        put_string(b, filter);
        buf_addc(b, (char)qos);
        return finish(b, before);
}

int mqtt_put_unsubscribe(struct buf *b, uint16_t id, struct str filter)
{
        size_t before = buf_len(b);
        put_head(b, MQTT_UNSUBSCRIBE, 2, 2 + 2 + filter.n);
        put_u16(b, id);
        put_string(b, filter);
        return finish(b, before);
}

int mqtt_put_ack(struct buf *b, enum mqtt_type type, uint16_t id)
{
        size_t before = buf_len(b);
        put_head(b, type, type == MQTT_PUBREL ? 2 : 0, 2);
        put_u16(b, id);
        return finish(b, before);
}

int mqtt_put_empty(struct buf *b, enum mqtt_type type)
{
        size_t before = buf_len(b);
        put_head(b, type, 0, 0);
        return finish(b, before);
}

/* ---- filters ---- */

bool mqtt_topic_fits(struct str filter, struct str topic)
{
        if (str_has_prefix(filter, STR("$share/"))) {
                str_cut(&filter, '/');
                str_cut(&filter, '/');
                if (!filter.p)
                        return false;
        }
        for (;;) {
                if (!filter.p || !topic.p)
                        return !filter.p && !topic.p;
                struct str f = str_cut(&filter, '/');
                if (str_eq(f, STR("#")))
                        return true;
                struct str t = str_cut(&topic, '/');
                if (!str_eq(f, STR("+")) && !str_eq(f, t))
                        return false;
                if (!topic.p && filter.p && str_eq(filter, STR("#"))) /* "a/#" fits "a" too */
                        return true;
        }
}
