/*
 * Configuration stores: items by key, and their changes while the runtime watches. Included from <dapr/plugin.h>.
 */
#ifndef DAPR_CONFIGURATION_H
#define DAPR_CONFIGURATION_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dapr_config_query {
        const char *const *keys;
        size_t n;                   /* 0 = all keys */
        struct dapr_kvs metadata;
};
struct dapr_config_item {
        const char *key;
        const char *value;          /* NULL as "" */
        const char *version;        /* NULL as "" */
        struct dapr_kvs metadata;
};
struct dapr_config_items {
        const struct dapr_config_item *v;
        size_t n;
};

struct dapr_config_watch; /* the runtime watches: given to `subscribe`, valid until it returns */
/* Tells the runtime that the watch stands at the backend: a change after this call is not missed. Once, before the first change; a
 * `subscribe` that returns without it has failed for the app too. 0, or -ECANCELED: return. */
int dapr_config_subscribed(struct dapr_config_watch *w);
/* Hands changed items to the runtime; one that is gone has neither value nor version. Parks while the app is slow: what the backend
 * tells meanwhile is the plugin's to keep, the latest value of a key is enough. Items are borrowed. 0, -ENOMEM, or -ECANCELED: the
 * runtime does not watch any more: return. */
int dapr_config_changed(struct dapr_config_watch *w, const struct dapr_config_item *items, size_t n);

struct dapr_configuration_ops {
        enum dapr_mode mode;
        unsigned features;          /* none are defined: leave 0 */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        /* Keys that do not exist are left out. May be sent again after a crash. */
        int (*get)(struct dapr_call *c, void *instance, const struct dapr_config_query *in, struct dapr_config_items *out);
        /* Runs for the life of a watch, on a fiber of its own whatever the mode (what blocks goes to dapr_work()). When the watch ends
         * the fiber is cancelled: its parks return -ECANCELED. A failure ends the runtime's stream: it subscribes again after a
         * pause. Memory of dapr_alloc() lives until it returns: not for single changes. */
        int (*subscribe)(struct dapr_call *c, void *instance, struct dapr_config_watch *w, const struct dapr_config_query *in);
};

#ifdef __cplusplus
}
#endif
#endif
