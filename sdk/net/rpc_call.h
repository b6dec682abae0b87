/* Inside of rpc_*.c only: a call as both sides keep it, and what they share. */
#ifndef SDK_NET_RPC_CALL_H
#define SDK_NET_RPC_CALL_H

#include "sdk/net/http2.h"
#include "sdk/net/rpc_watch.h"
#include "sdk/net/rpc_wire.h"

struct call {
        struct rpc_call c;           /* first: handed out */
        struct h2_stream *s;
        rpc_watch_fn watch;          /* NULL = nobody looks */
        void *watch_arg;
        double deadline;             /* client: of this call; INFINITY = none but the fiber's */
        int64_t max_recv, max_send;
        struct arena scratch;        /* with RPC_REUSE: the last message */
        bool server;
        bool headers_seen;           /* client: response headers were checked */
        bool keep_md;                /* client: metadata is wanted */
        bool ended;                  /* client: status is final */
        bool gzip_in;                /* the peer's compressed messages are gzip */
        bool gzip_out;               /* our headers said so */
        bool headers_sent;           /* server */
        bool send_ended;
        bool in_place;               /* the last message lies in the stream's buffer, and stays there */
        /* client */
        struct rpc_channel *ch;
        /* server */
        struct rpc_server *sv;
        const struct rpc_method *row;
        struct fiber *fiber;
        unsigned turn;               /* turns.h */
        bool cancelled;
};

static inline struct call *call_of(struct rpc_call *c)
{
        return (struct call *)c;
}

/* The name in the library: programs above have a call_fail of their own. */
#define call_fail rpc_call_fail

/* As rpc_recv. */
int call_next(struct call *k, struct str *ret);
/* Client: the call ends here with this status; the stream is reset. Returns -EBADMSG. */
int call_fail(struct call *k, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Client: a park was interrupted. Returns err. */
int call_interrupted(struct call *k, int err);
/* Client: status of a call whose stream broke. Returns -EPIPE. */
int call_broken(struct call *k);
/* Client: once response headers have come. 0, or <0 when they end the call. */
int call_take_headers(struct call *k);
/* Server: response headers, once. */
int call_send_headers(struct call *k);
/* Frames and queues one message, without parking. */
int call_put(struct call *k, struct str msg, bool last);
int call_put_pb(struct call *k, const ProtobufCMessage *m, bool last);
int call_too_large(struct call *k, size_t n); /* fails the call: -EMSGSIZE */

struct rpc_server;
/* Services for reflection: next name after *it (start with NULL), NULL at the end. */
struct str rpc_server_next_service(const struct rpc_server *s, void **it);
/* The server of a handler's call. */
struct rpc_server *rpc_call_server(struct rpc_call *c);

#endif
