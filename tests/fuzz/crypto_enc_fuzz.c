/* Headers of documents: whatever comes in is refused or read; what was read is written as a header that is read as the same. */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/crypto_enc.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        static const uint8_t file_key[ENC_FILE_KEY_BYTES];
        struct arena a = {.cap_bytes = 1 << 20};
        struct enc_header h = {0}, h2;
        struct enc_manifest m, m2;
        struct enc_keys k;
        struct str text;
        const char *err = NULL;
        bool ok;
        int r = enc_header_find(str_n(data, n), false, &h, &err), end = enc_header_find(str_n(data, n), true, &h, &err);
        must_hold(r == end || (r == -EAGAIN && end == -EBADMSG && err));
        must_hold(r != 0 || h.n <= n);
        if (r == 0 && enc_manifest_read(&a, h.manifest, &m) == 0 && enc_keys_init(&k, file_key, m.nonce_prefix, m.cipher) == 0) {
                must_hold(enc_wrap_name(m.wrap) && enc_wrap_of(str_of(enc_wrap_name(m.wrap))) == m.wrap);
                enc_header_verify(&a, &h, &k, &ok, &err);
                if (enc_header_write(&a, &m, &k, &text) == 0) {
                        must_hold(enc_header_find(text, false, &h2, &err) == 0 && h2.n == text.n);
                        must_hold(enc_header_verify(&a, &h2, &k, &ok, &err) == -ENOMEM || ok);
                        r = enc_manifest_read(&a, h2.manifest, &m2);
                        must_hold(r == -ENOMEM || (r == 0 && m2.wrap == m.wrap && str_eq(m2.wrapped_key, m.wrapped_key)));
                }
                enc_keys_fini(&k);
        }
        arena_fini(&a);
        return 0;
}
