/*
 * A NATS client on fibers: one connection, kept and made again by a fiber of its own; requests, publishing, subscriptions. Sockets and
 * TLS by sdk/net. Subscriptions stand again after a reconnection; what came for them before stays theirs.
 */
#ifndef PLUGINS_SHARED_NATS_NATS_H
#define PLUGINS_SHARED_NATS_NATS_H

#include "dapr/plugin.h"
#include "plugins/shared/nats/protocol.h"
#include "sdk/base/fiber.h"
#include "sdk/base/list.h"

enum {
        NATS_SERVERS_MAX = 16,
        NATS_INCOMING_MAX = 1000,           /* messages of a subscription that wait; then nothing is read. A subscription may allow more */
        NATS_INCOMING_BYTES_MAX = 64 << 20,
        NATS_PENDING_MAX = 8 << 20,         /* bytes published while there is no connection; more are refused */
        NATS_CONNECT_S = 10,                /* one connection and its login */
        NATS_PING_S = 20,                   /* silence until the server is asked whether it lives */
};

struct tls_context;
struct nats_server {
        char *address, *host;               /* host:port, and the name to verify */
        char *user, *password, *token;      /* NULL = not given */
        bool tls;
};
struct nats_settings {
        struct nats_server servers[NATS_SERVERS_MAX];
        size_t n_servers;
        char *name, *token, *jwt, *seed;
        struct tls_context *tls;
        bool force_tls;                     /* a client certificate: never without TLS */
};
/* From natsURL, name, token, jwt, seedKey, tls_client_cert, tls_client_key, caCert. 0, -ENOMEM, or dapr_fail()'s code with the field
 * named. Parks (files are read on the worker pool). fini in any case. */
int nats_settings_read(struct dapr_call *c, const struct dapr_metadata *md, struct nats_settings *s);
void nats_settings_fini(struct nats_settings *s);

struct nats;
struct nats_message { /* free() it */
        struct list node;
        struct str subject, reply, headers, payload;
};
struct nats_sub { /* the caller's; after nats_sub_init() fill subject and queue */
        struct list node;
        const char *subject, *queue;        /* queue NULL = none */
        size_t max_incoming;                /* 0 = NATS_INCOMING_MAX */
        uint64_t sid;
        struct list incoming;               /* struct nats_message.node */
        size_t n_incoming, bytes;
        struct cond arrived;
};

/* Starts the connection; instance: whose backend state it reports, NULL = nobody's. s lives as long. wait_s > 0: returns when connected, or
 * with a failure when the time is over or a server has refused the login. 0; -EACCES, -ETIMEDOUT or another errno: see err. Parks. */
int nats_open(struct nats **ret, const struct nats_settings *s, const char *instance, double wait_s, char *err, size_t err_n);
/* Sends what is written, ends; subscriptions must have ended. Parks; NULL is fine. */
void nats_close(struct nats *n);
bool nats_is_connected(const struct nats *n);
/* Why it is not connected. */
const char *nats_error(const struct nats *n);
/* Counts the connections made. nats_wait_change parks until it is connected anew, or `until` (loop time). 0, -ETIMEDOUT, -ECANCELED. */
unsigned nats_epoch(const struct nats *n);
int nats_wait_change(struct nats *n, double until);
/* Largest message that the server takes. */
size_t nats_max_payload(const struct nats *n);

/* Publishes without an answer; while there is no connection it waits in memory. 0, -ENOMEM, -ENOBUFS. Does not park. */
int nats_publish(struct nats *n, struct str subject, struct str payload);
/* Publishes and parks for the one answer, waiting for a connection first. 0 and *ret; -EHOSTUNREACH: nobody listens to that subject;
 * -ECONNRESET: the connection broke, it is not known who has it; -EMSGSIZE; -ETIMEDOUT (timeout_s or the fiber's deadline), -ENOMEM. */
int nats_request(struct nats *n, struct str subject, struct str headers, struct str payload, double timeout_s, struct nats_message **ret);

void nats_sub_init(struct nats_sub *sub);
/* From now on messages wait in sub, which may have been subscribed before. 0 or -ENOMEM. */
int nats_subscribe(struct nats *n, struct nats_sub *sub);
void nats_unsubscribe(struct nats *n, struct nats_sub *sub); /* frees what waits; harmless when it is not subscribed */
/* The next message. 0, -ECANCELED. Parks. */
int nats_next(struct nats *n, struct nats_sub *sub, struct nats_message **ret);

#endif
