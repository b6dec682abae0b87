/* loop.h */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "tests/unit/on_loop.h"

static char trace[64];

static void note(char c)
{
        size_t n = strlen(trace);
        ck_assert_uint_lt(n + 1, sizeof(trace));
        trace[n] = c;
        trace[n + 1] = '\0';
}

static void setup(void)
{
        trace[0] = '\0';
        ck_assert_int_eq(loop_init(), 0);
}

static void teardown(void)
{
        loop_fini();
}

static void stop_cb(struct timer *t)
{
        loop_stop();
}

/* A turn of the loop: events, then fibers, then defers. */

static struct defer flush;
static struct scope scope;

static void flush_cb(struct defer *d)
{
        note('d');
        loop_stop();
}

static void fiber_body(void *arg)
{
        note('f');
        defer_run(&flush);
}

static void readable_cb(struct io_watch *w, int events)
{
        ck_assert_int_eq(events, IO_READ);
        note('e');
        io_watch_stop(w);
        defer_run(&flush);
        defer_run(&flush);
        ck_assert_int_eq(fiber_go(&scope, "f", fiber_body, NULL), 0);
        ck_assert_str_eq(trace, "e");
}

START_TEST(a_turn_runs_events_then_fibers_then_defers)
{
        int fd[2];
        struct io_watch w = {0};
        scope_init(&scope);
        flush = (struct defer){.cb = flush_cb};
        ck_assert_int_eq(pipe(fd), 0);
        io_watch_init(&w, fd[0], readable_cb);
        io_watch_set(&w, IO_READ);
        ck_assert_int_eq(write(fd[1], "x", 1), 1);
        loop_run();
        ck_assert_str_eq(trace, "efd");
        close(fd[0]);
        close(fd[1]);
}
END_TEST

static int portions_left;

static void portion_flush_cb(struct defer *d)
{
        note('d');
        if (!portions_left)
                loop_stop();
}

static void portion_fiber(void *arg)
{
        note('f');
        portions_left--;
        defer_run(&flush);
}

static void portion_readable_cb(struct io_watch *w, int events)
{
        note('e');
        io_watch_stop(w);
        ck_assert_int_eq(fiber_go(&scope, "f", portion_fiber, NULL), 0);
}

/* What a burst's first events lead to leaves before its last events are looked at. */
START_TEST(a_burst_is_handled_in_portions)
{
        enum { N = 8 };
        int fd[N][2];
        struct io_watch w[N] = {0};
        scope_init(&scope);
        flush = (struct defer){.cb = portion_flush_cb};
        portions_left = N;
        for (int i = 0; i < N; i++) {
                ck_assert_int_eq(pipe(fd[i]), 0);
                io_watch_init(&w[i], fd[i][0], portion_readable_cb);
                io_watch_set(&w[i], IO_READ);
                ck_assert_int_eq(write(fd[i][1], "x", 1), 1);
        }
        loop_run();
        ck_assert_str_eq(trace, "eeffdeeeeffffdeeffd");
        for (int i = 0; i < N; i++) {
                close(fd[i][0]);
                close(fd[i][1]);
        }
}
END_TEST

static struct defer again;
static struct timer timer;
static int runs;

static void again_cb(struct defer *d)
{
        runs++;
        defer_run(d);
}

START_TEST(a_defer_that_queues_itself_does_not_starve_timers)
{
        runs = 0;
        again = (struct defer){.cb = again_cb};
        defer_run(&again);
        timer_init(&timer, stop_cb);
        timer_start(&timer, 0.01, 0);
        loop_run();
        ck_assert_int_gt(runs, 1);
        defer_cancel(&again);
}
END_TEST

static struct defer first, second, third;

static void cancel_second_cb(struct defer *d)
{
        note('1');
        defer_cancel(&second);
        defer_cancel(&second);
}

static void never_cb(struct defer *d)
{
        note('x');
}

START_TEST(a_cancelled_defer_does_not_run)
{
        first = (struct defer){.cb = cancel_second_cb};
        second = (struct defer){.cb = never_cb};
        third = (struct defer){.cb = flush_cb};
        defer_run(&first);
        defer_run(&second);
        defer_run(&third);
        loop_run();
        ck_assert_str_eq(trace, "1d");
}
END_TEST

/* Descriptors. */

static int pair[2];

static void writable_cb(struct io_watch *w, int events)
{
        note(events == IO_WRITE ? 'w' : events == IO_READ ? 'r' : 'b');
        if (events == IO_WRITE) {
                ck_assert_int_eq(write(pair[1], "x", 1), 1);
                io_watch_set(w, IO_READ);
                io_watch_set(w, IO_READ);
                return;
        }
        io_watch_set(w, 0);
        loop_stop();
}

START_TEST(io_interest_can_be_changed_and_stopped)
{
        struct io_watch w = {0};
        io_watch_stop(&w);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        io_watch_init(&w, pair[0], writable_cb);
        io_watch_set(&w, IO_WRITE);
        loop_run();
        ck_assert_str_eq(trace, "wr");
        io_watch_stop(&w);
        close(pair[0]);
        close(pair[1]);
}
END_TEST

static void hello_cb(struct io_watch *w, int events)
{
        note('h');
        loop_stop();
}

START_TEST(a_reused_descriptor_number_is_watched_anew)
{
        struct io_watch w = {0};
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(pipe(pair), 0);
                io_watch_init(&w, pair[0], hello_cb);
                io_watch_set(&w, IO_READ);
                ck_assert_int_eq(write(pair[1], "x", 1), 1);
                loop_run();
                io_watch_stop(&w);
                close(pair[0]);
                close(pair[1]);
        }
        ck_assert_str_eq(trace, "hhh");
}
END_TEST

/* Timers. */

static struct timer early, late, every;

static void early_cb(struct timer *t)
{
        note('1');
        ck_assert(!timer_is_active(t));
}

static void every_cb(struct timer *t)
{
        note('t');
        if (strlen(trace) < 4)
                return;
        timer_stop(t);
        ck_assert(!timer_is_active(t));
        timer_start(&late, 0, 0);
}

START_TEST(timers_fire_in_order_once_or_repeatedly)
{
        timer_init(&early, early_cb);
        timer_init(&every, every_cb);
        timer_init(&late, stop_cb);
        timer_start(&every, 0.002, 0.001);
        timer_start(&early, 100, 0);
        timer_start(&early, 0.001, 0); /* restarts */
        ck_assert(timer_is_active(&early));
        double t = loop_now_exact();
        loop_run();
        ck_assert_str_eq(trace, "1ttt");
        ck_assert(loop_now_exact() - t >= 0.002);
}
END_TEST

START_TEST(a_timer_set_before_the_loop_runs_counts_from_then)
{
        timer_init(&late, stop_cb);
        double t = loop_now_exact();
        while (loop_now_exact() < t + 0.05)
                ;
        t = loop_now_exact();
        timer_start(&late, 0.03, 0);
        loop_run();
        ck_assert(loop_now_exact() - t >= 0.0299);
}
END_TEST

/* Signals and posts. */

static void sig_cb(struct sig_watch *w, int signo)
{
        ck_assert_int_eq(signo, SIGUSR1);
        note('s');
        loop_stop();
}

START_TEST(signals_arrive_on_the_loop)
{
        struct sig_watch w = {0};
        sig_watch_stop(&w);
        sig_watch_start(&w, SIGUSR1, sig_cb);
        raise(SIGUSR1);
        loop_run();
        ck_assert_str_eq(trace, "s");
        sig_watch_stop(&w);
}
END_TEST

enum { THREADS = 4, POSTS = 5000 };
static long posted;

static void count_cb(void *arg)
{
        long *mine = arg;
        ++*mine;
        if (++posted == THREADS * POSTS)
                loop_stop();
}

static void *poster(void *arg)
{
        for (int i = 0; i < POSTS; i++)
                loop_post(count_cb, arg);
        return NULL;
}

START_TEST(every_post_of_every_thread_runs_on_the_loop)
{
        pthread_t t[THREADS];
        static long per_thread[THREADS];
        posted = 0;
        for (int i = 0; i < THREADS; i++)
                ck_assert_int_eq(pthread_create(&t[i], NULL, poster, &per_thread[i]), 0);
        loop_run();
        for (int i = 0; i < THREADS; i++) {
                pthread_join(t[i], NULL);
                ck_assert_int_eq(per_thread[i], POSTS);
        }
}
END_TEST

static void note_cb(void *arg)
{
        note(*(char *)arg);
        if (*(char *)arg == 'c')
                loop_stop();
}

START_TEST(posts_keep_their_order_and_one_left_over_is_dropped_at_the_end)
{
        static char a = 'a', b = 'b', c = 'c', d = 'd';
        struct post p = {.fn = note_cb, .arg = &b};
        loop_post(note_cb, &a);
        loop_post_node(&p);
        loop_post(note_cb, &c);
        loop_run();
        ck_assert_str_eq(trace, "abc");
        loop_post(note_cb, &d);
}
END_TEST

START_TEST(spinning_polls_without_sleeping_and_still_serves)
{
        loop_set_spin(0.005);
        timer_init(&late, stop_cb);
        timer_start(&late, 0.02, 0);
        loop_run();
        loop_set_spin(0);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("loop");
        TCase *t = tcase_create("loop");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, a_turn_runs_events_then_fibers_then_defers);
        tcase_add_test(t, a_burst_is_handled_in_portions);
        tcase_add_test(t, a_defer_that_queues_itself_does_not_starve_timers);
        tcase_add_test(t, a_cancelled_defer_does_not_run);
        tcase_add_test(t, io_interest_can_be_changed_and_stopped);
        tcase_add_test(t, a_reused_descriptor_number_is_watched_anew);
        tcase_add_test(t, timers_fire_in_order_once_or_repeatedly);
        tcase_add_test(t, a_timer_set_before_the_loop_runs_counts_from_then);
        tcase_add_test(t, signals_arrive_on_the_loop);
        tcase_add_test(t, every_post_of_every_thread_runs_on_the_loop);
        tcase_add_test(t, posts_keep_their_order_and_one_left_over_is_dropped_at_the_end);
        tcase_add_test(t, spinning_polls_without_sleeping_and_still_serves);
        suite_add_tcase(s, t);
        return run_suite(s);
}
