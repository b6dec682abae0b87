/*
 * The folder of pluggable components' sockets: scanned at the start, then watched by inotify for sockets that appear later. A
 * folder that does not exist is looked for now and then. What is no socket, or does not answer, is logged and passed over; it
 * never holds up the others. A socket appears (bind) before its owner listens, so a new one is asked several times.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/plugin.h"

#define DISCOVERY "pluggable-components-discovery"
#define DEFAULT_FOLDER "/tmp/dapr-components-sockets"

enum { FOLDER_POLL_S = 2, SOCKETS_MAX = 1000 };

struct foreign_watch {
        struct super *super;
        char *folder;
        int fd;                 /* inotify; -1 = the folder is not there */
        struct io_watch watch;
        struct timer poll;
        struct map asking;      /* paths with a fiber under way; the value counts events that came meanwhile */
        bool scanned;           /* the first scan is over: what comes now is told to the kernel */
};

struct ask {
        struct foreign_watch *w;
        char *path;
        bool later;             /* not of the first scan */
        bool again;             /* another event came while asking */
};

static bool is_socket(const char *path)
{
        struct stat st;
        return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* ---- one socket ---- */

static void ask_fiber(void *arg)
{
        static const double pauses[] = {0, 0.05, 0.2, 1, 3};
        struct ask *k = arg;
        size_t tries = k->later ? sizeof pauses / sizeof *pauses : 1;
        bool found = false;
        for (size_t i = 0; i < tries && !found; i++) {
                if (pauses[i] > 0 && fiber_sleep(pauses[i]))
                        break;
                if (!is_socket(k->path))
                        break;
                found = foreign_add(k->w->super, k->path, k->later);
                if (k->again) {
                        k->again = false;
                        i = 0;
                        tries = sizeof pauses / sizeof *pauses;
                }
        }
        if (!found && !k->w->super->stopping)
                log_warn(DISCOVERY, "could not use socket %s: no pluggable component answers on it", k->path);
        map_del(&k->w->asking, str_of(k->path));
        free(k->path);
        free(k);
}

static void ask(struct foreign_watch *w, struct scope *scope, const char *name)
{
        char path[512];
        if (name[0] == '.' || (size_t)snprintf(path, sizeof path, "%s/%s", w->folder, name) >= sizeof path)
                return;
        struct ask *k = map_get(&w->asking, str_of(path));
        if (k) {
                k->again = true;
                return;
        }
        struct stat st;
        if (stat(path, &st) || S_ISDIR(st.st_mode))
                return;
        if (!S_ISSOCK(st.st_mode)) {
                log_warn(DISCOVERY, "could not use socket for file %s", path);
                return;
        }
        if (w->asking.count >= SOCKETS_MAX) {
                log_warn(DISCOVERY, "more than %d sockets in %s: %s is left out", SOCKETS_MAX, w->folder, path);
                return;
        }
        k = calloc(1, sizeof *k);
        if (k)
                *k = (struct ask){.w = w, .path = strdup(path), .later = w->scanned};
        if (!k || !k->path || map_set(&w->asking, str_of(path), k) || fiber_go(scope, "discover", ask_fiber, k)) {
                map_del(&w->asking, str_of(path));
                free(k ? k->path : NULL);
                free(k);
        }
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int scan(struct foreign_watch *w, struct scope *scope)
{
        struct dirent **list;
        int n = scandir(w->folder, &list, NULL, by_name);
        if (n < 0)
                return -errno;
        for (int i = 0; i < n; i++) {
                ask(w, scope, list[i]->d_name);
                free(list[i]);
        }
        free(list);
        return 0;
}

/* ---- the folder ---- */

static void lose_folder(struct foreign_watch *w)
{
        io_watch_stop(&w->watch);
        if (w->fd >= 0)
                close(w->fd);
        w->fd = -1;
        timer_start(&w->poll, FOLDER_POLL_S, FOLDER_POLL_S);
}

static void on_events(struct io_watch *io, int events)
{
        struct foreign_watch *w = container_of(io, struct foreign_watch, watch);
        _Alignas(struct inotify_event) char buf[2048];
        bool gone = false;
        for (;;) {
                ssize_t n = read(w->fd, buf, sizeof buf);
                if (n <= 0)
                        break;
                for (char *p = buf; p < buf + n;) {
                        const struct inotify_event *e = (const struct inotify_event *)p;
                        p += sizeof *e + e->len;
                        if (e->mask & IN_Q_OVERFLOW)
                                scan(w, &w->super->scope);
                        else if (e->len)
                                ask(w, &w->super->scope, e->name);
                        gone |= (e->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0;
                }
        }
        if (gone)
                lose_folder(w);
}

static int watch_folder(struct foreign_watch *w)
{
        int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (inotify_add_watch(fd, w->folder, IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR) < 0) {
                int e = errno;
                close(fd);
                return -e;
        }
        w->fd = fd;
        io_watch_init(&w->watch, fd, on_events);
        io_watch_set(&w->watch, IO_READ);
        return 0;
}

static void on_poll(struct timer *t)
{
        struct foreign_watch *w = container_of(t, struct foreign_watch, poll);
        if (access(w->folder, F_OK) || watch_folder(w))
                return;
        timer_stop(t);
        scan(w, &w->super->scope);
}

int super_discover(struct super *s)
{
        struct foreign_watch *w = calloc(1, sizeof *w);
        const char *folder = s->conf.opts && s->conf.opts->sockets_folder ? s->conf.opts->sockets_folder : "";
        struct scope first;
        if (!w)
                return -ENOMEM;
        w->super = s;
        w->fd = -1;
        w->folder = strdup(folder[0] ? folder : DEFAULT_FOLDER);
        if (!w->folder) {
                free(w);
                return -ENOMEM;
        }
        timer_init(&w->poll, on_poll);
        s->watch = w;
        int r = watch_folder(w);
        if (r == -ENOENT || r == -ENOTDIR) {
                timer_start(&w->poll, FOLDER_POLL_S, FOLDER_POLL_S);
        } else {
                log_debug(DISCOVERY, "loading pluggable components under path %s", w->folder);
                if (r)
                        log_warn(DISCOVERY, "cannot watch %s for sockets that appear later: %s", w->folder, strerrordesc_np(-r));
                scope_init(&first);
                r = scan(w, &first);
                scope_join(&first);
                if (r)
                        log_warn(DISCOVERY, "could not list pluggable components unix sockets: open %s: %s", w->folder, strerrordesc_np(-r));
        }
        w->scanned = true;
        return 0;
}

void foreign_watch_stop(struct super *s)
{
        struct foreign_watch *w = s->watch;
        if (!w)
                return;
        timer_stop(&w->poll);
        io_watch_stop(&w->watch);
        if (w->fd >= 0)
                close(w->fd);
        w->fd = -1;
}

void foreign_watch_free(struct super *s)
{
        struct foreign_watch *w = s->watch;
        if (!w)
                return;
        map_fini(&w->asking);
        free(w->folder);
        free(w);
        s->watch = NULL;
}
