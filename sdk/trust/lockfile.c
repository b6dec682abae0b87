/* See lockfile.h. YAML, so that people can read it and tools can diff it. */
#include "sdk/trust/lockfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/semver.h"
#include "sdk/base/yaml.h"

static const char *text(struct arena *a, const struct yaml_node *map, const char *key)
{
        const struct yaml_node *n = yaml_get(map, key);
        struct str s;
        return n && n->kind == YAML_SCALAR && yaml_string(a, n, YAML_1_1, &s) == 0 && s.p ? arena_strdup(a, s) : "";
}

static int read_rows(struct arena *a, const struct yaml_node *root, struct lockfile *l, const char **ret_err)
{
        const struct yaml_node *list = yaml_get(root, "plugins");
        *ret_err = arena_printf(a, "%s: this is no lock file of version %d: write it anew with dapr plugin lock", l->path, LOCK_VERSION);
        if (!list || list->kind != YAML_LIST || atoi(text(a, root, "version")) != LOCK_VERSION || list->n > LOCK_MAX)
                return -EINVAL;
        l->v = arena_zalloc(a, (list->n + 1) * sizeof *l->v);
        if (!l->v)
                return -ENOMEM;
        for (const struct yaml_item *i = list->items; i; i = i->next) {
                struct lock_entry *e = &l->v[l->n++];
                *e = (struct lock_entry){text(a, i->value, "name"), text(a, i->value, "version"), text(a, i->value, "platform"),
                                         text(a, i->value, "digest")};
                if (package_name_ok(e->name) && semver_is_valid(str_of(e->version)) && *e->platform &&
                    str_has_prefix(str_of(e->digest), STR(LOCK_DIGEST)) && strlen(e->digest) == strlen(LOCK_DIGEST) + DIGEST_HEX)
                        continue;
                *ret_err = yaml_error(a, i->value, "a row of a lock file has name, version, platform and digest (" LOCK_DIGEST "...)");
                return -EINVAL;
        }
        return 0;
}

int lock_read(struct arena *a, const char *path, struct lockfile *ret, const char **ret_err)
{
        struct str in;
        struct yaml_node *root = NULL;
        *ret = (struct lockfile){.path = *path ? path : LOCK_FILE};
        if (!*path && access(LOCK_FILE, F_OK) != 0)
                return 0;
        int r = yaml_read_file(a, ret->path, false, &in, ret_err);
        if (r == 0)
                r = yaml_read(a, in, ret->path, 1, YAML_UNIQUE_KEYS, &root, ret_err);
        return r ? r : read_rows(a, root, ret, ret_err);
}

const struct lock_entry *lock_find(const struct lockfile *l, const char *name)
{
        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->v[i].name, name) == 0 && package_fits(l->v[i].platform))
                        return &l->v[i];
        return NULL;
}

bool lock_pins(const struct lock_entry *e, const char *digest)
{
        return strcmp(e->digest + strlen(LOCK_DIGEST), digest) == 0;
}
