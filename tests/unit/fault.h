/*
 * Fails allocations on purpose: the one fault injector of the unit tests. Link with $(FAULT_LD). Include in one file per program.
 *
 *   static bool run(void *arg) { ...whichever allocation fails... return true when it behaved; }
 *   long n = fault_each(run, NULL);
 *
 * runs it with the first allocation failing, then the second and so on until a run meets no failure, and the same again with
 * that allocation and all after it failing. Returns how many allocations a whole run makes. run() must not call ck_assert:
 * Check allocates itself.
 */
#ifndef TESTS_UNIT_FAULT_H
#define TESTS_UNIT_FAULT_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

static struct {
        bool on, sticky;
        long countdown, hits;
} fault;

static bool fault_hit(void)
{
        if (!fault.on)
                return false;
        if (fault.countdown > 0 && --fault.countdown > 0)
                return false;
        if (fault.hits && !fault.sticky)
                return false;
        fault.hits++;
        return true;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
        return fault_hit() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t m)
{
        return fault_hit() ? NULL : __real_calloc(n, m);
}
void *__wrap_realloc(void *p, size_t n)
{
        return fault_hit() ? NULL : __real_realloc(p, n);
}

/* True when the nth allocation (from 1) was reached and failed. */
static inline bool fault_nth(bool (*run)(void *), void *arg, long nth, bool sticky)
{
        fault.countdown = nth;
        fault.hits = 0;
        fault.sticky = sticky;
        fault.on = true;
        bool ok = run(arg);
        fault.on = false;
        ck_assert_msg(ok, "misbehaves when allocation %ld fails%s", nth, sticky ? " and all after it" : "");
        return fault.hits > 0;
}

static inline long fault_each(bool (*run)(void *), void *arg)
{
        long n = 1;
        while (fault_nth(run, arg, n, false))
                n++;
        for (long i = 1; i < n; i++)
                fault_nth(run, arg, i, true);
        return n - 1;
}

#endif
