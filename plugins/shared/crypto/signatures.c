/* Signatures over digests; EdDSA over the message itself. ECDSA's are in ASN.1, as the reference has them. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <string.h>

#include "plugins/shared/crypto/algorithms.h"

enum scheme { RSA_PKCS1, RSA_PSS, ECDSA, EDDSA };
static const struct signature {
        const char *name, *hash;
        enum scheme scheme;
} signatures[] = {
        {"RS256", "SHA256", RSA_PKCS1}, {"RS384", "SHA384", RSA_PKCS1}, {"RS512", "SHA512", RSA_PKCS1}, {"PS256", "SHA256", RSA_PSS},
        {"PS384", "SHA384", RSA_PSS},   {"PS512", "SHA512", RSA_PSS},   {"ES256", NULL, ECDSA},         {"ES384", NULL, ECDSA},
        {"ES512", NULL, ECDSA},         {"EdDSA", NULL, EDDSA},
};

static int fail(const char **ret_err, const char *text)
{
        *ret_err = text;
        ERR_clear_error();
        return -EINVAL;
}

static int find(const struct key *k, const char *name, const struct signature **ret, const char **ret_err)
{
        for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
                const struct signature *s = &signatures[i];
                if (strcmp(s->name, name))
                        continue;
                bool fits = s->scheme == ECDSA   ? k->type == KEY_EC
                            : s->scheme == EDDSA ? k->type == KEY_OKP && EVP_PKEY_is_a(k->pkey, "ED25519")
                                                 : k->type == KEY_RSA;
                *ret = s;
                return fits ? 0 : fail(ret_err, "key type mismatch");
        }
        return fail(ret_err, "unsupported algorithm");
}

/* A context that is ready but for its begin: NULL = it cannot be. */
static bool set_up(EVP_PKEY_CTX *ctx, const struct signature *s, int salt)
{
        EVP_MD *md = s->hash ? EVP_MD_fetch(NULL, s->hash, NULL) : NULL;
        bool ok = !s->hash || (md && EVP_PKEY_CTX_set_signature_md(ctx, md) > 0);
        if (ok && s->scheme == RSA_PSS)
                ok = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt) > 0;
        EVP_MD_free(md);
        return ok;
}

static bool digest_fits(const struct signature *s, size_t n)
{
        EVP_MD *md = s->hash ? EVP_MD_fetch(NULL, s->hash, NULL) : NULL;
        bool ok = !md || (size_t)EVP_MD_get_size(md) == n;
        EVP_MD_free(md);
        return ok;
}

static bool sign_eddsa(const struct key *k, struct dapr_bytes m, uint8_t *to, size_t *n)
{
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        bool ok = ctx && EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, k->pkey, NULL) > 0 && EVP_DigestSign(ctx, to, n, m.p, m.n) > 0;
        EVP_MD_CTX_free(ctx);
        return ok;
}

static bool sign_digest(const struct key *k, const struct signature *s, struct dapr_bytes d, uint8_t *to, size_t *n)
{
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, k->pkey, NULL);
        bool ok = ctx && EVP_PKEY_sign_init(ctx) > 0 && set_up(ctx, s, RSA_PSS_SALTLEN_MAX) && EVP_PKEY_sign(ctx, to, n, d.p, d.n) > 0;
        EVP_PKEY_CTX_free(ctx);
        return ok;
}

int crypt_sign(struct dapr_call *c, const struct key *k, const struct dapr_sign *in, struct dapr_bytes *out, const char **ret_err)
{
        const struct signature *s;
        int r = find(k, in->algorithm, &s, ret_err);
        if (r)
                return r;
        if (!k->is_private)
                return fail(ret_err, "key type mismatch");
        if (!digest_fits(s, in->digest.n))
                return fail(ret_err, "input must be hashed message");
        size_t n = (size_t)EVP_PKEY_get_size(k->pkey);
        uint8_t *to = dapr_alloc(c, n);
        if (!to)
                return -ENOMEM;
        bool ok = s->scheme == EDDSA ? sign_eddsa(k, in->digest, to, &n) : sign_digest(k, s, in->digest, to, &n);
        *out = (struct dapr_bytes){to, n};
        return ok ? 0 : fail(ret_err, "the key cannot sign this");
}

int crypt_verify(struct dapr_call *c, const struct key *k, const struct dapr_sign *in, bool *ret_valid, const char **ret_err)
{
        const struct signature *s;
        int r = find(k, in->algorithm, &s, ret_err);
        if (r)
                return r;
        if (!digest_fits(s, in->digest.n))
                return fail(ret_err, "input must be hashed message");
        if (s->scheme == EDDSA) {
                EVP_MD_CTX *ctx = EVP_MD_CTX_new();
                *ret_valid = ctx && EVP_DigestVerifyInit_ex(ctx, NULL, NULL, NULL, NULL, k->pkey, NULL) > 0 &&
                             EVP_DigestVerify(ctx, in->signature.p, in->signature.n, in->digest.p, in->digest.n) == 1;
                EVP_MD_CTX_free(ctx);
        } else {
                EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, k->pkey, NULL);
                *ret_valid = ctx && EVP_PKEY_verify_init(ctx) > 0 && set_up(ctx, s, RSA_PSS_SALTLEN_AUTO) &&
                             EVP_PKEY_verify(ctx, in->signature.p, in->signature.n, in->digest.p, in->digest.n) == 1;
                EVP_PKEY_CTX_free(ctx);
        }
        ERR_clear_error();
        return 0;
}
