/*
 * The kernel object: what one daprd process holds. main.c makes it; everything else receives it.
 * No globals: a function that needs something of the kernel takes the kernel (or the call, which points to it).
 */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include "kernel/observe/health.h"
#include "kernel/observe/metrics.h"
#include "kernel/opts.h"
#include "kernel/resources/resources.h"
#include "kernel/super/super.h"
#include "sdk/base/fiber.h"
#include "sdk/base/map.h"

struct app;
struct block;
struct identity;
struct ledger;
struct mesh;
struct names;
struct bindings;
struct configuration_block;
struct endpoints;
struct front;
struct observe;
struct pipeline;
struct pubsub_block;
struct resiliency;
struct secrets_block;
struct slow;
struct state_block;
struct tracer;

struct kernel {
        struct daprd_opts opts;
        struct configuration config;
        struct resource_set resources;
        struct metrics *metrics;
        struct observe *observe;
        struct tracer *tracer;   /* kernel/observe/trace.h */
        struct slow *slow;       /* kernel/observe/slow.h */
        struct health health;
        struct super *super;
        const struct block *const *blocks; /* kernel/front/call.h */
        size_t n_blocks;
        struct ledger *ledger;   /* of the program before this one in this process (kernel/super/ledger.h); NULL = none */
        struct reload *reload;   /* kernel/reload.h; NULL until everything has started */
        struct front *front;
        struct identity *identity; /* kernel/mesh/identity.h; NULL without mTLS */
        struct names *names;       /* of other apps (kernel/mesh/names.h); NULL before the internal server listens */
        struct mesh *mesh;         /* kernel/mesh/mesh.h */
        struct endpoints *endpoints; /* kernel/mesh/endpoints.h; NULL before the resources were read */
        struct resiliency *resiliency; /* policies; NULL before the resources were read */
        struct pipeline *app_pipeline; /* appHttpPipeline (kernel/pipeline/pipeline.h); NULL: nothing is in the way */
        struct app *app;         /* the app channel (kernel/app/app.h); NULL without --app-port */

        /* Components that initialised, by name, one map a kind (value: struct component *). A name may stand in two kinds. */
        struct map components[KIND_N];
        struct component **all_components; /* in order of initialisation */
        size_t n_components;

        struct secrets_block *secrets;
        struct state_block *state;
        struct bindings *bindings;
        struct pubsub_block *pubsub;
        struct configuration_block *watches; /* subscriptions to configuration changes */

        struct map extended; /* /v1.0/metadata/{key} PUT: heap strings */
        struct scope background; /* fibers that live as long as the process */
        struct cond changed;     /* started, or asked to stop */
        bool shutting_down;
        bool upgrading;          /* another program takes this one's place: `binary` */
        char binary[512];
        char **argv;
        int exit_code;
        char exe[512], exe_dir[512], hostname[256];
};

/* By kind and name; NULL if absent. */
struct component *kernel_component(struct kernel *k, enum component_kind kind, struct str name);
size_t kernel_component_count(const struct kernel *k, enum component_kind kind);
/* Asks for a stop, as a signal or POST /v1.0/shutdown does; returns at once. force: exit code 1 after 100 ms, nothing is drained. */
void kernel_shutdown(struct kernel *k, bool force);

/* One key of one secret from a loaded store, without scopes (kernel/blocks/secrets.c): SECRET_FOUND and *value (in a), SECRET_NO_KEY,
 * SECRET_NO_STORE, or < 0 = the store failed, text in *err (in a). Parks. */
int secrets_resolve(struct kernel *k, const char *store, const char *secret, const char *key, struct arena *a, const char **value,
                    const char **err);

#endif
