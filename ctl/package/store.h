/*
 * Where packages are installed: ROOT/<name>/<version>/, ROOT being ~/.dapr/plugins. An installation is a folder that was filled
 * beside its place and renamed, so there is never half of one; leftovers of an interrupted one are cleared by the next.
 */
#ifndef CTL_PACKAGE_STORE_H
#define CTL_PACKAGE_STORE_H

#include "ctl/package/package.h"

/* ~/.dapr/plugins, or dir when it is not ""; NULL when HOME is unknown. */
const char *store_root(struct arena *a, const char *dir);
/* 0; 1: this very package is there already; -EEXIST: another of this version is (unless replace); -errno with a sentence. Blocks. */
int store_install(const char *root, const struct package *p, bool replace, struct arena *a, const char **ret_err);
/* Versions of a plugin that are installed, highest first; n = 0 when there is none. */
struct store_versions {
        const char **v;
        size_t n;
};
int store_versions(struct arena *a, const char *root, const char *name, struct store_versions *ret);
/* Names that are installed, sorted. */
int store_names(struct arena *a, const char *root, const char ***ret, size_t *ret_n);
int store_remove(const char *root, const char *name, const char *version, struct arena *a, const char **ret_err);
/* A new file for something that is on its way; its name in *ret. The descriptor or -errno with a sentence. */
int store_temp_file(const char *root, struct arena *a, const char **ret, const char **ret_err);
void store_remove_tree(const char *path); /* quiet */

#endif
