/* See dev_build.h. Files are written beside their place and renamed: a program that runs keeps its own. */
#include "ctl/dev_build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/package_impl.h"

#define TEMP_SUFFIX ".dapr-dev"

struct dev_before {
        struct package *p;
        struct timespec *times; /* of its files */
};

static int write_file(struct arena *a, const char *folder, const struct package_file *f, struct str data, const struct timespec *time)
{
        const char *path = path_join(a, folder, f->name), *temp = arena_printf(a, "%s" TEMP_SUFFIX, path ? path : ""), *slash = path ? strrchr(path, '/') : NULL;
        if (!path || !temp)
                return -ENOMEM;
        int r = path_mkdirs(arena_strdup(a, str_n(path, (size_t)(slash - path))));
        if (r == 0)
                r = path_write(temp, data, f->executable ? 0755 : 0644, true);
        if (r == 0 && time && utimensat(AT_FDCWD, temp, (const struct timespec[]){*time, *time}, 0))
                r = -errno;
        if (r == 0 && rename(temp, path))
                r = -errno;
        if (r)
                unlink(temp);
        return r;
}

/* ---- builds ---- */

/* The manifest with another version; as it is when it does not say one at the beginning of a line. */
static struct str with_version(struct arena *a, struct str text, const char *version)
{
        static const struct str key = STR("version:");
        struct str rest = text;
        while (rest.p && rest.n) {
                const char *start = rest.p;
                struct str line = str_cut(&rest, '\n');
                if (!str_has_prefix(line, key))
                        continue;
                const char *out = arena_printf(a, "%.*s%.*s \"%s\"%s%.*s", (int)(start - text.p), text.p, STR_FMT(key), version, rest.p ? "\n" : "", STR_FMT(rest));
                return out ? str_of(out) : text;
        }
        return text;
}

int dev_stage(struct arena *a, const char *built, const char *root, unsigned nth, const char **ret_folder, const char **ret_version, const char **ret_err)
{
        struct package *p = NULL;
        int r = package_from_folder(built, &p, a, ret_err);
        if (r)
                return r;
        const char *folder = path_join(a, root, p->name);
        const char *version = arena_printf(a, "%s%cdev.%u", p->version, strchr(p->version, '+') ? '.' : '+', nth);
        for (size_t i = 0; r == 0 && i < p->n_files; i++) {
                const struct package_file *f = &p->files[i];
                struct str data = strcmp(f->name, PACKAGE_MANIFEST) == 0 && version ? with_version(a, f->data, version) : f->data;
                r = folder ? write_file(a, folder, f, data, NULL) : -ENOMEM;
        }
        package_free(p);
        *ret_folder = folder;
        *ret_version = version;
        if (r)
                *ret_err = arena_printf(a, "%s: %s", root, strerror(-r));
        return r;
}

/* ---- what was there before ---- */

int dev_before_save(struct dev_before **ret, const char *folder, struct arena *a, const char **ret_err)
{
        struct dev_before *b = calloc(1, sizeof *b);
        struct stat st;
        *ret_err = "out of memory";
        if (!b)
                return -ENOMEM;
        int r = package_from_folder(folder, &b->p, a, ret_err);
        b->times = r ? NULL : calloc(b->p->n_files + 1, sizeof *b->times);
        for (size_t i = 0; b->times && i < b->p->n_files; i++)
                if (stat(path_join(a, folder, b->p->files[i].name), &st) == 0)
                        b->times[i] = st.st_mtim;
        if (r == 0 && b->times) {
                *ret = b;
                return 0;
        }
        dev_before_free(b);
        return r ? r : -ENOMEM;
}

static bool is_as_it_was(struct arena *a, const char *path, const struct package_file *f)
{
        struct str now;
        return trust_read_file(a, path, f->size + 1, &now) == 0 && str_eq(now, f->data);
}

int dev_before_write(const struct dev_before *b, const char *folder, struct arena *a, const char **ret_err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < b->p->n_files; i++)
                if (!is_as_it_was(a, path_join(a, folder, b->p->files[i].name), &b->p->files[i]))
                        r = write_file(a, folder, &b->p->files[i], b->p->files[i].data, &b->times[i]);
        if (r)
                *ret_err = arena_printf(a, "%s: %s", folder, strerror(-r));
        return r;
}

void dev_before_free(struct dev_before *b)
{
        if (!b)
                return;
        package_free(b->p);
        free(b->times);
        free(b);
}
