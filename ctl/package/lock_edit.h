/* plugins.lock as commands use it: may a package be taken, and how a row is set. */
#ifndef CTL_PACKAGE_LOCK_EDIT_H
#define CTL_PACKAGE_LOCK_EDIT_H

#include "ctl/package/package.h"
#include "sdk/trust/lockfile.h"

/* May the package be taken? NULL, or a sentence. */
const char *lock_fault(const struct lockfile *l, const struct package *p, struct arena *a);
/* Sets the package's row; rows of another version of the plugin go. 0 or -ENOMEM. */
int lock_set(struct lockfile *l, const struct package *p, struct arena *a);
/* 0; -errno with a sentence. Blocks. */
int lock_write(const struct lockfile *l, struct arena *a, const char **ret_err);

#endif
