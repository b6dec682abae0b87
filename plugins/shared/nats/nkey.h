/* Seeds of NATS users (https://github.com/nats-io/nkeys): Ed25519 keys as text that begins with SU. */
#ifndef PLUGINS_SHARED_NATS_NKEY_H
#define PLUGINS_SHARED_NATS_NKEY_H

#include "sdk/base/str.h"

enum { NKEY_SIGNATURE_BYTES = 88 }; /* base64 for URLs with its NUL */

/* Is it a user's seed with a right checksum? */
bool nkey_is_user_seed(struct str seed);
/* Signs a server's nonce. 0 or -EINVAL (no seed). */
int nkey_sign(struct str seed, struct str nonce, char ret[NKEY_SIGNATURE_BYTES]);

#endif
