/* The trust store: public keys in minisign's form whose signatures count, one a file NAME.pub, in ~/.dapr/trust and /etc/dapr/trust. */
#ifndef SDK_TRUST_KEYRING_H
#define SDK_TRUST_KEYRING_H

#include "sdk/base/arena.h"
#include "sdk/trust/minisign.h"

enum { TRUST_KEYS_MAX = 256 };

struct trust_key {
        const char *file, *name;        /* name: of the file, without .pub */
        struct minisign_public key;
};
struct trust {
        struct trust_key *v;
        size_t n;
        const char *ignored;            /* "FILE: why", one a line, of files that are no keys; "" = none */
};
const char *trust_dir(struct arena *a); /* ~/.dapr/trust, as root without HOME /etc/dapr/trust; NULL = none */
/* The keys of both folders. Blocks. */
void trust_load(struct arena *a, struct trust *ret);
/* Who signed the text: 0 and *ret; -ENODATA unsigned (signature.p NULL), -ENOKEY by a key that is not trusted, -EKEYREJECTED wrong;
 * with a sentence that begins with `what`. */
int trust_check(const struct trust *t, const char *what, struct str text, struct str signature, struct arena *a, const struct trust_key **ret,
                const char **ret_err);

/* A whole regular file, no link, into the arena; -EFBIG past max. Blocks. */
int trust_read_file(struct arena *a, const char *path, uint64_t max, struct str *ret);

#endif
