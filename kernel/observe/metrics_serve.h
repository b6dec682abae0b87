/* The text form of the metrics as the answer to an HTTP request. */
#ifndef KERNEL_METRICS_SERVE_H
#define KERNEL_METRICS_SERVE_H

#include "kernel/observe/metrics.h"
#include "sdk/net/http.h"

/* In portions: however many series there are, the answer takes no more than METRICS_PORTION_BYTES and what the connection holds.
 * Parks while the reader is slow. 0, or -ENOMEM with nothing sent, or -errno of the connection. */
int metrics_serve(struct metrics *m, struct http_req *r, struct str content_type);

#endif
