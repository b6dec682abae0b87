/*
 * The conformance kit for crypto providers: every pair of a key and an algorithm goes there and back, what was changed on the way is
 * refused, another key opens nothing, and nothing private is given out.
 */
#include "ctl/conform.h"
#include "plugin/v1/crypto.pb-c.h"
#include "sdk/base/json.h"

#define CRYPTO "/microdapr.plugin.v1.Crypto/"
enum { PAIRS_MAX = 256 };

enum use { CIPHER, WRAP, SIGN };
struct algorithm {
        const char *name;
        enum use use;
        unsigned char nonce, data; /* bytes of the nonce; of what it takes: a key, a digest */
        bool guarded;              /* what was changed is refused, not opened to something else */
};
static const struct algorithm algorithms[] = {
        {"RSA1_5", CIPHER, 0, 20, false}, {"RSA-OAEP", CIPHER, 0, 20, true}, {"RSA-OAEP-256", CIPHER, 0, 20, true}, {"RSA-OAEP-384", CIPHER, 0, 20, true},
        {"RSA-OAEP-512", CIPHER, 0, 20, true}, {"A128GCM", CIPHER, 12, 50, true}, {"A192GCM", CIPHER, 12, 50, true}, {"A256GCM", CIPHER, 12, 50, true},
        {"A128CBC", CIPHER, 16, 50, false}, {"A192CBC", CIPHER, 16, 50, false}, {"A256CBC", CIPHER, 16, 50, false},
        {"A128CBC-NOPAD", CIPHER, 16, 48, false}, {"A192CBC-NOPAD", CIPHER, 16, 48, false}, {"A256CBC-NOPAD", CIPHER, 16, 48, false},
        {"A128CBC-HS256", CIPHER, 16, 50, true}, {"A192CBC-HS384", CIPHER, 16, 50, true}, {"A256CBC-HS512", CIPHER, 16, 50, true},
        {"C20P", CIPHER, 12, 50, true}, {"XC20P", CIPHER, 24, 50, true}, {"A128KW", WRAP, 0, 32, true}, {"A192KW", WRAP, 0, 32, true},
        {"A256KW", WRAP, 0, 32, true}, {"A128GCMKW", WRAP, 12, 32, true}, {"A192GCMKW", WRAP, 12, 32, true}, {"A256GCMKW", WRAP, 12, 32, true},
        {"C20PKW", WRAP, 12, 32, true}, {"XC20PKW", WRAP, 24, 32, true}, {"RS256", SIGN, 0, 32, true}, {"RS384", SIGN, 0, 48, true},
        {"RS512", SIGN, 0, 64, true}, {"PS256", SIGN, 0, 32, true}, {"PS384", SIGN, 0, 48, true}, {"PS512", SIGN, 0, 64, true},
        {"ES256", SIGN, 0, 32, true}, {"ES384", SIGN, 0, 48, true}, {"ES512", SIGN, 0, 64, true}, {"EdDSA", SIGN, 0, 32, true}};
struct pair {
        const char *key;
        const struct algorithm *alg;
};
typedef Microdapr__Plugin__V1__CryptoRequest crypt_t;
typedef Microdapr__Plugin__V1__CryptoResponse crypted_t;

static const char text[] = "sixty-four bytes that go in and must come out again, as they are";
static const char nonce[] = "twenty-four bytes of it!";

static struct str text_of(const struct algorithm *alg)
{
        return str_n(text, alg->data);
}

static int crypt(struct conform *c, const char *method, struct pair p, struct str data, struct str tag, struct str aad, crypted_t **ret)
{
        crypt_t req = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        req.key_name = p.key;
        req.algorithm = p.alg->name;
        req.data = pb_bytes(data);
        req.nonce = pb_bytes(str_n(nonce, p.alg->nonce));
        req.tag = pb_bytes(tag);
        req.associated_data = pb_bytes(aad);
        return conform_ask(c, arena_printf(&c->call, CRYPTO "%s", method), &req.base, &microdapr__plugin__v1__crypto_response__descriptor, ret);
}

static int sign(struct conform *c, struct pair p, struct str digest, struct str *ret)
{
        Microdapr__Plugin__V1__CryptoSignRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_SIGN_REQUEST__INIT;
        Microdapr__Plugin__V1__CryptoSignResponse *resp;
        req.key_name = p.key;
        req.algorithm = p.alg->name;
        req.digest = pb_bytes(digest);
        int r = conform_ask(c, CRYPTO "Sign", &req.base, &microdapr__plugin__v1__crypto_sign_response__descriptor, &resp);
        if (r == 0)
                *ret = pb_str(resp->signature);
        return r;
}

/* 1 = valid, 0 = not, -1 = a failure. */
static int verify(struct conform *c, struct pair p, struct str digest, struct str signature)
{
        Microdapr__Plugin__V1__CryptoSignRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_SIGN_REQUEST__INIT;
        Microdapr__Plugin__V1__CryptoVerifyResponse *resp;
        req.key_name = p.key;
        req.algorithm = p.alg->name;
        req.digest = pb_bytes(digest);
        req.signature = pb_bytes(signature);
        int r = conform_ask(c, CRYPTO "Verify", &req.base, &microdapr__plugin__v1__crypto_verify_response__descriptor, &resp);
        return r ? -1 : resp->valid;
}

static const char *seal_method(const struct algorithm *alg)
{
        return alg->use == WRAP ? "WrapKey" : "Encrypt";
}

static const char *open_method(const struct algorithm *alg)
{
        return alg->use == WRAP ? "UnwrapKey" : "Decrypt";
}

static int try_pair(struct conform *c, struct pair p)
{
        crypted_t *sealed;
        struct str signature;
        return p.alg->use == SIGN ? sign(c, p, text_of(p.alg), &signature)
                                  : crypt(c, seal_method(p.alg), p, text_of(p.alg), STR(""), STR(""), &sealed);
}

static const struct algorithm *find(struct str name)
{
        for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
                if (str_eqz(name, algorithms[i].name))
                        return &algorithms[i];
        return NULL;
}

/* --key NAME:ALGORITHM is one; --key NAME stands for all that the key takes. NULL or what is wrong. */
static const char *pairs(struct conform *c, struct pair *v, size_t *ret_n)
{
        size_t n = 0;
        for (size_t i = 0; i < c->keys.n; i++) {
                const char *key = c->keys.v[i], *colon = strrchr(key, ':');
                size_t before = n;
                if (colon) {
                        const struct algorithm *alg = find(str_of(colon + 1));
                        MUST(alg, conform_text(c, "--key %s: the kit does not know the algorithm %s", key, colon + 1));
                        if (n < PAIRS_MAX)
                                v[n++] = (struct pair){arena_strdup(&c->call, str_n(key, (size_t)(colon - key))), alg};
                        continue;
                }
                for (size_t k = 0; k < sizeof algorithms / sizeof *algorithms && n < PAIRS_MAX; k++)
                        if (try_pair(c, (struct pair){key, &algorithms[k]}) == 0)
                                v[n++] = (struct pair){key, &algorithms[k]};
                MUST(n > before, conform_text(c, "the key %s takes no algorithm: %.*s", key, STR_FMT(c->status.message)));
        }
        *ret_n = n;
        return NULL;
}

static const char *no_keys(struct conform *c)
{
        return c->keys.n ? NULL : conform_skip(c, "say --key NAME for keys that it holds, or NAME:ALGORITHM such as rsa:RSA-OAEP-256");
}

static const char *named(struct conform *c, struct pair p, const char *what)
{
        return conform_text(c, "%s with %s: %s", p.key, p.alg->name, what);
}

/* In its first bytes: of a long digest some algorithms use no more. */
static struct str changed(struct conform *c, struct str s)
{
        struct str copy = arena_str(&c->call, s);
        if (copy.n)
                ((char *)copy.p)[copy.n / 8] ^= 1;
        return copy;
}

/* Opened, and to the text that went in. */
static bool opens(struct conform *c, struct pair p, struct str data, struct str tag, struct str aad)
{
        crypted_t *opened;
        return crypt(c, open_method(p.alg), p, data, tag, aad, &opened) == 0 && str_eq(pb_str(opened->data), text_of(p.alg));
}

static const char *seal_and_open(struct conform *c, struct pair p)
{
        crypted_t *sealed, *opened;
        TRY(crypt(c, seal_method(p.alg), p, text_of(p.alg), STR(""), STR(""), &sealed), named(c, p, seal_method(p.alg)));
        struct str data = pb_str(sealed->data), tag = pb_str(sealed->tag);
        MUST(str_find(data, text_of(p.alg)) < 0, named(c, p, "what was encrypted can be read"));
        TRY(crypt(c, open_method(p.alg), p, data, tag, STR(""), &opened), named(c, p, open_method(p.alg)));
        MUST(str_eq(pb_str(opened->data), text_of(p.alg)), named(c, p, "what comes back is another text"));
        MUST(!opens(c, p, changed(c, data), tag, STR("")), named(c, p, "a changed cipher text is opened"));
        if (tag.n)
                MUST(crypt(c, open_method(p.alg), p, data, changed(c, tag), STR(""), &opened), named(c, p, "a changed tag is taken"));
        if (tag.n && p.alg->nonce)
                MUST(crypt(c, open_method(p.alg), p, data, tag, STR("other"), &opened), named(c, p, "other associated data are taken"));
        if (p.alg->guarded && crypt(c, open_method(p.alg), p, changed(c, data), tag, STR(""), &opened) == 0)
                return named(c, p, "a changed cipher text is no failure");
        return NULL;
}

static const char *there_and_back(struct conform *c)
{
        struct pair *v = arena_alloc(&c->call, PAIRS_MAX * sizeof *v);
        size_t n;
        HOLD(no_keys(c));
        HOLD(pairs(c, v, &n));
        for (size_t i = 0; i < n; i++)
                if (v[i].alg->use != SIGN)
                        HOLD(seal_and_open(c, v[i]));
        return NULL;
}

static const char *signatures_hold(struct conform *c)
{
        struct pair *v = arena_alloc(&c->call, PAIRS_MAX * sizeof *v);
        struct str signature;
        size_t n, signs = 0;
        HOLD(no_keys(c));
        HOLD(pairs(c, v, &n));
        for (size_t i = 0; i < n; i++) {
                struct str digest = text_of(v[i].alg);
                if (v[i].alg->use != SIGN)
                        continue;
                signs++;
                TRY(sign(c, v[i], digest, &signature), named(c, v[i], "Sign"));
                MUST(signature.n, named(c, v[i], "the signature is empty"));
                MUST(verify(c, v[i], digest, signature) == 1, named(c, v[i], "its own signature is not valid"));
                MUST(verify(c, v[i], changed(c, digest), signature) != 1, named(c, v[i], "the signature of another digest is valid"));
                MUST(verify(c, v[i], digest, changed(c, signature)) != 1, named(c, v[i], "a changed signature is valid"));
                MUST(verify(c, v[i], digest, STR("")) != 1, named(c, v[i], "an empty signature is valid"));
        }
        return signs ? NULL : conform_skip(c, "none of the keys that were named signs");
}

static const char *other_key(struct conform *c, struct pair p, struct pair other)
{
        crypted_t *sealed;
        struct str signature;
        if (p.alg->use == SIGN) {
                TRY(sign(c, p, text_of(p.alg), &signature), named(c, p, "Sign"));
                MUST(verify(c, other, text_of(p.alg), signature) != 1, named(c, p, conform_text(c, "the key %s finds its signature valid", other.key)));
                return NULL;
        }
        TRY(crypt(c, seal_method(p.alg), p, text_of(p.alg), STR(""), STR(""), &sealed), named(c, p, seal_method(p.alg)));
        MUST(!opens(c, other, pb_str(sealed->data), pb_str(sealed->tag), STR("")), named(c, p, conform_text(c, "the key %s opens it", other.key)));
        return NULL;
}

static const char *wrong_keys(struct conform *c)
{
        struct pair *v = arena_alloc(&c->call, PAIRS_MAX * sizeof *v);
        size_t n, tried = 0;
        HOLD(no_keys(c));
        HOLD(pairs(c, v, &n));
        for (size_t i = 0; i < n; i++)
                for (size_t k = i + 1; k < n; k++)
                        if (v[i].alg == v[k].alg && strcmp(v[i].key, v[k].key) != 0) {
                                HOLD(other_key(c, v[i], v[k]));
                                tried++;
                        }
        return tried ? NULL : conform_skip(c, "no two keys that were named have an algorithm in common");
}

/* Nothing private in the public part. */
static const char *check_jwk(struct conform *c, struct str json)
{
        static const char *const secret[] = {"d", "p", "q", "dp", "dq", "qi", "k"};
        struct json_reader r;
        struct str name;
        bool kty = false;
        json_read_init(&r, json);
        MUST(json_valid(json) && json_enter_object(&r), "a public key as JSON is no JSON");
        while (json_next_member(&r, &c->call, &name) && json_skip(&r)) {
                kty |= str_eqz(name, "kty");
                for (size_t i = 0; i < sizeof secret / sizeof *secret; i++)
                        MUST(!str_eqz(name, secret[i]), conform_text(c, "a public key as JSON has the private member '%s'", secret[i]));
        }
        return kty ? NULL : "a public key as JSON has no member 'kty'";
}

static const char *public_parts(struct conform *c)
{
        HOLD(no_keys(c));
        for (size_t i = 0; i < c->keys.n; i++) {
                const char *key = c->keys.v[i], *colon = strrchr(key, ':');
                Microdapr__Plugin__V1__CryptoGetKeyRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_GET_KEY_REQUEST__INIT;
                Microdapr__Plugin__V1__CryptoGetKeyResponse *pem, *jwk;
                req.key_name = colon ? arena_strdup(&c->call, str_n(key, (size_t)(colon - key))) : key;
                if (conform_ask(c, CRYPTO "GetKey", &req.base, &microdapr__plugin__v1__crypto_get_key_response__descriptor, &pem))
                        continue; /* symmetric: it has none */
                req.format = MICRODAPR__PLUGIN__V1__CRYPTO_KEY_FORMAT__JSON;
                TRY(conform_ask(c, CRYPTO "GetKey", &req.base, &microdapr__plugin__v1__crypto_get_key_response__descriptor, &jwk), "GetKey as JSON");
                MUST(str_has_prefix(str_of(pem->public_key), STR("-----BEGIN PUBLIC KEY-----")), conform_text(c, "the PEM of %s is no public key", req.key_name));
                HOLD(check_jwk(c, str_of(jwk->public_key)));
        }
        return NULL;
}

static const char *missing_key(struct conform *c)
{
        Microdapr__Plugin__V1__CryptoGetKeyRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_GET_KEY_REQUEST__INIT;
        struct pair p = {"conformance-missing-key", find(STR("RSA-OAEP-256"))};
        crypted_t *sealed;
        struct str signature;
        req.key_name = p.key;
        int r = conform_ask(c, CRYPTO "GetKey", &req.base, NULL, NULL);
        MUST(r != 0, "a key that is not there was given");
        MUST(r != RPC_UNAVAILABLE && r != RPC_DEADLINE_EXCEEDED, conform_wrong(c, "GetKey of a key that is not there"));
        MUST(crypt(c, "Encrypt", p, text_of(p.alg), STR(""), STR(""), &sealed) && crypt(c, "WrapKey", p, text_of(p.alg), STR(""), STR(""), &sealed),
             "a key that is not there encrypts");
        MUST(sign(c, (struct pair){p.key, find(STR("RS256"))}, text_of(find(STR("RS256"))), &signature), "a key that is not there signs");
        return NULL;
}

static const char *unknown_algorithm(struct conform *c)
{
        static const struct algorithm none = {"no-such-algorithm", CIPHER, 0, 20, false};
        const char *key = c->keys.n ? c->keys.v[0] : "any", *colon = strrchr(key, ':');
        struct pair p = {colon ? arena_strdup(&c->call, str_n(key, (size_t)(colon - key))) : key, &none};
        crypted_t *sealed;
        struct str signature;
        MUST(crypt(c, "Encrypt", p, text_of(&none), STR(""), STR(""), &sealed), "an unknown algorithm encrypts");
        MUST(crypt(c, "WrapKey", p, text_of(&none), STR(""), STR(""), &sealed), "an unknown algorithm wraps");
        return sign(c, p, text_of(&none), &signature) ? NULL : "an unknown algorithm signs";
}

const struct conform_check conform_crypto_checks[] = {
        {"a key that is not there", missing_key},
        {"an unknown algorithm", unknown_algorithm},
        {"what is encrypted is decrypted", there_and_back},
        {"signatures hold", signatures_hold},
        {"another key opens nothing", wrong_keys},
        {"public parts are public", public_parts},
};
const size_t conform_crypto_n = sizeof conform_crypto_checks / sizeof *conform_crypto_checks;
