/* Digests of texts and files, in hex with a NUL. */
#ifndef SDK_TRUST_DIGEST_H
#define SDK_TRUST_DIGEST_H

#include <stdint.h>

#include "sdk/base/str.h"

enum { DIGEST_HEX = 64 };

void digest_blake2b(struct str data, char ret[DIGEST_HEX + 1]); /* BLAKE2b-256 */
void digest_sha256(struct str data, char ret[DIGEST_HEX + 1]);
/* BLAKE2b-256 of an open file, whole and at most max bytes of it; its offset stays where it is. 0 and *ret_size; -EFBIG, -errno. Blocks. */
int digest_fd(int fd, uint64_t max, char ret[DIGEST_HEX + 1], uint64_t *ret_size);

#endif
