/*
 * Calls between sidecars: the object of the process, and calls of apps behind other sidecars. The other end is local.h.
 *
 *     mesh_hop()          what a call carries from hop to hop
 *     mesh_call_open()    CallLocalStream: the head and what is there of the body
 *     mesh_call_write()   more of it; mesh_call_end(): that was all
 *     mesh_call_answer()  status and headers, whatever the app says
 *     mesh_call_read()    the answer's body, piece by piece
 *     mesh_call_close()
 *
 * Writing may run on a fiber of its own beside the rest. A sidecar that knows no CallLocalStream is asked by CallLocal, if the whole
 * body was given to mesh_call_open().
 */
#ifndef KERNEL_MESH_H
#define KERNEL_MESH_H

#include "kernel/mesh/message.h"
#include "kernel/mesh/peers.h"

struct acl;
struct kernel;
struct mesh_metrics;
struct mesh;

enum { MESH_HOPS_MAX = 32 }; /* Forwarded headers of a request: with so many it is in a loop */
#define MESH_HOPS_TEXT "32"

/* 0; -EINVAL or -ENOMEM with a sentence in *ret_err (in a or static): the access control of the Configuration is wrong. */
int mesh_new(struct mesh **ret, struct kernel *k, struct arena *a, const char **ret_err);
void mesh_free(struct mesh *m); /* no call may be running; NULL is fine */
struct peers *mesh_peers(struct mesh *m);
struct mesh_metrics *mesh_metrics(const struct mesh *m);

/* May the caller at the other end of this connection run the operation of the own app? verb: HTTPExtension's number, 0 = none. Counts. 0;
 * or the gRPC code and a sentence in *ret_err (in the call's arena). */
int mesh_allows(struct mesh *m, struct rpc_call *rpc, struct str operation, int verb, const char **ret_err);
/* CallLocal and CallLocalStream (local.c), for the internal server. Rows live as long as the mesh. */
const struct rpc_method *mesh_methods(struct mesh *m, size_t *ret_n);

/* What the next sidecar is told: Forwarded and its like, who calls whom. 0, -ELOOP (MESH_HOPS_MAX), -ENOMEM. */
int mesh_hop(const struct mesh *m, struct arena *a, struct str app_id, struct http_headers *md);

/* Metadata of the running fiber's trace, for a call to another sidecar. 0 or -ENOMEM. */
int mesh_trace(struct arena *a, struct rpc_mdlist *to);

struct mesh_target {
        struct str id, ns, address; /* "host:port" */
};
struct mesh_call {
        struct arena *arena;
        struct mesh_response answer;   /* after mesh_call_answer(); lives as long as the arena */
        struct rpc_status status;      /* why the call failed */
        struct peer_link *link;
        struct rpc_call *rpc;          /* NULL: answered by CallLocal */
        const struct mesh_request *request;
        struct str body, first;        /* of the request, when it was whole; the answer's first piece */
        uint64_t seq_out, seq_in;
        bool whole, has_first, ended;
};

/* body.p != NULL: the first bytes of the body, all of it if `whole`. q and body are kept until mesh_call_answer(). 0 and *ret; or the
 * gRPC code with *st. Parks. */
int mesh_call_open(struct mesh *m, struct arena *a, const struct mesh_target *t, const struct mesh_request *q, struct str body, bool whole,
                   struct mesh_call **ret, struct rpc_status *st);
/* n bytes at room + MESH_CHUNK_ROOM. 0; -EPIPE (the call has ended: its answer tells why), -ECANCELED, -ETIMEDOUT. Parks. */
int mesh_call_write(struct mesh_call *c, char *room, size_t n);
int mesh_call_end(struct mesh_call *c);
/* Gives the call up, from another fiber if need be; close must follow. */
void mesh_call_cancel(struct mesh_call *c);
/* 0, or the gRPC code with c->status. Parks. */
int mesh_call_answer(struct mesh_call *c);
/* 1 and the next piece, which lives until the next call; 0 at the end; < 0 with c->status. Parks. */
int mesh_call_read(struct mesh_call *c, struct str *ret);
/* Trailers of an HTTP answer, once mesh_call_read() has given 0. */
int mesh_call_trailers(struct mesh_call *c, struct http_headers *to);
/* retire: calls to come make a new connection. NULL is fine. */
void mesh_call_close(struct mesh_call *c, bool retire);

/* Trailers of HTTP travel as trailing metadata of this prefix; other sidecars pass them over. */
#define MESH_TRAILER_PREFIX "dapr-http-trailer-"
/* The length of an HTTP answer's body travels as response metadata of this name; other sidecars pass it over. */
#define MESH_LENGTH_KEY "dapr-http-content-length"

#endif
