/*
 * A throw-away sidecar: daprd with the given resources and nothing else, to try something out. It has no app, so nothing is delivered
 * or consumed; its API listens on sockets in a temporary folder, its name is not told to the network, and it ends with this process.
 * Components that cannot start are told by its control socket instead of ending it.
 */
#ifndef CTL_SCRATCH_H
#define CTL_SCRATCH_H

#include "ctl/ctl.h"
#include "sdk/base/buf.h"

enum { SCRATCH_LOG_MAX = 256 * 1024 };

struct scratch_options {
        const char *runtime_path;  /* --runtime-path */
        const char *app_id;
        const char *const *resources; /* folders */
        size_t n_resources;
        const char *plugins_path;  /* searched before all else; NULL = none */
        const char *verify, *lock; /* its --plugin-verify and --plugin-lock; NULL or "" = their defaults */
};
struct scratch {
        struct process *daprd;
        struct sidecar sidecar;    /* for live.h */
        char *dir;
        struct buf log;            /* what it has written, the first SCRATCH_LOG_MAX bytes */
};
/* 0 once it has tried to start every component, within timeout_s; or 1 after saying why not. Parks. */
int scratch_start(struct scratch *s, struct arena *a, const struct scratch_options *o, double timeout_s);
void scratch_stop(struct scratch *s); /* and removes its folder; parks. A zeroed one is fine */

#endif
