/*
 * Crypto providers that hold keys themselves: all operations on top of one function that finds a key. A provider's instance begins
 * with struct local_provider; its table is made by LOCAL_CRYPTO_OPS.
 */
#ifndef PLUGINS_SHARED_CRYPTO_LOCAL_H
#define PLUGINS_SHARED_CRYPTO_LOCAL_H

#include "plugins/shared/crypto/algorithms.h"

struct local_provider {
        /* 0 and *ret, which release() takes back; an enum dapr_code with the reason in *ret_why (NULL: no memory); or -ENOMEM. */
        int (*find)(struct dapr_call *c, struct local_provider *p, const char *name, struct key **ret, const char **ret_why);
        void (*release)(struct local_provider *p, struct key *k);
};

int local_get_key(struct dapr_call *c, void *instance, const char *key, enum dapr_key_format format, struct dapr_public_key *out);
int local_encrypt(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
int local_decrypt(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
int local_wrap_key(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
int local_unwrap_key(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
int local_sign(struct dapr_call *c, void *instance, const struct dapr_sign *in, struct dapr_bytes *out);
int local_verify(struct dapr_call *c, void *instance, const struct dapr_sign *in, bool *valid);

#define LOCAL_CRYPTO_OPS                                                                                          \
        .get_key = local_get_key, .encrypt = local_encrypt, .decrypt = local_decrypt, .wrap_key = local_wrap_key, \
        .unwrap_key = local_unwrap_key, .sign = local_sign, .verify = local_verify

#endif
