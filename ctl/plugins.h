/*
 * Plugins that are installed: folders that hold one folder a plugin with plugin.yaml in it, or in folders named after versions, searched in the runtime's order:
 * --plugins-path or DAPR_PLUGINS_PATH (colon-separated), ../plugins and ../lib/dapr/plugins beside daprd, ~/.dapr/plugins,
 * /usr/local/lib/dapr/plugins, /usr/lib/dapr/plugins. Only what people read is taken from a manifest; the runtime checks it.
 */
#ifndef CTL_PLUGINS_H
#define CTL_PLUGINS_H

#include "sdk/base/arena.h"
#include "sdk/base/yaml.h"

struct plugin_manifest {
        const char *file, *folder;      /* plugin.yaml, and where it stands */
        const char *name, *version, *title, *description;
        const char *executable;         /* as it stands there; "" = the name */
        const char *error;              /* NULL, or why the manifest cannot be read; then only file and name are set */
        const struct yaml_node *types, *fields; /* lists or NULL */
        const struct yaml_node *sandbox; /* what its process asks for; NULL = everything */
        bool share, is_volatile;
        size_t rank;                    /* of the folder in the runtime's order */
};
struct plugin_manifests {
        struct plugin_manifest *v;
        size_t n;
};
/* All of them, sorted by name; of one name all versions, first what the runtime takes. 0 or -ENOMEM. */
int plugins_find(struct arena *a, const char *runtime_path, const char *plugins_path, struct plugin_manifests *ret);
/* By plugin name or component type, without case; NULL = none. */
const struct plugin_manifest *plugins_get(const struct plugin_manifests *all, const char *name);
bool plugins_has_type(struct arena *a, const char *runtime_path, const char *type);
/* A member's text; "" when it is missing or no scalar. */
const char *plugin_text(struct arena *a, const struct yaml_node *map, const char *member);
/* i-th type of a plugin: "state.sqlite"; NULL past the last. */
const char *plugin_type(struct arena *a, const struct plugin_manifest *m, size_t i);

#endif
