/*
 * The looking-around runs on the worker pool: it locks, reads and connects, and may wait for a process that is told to end. What it
 * found is made into plugins on the loop.
 */
#include "kernel/super/linger.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/adopt.h"
#include "kernel/super/history.h"
#include "kernel/super/ledger_file.h"
#include "kernel/super/proof.h"
#include "sdk/base/work.h"

#define MARK "dead" /* in a dead daprd's folder: since when somebody knows */
static const double SETTLE_S = 2; /* the name resolver starts in the background */
enum { MARK_GRACE_S = 5, NOTES_MAX = 8000 };

struct remains {
        struct super *super;
        struct ledger ledger;
        bool taken;       /* a folder was */
        char *notes;      /* lines for the log, each a level ('w', 'i') and a text; malloc */
};

__attribute__((format(printf, 3, 4))) static void note(struct remains *r, char level, const char *fmt, ...)
{
        char *line = NULL, *all = NULL;
        va_list ap;
        va_start(ap, fmt);
        int n = vasprintf(&line, fmt, ap);
        va_end(ap);
        if (n < 0)
                return;
        if ((!r->notes || strlen(r->notes) < NOTES_MAX) && asprintf(&all, "%s%c%s\n", r->notes ? r->notes : "", level, line) >= 0) {
                free(r->notes);
                r->notes = all;
        }
        free(line);
}

/* ---- processes of folders nobody can read ---- */

static bool ends_with(const char *name, const char *end)
{
        size_t n = strlen(name), k = strlen(end);
        return n > k && strcmp(name + n - k, end) == 0;
}

/* Whoever listens on a socket of the folder: fn(arg, pidfd). The folder is ours alone, so a plugin of the dead daprd made itself known there. */
static size_t each_listener(int folder_fd, void (*fn)(int pidfd))
{
        size_t n = 0;
        int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        for (struct dirent *e; dir && (e = readdir(dir));) {
                char path[96];
                int pidfd = -1;
                if (!ends_with(e->d_name, ".sock") || strlen(e->d_name) > 40)
                        continue;
                snprintf(path, sizeof path, "/proc/self/fd/%d/%.40s", folder_fd, e->d_name);
                if (proof_listener(path, &pidfd) <= 0 || pidfd < 0)
                        continue;
                if (fn)
                        fn(pidfd);
                close(pidfd);
                n++;
        }
        if (dir)
                closedir(dir);
        return n;
}

/* ---- folders of others ---- */

static size_t count_alive(const struct ledger *l, void (*fn)(int pidfd))
{
        char boot[BOOT_ID_BYTES];
        size_t n = 0;
        proof_boot_id(boot);
        for (size_t i = 0; i < l->n_plugins && strcmp(boot, l->boot_id) == 0; i++) {
                const struct ledger_plugin *e = &l->plugins[i];
                int fd = proof_process((pid_t)e->pid, e->start_ticks, (uid_t)e->uid);
                if (fd < 0)
                        continue;
                if (fn)
                        fn(fd);
                close(fd);
                n++;
        }
        return n;
}

/* Seconds since a daprd first saw that the folder's owner is dead. */
static double dead_for_s(int folder_fd)
{
        struct stat st;
        int fd = openat(folder_fd, MARK, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        bool known = fd >= 0 && fstat(fd, &st) == 0;
        if (fd >= 0)
                close(fd);
        return known ? difftime(time(NULL), st.st_mtim.tv_sec) : 1e9;
}

/* Its plugins may wait for their next daprd; what waits longer than it should is ended. */
static bool spares(void *arg, int folder_fd)
{
        struct remains *r = arg;
        struct ledger_head head;
        struct ledger l;
        const char *err = "";
        ledger_init(&l);
        int e = ledger_file_read(&l, folder_fd, &head, &err);
        double limit_s = e == 0 ? (double)l.linger_ms / 1000 : e == -EPROTO ? PLUGIN_LINGER_MAX_S : 0;
        size_t n = e == 0 ? count_alive(&l, NULL) : e == -ENOENT ? 0 : each_listener(folder_fd, NULL);
        bool spared = n && limit_s > 0 && dead_for_s(folder_fd) < limit_s + MARK_GRACE_S;
        if (n && !spared) {
                note(r, 'w', "a daprd that ended left %zu plugin processes; they are stopped: %s", n, e ? err : "their time is over");
                if (e == 0)
                        count_alive(&l, proof_end);
                else
                        each_listener(folder_fd, proof_end);
        }
        ledger_fini(&l);
        return spared;
}

/* ---- the own folder of before ---- */

static int64_t worth(void *arg, int folder_fd)
{
        struct remains *r = arg;
        struct ledger_head head = {0};
        struct ledger l;
        struct stat st;
        const char *err;
        int64_t v = -1;
        ledger_init(&l);
        int e = ledger_file_read(&l, folder_fd, &head, &err);
        if ((e == 0 || e == -EPROTO) && strncmp(head.app_id, r->super->conf.opts->app_id, LEDGER_APP_ID_BYTES - 1) == 0 &&
            fstatat(folder_fd, LEDGER_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0)
                v = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
        ledger_fini(&l);
        return v;
}

/* NULL: it can be taken over, its descriptors are in e. Else why not; *ret_pidfd >= 0 when it is the ledger's process. */
static const char *examine(struct remains *r, struct ledger_plugin *e, int *ret_pidfd)
{
        struct super *s = r->super;
        const char *base = strrchr(e->path, '/');
        char path[160];
        *ret_pidfd = proof_process((pid_t)e->pid, e->start_ticks, (uid_t)e->uid);
        if (*ret_pidfd < 0)
                return "it has ended";
        if (s->linger_s <= 0)
                return "this daprd is started without --plugin-linger";
        if (e->n_instances == 0)
                return "no component was served by it";
        if (proof_file_id(e->executable) != e->executable_id)
                return "its program is another one now";
        snprintf(path, sizeof path, "%s/%.40s", s->dir.own, base ? base + 1 : e->path);
        if (proof_listener(path, NULL) != e->pid)
                return "another process stands behind its socket, or none";
        e->path = arena_strdup(&r->ledger.arena, str_of(path));
        for (int i = 0; i < 2 && e->path; i++) {
                char out[176];
                snprintf(out, sizeof out, "%.*s%s", (int)(strlen(path) - strlen(".sock")), path, i ? ".err" : ".out");
                *(i ? &e->err_fd : &e->out_fd) = open(out, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        }
        return e->path ? NULL : "out of memory";
}

/* What no process that goes on needs. */
static void tidy(struct remains *r)
{
        DIR *dir = opendir(r->super->dir.own);
        for (struct dirent *e; dir && (e = readdir(dir));) {
                bool needed = e->d_name[0] == '.' || !strcmp(e->d_name, "lock") || !strcmp(e->d_name, LEDGER_FILE);
                for (size_t i = 0; i < r->ledger.n_plugins && !needed; i++) {
                        const char *base = strrchr(r->ledger.plugins[i].path, '/');
                        needed = base && strncmp(base + 1, e->d_name, strcspn(e->d_name, ".") + 1) == 0;
                }
                if (!needed)
                        unlinkat(dirfd(dir), e->d_name, 0);
        }
        if (dir)
                closedir(dir);
}

static void look_at_plugins(struct remains *r)
{
        struct ledger *l = &r->ledger;
        char boot[BOOT_ID_BYTES];
        size_t kept = 0;
        proof_boot_id(boot);
        if (strcmp(boot, l->boot_id) != 0)
                l->n_plugins = 0; /* nothing of before the machine's start is left */
        for (size_t i = 0; i < l->n_plugins; i++) {
                struct ledger_plugin e = l->plugins[i];
                int pidfd;
                e.listen_fd = e.control_fd = e.out_fd = e.err_fd = e.watch_fd = -1;
                const char *why = examine(r, &e, &pidfd);
                e.pidfd = pidfd;
                if (!why) {
                        l->plugins[kept++] = e;
                        continue;
                }
                note(r, pidfd >= 0 ? 'w' : 'i', "plugin %s, process %lld, of the daprd before is not taken over: %s", e.name, (long long)e.pid, why);
                if (pidfd >= 0) {
                        proof_end(pidfd);
                        close(pidfd);
                }
        }
        l->n_plugins = kept;
}

static int look(void *arg)
{
        struct remains *r = arg;
        struct super *s = r->super;
        struct ledger_head head;
        const char *err = "";
        s->dir.spared = spares;
        s->dir.spared_arg = r;
        r->taken = runtime_dir_take(&s->dir, worth, r) == 0;
        int fd = r->taken ? open(s->dir.own, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        int e = fd >= 0 ? ledger_file_read(&r->ledger, fd, &head, &err) : -ENOENT;
        if (r->taken && e) {
                size_t n = fd >= 0 ? each_listener(fd, proof_end) : 0;
                note(r, 'w', "the ledger of the daprd before cannot be used: %s; its %zu plugin processes are stopped", err, n);
                r->ledger.n_plugins = r->ledger.n_events = 0;
        } else if (r->taken) {
                look_at_plugins(r);
        }
        if (r->taken)
                tidy(r);
        if (fd >= 0)
                close(fd);
        if (!r->taken)
                runtime_dir_open(&s->dir);
        s->dir.spared = NULL;
        return 0;
}

/* ---- on the loop ---- */

static void tell(struct remains *r)
{
        char *rest = r->notes;
        for (char *line; rest && *rest && (line = strsep(&rest, "\n"));) {
                if (*line == 'w')
                        log_warn(SUPER_SCOPE, "%s", line + 1);
                else
                        log_info(SUPER_SCOPE, "%s", line + 1);
        }
        free(r->notes);
        r->notes = NULL;
}

void linger_begin(struct super *s)
{
        struct remains *r = calloc(1, sizeof *r);
        if (!r)
                return;
        r->super = s;
        s->remains = r;
        ledger_init(&r->ledger);
        if (work_run(look, r))
                look(r);
        tell(r);
        if (r->ledger.n_plugins)
                log_info(SUPER_SCOPE, "The daprd before, process %lld, has ended; %zu of its plugin processes go on", (long long)r->ledger.pid,
                         r->ledger.n_plugins);
        if (r->taken)
                adopt_remains(s, &r->ledger);
        else
                linger_end(s);
}

static void settle_fiber(void *arg)
{
        if (fiber_sleep(SETTLE_S) == 0)
                super_adopted(arg);
}

void linger_started(struct super *s)
{
        if (s->remains && fiber_go(&s->scope, "left-over", settle_fiber, s))
                log_warn(SUPER_SCOPE, "plugins of before that nobody needs go on: out of memory");
}

void linger_end(struct super *s)
{
        if (!s->remains)
                return;
        ledger_fini(&s->remains->ledger);
        free(s->remains->notes);
        free(s->remains);
        s->remains = NULL;
}
