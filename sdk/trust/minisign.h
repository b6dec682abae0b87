/*
 * Keys and signatures in minisign's files: what is signed here, Debian's minisign verifies, and the other way round.
 * Ed25519 over BLAKE2b-512 of the text ("ED"); plain Ed25519 ("Ed", old minisign) is verified too. Secret keys may be locked with a
 * password (scrypt).
 */
#ifndef SDK_TRUST_MINISIGN_H
#define SDK_TRUST_MINISIGN_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum { MINISIGN_ID_BYTES = 8, MINISIGN_FILE_MAX = 8192 };

struct minisign_public {
        unsigned char id[MINISIGN_ID_BYTES], key[32];
};
struct minisign_secret {
        unsigned char id[MINISIGN_ID_BYTES], key[64];
};
/* "5519E639B8D1EF3D" as minisign prints key ids. */
const char *minisign_id_text(struct arena *a, const unsigned char id[MINISIGN_ID_BYTES]);

/* New pair; the secret's file text is locked when password.p is not NULL. 0, -ENOMEM. Blocks for a second with a password. */
int minisign_generate(struct arena *a, struct str password, struct str *ret_public, struct str *ret_secret);
/* 0; -EINVAL with a sentence; -EACCES: a password is needed or wrong (password.p NULL: none was given). */
int minisign_read_secret(struct str text, struct str password, struct minisign_secret *ret, const char **ret_err);
int minisign_read_public(struct str text, struct minisign_public *ret, const char **ret_err); /* a whole file, or the one line */
void minisign_wipe(struct minisign_secret *s);

/* The text of a .minisig file. NULL p = no memory. trusted: one line, is signed too. */
struct str minisign_sign(struct arena *a, const struct minisign_secret *s, struct str text, const char *trusted);
struct minisign_signature {
        unsigned char id[MINISIGN_ID_BYTES], bytes[64], global[64];
        bool hashed;
        struct str trusted; /* borrowed from the text */
};
int minisign_read_signature(struct str file, struct minisign_signature *ret, const char **ret_err);
/* Is text signed by this key, and the trusted comment too? */
bool minisign_verify(const struct minisign_signature *s, const struct minisign_public *p, struct str text);

#endif
