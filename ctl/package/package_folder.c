/*
 * Packages from folders: what `plugin build` packs, and what is installed. Folders are walked without recursion: a queue of names.
 * The files' bytes are read into one mapping-free buffer each, in the package's arena.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/tar.h"

struct walk {
        struct package *p;
        const char *dir;
        const char **folders; /* still to read, relative; "" is dir itself */
        size_t n_folders, cap_folders, cap_files;
        struct arena *errors;
        const char **ret_err;
        uint64_t total;
};

static int fail(struct walk *w, const char *name, const char *what, int e)
{
        *w->ret_err = e ? arena_printf(w->errors, "%s/%s: %s: %s", w->dir, name, what, strerror(e))
                        : arena_printf(w->errors, "%s/%s: %s", w->dir, name, what);
        return e ? -e : -EINVAL;
}

static int add_file(struct walk *w, const char *name, const struct stat *st)
{
        struct package *p = w->p;
        struct str data;
        if (filelist_name_fault(str_of(name)))
                return fail(w, name, filelist_name_fault(str_of(name)), 0);
        if (p->n_files == TAR_ENTRIES_MAX || w->total + (uint64_t)st->st_size > TAR_TOTAL_BYTES_MAX)
                return fail(w, name, "a package holds at most 20,000 files and 2 GiB", 0);
        int r = trust_read_file(&p->arena, path_join(&p->arena, w->dir, name), TAR_FILE_BYTES_MAX, &data);
        if (r)
                return fail(w, name, "it cannot be read", -r);
        if (p->n_files == w->cap_files) {
                size_t cap = w->cap_files ? w->cap_files * 2 : 16;
                struct package_file *v = arena_grow(&p->arena, p->files, w->cap_files * sizeof *v, cap * sizeof *v);
                if (!v)
                        return -ENOMEM;
                p->files = v;
                w->cap_files = cap;
        }
        struct package_file *f = &p->files[p->n_files++];
        *f = (struct package_file){.name = name, .size = data.n, .executable = st->st_mode & S_IXUSR, .data = data};
        digest_blake2b(data, f->digest);
        w->total += data.n;
        return 0;
}

static bool is_left_out(const char *name)
{
        struct str s = str_of(name);
        return name[0] == '.' || strcmp(name, "__pycache__") == 0 || str_has_suffix(s, STR(".pyc")) || str_has_suffix(s, STR(".tar")) ||
               str_has_suffix(s, STR(".minisig"));
}

static int add_folder(struct walk *w, const char *name)
{
        if (w->n_folders == w->cap_folders) {
                size_t cap = w->cap_folders ? w->cap_folders * 2 : 16;
                const char **v = arena_grow(&w->p->arena, w->folders, w->cap_folders * sizeof *v, cap * sizeof *v);
                if (!v)
                        return -ENOMEM;
                w->folders = v;
                w->cap_folders = cap;
        }
        w->folders[w->n_folders++] = name;
        return 0;
}

static int add_entry(struct walk *w, const char *folder, const char *entry)
{
        struct arena *a = &w->p->arena;
        const char *name = *folder ? path_join(a, folder, entry) : arena_strdup(a, str_of(entry));
        struct stat st;
        if (!name)
                return -ENOMEM;
        if (lstat(path_join(a, w->dir, name), &st) != 0)
                return fail(w, name, "it cannot be read", errno);
        if (S_ISDIR(st.st_mode))
                return add_folder(w, name);
        if (S_ISLNK(st.st_mode))
                return fail(w, name, "it is a symbolic link, which no package may hold: put the file itself there", 0);
        return S_ISREG(st.st_mode) ? add_file(w, name, &st) : fail(w, name, "it is no regular file", 0);
}

static int read_folder(struct walk *w, const char *folder)
{
        DIR *d = opendir(*folder ? path_join(&w->p->arena, w->dir, folder) : w->dir);
        int r = 0;
        if (!d)
                return fail(w, folder, "the folder cannot be read", errno);
        for (struct dirent *e; r == 0 && (e = readdir(d));)
                if (!is_left_out(e->d_name))
                        r = add_entry(w, folder, e->d_name);
        closedir(d);
        return r;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct package_file *)a)->name, ((const struct package_file *)b)->name);
}

static struct package *package_new(const char *source)
{
        struct package *p = calloc(1, sizeof *p);
        if (p) {
                arena_init(&p->arena, 0);
                p->source = arena_strdup(&p->arena, str_of(source));
        }
        return p;
}

int package_from_folder(const char *dir, struct package **ret, struct arena *a, const char **ret_err)
{
        struct package *p = package_new(dir);
        struct walk w = {.p = p, .dir = dir, .errors = a, .ret_err = ret_err};
        *ret_err = "out of memory";
        if (!p)
                return -ENOMEM;
        int r = add_folder(&w, "");
        for (size_t i = 0; r == 0 && i < w.n_folders; i++)
                r = read_folder(&w, w.folders[i]);
        if (p->n_files)
                qsort(p->files, p->n_files, sizeof *p->files, by_name);
        const struct package_file *m = r == 0 ? package_file(p, PACKAGE_MANIFEST) : NULL;
        if (r == 0)
                r = m ? package_read_manifest(p, m->data, a, ret_err)
                      : package_fail(p, a, ret_err, -ENOENT, "there is no plugin.yaml in this folder");
        if (r == 0) {
                p->platform = package_platform_of(p);
                if (strcmp(p->platform, "mixed") == 0)
                        r = package_fail(p, a, ret_err, -EINVAL, "it holds programs for several machines: make one package for each");
        }
        if (r == 0)
                r = package_write_list(p);
        if (r) {
                package_free(p);
                return r;
        }
        *ret = p;
        return 0;
}

int package_installed(const char *dir, struct package **ret, struct arena *a, const char **ret_err)
{
        struct package *p = package_new(dir);
        struct str list, data;
        *ret_err = "out of memory";
        if (!p)
                return -ENOMEM;
        int r = trust_read_file(&p->arena, path_join(&p->arena, dir, PACKAGE_LIST), PACKAGE_LIST_MAX, &list);
        if (r)
                r = package_fail(p, a, ret_err, r, "it was not installed from a package: there is no " PACKAGE_LIST);
        else
                r = package_read_list(p, list, a, ret_err);
        if (r == 0 && trust_read_file(&p->arena, path_join(&p->arena, dir, PACKAGE_SIGNATURE), MINISIGN_FILE_MAX, &data) == 0)
                p->signature = data;
        for (size_t i = 0; r == 0 && i < p->n_files; i++) {
                struct package_file *f = &p->files[i];
                r = trust_read_file(&p->arena, path_join(&p->arena, dir, f->name), TAR_FILE_BYTES_MAX, &data);
                r = r ? package_fail(p, a, ret_err, r, arena_printf(a, "%s is missing or cannot be read", f->name))
                      : package_check_file(p, f, data, a, ret_err);
        }
        const struct package_file *m = r == 0 ? package_file(p, PACKAGE_MANIFEST) : NULL;
        if (r == 0)
                r = m ? package_read_manifest(p, m->data, a, ret_err) : package_fail(p, a, ret_err, -EINVAL, "it has no plugin.yaml");
        if (r) {
                package_free(p);
                return r;
        }
        *ret = p;
        return 0;
}
