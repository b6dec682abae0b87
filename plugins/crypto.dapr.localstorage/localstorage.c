/*
 * crypto.dapr.localstorage: keys in files of one folder, PEM, JWK or raw bytes. A key is read for each operation, so that a file that
 * was replaced counts at once; it is wiped when the operation has ended. Operations run on worker threads: RSA takes milliseconds.
 */
#include <ctype.h>
#include <dapr/plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugins/shared/crypto/local.h"
#include "sdk/base/list.h"

struct folder {
        struct local_provider provider; /* first */
        char *path;
};

/* "no such file or directory" */
static const char *error_text(struct dapr_call *c, int err)
{
        char *s = dapr_strdup(c, strerrordesc_np(err) ? strerrordesc_np(err) : "unknown error");
        if (s)
                *s = (char)tolower((unsigned char)*s);
        return s ? s : "";
}

/* The whole file into *ret (malloc). 0 or the errno, > 0. */
static int read_file(const char *path, char **ret, size_t *ret_n)
{
        struct stat st;
        size_t n = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r = 0;
        if (fd < 0)
                return errno;
        if (fstat(fd, &st))
                r = errno;
        else if (!S_ISREG(st.st_mode))
                r = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        else if (st.st_size > KEY_BYTES_MAX)
                r = EFBIG;
        char *p = r ? NULL : malloc((size_t)st.st_size + 1);
        while (!r && p && n < (size_t)st.st_size) {
                ssize_t got = read(fd, p + n, (size_t)st.st_size - n);
                if (got < 0)
                        r = errno;
                if (got <= 0)
                        break;
                n += (size_t)got;
        }
        close(fd);
        if (!r && !p)
                r = ENOMEM;
        if (r) {
                free(p);
                return r;
        }
        *ret = p;
        *ret_n = n;
        return 0;
}

static enum key_form form_of(const char *name)
{
        const char *dot = strrchr(name, '.');
        return dot && !strcasecmp(dot, ".json") ? KEY_FORM_JWK : dot && !strcasecmp(dot, ".pem") ? KEY_FORM_PEM : KEY_FORM_GUESS;
}

static int find(struct dapr_call *c, struct local_provider *p, const char *name, struct key **ret, const char **ret_why)
{
        const struct folder *f = container_of(p, struct folder, provider);
        const char *err = NULL;
        char *data = NULL;
        size_t n = 0;
        if (strstr(name, "..")) {
                *ret_why = "invalid key path: cannot contain '..'";
                return DAPR_INVALID_ARGUMENT;
        }
        const char *path = dapr_printf(c, "%s%s%s", f->path, *name == '/' ? "" : "/", name);
        if (!path)
                return -ENOMEM;
        int r = read_file(path, &data, &n);
        if (r) {
                *ret_why = dapr_printf(c, "failed to load key '%s': %s %s: %s", name, r == EISDIR ? "read" : "open", path, error_text(c, r));
                return r == ENOENT ? DAPR_NOT_FOUND : DAPR_INTERNAL;
        }
        r = key_parse(ret, str_n(data, n), form_of(name), &err);
        explicit_bzero(data, n);
        free(data);
        if (r == -EINVAL)
                *ret_why = dapr_printf(c, "failed to parse key from secret: %s", err);
        return r == -EINVAL ? DAPR_FAILED_PRECONDITION : r;
}

static void release(struct local_provider *p, struct key *k)
{
        key_free(k);
}

static void op_close(void *instance)
{
        struct folder *f = instance;
        free(f->path);
        free(f);
}

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *path = dapr_md_string(md, "path");
        struct stat st;
        if (!path || !*path)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to load metadata: metadata property 'path' is required");
        if (stat(path, &st))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to load metadata: could not stat path '%s': stat %s: %s", path, path,
                                 error_text(c, errno));
        if (!S_ISDIR(st.st_mode))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to load metadata: path '%s' is not a directory", path);
        struct folder *f = calloc(1, sizeof *f);
        if (f)
                f->path = strdup(path);
        if (!f || !f->path) {
                free(f);
                return -ENOMEM;
        }
        for (size_t n = strlen(f->path); n > 1 && f->path[n - 1] == '/'; n--)
                f->path[n - 1] = '\0';
        f->provider = (struct local_provider){find, release};
        *instance = f;
        return 0;
}

static const struct dapr_crypto_ops ops = {.mode = DAPR_WORKER, .init = op_init, .close = op_close, LOCAL_CRYPTO_OPS};
static const struct dapr_component_type types[] = {{.type = "crypto.dapr.localstorage", .versions = "v1", .crypto = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "crypto.dapr.localstorage", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
