/*
 * plugins.lock: which packages a project runs with, one row a plugin and platform. Written by `dapr plugin lock`, meant to be
 * committed; `dapr plugin install` brings exactly these and refuses others of the same name.
 */
#ifndef CTL_PACKAGE_LOCKFILE_H
#define CTL_PACKAGE_LOCKFILE_H

#include "ctl/package/package.h"

#define LOCK_FILE "plugins.lock"

struct lock_entry {
        const char *name, *version, *platform, *digest;
};
struct lockfile {
        const char *path;
        struct lock_entry *v;
        size_t n;
};
/* path "": ./plugins.lock, which may be missing (n = 0); one that was named may not. 0; -errno with a sentence. Blocks. */
int lock_read(struct arena *a, const char *path, struct lockfile *ret, const char **ret_err);
int lock_write(const struct lockfile *l, struct arena *a, const char **ret_err);
/* The row for this machine; NULL = none. */
const struct lock_entry *lock_find(const struct lockfile *l, const char *name);
/* May the package be taken? NULL, or a sentence. */
const char *lock_fault(const struct lockfile *l, const struct package *p, struct arena *a);
/* Sets the package's row; rows of another version of the plugin go. 0 or -ENOMEM. */
int lock_set(struct lockfile *l, const struct package *p, struct arena *a);

#endif
