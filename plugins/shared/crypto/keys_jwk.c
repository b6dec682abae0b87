/* JWKs (RFC 7517, 7518, 8037) into OpenSSL's keys and back. Numbers are base64url, big endian. */
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/crypto/keys.h"
#include "sdk/base/json.h"

enum { PARTS_MAX = 8, POINT_MAX = 66 };

static const struct curve {
        const char *crv, *group;
        size_t n; /* bytes of a coordinate */
} curves[] = {{"P-256", "prime256v1", 32}, {"P-384", "secp384r1", 48}, {"P-521", "secp521r1", 66}, {"secp256k1", "secp256k1", 32}};
enum { CURVES = sizeof curves / sizeof *curves };

/* Members that are numbers, with OpenSSL's names for RSA. */
static const struct {
        const char *member, *rsa;
} parts[] = {{"n", OSSL_PKEY_PARAM_RSA_N},          {"e", OSSL_PKEY_PARAM_RSA_E},          {"d", OSSL_PKEY_PARAM_RSA_D},
             {"p", OSSL_PKEY_PARAM_RSA_FACTOR1},    {"q", OSSL_PKEY_PARAM_RSA_FACTOR2},    {"dp", OSSL_PKEY_PARAM_RSA_EXPONENT1},
             {"dq", OSSL_PKEY_PARAM_RSA_EXPONENT2}, {"qi", OSSL_PKEY_PARAM_RSA_COEFFICIENT1}};
enum { PARTS = sizeof parts / sizeof *parts, PART_D = 2 };

struct jwk {
        struct str kty, crv, x, y, k;
        struct str part[PARTS];
};

/* ---- reading ---- */

static bool read_operations(struct json_reader *r, struct arena *a, struct key *k)
{
        struct str name;
        if (!json_enter_array(r))
                return false;
        while (json_next_element(r)) {
                if (!json_read_string(r, a, &name))
                        return false;
                k->operations |= key_operation_of(name);
                k->restricted = true;
        }
        return !r->error;
}

static struct str *member_of(struct jwk *j, struct str name)
{
        const struct {
                const char *name;
                struct str *at;
        } plain[] = {{"kty", &j->kty}, {"crv", &j->crv}, {"x", &j->x}, {"y", &j->y}, {"k", &j->k}};
        for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
                if (str_eqz(name, plain[i].name))
                        return plain[i].at;
        for (size_t i = 0; i < PARTS; i++)
                if (str_eqz(name, parts[i].member))
                        return &j->part[i];
        return NULL;
}

static char **text_of(struct key *k, struct str name)
{
        return str_eqz(name, "kid") ? &k->kid : str_eqz(name, "alg") ? &k->alg : str_eqz(name, "use") ? &k->use : NULL;
}

static int read_members(struct arena *a, struct str json, struct key *k, struct jwk *j)
{
        struct json_reader r;
        struct str name, s;
        json_read_init(&r, json);
        if (!json_enter_object(&r))
                return -EINVAL;
        while (json_next_member(&r, a, &name)) {
                char **text = text_of(k, name);
                struct str *at = text ? &s : member_of(j, name);
                if (str_eqz(name, "key_ops")) {
                        if (!read_operations(&r, a, k))
                                return -EINVAL;
                } else if (!at) {
                        json_skip(&r);
                } else if (!json_read_string(&r, a, at)) {
                        return -EINVAL;
                } else if (text && s.n) {
                        free(*text);
                        if (!(*text = strndup(s.p, s.n)))
                                return -ENOMEM;
                }
        }
        return r.error || !json_at_end(&r) ? -EINVAL : 0;
}

static EVP_PKEY *build(const char *type, OSSL_PARAM_BLD *b, bool is_private)
{
        OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(b);
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
        EVP_PKEY *pkey = NULL;
        if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) <= 0 ||
            EVP_PKEY_fromdata(ctx, &pkey, is_private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params) <= 0)
                pkey = NULL;
        EVP_PKEY_CTX_free(ctx);
        OSSL_PARAM_free(params);
        return pkey;
}

static EVP_PKEY *rsa_of(struct arena *a, const struct jwk *j, bool is_private)
{
        OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
        BIGNUM *n[PARTS] = {0};
        bool ok = b && j->part[0].n && j->part[1].n, all = true;
        for (size_t i = PART_D + 1; i < PARTS; i++)
                all = all && j->part[i].n;
        for (size_t i = 0; ok && i < PARTS; i++) {
                if (!j->part[i].n || (i >= PART_D && !is_private) || (i > PART_D && !all)) /* factors: all of them or none */
                        continue;
                struct str v = base64_decode(a, j->part[i]);
                n[i] = v.p ? BN_bin2bn((const unsigned char *)v.p, (int)v.n, NULL) : NULL;
                ok = n[i] && OSSL_PARAM_BLD_push_BN(b, parts[i].rsa, n[i]);
        }
        EVP_PKEY *pkey = ok ? build("RSA", b, is_private) : NULL;
        for (size_t i = 0; i < PARTS; i++)
                BN_clear_free(n[i]);
        OSSL_PARAM_BLD_free(b);
        return pkey;
}

static const struct curve *curve_of(struct str crv)
{
        for (int i = 0; i < CURVES; i++)
                if (str_eqz(crv, curves[i].crv))
                        return &curves[i];
        return NULL;
}

/* A coordinate in its full length; leading zeros may have been left out. */
static bool coordinate(struct arena *a, struct str text, size_t n, uint8_t *to)
{
        struct str v = base64_decode(a, text);
        if (!v.p || !v.n || v.n > n)
                return false;
        memset(to, 0, n - v.n);
        memcpy(to + n - v.n, v.p, v.n);
        return true;
}

static EVP_PKEY *ec_of(struct arena *a, const struct jwk *j, bool is_private)
{
        const struct curve *cv = curve_of(j->crv);
        uint8_t point[1 + 2 * POINT_MAX] = {4};
        OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
        BIGNUM *d = NULL;
        bool ok = b && cv && coordinate(a, j->x, cv->n, point + 1) && coordinate(a, j->y, cv->n, point + 1 + cv->n) &&
                  OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, cv->group, 0) &&
                  OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * cv->n);
        if (ok && is_private) {
                struct str v = base64_decode(a, j->part[PART_D]);
                d = v.p ? BN_bin2bn((const unsigned char *)v.p, (int)v.n, NULL) : NULL;
                ok = d && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_PRIV_KEY, d);
        }
        EVP_PKEY *pkey = ok ? build("EC", b, is_private) : NULL;
        BN_clear_free(d);
        OSSL_PARAM_BLD_free(b);
        return pkey;
}

static EVP_PKEY *okp_of(struct arena *a, const struct jwk *j, bool is_private)
{
        const char *type = str_eqz(j->crv, "Ed25519") ? "ED25519" : str_eqz(j->crv, "X25519") ? "X25519" : NULL;
        struct str v = base64_decode(a, is_private ? j->part[PART_D] : j->x);
        if (!type || !v.p)
                return NULL;
        return is_private ? EVP_PKEY_new_raw_private_key_ex(NULL, type, NULL, (const unsigned char *)v.p, v.n)
                          : EVP_PKEY_new_raw_public_key_ex(NULL, type, NULL, (const unsigned char *)v.p, v.n);
}

static int fill(struct key *k, struct arena *a, const struct jwk *j, const char **ret_err)
{
        k->is_private = j->part[PART_D].n > 0;
        if (str_eqz(j->kty, "oct")) {
                struct str v = j->k.n ? base64_decode(a, j->k) : STR_NULL;
                char *own = v.p ? malloc(v.n ? v.n : 1) : NULL;
                *ret_err = "the JWK's member k is missing or no base64";
                if (!own)
                        return v.p ? -ENOMEM : -EINVAL;
                memcpy(own, v.p, v.n);
                k->oct = str_n(own, v.n);
                k->type = KEY_OCT;
                k->is_private = true;
                return 0;
        }
        *ret_err = "invalid key type";
        if (str_eqz(j->kty, "RSA"))
                k->type = KEY_RSA;
        else if (str_eqz(j->kty, "EC"))
                k->type = KEY_EC;
        else if (str_eqz(j->kty, "OKP"))
                k->type = KEY_OKP;
        else
                return -EINVAL;
        k->pkey = k->type == KEY_RSA ? rsa_of(a, j, k->is_private) : k->type == KEY_EC ? ec_of(a, j, k->is_private) : okp_of(a, j, k->is_private);
        *ret_err = "the JWK's members make no key";
        ERR_clear_error();
        return k->pkey ? 0 : -EINVAL;
}

int key_from_jwk(struct key **ret, struct str json, const char **ret_err)
{
        struct key *k = calloc(1, sizeof *k);
        struct arena a = {0};
        struct jwk j = {0};
        if (!k)
                return -ENOMEM;
        *ret_err = "the key is not a valid JWK";
        int r = read_members(&a, json, k, &j);
        if (!r)
                r = fill(k, &a, &j, ret_err);
        arena_fini(&a);
        if (r)
                key_free(k);
        else
                *ret = k;
        return r;
}

/* ---- writing ---- */

static void put_number(struct json_writer *w, struct arena *a, const char *name, const uint8_t *v, size_t n)
{
        struct str s = base64_encode(a, str_n(v, n));
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] == '+' || s.p[i] == '/')
                        ((char *)s.p)[i] = s.p[i] == '+' ? '-' : '_';
        while (s.n && s.p[s.n - 1] == '=')
                s.n--;
        json_kv(w, name, s);
}

static bool put_rsa(struct json_writer *w, struct arena *a, const struct key *k)
{
        static const struct {
                const char *name, *param;
        } numbers[] = {{"e", OSSL_PKEY_PARAM_RSA_E}, {"n", OSSL_PKEY_PARAM_RSA_N}};
        bool ok = true;
        for (size_t i = 0; ok && i < 2; i++) {
                BIGNUM *n = NULL;
                ok = EVP_PKEY_get_bn_param(k->pkey, numbers[i].param, &n);
                uint8_t *v = ok ? arena_alloc(a, (size_t)BN_num_bytes(n)) : NULL;
                ok = v != NULL;
                if (ok)
                        put_number(w, a, numbers[i].name, v, (size_t)BN_bn2bin(n, v));
                BN_free(n);
                if (ok && i == 0)
                        json_kv(w, "kty", STR("RSA"));
        }
        return ok;
}

static bool put_ec(struct json_writer *w, struct arena *a, const struct key *k)
{
        char group[32];
        uint8_t x[POINT_MAX], y[POINT_MAX];
        const struct curve *cv = NULL;
        BIGNUM *bx = NULL, *by = NULL;
        if (!EVP_PKEY_get_utf8_string_param(k->pkey, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group, NULL))
                return false;
        for (int i = 0; i < CURVES; i++)
                if (!strcmp(group, curves[i].group))
                        cv = &curves[i];
        bool ok = cv && EVP_PKEY_get_bn_param(k->pkey, OSSL_PKEY_PARAM_EC_PUB_X, &bx) &&
                  EVP_PKEY_get_bn_param(k->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &by) && BN_bn2binpad(bx, x, (int)cv->n) > 0 &&
                  BN_bn2binpad(by, y, (int)cv->n) > 0;
        if (ok) {
                json_kv(w, "crv", str_of(cv->crv));
                json_kv(w, "kty", STR("EC"));
                put_number(w, a, "x", x, cv->n);
                put_number(w, a, "y", y, cv->n);
        }
        BN_free(bx);
        BN_free(by);
        return ok;
}

static bool put_okp(struct json_writer *w, struct arena *a, const struct key *k)
{
        uint8_t x[32];
        size_t n = sizeof x;
        if (EVP_PKEY_get_raw_public_key(k->pkey, x, &n) <= 0)
                return false;
        json_kv(w, "crv", str_of(EVP_PKEY_is_a(k->pkey, "ED25519") ? "Ed25519" : "X25519"));
        json_kv(w, "kty", STR("OKP"));
        put_number(w, a, "x", x, n);
        return true;
}

const char *key_public_jwk(struct dapr_call *c, const struct key *k)
{
        struct buf b = {0};
        struct arena a = {0};
        struct json_writer w;
        bool ok = k->type != KEY_OCT;
        json_write_init(&w, &b);
        json_object_begin(&w);
        if (ok && k->alg)
                json_kv(&w, "alg", str_of(k->alg));
        if (ok)
                ok = k->type == KEY_RSA ? put_rsa(&w, &a, k) : k->type == KEY_EC ? put_ec(&w, &a, k) : put_okp(&w, &a, k);
        if (ok && k->kid)
                json_kv(&w, "kid", str_of(k->kid));
        if (ok && k->use)
                json_kv(&w, "use", str_of(k->use));
        json_object_end(&w);
        const char *copy = ok && !b.failed ? dapr_printf(c, "%.*s", STR_FMT(buf_str(&b))) : NULL;
        buf_fini(&b);
        arena_fini(&a);
        return copy;
}
