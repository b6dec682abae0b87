/*
 * What names a span across processes, and its forms on the wire: W3C traceparent and tracestate
 * (https://www.w3.org/TR/trace-context/), grpc-trace-bin (OpenCensus' binary form), W3C baggage
 * (https://www.w3.org/TR/baggage/), which is only checked. Readers take anything, never allocate and accept what Go's OpenTelemetry
 * accepts.
 */
#ifndef KERNEL_SPAN_CONTEXT_H
#define KERNEL_SPAN_CONTEXT_H

#include "sdk/base/str.h"

#define TRACEPARENT_NONE "00-00000000000000000000000000000000-0000000000000000-00"

enum {
        TRACE_ID_BYTES = 16, SPAN_ID_BYTES = 8, TRACE_BINARY_BYTES = 29, TRACEPARENT_CHARS = 55,
        TRACESTATE_MEMBERS_MAX = 32,
        BAGGAGE_MEMBERS_MAX = 64, BAGGAGE_BYTES_MAX = 8192
};
enum { TRACE_FLAG_SAMPLED = 1 };

struct span_context {
        uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES];
        uint8_t flags;
};

/* Both ids are there. */
bool span_context_is_valid(const struct span_context *c);
/* False: it is none, and *ret is all zero. */
bool span_context_from_w3c(struct str text, struct span_context *ret);
/* False: no trace id or another version. The span id may be zero when the field is missing. */
bool span_context_from_binary(struct str bytes, struct span_context *ret);
void span_context_to_w3c(const struct span_context *c, char to[TRACEPARENT_CHARS + 1]);
void span_context_to_binary(const struct span_context *c, uint8_t to[TRACE_BINARY_BYTES]);
/* Lower-case hexadecimal digits and a NUL. */
void span_id_text(const uint8_t *id, size_t n, char *to);

/* A valid tracestate: syntax, no key twice, not too many members. An empty one is. */
bool tracestate_is_valid(struct str text);
/* NULL, or what is wrong, as a static text: "invalid baggage list-member", "invalid key", … *ret_part: the part that is. */
const char *baggage_fault(struct str text, struct str *ret_part);

#endif
