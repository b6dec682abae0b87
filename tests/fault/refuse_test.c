/* Plugins that cannot be started: each has a text that names the cause and what to do, and nothing is left behind. */
#include "kernel/super/plugin.h"
#include "tests/fault/fault_plugin.h"

/* One start of state.faulty with FAULT_MODE that must fail; returns the error. */
static int refused(const char *mode, const char *part, double timeout_s)
{
        struct fault f;
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning.hello_timeout_s = timeout_s;
        fault_open(&f);
        setenv("FAULT_MODE", mode, 1);
        int r = fault_refused(&f, fault_spec(&f, "store", "state.faulty", NULL, 0), part);
        unsetenv("FAULT_MODE");
        fault_close(&f);
        return r;
}

ON_LOOP_TEST(a_program_that_dies_at_once)
{
        ck_assert_int_eq(refused("exit", "ended by itself with exit code 127", 5), -EIO);
        refused("exit", "its last words: libfoo.so.1: cannot open shared object file", 5);
}

ON_LOOP_TEST(a_program_that_never_answers)
{
        ck_assert_int_eq(refused("silent", "did not answer Hello within 0.", 0.1), -ETIMEDOUT);
        refused("silent", "init timeout for component store (state.faulty/v1)", 0.1);
        refused("garbage", "did not answer Hello", 0.1);
}

ON_LOOP_TEST(a_socket_that_speaks_something_else)
{
        ck_assert_int_eq(refused("garbage-socket", "does not keep to the plugin contract", 5), -EIO);
}

ON_LOOP_TEST(a_newer_contract_is_refused_with_the_fix)
{
        refused("newer", "speaks version 7, 8 of the plugin contract, this daprd speaks 1; update daprd", 5);
        refused("stranger", "Hello was answered with Unimplemented", 5);
}

static int init_refused(const char *mode, const char *part, int64_t timeout_ms)
{
        struct fault f;
        const char *md[] = {"mode", mode};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        struct component_spec *s = fault_spec(&f, "store", "state.faulty", md, 1);
        s->init_timeout_ns = timeout_ms * 1000000;
        int r = fault_refused(&f, s, part);
        fault_close(&f);
        return r;
}

/* Deaths are no answer: the start goes on until its time is over, or they are too many. */
static int dies(const char *mode, const char *environment_mode, const char *part, int64_t timeout_ms, unsigned deaths_max)
{
        struct fault f;
        const char *md[] = {"mode", mode};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning = (struct super_tuning){.backoff_min_s = 0.01, .deaths_max = deaths_max};
        fault_open(&f);
        setenv("FAULT_MODE", environment_mode, 1);
        struct component_spec *s = fault_spec(&f, "store", "state.faulty", md, 1);
        s->init_timeout_ns = timeout_ms * 1000000;
        int r = fault_refused(&f, s, part);
        unsetenv("FAULT_MODE");
        fault_close(&f);
        return r;
}

ON_LOOP_TEST(deaths_in_a_first_start_are_counted)
{
        static const char in_init[] = ", the last time (signal) it was killed in Init by signal 11 (Segmentation fault)";
        ck_assert_int_eq(dies("init-crash", "", "plugin state.faulty died 3 times within ", 60000, 3), -EIO);
        ck_assert_int_eq(dies("init-crash", "", in_init, 60000, 2), -EIO);
        ck_assert_int_eq(dies("init-crash", "", "plugin state.faulty was not ready within 0.3 s and died ", 300, 0), -ETIMEDOUT);
        ck_assert_int_eq(dies("init-crash", "", in_init, 300, 0), -ETIMEDOUT);
        dies("init-crash", "", "\ninit timeout for component store (state.faulty/v1)", 300, 0);
        ck_assert_int_eq(dies("init-exit", "", ", the last time (error exit) it ended by itself with exit code 4 in Init; its last words: no such "
                              "backend", 60000, 2), -EIO);
        ck_assert_int_eq(dies("", "segv", ", the last time (signal) it was killed before it answered Hello by signal 11 (Segmentation fault)",
                              60000, 2), -EIO);
}

struct mended {
        struct fault *f;
        char file[128];
};

/* Once it has died a second time, the cause goes away. */
static void mend(void *arg)
{
        struct mended *m = arg;
        const struct plugin *p;
        do {
                ck_assert_int_eq(fiber_sleep(0.005), 0);
                p = list_is_empty(&m->f->super->plugins) ? NULL : list_entry(m->f->super->plugins.next, struct plugin, in_super);
        } while (!p || p->n_deaths < 2);
        ck_assert_int_eq(unlink(m->file), 0);
}

ON_LOOP_TEST(a_first_start_that_dies_twice_comes_up)
{
        struct fault f;
        struct mended m = {.f = &f};
        struct scope sc;
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        f.tuning = (struct super_tuning){.backoff_min_s = 0.01};
        fault_open(&f);
        snprintf(m.file, sizeof m.file, "%s/broken", f.dir);
        fault_file(m.file, "", 0644);
        const char *md[] = {"mode", "init-crash", "file", m.file};
        struct component_spec *s = fault_spec(&f, "store", "state.faulty", md, 2);
        s->init_timeout_ns = 60000000000;
        scope_init(&sc);
        ck_assert_int_eq(fiber_go(&sc, "mend", mend, &m), 0);
        struct component *c = fault_start(&f, s);
        scope_join(&sc);
        struct str v;
        struct rpc_status st;
        ck_assert_int_eq(fault_get(c, &f.arena, "k", &v, &st), 0);
        ck_assert_uint_ge(fault_status(&f, c).restarts, 2);
        fault_close(&f);
}

ON_LOOP_TEST(init_that_fails_or_hangs)
{
        ck_assert_int_eq(init_refused("init-fail", "missing connection string", 5000), -EIO);
        ck_assert_int_eq(init_refused("init-hang", "init timeout for component store (state.faulty/v1)", 200), -ETIMEDOUT);
        ck_assert_int_eq(init_refused("init-slow", "init timeout for component store (state.faulty/v1)", 200), -ETIMEDOUT);
}

/* ---- what stands on disk ---- */

static void executable_refused(const char *bytes, size_t n, mode_t mode, const char *part)
{
        struct fault f;
        char path[128];
        fault_init(&f);
        fault_install(&f, "state.broken", "program", NULL);
        snprintf(path, sizeof path, "%s/state.broken/program", f.dir);
        if (bytes) {
                FILE *out = fopen(path, "w");
                ck_assert(out && fwrite(bytes, 1, n, out) == n);
                fclose(out);
                chmod(path, mode);
        }
        fault_open(&f);
        ck_assert_int_eq(fault_refused(&f, fault_spec(&f, "store", "state.broken", NULL, 0), part), -EIO);
        fault_close(&f);
}

ON_LOOP_TEST(a_program_that_cannot_run)
{
        static const char arm[64] = {0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 2, [18] = (char)0xb7, [20] = 1};
        executable_refused(NULL, 0, 0, "does not exist");
        executable_refused("#!/bin/sh\n", 10, 0644, "is not executable; chmod +x it");
        executable_refused("nonsense", 8, 0755, "is not a program of this machine");
        executable_refused("#!/no/such/shell\n", 17, 0755, "needs an interpreter");
        executable_refused(arm, sizeof arm, 0755, "is built for arm64, this machine is");
        executable_refused("#!/bin/sh\necho hello; exit 0\n", 29, 0755, "ended by itself with exit code 0");
}

ON_LOOP_TEST(unknown_types_name_what_is_near)
{
        struct fault f;
        struct component_spec *s;
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        ck_assert_int_eq(fault_refused(&f, fault_spec(&f, "store", "state.in-memry", NULL, 0), "couldn't find state store state.in-memry/v1"), -ENOENT);
        fault_refused(&f, fault_spec(&f, "store", "state.in-memry", NULL, 0), "did you mean state.in-memory?");
        fault_refused(&f, fault_spec(&f, "store", "state.faultyy", NULL, 0), "state.faulty");
        fault_refused(&f, fault_spec(&f, "store", "pubsub.nothing-like-it", NULL, 0), "to install it: dapr plugin install pubsub.nothing-like-it");
        fault_refused(&f, fault_spec(&f, "store", "nothing.at.all", NULL, 0), "incorrect type nothing.at.all");
        fault_refused(&f, fault_spec(&f, "store", "state.../../etc", NULL, 0), "couldn't find");
        s = fault_spec(&f, "store", "state.faulty", NULL, 0);
        s->version = "v3";
        fault_refused(&f, s, "serves only version v1");
        fault_close(&f);
}

ON_LOOP_TEST(versions_and_aliases)
{
        struct fault f;
        static const char *const versions[] = {"", "v0", "V1", "v2"};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, NULL);
        fault_open(&f);
        for (size_t i = 0; i < 4; i++) {
                struct component_spec *s = fault_spec(&f, "store", "State.Alias", NULL, 0);
                s->version = versions[i];
                super_component_stop(f.super, fault_start(&f, s));
        }
        fault_close(&f);
}

ON_LOOP_TEST(a_broken_manifest_is_named_with_its_line)
{
        struct fault f;
        char path[128];
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL, "colour: red\n");
        fault_open(&f);
        snprintf(path, sizeof path, "%s/state.faulty/plugin.yaml:9:1: unknown key 'colour'", f.dir);
        fault_refused(&f, fault_spec(&f, "store", "state.faulty", NULL, 0), path);
        fault_close(&f);
}

ON_LOOP_TEST(metadata_is_checked_before_the_process_starts)
{
        struct fault f;
        const char *md[] = {"timeout", "soon", "retries", "3"};
        fault_init(&f);
        fault_install(&f, "state.faulty", NULL,
                      "metadata:\n  - {name: timeout, type: duration}\n  - {name: retries, type: int}\n  - {name: host, required: true}\n");
        fault_open(&f);
        struct component_spec *s = fault_spec(&f, "store", "state.faulty", md, 2);
        fault_refused(&f, s, "component.yaml:10: metadata field 'timeout' of state.faulty is 'soon', which is not a duration");
        fault_refused(&f, s, "component.yaml:1: metadata field 'host' of state.faulty is missing");
        fault_close(&f);
}

int main(void)
{
        Suite *s = suite_create("refuse");
        TCase *t = tcase_create("plugins that do not start");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, a_program_that_dies_at_once);
        tcase_add_test(t, a_program_that_never_answers);
        tcase_add_test(t, a_socket_that_speaks_something_else);
        tcase_add_test(t, a_newer_contract_is_refused_with_the_fix);
        tcase_add_test(t, init_that_fails_or_hangs);
        tcase_add_test(t, deaths_in_a_first_start_are_counted);
        tcase_add_test(t, a_first_start_that_dies_twice_comes_up);
        tcase_add_test(t, a_program_that_cannot_run);
        tcase_add_test(t, unknown_types_name_what_is_near);
        tcase_add_test(t, versions_and_aliases);
        tcase_add_test(t, a_broken_manifest_is_named_with_its_line);
        tcase_add_test(t, metadata_is_checked_before_the_process_starts);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
