/*
 * Documents, a segment at a time. One byte more than a segment is read before it is worked on, for only what follows tells whether
 * it is the last one. The file key is wiped as soon as the segments' keys are derived.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/crypto.h"
#include "plugin/v1/crypto.pb-c.h"
#include "sdk/base/work.h"

_Static_assert(ENC_HEADER_MAX_BYTES <= ENC_SEGMENT_BYTES, "a header fits where a segment does");

typedef Microdapr__Plugin__V1__CryptoRequest plugin_request;
typedef Microdapr__Plugin__V1__CryptoResponse plugin_response;

enum { SEALED_BYTES = ENC_SEGMENT_BYTES + ENC_TAG_BYTES, TURN_SEGMENTS = 16 };

struct doc {
        struct call *c;
        struct crypto_source *from;
        struct crypto_sink *to;
        const char **error;
        struct enc_keys keys;
        uint8_t front[CRYPTO_FRONT_BYTES];
        uint8_t data[SEALED_BYTES + 1];
        size_t n;              /* bytes of data that were read ahead */
};

/* text may be NULL: there was no memory for it. */
static int fail(struct doc *d, int code, const char *text)
{
        *d->error = text ? text : "out of memory";
        return code;
}

/* ---- the file key ---- */

/* WrapKey or UnwrapKey. 0 and *ret, or the text in *ret_err. */
static int ask_plugin(struct call *c, struct component *comp, const char *method, plugin_request *ask, struct str *ret, const char **ret_err)
{
        plugin_response *answer;
        int code = crypto_call(c, comp, "crypto_op", method, &ask->base, &microdapr__plugin__v1__crypto_response__descriptor, &answer, ret_err);
        if (!code)
                *ret = pb_str(answer->data);
        return code;
}

static int start_encryption(struct doc *d, const struct crypto_encrypt *o, struct str *ret_header)
{
        struct enc_manifest m = {.wrap = enc_wrap_of(str_of(o->algorithm)), .cipher = ENC_AES_GCM};
        plugin_request ask = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        uint8_t key[ENC_FILE_KEY_BYTES];
        const char *why;
        if (!m.wrap)
                return fail(d, CRYPTO_START_FAILED,
                            arena_printf(d->c->arena, "option Algorithm is not valid: algorithm %s is not supported", o->algorithm));
        if (*o->cipher && !(m.cipher = enc_cipher_of(str_of(o->cipher))))
                return fail(d, CRYPTO_START_FAILED,
                            arena_printf(d->c->arena, "option Cipher is not valid: cipher %s is not supported", o->cipher));
        if (sodium_init() < 0)
                return fail(d, CRYPTO_START_FAILED, "failed to generate file key: libsodium does not start");
        randombytes_buf(key, sizeof key);
        randombytes_buf(m.nonce_prefix, sizeof m.nonce_prefix);
        enc_keys_init(&d->keys, key, m.nonce_prefix, m.cipher);
        ask.data = pb_bytes(str_n(key, sizeof key));
        ask.algorithm = enc_wrap_name(m.wrap);
        ask.key_name = o->key_name;
        int r = ask_plugin(d->c, o->comp, CRYPTO_SERVICE "WrapKey", &ask, &m.wrapped_key, &why);
        sodium_memzero(key, sizeof key);
        if (r)
                return fail(d, CRYPTO_START_FAILED, arena_printf(d->c->arena, "failed to wrap the file key: %s", why));
        m.key_name = o->omit_key_name ? STR("") : str_of(*o->decryption_key_name ? o->decryption_key_name : o->key_name);
        r = enc_header_write(d->c->arena, &m, &d->keys, ret_header);
        return !r ? 0 : fail(d, CRYPTO_START_FAILED, r == -EMSGSIZE ? "failed to sign header: header is too long" : NULL);
}

/* Reads up to the end of the header; what was read behind it is left in data. */
static int read_header(struct doc *d, struct enc_header *h)
{
        for (;;) {
                bool full = d->n == ENC_HEADER_MAX_BYTES;
                ssize_t got = full ? 0 : d->from->read(d->from, d->data + d->n, ENC_HEADER_MAX_BYTES - d->n);
                const char *why = NULL;
                if (got > 0)
                        d->n += (size_t)got;
                int r = enc_header_find(str_n(d->data, d->n), got <= 0, h, &why);
                if (r != -EAGAIN)
                        return r ? fail(d, CRYPTO_START_FAILED, arena_printf(d->c->arena, "invalid header: %s", why)) : 0;
        }
}

static int start_decryption(struct doc *d, const struct crypto_decrypt *o)
{
        static const uint8_t no_key[ENC_FILE_KEY_BYTES];
        plugin_request ask = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        struct enc_header h;
        struct enc_manifest m;
        struct str key;
        const char *why = NULL;
        bool ok = false;
        int r = read_header(d, &h);
        if (r)
                return r;
        r = enc_manifest_read(d->c->arena, h.manifest, &m);
        if (r)
                return fail(d, CRYPTO_START_FAILED, "invalid header: invalid manifest");
        ask.key_name = *o->key_name ? o->key_name : arena_strdup(d->c->arena, m.key_name);
        if (!ask.key_name || !*ask.key_name)
                return fail(d, CRYPTO_START_FAILED, "document's manifest does not contain a key name, and no key name was provided");
        ask.data = pb_bytes(m.wrapped_key);
        ask.algorithm = enc_wrap_name(m.wrap);
        r = ask_plugin(d->c, o->comp, CRYPTO_SERVICE "UnwrapKey", &ask, &key, &why);
        /* Whether a key exists or a wrapped key is wrong is not told: all failures end at the header's code. */
        bool have = !r && key.n == ENC_FILE_KEY_BYTES;
        r = enc_keys_init(&d->keys, have ? (const uint8_t *)key.p : no_key, m.nonce_prefix, m.cipher);
        if (have)
                sodium_memzero((void *)key.p, key.n);
        if (!r)
                r = enc_header_verify(d->c->arena, &h, &d->keys, &ok, &why);
        if (r)
                return fail(d, CRYPTO_START_FAILED, why);
        if (!ok)
                return fail(d, CRYPTO_START_FAILED, "failed to validate the document's signature");
        d->n -= h.n;
        memmove(d->data, d->data + h.n, d->n);
        return 0;
}

/* ---- segments ---- */

struct segment {
        struct doc *d;
        size_t n;
        uint32_t number;
        bool last, seal;
};

static int work_on(void *arg)
{
        const struct segment *s = arg;
        if (!s->seal)
                return enc_open(&s->d->keys, s->d->data, s->n, s->number, s->last) ? 0 : -EBADMSG;
        enc_seal(&s->d->keys, s->d->data, s->n, s->number, s->last);
        return 0;
}

/* Fills data up to `want` bytes or the end. */
static int fill(struct doc *d, size_t want)
{
        while (d->n < want) {
                ssize_t got = d->from->read(d->from, d->data + d->n, want - d->n);
                if (got < 0)
                        return fail(d, -EIO, d->from->error);
                if (got == 0)
                        break;
                d->n += (size_t)got;
        }
        return 0;
}

static int run_segments(struct doc *d, bool seal)
{
        size_t size = seal ? ENC_SEGMENT_BYTES : SEALED_BYTES;
        for (uint64_t number = 0;; number++) {
                int r = fill(d, size + 1);
                if (r)
                        return r;
                if (d->n == 0)
                        return 0; /* a document of nothing: an empty segment cannot follow another */
                struct segment s = {d, d->n > size ? size : d->n, (uint32_t)number, d->n <= size, seal};
                uint8_t ahead = d->data[size];
                bool more = d->n > size;
                if (more && number + 1 == ENC_SEGMENTS_MAX)
                        return fail(d, -EIO, "input stream is too large");
                r = enc_is_slow(&d->keys) ? work_run(work_on, &s) : work_on(&s);
                if (r)
                        return fail(d, -EIO, arena_printf(d->c->arena, "error processing segment %llu: failed to decrypt segment",
                                                          (unsigned long long)number));
                r = d->to->write(d->to, str_n(d->data, seal ? s.n + ENC_TAG_BYTES : s.n - ENC_TAG_BYTES));
                if (r || !more)
                        return r;
                d->data[0] = ahead;
                d->n = 1;
                if (number % TURN_SEGMENTS == TURN_SEGMENTS - 1 && (r = fiber_yield()))
                        return r;
        }
}

/* ---- both ---- */

static struct doc *doc_new(struct call *c, struct crypto_source *from, struct crypto_sink *to, const char **error)
{
        struct doc *d = aligned_alloc(64, (sizeof *d + 63) / 64 * 64);
        if (!d) {
                *error = "out of memory";
                return NULL;
        }
        d->c = c;
        d->from = from;
        d->to = to;
        d->error = error;
        d->n = 0;
        return d;
}

static void doc_free(struct doc *d)
{
        sodium_memzero(d, sizeof *d);
        free(d);
}

int crypto_encrypt(struct call *c, const struct crypto_encrypt *o, struct crypto_source *from, struct crypto_sink *to, const char **error)
{
        struct doc *d = doc_new(c, from, to, error);
        struct str header;
        if (!d)
                return CRYPTO_START_FAILED;
        int r = start_encryption(d, o, &header);
        if (!r) {
                memcpy(d->data, header.p, header.n); /* there is room in front of it */
                r = to->write(to, str_n(d->data, header.n));
        }
        if (!r)
                r = run_segments(d, true);
        doc_free(d);
        return r;
}

int crypto_decrypt(struct call *c, const struct crypto_decrypt *o, struct crypto_source *from, struct crypto_sink *to, const char **error)
{
        struct doc *d = doc_new(c, from, to, error);
        if (!d)
                return CRYPTO_START_FAILED;
        int r = start_decryption(d, o);
        if (!r)
                r = run_segments(d, false);
        doc_free(d);
        return r;
}
