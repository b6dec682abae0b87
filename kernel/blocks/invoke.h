/*
 * Service invocation, inside. Callers: invoke.c (HTTP), invoke_grpc.c (InvokeService), invoke_proxy.c (gRPC methods that daprd does not
 * know). Callees: invoke_own.c. Whoever is called, the callers come here:
 *
 *     invoke_find()    who an id means, and whether it can be called
 *     invoke_whole()   one call with bodies held whole, as often as a policy likes
 *
 * Calls from HTTP to an own HTTP app do not go through invoke_whole(): they are streamed.
 */
#ifndef KERNEL_INVOKE_H
#define KERNEL_INVOKE_H

#include "dapr/proto/common/v1/common.pb-c.h"
#include "kernel/front/call.h"
#include "kernel/policy/resiliency.h"

#define INVOKE_UNHEALTHY "rpc error: code = Internal desc = app is not in a healthy state"

/* The method cleaned of dot segments; p == NULL and a sentence in *ret_err when it has characters that no method may have. */
struct str invoke_method(struct arena *a, struct str method, const char **ret_err);
/* The path and query by which an HTTP app is asked for it; p == NULL when memory is out. */
struct str invoke_path(struct arena *a, struct str method, struct str query);
/* Is the own app meant? False with a sentence in *ret_err: nobody of that name is known, or the app cannot be asked now. */
bool invoke_find(const struct call *c, struct str id, const char **ret_err);

/* What a caller wants. Its metadata or its headers go along, by the rules of the app's protocol. */
struct invoke_request {
        const Dapr__Proto__Common__V1__InvokeRequest *message;
        struct str method;                  /* cleaned: stands for the message's */
        const struct rpc_mdlist *md;        /* of a gRPC caller, or NULL */
        const struct http_headers *headers; /* of an HTTP caller, or NULL */
};
struct invoke_answer {
        bool is_http;                     /* from an HTTP app */
        int code;                         /* HTTP status, or gRPC code */
        struct str message, details;      /* gRPC: what comes with a code that is not OK */
        struct http_headers headers;      /* HTTP */
        struct rpc_mdlist md, trailers;   /* gRPC */
        struct str content_type, type_url, body;
};
/* 0 and *out, whatever the app said; or a sentence in *ret_err and -1. Parks. */
int invoke_whole(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err);

/* Headers that stay on their hop; connection: the value of the Connection header. */
bool invoke_is_hop_by_hop(struct str name, struct str connection);
/* From one protocol's words to the other's. 0 or -ENOMEM. Strings borrow or live in a. */
int invoke_headers_to_md(struct arena *a, const struct http_headers *from, bool is_response, struct rpc_mdlist *to);
int invoke_md_to_headers(struct arena *a, const struct rpc_mdlist *from, struct http_headers *to);

/* The verb's number, POST for one that is none of HTTPExtension's. */
int invoke_verb(struct str name);

/* InvokeService: the gRPC door's row. */
int invoke_service(struct call *c);
/* The gRPC door's methods that it does not know. */
int invoke_proxy(struct kernel *k, struct rpc_call *rpc);

#endif
