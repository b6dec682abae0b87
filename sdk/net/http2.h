/*
 * HTTP/2 sessions on nghttp2, server and client side, above a conn. Only http2.c knows nghttp2 (sessions);
 * http2_conn.c and http2_stream.c build on it.
 * nghttp2 callbacks only move bytes and queue wakes: no fiber runs inside them; one mem_send + write per loop turn.
 * Flow control is end to end: the peer gets new credit when the reader has consumed (h2_read, h2_consume), not when bytes arrive.
 * Used by rpc.c (gRPC) and http_server.c / http_client.c (plain HTTP/2).
 */
#ifndef SDK_NET_HTTP2_H
#define SDK_NET_HTTP2_H

#include "sdk/net/http.h"

/* Limits that keep a hostile or broken peer cheap. Over one of them the connection ends with GOAWAY ENHANCE_YOUR_CALM. */
enum {
        H2_STREAM_HIGH_WATER = 64 * 1024, /* unsent body bytes of a stream at which h2_write() parks */
        H2_STREAM_LOW_WATER = 32 * 1024,  /* ... and below which it goes on */
        H2_RESET_BURST = 10000,           /* RST_STREAM frames from the peer at once, and a second after that */
        H2_RESET_PER_S = 1000,
        H2_CONTROL_BURST = 10000,         /* SETTINGS, PING, PRIORITY, empty DATA, unknown frames */
        H2_CONTROL_PER_S = 5000,
        H2_MAX_CONTINUATIONS = 32,        /* CONTINUATION frames in one header block */
        H2_MAX_ACKS = 1000,               /* answers to SETTINGS and PING that wait for a peer which does not read */
        H2_PING_STRIKES = 2,              /* pings too early that are forgiven (min_ping_interval_s) */
        H2_PREFACE_TIMEOUT_S = 20,        /* for the peer's first SETTINGS */
        H2_MAX_SEND_HEADERS = 1024 * 1024,/* of one header block that we send */
        H2_CLOSED_REMEMBERED = 64,        /* streams whose end by the peer is remembered: HEADERS and DATA on them = STREAM_CLOSED */
        H2_LINGER_MS = 250,               /* an answer was sent before the request's end: so long the rest may come, then RST_STREAM */
};
enum { H2_NO_ERROR, H2_PROTOCOL_ERROR, H2_INTERNAL_ERROR, H2_STREAM_CLOSED = 5, H2_REFUSED_STREAM = 7, H2_CANCEL = 8, H2_ENHANCE_YOUR_CALM = 11 };

struct h2_conn;
struct h2_stream;

struct h2_conf {
        bool server;
        uint32_t max_streams;          /* SETTINGS_MAX_CONCURRENT_STREAMS we announce; default 250 */
        uint32_t stream_window;        /* default 1 MiB */
        uint32_t conn_window;          /* default 16 MiB */
        uint32_t max_header_list;      /* default 16 KiB; over it a request is answered 431, a response fails with -EMSGSIZE */
        double ping_interval_s;        /* keepalive: a ping after so long without a byte from the peer; 0 = none */
        double ping_timeout_s;         /* no byte for so long after it: -ETIMEDOUT; default 20 */
        bool ping_without_streams;     /* clients: also while no stream is open (servers always do) */
        double min_ping_interval_s;    /* enforcement against the peer: more often = GOAWAY too_many_pings; 0 = none */
        double idle_timeout_s;         /* close without streams; 0 = never */
        /* Server: request headers are complete, and whatever came with them. Loop's stack: attach state, start a fiber. */
        void (*on_stream)(struct h2_conn *c, struct h2_stream *s);
        /* Stream changed: bytes arrived, ended, reset, window opened. Loop's stack. May be NULL when only h2_read/h2_write are used. */
        void (*on_event)(struct h2_stream *s);
        /* Client: the peer's limit of streams was reached and no longer is, or the connection became unusable. May be NULL. */
        void (*on_room)(struct h2_conn *c);
        /* The connection is gone (also by h2_conn_close), all streams were failed before. Once; c is freed after it. err 0 = in
         * good order. Nothing of HTTP/2 runs inside it, but when h2_conn_close is called on a fiber so is this. */
        void (*on_close)(struct h2_conn *c, int err);
        void *owner;
};

/* Takes the conn (with whatever stands in c->in). NULL = no memory (conn closed). */
struct h2_conn *h2_conn_new(struct conn *c, const struct h2_conf *conf);
/* Server side of an HTTP/1.1 Upgrade: h2c: settings = decoded HTTP2-Settings; the request becomes stream 1. */
struct h2_conn *h2_conn_new_upgrade(struct conn *c, const struct h2_conf *conf, struct str settings, struct str method,
                                    struct str target, const struct http_headers *h);
void *h2_conn_owner(struct h2_conn *c);
struct conn *h2_conn_io(struct h2_conn *c);
size_t h2_conn_streams(const struct h2_conn *c);
bool h2_conn_is_usable(const struct h2_conn *c);   /* client: new streams may be opened (no GOAWAY, not closed, ids left) */
bool h2_conn_has_room(const struct h2_conn *c);    /* peer's MAX_CONCURRENT_STREAMS not reached */
void h2_conn_goaway(struct h2_conn *c);            /* graceful: streams finish, then it closes */
void h2_conn_close(struct h2_conn *c, int err);    /* at once */

/* GOAWAY with a code and a text for the peer; then as h2_conn_goaway. */
void h2_conn_goaway_code(struct h2_conn *c, uint32_t code, const char *text);
void h2_pool_fini(void); /* frees pooled streams; for leak checkers at the end of a process */

/* Client: opens a stream. Headers incl. pseudo headers are built from the arguments. NULL + *ret_err on failure. */
struct h2_stream *h2_open(struct h2_conn *c, struct str method, struct str scheme, struct str authority, struct str path,
                          const struct http_header *h, size_t n, bool end_stream, int *ret_err);
/* Same without copies: all strings live until h2_release() (in s->arena, static, or the caller's), names are lower case.
 * The pseudo headers are h[0..3]. */
struct h2_stream *h2_open_nocopy(struct h2_conn *c, const struct http_header *h, size_t n, bool end_stream, int *ret_err);

struct h2_stream {
        struct h2_conn *conn;
        int32_t id;
        struct arena arena;            /* received headers live here; freed with the stream */
        struct str method, scheme, authority, path; /* server side */
        int status;                    /* client side, :status */
        struct http_headers headers, trailers;
        bool have_headers;             /* client: response headers are complete */
        bool remote_ended;             /* peer sent END_STREAM */
        bool local_ended;
        bool closed;                   /* reset or connection lost: error tells */
        int error;                     /* 0, -ECONNRESET, -ECANCELED (RST CANCEL), -ENETRESET (the peer did not process it: GOAWAY,
                                        * REFUSED_STREAM, never sent), -EPROTO, -EMSGSIZE (received header list), -E2BIG (own header list), -EPIPE (the peer has
                                        * answered and wants no more body), or what ended the connection */
        uint32_t rst_code;             /* when reset by the peer */
        struct buf in;                 /* body bytes not yet read; stays readable after an error */
        char *sink;                    /* where the reader wants the next sink_n body bytes, while `in` is empty: no copy by way of */
        size_t sink_n;                 /* `in`, credit goes back at once, no event until it is full. Both move on. */
        struct cond changed;           /* for fibers: anything above changed */
        void *user;
};
void *h2_stream_owner(struct h2_stream *s);
/* Server: response headers. status 100..999. */
int h2_respond(struct h2_stream *s, int status, const struct http_header *h, size_t n, bool end_stream);
/* Same without copies: strings are static or in s->arena, names are lower case. h[0] is ":status". */
int h2_respond_nocopy(struct h2_stream *s, const struct http_header *h, size_t n, bool end_stream);
/* Body out. Queues without parking; 0 or the stream's error. h2_unsent() tells how much has not left yet. */
int h2_send(struct h2_stream *s, const void *p, size_t n, bool end_stream);
size_t h2_unsent(const struct h2_stream *s);
/* Trailers end the stream (after queued body). */
int h2_send_trailers(struct h2_stream *s, const struct http_header *h, size_t n);
int h2_send_trailers_nocopy(struct h2_stream *s, const struct http_header *h, size_t n); /* as h2_respond_nocopy */
/* Parks until unsent falls below the high-water mark, then queues. */
int h2_write(struct h2_stream *s, const void *p, size_t n);
/* Parks until bytes, end or error. >0 bytes copied, 0 end, <0 error. Gives the credit back. */
ssize_t h2_read(struct h2_stream *s, void *p, size_t n);
/* After taking n bytes from s->in directly: drops them and gives the credit back. */
void h2_consume(struct h2_stream *s, size_t n);
/* Parks until have_headers (client). 0 or error. */
int h2_wait_headers(struct h2_stream *s);
void h2_reset(struct h2_stream *s, uint32_t code); /* RST_STREAM */
/* The owner is done with the stream: reset when its own side is still open; when it has ended, what is queued still goes out
 * (and the peer, if still sending, is told to stop by RST_STREAM NO_ERROR). s is gone for the owner either way. */
void h2_release(struct h2_stream *s);

#endif
