/* The callee's end of calls between sidecars: handlers of the internal server; arg is the kernel. */
#ifndef KERNEL_MESH_LOCAL_H
#define KERNEL_MESH_LOCAL_H

#include "sdk/net/rpc.h"

int mesh_call_local(struct rpc_call *rpc, void *arg);
int mesh_call_local_stream(struct rpc_call *rpc, void *arg);

#endif
