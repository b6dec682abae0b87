/* inotify, one descriptor for all folders. What has changed is not looked at: the reader reads everything anyway. */
#include "kernel/resources/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "sdk/base/loop.h"

enum {
        MASK = IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF |
               IN_ONLYDIR,
        READS_A_WAKE = 32,
};

struct folder_watch {
        int fd;
        struct io_watch io;
        struct timer quiet, again;
        double first;              /* loop time of the burst's first change; 0 = no burst */
        void (*changed)(void *arg);
        void *arg;
        size_t n;
        int *wd;                   /* by folder; -1 = not there */
        const char *const *folders;
};

static void note_change(struct folder_watch *w)
{
        double now = loop_now(), left;
        if (w->first == 0)
                w->first = now;
        left = w->first + WATCH_BURST_MAX_MS / 1e3 - now;
        if (left > WATCH_DEBOUNCE_MS / 1e3)
                left = WATCH_DEBOUNCE_MS / 1e3;
        timer_start(&w->quiet, left > 0 ? left : 0, 0);
}

static void on_quiet(struct timer *t)
{
        struct folder_watch *w = (struct folder_watch *)((char *)t - offsetof(struct folder_watch, quiet));
        w->first = 0;
        w->changed(w->arg);
}

/* True: a folder that was away is there. */
static bool add_missing(struct folder_watch *w)
{
        bool found = false, missing = false;
        for (size_t i = 0; i < w->n; i++) {
                if (w->wd[i] >= 0)
                        continue;
                w->wd[i] = inotify_add_watch(w->fd, w->folders[i], MASK);
                found |= w->wd[i] >= 0;
                missing |= w->wd[i] < 0;
        }
        if (missing)
                timer_start(&w->again, WATCH_AGAIN_MS / 1e3, 0);
        return found;
}

static void on_again(struct timer *t)
{
        struct folder_watch *w = (struct folder_watch *)((char *)t - offsetof(struct folder_watch, again));
        if (add_missing(w))
                note_change(w);
}

/* The kernel has dropped the watch: its folder is gone, or another one has its name now. */
static void lost(struct folder_watch *w, int wd)
{
        for (size_t i = 0; i < w->n; i++)
                if (w->wd[i] == wd)
                        w->wd[i] = -1;
        add_missing(w);
}

static void take_events(struct folder_watch *w, const char *buf, ssize_t n)
{
        struct inotify_event e;
        for (ssize_t at = 0; at + (ssize_t)sizeof e <= n; at += (ssize_t)sizeof e + (ssize_t)e.len) {
                memcpy(&e, buf + at, sizeof e);
                if (e.mask & IN_MOVE_SELF)
                        inotify_rm_watch(w->fd, e.wd);
                if (e.mask & IN_IGNORED)
                        lost(w, e.wd);
        }
}

static void on_readable(struct io_watch *io, int events)
{
        struct folder_watch *w = (struct folder_watch *)((char *)io - offsetof(struct folder_watch, io));
        char buf[2048];
        bool any = false;
        for (int i = 0; i < READS_A_WAKE; i++) {
                ssize_t n = read(w->fd, buf, sizeof buf);
                if (n <= 0)
                        break;
                any = true;
                take_events(w, buf, n);
        }
        if (any)
                note_change(w);
}

int folder_watch_new(struct folder_watch **ret, const char *const *folders, size_t n, void (*changed)(void *arg), void *arg)
{
        struct folder_watch *w = calloc(1, sizeof *w);
        if (w)
                w->wd = calloc(n ? n : 1, sizeof *w->wd);
        if (!w || !w->wd) {
                free(w);
                return -ENOMEM;
        }
        w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (w->fd < 0) {
                int e = errno;
                free(w->wd);
                free(w);
                return -e;
        }
        w->folders = folders;
        w->n = n;
        w->changed = changed;
        w->arg = arg;
        for (size_t i = 0; i < n; i++)
                w->wd[i] = -1;
        timer_init(&w->quiet, on_quiet);
        timer_init(&w->again, on_again);
        io_watch_init(&w->io, w->fd, on_readable);
        io_watch_set(&w->io, IO_READ);
        add_missing(w);
        *ret = w;
        return 0;
}

void folder_watch_free(struct folder_watch *w)
{
        if (!w)
                return;
        timer_stop(&w->quiet);
        timer_stop(&w->again);
        io_watch_stop(&w->io);
        close(w->fd);
        free(w->wd);
        free(w);
}
