/*
 * One question at a time: read from the descriptor on the loop, looked into on the worker pool (it follows paths, which may be slow),
 * answered from there. A question whose process has gone meanwhile is dropped. The object lives as long as a question is open.
 */
#include "kernel/super/sandbox_watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/work.h"

enum { WHAT_BYTES = 320, PATH_BYTES = 1024 };

struct sandbox_watch {
        int fd;
        struct io_watch io;
        struct scope *scope;   /* borrowed; never cancelled */
        bool busy, stopped;
        struct arena arena;
        struct grant grant;
        const char *executable;
        void (*denied)(void *, const char *);
        void *arg;
        struct seccomp_notif q;
        bool allowed;
        char what[WHAT_BYTES];
};

static void watch_free(struct sandbox_watch *w)
{
        close(w->fd);
        arena_fini(&w->arena);
        free(w);
}

/* ---- the question; runs on the worker pool ---- */

static ssize_t peek(const struct sandbox_watch *w, uint64_t at, void *to, size_t n)
{
        struct iovec here = {to, n}, there = {(void *)(uintptr_t)at, n};
        return process_vm_readv((pid_t)w->q.pid, &here, 1, &there, 1, 0);
}

/* A text of the process; it may end before a page does. */
static bool peek_text(const struct sandbox_watch *w, uint64_t at, char to[PATH_BYTES])
{
        size_t n = 0;
        while (n < PATH_BYTES - 1) {
                size_t part = 256 - (at + n) % 256;
                if (part > PATH_BYTES - 1 - n)
                        part = PATH_BYTES - 1 - n;
                if (peek(w, at + n, to + n, part) != (ssize_t)part)
                        return false;
                if (memchr(to + n, '\0', part))
                        return true;
                n += part;
        }
        return false;
}

/* Libraries look at folders and at settings of the system by habit. Nothing comes of it, Landlock says no: no reason to end. */
static bool is_harmless(const char *path, bool writes)
{
        static const char *const system[] = {"/etc/", "/usr/", "/sys/", "/proc/sys/"};
        struct stat st;
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
                return true;
        for (size_t i = 0; i < sizeof system / sizeof *system && !writes; i++)
                if (strncmp(path, system[i], strlen(system[i])) == 0)
                        return st.st_uid == 0 && (st.st_mode & S_IROTH);
        return false;
}

static bool may_open(struct sandbox_watch *w, int dir, uint64_t at, int flags)
{
        char path[PATH_BYTES], full[PATH_BYTES + 64];
        if (!peek_text(w, at, path))
                return true; /* the call itself will fail */
        if (path[0] == '/')
                snprintf(full, sizeof full, "%s", path);
        else if (dir == AT_FDCWD)
                snprintf(full, sizeof full, "/proc/%u/cwd/%s", w->q.pid, path);
        else
                snprintf(full, sizeof full, "/proc/%u/fd/%d/%s", w->q.pid, dir, path);
        if (strncmp(path, "/proc/self", 10) == 0 || strncmp(path, "/proc/thread-self", 17) == 0)
                return true; /* of its own, and Landlock knows which */
        char *real = realpath(full, NULL), own[32];
        int n = snprintf(own, sizeof own, "/proc/%u/", w->q.pid);
        bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
        bool ok = !real || is_harmless(real, writes) || strncmp(real, own, (size_t)n) == 0 || sandbox_may_open(&w->grant, w->executable, real, writes);
        if (!ok)
                snprintf(w->what, sizeof w->what, "wanted to %s %.200s", writes ? "write" : "read", real);
        free(real);
        return ok;
}

static bool may_connect(struct sandbox_watch *w, uint64_t at, uint64_t len)
{
        union {
                struct sockaddr any;
                struct sockaddr_in in;
                struct sockaddr_in6 in6;
        } sa = {0};
        char host[INET6_ADDRSTRLEN] = "";
        if (len < sizeof sa.any.sa_family || peek(w, at, &sa, len < sizeof sa ? len : sizeof sa) < 2)
                return true;
        if (sa.any.sa_family != AF_INET && sa.any.sa_family != AF_INET6)
                return true;
        bool v4 = sa.any.sa_family == AF_INET;
        int port = ntohs(v4 ? sa.in.sin_port : sa.in6.sin6_port);
        for (size_t i = 0; i < w->grant.n_connect; i++)
                if (w->grant.connect_ports[i] == port)
                        return true;
        if (port == 0 || port == 53)
                return true; /* how names are looked up: datagrams; TCP to it is Landlock's matter */
        inet_ntop(sa.any.sa_family, v4 ? (void *)&sa.in.sin_addr : (void *)&sa.in6.sin6_addr, host, sizeof host);
        snprintf(w->what, sizeof w->what, "wanted to connect to %s port %d", host, port);
        return false;
}

static int look(void *arg)
{
        struct sandbox_watch *w = arg;
        const struct seccomp_data *d = &w->q.data;
        switch (d->nr) {
        case SYS_openat:
                w->allowed = may_open(w, (int)d->args[0], d->args[1], (int)d->args[2]);
                break;
#ifdef __x86_64__
        case SYS_open:
                w->allowed = may_open(w, AT_FDCWD, d->args[0], (int)d->args[1]);
                break;
        case SYS_creat:
                w->allowed = may_open(w, AT_FDCWD, d->args[0], O_WRONLY | O_CREAT);
                break;
#endif
        case SYS_connect:
                w->allowed = may_connect(w, d->args[1], d->args[2]);
                break;
        default:
                w->allowed = false;
                if (d->nr == SYS_socket)
                        snprintf(w->what, sizeof w->what, "wanted a socket (family %d)", (int)d->args[0]);
                else if (d->nr == SYS_clone)
                        snprintf(w->what, sizeof w->what, "wanted to start a process");
                else
                        snprintf(w->what, sizeof w->what, "wanted the system call %s (%d)", sandbox_syscall_name(d->nr), d->nr);
        }
        return 0;
}

/* ---- the loop's side ---- */

static void question(void *arg)
{
        struct sandbox_watch *w = arg;
        struct seccomp_notif_resp r = {.id = w->q.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        uint64_t id = w->q.id;
        fiber_shield_begin();
        if (work_run(look, w) != 0) { /* no worker to be had: Landlock decides */
                int nr = w->q.data.nr;
                w->allowed = nr == SYS_openat || nr == SYS_connect;
        }
        fiber_shield_end();
        w->busy = false;
        bool lives = ioctl(w->fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
        if (lives && w->allowed)
                ioctl(w->fd, SECCOMP_IOCTL_NOTIF_SEND, &r);
        else if (lives && !w->stopped)
                w->denied(w->arg, w->what); /* no answer: it waits, and is killed */
        if (w->stopped)
                watch_free(w);
        else if (w->allowed || !lives)
                io_watch_set(&w->io, IO_READ);
}

static void on_question(struct io_watch *io, int events)
{
        struct sandbox_watch *w = container_of(io, struct sandbox_watch, io);
        memset(&w->q, 0, sizeof w->q);
        if (ioctl(w->fd, SECCOMP_IOCTL_NOTIF_RECV, &w->q)) {
                struct pollfd p = {.fd = w->fd, .events = POLLIN};
                if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)))
                        io_watch_stop(&w->io); /* the last of its processes has ended */
                return;
        }
        io_watch_stop(&w->io);
        w->busy = true;
        w->what[0] = '\0';
        if (fiber_go(w->scope, "sandbox", question, w)) {
                w->busy = false;
                struct seccomp_notif_resp r = {.id = w->q.id, .error = -ENOMEM};
                ioctl(w->fd, SECCOMP_IOCTL_NOTIF_SEND, &r);
                io_watch_set(&w->io, IO_READ);
        }
}

int sandbox_watch_start(struct sandbox_watch **ret, int fd, struct scope *scope, const struct grant *g, const char *executable,
                        void (*denied)(void *arg, const char *what), void *arg)
{
        struct sandbox_watch *w = calloc(1, sizeof *w);
        if (!w) {
                close(fd);
                return -ENOMEM;
        }
        w->fd = fd;
        w->scope = scope;
        w->grant = *g;
        w->denied = denied;
        w->arg = arg;
        arena_init(&w->arena, 0);
        w->executable = arena_strdup(&w->arena, str_of(executable));
        bool full = !w->executable;
        for (size_t i = 0; i < g->n_files; i++)
                full |= !(w->grant.files[i].path = arena_strdup(&w->arena, str_of(g->files[i].path)));
        if (full) {
                watch_free(w);
                return -ENOMEM;
        }
        io_watch_init(&w->io, fd, on_question);
        io_watch_set(&w->io, IO_READ);
        *ret = w;
        return 0;
}

int sandbox_watch_fd(const struct sandbox_watch *w)
{
        return w->fd;
}

void sandbox_watch_stop(struct sandbox_watch *w)
{
        if (!w)
                return;
        io_watch_stop(&w->io);
        w->stopped = true;
        if (!w->busy)
                watch_free(w);
}
