/*
 * Where plugins are: folders that hold one folder a plugin, named after its type, with plugin.yaml in it. Searched in this order:
 * DAPR_PLUGINS_PATH (colon-separated), ../plugins and ../lib/dapr/plugins beside the executable, ~/.dapr/plugins,
 * /usr/local/lib/dapr/plugins, /usr/lib/dapr/plugins. A folder of a plugin may hold folders named after versions (1.2.0/plugin.yaml)
 * besides or instead. What plugins.lock pins counts in the pinned version only. The first folder that has a plugin for type, version and
 * constraint gives the one of the highest version; two plugins of it that both would do are an error.
 */
#ifndef KERNEL_SUPER_CATALOG_H
#define KERNEL_SUPER_CATALOG_H

#include "kernel/super/manifest.h"

struct super_conf;

/* The folders, in order, in the arena; *ret_n of them. NULL = no memory. */
const char **catalog_folders(const struct super_conf *conf, struct arena *a, size_t *ret_n);
/* The plugin for a component type. 0 and *ret; -ENOENT (text: "couldn't find state store x/v1: ...", near names, what to do);
 * another -errno when a manifest that should serve it is wrong. `constraint` ("" or NULL: any) is on the plugin's own version, see
 * semver.h. Blocks (files). */
int catalog_find(const struct super_conf *conf, const char *noun, const char *type, const char *version, const char *constraint,
                 struct manifest **ret, struct arena *a, const char **ret_err);
/* Calls fn for every plugin.yaml that can be found, good ones with m, others with the error. Blocks. */
void catalog_each(const struct super_conf *conf, struct arena *a,
                  void (*fn)(void *arg, const char *folder, const struct manifest *m, const char *err), void *arg);

#endif
