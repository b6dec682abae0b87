/* From what a person names - a file, a folder, a URL, a bundle, an image layout, NAME@CONSTRAINT of an index - to packages. */
#ifndef CTL_PACKAGE_SOURCE_H
#define CTL_PACKAGE_SOURCE_H

#include "ctl/package/index.h"
#include "ctl/package/lock_edit.h"
#include "ctl/plugin_commands.h"

struct sources {
        struct arena *a;
        const struct plugin_source_opts *o;
        const char *temp_root;
        struct lockfile lock;
        struct index index;
        bool index_opened;
        struct index *held;             /* bundles whose packages may still be in use */
        size_t n_held;
        struct index_seal seal;         /* of the last index that packages came from */
};
#define SOURCE_ROWS(opts)                                                                                                                  \
        {"index", FLAG_STRING, offsetof(struct opts, from.index), "", "URL|DIR", "Index to look names up in (default: DAPR_PLUGIN_INDEX)"}, \
        {"lock", FLAG_STRING, offsetof(struct opts, from.lock), "", "FILE", "Lock file (default: plugins.lock, if it is there)"},           \
        {"allow-old-index", FLAG_BOOL, offsetof(struct opts, from.allow_old_index), "false", NULL, "Take a signed index that has expired, or is older than one that was seen"}, \
        {"ca-file", FLAG_STRING, offsetof(struct opts, from.ca_file), "", "FILE", "Trust anchors of the index's server (default: the system's)"}

/* 0 or 1 after saying what is wrong. */
int sources_init(struct sources *s, struct arena *a, const struct plugin_source_opts *o, const char *temp_root);
void sources_fini(struct sources *s);
/* Calls fn with each package that the source stands for, until it returns other than 0, which is given back; 1 after saying what
 * is wrong. The package is the callee's, until sources_fini(). is_exact: the source names this very version. Parks. */
typedef int (*source_fn)(void *arg, struct package *p, bool is_exact);
int source_each(struct sources *s, const char *source, source_fn fn, void *arg);
/* All that the lock file pins for this machine. */
int source_locked(struct sources *s, source_fn fn, void *arg);

#endif
