/* Failures as clients see them. For blocks: call_fail() and friends in call.h; this is what the doors use to write them. */
#ifndef KERNEL_FRONT_ERRORS_H
#define KERNEL_FRONT_ERRORS_H

#include "kernel/front/call.h"

/* Adds an entry to ErrorInfo.metadata; more than eight are dropped. */
void details_info(struct error_details *d, const char *key, const char *value);
/* The code by which the failure is counted: tag, or reason of rows without one. */
const char *call_error_code(const struct call *c);
/* Appends the JSON body of a failed call. */
void error_json(const struct call *c, struct buf *out);
/* Serialized google.rpc.Status of a failed call, in its arena; p == NULL for legacy rows. */
struct str error_status_details(const struct call *c);
/* gRPC failure in the form of an HTTP one: message = HTTP status text, ErrorInfo with http.code and http.error_message (the caller
 * keeps detail below 63 characters). Returns 0 as rpc_fail. */
int rpc_fail_http(struct rpc_call *rpc, int code, int http_status, const char *detail);

#endif
