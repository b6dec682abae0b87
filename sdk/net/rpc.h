/*
 * gRPC: client and server, one seam for whatever carries it (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
 * One type, struct rpc_call, is a call on either side; rpc_send/rpc_recv park, so a stream is `while (rpc_recv() > 0) rpc_send()`.
 * Messages are bytes; protobuf helpers pack into and unpack from the call's arena.
 * Deadlines: a client call takes the fiber's deadline (grpc-timeout); a server handler's fiber has the caller's.
 * Cancellation: when the caller goes away the handler's fiber is cancelled; a cancelled fiber cancels its client calls.
 */
#ifndef SDK_NET_RPC_H
#define SDK_NET_RPC_H

#include <sys/types.h>

#include "sdk/base/arena.h"
#include "sdk/base/fiber.h"
#include "sdk/base/pb.h"
#include "sdk/base/str.h"

enum rpc_code {
        RPC_OK, RPC_CANCELLED, RPC_UNKNOWN, RPC_INVALID_ARGUMENT, RPC_DEADLINE_EXCEEDED, RPC_NOT_FOUND, RPC_ALREADY_EXISTS,
        RPC_PERMISSION_DENIED, RPC_RESOURCE_EXHAUSTED, RPC_FAILED_PRECONDITION, RPC_ABORTED, RPC_OUT_OF_RANGE,
        RPC_UNIMPLEMENTED, RPC_INTERNAL, RPC_UNAVAILABLE, RPC_DATA_LOSS, RPC_UNAUTHENTICATED
};
const char *rpc_code_name(int code); /* Go's spelling: "OK", "Canceled", "InvalidArgument", … */

struct rpc_status {
        int code;
        struct str message; /* decoded UTF-8, in the call's (or caller's) arena */
        struct str details; /* serialized google.rpc.Status from grpc-status-details-bin, or empty */
        bool transport;     /* made by this side because the connection failed or broke, not sent by the peer */
        bool unprocessed;   /* the peer certainly did not see the call (refused stream, GOAWAY, no connection): safe to send again */
};

struct rpc_md {
        struct str key;   /* lower case; names that end in "-bin" carry raw bytes (coding is done here) */
        struct str value;
};
struct rpc_mdlist {
        struct rpc_md *v;
        size_t n, cap;
};
int rpc_md_add(struct rpc_mdlist *l, struct arena *a, struct str key, struct str value); /* borrows; -ENOMEM */
struct str rpc_md_get(const struct rpc_mdlist *l, const char *key); /* first; p == NULL if absent */

enum rpc_flags { RPC_WAIT_READY = 1, RPC_GZIP = 2, RPC_REUSE = 4, RPC_KEEP = 8 };

struct rpc_call {
        struct arena *arena;
        int flags;                     /* RPC_REUSE: set it in handlers of streams that may be long, before the first rpc_recv.
                                        * RPC_GZIP: messages go out compressed (a server call has it when the request's
                                        * were); it may be taken away and given again between messages, once headers said gzip. */
        struct str method;             /* "/package.Service/Method" */
        struct str authority;
        struct rpc_mdlist md_in;       /* server: request metadata, with user-agent and content-type. client: response headers (after the first recv or rpc_headers) */
        struct rpc_mdlist md_trailers; /* client: trailers, after the end */
        struct rpc_mdlist md_out;      /* server: response headers, until the first send. */
        struct rpc_mdlist md_trailers_out; /* server: trailing metadata */
        struct rpc_status status;      /* client: the outcome. server: what the handler answers (set by rpc_fail, or left OK) */
        uint64_t bytes_in, bytes_out;
        bool msg_compressed;           /* the last message received came compressed */
        const char *peer;
        void *user;                    /* server: free for interceptors */
        void *impl;
};

/* ---- both sides ---- */
/* Sends one message; parks while the peer is slow. 0, -EPIPE (call has ended), -ECANCELED, -ETIMEDOUT. */
int rpc_send(struct rpc_call *c, struct str msg);
/* Next message. It lives until rpc_finish; with RPC_KEEP as long as the arena, with RPC_REUSE until the next rpc_recv. 1 = message, 0 = end
 * of the peer's messages, <0 error (c->status tells; on the server it is what the caller gets when the handler returns). */
int rpc_recv(struct rpc_call *c, struct str *ret);
/* Has the peer said its last, with nothing left to receive? Then rpc_recv would not park. */
bool rpc_recv_done(const struct rpc_call *c);
/* Has the peer said its last, whatever of it is still to be received? Then rpc_recv does not park. */
bool rpc_peer_ended(const struct rpc_call *c);
/* The arena in which the message of the last rpc_recv_pb lives: the call's, or with RPC_REUSE the one that is emptied. */
struct arena *rpc_msg_arena(struct rpc_call *c);
int rpc_send_pb(struct rpc_call *c, const ProtobufCMessage *m);
void rpc_call_fini(void); /* frees what is kept between calls; for leak checkers at the end of a process */
/* 1 and *ret, 0 at the end, -EBADMSG when it does not unpack, or as rpc_recv. */
int rpc_recv_pb(struct rpc_call *c, const ProtobufCMessageDescriptor *d, void *ret);

/* ---- client ---- */
struct rpc_channel;
struct rpc_channel_conf {
        struct str target;         /* conn_dial form */
        struct str authority;      /* default: from target; "localhost" for Unix sockets */
        struct tls_context *tls;   /* NULL = plain */
        struct str server_name;    /* SNI, and the name in the server's certificate; default: host of the target */
        int64_t max_recv_bytes;    /* default 4 MiB; -1 unlimited */
        double connect_timeout_s;  /* default 5 */
        double ping_interval_s, ping_timeout_s;
        bool ping_without_streams; /* keepalive also while no call runs */
        bool no_reconnect;         /* fail at once while not connected; only rpc_channel_connect connects */
        uint32_t max_header_bytes; /* of responses; default 64 KiB */
        const char *user_agent;    /* default "microdapr/<version>" */
};
/* Connects on first use and again after a loss. 0 and *ret; strings copied. */
int rpc_channel_new(struct rpc_channel **ret, const struct rpc_channel_conf *conf);
int rpc_channel_connect(struct rpc_channel *ch); /* parks until connected: 0 or -errno */
bool rpc_channel_is_connected(const struct rpc_channel *ch);
/* Called when an established connection is lost or takes no more calls, by the loop or by the fiber that wanted to call; may close the
 * channel. */
void rpc_channel_on_lost(struct rpc_channel *ch, void (*fn)(void *arg), void *arg);
void rpc_channel_retry_now(struct rpc_channel *ch); /* the target is known to be there: the next call dials at once */
void rpc_channel_reset(struct rpc_channel *ch);  /* drops the connection: running calls fail with UNAVAILABLE */
void rpc_channel_close(struct rpc_channel *ch);  /* same, then frees when the last call has ended */

struct rpc_opts {
        const struct rpc_md *md;   /* reserved names ("content-type", "grpc-…", ":…") are left out */
        size_t n_md;
        int flags;
        double timeout_s; /* 0 = the fiber's deadline only */
};
/* One request, one reply. Returns 0 with the reply's bytes in a, or the gRPC code (>0) with st filled. Parks. st->message is in a. */
int rpc_unary(struct rpc_channel *ch, struct arena *a, const char *method, struct str req, struct str *resp,
              const struct rpc_opts *o, struct rpc_status *st);
/* Same with messages: *resp is a message of resp_d in the arena. md_headers/md_trailers may be NULL. */
int rpc_unary_pb(struct rpc_channel *ch, struct arena *a, const char *method, const ProtobufCMessage *req,
                 const ProtobufCMessageDescriptor *resp_d, void *resp, const struct rpc_opts *o, struct rpc_status *st);
/* Any kind of call. 0 and *ret (in the arena), or gRPC code > 0 with st. Must be finished with rpc_finish. */
int rpc_open(struct rpc_channel *ch, struct arena *a, const char *method, const struct rpc_opts *o, struct rpc_call **ret,
             struct rpc_status *st);
int rpc_send_end(struct rpc_call *c);  /* half-close */
int rpc_headers(struct rpc_call *c);   /* parks until response headers: 0 or <0 */
bool rpc_is_broken(const struct rpc_call *c); /* a client's call whose stream is closed: what came before can still be received */
/* Half-closes, reads to the end when not there yet (parks), fills c->status, releases the call. Returns c->status.code. Status
 * and metadata stay readable in the arena. */
int rpc_finish(struct rpc_call *c);
/* Gives the call up: RST_STREAM CANCEL, status CANCELLED unless it has ended. rpc_finish must still follow. */
void rpc_cancel(struct rpc_call *c);

/* ---- server ---- */
struct conn;
struct rpc_server;
/* Runs on the call's fiber. Returns 0 (then c->status is what the caller gets, OK unless rpc_fail was called) or -errno,
 * which becomes CANCELLED, DEADLINE_EXCEEDED or INTERNAL. */
typedef int (*rpc_handler)(struct rpc_call *c, void *arg);
struct rpc_method {
        const char *path; /* "/package.Service/Method" */
        rpc_handler fn;
        void *arg;
};
struct rpc_server_conf {
        const char *name;
        int64_t max_recv_bytes;     /* default 4 MiB; -1 unlimited */
        int64_t max_send_bytes;     /* -1 = unlimited (default) */
        uint32_t max_header_bytes;  /* default 16 KiB */
        uint32_t max_streams;       /* default 1000 */
        double ping_interval_s, ping_timeout_s, min_ping_interval_s, idle_timeout_s;
        struct tls_context *tls;
        /* Is whoever connects to a Unix socket welcome? By its process id; false closes the connection. NULL = everybody is. */
        bool (*welcome)(pid_t peer);
        /* For methods not in the table (proxying); NULL = UNIMPLEMENTED "unknown method X for service Y" as grpc-go words it. */
        rpc_handler unknown;
        void *unknown_arg;
        /* Around every handler: calls next() or answers itself. NULL = none. */
        int (*intercept)(struct rpc_call *c, rpc_handler next, void *next_arg, void *arg);
        void *intercept_arg;
        /* rpc_reflection to serve grpc.reflection v1 and v1alpha for the registered services, or NULL. A pointer, so that only
         * programs that name it link all descriptors. */
        int (*reflection)(struct rpc_server *s);
};
int rpc_server_new(struct rpc_server **ret, const struct rpc_server_conf *conf);
int rpc_server_add(struct rpc_server *s, const struct rpc_method *rows, size_t n); /* rows are kept */
int rpc_server_listen(struct rpc_server *s, struct str addr);
void rpc_server_set_tls(struct rpc_server *s, struct tls_context *tls); /* for connections to come; takes a reference */
int rpc_server_adopt(struct rpc_server *s, int listen_fd);
void rpc_server_serve_conn(struct rpc_server *s, struct conn *c); /* takes an accepted connection */
/* A server whose place another one takes goes on in three steps:
 *   rpc_server_turn: calls from now on are counted apart. rpc_server_before, and what this gives: those that ran already, without
 *   streams that last. It serves as ever meanwhile.
 *   rpc_server_settle: listening sockets are given away and queue, clients are told to connect anew, calls that began after the turn
 *   finish, up to grace_s. Parks.
 *   rpc_server_stop: streams that last end, which somebody has asked them to; what runs still is cancelled, for its caller UNAVAILABLE. */
size_t rpc_server_turn(struct rpc_server *sv);
size_t rpc_server_before(const struct rpc_server *sv);
void rpc_server_settle(struct rpc_server *sv, double grace_s, void (*give)(void *arg, const char *name, int fd, bool listening), void *arg);
/* Closes connections of Unix sockets whose process is not welcome any more. */
void rpc_server_dismiss(struct rpc_server *s);
int rpc_server_port(const struct rpc_server *s);
/* No new connections; GOAWAY; calls finish up to grace_s, then they are cancelled. Parks until all handlers have returned. */
void rpc_server_stop(struct rpc_server *s, double grace_s);
void rpc_server_free(struct rpc_server *s); /* after rpc_server_stop, or while no handler runs */
size_t rpc_server_calls(const struct rpc_server *s); /* handlers that run now */

int rpc_reflection(struct rpc_server *s);

/* This call is a stream that goes on until it is asked to end: nobody waits for it (rpc_server_turn). */
void rpc_call_lasts(struct rpc_call *c);
/* Nobody waits for its answer: the caller has ended it, or its deadline is past. */
bool rpc_caller_gone(const struct rpc_call *c);
/* Sets the call's answer. fmt is UTF-8 text. Returns 0, so a handler can `return rpc_fail(...)`. */
int rpc_fail(struct rpc_call *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int rpc_fail_details(struct rpc_call *c, int code, struct str message, struct str details);
/* The caller's TLS certificate (DER), verified by the server's tls_context; empty when there is none. */
struct str rpc_peer_leaf(const struct rpc_call *c);
/* Sends response headers now (md_out) instead of with the first message. */
int rpc_send_headers(struct rpc_call *c);

#endif
