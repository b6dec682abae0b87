/* The trust store: public keys in minisign's form, one a file NAME.pub, in ~/.dapr/trust and /etc/dapr/trust. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/package_impl.h"

enum { TRUST_KEYS_MAX = 256 };
#define SYSTEM_DIR "/etc/dapr/trust"

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
                const char *err = NULL, *file = path_join(a, dir, e->d_name);
                struct trust_key *k = &t->v[t->n];
                if (name.p[0] == '.' || !str_has_suffix(name, STR(".pub")) || !file)
                        continue;
                if (package_read_file(a, file, MINISIGN_FILE_MAX, &text) || minisign_read_public(text, &k->key, &err)) {
                        ui_say(UI_WARNING, "%s does not count: %s", file, err ? err : "it cannot be read");
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
        *ret = (struct trust){.v = arena_zalloc(a, TRUST_KEYS_MAX * sizeof *ret->v)};
        if (!ret->v)
                return;
        load_from(a, dir, ret);
        if (!dir || strcmp(dir, SYSTEM_DIR) != 0)
                load_from(a, SYSTEM_DIR, ret);
}

int trust_check(const struct trust *t, const struct package *p, struct arena *a, const struct trust_key **ret, const char **ret_err)
{
        struct minisign_signature s;
        const char *err;
        if (!p->signature.p) {
                *ret_err = arena_printf(a, "%s is not signed: sign it with dapr plugin sign, or say --allow-unsigned", p->source);
                return -ENODATA;
        }
        if (minisign_read_signature(p->signature, &s, &err)) {
                *ret_err = arena_printf(a, "%s: " PACKAGE_SIGNATURE ": %s", p->source, err);
                return -EKEYREJECTED;
        }
        for (size_t i = 0; i < t->n; i++) {
                if (memcmp(t->v[i].key.id, s.id, sizeof s.id) != 0)
                        continue;
                if (minisign_verify(&s, &t->v[i].key, p->list)) {
                        *ret = &t->v[i];
                        return 0;
                }
                *ret_err = arena_printf(a, "%s: its signature by key %s (%s) is wrong: the package was changed after signing", p->source,
                                        minisign_id_text(a, s.id), t->v[i].name);
                return -EKEYREJECTED;
        }
        *ret_err = arena_printf(a, "%s is signed by key %s, which is not trusted: dapr plugin trust add KEY.pub, once you know whose it is",
                                p->source, minisign_id_text(a, s.id));
        return -ENOKEY;
}
