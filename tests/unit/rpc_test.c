/* gRPC client and server against each other, in one process: Unix sockets and TCP. */
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>

#include "sdk/net/http2.h"
#include "sdk/net/rpc.h"
#include "tests/unit/net_test.h"

static char dir[64];
static char target[96];

static void setup(void)
{
        strcpy(dir, "/tmp/rpc_test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        snprintf(target, sizeof(target), "unix:%s/s", dir);
}

static void teardown(void)
{
        rmdir(dir);
        h2_pool_fini();
        rpc_call_fini();
}

/* ---- handlers ---- */

static int do_echo(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        if (r <= 0)
                return r;
        return rpc_send(c, m);
}

static const struct rpc_method rows[] = {
        {"/test.Echo/Unary", do_echo},
};

struct pair {
        struct rpc_server *sv;
        struct rpc_channel *ch;
        struct arena a;
        struct rpc_status st;
};

static void pair_start(struct pair *p, const struct rpc_server_conf *sc, const struct rpc_channel_conf *cc)
{
        struct rpc_server_conf s = sc ? *sc : (struct rpc_server_conf){0};
        struct rpc_channel_conf c = cc ? *cc : (struct rpc_channel_conf){0};
        *p = (struct pair){0};
        ck_assert_int_eq(rpc_server_new(&p->sv, &s), 0);
        ck_assert_int_eq(rpc_server_add(p->sv, rows, sizeof(rows) / sizeof(rows[0])), 0);
        ck_assert_int_eq(rpc_server_listen(p->sv, str_of(target)), 0);
        c.target = str_of(target);
        ck_assert_int_eq(rpc_channel_new(&p->ch, &c), 0);
}

static void pair_stop(struct pair *p)
{
        rpc_channel_close(p->ch);
        rpc_server_stop(p->sv, 1);
        rpc_server_free(p->sv);
        arena_fini(&p->a);
}

ON_LOOP_TEST(unary_echoes)
{
        struct pair p;
        struct str resp;
        pair_start(&p, NULL, NULL);
        for (int i = 0; i < 1000; i++) {
                ck_assert_int_eq(rpc_unary(p.ch, &p.a, "/test.Echo/Unary", STR("hello"), &resp, NULL, &p.st), 0);
                ck_assert(str_eq(resp, STR("hello")));
        }
        pair_stop(&p);
}

int main(void)
{
        Suite *s = suite_create("rpc");
        TCase *t = tcase_create("calls");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, unary_echoes);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
