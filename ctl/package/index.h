/*
 * Where packages come from when they are asked for by name: an index. It is a JSON document
 *   {"plugins": [{"name", "version", "platform", "types", "title", "description", "file", "size", "digest"}]}
 * at a URL or in a folder (index.json, "file" beside it), a bundle (one tar with bundle.json and the packages), or an OCI image
 * layout on disk (manifests whose layer is a package). Nothing of it is trusted: a package is, by its signature.
 */
#ifndef CTL_PACKAGE_INDEX_H
#define CTL_PACKAGE_INDEX_H

#include "ctl/package/package.h"

#define INDEX_FILE "index.json"
#define BUNDLE_FILE "bundle.json"
enum { INDEX_MAX_BYTES = 4 * 1024 * 1024, INDEX_ENTRIES_MAX = 20000 };

struct index_entry {
        const char *name, *version, *platform, *types, *title, *description, *file, *digest;
        uint64_t size;
        struct str data; /* of a bundle's package */
};
struct index {
        enum { INDEX_URL, INDEX_FOLDER, INDEX_BUNDLE, INDEX_OCI } kind;
        const char *base;         /* URL of the document, or folder */
        const char *ca_file;
        struct index_entry *v;
        size_t n;
        void *map;                /* of a bundle */
        size_t map_n;
};
/* where: a URL, a folder with index.json or oci-layout, oci:FOLDER, a file index.json, or a bundle. 0; -errno with a sentence. Parks. */
int index_open(struct arena *a, const char *where, const char *ca_file, struct index *ret, const char **ret_err);
void index_close(struct index *x);
/* Can it be opened as one (looks at the disk only)? */
bool index_is_source(const char *where);
/* The highest version for this machine, by plugin name or component type; NULL, with a sentence that says what there is. */
const struct index_entry *index_pick(const struct index *x, const char *name, const char *constraint, struct arena *a, const char **ret_err);
/* The package of an entry, which must be what the entry says. temp_root: where a download may lie for a moment. Parks. */
int index_get(const struct index *x, const struct index_entry *e, const char *temp_root, struct arena *a, struct package **ret,
              const char **ret_err);
/* The document. 0 or -ENOMEM. */
int index_write(struct buf *to, const struct index_entry *v, size_t n);
void index_entry_of(const struct package *p, const char *file, uint64_t size, struct index_entry *ret); /* borrows from p */

#endif
