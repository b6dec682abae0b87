/*
 * A token is header.claims.signature. The header names the key (kid, required) and the algorithm, which has to be one for that key's
 * type, for its curve, and the key's own if it names one: what the token says never makes a key do what it was not made for.
 */
#include "plugins/shared/crypto/jwt.h"

#include <errno.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <string.h>

#include "plugins/shared/crypto/algorithms.h"
#include "sdk/base/json.h"

static const struct alg {
        const char *name, *hash, *curve;
        size_t coordinate_bytes; /* of ECDSA signatures: two numbers of so many bytes */
} algs[] = {
        {"RS256", "SHA256"}, {"RS384", "SHA384"}, {"RS512", "SHA512"}, {"PS256", "SHA256"}, {"PS384", "SHA384"}, {"PS512", "SHA512"},
        {"ES256", "SHA256", "prime256v1", 32}, {"ES384", "SHA384", "secp384r1", 48}, {"ES512", "SHA512", "secp521r1", 66}, {"EdDSA", NULL},
};

struct parts {
        struct str signed_text, header, claims, signature; /* all but the first decoded */
        struct str alg, kid;
};

static int refuse(const char **ret_why, const char *why)
{
        *ret_why = why;
        return JWT_REFUSED;
}

/* ---- reading ---- */

static struct str next_part(struct str *rest, char separator)
{
        struct str part = *rest;
        ptrdiff_t at = str_chr(*rest, separator);

        if (at < 0) {
                *rest = STR_NULL;
                return part;
        }
        *rest = str_skip(part, (size_t)at + 1);
        return str_n(part.p, (size_t)at);
}

static int split(struct arena *a, struct str token, struct parts *p, const char **ret_why)
{
        struct str rest = token, header = next_part(&rest, '.'), claims = rest.p ? next_part(&rest, '.') : STR_NULL;

        if (!rest.p || str_chr(rest, '.') >= 0 || !header.n || !claims.n || !rest.n)
                return refuse(ret_why, "it is not of three parts");
        p->signed_text = str_n(token.p, header.n + 1 + claims.n);
        p->header = base64_decode(a, header);
        p->claims = base64_decode(a, claims);
        p->signature = base64_decode(a, rest);
        return p->header.p && p->claims.p && p->signature.p ? JWT_VALID : refuse(ret_why, "its parts are not base64url");
}

static int read_header(struct arena *a, struct parts *p, const char **ret_why)
{
        struct json_reader r;
        struct str name;
        bool critical = false;

        json_read_init(&r, p->header);
        if (!json_enter_object(&r))
                return refuse(ret_why, "its header is no JSON object");
        while (json_next_member(&r, a, &name)) {
                struct str *to = str_eqz(name, "alg") ? &p->alg : str_eqz(name, "kid") ? &p->kid : NULL;
                critical |= str_eqz(name, "crit");
                if (!(to && json_read_string(&r, a, to)))
                        json_skip(&r);
        }
        if (!json_at_end(&r))
                return refuse(ret_why, "its header is no JSON object");
        if (critical)
                return refuse(ret_why, "its header has critical extensions");
        return p->kid.n ? JWT_VALID : refuse(ret_why, "its header names no key (kid)");
}

/* ---- the signature ---- */

static const struct alg *alg_of(struct str name)
{
        for (size_t i = 0; i < sizeof algs / sizeof *algs; i++)
                if (str_eqz(name, algs[i].name))
                        return &algs[i];
        return NULL;
}

static bool fits(const struct key *k, const struct alg *alg)
{
        char curve[64];

        if (!key_allows(k, KEY_VERIFY) || !key_allows_algorithm(k, alg->name))
                return false;
        if (!alg->curve)
                return true; /* the type is checked where it is used */
        return k->type == KEY_EC && EVP_PKEY_get_group_name(k->pkey, curve, sizeof curve, NULL) && strcmp(curve, alg->curve) == 0;
}

/* Two numbers side by side, as tokens have them, to ASN.1. p == NULL: of the wrong length, or no memory. */
static struct str asn1(struct arena *a, const struct alg *alg, struct str raw)
{
        ECDSA_SIG *sig = raw.n == 2 * alg->coordinate_bytes ? ECDSA_SIG_new() : NULL;
        const unsigned char *bytes = (const unsigned char *)raw.p;
        BIGNUM *r = sig ? BN_bin2bn(bytes, (int)alg->coordinate_bytes, NULL) : NULL;
        BIGNUM *s = sig ? BN_bin2bn(bytes + alg->coordinate_bytes, (int)alg->coordinate_bytes, NULL) : NULL;
        struct str out = STR_NULL;
        unsigned char *der = NULL;
        int n;

        if (r && s && ECDSA_SIG_set0(sig, r, s)) {
                n = i2d_ECDSA_SIG(sig, &der);
                if (n > 0)
                        out = arena_str(a, str_n(der, (size_t)n));
                OPENSSL_free(der);
        } else {
                BN_free(r);
                BN_free(s);
        }
        ECDSA_SIG_free(sig);
        return out;
}

static int check_signature(struct dapr_call *c, struct arena *a, const struct key *k, const struct alg *alg, const struct parts *p,
                           const char **ret_why)
{
        unsigned char digest[EVP_MAX_MD_SIZE];
        struct str signature = alg->curve ? asn1(a, alg, p->signature) : p->signature;
        struct dapr_sign in = {.algorithm = alg->name, .digest = {p->signed_text.p, p->signed_text.n}};
        const char *why;
        size_t n = 0;
        bool valid = false;

        if (!signature.p)
                return refuse(ret_why, "its signature is not of the algorithm's length");
        if (alg->hash) {
                if (!EVP_Q_digest(NULL, alg->hash, NULL, p->signed_text.p, p->signed_text.n, digest, &n))
                        return -ENOMEM;
                in.digest = (struct dapr_bytes){digest, n};
        }
        in.signature = (struct dapr_bytes){signature.p, signature.n};
        int r = crypt_verify(c, k, &in, &valid, &why);
        ERR_clear_error();
        if (r == -ENOMEM)
                return r;
        return r == 0 && valid ? JWT_VALID : refuse(ret_why, "its signature is wrong");
}

/* ---- the claims ---- */

struct claims {
        struct str issuer;
        double exp, nbf, iat;
        bool has_exp, has_nbf, has_iat, for_audience, malformed;
};

static void read_audience(struct json_reader *r, struct arena *a, const char *wanted, struct claims *to)
{
        struct str one;

        if (json_read_string(r, a, &one)) {
                to->for_audience = wanted && str_eqz(one, wanted);
        } else if (json_enter_array(r)) {
                while (json_next_element(r)) {
                        if (json_read_string(r, a, &one))
                                to->for_audience |= wanted && str_eqz(one, wanted);
                        else
                                json_skip(r);
                }
        } else {
                json_skip(r);
        }
}

static void read_time(struct json_reader *r, double *to, bool *has, struct claims *c)
{
        *has = json_read_double(r, to);
        if (!*has) {
                c->malformed = true;
                json_skip(r);
        }
}

static bool read_claims(struct str json, struct arena *a, const char *audience, struct claims *to)
{
        struct json_reader r;
        struct str name;

        json_read_init(&r, json);
        if (!json_enter_object(&r))
                return false;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "iss")) {
                        if (!json_read_string(&r, a, &to->issuer))
                                json_skip(&r);
                } else if (str_eqz(name, "aud")) {
                        read_audience(&r, a, audience, to);
                } else if (str_eqz(name, "exp")) {
                        read_time(&r, &to->exp, &to->has_exp, to);
                } else if (str_eqz(name, "nbf")) {
                        read_time(&r, &to->nbf, &to->has_nbf, to);
                } else if (str_eqz(name, "iat")) {
                        read_time(&r, &to->iat, &to->has_iat, to);
                } else {
                        json_skip(&r);
                }
        }
        return json_at_end(&r) && !to->malformed;
}

static int check_claims(struct str json, struct arena *a, const struct jwt_rules *rules, double now_s, const char **ret_why)
{
        struct claims c = {0};

        if (!read_claims(json, a, rules->audience, &c))
                return refuse(ret_why, "its claims are no JSON object of the right types");
        if (c.has_exp && now_s >= c.exp + rules->skew_s)
                return refuse(ret_why, "it has expired");
        if (c.has_nbf && now_s < c.nbf - rules->skew_s)
                return refuse(ret_why, "it is not valid yet");
        if (c.has_iat && now_s < c.iat - rules->skew_s)
                return refuse(ret_why, "it was issued in the future");
        if (rules->issuer && !(c.issuer.p && str_eqz(c.issuer, rules->issuer)))
                return refuse(ret_why, "it is of another issuer");
        if (rules->audience && !c.for_audience)
                return refuse(ret_why, "it is for another audience");
        return JWT_VALID;
}

static int check(struct dapr_call *c, struct arena *a, const struct keyset *set, struct str token, const struct jwt_rules *rules,
                 double now_s, const char **ret_why)
{
        struct parts p = {0};
        const struct alg *alg;
        const struct key *k;
        int r = split(a, token, &p, ret_why);

        if (r == JWT_VALID)
                r = read_header(a, &p, ret_why);
        if (r)
                return r;
        alg = alg_of(p.alg);
        if (!alg)
                return refuse(ret_why, "its algorithm is none of those that are taken");
        const char *kid = arena_strdup(a, p.kid);
        if (!kid)
                return -ENOMEM;
        k = keyset_find(set, kid);
        if (!k) {
                *ret_why = "its key is not in the set";
                return JWT_UNKNOWN_KEY;
        }
        if (!fits(k, alg))
                return refuse(ret_why, "its algorithm is none for its key");
        r = check_signature(c, a, k, alg, &p, ret_why);
        return r ? r : check_claims(p.claims, a, rules, now_s, ret_why);
}

int jwt_check(struct dapr_call *c, const struct keyset *set, const char *token, const struct jwt_rules *rules, double now_s,
              const char **ret_why)
{
        struct arena a;
        struct str t = str_of(token);
        int r;

        if (t.n > JWT_BYTES_MAX)
                return refuse(ret_why, "it is too long");
        arena_init(&a, 0);
        r = check(c, &a, set, t, rules, now_s, ret_why);
        arena_fini(&a);
        return r;
}
