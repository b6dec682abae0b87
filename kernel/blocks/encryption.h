/*
 * Client-side encryption of state values: AES-GCM with 16, 24 or 32 byte keys (hex in a secret). A stored value is
 * base64(nonce 12 bytes + ciphertext + tag 16 bytes) + "||" + name of the key's secret.
 */
#ifndef KERNEL_ENCRYPTION_H
#define KERNEL_ENCRYPTION_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

struct encryption_key;
struct encryption {
        struct encryption_key *primary, *secondary; /* primary writes; either reads */
};

/* Key from its hex text; name = the secret's name. 0 and *ret, -ENOMEM, or -EINVAL with a sentence in *ret_err (arena a). */
int encryption_key_new(struct encryption_key **ret, const char *name, const char *hex, struct arena *a, const char **ret_err);
void encryption_key_free(struct encryption_key *k); /* wipes it */
void encryption_fini(struct encryption *e);

/* Both: 0 and *ret in a; -ENOMEM; -EIO (no random numbers); -EBADMSG with a sentence in *ret_err. The value decrypted from
 * nothing is nothing. */
int encryption_encrypt(const struct encryption *e, struct arena *a, struct str value, struct str *ret);
int encryption_decrypt(const struct encryption *e, struct arena *a, const char *store, struct str stored, struct str *ret,
                       const char **ret_err);

#endif
