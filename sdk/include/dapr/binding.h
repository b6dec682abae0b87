/*
 * Bindings: calls from the app to a system outside (output) and events from outside to the app (input). One table for both; a
 * component that has only one direction leaves the other's operations NULL. Included from <dapr/plugin.h>.
 */
#ifndef DAPR_BINDING_H
#define DAPR_BINDING_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- output ---- */
struct dapr_invoke {
        const char *operation;      /* one of those that `operations` names */
        struct dapr_bytes data;     /* as the app gave it: over HTTP always one JSON value */
        struct dapr_kvs metadata;
};
struct dapr_invoke_result {
        struct dapr_bytes data;     /* p == NULL: nothing to return (with empty metadata: 204 for HTTP callers) */
        const char *content_type;   /* NULL = none */
        struct dapr_kvs metadata;   /* reaches the app with a failure too */
};

/* ---- input ---- */
struct dapr_reader; /* the runtime listens: given to `read`, valid until it returns */
struct dapr_event {
        struct dapr_bytes data;
        const char *content_type;   /* NULL = none */
        struct dapr_kvs metadata;   /* HTTP apps get it as headers */
};
struct dapr_event_reply { /* zero it; after the call dapr_event_reply_free() */
        struct dapr_bytes data;     /* what the app answered */
        const char *error;          /* why it did not take the event; NULL = it did */
        void *memory;
};
/* Hands one event to the app and parks (in DAPR_WORKER mode: blocks the thread) until the app has answered. 0 = the app took it;
 * DAPR_INTERNAL = it did not, see reply->error: deliver it again later; -ECANCELED = the runtime does not listen any more: return
 * from `read`; -ENOMEM. reply may be NULL. Several tasks of the plugin may call it at once (dapr_reader_go, worker threads). */
int dapr_binding_event(struct dapr_reader *r, const struct dapr_event *e, struct dapr_event_reply *reply);
void dapr_event_reply_free(struct dapr_event_reply *reply);
/* A further fiber of this `read`; it ends before read's stream does: fn sees -ECANCELED then. 0 or -errno. */
int dapr_reader_go(struct dapr_reader *r, void (*fn)(struct dapr_reader *r, void *arg), void *arg);
bool dapr_reader_is_cancelled(const struct dapr_reader *r);

struct dapr_binding_ops {
        enum dapr_mode mode;
        unsigned features;          /* none are defined: leave 0 */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        /* Output: both or none. operations ends with NULL. */
        const char *const *operations;
        int (*invoke)(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out);
        /* Input: runs for as long as the runtime wants events, on a fiber of its own (DAPR_WORKER: on a thread of the pool, which it
         * keeps). Returns when dapr_binding_event() says -ECANCELED or a wait does, or with a failure: the runtime then starts it
         * again after a pause. Memory of dapr_alloc() lives until it returns: not for single events. */
        int (*read)(struct dapr_call *c, void *instance, struct dapr_reader *r);
};

#ifdef __cplusplus
}
#endif
#endif
