/* See store.h. */
#include "ctl/package/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "sdk/base/semver.h"

#define TEMP_PREFIX ".new-"
enum { PUT_TRIES = 5 };

const char *store_root(struct arena *a, const char *dir)
{
        const char *home = getenv("HOME");
        if (dir && *dir)
                return dir;
        return home && *home ? arena_printf(a, "%s/.dapr/plugins", home) : NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
        return remove(path);
}

void store_remove_tree(const char *path)
{
        nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* What processes that are gone have left behind. */
static void clear_leftovers(struct arena *a, const char *root)
{
        DIR *d = opendir(root);
        for (struct dirent *e; d && (e = readdir(d));) {
                if (strncmp(e->d_name, TEMP_PREFIX, sizeof TEMP_PREFIX - 1) != 0)
                        continue;
                int pid = atoi(e->d_name + sizeof TEMP_PREFIX - 1);
                if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH))
                        store_remove_tree(path_join(a, root, e->d_name));
        }
        if (d)
                closedir(d);
}

static const char *temp_name(struct arena *a, const char *root)
{
        static unsigned number;
        return arena_printf(a, "%s/" TEMP_PREFIX "%d-%u", root, (int)getpid(), number++);
}

static int fail(struct arena *a, const char **ret_err, const char *path, int r)
{
        *ret_err = arena_printf(a, "%s: %s; nothing was installed", path, strerror(-r));
        return r;
}

int store_temp_file(const char *root, struct arena *a, const char **ret, const char **ret_err)
{
        int r = path_mkdirs(root);
        if (r)
                return fail(a, ret_err, root, r);
        clear_leftovers(a, root);
        *ret = temp_name(a, root);
        int fd = open(*ret, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        return fd < 0 ? fail(a, ret_err, *ret, -errno) : fd;
}

/* ---- writing ---- */

static int write_all(int fd, struct str s)
{
        while (s.n) {
                ssize_t n = write(fd, s.p, s.n);
                if (n < 0 && errno != EINTR)
                        return -errno;
                s = str_skip(s, n > 0 ? (size_t)n : 0);
        }
        return fsync(fd) == 0 ? 0 : -errno;
}

static int write_file(const char *dir, const char *name, bool executable, struct str data, struct arena *a)
{
        const char *path = path_join(a, dir, name), *slash = path ? strrchr(path, '/') : NULL;
        if (!path)
                return -ENOMEM;
        int r = path_mkdirs(arena_strdup(a, str_n(path, (size_t)(slash - path))));
        int fd = r ? -1 : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, executable ? 0755 : 0644);
        if (r == 0 && fd < 0)
                r = -errno;
        if (r == 0)
                r = write_all(fd, data);
        if (fd >= 0 && close(fd) != 0 && r == 0)
                r = -errno;
        return r;
}

static int fill(const char *dir, const struct package *p, struct arena *a)
{
        int r = write_file(dir, PACKAGE_LIST, false, p->list, a);
        if (r == 0 && p->signature.p)
                r = write_file(dir, PACKAGE_SIGNATURE, false, p->signature, a);
        for (size_t i = 0; r == 0 && i < p->n_files; i++)
                r = write_file(dir, p->files[i].name, p->files[i].executable, p->files[i].data, a);
        return r;
}

/* What stands at the place: 0 nothing, 1 this very package, -EEXIST another. */
static int occupied(const char *place, const struct package *p, struct arena *a)
{
        struct package *have = NULL;
        const char *err;
        if (!path_exists(place))
                return 0;
        bool same = package_installed(place, &have, a, &err) == 0 && strcmp(have->digest, p->digest) == 0 &&
                    have->signature.n == p->signature.n;
        package_free(have);
        return same ? 1 : -EEXIST;
}

/* Another process that removes the last version takes the empty folder away, too: then it is made again. */
static int put(const char *temp, const char *dir, const char *place, bool exchange)
{
        int r = -ENOENT;
        for (int i = 0; i < PUT_TRIES && r == -ENOENT; i++) {
                r = path_mkdirs(dir);
                if (r == 0 && renameat2(AT_FDCWD, temp, AT_FDCWD, place, exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0)
                        r = -errno;
        }
        return r;
}

int store_install(const char *root, const struct package *p, bool replace, struct arena *a, const char **ret_err)
{
        const char *dir = path_join(a, root, p->name), *place = dir ? path_join(a, dir, p->version) : NULL, *temp = temp_name(a, root);
        if (!place || !temp)
                return -ENOMEM;
        int r = occupied(place, p, a);
        if (r == 1 || (r && !replace)) {
                *ret_err = arena_printf(a, "another package of %s %s is installed in %s: remove it first, or say --force", p->name, p->version, place);
                return r;
        }
        bool exchange = r != 0;
        r = path_mkdirs(dir);
        clear_leftovers(a, root);
        if (r == 0)
                r = fill(temp, p, a);
        if (r == 0)
                r = put(temp, dir, place, exchange);
        if (r == -EEXIST && occupied(place, p, a) == 1)
                r = 1; /* somebody else was faster */
        if (r || exchange)
                store_remove_tree(temp);
        if (r)
                rmdir(dir); /* only when it is empty */
        return r < 0 ? fail(a, ret_err, place, r) : r;
}

/* ---- what is there ---- */

static int by_version(const void *a, const void *b)
{
        return -semver_compare(str_of(*(const char *const *)a), str_of(*(const char *const *)b));
}

static int by_text(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Entries of a folder that the test lets through. */
static int entries(struct arena *a, const char *path, bool (*is)(const char *), const char ***ret, size_t *ret_n)
{
        size_t n = 0, cap = 0;
        const char **v = NULL;
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d));) {
                if (!is(e->d_name))
                        continue;
                if (n == cap) {
                        size_t more = cap ? cap * 2 : 16;
                        const char **grown = arena_grow(a, v, cap * sizeof *v, more * sizeof *v);
                        if (!grown)
                                break;
                        v = grown;
                        cap = more;
                }
                v[n++] = arena_strdup(a, str_of(e->d_name));
        }
        if (d)
                closedir(d);
        *ret = v;
        *ret_n = n;
        return 0;
}

static bool is_version(const char *name)
{
        return semver_is_valid(str_of(name));
}

int store_versions(struct arena *a, const char *root, const char *name, struct store_versions *ret)
{
        int r = entries(a, path_join(a, root, name), is_version, &ret->v, &ret->n);
        if (ret->n)
                qsort(ret->v, ret->n, sizeof *ret->v, by_version);
        return r;
}

int store_names(struct arena *a, const char *root, const char ***ret, size_t *ret_n)
{
        int r = entries(a, root, package_name_ok, ret, ret_n);
        if (*ret_n)
                qsort(*ret, *ret_n, sizeof **ret, by_text);
        return r;
}

int store_remove(const char *root, const char *name, const char *version, struct arena *a, const char **ret_err)
{
        const char *dir = path_join(a, root, name), *place = dir ? path_join(a, dir, version) : NULL, *temp = temp_name(a, root);
        if (!place || !temp)
                return -ENOMEM;
        if (rename(place, temp) != 0) {
                int r = -errno;
                *ret_err = arena_printf(a, "%s: %s; nothing was removed", place, strerror(-r));
                return r;
        }
        store_remove_tree(temp);
        rmdir(dir);
        return 0;
}
