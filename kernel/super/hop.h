/* What one call to a component's plugin costs, and how it is seen: a histogram fine enough for a socket on the same machine, the
 * running request's share of time, and a span where those are asked for. */
#ifndef KERNEL_HOP_H
#define KERNEL_HOP_H

#include "kernel/observe/trace.h"

struct component;
struct hop {
        struct trace *request; /* of the fiber, or NULL */
        bool traced;
        double began;
        struct trace trace;    /* when traced */
};
/* Between them the call runs on this fiber. The end gives how long it took, in seconds. */
void hop_begin(struct hop *h, const struct component *c, const char *method);
double hop_end(struct hop *h, struct component *c, const char *method, int code, struct str message);

#endif
