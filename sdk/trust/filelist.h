/*
 * The list of a package's files, .dapr/files: what is signed, and whose digest names the package.
 *
 *   microdapr package 1
 *   name state.redis
 *   version 1.2.0
 *   platform linux/amd64          of its programs; "any" when there are none for one machine only
 *   BLAKE2B-256 0755 SIZE NAME    a row a file, sorted by name
 */
#ifndef SDK_TRUST_FILELIST_H
#define SDK_TRUST_FILELIST_H

#include "sdk/base/arena.h"
#include "sdk/trust/digest.h"

#define PACKAGE_DIR ".dapr"
#define PACKAGE_LIST PACKAGE_DIR "/files"
#define PACKAGE_SIGNATURE PACKAGE_DIR "/signature.minisig"
#define PACKAGE_MANIFEST "plugin.yaml"
#define PACKAGE_CONFORMANCE "conformance.json"
#define PACKAGE_FIRST_LINE "microdapr package 1"
#define PACKAGE_FILE_BYTES_MAX ((uint64_t)1 << 30)
enum { PACKAGE_LIST_MAX = 4 * 1024 * 1024, PACKAGE_NAME_MAX = 255 };

struct filelist_row {
        const char *name;
        char digest[DIGEST_HEX + 1];
        uint64_t size;
        bool executable;
};
struct filelist {
        const char *name, *version, *platform;
        char digest[DIGEST_HEX + 1]; /* BLAKE2b-256 of the text */
        struct filelist_row *v;
        size_t n;
};
/* NULL and *ret, whose strings are in the arena; or what is wrong with it. */
const char *filelist_read(struct arena *a, struct str text, struct filelist *ret);
const struct filelist_row *filelist_find(const struct filelist *l, struct str name); /* NULL = not in it */
/* NULL, or why this cannot be a file's name in a package. */
const char *filelist_name_fault(struct str name);

/* May it be a plugin's name? It names a folder, too. */
bool package_name_ok(const char *name);
const char *package_platform(void); /* of this machine: "linux/amd64" */
bool package_fits(const char *platform);

#endif
