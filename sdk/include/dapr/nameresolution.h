/*
 * Name resolvers: where the sidecar of an app can be reached. Included from <dapr/plugin.h>. `init` makes the own sidecar known to
 * others, `close` takes that back; after a crash of the process the runtime calls init of the new one.
 */
#ifndef DAPR_NAMERESOLUTION_H
#define DAPR_NAMERESOLUTION_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dapr_sidecar {
        const char *app_id, *namespace_;
        const char *address;        /* IPv4, IPv6 without brackets, or a name */
        int internal_port;          /* where other sidecars connect */
        int http_port, metrics_port;
        int app_port;               /* 0 = it has no app */
        const char *configuration;  /* the whole block as JSON; "" = none. Its first level is metadata, too: scalars as text, the rest
                                       as JSON */
};
/* During init of a name resolver: the own sidecar. */
const struct dapr_sidecar *dapr_sidecar(const struct dapr_call *c);

struct dapr_resolve {
        const char *id, *namespace_;
        int port;                   /* for resolvers that know hosts only */
        const char *const *failed;  /* addresses that could not be reached a moment ago */
        size_t n_failed;
};
struct dapr_addresses {
        const char *const *v;       /* host:port, IPv6 hosts in brackets */
        size_t n;                   /* 0 = ask again in a moment; an app that nobody knows is a failure with a text */
        double ttl_s;               /* for so long the runtime may use them without asking */
};

struct dapr_name_ops {
        enum dapr_mode mode;
        unsigned features;          /* none are defined: leave 0 */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        int (*resolve)(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out);
};

#ifdef __cplusplus
}
#endif
#endif
