/*
 * How many calls of a server run, counted apart by when they began, so that a server whose place another one takes can wait for those
 * that run without refusing new ones. Calls that end only when a stop asks them to (streams of the process itself) are counted by
 * themselves and never waited for.
 */
#ifndef SDK_NET_TURNS_H
#define SDK_NET_TURNS_H

#include <stddef.h>

enum { TURN_LASTING = 2 };
struct turns {
        unsigned now;        /* 0 or 1 */
        size_t running[3];   /* by turn; [TURN_LASTING] = streams that last */
};

static inline unsigned turns_enter(struct turns *t)
{
        t->running[t->now]++;
        return t->now;
}
/* True: it was the last one of its turn. */
static inline _Bool turns_leave(struct turns *t, unsigned turn)
{
        return --t->running[turn] == 0;
}
/* What begins from now on belongs to another turn. */
static inline void turns_next(struct turns *t)
{
        t->now ^= 1;
}
/* Calls of the turn before, and of the present one. */
static inline size_t turns_before(const struct turns *t)
{
        return t->running[t->now ^ 1];
}
static inline size_t turns_present(const struct turns *t)
{
        return t->running[t->now];
}

#endif
