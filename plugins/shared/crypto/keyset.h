/* A JWKS that is in use: keys by their id. Reference counts belong to the loop's thread; the keys themselves may be used by any. */
#ifndef PLUGINS_SHARED_CRYPTO_KEYSET_H
#define PLUGINS_SHARED_CRYPTO_KEYSET_H

#include "plugins/shared/crypto/keys.h"

struct keyset {
        struct key **keys;
        size_t n;
        unsigned refs;
};

/* From {"keys": […]} or a single JWK. Keys that cannot be read are left out with a warning. 0; -EINVAL with a static text in *ret_err;
 * -ENOMEM. */
int keyset_parse(struct keyset **ret, struct str json, const char **ret_err);
struct keyset *keyset_ref(struct keyset *s);
void keyset_unref(struct keyset *s); /* NULL is fine */
struct key *keyset_find(const struct keyset *s, const char *kid); /* NULL = none; borrowed */

#endif
