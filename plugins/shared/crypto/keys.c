/* Reading keys in whatever form they are kept, and what a key may be used for. */
#include "plugins/shared/crypto/keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/json.h"

static const struct {
        const char *name, *use;
} operations[] = {{"encrypt", "enc"}, {"decrypt", "enc"}, {"wrapKey", "enc"}, {"unwrapKey", "enc"}, {"sign", "sig"}, {"verify", "sig"}};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static int index_of(enum key_operation op)
{
        return __builtin_ctz((unsigned)op);
}

const char *key_operation_name(enum key_operation op)
{
        return operations[index_of(op)].name;
}

enum key_operation key_operation_of(struct str name)
{
        for (int i = 0; i < OPERATIONS; i++)
                if (str_eqz(name, operations[i].name))
                        return (enum key_operation)(1 << i);
        return 0;
}

bool key_allows(const struct key *k, enum key_operation op)
{
        if (k->restricted && !(k->operations & op))
                return false;
        return !k->use || strcmp(k->use, operations[index_of(op)].use) == 0;
}

bool key_allows_algorithm(const struct key *k, const char *algorithm)
{
        return !k->alg || strcmp(k->alg, algorithm) == 0;
}

void key_free(struct key *k)
{
        if (!k)
                return;
        EVP_PKEY_free(k->pkey);
        if (k->oct.p)
                OPENSSL_cleanse((void *)k->oct.p, k->oct.n);
        free((void *)k->oct.p);
        free(k->kid);
        free(k->alg);
        free(k->use);
        free(k);
}

/* ---- PEM ---- */

static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
        return -1; /* nobody is there to be asked */
}

static EVP_PKEY *decode(struct str pem, int selection)
{
        EVP_PKEY *pkey = NULL;
        const unsigned char *p = (const unsigned char *)pem.p;
        size_t n = pem.n;
        OSSL_DECODER_CTX *ctx = OSSL_DECODER_CTX_new_for_pkey(&pkey, "PEM", NULL, NULL, selection, NULL, NULL);
        if (ctx) {
                OSSL_DECODER_CTX_set_pem_password_cb(ctx, no_passphrase, NULL);
                if (!OSSL_DECODER_from_data(ctx, &p, &n)) {
                        EVP_PKEY_free(pkey);
                        pkey = NULL;
                }
        }
        OSSL_DECODER_CTX_free(ctx);
        ERR_clear_error();
        return pkey;
}

static EVP_PKEY *of_certificate(struct str pem)
{
        BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
        X509 *cert = in ? PEM_read_bio_X509(in, NULL, no_passphrase, NULL) : NULL;
        EVP_PKEY *pkey = cert ? X509_get_pubkey(cert) : NULL;
        X509_free(cert);
        BIO_free(in);
        ERR_clear_error();
        return pkey;
}

static bool type_of(EVP_PKEY *p, enum key_type *ret)
{
        *ret = EVP_PKEY_is_a(p, "RSA") ? KEY_RSA : EVP_PKEY_is_a(p, "EC") ? KEY_EC : KEY_OKP;
        return *ret != KEY_OKP || EVP_PKEY_is_a(p, "ED25519") || EVP_PKEY_is_a(p, "X25519");
}

static int from_pem(struct key *k, struct str pem, const char **ret_err)
{
        k->pkey = decode(pem, EVP_PKEY_KEYPAIR);
        k->is_private = k->pkey != NULL;
        if (!k->pkey)
                k->pkey = decode(pem, EVP_PKEY_PUBLIC_KEY);
        if (!k->pkey)
                k->pkey = of_certificate(pem);
        *ret_err = !k->pkey ? "the PEM text holds no key that can be read" : type_of(k->pkey, &k->type) ? NULL : "invalid key type";
        return *ret_err ? -EINVAL : 0;
}

/* ---- bytes ---- */

/* Base64 of either alphabet, when it is such, else the bytes themselves. */
static int from_bytes(struct key *k, struct str data)
{
        struct arena a = {0};
        struct str text = data;
        while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '='))
                text.n--;
        struct str key = base64_decode(&a, text);
        if (!key.p)
                key = data;
        char *own = malloc(key.n ? key.n : 1);
        if (own) {
                memcpy(own, key.p, key.n);
                k->oct = str_n(own, key.n);
        }
        k->type = KEY_OCT;
        k->is_private = true;
        if (key.p != data.p)
                OPENSSL_cleanse((void *)key.p, key.n);
        arena_fini(&a);
        return own ? 0 : -ENOMEM;
}

int key_parse(struct key **ret, struct str data, enum key_form form, const char **ret_err)
{
        *ret_err = data.n == 0 ? "key is empty" : data.n > KEY_BYTES_MAX ? "key is too long" : NULL;
        if (*ret_err)
                return -EINVAL;
        bool looks_raw = data.n == 16 || data.n == 24 || data.n == 32;
        if (form == KEY_FORM_JWK || (form == KEY_FORM_GUESS && data.p[0] == '{' && !looks_raw))
                return key_from_jwk(ret, data, ret_err);
        struct key *k = calloc(1, sizeof *k);
        if (!k)
                return -ENOMEM;
        bool pem = form == KEY_FORM_PEM || (data.n > 10 && str_has_prefix(data, STR("-----")));
        int r = pem ? from_pem(k, data, ret_err) : from_bytes(k, data);
        if (r)
                key_free(k);
        else
                *ret = k;
        return r;
}

const char *key_public_pem(struct dapr_call *c, const struct key *k)
{
        BIO *out = k->pkey ? BIO_new(BIO_s_mem()) : NULL;
        char *text = NULL;
        const char *copy = NULL;
        if (out && PEM_write_bio_PUBKEY(out, k->pkey)) {
                long n = BIO_get_mem_data(out, &text);
                copy = dapr_printf(c, "%.*s", (int)n, text);
        }
        BIO_free(out);
        return copy;
}
