/*
 * plugins.lock: which packages a project runs with, one row a plugin and platform. Written by `dapr plugin lock`, meant to be
 * committed; `dapr plugin install` brings exactly these and refuses others of the same name, daprd starts no others (verify.h).
 */
#ifndef SDK_TRUST_LOCKFILE_H
#define SDK_TRUST_LOCKFILE_H

#include "sdk/base/arena.h"
#include "sdk/trust/filelist.h"

#define LOCK_FILE "plugins.lock"
#define LOCK_DIGEST "blake2b:"
enum { LOCK_VERSION = 1, LOCK_MAX = 10000 };

struct lock_entry {
        const char *name, *version, *platform, *digest; /* digest: with LOCK_DIGEST before it */
};
struct lockfile {
        const char *path;
        struct lock_entry *v;
        size_t n;
};
/* path "": ./plugins.lock, which may be missing (n = 0); one that was named may not. 0; -errno with a sentence. Blocks. */
int lock_read(struct arena *a, const char *path, struct lockfile *ret, const char **ret_err);
/* The row for this machine; NULL = none. */
const struct lock_entry *lock_find(const struct lockfile *l, const char *name);
/* Is the package of this digest the one that the row pins? */
bool lock_pins(const struct lock_entry *e, const char *digest);

#endif
