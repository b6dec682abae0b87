/*
 * Service invocation, inside. Callers: invoke.c (HTTP), invoke_grpc.c (InvokeService), invoke_proxy.c (gRPC methods that daprd does not
 * know). Callees: the own app, an app behind another sidecar, an HTTP server outside.
 *
 *     invoke_find()    who an id means, and whether it can be called
 *     invoke_whole()   one call with bodies held whole, as often as a policy likes (invoke_whole.c)
 *     invoke_relay()   an HTTP request streamed to whom it is for, and the answer back (invoke_relay.c over invoke_leg.h)
 */
#ifndef KERNEL_INVOKE_H
#define KERNEL_INVOKE_H

#include "dapr/proto/common/v1/common.pb-c.h"
#include "kernel/front/call.h"
#include "kernel/mesh/convert.h"
#include "kernel/mesh/mesh.h"
#include "kernel/policy/resiliency.h"

#define INVOKE_UNHEALTHY "rpc error: code = Internal desc = app is not in a healthy state"

enum {
        INVOKE_HELD_BYTES = 1024 * 1024, /* bodies up to this are held, so that a call can be tried again; larger ones go out once */
};

struct endpoint;
enum invoke_kind { INVOKE_OWN, INVOKE_REMOTE, INVOKE_ENDPOINT };
struct invoke_dest {
        enum invoke_kind kind;
        struct str name;           /* as the caller wrote it: policies go by it */
        struct str id, ns;         /* app id and namespace */
        const char *address;       /* of the sidecar, once it was found */
};
/* Who is meant, and can it be asked? False with a sentence in *ret_err. */
bool invoke_find(struct kernel *k, struct arena *a, struct str name, struct invoke_dest *ret, const char **ret_err);
/* The sidecar's address, another one than before when that has failed. 0, or the gRPC code and a sentence in *ret_err. Parks. */
int invoke_locate(struct kernel *k, struct arena *a, struct invoke_dest *d, bool failed, const char **ret_err);
/* The policy of a call; must be run or released. */
void invoke_policy(struct call *c, const struct invoke_dest *d, struct str method, struct policy *ret);
/* The retries that are there without a policy for the app: of what could not reach its sidecar. */
bool invoke_has_own_retries(const struct call *c, const struct invoke_dest *d);
/* May a call that ended so be sent again by them? */
bool invoke_is_transient(int code);
/* "rpc error: code = X desc = Y" */
const char *invoke_status_text(struct arena *a, const struct rpc_status *st);

/* What a caller wants. Its metadata or its headers go along, by the rules of the app's protocol. */
struct invoke_request {
        const Dapr__Proto__Common__V1__InvokeRequest *message;
        struct str method;                  /* cleaned: stands for the message's */
        const struct rpc_mdlist *md;        /* of a gRPC caller, or NULL */
        const struct http_headers *headers; /* of an HTTP caller, or NULL */
        struct invoke_dest *dest;
};
struct invoke_answer {
        bool is_http;                     /* from an HTTP app */
        int code;                         /* HTTP status, or gRPC code */
        struct str message, details;      /* gRPC: what comes with a code that is not OK */
        struct rpc_mdlist md, trailers;   /* of an HTTP app: its headers as metadata */
        struct str content_type, type_url, body;
        size_t too_large;                 /* > 0: length of a body over --max-body-size, which is not there */
};
/* 0 and *out, whatever the app said; or the gRPC code > 0 and a sentence in *ret_err. Parks. */
int invoke_whole(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err);

/* Answers an HTTP caller with a gRPC status: its HTTP status, and the status as JSON. details: serialized google.rpc.Status or empty. */
void invoke_reply_status(struct call *c, int code, struct str message, struct str details, const struct http_headers *h);
/* Fails an HTTP call with ERR_DIRECT_INVOKE; code: gRPC, PERMISSION_DENIED is told from others. */
void invoke_reply_failure(struct call *c, struct str name, int code, const char *why);

/* An HTTP request to dest, which is no gRPC app of the own; releases the policy. method: cleaned. Parks. */
void invoke_relay(struct call *c, struct invoke_dest *dest, struct str method, struct policy *policy);

/* InvokeService: the gRPC door's row. */
int invoke_service(struct call *c);
/* The gRPC door's methods that it does not know. */
int invoke_proxy(struct kernel *k, struct rpc_call *rpc);

#endif
