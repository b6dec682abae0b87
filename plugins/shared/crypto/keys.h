/* Keys of crypto providers that do the work themselves, by OpenSSL's libcrypto: PEM, JWK, or raw bytes. */
#ifndef PLUGINS_SHARED_CRYPTO_KEYS_H
#define PLUGINS_SHARED_CRYPTO_KEYS_H

#include <dapr/plugin.h>
#include <openssl/evp.h>

#include "sdk/base/str.h"

enum { KEY_BYTES_MAX = 1024 * 1024 }; /* of a file or of one JWK */

enum key_type { KEY_OCT, KEY_RSA, KEY_EC, KEY_OKP };
enum key_operation { KEY_ENCRYPT = 1, KEY_DECRYPT = 2, KEY_WRAP = 4, KEY_UNWRAP = 8, KEY_SIGN = 16, KEY_VERIFY = 32 };
enum key_form { KEY_FORM_GUESS, KEY_FORM_JWK, KEY_FORM_PEM };

struct key {
        enum key_type type;
        bool is_private;       /* symmetric keys are */
        EVP_PKEY *pkey;        /* NULL for KEY_OCT */
        struct str oct;        /* KEY_OCT: owned */
        char *kid, *alg, *use; /* of JWKs; NULL = not there */
        unsigned operations;   /* of JWKs: enum key_operation */
        bool restricted;       /* key_ops was there */
};

/* 0 and *ret; -EINVAL with what is wrong in *ret_err (static text); -ENOMEM. */
int key_parse(struct key **ret, struct str data, enum key_form form, const char **ret_err);
int key_from_jwk(struct key **ret, struct str json, const char **ret_err); /* keys_jwk.c */
void key_free(struct key *k);

/* By `use` and `key_ops`; by `alg`. A key without them may do all. */
bool key_allows(const struct key *k, enum key_operation op);
bool key_allows_algorithm(const struct key *k, const char *algorithm);
const char *key_operation_name(enum key_operation op); /* "wrapKey" */
enum key_operation key_operation_of(struct str name);  /* 0: unknown */

/* The public part as PKIX PEM or as JWK, in the call's memory; NULL: there is none, or no memory. */
const char *key_public_pem(struct dapr_call *c, const struct key *k);
const char *key_public_jwk(struct dapr_call *c, const struct key *k); /* keys_jwk.c */

#endif
