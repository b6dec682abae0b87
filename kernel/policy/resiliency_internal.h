/*
 * Resiliency, inside: resiliency_read.c turns a resource into policies and target rows, resiliency.c looks them up, policy_run.c
 * runs an operation under what was found.
 */
#ifndef KERNEL_POLICY_RESILIENCY_INTERNAL_H
#define KERNEL_POLICY_RESILIENCY_INTERNAL_H

#include "kernel/observe/metrics.h"
#include "kernel/policy/backoff.h"
#include "kernel/policy/breaker.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/map.h"
#include "sdk/base/yaml.h"

#define RESILIENCY_SCOPE "dapr.runtime"

enum {
        RESILIENCY_APP_BREAKERS = 100,     /* breakers of an app's endpoints, without circuitBreakerCacheSize */
        RESILIENCY_ACTOR_BREAKERS = 5000,
        RESILIENCY_TARGETS_MAX = 10000,    /* targets of one kind that are remembered; those used longest ago are forgotten */
};

struct code_range {
        int lo, hi;
};
struct code_ranges {
        bool given;                        /* else every code fits */
        struct code_range *v;
        size_t n;
};
struct policy_retry {
        struct backoff_conf backoff;
        struct code_ranges http, grpc;
};

/* ---- what resources say; strings and structs in the arena of struct resiliency ---- */
struct policy_names {
        const char *timeout, *retry, *breaker; /* "" = none */
};
enum breaker_scope { BREAKER_SCOPE_TYPE, BREAKER_SCOPE_ID };
struct target_conf {
        struct policy_names names, inbound; /* components: outbound, inbound */
        enum breaker_scope scope;           /* actors */
        size_t cache_size;
};

/* ---- what is looked up ---- */
enum target_kind { TARGET_COMPONENT, TARGET_APP, TARGET_ACTOR, TARGET_KINDS };
struct series { /* found when it is first needed */
        struct metric_series *series;
        bool known;
};
struct policy_target {
        unsigned refs;
        struct str key;                    /* owned; of its map */
        enum target_kind kind;
        enum policy_direction direction;
        struct str metric_target;          /* "app_x"; owned */
        int64_t timeout_ns;
        const struct policy_retry *retry;
        const struct breaker_conf *breaker_conf; /* NULL = none */
        struct breaker *breaker;           /* components: the one */
        struct breaker_cache breakers;     /* apps, actors */
        enum breaker_scope scope;
        struct series timeout_series, retry_series, breaker_series[BREAKER_STATES], state_series[BREAKER_STATES + 1];
        struct list lru;
};

struct resiliency_clock { /* tests have their own */
        double (*now)(void);
        int (*sleep)(double seconds);
        double (*random)(uint64_t *state); /* 0 <= x < 1 */
};

struct resiliency {
        struct arena arena;
        bool configured;                   /* a resource was read */
        struct str name, namespace_;       /* of the resource that was read last: labels of the metrics */
        struct str app_id;
        struct map timeouts, retries, breakers; /* int64_t *, struct policy_retry *, struct breaker_conf * */
        struct map confs[TARGET_KINDS];    /* struct target_conf * */
        struct map targets[TARGET_KINDS];  /* struct policy_target *, by name (components: with kind and direction before it) */
        struct list lru[TARGET_KINDS];
        struct map component_breakers;     /* by component: struct breaker * */
        struct resiliency_clock clock;
        uint64_t random;
        struct metric *loaded, *count, *activations, *cb_state;
};

/* An engine with the built-in policies and no resource. 0, -ENOMEM. metrics may be NULL. */
int resiliency_new(struct resiliency **ret, struct metrics *m, struct str app_id);
void resiliency_free(struct resiliency *r);
/* One resource. 0; -EINVAL with the text for the log in *ret_err (in a), what stands before the fault has been taken; -ENOMEM.
 * *ret_parsed: the document had the right form. */
int resiliency_read(struct resiliency *r, const struct yaml_node *doc, struct arena *a, bool *ret_parsed, const char **ret_err);
/* The same with the log lines and the metric. 0 or -ENOMEM. */
int resiliency_add(struct resiliency *r, const struct yaml_node *doc, const char *file, const char *name, const char *namespace_);
void resiliency_find(struct resiliency *r, enum target_kind kind, struct str name, enum component_kind component, enum policy_direction d,
                     struct policy *p);
void resiliency_find_breaker(struct resiliency *r, struct str key, struct policy *p); /* of an app or actor */
void resiliency_find_builtin(struct resiliency *r, enum policy_builtin b, struct policy *p);
bool policy_retry_wants(const struct policy_retry *r, int code);

enum activation { ACTIVATED_TIMEOUT, ACTIVATED_RETRY, ACTIVATED_BREAKER };
void resiliency_counted(struct policy *p, double now);                 /* a lookup */
void resiliency_activated(struct policy *p, enum activation what, enum breaker_state state);

#endif
