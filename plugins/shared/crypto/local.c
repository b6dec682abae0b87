/* Finds the key, checks what it may be used for, does the work, words the failure. */
#include "plugins/shared/crypto/local.h"

#include <errno.h>

struct use {
        enum key_operation op;
        const char *key_noun, *failed; /* "failed to retrieve the <noun>", "<failed>: why" */
};

static int begin(struct dapr_call *c, struct local_provider *p, const char *name, const char *algorithm, const struct use *u, struct key **ret)
{
        const char *why = NULL;
        int r = p->find(c, p, name, ret, &why);
        if (r)
                return r < 0 || !why ? -ENOMEM : dapr_fail(c, r, "failed to retrieve the %s: %s", u->key_noun, why);
        if (key_allows(*ret, u->op) && key_allows_algorithm(*ret, algorithm))
                return 0;
        r = key_allows(*ret, u->op) ? dapr_fail(c, DAPR_FAILED_PRECONDITION, "key cannot be used with algorithm '%s'", algorithm)
                                    : dapr_fail(c, DAPR_FAILED_PRECONDITION, "key cannot perform the '%s' operation", key_operation_name(u->op));
        p->release(p, *ret);
        return r;
}

static int end(struct dapr_call *c, struct local_provider *p, struct key *k, const struct use *u, int r, const char *why)
{
        p->release(p, k);
        return r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s: %s", u->failed, why) : r;
}

static int crypt(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out, const struct use *u)
{
        struct key *k;
        const char *why = "";
        int r = begin(c, instance, in->key, in->algorithm, u, &k);
        if (r)
                return r;
        r = u->op == KEY_ENCRYPT || u->op == KEY_WRAP ? crypt_encrypt(c, k, in, out, &why) : crypt_decrypt(c, k, in, out, &why);
        return end(c, instance, k, u, r, why);
}

int local_encrypt(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out)
{
        return crypt(c, instance, in, out, &(struct use){KEY_ENCRYPT, "key", "failed to encrypt data"});
}

int local_decrypt(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out)
{
        return crypt(c, instance, in, out, &(struct use){KEY_DECRYPT, "key", "failed to decrypt data"});
}

int local_wrap_key(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out)
{
        return crypt(c, instance, in, out, &(struct use){KEY_WRAP, "key encryption key", "failed to encrypt data"});
}

int local_unwrap_key(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out)
{
        return crypt(c, instance, in, out, &(struct use){KEY_UNWRAP, "key encryption key", "failed to decrypt data"});
}

int local_sign(struct dapr_call *c, void *instance, const struct dapr_sign *in, struct dapr_bytes *out)
{
        static const struct use u = {KEY_SIGN, "key", "failed to sign message"};
        struct key *k;
        const char *why = "";
        int r = begin(c, instance, in->key, in->algorithm, &u, &k);
        return r ? r : end(c, instance, k, &u, crypt_sign(c, k, in, out, &why), why);
}

int local_verify(struct dapr_call *c, void *instance, const struct dapr_sign *in, bool *valid)
{
        static const struct use u = {KEY_VERIFY, "key", "failed to validate the signature"};
        struct key *k;
        const char *why = "";
        int r = begin(c, instance, in->key, in->algorithm, &u, &k);
        return r ? r : end(c, instance, k, &u, crypt_verify(c, k, in, valid, &why), why);
}

int local_get_key(struct dapr_call *c, void *instance, const char *name, enum dapr_key_format format, struct dapr_public_key *out)
{
        struct local_provider *p = instance;
        struct key *k;
        const char *why = NULL;
        int r = p->find(c, p, name, &k, &why);
        if (r)
                return r < 0 || !why ? -ENOMEM : dapr_fail(c, r, "%s", why);
        if (k->type == KEY_OCT)
                r = dapr_fail(c, DAPR_NOT_FOUND, "key not found");
        else if (!(out->text = format == DAPR_KEY_JSON ? key_public_jwk(c, k) : key_public_pem(c, k)))
                r = dapr_fail(c, DAPR_INTERNAL, "failed to obtain public key");
        else if (k->kid)
                out->name = dapr_strdup(c, k->kid);
        p->release(p, k);
        return r;
}
