/* Service invocation, inside: what reaches the own app (invoke.c: HTTP to HTTP; invoke_own.c: where gRPC is on a side). */
#ifndef KERNEL_INVOKE_H
#define KERNEL_INVOKE_H

#include "kernel/front/call.h"

struct invoke_target;

#define APP_UNHEALTHY "rpc error: code = Internal desc = app is not in a healthy state"

bool invoke_is_own(const struct call *c, struct str id);
/* A call over HTTP to an own app that speaks gRPC: OnInvoke. Answers. Parks. */
void invoke_own_grpc_app(struct call *c, const struct invoke_target *t);
/* InvokeService: the gRPC door's row. */
int invoke_service(struct call *c);

#endif
