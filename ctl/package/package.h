/*
 * Packages of plugins: one tar archive (tar.h) with the plugin's files and, before them,
 *   .dapr/files              what is in it (sdk/trust/filelist.h)
 *   .dapr/signature.minisig  minisign's signature of .dapr/files; absent in an unsigned package
 * The digest of a package is the BLAKE2b-256 of .dapr/files: it names the content whoever signed it, and it is what plugins.lock
 * holds. An installed plugin keeps both files, so it can be verified at any time, by minisign too.
 *
 * Platform: linux/amd64 and so on by the machine of the ELF files in it, "any" when there are none.
 */
#ifndef CTL_PACKAGE_H
#define CTL_PACKAGE_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/trust/filelist.h"
#include "sdk/trust/keyring.h"

struct package_file {
        const char *name;
        char digest[DIGEST_HEX + 1];
        uint64_t size;
        bool executable;
        struct str data;
};
struct package {
        struct arena arena;
        const char *source;             /* where it was read from, for error texts */
        const char *name, *version, *platform;
        const char *title, *description, *types; /* of the manifest; types: "state.a, state.b" */
        struct str list, signature;     /* signature.p NULL: unsigned */
        char digest[DIGEST_HEX + 1];
        struct package_file *files;
        size_t n_files;
        void *map;                      /* the archive, as long as the package lives */
        size_t map_n;
        struct buf text;                /* or its files, when it was read from a folder */
};

/* From an archive: its form, list and every digest are checked, not who signed it. 0; -errno with a sentence in *ret_err, which
 * names the file (arena `a`). package_parse: the same from memory, which is borrowed. Blocks. */
int package_open(const char *path, struct package **ret, struct arena *a, const char **ret_err);
/* A file that error texts call otherwise: a download. */
int package_open_as(const char *path, const char *source, struct package **ret, struct arena *a, const char **ret_err);
int package_parse(struct str archive, const char *source, struct package **ret, struct arena *a, const char **ret_err);
/* From a folder with plugin.yaml and the executable in it: what `plugin build` packs. Hidden files, __pycache__ and packages are
 * left out; links are refused. An installed plugin's folder is read with its own list, which must fit what is there. */
int package_from_folder(const char *dir, struct package **ret, struct arena *a, const char **ret_err);
int package_installed(const char *dir, struct package **ret, struct arena *a, const char **ret_err);
void package_free(struct package *p); /* NULL is fine */

/* Signs the list; replaces a signature. */
int package_sign(struct package *p, const struct minisign_secret *key);
/* The archive's bytes. 0, -ENOMEM, -ENAMETOOLONG. */
int package_write(const struct package *p, struct buf *to);
/* "state.x-1.2.0-linux-amd64.tar" */
const char *package_file_name(const struct package *p, struct arena *a);

/* Who signed it, as trust_check(); the sentence begins with its source. */
int package_trust(const struct trust *t, const struct package *p, struct arena *a, const struct trust_key **ret, const char **ret_err);
void package_trust_load(struct arena *a, struct trust *ret); /* trust_load(), with a warning for each file that is no key */

#endif
