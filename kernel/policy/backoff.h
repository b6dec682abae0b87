/*
 * How long to wait before the next try, as github.com/cenkalti/backoff/v4: a constant time, or one that grows by a factor up to a
 * greatest, with jitter, until a total time has passed.
 */
#ifndef KERNEL_POLICY_BACKOFF_H
#define KERNEL_POLICY_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

struct backoff_conf {
        bool exponential;
        int64_t duration_ns;        /* constant */
        int64_t initial_ns, max_interval_ns, max_elapsed_ns; /* exponential; max_elapsed 0 = for ever */
        double multiplier, jitter;
        int64_t max_retries;        /* < 0: no limit */
};
struct backoff {
        const struct backoff_conf *conf;
        int64_t current_ns, tries;
        double began;
};
enum { BACKOFF_STOP = -1 };

void backoff_init(struct backoff *b, const struct backoff_conf *conf, double now);
/* Nanoseconds to wait, or BACKOFF_STOP. random: 0 <= random < 1. */
int64_t backoff_next(struct backoff *b, double now, double random);

#endif
