/* Finds, makes and cleans the folder of sockets. A folder of that name which is not ours, or open to others, is not used. */
#include "kernel/super/runtime_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* A lock that can be had has no living owner. */
static bool is_abandoned(int user_fd, const char *name)
{
        char lock[80];
        snprintf(lock, sizeof lock, "%.60s/lock", name);
        int fd = openat(user_fd, lock, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return false; /* just being made */
        bool free_ = flock(fd, LOCK_EX | LOCK_NB) == 0;
        close(fd);
        return free_;
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

static void sweep(const char *user)
{
        DIR *dir = opendir(user);
        if (!dir)
                return;
        for (struct dirent *e; (e = readdir(dir));)
                if (e->d_name[0] == 'k' && e->d_name[1] >= '0' && e->d_name[1] <= '9' && is_abandoned(dirfd(dir), e->d_name))
                        remove_folder(dirfd(dir), e->d_name);
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
                sweep(d->user);
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
        runtime_dir_init(d);
}
