/* See lockfile.h. YAML, so that people can read it and tools can diff it. */
#include "ctl/package/lockfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/plugins.h"
#include "sdk/base/semver.h"

enum { LOCK_VERSION = 1, LOCK_MAX = 10000 };

static int read_rows(struct arena *a, const struct yaml_node *root, struct lockfile *l, const char **ret_err)
{
        const struct yaml_node *list = yaml_get(root, "plugins");
        *ret_err = arena_printf(a, "%s: this is no lock file of version %d: write it anew with dapr plugin lock", l->path, LOCK_VERSION);
        if (!list || list->kind != YAML_LIST || atoi(plugin_text(a, root, "version")) != LOCK_VERSION || list->n > LOCK_MAX)
                return -EINVAL;
        l->v = arena_zalloc(a, (list->n + 1) * sizeof *l->v);
        if (!l->v)
                return -ENOMEM;
        for (const struct yaml_item *i = list->items; i; i = i->next) {
                struct lock_entry *e = &l->v[l->n++];
                *e = (struct lock_entry){plugin_text(a, i->value, "name"), plugin_text(a, i->value, "version"), plugin_text(a, i->value, "platform"),
                                         plugin_text(a, i->value, "digest")};
                if (package_name_ok(e->name) && semver_is_valid(str_of(e->version)) && *e->platform &&
                    str_has_prefix(str_of(e->digest), STR("blake2b:")) && strlen(e->digest) == 8 + DIGEST_HEX)
                        continue;
                *ret_err = yaml_error(a, i->value, "a row of a lock file has name, version, platform and digest (blake2b:...)");
                return -EINVAL;
        }
        return 0;
}

int lock_read(struct arena *a, const char *path, struct lockfile *ret, const char **ret_err)
{
        struct str text;
        struct yaml_node *root = NULL;
        *ret = (struct lockfile){.path = *path ? path : LOCK_FILE};
        if (!*path && !path_exists(LOCK_FILE))
                return 0;
        int r = yaml_read_file(a, ret->path, false, &text, ret_err);
        if (r == 0)
                r = yaml_read(a, text, ret->path, 1, YAML_UNIQUE_KEYS, &root, ret_err);
        return r ? r : read_rows(a, root, ret, ret_err);
}

static int by_name(const void *x, const void *y)
{
        const struct lock_entry *a = x, *b = y;
        int c = strcmp(a->name, b->name);
        return c ? c : strcmp(a->platform, b->platform);
}

int lock_write(const struct lockfile *l, struct arena *a, const char **ret_err)
{
        struct buf b = {0};
        const char *temp = arena_printf(a, "%s.%d", l->path, (int)getpid());
        if (l->n)
                qsort(l->v, l->n, sizeof *l->v, by_name);
        buf_printf(&b, "# Written by dapr plugin lock. Commit it; dapr plugin install brings these packages and no others.\nversion: %d\nplugins:%s\n",
                   LOCK_VERSION, l->n ? "" : " []");
        for (size_t i = 0; i < l->n; i++)
                buf_printf(&b, "  - name: %s\n    version: %s\n    platform: %s\n    digest: %s\n", l->v[i].name, l->v[i].version,
                           l->v[i].platform, l->v[i].digest);
        int r = b.failed || !temp ? -ENOMEM : path_write(temp, buf_str(&b), 0644, true);
        if (r == 0 && rename(temp, l->path) != 0)
                r = -errno;
        if (r)
                *ret_err = arena_printf(a, "%s: %s", l->path, strerror(-r));
        buf_fini(&b);
        return r;
}

const struct lock_entry *lock_find(const struct lockfile *l, const char *name)
{
        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->v[i].name, name) == 0 && package_fits(l->v[i].platform))
                        return &l->v[i];
        return NULL;
}

const char *lock_fault(const struct lockfile *l, const struct package *p, struct arena *a)
{
        const struct lock_entry *e = lock_find(l, p->name);
        if (!e)
                return NULL;
        if (strcmp(e->version, p->version) != 0)
                return arena_printf(a, "%s pins %s to %s, this is %s: say --update-lock to move on", l->path, p->name, e->version, p->version);
        if (strcmp(e->digest + 8, p->digest) != 0)
                return arena_printf(a, "%s: this is another package of %s %s than the one that %s pins (digest %.12s..., pinned %.12s...)", p->source,
                                    p->name, p->version, l->path, p->digest, e->digest + 8);
        return NULL;
}

int lock_set(struct lockfile *l, const struct package *p, struct arena *a)
{
        size_t n = 0;
        struct lock_entry *v = arena_zalloc(a, (l->n + 1) * sizeof *v);
        if (!v)
                return -ENOMEM;
        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->v[i].name, p->name) != 0 || (strcmp(l->v[i].version, p->version) == 0 && strcmp(l->v[i].platform, p->platform) != 0))
                        v[n++] = l->v[i];
        v[n++] = (struct lock_entry){arena_strdup(a, str_of(p->name)), arena_strdup(a, str_of(p->version)), arena_strdup(a, str_of(p->platform)),
                                     arena_printf(a, "blake2b:%s", p->digest)};
        l->v = v;
        l->n = n;
        return v[n - 1].digest ? 0 : -ENOMEM;
}
