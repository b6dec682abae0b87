/* The gRPC door: dapr.proto.runtime.v1.Dapr on the API server, and what surrounds each call. */
#ifndef KERNEL_FRONT_GRPC_H
#define KERNEL_FRONT_GRPC_H

#include "kernel/front/call.h"

struct grpc_entry;
struct grpc_door {
        struct kernel *k;
        const char *scope;          /* of log lines */
        const char *info_scope;     /* of API log lines; NULL = none are written */
        struct str token;
        bool filtered;              /* API lists apply */
        bool is_internal;           /* callers are sidecars */
        struct grpc_entry *entries; /* one a method */
        struct rpc_method *methods;
        size_t n;
        int (*unknown)(struct kernel *k, struct rpc_call *rpc); /* the block's that proxies */
};

/* Table of all methods: those of blocks, then the unconfigured ones; a method in neither answers "not implemented". 0 or -ENOMEM. */
int grpc_door_init(struct grpc_door *d, const struct block *const *blocks, size_t n);
void grpc_door_fini(struct grpc_door *d);
/* For rpc_server_conf: arg is the door. */
int grpc_door_intercept(struct rpc_call *rpc, rpc_handler next, void *next_arg, void *arg);
int grpc_door_unknown(struct rpc_call *rpc, void *arg);

#endif
