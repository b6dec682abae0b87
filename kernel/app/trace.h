/*
 * The trace headers of the call that a fiber serves (W3C: traceparent, tracestate, baggage): they go along with every call to the
 * app. A front door, or whoever delivers an event, puts a struct trace on its stack and installs it for the fiber; the app channel
 * reads it when a call goes out. Nothing is copied and nothing is looked up before that.
 */
#ifndef KERNEL_TRACE_H
#define KERNEL_TRACE_H

#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

struct trace {
        /* One of these, or the three values below. */
        const struct http_headers *http;
        const struct rpc_mdlist *grpc;
        struct str traceparent, tracestate, baggage; /* p == NULL: none */
};
enum trace_header { TRACE_PARENT, TRACE_STATE, TRACE_BAGGAGE, TRACE_HEADERS };
const char *trace_header_name(enum trace_header h); /* lower case */

/* t stays the fiber's until trace_install(NULL); it lives at least as long. */
void trace_install(const struct trace *t);
const struct trace *trace_current(void); /* NULL = none */
/* p == NULL when there is none; t may be NULL. */
struct str trace_value(const struct trace *t, enum trace_header h);

#endif
