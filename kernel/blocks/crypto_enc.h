/*
 * The document format dapr.io/enc/v1, no I/O: a header of three lines (name of the scheme, manifest as compact JSON, base64 of
 * HMAC-SHA256 over both lines), then segments of 64 KiB plaintext with a tag of 16 bytes each. A document of nothing has no segment.
 *
 *   file key       32 random bytes, wrapped by the component's key      header key   HKDF-SHA256(file key, no salt, "header")
 *   nonce          prefix (7) + number of the segment (4, big endian) + 1 for the last one      payload key  HKDF(…, prefix, "payload")
 *
 * So a segment that was moved, left out, cut off or taken from elsewhere does not open.
 */
#ifndef KERNEL_CRYPTO_ENC_H
#define KERNEL_CRYPTO_ENC_H

#include <sodium.h>

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum {
        ENC_SEGMENT_BYTES = 64 * 1024,    /* of plaintext; all but the last are of this size */
        ENC_TAG_BYTES = 16,
        ENC_HEADER_MAX_BYTES = 64 * 1024,
        ENC_FILE_KEY_BYTES = 32,
        ENC_NONCE_PREFIX_BYTES = 7,
};
#define ENC_SEGMENTS_MAX UINT64_C(0x100000000)

enum enc_cipher { ENC_CIPHER_NONE, ENC_AES_GCM, ENC_CHACHA20_POLY1305 }; /* values as in the manifest */
/* "AES-GCM", "CHACHA20-POLY1305"; ENC_CIPHER_NONE when unknown. */
enum enc_cipher enc_cipher_of(struct str name);
/* Number of a key wrapping algorithm in the manifest, by name or alias ("AES", "RSA"); 0 when unknown. */
int enc_wrap_of(struct str name);
const char *enc_wrap_name(int wrap); /* "A256KW"; NULL when unknown */

struct enc_manifest {
        struct str key_name;       /* empty = not written */
        int wrap;
        struct str wrapped_key;
        enum enc_cipher cipher;
        uint8_t nonce_prefix[ENC_NONCE_PREFIX_BYTES];
};

struct enc_keys {
        crypto_aead_aes256gcm_state gcm; /* of ciphers and machines that use it */
        uint8_t header[32], payload[32];
        uint8_t nonce_prefix[ENC_NONCE_PREFIX_BYTES];
        enum enc_cipher cipher;
};
/* Derives both keys. 0, or -ENOSYS when libsodium does not start. Wipe with enc_keys_fini(). */
int enc_keys_init(struct enc_keys *k, const uint8_t file_key[ENC_FILE_KEY_BYTES], const uint8_t *nonce_prefix, enum enc_cipher cipher);
void enc_keys_fini(struct enc_keys *k);

/* The whole header, in a. 0, -ENOMEM, or -EMSGSIZE when it is longer than ENC_HEADER_MAX_BYTES. */
int enc_header_write(struct arena *a, const struct enc_manifest *m, const struct enc_keys *k, struct str *ret);

struct enc_header { /* lines of a document's beginning, borrowed */
        struct str manifest, mac;
        size_t n;                  /* bytes up to the first segment */
};
/* Looks for the three lines in what has been read so far. 0 and *ret; -EAGAIN: more is needed; -EBADMSG with the reference's text in
 * *ret_err. at_end: there is no more (the stream ended, or ENC_HEADER_MAX_BYTES are there): never -EAGAIN. */
int enc_header_find(struct str bytes, bool at_end, struct enc_header *ret, const char **ret_err);
/* 0, -EBADMSG: not a valid manifest, or -ENOMEM. Strings of *ret are in a. */
int enc_manifest_read(struct arena *a, struct str text, struct enc_manifest *ret);
/* Is the header's code made with these keys? In constant time. -EBADMSG: the code is not base64 (text in *ret_err). */
int enc_header_verify(struct arena *a, const struct enc_header *h, const struct enc_keys *k, bool *ret_ok, const char **ret_err);

/* In place. Seal: data has room for ENC_TAG_BYTES behind its n > 0 bytes. Open: n counts the tag; false = it does not open. */
void enc_seal(const struct enc_keys *k, uint8_t *data, size_t n, uint32_t number, bool last);
bool enc_open(const struct enc_keys *k, uint8_t *data, size_t n, uint32_t number, bool last);
/* Is enc_seal/enc_open slow here (no instructions for AES), so that it belongs on a thread? */
bool enc_is_slow(const struct enc_keys *k);

#endif
