/* Cross-origin requests (--allowed-origins), answered as go-chi/cors does. */
#ifndef KERNEL_FRONT_CORS_H
#define KERNEL_FRONT_CORS_H

#include "kernel/front/call.h"

struct cors {
        bool enabled, any_origin;
        const char *origins; /* comma-separated, compared without case; one * in an entry matches anything */
};

/* origins is kept: "" = no CORS, "*" = every origin. */
void cors_init(struct cors *c, const char *origins);
/* Adds the headers. True when the request was a preflight and is answered. */
bool cors_handle(const struct cors *c, struct call *call);

#endif
