/* The keys of plugin.yaml, a row each: what the parser takes, and what docs/reference/manifest.md and plugin.yaml(5) are made of. */
#ifndef KERNEL_SUPER_MANIFEST_KEYS_H
#define KERNEL_SUPER_MANIFEST_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/str.h"

struct manifest_key {
        const char *map;     /* the map in which it stands: "" the file, "types" an entry of that list, "sandbox", "files", ... */
        const char *name, *type, *def, *meaning; /* def: "" = none, "required" = it must be given */
};
extern const struct manifest_key manifest_keys[];
extern const size_t n_manifest_keys;

/* Is it a key of that map? Else *ret_near is one that may have been meant, or NULL. */
bool manifest_key_known(const char *map, struct str name, const char **ret_near);

#endif
