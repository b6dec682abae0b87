/*
 * An AMQP 0-9-1 client on fibers: frames by librabbitmq's codec, sockets and TLS by sdk/net. A link is one connection with one
 * channel; it is not made again when it breaks: whoever owns it opens another.
 */
#ifndef PLUGINS_SHARED_AMQP_H
#define PLUGINS_SHARED_AMQP_H

#include <amqp.h>
#include <amqp_framing.h>

#include "dapr/plugin.h"
#include "sdk/base/fiber.h"
#include "sdk/base/list.h"
#include "sdk/base/map.h"
#include "sdk/base/str.h"

enum { AMQP_INCOMING_MAX = 1000, AMQP_CALL_S = 20, AMQP_MESSAGE_MAX = 512 << 20, AMQP_SHORT_MAX = 255,
       AMQP_HEADERS_MAX = 64 };

struct tls_context;
struct amqp_settings {
        char *address, *host, *user, *password, *vhost, *client_name;
        struct tls_context *tls; /* NULL = plain */
        bool external;           /* SASL EXTERNAL: the client's certificate is the login */
        double heartbeat_s;
};
/* From connectionString (or host), or hostname, protocol, username, password; caCert, clientCert, clientKey, saslExternal, clientName,
 * heartBeat. prefix stands before what is wrong with them. 0, -ENOMEM, or dapr_fail()'s code with the field named. fini in any case. */
int amqp_settings_read(struct dapr_call *c, const struct dapr_metadata *md, const char *prefix, struct amqp_settings *s);
void amqp_settings_fini(struct amqp_settings *s);

struct amqp_message { /* free with amqp_message_free() */
        struct list node;
        uint64_t tag;
        char *body;
        size_t n, want;
        char *message_id, *correlation_id, *type, *content_type; /* NULL = not given */
        struct dapr_kv *headers; /* those that are text, the first AMQP_HEADERS_MAX */
        size_t n_headers;
};
void amqp_message_free(struct amqp_message *m);

struct amqp_link;
/* 0 and *ret; or -errno, with the server's or our text in err. -EACCES: the login was refused. Parks. */
int amqp_link_open(struct amqp_link **ret, const struct amqp_settings *s, char *err, size_t err_n);
void amqp_link_close(struct amqp_link *l); /* parks; NULL is fine */
bool amqp_link_is_broken(const struct amqp_link *l);
const char *amqp_link_error(const struct amqp_link *l); /* why it broke */
/* One method and its reply (by number). 0, or -errno; a refused method breaks the link. Parks. */
int amqp_link_call(struct amqp_link *l, amqp_method_number_t method, void *decoded, amqp_method_number_t reply);
/* Methods that have no reply. 0 or -errno. */
int amqp_link_send(struct amqp_link *l, amqp_method_number_t method, void *decoded);
/* Declares it unless this link has done so already. */
int amqp_link_exchange(struct amqp_link *l, const char *name, const char *kind, bool durable, bool auto_delete);
/* Publishes and waits for the broker's confirmation (the link is in confirm mode from the first one on). 0, -EIO (refused), or the
 * link's error: then it is not known whether the broker has it. Parks. */
int amqp_link_publish(struct amqp_link *l, const char *exchange, const char *key, const amqp_basic_properties_t *p, struct str body);
/* The next message that came. 0, -ECANCELED, or the link's error. Parks. */
int amqp_link_next(struct amqp_link *l, struct amqp_message **ret);
bool amqp_link_take(struct amqp_link *l, struct amqp_message **ret); /* false: none has come */

/* ---- one link that several callers share, opened again when it has broken ---- */
struct amqp_shared {
        const struct amqp_settings *s;
        const char *instance;              /* whose backend state it reports */
        int (*opened)(void *arg, struct amqp_link *l); /* optional: first thing on a new link. 0 or -errno. Parks. */
        void *arg;
        struct fmutex linking;
        struct amqp_link *link;            /* NULL or broken = to be opened */
        unsigned users;
        struct cond unused;
};
void amqp_shared_init(struct amqp_shared *x, const struct amqp_settings *s, const char *instance);
void amqp_shared_fini(struct amqp_shared *x);
/* Gives a use of a live link; amqp_shared_put() ends it. 0, or as amqp_link_open(). Parks. */
int amqp_shared_get(struct amqp_shared *x, struct amqp_link **ret, char *err, size_t err_n);
void amqp_shared_put(struct amqp_shared *x);
/* Is a failure worth another try on a new link? */
bool amqp_is_lost(int r);

static inline amqp_bytes_t amqp_z(const char *z)
{
        return (amqp_bytes_t){z ? __builtin_strlen(z) : 0, (void *)z};
}

#endif
