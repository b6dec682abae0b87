/*
 * Children with their output line by line. A child is watched through a pidfd: its number may be used again, the descriptor not.
 * A process is done when it has exited and both pipes are at their end (or a grandchild keeps them: then half a second later).
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "sdk/base/loop.h"

enum { LINE_MAX_BYTES = 256 * 1024, PIPE_GRACE_MS = 500 };

struct output {
        struct io_watch watch;
        int fd;
        struct buf line;
        struct child *child;
        bool is_stderr;
};
struct child {
        struct process p;
        struct io_watch watch;
        struct timer grace;
        struct output out[2];
        process_line_fn on_line;
        void *arg;
        bool reaped;
};

static void check_done(struct child *c)
{
        if (!c->reaped || c->p.exited || c->out[0].fd >= 0 || c->out[1].fd >= 0)
                return;
        c->p.exited = true;
        timer_stop(&c->grace);
        cond_broadcast(&c->p.done);
}

static void emit_lines(struct output *o, bool at_end)
{
        struct str s = buf_str(&o->line);
        ptrdiff_t i;
        while ((i = str_chr(s, '\n')) >= 0 || (at_end && s.n) || s.n >= LINE_MAX_BYTES) {
                size_t n = i >= 0 ? (size_t)i : s.n;
                struct str line = str_n(s.p, n);
                if (line.n && line.p[line.n - 1] == '\r')
                        line.n--;
                o->child->on_line(o->child->arg, line, o->is_stderr);
                s = str_skip(s, i >= 0 ? n + 1 : n);
        }
        buf_consume(&o->line, buf_len(&o->line) - s.n);
}

static void output_close(struct output *o)
{
        if (o->fd < 0)
                return;
        io_watch_stop(&o->watch);
        close(o->fd);
        o->fd = -1;
        emit_lines(o, true);
        buf_fini(&o->line);
        check_done(o->child);
}

static void on_output(struct io_watch *w, int events)
{
        struct output *o = container_of(w, struct output, watch);
        for (;;) {
                if (buf_reserve(&o->line, 16384) != 0)
                        return;
                ssize_t n = read(o->fd, o->line.p + o->line.len, 16384);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return;
                if (n <= 0) {
                        output_close(o);
                        return;
                }
                o->line.len += (size_t)n;
                emit_lines(o, false);
        }
}

static void on_grace(struct timer *t)
{
        struct child *c = container_of(t, struct child, grace);
        output_close(&c->out[0]);
        output_close(&c->out[1]);
}

static void on_exit_fd(struct io_watch *w, int events)
{
        struct child *c = container_of(w, struct child, watch);
        if (waitpid(c->p.pid, &c->p.status, WNOHANG) != c->p.pid)
                return;
        c->reaped = true;
        io_watch_stop(w);
        timer_start(&c->grace, PIPE_GRACE_MS / 1e3, 0);
        check_done(c);
}

static void exec_child(char *const *argv, const struct process_options *o, int pipes[2][2], int report)
{
        if (o->own_group)
                setpgid(0, 0);
        if (o->die_with_us)
                prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (o->on_line) {
                dup2(pipes[0][1], 1);
                dup2(pipes[1][1], 2);
        }
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        for (int s = 1; s < NSIG; s++)
                signal(s, SIG_DFL);
        if (!o->dir || chdir(o->dir) == 0)
                execvpe(argv[0], argv, o->env ? o->env : environ);
        int e = errno;
        if (write(report, &e, sizeof(e)) < 0)
                _exit(126);
        _exit(127);
}

static int open_pipes(int pipes[2][2], int report[2])
{
        for (int i = 0; i < 2; i++)
                if (pipe2(pipes[i], O_CLOEXEC) != 0)
                        return -errno;
        return pipe2(report, O_CLOEXEC) == 0 ? 0 : -errno;
}

static void close_all(int *fds, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
}

int process_start(struct process **ret, char *const *argv, const struct process_options *o)
{
        int pipes[2][2] = {{-1, -1}, {-1, -1}}, report[2] = {-1, -1};
        struct child *c = calloc(1, sizeof(*c));
        int r = c ? open_pipes(pipes, report) : -ENOMEM;
        pid_t pid = r ? -1 : fork();
        if (!r && pid < 0)
                r = -errno;
        if (!r && pid == 0)
                exec_child(argv, o, pipes, report[1]);
        int e = 0;
        if (!r) {
                close(report[1]);
                report[1] = -1;
                if (read(report[0], &e, sizeof(e)) == sizeof(e)) { /* exec failed */
                        waitpid(pid, NULL, 0);
                        r = -e;
                }
        }
        if (r) {
                close_all((int *)pipes, 4);
                close_all(report, 2);
                free(c);
                return r;
        }
        close(report[0]);
        c->p.pid = pid;
        c->p.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        c->p.label = argv[0];
        c->on_line = o->on_line;
        c->arg = o->arg;
        cond_init(&c->p.done);
        timer_init(&c->grace, on_grace);
        for (int i = 0; i < 2; i++) {
                struct output *out = &c->out[i];
                *out = (struct output){.fd = -1, .child = c, .is_stderr = i == 1};
                close(pipes[i][1]);
                if (!o->on_line) {
                        close(pipes[i][0]);
                        continue;
                }
                out->fd = pipes[i][0];
                fcntl(out->fd, F_SETFL, O_NONBLOCK);
                io_watch_init(&out->watch, out->fd, on_output);
                io_watch_set(&out->watch, IO_READ);
        }
        io_watch_init(&c->watch, c->p.pidfd, on_exit_fd);
        io_watch_set(&c->watch, IO_READ);
        *ret = &c->p;
        return 0;
}

void process_signal(struct process *p, int signo)
{
        if (p && !p->exited)
                syscall(SYS_pidfd_send_signal, p->pidfd, signo, NULL, 0);
}

int process_wait(struct process *p, double timeout_s)
{
        double until = timeout_s < 0 ? INFINITY : loop_now_exact() + timeout_s;
        while (!p->exited) {
                int r = cond_wait_until(&p->done, until);
                if (r && !p->exited)
                        return r;
        }
        return 0;
}

int process_exit_code(const struct process *p)
{
        return WIFSIGNALED(p->status) ? 128 + WTERMSIG(p->status) : WEXITSTATUS(p->status);
}

const char *process_exit_text(const struct process *p, struct arena *a)
{
        const char *t = WIFSIGNALED(p->status) ? arena_printf(a, "was ended by signal %d (%s)", WTERMSIG(p->status), strsignal(WTERMSIG(p->status)))
                                               : arena_printf(a, "exited with code %d", WEXITSTATUS(p->status));
        return t ? t : "ended";
}

void process_free(struct process *p)
{
        if (!p)
                return;
        struct child *c = container_of(p, struct child, p);
        io_watch_stop(&c->watch);
        timer_stop(&c->grace);
        for (int i = 0; i < 2; i++)
                if (c->out[i].fd >= 0) {
                        io_watch_stop(&c->out[i].watch);
                        close(c->out[i].fd);
                        buf_fini(&c->out[i].line);
                }
        if (p->pidfd >= 0)
                close(p->pidfd);
        free(c);
}
