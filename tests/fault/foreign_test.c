/*
 * Pluggable components that somebody else runs: found at the start or later, several on one socket, lost and found again; files
 * that are none. The foreign process is tests/faulty, started by hand on a socket.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "sdk/net/http.h"
#include "tests/fault/fault_plugin.h"

struct foreign {
        struct fault f;
        char types[4][64]; /* told by on_type */
        int n_types;
};

static void on_type(void *arg, const char *type)
{
        struct foreign *t = arg;
        snprintf(t->types[t->n_types++ & 3], 64, "%s", type);
}

static void foreign_init(struct foreign *t)
{
        *t = (struct foreign){0};
        fault_init(&t->f);
        t->f.conf.on_type = on_type;
        t->f.conf.arg = t;
        t->f.tuning.backoff_max_s = 0.05;
        t->f.tuning.ping_interval_s = 0.05;
        fault_open(&t->f);
}

static pid_t run_component(struct fault *f, const char *file)
{
        char program[600], socket_path[128];
        snprintf(program, sizeof program, "%s/faulty", f->exe_dir);
        snprintf(socket_path, sizeof socket_path, "%s/%s", f->dir, file);
        pid_t pid = fork();
        if (pid == 0) {
                if (dup2(open("/dev/null", O_WRONLY), STDERR_FILENO) < 0)
                        _exit(126);
                execl(program, program, "--socket", socket_path, NULL);
                _exit(127);
        }
        ck_assert_int_gt(pid, 0);
        return pid;
}

static void end_component(pid_t pid, int sig)
{
        int status;
        kill(pid, sig);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        if (sig == SIGTERM)
                ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static bool answers(struct fault *f, const char *file)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s/%s", f->dir, file);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        bool ok = connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
        close(fd);
        return ok;
}

ON_LOOP_TEST(found_at_the_start_and_shared_by_several_components)
{
        struct foreign t;
        struct rpc_status st = {0};
        struct str value;
        foreign_init(&t);
        pid_t pid = run_component(&t.f, "MyStore.v2.sock");
        WAIT_FOR(answers(&t.f, "MyStore.v2.sock"));
        ck_assert_int_eq(super_discover(t.f.super), 0);
        ck_assert_int_eq(t.n_types, 0); /* the kernel has not loaded anything yet */
        struct component *a = fault_start(&t.f, fault_spec(&t.f, "a", "state.mystore.v2", NULL, 0));
        struct component *b = fault_start(&t.f, fault_spec(&t.f, "b", "state.MyStore.v2", NULL, 0));
        ck_assert(component_is_foreign(a));
        ck_assert_uint_eq(component_features(a), FEATURE_ETAG);
        ck_assert(!component_serves(a, "dapr.proto.components.v1.TransactionalStateStore"));
        ck_assert_int_eq(fault_get(a, &t.f.arena, "k", &value, &st), 0);
        ck_assert(str_eq(value, STR("a")));
        ck_assert_int_eq(fault_get(b, &t.f.arena, "k", &value, &st), 0);
        ck_assert(str_eq(value, STR("b")));
        super_component_stop(t.f.super, a);
        ck_assert_int_eq(fault_get(b, &t.f.arena, "k", &value, &st), 0);
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

ON_LOOP_TEST(found_later)
{
        struct foreign t;
        struct rpc_status st = {0};
        foreign_init(&t);
        ck_assert_int_eq(super_discover(t.f.super), 0);
        fault_refused(&t.f, fault_spec(&t.f, "a", "state.late", NULL, 0), "couldn't find state store state.late/v1");
        pid_t pid = run_component(&t.f, "late.sock");
        WAIT_FOR(t.n_types == 1);
        ck_assert_str_eq(t.types[0], "state.late");
        struct component *c = fault_start(&t.f, fault_spec(&t.f, "a", "state.late", NULL, 0));
        ck_assert_int_eq(fault_get(c, &t.f.arena, "k", NULL, &st), 0);
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

ON_LOOP_TEST(lost_and_found_again_with_a_new_init)
{
        struct foreign t;
        struct rpc_status st = {0};
        struct str value;
        foreign_init(&t);
        pid_t pid = run_component(&t.f, "store.sock");
        WAIT_FOR(answers(&t.f, "store.sock"));
        ck_assert_int_eq(super_discover(t.f.super), 0);
        struct component *c = fault_start(&t.f, fault_spec(&t.f, "a", "state.store", NULL, 0));
        for (int i = 0; i < 3; i++) {
                end_component(pid, SIGKILL);
                WAIT_FOR(fault_status(&t.f, c).state != PLUGIN_READY);
                double old = fiber_set_deadline(loop_now() + 0.05);
                ck_assert_int_eq(fault_get(c, &t.f.arena, "k", NULL, &st), RPC_DEADLINE_EXCEEDED);
                ck_assert(text_has(st.message, "component a is not ready"));
                fiber_restore_deadline(old);
                pid = run_component(&t.f, "store.sock");
                ck_assert_int_eq(fault_get(c, &t.f.arena, "k", &value, &st), 0);
                ck_assert(str_eq(value, STR("a")));
        }
        ck_assert_int_ne(fault_status(&t.f, c).state, PLUGIN_FAILED);
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

ON_LOOP_TEST(a_foreign_process_that_hangs_is_degraded)
{
        struct foreign t;
        foreign_init(&t);
        pid_t pid = run_component(&t.f, "store.sock");
        WAIT_FOR(answers(&t.f, "store.sock"));
        ck_assert_int_eq(super_discover(t.f.super), 0);
        struct component *c = fault_start(&t.f, fault_spec(&t.f, "a", "state.store", NULL, 0));
        WAIT_FOR(fault_status(&t.f, c).backend_known);
        kill(pid, SIGSTOP);
        WAIT_FOR(fault_status(&t.f, c).state == PLUGIN_DEGRADED);
        ck_assert(strstr(fault_status(&t.f, c).last_error, "Ping of component a") != NULL);
        kill(pid, SIGCONT);
        WAIT_FOR(fault_status(&t.f, c).state == PLUGIN_READY);
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

ON_LOOP_TEST(failed_init_of_a_foreign_one_speaks_grpc)
{
        struct foreign t;
        const char *md[] = {"mode", "init-fail"};
        foreign_init(&t);
        pid_t pid = run_component(&t.f, "store.sock");
        WAIT_FOR(answers(&t.f, "store.sock"));
        ck_assert_int_eq(super_discover(t.f.super), 0);
        fault_refused(&t.f, fault_spec(&t.f, "a", "state.store", md, 1), "rpc error: code = InvalidArgument desc = missing connection string");
        fault_start(&t.f, fault_spec(&t.f, "a", "state.store", NULL, 0));
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

/* ---- what is no component ---- */

static int bind_socket(struct fault *f, const char *file, bool listening)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s/%s", f->dir, file);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
        if (listening)
                ck_assert_int_eq(listen(fd, 5), 0);
        return fd;
}

ON_LOOP_TEST(stale_sockets_and_plain_files_do_not_hold_up_the_others)
{
        struct foreign t;
        char path[128];
        foreign_init(&t);
        snprintf(path, sizeof path, "%s/plain.sock", t.f.dir);
        fault_file(path, "text", 0644);
        snprintf(path, sizeof path, "%s/folder.sock", t.f.dir);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        close(bind_socket(&t.f, "stale.sock", true));
        int deaf = bind_socket(&t.f, "deaf.sock", true); /* accepts in the backlog, never answers */
        pid_t pid = run_component(&t.f, "good.sock");
        WAIT_FOR(answers(&t.f, "good.sock"));
        double t0 = loop_now_exact();
        ck_assert_int_eq(super_discover(t.f.super), 0);
        ck_assert(loop_now_exact() - t0 < 3);
        fault_start(&t.f, fault_spec(&t.f, "a", "state.good", NULL, 0));
        fault_refused(&t.f, fault_spec(&t.f, "b", "state.deaf", NULL, 0), "couldn't find");
        close(deaf);
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

ON_LOOP_TEST(the_folder_may_come_later)
{
        struct foreign t;
        char folder[96];
        foreign_init(&t);
        snprintf(folder, sizeof folder, "%s/sockets", t.f.dir);
        t.f.opts.sockets_folder = folder;
        ck_assert_int_eq(super_discover(t.f.super), 0);
        ck_assert_int_eq(mkdir(folder, 0755), 0);
        pid_t pid = run_component(&t.f, "sockets/late.sock");
        WAIT_FOR(t.n_types == 1);
        end_component(pid, SIGTERM);
        fault_close(&t.f);
}

/* ---- the control socket ---- */

static struct str ask(struct fault *f, const char *method, const char *path, int *ret_status)
{
        char target[160];
        struct http_client *c;
        struct http_exchange *x;
        struct str body;
        snprintf(target, sizeof target, "unix:/tmp/dapr-%u/fault.%d.sock", (unsigned)geteuid(), (int)getpid());
        struct http_client_conf conf = {.target = str_of(target)};
        ck_assert_int_eq(http_client_new(&c, &conf), 0);
        ck_assert_int_eq(http_client_start(c, &f->arena, str_of(method), str_of(path), NULL, 0, 0, STR(""), &x), 0);
        ck_assert_int_eq(http_exchange_response(x), 0);
        *ret_status = x->status;
        ck_assert_int_eq(http_exchange_body(x, &f->arena, 1 << 20, &body), 0);
        http_exchange_close(x);
        http_client_free(c);
        return body;
}

ON_LOOP_TEST(daprctl_can_ask)
{
        struct fault f;
        const char *md[] = {"mode", "echo", "secret", "hidden", "timeout", "3s"}, *bad[] = {"mode", "init-fail"};
        int status;
        fault_init(&f);
        unsetenv("XDG_RUNTIME_DIR");
        unsetenv("TMPDIR");
        fault_install(&f, "state.faulty", NULL,
                      "metadata:\n  - {name: timeout, type: duration}\n  - {name: secret, sensitive: true}\n  - {name: mode}\n");
        fault_open(&f);
        fault_start(&f, fault_spec(&f, "store", "state.faulty", md, 3));
        fault_refused(&f, fault_spec(&f, "other", "state.faulty", bad, 1), "missing");
        struct str s = ask(&f, "GET", "/v1/plugins", &status);
        ck_assert_int_eq(status, 200);
        ck_assert(text_has(s, "\"appId\":\"fault\"") && text_has(s, "\"component\":\"store\",\"type\":\"state.faulty\""));
        ck_assert(text_has(s, "\"state\":\"READY\"") && text_has(s, "\"features\":[\"ETAG\"]"));
        ck_assert(text_has(s, "{\"component\":\"other\",\"type\":\"state.faulty\",\"state\":\"FAILED\",\"lastError\":\"missing connection string\"}"));
        s = ask(&f, "GET", "/v1/plugins/store", &status);
        ck_assert(text_has(s, "\"timeout\":\"3s\"") && text_has(s, "\"secret\":\"***\"") && !text_has(s, "hidden"));
        s = ask(&f, "GET", "/v1/plugins/store/logs", &status);
        ck_assert(text_has(s, "timeout is 3000000000 ns, secret given"));
        ask(&f, "POST", "/v1/plugins/store/restart", &status);
        ck_assert_int_eq(status, 204);
        s = ask(&f, "GET", "/v1/plugins/store", &status);
        ck_assert(text_has(s, "\"restarts\":1"));
        ask(&f, "GET", "/v1/plugins/none", &status);
        ck_assert_int_eq(status, 404);
        ask(&f, "DELETE", "/v1/plugins/store", &status);
        ck_assert_int_eq(status, 404);
        fault_close(&f);
}

int main(void)
{
        Suite *s = suite_create("foreign");
        TCase *t = tcase_create("pluggable components");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, found_at_the_start_and_shared_by_several_components);
        tcase_add_test(t, found_later);
        tcase_add_test(t, lost_and_found_again_with_a_new_init);
        tcase_add_test(t, a_foreign_process_that_hangs_is_degraded);
        tcase_add_test(t, failed_init_of_a_foreign_one_speaks_grpc);
        tcase_add_test(t, stale_sockets_and_plain_files_do_not_hold_up_the_others);
        tcase_add_test(t, the_folder_may_come_later);
        tcase_add_test(t, daprctl_can_ask);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
