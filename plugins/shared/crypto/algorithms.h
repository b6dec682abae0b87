/* The algorithms of RFC 7518 and a few more on keys of keys.h, by OpenSSL's libcrypto (XChaCha20 by libsodium). */
#ifndef PLUGINS_SHARED_CRYPTO_ALGORITHMS_H
#define PLUGINS_SHARED_CRYPTO_ALGORITHMS_H

#include "plugins/shared/crypto/keys.h"

/* The outcome of each: 0, -ENOMEM, or -EINVAL with the text in *ret_err (static). Results are in the call's memory. */
int crypt_encrypt(struct dapr_call *c, const struct key *k, const struct dapr_crypt *in, struct dapr_crypt_result *out, const char **ret_err);
int crypt_decrypt(struct dapr_call *c, const struct key *k, const struct dapr_crypt *in, struct dapr_crypt_result *out, const char **ret_err);
int crypt_sign(struct dapr_call *c, const struct key *k, const struct dapr_sign *in, struct dapr_bytes *out, const char **ret_err);
int crypt_verify(struct dapr_call *c, const struct key *k, const struct dapr_sign *in, bool *ret_valid, const char **ret_err);

#endif
