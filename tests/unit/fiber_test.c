/* fiber.h: life, parking, deadlines, cancelling, shields, scopes, primitives, stacks. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "sdk/base/log.h"
#include "tests/unit/on_loop.h"

static char trace[256];

static void note(char c)
{
        size_t n = strlen(trace);
        ck_assert_uint_lt(n + 1, sizeof(trace));
        trace[n] = c;
        trace[n + 1] = '\0';
}

/* Sanitizers report the fault themselves. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GUARD_RAISES = 0 };
#else
enum { GUARD_RAISES = 1 };
#endif

#define GO(s, fn, arg) ck_assert_int_eq(fiber_go(s, #fn, fn, arg), 0)

/* ---- life ---- */

static void noter(void *arg)
{
        note(*(char *)arg);
}

ON_LOOP_TEST(fibers_start_after_the_caller_parks_in_order)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, noter, "a");
        GO(&s, noter, "b");
        note('0');
        scope_join(&s);
        ck_assert_str_eq(trace, "0ab");
        ck_assert_str_eq(fiber_name(fiber_self()), "test");
}

static void yielder(void *arg)
{
        for (int i = 0; i < 3; i++) {
                note(*(char *)arg);
                ck_assert_int_eq(fiber_yield(), 0);
        }
}

ON_LOOP_TEST(yield_lets_others_run_once)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, yielder, "a");
        GO(&s, yielder, "b");
        scope_join(&s);
        ck_assert_str_eq(trace, "ababab");
}

static void nothing(void *arg)
{
        ++*(long *)arg;
}

ON_LOOP_TEST(a_hundred_thousand_short_fibers_reuse_stacks)
{
        long n = 0;
        struct scope s = SCOPE_INIT(s);
        for (int i = 0; i < 1000; i++) {
                for (int j = 0; j < 100; j++)
                        GO(&s, nothing, &n);
                scope_join(&s);
        }
        ck_assert_int_eq(n, 100000);
        ck_assert_uint_eq(fiber_count(), 1);
}

ON_LOOP_TEST(the_limit_of_fibers_is_an_error_and_passes)
{
        long n = 0;
        struct scope s = SCOPE_INIT(s);
        size_t old = fiber_limit();
        ck_assert_uint_gt(old, 1000);
        ck_assert_uint_le(old, FIBER_MAX);
        fiber_set_limit(10);
        for (int i = 0; i < 9; i++)
                GO(&s, nothing, &n);
        ck_assert_int_eq(fiber_go(&s, "one too many", nothing, &n), -EAGAIN);
        scope_join(&s);
        GO(&s, nothing, &n);
        scope_join(&s);
        ck_assert_int_eq(n, 10);
        fiber_set_limit(old);
}

static void parks_until_cancelled(void *arg)
{
        ck_assert_int_eq(fiber_park(), -ECANCELED);
        ++*(long *)arg;
}

ON_LOOP_TEST(ten_thousand_fibers_park_at_once)
{
        size_t count = fiber_limit() > 10000 ? 10000 : fiber_limit() - 1;
        size_t n = 0;
        struct scope s = SCOPE_INIT(s);
        for (size_t i = 0; i < count; i++)
                GO(&s, parks_until_cancelled, &n);
        fiber_yield();
        ck_assert_uint_eq(fiber_count(), count + 1);
        scope_cancel(&s);
        scope_join(&s);
        ck_assert_uint_eq(n, count);
}

/* ---- parking ---- */

ON_LOOP_TEST(a_wake_before_the_park_is_not_lost)
{
        fiber_wake(fiber_self());
        fiber_wake(fiber_self());
        ck_assert_int_eq(fiber_park(), 0);
        ck_assert_int_eq(fiber_park_until(loop_now() + 0.001), -ETIMEDOUT);
}

static void wakes(void *arg)
{
        fiber_wake(arg);
        note('w');
}

ON_LOOP_TEST(a_wake_only_queues)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, wakes, fiber_self());
        ck_assert_int_eq(fiber_park(), 0);
        note('p');
        ck_assert_str_eq(trace, "wp");
        scope_join(&s);
}

static void post_wake(void *arg)
{
        fiber_wake(arg);
}

ON_LOOP_TEST(callbacks_of_the_loop_may_wake)
{
        loop_post(post_wake, fiber_self());
        ck_assert_int_eq(fiber_park(), 0);
}

ON_LOOP_TEST(a_wake_during_yield_is_kept)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, wakes, fiber_self());
        ck_assert_int_eq(fiber_yield(), 0);
        ck_assert_str_eq(trace, "w");
        ck_assert_int_eq(fiber_park_until(loop_now() + 1), 0);
        scope_join(&s);
}

/* ---- deadlines ---- */

ON_LOOP_TEST(a_passed_deadline_ends_parks)
{
        double old = fiber_set_deadline(loop_now() + 0.005);
        double t = loop_now_exact();
        ck_assert_int_eq(fiber_park(), -ETIMEDOUT);
        ck_assert(loop_now_exact() - t >= 0.0049);
        ck_assert_int_eq(fiber_park(), -ETIMEDOUT);
        ck_assert_int_eq(fiber_sleep(1), -ETIMEDOUT);
        ck_assert_int_eq(fiber_yield(), -ETIMEDOUT);
        fiber_restore_deadline(old);
        ck_assert_int_eq(fiber_sleep(0.001), 0);
}

ON_LOOP_TEST(an_inner_deadline_never_extends_the_outer)
{
        double outer = loop_now() + 5, old = fiber_set_deadline(outer);
        ck_assert(fiber_set_deadline(loop_now() + 50) == outer);
        ck_assert(fiber_deadline() == outer);
        double inner = loop_now() + 1;
        ck_assert(fiber_set_deadline(inner) == outer);
        ck_assert(fiber_deadline() == inner);
        fiber_restore_deadline(outer);
        ck_assert(fiber_deadline() == outer);
        fiber_restore_deadline(old);
}

static void sleeper(void *arg)
{
        double s = *(double *)arg, t = loop_now();
        ck_assert_int_eq(fiber_sleep(s), 0);
        ck_assert(loop_now_exact() - t >= s - 0.0001);
        note((char)('0' + (int)lround(s * 200)));
}

ON_LOOP_TEST(sleepers_wake_in_the_order_of_their_deadlines)
{
        static double d[] = {0.025, 0.005, 0.04, 0.01, 0.035, 0.02, 0.015, 0.03};
        struct scope s = SCOPE_INIT(s);
        for (size_t i = 0; i < sizeof(d) / sizeof(*d); i++)
                GO(&s, sleeper, &d[i]);
        scope_join(&s);
        ck_assert_str_eq(trace, "12345678");
}

static void many_deadlines(void *arg)
{
        unsigned x = (unsigned)(uintptr_t)arg;
        for (int i = 0; i < 20; i++) {
                x = x * 1103515245 + 12345;
                double at = loop_now() + (x >> 16) % 16 * 0.001, old = fiber_set_deadline(loop_now() + 60);
                if (x >> 20 & 1)
                        fiber_wake(fiber_self());
                int r = fiber_park_until(at);
                ck_assert(r == 0 || (r == -ETIMEDOUT && loop_now_exact() >= at - 0.0001));
                fiber_restore_deadline(old);
        }
}

ON_LOOP_TEST(no_deadline_is_lost_or_early_among_many)
{
        struct scope s = SCOPE_INIT(s);
        for (int round = 0; round < 2; round++) {
                for (uintptr_t i = 0; i < 300; i++)
                        GO(&s, many_deadlines, (void *)(i * 77 + 1));
                scope_join(&s);
        }
}

static struct cond never;

static void waits_with_late_deadline(void *arg)
{
        /* The early entry in the heap comes up while this fiber waits for later. */
        fiber_set_deadline(loop_now() + 0.002);
        fiber_wake(fiber_self());
        ck_assert_int_eq(fiber_park(), 0);
        fiber_restore_deadline(INFINITY);
        double at = loop_now() + 0.01;
        ck_assert_int_eq(cond_wait_until(&never, at), -ETIMEDOUT);
        ck_assert(loop_now_exact() >= at - 0.0001);
        ck_assert_int_eq(fiber_park_until(loop_now() + 0.001), -ETIMEDOUT);
}

ON_LOOP_TEST(a_deadline_can_move_both_ways)
{
        struct scope s = SCOPE_INIT(s);
        cond_init(&never);
        GO(&s, waits_with_late_deadline, NULL);
        scope_join(&s);
}

/* ---- cancelling and shields ---- */

static void cancelled_body(void *arg)
{
        ck_assert(!fiber_is_cancelled());
        ck_assert_int_eq(fiber_park(), -ECANCELED);
        ck_assert(fiber_is_cancelled());
        ck_assert_int_eq(fiber_park(), -ECANCELED);
        ck_assert_int_eq(fiber_sleep(1), -ECANCELED);
        fiber_shield_begin();
        fiber_shield_begin();
        ck_assert(!fiber_is_cancelled());
        ck_assert_int_eq(fiber_sleep(0.001), 0);
        fiber_shield_end();
        ck_assert_int_eq(fiber_yield(), 0);
        fiber_shield_end();
        ck_assert_int_eq(fiber_yield(), -ECANCELED);
        note('c');
}

ON_LOOP_TEST(cancel_is_sticky_and_respects_shields)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, cancelled_body, NULL);
        fiber_yield();
        scope_cancel(&s);
        ck_assert_int_eq(fiber_go(&s, "late", noter, "x"), -ECANCELED);
        scope_join(&s);
        ck_assert_str_eq(trace, "c");
}

static struct fiber *shielded;

static void shielded_body(void *arg)
{
        bool *go = arg;
        shielded = fiber_self();
        fiber_set_deadline(loop_now() + 0.001);
        fiber_shield_begin();
        while (!*go)
                ck_assert_int_eq(fiber_park(), 0);
        fiber_shield_end();
        ck_assert_int_eq(fiber_park(), -ECANCELED);
        note('s');
}

ON_LOOP_TEST(a_shielded_park_outlasts_cancel_and_deadline)
{
        struct scope s = SCOPE_INIT(s);
        bool go = false;
        GO(&s, shielded_body, &go);
        fiber_yield();
        scope_cancel(&s);
        ck_assert_int_eq(fiber_sleep(0.005), 0);
        ck_assert_str_eq(trace, "");
        go = true;
        fiber_wake(shielded);
        scope_join(&s);
        ck_assert_str_eq(trace, "s");
}

/* ---- scopes ---- */

static void joins_children(void *arg)
{
        long n = 0;
        struct scope s = SCOPE_INIT(s);
        for (int i = 0; i < 3; i++)
                GO(&s, parks_until_cancelled, &n);
        scope_join(&s);
        ck_assert_int_eq(n, 3);
        note('j');
}

ON_LOOP_TEST(cancelling_a_joiner_cancels_what_it_waits_for)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, joins_children, NULL);
        fiber_yield();
        ck_assert_uint_eq(fiber_count(), 5);
        scope_cancel(&s);
        scope_join(&s);
        ck_assert_str_eq(trace, "j");
}

static void joins_with_deadline(void *arg)
{
        fiber_set_deadline(loop_now() + 0.002);
        joins_children(NULL);
        ck_assert_int_eq(fiber_park(), -ETIMEDOUT);
}

ON_LOOP_TEST(the_deadline_of_a_joiner_cancels_what_it_waits_for)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, joins_with_deadline, NULL);
        scope_join(&s);
        ck_assert_str_eq(trace, "j");
}

ON_LOOP_TEST(a_cancelled_fiber_that_joins_does_not_hang)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, joins_children, NULL);
        scope_cancel(&s); /* before it ran */
        ck_assert_uint_eq(s.count, 1);
        scope_join(&s);
        ck_assert_str_eq(trace, "j");
}

ON_LOOP_TEST(locals_belong_to_the_fiber)
{
        struct scope s = SCOPE_INIT(s);
        fiber_set_local(&s);
        GO(&s, yielder, "a");
        fiber_yield();
        ck_assert_ptr_eq(fiber_local(), &s);
        fiber_set_local(NULL);
        scope_join(&s);
}

/* ---- primitives ---- */

static struct cond cond;

static void cond_waiter(void *arg)
{
        note(cond_wait(&cond) == 0 ? *(char *)arg : '!');
}

ON_LOOP_TEST(cond_signal_serves_the_longest_waiter_and_broadcast_all)
{
        struct scope s = SCOPE_INIT(s);
        cond_init(&cond);
        cond_signal(&cond); /* nobody waits: nothing is kept */
        GO(&s, cond_waiter, "a");
        GO(&s, cond_waiter, "b");
        GO(&s, cond_waiter, "c");
        fiber_yield();
        cond_signal(&cond);
        fiber_yield();
        ck_assert_str_eq(trace, "a");
        cond_broadcast(&cond);
        scope_join(&s);
        ck_assert_str_eq(trace, "abc");
        ck_assert_int_eq(cond_wait_until(&cond, loop_now() + 0.001), -ETIMEDOUT);
        ck_assert(list_is_empty(&cond.waiters));
}

ON_LOOP_TEST(a_signal_outranks_a_cancel_that_comes_after_it)
{
        struct scope s = SCOPE_INIT(s);
        cond_init(&cond);
        GO(&s, cond_waiter, "a");
        fiber_yield();
        cond_signal(&cond);
        scope_cancel(&s);
        scope_join(&s);
        ck_assert_str_eq(trace, "a");
}

static struct fmutex mutex;

static void locker(void *arg)
{
        int r = fmutex_lock(&mutex);
        note(r ? '!' : *(char *)arg);
        if (r)
                return;
        fiber_yield();
        note(*(char *)arg);
        fmutex_unlock(&mutex);
}

ON_LOOP_TEST(a_mutex_is_held_by_one_and_handed_over_in_order)
{
        struct scope s = SCOPE_INIT(s), impatient = SCOPE_INIT(impatient);
        fmutex_init(&mutex);
        GO(&s, locker, "a");
        GO(&s, locker, "b");
        GO(&impatient, locker, "x");
        GO(&s, locker, "c");
        fiber_yield();
        scope_cancel(&impatient);
        scope_join(&impatient);
        scope_join(&s);
        ck_assert_str_eq(trace, "aa!bbcc");
        ck_assert_ptr_null(mutex.owner);
}

static struct fsem sem;

static void taker(void *arg)
{
        note(fsem_take(&sem) == 0 ? *(char *)arg : '!');
}

ON_LOOP_TEST(a_semaphore_lets_as_many_through_as_it_counts)
{
        struct scope s = SCOPE_INIT(s);
        fsem_init(&sem, 2);
        GO(&s, taker, "a");
        GO(&s, taker, "b");
        GO(&s, taker, "c");
        fiber_yield();
        ck_assert_str_eq(trace, "ab");
        fsem_give(&sem);
        scope_join(&s);
        ck_assert_str_eq(trace, "abc");
        fsem_give(&sem);
        ck_assert_int_eq(sem.count, 1);
}

static struct chan chan;
static uintptr_t received;

static void receiver(void *arg)
{
        void *p;
        int r;
        while ((r = chan_recv(&chan, &p)) == 0)
                received += (uintptr_t)p;
        ck_assert_int_eq(r, -EPIPE);
}

ON_LOOP_TEST(a_channel_carries_everything_and_stops_its_sender)
{
        struct scope s = SCOPE_INIT(s);
        received = 0;
        ck_assert_int_eq(chan_init(&chan, 4), 0);
        for (uintptr_t i = 0; i < 4; i++)
                ck_assert_int_eq(chan_try_send(&chan, (void *)i), 0);
        ck_assert_int_eq(chan_try_send(&chan, NULL), -EAGAIN);
        double old = fiber_set_deadline(loop_now() + 0.001);
        ck_assert_int_eq(chan_send(&chan, NULL), -ETIMEDOUT);
        fiber_restore_deadline(old);
        GO(&s, receiver, NULL);
        GO(&s, receiver, NULL);
        for (uintptr_t i = 4; i <= 10000; i++)
                ck_assert_int_eq(chan_send(&chan, (void *)i), 0);
        chan_close(&chan);
        ck_assert_int_eq(chan_send(&chan, NULL), -EPIPE);
        scope_join(&s);
        ck_assert_uint_eq(received, 10000u * 10001 / 2);
        chan_fini(&chan);
}

/* ---- stacks ---- */

struct depth {
        void (*fn)(void);
        size_t used;
};

static void prints_nothing(void)
{
}

static char out[64];
static volatile double third = 1.0 / 3;

static void prints_a_double(void)
{
        snprintf(out, sizeof(out), "%.17g", third);
}

static void logs_a_double(void)
{
        log_error("test", "%.17g", third);
}

static void measures(void *arg)
{
        struct depth *d = arg;
        d->fn();
        d->used = fiber_stack_used();
}

/* Big stacks are used by nothing else in this process, and small needs are measured first. */
static size_t depth_of(void (*fn)(void))
{
        struct scope s = SCOPE_INIT(s);
        struct depth d = {.fn = fn};
        ck_assert_int_eq(fiber_go_flags(&s, "depth", FIBER_BIG, measures, &d), 0);
        scope_join(&s);
        return d.used;
}

ON_LOOP_TEST(printing_a_double_fits_a_small_stack_many_times)
{
        size_t empty = depth_of(prints_nothing), full = depth_of(prints_a_double);
        ck_assert_str_eq(out, "0.33333333333333331");
        ck_assert_uint_gt(empty, 0);
        ck_assert_uint_ge(full, empty);
        ck_assert_uint_lt(full, FIBER_STACK_BYTES / 2);
        printf("stack: empty fiber %zu, snprintf(\"%%.17g\") %zu bytes more\n", empty, full - empty);
}

static void uses_much(void *arg)
{
        size_t n = *(size_t *)arg;
        volatile char *low = (volatile char *)__builtin_frame_address(0) - n;
        for (size_t i = 64; i < n - 4096; i += 1024)
                low[n - 4096 - i] = 1;
}

static void logging_main(void *arg)
{
        ck_assert_uint_lt(depth_of(logs_a_double), FIBER_STACK_BYTES / 4);
}

START_TEST(logging_fits_a_small_stack_many_times)
{
        ck_assert_int_eq(log_to_file("/dev/null"), 0);
        on_loop(logging_main);
}
END_TEST

ON_LOOP_TEST(a_big_fiber_has_a_big_stack)
{
        struct scope s = SCOPE_INIT(s);
        size_t n = FIBER_BIG_STACK_BYTES - 16 * 1024;
        ck_assert_int_eq(fiber_go_flags(&s, "big", FIBER_BIG, uses_much, &n), 0);
        scope_join(&s);
}

static void overflows(void *arg)
{
        volatile char *p = (volatile char *)__builtin_frame_address(0);
        for (size_t i = 8192; i <= FIBER_STACK_BYTES + 4096; i += 1024)
                p[-(ptrdiff_t)i] = 1;
}

static void overflow_main(void *arg)
{
        struct scope s = SCOPE_INIT(s);
        GO(&s, overflows, NULL);
        scope_join(&s);
}

START_TEST(an_overflow_hits_the_guard_page)
{
        on_loop(overflow_main);
}
END_TEST

static void setup(void)
{
        trace[0] = '\0';
}

int main(void)
{
        Suite *s = suite_create("fiber");
        TCase *t = tcase_create("fiber");
        tcase_add_checked_fixture(t, setup, NULL);
        tcase_add_test(t, fibers_start_after_the_caller_parks_in_order);
        tcase_add_test(t, yield_lets_others_run_once);
        tcase_add_test(t, a_hundred_thousand_short_fibers_reuse_stacks);
        tcase_add_test(t, the_limit_of_fibers_is_an_error_and_passes);
        tcase_add_test(t, ten_thousand_fibers_park_at_once);
        tcase_add_test(t, a_wake_before_the_park_is_not_lost);
        tcase_add_test(t, a_wake_only_queues);
        tcase_add_test(t, callbacks_of_the_loop_may_wake);
        tcase_add_test(t, a_wake_during_yield_is_kept);
        tcase_add_test(t, a_passed_deadline_ends_parks);
        tcase_add_test(t, an_inner_deadline_never_extends_the_outer);
        tcase_add_test(t, sleepers_wake_in_the_order_of_their_deadlines);
        tcase_add_test(t, no_deadline_is_lost_or_early_among_many);
        tcase_add_test(t, a_deadline_can_move_both_ways);
        tcase_add_test(t, cancel_is_sticky_and_respects_shields);
        tcase_add_test(t, a_shielded_park_outlasts_cancel_and_deadline);
        tcase_add_test(t, cancelling_a_joiner_cancels_what_it_waits_for);
        tcase_add_test(t, the_deadline_of_a_joiner_cancels_what_it_waits_for);
        tcase_add_test(t, a_cancelled_fiber_that_joins_does_not_hang);
        tcase_add_test(t, locals_belong_to_the_fiber);
        tcase_add_test(t, cond_signal_serves_the_longest_waiter_and_broadcast_all);
        tcase_add_test(t, a_signal_outranks_a_cancel_that_comes_after_it);
        tcase_add_test(t, a_mutex_is_held_by_one_and_handed_over_in_order);
        tcase_add_test(t, a_semaphore_lets_as_many_through_as_it_counts);
        tcase_add_test(t, a_channel_carries_everything_and_stops_its_sender);
        tcase_add_test(t, printing_a_double_fits_a_small_stack_many_times);
        tcase_add_test(t, logging_fits_a_small_stack_many_times);
        tcase_add_test(t, a_big_fiber_has_a_big_stack);
        suite_add_tcase(s, t);
        if (GUARD_RAISES) {
                t = tcase_create("guard");
                tcase_add_test_raise_signal(t, an_overflow_hits_the_guard_page, SIGSEGV);
                suite_add_tcase(s, t);
        }
        return run_suite(s);
}
