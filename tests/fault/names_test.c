/* The cache of names over a scripted resolver: turns, time to live, failed addresses, one question at a time, limits, crashes. */
#include "kernel/kernel.h"
#include "kernel/mesh/names.h"
#include "kernel/mesh/names_internal.h"
#include "kernel/observe/observe.h"
#include "tests/fault/fault_plugin.h"

struct fixture {
        struct fault f;
        struct kernel k;
        const char *err;
};

static void names_open(struct fixture *x, const char *configuration)
{
        char path[128], text[1024];
        const char *err = NULL;

        *x = (struct fixture){0};
        fault_init(&x->f);
        x->f.opts.mode = "standalone";
        x->f.opts.own_namespace = "default";
        x->f.opts.host_ip = "192.0.2.1";
        x->f.opts.dapr_internal_grpc_listen_address = "";
        x->f.opts.dapr_internal_grpc_port = 50002;
        x->f.opts.dapr_http_port = 3500;
        x->f.opts.app_port = 8080;
        snprintf(path, sizeof path, "%s/n", x->f.dir);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        snprintf(text, sizeof text, "name: n\nversion: 1\nexecutable: %s/names_plugin\ncontract: [1]\ntypes:\n  - type: nameresolution.scripted\n",
                 x->f.exe_dir);
        snprintf(path, sizeof path, "%s/n/plugin.yaml", x->f.dir);
        fault_file(path, text, 0644);
        fault_open(&x->f);
        x->k.opts = x->f.opts;
        x->k.super = x->f.super;
        ck_assert_int_eq(metrics_new(&x->k.metrics), 0);
        ck_assert_int_eq(observe_new(&x->k.observe, x->k.metrics, &(struct observe_conf){.app_id = "a", .namespace_ = "", .enabled = true}), 0);
        if (configuration_apply(&x->k.config, str_of(configuration), "c.yaml", &err))
                ck_abort_msg("%s", err);
        ck_assert_int_eq(names_start(&x->k), 0);
}

static void names_close(struct fixture *x)
{
        names_stop(&x->k);
        ck_assert_int_eq(names_resolve(&x->k, &x->f.arena, STR("x"), STR(""), NULL, &x->err, &x->err), -ENOTCONN);
        fault_close(&x->f);
        names_free(&x->k);
        observe_free(x->k.observe);
        metrics_free(x->k.metrics);
        configuration_fini(&x->k.config);
}

#define SCRIPTED "spec: {nameResolution: {component: Scripted}}"

static const char *resolve(struct fixture *x, const char *id, const char *failed)
{
        const char *addr = NULL;
        if (names_resolve(&x->k, &x->f.arena, str_of(id), STR("default"), failed, &addr, &x->err))
                ck_abort_msg("%s: %s", id, x->err);
        return addr;
}

static int refuse(struct fixture *x, const char *id)
{
        const char *addr = NULL;
        int r = names_resolve(&x->k, &x->f.arena, str_of(id), STR("default"), NULL, &addr, &x->err);
        ck_assert_int_lt(r, 0);
        return r;
}

ON_LOOP_TEST(addresses_take_turns_and_are_kept)
{
        static struct fixture x;
        const char *v[6];
        names_open(&x, SCRIPTED);
        for (int i = 0; i < 6; i++)
                v[i] = resolve(&x, "three", NULL);
        for (int i = 0; i < 3; i++) {
                ck_assert_str_eq(v[i], v[i + 3]);
                ck_assert_str_ne(v[i], v[(i + 1) % 3]);
                ck_assert(str_has_suffix(str_of(v[i]), STR(":1"))); /* one call made them all */
        }
        ck_assert_str_eq(resolve(&x, "brief", NULL), "10.0.0.1:2");
        ck_assert_str_eq(resolve(&x, "brief", NULL), "10.0.0.1:3"); /* no time to live */
        names_close(&x);
}

ON_LOOP_TEST(a_failed_address_is_avoided)
{
        static struct fixture x;
        names_open(&x, SCRIPTED);
        const char *bad = resolve(&x, "three", NULL), *second = resolve(&x, "three", bad);
        ck_assert_str_ne(second, bad);
        for (int i = 0; i < 4; i++)
                ck_assert_str_ne(resolve(&x, "three", NULL), bad);
        const char *third = resolve(&x, "three", second);
        ck_assert(strcmp(third, bad) && strcmp(third, second));
        ck_assert(str_has_suffix(str_of(third), STR(":1"))); /* still of the first answer */
        /* the last one failed, too: the resolver is asked, and told; its answer counts, be it one of those */
        ck_assert(str_has_suffix(str_of(resolve(&x, "three", third)), STR(":2")));
        ck_assert_str_eq(resolve(&x, "failed", NULL), "10.0.0.0:3");
        ck_assert_str_eq(resolve(&x, "failed", "10.0.0.0:3"), "10.0.0.1:4");
        names_close(&x);
}

ON_LOOP_TEST(refusals_are_told_and_leave_nothing)
{
        static struct fixture x;
        names_open(&x, SCRIPTED);
        ck_assert_int_eq(refuse(&x, "bad"), -ENOENT);
        ck_assert_str_eq(x.err, "couldn't find service: bad");
        ck_assert_str_eq(resolve(&x, "late", NULL), "10.0.0.1:3"); /* the second call had no address */
        ck_assert_int_eq(refuse(&x, "never"), -ENOENT);
        ck_assert_str_eq(x.err, "resolver returned empty address for app id default/never");
        ck_assert_str_eq(resolve(&x, "one", NULL), "10.0.0.1:10"); /* six of them */
        char *huge = malloc(1001);
        memset(huge, 'x', 1000);
        huge[1000] = '\0';
        refuse(&x, huge);
        ck_assert_str_eq(x.err, "the app id is too long");
        free(huge);
        names_close(&x);
}

struct asker {
        struct fixture *x;
        const char *addr;
};

static void ask_fiber(void *arg)
{
        struct asker *a = arg;
        const char *err;
        names_resolve(&a->x->k, &a->x->f.arena, STR("slow"), STR("default"), NULL, &a->addr, &err);
}

ON_LOOP_TEST(one_question_at_a_time_and_a_cancelled_one_is_asked_by_another)
{
        static struct fixture x;
        struct asker a[20] = {0};
        struct scope first, others;
        names_open(&x, SCRIPTED);
        resolve(&x, "one", NULL); /* it is up */
        scope_init(&first);
        scope_init(&others);
        for (int i = 0; i < 20; i++) {
                a[i].x = &x;
                ck_assert_int_eq(fiber_go(i ? &others : &first, "ask", ask_fiber, &a[i]), 0);
        }
        fiber_sleep(0.01);
        scope_cancel(&first);
        scope_join(&first);
        scope_join(&others);
        ck_assert(a[0].addr == NULL);
        for (int i = 1; i < 20; i++)
                ck_assert_str_eq(a[i].addr, "10.0.0.1:3"); /* the second question after the cancelled one */
        names_close(&x);
}

ON_LOOP_TEST(limits_are_kept)
{
        static struct fixture x;
        char id[32];
        names_open(&x, SCRIPTED);
        int seen = 0;
        const char *first = resolve(&x, "lots", NULL);
        do
                seen++;
        while (strcmp(resolve(&x, "lots", NULL), first));
        ck_assert_int_eq(seen, NAMES_ADDRESSES_MAX);
        ck_assert_str_eq(resolve(&x, "oldest", NULL), "10.0.0.1:2");
        for (int i = 0; i < NAMES_MAX - 2; i++) {
                snprintf(id, sizeof id, "n%d", i);
                resolve(&x, id, NULL);
        }
        ck_assert_str_eq(resolve(&x, "oldest", NULL), "10.0.0.1:2"); /* all fit */
        resolve(&x, "one more", NULL);                                /* "lots" makes room */
        ck_assert_str_eq(resolve(&x, "oldest", NULL), "10.0.0.1:2");
        snprintf(id, sizeof id, ":%d", NAMES_MAX + 2);
        ck_assert(str_has_suffix(str_of(resolve(&x, "lots", NULL)), str_of(id)));
        names_close(&x);
}

ON_LOOP_TEST(a_resolver_that_dies_is_asked_again)
{
        static struct fixture x;
        names_open(&x, SCRIPTED);
        resolve(&x, "one", NULL);
        resolve(&x, "two", NULL);
        ck_assert_str_eq(resolve(&x, "one", NULL), "10.0.0.1:1");
        const char *addr = NULL;
        kill(fault_status(&x.f, x.k.names->component).pid, SIGKILL);
        ck_assert_int_eq(names_resolve(&x.k, &x.f.arena, STR("new"), STR("default"), NULL, &addr, &x.err), 0);
        ck_assert_str_eq(addr, "10.0.0.1:1"); /* the new process's first call */
        names_close(&x);
}

ON_LOOP_TEST(what_a_resolver_is_told_and_why_it_is_not_there)
{
        static struct fixture x;
        names_open(&x, "spec: {nameResolution: {component: scripted, configuration: {fail: true, list: [1, {a: b}]}}}");
        ck_assert_int_eq(refuse(&x, "one"), -ENOTCONN);
        ck_assert_str_eq(x.err, "name resolver not initialized: app fault in default at 192.0.2.1:50002, http 3500, app 8080, "
                                "configuration {\"fail\":true,\"list\":[1,{\"a\":\"b\"}]}");
        names_close(&x);
        names_open(&x, "spec: {nameResolution: {component: nothing, version: v2}}");
        ck_assert_int_eq(refuse(&x, "one"), -ENOTCONN);
        ck_assert_str_eq(x.err, "name resolver not initialized");
        names_close(&x);
}

int main(void)
{
        Suite *s = suite_create("names");
        TCase *t = tcase_create("names");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, addresses_take_turns_and_are_kept);
        tcase_add_test(t, a_failed_address_is_avoided);
        tcase_add_test(t, refusals_are_told_and_leave_nothing);
        tcase_add_test(t, one_question_at_a_time_and_a_cancelled_one_is_asked_by_another);
        tcase_add_test(t, limits_are_kept);
        tcase_add_test(t, a_resolver_that_dies_is_asked_again);
        tcase_add_test(t, what_a_resolver_is_told_and_why_it_is_not_there);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
