/*
 * The local storage output binding. Every name is looked up with rootPath as its root directory (openat2 with RESOLVE_IN_ROOT), so that
 * neither ".." nor a symbolic link, however it changes meanwhile, leads outside. Runs on worker threads: files block.
 */
#include <dapr/plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sdk/base/json.h"
#include "sdk/net/http.h"

enum { READ_STEP = 64 * 1024 };

struct storage {
        char root[PATH_MAX];
        int fd; /* of the root */
};

/* What errno is called in the reference's texts. */
static const char *reason(int err)
{
        switch (err) {
        case ENOENT: return "no such file or directory";
        case EISDIR: return "is a directory";
        case ENOTDIR: return "not a directory";
        case EACCES: return "permission denied";
        case ENOSPC: return "no space left on device";
        case ENOTEMPTY: return "directory not empty";
        case EEXIST: return "file exists";
        default: return strerrordesc_np(err);
        }
}

/* ---- start ---- */

static int make_folders(char *path)
{
        for (char *p = path + 1;; p++) {
                char ch = *p;
                if (ch != '/' && ch != '\0')
                        continue;
                *p = '\0';
                int r = mkdir(path, 0777);
                *p = ch;
                if (r && errno != EEXIST)
                        return -errno;
                if (ch == '\0')
                        return 0;
        }
}

/* The nearest folder that exists, its links resolved, with the rest behind it. */
static int resolve_root(struct dapr_call *c, const char *clean, char *to)
{
        char *head = dapr_strdup(c, clean), *real;
        struct stat st;

        if (!head)
                return -ENOMEM;
        while (stat(head, &st)) {
                if (errno != ENOENT)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse metadata: error getting stat for path %s: stat %s: %s",
                                         head, head, reason(errno));
                char *slash = strrchr(head, '/');
                slash[slash == head] = '\0';
        }
        if (!S_ISDIR(st.st_mode))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse metadata: property rootPath represents a file and not a directory");
        if (!(real = realpath(head, NULL)))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse metadata: failed to evaluate symlinks in rootPath: %s", reason(errno));
        const char *rest = clean + strlen(head);
        bool slashes = real[1] == '\0' || *rest == '\0';
        int m = snprintf(to, PATH_MAX, "%s%s%s", slashes && *rest ? "" : real, slashes && *rest && *rest != '/' ? "/" : "", rest);
        free(real);
        return m < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int find_root(struct dapr_call *c, const char *given, char *to)
{
        static const char *const forbidden[] = {"/proc", "/sys", "/boot", "/var/run/secrets", "/run/secrets"};
        char *cwd = NULL;
        struct arena a;
        int r;

        if (!given || !*given)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse metadata: property rootPath must not be empty");
        if (given[0] != '/' && !(cwd = getcwd(NULL, 0)))
                return dapr_fail(c, DAPR_INTERNAL, "failed to parse metadata: failed to obtain current working directory: %s", reason(errno));
        arena_init(&a, 0);
        const char *full = arena_printf(&a, "%s/%s", cwd ? cwd : "", given);
        free(cwd);
        const char *clean = full ? arena_strdup(&a, path_clean(&a, str_of(full))) : NULL;
        r = !clean ? -ENOMEM : strlen(clean) >= PATH_MAX ? -ENAMETOOLONG : resolve_root(c, clean, to);
        arena_fini(&a);
        for (size_t i = 0; r == 0 && i < sizeof forbidden / sizeof *forbidden; i++) {
                size_t n = strlen(forbidden[i]);
                if (strncmp(to, forbidden[i], n) == 0 && (to[n] == '/' || to[n] == '\0'))
                        r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse metadata: property rootPath points to a disallowed location");
        }
        return r;
}

static int storage_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct storage *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return -ENOMEM;
        r = find_root(c, dapr_md_string(md, "rootPath"), s->root);
        if (r == 0) {
                int e = make_folders(s->root);
                s->fd = e ? -1 : open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (s->fd < 0)
                        r = dapr_fail(c, DAPR_INTERNAL, "unable to create directory specified by 'rootPath' %s: mkdir %s: %s", s->root, s->root,
                                      reason(e ? -e : errno));
        }
        if (r)
                free(s);
        else
                *instance = s;
        return r;
}

static void storage_close(void *instance)
{
        struct storage *s = instance;

        close(s->fd);
        free(s);
}

/* ---- names ---- */

/* A file as the caller named it: relative to the root, cleaned, and as the absolute path for texts. */
struct name {
        const char *rel; /* "" = the root itself */
        const char *abs;
        char *parent;    /* of rel; "" = the root */
        const char *base;
};

static int name_of(struct dapr_call *c, const struct storage *s, const char *given, struct name *n)
{
        struct arena a;
        char *rooted, *slash;

        arena_init(&a, 0);
        rooted = arena_printf(&a, "/%s", given);
        struct str clean = rooted ? path_clean(&a, str_of(rooted)) : STR_NULL;
        n->rel = clean.p ? dapr_printf(c, "%.*s", STR_FMT(str_skip(clean, 1))) : NULL;
        arena_fini(&a);
        if (!n->rel || !(n->parent = dapr_strdup(c, n->rel)))
                return -ENOMEM;
        n->abs = *n->rel ? dapr_printf(c, "%s/%s", s->root[1] ? s->root : "", n->rel) : s->root;
        slash = strrchr(n->parent, '/');
        n->base = slash ? n->rel + (slash - n->parent) + 1 : n->rel;
        *(slash ? slash : n->parent) = '\0';
        return n->abs ? 0 : -ENOMEM;
}

static int open_in(const struct storage *s, const char *path, int flags, mode_t mode)
{
        const struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .mode = mode, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
        long fd = syscall(SYS_openat2, s->fd, *path ? path : ".", &how, sizeof how);

        return fd < 0 ? -errno : (int)fd;
}

/* Makes the folders of a name that are missing. The last one's descriptor, or -errno. */
static int make_parents(const struct storage *s, char *parent)
{
        int fd = open_in(s, "", O_PATH | O_DIRECTORY, 0);

        for (char *p = parent; fd >= 0 && *parent; p++) {
                char ch = *p, *from;
                int next;
                if (ch != '/' && ch != '\0')
                        continue;
                *p = '\0';
                from = strrchr(parent, '/');
                if (mkdirat(fd, from ? from + 1 : parent, 0777) && errno != EEXIST)
                        next = -errno;
                else
                        next = open_in(s, parent, O_PATH | O_DIRECTORY, 0);
                *p = ch;
                close(fd);
                fd = next;
                if (ch == '\0')
                        break;
        }
        return fd;
}

/* ---- create ---- */

/* What the reference's decoder takes: standard alphabet, padded; line breaks do not count. */
static bool is_base64(struct str s)
{
        size_t n = 0, pad = 0;

        for (size_t i = 0; i < s.n; i++) {
                char ch = s.p[i];
                if (ch == '\r' || ch == '\n')
                        continue;
                if (ch == '=')
                        pad++;
                else if (pad || !((ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '+' || ch == '/'))
                        return false;
                n++;
        }
        return n % 4 == 0 && pad <= 2;
}

static struct str without_breaks(struct arena *a, struct str s)
{
        char *to = arena_alloc(a, s.n + 1);
        size_t n = 0;

        for (size_t i = 0; to && i < s.n; i++)
                if (s.p[i] != '\r' && s.p[i] != '\n')
                        to[n++] = s.p[i];
        return str_n(to, n);
}

/* The bytes to write: a JSON string's content, and what base64 stands for. */
static struct str content_of(struct arena *a, struct str data)
{
        struct json_reader r;
        struct str text;

        json_read_init(&r, data);
        if (data.n && data.p[0] == '"' && json_read_string(&r, a, &text) && json_at_end(&r))
                data = text;
        if (!is_base64(data))
                return data;
        text = base64_decode(a, without_breaks(a, data));
        return text.p ? text : data;
}

static int write_all(int fd, struct str s)
{
        while (s.n) {
                ssize_t n = write(fd, s.p, s.n);
                if (n < 0 && errno != EINTR)
                        return -errno;
                s = str_skip(s, n > 0 ? (size_t)n : 0);
        }
        return 0;
}

static const char *new_name(struct dapr_call *c)
{
        unsigned char b[16];

        if (getrandom(b, sizeof b, 0) != sizeof b)
                return NULL;
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        return dapr_printf(c, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5],
                           b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int answer_name(struct dapr_call *c, const char *rel, struct dapr_invoke_result *out)
{
        struct buf b = {0};
        struct json_writer w;

        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "fileName", str_of(*rel ? rel : "."));
        json_object_end(&w);
        out->data = dapr_copy(c, buf_str(&b).p, buf_len(&b));
        buf_fini(&b);
        return out->data.p ? 0 : -ENOMEM;
}

static int create(struct dapr_call *c, const struct storage *s, const struct name *n, struct dapr_bytes data, struct dapr_invoke_result *out)
{
        struct arena a;
        int fd, r, parent = make_parents(s, n->parent);

        if (parent < 0)
                return dapr_fail(c, DAPR_INTERNAL, "error creating directory %.*s: mkdir %.*s: %s", (int)(strrchr(n->abs, '/') - n->abs),
                                 n->abs, (int)(strrchr(n->abs, '/') - n->abs), n->abs, reason(-parent));
        close(parent);
        fd = open_in(s, n->rel, O_RDWR | O_CREAT | O_TRUNC, 0666);
        if (fd < 0)
                return dapr_fail(c, DAPR_INTERNAL, "error creating file %s: open %s: %s", n->abs, n->abs, reason(-fd));
        arena_init(&a, 0);
        r = write_all(fd, content_of(&a, str_n(data.p, data.n)));
        arena_fini(&a);
        if (close(fd) && r == 0)
                r = -errno;
        if (r)
                return dapr_fail(c, DAPR_INTERNAL, "error writing to file %s: write %s: %s", n->abs, n->abs, reason(-r));
        dapr_log(DAPR_LOG_DEBUG, "wrote file: %s", n->abs);
        return answer_name(c, n->rel, out);
}

/* ---- get, delete, list ---- */

static int get(struct dapr_call *c, const struct storage *s, const struct name *n, struct dapr_invoke_result *out)
{
        int fd = open_in(s, n->rel, O_RDONLY | O_NONBLOCK, 0);
        struct buf b = {0};
        ssize_t got = 1;

        if (fd == -ENOENT)
                return dapr_fail(c, DAPR_INTERNAL, "file not found: %s", n->abs);
        if (fd < 0)
                return dapr_fail(c, DAPR_INTERNAL, "error opening path %s: open %s: %s", n->abs, n->abs, reason(-fd));
        while (got > 0) {
                if (buf_reserve(&b, READ_STEP)) {
                        close(fd);
                        buf_fini(&b);
                        return -ENOMEM;
                }
                got = read(fd, b.p + b.len, READ_STEP);
                if (got > 0)
                        b.len += (size_t)got;
        }
        int err = errno;
        close(fd);
        if (got == 0)
                out->data = dapr_copy(c, b.len ? b.p : "", b.len);
        buf_fini(&b);
        if (got < 0)
                return dapr_fail(c, DAPR_INTERNAL, "error reading file %s: read %s: %s", n->abs, n->abs, reason(err));
        return out->data.p ? 0 : -ENOMEM;
}

static int delete(struct dapr_call *c, const struct storage *s, const struct name *n)
{
        int r = -EBUSY, parent = *n->rel ? open_in(s, n->parent, O_PATH | O_DIRECTORY, 0) : -EBUSY;

        if (parent >= 0) {
                r = unlinkat(parent, n->base, 0) ? -errno : 0;
                if (r == -EISDIR)
                        r = unlinkat(parent, n->base, AT_REMOVEDIR) ? -errno : 0;
                close(parent);
        } else {
                r = parent;
        }
        return r ? dapr_fail(c, DAPR_INTERNAL, "error deleting file %s: remove %s: %s", n->abs, n->abs, reason(-r)) : 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
        return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Links are named, not followed. */
static int walk(const char *fd_path, const char *abs, struct json_writer *w, size_t *ret_n)
{
        char *const roots[] = {(char *)fd_path, NULL};
        FTS *f = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, by_name);
        size_t skip = strlen(fd_path);
        struct buf text = {0};

        if (!f)
                return -errno;
        for (FTSENT *e; (e = fts_read(f));) {
                if (e->fts_info == FTS_D || e->fts_info == FTS_DP || e->fts_info == FTS_DNR || e->fts_info == FTS_DC)
                        continue;
                buf_clear(&text);
                buf_printf(&text, "%s%s", abs, e->fts_path + skip);
                json_string(w, buf_str(&text));
                ++*ret_n;
        }
        buf_fini(&text);
        fts_close(f);
        return 0;
}

static int list(struct dapr_call *c, const struct storage *s, const struct name *n, struct dapr_invoke_result *out)
{
        int fd = open_in(s, n->rel, O_PATH, 0), r;
        char path[64];
        struct buf b = {0};
        struct json_writer w;
        struct stat st;
        size_t found = 0;

        if (fd < 0)
                return dapr_fail(c, DAPR_INTERNAL, "error getting stats for path %s: stat %s: %s", n->abs, n->abs, reason(-fd));
        if (fstat(fd, &st) || !S_ISDIR(st.st_mode)) {
                close(fd);
                return dapr_fail(c, DAPR_INTERNAL, "unable to list files as the file specified is not a directory: %s", n->abs);
        }
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        json_write_init(&w, &b);
        json_array_begin(&w);
        r = walk(path, n->abs, &w, &found);
        json_array_end(&w);
        close(fd);
        if (r == 0)
                out->data = found ? dapr_copy(c, buf_str(&b).p, buf_len(&b)) : dapr_copy(c, "null", 4);
        buf_fini(&b);
        if (r)
                return dapr_fail(c, DAPR_INTERNAL, "error listing files in the directory %s: %s", n->abs, reason(-r));
        return out->data.p ? 0 : -ENOMEM;
}

/* ---- operations ---- */

static int storage_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        const struct storage *s = instance;
        const char *file = dapr_kvs_get(in->metadata, "fileName");
        bool is_create = strcmp(in->operation, "create") == 0;
        struct name n;
        int r;

        if (is_create && (!file || !*file) && !(file = new_name(c)))
                return dapr_fail(c, DAPR_INTERNAL, "failed to generate UUID");
        if ((r = name_of(c, s, file ? file : "", &n)))
                return r;
        if (is_create)
                return create(c, s, &n, in->data, out);
        if (strcmp(in->operation, "get") == 0)
                return get(c, s, &n, out);
        if (strcmp(in->operation, "delete") == 0)
                return delete(c, s, &n);
        if (strcmp(in->operation, "list") == 0)
                return list(c, s, &n, out);
        return dapr_fail(c, DAPR_UNIMPLEMENTED, "unsupported operation %s", in->operation);
}

static const char *const operations[] = {"create", "get", "list", "delete", NULL};
static const struct dapr_binding_ops ops = {
        .mode = DAPR_WORKER, .init = storage_init, .close = storage_close, .operations = operations, .invoke = storage_invoke};

int main(int argc, char **argv)
{
        static const struct dapr_component_type types[] = {{.type = "bindings.localstorage", .versions = "v1", .binding = &ops}};
        static const struct dapr_plugin plugin = {.name = "bindings.localstorage", .version = "1.0.0", .types = types, .n_types = 1};

        return dapr_plugin_main(argc, argv, &plugin);
}
