/* The ledger on disk and the proofs around it: whatever is damaged, cut off, of another version or open to others is refused with a
 * reason; a process is believed only when number, start and user are its own; a dead daprd's folder has one heir. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/super/ledger_file.h"
#include "kernel/super/proof.h"
#include "kernel/super/runtime_dir.h"

static char dir[64];

static void make_dir(void)
{
        strcpy(dir, "/tmp/ledger-test-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        setenv("XDG_RUNTIME_DIR", dir, 1);
}

static void remove_dir(void)
{
        char command[128];
        snprintf(command, sizeof command, "rm -rf %s", dir);
        ck_assert_int_eq(system(command), 0);
}

static void fill(struct ledger *l)
{
        static struct ledger_instance instance = {"store", "state.x", "v1", 0, 7, UINT64_MAX};
        ledger_init(l);
        l->pid = 4711;
        l->app_id = "orders";
        l->boot_id = "b";
        l->linger_ms = 30000;
        l->at_ns = 5;
        struct ledger_plugin *p = ledger_add_plugin(l);
        ck_assert_ptr_nonnull(p);
        p->name = "state.x";
        p->manifest = "/p/plugin.yaml";
        p->version = "1.0.0";
        p->path = "1.sock";
        p->reported_name = p->reported_version = "";
        p->executable = "/p/x";
        p->token = "secret";
        p->pid = 12;
        p->start_ticks = 99;
        p->uid = 61184;
        p->executable_id = UINT64_MAX;
        p->generation = 3;
        p->instances = &instance;
        p->n_instances = 1;
        ck_assert_int_eq(ledger_add_event(l, 1, "store", "signal", "process 12"), 0);
}

static struct buf frame(void)
{
        struct ledger l;
        struct buf b = {0};
        fill(&l);
        ck_assert_int_eq(ledger_frame(&l, &b), 0);
        ledger_fini(&l);
        return b;
}

static int unframe(struct str bytes, struct ledger_head *head, char *err, size_t n)
{
        struct ledger l;
        const char *why = NULL;
        ledger_init(&l);
        int r = ledger_unframe(&l, bytes, head, &why);
        ck_assert(r == 0 || why);
        snprintf(err, n, "%s", why ? why : "");
        ledger_fini(&l);
        return r;
}

START_TEST(what_is_framed_is_read_again)
{
        struct ledger_head head;
        struct ledger l;
        const char *err;
        struct buf b = frame();
        ledger_init(&l);
        ck_assert_int_eq(ledger_unframe(&l, buf_str(&b), &head, &err), 0);
        ck_assert(head.version == LEDGER_VERSION && strcmp(head.app_id, "orders") == 0);
        ck_assert(l.linger_ms == 30000 && l.at_ns == 5 && l.n_plugins == 1 && l.n_events == 1 && strcmp(l.app_id, "orders") == 0);
        const struct ledger_plugin *p = l.plugins;
        ck_assert(p->start_ticks == 99 && p->uid == 61184 && p->executable_id == UINT64_MAX && p->generation == 3);
        ck_assert(strcmp(p->token, "secret") == 0 && strcmp(p->executable, "/p/x") == 0 && strcmp(p->instances[0].name, "store") == 0);
        ledger_fini(&l);
        buf_fini(&b);
}
END_TEST

START_TEST(each_cut_and_each_changed_byte_is_noticed)
{
        struct ledger_head head;
        char err[200];
        struct buf b = frame();
        for (size_t n = 0; n < b.len; n++)
                ck_assert_int_eq(unframe(str_n(b.p, n), &head, err, sizeof err), -EBADMSG);
        for (size_t i = 0; i < b.len; i++) {
                b.p[i] ^= 0x20;
                int r = unframe(buf_str(&b), &head, err, sizeof err);
                ck_assert_msg(i >= 8 && i < 12 ? r == -EPROTO : r == -EBADMSG, "byte %zu: %d %s", i, r, err);
                b.p[i] ^= 0x20;
        }
        ck_assert_int_eq(unframe(buf_str(&b), &head, err, sizeof err), 0);
        ck_assert_int_eq(buf_addc(&b, 'x'), 0);
        ck_assert_int_eq(unframe(buf_str(&b), &head, err, sizeof err), -EBADMSG);
        ck_assert_str_eq(err, "it is not as long as it says");
        buf_fini(&b);
}
END_TEST

START_TEST(another_version_is_named_and_its_owner_known)
{
        struct ledger_head head = {0};
        char err[200];
        struct buf b = frame();
        for (int v = 0; v < 200; v += 99) {
                b.p[8] = (char)v;
                ck_assert_int_eq(unframe(buf_str(&b), &head, err, sizeof err), -EPROTO);
                ck_assert_str_eq(head.app_id, "orders");
                ck_assert_ptr_nonnull(strstr(err, "this daprd knows version 2"));
        }
        buf_fini(&b);
}
END_TEST

static int read_dir(const char *folder, char *err, size_t n)
{
        struct ledger_head head;
        struct ledger l;
        const char *why = "";
        int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ledger_init(&l);
        int r = ledger_file_read(&l, fd, &head, &why);
        snprintf(err, n, "%s", why);
        ledger_fini(&l);
        close(fd);
        return r;
}

START_TEST(a_file_is_whole_private_and_a_file)
{
        char path[128], other[128], err[200];
        struct stat st;
        struct buf b = frame();
        snprintf(path, sizeof path, "%s/ledger", dir);
        snprintf(other, sizeof other, "%s/other", dir);
        ck_assert_int_eq(read_dir(dir, err, sizeof err), -ENOENT);
        ck_assert_int_eq(ledger_file_write(dir, buf_str(&b)), 0);
        ck_assert_int_eq(ledger_file_write(dir, buf_str(&b)), 0);
        ck_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
        ck_assert_int_eq(read_dir(dir, err, sizeof err), 0);
        ck_assert_int_eq(chmod(path, 0640), 0);
        ck_assert_int_eq(read_dir(dir, err, sizeof err), -EBADMSG);
        ck_assert_int_eq(rename(path, other), 0);
        ck_assert_int_eq(symlink(other, path), 0);
        ck_assert_int_eq(read_dir(dir, err, sizeof err), -ELOOP);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        ck_assert_int_eq(read_dir(dir, err, sizeof err), -EBADMSG);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
        ck_assert_int_eq(read_dir(dir, err, sizeof err), -EBADMSG);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(mkdir(path, 0700), 0);
        ck_assert_int_eq(ledger_file_write(dir, buf_str(&b)), -EISDIR);
        ck_assert_int_eq(ledger_file_write("/nowhere", buf_str(&b)), -ENOENT);
        buf_fini(&b);
}
END_TEST

START_TEST(a_process_is_known_by_number_start_and_user)
{
        signal(SIGTERM, SIG_DFL);
        pid_t pid = fork();
        if (pid == 0) {
                pause();
                _exit(0);
        }
        uint64_t ticks = proof_start_ticks(pid);
        ck_assert(ticks > 0);
        int fd = proof_process(pid, ticks, geteuid());
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(proof_process(pid, ticks + 1, geteuid()), -ESRCH);
        ck_assert_int_eq(proof_process(pid, ticks, geteuid() + 1), -ESRCH);
        ck_assert_int_eq(proof_process(pid, 0, geteuid()), -ESRCH);
        ck_assert_int_eq(proof_process(1, proof_start_ticks(1), 0), -ESRCH);
        ck_assert_int_eq(proof_process(-1, ticks, geteuid()), -ESRCH);
        ck_assert(!proof_is_exiting(pid));
        proof_end(fd);
        ck_assert_int_eq(proof_process(pid, ticks, geteuid()), -ESRCH); /* ended, not reaped */
        ck_assert(proof_is_exiting(pid));
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        ck_assert(!proof_is_exiting(pid));
        ck_assert_int_eq(proof_start_ticks(pid), 0);
        close(fd);
}
END_TEST

START_TEST(a_program_that_was_exchanged_shows)
{
        char path[128];
        snprintf(path, sizeof path, "%s/x", dir);
        ck_assert_int_eq(proof_file_id(path), 0);
        FILE *f = fopen(path, "w");
        ck_assert(f && fputs("a", f) > 0 && fclose(f) == 0);
        uint64_t first = proof_file_id(path);
        ck_assert(first && proof_file_id(path) == first);
        f = fopen(path, "a");
        ck_assert(f && fputs("b", f) > 0 && fclose(f) == 0);
        ck_assert(proof_file_id(path) != first);
}
END_TEST

START_TEST(who_listens_is_told)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int pidfd = 7, fd = socket(AF_UNIX, SOCK_STREAM, 0);
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s/s", dir);
        ck_assert_int_eq(proof_listener(sa.sun_path, &pidfd), -ENOENT);
        ck_assert_int_eq(pidfd, -1);
        ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
        ck_assert_int_eq(proof_listener(sa.sun_path, NULL), -ECONNREFUSED);
        ck_assert_int_eq(listen(fd, 5), 0);
        ck_assert_int_eq(proof_listener(sa.sun_path, &pidfd), getpid());
        if (pidfd >= 0)
                close(pidfd);
        close(fd);
}
END_TEST

/* ---- heirs ---- */

static int64_t worth(void *arg, int folder_fd)
{
        char text[16] = "";
        int fd = openat(folder_fd, "worth", O_RDONLY);
        if (fd < 0)
                return -1;
        ck_assert_int_ge(read(fd, text, sizeof text - 1), 0);
        close(fd);
        return atoi(text);
}

/* A folder as a daprd that ended leaves it. */
static void leave(const char *name, const char *value)
{
        char path[160];
        snprintf(path, sizeof path, "%s/dapr-%u", dir, (unsigned)geteuid());
        mkdir(path, 0700);
        snprintf(path + strlen(path), 40, "/%s", name);
        ck_assert_int_eq(mkdir(path, 0700), 0);
        size_t n = strlen(path);
        strcpy(path + n, "/lock");
        close(open(path, O_CREAT | O_RDWR, 0600));
        strcpy(path + n, "/worth");
        int fd = open(path, O_CREAT | O_RDWR, 0600);
        ck_assert_int_ge(write(fd, value, strlen(value)), 0);
        close(fd);
}

static bool spare_all(void *arg, int folder_fd)
{
        ++*(int *)arg;
        return true;
}

START_TEST(a_dead_folder_has_one_heir_and_the_best_is_taken)
{
        struct runtime_dir a, b;
        char path[200];
        int spared = 0;
        leave("k1999999901.0", "5");
        leave("k1999999902.0", "9");
        leave("k1999999903.0", "7");
        runtime_dir_init(&a);
        runtime_dir_init(&b);
        a.spared = spare_all;
        a.spared_arg = &spared;
        ck_assert_int_eq(runtime_dir_take(&a, worth, NULL), 0);
        ck_assert_int_eq(spared, 2);
        snprintf(path, sizeof path, "%s/worth", a.own);
        ck_assert_int_eq(access(path, F_OK), 0);
        ck_assert_int_eq(runtime_dir_open(&a), 0);
        ck_assert_int_eq(runtime_dir_take(&b, worth, NULL), 0); /* the one that is worth 7; the other is swept away */
        ck_assert(strcmp(a.own, b.own) != 0);
        snprintf(path, sizeof path, "%s/k1999999901.0", a.user);
        ck_assert_int_eq(access(path, F_OK), -1);
        runtime_dir_close(&b);
        ck_assert_int_eq(runtime_dir_take(&b, worth, NULL), -ENOENT); /* a is alive */
        runtime_dir_close(&a);
        runtime_dir_close(&b);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("ledger_file");
        TCase *t = tcase_create("ledger_file");
        tcase_add_checked_fixture(t, make_dir, remove_dir);
        tcase_add_test(t, what_is_framed_is_read_again);
        tcase_add_test(t, each_cut_and_each_changed_byte_is_noticed);
        tcase_add_test(t, another_version_is_named_and_its_owner_known);
        tcase_add_test(t, a_file_is_whole_private_and_a_file);
        tcase_add_test(t, a_process_is_known_by_number_start_and_user);
        tcase_add_test(t, a_program_that_was_exchanged_shows);
        tcase_add_test(t, who_listens_is_told);
        tcase_add_test(t, a_dead_folder_has_one_heir_and_the_best_is_taken);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
