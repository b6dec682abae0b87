/* See subject.h. Killed by pidfd only. */
#include "ctl/subject.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/store.h"
#include "sdk/base/loop.h"
#include "sdk/net/conn.h"

#define CONFINE_ARG "--confined-plugin" /* kernel/super/confine_run.h */
enum { SAFE_FD = 16, OUTPUT_SHOWN = 2000 };
#define POLL_S 0.005

/* Who listens there. */
static pid_t peer_of(const char *path)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        struct ucred cred = {0};
        socklen_t n = sizeof cred;
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && (connect(fd, (struct sockaddr *)&sa, sizeof sa) || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n)))
                cred.pid = 0;
        if (fd >= 0)
                close(fd);
        return cred.pid;
}

int subject_open(struct subject *s, struct arena *a)
{
        const char *tmp = getenv("TMPDIR");
        s->listen_fd = s->control_fd = s->pidfd = -1;
        if (!s->program) {
                s->pid = peer_of(s->socket);
                return s->pid ? 0 : -ECONNREFUSED;
        }
        char *dir = arena_printf(a, "%s/dapr-conformance-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!dir || !mkdtemp(dir))
                return -errno;
        s->dir = dir;
        s->socket = path_join(a, dir, "plugin.sock");
        s->listen_fd = listener_unix(s->socket);
        return s->listen_fd < 0 ? s->listen_fd : subject_start(s);
}

static char **environment(const struct subject *s)
{
        char **v = calloc(s->n_environment + 1, sizeof *v);
        size_t n = 0;
        for (size_t i = 0; v && i < s->n_environment; i++) {
                const char *value = getenv(s->environment[i]);
                if (value && asprintf(&v[n], "%s=%s", s->environment[i], value) >= 0)
                        n++;
        }
        return v;
}

/* Standard input: /dev/null, or what the launcher reads. >= 0 or -errno. */
static int open_input(const struct subject *s)
{
        int fd = s->launcher ? memfd_create("launch", MFD_CLOEXEC) : open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || !s->launcher)
                return fd < 0 ? -errno : fd;
        if (write(fd, s->launch.p, s->launch.n) == (ssize_t)s->launch.n && lseek(fd, 0, SEEK_SET) == 0)
                return fd;
        close(fd);
        return -EIO;
}

static int spawn(struct subject *s, int control)
{
        posix_spawn_file_actions_t fa;
        posix_spawnattr_t at;
        sigset_t none, fallback;
        char *argv[] = {(char *)(s->launcher ? s->launcher : s->program), (char *)(s->launcher ? CONFINE_ARG : NULL), NULL}, **env = environment(s);
        char *output = NULL;
        int listen_fd = fcntl(s->listen_fd, F_DUPFD_CLOEXEC, SAFE_FD);
        int input = open_input(s);
        if (!env || listen_fd < 0 || input < 0 || asprintf(&output, "%s/output", s->dir) < 0)
                return -ENOMEM;
        sigemptyset(&none);
        sigemptyset(&fallback);
        sigaddset(&fallback, SIGPIPE);
        posix_spawn_file_actions_init(&fa);
        posix_spawnattr_init(&at);
        posix_spawnattr_setsigmask(&at, &none);
        posix_spawnattr_setsigdefault(&at, &fallback);
        posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        posix_spawn_file_actions_adddup2(&fa, input, 0);
        posix_spawn_file_actions_addopen(&fa, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0600);
        posix_spawn_file_actions_adddup2(&fa, 1, 2);
        posix_spawn_file_actions_adddup2(&fa, listen_fd, 3);
        posix_spawn_file_actions_adddup2(&fa, control, 4);
        int r = -posix_spawn(&s->pid, argv[0], &fa, &at, argv, env);
        posix_spawn_file_actions_destroy(&fa);
        posix_spawnattr_destroy(&at);
        close(listen_fd);
        close(input);
        for (char **e = env; *e; e++)
                free(*e);
        free(env);
        free(output);
        return r;
}

int subject_start(struct subject *s)
{
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
                return -errno;
        int theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, SAFE_FD);
        close(pair[1]);
        subject_release(s);
        s->control_fd = pair[0];
        int r = theirs < 0 ? -errno : spawn(s, theirs);
        if (theirs >= 0)
                close(theirs);
        if (r == 0) {
                s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
                r = s->pidfd < 0 ? -errno : 0;
        }
        return r;
}

int subject_wait(struct subject *s, double timeout_s, int *ret_code, int *ret_status)
{
        double end = loop_now_exact() + timeout_s;
        while (s->pidfd >= 0) {
                siginfo_t si = {0};
                if (waitid(P_PIDFD, (id_t)s->pidfd, &si, WEXITED | WNOHANG) == 0 && si.si_pid) {
                        *ret_code = si.si_code;
                        *ret_status = si.si_status;
                        close(s->pidfd);
                        s->pidfd = -1;
                        return 0;
                }
                if (loop_now_exact() >= end || fiber_sleep(POLL_S))
                        return -ETIMEDOUT;
        }
        return -ECHILD;
}

void subject_signal(struct subject *s, int signo)
{
        if (s->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, s->pidfd, signo, NULL, 0);
}

int subject_wait_stopped(struct subject *s, double timeout_s)
{
        double end = loop_now_exact() + timeout_s;
        for (;;) {
                siginfo_t si = {0};
                if (waitid(P_PIDFD, (id_t)s->pidfd, &si, WSTOPPED | WNOHANG) == 0 && si.si_pid)
                        return 0;
                if (loop_now_exact() >= end || fiber_sleep(POLL_S))
                        return -ETIMEDOUT;
        }
}

void subject_release(struct subject *s)
{
        if (s->control_fd >= 0)
                close(s->control_fd);
        s->control_fd = -1;
}

bool subject_is_alive(const struct subject *s)
{
        siginfo_t si = {0};
        if (!s->program)
                return s->pid && kill(s->pid, 0) == 0;
        return s->pidfd >= 0 && waitid(P_PIDFD, (id_t)s->pidfd, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && !si.si_pid;
}

void subject_close(struct subject *s)
{
        int code, status;
        subject_release(s);
        subject_signal(s, SIGCONT);
        if (subject_wait(s, 3, &code, &status) == -ETIMEDOUT) {
                subject_signal(s, SIGKILL);
                subject_wait(s, 3, &code, &status);
        }
        if (s->listen_fd >= 0)
                close(s->listen_fd);
        if (s->dir)
                store_remove_tree(s->dir);
}

bool subject_usage(const struct subject *s, uint64_t *rss, uint64_t *fds)
{
        char path[64];
        unsigned long size, resident;
        snprintf(path, sizeof path, "/proc/%d/statm", (int)s->pid);
        FILE *f = s->pid > 0 ? fopen(path, "re") : NULL;
        bool ok = f && fscanf(f, "%lu %lu", &size, &resident) == 2;
        if (f)
                fclose(f);
        snprintf(path, sizeof path, "/proc/%d/fd", (int)s->pid);
        DIR *d = ok ? opendir(path) : NULL;
        *fds = 0;
        while (d && readdir(d))
                ++*fds;
        if (d)
                closedir(d);
        *rss = ok ? (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
        return ok && *fds;
}

const char *subject_output(const struct subject *s, struct arena *a)
{
        char *to = arena_alloc(a, OUTPUT_SHOWN + 1);
        FILE *f = s->dir && to ? fopen(path_join(a, s->dir, "output"), "re") : NULL;
        size_t n = 0;
        if (f) {
                fseek(f, 0, SEEK_END);
                long len = ftell(f);
                fseek(f, len > OUTPUT_SHOWN ? len - OUTPUT_SHOWN : 0, SEEK_SET);
                n = fread(to, 1, OUTPUT_SHOWN, f);
                fclose(f);
        }
        if (to)
                to[n] = '\0';
        return to ? to : "";
}
