/*
 * Resiliency: the policies of Resiliency resources (API.md 6), and the one runner that every building block uses.
 *
 *     struct policy p;
 *     resiliency_component(c->k, name, KIND_STATE, POLICY_OUTBOUND, &p);
 *     int r = policy_run(&p, operation, &arg);      -> retry -> circuit breaker -> timeout -> operation, on the calling fiber
 *
 * With nothing configured for the target *p is the empty policy and policy_run() is one call of the operation; a block on a hot
 * path may ask policy_is_empty() and call the operation itself.
 * A resource that is wrong is logged ("Could not read resiliency policy <name>: …") and what it said up to there stays, as in the
 * reference; it never stops the start.
 */
#ifndef KERNEL_POLICY_RESILIENCY_H
#define KERNEL_POLICY_RESILIENCY_H

#include "kernel/super/super.h"
#include "sdk/base/arena.h"
#include "sdk/base/str.h"

struct breaker;
struct kernel;
struct policy_retry;
struct policy_target;
struct resiliency;

enum policy_direction { POLICY_OUTBOUND, POLICY_INBOUND };
/* Retries that exist without any resource; all but the last may be redefined by their names (DaprBuiltInServiceRetries …). */
enum policy_builtin {
        POLICY_SERVICE_RETRIES, POLICY_ACTOR_RETRIES, POLICY_ACTOR_REMINDER_RETRIES, POLICY_INITIALIZATION_RETRIES,
        POLICY_ACTOR_NOT_FOUND_RETRIES, POLICY_BUILTINS
};

/* What applies to one target at this moment. The zero value is the empty policy. It holds its target and its breaker until
 * policy_run() or policy_release(); one of them must follow each lookup that gave a policy that is not empty. */
struct policy {
        struct resiliency *owner;
        struct str name, id;       /* for log lines: the target and, of actors and endpoints, its part. Borrowed from the lookup */
        int64_t timeout_ns;        /* 0 = none */
        const struct policy_retry *retry;
        struct breaker *breaker;
        struct policy_target *target; /* NULL: a built-in, which has no metrics */
};

/* Reads the Resiliency resources of k->resources into k->resiliency; once, before the first lookup. 0 or -ENOMEM. */
int resiliency_start(struct kernel *k);
void resiliency_stop(struct kernel *k); /* after the last policy was released; no resiliency is fine */

/* Lookups: each fills *p and counts in the metrics. Without resiliency_start() or with nothing configured *p is empty. name, app_id,
 * endpoint, actor_type and id must live until the policy was run or released. */
void resiliency_component(struct kernel *k, struct str name, enum component_kind kind, enum policy_direction d, struct policy *p);
/* The same without counting: for a subscription's events, whose policy the reference counts once, when the subscription begins. */
void resiliency_component_again(struct kernel *k, struct str name, enum component_kind kind, enum policy_direction d, struct policy *p);
void resiliency_app(struct kernel *k, struct str app_id, struct str endpoint, struct policy *p); /* endpoint: "app_id:method" */
void resiliency_actor_pre(struct kernel *k, struct str actor_type, struct str id, struct policy *p);  /* before the turn lock: retry, breaker */
void resiliency_actor_post(struct kernel *k, struct str actor_type, struct str id, struct policy *p); /* after it: timeout */
void resiliency_builtin(struct kernel *k, enum policy_builtin b, struct policy *p);
/* Is a target of this name configured (default policies do not count)? */
bool resiliency_has_app(struct kernel *k, struct str app_id);
bool resiliency_has_actor(struct kernel *k, struct str actor_type);
bool resiliency_has_component(struct kernel *k, struct str name);

static inline bool policy_is_empty(const struct policy *p)
{
        return !p->timeout_ns && !p->retry && !p->breaker;
}
/* May the operation be run more than once? Then a request's body has to be kept. */
bool policy_has_retries(const struct policy *p);
void policy_release(struct policy *p); /* a policy that is not run; again or on an empty one: harmless */

/* One run of the operation, for the operation. */
struct policy_try {
        unsigned attempt;          /* from 1 */
        /* set by an operation that fails: */
        bool permanent;            /* no retry helps */
        int code;                  /* gRPC status 1..16 or HTTP status 100..599 for spec.policies.retries.*.matching; 0 = no code: always
                                    * retried. A code of neither range is not retried. */
};
/* 0 = done; anything else = failed. Runs on the calling fiber, with its deadline shortened by the policy's timeout: what parks in it
 * returns -ETIMEDOUT then, and the operation must return soon. */
typedef int (*policy_op)(void *arg, struct policy_try *t);

enum policy_result {
        POLICY_OK = 0,
        POLICY_FAILED,             /* the operation's last failure stands, as it left it in arg */
        POLICY_TIMEOUT,            /* "context deadline exceeded": the policy's timeout, or the caller's deadline while retrying */
        POLICY_CANCELED,           /* "context canceled": the caller has gone; no more retries */
        POLICY_OPEN,               /* "circuit breaker is open": the operation did not run */
        POLICY_TOO_MANY,           /* "too many requests": the breaker is half open and has enough of them */
};
/* Runs the operation under the policy and releases the policy. Parks. */
enum policy_result policy_run(struct policy *p, policy_op op, void *arg);
/* component_call() (super.h) under the component's outbound policy. 0 and *resp; or a gRPC code > 0: then *st is the component's
 * answer, unless *ret_policy_error is set, which is the policy's own error (policy_result_text). Parks. */
int resiliency_component_call(struct kernel *k, struct component *c, struct arena *a, const char *method, const ProtobufCMessage *req,
                              const ProtobufCMessageDescriptor *resp_d, void *resp, struct rpc_status *st, const char **ret_policy_error);
/* The text that stands for a result which is not the operation's own; static; "" for POLICY_OK and POLICY_FAILED. */
const char *policy_result_text(enum policy_result r);

#endif
