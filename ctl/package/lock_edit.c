/* See lock_edit.h. The file is written beside its place and renamed. */
#include "ctl/package/lock_edit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"

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

const char *lock_fault(const struct lockfile *l, const struct package *p, struct arena *a)
{
        const struct lock_entry *e = lock_find(l, p->name);
        if (!e)
                return NULL;
        if (strcmp(e->version, p->version) != 0)
                return arena_printf(a, "%s pins %s to %s, this is %s: say --update-lock to move on", l->path, p->name, e->version, p->version);
        if (!lock_pins(e, p->digest))
                return arena_printf(a, "%s: this is another package of %s %s than the one that %s pins (digest %.12s..., pinned %.12s...)", p->source,
                                    p->name, p->version, l->path, p->digest, e->digest + strlen(LOCK_DIGEST));
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
                                     arena_printf(a, LOCK_DIGEST "%s", p->digest)};
        l->v = v;
        l->n = n;
        return v[n - 1].digest ? 0 : -ENOMEM;
}
