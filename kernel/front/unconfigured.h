/* Answers of building blocks that this kernel does not serve yet: what the reference says while nothing is configured for them. */
#ifndef KERNEL_FRONT_UNCONFIGURED_H
#define KERNEL_FRONT_UNCONFIGURED_H

#include "kernel/front/call.h"

/* The i-th row, NULL behind the last. Rows of blocks win over these: the doors ask for them last. */
const struct http_route *unconfigured_http(size_t i);
const struct grpc_route *unconfigured_grpc(size_t i);
/* Methods of TaskHubSidecarService. */
int unconfigured_task_hub(struct rpc_call *rpc, void *arg);

#endif
