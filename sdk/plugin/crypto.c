/* Crypto providers: microdapr.plugin.v1.Crypto from one ops table. Jobs as in state.c. Every operation may be sent again. */
#include <errno.h>

#include "plugin/v1/crypto.pb-c.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

typedef int (*crypt_fn)(struct dapr_call *c, void *instance, const struct dapr_crypt *in, struct dapr_crypt_result *out);

struct job {
        struct dapr_call *dc;
        const struct dapr_crypto_ops *ops;
        crypt_fn crypt;
        struct dapr_crypt in;
        struct dapr_crypt_result out;
        struct dapr_sign sign;
        enum dapr_key_format format;
        struct dapr_public_key key;
        bool valid;
};

static struct dapr_bytes bytes_of(ProtobufCBinaryData b)
{
        return (struct dapr_bytes){b.data ? (const void *)b.data : "", b.len};
}

static ProtobufCBinaryData pb_of(struct dapr_bytes b)
{
        return pb_bytes(str_n(b.p, b.p ? b.n : 0));
}

static struct job job_of(struct dapr_call *dc)
{
        return (struct job){.dc = dc, .ops = dc->inst->type->crypto};
}

static int missing(struct dapr_call *dc)
{
        return dapr_fail(dc, DAPR_UNIMPLEMENTED, "%s does not support this operation", dc->inst->type->type);
}

/* ---- encrypt, decrypt, wrap, unwrap ---- */

static int job_crypt(void *arg)
{
        struct job *j = arg;
        return j->crypt(j->dc, j->dc->inst->obj, &j->in, &j->out);
}

static int run_crypt(struct dapr_call *dc, struct str req, crypt_fn fn)
{
        Microdapr__Plugin__V1__CryptoResponse out = MICRODAPR__PLUGIN__V1__CRYPTO_RESPONSE__INIT;
        struct job j = job_of(dc);
        const Microdapr__Plugin__V1__CryptoRequest *in =
                pb_unpack_borrow(dc->arena, &microdapr__plugin__v1__crypto_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        j.crypt = fn;
        j.in = (struct dapr_crypt){.data = bytes_of(in->data),
                                   .algorithm = in->algorithm,
                                   .key = in->key_name,
                                   .nonce = bytes_of(in->nonce),
                                   .tag = bytes_of(in->tag),
                                   .associated_data = bytes_of(in->associated_data)};
        int r = fn ? sdk_run(dc, j.ops->mode, job_crypt, &j) : missing(dc);
        if (r)
                return sdk_outcome(dc, r);
        out.data = pb_of(j.out.data);
        out.tag = pb_of(j.out.tag);
        return sdk_reply_pb(dc, &out.base);
}

static int crypto_encrypt(struct dapr_call *dc, struct str req)
{
        return run_crypt(dc, req, dc->inst->type->crypto->encrypt);
}

static int crypto_decrypt(struct dapr_call *dc, struct str req)
{
        return run_crypt(dc, req, dc->inst->type->crypto->decrypt);
}

static int crypto_wrap(struct dapr_call *dc, struct str req)
{
        return run_crypt(dc, req, dc->inst->type->crypto->wrap_key);
}

static int crypto_unwrap(struct dapr_call *dc, struct str req)
{
        return run_crypt(dc, req, dc->inst->type->crypto->unwrap_key);
}

/* ---- signatures ---- */

static int job_sign(void *arg)
{
        struct job *j = arg;
        return j->ops->sign ? j->ops->sign(j->dc, j->dc->inst->obj, &j->sign, &j->out.data) : missing(j->dc);
}

static int job_verify(void *arg)
{
        struct job *j = arg;
        return j->ops->verify ? j->ops->verify(j->dc, j->dc->inst->obj, &j->sign, &j->valid) : missing(j->dc);
}

static int run_sign(struct dapr_call *dc, struct str req, struct job *j, int (*fn)(void *))
{
        const Microdapr__Plugin__V1__CryptoSignRequest *in =
                pb_unpack_borrow(dc->arena, &microdapr__plugin__v1__crypto_sign_request__descriptor, req);
        if (!in)
                return -EBADMSG;
        *j = job_of(dc);
        j->sign = (struct dapr_sign){bytes_of(in->digest), in->algorithm, in->key_name, bytes_of(in->signature)};
        return sdk_run(dc, j->ops->mode, fn, j);
}

static int crypto_sign(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__CryptoSignResponse out = MICRODAPR__PLUGIN__V1__CRYPTO_SIGN_RESPONSE__INIT;
        struct job j;
        int r = run_sign(dc, req, &j, job_sign);
        if (r)
                return sdk_outcome(dc, r);
        out.signature = pb_of(j.out.data);
        return sdk_reply_pb(dc, &out.base);
}

static int crypto_verify(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__CryptoVerifyResponse out = MICRODAPR__PLUGIN__V1__CRYPTO_VERIFY_RESPONSE__INIT;
        struct job j;
        int r = run_sign(dc, req, &j, job_verify);
        if (r)
                return sdk_outcome(dc, r);
        out.valid = j.valid;
        return sdk_reply_pb(dc, &out.base);
}

/* ---- keys ---- */

static int job_get_key(void *arg)
{
        struct job *j = arg;
        return j->ops->get_key ? j->ops->get_key(j->dc, j->dc->inst->obj, j->in.key, j->format, &j->key) : missing(j->dc);
}

static int crypto_get_key(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__CryptoGetKeyResponse out = MICRODAPR__PLUGIN__V1__CRYPTO_GET_KEY_RESPONSE__INIT;
        struct job j = job_of(dc);
        const Microdapr__Plugin__V1__CryptoGetKeyRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__crypto_get_key_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        j.in.key = in->key_name;
        j.format = in->format == MICRODAPR__PLUGIN__V1__CRYPTO_KEY_FORMAT__JSON ? DAPR_KEY_JSON : DAPR_KEY_PEM;
        int r = sdk_run(dc, j.ops->mode, job_get_key, &j);
        if (r)
                return sdk_outcome(dc, r);
        out.name = j.key.name ? j.key.name : "";
        out.public_key = j.key.text ? j.key.text : "";
        return sdk_reply_pb(dc, &out.base);
}

/* ---- the component ---- */

static int crypto_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* CryptoInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_CRYPTO, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int crypto_features(struct dapr_call *dc, struct str req)
{
        return sdk_reply(dc, STR("")); /* none are defined */
}

static int crypto_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define CRYPTO "/microdapr.plugin.v1.Crypto/"
static const struct sdk_method methods[] = {
        {CRYPTO "Init", SDK_CRYPTO, crypto_init, .any_instance = true},
        {CRYPTO "Features", SDK_CRYPTO, crypto_features, true, .any_instance = true},
        {CRYPTO "Ping", SDK_CRYPTO, crypto_ping, true, .any_instance = true},
        {CRYPTO "GetKey", SDK_CRYPTO, crypto_get_key, true},
        {CRYPTO "Encrypt", SDK_CRYPTO, crypto_encrypt, true},
        {CRYPTO "Decrypt", SDK_CRYPTO, crypto_decrypt, true},
        {CRYPTO "WrapKey", SDK_CRYPTO, crypto_wrap, true},
        {CRYPTO "UnwrapKey", SDK_CRYPTO, crypto_unwrap, true},
        {CRYPTO "Sign", SDK_CRYPTO, crypto_sign, true},
        {CRYPTO "Verify", SDK_CRYPTO, crypto_verify, true},
};
const struct sdk_service sdk_crypto_service = {methods, sizeof methods / sizeof *methods};
