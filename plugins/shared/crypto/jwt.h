/* JSON web tokens (RFC 7519) signed with a key of a set: RSA (PKCS#1 and PSS), ECDSA, Ed25519. Symmetric keys are not taken. */
#ifndef PLUGINS_SHARED_CRYPTO_JWT_H
#define PLUGINS_SHARED_CRYPTO_JWT_H

#include "plugins/shared/crypto/keyset.h"

enum { JWT_BYTES_MAX = 64 * 1024 };

struct jwt_rules {
        const char *issuer, *audience; /* must be claimed; NULL = any */
        double skew_s;                 /* allowed between the clocks */
};
enum jwt_outcome {
        JWT_VALID,
        JWT_REFUSED,
        JWT_UNKNOWN_KEY                /* its kid names no key of the set: the set may be out of date */
};

/* Is it a token that was signed by a key of the set, within its time, for this audience, by this issuer? Says why not in *ret_why
 * (static text). Memory from the call. now_s: seconds since the epoch. -ENOMEM. */
int jwt_check(struct dapr_call *c, const struct keyset *set, const char *token, const struct jwt_rules *rules, double now_s,
              const char **ret_why);

#endif
