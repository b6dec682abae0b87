/* Readiness targets behind /v1.0/healthz and /v1.0/healthz/outbound: named, each ready or not. */
#ifndef KERNEL_HEALTH_H
#define KERNEL_HEALTH_H

#include "sdk/base/buf.h"

enum { HEALTH_TARGETS_MAX = 16 };
enum health_scope { HEALTH_ALL, HEALTH_OUTBOUND };

struct health_target {
        const char *name;
        bool outbound;  /* counts for /healthz/outbound too */
        bool ready;
};
struct health {
        struct health_target t[HEALTH_TARGETS_MAX];
        int n;
};
/* Adds a target, not ready; returns its index. name is static text. */
int health_add(struct health *h, const char *name, bool outbound);
void health_set(struct health *h, int target, bool ready);
/* True when all targets of the scope are ready; else appends the names of the others to *unready, joined by ", ". */
bool health_check(const struct health *h, enum health_scope scope, struct buf *unready);

#endif
