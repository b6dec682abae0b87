/*
 * Single operations with a provider's keys ("subtle" API): answered with "not implemented", as by the reference's release builds,
 * unless daprd runs with --enable-subtle-crypto. What a provider says about a failure goes into the debug log only: a caller who could
 * tell one failure of decryption from another would have an oracle.
 */
#include <errno.h>

#include "dapr/proto/runtime/v1/crypto.pb-c.h"
#include "kernel/blocks/crypto.h"
#include "plugin/v1/crypto.pb-c.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"

#define LOG_SCOPE "dapr.runtime.crypto"
#define RT(name) Dapr__Proto__Runtime__V1__Subtle##name
#define PLUGIN(name) Microdapr__Plugin__V1__##name

typedef PLUGIN(CryptoRequest) plugin_request;
typedef PLUGIN(CryptoSignRequest) plugin_sign;

/* One call to the provider of that name. 0 and *answer; else call_fail() was called: `failed` is all that the caller is told. */
static int ask(struct call *c, const char *component, const char *method, const ProtobufCMessage *req,
               const ProtobufCMessageDescriptor *answer_d, void *answer, const char *failed)
{
        struct component *comp = crypto_find(c, component);
        const char *why;
        if (!comp)
                return -1;
        if (!crypto_call(c, comp, "crypto_op", method, req, answer_d, answer, &why))
                return 0;
        log_debug(LOG_SCOPE, "%s: %s", failed, why);
        return call_fail(c, ERR_CRYPTO, failed);
}

static int crypt(struct call *c, const char *component, const char *method, const plugin_request *req, PLUGIN(CryptoResponse) **answer,
                 const char *failed)
{
        return ask(c, component, method, &req->base, &microdapr__plugin__v1__crypto_response__descriptor, answer, failed);
}

/* ---- keys given by callers ---- */

static struct str base64_key(struct arena *a, struct str s)
{
        while (s.n && (s.p[s.n - 1] == '\n' || s.p[s.n - 1] == '='))
                s.n--;
        return base64_decode(a, s);
}

/* The key of a JWK of type oct. */
static struct str jwk_key(struct arena *a, struct str s)
{
        struct json_reader r;
        struct str name, kty = STR(""), k = STR_NULL;
        json_read_init(&r, s);
        if (!json_enter_object(&r))
                return STR_NULL;
        while (json_next_member(&r, a, &name)) {
                struct str *to = str_eqz(name, "kty") ? &kty : str_eqz(name, "k") ? &k : NULL;
                if (!to || !json_read_string(&r, a, to))
                        json_skip(&r);
        }
        return !r.error && str_eqz(kty, "oct") && k.p ? base64_decode(a, k) : STR_NULL;
}

/* The DER inside PEM, which for PKCS#8 and PKIX is what the reference wraps. */
static struct str pem_key(struct arena *a, struct str s)
{
        ptrdiff_t begin = str_find(s, STR(" KEY-----\n"));
        bool known = str_has_prefix(s, STR("-----BEGIN PRIVATE KEY")) || str_has_prefix(s, STR("-----BEGIN PUBLIC KEY"));
        if (begin < 0 || !known)
                return STR_NULL;
        s = str_skip(s, (size_t)begin + sizeof " KEY-----\n" - 1);
        ptrdiff_t end = str_find(s, STR("-----END "));
        return end < 0 ? STR_NULL : base64_decode(a, str_n(s.p, (size_t)end));
}

/* A key in the forms that the reference takes: JWK, PEM, base64, else the bytes themselves. p == NULL: none of them. */
static struct str parse_key(struct arena *a, struct str s)
{
        if (s.n && s.p[0] == '{' && s.n != 16 && s.n != 24 && s.n != 32)
                return jwk_key(a, s);
        if (s.n > 10 && str_has_prefix(s, STR("-----")))
                return pem_key(a, s);
        struct str decoded = s.n ? base64_key(a, s) : STR_NULL;
        return decoded.p || !s.n ? decoded : s;
}

/* ---- operations ---- */

static int subtle_get_key(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(GetKeyRequest) *in = (const void *)req;
        RT(GetKeyResponse) *out = (void *)resp;
        PLUGIN(CryptoGetKeyRequest) a = MICRODAPR__PLUGIN__V1__CRYPTO_GET_KEY_REQUEST__INIT;
        PLUGIN(CryptoGetKeyResponse) *answer;
        struct component *comp = crypto_find(c, in->component_name);
        const char *why;
        if (!comp)
                return -1;
        if ((unsigned)in->format > 1)
                return call_fail(c, ERR_BAD_REQUEST, "invalid key format");
        a.key_name = in->name;
        a.format = (PLUGIN(CryptoKeyFormat))in->format;
        if (crypto_call(c, comp, "get", CRYPTO_SERVICE "GetKey", &a.base, &microdapr__plugin__v1__crypto_get_key_response__descriptor, &answer,
                        &why))
                return call_fail(c, ERR_CRYPTO_KEY, in->name, why);
        if (*answer->public_key) {
                out->name = *answer->name ? answer->name : in->name;
                out->public_key = answer->public_key;
        }
        return 0;
}

static int subtle_encrypt(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(EncryptRequest) *in = (const void *)req;
        RT(EncryptResponse) *out = (void *)resp;
        plugin_request a = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        PLUGIN(CryptoResponse) *answer;
        a.data = in->plaintext;
        a.algorithm = in->algorithm;
        a.key_name = in->key_name;
        a.nonce = in->nonce;
        a.associated_data = in->associated_data;
        if (crypt(c, in->component_name, CRYPTO_SERVICE "Encrypt", &a, &answer, "failed to encrypt"))
                return -1;
        out->ciphertext = answer->data;
        out->tag = answer->tag;
        return 0;
}

static int subtle_decrypt(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(DecryptRequest) *in = (const void *)req;
        plugin_request a = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        PLUGIN(CryptoResponse) *answer;
        a.data = in->ciphertext;
        a.algorithm = in->algorithm;
        a.key_name = in->key_name;
        a.nonce = in->nonce;
        a.tag = in->tag;
        a.associated_data = in->associated_data;
        if (crypt(c, in->component_name, CRYPTO_SERVICE "Decrypt", &a, &answer, "failed to decrypt"))
                return -1;
        ((RT(DecryptResponse) *)(void *)resp)->plaintext = answer->data;
        return 0;
}

static int subtle_wrap(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(WrapKeyRequest) *in = (const void *)req;
        RT(WrapKeyResponse) *out = (void *)resp;
        plugin_request a = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        PLUGIN(CryptoResponse) *answer;
        struct str key = parse_key(c->arena, pb_str(in->plaintext_key));
        if (!crypto_find(c, in->component_name))
                return -1;
        if (!key.p)
                return call_fail(c, ERR_CRYPTO,
                                 in->plaintext_key.len ? "failed to parse plaintext key: the key is in no known form"
                                                       : "failed to parse plaintext key: key is empty");
        a.data = pb_bytes(key);
        a.algorithm = in->algorithm;
        a.key_name = in->key_name;
        a.nonce = in->nonce;
        a.associated_data = in->associated_data;
        if (crypt(c, in->component_name, CRYPTO_SERVICE "WrapKey", &a, &answer, "failed to wrap key"))
                return -1;
        out->wrapped_key = answer->data;
        out->tag = answer->tag;
        return 0;
}

static int subtle_unwrap(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(UnwrapKeyRequest) *in = (const void *)req;
        plugin_request a = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        PLUGIN(CryptoResponse) *answer;
        a.data = in->wrapped_key;
        a.algorithm = in->algorithm;
        a.key_name = in->key_name;
        a.nonce = in->nonce;
        a.tag = in->tag;
        a.associated_data = in->associated_data;
        if (crypt(c, in->component_name, CRYPTO_SERVICE "UnwrapKey", &a, &answer, "failed to unwrap key"))
                return -1;
        ((RT(UnwrapKeyResponse) *)(void *)resp)->plaintext_key = answer->data;
        return 0;
}

static int subtle_sign(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(SignRequest) *in = (const void *)req;
        plugin_sign a = MICRODAPR__PLUGIN__V1__CRYPTO_SIGN_REQUEST__INIT;
        PLUGIN(CryptoSignResponse) *answer;
        a.digest = in->digest;
        a.algorithm = in->algorithm;
        a.key_name = in->key_name;
        if (ask(c, in->component_name, CRYPTO_SERVICE "Sign", &a.base, &microdapr__plugin__v1__crypto_sign_response__descriptor, &answer,
                "failed to sign"))
                return -1;
        ((RT(SignResponse) *)(void *)resp)->signature = answer->signature;
        return 0;
}

static int subtle_verify(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const RT(VerifyRequest) *in = (const void *)req;
        plugin_sign a = MICRODAPR__PLUGIN__V1__CRYPTO_SIGN_REQUEST__INIT;
        PLUGIN(CryptoVerifyResponse) *answer;
        a.digest = in->digest;
        a.algorithm = in->algorithm;
        a.key_name = in->key_name;
        a.signature = in->signature;
        if (ask(c, in->component_name, CRYPTO_SERVICE "Verify", &a.base, &microdapr__plugin__v1__crypto_verify_response__descriptor, &answer,
                "failed to verify signature"))
                return -1;
        ((RT(VerifyResponse) *)(void *)resp)->valid = answer->valid;
        return 0;
}

/* ---- doors ---- */

#define DESCRIPTOR(name, dir) &dapr__proto__runtime__v1__subtle_##name##_##dir##__descriptor
static const struct {
        method_fn fn;
        const ProtobufCMessageDescriptor *in, *out;
} operations[CRYPTO_SUBTLE_ROWS] = { /* in the order of the rows below */
        {subtle_get_key, DESCRIPTOR(get_key, request), DESCRIPTOR(get_key, response)},
        {subtle_encrypt, DESCRIPTOR(encrypt, request), DESCRIPTOR(encrypt, response)},
        {subtle_decrypt, DESCRIPTOR(decrypt, request), DESCRIPTOR(decrypt, response)},
        {subtle_wrap, DESCRIPTOR(wrap_key, request), DESCRIPTOR(wrap_key, response)},
        {subtle_unwrap, DESCRIPTOR(unwrap_key, request), DESCRIPTOR(unwrap_key, response)},
        {subtle_sign, DESCRIPTOR(sign, request), DESCRIPTOR(sign, response)},
        {subtle_verify, DESCRIPTOR(verify, request), DESCRIPTOR(verify, response)},
};

static void http_subtle(struct call *c)
{
        size_t i = (size_t)(c->route - crypto_subtle_http);
        ProtobufCMessage *in = NULL, *out = NULL;
        if (!(in = call_body_message(c, operations[i].in)))
                return; /* answered */
        if (!c->k->opts.enable_subtle_crypto)
                call_fail(c, ERR_API_UNIMPLEMENTED);
        else if (!(out = pb_new(c->arena, operations[i].out)))
                call_fail(c, ERR_UNTYPED, "out of memory");
        else {
                const char *name = arena_strdup(c->arena, route_param(c, "name"));
                *(const char **)pb_set(in, pb_field(operations[i].in, 1)) = name ? name : ""; /* component_name of all of them */
                operations[i].fn(c, in, out);
        }
        if (c->failed)
                reply_error(c);
        else
                reply_message(c, out, 0);
}

static int grpc_subtle(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        size_t i = (size_t)(c->method - crypto_subtle_grpc);
        return c->k->opts.enable_subtle_crypto ? operations[i].fn(c, in, out) : call_fail(c, ERR_API_UNIMPLEMENTED);
}

#define HTTP(verb, name) {"POST", "/v1.0-alpha1/subtlecrypto/{name}/" verb, "subtlecrypto", "v1alpha1", name, http_subtle}
const struct http_route crypto_subtle_http[CRYPTO_SUBTLE_ROWS] = {
        HTTP("getkey", "SubtleGetKey"),
        HTTP("encrypt", "SubtleEncrypt"),
        HTTP("decrypt", "SubtleDecrypt"),
        HTTP("wrapkey", "SubtleWrapKey"),
        HTTP("unwrapkey", "SubtleUnwrapKey"),
        HTTP("sign", "SubtleSign"),
        HTTP("verify", "SubtleVerify"),
};
#define GRPC(method, type) {method, "subtlecrypto.v1alpha1", DESCRIPTOR(type, request), DESCRIPTOR(type, response), grpc_subtle, NULL}
const struct grpc_route crypto_subtle_grpc[CRYPTO_SUBTLE_ROWS] = {
        GRPC("SubtleGetKeyAlpha1", get_key),
        GRPC("SubtleEncryptAlpha1", encrypt),
        GRPC("SubtleDecryptAlpha1", decrypt),
        GRPC("SubtleWrapKeyAlpha1", wrap_key),
        GRPC("SubtleUnwrapKeyAlpha1", unwrap_key),
        GRPC("SubtleSignAlpha1", sign),
        GRPC("SubtleVerifyAlpha1", verify),
};
