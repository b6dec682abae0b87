/*
 * Whole files into an arena, with errors worded as the reference's os package words them ("open x: permission denied"). Only text
 * passes: what is no UTF-8 or holds a NUL is refused here, with the offset, instead of somewhere inside a parser.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/yaml.h"
#include "sdk/base/utf8.h"

enum { CHUNK_BYTES = 64 * 1024 };

const char *os_error(struct arena *a, const char *op, const char *path, int e)
{
        char *z = arena_printf(a, "%s %s: %s", op, path, strerror(e));
        if (!z)
                return strerror(e);
        char *text = z + strlen(op) + strlen(path) + 3;
        *text = (char)tolower((unsigned char)*text); /* the same texts, but in lower case */
        return z;
}

static int fail(struct arena *a, const char *op, const char *path, int e, const char **ret_err)
{
        *ret_err = os_error(a, op, path, e);
        return -e;
}

static int check_text(struct arena *a, const char *path, struct str s, const char **ret_err)
{
        const char *nul = s.n ? memchr(s.p, 0, s.n) : NULL;
        size_t good = utf8_valid_len(s);

        if (nul)
                *ret_err = arena_printf(a, "%s: not a text file: byte %zu is NUL; save it as UTF-8", path, (size_t)(nul - s.p));
        else if (good < s.n)
                *ret_err = arena_printf(a, "%s: not a text file: byte %zu is not UTF-8; save it as UTF-8", path, good);
        else
                return 0;
        return -EINVAL;
}

static int read_all(struct arena *a, int fd, const char *path, struct str *ret, const char **ret_err)
{
        size_t cap = CHUNK_BYTES, n = 0;
        char *p = arena_alloc(a, cap);
        ssize_t got;

        while (p && (got = read(fd, p + n, cap - n)) != 0) {
                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return fail(a, "read", path, errno, ret_err);
                n += (size_t)got;
                if (n > YAML_MAX_FILE_BYTES) {
                        *ret_err = arena_printf(a, "%s is larger than %d bytes, the limit for one file; split it", path,
                                                YAML_MAX_FILE_BYTES);
                        return -EFBIG;
                }
                if (n == cap) {
                        p = arena_grow(a, p, cap, cap * 2);
                        cap *= 2;
                }
        }
        if (!p) {
                *ret_err = "out of memory while reading a file";
                return -ENOMEM;
        }
        *ret = str_n(p, n);
        return check_text(a, path, *ret, ret_err);
}

int yaml_read_file(struct arena *a, const char *path, bool pipes, struct str *ret, const char **ret_err)
{
        struct stat st;
        int r, fd = open(path, O_RDONLY | O_CLOEXEC | (pipes ? 0 : O_NONBLOCK));

        if (fd < 0)
                return fail(a, "open", path, errno, ret_err);
        if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !pipes) {
                *ret_err = arena_printf(a, "%s: not a regular file", path);
                r = -EINVAL;
        } else {
                r = read_all(a, fd, path, ret, ret_err);
        }
        close(fd);
        if (r && !*ret_err)
                *ret_err = "out of memory while reading a file";
        return r;
}
