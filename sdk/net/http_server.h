/* Inside of the HTTP server: what http_server.c (life), http1_server.c and http2_server.c share. Not for others. */
#ifndef SDK_NET_HTTP_SERVER_H
#define SDK_NET_HTTP_SERVER_H

#include "sdk/base/spare.h"
#include "sdk/net/http.h"
#include "sdk/net/http1.h"
#include "sdk/net/turns.h"

enum {
        HTTP_MAX_LISTENERS = 16,
        HTTP_HEADER_SLACK = 4096,          /* Go's bufio: so much more than max_header_bytes passes */
        HTTP_DRAIN_BYTES = 256 * 1024,     /* of a body that no handler reads */
        HTTP_POOLED_REQUESTS = 128,
        HTTP_KEPT_REQUESTS = 16,           /* of them, when nobody needs more */
        HTTP_BODY_STEP_BYTES = 64 * 1024,
};
#define HTTP_LINGER_S 30.0 /* for the peer to read an answer before the connection goes */

struct h1_req;
struct http_peer; /* a connection, of either protocol */
struct http_peer_ops {
        void (*drain)(struct http_peer *p);  /* finish what runs, then close */
        void (*close)(struct http_peer *p);  /* now; no handler is running */
};
struct http_peer {
        struct list link;
        struct http_server *server;
        const struct http_peer_ops *ops;
        bool drained;              /* HTTP/2: it has been told */
};

struct http_server {
        struct http_server_conf conf;
        struct listener listeners[HTTP_MAX_LISTENERS];
        size_t n_listeners, n_conns;
        struct scope handlers;     /* handler fibers and TLS handshakes */
        struct list peers;
        struct cond changed;       /* a connection has gone, or a turn's last request has ended */
        struct turns turns;        /* of requests */
        bool stopping, full;
        /* handing over: set, with its argument */
        void (*give)(void *arg, const char *name, int fd, bool listening);
        void *give_arg;
        struct h1_req *pool;
        struct spare spare; /* of the pool */
};

/* The handler, on its fiber. */
void http_run_handler(struct http_req *r);
void http_peer_add(struct http_peer *p, struct http_server *s, const struct http_peer_ops *ops);
void http_peer_del(struct http_peer *p);

/* Gives the idle connection away and frees the conn; -EBUSY: something is in its buffers. */
int http_peer_give(struct http_server *s, struct conn *io);
/* Takes the conn. */
void h1_serve(struct http_server *s, struct conn *io);
void h2_serve(struct http_server *s, struct conn *io);
/* HTTP/1 Upgrade: the 101 is written. Headers are copied. */
void h2_serve_upgrade(struct http_server *s, struct conn *io, struct str settings, const struct http1_head *h);
void h1_req_pool_init(struct http_server *s);
void h1_req_pool_fini(struct http_server *s);

/* Splits the target, absolute form too, into path, query and authority. */
void http_req_set_target(struct http_req *r, struct str target);

ssize_t h1_req_read(struct http_req *r, void *p, size_t n);
int h1_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body);
int h1_resp_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length);
int h1_resp_write(struct http_req *r, struct str data);
int h1_resp_end(struct http_req *r, const struct http_header *trailers, size_t n);
void h1_resp_abort(struct http_req *r);

ssize_t h2_req_read(struct http_req *r, void *p, size_t n);
int h2_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body);
int h2_resp_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length);
int h2_resp_write(struct http_req *r, struct str data);
int h2_resp_end(struct http_req *r, const struct http_header *trailers, size_t n);
void h2_resp_abort(struct http_req *r);

#endif
