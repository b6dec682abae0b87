/* MQTT 3.1.1 control packets as bytes (https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html). No I/O. */
#ifndef PLUGINS_SHARED_MQTT_PACKET_H
#define PLUGINS_SHARED_MQTT_PACKET_H

#include "sdk/base/buf.h"

enum mqtt_type {
        MQTT_CONNECT = 1, MQTT_CONNACK, MQTT_PUBLISH, MQTT_PUBACK, MQTT_PUBREC, MQTT_PUBREL, MQTT_PUBCOMP, MQTT_SUBSCRIBE,
        MQTT_SUBACK, MQTT_UNSUBSCRIBE, MQTT_UNSUBACK, MQTT_PINGREQ, MQTT_PINGRESP, MQTT_DISCONNECT
};
enum { MQTT_PACKET_MAX = 64 << 20, MQTT_STRING_MAX = 65535 };

struct mqtt_packet {
        uint8_t type, flags;
        struct str body; /* borrowed from the input */
};
struct mqtt_publish {
        struct str topic, payload; /* borrowed */
        uint16_t id;               /* 0 with qos 0 */
        uint8_t qos;
        bool retain, dup;
};
/* The packet at the front. 1 with *ret_used, 0 = more bytes are needed, -EBADMSG, -EMSGSIZE (over MQTT_PACKET_MAX). */
int mqtt_packet_get(struct str in, struct mqtt_packet *ret, size_t *ret_used);
/* Of a PUBLISH. 0 or -EBADMSG. */
int mqtt_publish_get(const struct mqtt_packet *p, struct mqtt_publish *ret);
/* The packet id at the front of an acknowledgement's body; -1 when it is too short. */
int mqtt_id_get(const struct mqtt_packet *p);

/* Append one packet. Strings over MQTT_STRING_MAX are the caller's mistake. 0 or -ENOMEM. */
int mqtt_put_connect(struct buf *b, const char *client_id, const char *user, const char *password, bool clean, unsigned keepalive_s);
int mqtt_put_publish(struct buf *b, const struct mqtt_publish *m);
int mqtt_put_subscribe(struct buf *b, uint16_t id, struct str filter, uint8_t qos);
int mqtt_put_unsubscribe(struct buf *b, uint16_t id, struct str filter);
/* PUBACK, PUBREC, PUBREL, PUBCOMP */
int mqtt_put_ack(struct buf *b, enum mqtt_type type, uint16_t id);
/* PINGREQ, DISCONNECT */
int mqtt_put_empty(struct buf *b, enum mqtt_type type);

/* Does the topic fit the filter ('+' one level, '#' the rest, "$share/group/" before it left out)? */
bool mqtt_topic_fits(struct str filter, struct str topic);

#endif
