/* httpPipeline: requests of the API server go through its filters before they are routed. */
#ifndef KERNEL_FRONT_FILTERED_H
#define KERNEL_FRONT_FILTERED_H

#include "kernel/front/call.h"
#include "kernel/pipeline/pipeline.h"

/* Runs next(arg) for the request as the filters made it, or answers in its place. c->http is changed on the way: method, path, query,
 * headers; its body and its response go through the filters that want them. Parks. */
void filtered_serve(struct pipeline *p, struct call *c, void (*next)(void *arg), void *arg);

#endif
