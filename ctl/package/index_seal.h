/*
 * Signed indexes. The index document of a signed one has, besides its packages,
 *   "name"     of the index, wherever it is mirrored
 *   "issued", "expires"   RFC 3339; without "expires" it never does
 * and beside it stands minisign's signature of the document, DOCUMENT.minisig, by a key of the trust store. What was seen is
 * remembered in ~/.dapr/indexes: a document of this name and key that was issued earlier is refused, and so is a place that had a
 * signature once and has none any more. Packages are signed each by itself: a seal vouches for which of them there are.
 */
#ifndef CTL_PACKAGE_INDEX_SEAL_H
#define CTL_PACKAGE_INDEX_SEAL_H

#include "ctl/package/package.h"
#include "sdk/base/yaml.h"

#define SEAL_SUFFIX ".minisig"

struct index_seal {
        const char *name, *issued, *expires; /* expires "" = never */
        const char *signed_by;               /* the key's name; NULL = not signed */
        struct str document, signature;      /* as they were; document.p NULL = not signed */
};
struct seal_ask {
        const char *where;              /* for error texts */
        const char *place;              /* to be remembered as signed; NULL = places do not count, as those of bundles */
        struct str document, signature; /* signature.p NULL = there is none */
        const struct yaml_node *root;   /* of the document */
        bool allow_old;                 /* an expired one, or one older than was seen, will do */
};
/* 0 and *ret: it is signed and may be used, or not signed and never was. -errno with a sentence. Blocks. */
int seal_check(const struct seal_ask *q, struct arena *a, struct index_seal *ret, const char **ret_err);
/* Name and times for the next document: the time is now, or the second after the last one's when the clock is behind that. lasts_s 0 =
 * it does not expire. 0 or -ENOMEM. */
int seal_next(const struct yaml_node *last, const char *name, int64_t lasts_s, struct arena *a, struct index_seal *ret);

#endif
