/* Exchanging instances under running calls; inside the supervisor. What the kernel sees of it stands in super.h. */
#ifndef KERNEL_SUPER_SWAP_H
#define KERNEL_SUPER_SWAP_H

#include "kernel/super/plugin.h"

enum { SHADOW_CALLS_MAX = 64, SHADOW_EXAMPLE_BYTES = 200, SHADOW_BUCKETS = 96, SHADOW_SAMPLES = 8 };

/* When a candidate is called slower, and when it is said to leak. */
enum {
        SHADOW_SLOWER_P50_FACTOR = 3, /* its p50 is so many times that of the present one ... */
        SHADOW_SLOWER_P50_MS = 5,     /* ... and more than so much above it */
        SHADOW_SLOWER_P99_FACTOR = 5, /* or its p99, of which a busy machine has its share */
        SHADOW_SLOWER_P99_MS = 50,
        SHADOW_SLOWER_PARTS = 5,      /* ... in so many of the SHADOW_SAMPLES parts of the time: it did not stop only once */
        SHADOW_P50_READS = 4,         /* of fewer reads in a part nothing is said; */
        SHADOW_P99_READS = 100,
        SHADOW_WARM_READS = 16,       /* the first ones do not count */
        SHADOW_LEAK_MIB = 8,          /* so much grown in the second half of the time, ... */
        SHADOW_LEAK_WINDOW_S = 2,     /* ... which must be this long, and in each quarter of that half */
};

/* A plugin's process is in trouble; from the loop's stack. Calls go back to an instance that stands by, if there is one. */
void swap_plugin_lost(struct plugin *p);

/* No roll-back any more to the one before: it goes. */
void swap_standby_over(struct component *c);

/* ---- shadow.c ---- */
/* How long answers took; buckets grow by a fifth each. */
struct shadow_times {
        uint64_t n;
        uint32_t buckets[SHADOW_BUCKETS];
};
void shadow_times_add(struct shadow_times *t, double seconds);
double shadow_times_ms(const struct shadow_times *t, double share); /* 0.99: so that 99 % were faster; 0 without any */

struct shadow {
        struct component *c;
        struct instance *candidate;
        unsigned life;                       /* of its process, when this began */
        struct scope scope;
        unsigned running;
        uint64_t asked;                      /* comparisons begun */
        uint64_t reads, differences;         /* compared ones; those under constant writes cannot be */
        char example[SHADOW_EXAMPLE_BYTES]; /* of the first difference */
        size_t sample;                       /* the part of the time that it is in */
        struct shadow_times theirs[SHADOW_SAMPLES], present[SHADOW_SAMPLES]; /* of the reads that were compared */
        double seconds;                      /* that it lasted */
        uint64_t memory[2][SHADOW_SAMPLES + 1]; /* bytes in use by [0] the candidate's process, [1] the present one's */
};
/* A call of c has been answered after so many seconds: is it a read, the candidate is asked too, in the background. */
void shadow_call(struct component *c, const char *method, struct str req, int code, struct str resp, double seconds);
/* Sends c's reads to the candidate as well for so long, or until it is of no use any more. Parks. */
void shadow_run(struct shadow *s, double seconds);
/* Of the whole time. */
double shadow_ms(const struct shadow_times parts[SHADOW_SAMPLES], double share);
/* Why it must not serve, in a; NULL: it may. -EBADMSG's text. */
const char *shadow_verdict(const struct shadow *s, struct arena *a);
/* How far its process has grown, in MiB; negative: it has shrunk. */
double shadow_growth_mib(const struct shadow *s);

#endif
