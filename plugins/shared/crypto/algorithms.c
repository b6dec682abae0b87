/* Encryption: one row an algorithm. Nothing here tells why a decryption failed beyond what the caller could see anyway. */
#include "plugins/shared/crypto/algorithms.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include <sodium.h>
#include <string.h>

enum { BLOCK = 16, TAG = 16, NONCE = 12, XNONCE = 24, HMAC_MAX = 64, CRYPT_BYTES_MAX = 1 << 30 };

#define UNSUPPORTED "unsupported algorithm"
#define MISMATCH "key type mismatch"
#define FAILED "message authentication failed"

struct job {
        struct dapr_call *c;
        const struct key *k;
        const struct dapr_crypt *in;
        struct dapr_crypt_result *out;
        const char **err;
        bool seal;
};
struct algorithm {
        const char *name;
        int (*fn)(struct job *j, const struct algorithm *a);
        size_t key_bytes;          /* of symmetric keys */
        const char *cipher, *hash; /* OpenSSL's names */
        bool pad;
};

static int fail(struct job *j, const char *text)
{
        *j->err = text;
        ERR_clear_error();
        return -EINVAL;
}

/* Room for the result: n bytes. */
static uint8_t *room(struct job *j, size_t n)
{
        uint8_t *p = dapr_alloc(j->c, n ? n : 1);
        j->out->data = (struct dapr_bytes){p, n};
        return p;
}

/* ---- AES-CBC, key wrap: no tag ---- */

static int plain_cipher(struct job *j, const struct algorithm *a, const uint8_t *key, const uint8_t *iv, bool pad, unsigned flags)
{
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, a->cipher, NULL);
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        uint8_t *to = room(j, j->in->data.n + 2 * BLOCK);
        int n = 0, more = 0, ok = 0;
        if (cipher && ctx && to) {
                EVP_CIPHER_CTX_set_flags(ctx, (int)flags);
                ok = EVP_CipherInit_ex2(ctx, cipher, key, iv, j->seal, NULL) && EVP_CIPHER_CTX_set_padding(ctx, pad) &&
                     EVP_CipherUpdate(ctx, to, &n, j->in->data.p, (int)j->in->data.n) && EVP_CipherFinal_ex(ctx, to + n, &more);
        }
        j->out->data.n = (size_t)(n + more);
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
        return !to ? -ENOMEM : ok ? 0 : fail(j, j->seal ? "invalid plaintext" : "invalid ciphertext");
}

static int run_cbc(struct job *j, const struct algorithm *a)
{
        if (j->k->type != KEY_OCT || j->k->oct.n != a->key_bytes)
                return fail(j, MISMATCH);
        if (j->in->nonce.n != BLOCK)
                return fail(j, "invalid nonce");
        if (j->in->data.n % BLOCK && (!j->seal || !a->pad))
                return fail(j, j->seal ? "invalid plaintext length" : "invalid ciphertext length");
        return plain_cipher(j, a, (const uint8_t *)j->k->oct.p, j->in->nonce.p, a->pad, 0);
}

static int run_kw(struct job *j, const struct algorithm *a)
{
        if (j->k->type != KEY_OCT || j->k->oct.n != a->key_bytes)
                return fail(j, MISMATCH);
        if (j->in->data.n % 8 || j->in->data.n < (j->seal ? 16u : 24u))
                return fail(j, j->seal ? "invalid plaintext length" : "invalid ciphertext length");
        return plain_cipher(j, a, (const uint8_t *)j->k->oct.p, NULL, false, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
}

/* ---- with a tag ---- */

static int run_aead(struct job *j, const struct algorithm *a)
{
        if (j->k->type != KEY_OCT || j->k->oct.n != a->key_bytes)
                return fail(j, MISMATCH);
        if (j->in->nonce.n != NONCE)
                return fail(j, "invalid nonce");
        if (!j->seal && j->in->tag.n != TAG)
                return fail(j, "invalid tag");
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, a->cipher, NULL);
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        uint8_t *to = room(j, j->in->data.n), *tag = dapr_alloc(j->c, TAG);
        int n = 0, more = 0, ok = 0;
        if (cipher && ctx && to && tag) {
                ok = EVP_CipherInit_ex2(ctx, cipher, (const uint8_t *)j->k->oct.p, j->in->nonce.p, j->seal, NULL);
                if (ok && j->in->associated_data.n)
                        ok = EVP_CipherUpdate(ctx, NULL, &n, j->in->associated_data.p, (int)j->in->associated_data.n);
                if (ok && !j->seal)
                        ok = EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)j->in->tag.p);
                n = 0;
                ok = ok && (!j->in->data.n || EVP_CipherUpdate(ctx, to, &n, j->in->data.p, (int)j->in->data.n)) &&
                     EVP_CipherFinal_ex(ctx, to + n, &more) && (!j->seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag));
        }
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
        if (!to || !tag)
                return -ENOMEM;
        if (j->seal)
                j->out->tag = (struct dapr_bytes){tag, TAG};
        return ok ? 0 : fail(j, FAILED);
}

static int run_xchacha(struct job *j, const struct algorithm *a)
{
        if (j->k->type != KEY_OCT || j->k->oct.n != a->key_bytes)
                return fail(j, MISMATCH);
        if (j->in->nonce.n != XNONCE)
                return fail(j, "invalid nonce");
        if (!j->seal && j->in->tag.n != TAG)
                return fail(j, "invalid tag");
        uint8_t *to = room(j, j->in->data.n), *tag = dapr_alloc(j->c, TAG);
        const uint8_t *key = (const uint8_t *)j->k->oct.p;
        if (!to || !tag)
                return -ENOMEM;
        if (!j->seal)
                return crypto_aead_xchacha20poly1305_ietf_decrypt_detached(to, NULL, j->in->data.p, j->in->data.n, j->in->tag.p,
                                                                           j->in->associated_data.p, j->in->associated_data.n,
                                                                           j->in->nonce.p, key)
                               ? fail(j, FAILED)
                               : 0;
        crypto_aead_xchacha20poly1305_ietf_encrypt_detached(to, tag, NULL, j->in->data.p, j->in->data.n, j->in->associated_data.p,
                                                            j->in->associated_data.n, NULL, j->in->nonce.p, key);
        j->out->tag = (struct dapr_bytes){tag, TAG};
        return 0;
}

/* HMAC over associated data, nonce, ciphertext and the first one's length in bits; the first half counts. */
static bool cbc_tag(const struct job *j, const struct algorithm *a, struct dapr_bytes text, uint8_t out[HMAC_MAX])
{
        EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
        EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
        OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)a->hash, 0), OSSL_PARAM_construct_end()};
        uint64_t bits = (uint64_t)j->in->associated_data.n * 8;
        uint8_t length[8];
        size_t n;
        for (int i = 0; i < 8; i++)
                length[i] = (uint8_t)(bits >> (56 - 8 * i));
        bool ok = ctx && EVP_MAC_init(ctx, (const uint8_t *)j->k->oct.p, a->key_bytes / 2, params) &&
                  EVP_MAC_update(ctx, j->in->associated_data.p, j->in->associated_data.n) &&
                  EVP_MAC_update(ctx, j->in->nonce.p, j->in->nonce.n) && EVP_MAC_update(ctx, text.p, text.n) &&
                  EVP_MAC_update(ctx, length, sizeof length) && EVP_MAC_final(ctx, out, &n, HMAC_MAX);
        EVP_MAC_CTX_free(ctx);
        EVP_MAC_free(mac);
        return ok;
}

static int run_cbc_hmac(struct job *j, const struct algorithm *a)
{
        uint8_t expect[HMAC_MAX];
        size_t tag_n = a->key_bytes / 2;
        const uint8_t *key = (const uint8_t *)j->k->oct.p;
        if (j->k->type != KEY_OCT || j->k->oct.n != a->key_bytes)
                return fail(j, MISMATCH);
        if (j->in->nonce.n != BLOCK)
                return fail(j, "invalid nonce");
        if (!j->seal && j->in->tag.n != tag_n)
                return fail(j, "invalid tag");
        if (!j->seal && (!cbc_tag(j, a, j->in->data, expect) || CRYPTO_memcmp(expect, j->in->tag.p, tag_n)))
                return fail(j, FAILED);
        int r = plain_cipher(j, a, key + tag_n, j->in->nonce.p, true, 0);
        if (r || !j->seal)
                return r;
        if (!cbc_tag(j, a, j->out->data, expect))
                return fail(j, FAILED);
        uint8_t *tag = dapr_alloc(j->c, tag_n);
        if (!tag)
                return -ENOMEM;
        memcpy(tag, expect, tag_n);
        j->out->tag = (struct dapr_bytes){tag, tag_n};
        return 0;
}

/* ---- RSA ---- */

static int run_rsa(struct job *j, const struct algorithm *a)
{
        if (j->k->type != KEY_RSA || (!j->seal && !j->k->is_private))
                return fail(j, MISMATCH);
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, j->k->pkey, NULL);
        size_t n = (size_t)EVP_PKEY_get_size(j->k->pkey);
        uint8_t *to = room(j, n);
        bool ok = ctx && to && (j->seal ? EVP_PKEY_encrypt_init(ctx) : EVP_PKEY_decrypt_init(ctx)) > 0 &&
                  EVP_PKEY_CTX_set_rsa_padding(ctx, a->hash ? RSA_PKCS1_OAEP_PADDING : RSA_PKCS1_PADDING) > 0;
        if (ok && a->hash) {
                ok = EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, a->hash, NULL) > 0 && EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, a->hash, NULL) > 0;
                if (ok && j->in->associated_data.n) { /* the label is the context's then */
                        void *label = OPENSSL_memdup(j->in->associated_data.p, j->in->associated_data.n);
                        ok = label && EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, label, (int)j->in->associated_data.n) > 0;
                        if (!ok)
                                OPENSSL_free(label);
                }
        }
        ok = ok && (j->seal ? EVP_PKEY_encrypt(ctx, to, &n, j->in->data.p, j->in->data.n)
                            : EVP_PKEY_decrypt(ctx, to, &n, j->in->data.p, j->in->data.n)) > 0;
        j->out->data.n = n;
        EVP_PKEY_CTX_free(ctx);
        return !to ? -ENOMEM : ok ? 0 : fail(j, j->seal ? "the message does not fit the key" : "decryption error");
}

/* ---- the table ---- */

static const struct algorithm algorithms[] = {
        {"A128CBC", run_cbc, 16, "AES-128-CBC", NULL, true},
        {"A192CBC", run_cbc, 24, "AES-192-CBC", NULL, true},
        {"A256CBC", run_cbc, 32, "AES-256-CBC", NULL, true},
        {"A128CBC-NOPAD", run_cbc, 16, "AES-128-CBC"},
        {"A192CBC-NOPAD", run_cbc, 24, "AES-192-CBC"},
        {"A256CBC-NOPAD", run_cbc, 32, "AES-256-CBC"},
        {"A128GCM", run_aead, 16, "AES-128-GCM"},
        {"A192GCM", run_aead, 24, "AES-192-GCM"},
        {"A256GCM", run_aead, 32, "AES-256-GCM"},
        {"A128CBC-HS256", run_cbc_hmac, 32, "AES-128-CBC", "SHA256"},
        {"A192CBC-HS384", run_cbc_hmac, 48, "AES-192-CBC", "SHA384"},
        {"A256CBC-HS512", run_cbc_hmac, 64, "AES-256-CBC", "SHA512"},
        {"A128KW", run_kw, 16, "AES-128-WRAP"},
        {"A192KW", run_kw, 24, "AES-192-WRAP"},
        {"A256KW", run_kw, 32, "AES-256-WRAP"},
        {"C20P", run_aead, 32, "ChaCha20-Poly1305"},
        {"C20PKW", run_aead, 32, "ChaCha20-Poly1305"},
        {"XC20P", run_xchacha, 32},
        {"XC20PKW", run_xchacha, 32},
        {"RSA1_5", run_rsa},
        {"RSA-OAEP", run_rsa, 0, NULL, "SHA1"},
        {"RSA-OAEP-256", run_rsa, 0, NULL, "SHA256"},
        {"RSA-OAEP-384", run_rsa, 0, NULL, "SHA384"},
        {"RSA-OAEP-512", run_rsa, 0, NULL, "SHA512"},
};

static int run(struct job *j)
{
        if (j->in->data.n > CRYPT_BYTES_MAX || j->in->associated_data.n > CRYPT_BYTES_MAX)
                return fail(j, "the message is too long");
        for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
                if (!strcmp(algorithms[i].name, j->in->algorithm))
                        return algorithms[i].fn(j, &algorithms[i]);
        return fail(j, UNSUPPORTED);
}

int crypt_encrypt(struct dapr_call *c, const struct key *k, const struct dapr_crypt *in, struct dapr_crypt_result *out, const char **ret_err)
{
        return run(&(struct job){c, k, in, out, ret_err, true});
}

int crypt_decrypt(struct dapr_call *c, const struct key *k, const struct dapr_crypt *in, struct dapr_crypt_result *out, const char **ret_err)
{
        return run(&(struct job){c, k, in, out, ret_err, false});
}
