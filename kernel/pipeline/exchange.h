/* Calls to a server through a pipeline: the place of http_client_start for the app channel. */
#ifndef KERNEL_PIPELINE_EXCHANGE_H
#define KERNEL_PIPELINE_EXCHANGE_H

#include "kernel/pipeline/pipeline.h"

/* As http_client_start; the exchange is used and closed as any. What a filter answers comes as the response, without a word to the
 * server; what a filter fails at comes as a 5xx with the reason as JSON. The request may go out only when its body was given, if a
 * filter waits for it. */
int pipeline_exchange_start(struct pipeline *p, struct http_client *c, struct arena *a, struct str method, struct str target,
                            const struct http_header *h, size_t n, int64_t length, struct str body_now, struct http_exchange **ret);

#endif
