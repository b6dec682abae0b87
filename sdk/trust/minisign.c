/* See minisign.h. Layouts as minisign's README describes them. */
#include "sdk/trust/minisign.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { SECRET_BYTES = 158, PUBLIC_BYTES = 42, SIGNATURE_BYTES = 74, LOCKED_AT = 54, LOCKED_BYTES = 104, CHECKED_BYTES = 72,
       TRUSTED_MAX = 1024 };
#define OPS_MAX ((uint64_t)1 << 26)
#define MEM_MAX ((uint64_t)1 << 31)
/* A sixteenth of minisign's, which takes the limits from the file: a moment, and what a small machine has. */
#define LOCK_OPS ((uint64_t)1 << 21)
#define LOCK_MEM ((uint64_t)1 << 26)
#define TRUSTED "trusted comment: "

static const char bad_public[] = "this is no minisign public key: it has a comment line and a line that begins with RW";
static const char bad_secret[] = "this is no minisign secret key";
static const char bad_signature[] = "this is no minisign signature";

const char *minisign_id_text(struct arena *a, const unsigned char id[MINISIGN_ID_BYTES])
{
        unsigned long long n = 0;
        for (int i = MINISIGN_ID_BYTES; i-- > 0;)
                n = n << 8 | id[i];
        const char *text = arena_printf(a, "%016llX", n);
        return text ? text : "";
}

/* ---- files: a comment line, a line of base64 ---- */

static bool decode(struct str line, unsigned char *to, size_t n)
{
        size_t used = 0;
        const char *end = NULL;
        line = str_trim(line);
        return line.n && sodium_base642bin(to, n, line.p, line.n, NULL, &used, &end, sodium_base64_VARIANT_ORIGINAL) == 0 && used == n &&
               end == line.p + line.n;
}

static struct str encode(struct arena *a, const unsigned char *p, size_t n)
{
        size_t len = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);
        char *to = arena_alloc(a, len);
        if (!to)
                return STR_NULL;
        sodium_bin2base64(to, len, p, n, sodium_base64_VARIANT_ORIGINAL);
        return str_n(to, len - 1);
}

/* The line behind "untrusted comment:", or the text's only line. */
static struct str payload(struct str *text)
{
        struct str line = str_trim(str_cut(text, '\n'));
        return str_has_prefix(line, STR("untrusted comment:")) && text->p ? str_trim(str_cut(text, '\n')) : line;
}

int minisign_read_public(struct str text, struct minisign_public *ret, const char **ret_err)
{
        unsigned char b[PUBLIC_BYTES];
        *ret_err = bad_public;
        if (text.n > MINISIGN_FILE_MAX || !decode(payload(&text), b, sizeof b) || memcmp(b, "Ed", 2) != 0)
                return -EINVAL;
        memcpy(ret->id, b + 2, MINISIGN_ID_BYTES);
        memcpy(ret->key, b + 10, sizeof ret->key);
        return 0;
}

static uint64_t le64(const unsigned char *p)
{
        uint64_t n = 0;
        for (int i = 8; i-- > 0;)
                n = n << 8 | p[i];
        return n;
}

static void put_le64(unsigned char *p, uint64_t n)
{
        for (int i = 0; i < 8; i++)
                p[i] = (unsigned char)(n >> (8 * i));
}

/* Locks and unlocks. */
static int mask(unsigned char b[SECRET_BYTES], struct str password)
{
        unsigned char stream[LOCKED_BYTES];
        uint64_t ops = le64(b + 38), mem = le64(b + 46);
        if (ops > OPS_MAX || mem > MEM_MAX)
                return -EINVAL;
        if (crypto_pwhash_scryptsalsa208sha256(stream, sizeof stream, password.p, password.n, b + 6, ops, (size_t)mem) != 0)
                return -ENOMEM;
        for (int i = 0; i < LOCKED_BYTES; i++)
                b[LOCKED_AT + i] ^= stream[i];
        sodium_memzero(stream, sizeof stream);
        return 0;
}

static void checksum(const unsigned char b[SECRET_BYTES], unsigned char to[32])
{
        crypto_generichash_state st;
        crypto_generichash_init(&st, NULL, 0, 32);
        crypto_generichash_update(&st, b, 2);
        crypto_generichash_update(&st, b + LOCKED_AT, CHECKED_BYTES);
        crypto_generichash_final(&st, to, 32);
}

static int unlock(unsigned char b[SECRET_BYTES], struct str password, const char **ret_err)
{
        unsigned char sum[32];
        *ret_err = "the secret key is locked: give its password";
        if (!password.p)
                return -EACCES;
        int r = mask(b, password);
        *ret_err = r == -ENOMEM ? "there is not enough memory to unlock the secret key" : bad_secret;
        if (r)
                return r;
        checksum(b, sum);
        *ret_err = "the password of the secret key is wrong";
        return sodium_memcmp(sum, b + LOCKED_AT + CHECKED_BYTES, sizeof sum) == 0 ? 0 : -EACCES;
}

int minisign_read_secret(struct str text, struct str password, struct minisign_secret *ret, const char **ret_err)
{
        unsigned char b[SECRET_BYTES];
        *ret_err = bad_secret;
        if (text.n > MINISIGN_FILE_MAX || !decode(payload(&text), b, sizeof b) || memcmp(b, "Ed", 2) != 0 || memcmp(b + 4, "B2", 2) != 0)
                return -EINVAL;
        int r = memcmp(b + 2, "Sc", 2) == 0 ? unlock(b, password, ret_err) : memcmp(b + 2, "\0\0", 2) == 0 ? 0 : -EINVAL;
        if (r == 0) {
                memcpy(ret->id, b + LOCKED_AT, MINISIGN_ID_BYTES);
                memcpy(ret->key, b + LOCKED_AT + MINISIGN_ID_BYTES, sizeof ret->key);
        }
        sodium_memzero(b, sizeof b);
        return r;
}

void minisign_wipe(struct minisign_secret *s)
{
        sodium_memzero(s, sizeof *s);
}

int minisign_generate(struct arena *a, struct str password, struct str *ret_public, struct str *ret_secret)
{
        unsigned char pk[32], sk[64], pub[PUBLIC_BYTES] = "Ed", b[SECRET_BYTES] = "Ed\0\0B2";
        if (sodium_init() < 0)
                return -ENOSYS;
        crypto_sign_keypair(pk, sk);
        randombytes_buf(pub + 2, MINISIGN_ID_BYTES);
        memcpy(pub + 10, pk, sizeof pk);
        memcpy(b + LOCKED_AT, pub + 2, MINISIGN_ID_BYTES);
        memcpy(b + LOCKED_AT + MINISIGN_ID_BYTES, sk, sizeof sk);
        int r = 0;
        if (password.p) {
                memcpy(b + 2, "Sc", 2);
                randombytes_buf(b + 6, 32);
                put_le64(b + 38, LOCK_OPS);
                put_le64(b + 46, LOCK_MEM);
                checksum(b, b + LOCKED_AT + CHECKED_BYTES);
                r = mask(b, password);
        }
        struct str pub64 = encode(a, pub, sizeof pub), sec64 = encode(a, b, sizeof b);
        const char *id = minisign_id_text(a, pub + 2);
        sodium_memzero(b, sizeof b);
        sodium_memzero(sk, sizeof sk);
        if (r)
                return r;
        *ret_public = str_of(pub64.p ? arena_printf(a, "untrusted comment: minisign public key %s\n%s\n", id, pub64.p) : NULL);
        *ret_secret = str_of(sec64.p ? arena_printf(a, "untrusted comment: minisign encrypted secret key\n%s\n", sec64.p) : NULL);
        return ret_public->p && ret_secret->p ? 0 : -ENOMEM;
}

/* ---- signatures ---- */

struct str minisign_sign(struct arena *a, const struct minisign_secret *s, struct str text, const char *trusted)
{
        unsigned char hash[64], b[SIGNATURE_BYTES] = "ED", global[64];
        size_t n = strlen(trusted);
        unsigned char *both = arena_alloc(a, 64 + n);
        if (!both || sodium_init() < 0)
                return STR_NULL;
        crypto_generichash(hash, sizeof hash, (const unsigned char *)text.p, text.n, NULL, 0);
        memcpy(b + 2, s->id, MINISIGN_ID_BYTES);
        crypto_sign_detached(b + 10, NULL, hash, sizeof hash, s->key);
        memcpy(both, b + 10, 64);
        memcpy(both + 64, trusted, n);
        crypto_sign_detached(global, NULL, both, 64 + n, s->key);
        struct str sig64 = encode(a, b, sizeof b), global64 = encode(a, global, sizeof global);
        if (!sig64.p || !global64.p)
                return STR_NULL;
        return str_of(arena_printf(a, "untrusted comment: signature of a microdapr plugin package\n%s\n" TRUSTED "%s\n%s\n", sig64.p, trusted,
                                   global64.p));
}

int minisign_read_signature(struct str file, struct minisign_signature *ret, const char **ret_err)
{
        unsigned char b[SIGNATURE_BYTES];
        *ret_err = bad_signature;
        *ret = (struct minisign_signature){0};
        if (file.n > MINISIGN_FILE_MAX || !str_has_prefix(file, STR("untrusted comment:")) || !decode(payload(&file), b, sizeof b))
                return -EINVAL;
        ret->hashed = memcmp(b, "ED", 2) == 0;
        if (!ret->hashed && memcmp(b, "Ed", 2) != 0)
                return -EINVAL;
        struct str line = str_cut(&file, '\n');
        if (!line.p || !file.p || !str_has_prefix(line, STR(TRUSTED)) || line.n > TRUSTED_MAX)
                return -EINVAL;
        ret->trusted = str_skip(line, strlen(TRUSTED));
        if (ret->trusted.n && ret->trusted.p[ret->trusted.n - 1] == '\r')
                ret->trusted.n--;
        memcpy(ret->id, b + 2, MINISIGN_ID_BYTES);
        memcpy(ret->bytes, b + 10, sizeof ret->bytes);
        return decode(str_cut(&file, '\n'), ret->global, sizeof ret->global) ? 0 : -EINVAL;
}

bool minisign_verify(const struct minisign_signature *s, const struct minisign_public *p, struct str text)
{
        unsigned char hash[64], both[64 + TRUSTED_MAX];
        if (sodium_init() < 0 || memcmp(s->id, p->id, MINISIGN_ID_BYTES) != 0 || s->trusted.n > TRUSTED_MAX)
                return false;
        const unsigned char *m = (const unsigned char *)text.p;
        size_t n = text.n;
        if (s->hashed) {
                crypto_generichash(hash, sizeof hash, m, n, NULL, 0);
                m = hash;
                n = sizeof hash;
        }
        memcpy(both, s->bytes, 64);
        if (s->trusted.n)
                memcpy(both + 64, s->trusted.p, s->trusted.n);
        return crypto_sign_verify_detached(s->bytes, m, n, p->key) == 0 &&
               crypto_sign_verify_detached(s->global, both, 64 + s->trusted.n, p->key) == 0;
}
