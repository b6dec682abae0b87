/* What a recorded span says of an API call, by the building block that it belongs to. */
#ifndef KERNEL_TRACE_ATTRS_H
#define KERNEL_TRACE_ATTRS_H

#include "kernel/front/call.h"
#include "kernel/observe/trace.h"

/* Of an HTTP request's route, while its parameters are known. */
void trace_attrs_route(struct call *c, struct str path);
/* Of a served HTTP request. */
void trace_attrs_http(struct call *c, struct str path);
/* Of a gRPC request's message; method: "/dapr.proto.runtime.v1.Dapr/GetState". */
void trace_attrs_message(struct trace *t, const char *method, const ProtobufCMessage *m);
/* Of every gRPC call, from its metadata. Proxied calls have no API of ours. */
void trace_attrs_grpc(struct trace *t, const struct rpc_call *rpc, bool proxied);
/* Of an invocation, whichever door it came through. */
void trace_attrs_invoke(struct trace *t, struct arena *a, struct str app_id, struct str method);

#endif
