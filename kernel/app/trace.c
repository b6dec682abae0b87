/* Trace headers of the running fiber. The fiber's local pointer is the place. */
#include "kernel/app/trace.h"

const char *trace_header_name(enum trace_header h)
{
        static const char *const names[TRACE_HEADERS] = {"traceparent", "tracestate", "baggage"};

        return names[h];
}

void trace_install(const struct trace *t)
{
        fiber_set_local((void *)t);
}

const struct trace *trace_current(void)
{
        return fiber_self() ? fiber_local() : NULL;
}

struct str trace_value(const struct trace *t, enum trace_header h)
{
        if (!t)
                return STR_NULL;
        if (t->http)
                return http_headers_get(t->http, trace_header_name(h));
        if (t->grpc)
                return rpc_md_get(t->grpc, trace_header_name(h));
        switch (h) {
        case TRACE_PARENT: return t->traceparent;
        case TRACE_STATE: return t->tracestate;
        case TRACE_BAGGAGE: return t->baggage;
        case TRACE_HEADERS: break;
        }
        return STR_NULL;
}
