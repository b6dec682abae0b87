/*
 * The slowest requests of the last minutes, for daprctl trace: of each of the last SLOW_WINDOWS spans of SLOW_WINDOW_S seconds the
 * SLOW_KEPT slowest. Sampling and exporters have no part in it. A request that is not slow costs one comparison.
 */
#ifndef KERNEL_SLOW_H
#define KERNEL_SLOW_H

#include "kernel/observe/trace.h"
#include "sdk/base/buf.h"

enum { SLOW_WINDOWS = 30, SLOW_WINDOW_S = 10, SLOW_KEPT = 16, SLOW_NAME_CHARS = 120 };

struct slow;
struct slow_request {
        const char *protocol;     /* "http", "grpc": static */
        struct str verb, name;    /* "GET", path; "", method */
        int status;               /* HTTP status or gRPC code */
        double elapsed_ms;
        const struct trace *trace; /* where the time went, and its id */
};
int slow_new(struct slow **ret); /* 0 or -ENOMEM */
void slow_free(struct slow *s);
void slow_note(struct slow *s, const struct slow_request *r); /* s may be NULL */
/* Appends a JSON array, newest window first and the slowest of each first: {"time" (RFC 3339),"durationMs","componentMs","appMs",
 * "protocol","operation","status","traceId" ("" = none)}. */
void slow_write(const struct slow *s, struct buf *out);

#endif
