/* See digest.h. */
#include "sdk/trust/digest.h"

#include <errno.h>
#include <sodium.h>
#include <unistd.h>

enum { CHUNK_BYTES = 16 * 1024, DIGEST_BYTES = DIGEST_HEX / 2 };

static void hex(const unsigned char d[DIGEST_BYTES], char ret[DIGEST_HEX + 1])
{
        sodium_bin2hex(ret, DIGEST_HEX + 1, d, DIGEST_BYTES);
}

void digest_blake2b(struct str data, char ret[DIGEST_HEX + 1])
{
        unsigned char d[DIGEST_BYTES];
        crypto_generichash(d, sizeof d, (const unsigned char *)data.p, data.n, NULL, 0);
        hex(d, ret);
}

void digest_sha256(struct str data, char ret[DIGEST_HEX + 1])
{
        unsigned char d[DIGEST_BYTES];
        crypto_hash_sha256(d, (const unsigned char *)data.p, data.n);
        hex(d, ret);
}

int digest_fd(int fd, uint64_t max, char ret[DIGEST_HEX + 1], uint64_t *ret_size)
{
        static _Thread_local unsigned char chunk[CHUNK_BYTES];
        unsigned char d[DIGEST_BYTES];
        crypto_generichash_state st;
        uint64_t size = 0;
        if (sodium_init() < 0)
                return -ENOSYS;
        crypto_generichash_init(&st, NULL, 0, sizeof d);
        for (;;) {
                ssize_t n = pread(fd, chunk, sizeof chunk, (off_t)size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                size += (uint64_t)n;
                if (size > max)
                        return -EFBIG;
                crypto_generichash_update(&st, chunk, (unsigned long long)n);
        }
        crypto_generichash_final(&st, d, sizeof d);
        hex(d, ret);
        *ret_size = size;
        return 0;
}
