/*
 * Where packages come from when they are asked for by name: an index. It is a JSON document
 *   {"plugins": [{"name", "version", "platform", "types", "title", "description", "file", "size", "digest"}]}
 * at a URL or in a folder (index.json, "file" beside it), a bundle (one tar with bundle.json and the packages), or an OCI image
 * layout on disk (manifests whose layer is a package). Nothing of it is trusted: a package is, by its signature. An index may be
 * signed besides (index_seal.h): then what it offers must be in the document that was signed. That is the index itself at a URL and in a
 * folder; in a bundle it is the file index.json, in a layout plugins.json, which stays as it was when packages are carried on.
 */
#ifndef CTL_PACKAGE_INDEX_H
#define CTL_PACKAGE_INDEX_H

#include "ctl/package/index_seal.h"
#include "ctl/package/package.h"

#define INDEX_FILE "index.json"
#define BUNDLE_FILE "bundle.json"
#define OCI_DOCUMENT "plugins.json" /* the signed document of an image layout */
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
        struct index_seal seal;
        struct index_entry *v;
        size_t n;
        void *map;                /* of a bundle */
        size_t map_n;
};
struct index_ask {
        const char *where, *ca_file;
        bool allow_old;           /* seal_ask's */
        bool unchecked;           /* signed or not, as it is: to sign it anew */
};
/* where: a URL, a folder with index.json or oci-layout, oci:FOLDER, a file index.json, or a bundle. 0; -errno with a sentence. Parks. */
int index_open(struct arena *a, const struct index_ask *q, struct index *ret, const char **ret_err);
void index_close(struct index *x);
/* Can it be opened as one (looks at the disk only)? */
bool index_is_source(const char *where);
/* The highest version for this machine, by plugin name or component type; NULL, with a sentence that says what there is. */
const struct index_entry *index_pick(const struct index *x, const char *name, const char *constraint, struct arena *a, const char **ret_err);
/* The package of an entry, which must be what the entry says. temp_root: where a download may lie for a moment. Parks. */
int index_get(const struct index *x, const struct index_entry *e, const char *temp_root, struct arena *a, struct package **ret,
              const char **ret_err);
/* Is the package in the document that was signed? */
bool index_vouches(struct arena *a, const struct index_seal *seal, const struct index_entry *e);
/* The document; seal NULL = one that is not to be signed. 0 or -ENOMEM. */
int index_write(struct buf *to, const struct index_entry *v, size_t n, const struct index_seal *seal);
void index_entry_of(const struct package *p, const char *file, uint64_t size, struct index_entry *ret); /* borrows from p */

#endif
