/*
 * See verify.h. The order is: lock row, package and its digest, signature, files. The list of files is what lock and signature speak
 * about; files are compared with the list afterwards, each by one descriptor from open to end.
 */
#include "sdk/trust/verify.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH_MAX = 32 };

struct check {
        const struct verify_ask *q;
        struct arena *a;
        struct verified *ret;
        struct verify_fault *fault;
        struct lockfile lock;
        const struct lock_entry *row;   /* NULL = none pins it */
        struct filelist list;
        struct str text, signature;     /* of the list */
        bool is_own;
        int dir;
        const char *exe;                /* the program's name in the list */
};

static int fail(struct check *c, enum verify_step step, const char *what, const char *fix)
{
        *c->fault = (struct verify_fault){step, what ? what : "out of memory", fix ? fix : ""};
        return what ? -EPERM : -ENOMEM;
}

/* The command that brings what should be there. */
static const char *reinstall(struct check *c)
{
        return arena_printf(c->a, "dapr plugin install '%s@%s' --force", c->q->name, c->row ? c->row->version : c->q->version);
}

/* ---- the lock's row ---- */

/* It came with daprd. */
static bool is_own(const struct verify_ask *q, struct arena *a)
{
        static const char *const beside[] = {"../plugins", "../lib/dapr/plugins"};
        char *folder = realpath(q->folder, NULL);
        bool is = false;
        for (size_t i = 0; i < 2 && folder && !is; i++) {
                const char *path = arena_printf(a, "%s/%s", q->exe_dir, beside[i]);
                char *own = path ? realpath(path, NULL) : NULL;
                size_t n = own ? strlen(own) : 0;
                is = own && strncmp(folder, own, n) == 0 && folder[n] == '/';
                free(own);
        }
        free(folder);
        return is;
}

static int check_row(struct check *c)
{
        const struct verify_ask *q = c->q;
        const char *err = NULL;
        if (!*q->lock)
                return 0;
        if (lock_read(c->a, q->lock, &c->lock, &err))
                return fail(c, VERIFY_STEP_LOCK, err, "mend the lock file, or write it anew: dapr plugin lock");
        c->row = lock_find(&c->lock, q->name);
        if (c->row && strcmp(c->row->version, q->version) != 0)
                return fail(c, VERIFY_STEP_LOCK, arena_printf(c->a, "%s pins %s to version %s, the one in %s is %s", q->lock, q->name, c->row->version, q->folder, q->version),
                            reinstall(c));
        if (c->row || c->is_own)
                return 0;
        return fail(c, VERIFY_STEP_LOCK, arena_printf(c->a, "%s has no row for %s %s (%s), which is in %s", q->lock, q->name, q->version, package_platform(), q->folder),
                    arena_printf(c->a, "dapr plugin lock %s", q->name));
}

/* ---- the package's list ---- */

static int read_list(struct check *c)
{
        const struct verify_ask *q = c->q;
        const char *fault;
        if (trust_read_file(c->a, arena_printf(c->a, "%s/" PACKAGE_LIST, q->folder), PACKAGE_LIST_MAX, &c->text))
                return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "%s was not installed from a package: there is no " PACKAGE_LIST "%s%s", q->folder,
                                                                c->row ? "; expected is the package of digest " : "", c->row ? c->row->digest : ""), reinstall(c));
        fault = filelist_read(c->a, c->text, &c->list);
        if (fault)
                return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "%s: %s", q->folder, fault), reinstall(c));
        memcpy(c->ret->digest, c->list.digest, sizeof c->ret->digest);
        if (strcmp(c->list.name, q->name) != 0 || strcmp(c->list.version, q->version) != 0)
                return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "%s holds the package of %s %s, but its plugin.yaml says %s %s", q->folder, c->list.name,
                                                                c->list.version, q->name, q->version), reinstall(c));
        if (!package_fits(c->list.platform))
                return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "%s holds a package for %s, this machine is %s", q->folder, c->list.platform, package_platform()),
                            reinstall(c));
        if (c->row && !lock_pins(c->row, c->list.digest))
                return fail(c, VERIFY_STEP_LOCK, arena_printf(c->a, "%s %s in %s is another package than the one that %s pins: expected digest %s, found " LOCK_DIGEST "%s",
                                                             q->name, q->version, q->folder, q->lock, c->row->digest, c->list.digest), reinstall(c));
        return 0;
}

static int check_signature(struct check *c)
{
        struct trust t;
        const struct trust_key *key = NULL;
        const char *err = NULL, *fix = reinstall(c);
        if (trust_read_file(c->a, arena_printf(c->a, "%s/" PACKAGE_SIGNATURE, c->q->folder), MINISIGN_FILE_MAX, &c->signature))
                c->signature = STR_NULL;
        trust_load(c->a, &t);
        int r = trust_check(&t, arena_printf(c->a, "%s %s in %s", c->q->name, c->q->version, c->q->folder), c->text, c->signature, c->a, &key, &err);
        if (r == -ENOKEY)
                fix = "dapr plugin trust add KEY.pub";
        if (r)
                return fail(c, VERIFY_STEP_SIGNATURE, err, fix);
        c->ret->signed_by = key->name;
        return 0;
}

/* ---- files ---- */

static int damaged(struct check *c, const char *name, const char *what, const char *fix)
{
        return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "%s/%s %s", c->q->folder, name, what), fix ? fix : reinstall(c));
}

static bool others_may_write(const struct stat *st)
{
        return (st->st_mode & (S_IWGRP | S_IWOTH)) || (st->st_uid != 0 && st->st_uid != geteuid());
}

static int beneath(int dir, const char *name, uint64_t flags)
{
        struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
        long fd = syscall(SYS_openat2, dir, name, &how, sizeof how);
        if (fd < 0 && errno == ENOSYS) /* before Linux 5.6 */
                fd = openat(dir, name, (int)flags | O_CLOEXEC | O_NOFOLLOW);
        return (int)fd;
}

static bool is_elf(int fd)
{
        char magic[SELFMAG];
        return pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static int check_file(struct check *c, const struct filelist_row *f)
{
        char digest[DIGEST_HEX + 1] = "", taken[DIGEST_HEX + 1];
        uint64_t size = 0;
        struct stat st;
        int fd = beneath(c->dir, f->name, O_RDONLY | O_NONBLOCK), r = 0;
        if (fd < 0)
                return damaged(c, f->name, errno == ENOENT ? "is missing" : errno == ELOOP ? "is a link, which no package holds" : "cannot be read", NULL);
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
                r = damaged(c, f->name, "is no regular file", NULL);
        else if (others_may_write(&st))
                r = damaged(c, f->name, "may be written by other users", arena_printf(c->a, "chmod -R go-w %s && chown -R $(id -u) %s", c->q->folder, c->q->folder));
        else if (digest_fd(fd, PACKAGE_FILE_BYTES_MAX, digest, &size) || size != f->size || strcmp(digest, f->digest) != 0)
                r = damaged(c, f->name, arena_printf(c->a, "was changed: expected digest " LOCK_DIGEST "%s, found " LOCK_DIGEST "%s", f->digest, digest), NULL);
        if (r == 0 && strcmp(f->name, PACKAGE_MANIFEST) == 0 && c->q->manifest.p) {
                digest_blake2b(c->q->manifest, taken);
                if (strcmp(taken, f->digest) != 0)
                        r = damaged(c, f->name, "was changed after it was read", NULL);
        }
        if (r == 0 && strcmp(f->name, c->exe) == 0) {
                c->ret->is_script = !is_elf(fd);
                if (!c->ret->is_script) {
                        c->ret->exec_fd = fd;
                        fd = -1;
                }
        }
        if (fd >= 0)
                close(fd);
        return r;
}

/* ---- what stands beside them ---- */

struct walk {
        struct check *c;
        const char **folders;           /* relative, still to read */
        size_t n, cap;
};

static int add_folder(struct walk *w, const char *name)
{
        size_t depth = 0;
        for (const char *s = name; *s; s++)
                depth += *s == '/';
        if (depth > DEPTH_MAX)
                return damaged(w->c, name, "lies too deep", NULL);
        if (w->n == w->cap) {
                size_t cap = w->cap ? w->cap * 2 : 16;
                const char **v = arena_grow(w->c->a, w->folders, w->cap * sizeof *v, cap * sizeof *v);
                if (!v)
                        return fail(w->c, VERIFY_STEP_PACKAGE, NULL, NULL);
                w->folders = v;
                w->cap = cap;
        }
        w->folders[w->n++] = name;
        return 0;
}

static int look_at(struct walk *w, const char *folder, const struct dirent *e)
{
        struct check *c = w->c;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                return 0;
        const char *name = *folder ? arena_printf(c->a, "%s/%s", folder, e->d_name) : arena_strdup(c->a, str_of(e->d_name));
        if (!name)
                return fail(c, VERIFY_STEP_PACKAGE, NULL, NULL);
        if (strcmp(name, PACKAGE_DIR) == 0 || strcmp(name, PACKAGE_CONFORMANCE) == 0 || filelist_find(&c->list, str_of(name)))
                return 0;
        struct stat st;
        int fd = beneath(c->dir, name, O_PATH | O_NOFOLLOW);
        bool is_dir = fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode), open_to_others = is_dir && others_may_write(&st);
        if (fd >= 0)
                close(fd);
        if (open_to_others)
                return damaged(c, name, "may be written by other users", arena_printf(c->a, "chmod -R go-w %s", c->q->folder));
        if (is_dir)
                return add_folder(w, name);
        return damaged(c, name, "is not in the package", arena_printf(c->a, "rm '%s/%s'", c->q->folder, name));
}

static int check_folders(struct check *c)
{
        struct walk w = {.c = c};
        struct stat st;
        if (fstat(c->dir, &st) != 0 || others_may_write(&st))
                return damaged(c, ".", "may be written by other users", arena_printf(c->a, "chmod go-w %s && chown $(id -u) %s", c->q->folder, c->q->folder));
        int r = add_folder(&w, "");
        for (size_t i = 0; r == 0 && i < w.n; i++) {
                int fd = beneath(c->dir, *w.folders[i] ? w.folders[i] : ".", O_RDONLY | O_DIRECTORY);
                DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
                if (!d) {
                        if (fd >= 0)
                                close(fd);
                        return damaged(c, w.folders[i], "cannot be read", NULL);
                }
                for (struct dirent *e; r == 0 && (e = readdir(d));)
                        r = look_at(&w, w.folders[i], e);
                closedir(d);
        }
        return r;
}

/* ---- the whole ---- */

static int check_files(struct check *c)
{
        const struct verify_ask *q = c->q;
        size_t n = strlen(q->folder);
        c->exe = strncmp(q->executable, q->folder, n) == 0 && q->executable[n] == '/' ? q->executable + n + 1 : q->executable;
        if (!filelist_find(&c->list, str_of(c->exe)) || !filelist_find(&c->list, STR(PACKAGE_MANIFEST)))
                return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "the program %s is not in the package in %s", q->executable, q->folder), reinstall(c));
        c->dir = open(q->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (c->dir < 0)
                return fail(c, VERIFY_STEP_PACKAGE, arena_printf(c->a, "%s: %s", q->folder, strerrordesc_np(errno)), reinstall(c));
        int r = check_folders(c);
        for (size_t i = 0; r == 0 && i < c->list.n; i++)
                r = check_file(c, &c->list.v[i]);
        close(c->dir);
        c->ret->n_files = c->list.n;
        return r;
}

int verify_plugin(const struct verify_ask *q, struct arena *a, struct verified *ret, struct verify_fault *fault)
{
        struct check c = {.q = q, .a = a, .ret = ret, .fault = fault};
        *ret = (struct verified){.exec_fd = -1};
        if (q->policy == VERIFY_OFF)
                return 0;
        c.is_own = is_own(q, a);
        int r = check_row(&c);
        bool wants_signature = q->policy == VERIFY_SIGNED && !c.is_own;
        if (r || (!c.row && !wants_signature))
                return r;
        ret->is_pinned = c.row != NULL;
        r = read_list(&c);
        if (r == 0 && wants_signature)
                r = check_signature(&c);
        if (r == 0)
                r = check_files(&c);
        if (r && ret->exec_fd >= 0) {
                close(ret->exec_fd);
                ret->exec_fd = -1;
        }
        return r;
}
