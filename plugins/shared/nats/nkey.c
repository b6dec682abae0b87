/* A seed is base32 of: two bytes that say "seed" and "user", 32 bytes of seed, CRC-16/XMODEM of both, low byte first. */
#include "plugins/shared/nats/nkey.h"

#include <errno.h>
#include <sodium.h>

enum { SEED_TEXT = 58, RAW = 36, KIND_SEED = 18 << 3, KIND_USER = 20 << 3, SEED_AT = 2, SEED_BYTES = 32, CRC_AT = 34 };

static int decode(struct str text, uint8_t raw[RAW])
{
        static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        uint32_t bits = 0;
        unsigned have = 0;
        size_t n = 0;
        if (text.n != SEED_TEXT)
                return -EINVAL;
        for (size_t i = 0; i < text.n; i++) {
                const char *at = memchr(letters, text.p[i], 32);
                if (!at)
                        return -EINVAL;
                bits = bits << 5 | (uint32_t)(at - letters);
                have += 5;
                if (have >= 8 && n < RAW) {
                        have -= 8;
                        raw[n++] = (uint8_t)(bits >> have);
                }
        }
        return n == RAW ? 0 : -EINVAL;
}

static uint16_t crc16(const uint8_t *p, size_t n)
{
        uint16_t crc = 0;
        for (size_t i = 0; i < n; i++) {
                crc = (uint16_t)(crc ^ (p[i] << 8));
                for (int b = 0; b < 8; b++)
                        crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
        }
        return crc;
}

static int read_seed(struct str text, uint8_t raw[RAW])
{
        int r = decode(text, raw);
        if (r)
                return r;
        unsigned kind = (raw[0] & 7u) << 5 | raw[1] >> 3;
        bool right = (raw[0] & 0xf8) == KIND_SEED && kind == KIND_USER && crc16(raw, CRC_AT) == (raw[CRC_AT] | raw[CRC_AT + 1] << 8);
        return right ? 0 : -EINVAL;
}

bool nkey_is_user_seed(struct str seed)
{
        uint8_t raw[RAW];
        int r = read_seed(seed, raw);
        sodium_memzero(raw, sizeof(raw));
        return r == 0;
}

int nkey_sign(struct str seed, struct str nonce, char ret[NKEY_SIGNATURE_BYTES])
{
        uint8_t raw[RAW], public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES], sig[crypto_sign_BYTES];
        int r = read_seed(seed, raw);
        if (!r && crypto_sign_seed_keypair(public_key, secret, raw + SEED_AT))
                r = -EINVAL;
        if (!r && crypto_sign_detached(sig, NULL, (const uint8_t *)nonce.p, nonce.n, secret))
                r = -EINVAL;
        if (!r)
                sodium_bin2base64(ret, NKEY_SIGNATURE_BYTES, sig, sizeof(sig), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        sodium_memzero(raw, sizeof(raw));
        sodium_memzero(secret, sizeof(secret));
        return r;
}
