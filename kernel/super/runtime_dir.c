/* Finds, makes and cleans the folder of sockets. A folder of that name which is not ours, or open to others, is not used. */
#include "kernel/super/runtime_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_TRIES = 40, LOCK_PAUSE_NS = 5000000 };

void runtime_dir_init(struct runtime_dir *d)
{
        *d = (struct runtime_dir){.lock_fd = -1};
}

static bool add(char dirs[3][64], size_t *n, const char *base)
{
        if (!base || base[0] != '/' || *n == 3)
                return false;
        int k = snprintf(dirs[*n], 64, "%s/dapr-%u", base, (unsigned)geteuid());
        if (k < 0 || k >= 48) /* room for k<pid>.<n>/<name>.sock below the 108 bytes of a socket path */
                return false;
        for (size_t i = 0; i < *n; i++)
                if (strcmp(dirs[i], dirs[*n]) == 0)
                        return false;
        (*n)++;
        return true;
}

size_t runtime_dir_candidates(char dirs[3][64])
{
        size_t n = 0;
        add(dirs, &n, getenv("XDG_RUNTIME_DIR"));
        add(dirs, &n, getenv("TMPDIR"));
        add(dirs, &n, "/tmp");
        return n;
}

static int make_private(const char *path)
{
        struct stat st;
        if (mkdir(path, 0700) && errno != EEXIST)
                return -errno;
        if (lstat(path, &st))
                return -errno;
        if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
                return -EPERM;
        if ((st.st_mode & 077) && chmod(path, 0700))
                return -errno;
        return access(path, W_OK | X_OK) ? -errno : 0;
}

static void remove_folder(int user_fd, const char *name)
{
        int fd = openat(user_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        if (!dir) {
                if (fd >= 0)
                        close(fd);
                return;
        }
        for (struct dirent *e; (e = readdir(dir));)
                if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
                        unlinkat(fd, e->d_name, 0);
        closedir(dir);
        unlinkat(user_fd, name, AT_REMOVEDIR);
}

/* A lock that can be had has no living owner. >= 0: it is had, and is still the folder's; -1: not, or the folder is just being made. */
static int lock_dead(int folder_fd)
{
        struct stat mine, there;
        int fd = openat(folder_fd, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -1;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &mine) == 0 && fstatat(folder_fd, "lock", &there, AT_SYMLINK_NOFOLLOW) == 0 &&
            mine.st_ino == there.st_ino)
                return fd;
        close(fd);
        return -1;
}

static bool is_own_name(const char *name)
{
        return name[0] == 'k' && name[1] >= '0' && name[1] <= '9';
}

/* Of a dead daprd: >= 0 its folder, with its lock in *ret_lock; else -1. */
static int open_dead(int user_fd, const char *name, int *ret_lock)
{
        int fd = is_own_name(name) ? openat(user_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        *ret_lock = fd >= 0 ? lock_dead(fd) : -1;
        if (fd >= 0 && *ret_lock < 0) {
                close(fd);
                fd = -1;
        }
        return fd;
}

/* <app id>.<pid>.sock of a daprd that has no folder any more. Folders are made before sockets, so a living one has both. */
static bool is_orphan(int user_fd, const char *name)
{
        const char *end = strrchr(name, '.'), *pid = end;
        char folder[64];
        struct stat st;
        if (!end || strcmp(end, ".sock") != 0)
                return false;
        while (pid > name && pid[-1] >= '0' && pid[-1] <= '9')
                pid--;
        if (pid == end || pid == name || pid[-1] != '.')
                return false;
        for (unsigned n = 0; n < 4; n++) { /* several in one process: tests */
                snprintf(folder, sizeof folder, "k%.*s.%u", (int)(end - pid), pid, n);
                if (fstatat(user_fd, folder, &st, AT_SYMLINK_NOFOLLOW) == 0)
                        return false;
        }
        return true;
}

static void sweep(const struct runtime_dir *d)
{
        DIR *dir = opendir(d->user);
        if (!dir)
                return;
        for (struct dirent *e; (e = readdir(dir));) {
                int lock, fd = open_dead(dirfd(dir), e->d_name, &lock);
                if (fd < 0)
                        continue;
                if (!d->spared || !d->spared(d->spared_arg, fd))
                        remove_folder(dirfd(dir), e->d_name);
                close(lock);
                close(fd);
        }
        rewinddir(dir);
        for (struct dirent *e; (e = readdir(dir));)
                if (is_orphan(dirfd(dir), e->d_name))
                        unlinkat(dirfd(dir), e->d_name, 0);
        closedir(dir);
}

/* The lock is taken before its file has the name that sweep() looks for. */
static int make_own(struct runtime_dir *d)
{
        char temp[112], name[112];
        for (unsigned n = 0; n < 1000; n++) {
                snprintf(d->own, sizeof d->own, "%.60s/k%d.%u", d->user, (int)getpid(), n);
                if (mkdir(d->own, 0700) == 0)
                        break;
                if (errno != EEXIST || n == 999) {
                        d->own[0] = '\0';
                        return -errno;
                }
        }
        snprintf(temp, sizeof temp, "%s/lock.new", d->own);
        snprintf(name, sizeof name, "%s/lock", d->own);
        d->lock_fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (d->lock_fd < 0 || flock(d->lock_fd, LOCK_EX | LOCK_NB) || rename(temp, name))
                return -errno;
        return 0;
}

/* Its daprd has ended, but somebody looks at it just now: a moment later it can be had. */
static int lock_worthy(int folder_fd, const char *name)
{
        const struct timespec pause = {0, LOCK_PAUSE_NS};
        int lock = lock_dead(folder_fd);
        for (int i = 0; i < LOCK_TRIES && lock < 0 && kill((pid_t)atoi(name + 1), 0) && errno == ESRCH; i++) {
                nanosleep(&pause, NULL);
                lock = lock_dead(folder_fd);
        }
        return lock;
}

/* The dead folder that is worth most: its name, with its lock held in *ret_lock. */
static bool find_dead(const char *user, int64_t (*worth)(void *, int), void *arg, char name[64], int *ret_lock)
{
        DIR *dir = opendir(user);
        int64_t best = -1;
        *ret_lock = -1;
        for (struct dirent *e; dir && (e = readdir(dir));) {
                bool fits = is_own_name(e->d_name) && strlen(e->d_name) < 64;
                int fd = fits ? openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
                if (fd < 0)
                        continue;
                int64_t v = worth(arg, fd);
                int lock = v > best ? lock_worthy(fd, e->d_name) : -1;
                close(fd);
                if (lock < 0)
                        continue;
                if (*ret_lock >= 0)
                        close(*ret_lock);
                *ret_lock = lock;
                best = v;
                memcpy(name, e->d_name, strlen(e->d_name) + 1); /* measured above */
        }
        if (dir)
                closedir(dir);
        return best >= 0;
}

/* A rename takes all that is in it at once. */
static int rename_to_own(struct runtime_dir *d, const char *name)
{
        char old[sizeof d->own + 64];
        snprintf(old, sizeof old, "%s/%s", d->user, name);
        for (unsigned n = 0; n < 1000; n++) {
                snprintf(d->own, sizeof d->own, "%.60s/k%d.%u", d->user, (int)getpid(), n);
                if (strcmp(old, d->own) == 0 || (access(d->own, F_OK) && rename(old, d->own) == 0))
                        return 0;
                if (errno != EEXIST && errno != ENOTEMPTY && access(d->own, F_OK))
                        break;
        }
        int r = -errno;
        d->own[0] = '\0';
        return r ? r : -EEXIST;
}

int runtime_dir_take(struct runtime_dir *d, int64_t (*worth)(void *arg, int folder_fd), void *arg)
{
        char dirs[3][64], name[64] = "";
        size_t n = runtime_dir_candidates(dirs);
        if (d->own[0])
                return -EEXIST;
        for (size_t i = 0; i < n; i++) {
                if (make_private(dirs[i]) || !find_dead(dirs[i], worth, arg, name, &d->lock_fd))
                        continue;
                snprintf(d->user, sizeof d->user, "%s", dirs[i]);
                int r = rename_to_own(d, name);
                if (r) {
                        close(d->lock_fd);
                        d->lock_fd = -1;
                        return r;
                }
                sweep(d);
                return 0;
        }
        return -ENOENT;
}

int runtime_dir_open(struct runtime_dir *d)
{
        char dirs[3][64];
        size_t n = runtime_dir_candidates(dirs);
        int r = -ENOENT;
        if (d->own[0])
                return 0;
        for (size_t i = 0; i < n; i++) {
                r = make_private(dirs[i]);
                if (r)
                        continue;
                snprintf(d->user, sizeof d->user, "%s", dirs[i]);
                sweep(d);
                r = make_own(d);
                if (r == 0)
                        return 0;
                runtime_dir_close(d);
        }
        /* Somebody else holds the name: a folder nobody can guess. daprctl does not find it, everything else works. */
        char own[] = "/tmp/dapr-XXXXXX";
        if (!mkdtemp(own))
                return r;
        snprintf(d->user, sizeof d->user, "%s", own);
        d->temporary = 1;
        return make_own(d);
}

void runtime_dir_close(struct runtime_dir *d)
{
        if (d->own[0]) {
                int fd = open(d->user, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd >= 0) {
                        remove_folder(fd, strrchr(d->own, '/') + 1);
                        close(fd);
                }
                if (d->temporary)
                        rmdir(d->user);
        }
        if (d->lock_fd >= 0)
                close(d->lock_fd);
        d->user[0] = d->own[0] = '\0';
        d->lock_fd = -1;
        d->temporary = 0;
}
