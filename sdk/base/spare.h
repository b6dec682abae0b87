/*
 * Spare memory: what pools keep for the next one, and what the allocator keeps of what was freed. One timer looks after it, and
 * runs only while there is something to look at. What a pool did not need since the last look goes, down to what it always keeps;
 * when the process has worked and become quiet, the allocator's free pages go back to the system. The loop thread only.
 */
#ifndef SDK_BASE_SPARE_H
#define SDK_BASE_SPARE_H

#include <stdbool.h>
#include <stddef.h>

enum {
        SPARE_LOOK_MS = 1000,
        SPARE_DROP_MAX = 512,   /* of one pool at a look, so that the loop is not held up */
        SPARE_QUIET_PERCENT = 5, /* of a CPU at most since the last look: it is quiet */
        SPARE_WORK_MS = 100,    /* of CPU time at least since pages went back last: it is worth it again */
};

/* One pool; embedded by value, with keep and drop set. */
struct spare {
        size_t keep;                   /* so many are never given back */
        void (*drop)(struct spare *s); /* frees one that lies in the pool */
        size_t count, low;             /* in the pool: now, and fewest at any time since the last look */
        struct spare *next;
        bool known;
};
void spare_put(struct spare *s);   /* one more lies in the pool */
void spare_taken(struct spare *s); /* one was taken out */
void spare_drop(struct spare *s);  /* drops all and forgets the pool until the next one is put */
void spare_fini(void);             /* of the loop: no look any more */
size_t spare_trims(void);          /* how often the allocator's pages were given back */

#endif
