/* Who is meant by a service invocation over HTTP. */
#ifndef KERNEL_FRONT_TARGET_H
#define KERNEL_FRONT_TARGET_H

#include "kernel/front/call.h"

struct invoke_target {
        struct str id;     /* app id, id.namespace, URL or HTTPEndpoint name; empty = none found */
        struct str method; /* path at the callee, without leading slash */
};
/* path: unescaped. Looks at header dapr-app-id (which is removed), Basic credentials of that user, then the path
 * /v1.0/invoke/{id}/method/{path}. Strings borrow or live in a. */
struct invoke_target invoke_target_find(struct arena *a, struct str path, struct http_headers *headers);

#endif
