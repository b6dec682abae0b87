/*
 * Locks: a resource is held by one owner for a limited time. Included from <dapr/plugin.h>. Names of resources come with the
 * runtime's prefix: store them as they are.
 */
#ifndef DAPR_LOCK_H
#define DAPR_LOCK_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dapr_lock {
        const char *resource;
        const char *owner;
        int expiry_s;               /* try_lock: at least 1 */
};
enum dapr_unlock { /* as the API's numbers */
        DAPR_UNLOCKED,
        DAPR_LOCK_MISSING,          /* nobody holds the resource */
        DAPR_LOCK_OF_OTHERS,        /* somebody else does */
        DAPR_UNLOCK_FAILED
};

struct dapr_lock_ops {
        enum dapr_mode mode;
        unsigned features;          /* none are defined: leave 0 */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        /* *taken = false: somebody holds it, be it the same owner. Both are never sent twice by the runtime. */
        int (*try_lock)(struct dapr_call *c, void *instance, const struct dapr_lock *in, bool *taken);
        int (*unlock)(struct dapr_call *c, void *instance, const struct dapr_lock *in, enum dapr_unlock *out);
};

#ifdef __cplusplus
}
#endif
#endif
