/* Inside the HTTP client: its connections, in http_pool.c, and what http_client.c needs of them. */
#ifndef SDK_NET_HTTP_POOL_H
#define SDK_NET_HTTP_POOL_H

#include "sdk/base/loop.h"
#include "sdk/net/http2.h"

enum http_speaks { SPEAKS_UNKNOWN, SPEAKS_HTTP1, SPEAKS_HTTP2 };

struct http_client {
        struct http_client_conf conf;
        char *target, *authority, *server_name, *proxy, *proxy_authorization;
        enum http_speaks speaks; /* what the last connection did */
        struct list idle;        /* struct pooled, most recent first */
        size_t n_idle, n_conns;  /* n_conns: all of them, those being dialled too */
        size_t n_running;        /* exchanges */
        size_t dialling;
        struct cond freed;       /* a connection came, came to rest or went; HTTP/2: room */
        struct timer sweep;
        struct list h2;          /* struct session */
};

/* An HTTP/1 connection. */
struct pooled {
        struct list link;
        struct http_client *client;
        struct conn *io;
        bool used;              /* has served before */
        double idle_since;
};

/* For one exchange: one of the two. */
struct http_use {
        struct pooled *conn;    /* taken: http_pool_put_back or http_pool_drop must follow */
        struct h2_conn *h2;     /* borrowed, with room for a stream; good until the fiber parks */
};
/* fresh: not one that rested. ask: the socket of one that rested is asked first whether it lives. 0 or -errno. Parks. */
int http_pool_get(struct http_client *c, bool fresh, bool ask, struct http_use *ret);
void http_pool_drop(struct pooled *p);
void http_pool_put_back(struct pooled *p);

#endif
