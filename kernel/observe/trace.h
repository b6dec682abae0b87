/*
 * Traces. Each request, event or call that a fiber serves has one struct trace, on the server's stack and installed as the fiber's
 * own: what goes out with every call made on its behalf (traceparent, tracestate, grpc-trace-bin, baggage), the span that is
 * recorded when the request is sampled, and where its time went. Three ways, chosen once by the Configuration:
 *
 *   off       sampling rate 0: no span; the caller's headers are passed on as they came
 *   passive   no rate and no exporter: no span of our own; the caller's context is passed on, one of zeros when there is none
 *   active    every request has a span context of its own, child of the caller's; those sampled are recorded and exported
 *
 * Nothing is allocated for a request that is not recorded.
 */
#ifndef KERNEL_TRACE_H
#define KERNEL_TRACE_H

#include "kernel/observe/span_context.h"
#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

struct metrics;
struct span;
struct tracer;

enum span_kind { SPAN_SERVER = 2, SPAN_CLIENT = 3, SPAN_PRODUCER = 4 }; /* numbers as in OTLP */
enum trace_header { TRACE_PARENT, TRACE_STATE, TRACE_BAGGAGE, TRACE_HEADERS };
const char *trace_header_name(enum trace_header h); /* lower case */

struct trace {
        struct str value[TRACE_HEADERS]; /* what goes out; p == NULL: none. May point into text: a trace is never copied */
        struct span_context ctx;
        bool has_ctx;                    /* passive and active */
        struct str raw_binary;           /* off: the caller's grpc-trace-bin */
        struct span *span;               /* being recorded, or NULL */
        struct tracer *tracer;
        double component_ms, app_ms;     /* time spent in components and in the app */
        char text[TRACEPARENT_CHARS + 1];
};

/* ---- the fiber's ---- */
/* t stays the fiber's until another is installed; it lives at least as long. NULL = none. */
void trace_install(struct trace *t);
struct trace *trace_current(void); /* NULL = none */
/* p == NULL when there is none; t may be NULL. */
static inline struct str trace_value(const struct trace *t, enum trace_header h)
{
        return t ? t->value[h] : STR_NULL;
}
/* grpc-trace-bin into to; false: there is none to send. t may be NULL. */
bool trace_binary(const struct trace *t, uint8_t to[TRACE_BINARY_BYTES]);

/* ---- begin and end; tracer may be NULL (off), name is copied if it is needed ---- */
/* From a request's headers. Returns NULL, or why the baggage is refused (in a, or static). Headers are borrowed. */
const char *trace_begin_http(struct trace *t, struct tracer *tr, struct arena *a, const struct http_headers *h, struct str name);
const char *trace_begin_grpc(struct trace *t, struct tracer *tr, struct arena *a, const struct rpc_mdlist *md, enum span_kind kind,
                             struct str name);
/* From a traceparent and a tracestate that came with an event; what is no traceparent begins a new trace. */
void trace_begin_event(struct trace *t, struct tracer *tr, struct str parent, struct str state, struct str name);
/* From grpc-trace-bin, else traceparent, among an event's metadata. */
void trace_begin_metadata(struct trace *t, struct tracer *tr, const struct rpc_mdlist *md, struct str name);
/* A child of another trace, NULL = of none. */
void trace_begin_child(struct trace *t, struct tracer *tr, const struct trace *of, enum span_kind kind, struct str name);
/* Hands the span, if any, to the exporters. Once a trace, also when nothing was recorded. */
void trace_end(struct trace *t);
/* As trace_end, without a span: for what is not to be seen after all. */
void trace_discard(struct trace *t);

/* ---- of a recorded span; all do nothing when none is recorded ---- */
static inline bool trace_is_recorded(const struct trace *t)
{
        return t && t->span;
}
void trace_rename(struct trace *t, struct str name);
/* An empty value is left out; a key that is there already gets the new value. Keys and values are copied. */
void trace_attr(struct trace *t, const char *key, struct str value);
void trace_attr_user(struct trace *t, struct str key, struct str value); /* the key in lower case */
void trace_status_http(struct trace *t, int status);
void trace_status_grpc(struct trace *t, int code, struct str message);

/* ---- the tracer ---- */
struct tracer_conf {
        const char *app_id;               /* service.name unless OTEL_SERVICE_NAME */
        const char *sampling_rate;        /* as configured; "" unset */
        bool stdout_;                     /* spans as log lines */
        const char *zipkin_endpoint;      /* URL; "" none */
        const char *otlp_endpoint, *otlp_protocol; /* "" none; "grpc" or "http" */
        bool otlp_secure;
        const char *const *otlp_headers;  /* "name=value" */
        size_t n_otlp_headers;
        int64_t otlp_timeout_ns;          /* 0 = 10 s */
        struct metrics *metrics;          /* how exporters fare; NULL = not counted */
};
/* Strings of conf are copied; the environment OTEL_* is read. 0 and *ret, or -EINVAL/-ENOMEM with a sentence in err. */
int tracer_new(struct tracer **ret, const struct tracer_conf *conf, char *err, size_t err_n);
/* Exports what is waiting, for at most that long, and ends the exporters' fibers. Parks. NULL is fine. */
void tracer_stop(struct tracer *tr, double timeout_s);
void tracer_free(struct tracer *tr);
bool tracer_is_off(const struct tracer *tr);    /* NULL is off */
bool tracer_is_active(const struct tracer *tr);

#endif
