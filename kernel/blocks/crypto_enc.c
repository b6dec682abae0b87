/*
 * dapr.io/enc/v1 by libsodium. Its AES-GCM needs AES instructions; machines without them get wolfCrypt's, which is slow.
 */
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/aes.h>

#include "kernel/blocks/crypto_enc.h"

#include <errno.h>

#include "kernel/front/http.h"
#include "sdk/base/buf.h"
#include "sdk/base/json.h"

#define SCHEME "dapr.io/enc/v1"

enum { NONCE_BYTES = 12, MAC_BYTES = crypto_auth_hmacsha256_BYTES };

/* ---- names ---- */

static const char *const wraps[] = {NULL, "A256KW", "A128CBC-NOPAD", "A192CBC-NOPAD", "A256CBC-NOPAD", "RSA-OAEP-256"};
enum { WRAPS = sizeof wraps / sizeof *wraps, WRAP_A256KW = 1, WRAP_RSA_OAEP_256 = 5 };

int enc_wrap_of(struct str name)
{
        for (int i = 1; i < WRAPS; i++)
                if (str_eqz(name, wraps[i]))
                        return i;
        return str_eqz(name, "AES") ? WRAP_A256KW : str_eqz(name, "RSA") ? WRAP_RSA_OAEP_256 : 0;
}

const char *enc_wrap_name(int wrap)
{
        return wrap > 0 && wrap < WRAPS ? wraps[wrap] : NULL;
}

enum enc_cipher enc_cipher_of(struct str name)
{
        return str_eqz(name, "AES-GCM") ? ENC_AES_GCM : str_eqz(name, "CHACHA20-POLY1305") ? ENC_CHACHA20_POLY1305 : ENC_CIPHER_NONE;
}

/* ---- keys ---- */

static void hmac(uint8_t out[MAC_BYTES], const void *key, size_t key_n, struct str a, struct str b)
{
        crypto_auth_hmacsha256_state st;
        crypto_auth_hmacsha256_init(&st, key, key_n);
        crypto_auth_hmacsha256_update(&st, (const uint8_t *)a.p, a.n);
        crypto_auth_hmacsha256_update(&st, (const uint8_t *)b.p, b.n);
        crypto_auth_hmacsha256_final(&st, out);
        sodium_memzero(&st, sizeof st);
}

/* HKDF-SHA256, one block. No salt is a salt of zeros. */
static void derive(uint8_t out[32], const uint8_t *file_key, struct str salt, struct str info)
{
        static const uint8_t zeros[32];
        uint8_t prk[MAC_BYTES];
        hmac(prk, salt.n ? salt.p : (const char *)zeros, salt.n ? salt.n : sizeof zeros, str_n(file_key, ENC_FILE_KEY_BYTES), STR(""));
        hmac(out, prk, sizeof prk, info, STR("\x01"));
        sodium_memzero(prk, sizeof prk);
}

bool enc_is_slow(const struct enc_keys *k)
{
        return k->cipher == ENC_AES_GCM && !crypto_aead_aes256gcm_is_available();
}

int enc_keys_init(struct enc_keys *k, const uint8_t file_key[ENC_FILE_KEY_BYTES], const uint8_t *nonce_prefix, enum enc_cipher cipher)
{
        if (sodium_init() < 0)
                return -ENOSYS;
        memset(k, 0, sizeof *k);
        k->cipher = cipher;
        memcpy(k->nonce_prefix, nonce_prefix, sizeof k->nonce_prefix);
        derive(k->header, file_key, STR(""), STR("header"));
        derive(k->payload, file_key, str_n(nonce_prefix, ENC_NONCE_PREFIX_BYTES), STR("payload"));
        if (cipher == ENC_AES_GCM && crypto_aead_aes256gcm_is_available())
                crypto_aead_aes256gcm_beforenm(&k->gcm, k->payload);
        return 0;
}

void enc_keys_fini(struct enc_keys *k)
{
        sodium_memzero(k, sizeof *k);
}

/* ---- header ---- */

static void header_mac(const struct enc_keys *k, struct str manifest, uint8_t out[MAC_BYTES])
{
        crypto_auth_hmacsha256_state st;
        crypto_auth_hmacsha256_init(&st, k->header, sizeof k->header);
        crypto_auth_hmacsha256_update(&st, (const uint8_t *)SCHEME "\n", sizeof SCHEME);
        crypto_auth_hmacsha256_update(&st, (const uint8_t *)manifest.p, manifest.n);
        crypto_auth_hmacsha256_update(&st, (const uint8_t *)"\n", 1);
        crypto_auth_hmacsha256_final(&st, out);
        sodium_memzero(&st, sizeof st);
}

static struct str manifest_write(struct arena *a, const struct enc_manifest *m)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv_nonempty(&w, "k", m->key_name);
        json_key(&w, STR("kw"));
        json_int(&w, m->wrap);
        json_kv(&w, "wfk", base64_encode(a, m->wrapped_key));
        json_key(&w, STR("cph"));
        json_int(&w, m->cipher);
        json_kv(&w, "np", base64_encode(a, str_n(m->nonce_prefix, sizeof m->nonce_prefix)));
        json_object_end(&w);
        char *text = b.failed ? NULL : arena_strdup(a, json_escape_html(a, buf_str(&b)));
        buf_fini(&b);
        return str_of(text);
}

int enc_header_write(struct arena *a, const struct enc_manifest *m, const struct enc_keys *k, struct str *ret)
{
        uint8_t mac[MAC_BYTES];
        struct str manifest = manifest_write(a, m);
        if (!manifest.p)
                return -ENOMEM;
        header_mac(k, manifest, mac);
        struct str code = base64_encode(a, str_n(mac, sizeof mac));
        char *text = code.p ? arena_printf(a, SCHEME "\n%s\n%s\n", manifest.p, code.p) : NULL;
        if (!text)
                return -ENOMEM;
        *ret = str_of(text);
        return ret->n > ENC_HEADER_MAX_BYTES ? -EMSGSIZE : 0;
}

int enc_header_find(struct str bytes, bool at_end, struct enc_header *ret, const char **ret_err)
{
        struct str line[3] = {{0}};
        size_t from = 0;
        int n = 0;
        for (; n < 3; n++) {
                ptrdiff_t lf = str_chr(str_skip(bytes, from), '\n');
                if (lf < 0)
                        break;
                *ret_err = lf == 0 ? "invalid format" : n == 0 && !str_eq(str_n(bytes.p, (size_t)lf), STR(SCHEME)) ? "unsupported scheme" : NULL;
                if (*ret_err)
                        return -EBADMSG;
                line[n] = str_n(bytes.p + from, (size_t)lf);
                from += (size_t)lf + 1;
        }
        if (n < 3 && !at_end)
                return -EAGAIN;
        *ret_err = n < 1 ? "scheme name not found" : n < 2 ? "manifest not found" : "message authentication code not found";
        if (n < 3)
                return -EBADMSG;
        *ret = (struct enc_header){line[1], line[2], from};
        return 0;
}

static bool read_base64(struct json_reader *r, struct arena *a, struct str *to)
{
        struct str text;
        if (!json_read_string(r, a, &text) || str_chr(text, '-') >= 0 || str_chr(text, '_') >= 0)
                return false;
        *to = base64_decode(a, text);
        return to->p != NULL;
}

int enc_manifest_read(struct arena *a, struct str text, struct enc_manifest *ret)
{
        struct json_reader r;
        struct str name, prefix = STR("");
        int64_t wrap = 0, cipher = 0;
        bool ok = true;
        memset(ret, 0, sizeof *ret);
        json_read_init(&r, text);
        if (!json_enter_object(&r))
                return -EBADMSG;
        while (ok && json_next_member(&r, a, &name)) {
                if (json_peek(&r) == JSON_NULL)
                        ok = json_skip(&r);
                else if (str_ieq(name, STR("k")))
                        ok = json_read_string(&r, a, &ret->key_name);
                else if (str_ieq(name, STR("kw")))
                        ok = json_read_int64(&r, &wrap);
                else if (str_ieq(name, STR("cph")))
                        ok = json_read_int64(&r, &cipher);
                else if (str_ieq(name, STR("wfk")))
                        ok = read_base64(&r, a, &ret->wrapped_key);
                else if (str_ieq(name, STR("np")))
                        ok = read_base64(&r, a, &prefix);
                else
                        ok = json_skip(&r);
        }
        if (!ok || r.error || !json_at_end(&r))
                return a->exhausted ? -ENOMEM : -EBADMSG;
        if (wrap <= 0 || wrap >= WRAPS || (cipher != ENC_AES_GCM && cipher != ENC_CHACHA20_POLY1305) || !ret->wrapped_key.n ||
            prefix.n != ENC_NONCE_PREFIX_BYTES)
                return -EBADMSG;
        ret->wrap = (int)wrap;
        ret->cipher = (enum enc_cipher)cipher;
        memcpy(ret->nonce_prefix, prefix.p, prefix.n);
        return 0;
}

int enc_header_verify(struct arena *a, const struct enc_header *h, const struct enc_keys *k, bool *ret_ok, const char **ret_err)
{
        uint8_t mac[MAC_BYTES];
        struct str given = base64_decode(a, h->mac);
        if (!given.p) {
                *ret_err = "failed to decode header's signature: illegal base64 data";
                return a->exhausted ? -ENOMEM : -EBADMSG;
        }
        header_mac(k, h->manifest, mac);
        *ret_ok = given.n == sizeof mac && sodium_memcmp(given.p, mac, sizeof mac) == 0;
        return 0;
}

/* ---- segments ---- */

static void nonce_of(const struct enc_keys *k, uint32_t number, bool last, uint8_t out[NONCE_BYTES])
{
        memcpy(out, k->nonce_prefix, ENC_NONCE_PREFIX_BYTES);
        for (int i = 0; i < 4; i++)
                out[ENC_NONCE_PREFIX_BYTES + i] = (uint8_t)(number >> (24 - 8 * i));
        out[NONCE_BYTES - 1] = last;
}

static bool slow_gcm(const struct enc_keys *k, uint8_t *data, size_t n, const uint8_t *nonce, bool seal)
{
        Aes aes;
        if (wc_AesInit(&aes, NULL, INVALID_DEVID))
                return false;
        int r = wc_AesGcmSetKey(&aes, k->payload, sizeof k->payload);
        if (!r && seal)
                r = wc_AesGcmEncrypt(&aes, data, data, (word32)n, nonce, NONCE_BYTES, data + n, ENC_TAG_BYTES, NULL, 0);
        else if (!r)
                r = wc_AesGcmDecrypt(&aes, data, data, (word32)n, nonce, NONCE_BYTES, data + n, ENC_TAG_BYTES, NULL, 0);
        wc_AesFree(&aes);
        return r == 0;
}

void enc_seal(const struct enc_keys *k, uint8_t *data, size_t n, uint32_t number, bool last)
{
        uint8_t nonce[NONCE_BYTES];
        nonce_of(k, number, last, nonce);
        if (k->cipher == ENC_CHACHA20_POLY1305)
                crypto_aead_chacha20poly1305_ietf_encrypt_detached(data, data + n, NULL, data, n, NULL, 0, NULL, nonce, k->payload);
        else if (enc_is_slow(k))
                slow_gcm(k, data, n, nonce, true);
        else
                crypto_aead_aes256gcm_encrypt_detached_afternm(data, data + n, NULL, data, n, NULL, 0, NULL, nonce, &k->gcm);
}

bool enc_open(const struct enc_keys *k, uint8_t *data, size_t n, uint32_t number, bool last)
{
        uint8_t nonce[NONCE_BYTES];
        if (n < ENC_TAG_BYTES)
                return false;
        n -= ENC_TAG_BYTES;
        nonce_of(k, number, last, nonce);
        if (k->cipher == ENC_CHACHA20_POLY1305)
                return !crypto_aead_chacha20poly1305_ietf_decrypt_detached(data, NULL, data, n, data + n, NULL, 0, nonce, k->payload);
        if (enc_is_slow(k))
                return slow_gcm(k, data, n, nonce, false);
        return !crypto_aead_aes256gcm_decrypt_detached_afternm(data, NULL, data, n, data + n, NULL, 0, nonce, &k->gcm);
}
