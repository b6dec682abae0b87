/* Exchanging instances under running calls; inside the supervisor. What the kernel sees of it stands in super.h. */
#ifndef KERNEL_SUPER_SWAP_H
#define KERNEL_SUPER_SWAP_H

#include "kernel/super/plugin.h"

enum { SHADOW_CALLS_MAX = 64, SHADOW_EXAMPLE_BYTES = 200 };

/* A plugin's process is in trouble; from the loop's stack. Calls go back to an instance that stands by, if there is one. */
void swap_plugin_lost(struct plugin *p);

/* No roll-back any more to the one before: it goes. */
void swap_standby_over(struct component *c);

/* ---- shadow.c ---- */
struct shadow {
        struct component *c;
        struct instance *candidate;
        struct scope scope;
        unsigned running;
        uint64_t reads, differences;
        char example[SHADOW_EXAMPLE_BYTES]; /* of the first difference */
};
/* A call of c has been answered: is it a read, the candidate is asked too, in the background. */
void shadow_call(struct component *c, const char *method, struct str req, int code, struct str resp);
/* Sends c's reads to the candidate as well for so long, or until it is of no use any more. Parks. */
void shadow_run(struct shadow *s, double seconds);

#endif
