/* Plugins under the supervisor that live: start, calls, output, health, crashes under load, restarts, sharing, stop. */
#include <math.h>
#include <sys/wait.h>

#include "sdk/base/log.h"
#include "tests/fault/fault_plugin.h"

ON_LOOP_TEST(a_plugin_starts_and_serves)
{
        struct fault f;
        struct rpc_status st = {0};
        struct str value = {0};
        fault_init(&f);
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.in-memory", NULL, 0));
        ck_assert_int_eq(fault_set(c, &f.arena, "k", "value", &st), 0);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", &value, &st), 0);
        ck_assert(str_eq(value, STR("value")));
        struct component_status cs = fault_status(&f, c);
        ck_assert_int_eq(cs.state, PLUGIN_READY);
        ck_assert_int_gt(cs.pid, 0);
        ck_assert_str_eq(cs.plugin_name, "state.in-memory");
        ck_assert_uint_eq(cs.calls, 2);
        ck_assert_uint_eq(cs.errors, 0);
        ck_assert_uint_eq(component_features(c),
                          FEATURE_ETAG | FEATURE_TRANSACTIONAL | FEATURE_TTL | FEATURE_DELETE_WITH_PREFIX | FEATURE_KEYS_LIKE);
        ck_assert(component_serves(c, "dapr.proto.components.v1.TransactionalStateStore"));
        ck_assert(!component_serves(c, "dapr.proto.components.v1.QueriableStateStore"));
        fault_close(&f);
}

ON_LOOP_TEST(a_plugin_gets_five_descriptors_and_no_environment)
{
        struct fault f;
        struct rpc_status st = {0};
        struct str value = {0};
        char path[64], env[256];
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        setenv("FAULT_SECRET", "x", 1);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        ck_assert_int_eq(fault_get(c, &f.arena, "fds", &value, &st), 0);
        /* its own epoll, eventfd and the connection come on top; nothing of ours: those would be many more */
        ck_assert(str_has_prefix(value, STR("0 1 2 3 4 ")));
        ck_assert_uint_le(value.n, strlen("0 1 2 3 4 5 6 7 8 9 "));
        snprintf(path, sizeof path, "/proc/%d/environ", (int)fault_status(&f, c).pid);
        FILE *in = fopen(path, "r");
        ck_assert(in != NULL);
        ck_assert_uint_eq(fread(env, 1, sizeof env, in), 0);
        fclose(in);
        fault_close(&f);
}

/* ---- crashes under load ---- */

struct load {
        struct component *c;
        struct scope scope;
        bool stop;
        uint64_t good, bad, sets_good, sets_bad;
        double last_good;
        char why[200];
};

static void get_loop(void *arg)
{
        struct load *l = arg;
        while (!l->stop) {
                struct arena a;
                struct rpc_status st = {0};
                arena_init(&a, 0);
                if (fault_get(l->c, &a, "k", NULL, &st) == 0) {
                        l->good++;
                        l->last_good = loop_now_exact();
                } else {
                        l->bad++;
                        snprintf(l->why, sizeof l->why, "%.*s", STR_FMT(st.message));
                }
                arena_fini(&a);
        }
}

static void set_loop(void *arg)
{
        struct load *l = arg;
        while (!l->stop) {
                struct arena a;
                struct rpc_status st = {0};
                arena_init(&a, 0);
                if (fault_set(l->c, &a, "k", "v", &st) == 0) {
                        l->sets_good++;
                } else {
                        l->sets_bad++;
                        ck_assert_int_eq(st.code, RPC_UNAVAILABLE);
                        ck_assert(text_has(st.message, "it may or may not have been done"));
                }
                arena_fini(&a);
        }
}

static int by_value(const void *a, const void *b)
{
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

ON_LOOP_TEST(killed_20_times_under_load_no_idempotent_call_fails)
{
        struct fault f;
        struct load l = {0};
        double gap[20];
        fault_init(&f);
        fault_open(&f);
        l.c = fault_start(&f, fault_spec(&f, "store", "state.in-memory", NULL, 0));
        scope_init(&l.scope);
        for (int i = 0; i < 16; i++)
                ck_assert_int_eq(fiber_go(&l.scope, "get", get_loop, &l), 0);
        ck_assert_int_eq(fiber_go(&l.scope, "set", set_loop, &l), 0);
        for (int i = 0; i < 20; i++) {
                fiber_sleep(0.05);
                pid_t pid = fault_status(&f, l.c).pid;
                ck_assert_int_gt(pid, 0);
                double t0 = loop_now_exact();
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                /* the next good answer is the first of another process */
                while (fault_status(&f, l.c).pid == pid || fault_status(&f, l.c).pid == 0)
                        ck_assert_int_eq(fiber_sleep(0.0005), 0);
                uint64_t good = l.good;
                while (l.good == good)
                        ck_assert_int_eq(fiber_sleep(0.0005), 0);
                gap[i] = (l.last_good - t0) * 1e3;
        }
        l.stop = true;
        scope_join(&l.scope);
        qsort(gap, 20, sizeof *gap, by_value);
        printf("kill to next good answer, ms: p50 %.1f, p90 %.1f, max %.1f; gets %llu good, %llu failed; sets %llu good, %llu in flight at a kill\n",
               gap[10], gap[18], gap[19], (unsigned long long)l.good, (unsigned long long)l.bad, (unsigned long long)l.sets_good,
               (unsigned long long)l.sets_bad);
        if (l.bad)
                ck_abort_msg("%llu gets failed: %s", (unsigned long long)l.bad, l.why);
        ck_assert_uint_eq(fault_status(&f, l.c).restarts, 20);
        ck_assert_int_eq(fault_status(&f, l.c).last_death, DEATH_SIGNAL);
        fault_close(&f);
}

ON_LOOP_TEST(a_set_in_flight_fails_at_once_and_says_why)
{
        struct fault f;
        struct rpc_status st = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        double t0 = loop_now();
        ck_assert_int_eq(fault_set(c, &f.arena, "crash", "v", &st), RPC_UNAVAILABLE);
        ck_assert(text_has(st.message, "Set of component store was in flight when its plugin state.faulty was killed by signal 9"));
        ck_assert(loop_now() - t0 < 1);
        ck_assert_int_eq(fault_set(c, &f.arena, "k", "v", &st), 0);
        fault_close(&f);
}

ON_LOOP_TEST(calls_that_kill_the_plugin_are_given_up)
{
        struct fault f;
        struct rpc_status st = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.backoff_min_s = 0.01;
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        ck_assert_int_eq(fault_get(c, &f.arena, "crash", NULL, &st), RPC_UNAVAILABLE);
        ck_assert(text_has(st.message, "Segmentation fault"));
        ck_assert_uint_le(fault_status(&f, c).restarts, 4);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0);
        fault_close(&f);
}

/* ---- hang ---- */

static void get_beside(void *arg)
{
        struct load *l = arg;
        struct arena a;
        struct rpc_status st = {0};
        arena_init(&a, 0);
        fiber_sleep(0.02);
        if (fault_get(l->c, &a, "k", NULL, &st) == 0)
                l->good++;
        else
                snprintf(l->why, sizeof l->why, "%.*s", STR_FMT(st.message));
        arena_fini(&a);
}

ON_LOOP_TEST(a_call_that_hangs_its_plugin_twice_is_not_sent_again_and_takes_no_other_along)
{
        struct fault f;
        struct rpc_status st = {0};
        struct scope s = SCOPE_INIT(s);
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.health_interval_s = 0.05;
        f.tuning.backoff_min_s = 0.01;
        fault_open(&f);
        struct load l = {.c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0))};
        fiber_go(&s, "beside", get_beside, &l); /* comes when the other one hangs */
        ck_assert_int_eq(fault_get(l.c, &f.arena, "hang", NULL, &st), RPC_UNAVAILABLE);
        ck_assert(text_has(st.message, "Get of component store was in flight when its plugin state.faulty sent no sign of life"));
        ck_assert(text_has(st.message, "the first call in flight at two hangs in a row and is not sent again"));
        ck_assert(!text_has(st.message, "may or may not"));
        scope_join(&s);
        ck_assert_str_eq(l.why, "");
        ck_assert_uint_eq(l.good, 1);
        ck_assert_uint_eq(fault_status(&f, l.c).restarts, 2);
        fault_close(&f);
}

ON_LOOP_TEST(a_hung_plugin_is_replaced)
{
        struct fault f;
        struct rpc_status st = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.health_interval_s = 0.05;
        f.tuning.backoff_min_s = 0.01;
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        pid_t pid = fault_status(&f, c).pid;
        double t0 = loop_now_exact(), old = fiber_set_deadline(loop_now() + 0.1);
        ck_assert_int_eq(fault_get(c, &f.arena, "hang", NULL, &st), RPC_DEADLINE_EXCEEDED);
        fiber_restore_deadline(old);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0);
        printf("hang to next good answer: %.0f ms (3 reports of 50 ms missed)\n", (loop_now_exact() - t0) * 1e3);
        struct component_status cs = fault_status(&f, c);
        ck_assert_int_ne(cs.pid, pid);
        ck_assert_int_eq(cs.last_death, DEATH_HANG);
        ck_assert(strstr(cs.last_error, "sent no sign of life for 0.15 s and was killed") != NULL);
        fault_close(&f);
}

ON_LOOP_TEST(a_stopped_process_counts_as_hung)
{
        struct fault f;
        struct rpc_status st = {0};
        fault_init(&f);
        f.tuning.health_interval_s = 0.05;
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.in-memory", NULL, 0));
        pid_t pid = fault_status(&f, c).pid;
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0); /* resent to the next one */
        ck_assert_int_ne(fault_status(&f, c).pid, pid);
        ck_assert_int_eq(fault_status(&f, c).last_death, DEATH_HANG);
        fault_close(&f);
}

/* ---- FAILED ---- */

ON_LOOP_TEST(ten_deaths_in_a_row_and_it_has_failed_others_serve)
{
        struct fault f;
        struct rpc_status st = {0};
        const char *md[] = {"mode", "dying"}, *err = NULL;
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.backoff_min_s = 0.001;
        fault_open(&f);
        struct component *other = fault_start(&f, fault_spec(&f, "other", "state.in-memory", NULL, 0));
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", md, 1));
        for (int i = 0; i < 2000 && fault_status(&f, c).restarts < 9; i++)
                ck_assert_int_eq(fiber_sleep(0.01), 0);
        WAIT_FOR(fault_status(&f, c).state == PLUGIN_FAILED);
        struct component_status cs = fault_status(&f, c);
        ck_assert_uint_eq(cs.restarts, 9);
        ck_assert_int_eq(cs.last_death, DEATH_ERROR);
        ck_assert(strstr(cs.last_error, "died 10 times") != NULL);
        ck_assert(strstr(cs.last_error, "exit code 7; its last words: I cannot go on") != NULL);
        double t0 = loop_now();
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), RPC_UNAVAILABLE);
        ck_assert(text_has(st.message, "component store has failed: its plugin state.faulty died 10 times"));
        ck_assert(loop_now() - t0 < 0.1);
        ck_assert_int_eq(fault_get(other, &f.arena, "k", NULL, &st), 0);
        /* the operator's restart begins a new count */
        ck_assert_int_eq(super_component_restart(f.super, c, false, &f.arena, &err), 0);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0);
        fault_close(&f);
}

ON_LOOP_TEST(killed_ten_times_without_a_good_call_it_has_failed)
{
        struct fault f;
        fault_init(&f);
        f.tuning.backoff_min_s = 0.001;
        f.tuning.backoff_max_s = 0.01;
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.in-memory", NULL, 0));
        for (int i = 0; i < 10; i++) {
                WAIT_FOR(fault_status(&f, c).state == PLUGIN_READY);
                pid_t pid = fault_status(&f, c).pid;
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                WAIT_FOR(fault_status(&f, c).pid != pid);
        }
        WAIT_FOR(fault_status(&f, c).state == PLUGIN_FAILED);
        fault_close(&f);
}

ON_LOOP_TEST(init_is_tried_again_in_a_new_process)
{
        struct fault f;
        struct rpc_status st = {0};
        char file[96];
        fault_init(&f);
        snprintf(file, sizeof file, "%s/blocked", f.dir);
        const char *md[] = {"mode", "init-blocked", "file", file};
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.backoff_min_s = 0.01;
        f.tuning.backoff_max_s = 0.05;
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", md, 2));
        fault_file(file, "", 0644);
        ck_assert_int_eq(kill(fault_status(&f, c).pid, SIGKILL), 0);
        WAIT_FOR(fault_status(&f, c).state != PLUGIN_READY);
        double old = fiber_set_deadline(loop_now() + 0.2);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), RPC_DEADLINE_EXCEEDED);
        fiber_restore_deadline(old);
        ck_assert(text_has(st.message, "component store is not ready (INIT): Init failed: the backend is away"));
        ck_assert_int_eq(fault_status(&f, c).state, PLUGIN_INIT);
        ck_assert_uint_eq(fault_status(&f, c).restarts, 1); /* the process itself is fine */
        ck_assert_int_eq(unlink(file), 0);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0);
        ck_assert_str_eq(fault_status(&f, c).last_error, "was killed by signal 9 (Killed)");
        fault_close(&f);
}

/* ---- health and output ---- */

ON_LOOP_TEST(an_unreachable_backend_is_degraded_not_dead)
{
        struct fault f;
        struct rpc_status st = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        ck_assert_int_eq(fault_get(c, &f.arena, "unreachable", NULL, &st), 0);
        WAIT_FOR(fault_status(&f, c).state == PLUGIN_DEGRADED);
        ck_assert_str_eq(fault_status(&f, c).last_error, "connection refused by the test");
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0); /* still asked: it may know better */
        ck_assert_int_eq(fault_get(c, &f.arena, "reachable", NULL, &st), 0);
        WAIT_FOR(fault_status(&f, c).state == PLUGIN_READY);
        ck_assert_uint_eq(fault_status(&f, c).restarts, 0);
        fault_close(&f);
}

ON_LOOP_TEST(a_chatty_plugin_does_not_hold_the_kernel)
{
        struct fault f;
        struct rpc_status st = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        log_set_level(LOG_WARN);
        ck_assert_int_eq(fault_get(c, &f.arena, "chatty", NULL, &st), 0);
        ck_assert_int_eq(fault_get(c, &f.arena, "k", NULL, &st), 0);
        log_set_level(LOG_INFO);
        fault_close(&f);
}

/* ---- waiting and stopping ---- */

static void one_get(void *arg)
{
        struct load *l = arg;
        struct arena a;
        struct rpc_status st = {0};
        arena_init(&a, 0);
        if (fault_get(l->c, &a, "slow", NULL, &st) == 0)
                l->good++;
        else
                l->bad++;
        arena_fini(&a);
}

ON_LOOP_TEST(only_so_many_calls_wait)
{
        struct fault f;
        struct load l = {0};
        const char *md[] = {"mode", "dying"};
        struct rpc_status st = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.calls_waiting_max = 3;
        f.tuning.backoff_min_s = f.tuning.backoff_max_s = 0.3;
        fault_open(&f);
        l.c = fault_start(&f, fault_spec(&f, "store", "state.faulty", md, 1));
        WAIT_FOR(fault_status(&f, l.c).state == PLUGIN_BACKOFF);
        scope_init(&l.scope);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(fiber_go(&l.scope, "get", one_get, &l), 0);
        ck_assert_int_eq(fiber_yield(), 0);
        ck_assert_int_eq(fault_get(l.c, &f.arena, "k", NULL, &st), RPC_RESOURCE_EXHAUSTED);
        ck_assert(text_has(st.message, "too many calls wait for it"));
        scope_cancel(&l.scope);
        scope_join(&l.scope);
        ck_assert_uint_eq(l.bad, 3);
        fault_close(&f);
}

/* ---- the kernel's own end ---- */

static void doomed_kernel(void *arg)
{
        struct fault f;
        int *to = arg;
        fault_init(&f);
        rmdir(f.dir); /* nobody will do it later */
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.in-memory", NULL, 0));
        pid_t pid = fault_status(&f, c).pid;
        if (write(*to, &pid, sizeof pid) != (ssize_t)sizeof pid)
                _exit(1);
        fiber_sleep(60);
}

START_TEST(a_killed_kernel_takes_its_plugins_along)
{
        int p[2];
        pid_t plugin_pid = 0;
        char scrap;
        ck_assert_int_eq(pipe(p), 0);
        pid_t kernel = fork();
        if (kernel == 0) {
                struct scope s;
                close(p[0]);
                scope_init(&s);
                loop_init();
                fiber_go(&s, "kernel", doomed_kernel, &p[1]);
                loop_run();
                _exit(0);
        }
        close(p[1]);
        ck_assert_int_eq(read(p[0], &plugin_pid, sizeof plugin_pid), (ssize_t)sizeof plugin_pid);
        ck_assert_int_eq(kill(plugin_pid, 0), 0);
        ck_assert_int_eq(kill(kernel, SIGKILL), 0);
        ck_assert_int_eq(waitpid(kernel, NULL, 0), kernel);
        ck_assert_int_eq(read(p[0], &scrap, 1), 0); /* nobody else holds our end: what waits for it is not kept waiting */
        for (int i = 0; i < 200 && kill(plugin_pid, 0) == 0; i++)
                usleep(10000);
        ck_assert_int_eq(kill(plugin_pid, 0), -1);
        close(p[0]);
}
END_TEST

ON_LOOP_TEST(stop_lets_calls_finish)
{
        struct fault f;
        struct load l = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        l.c = fault_start(&f, fault_spec(&f, "store", "state.faulty", NULL, 0));
        scope_init(&l.scope);
        ck_assert_int_eq(fiber_go(&l.scope, "get", one_get, &l), 0);
        fiber_sleep(0.05);
        super_component_stop(f.super, l.c);
        scope_join(&l.scope);
        ck_assert_uint_eq(l.good, 1);
        fault_close(&f);
}

ON_LOOP_TEST(components_of_a_sharing_plugin_live_in_one_process)
{
        struct fault f;
        struct rpc_status st = {0};
        struct str value = {0};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, "share: true\n");
        fault_open(&f);
        struct component *a = fault_start(&f, fault_spec(&f, "a", "state.faulty", NULL, 0));
        struct component *b = fault_start(&f, fault_spec(&f, "b", "state.alias", NULL, 0));
        ck_assert_int_eq(fault_status(&f, a).pid, fault_status(&f, b).pid);
        const char *md[] = {"mode", "init-fail"};
        fault_refused(&f, fault_spec(&f, "c", "state.faulty", md, 1), "missing connection string");
        kill(fault_status(&f, a).pid, SIGKILL);
        ck_assert_int_eq(fault_get(a, &f.arena, "k", &value, &st), 0);
        ck_assert(str_eq(value, STR("a")));
        ck_assert_int_eq(fault_get(b, &f.arena, "k", &value, &st), 0);
        ck_assert(str_eq(value, STR("b")));
        super_component_stop(f.super, a);
        ck_assert_int_eq(fault_get(b, &f.arena, "k", &value, &st), 0);
        fault_close(&f);
}

ON_LOOP_TEST(defaults_of_the_manifest_reach_init)
{
        struct fault f;
        const char *md[] = {"mode", "echo", "secret", "s"};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, "metadata:\n  - {name: timeout, type: duration, default: 2s}\n  - {name: secret, sensitive: true}\n");
        fault_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "store", "state.faulty", md, 2));
        struct component_status cs = fault_status(&f, c);
        ck_assert_int_eq(cs.state, PLUGIN_READY);
        fault_close(&f);
}

int main(void)
{
        Suite *s = suite_create("super");
        TCase *t = tcase_create("living plugins");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, a_plugin_starts_and_serves);
        tcase_add_test(t, a_plugin_gets_five_descriptors_and_no_environment);
        tcase_add_test(t, killed_20_times_under_load_no_idempotent_call_fails);
        tcase_add_test(t, a_set_in_flight_fails_at_once_and_says_why);
        tcase_add_test(t, calls_that_kill_the_plugin_are_given_up);
        tcase_add_test(t, a_hung_plugin_is_replaced);
        tcase_add_test(t, a_call_that_hangs_its_plugin_twice_is_not_sent_again_and_takes_no_other_along);
        tcase_add_test(t, a_stopped_process_counts_as_hung);
        tcase_add_test(t, ten_deaths_in_a_row_and_it_has_failed_others_serve);
        tcase_add_test(t, killed_ten_times_without_a_good_call_it_has_failed);
        tcase_add_test(t, an_unreachable_backend_is_degraded_not_dead);
        tcase_add_test(t, a_chatty_plugin_does_not_hold_the_kernel);
        tcase_add_test(t, init_is_tried_again_in_a_new_process);
        tcase_add_test(t, only_so_many_calls_wait);
        tcase_add_test(t, a_killed_kernel_takes_its_plugins_along);
        tcase_add_test(t, stop_lets_calls_finish);
        tcase_add_test(t, components_of_a_sharing_plugin_live_in_one_process);
        tcase_add_test(t, defaults_of_the_manifest_reach_init);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
