/* See keyring.h. */
#include "sdk/trust/keyring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSTEM_DIR "/etc/dapr/trust"

int trust_read_file(struct arena *a, const char *path, uint64_t max, struct str *ret)
{
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r = 0;
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
                r = -EINVAL;
        else if ((uint64_t)st.st_size > max)
                r = -EFBIG;
        char *to = r ? NULL : arena_alloc(a, (size_t)st.st_size + 1);
        size_t used = 0;
        if (!to && !r)
                r = -ENOMEM;
        while (r == 0 && used < (size_t)st.st_size) {
                ssize_t n = read(fd, to + used, (size_t)st.st_size - used);
                if (n == 0)
                        break;
                if (n < 0 && errno != EINTR)
                        r = -errno;
                used += n > 0 ? (size_t)n : 0;
        }
        close(fd);
        *ret = str_n(to, used);
        return r;
}

const char *trust_dir(struct arena *a)
{
        const char *home = getenv("HOME");
        return home && *home ? arena_printf(a, "%s/.dapr/trust", home) : geteuid() == 0 ? SYSTEM_DIR : NULL;
}

static void load_from(struct arena *a, const char *dir, struct trust *t)
{
        DIR *d = dir ? opendir(dir) : NULL;
        if (!d)
                return;
        for (struct dirent *e; (e = readdir(d)) && t->n < TRUST_KEYS_MAX;) {
                struct str name = str_of(e->d_name), text;
                const char *err = NULL, *file = arena_printf(a, "%s/%s", dir, e->d_name);
                struct trust_key *k = &t->v[t->n];
                if (name.p[0] == '.' || !str_has_suffix(name, STR(".pub")) || !file)
                        continue;
                if (trust_read_file(a, file, MINISIGN_FILE_MAX, &text) || minisign_read_public(text, &k->key, &err)) {
                        const char *all = arena_printf(a, "%s%s%s: %s", t->ignored, *t->ignored ? "\n" : "", file, err ? err : "it cannot be read");
                        t->ignored = all ? all : t->ignored;
                        continue;
                }
                k->file = file;
                k->name = arena_strdup(a, str_n(name.p, name.n - 4));
                t->n += k->name != NULL;
        }
        closedir(d);
}

void trust_load(struct arena *a, struct trust *ret)
{
        const char *dir = trust_dir(a);
        *ret = (struct trust){.v = arena_zalloc(a, TRUST_KEYS_MAX * sizeof *ret->v), .ignored = ""};
        if (!ret->v)
                return;
        load_from(a, dir, ret);
        if (!dir || strcmp(dir, SYSTEM_DIR) != 0)
                load_from(a, SYSTEM_DIR, ret);
}

int trust_check(const struct trust *t, const char *what, struct str text, struct str signature, struct arena *a, const struct trust_key **ret,
                const char **ret_err)
{
        struct minisign_signature s;
        const char *err;
        if (!signature.p) {
                *ret_err = arena_printf(a, "%s is not signed", what);
                return -ENODATA;
        }
        if (minisign_read_signature(signature, &s, &err)) {
                *ret_err = arena_printf(a, "%s: its signature: %s", what, err);
                return -EKEYREJECTED;
        }
        for (size_t i = 0; i < t->n; i++) {
                if (memcmp(t->v[i].key.id, s.id, sizeof s.id) != 0)
                        continue;
                if (minisign_verify(&s, &t->v[i].key, text)) {
                        *ret = &t->v[i];
                        return 0;
                }
                *ret_err = arena_printf(a, "%s: its signature by key %s (%s) is wrong: it was changed after signing", what,
                                        minisign_id_text(a, s.id), t->v[i].name);
                return -EKEYREJECTED;
        }
        *ret_err = arena_printf(a, "%s is signed by key %s, which is not trusted: dapr plugin trust add KEY.pub, once you know whose it is",
                                what, minisign_id_text(a, s.id));
        return -ENOKEY;
}
