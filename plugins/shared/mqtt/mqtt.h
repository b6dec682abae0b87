/*
 * An MQTT 3.1.1 client on fibers. Written here and not taken from libmosquitto, which acknowledges a message before its callback has
 * seen it: at-least-once needs the acknowledgement after the app.
 *
 * One connection, made again whenever it is lost. Messages that came are held until a consumer settles them; what is held survives
 * a lost connection when the broker kept the session (a message that it sends again is recognised by its packet id). Publishes with
 * QoS 1 and 2 wait for the broker's acknowledgement, across reconnections.
 */
#ifndef PLUGINS_SHARED_MQTT_H
#define PLUGINS_SHARED_MQTT_H

#include "dapr/plugin.h"
#include "sdk/base/fiber.h"
#include "sdk/base/list.h"
#include "sdk/base/str.h"

enum { MQTT_HELD_MAX = 10000, MQTT_WAIT_S = 20, MQTT_KEEPALIVE_S = 30 };

struct mqtt;
struct mqtt_settings;
struct mqtt_message { /* in hand of a consumer until mqtt_settle() */
        struct list node;
        const char *topic;
        struct str payload;
        bool retained;
        /* mqtt.c's own */
        uint16_t id;           /* 0: nothing to acknowledge */
        uint8_t qos;
        unsigned tries;
        double due;            /* loop time */
        struct mqtt_filter *filter;
};
struct mqtt_filter { /* the consumer's storage */
        struct list node;
        const char *filter;
        uint8_t qos;
        struct cond have;
        uint16_t suback_id;    /* asked and not yet answered; 0 = not asked on this connection */
        int answer;            /* -1 = none yet; else the code of SUBACK, 0x80 = refused */
        struct cond answered;
};

/* From the component's metadata (url, consumerID, qos, cleanSession, caCert, clientCert, clientKey): connects, waiting up to
 * MQTT_WAIT_S or the caller's deadline. 0, or dapr_fail()'s code. Reports the backend's state. Parks. */
int mqtt_open(struct dapr_call *c, const struct dapr_metadata *md, struct mqtt **ret);
/* The same with settings that were read before (settings.h), which it takes in any case. instance: whose backend state it reports. */
int mqtt_start(struct dapr_call *c, struct mqtt_settings *s, const char *instance, struct mqtt **ret);
void mqtt_close(struct mqtt *m); /* NULL is fine */
bool mqtt_is_connected(const struct mqtt *m);
uint8_t mqtt_qos(const struct mqtt *m);
bool mqtt_clean_session(const struct mqtt *m);

/* 0 once the broker has it (QoS 0: once it was written), -ETIMEDOUT, -ECANCELED, -ENOMEM, -EINVAL (topic). Parks. */
int mqtt_publish(struct mqtt *m, const char *topic, struct str payload, uint8_t qos, bool retain);
/* Subscribes and waits for the broker's word: 0, -EACCES (refused), -ETIMEDOUT, -ECANCELED. On failure f is not kept. Parks. */
int mqtt_subscribe(struct mqtt *m, struct mqtt_filter *f);
/* Its messages go back to be given to another filter that fits. `forget`: tells the broker to send no more. */
void mqtt_unsubscribe(struct mqtt *m, struct mqtt_filter *f, bool forget);
/* The next message for f. 0 and *ret, -ECANCELED. Parks. */
int mqtt_next(struct mqtt *m, struct mqtt_filter *f, struct mqtt_message **ret);
enum mqtt_settle { MQTT_TAKEN, MQTT_LATER, MQTT_BACK };
/* Takes the message: acknowledges and frees it, holds it for a while and gives it out again, or gives it out again at once. */
void mqtt_settle(struct mqtt *m, struct mqtt_message *msg, enum mqtt_settle how);
/* Holds it and gives it out again in so many seconds. */
void mqtt_settle_after(struct mqtt *m, struct mqtt_message *msg, double seconds);
unsigned mqtt_tries(const struct mqtt_message *msg); /* how often it was held so */

#endif
