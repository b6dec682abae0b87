/*
 * AES-GCM by wolfCrypt. A key's schedule is made once; wolfCrypt changes nothing in it while it works, and all calls come from
 * the loop thread anyway.
 */
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/aes.h>

#include "kernel/blocks/encryption.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "sdk/base/json.h"

enum { NONCE_BYTES = 12, TAG_BYTES = 16, KEY_BYTES_MAX = 32 };

struct encryption_key {
        char *name;
        Aes aes;
};

static int nibble(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The key's bytes; their number, or -1 with the sentence. */
static int unhex(const char *hex, uint8_t out[KEY_BYTES_MAX], struct arena *a, const char **ret_err)
{
        size_t n = strlen(hex);
        for (size_t i = 0; i < n; i++) {
                int v = nibble(hex[i]);
                if (v < 0) {
                        *ret_err = arena_printf(a, "encoding/hex: invalid byte: U+%04X at position %zu", (unsigned char)hex[i], i);
                        return -1;
                }
                if (i / 2 < KEY_BYTES_MAX)
                        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | v : v << 4);
        }
        if (n % 2) {
                *ret_err = "encoding/hex: odd length hex string";
                return -1;
        }
        n /= 2;
        if (n != 16 && n != 24 && n != 32) {
                *ret_err = arena_printf(a, "crypto/aes: invalid key size %zu", n);
                return -1;
        }
        return (int)n;
}

int encryption_key_new(struct encryption_key **ret, const char *name, const char *hex, struct arena *a, const char **ret_err)
{
        uint8_t bytes[KEY_BYTES_MAX];
        int n = unhex(hex, bytes, a, ret_err);
        if (n < 0)
                return *ret_err ? -EINVAL : -ENOMEM;
        struct encryption_key *k = calloc(1, sizeof *k);
        if (k)
                k->name = strdup(name);
        int r = !k || !k->name || wc_AesInit(&k->aes, NULL, INVALID_DEVID) || wc_AesGcmSetKey(&k->aes, bytes, (word32)n) ? -ENOMEM : 0;
        explicit_bzero(bytes, sizeof bytes);
        if (r)
                encryption_key_free(k);
        else
                *ret = k;
        return r;
}

void encryption_key_free(struct encryption_key *k)
{
        if (!k)
                return;
        free(k->name);
        wc_AesFree(&k->aes);
        explicit_bzero(k, sizeof *k);
        free(k);
}

void encryption_fini(struct encryption *e)
{
        encryption_key_free(e->primary);
        encryption_key_free(e->secondary);
        *e = (struct encryption){0};
}

int encryption_encrypt(const struct encryption *e, struct arena *a, struct str value, struct str *ret)
{
        size_t raw_n = NONCE_BYTES + value.n + TAG_BYTES, name_n = strlen(e->primary->name);
        uint8_t *raw = arena_alloc(a, raw_n);
        char *out = value.n > INT32_MAX / 4 ? NULL : arena_alloc(a, BASE64_LEN(raw_n) + 2 + name_n);
        if (!raw || !out)
                return -ENOMEM;
        if (getrandom(raw, NONCE_BYTES, 0) != NONCE_BYTES)
                return -EIO;
        uint8_t *text = raw + NONCE_BYTES;
        if (wc_AesGcmEncrypt(&e->primary->aes, text, (const byte *)value.p, (word32)value.n, raw, NONCE_BYTES, text + value.n, TAG_BYTES,
                             NULL, 0))
                return -EIO;
        size_t n = base64_put(out, str_n(raw, raw_n));
        memcpy(out + n, "||", 2);
        memcpy(out + n + 2, e->primary->name, name_n);
        *ret = str_n(out, n + 2 + name_n);
        return 0;
}

/* Where the last separator stands, or -1. */
static ptrdiff_t last_separator(struct str s)
{
        for (size_t i = s.n; i >= 2; i--)
                if (s.p[i - 2] == '|' && s.p[i - 1] == '|')
                        return (ptrdiff_t)i - 2;
        return -1;
}

static struct encryption_key *key_named(const struct encryption *e, struct str name)
{
        if (e->primary && str_eqz(name, e->primary->name))
                return e->primary;
        return e->secondary && str_eqz(name, e->secondary->name) ? e->secondary : NULL;
}

int encryption_decrypt(const struct encryption *e, struct arena *a, const char *store, struct str stored, struct str *ret,
                       const char **ret_err)
{
        *ret_err = "out of memory";
        *ret = STR("");
        if (!stored.n)
                return 0;
        ptrdiff_t at = last_separator(stored);
        struct str name = at < 0 ? STR("") : str_skip(stored, (size_t)at + 2);
        if (!name.n) {
                *ret_err = arena_printf(a, "could not decrypt data for state store %s: encryption key name not found on record", store);
                return -EBADMSG;
        }
        struct encryption_key *k = key_named(e, name);
        if (!k) {
                *ret_err = arena_printf(a, "could not decrypt data for state store %s: no encryption key is named %.*s", store, STR_FMT(name));
                return -EBADMSG;
        }
        struct str raw = base64_decode(a, str_n(stored.p, (size_t)at));
        if (!raw.p || raw.n < NONCE_BYTES + TAG_BYTES) {
                *ret_err = raw.p ? "cipher: message authentication failed" : "illegal base64 data";
                return -EBADMSG;
        }
        size_t n = raw.n - NONCE_BYTES - TAG_BYTES;
        const byte *nonce = (const byte *)raw.p, *text = nonce + NONCE_BYTES;
        byte *out = arena_alloc(a, n + 1);
        if (!out)
                return -ENOMEM;
        if (wc_AesGcmDecrypt(&k->aes, out, text, (word32)n, nonce, NONCE_BYTES, text + n, TAG_BYTES, NULL, 0)) {
                *ret_err = "cipher: message authentication failed";
                return -EBADMSG;
        }
        *ret = str_n(out, n);
        return 0;
}
