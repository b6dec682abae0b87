/*
 * Faults for drills: an operator makes a share of the calls to a component slow, fail, or kill its process, for a bounded time. One
 * set at a time for each component; a new one replaces the old. Callers see what they would see of a real fault; the event history
 * and the component's row tell which ones were made.
 */
#ifndef KERNEL_SUPER_FAULT_H
#define KERNEL_SUPER_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;
struct component;
struct rpc_status;

struct fault_plan {
        double delay_s;   /* 0 = none; at most FAULT_DELAY_MAX_S */
        int code;         /* gRPC code that calls end with, after the delay; 0 = none */
        bool kill;        /* the process, by SIGKILL, before the call is sent */
        double rate;      /* share of calls, > 0 to 1 */
        double for_s;     /* > 0; at most FAULT_FOR_MAX_S */
};
#define FAULT_DELAY_MAX_S 60.0
#define FAULT_FOR_DEFAULT_S 60.0
#define FAULT_FOR_MAX_S 3600.0

/* 0, -ENOMEM, or -EINVAL with a sentence in *ret_err (static). Starts at once. */
int fault_set(struct component *c, const struct fault_plan *plan, const char **ret_err);
/* -ENOENT: there was none. */
int fault_clear(struct component *c, const char *why);
void fault_free(struct component *c); /* without a note */
/* Kills the component's process once, now. 0, or -ESRCH: it has none that runs here. */
int fault_kill(struct component *c);
/* What running calls meet: 0 = go on, or a gRPC code with st. Parks for the delay. Call only while c->fault is set. */
int fault_meet(struct component *c, struct arena *a, const char *method, struct rpc_status *st);
/* "delay 100ms, error Unavailable, on 10% of calls"; *ret_left_s: for how long yet; *ret_hits: calls that met it. NULL = no fault. */
const char *fault_text(const struct component *c, struct arena *a, double *ret_left_s, uint64_t *ret_hits);

#endif
