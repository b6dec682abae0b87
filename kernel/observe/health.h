/* Readiness targets behind /v1.0/healthz and /v1.0/healthz/outbound: named, each ready or not. */
#ifndef KERNEL_HEALTH_H
#define KERNEL_HEALTH_H

#include "sdk/base/buf.h"

enum { HEALTH_TARGETS_MAX = 16 };
enum health_scope { HEALTH_ALL, HEALTH_OUTBOUND };

struct health_target {
        const char *name;
        enum health_scope scope; /* HEALTH_ALL: counts for /healthz; HEALTH_OUTBOUND: only for /healthz/outbound */
        bool ready;
};
struct health {
        struct health_target t[HEALTH_TARGETS_MAX];
        int n;
};
/* Adds a target, not ready; returns its index. name is static text. */
int health_add(struct health *h, const char *name, enum health_scope scope);
void health_set(struct health *h, int target, bool ready);
/* True when the scope has targets and all are ready; else appends the names of the others to *unready (may be NULL), joined by
 * one space. */
bool health_check(const struct health *h, enum health_scope scope, struct buf *unready);

#endif
