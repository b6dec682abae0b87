/*
 * What HTTP/1.1 and HTTP/2 have in common, and the server and client that speak both.
 *
 * Server: one fiber a request. The handler reads the body, sends one response (whole, or begin/write/end) and returns; a
 * handler that returns without a response gives 500. When the client goes away the fiber is cancelled.
 * Same port: HTTP/1.1, HTTP/2 by prior knowledge (h2c), HTTP/2 by Upgrade.
 */
#ifndef SDK_NET_HTTP_H
#define SDK_NET_HTTP_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/fiber.h"
#include "sdk/net/conn.h"

struct http_header {
        struct str name; /* as received on HTTP/1 (compare without case), lower case on HTTP/2 */
        struct str value;
};
struct http_headers {
        struct http_header *v;
        size_t n, cap;
};
/* Appends; strings are borrowed and must live as long as the arena's request. -ENOMEM. */
int http_headers_add(struct http_headers *h, struct arena *a, struct str name, struct str value);
/* First value by name without case; p == NULL if absent. */
struct str http_headers_get(const struct http_headers *h, const char *name);
void http_headers_remove(struct http_headers *h, const char *name);
/* Is the token one of a comma-separated list, without case? (Connection: keep-alive, Upgrade) */
bool http_value_has_token(struct str value, const char *token);
const char *http_status_text(int status); /* "Not Found"; "" when unknown */

struct http_server;
struct http_req {
        struct str method;      /* "GET" */
        struct str target;      /* as on the wire: path and query */
        struct str path, query; /* raw, still percent-encoded; query without '?' */
        struct str authority;   /* Host or :authority */
        struct http_headers headers;
        int64_t content_length; /* -1 = unknown (chunked or HTTP/2 without the header) */
        int version;            /* 10, 11, 20 */
        struct arena *arena;    /* freed after the handler returns */
        struct http_server *server;
        const char *peer;       /* as struct conn has it; lives as long as the request, also when the peer has gone */
        /* of the response, for logs and metrics */
        int status;
        uint64_t bytes_in, bytes_out; /* of the bodies */
        bool begun, ended;
        struct http_tap *tap;   /* NULL: none */
        void *impl;             /* transport's own */
        void *user;
};
typedef void (*http_handler)(struct http_req *r, void *arg);

struct http_server_conf {
        const char *name;            /* for fiber names and logs */
        http_handler handler;
        void *arg;
        size_t max_header_bytes;     /* request line and headers; default 4 KiB; 4 KiB over it: 431 (as Go) */
        int64_t max_body_bytes;      /* <= 0 unlimited; over it the body read gives -EMSGSIZE */
        double header_timeout_s;     /* default 10 */
        double idle_timeout_s;       /* keep-alive without a request; 0 = none */
        bool no_h2c;
        size_t max_conns;            /* default 100000 */
        uint32_t max_streams;        /* HTTP/2 concurrent streams a connection; default 250 */
        size_t arena_cap_bytes;      /* per request; default 64 MiB + max_body_bytes */
        struct tls_context *tls;     /* kept (ref); NULL = plain */
};
/* 0 and *ret. */
int http_server_new(struct http_server **ret, const struct http_server_conf *c);
int http_server_listen(struct http_server *s, struct str addr); /* may be called several times; 0 or -errno */
int http_server_adopt(struct http_server *s, int listen_fd);
/* The end of a server whose place another one takes that inherits its descriptors: takes no more connections, but keeps listening
 * sockets open; requests that run finish as in http_server_stop(); connections that are idle then live on. give() gets each listening
 * socket and each idle plain HTTP/1 connection: the descriptor is its own. Parks. Then http_server_free(). */
void http_server_hand_over(struct http_server *s, double grace_s, void (*give)(void *arg, const char *name, int fd, bool listening), void *arg);
/* Before that: requests from now on are counted apart; how many of those before run still, for whom http_server_hand_over does not wait.
 * Both give that number. */
size_t http_server_turn(struct http_server *s);
size_t http_server_before(const struct http_server *s);
/* Serves an inherited connection. Takes fd. */
void http_server_take(struct http_server *s, int fd);
int http_server_port(const struct http_server *s);              /* of the first TCP listener */
/* Stops accepting, lets requests finish up to grace_s (GOAWAY, Connection: close), then cancels them. Parks. */
void http_server_stop(struct http_server *s, double grace_s);
void http_server_free(struct http_server *s);

/* Body. Reads up to n bytes: >0, 0 at the end, -EMSGSIZE over the limit, -EBADMSG malformed, -ECONNRESET, -ECANCELED,
 * -ETIMEDOUT. Parks. What the handler does not read is skipped up to 256 KiB; with more the connection closes. */
ssize_t http_req_read(struct http_req *r, void *p, size_t n);
/* The whole rest of the body, in the arena (borrowed from the connection when possible). 0 or negative as above. Parks. */
int http_req_body(struct http_req *r, struct str *ret);
/* One whole response. Headers are written as given, but for what belongs to the connection: Content-Length is set (the
 * caller's counts only where no body is sent: HEAD, 304), Date unless given, Connection ("close" is understood),
 * Transfer-Encoding. No Content-Type is made up. May park on a slow reader. 0 or -errno. */
int http_resp_send(struct http_req *r, int status, const struct http_header *h, size_t n, struct str body);
/* Streamed response: length -1 = unknown (chunked / HTTP/2 DATA). write parks while the reader is slow. A response that is
 * begun and not ended when the handler returns, or shorter than its length, is aborted. */
int http_resp_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length);
int http_resp_write(struct http_req *r, struct str data);
int http_resp_end(struct http_req *r, const struct http_header *trailers, size_t n);
/* Breaks the response off: connection closed (HTTP/1) or RST_STREAM (HTTP/2), when the handler has returned. */
void http_resp_abort(struct http_req *r);

/* What stands between a handler and the transport: once set as r->tap, the functions above come here (http_resp_send as begin, write,
 * end), and these go on beneath it by http_raw_…(). */
struct http_tap {
        ssize_t (*read)(struct http_tap *t, struct http_req *r, void *p, size_t n);
        int (*begin)(struct http_tap *t, struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length);
        int (*write)(struct http_tap *t, struct http_req *r, struct str data);
        int (*end)(struct http_tap *t, struct http_req *r, const struct http_header *trailers, size_t n);
};
ssize_t http_raw_read(struct http_req *r, void *p, size_t n);
int http_raw_begin(struct http_req *r, int status, const struct http_header *h, size_t n, int64_t length);
int http_raw_write(struct http_req *r, struct str data);
int http_raw_end(struct http_req *r, const struct http_header *trailers, size_t n);

/* ---- client: pooled keep-alive connections to one base address; HTTP/1.1 or HTTP/2 ---- */
struct http_client;
/* A body in gzip, when the request names neither Accept-Encoding nor Range: passed on as it is; unpacked (its Content-Encoding and Content-Length
 * are gone then); unpacked, and the server is told that gzip is welcome. As it is read: a body over the reader's limit ends there. */
enum http_gzip { HTTP_GZIP_AS_IS, HTTP_GZIP_UNPACK, HTTP_GZIP_ASK };
struct http_client_conf {
        struct str target;        /* conn_dial form */
        struct str authority;     /* Host header; empty = from target */
        bool h2;                  /* prior knowledge */
        bool h2_by_alpn;          /* tls offers "h2" and "http/1.1": whichever the server takes */
        struct tls_context *tls;  /* NULL = plain */
        struct str server_name;   /* SNI and verification; empty = host of target */
        struct str proxy;         /* "host:port" of an HTTP proxy: by CONNECT with tls, else by whole URLs; empty = none */
        struct str proxy_authorization; /* what it is told of us; empty = nothing */
        size_t max_conns;         /* default 1024 */
        size_t max_idle;          /* default 64 */
        double connect_timeout_s; /* default 5 */
        size_t max_header_bytes;  /* of responses; default 64 KiB */
        enum http_gzip gzip;
};
int http_client_new(struct http_client **ret, const struct http_client_conf *c); /* strings copied */
void http_client_free(struct http_client *c); /* no exchange may be running */

struct http_exchange {
        int status;
        struct http_headers headers, trailers;
        int64_t content_length; /* -1 unknown */
        const struct http_exchange_ops *ops; /* NULL: the client's own */
        void *impl;
};
/* An exchange that is not the client's own, or stands around one: what the functions on exchanges below do for it. */
struct http_exchange_ops {
        int (*write)(struct http_exchange *x, struct str data);
        int (*end)(struct http_exchange *x);
        int (*response)(struct http_exchange *x);
        ssize_t (*read)(struct http_exchange *x, void *p, size_t n);
        void (*close)(struct http_exchange *x);
};
/* Sends a request: headers now, then body by http_exchange_write (length -1 = chunked), or all at once when body_now.p != NULL
 * (STR("") = no body). Parks. 0, -EINVAL (method or target that cannot be sent), or what dialling gives. On success the exchange
 * must be finished with http_exchange_close. Host comes from h, else from the configuration; Connection, Content-Length and
 * Transfer-Encoding are the client's own.
 * All strings are borrowed until http_exchange_response has returned: a request whose pooled connection turns out to be dead
 * is sent once more on a new one, if its body was given at once and its method is idempotent, or if the peer says that it
 * did not process it. */
int http_client_start(struct http_client *c, struct arena *a, struct str method, struct str target,
                      const struct http_header *h, size_t n, int64_t length, struct str body_now, struct http_exchange **ret);
int http_exchange_write(struct http_exchange *x, struct str data);
int http_exchange_end(struct http_exchange *x);
/* Parks until status and headers are there (1xx are skipped, but 101: it is an answer without a body). 0; -ECONNRESET (the peer closed without a word), -EBADMSG (not
 * HTTP), -EOVERFLOW (headers too large), … Strings of the exchange live until it is closed. */
int http_exchange_response(struct http_exchange *x);
/* >0, 0 at the end (trailers are there then), -ECONNRESET cut off, -EBADMSG. Parks. */
ssize_t http_exchange_read(struct http_exchange *x, void *p, size_t n);
/* The rest of the body into the arena, at most max bytes (-EMSGSIZE). */
int http_exchange_body(struct http_exchange *x, struct arena *a, size_t max, struct str *ret);
/* Breaks the exchange off, from another fiber if need be: whoever waits for it gets an error. Closing must follow. Exchanges with ops are
 * used by one fiber only: their request ends before the response is asked for. */
void http_exchange_abort(struct http_exchange *x);
void http_exchange_close(struct http_exchange *x); /* returns the connection to the pool, or drops it when not read to the end */

/* URL helpers (arena strings). Decoding: %XX; plus_is_space as in query strings. p == NULL on a bad escape. */
struct str url_unescape(struct arena *a, struct str s, bool plus_is_space);
/* Everything but unreserved characters (RFC 3986) as %XX: fits into a path segment and into a query. */
struct str url_escape(struct arena *a, struct str s);
/* As a path: slashes and what a path may have besides stay. */
struct str url_escape_path(struct arena *a, struct str s);
/* Cleans dot segments and double slashes as Go's path.Clean. */
struct str path_clean(struct arena *a, struct str path);
/* Next key=value of a query; false at the end. Pairs with a bad escape are skipped. */
bool query_next(struct arena *a, struct str *rest, struct str *key, struct str *value);

#endif
