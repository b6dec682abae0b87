/* The rights of a plugin: ports and paths that a component's metadata comes to, and what the walls let through. */
#include <check.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/super/rights.h"
#include "kernel/super/sandbox.h"
#include "kernel/super/sandbox_filter.h"
#include "sdk/base/yaml.h"

static struct arena A;
static char folder[] = "/tmp/rights-XXXXXX";
static const char *pairs[8][2];

static void setup(void)
{
        arena_init(&A, 0);
        strcpy(folder, "/tmp/rights-XXXXXX");
        ck_assert(mkdtemp(folder) != NULL);
        memset(pairs, 0, sizeof pairs);
}

static void teardown(void)
{
        rmdir(folder);
        arena_fini(&A);
}

static const char *value(void *arg, const char *field)
{
        for (int i = 0; i < 8 && pairs[i][0]; i++)
                if (!strcmp(pairs[i][0], field))
                        return pairs[i][1];
        return NULL;
}

static void grants(const char *sandbox, struct grant *g)
{
        struct yaml_node *root = NULL;
        struct rights r;
        const char *err = NULL;
        ck_assert_int_eq(yaml_read(&A, str_of(sandbox), "f.yaml", 1, 0, &root, &err), 0);
        ck_assert_int_eq(rights_read(&A, root, &r, &A, &err), 0);
        *g = (struct grant){0};
        ck_assert_int_eq(rights_grant(&r, value, NULL, &A, g), 0);
}

START_TEST(ports_stand_in_every_form_of_an_address)
{
        static const struct { const char *text; int port, n, first, last; } cases[] = {
                {"localhost:6379", 1, 1, 6379, 6379}, {"localhost", 6379, 1, 6379, 6379}, {"a:1,b:2, c", 3, 3, 1, 3}, {"https://x/y", 1, 1, 443, 443},
                {"http://u:p@h:8080/a?b=c", 1, 1, 8080, 8080}, {"amqp://guest:guest@[::1]:5673/", 1, 1, 5673, 5673}, {"[::1]:7", 1, 1, 7, 7}, {"[::1]", 9, 1, 9, 9},
                {"host=h port=5433 user=u", 5432, 1, 5433, 5433}, {"host=h user=u", 5432, 1, 5432, 5432}, {"postgres://u@h/db", 1, 1, 5432, 5432}, {"6380", 1, 1, 6380, 6380},
                {"host = h port = '5433'", 5432, 1, 5433, 5433}, {"postgres:///db?host=h&port=5434", 5432, 2, 5434, 5432},
                {"h:99999", 5, 1, 5, 5}, {"", 5, 0, 0, 0}, {"a:1 a:1", 5, 1, 1, 1}, {"x", 0, 0, 0, 0}};
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                int ports[8] = {0};
                int n = rights_ports(str_of(cases[i].text), cases[i].port, ports, 8);
                ck_assert_msg(n == cases[i].n, "%s: %d ports", cases[i].text, n);
                ck_assert_msg(!n || (ports[0] == cases[i].first && ports[n - 1] == cases[i].last), "%s: %d .. %d", cases[i].text, ports[0], ports[n ? n - 1 : 0]);
        }
        int few[2];
        ck_assert_int_eq(rights_ports(STR("a:1,b:2,c:3"), 1, few, 2), -1);
}
END_TEST

START_TEST(a_database_opens_its_folder_and_memory_opens_nothing)
{
        struct grant g;
        pairs[0][0] = "db";
        pairs[0][1] = arena_printf(&A, "file:%s/new.db?mode=rwc&_txlock=immediate", folder);
        grants("{files: [{path: '${db}', access: write, beside: true}]}", &g);
        ck_assert_uint_eq(g.n_files, 1);
        ck_assert_str_eq(g.files[0].path, folder);
        ck_assert(g.writes);
        pairs[0][1] = ":memory:";
        grants("{files: [{path: '${db}', access: write, beside: true}]}", &g);
        ck_assert_uint_eq(g.n_files, 0);
}
END_TEST

START_TEST(text_instead_of_a_path_opens_nothing)
{
        struct grant g;
        pairs[0][0] = "jwks";
        pairs[0][1] = "{\"keys\": []}";
        grants("{files: [{path: '${jwks}', beside: true}]}", &g);
        ck_assert_uint_eq(g.n_files, 0);
        pairs[0][1] = NULL;
        grants("{files: [{path: '${jwks}'}], network: [{connect: '${jwks}', port: 443}]}", &g);
        ck_assert(g.n_files == 0 && g.n_connect == 0 && !g.tcp);
}
END_TEST

START_TEST(conditions_decide)
{
        struct grant g;
        pairs[0][0] = "type";
        pairs[0][1] = "Cluster";
        grants("{network: [{connect: '*', when: type=cluster}]}", &g);
        ck_assert(g.any_port && g.tcp);
        pairs[0][1] = "node";
        grants("{network: [{connect: '*', when: type=cluster}]}", &g);
        ck_assert(!g.any_port && !g.tcp);
        grants("{network: [{connect: udp}, {connect: unix}, {listen: 80}]}", &g);
        ck_assert(g.udp && g.unix_sockets && g.n_listen == 1 && g.listen_ports[0] == 80);
}
END_TEST

START_TEST(paths_in_settings_are_files)
{
        struct grant g;
        pairs[0][0] = "c";
        pairs[0][1] = "host=h sslrootcert=/etc/a.pem sslkey=/etc/k.pem";
        grants("{files: [{path: '${c}'}]}", &g);
        ck_assert_uint_eq(g.n_files, 2);
        ck_assert_str_eq(g.files[1].path, "/etc/k.pem");
}
END_TEST

START_TEST(what_may_be_opened)
{
        struct grant g = {.n_files = 1, .files = {{folder, RIGHT_READ}}};
        const char *inside = arena_printf(&A, "%s/x", folder), *beside = arena_printf(&A, "%sx", folder);
        ck_assert(sandbox_may_open(&g, "/opt/p/plugin", inside, false));
        ck_assert(!sandbox_may_open(&g, "/opt/p/plugin", inside, true));
        ck_assert(!sandbox_may_open(&g, "/opt/p/plugin", beside, false));
        ck_assert(!sandbox_may_open(&g, "/opt/p/plugin", "/etc/shadow", false));
        ck_assert(sandbox_may_open(&g, "/opt/p/plugin", "/dev/null", true));
}
END_TEST

START_TEST(the_filter_fits)
{
        static struct sock_filter f[SANDBOX_FILTER_MAX];
        struct filter_wish all = {true, true, true, true, true, true, true, 0x80000000U};
        ck_assert_uint_lt(filter_build(f, &all), SANDBOX_FILTER_MAX);
}
END_TEST

START_TEST(limits_are_read_and_checked)
{
        static const struct { const char *text; unsigned percent; const char *err; } rows[] = {
                {"limits: {cpu: 0.5}", 50, NULL}, {"limits: {cpu: 2}", 200, NULL}, {"limits: {}", 0, NULL}, {"limits: {memory: 1Mi}", 0, NULL},
                {"limits: {cpu: 0}", 0, "'cpu' must be a number of CPUs"}, {"limits: {cpu: half}", 0, "'cpu' must be"}, {"limits: {cpu: -1}", 0, "'cpu' must be"},
                {"limits: {cpu: 1e9}", 0, "'cpu' must be"}, {"limits: {cpu: nan}", 0, "'cpu' must be"}, {"limits: {disk: 1}", 0, "disk"}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct yaml_node *root = NULL;
                struct rights r;
                const char *err = "";
                ck_assert_int_eq(yaml_read(&A, str_of(rows[i].text), "f.yaml", 1, 0, &root, &err), 0);
                int e = rights_read(&A, root, &r, &A, &err);
                ck_assert_msg((e == 0) == !rows[i].err, "%s: %s", rows[i].text, err);
                if (e)
                        ck_assert_msg(strstr(err, rows[i].err) && strstr(err, "f.yaml:1:"), "%s: %s", rows[i].text, err);
                else
                        ck_assert_uint_eq(r.cpu_percent, rows[i].percent);
        }
}
END_TEST

/* What the program says to a call when all that it knows is its number; 0 = it looks further, so the kernel cannot remember the answer. */
static unsigned answer_by_number(const struct sock_filter *f, size_t n, unsigned nr)
{
        uint32_t a = 0;
        for (size_t i = 0; i < n; i++) {
                const struct sock_filter *x = &f[i];
                if (x->code == (BPF_RET | BPF_K))
                        return x->k;
                if (x->code == (BPF_LD | BPF_W | BPF_ABS)) {
                        if (x->k == offsetof(struct seccomp_data, arch))
                                a = f[i + 1].k; /* the comparison that follows: this machine */
                        else if (x->k == offsetof(struct seccomp_data, nr))
                                a = nr;
                        else
                                return 0;
                } else {
                        ck_assert(x->code == (BPF_JMP | BPF_JEQ | BPF_K) || x->code == (BPF_JMP | BPF_JGE | BPF_K));
                        bool yes = x->code == (BPF_JMP | BPF_JEQ | BPF_K) ? a == x->k : a >= x->k;
                        i += yes ? x->jt : x->jf;
                }
        }
        return 0;
}

/* The kernel answers calls that are always allowed from a bitmap, without running the program. */
START_TEST(calls_of_every_request_are_allowed_by_their_number)
{
        static struct sock_filter f[SANDBOX_FILTER_MAX];
        static const int hot[] = {SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_epoll_pwait,
                                  SYS_epoll_ctl, SYS_futex, SYS_clock_gettime, SYS_munmap, SYS_accept4, SYS_close,
#ifdef SYS_epoll_wait
                                  SYS_epoll_wait,
#endif
        };
        struct filter_wish least = {.denied = SECCOMP_RET_USER_NOTIF};
        size_t n = filter_build(f, &least);
        for (size_t i = 0; i < sizeof hot / sizeof *hot; i++)
                ck_assert_uint_eq(answer_by_number(f, n, (unsigned)hot[i]), SECCOMP_RET_ALLOW);
        ck_assert_uint_eq(answer_by_number(f, n, SYS_socket), 0);
        ck_assert_uint_eq(answer_by_number(f, n, SYS_ptrace), SECCOMP_RET_USER_NOTIF);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("rights");
        TCase *t = tcase_create("rights");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, ports_stand_in_every_form_of_an_address);
        tcase_add_test(t, a_database_opens_its_folder_and_memory_opens_nothing);
        tcase_add_test(t, text_instead_of_a_path_opens_nothing);
        tcase_add_test(t, conditions_decide);
        tcase_add_test(t, paths_in_settings_are_files);
        tcase_add_test(t, what_may_be_opened);
        tcase_add_test(t, the_filter_fits);
        tcase_add_test(t, limits_are_read_and_checked);
        tcase_add_test(t, calls_of_every_request_are_allowed_by_their_number);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
