/*
 * One API call, whichever door it came through. A building block's operation is
 *     int state_get(struct call *c, const GetStateRequest *in, GetStateResponse *out)
 * on its protobuf messages: 0 = *out is the answer; anything else = call_fail() was called (return what it returns).
 * The gRPC door packs *out; the HTTP door's row turns it into status, headers and body.
 */
#ifndef KERNEL_CALL_H
#define KERNEL_CALL_H

#include "kernel/kernel.h"
#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

/* Rows of the error catalogue; what the columns mean stands in kernel/front/errors.def. */
enum error_id {
#define ERROR_ROW(id, tag, reason, category, http, grpc, text) id,
#include "kernel/front/errors.def"
#undef ERROR_ROW
        ERROR_ROWS
};
struct error_row {
        const char *tag, *reason, *category;
        int http_status, grpc_code;
        const char *text;
};
extern const struct error_row error_rows[ERROR_ROWS];

enum door { DOOR_HTTP, DOOR_GRPC };

/* Optional details of a rich error (google.rpc.*), each written when set. */
struct error_details {
        struct { const char *key; const char *value; } info[8]; /* ErrorInfo.metadata */
        size_t n_info;
        bool info_object; /* without entries the metadata is {} in JSON instead of null */
        const char *resource_type, *resource_name, *resource_owner, *resource_description;
        const char *field, *field_description; /* BadRequest.field_violations */
        const char *help_url, *help_description;
        const char *tag, *reason, *domain; /* of a component's own error: stand in for the row's */
        struct str status;     /* gRPC: a component's google.rpc.Status, passed on instead of one made here */
};

struct trace;
struct call {
        struct kernel *k;
        struct arena *arena;
        enum door door;
        struct http_req *http;   /* door HTTP, else NULL */
        struct rpc_call *rpc;    /* door gRPC, else NULL */
        const char *operation;   /* HTTP: route name; gRPC: full method */
        /* outcome */
        bool failed;
        enum error_id error;
        int http_status, grpc_code;  /* as in the row unless overridden by call_fail_code */
        struct str message;
        struct error_details *details;
        /* response metadata: HTTP headers "metadata.<key>", gRPC as the message has it */
        struct rpc_mdlist md_resp;
        /* HTTP: headers that every reply of this call carries (call_header), and what the router found */
        struct http_headers headers;
        const struct http_route *route;
        struct route_match *match;
        const struct grpc_route *method; /* gRPC: the row */
        struct trace *trace; /* kernel/observe/trace.h; never NULL at a door */
};

/* Fills the outcome from the row; the arguments go into the row's text. Returns -1. */
int call_fail(struct call *c, enum error_id id, ...);
/* The same with other codes than the row's (0 = the row's). */
int call_fail_code(struct call *c, enum error_id id, int http_status, int grpc_code, ...);
struct error_details *call_details(struct call *c); /* to be filled after call_fail */
/* A plugin's answer as the reference words it: "rpc error: code = X desc = Y" (foreign) or the bare text (ours). In c->arena. */
const char *call_component_error(struct call *c, const struct component *comp, const struct rpc_status *st);

/* ---- HTTP door: rows of kernel/front/routes.c ---- */
struct http_route {
        const char *methods;   /* "GET" or "POST,PUT"; "*" = all */
        const char *path;      /* "/v1.0/state/{storeName}/{key}"; "{topic...}" takes the rest */
        const char *group;     /* API allow/deny: "state" */
        const char *group_version; /* "v1" */
        const char *name;      /* for API logging with obfuscated URLs and for metrics, e.g. "GetState" */
        void (*fn)(struct call *c);
        bool always_allowed, health_check; /* not subject to the allow list; may be left out of the API log */
        bool public_;          /* served on the public port as well */
        bool fallback;         /* also takes every request that no route takes */
};
/* Path parameter, unescaped by query rules; in c->arena. Empty when absent. */
struct str route_param(struct call *c, const char *name);
struct str call_query(struct call *c, const char *key);   /* first value; p == NULL if absent */
/* Query parameters metadata.<k>=<v> (first value wins) as pairs for a repeated XEntry map; header form is up to the block. */
int call_query_metadata(struct call *c, struct rpc_mdlist *ret);
/* Whole body; on failure answers ERR_BODY_READ and returns -1. */
int call_body(struct call *c, struct str *ret);
/* Adds a response header; strings are borrowed. */
void call_header(struct call *c, struct str name, struct str value);
/* Adds the call's headers (CORS, trace, what call_header added) to those of a response that is not written by the functions below;
 * names that are there already are left as they are. */
void call_headers_into(struct call *c, struct http_headers *to);
/* Replies. Each writes the response once. */
void reply_empty(struct call *c);                            /* 204 */
void reply_json(struct call *c, int status, struct str body); /* application/json */
void reply_bytes(struct call *c, int status, const char *content_type, struct str body, const struct http_header *h, size_t n);
void reply_message(struct call *c, const ProtobufCMessage *m, int pbjson_flags); /* proto-JSON, 200 */
void reply_error(struct call *c);                            /* from the outcome, in the right shape */
/* Streamed reply with the call's headers; then http_resp_write and http_resp_end on c->http. */
int reply_begin(struct call *c, int status, const char *content_type, int64_t length);
/* Body as proto-JSON into a new message of d (unknown members ignored, empty body = empty message). On failure answers
 * ERR_BODY_READ or ERR_MALFORMED_REQUEST and returns NULL. */
void *call_body_message(struct call *c, const ProtobufCMessageDescriptor *d);

/* ---- gRPC door ---- */
/* One method of dapr.proto.runtime.v1.Dapr: handler on messages. resp is preset by its init function. */
typedef int (*method_fn)(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out);
struct grpc_route {
        const char *method;    /* "GetState" */
        const char *group;     /* "state.v1" */
        const ProtobufCMessageDescriptor *in, *out;
        method_fn fn;          /* unary */
        int (*stream)(struct call *c); /* or streams: uses c->rpc */
};

/* Each block gives its rows. */
struct block {
        const char *name;
        const struct http_route *http;
        size_t n_http;
        const struct grpc_route *grpc;
        size_t n_grpc;
        /* A component came up and is not yet published: the block may refuse it with a text, -1 = the reference's
         * INIT_COMPONENT_FAILURE, -ENOENT = its CREATE_COMPONENT_FAILURE. May be NULL. */
        int (*component)(struct kernel *k, struct component *c, struct arena *a, const char **ret_err);
        int (*init)(struct kernel *k);   /* after components were loaded; may be NULL */
        /* Hot reload and swaps. Each may be NULL; all park and run on a fiber of their own.
         * arrived: c has been published after init, or serves again: what it hands out begins to be taken.
         * moving:  another instance, whose handle `to` lasts as long as the call, takes over c's calls in a moment (or has, when it is c
         *          itself): streams are opened there, the old ones go on. component() came before when its spec is another one.
         * moved:   it has taken over: old streams end, nothing that was handed out is lost.
         * leaving: c is out of sight, or out of service: its streams end, what the app has in its hands is finished. */
        void (*arrived)(struct kernel *k, struct component *c);
        void (*moving)(struct kernel *k, struct component *c, struct component *to);
        void (*moved)(struct kernel *k, struct component *c);
        void (*leaving)(struct kernel *k, struct component *c);
        /* gRPC methods that no row has; one block at most. As an rpc_handler. May be NULL. */
        int (*unknown)(struct kernel *k, struct rpc_call *rpc);
        /* The stop has begun: takes no more events from outside, for ever, and parks until those in the app's hands have been
         * answered. The APIs still serve. May be NULL. */
        void (*quiesce)(struct kernel *k);
        /* Streams to clients end, on which nothing is on its way any more. When another program takes over, the APIs have settled by
         * then, so that clients that connect anew find that one; else it follows quiesce() at once. May be NULL. */
        void (*hang_up)(struct kernel *k);
        /* Another program takes over, calls have ended: notes for its init(), which finds them in k->ledger. May be NULL. */
        void (*note)(struct kernel *k, struct ledger *l);
        void (*fini)(struct kernel *k); /* also when init failed or was never called. May be NULL. */
};
extern const struct block configuration_block_def, lock_block_def, conversation_block_def, crypto_block_def, subtle_crypto_block_def, invoke_block_def;
extern const struct block bindings_block_def, state_block_def, secrets_block_def, pubsub_block_def, metadata_block_def, health_block_def, shutdown_block_def;

#endif
