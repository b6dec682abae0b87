/*
 * Children, with their output line by line. One watch on SIGCHLD serves them all: a child that was not waited for keeps its
 * number, so that signalling it by number is safe until it is reaped here. We are the reaper of what our children leave behind,
 * so that those can be found and ended too.
 * A process is done when it has exited and its output is at its end (or a grandchild keeps it open: then half a second later).
 * Back-pressure: while the sink takes no line, nothing is read, and the child's writes wait as they would on a full pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/tree.h"
#include "sdk/base/loop.h"

enum { LINE_MAX_BYTES = 256 * 1024, READ_BYTES = 4096 };
#define OUTPUT_GRACE_S 0.5
#define SINK_PAUSE_S 0.02
#define ORPHAN_POLL_S 0.05

struct output {
        struct io_watch watch;
        struct timer again;     /* while the sink is full */
        int fd;                 /* -1 = closed */
        bool is_stderr, at_end;
        struct buf line;
        struct child *child;
};
struct child {
        struct process p;
        struct list in_all;
        struct process_options o;
        struct timer grace;
        struct output out[2];
        bool reaped, hurry;     /* hurry: it was told to end, so a full sink does not hold us up */
};

static struct list all = LIST_INIT(all);
static struct sig_watch child_watch;

/* ---- output ---- */

static void check_done(struct child *c)
{
        if (!c->reaped || c->p.exited || c->out[0].fd >= 0 || c->out[1].fd >= 0)
                return;
        c->p.exited = true;
        timer_stop(&c->grace);
        cond_broadcast(&c->p.done);
        if (c->o.on_exit)
                c->o.on_exit(c->o.arg);
}

static void output_close(struct output *o)
{
        if (o->fd < 0)
                return;
        io_watch_stop(&o->watch);
        timer_stop(&o->again);
        close(o->fd);
        o->fd = -1;
        buf_fini(&o->line);
        check_done(o->child);
}

/* Gives lines on; false when the sink takes no more for now. */
static bool emit_lines(struct output *o)
{
        const struct process_options *po = &o->child->o;
        struct str s = buf_str(&o->line);
        bool open = true;
        ptrdiff_t i;
        while ((i = str_chr(s, '\n')) >= 0 || (o->at_end && s.n) || s.n >= LINE_MAX_BYTES) {
                open = !po->can_take || po->can_take(po->arg, o->is_stderr);
                if (!open)
                        break;
                size_t n = i >= 0 ? (size_t)i : s.n;
                struct str line = str_n(s.p, n);
                while (line.n && line.p[line.n - 1] == '\r')
                        line.n--;
                po->on_line(po->arg, line, o->is_stderr);
                s = str_skip(s, i >= 0 ? n + 1 : n);
        }
        buf_consume(&o->line, buf_len(&o->line) - s.n);
        return open;
}

static void output_step(struct output *o)
{
        if (!emit_lines(o)) {
                io_watch_set(&o->watch, 0);
                timer_start(&o->again, SINK_PAUSE_S, 0);
        } else if (o->at_end)
                output_close(o);
        else
                io_watch_set(&o->watch, IO_READ);
}

static void on_again(struct timer *t)
{
        output_step(container_of(t, struct output, again));
}

static void on_output(struct io_watch *w, int events)
{
        struct output *o = container_of(w, struct output, watch);
        if (buf_reserve(&o->line, READ_BYTES) != 0)
                return;
        ssize_t n = read(o->fd, o->line.p + o->line.len, READ_BYTES);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        if (n > 0)
                o->line.len += (size_t)n;
        else
                o->at_end = true; /* a terminal ends with EIO */
        output_step(o);
}

/* The child is gone. What it wrote has been read, unless the sink is slow or somebody else holds the other end. */
static void on_grace(struct timer *t)
{
        struct child *c = container_of(t, struct child, grace);
        for (int i = 0; i < 2; i++) {
                struct output *o = &c->out[i];
                if (o->fd >= 0 && timer_is_active(&o->again) && !c->hurry)
                        o->at_end = true;
                else
                        output_close(o);
        }
        if (!c->p.exited)
                timer_start(&c->grace, OUTPUT_GRACE_S, 0);
}

/* ---- ends ---- */

static struct child *find_child(pid_t pid)
{
        list_for_each(l, &all) {
                struct child *c = list_entry(l, struct child, in_all);
                if (c->p.pid == pid && !c->reaped)
                        return c;
        }
        return NULL;
}

/* Collects every child that has ended: ours, and those that were left to us. */
static void reap(void)
{
        int status;
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                struct child *c = find_child(pid);
                if (!c)
                        continue;
                c->reaped = true;
                c->p.status = status;
                timer_start(&c->grace, OUTPUT_GRACE_S, 0);
                check_done(c);
        }
}

static void on_sigchld(struct sig_watch *w, int signo)
{
        reap();
}

/* ---- start ---- */

struct wiring {
        int ours[2], theirs[2]; /* of stdout and stderr; -1 = inherited */
        int report[2];          /* errno of a failed exec */
};

/* A terminal for the child, as wide as ours. */
static int open_terminal(int like, int *ours, int *theirs)
{
        char name[64];
        struct winsize size;
        *ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (*ours < 0 || grantpt(*ours) != 0 || unlockpt(*ours) != 0 || ptsname_r(*ours, name, sizeof(name)) != 0)
                return -errno;
        *theirs = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (*theirs < 0)
                return -errno;
        if (ioctl(like, TIOCGWINSZ, &size) == 0)
                ioctl(*theirs, TIOCSWINSZ, &size);
        return 0;
}

static int open_output(int like, bool terminal, int *ours, int *theirs)
{
        int pair[2];
        if (terminal && isatty(like) && open_terminal(like, ours, theirs) == 0)
                return 0;
        close(*ours);
        *ours = -1;
        if (pipe2(pair, O_CLOEXEC) != 0)
                return -errno;
        *ours = pair[0];
        *theirs = pair[1];
        return 0;
}

static int wire(struct wiring *w, const struct process_options *o)
{
        *w = (struct wiring){{-1, -1}, {-1, -1}, {-1, -1}};
        for (int i = 0; o->on_line && i < 2; i++) {
                int r = open_output(i + 1, o->terminal, &w->ours[i], &w->theirs[i]);
                if (r)
                        return r;
                fcntl(w->ours[i], F_SETFL, O_NONBLOCK);
        }
        return pipe2(w->report, O_CLOEXEC) == 0 ? 0 : -errno;
}

static void close_all(const int *fds, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
}

static _Noreturn void exec_child(char *const *argv, const struct process_options *o, const struct wiring *w, pid_t parent)
{
        if (o->own_group)
                setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) /* it was gone before the line above */
                _exit(127);
        int null = o->no_stdin ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
        if (null >= 0)
                dup2(null, 0);
        for (int i = 0; i < 2; i++)
                if (w->theirs[i] >= 0)
                        dup2(w->theirs[i], i + 1);
        for (int s = 1; s < NSIG; s++)
                signal(s, SIG_DFL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        if (!o->dir || chdir(o->dir) == 0)
                execvpe(argv[0], argv, o->env ? o->env : environ);
        int e = errno;
        if (write(w->report[1], &e, sizeof(e)) < 0)
                _exit(126);
        _exit(127);
}

/* 0, or what exec said. */
static int spawn(char *const *argv, const struct process_options *o, struct wiring *w, pid_t *ret)
{
        pid_t parent = getpid(), pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                exec_child(argv, o, w, parent);
        close(w->report[1]);
        w->report[1] = -1;
        int e = 0;
        ssize_t n;
        while ((n = read(w->report[0], &e, sizeof(e))) < 0 && errno == EINTR)
                ;
        *ret = pid;
        if (n != sizeof(e))
                return 0;
        waitpid(pid, NULL, 0);
        return -e;
}

static void adopt(struct child *c, const struct wiring *w)
{
        for (int i = 0; i < 2; i++) {
                struct output *out = &c->out[i];
                *out = (struct output){.fd = w->ours[i], .child = c, .is_stderr = i == 1};
                timer_init(&out->again, on_again);
                if (out->fd < 0)
                        continue;
                io_watch_init(&out->watch, out->fd, on_output);
                io_watch_set(&out->watch, IO_READ);
        }
        cond_init(&c->p.done);
        timer_init(&c->grace, on_grace);
        list_add_tail(&all, &c->in_all);
}

int process_start(struct process **ret, char *const *argv, const struct process_options *o)
{
        struct wiring w;
        struct child *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        if (!child_watch.cb) {
                prctl(PR_SET_CHILD_SUBREAPER, 1);
                sig_watch_start(&child_watch, SIGCHLD, on_sigchld);
        }
        int r = wire(&w, o);
        if (!r)
                r = spawn(argv, o, &w, &c->p.pid);
        close_all(w.theirs, 2);
        close_all(w.report, 2);
        if (r) {
                close_all(w.ours, 2);
                free(c);
                return r;
        }
        c->o = *o;
        adopt(c, &w);
        *ret = &c->p;
        return 0;
}

/* ---- signals, waiting ---- */

void process_signal(struct process *p, int signo)
{
        struct child *c = p ? container_of(p, struct child, p) : NULL;
        if (!c || c->reaped)
                return;
        c->hurry = true;
        kill(p->pid, signo);
}

void process_signal_tree(struct process *p, int signo)
{
        struct child *c = p ? container_of(p, struct child, p) : NULL;
        if (!c || c->reaped)
                return;
        c->hurry = true;
        tree_signal(p->pid, signo, NULL, 0);
}

void process_end_orphans(double timeout_s)
{
        pid_t known[64];
        size_t n = 0;
        list_for_each(l, &all) {
                struct child *c = list_entry(l, struct child, in_all);
                if (!c->reaped && n < 64)
                        known[n++] = c->p.pid;
        }
        double until = loop_now_exact() + timeout_s;
        int signo = SIGTERM;
        while (tree_signal(0, signo, known, n) > 0 && loop_now_exact() < until + 1) {
                signo = loop_now_exact() < until ? 0 : SIGKILL;
                if (fiber_sleep(ORPHAN_POLL_S) != 0)
                        break;
                reap();
        }
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
        const char *t = WIFSIGNALED(p->status)
                                ? arena_printf(a, "was ended by signal %d (%s)", WTERMSIG(p->status), strsignal(WTERMSIG(p->status)))
                                : arena_printf(a, "exited with error code: %d", WEXITSTATUS(p->status));
        return t ? t : "ended";
}

void process_free(struct process *p)
{
        if (!p)
                return;
        struct child *c = container_of(p, struct child, p);
        c->o.on_exit = NULL;
        timer_stop(&c->grace);
        output_close(&c->out[0]);
        output_close(&c->out[1]);
        list_del(&c->in_all);
        free(c);
}

/* ---- short commands ---- */

struct first_line {
        struct arena *a;
        const char *text;
};

static void on_first_line(void *arg, struct str line, bool is_stderr)
{
        struct first_line *f = arg;
        if (!f->text && !is_stderr)
                f->text = arena_strdup(f->a, line);
}

int process_first_line(struct arena *a, char *const *argv, double timeout_s, const char **ret)
{
        struct first_line f = {.a = a};
        struct process_options o = {.on_line = on_first_line, .arg = &f, .no_stdin = true, .own_group = true};
        struct process *p;
        int r = process_start(&p, argv, &o);
        if (r)
                return r;
        r = process_wait(p, timeout_s);
        if (r) {
                process_signal(p, SIGKILL);
                process_wait(p, 1);
        } else if (process_exit_code(p) != 0 || !f.text)
                r = -ENODATA;
        process_free(p);
        *ret = f.text;
        return r;
}
