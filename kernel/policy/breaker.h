/*
 * A circuit breaker, with the states and counts of github.com/sony/gobreaker.
 *
 *   CLOSED ──trip expression true after a failure──> OPEN ──timeout──> HALF_OPEN ──max_requests successes──> CLOSED
 *                                                     ^──────────────── a failure ─────┘
 *
 * Counts start anew at each change of state and, while closed, every interval. An outcome that belongs to earlier counts is dropped.
 * Times are seconds of any clock that does not go back.
 */
#ifndef KERNEL_POLICY_BREAKER_H
#define KERNEL_POLICY_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/policy/cel.h"
#include "sdk/base/list.h"
#include "sdk/base/map.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, BREAKER_STATES };
const char *breaker_state_name(enum breaker_state s); /* "closed", "half-open", "open" */

struct breaker_conf {
        const char *name;
        uint32_t max_requests;         /* 0 counts as 1 */
        int64_t interval_ns, timeout_ns; /* interval <= 0: never; timeout <= 0: 60 s */
        struct cel *trip;              /* NULL: more than five failures in a row */
};
struct breaker_counts {
        uint32_t requests, successes, failures, successes_in_row, failures_in_row;
};
struct breaker {
        const struct breaker_conf *conf;
        struct str name;               /* its key in a cache, and in log lines; owned */
        enum breaker_state state;
        struct breaker_counts counts;
        uint64_t generation;
        double expiry;                 /* INFINITY = none */
        unsigned refs;
        struct list lru;               /* in a breaker_cache */
};
/* One reference; NULL without memory. conf is kept. */
struct breaker *breaker_new(const struct breaker_conf *conf, struct str name, double now);
struct breaker *breaker_ref(struct breaker *b);
void breaker_unref(struct breaker *b); /* NULL is fine */
enum breaker_state breaker_state(struct breaker *b, double now);
enum breaker_verdict { BREAKER_PASS, BREAKER_REFUSED_OPEN, BREAKER_REFUSED_TOO_MANY };
/* BREAKER_PASS and *ret_generation, to be given to breaker_done(). */
enum breaker_verdict breaker_begin(struct breaker *b, double now, uint64_t *ret_generation);
void breaker_done(struct breaker *b, double now, uint64_t generation, bool ok);

/* Breakers by key; the one that was used longest ago goes when there are too many. Zero value: holds none. */
struct breaker_cache {
        struct map map;
        struct list lru;  /* used last in front */
        size_t max;
};
void breaker_cache_init(struct breaker_cache *c, size_t max);
void breaker_cache_fini(struct breaker_cache *c);
/* The breaker of a key, made when there is none; borrowed. NULL without memory. */
struct breaker *breaker_cache_get(struct breaker_cache *c, struct str key, const struct breaker_conf *conf, double now);

#endif
