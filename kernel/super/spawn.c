/*
 * clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD): no copy of the page tables, the pidfd is born with the process, and a failed exec
 * is reported through shared memory. The child runs on a stack of its own and calls only async-signal-safe functions.
 */
#include "kernel/super/spawn.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/super/sandbox.h"

/* A thread sanitizer keeps books on memory that a child with CLONE_VM would write into. */
#ifdef __SANITIZE_THREAD__
#define CLONE_HOW (CLONE_VFORK | CLONE_PIDFD | SIGCHLD)
#else
#define CLONE_HOW (CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD)
#endif

enum { CHILD_STACK_BYTES = 64 * 1024, FIRST_FREE_FD = 5, SAFE_FD = 16, BACKLOG = 1024 };

struct child {
        const char *path;
        char *const *argv, *const *envp;
        int fds[FIRST_FREE_FD]; /* what becomes 0..4; all are >= SAFE_FD */
        const struct sandbox *sandbox; /* NULL = none */
        bool lingers;
        int ruleset_fd;         /* its copy, >= SAFE_FD; -1 = none */
        char by_fd[sizeof "/proc/self/fd/N"]; /* the program, when it is that of exec_fd */
        int exec_fd;            /* its copy, >= SAFE_FD; -1 = exec by path */
        int cgroup_fd;          /* -1 = as we are */
        pid_t parent;
        bool stopped;           /* to be traced, so that exec stops it */
        volatile int *error; /* in memory that both share, whatever the clone */
};

__attribute__((no_sanitize("address", "undefined", "thread"))) static int child_main(void *arg)
{
        struct child *c = arg;
        sigset_t none;
        struct sigaction dfl = {.sa_handler = SIG_DFL};
        for (int s = 1; s < NSIG; s++)
                sigaction(s, &dfl, NULL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid(); /* a Ctrl-C for the daprd must not reach its plugins before it has drained them */
        if (c->lingers)
                signal(SIGPIPE, SIG_IGN); /* of its log, while nobody reads */
        else
                prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != c->parent)
                _exit(127);
        for (int fd = 0; fd < FIRST_FREE_FD; fd++)
                if (dup2(c->fds[fd], fd) < 0)
                        goto failed;
        int keep = c->ruleset_fd >= 0 && dup2(c->ruleset_fd, FIRST_FREE_FD) == FIRST_FREE_FD;
        int program = c->exec_fd >= 0 ? dup3(c->exec_fd, FIRST_FREE_FD + keep, O_CLOEXEC) : -1;
        if (c->exec_fd >= 0 && program < 0)
                goto failed;
        keep += program >= 0;
        if (syscall(SYS_close_range, FIRST_FREE_FD + keep, ~0U, 0))
                for (int fd = FIRST_FREE_FD + keep; fd < 65536; fd++) /* a kernel before 5.9 */
                        close(fd);
        if (c->stopped) {
                prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* where Yama lets only parents trace */
                c->error[1] = syscall(SYS_ptrace, PTRACE_TRACEME, 0, NULL, NULL) == 0;
        }
        if (c->sandbox) {
                int r = sandbox_enter(c->sandbox, FIRST_FREE_FD, FIRST_FREE_FD - 1);
                if (!c->lingers)
                        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of the user takes it away */
                if (r || getppid() != c->parent) {
                        *c->error = r ? -r : ESRCH;
                        _exit(127);
                }
        }
        if (program >= 0) /* no execveat(): its filter has execve() only */
                c->by_fd[sizeof c->by_fd - 2] = (char)('0' + program);
        execve(program >= 0 ? c->by_fd : c->path, c->argv, c->envp);
failed:
        *c->error = errno;
        _exit(127);
}

/* We are its tracer for as long as it takes to leave it stopped; where that is forbidden, it may have run a little. */
static void stop_at_entry(pid_t pid, int pidfd, bool traced)
{
        int status;
        if (traced && waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status))
                syscall(SYS_ptrace, PTRACE_DETACH, pid, NULL, (void *)(intptr_t)SIGSTOP);
        else
                syscall(SYS_pidfd_send_signal, pidfd, SIGSTOP, NULL, 0);
}

/* Born in another group: moving a process there stops the whole machine for milliseconds. Only clone3 can, and without a stack of its
 * own the child needs a copy of the page tables. */
static pid_t clone_into_cgroup(struct child *c, int *ret_pidfd)
{
        struct clone_args args = {.flags = CLONE_VFORK | CLONE_PIDFD | CLONE_INTO_CGROUP, .pidfd = (uintptr_t)ret_pidfd, .exit_signal = SIGCHLD,
                                  .cgroup = (uint64_t)c->cgroup_fd};
        pid_t pid = c->cgroup_fd < 0 ? -1 : (pid_t)syscall(SYS_clone3, &args, sizeof args);
        if (pid == 0)
                _exit(child_main(c));
        return pid;
}

static int clone_child(struct child *c, pid_t *ret_pid, int *ret_pidfd, bool *ret_in_cgroup)
{
        sigset_t all, old;
        char *stack = mmap(NULL, CHILD_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (stack == MAP_FAILED)
                return -errno;
        c->error = (int *)stack; /* far below what the child uses of it */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int pidfd = -1;
        uintptr_t top = ((uintptr_t)stack + CHILD_STACK_BYTES) & ~(uintptr_t)63;
        pid_t pid = clone_into_cgroup(c, &pidfd);
        *ret_in_cgroup = pid > 0;
        if (pid < 0)
                pid = clone(child_main, (void *)top, CLONE_HOW, c, &pidfd);
        int r = pid < 0 ? -errno : 0, error = *c->error;
        bool traced = c->error[1];
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        munmap(stack, CHILD_STACK_BYTES);
        if (r)
                return r;
        if (error) {
                siginfo_t si;
                while (waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED) < 0 && errno == EINTR)
                        ;
                close(pidfd);
                return -error;
        }
        if (c->stopped)
                stop_at_entry(pid, pidfd, traced);
        fcntl(pidfd, F_SETFD, FD_CLOEXEC);
        *ret_pid = pid;
        *ret_pidfd = pidfd;
        return 0;
}

/* ---- why exec refused ---- */

static const char *machine_name(unsigned m)
{
        switch (m) {
        case EM_X86_64: return "x86-64";
        case EM_386: return "i386";
        case EM_AARCH64: return "arm64";
        case EM_ARM: return "arm";
        case EM_RISCV: return "riscv";
        case EM_PPC64: return "ppc64";
        case EM_S390: return "s390x";
        default: return "another machine";
        }
}

static unsigned machine_of(const char *path)
{
        unsigned char h[20] = {0};
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, h, sizeof h) : -1;
        if (fd >= 0)
                close(fd);
        if (n != (ssize_t)sizeof h || memcmp(h, ELFMAG, SELFMAG) != 0)
                return 0;
        return h[EI_DATA] == ELFDATA2LSB ? h[18] | (unsigned)h[19] << 8 : h[19] | (unsigned)h[18] << 8;
}

static void explain(const char *path, int r, char *err, size_t n)
{
        struct stat st;
        bool exists = stat(path, &st) == 0;
        unsigned theirs = exists ? machine_of(path) : 0, ours = machine_of("/proc/self/exe");
        if (!exists)
                snprintf(err, n, "%s does not exist; build or install the plugin again, or correct 'executable' in its plugin.yaml", path);
        else if (!S_ISREG(st.st_mode))
                snprintf(err, n, "%s is not a file; correct 'executable' in its plugin.yaml", path);
        else if (theirs && ours && theirs != ours)
                snprintf(err, n, "%s is built for %s, this machine is %s; install the plugin for this architecture", path,
                         machine_name(theirs), machine_name(ours));
        else if (r == -EACCES)
                snprintf(err, n, "%s is not executable; chmod +x it (and look whether its file system is mounted noexec)", path);
        else if (r == -ENOEXEC)
                snprintf(err, n, "%s is not a program of this machine: neither ELF nor a script with #!", path);
        else if (r == -ENOENT)
                snprintf(err, n, "%s needs an interpreter or dynamic loader that is not installed", path);
        else
                snprintf(err, n, "%s cannot be started: %s", path, strerrordesc_np(-r));
}

/* ---- descriptors ---- */

/* Out of the way of 0..4, where the child's descriptors go. Takes fd. */
static int move_up(int fd)
{
        if (fd < 0 || fd >= SAFE_FD)
                return fd;
        int up = fcntl(fd, F_DUPFD_CLOEXEC, SAFE_FD), e = errno;
        close(fd);
        errno = e;
        return up;
}

/* A named pipe can be opened again by whoever comes after us. */
static int make_pipe(const char *path, int fds[2])
{
        if (!path)
                return pipe2(fds, O_CLOEXEC);
        unlink(path);
        if (mkfifo(path, 0600))
                return -1;
        fds[0] = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        fds[1] = fds[0] < 0 ? -1 : open(path, O_WRONLY | O_CLOEXEC);
        return fds[1] < 0 ? -1 : 0;
}

static int make_fds(int theirs[FIRST_FREE_FD], int ours[3], const struct spawn_how *how)
{
        int out[2] = {-1, -1}, err[2] = {-1, -1}, control[2] = {-1, -1}, listen_fd = how->listen_fd;
        theirs[0] = move_up(open("/dev/null", O_RDONLY | O_CLOEXEC));
        int r = make_pipe(how->out_path, out) || make_pipe(how->err_path, err) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control);
        int saved = errno;
        theirs[1] = move_up(out[1]);
        theirs[2] = move_up(err[1]);
        theirs[3] = listen_fd < 0 ? -1 : fcntl(listen_fd, F_DUPFD_CLOEXEC, SAFE_FD);
        theirs[4] = move_up(control[1]);
        ours[0] = out[0];
        ours[1] = err[0];
        ours[2] = control[0];
        if (r)
                return -saved;
        for (int i = 0; i < FIRST_FREE_FD; i++)
                if (theirs[i] < 0)
                        return -EMFILE;
        fcntl(ours[0], F_SETFL, O_NONBLOCK);
        fcntl(ours[1], F_SETFL, O_NONBLOCK);
        return 0;
}

static void close_all(int *fds, int n)
{
        for (int i = 0; i < n; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
}

int spawn_plugin(const char *path, char *const *envp, const struct spawn_how *how, struct spawned *ret, char *err, size_t err_n)
{
        int ours[3] = {-1, -1, -1};
        char *argv[] = {(char *)path, NULL};
        struct child c = {.path = path, .by_fd = "/proc/self/fd/N", .argv = argv, .envp = envp, .parent = getpid(),
                          .lingers = how->lingers, .stopped = how->stopped, .cgroup_fd = how->cgroup_fd,
                          .sandbox = how->sandbox && how->sandbox->on ? how->sandbox : NULL};
        int r = make_fds(c.fds, ours, how);
        c.ruleset_fd = c.sandbox && c.sandbox->ruleset_fd >= 0 ? fcntl(c.sandbox->ruleset_fd, F_DUPFD_CLOEXEC, SAFE_FD) : -1;
        c.exec_fd = how->exec_fd >= 0 ? fcntl(how->exec_fd, F_DUPFD_CLOEXEC, SAFE_FD) : -1;
        if (r == 0 && how->exec_fd >= 0 && c.exec_fd < 0)
                r = -errno;
        if (r)
                snprintf(err, err_n, "no descriptors for a new process: %s", strerrordesc_np(-r));
        if (r == 0) {
                r = clone_child(&c, &ret->pid, &ret->pidfd, &ret->in_cgroup);
                if (r)
                        explain(path, r, err, err_n);
        }
        close_all(c.fds, FIRST_FREE_FD);
        close_all(&c.ruleset_fd, 1);
        close_all(&c.exec_fd, 1);
        if (r) {
                close_all(ours, 3);
                return r;
        }
        ret->out_fd = ours[0];
        ret->err_fd = ours[1];
        ret->control_fd = ours[2];
        return 0;
}
