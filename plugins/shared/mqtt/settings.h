/* Metadata of MQTT components, and errors as text. Internal to the client; see mqtt.h. */
#ifndef PLUGINS_SHARED_MQTT_SETTINGS_H
#define PLUGINS_SHARED_MQTT_SETTINGS_H

#include "dapr/plugin.h"

struct tls_context;
struct mqtt_settings {
        char *address, *host; /* host:port, and the name to verify */
        char *user, *password, *client_id;
        struct tls_context *tls; /* NULL = plain */
        uint8_t qos;
        bool clean_session;
};
/* 0, -ENOMEM, or dapr_fail()'s code with the field named; call fini in any case. */
int mqtt_settings_read(struct dapr_call *c, const struct dapr_metadata *md, struct mqtt_settings *s);
void mqtt_settings_fini(struct mqtt_settings *s);
/* Of -errno, or of CONNACK's code (> 0). */
const char *mqtt_error(int r);

#endif
