/*
 * Crypto providers: operations with keys that never leave the plugin. Included from <dapr/plugin.h>.
 * Texts of dapr_fail() reach the app; they must not tell more about a key than the operation's outcome does.
 */
#ifndef DAPR_CRYPTO_H
#define DAPR_CRYPTO_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dapr_key_format { DAPR_KEY_PEM, DAPR_KEY_JSON };
struct dapr_public_key {
        const char *name;       /* the key's own id; NULL = none */
        const char *text;       /* PEM or JWK; NULL = there is no such key */
};
struct dapr_crypt { /* one call of encrypt, decrypt, wrap_key or unwrap_key */
        struct dapr_bytes data; /* plaintext, ciphertext, key or wrapped key */
        const char *algorithm;  /* "A256KW", "RSA-OAEP-256" … */
        const char *key;        /* name of the key */
        struct dapr_bytes nonce, tag, associated_data; /* n == 0: not given; tag: for decrypt and unwrap_key */
};
struct dapr_crypt_result {
        struct dapr_bytes data;
        struct dapr_bytes tag;  /* of algorithms that keep it apart */
};
struct dapr_sign { /* one call of sign or verify */
        struct dapr_bytes digest; /* EdDSA: the message itself */
        const char *algorithm;  /* "RS256", "ES256", "EdDSA" … */
        const char *key;
        struct dapr_bytes signature; /* for verify */
};

struct dapr_crypto_ops {
        enum dapr_mode mode;
        unsigned features;      /* none are defined: leave 0 */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        /* An operation that is NULL is answered with DAPR_UNIMPLEMENTED. */
        int (*get_key)(struct dapr_call *c, void *instance, const char *key, enum dapr_key_format format, struct dapr_public_key *out);
        int (*encrypt)(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
        int (*decrypt)(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
        int (*wrap_key)(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
        int (*unwrap_key)(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);
        int (*sign)(struct dapr_call *c, void *instance, const struct dapr_sign *in, struct dapr_bytes *out);
        int (*verify)(struct dapr_call *c, void *instance, const struct dapr_sign *in, bool *valid);
};

#ifdef __cplusplus
}
#endif
#endif
