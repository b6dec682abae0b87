/* For tests that need the loop: each test's body runs on a fiber, and must leave neither fibers nor descriptors behind. */
#ifndef TESTS_UNIT_ON_LOOP_H
#define TESTS_UNIT_ON_LOOP_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"

struct on_loop_run {
        fiber_fn fn;
        int fds;
        bool done;
};

static inline int open_fds(void)
{
        int n = 0;
        DIR *d = opendir("/proc/self/fd");
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static void on_loop_fiber(void *arg)
{
        struct on_loop_run *r = arg;
        fiber_set_deadline(loop_now() + 30);
        r->fn(NULL);
        /* What was closed gets a moment to end. */
        for (int i = 0; i < 200 && (fiber_count() > 1 || open_fds() > r->fds); i++)
                fiber_sleep(0.01);
        ck_assert_uint_eq(fiber_count(), 1);
        r->done = true;
        loop_stop();
}

static inline void on_loop(fiber_fn fn)
{
        struct scope s;
        struct on_loop_run r = {.fn = fn};
        scope_init(&s);
        ck_assert_int_eq(loop_init(), 0);
        r.fds = open_fds();
        ck_assert_int_eq(fiber_go(&s, "test", on_loop_fiber, &r), 0);
        loop_run();
        ck_assert(r.done);
        work_fini();
        ck_assert_int_eq(open_fds(), r.fds);
        loop_fini();
}

/* Parks until cond or five seconds. */
#define WAIT_FOR(x)                                                            \
        do {                                                                   \
                for (int wait_i_ = 0; wait_i_ < 500 && !(x); wait_i_++)        \
                        ck_assert_int_eq(fiber_sleep(0.01), 0);                \
                ck_assert(x);                                                  \
        } while (0)

#define ON_LOOP_TEST(name)                \
        static void name##_body(void *);  \
        START_TEST(name)                  \
        {                                 \
                on_loop(name##_body);     \
        }                                 \
        END_TEST                          \
        static void name##_body(void *arg)

/* The end of every Check program. */
static inline int run_suite(Suite *s)
{
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
