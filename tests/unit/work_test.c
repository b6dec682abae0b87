/* work.h. Run under TSan too: results cross threads. */
#include <pthread.h>
#include <signal.h>

#include "tests/unit/on_loop.h"

static pthread_t loop_thread;

static int doubles(void *arg)
{
        return pthread_equal(pthread_self(), loop_thread) ? -1 : *(int *)arg * 2;
}

ON_LOOP_TEST(runs_on_another_thread_and_returns_its_value)
{
        int v = 21;
        loop_thread = pthread_self();
        ck_assert_int_eq(work_run(doubles, &v), 42);
}

struct job {
        long n;
};

static int counts(void *arg)
{
        ((struct job *)arg)->n++;
        return 0;
}

static void works(void *arg)
{
        for (int i = 0; i < 50; i++)
                ck_assert_int_eq(work_run(counts, arg), 0);
}

ON_LOOP_TEST(many_fibers_share_the_threads)
{
        static struct job jobs[200];
        struct scope s = SCOPE_INIT(s);
        for (int i = 0; i < 200; i++)
                ck_assert_int_eq(fiber_go(&s, "works", works, &jobs[i]), 0);
        scope_join(&s);
        for (int i = 0; i < 200; i++)
                ck_assert_int_eq(jobs[i].n, 50);
}

/* A gate that holds threads until it is opened. */
static struct {
        pthread_mutex_t lock;
        pthread_cond_t opened;
        bool open;
        int inside, most;
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0, 0};

static int waits_at_gate(void *arg)
{
        pthread_mutex_lock(&gate.lock);
        gate.inside++;
        if (gate.inside > gate.most)
                gate.most = gate.inside;
        while (!gate.open)
                pthread_cond_wait(&gate.opened, &gate.lock);
        gate.inside--;
        pthread_mutex_unlock(&gate.lock);
        return 7;
}

static void open_gate(void)
{
        pthread_mutex_lock(&gate.lock);
        gate.open = true;
        pthread_cond_broadcast(&gate.opened);
        pthread_mutex_unlock(&gate.lock);
}

static int inside(void)
{
        pthread_mutex_lock(&gate.lock);
        int n = gate.inside;
        pthread_mutex_unlock(&gate.lock);
        return n;
}

static void at_gate(void *arg)
{
        int *ret = arg;
        *ret = work_run(waits_at_gate, NULL);
}

ON_LOOP_TEST(a_cancelled_caller_still_waits_for_its_work)
{
        int ret = -1;
        struct scope s = SCOPE_INIT(s);
        ck_assert_int_eq(fiber_go(&s, "gate", at_gate, &ret), 0);
        WAIT_FOR(inside() == 1);
        scope_cancel(&s);
        fiber_sleep(0.002);
        ck_assert_uint_eq(s.count, 1);
        open_gate();
        scope_join(&s);
        ck_assert_int_eq(ret, 7);
}

ON_LOOP_TEST(a_full_queue_is_refused_and_drains)
{
        enum { N = WORK_QUEUE_MAX + WORK_THREADS_DEFAULT };
        static int ret[N];
        struct scope s = SCOPE_INIT(s);
        for (int i = 0; i < N; i++) {
                ret[i] = -1;
                ck_assert_int_eq(fiber_go(&s, "gate", at_gate, &ret[i]), 0);
                if (i < WORK_THREADS_DEFAULT)
                        WAIT_FOR(inside() == i + 1); /* each thread holds one, so the queue itself fills exactly */
        }
        fiber_yield();
        ck_assert_int_eq(work_run(waits_at_gate, NULL), -EAGAIN);
        open_gate();
        scope_join(&s);
        for (int i = 0; i < N; i++)
                ck_assert_int_eq(ret[i], 7);
        ck_assert_int_eq(gate.most, WORK_THREADS_DEFAULT);
}

ON_LOOP_TEST(the_load_tells_for_how_long_no_thread_is_free)
{
        static int ret[WORK_THREADS_DEFAULT + 1];
        struct scope s = SCOPE_INIT(s);
        struct work_load w;
        for (int i = 0; i <= WORK_THREADS_DEFAULT; i++) {
                work_load(&w);
                ck_assert_int_eq(w.running, i);
                ck_assert(i < WORK_THREADS_DEFAULT ? w.full_s == 0 : w.full_s > 0);
                ck_assert_int_eq(fiber_go(&s, "gate", at_gate, &ret[i]), 0);
                WAIT_FOR(inside() == (i < WORK_THREADS_DEFAULT ? i + 1 : i));
        }
        fiber_yield();
        work_load(&w);
        ck_assert_int_eq(w.threads, WORK_THREADS_DEFAULT);
        ck_assert_int_eq(w.queued, 1);
        double full_s = w.full_s;
        fiber_sleep(0.01);
        work_load(&w);
        ck_assert_double_ge(w.full_s, full_s + 0.01);
        open_gate();
        scope_join(&s);
        WAIT_FOR((work_load(&w), w.running == 0));
        ck_assert_double_eq(w.full_s, 0);
        ck_assert_int_eq(w.queued, 0);
}

static int masks_signals(void *arg)
{
        sigset_t set;
        pthread_sigmask(SIG_SETMASK, NULL, &set);
        return sigismember(&set, SIGTERM) && sigismember(&set, SIGUSR1);
}

ON_LOOP_TEST(threads_take_no_signals)
{
        ck_assert_int_eq(work_run(masks_signals, NULL), 1);
}

ON_LOOP_TEST(the_pool_starts_again_after_its_end)
{
        int v = 4;
        work_set_threads(1);
        ck_assert_int_eq(work_run(doubles, &v), 8);
        work_fini();
        ck_assert_int_eq(work_run(doubles, &v), 8);
}

int main(void)
{
        Suite *s = suite_create("work");
        TCase *t = tcase_create("work");
        tcase_add_test(t, runs_on_another_thread_and_returns_its_value);
        tcase_add_test(t, many_fibers_share_the_threads);
        tcase_add_test(t, a_cancelled_caller_still_waits_for_its_work);
        tcase_add_test(t, a_full_queue_is_refused_and_drains);
        tcase_add_test(t, the_load_tells_for_how_long_no_thread_is_free);
        tcase_add_test(t, threads_take_no_signals);
        tcase_add_test(t, the_pool_starts_again_after_its_end);
        suite_add_tcase(s, t);
        return run_suite(s);
}
