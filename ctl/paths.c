/* Where things are: install folder, programs, files written once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "sdk/net/http.h"

const char *path_join(struct arena *a, const char *dir, const char *name)
{
        return dir ? arena_printf(a, "%s/%s", dir, name) : NULL;
}

const char *path_dapr_dir(struct arena *a, const char *runtime_path)
{
        const char *env = getenv("DAPR_RUNTIME_PATH"), *home = getenv("HOME");
        if (runtime_path && *runtime_path)
                return path_join(a, runtime_path, ".dapr");
        if (env && *env)
                return path_join(a, env, ".dapr");
        return home && *home ? path_join(a, home, ".dapr") : NULL;
}

bool path_exists(const char *path)
{
        return path && access(path, F_OK) == 0;
}

const char *path_program(struct arena *a, const char *runtime_path, const char *name)
{
        const char *p;
        if (runtime_path && *runtime_path && (p = arena_printf(a, "%s/.dapr/bin/%s", runtime_path, name)) && access(p, X_OK) == 0)
                return p;
        char *self = realpath("/proc/self/exe", NULL), *slash = self ? strrchr(self, '/') : NULL;
        p = slash ? arena_printf(a, "%.*s/%s", (int)(slash - self), self, name) : NULL;
        free(self);
        if (p && access(p, X_OK) == 0)
                return p;
        const char *dir = path_dapr_dir(a, runtime_path);
        if (dir && (p = arena_printf(a, "%s/bin/%s", dir, name)) && access(p, X_OK) == 0)
                return p;
        for (struct str rest = str_of(getenv("PATH")); rest.p;) {
                struct str one = str_cut(&rest, ':');
                p = arena_printf(a, "%.*s/%s", STR_FMT(one), name);
                if (one.n && p && access(p, X_OK) == 0)
                        return p;
        }
        return NULL;
}

const char *path_run_file(struct arena *a, const char *path)
{
        char *real = realpath(path, NULL);
        const char *p = real ? arena_strdup(a, str_of(real)) : NULL;
        free(real);
        const char *inside = p ? path_join(a, p, "dapr.yaml") : NULL;
        return inside && path_exists(inside) ? inside : p;
}

const char *path_absolute(struct arena *a, const char *base, const char *path)
{
        const char *home = getenv("HOME");
        if (path[0] == '~' && (path[1] == '/' || !path[1]) && home)
                path = arena_printf(a, "%s%s", home, path + 1);
        else if (path[0] != '/')
                path = arena_printf(a, "%s/%s", base, path);
        struct str clean = path ? path_clean(a, str_of(path)) : STR_NULL;
        return clean.p ? arena_strdup(a, clean) : NULL;
}

int path_mkdirs(const char *path)
{
        char *p = strdup(path);
        if (!p)
                return -ENOMEM;
        int r = 0;
        for (char *s = p + 1; !r; s++) {
                if (*s && *s != '/')
                        continue;
                char c = *s;
                *s = '\0';
                if (mkdir(p, 0755) != 0 && errno != EEXIST)
                        r = -errno;
                *s = c;
                if (!c)
                        break;
        }
        free(p);
        return r;
}

int path_write(const char *path, struct str text, int mode, bool overwrite)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (overwrite ? O_TRUNC : O_EXCL), mode);
        if (fd < 0)
                return -errno;
        int r = 0;
        while (text.n && !r) {
                ssize_t n = write(fd, text.p, text.n);
                if (n >= 0)
                        text = str_skip(text, (size_t)n);
                else if (errno != EINTR)
                        r = -errno;
        }
        if (close(fd) != 0 && !r)
                r = -errno;
        if (r)
                unlink(path);
        return r;
}
