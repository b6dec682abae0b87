/* gRPC and HTTP/2 when memory is out: each allocation of a server, a channel and two calls fails in turn. Nothing may crash, leak
 * or claim a success that was none. */
#include <stdio.h>
#include <sys/eventfd.h>

#include "sdk/net/http2.h"
#include "sdk/net/rpc.h"
#include "tests/unit/fault.h"
#include "tests/unit/net_test.h"

#define CALL_S 0.5
enum { WARM = 256 };

static char target[96];
static int good;

static int do_chat(struct rpc_call *c, void *arg)
{
        struct str m;
        int r;
        rpc_md_add(&c->md_out, c->arena, STR("a"), STR("b"));
        rpc_md_add(&c->md_trailers_out, c->arena, STR("c-bin"), STR("d"));
        while ((r = rpc_recv(c, &m)) > 0) {
                if ((r = rpc_send(c, m)))
                        return r;
        }
        return r;
}

static int do_fail(struct rpc_call *c, void *arg)
{
        return rpc_fail_details(c, RPC_ABORTED, STR("a%b"), STR("details"));
}

static const struct rpc_method rows[] = {{"/test.T/Chat", do_chat}, {"/test.T/Fail", do_fail}};

static bool talk(struct rpc_channel *ch, struct arena *a)
{
        const struct rpc_md md = {STR("x-bin"), STR("yz")};
        const struct rpc_opts o = {.md = &md, .n_md = 1, .flags = RPC_GZIP, .timeout_s = CALL_S}, plain = {.timeout_s = CALL_S};
        struct rpc_status st;
        struct rpc_call *c;
        struct str m;
        bool ok = true;
        if (rpc_unary(ch, a, "/test.T/Chat", STR("hello"), &m, &plain, &st) == 0) {
                ok &= str_eq(m, STR("hello"));
                good++;
        }
        ok &= rpc_unary(ch, a, "/test.T/Fail", STR("hello"), &m, &plain, &st) != 0;
        if (rpc_open(ch, a, "/test.T/Chat", &o, &c, &st))
                return ok;
        for (int i = 0; i < 3 && rpc_send(c, STR("again")) == 0 && rpc_recv(c, &m) > 0; i++)
                ok &= str_eq(m, STR("again"));
        good += rpc_finish(c) == 0;
        return ok;
}

static bool run(void *arg)
{
        const struct rpc_server_conf sc = {0};
        const struct rpc_channel_conf cc = {.target = str_of(target)};
        struct rpc_server *sv;
        struct rpc_channel *ch;
        struct arena a = {0};
        bool ok = true;
        if (rpc_server_new(&sv, &sc))
                return true;
        if (rpc_server_add(sv, rows, 2) == 0 && rpc_server_listen(sv, str_of(target)) == 0 && rpc_channel_new(&ch, &cc) == 0) {
                ok = talk(ch, &a);
                rpc_channel_close(ch);
        }
        rpc_server_stop(sv, 0);
        rpc_server_free(sv);
        arena_fini(&a);
        h2_pool_fini();
        rpc_call_fini();
        return ok;
}

static void stop_watch(struct io_watch *w, int events)
{
        io_watch_stop(w);
}

static void no_timer(struct timer *t)
{
}

/* libev ends the process when it cannot grow its tables: more descriptors and timers at once than the test will have. */
static void grow_the_loop(void)
{
        static struct io_watch w[WARM];
        static struct timer t[WARM];
        int fd[WARM];
        for (int i = 0; i < WARM; i++) {
                fd[i] = eventfd(1, EFD_CLOEXEC);
                io_watch_init(&w[i], fd[i], stop_watch);
                io_watch_set(&w[i], IO_READ);
                timer_init(&t[i], no_timer);
                timer_start(&t[i], 0.001, 0);
        }
        fiber_sleep(0.05);
        for (int i = 0; i < WARM; i++)
                close(fd[i]);
}

ON_LOOP_TEST(every_failing_allocation_is_an_error_or_nothing)
{
        char dir[] = "/tmp/rpc_fault.XXXXXX";
        double old = fiber_deadline();
        ck_assert_ptr_nonnull(mkdtemp(dir));
        snprintf(target, sizeof(target), "unix:%s/s", dir);
        fiber_restore_deadline(1e300);
        grow_the_loop();
        for (int i = 0; i < 3; i++)
                ck_assert(run(NULL)); /* what is kept between calls is there */
        ck_assert_int_eq(good, 6);
        long n = fault_each(run, NULL);
        ck_assert_int_gt(n, 50);
        ck_assert(run(NULL));
        fiber_restore_deadline(old);
        rmdir(dir);
}

int main(void)
{
        Suite *s = suite_create("rpc_fault");
        TCase *t = tcase_create("rpc_fault");
        tcase_set_timeout(t, 120);
        tcase_add_test(t, every_failing_allocation_is_an_error_or_nothing);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
